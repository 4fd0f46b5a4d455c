//! Who may come in: tokens, and the headers by which a request is known as this PC's own page's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use blake3::Hash;
use serde::{Deserialize, Serialize};

/// `potluck ui` opens a browser, which takes some seconds.
const ONE_TIME_LIFE: Duration = Duration::from_secs(60);
/// One-time tokens that were not used yet; the oldest go first.
const ONE_TIME_MAX: usize = 16;
/// Pages come back after a restart of the node within this time.
const SESSION_LIFE_S: u64 = 30 * 86_400;
/// Sessions; the oldest go first.
const SESSIONS_MAX: usize = 64;
/// The file of that many sessions is a tenth of this.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A session as it lies in the file: who reads that file cannot use it.
#[derive(Clone, Serialize, Deserialize)]
struct Session {
    /// BLAKE3 of the token, hexadecimal.
    hash: String,
    since_unix_s: u64,
}

#[derive(Default)]
struct Tokens {
    one_time: Vec<(Hash, Instant)>,
    sessions: Vec<Session>,
}

/// Tokens of one node. Compared as hashes, in constant time (`blake3::Hash` promises that of `==`).
pub(super) struct Doors {
    file: PathBuf,
    tokens: Mutex<Tokens>,
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// 256 bits, hexadecimal.
fn random_token() -> Result<String, String> {
    let random = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
    let bytes = random.map_err(|_| "the system gives no random numbers".to_owned())?.expose();
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

impl Doors {
    /// Sessions of before are good again; a damaged file means that there are none.
    pub(super) fn open(file: PathBuf) -> Self {
        let mut sessions: Vec<Session> = crate::store::read_json(&file, FILE_BYTES_MAX).unwrap_or_default();
        sessions.truncate(SESSIONS_MAX);
        Self { file, tokens: Mutex::new(Tokens { one_time: Vec::new(), sessions }) }
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token that is good once, for a minute.
    pub(super) fn one_time(&self) -> Result<String, String> {
        let token = random_token()?;
        let mut tokens = self.lock();
        tokens.one_time.retain(|(_, made)| made.elapsed() < ONE_TIME_LIFE);
        if tokens.one_time.len() >= ONE_TIME_MAX {
            tokens.one_time.remove(0);
        }
        tokens.one_time.push((blake3::hash(token.as_bytes()), Instant::now()));
        Ok(token)
    }

    /// Uses a one-time token up; a session's token. Writes a file.
    pub(super) fn enter(&self, token: &str) -> Option<String> {
        let hash = blake3::hash(token.as_bytes());
        let mut tokens = self.lock();
        let at = tokens.one_time.iter().position(|(known, made)| *known == hash && made.elapsed() < ONE_TIME_LIFE)?;
        tokens.one_time.remove(at);
        let session = random_token().ok()?;
        let since_unix_s = unix_s();
        tokens.sessions.retain(|s| is_good(s, since_unix_s));
        if tokens.sessions.len() >= SESSIONS_MAX {
            tokens.sessions.remove(0);
        }
        let hash = blake3::hash(session.as_bytes()).to_hex().to_string();
        tokens.sessions.push(Session { hash, since_unix_s });
        let text = serde_json::to_vec(&tokens.sessions).unwrap_or_default();
        // Without the file the session lasts as long as the node.
        if let Err(error) = crate::store::write_whole(&self.file, &text) {
            crate::log::warn(&format!("{}: {error}", self.file.display()));
        }
        Some(session)
    }

    /// Whether any page may come back.
    pub(super) fn has_sessions(&self) -> bool {
        let now = unix_s();
        self.lock().sessions.iter().any(|s| is_good(s, now))
    }

    /// Whether this is a session's token.
    pub(super) fn knows(&self, token: &str) -> bool {
        let (hash, now) = (blake3::hash(token.as_bytes()), unix_s());
        let is = |s: &Session| is_good(s, now) && Hash::from_hex(&s.hash).is_ok_and(|known| known == hash);
        self.lock().sessions.iter().any(is)
    }
}

fn is_good(session: &Session, now_unix_s: u64) -> bool {
    now_unix_s.saturating_sub(session.since_unix_s) < SESSION_LIFE_S
}

/// The Host that was asked, if it is one of this server's own names: any other means that a foreign name was made to
/// point here (DNS rebinding).
pub(super) fn own_host(headers: &HeaderMap, at: SocketAddr) -> Option<String> {
    let mut all = headers.get_all(header::HOST).iter();
    let (host, None) = (all.next()?.to_str().ok()?, all.next()) else { return None };
    let port = at.port();
    let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}"), at.to_string()];
    own.into_iter().find(|own| own == host)
}

/// Whether a page of this server asks: browsers name the page's origin, and no page can change that.
pub(super) fn own_origin(headers: &HeaderMap, at: SocketAddr) -> bool {
    let Some(host) = own_host(headers, at) else { return false };
    let mut all = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (all.next(), all.next()) else { return false };
    origin.as_bytes() == format!("http://{host}").as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> (tempfile::TempDir, Doors) {
        let dir = tempfile::tempdir().unwrap();
        let doors = Doors::open(dir.path().join("sessions.json"));
        (dir, doors)
    }

    #[test]
    fn a_one_time_token_is_good_once() {
        let (_dir, doors) = doors();
        let token = doors.one_time().unwrap();
        assert!(!doors.knows(&token));
        let session = doors.enter(&token).unwrap();
        assert!(doors.knows(&session));
        assert_eq!((doors.enter(&token), doors.enter(""), doors.enter(&session)), (None, None, None));
    }

    #[test]
    fn a_session_outlives_the_node_and_the_file_does_not_give_it_away() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, doors) = doors();
        let session = doors.enter(&doors.one_time().unwrap()).unwrap();
        let file = dir.path().join("sessions.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&file).unwrap().contains(&session));
        let again = Doors::open(file);
        assert!(again.knows(&session) && !again.knows(&"0".repeat(64)) && !again.knows(""));
    }

    #[test]
    fn sessions_end_after_thirty_days_and_are_bounded() {
        let (dir, doors) = doors();
        let first = doors.enter(&doors.one_time().unwrap()).unwrap();
        for _ in 0..SESSIONS_MAX {
            doors.enter(&doors.one_time().unwrap()).unwrap();
        }
        assert!(!doors.knows(&first));
        assert_eq!(doors.lock().sessions.len(), SESSIONS_MAX);
        let last = doors.enter(&doors.one_time().unwrap()).unwrap();
        doors.lock().sessions.iter_mut().for_each(|s| s.since_unix_s -= SESSION_LIFE_S);
        assert!(!doors.knows(&last));
        drop(dir);
    }

    #[test]
    fn a_damaged_file_is_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sessions.json");
        std::fs::write(&file, "[{\"hash\":\"\",\"since_unix_s\":99999999999}]").unwrap();
        assert!(!Doors::open(file).knows(""));
    }
}
