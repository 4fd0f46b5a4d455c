//! The team on disk: the statements twice, so that a bad block or a lost file costs nothing, and the invitations. A file
//! is whole or it is not used; what is not used is set aside under another name and never thrown away.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use potluck_model::ids::{Digest, TeamId};
use potluck_model::team::{Body, Refusal, STATEMENT_BYTES_MAX, Statement, TeamSet};

use super::invite::Invite;
use super::{MembershipError, codec};

/// First bytes of the statements' file, before the digest of all that follows.
const MAGIC: &[u8] = b"potluck-team-2\n";
/// Of files before there was a digest.
const MAGIC_1: &[u8] = b"potluck-team-1\n";
const DIGEST_BYTES: usize = 32;
/// Largest file of statements that is read: what the first version could have written.
pub(crate) const FILE_BYTES_MAX: u64 = 10_000 * (STATEMENT_BYTES_MAX as u64 + 4);

/// The statements ...
const STATEMENTS: &str = "statements";
/// ... the same once more ...
const COPY: &str = "statements.1";
const INVITES: &str = "invites";
/// ... and what a file is called after it was found damaged.
const DAMAGED: &str = ".damaged";

/// What was found out about the team's files at the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The statements came from their copy; nothing is lost.
    Mended(String),
    /// Neither file can be used: the node is in no team until it is given the statements again.
    Lost(String),
}

/// What the files say.
pub(super) struct Loaded {
    pub(super) set: Option<TeamSet>,
    pub(super) invites: Vec<Invite>,
    pub(super) trouble: Option<Trouble>,
}

enum Read<T> {
    Missing,
    Damaged(String),
    Good(T),
}

pub(super) fn load(dir: &Path) -> Result<Loaded, MembershipError> {
    let (set, trouble) = load_statements(dir)?;
    Ok(Loaded { set, invites: load_invites(dir)?, trouble })
}

fn load_statements(dir: &Path) -> Result<(Option<TeamSet>, Option<Trouble>), MembershipError> {
    let [main, copy] = [STATEMENTS, COPY].map(|name| dir.join(name));
    let what = match read_set(&main)? {
        Read::Good(set) => return Ok((Some(set), None)),
        Read::Missing if !copy.exists() && !aside(&main).exists() => return Ok((None, None)),
        Read::Missing => "it is gone".to_owned(),
        Read::Damaged(what) => {
            set_aside(&main)?;
            what
        }
    };
    let what = format!("the team file {} could not be used: {what}", main.display());
    match read_set(&copy)? {
        Read::Good(set) => {
            store_statements(dir, &set)?;
            Ok((Some(set), Some(Trouble::Mended(what))))
        }
        Read::Missing => Ok((None, Some(Trouble::Lost(what)))),
        Read::Damaged(_) => {
            set_aside(&copy)?;
            Ok((None, Some(Trouble::Lost(what))))
        }
    }
}

fn read_set(path: &Path) -> Result<Read<TeamSet>, MembershipError> {
    let bytes = match read(path)? {
        Read::Missing => return Ok(Read::Missing),
        Read::Damaged(what) => return Ok(Read::Damaged(what)),
        Read::Good(bytes) => bytes,
    };
    let records = match records(&bytes) {
        Ok(records) => records,
        Err(what) => return Ok(Read::Damaged(what.to_owned())),
    };
    let mut statements = Vec::new();
    for raw in records {
        match codec::decode(raw) {
            Ok(statement) => statements.push(statement),
            // Signed well, and not taken any more by this version's rules: an older one kept it.
            Err(_) if codec::is_signed(raw) => {}
            Err(why) => return Ok(Read::Damaged(why.to_string())),
        }
    }
    match TeamSet::from_statements(statements) {
        Ok((set, _)) => Ok(Read::Good(set)),
        Err(Refusal::Incomplete) => Ok(Read::Damaged("the founding of the team is not in it".to_owned())),
        Err(why) => Ok(Read::Damaged(why.to_string())),
    }
}

/// The statements in a file, as they travel; an error if it is not as it was written.
pub(crate) fn records(bytes: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut rest = if let Some(rest) = bytes.strip_prefix(MAGIC) {
        let (digest, rest) = rest.split_at_checked(DIGEST_BYTES).ok_or("its end is missing")?;
        if Digest::of(rest).0[..] != *digest {
            return Err("its digest is wrong");
        }
        rest
    } else {
        bytes.strip_prefix(MAGIC_1).ok_or("it does not begin as it should")?
    };
    let mut records = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        let (raw, next) = after.split_at_checked(len).ok_or("its end is missing")?;
        records.push(raw);
        rest = next;
    }
    if rest.is_empty() { Ok(records) } else { Err("its end is missing") }
}

pub(super) fn store_statements(dir: &Path, set: &TeamSet) -> Result<(), MembershipError> {
    let mut body = Vec::new();
    for statement in set.statements().chain(set.attic()) {
        body.extend((statement.raw().len() as u32).to_be_bytes());
        body.extend(statement.raw());
    }
    let file = [MAGIC, &Digest::of(&body).0, &body].concat();
    store(dir, STATEMENTS, &file, true)?;
    // The second one only has to be there when the first is not: it waits for no disk.
    if let Err(error) = store(dir, COPY, &file, false) {
        crate::log::warn(&format!("there is no copy of the team file: {error}"));
    }
    Ok(())
}

/// The team of statements that cannot be used any more, if the founding among them can still be read: it is signed, so
/// it is what it was.
pub(super) fn known_team(dir: &Path) -> Option<TeamId> {
    let founding = |raw: &[u8]| {
        let statement: Statement = codec::decode(raw).ok()?;
        matches!(statement.claim().body, Body::Found { .. }).then(|| TeamId(statement.id().0))
    };
    let names = [STATEMENTS, COPY].map(|name| dir.join(name));
    names.iter().find_map(|path| {
        let Ok(Read::Good(bytes)) = read(&aside(path)) else { return None };
        let mut rest = match bytes.strip_prefix(MAGIC) {
            Some(rest) => rest.get(DIGEST_BYTES..)?,
            None => bytes.strip_prefix(MAGIC_1)?,
        };
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (raw, next) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            if let Some(team) = founding(raw) {
                return Some(team);
            }
            rest = next;
        }
        None
    })
}

/// Invitations that cannot be read are gone, and no reason to be in no team: new ones are made in a minute.
fn load_invites(dir: &Path) -> Result<Vec<Invite>, MembershipError> {
    let path = dir.join(INVITES);
    let what = match read(&path)? {
        Read::Missing => return Ok(Vec::new()),
        Read::Damaged(what) => what,
        Read::Good(file) => match serde_json::from_slice(&file) {
            Ok(invites) => return Ok(invites),
            Err(error) => error.to_string(),
        },
    };
    set_aside(&path)?;
    crate::log::warn(&format!(
        "the open invitations in {} could not be read ({what}): their links are worth nothing now; make new ones",
        path.display()
    ));
    Ok(Vec::new())
}

pub(super) fn store_invites(dir: &Path, invites: &[Invite]) -> Result<(), MembershipError> {
    let text = serde_json::to_vec_pretty(invites).expect("strings and numbers become JSON");
    store(dir, INVITES, &text, true)
}

fn read(path: &Path) -> Result<Read<Vec<u8>>, MembershipError> {
    let io = |error| MembershipError::Io(path.to_owned(), error);
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Missing),
        Err(error) => return Err(io(error)),
        Ok(metadata) if !metadata.is_file() => return Ok(Read::Damaged("it is no file".to_owned())),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Ok(Read::Damaged("it is too large".to_owned())),
        Ok(_) => {}
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(Read::Good(bytes)),
        // What a disk says of a bad block.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Read::Damaged(error.to_string())),
        Err(error) => Err(io(error)),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DAMAGED);
    name.into()
}

fn set_aside(path: &Path) -> Result<(), MembershipError> {
    std::fs::rename(path, aside(path)).map_err(|error| MembershipError::Io(path.to_owned(), error))
}

/// Replaces a file so that after a crash it is the old or the new one, readable by the owner only.
fn store(dir: &Path, name: &str, bytes: &[u8], synced: bool) -> Result<(), MembershipError> {
    let path = dir.join(name);
    let write = || {
        let mode = PermissionsExt::from_mode(0o600);
        let draft = tempfile::Builder::new().prefix(".draft").permissions(mode).tempfile_in(dir)?;
        draft.as_file().write_all(bytes)?;
        if synced {
            draft.as_file().sync_all()?;
        }
        draft.persist(&path).map_err(|error| error.error)?;
        if synced { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    write().map_err(|error| MembershipError::Io(path.clone(), error))
}
