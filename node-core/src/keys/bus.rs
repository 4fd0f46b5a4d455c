//! The keyring's service on the session bus: whether it is open, asked without any prompt, and when something changes there.

use std::time::Duration;

use tokio_stream::StreamExt;
use zbus::message::Type;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

const SERVICE: &str = "org.freedesktop.secrets";
const TOP: &str = "/org/freedesktop/secrets";
/// An answer of the bus; one that never comes is a bus that is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// A bus that is not there is tried again this often.
const RETRY: Duration = Duration::from_secs(60);

/// Whether the collection that keys are put into is locked; None: there is none, or nobody answers.
fn default_is_locked() -> Option<bool> {
    // Called from the keyring's own threads, which have no runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask()).await });
    asked.ok()?.ok()?
}

async fn ask() -> zbus::Result<Option<bool>> {
    let connection = Connection::session().await?;
    // A service that does not run yet is started by nobody's but a person's wish.
    let bus = zbus::fdo::DBusProxy::new(&connection).await?;
    if !bus.name_has_owner(zbus::names::BusName::try_from(SERVICE)?).await? {
        return Ok(None);
    }
    let interface = Some("org.freedesktop.Secret.Service");
    let answer = connection.call_method(Some(SERVICE), TOP, interface, "ReadAlias", &("default",)).await?;
    let collection: OwnedObjectPath = answer.body().deserialize()?;
    if collection.as_str() == "/" {
        return Ok(None);
    }
    let what = ("org.freedesktop.Secret.Collection", "Locked");
    let interface = Some("org.freedesktop.DBus.Properties");
    let answer = connection.call_method(Some(SERVICE), &collection, interface, "Get", &what).await?;
    let value: OwnedValue = answer.body().deserialize()?;
    Ok(Some(bool::try_from(value)?))
}

/// The keyring is there and open: what is asked of it needs no prompt.
pub(super) fn is_open() -> bool {
    default_is_locked() == Some(false)
}

/// The keyring is there and locked: whoever asks it for a key makes it show a prompt.
pub(super) fn is_locked() -> bool {
    default_is_locked() == Some(true)
}

/// Calls `changed` whenever the service comes, goes, or tells of a change, until that says false.
pub(super) async fn follow(changed: impl Fn() -> bool) {
    loop {
        if let Ok(false) = signals(&changed).await {
            return;
        }
        tokio::time::sleep(RETRY).await;
        if !changed() {
            return;
        }
    }
}

/// False: nobody wants to know any more; true or an error: the bus is gone.
async fn signals(changed: &impl Fn() -> bool) -> zbus::Result<bool> {
    let connection = Connection::session().await?;
    let rule = || MatchRule::builder().msg_type(Type::Signal);
    let owner = rule().sender("org.freedesktop.DBus")?.member("NameOwnerChanged")?.arg(0, SERVICE)?.build();
    let inside = rule().sender(SERVICE)?.path_namespace(TOP)?.build();
    let owner = MessageStream::for_match_rule(owner, &connection, Some(16)).await?;
    let inside = MessageStream::for_match_rule(inside, &connection, Some(64)).await?;
    let mut all = owner.merge(inside);
    while let Some(signal) = all.next().await {
        signal?;
        if !changed() {
            return Ok(false);
        }
    }
    Ok(true)
}
