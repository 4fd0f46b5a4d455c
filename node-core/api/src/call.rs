//! What a node can be asked. JSON in, JSON out: each call names the type of its answer. Every answer may instead be
//! [`crate::view::Refusal`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::view::{NotifySettings, ShareSettings, TrustSettings, UserRole};

/// Seconds between two [`Call::Focus`] of a window that is looked at.
pub const FOCUS_EVERY_S: u64 = 20;

/// How long a pause lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// So many seconds.
    For(u32),
    /// Until 08:00 of the next morning, local time.
    Tomorrow,
    /// Until the person resumes.
    Open,
    /// Jobs that run here are finished first; then as `Open`.
    Finish,
}

/// A call. Answers with one value unless said otherwise; `Ok` is [`crate::view::Done`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// A stream of [`crate::view::Update`]s: first everything, then what changed. Never ends by itself.
    Watch {
        /// Least time between two updates, milliseconds; 100 to 5000.
        every_ms: u32,
    },
    /// One [`crate::view::Snapshot`].
    Snapshot,

    /// The owner's switch. Ok.
    Share {
        /// On or off.
        on: bool,
    },
    /// Ok.
    Pause {
        /// Until when.
        until: Pause,
    },
    /// Ends a pause. Ok.
    Resume,
    /// All sharing settings at once; they hold at once. Ok.
    ShareSettings {
        /// New settings.
        settings: ShareSettings,
    },
    /// The settings file was changed by somebody else: what it says holds at once. Ok.
    Reread,
    /// Which of the two roles the person chose. Ok.
    Role {
        /// Lends, or builds and lends.
        role: UserRole,
    },
    /// Notification settings. Ok.
    NotifySettings {
        /// New settings.
        settings: NotifySettings,
    },
    /// Which results of other PCs are used. Ok.
    TrustSettings {
        /// New settings.
        settings: TrustSettings,
    },
    /// Whether what other PCs returned was right (`potluck audit`).
    Audit,
    /// Removes the files that PCs made whose results were wrong, so that the next build makes them anew; what was written since
    /// stays.
    AuditRebuild,
    /// Lets a PC work again that gave a wrong result. Ok.
    AuditForgive {
        /// Node id, or name as `audit` shows it.
        node: String,
    },
    /// Somebody looks at this window now, or not any more: a build that ends meanwhile needs no notification. To be said
    /// again every [`FOCUS_EVERY_S`] while it holds. Ok.
    Focus {
        /// They do.
        on: bool,
    },
    /// A row of `recent` was seen or a hint closed. Ok.
    Dismiss {
        /// Its id.
        id: String,
    },

    /// Founds a team. Ok.
    TeamCreate {
        /// Its name.
        name: String,
    },
    /// [`crate::view::Invitation`].
    TeamInvite {
        /// PCs that may use it.
        uses: u32,
        /// Seconds that it is good for.
        expires_s: u64,
        /// A keeper confirms each PC. None: where it has more than one use.
        #[serde(default)]
        approve: Option<bool>,
    },
    /// Takes an invitation back. Ok.
    TeamUninvite {
        /// Id of [`crate::view::InviteView`].
        id: String,
    },
    /// Joins by a link. A stream of [`crate::view::Joining`]s; the last is `joined`, or a refusal.
    TeamJoin {
        /// The link.
        link: String,
    },
    /// Asks a team nearby to be taken in; its keeper compares the check words. A stream as of `team_join`.
    TeamAsk {
        /// Id of [`crate::view::NearbyTeam`].
        nearby: String,
    },
    /// The same at an address that a person typed.
    TeamAskAddress {
        /// `host:port`.
        address: String,
    },
    /// Gets the statements back that this PC, a member, has lost. A stream as of `team_join`.
    TeamRestore {
        /// `host:port` of a PC of the team. None: the ones that are known.
        #[serde(default)]
        address: Option<String>,
        /// Id of the team, where this PC has not founded it and nothing here tells which it was.
        #[serde(default)]
        team: Option<String>,
    },
    /// Gives up joining. Ok.
    TeamJoinCancel,
    /// A keeper lets somebody in who waits, after comparing the check words. Ok.
    TeamApprove {
        /// Id of [`crate::view::JoinAsk`].
        id: String,
    },
    /// Or does not. Ok.
    TeamDecline {
        /// Id of [`crate::view::JoinAsk`].
        id: String,
    },
    /// This PC's name. Ok.
    TeamRename {
        /// New name.
        name: String,
    },
    /// Takes a PC out. Ok.
    TeamRemove {
        /// Node id.
        node: String,
        /// Together with all that it took in.
        #[serde(default)]
        with_added: bool,
    },
    /// Makes a member a keeper, or another role. Ok.
    TeamRole {
        /// Node id.
        node: String,
        /// `keeper`, `member`, `submit-only`, `serve-only`.
        role: String,
    },
    /// Votes for new keepers of a team that lost its own. Ok.
    TeamRecover {
        /// Node ids.
        keepers: Vec<String>,
        /// Days without a keeper, at least 14.
        unseen_days: u32,
    },
    /// Asks the desktop's keyring for this PC's key again, or to take it; the keyring may show a prompt. Ok.
    UnlockKey,
    /// This PC leaves for good; refused for the only keeper while others remain. Ok.
    TeamLeave,
    /// It leaves even so: nobody can then join or be removed until the others have voted for a keeper. Ok.
    TeamAbandon,
    /// The team (`potluck team list`).
    TeamList,

    /// Tries an address from now on. Ok.
    PeersAdd {
        /// `host:port`.
        address: String,
    },
    /// Does not try it any more. Ok.
    PeersRemove {
        /// As it was added.
        address: String,
    },

    /// [`crate::build::BuildRow`]s, newest first.
    Builds {
        /// At most so many; None: all.
        limit: Option<u32>,
    },
    /// [`crate::build::Report`] of `last` or a build's id or name.
    Report {
        /// Which.
        build: String,
    },
    /// [`crate::build::JobColumns`] of a build: for the timeline and the tables.
    Jobs {
        /// Which.
        build: String,
    },
    /// Begins a build of `potluck run`: first answer `{"id": …}`, then nothing until it ended; a connection that closes
    /// before that is a cancelled build.
    BuildBegin {
        /// Name; None: that of the directory.
        name: Option<String>,
        /// Command line.
        argv: Vec<String>,
        /// Working directory.
        cwd: PathBuf,
    },
    /// Ends it. [`crate::build::Report`].
    BuildEnd {
        /// Id of `build_begin`.
        id: String,
        /// Exit code of the command; 128 + signal if one ended it.
        exit: i32,
    },
    /// Removes a build from the history. Ok.
    BuildForget {
        /// Its id.
        build: String,
    },

    /// Counters and peers, for `potluck status` and tests.
    Status,
    /// Records of jobs since the node's start.
    Log {
        /// Only the last.
        limit: Option<usize>,
        /// `submitter` or `worker`.
        role: Option<String>,
    },
    /// Why a job ran where it ran.
    Explain {
        /// Source file or job number.
        what: String,
        /// Directory that the file is relative to.
        cwd: Option<String>,
    },
    /// `{"own_root": …}`: whether who asks is in the node's own root. Compiles that are asked in a container, a chroot or
    /// another mount namespace run there.
    AskedHere,
    /// Checks of this PC: [`crate::view::Check`]s.
    Doctor,

    /// All toolchains.
    Toolchains,
    /// Packs a compiler now.
    ToolchainAdd {
        /// Its path.
        path: PathBuf,
        /// Environment, `NAME=value`.
        env: Vec<String>,
    },
    /// To every worker, now.
    ToolchainSync {
        /// Beginning of an id; None: all.
        id: Option<String>,
        /// Stream until all is settled.
        watch: bool,
    },
    /// Proves it again.
    ToolchainVerify {
        /// Beginning of an id; None: all.
        id: Option<String>,
    },
    /// Its files.
    ToolchainShow {
        /// Beginning of an id.
        id: String,
    },
    /// Removes what a submitter left here: compilers and files. Ok.
    Forget {
        /// Node id.
        submitter: String,
    },

    /// A number for `make -j`.
    Suggest,
    /// [`crate::view::WebAddress`]: opens the loopback web server, and makes a new one-time token.
    Ui,
    /// Raises or clears a state, in a simulated node only. Ok.
    Scene {
        /// Name of [`crate::view::Snapshot::scenes`].
        name: String,
    },
    /// Ends the node; jobs are handed back first. Ok.
    Stop,
}
