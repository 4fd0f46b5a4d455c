//! The team as the command line and the window show it: plain values.

use potluck_model::team::Role;
use serde::Serialize;

/// An invitation of this PC that can still be used. Tells nothing that would let anybody use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenInvite {
    /// Names it: hexadecimal.
    pub id: String,
    /// PCs that may still come by it.
    pub uses_left: u32,
    /// Seconds since 1970.
    pub expires_unix_s: u64,
    /// A keeper is asked about each PC.
    pub approve: bool,
}

/// The team as the command line and the window show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TeamView {
    /// Hexadecimal id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Whether this PC is in it.
    pub joined: bool,
    /// This PC's node id, hexadecimal.
    pub this_pc: String,
    /// The same with check characters.
    pub this_pc_shown: String,
    /// All members in the order of their ids.
    pub members: Vec<MemberView>,
    /// Invitations that can still be used at this PC.
    pub open_invites: usize,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// Hexadecimal node id.
    pub id: String,
    /// The same with check characters.
    pub shown: String,
    /// Name of the PC; chosen by its owner, so never markup.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Last known addresses.
    pub addresses: Vec<String>,
    /// Hexadecimal id of who took it in.
    pub added_by: String,
    /// Whether it is this PC.
    pub this_pc: bool,
}
