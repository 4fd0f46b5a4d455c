//! Names of things: digests, nodes, toolchains, jobs. Never a `String`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The BLAKE3 hash of some content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// A node: the SHA-256 of its key's SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// A team: the SHA-256 of its founding statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TeamId(pub [u8; 32]);

/// A compiler with everything it opens to run: the digest of its manifest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToolchainId(pub Digest);

/// One compiler invocation, numbered by the submitter's node since its start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 hexadecimal digits")
    }
}

impl std::error::Error for BadId {}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn parse_hex(text: &str) -> Result<[u8; 32], BadId> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return Err(BadId);
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
        let digit = |c: u8| (c as char).to_digit(16).ok_or(BadId);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(out)
}

macro_rules! hex_id {
    ($name:ident, |$v:ident| $bytes:expr, |$b:ident| $make:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $v = self;
                write_hex(&$bytes, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $v = self;
                write_hex(&$bytes[..6], f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let $b = parse_hex(text)?;
                Ok($make)
            }
        }
        impl $name {
            /// The first 12 digits: enough to tell apart on a screen.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }
        impl TryFrom<&[u8]> for $name {
            type Error = BadId;
            fn try_from(bytes: &[u8]) -> Result<Self, BadId> {
                let $b: [u8; 32] = bytes.try_into().map_err(|_| BadId)?;
                Ok($make)
            }
        }
    };
}

hex_id!(Digest, |v| v.0, |b| Digest(b));
hex_id!(NodeId, |v| v.0, |b| NodeId(b));
hex_id!(TeamId, |v| v.0, |b| TeamId(b));
hex_id!(ToolchainId, |v| v.0.0, |b| ToolchainId(Digest(b)));

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = NodeId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("12".parse::<NodeId>(), Err(BadId));
        assert_eq!("zz".repeat(32).parse::<Digest>(), Err(BadId));
    }
}
