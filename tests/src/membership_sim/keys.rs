//! Keys and chance of a simulated team.

use potluck_model::ids::NodeId;
use potluck_model::team::{Claim, Signatures};
use potluck_node::membership::codec;

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next one.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One of `0..bound`; 0 for an empty range.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    /// True this often of a hundred times.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these; none of nothing.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.below(at + 1));
        }
    }
}

/// Stands in for Ed25519: whoever has no `Key` makes no signature.
pub(super) struct Fast;

fn secret(public: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(b"potluck membership simulation 01", public).as_bytes()
}

impl Signatures for Fast {
    fn sha256(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::hash(bytes).as_bytes()
    }

    fn node(&self, key: &[u8]) -> Option<NodeId> {
        (key.len() == 32).then(|| NodeId(*blake3::hash(key).as_bytes()))
    }

    fn is_signed(&self, key: &[u8], body: &[u8], signature: &[u8]) -> bool {
        signature.len() == 64 && signature[..32] == *blake3::keyed_hash(&secret(key), body).as_bytes()
    }
}

/// What signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self(*blake3::hash(&dice.roll().to_le_bytes()).as_bytes())
    }

    pub(super) fn id(&self) -> NodeId {
        NodeId(*blake3::hash(&self.0).as_bytes())
    }

    /// The canonical body of a claim.
    pub(super) fn body(&self, claim: &Claim) -> Vec<u8> {
        codec::body_of(&self.0, claim)
    }

    /// A statement of any body.
    pub(super) fn sign_body(&self, body: &[u8]) -> Vec<u8> {
        let mut signature = blake3::keyed_hash(&secret(&self.0), body).as_bytes().to_vec();
        signature.resize(64, 7);
        codec::raw_of(body, &signature)
    }

    pub(super) fn sign(&self, claim: &Claim) -> Vec<u8> {
        self.sign_body(&self.body(claim))
    }
}
