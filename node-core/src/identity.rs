//! The node's key: made at first start, kept in a 0600 file, shown to people in groups that catch typing errors. What
//! the key may do is said elsewhere (`membership`).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use potluck_model::ids::NodeId;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;

/// Name of the key file in the node's state directory.
pub const KEY_FILE: &str = "identity.pk8";

/// DER of a SubjectPublicKeyInfo for Ed25519 up to the key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A node's key with the certificate that carries it in TLS.
pub struct Identity {
    key: Ed25519KeyPair,
    pkcs8: Vec<u8>,
    certificate: CertificateDer<'static>,
    id: NodeId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why there is no usable key.
#[derive(Debug)]
pub enum IdentityError {
    /// The file or its directory cannot be read or made.
    Io(PathBuf, io::Error),
    /// Others can read the file.
    TooOpen(PathBuf, u32),
    /// The file belongs to somebody else.
    ForeignOwner(PathBuf, u32),
    /// The file holds no key.
    Unreadable(PathBuf),
    /// The key or its certificate could not be made.
    Crypto(String),
    /// The keyring did not take a new key.
    Keyring(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(
                f,
                "the key file {} cannot be used: {error}\nhint: make its folder yours again (chmod -R u+rwX), and look whether the disk is full",
                path.display()
            ),
            Self::TooOpen(path, mode) => {
                write!(f, "others can read this node's key (mode {mode:o})\nhint: chmod 600 {}", path.display())
            }
            Self::ForeignOwner(path, uid) => {
                write!(f, "the key file {} belongs to user {uid}\nhint: run as that user", path.display())
            }
            Self::Unreadable(path) => write!(
                f,
                "{} holds no Ed25519 key\nhint: restore it from a backup, or move it away and join the team again",
                path.display()
            ),
            Self::Keyring(why) => {
                write!(f, "the keyring did not take a new key: {why}\nhint: unlock the keyring and try again")
            }
            Self::Crypto(what) => write!(f, "a key could not be made: {what}"),
        }
    }
}

impl std::error::Error for IdentityError {}

impl Identity {
    /// The key in `dir` (`<state>/potluck`), which is made on first use.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(KEY_FILE);
        let io = |error| IdentityError::Io(path.clone(), error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        match load(&path) {
            Err(IdentityError::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| IdentityError::Crypto("no randomness".to_owned()))?;
        create(dir, &path, pkcs8.as_ref()).map_err(io)?;
        // Read back: of two processes that start together the first one's key holds.
        load(&path)
    }

    /// A new key that lies nowhere yet.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| IdentityError::Crypto("no randomness".to_owned()))?;
        Self::from_pkcs8(pkcs8.as_ref().to_vec()).map_err(IdentityError::Crypto)
    }

    /// The key in a file, if only its owner can read it.
    pub(crate) fn load(path: &Path) -> Result<Self, IdentityError> {
        load(path)
    }

    /// As it is kept.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(crate) fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, String> {
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|e| e.to_string())?;
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let signer = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519);
        let signer = signer.map_err(|e| e.to_string())?;
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).map_err(|e| e.to_string())?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "Potluck node");
        let certificate = parameters.self_signed(&signer).map_err(|e| e.to_string())?.der().clone();
        let public: [u8; ED25519_PUBLIC_KEY_LEN] = key.public_key().as_ref().try_into().map_err(|_| "odd key")?;
        let id = node_of_key(&public);
        if node_of_certificate(&certificate) != Some(id) {
            return Err("the certificate does not carry the key".to_owned());
        }
        Ok(Self { key, pkcs8, certificate, id })
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The raw Ed25519 key that others check signatures with (32 bytes).
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// An Ed25519 signature (64 bytes). The caller separates domains by a prefix.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).as_ref().to_vec()
    }

    /// The self-signed certificate; only its key means anything.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The private key for rustls.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone()))
    }
}

/// The node that a raw Ed25519 key belongs to: SHA-256 of its SubjectPublicKeyInfo.
pub fn node_of_key(key: &[u8; ED25519_PUBLIC_KEY_LEN]) -> NodeId {
    let hash = digest(&SHA256, &[&SPKI_PREFIX[..], key].concat());
    NodeId(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The node that a certificate belongs to, if its key is an Ed25519 one.
pub fn node_of_certificate(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let spki = parsed.subject_public_key_info();
    Some(node_of_key(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
}

fn load(path: &Path) -> Result<Identity, IdentityError> {
    let io = |error| IdentityError::Io(path.to_owned(), error);
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Err(IdentityError::Unreadable(path.to_owned()));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(IdentityError::ForeignOwner(path.to_owned(), metadata.uid()));
    }
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooOpen(path.to_owned(), mode));
    }
    let mut pkcs8 = Vec::new();
    // An Ed25519 key has under 100 bytes.
    (&mut file).take(4096).read_to_end(&mut pkcs8).map_err(io)?;
    Identity::from_pkcs8(pkcs8).map_err(|_| IdentityError::Unreadable(path.to_owned()))
}

/// Writes the key beside its place and links it there: never half a key, never over an existing one.
fn create(dir: &Path, path: &Path, pkcs8: &[u8]) -> io::Result<()> {
    let draft =
        tempfile::Builder::new().prefix(".identity").permissions(PermissionsExt::from_mode(0o600)).tempfile_in(dir)?;
    draft.as_file().write_all(pkcs8)?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(path) {
        Ok(_) => File::open(dir)?.sync_all(),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// 32 characters that are not taken for one another: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Base-32 digits of an id: 256 bits.
const DIGITS: usize = 52;
/// Digits before each check character.
const CHUNK: usize = 13;
/// Characters between dashes on the screen.
const GROUP: usize = 7;

/// A node id for people: 8 groups of 7 characters, two groups with one check character.
pub fn show(id: NodeId) -> String {
    let mut text = String::with_capacity(64);
    for (at, chunk) in digits(id).chunks(CHUNK).enumerate() {
        let characters = chunk.iter().copied().chain([check(chunk)]);
        for (in_chunk, digit) in characters.enumerate() {
            if (at, in_chunk) != (0, 0) && in_chunk % GROUP == 0 {
                text.push('-');
            }
            text.push(ALPHABET[digit as usize] as char);
        }
    }
    text
}

/// Why a typed node id is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typo {
    /// Too few or too many characters: how many there are.
    Length(usize),
    /// A character that never occurs.
    Character(char),
    /// The mistake is in these two groups, counted from 1.
    Groups(usize, usize),
}

impl fmt::Display for Typo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(f, "a node id has 56 letters and digits, this has {n}"),
            Self::Character(c) => write!(f, "{c:?} does not occur in a node id"),
            Self::Groups(a, b) => write!(f, "there is a typing error in group {a} or {b} of the node id"),
        }
    }
}

impl std::error::Error for Typo {}

/// Reads what `show` has shown, in any case, with any spacing, and with o for 0, i or l for 1.
pub fn read(text: &str) -> Result<NodeId, Typo> {
    let mut values = Vec::with_capacity(DIGITS + DIGITS / CHUNK);
    for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let plain = match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            other => other,
        };
        let value = ALPHABET.iter().position(|a| *a as char == plain).ok_or(Typo::Character(c))?;
        values.push(value as u8);
        if values.len() > 4096 {
            break;
        }
    }
    if values.len() != DIGITS + DIGITS / CHUNK {
        return Err(Typo::Length(values.len()));
    }
    let mut bytes = [0u8; 32];
    let (mut buffer, mut bits, mut at) = (0u32, 0, 0);
    for (chunk_at, chunk) in values.chunks(CHUNK + 1).enumerate() {
        if check(&chunk[..CHUNK]) != chunk[CHUNK] {
            return Err(Typo::Groups(2 * chunk_at + 1, 2 * chunk_at + 2));
        }
        for digit in &chunk[..CHUNK] {
            buffer = (buffer << 5 | u32::from(*digit)) & 0xfff;
            bits += 5;
            if bits >= 8 && at < bytes.len() {
                bits -= 8;
                bytes[at] = (buffer >> bits) as u8;
                at += 1;
            }
        }
    }
    // The four bits that fill the last digit are zero, so that an id has one spelling.
    if buffer & 0xf != 0 { Err(Typo::Groups(7, 8)) } else { Ok(NodeId(bytes)) }
}

fn digits(id: NodeId) -> [u8; DIGITS] {
    std::array::from_fn(|at| {
        (0..5).fold(0, |digit, bit| {
            let bit = at * 5 + bit;
            let byte = id.0.get(bit / 8).copied().unwrap_or(0);
            digit << 1 | (byte >> (7 - bit % 8) & 1)
        })
    })
}

/// Luhn's sum over base 32: finds every single wrong character and nearly every swap of neighbours.
fn check(digits: &[u8]) -> u8 {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let weighed = u32::from(*digit) * if at % 2 == 0 { 2 } else { 1 };
            weighed / 32 + weighed % 32
        })
        .sum();
    ((32 - sum % 32) % 32) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/potluck");
        let first = Identity::load_or_create(&state).unwrap();
        assert_eq!(Identity::load_or_create(&state).unwrap().id(), first.id());
        let mode = std::fs::metadata(state.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(IdentityError::TooOpen(_, 0o640))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"no key").unwrap();
        assert!(matches!(Identity::load_or_create(dir.path()), Err(IdentityError::Unreadable(_))));
    }

    #[test]
    fn processes_that_start_together_get_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let start = || Identity::load_or_create(dir.path()).unwrap().id();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn a_shown_id_reads_back_and_every_single_typo_is_found() {
        let id = NodeId(std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11)));
        let text = show(id);
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [7; 8]);
        assert_eq!(read(&text), Ok(id));
        assert_eq!(read(&text.to_uppercase().replace('-', " ").replace('0', "O").replace('1', "l")), Ok(id));
        let plain: Vec<char> = text.chars().filter(|c| *c != '-').collect();
        for at in 0..plain.len() {
            for other in ALPHABET.iter().map(|c| *c as char).filter(|c| *c != plain[at]) {
                let mut typed = plain.clone();
                typed[at] = other;
                let group = at / 14 * 2 + 1;
                assert_eq!(read(&typed.iter().collect::<String>()), Err(Typo::Groups(group, group + 1)));
            }
        }
        assert_eq!(read("abc"), Err(Typo::Length(3)));
        assert_eq!(read("u"), Err(Typo::Character('u')));
    }

    #[test]
    fn the_extremes_read_back() {
        for id in [NodeId([0; 32]), NodeId([255; 32])] {
            assert_eq!(read(&show(id)), Ok(id));
        }
    }
}
