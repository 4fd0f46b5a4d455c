//! Where the node's key lies: in the desktop's keyring, or in a file that only its owner can read. What was chosen is
//! remembered beside the file, and a keyring that gives nothing now is never a reason to choose anew: a locked one looks
//! just like an empty one.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keyring_core::api::CredentialStoreApi;
use keyring_core::{Entry, Error};
use potluck_api::view::KeyPlace;
use potluck_model::ids::NodeId;
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, IdentityError, KEY_FILE};

/// Remembers the choice, in the node's state folder.
const CHOICE_FILE: &str = "key.json";
/// Name of the keyring's entries.
const SERVICE: &str = "potluck";
/// A keyring that shows a prompt answers when somebody has typed: the node does not wait for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// A locked keyring is asked this often.
const RETRY: Duration = Duration::from_secs(10);
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
    },
}

/// The node's key, or what stands in for it.
pub struct Opened {
    /// The key; a stand-in that is in no team if `later` is there.
    pub identity: Arc<Identity>,
    /// Where it lies.
    pub place: KeyPlace,
    /// The keyring is locked: the key comes here when it is opened.
    pub later: Option<tokio::sync::mpsc::UnboundedReceiver<Arc<Identity>>>,
}

/// The key of the node whose state is in `dir`; made on first use. `want_keyring`: a desktop is there, so that the key
/// shall be in its keyring if it has one. Waits some seconds at most.
pub fn open(dir: &Path, want_keyring: bool) -> Result<Opened, IdentityError> {
    crate::dirs::make_private(dir).map_err(|error| IdentityError::Io(dir.to_owned(), error))?;
    match read_choice(dir)? {
        Some(Choice::Keyring { node, next }) => from_keyring(dir, [Some(node), next]),
        Some(Choice::File { why, refused }) if !want_keyring || refused => in_file(dir, why, refused),
        Some(Choice::File { .. }) => into_keyring(dir, false),
        None if want_keyring => into_keyring(dir, true),
        None => in_file(dir, HEADLESS.to_owned(), false),
    }
}

/// A new key where the old one lies, which is gone then: for a node whose key its team has removed. Waits some seconds at
/// most.
pub fn renew(dir: &Path, old: NodeId) -> Result<Arc<Identity>, IdentityError> {
    let identity = Identity::ephemeral()?;
    let path = dir.join(KEY_FILE);
    let Some(Choice::Keyring { .. }) = read_choice(dir)? else {
        let written = crate::store::write_whole(&path, identity.pkcs8());
        return written.map(|()| Arc::new(identity)).map_err(|error| IdentityError::Io(path, error));
    };
    let (pkcs8, user, next) = (identity.pkcs8().to_vec(), user_of(dir), identity.id().to_string());
    remember(dir, &Choice::Keyring { node: old.to_string(), next: Some(next.clone()) })?;
    let kept = in_time(move || {
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
    remember(dir, &Choice::File { why: why.clone(), refused })?;
    Ok(Opened { identity, place: KeyPlace::File(why), later: None })
}

/// The keyring was chosen: only it has the key. If it gives none now, the node runs without a team until it does.
fn from_keyring(dir: &Path, nodes: [Option<String>; 2]) -> Result<Opened, IdentityError> {
    let (first, found) = mpsc::channel();
    let (later, mut opened) = tokio::sync::mpsc::unbounded_channel();
    let user = user_of(dir);
    // Its own thread: while a prompt is open the keyring does not answer, perhaps for hours.
    let looking = std::thread::Builder::new().name("keyring".to_owned()).spawn(move || {
        loop {
            let got = get(&user).ok().filter(|identity| nodes.contains(&Some(identity.id().to_string())));
            if let Some(identity) = got {
                let _ = later.send(Arc::new(identity));
                // After the key: whoever hears this finds it.
                let _ = first.send(());
                return;
            }
            // Nobody waits for the first answer after `PATIENCE`.
            let _ = first.send(());
            if later.is_closed() {
                return;
            }
            std::thread::sleep(RETRY);
        }
    });
    looking.map_err(|error| IdentityError::Io(dir.to_owned(), error))?;
    let _ = found.recv_timeout(PATIENCE);
    if let Ok(identity) = opened.try_recv() {
        // A crash between keeping the key there and removing the file left both.
        remove_same(dir, &identity);
        return Ok(Opened { identity, place: KeyPlace::Keyring, later: None });
    }
    Ok(Opened { identity: Arc::new(Identity::ephemeral()?), place: KeyPlace::Keyring, later: Some(opened) })
}

/// Puts the key into the keyring if that can be done: kept, read back and compared before the file goes. `first`: nothing
/// was chosen before, so that an entry from an interrupted earlier try holds.
fn into_keyring(dir: &Path, first: bool) -> Result<Opened, IdentityError> {
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
    let kept = in_time(move || {
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
    match kept.unwrap_or_else(|| Err(("the keyring did not answer".to_owned(), true))) {
        Ok(identity) => {
            remember(dir, &Choice::Keyring { node: identity.id().to_string(), next: None })?;
            remove_same(dir, &identity);
            Ok(Opened { identity: Arc::new(identity), place: KeyPlace::Keyring, later: None })
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
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("keyring".to_owned())
        .spawn(move || {
            let _ = sender.send(work());
        })
        .ok()?;
    receiver.recv_timeout(PATIENCE).ok()
}

fn read_choice(dir: &Path) -> Result<Option<Choice>, IdentityError> {
    let path = dir.join(CHOICE_FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| IdentityError::Io(path, error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IdentityError::Io(path, error)),
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
