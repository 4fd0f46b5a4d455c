//! Where the node's key lies: in the desktop's keyring, or in a file that only its owner can read. What was chosen is
//! remembered beside the file, and a keyring that gives nothing now is never a reason to choose anew: a locked one looks
//! just like an empty one. A keyring that has not given or taken the key is asked again: when a person says so, and without
//! a prompt when its service says that something changed there, or now and then.

mod bus;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error};
use potluck_api::view::KeyPlace;
use potluck_model::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, IdentityError, KEY_FILE};

/// Remembers the choice, in the node's state folder.
const CHOICE_FILE: &str = "key.json";
/// It has some hundred bytes.
const CHOICE_BYTES_MAX: u64 = 16 << 10;
/// Name of the keyring's entries.
const SERVICE: &str = "potluck";
/// A keyring that shows a prompt answers when somebody has typed: the node does not wait for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// A keyring that has the key and was locked is looked at this often.
const RETRY: Duration = Duration::from_secs(10);
/// One that did not take the key is looked at this often.
const OFFER_EVERY: Duration = Duration::from_secs(300);
/// After an attempt, changes that the service tells of are its own for this long.
const CHANGES_APART: Duration = Duration::from_secs(2);
/// Attempts without an answer: a person who asks again and again sees no more prompts.
const ATTEMPTS_MAX: usize = 8;
/// Somebody who asked for a prompt may go and look for the password.
const PROMPT_PATIENCE: Duration = Duration::from_secs(600);
/// Why a key is in the file although nobody looked for a keyring.
const HEADLESS: &str = "this node was started without a desktop";

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "place")]
enum Choice {
    /// The keyring has the key of this node.
    Keyring {
        /// Hexadecimal node id: another key in the entry is not ours.
        node: String,
        /// The key that is about to take its place: after a crash the entry has one or the other.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// The file has it.
    File {
        /// For people.
        why: String,
        /// The keyring was there and refused: it is not asked at each start.
        refused: bool,
        /// Hexadecimal node id; absent in files of older versions. Tells a first start from one whose key is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    },
}

/// The node's key, or what stands in for it.
pub struct Opened {
    /// The key; a stand-in that is in no team if `is_locked`.
    pub identity: Arc<Identity>,
    /// Where it lies.
    pub place: KeyPlace,
    /// The keyring has the key and gives it later.
    pub is_locked: bool,
    /// The keyring has not given or taken the key yet.
    pub later: Option<Later>,
    /// There was another one, which is gone.
    pub is_new: bool,
}

/// What comes of a keyring that has not given or taken the key yet.
pub struct Later {
    /// The key, once it lies in the keyring and can be had.
    pub key: tokio::sync::mpsc::UnboundedReceiver<Arc<Identity>>,
    /// Makes it be asked again.
    pub again: Again,
}

/// Makes the keyring be asked again.
#[derive(Clone)]
pub struct Again(mpsc::Sender<Nudge>);

/// What happens around a keyring that has not given or taken the key.
enum Nudge {
    /// A person wants it asked: a prompt is welcome.
    Person,
    /// Something changed in the keyring or its service: only if it needs no prompt.
    Change,
    /// It has answered.
    Answer(Option<Arc<Identity>>),
}

impl Again {
    /// A person wants it asked now. False: nobody asks any more, because the key is there.
    pub fn ask(&self) -> bool {
        self.0.send(Nudge::Person).is_ok()
    }

    /// Asks on every change that the keyring's service tells of, until the key is there. On the present runtime.
    pub fn on_changes(&self) {
        let again = self.clone();
        tokio::spawn(bus::follow(move || again.0.send(Nudge::Change).is_ok()));
    }
}

/// Asks the keyring by `attempt` until it has answered with the key: when a person says so, and when `is_quiet` says that
/// no prompt would be shown, at changes and `every` so often. `heard` is told of the first answer, after the key.
fn keep_asking(
    every: Duration,
    is_quiet: fn() -> bool,
    heard: Option<mpsc::Sender<()>>,
    attempt: impl Fn() -> Option<Arc<Identity>> + Send + Sync + 'static,
) -> std::io::Result<Later> {
    let (key, found) = tokio::sync::mpsc::unbounded_channel();
    let (nudge, nudges) = mpsc::channel();
    let again = Again(nudge.clone());
    let attempt = Arc::new(attempt);
    let asking = move || {
        // Attempts without an answer: a prompt is there, or its service ended with it and will never answer.
        let mut open = 0;
        let mut last: Option<Instant> = None;
        while !key.is_closed() {
            let first = nudges.recv_timeout(every).ok();
            let (mut is_due, mut is_asked) = (first.is_none(), false);
            for nudge in first.into_iter().chain(nudges.try_iter()) {
                match nudge {
                    Nudge::Person => is_asked = true,
                    Nudge::Change => is_due = true,
                    Nudge::Answer(answer) => {
                        open -= 1;
                        let is_there = answer.is_some();
                        answer.into_iter().for_each(|identity| drop(key.send(identity)));
                        // Nobody listens after the first answer.
                        if let Some(heard) = &heard {
                            let _ = heard.send(());
                        }
                        if is_there {
                            return;
                        }
                    }
                }
            }
            // What an attempt changes is told as well.
            let is_early = last.is_some_and(|at| at.elapsed() < CHANGES_APART);
            if open < ATTEMPTS_MAX && (is_asked || is_due && !is_early && is_quiet()) {
                let (attempt, nudge) = (Arc::clone(&attempt), nudge.clone());
                let work = move || drop(nudge.send(Nudge::Answer(attempt())));
                open += usize::from(std::thread::Builder::new().name("keyring".to_owned()).spawn(work).is_ok());
                last = Some(Instant::now());
            }
        }
    };
    std::thread::Builder::new().name("keyring-wait".to_owned()).spawn(asking)?;
    Ok(Later { key: found, again })
}

/// Held while choice and key change: a key that is renewed is not overtaken by the move of the old one.
static CHANGES: Mutex<()> = Mutex::new(());

/// The key of the node whose state is in `dir`; made on first use. `want_keyring`: a desktop is there, so that the key
/// shall be in its keyring if it has one. Waits some seconds at most.
pub fn open(dir: &Path, want_keyring: bool) -> Result<Opened, IdentityError> {
    crate::dirs::make_private(dir).map_err(|error| IdentityError::Io(dir.to_owned(), error))?;
    let opened = match read_choice(dir)? {
        Noted::Choice(Choice::Keyring { node, next }) => from_keyring(dir, Wanted::One([Some(node), next])),
        Noted::Choice(Choice::File { node, .. }) if is_gone(dir) => made_anew(dir, node),
        Noted::Choice(Choice::File { why, refused, .. }) if !want_keyring || refused => in_file(dir, why, refused),
        Noted::Choice(Choice::File { .. }) => into_keyring(dir, false, PATIENCE),
        // The file is only written here, so it has the key; without it the keyring has, if anything has.
        Noted::Damaged if is_gone(dir) => from_keyring(dir, Wanted::Any),
        Noted::Damaged => in_file(dir, "the note of where it lies was damaged".to_owned(), false),
        Noted::Nothing if want_keyring => into_keyring(dir, true, PATIENCE),
        Noted::Nothing => in_file(dir, HEADLESS.to_owned(), false),
    }?;
    match opened.place {
        KeyPlace::File(_) if want_keyring => Ok(Opened { later: Some(offered_later(dir)?), ..opened }),
        _ => Ok(opened),
    }
}

/// Offers the key to the keyring again, but never to one that would show a prompt by itself: it was refused before. The
/// key is the node's in the meantime, from the file.
fn offered_later(dir: &Path) -> Result<Later, IdentityError> {
    let own = dir.to_owned();
    let offer = move || match into_keyring(&own, false, PROMPT_PATIENCE) {
        Ok(Opened { identity, place: KeyPlace::Keyring, .. }) => Some(identity),
        Ok(_) => None,
        Err(error) => {
            crate::log::warn(&format!("the key could not be moved into the keyring: {error}"));
            None
        }
    };
    keep_asking(OFFER_EVERY, bus::is_open, None, offer).map_err(|error| IdentityError::Io(dir.to_owned(), error))
}

/// A new key where the old one lies, which is gone then: for a node whose key its team has removed. Waits some seconds at
/// most.
pub fn renew(dir: &Path, old: NodeId) -> Result<Arc<Identity>, IdentityError> {
    let _changing = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = Identity::ephemeral()?;
    let path = dir.join(KEY_FILE);
    let Noted::Choice(Choice::Keyring { .. }) = read_choice(dir)? else {
        crate::store::write_whole(&path, identity.pkcs8()).map_err(|error| IdentityError::Io(path, error))?;
        let node = Some(identity.id().to_string());
        remember(dir, &Choice::File { why: "it is a new one".to_owned(), refused: false, node })?;
        return Ok(Arc::new(identity));
    };
    let (pkcs8, user, next) = (identity.pkcs8().to_vec(), user_of(dir), identity.id().to_string());
    remember(dir, &Choice::Keyring { node: old.to_string(), next: Some(next.clone()) })?;
    let kept = in_time(PATIENCE, move || {
        let entry = entry(&user).map_err(|error| error.to_string())?;
        entry.set_secret(&pkcs8).map_err(|error| error.to_string())?;
        let back = entry.get_secret().map_err(|error| error.to_string())?;
        if back == pkcs8 { Ok(()) } else { Err("it gave back another key".to_owned()) }
    });
    match kept.unwrap_or_else(|| Err("it did not answer".to_owned())) {
        Ok(()) => remember(dir, &Choice::Keyring { node: next, next: None })?,
        Err(why) => return Err(IdentityError::Keyring(why)),
    }
    Ok(Arc::new(identity))
}

fn in_file(dir: &Path, why: String, refused: bool) -> Result<Opened, IdentityError> {
    let identity = Arc::new(Identity::load_or_create(dir)?);
    remember(dir, &Choice::File { why: why.clone(), refused, node: Some(identity.id().to_string()) })?;
    Ok(Opened { identity, place: KeyPlace::File(why), is_locked: false, later: None, is_new: false })
}

/// The file that had the key is gone. Nobody can give it back, so there is a new one, and that is said: a person who
/// removed it wants just this, and anybody else has to know why this PC is in no team any more.
fn made_anew(dir: &Path, before: Option<String>) -> Result<Opened, IdentityError> {
    let old = before.map_or_else(String::new, |node| format!(" of node {:.12}", node));
    let why = format!("the file with this PC's key{old} was gone, so this is a new one; join the team again");
    crate::log::warn(&why);
    let opened = in_file(dir, HEADLESS.to_owned(), false)?;
    Ok(Opened { place: KeyPlace::File(why), is_new: true, ..opened })
}

fn is_gone(dir: &Path) -> bool {
    let looked = std::fs::symlink_metadata(dir.join(KEY_FILE));
    looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Which key of the keyring's entry is this node's.
enum Wanted {
    /// One of these, as the note says.
    One([Option<String>; 2]),
    /// The note is damaged: the entry is named after the node's folder, so that what it has is this node's.
    Any,
}

/// The keyring was chosen: only it has the key. If it gives none now, the node runs without a team until it does. A prompt
/// that was closed is not shown again every few seconds.
fn from_keyring(dir: &Path, wanted: Wanted) -> Result<Opened, IdentityError> {
    let (user, own) = (user_of(dir), dir.to_owned());
    let attempt = move || {
        let identity = get(&user).ok()?;
        let node = identity.id().to_string();
        match &wanted {
            Wanted::One(nodes) if !nodes.contains(&Some(node.clone())) => return None,
            Wanted::One(_) => {}
            // Noted again. Where that fails it is asked for anew at the next start.
            Wanted::Any => drop(remember(&own, &Choice::Keyring { node, next: None })),
        }
        Some(Arc::new(identity))
    };
    let (heard, answer) = mpsc::channel();
    let later = keep_asking(RETRY, || !bus::is_locked(), Some(heard), attempt);
    let mut later = later.map_err(|error| IdentityError::Io(dir.to_owned(), error))?;
    // Whoever starts the node is there.
    later.again.ask();
    let _ = answer.recv_timeout(PATIENCE);
    if let Ok(identity) = later.key.try_recv() {
        // A crash between keeping the key there and removing the file left both.
        remove_same(dir, &identity);
        return Ok(Opened { identity, place: KeyPlace::Keyring, is_locked: false, later: None, is_new: false });
    }
    let stand_in = Arc::new(Identity::ephemeral()?);
    Ok(Opened { identity: stand_in, place: KeyPlace::Keyring, is_locked: true, later: Some(later), is_new: false })
}

/// Puts the key into the keyring if that can be done: kept, read back and compared before the file goes. `first`: nothing
/// was chosen before, so that an entry from an interrupted earlier try holds.
fn into_keyring(dir: &Path, first: bool, patience: Duration) -> Result<Opened, IdentityError> {
    let file = match Identity::load(&dir.join(KEY_FILE)) {
        Ok(identity) => Some(identity),
        Err(IdentityError::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let identity = match file {
        Some(identity) => identity,
        None => Identity::ephemeral()?,
    };
    let (pkcs8, user) = (identity.pkcs8().to_vec(), user_of(dir));
    let in_question = identity.id();
    let kept = in_time(patience, move || {
        let entry = entry(&user).map_err(|error| (format!("there is no keyring here ({error})"), false))?;
        if first && let Ok(there) = get(&user) {
            return Ok(there);
        }
        let refused = |error: Error| (format!("the keyring did not take it ({error})"), true);
        entry.set_secret(&pkcs8).map_err(refused)?;
        let back = entry.get_secret().map_err(refused)?;
        if back != pkcs8 {
            return Err(("the keyring gave back another key".to_owned(), true));
        }
        Identity::from_pkcs8(back).map_err(|error| (error, true))
    });
    let _changing = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    let is_current = first || Identity::load(&dir.join(KEY_FILE)).map_or(true, |file| file.id() == in_question);
    let kept = kept.unwrap_or_else(|| Err(("the keyring did not answer".to_owned(), true)));
    match kept {
        // Renewed meanwhile: what the keyring has now is nobody's key.
        Ok(_) if !is_current => in_file(dir, "it is a new one".to_owned(), false),
        Ok(identity) => {
            remember(dir, &Choice::Keyring { node: identity.id().to_string(), next: None })?;
            remove_same(dir, &identity);
            Ok(Opened {
                identity: Arc::new(identity),
                place: KeyPlace::Keyring,
                is_locked: false,
                later: None,
                is_new: false,
            })
        }
        Err((why, refused)) => in_file(dir, why, refused),
    }
}

/// With a connection of its own: `keyring`'s makes one for the whole process, which never works again if the service was
/// not there yet, or was started anew.
fn entry(user: &str) -> Result<Entry, Error> {
    zbus_secret_service_keyring_store::Store::new()?.build(SERVICE, user, None)
}

fn get(user: &str) -> Result<Identity, String> {
    let entry = entry(user).map_err(|error| error.to_string())?;
    Identity::from_pkcs8(entry.get_secret().map_err(|error| error.to_string())?)
}

/// Names the entry: nodes of one person with different folders have different keys.
fn user_of(dir: &Path) -> String {
    dir.display().to_string()
}

/// None: it took longer than a person waits for a start.
fn in_time<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("keyring".to_owned())
        .spawn(move || {
            let _ = sender.send(work());
        })
        .ok()?;
    receiver.recv_timeout(patience).ok()
}

/// What stands in the note of where the key lies.
enum Noted {
    /// This.
    Choice(Choice),
    /// There is none.
    Nothing,
    /// It could not be read and was set aside: the key is looked for instead.
    Damaged,
}

fn read_choice(dir: &Path) -> Result<Noted, IdentityError> {
    let path = dir.join(CHOICE_FILE);
    if std::fs::symlink_metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Noted::Nothing);
    }
    match crate::store::read_json(&path, CHOICE_BYTES_MAX) {
        Some(choice) => Ok(Noted::Choice(choice)),
        // Neither read nor moved away: whatever is remembered next would be lost at once.
        None if std::fs::symlink_metadata(&path).is_ok() => {
            Err(IdentityError::Io(path, std::io::Error::other("it can neither be read nor moved away")))
        }
        None => Ok(Noted::Damaged),
    }
}

fn remember(dir: &Path, choice: &Choice) -> Result<(), IdentityError> {
    let path = dir.join(CHOICE_FILE);
    let text = serde_json::to_vec_pretty(choice).expect("strings become JSON");
    if std::fs::read(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    crate::store::write_whole(&path, &text).map_err(|error| IdentityError::Io(path, error))
}

/// Removes the file if it holds this very key; another one may be all that is left of something.
fn remove_same(dir: &Path, identity: &Identity) {
    let path = dir.join(KEY_FILE);
    if Identity::load(&path).is_ok_and(|file| file.id() == identity.id())
        && let Err(error) = std::fs::remove_file(&path)
    {
        crate::log::warn(&format!(
            "the key is in the keyring now, and {} could not be removed: {error}",
            path.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(dir: &Path) -> Opened {
        open(dir, false).unwrap()
    }

    #[test]
    fn a_damaged_note_of_where_the_key_lies_keeps_nobody_from_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let (state, note) = (dir.path().join("potluck"), dir.path().join("potluck/key.json"));
        let first = opened(&state).identity.id();
        let whole = std::fs::read(&note).unwrap();
        let mut flipped = whole.clone();
        flipped[0] ^= 1;
        for damaged in
            [&b""[..], &whole[..whole.len() / 2], &whole[..whole.len() - 1], &flipped, b"{\"place\":\"moon\"}"]
        {
            std::fs::write(&note, damaged).unwrap();
            let again = opened(&state);
            assert_eq!(again.identity.id(), first, "{}", damaged.escape_ascii());
            assert!(!again.is_new && !again.is_locked);
            let aside = state.join("key.json.damaged");
            assert_eq!(std::fs::read(&aside).unwrap(), damaged);
            std::fs::remove_file(aside).unwrap();
            // Written anew: nothing is found at the next start.
            assert_eq!(opened(&state).identity.id(), first);
        }
        std::fs::remove_file(&note).unwrap();
        std::fs::create_dir(&note).unwrap();
        assert_eq!(opened(&state).identity.id(), first);
        assert!(state.join("key.json.damaged").is_dir());
    }

    #[test]
    fn a_key_that_is_gone_is_made_anew_only_with_a_word_and_a_damaged_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let (state, key) = (dir.path().join("potluck"), dir.path().join("potluck").join(KEY_FILE));
        let first = opened(&state);
        assert!(!first.is_new);
        let whole = std::fs::read(&key).unwrap();
        std::fs::write(&key, &whole[..40]).unwrap();
        let why = open(&state, false).err().expect("half a key is none").to_string();
        assert!(why.contains("identity.pk8") && why.contains("hint: "), "{why}");
        assert_eq!(std::fs::read(&key).unwrap(), &whole[..40], "what is left of it stays");
        std::fs::remove_file(&key).unwrap();
        let second = opened(&state);
        assert!(second.is_new && second.identity.id() != first.identity.id());
        let KeyPlace::File(why) = &second.place else { panic!("it lies in a file") };
        assert!(why.contains(&first.identity.id().short()) && why.contains("join the team again"), "{why}");
        let third = opened(&state);
        assert!(!third.is_new, "said once, at the start that made it");
        assert_eq!(third.identity.id(), second.identity.id());
        // Renewed on purpose: nobody's loss.
        let fourth = renew(&state, third.identity.id()).unwrap();
        let again = opened(&state);
        assert!(!again.is_new && again.identity.id() == fourth.id());
    }

    #[test]
    fn without_note_and_key_file_the_keyring_is_asked_and_no_key_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("potluck");
        opened(&state);
        std::fs::write(state.join("key.json"), "{").unwrap();
        std::fs::remove_file(state.join(KEY_FILE)).unwrap();
        let opened = opened(&state);
        assert!(opened.is_locked && opened.later.is_some(), "the keyring may have it, and gives it later");
        assert!(!state.join(KEY_FILE).exists());
    }
}
