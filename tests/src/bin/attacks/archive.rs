//! Toolchain files from a stranger, read by the program that people use (case 13), and damage in the cache (case 14).

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use potluck_model::ids::Digest;
use potluck_model::plan::Family;
use potluck_node::toolchain::{Entry, Manifest};
use potluck_tests::person::Person;
use potluck_tests::run::run;
use potluck_tests::{Context, Lab, Outcome, tree};
use tar::EntryType;

use crate::board::{Attack, Board};
use crate::compiler::lossy;
use crate::submitter::bomb;

/// A refusal is given at once: before anything large was read or written.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// All attacks by files.
pub fn attacks(board: &mut Board, lab: &Lab) -> Outcome<()> {
    let desk = Desk::new(lab)?;
    board.attack("13", "toolchain files", |attack| desk.hostile_files(attack));
    board.attack("13", "10 M entries, 1 TiB", |attack| desk.huge_files(attack));
    board.attack("14", "bit flip in the cache", |attack| desk.flips_a_bit(attack));
    Ok(())
}

struct Desk<'a> {
    lab: &'a Lab,
    dir: PathBuf,
}

fn manifest() -> Manifest {
    Manifest {
        family: Family::Gcc,
        cxx: false,
        version: "12.2.0".into(),
        target: "x86_64-linux-gnu".into(),
        driver: "/usr/bin/gcc".into(),
        programs: Vec::new(),
        languages: vec!["c".into()],
        env: Vec::new(),
        entries: vec![
            Entry::Link { path: "/usr/bin/gcc".into(), target: "gcc-12".into() },
            plain("/usr/bin/gcc-12", 0o755),
        ],
        dirs: vec!["/usr/lib".into()],
        probes: Vec::new(),
    }
}

fn plain(path: &str, mode: u32) -> Entry {
    Entry::File { path: path.into(), digest: Digest::of(b"driver"), size: 6, mode }
}

/// A header that libraries refuse to write.
fn header(name: &str, kind: EntryType, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(bytes);
    header.set_mode(0o4755);
    header.set_entry_type(kind);
    if kind.is_symlink() || kind.is_hard_link() {
        let _ = header.set_link_name("/etc/passwd");
    }
    header.set_cksum();
    header
}

fn tar_of(manifest: &Manifest, more: &[(&str, EntryType, &[u8])]) -> Outcome<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let first = manifest.encode();
    tar.append(&header("manifest", EntryType::Regular, first.len() as u64), &first[..])?;
    for (name, kind, bytes) in more {
        tar.append(&header(name, *kind, bytes.len() as u64), *bytes)?;
    }
    Ok(tar.into_inner()?)
}

impl<'a> Desk<'a> {
    fn new(lab: &'a Lab) -> Outcome<Self> {
        let dir = lab.dir.join("files");
        Person::submitter().make_dir(&dir)?;
        Ok(Self { lab, dir })
    }

    fn cache(&self) -> PathBuf {
        self.lab.dir.join("submitter/cache/potluck/potluck/toolchains")
    }

    /// Everything in the store of the submitter: an import leaves something there or it does not.
    fn cached(&self) -> (u64, u64) {
        let (mut names, mut bytes) = (0, 0);
        tree::walk(&self.cache(), &mut |_, meta| {
            names += 1;
            bytes += meta.len();
        });
        (names, bytes)
    }

    /// `potluck toolchain import`: exit code, and what it said.
    fn import(&self, file: &Path) -> Outcome<(i32, String, Duration)> {
        let command = self.lab.submitter.node.command(["toolchain".as_ref(), "import".as_ref(), file.as_os_str()]);
        let seen = run(command, "potluck toolchain import")?;
        Ok((seen.exit, lossy(&seen.stderr).trim().to_owned(), seen.wall))
    }

    fn refused(&self, attack: &mut Attack, name: &str, file: &Path) -> Outcome<String> {
        let before = self.cached();
        let (exit, said, wall) = self.import(file)?;
        attack.check(exit != 0, || format!("{name}: was imported"));
        attack.check(said.contains("toolchain") && said.len() > 20, || format!("{name}: gives no reason: {said:?}"));
        attack.check(exit < 100, || format!("{name}: ended with {exit}: {said}"));
        attack
            .check(self.cached() == before, || format!("{name}: {:?} in the cache, {before:?} before", self.cached()));
        attack.check(wall < REFUSED_WITHIN, || format!("{name}: took {:.0} s", wall.as_secs_f64()));
        // What follows the file's own name, for the table.
        Ok(said.rsplit(".zst: ").next().unwrap_or_default().chars().take(72).collect())
    }

    fn write(&self, name: &str, content: &[u8]) -> Outcome<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, content).context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn pack(&self, manifest: &Manifest, more: &[(&str, EntryType, &[u8])]) -> Outcome<PathBuf> {
        self.write("evil.tar.zst", &zstd::encode_all(&tar_of(manifest, more)?[..], 1)?)
    }

    fn good(&self) -> Outcome<PathBuf> {
        let name = format!("files/{}", Digest::of(b"driver"));
        self.pack(&manifest(), &[(&name, EntryType::Regular, b"driver")])
    }

    /// "..", absolute names, links, devices, special bits, cut and flipped files.
    fn hostile_files(&self, attack: &mut Attack) -> Outcome<()> {
        let name = format!("files/{}", Digest::of(b"driver"));
        let mut tried = 0;
        let entries: [(&str, EntryType); 11] = [
            ("../../evil", EntryType::Regular),
            ("/etc/evil", EntryType::Regular),
            ("files/../../evil", EntryType::Regular),
            ("files/evil", EntryType::Regular),
            (&name, EntryType::Symlink),
            (&name, EntryType::Link),
            (&name, EntryType::Char),
            (&name, EntryType::Block),
            (&name, EntryType::Fifo),
            (&name, EntryType::Directory),
            (&name, EntryType::GNULongName),
        ];
        for (entry, kind) in entries {
            self.refused(
                attack,
                &format!("{entry} as {kind:?}"),
                &self.pack(&manifest(), &[(entry, kind, b"driver")])?,
            )?;
            tried += 1;
        }
        for (what, entry) in [
            ("set-user-ID", plain("/usr/bin/su", 0o4755)),
            ("set-group-ID", plain("/usr/bin/su", 0o2755)),
            ("..", plain("/usr/../etc/evil", 0o644)),
            ("a relative path", plain("usr/bin/evil", 0o644)),
            ("/proc", plain("/proc/self/mem", 0o644)),
            ("/dev", plain("/dev/evil", 0o644)),
            ("/tmp", plain("/tmp/evil", 0o644)),
            ("the sandbox's own", plain("/.potluck/evil", 0o644)),
        ] {
            let bad = Manifest { entries: vec![entry], ..manifest() };
            let said = self.refused(attack, what, &self.pack(&bad, &[(&name, EntryType::Regular, b"driver")])?)?;
            if what == "set-user-ID" {
                attack.saw(format!("\"{}\"", said.lines().next().unwrap_or_default()));
            }
            tried += 1;
        }
        self.refused(attack, "other bytes", &self.pack(&manifest(), &[(&name, EntryType::Regular, b"DRIVER")])?)?;
        let good = fs::read(self.good()?)?;
        for part in 1..4 {
            let cut = self.write("evil.tar.zst", &good[..good.len() * part / 4])?;
            self.refused(attack, "cut short", &cut)?;
        }
        self.refused(attack, "empty", &self.write("evil.tar.zst", b"")?)?;
        tried += 5;
        // A good one is taken: the refusals above are not for want of a reader.
        let (exit, said, _) = self.import(&self.good()?)?;
        attack.check(exit == 0, || format!("a good file is refused: {said}"));
        attack.saw(format!("{tried} files refused, a good one taken"));
        Ok(())
    }

    /// More entries and bytes than anything may have.
    fn huge_files(&self, attack: &mut Attack) -> Outcome<()> {
        let mut unlike = manifest();
        unlike.version = "12.2.1".into();
        let mut head = tar_of(&unlike, &[])?;
        head.truncate(head.len() - 1024);
        let entry = header("x", EntryType::Regular, 0);
        let path = self.dir.join("entries.tar.zst");
        let mut out = zstd::Encoder::new(fs::File::create(&path)?, 1)?;
        out.write_all(&head)?;
        let block = entry.as_bytes().repeat(2000);
        for _ in 0..5000 {
            out.write_all(&block)?;
        }
        out.finish()?.flush()?;
        let said = self.refused(attack, "10 M entries", &path)?;
        attack.saw(format!("10 M entries in {} KiB: \"{said}\"", fs::metadata(&path)?.len() >> 10));
        fs::remove_file(&path)?;
        // A manifest of a tebibyte, and contents of a tebibyte, of which the format can hold 32 GiB in 1 MiB.
        let mut bombs = Vec::new();
        let octal = |header: &mut tar::Header| {
            // Too large for octal digits: the binary form.
            header.as_old_mut().size = [0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
            header.set_cksum();
        };
        let mut first = header("manifest", EntryType::Regular, 0);
        octal(&mut first);
        bombs.push(("a manifest of 1 TiB", first.as_bytes().to_vec()));
        let mut large = header(&format!("files/{}", Digest::of(b"driver")), EntryType::Regular, 0);
        octal(&mut large);
        bombs.push(("a content of 1 TiB", [&head[..], large.as_bytes()].concat()));
        let many: Vec<Entry> = (0..200_001)
            .map(|n| Entry::File {
                path: format!("/x/{n}").into(),
                digest: Digest::of(b"driver"),
                size: 6,
                mode: 0o644,
            })
            .collect();
        let mut tar = tar_of(&Manifest { entries: many, ..manifest() }, &[])?;
        tar.truncate(tar.len() - 1024);
        bombs.push(("200,001 files", tar));
        let big = Manifest {
            entries: (0..2048u64)
                .map(|n| Entry::File {
                    path: format!("/x/{n:04}").into(),
                    digest: Digest::of(&n.to_le_bytes()),
                    size: 512 << 20,
                    mode: 0o644,
                })
                .collect(),
            ..manifest()
        };
        bombs.push(("1 TiB in a list", tar_of(&big, &[])?));
        for (name, head) in bombs {
            // Two frames, one behind the other, are one stream.
            let file = self.write("bomb.tar.zst", &[zstd::encode_all(&head[..], 1)?, bomb()].concat())?;
            let said = self.refused(attack, name, &file)?;
            attack.saw(format!("{name}: {said}"));
        }
        Ok(())
    }

    /// Case 14: a bit flips in the cache of an imported toolchain; the check finds it, and importing again heals it.
    fn flips_a_bit(&self, attack: &mut Attack) -> Outcome<()> {
        let node = &self.lab.submitter.node;
        let (exit, said, _) = self.import(&self.good()?)?;
        attack.check(exit == 0, || format!("a good file is refused: {said}"));
        let mut held = None;
        tree::walk(&self.cache(), &mut |path, meta| {
            if meta.is_file() && path.file_name().is_some_and(|n| *n == *Digest::of(b"driver").to_string()) {
                held = Some(path.to_path_buf());
            }
        });
        let held = held.context(|| "the content is not in the cache".into())?;
        let verify = || run(node.command(["toolchain", "verify"]), "potluck toolchain verify");
        let sound = verify()?;
        attack.check(!lossy(&sound.stderr).contains("damaged"), || "the check finds damage where there is none".into());
        let mut content = Vec::new();
        fs::File::open(&held)?.read_to_end(&mut content)?;
        content[3] ^= 1;
        fs::write(&held, &content)?;
        // Not passed on either.
        let out = self.dir.join("again.tar.zst");
        let id = held.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let export =
            run(node.command(["toolchain", "export", &id, &out.to_string_lossy()]), "potluck toolchain export")?;
        attack.check(export.exit != 0, || format!("a damaged toolchain was exported: {}", lossy(&export.stdout)));
        let found = verify()?;
        let said = lossy(&found.stderr);
        attack.check(found.exit != 0 && said.contains("damaged"), || format!("the check finds nothing: {said}"));
        attack.saw(format!("\"{}\"", said.trim()));
        let (exit, said, _) = self.import(&self.good()?)?;
        attack.check(exit == 0 && fs::read(&held).is_ok_and(|now| now == b"driver"), || format!("not healed: {said}"));
        Ok(())
    }
}
