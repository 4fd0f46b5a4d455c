//! The desktop's list of what starts with it: one file in the person's autostart folder, there or not as the settings
//! say.

use std::path::{Path, PathBuf};

/// `$XDG_CONFIG_HOME/autostart`.
pub fn folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p: &PathBuf| p.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("autostart"))
}

/// Where the program lies after an upgrade under the running one, whose own path the kernel then calls deleted.
pub fn lasting(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) if !program.exists() => PathBuf::from(path),
        _ => program,
    }
}

/// Makes the entry for `program` in `folder`, or removes it.
pub fn set(folder: &Path, program: &Path, on: bool) -> std::io::Result<()> {
    let file = folder.join("potluck.desktop");
    if !on {
        return match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let wanted = entry(program);
    if std::fs::read_to_string(&file).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    std::fs::write(&file, wanted)
}

fn entry(program: &Path) -> String {
    format!(
        "[Desktop Entry]\nType=Application\nName=Potluck\nComment=Lends and borrows processor cores for compiling\n\
         Exec={} --hidden\nTryExec={}\nIcon=potluck\nTerminal=false\nX-GNOME-Autostart-Delay=5\n",
        quoted(&program.to_string_lossy()),
        program.to_string_lossy().replace('\\', "\\\\").replace(char::is_control, "")
    )
}

/// As the Desktop Entry Specification wants it in Exec: quotes, then the escapes of a string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '`' | '$' => out.extend(['\\', '\\', c]),
            '\\' => out.push_str("\\\\\\\\"),
            '%' => out.push_str("%%"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_there_when_wanted_and_gone_when_not() {
        let dir = std::env::temp_dir().join(format!("potluck-autostart-{}", std::process::id()));
        let folder = dir.join("autostart");
        set(&folder, Path::new("/opt/a b/potluck-tray"), false).unwrap();
        assert!(!folder.exists(), "nothing is made for nothing");
        set(&folder, Path::new("/opt/a b/potluck-tray"), true).unwrap();
        let text = std::fs::read_to_string(folder.join("potluck.desktop")).unwrap();
        assert!(text.contains("\nExec=\"/opt/a b/potluck-tray\" --hidden\nTryExec=/opt/a b/potluck-tray\n"), "{text}");
        set(&folder, Path::new("/opt/a b/potluck-tray"), false).unwrap();
        assert!(!folder.join("potluck.desktop").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_upgraded_program_keeps_its_place() {
        assert_eq!(lasting("/usr/bin/potluck-tray (deleted)".into()), Path::new("/usr/bin/potluck-tray"));
        assert_eq!(lasting("/usr/bin/potluck-tray".into()), Path::new("/usr/bin/potluck-tray"));
    }

    #[test]
    fn odd_folders_are_quoted() {
        assert_eq!(quoted(r#"/a"b$c%d\e"#), r#""/a\\"b\\$c%%d\\\\e""#);
    }
}
