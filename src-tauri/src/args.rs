//! What the app was told when it was started, the first time or again.

/// Shown by `--help`.
pub const HELP: &str = "\
The tray app of Potluck.

Usage: potluck-tray [--hidden | --show] [pool:join?LINK]

  --hidden   no window, for the start with the desktop
  --show     opens the window
  --help     this text
  --version  this version

A link opens the window, ready to join. Without a display the node alone is run.
POTLUCK_PANEL=light or dark chooses the icons, where the panel's colour is not recognised.";

/// A start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// No window, also where there is no tray.
    pub hidden: bool,
    /// The window at once.
    pub show: bool,
    /// An invitation.
    pub link: Option<String>,
}

/// What to do with the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Run.
    Run(Args),
    /// Print this and end.
    Print(String),
}

/// Longest link that is looked at: those of this version are below 1000 characters.
const LINK_CHARS_MAX: usize = 4096;

/// Reads the arguments behind the program's name. The error is a sentence for the user.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Parsed, String> {
    let mut out = Args::default();
    for arg in args {
        match arg.as_str() {
            "--hidden" => out.hidden = true,
            "--show" => out.show = true,
            "--help" | "-h" => return Ok(Parsed::Print(HELP.to_owned())),
            "--version" | "-V" => return Ok(Parsed::Print(format!("potluck-tray {}", env!("CARGO_PKG_VERSION")))),
            link if link.starts_with("pool:") && link.len() <= LINK_CHARS_MAX => out.link = Some(link.to_owned()),
            _ => return Err(format!("{}: unknown argument\nhint: potluck-tray --help", arg.escape_debug())),
        }
    }
    Ok(Parsed::Run(out))
}

/// The view of the window for joining with `link`, which is a stranger's text: everything but letters and digits is
/// encoded.
pub fn join_view(link: &str) -> String {
    let mut view = "welcome/team/".to_owned();
    for byte in link.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => view.push(byte.into()),
            _ => view.push_str(&format!("%{byte:02X}")),
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Parsed, String> {
        parse(args.iter().map(|a| (*a).to_owned()))
    }

    #[test]
    fn starts_are_read() {
        assert_eq!(of(&[]), Ok(Parsed::Run(Args::default())));
        assert_eq!(of(&["--hidden"]), Ok(Parsed::Run(Args { hidden: true, ..Args::default() })));
        let link = Some("pool:join?t=1".to_owned());
        assert_eq!(of(&["--show", "pool:join?t=1"]), Ok(Parsed::Run(Args { show: true, hidden: false, link })));
        assert!(of(&["--nonsense"]).unwrap_err().contains("hint:"));
        assert!(of(&[&format!("pool:{}", "x".repeat(5000))]).is_err());
    }

    #[test]
    fn a_link_cannot_lead_anywhere_else() {
        assert_eq!(join_view("pool:join?a=1&b=/../x#y"), "welcome/team/pool%3Ajoin%3Fa%3D1%26b%3D%2F..%2Fx%23y");
    }
}
