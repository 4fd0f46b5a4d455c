//! What is shown of a node: one snapshot of plain values. Times are milliseconds since 1970, durations milliseconds.
//! Names of peers come from other PCs: they are text, never markup, and at most 64 characters long here.

use serde::{Deserialize, Serialize};

use crate::build::{BuildLine, BuildRow};

macro_rules! views {
    ($($(#[$meta:meta])* $kind:ident $name:ident $body:tt)*) => {
        $(
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[cfg_attr(feature = "ts", derive(ts_rs::TS))]
            #[serde(rename_all = "snake_case")]
            $(#[$meta])*
            pub $kind $name $body
        )*
    };
}
pub(crate) use views;

views! {
    /// Everything that tray and window draw.
    struct Snapshot {
        /// [`crate::SCHEMA`].
        pub schema: u32,
        /// This PC.
        pub this: ThisPc,
        /// Its sharing.
        pub share: ShareView,
        /// Its team.
        pub team: Option<TeamView>,
        /// Teams that were seen on this network and that this PC is not in.
        pub nearby: Vec<NearbyTeam>,
        /// Where joining is, if it goes on.
        pub joining: Option<Joining>,
        /// This PC first, then the others by name.
        pub machines: Vec<Machine>,
        /// Their sum.
        pub pool: PoolView,
        /// Builds that run, newest first.
        pub building: Vec<BuildLine>,
        /// Last builds, newest first, at most 100; `builds` has all.
        pub builds: Vec<BuildRow>,
        /// Compilers of this PC.
        pub toolchains: Vec<ToolchainView>,
        /// Compilers that others left here.
        pub received: Vec<ReceivedView>,
        /// Bytes that received files may take, all submitters together, and what they take.
        pub cache: CacheView,
        /// What needs the person, worst first.
        pub problems: Vec<Problem>,
        /// What happened lately, newest first, at most 20.
        pub recent: Vec<RecentRow>,
        /// Checks of Help & checks.
        pub checks: Vec<Check>,
        /// Notification settings.
        pub notify: NotifySettings,
        /// Whether results of other PCs are right.
        #[serde(default)]
        pub trust: TrustView,
        /// Addresses that a person gave.
        pub addresses: Vec<String>,
        /// Only of a simulated node: states that can be raised.
        pub scenes: Vec<String>,
        /// The last view that somebody asked for outside the window: the button of a notification.
        #[serde(default)]
        pub open: Option<OpenRequest>,
    }

    /// A view that the window shall show.
    #[derive(Eq)]
    struct OpenRequest {
        /// Another one for each request: whoever has seen it does not open it again.
        pub id: u64,
        /// As in [`FixAction::View`].
        pub view: String,
    }

    /// This PC.
    struct ThisPc {
        /// Node id.
        pub id: String,
        /// Its name.
        pub name: String,
        /// Potluck's version.
        pub version: String,
        /// Logical cores.
        pub cores: u32,
        /// No window of its own: donors' settings apply all the same.
        pub headless: bool,
        /// Chosen in onboarding; None: not yet.
        pub role: Option<UserRole>,
        /// When the node started.
        pub started_ms: u64,
        /// Where the node's key lies.
        pub key: KeyPlace,
        /// Address that others are told.
        pub listen: String,
        /// A simulated node: nothing here is real.
        pub demo: bool,
    }

    /// What the person wants of Potluck.
    #[derive(Copy, Eq)]
    enum UserRole {
        /// Lends the computer.
        Donor,
        /// Builds, and lends.
        Developer,
    }

    /// Where the node's private key lies.
    #[derive(Eq)]
    enum KeyPlace {
        /// In the keyring of the desktop.
        Keyring,
        /// In a file that only its owner can read; with the reason why it is in no keyring.
        File(String),
    }

    /// What is shared now, and why.
    struct ShareView {
        /// The owner's switch.
        pub on: bool,
        /// State of UX 2.1.
        pub state: ShareState,
        /// Status sentence: window, command line.
        pub sentence: String,
        /// The same in a few words: tray.
        pub short: String,
        /// What will happen next: "It will lend 7 of 8 cores after 3 minutes without input."
        pub next: Option<String>,
        /// What the settings mean together.
        pub rule: String,
        /// The rule can never be fulfilled.
        pub rule_is_warning: bool,
        /// Slots given now.
        pub slots: u32,
        /// Slots that are given when the person is away.
        pub slots_max: u32,
        /// Whom it helps now.
        pub helping: Vec<Helped>,
        /// Core time lent since midnight, milliseconds.
        pub lent_today_ms: u64,
        /// To whom, most first.
        pub lent_today_to: Vec<String>,
        /// Settings.
        pub settings: ShareSettings,
        /// What tells that the person is there: "X11", "logind", … ; None: nothing does, so it counts as in use.
        pub presence_source: Option<String>,
    }

    /// State of sharing.
    #[derive(Eq)]
    #[serde(tag = "is")]
    enum ShareState {
        /// Switched off.
        Off,
        /// Until a time; None: until resumed.
        Paused {
            /// End.
            until_ms: Option<u64>,
        },
        /// On, but not now.
        Held {
            /// Why.
            reason: HeldReason,
            /// When that ends by itself, if that is known.
            resumes_ms: Option<u64>,
        },
        /// Nobody wants anything now.
        Ready {
            /// Slots.
            slots: u32,
        },
        /// Jobs run.
        Helping {
            /// Slots.
            slots: u32,
            /// Jobs that run.
            jobs: u32,
            /// Submitters.
            people: u32,
        },
        /// No new ones are taken.
        Finishing {
            /// Jobs that still run.
            jobs: u32,
        },
        /// Something must be mended first.
        Blocked {
            /// Code of a [`Problem`].
            problem: String,
        },
    }

    /// Why nothing is shared although it is on. Order: what the person did comes before what the machine does.
    #[derive(Copy, Eq, PartialOrd, Ord)]
    enum HeldReason {
        /// Somebody uses this PC.
        InUse,
        /// It runs on its battery.
        Battery,
        /// Outside the hours that were set.
        Schedule,
        /// Other programs need the CPU.
        CpuBusy,
        /// Memory is short.
        Memory,
        /// The disk is full.
        Disk,
        /// The person's own build has all cores.
        OwnBuild,
    }

    /// One submitter whose jobs run here.
    struct Helped {
        /// Name of its PC.
        pub name: String,
        /// Jobs now.
        pub jobs: u32,
    }

    /// How cores are counted.
    #[derive(Copy, Eq)]
    enum Cores {
        /// All but so many, at least 1.
        AllBut(u32),
        /// So many, at most all.
        Count(u32),
    }

    /// Named sets of settings.
    #[derive(Copy, Eq)]
    enum Preset {
        /// Only when I'm away.
        Away,
        /// Also a little while I work.
        ALittle,
        /// Dedicated build machine.
        Dedicated,
        /// Own settings.
        Custom,
    }

    /// When to lend on battery.
    #[derive(Copy, Eq)]
    enum Battery {
        /// Not at all.
        Never,
        /// Above 50 %.
        Above50,
        /// Above 80 %.
        Above80,
        /// Always.
        Always,
    }

    /// Hours in which sharing is allowed, local time. `to` before `from` goes past midnight.
    #[derive(Eq)]
    struct Hours {
        /// Monday is bit 0.
        pub days: u8,
        /// Minutes after midnight.
        pub from_min: u16,
        /// Minutes after midnight.
        pub to_min: u16,
    }

    /// Settings of sharing (UX 2.4). A preset fixes those that it names.
    #[derive(Eq)]
    struct ShareSettings {
        /// Which preset.
        pub preset: Preset,
        /// Seconds without input that count as away; 1 to 3600, and the window offers minutes.
        pub away_after_s: u32,
        /// A locked screen counts as away after 5 s.
        pub away_when_locked: bool,
        /// Cores when away.
        pub cores_away: Cores,
        /// Cores while in use.
        pub cores_in_use: Cores,
        /// On battery.
        pub battery: Battery,
        /// Hold if other programs use more than this share of the CPU, per cent; 10 to 80.
        pub load_gate_percent: u8,
        /// Memory to keep free, MiB; 0: max(2 GiB, 15 %).
        pub keep_free_mib: u32,
        /// Disk to keep free, MiB; 0: max(5 GiB, 10 %), at most 50 GiB.
        pub keep_free_disk_mib: u32,
        /// Empty: always.
        pub hours: Vec<Hours>,
        /// Start with the desktop.
        pub start_at_login: bool,
    }

    /// A team that this PC is in.
    struct TeamView {
        /// Team id.
        pub id: String,
        /// Its name.
        pub name: String,
        /// This PC may invite, approve and remove.
        pub is_keeper: bool,
        /// Keepers in all.
        pub keepers: u32,
        /// Members, this PC first.
        pub members: Vec<MemberView>,
        /// PCs that ask to be taken in.
        pub asking: Vec<JoinAsk>,
        /// Open invitations of this PC.
        pub invites: Vec<InviteView>,
    }

    /// One member.
    struct MemberView {
        /// Node id.
        pub id: String,
        /// Name.
        pub name: String,
        /// `keeper`, `member`, `submit-only`, `serve-only`.
        pub role: String,
        /// This PC.
        pub this_pc: bool,
        /// Connected now.
        pub online: bool,
        /// Last seen, if ever.
        pub seen_ms: Option<u64>,
    }

    /// One of the four pictures that both sides compare.
    #[derive(Eq)]
    struct CheckWord {
        /// An emoji.
        pub picture: String,
        /// Its name.
        pub word: String,
    }

    /// Somebody who wants to join.
    struct JoinAsk {
        /// For `team_approve`.
        pub id: String,
        /// Name that it gave itself.
        pub name: String,
        /// Where it asks from.
        pub address: String,
        /// Must be the same on its screen.
        pub check: Vec<CheckWord>,
        /// Since when.
        pub since_ms: u64,
        /// By an invitation of this team, or without one.
        pub invited: bool,
    }

    /// An open invitation.
    struct InviteView {
        /// For `team_uninvite`.
        pub id: String,
        /// Uses left.
        pub uses_left: u32,
        /// End.
        pub expires_ms: u64,
        /// Each PC is approved.
        pub approve: bool,
    }

    /// A new invitation.
    struct Invitation {
        /// The link.
        pub link: String,
        /// The same as a QR code: an SVG image.
        pub qr_svg: String,
        /// The same for a terminal.
        pub qr_text: String,
        /// End.
        pub expires_ms: u64,
        /// PCs that may use it.
        pub uses: u32,
    }

    /// How far joining is.
    #[serde(tag = "is")]
    enum Joining {
        /// Trying to reach the team.
        Connecting {
            /// Its name, if it is known.
            team: String,
            /// The PC that was asked has no time at this moment: this one asks again by itself.
            #[serde(default)]
            busy: bool,
        },
        /// A keeper must say yes.
        Waiting {
            /// Team.
            team: String,
            /// Must be the same on the keeper's screen.
            check: Vec<CheckWord>,
        },
        /// In.
        Joined {
            /// Team.
            team: String,
            /// What the keeper's node showed.
            check: Vec<CheckWord>,
        },
        /// Not in, and why.
        Failed {
            /// One sentence, and a hint on a line of its own.
            error: String,
        },
    }

    /// A team on this network.
    struct NearbyTeam {
        /// For `team_ask`.
        pub id: String,
        /// Name, as its nodes announce it.
        pub name: String,
        /// Computers of it that were seen.
        pub computers: u32,
    }

    /// Three words for a machine.
    #[derive(Copy, Eq)]
    enum MachineState {
        /// It takes jobs.
        Sharing,
        /// Its owner has it.
        InUse,
        /// It cannot be used, see the reason.
        Unavailable,
    }

    /// How a machine was found.
    #[derive(Copy, Eq)]
    enum FoundBy {
        /// This one.
        Here,
        /// mDNS.
        Network,
        /// An address that was remembered or typed.
        Address,
        /// It came to us.
        Incoming,
    }

    /// One PC of the pool.
    struct Machine {
        /// Node id.
        pub id: String,
        /// Name.
        pub name: String,
        /// State.
        pub state: MachineState,
        /// In words: "In use", "On battery", "Older version (0.0)".
        pub reason: String,
        /// This PC.
        pub this_pc: bool,
        /// Jobs that run there, all submitters'.
        pub used: u32,
        /// Of them this PC's.
        pub used_by_me: u32,
        /// Slots that it gives now.
        pub offered: u32,
        /// Its logical cores; 0: unknown.
        pub cores: u32,
        /// Measured speed, 1 is this PC; None: nothing measured yet.
        pub speed: Option<f64>,
        /// Toolchains of this PC that are ready there, and all of them.
        pub toolchains_ready: u32,
        /// All that this PC has.
        pub toolchains: u32,
        /// Potluck's version there.
        pub version: String,
        /// `x86_64`, `aarch64`.
        pub arch: String,
        /// Address in use.
        pub address: String,
        /// How it was found.
        pub found_by: FoundBy,
        /// Round trip, microseconds.
        pub rtt_us: u64,
        /// Last heard of.
        pub seen_ms: Option<u64>,
    }

    /// The pool's sum.
    struct PoolView {
        /// Machines that are connected, this one included.
        pub machines: u32,
        /// Slots that are offered now, elsewhere and here.
        pub cores: u32,
        /// Of them free.
        pub cores_free: u32,
        /// Machines that share.
        pub sharing: u32,
        /// Machines in use.
        pub in_use: u32,
        /// Machines that cannot be used.
        pub unavailable: u32,
        /// How this network lets PCs find each other.
        pub discovery: Discovery,
    }

    /// Whether PCs can find each other here.
    #[derive(Copy, Eq)]
    enum Discovery {
        /// Others were seen, or the own announcement came back.
        Works,
        /// Too early to say.
        Starting,
        /// What was sent by multicast did not come back: addresses are used.
        Blocked,
        /// Switched off.
        Off,
    }

    /// How far a toolchain is on one machine.
    #[derive(Copy, Eq)]
    enum SyncState {
        /// Not asked for.
        Absent,
        /// Waits for its turn.
        Waiting,
        /// Its files travel.
        Sending,
        /// It is being proved.
        Proving,
        /// It is there, and proved when that machine gives its cores.
        Later,
        /// Ready.
        Ready,
        /// It cannot be used there.
        Failed,
    }

    /// A toolchain on one machine.
    struct SyncView {
        /// Node id.
        pub machine: String,
        /// Its name.
        pub name: String,
        /// State.
        pub state: SyncState,
        /// 0 to 100, of bytes.
        pub percent: u8,
        /// What is wrong, in words.
        pub note: String,
    }

    /// A compiler of this PC.
    struct ToolchainView {
        /// Toolchain id; empty while it is packed or if that failed.
        pub id: String,
        /// "gcc 12.2.0".
        pub name: String,
        /// Its driver.
        pub path: String,
        /// "x86_64-linux-gnu".
        pub target: String,
        /// Files.
        pub files: u32,
        /// Bytes.
        pub bytes: u64,
        /// It is being packed.
        pub packing: bool,
        /// Why it cannot travel.
        pub error: Option<String>,
        /// Where it is.
        pub machines: Vec<SyncView>,
    }

    /// What a submitter left here.
    struct ReceivedView {
        /// Node id.
        pub submitter: String,
        /// Name of its PC.
        pub name: String,
        /// Names of its compilers, as far as they are known.
        pub toolchains: Vec<String>,
        /// Bytes of all of its files here.
        pub bytes: u64,
        /// Last used.
        pub used_ms: Option<u64>,
    }

    /// Disk that received files take.
    struct CacheView {
        /// Bytes now.
        pub bytes: u64,
        /// Bytes at most.
        pub bytes_max: u64,
        /// Free on that disk.
        pub disk_free: u64,
    }

    /// What can be done about a problem.
    struct Fix {
        /// Words on the button.
        pub label: String,
        /// What it does.
        pub action: FixAction,
    }

    /// What a button does.
    #[serde(tag = "is")]
    enum FixAction {
        /// Opens a view of the window: "help", "machines", "settings/team", …
        View {
            /// Which.
            name: String,
        },
        /// Asks the node.
        Call {
            /// JSON of a [`crate::call::Call`].
            json: String,
        },
        /// A command to copy.
        Command {
            /// For a shell.
            text: String,
        },
    }

    /// Something that needs a person (UX 2.9).
    struct Problem {
        /// Stable code: N1, N2, S1, …
        pub code: String,
        /// One sentence for everybody.
        pub headline: String,
        /// More of it, for whoever wants to know.
        pub detail: String,
        /// The one action.
        pub fix: Fix,
        /// Changes the tray's icon to *Attention*.
        pub attention: bool,
        /// Since when.
        pub since_ms: u64,
    }

    /// A row of Overview ▸ Recent.
    struct RecentRow {
        /// For `dismiss`.
        pub id: String,
        /// When.
        pub at_ms: u64,
        /// One sentence.
        pub text: String,
        /// View that it opens, such as "builds/ID".
        pub opens: Option<String>,
    }

    /// How a check ended.
    #[derive(Copy, Eq)]
    enum CheckState {
        /// As it should be.
        Ok,
        /// Works with a limit.
        Warn,
        /// Does not work.
        Fail,
        /// Not looked at yet.
        Pending,
    }

    /// One line of Help & checks and of `potluck doctor`.
    struct Check {
        /// "sandbox", "discovery", …
        pub name: String,
        /// For people: "Safe box works".
        pub title: String,
        /// State.
        pub state: CheckState,
        /// Code of the problem, if it is one.
        pub code: Option<String>,
        /// What was found.
        pub note: String,
        /// What to do.
        pub fix: String,
    }

    /// Notification settings.
    #[derive(Eq)]
    struct NotifySettings {
        /// A build finished.
        pub finished: bool,
        /// From this duration on, seconds.
        pub finished_after_s: u32,
        /// A build ran mostly here, and something can be done about it.
        pub fell_back: bool,
        /// Somebody wants to join.
        pub joins: bool,
        /// Something needs the person.
        pub problems: bool,
    }

    /// Which results of other PCs are used.
    #[derive(Copy, Eq, Default)]
    enum TrustMode {
        /// At once; a sample is compiled again later.
        #[default]
        Normal,
        /// Only what two of them made the same.
        Careful,
        /// None but those of PCs that are named.
        Release,
    }

    /// The same with the names.
    #[derive(Eq, Default)]
    struct TrustSettings {
        /// Which.
        pub mode: TrustMode,
        /// Node ids of PCs that compile also for `release`.
        pub peers: Vec<String>,
    }

    /// Whether results of other PCs are right.
    #[derive(Eq, Default)]
    struct TrustView {
        /// What the person chose.
        pub settings: TrustSettings,
        /// Results that were compiled again since this node's start.
        pub compared: u64,
        /// Of them, where all were the same.
        pub agreed: u64,
        /// Those that wait for an idle moment.
        pub waiting: u32,
        /// PCs that gave a wrong result, newest first.
        pub wrong: Vec<WrongView>,
    }

    /// A PC that gave a wrong result.
    #[derive(Eq)]
    struct WrongView {
        /// Node id.
        pub peer: String,
        /// Name.
        pub name: String,
        /// When that was found.
        pub at_ms: u64,
        /// Until when it gets no jobs; None: it gets some.
        pub until_ms: Option<u64>,
        /// What it rests on, in words.
        pub why: String,
        /// The source whose object it was.
        pub source: Option<String>,
        /// Files of the last builds that came from it, and are not removed yet.
        pub files: u32,
    }

    /// Where the window can be opened in a browser.
    struct WebAddress {
        /// With a one-time token; good for a minute.
        pub url: String,
    }

    /// A call was carried out.
    struct Done {
        /// Always true.
        pub ok: bool,
    }

    /// A call was not carried out.
    struct Refusal {
        /// One sentence, and a hint on a line of its own.
        pub error: String,
    }
}

/// What changed since the update before; the first one has everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Update {
    /// One more than the one before; a gap means: watch anew.
    pub seq: u64,
    /// Changed fields of [`Snapshot`], whole.
    #[cfg_attr(feature = "ts", ts(type = "Partial<Snapshot>"))]
    pub sections: serde_json::Map<String, serde_json::Value>,
}

impl Default for NotifySettings {
    /// As they are before anybody chose (UX 2.5).
    fn default() -> Self {
        Self { finished: true, finished_after_s: 30, fell_back: true, joins: true, problems: true }
    }
}

impl Default for ShareSettings {
    /// As they are before anybody chose (UX 2.4).
    fn default() -> Self {
        Self {
            preset: Preset::Away,
            away_after_s: 180,
            away_when_locked: true,
            cores_away: Cores::AllBut(1),
            cores_in_use: Cores::Count(0),
            battery: Battery::Never,
            load_gate_percent: 20,
            keep_free_mib: 0,
            keep_free_disk_mib: 0,
            hours: Vec::new(),
            start_at_login: true,
        }
    }
}

impl TrustMode {
    /// Its word, as the settings file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Careful => "careful",
            Self::Release => "release",
        }
    }
}
