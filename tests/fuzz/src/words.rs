//! What people, programs and strangers type and announce: links, addresses, ids, calls, settings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use potluck_api::call::Call;
use potluck_model::nearby::{Announcement, TeamTag};
use potluck_node::identity;
use potluck_node::membership::invite::{self, JoinLink};
use potluck_node::settings::Settings;

/// A refusal shows at most 64 characters of what was typed, each of ten bytes where it has to be escaped.
const SENTENCE_BYTES_MAX: usize = 64 * 10 + 200;

/// A link that is accepted is one when it is written again, and leads nowhere else; so are addresses and ids.
pub fn invitation(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match text.parse::<JoinLink>() {
        Ok(link) => {
            assert!(!link.via.is_empty() && link.via.len() <= invite::VIA_MAX);
            assert!(link.via.iter().all(|via| invite::address(via).as_ref() == Ok(via)));
            assert_eq!(link.to_string().parse::<JoinLink>(), Ok(link));
        }
        Err(why) => assert!(why.to_string().len() < SENTENCE_BYTES_MAX, "a refusal is a sentence: {why}"),
    }
    match invite::typed_address(&text) {
        Ok(address) => assert_eq!(invite::address(&address).as_ref(), Ok(&address)),
        Err(why) => assert!(why.len() < SENTENCE_BYTES_MAX),
    }
    if let Ok(id) = identity::read(&text) {
        assert_eq!(identity::read(&identity::show(id)), Ok(id));
    }
}

/// What strangers announce is bounded and has nothing in it that controls a terminal.
pub fn announcement(input: &[u8]) {
    let mut parts = input.split(|b| *b == 0);
    let instance = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let values: Vec<&[u8]> = parts.collect();
    let value = |key: &str| values.iter().find_map(|v| v.strip_prefix(key.as_bytes())?.strip_prefix(b"="));
    let address = |n: &u8| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, *n, 1)), u16::from(*n));
    if let Some(read) = Announcement::read(&instance, 7, input.iter().map(address), value) {
        assert!(read.addresses.len() <= 8 && read.team_name.len() <= 63);
        assert!(!read.team_name.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)));
        assert_eq!(TeamTag::read(&read.team.text()), Some(read.team));
    }
}

/// A call that is understood is understood again as it is written.
pub fn call(input: &[u8]) {
    let Ok(call) = serde_json::from_slice::<Call>(input) else { return };
    let text = serde_json::to_string(&call).expect("a call becomes JSON");
    let again: Call = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(serde_json::to_string(&again).expect("a call becomes JSON"), text);
}

/// Whatever the file says: values that hold, and a bounded number of sentences on what could not be read. What is
/// changed then is there when it is read again.
pub fn settings(input: &[u8]) {
    let dir = crate::paths::scratch();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, input).expect("a scratch folder can be written");
    let none = dir.path().join("none.toml");
    let mut settings = Settings::read(&path, &none);
    assert!(settings.warnings.len() <= input.len() + 1);
    let mut values = settings.values.clone();
    values.enabled = !values.enabled;
    if settings.change(values.clone()).is_ok() {
        assert_eq!(Settings::read(&path, &none).values, values, "what was written is not what is read");
    } else {
        assert_eq!(std::fs::read(&path).expect("still there"), input, "a refused change leaves the file alone");
    }
}
