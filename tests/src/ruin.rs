//! Ways in which a disk, a crash or a person ruins a file, and the state of a node before and after.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::person::Person;
use crate::wait::wait_until;
use crate::{Context, Outcome, tree};

/// The processes of a stopped node's jobs have ended within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing is left of its content.
    Emptied,
    /// The second half is missing.
    Halved,
    /// The last byte is missing.
    Shortened,
    /// One bit of the first byte.
    FirstBit,
    /// One bit in the middle.
    MiddleBit,
    /// One bit of the last byte.
    LastBit,
    /// One bit in each of eight places that the seed chooses.
    Bits,
    /// As long as before, and of nothing that makes sense.
    Garbage,
    /// A folder with something in it has its name.
    Folder,
    /// Nobody may read or write it.
    Closed,
    /// It is gone.
    Removed,
}

/// All of them.
pub const WAYS: &[Way] = &[
    Way::Emptied,
    Way::Halved,
    Way::Shortened,
    Way::FirstBit,
    Way::MiddleBit,
    Way::LastBit,
    Way::Bits,
    Way::Garbage,
    Way::Folder,
    Way::Closed,
    Way::Removed,
];

/// What was in a file, and what is in it now.
#[derive(Clone, Debug)]
pub struct Ruined {
    /// Where.
    pub path: PathBuf,
    /// How.
    pub way: Way,
    /// Its bytes now; None where it has none of its own any more.
    pub bytes: Option<Vec<u8>>,
}

/// The generator of `Way::Bits` and `Way::Garbage`, and of whoever else needs numbers from a seed: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() % n.max(1) as u64) as usize
    }
}

/// Ruins a plain file of `person`. None: this way it stays as it was, as a file of no bytes is not halved.
pub fn ruin(path: &Path, way: Way, person: Person, random: &mut Random) -> Outcome<Option<Ruined>> {
    let doing = || format!("ruining {} ({way:?})", path.display());
    let before = fs::read(path).context(doing)?;
    let mut bytes = before.clone();
    let flip = |bytes: &mut Vec<u8>, at: usize| {
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << (at % 8);
        }
    };
    match way {
        Way::Emptied => bytes.clear(),
        Way::Halved => bytes.truncate(before.len() / 2),
        Way::Shortened => bytes.truncate(before.len().saturating_sub(1)),
        Way::FirstBit => flip(&mut bytes, 0),
        Way::MiddleBit => flip(&mut bytes, before.len() / 2),
        Way::LastBit => flip(&mut bytes, before.len().wrapping_sub(1)),
        Way::Bits => (0..8).for_each(|_| flip(&mut bytes, random.below(before.len()))),
        Way::Garbage => bytes.iter_mut().for_each(|byte| *byte = random.number() as u8),
        Way::Folder | Way::Closed | Way::Removed => {}
    }
    let ruined = |bytes| Ok(Some(Ruined { path: path.to_path_buf(), way, bytes }));
    match way {
        Way::Removed => {
            fs::remove_file(path).context(doing)?;
            ruined(None)
        }
        Way::Folder => {
            fs::remove_file(path).context(doing)?;
            fs::create_dir(path).context(doing)?;
            fs::write(path.join("in the way"), "1").context(doing)?;
            person.own(path)?;
            person.own(&path.join("in the way"))?;
            ruined(None)
        }
        Way::Closed => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).context(doing)?;
            ruined(Some(before))
        }
        _ if bytes == before => Ok(None),
        _ => {
            // In place, as a disk does it: owner and mode stay.
            // A compiler of a node that was just stopped may not have ended yet, and what runs cannot be written.
            wait_until("nobody running it", ENDS_WITHIN, || match fs::write(path, &bytes) {
                Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => Ok(None),
                written => Ok(Some(written.context(doing)?)),
            })?;
            ruined(Some(bytes))
        }
    }
}

/// Whether what a damaged file held is still somewhere: under its name, or set aside beside it.
pub fn is_kept(ruined: &Ruined) -> bool {
    let (Some(dir), Some(name)) = (ruined.path.parent(), ruined.path.file_name()) else { return false };
    let name = name.to_string_lossy().into_owned();
    let beside = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut named = beside.filter(|e| e.file_name().to_string_lossy().starts_with(&name)).map(|e| e.path());
    match (&ruined.bytes, ruined.way) {
        (Some(bytes), _) => named.any(|path| fs::read(path).is_ok_and(|there| there.starts_with(bytes))),
        (None, Way::Folder) => named.any(|path| path.join("in the way").is_file()),
        (None, _) => true,
    }
}

/// A copy of folders, to begin from again and again. What lies below a `left_out` is neither copied nor brought back.
#[derive(Debug)]
pub struct Pristine {
    from: Vec<PathBuf>,
    copy: PathBuf,
    left_out: Vec<PathBuf>,
}

impl Pristine {
    /// Copies the folders into `copy`, which must not be there.
    pub fn take(from: &[PathBuf], left_out: &[PathBuf], copy: &Path) -> Outcome<Self> {
        let pristine = Self { from: from.to_vec(), copy: copy.to_path_buf(), left_out: left_out.to_vec() };
        for (n, dir) in from.iter().enumerate() {
            pristine.copy_into(dir, &copy.join(n.to_string()), dir)?;
        }
        Ok(pristine)
    }

    /// Brings them back.
    pub fn restore(&self) -> Outcome<()> {
        for (n, dir) in self.from.iter().enumerate() {
            self.clear(dir)?;
            self.copy_into(&self.copy.join(n.to_string()), dir, dir)?;
        }
        Ok(())
    }

    fn is_left_out(&self, path: &Path) -> bool {
        self.left_out.iter().any(|out| path.starts_with(out))
    }

    /// `place` is where `from` stands for in the node's own folders.
    fn copy_into(&self, from: &Path, to: &Path, place: &Path) -> Outcome<()> {
        let doing = || format!("copying {}", from.display());
        fs::create_dir_all(to).context(doing)?;
        for entry in fs::read_dir(from).context(doing)? {
            let entry = entry?;
            let (inner, own, meta) = (entry.path(), place.join(entry.file_name()), entry.metadata()?);
            let target = to.join(entry.file_name());
            if self.is_left_out(&own) {
                continue;
            }
            if meta.is_dir() {
                self.copy_into(&inner, &target, &own)?;
            } else if meta.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&inner)?, &target).context(doing)?;
            } else if meta.is_file() {
                fs::copy(&inner, &target).context(doing)?;
            }
            if meta.is_dir() || meta.is_file() {
                fs::set_permissions(&target, meta.permissions())?;
            }
            std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        }
        Ok(())
    }

    fn clear(&self, dir: &Path) -> Outcome<()> {
        for entry in fs::read_dir(dir).context(|| format!("clearing {}", dir.display()))? {
            let entry = entry?;
            let path = entry.path();
            if self.is_left_out(&path) {
                continue;
            }
            if entry.metadata()?.is_dir() {
                self.clear(&path)?;
                // Something is left out below it.
                let _ = fs::remove_dir(&path);
            } else {
                fs::remove_file(&path).context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Plain files below the folders, in an order that is always the same.
pub fn plain_files(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for dir in dirs {
        tree::walk(dir, &mut |path, meta| {
            if meta.is_file() {
                files.push(path.to_path_buf());
            }
        });
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_ruins_and_what_was_there_is_found_where_it_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let (state, copy) = (dir.path().join("state"), dir.path().join("copy"));
        fs::create_dir_all(state.join("big")).unwrap();
        fs::write(state.join("big/other"), "untouched").unwrap();
        let path = state.join("file");
        fs::write(&path, "some text").unwrap();
        let pristine =
            Pristine::take(std::slice::from_ref(&state), std::slice::from_ref(&state.join("big")), &copy).unwrap();
        let me = Person { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        for way in WAYS {
            let ruined = ruin(&path, *way, me, &mut Random(7)).unwrap().expect("a file with bytes can be ruined");
            assert!(fs::read(&path).ok() != Some(b"some text".to_vec()) || *way == Way::Closed, "{way:?}");
            assert!(is_kept(&ruined), "{way:?}");
            if path.exists() {
                fs::rename(&path, state.join("file.damaged")).unwrap();
                assert!(is_kept(&ruined) || *way == Way::Closed && !crate::person::is_root(), "{way:?} set aside");
                let aside = state.join("file.damaged");
                let _ = fs::remove_file(&aside).or_else(|_| fs::remove_dir_all(&aside));
                assert!(!is_kept(&ruined) || ruined.bytes.as_deref() == Some(b""), "{way:?} lost");
            }
            fs::write(state.join("new"), "1").unwrap();
            pristine.restore().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "some text", "{way:?}");
            assert!(!state.join("new").exists() && state.join("big/other").exists());
        }
        assert_eq!(plain_files(std::slice::from_ref(&state)), [state.join("big/other"), path]);
        fs::write(state.join("empty"), "").unwrap();
        assert!(ruin(&state.join("empty"), Way::Halved, me, &mut Random(7)).unwrap().is_none());
    }
}
