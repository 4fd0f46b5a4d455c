//! Invitations: the link text that a new PC opens, and what the inviting keeper's node stores about it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use potluck_model::ids::{NodeId, TeamId};
use potluck_model::team::ADDRESS_BYTES_MAX;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::net::PORT_DEFAULT;

/// Longest link that is read.
pub const LINK_BYTES_MAX: usize = 4096;
/// Addresses in one link.
pub const VIA_MAX: usize = 8;
/// Invitations that one keeper has open at a time.
pub const INVITES_MAX: usize = 64;
/// Uses of one invitation: more than any office has PCs.
pub const USES_MAX: u32 = 1000;
/// Longest life of an invitation.
pub const LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// 128 bits that prove an invitation. Never printed by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Names the invitation without telling the secret.
    pub fn name(&self) -> [u8; 16] {
        let hash = digest(&SHA256, &[b"potluck-invite-1\0", &self.0[..]].concat());
        hash.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes")
    }

    /// The name in hexadecimal: for people and programs of this PC.
    pub fn id(&self) -> String {
        self.name().iter().map(|b| format!("{b:02x}")).collect()
    }

    pub(super) fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok();
        let mut secret = [0; 16];
        for (at, slot) in secret.iter_mut().enumerate() {
            *slot = byte(at)?;
        }
        Some(Self(secret))
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 32 hexadecimal digits"))
    }
}

/// An open invitation on the keeper's disk. Kept until it expires, also when used up: a PC whose connection broke after
/// it was taken in gets its answer again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Invite {
    pub secret: Secret,
    pub uses_left: u32,
    pub expires_unix_s: u64,
    /// Who came in by it, as hexadecimal ids.
    pub used_by: Vec<String>,
    /// A keeper is asked about each PC. Absent in files of older versions, whose invitations asked nobody.
    #[serde(default)]
    pub approve: bool,
}

/// What an invitation's link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinLink {
    /// The team.
    pub team: TeamId,
    /// Where the keeper's node can be reached: `host:port`, best first.
    pub via: Vec<String>,
    /// The keeper's node, which the joiner pins.
    pub keeper: NodeId,
    /// Proves the invitation.
    pub secret: Secret,
}

impl fmt::Display for JoinLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool:join?team={}", self.team)?;
        self.via.iter().try_for_each(|via| write!(f, "&via={via}"))?;
        write!(f, "&id={}&s={}", self.keeper, self.secret.hex())
    }
}

/// Why a text is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLink {
    /// It does not begin like one.
    NotALink,
    /// Longer than any link is.
    TooLong,
    /// A part is missing: most often the end was cut off when it was copied.
    Missing(&'static str),
    /// A part occurs twice.
    Double(&'static str),
    /// A part cannot be read.
    Unreadable(&'static str),
    /// This is no `host:port`.
    BadAddress(String),
}

impl fmt::Display for BadLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALink => {
                f.write_str("it does not begin with pool:join? (has the shell cut it at an &? put it in quotes)")
            }
            Self::TooLong => f.write_str("this is too long to be an invitation"),
            Self::Missing(part) => {
                write!(f, "the invitation has no {part}\nhint: copy the whole line, up to its last character")
            }
            Self::Double(part) => write!(f, "the invitation names its {part} twice"),
            Self::Unreadable(part) => {
                write!(f, "the {part} in the invitation is damaged\nhint: copy it again, as one line")
            }
            Self::BadAddress(address) => write!(f, "{address:?} in the invitation is no address like 192.0.2.7:7878"),
        }
    }
}

impl std::error::Error for BadLink {}

impl FromStr for JoinLink {
    type Err = BadLink;

    fn from_str(text: &str) -> Result<Self, BadLink> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(BadLink::TooLong);
        }
        let query = query_of(text).ok_or(BadLink::NotALink)?;
        let (mut team, mut keeper, mut secret, mut via) = (None, None, None, Vec::new());
        for pair in query.split('&') {
            // Newer versions may add parts.
            let Some((name, value)) = pair.split_once('=') else { continue };
            match name {
                "team" => once(&mut team, value.parse().ok(), "team")?,
                "id" => once(&mut keeper, value.parse().ok(), "node id")?,
                "s" => once(&mut secret, Secret::from_hex(value), "secret")?,
                "via" if via.len() < VIA_MAX => via.push(address(&value.replace("%5B", "[").replace("%5D", "]"))?),
                _ => {}
            }
        }
        if via.is_empty() {
            return Err(BadLink::Missing("address"));
        }
        Ok(Self {
            team: team.ok_or(BadLink::Missing("team"))?,
            via,
            keeper: keeper.ok_or(BadLink::Missing("node id"))?,
            secret: secret.ok_or(BadLink::Missing("secret"))?,
        })
    }
}

/// Desktops that open links may have rewritten the beginning.
fn query_of(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("pool") && !scheme.eq_ignore_ascii_case("potluck") {
        return None;
    }
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let rest = rest.strip_prefix("join")?;
    rest.strip_prefix('/').unwrap_or(rest).strip_prefix('?')
}

fn once<T>(slot: &mut Option<T>, value: Option<T>, part: &'static str) -> Result<(), BadLink> {
    let value = value.ok_or(BadLink::Unreadable(part))?;
    if slot.replace(value).is_some() { Err(BadLink::Double(part)) } else { Ok(()) }
}

/// Accepts `host:port` and `[v6]:port`; names are resolved when they are dialled.
pub fn address(text: &str) -> Result<String, BadLink> {
    let bad = || BadLink::BadAddress(text.chars().take(64).collect());
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p != 0);
    let is_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    };
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
    if is_port && is_host && is_plain && text.len() <= ADDRESS_BYTES_MAX { Ok(text.to_owned()) } else { Err(bad()) }
}

/// An address as a person types it: the port may be missing. The error is a sentence for them.
pub fn typed_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_v6 = text.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    let with_port = match is_v6 {
        true => format!("[{text}]:{PORT_DEFAULT}"),
        false if !text.contains(':') || text.ends_with(']') => format!("{text}:{PORT_DEFAULT}"),
        false => text.to_owned(),
    };
    address(&with_port).map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        format!("{shown:?} is no address\nhint: a host name or address, such as 192.0.2.7 or build-pc:{PORT_DEFAULT}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_port() {
        assert_eq!(typed_address(" pc ").as_deref(), Ok("pc:10555"));
        assert_eq!(typed_address("pc:7").as_deref(), Ok("pc:7"));
        assert_eq!(typed_address("fe80::1").as_deref(), Ok("[fe80::1]:10555"));
        assert_eq!(typed_address("fe80::1%eth0").as_deref(), Ok("[fe80::1%eth0]:10555"));
        assert_eq!(typed_address("[fe80::1]").as_deref(), Ok("[fe80::1]:10555"));
        for wrong in ["no pc", "pc:0", "", "pc:", "[fe80::1", "a/b"] {
            assert!(typed_address(wrong).is_err(), "{wrong}");
        }
    }
}
