// Generated from node-core/api by tests/tests/types.rs; not edited by hand.
// After a change of the api: POTLUCK_WRITE_TYPES=1 cargo test -p potluck-tests --test types

/** Raised when a field changes its meaning; fields are added freely. */
export const SCHEMA = 1;

/**
 * When to lend on battery.
 */
export type Battery = "never" | "above50" | "above80" | "always";

/**
 * How a build ended.
 */
export type BuildEnd = "running" | "ok" | "failed" | "cancelled";

/**
 * A build that runs.
 */
export type BuildLine = { 
/**
 * Id.
 */
id: string, 
/**
 * Name.
 */
name: string, 
/**
 * Jobs that ended.
 */
done: number, 
/**
 * Jobs that are known to come, if the build system tells; else None.
 */
total: number | null, 
/**
 * Jobs on other machines now.
 */
cores: number, 
/**
 * Jobs that wait for a core.
 */
waiting: number, 
/**
 * Since when.
 */
started_ms: number, 
/**
 * Jobs so far.
 */
counts: Counts, };

/**
 * A build in the list.
 */
export type BuildRow = { 
/**
 * Id.
 */
id: string, 
/**
 * Name.
 */
name: string, 
/**
 * Start.
 */
started_ms: number, 
/**
 * Duration.
 */
took_ms: number, 
/**
 * End.
 */
end: BuildEnd, 
/**
 * Exit code, if it ran under `potluck run`.
 */
exit: number | null, 
/**
 * Jobs.
 */
counts: Counts, 
/**
 * Time saved, if that can be said honestly (UX 2.8).
 */
saved_ms: number | null, 
/**
 * Other machines that took part.
 */
machines: number, };

/**
 * Disk that received files take.
 */
export type CacheView = { 
/**
 * Bytes now.
 */
bytes: number, 
/**
 * Bytes at most.
 */
bytes_max: number, 
/**
 * Free on that disk.
 */
disk_free: number, };

/**
 * A call. Answers with one value unless said otherwise; `Ok` is [`crate::view::Done`].
 */
export type Call = { "call": "watch", 
/**
 * Least time between two updates, milliseconds; 100 to 5000.
 */
every_ms: number, } | { "call": "snapshot" } | { "call": "share", 
/**
 * On or off.
 */
on: boolean, } | { "call": "pause", 
/**
 * Until when.
 */
until: Pause, } | { "call": "resume" } | { "call": "share_settings", 
/**
 * New settings.
 */
settings: ShareSettings, } | { "call": "reread" } | { "call": "role", 
/**
 * Lends, or builds and lends.
 */
role: UserRole, } | { "call": "notify_settings", 
/**
 * New settings.
 */
settings: NotifySettings, } | { "call": "trust_settings", 
/**
 * New settings.
 */
settings: TrustSettings, } | { "call": "audit" } | { "call": "audit_rebuild" } | { "call": "audit_forgive", 
/**
 * Node id, or name as `audit` shows it.
 */
node: string, } | { "call": "focus", 
/**
 * They do.
 */
on: boolean, } | { "call": "dismiss", 
/**
 * Its id.
 */
id: string, } | { "call": "team_create", 
/**
 * Its name.
 */
name: string, } | { "call": "team_invite", 
/**
 * PCs that may use it.
 */
uses: number, 
/**
 * Seconds that it is good for.
 */
expires_s: number, 
/**
 * A keeper confirms each PC. None: where it has more than one use.
 */
approve: boolean | null, } | { "call": "team_uninvite", 
/**
 * Id of [`crate::view::InviteView`].
 */
id: string, } | { "call": "team_join", 
/**
 * The link.
 */
link: string, } | { "call": "team_ask", 
/**
 * Id of [`crate::view::NearbyTeam`].
 */
nearby: string, } | { "call": "team_ask_address", 
/**
 * `host:port`.
 */
address: string, } | { "call": "team_restore", 
/**
 * `host:port` of a PC of the team. None: the ones that are known.
 */
address: string | null, 
/**
 * Id of the team, where this PC has not founded it and nothing here tells which it was.
 */
team: string | null, } | { "call": "team_join_cancel" } | { "call": "team_approve", 
/**
 * Id of [`crate::view::JoinAsk`].
 */
id: string, } | { "call": "team_decline", 
/**
 * Id of [`crate::view::JoinAsk`].
 */
id: string, } | { "call": "team_rename", 
/**
 * New name.
 */
name: string, } | { "call": "team_remove", 
/**
 * Node id.
 */
node: string, 
/**
 * Together with all that it took in.
 */
with_added: boolean, } | { "call": "team_role", 
/**
 * Node id.
 */
node: string, 
/**
 * `keeper`, `member`, `submit-only`, `serve-only`.
 */
role: string, } | { "call": "team_recover", 
/**
 * Node ids.
 */
keepers: Array<string>, 
/**
 * Days without a keeper, at least 14.
 */
unseen_days: number, } | { "call": "unlock_key" } | { "call": "team_leave" } | { "call": "team_abandon" } | { "call": "team_list" } | { "call": "peers_add", 
/**
 * `host:port`.
 */
address: string, } | { "call": "peers_remove", 
/**
 * As it was added.
 */
address: string, } | { "call": "builds", 
/**
 * At most so many; None: all.
 */
limit: number | null, } | { "call": "report", 
/**
 * Which.
 */
build: string, } | { "call": "jobs", 
/**
 * Which.
 */
build: string, } | { "call": "build_begin", 
/**
 * Name; None: that of the directory.
 */
name: string | null, 
/**
 * Command line.
 */
argv: Array<string>, 
/**
 * Working directory.
 */
cwd: string, } | { "call": "build_end", 
/**
 * Id of `build_begin`.
 */
id: string, 
/**
 * Exit code of the command; 128 + signal if one ended it.
 */
exit: number, } | { "call": "build_forget", 
/**
 * Its id.
 */
build: string, } | { "call": "status" } | { "call": "log", 
/**
 * Only the last.
 */
limit: number | null, 
/**
 * `submitter` or `worker`.
 */
role: string | null, } | { "call": "explain", 
/**
 * Source file or job number.
 */
what: string, 
/**
 * Directory that the file is relative to.
 */
cwd: string | null, } | { "call": "asked_here" } | { "call": "doctor" } | { "call": "toolchains" } | { "call": "toolchain_add", 
/**
 * Its path.
 */
path: string, 
/**
 * Environment, `NAME=value`.
 */
env: Array<string>, } | { "call": "toolchain_sync", 
/**
 * Beginning of an id; None: all.
 */
id: string | null, 
/**
 * Stream until all is settled.
 */
watch: boolean, } | { "call": "toolchain_verify", 
/**
 * Beginning of an id; None: all.
 */
id: string | null, } | { "call": "toolchain_show", 
/**
 * Beginning of an id.
 */
id: string, } | { "call": "forget", 
/**
 * Node id.
 */
submitter: string, } | { "call": "suggest" } | { "call": "ui" } | { "call": "scene", 
/**
 * Name of [`crate::view::Snapshot::scenes`].
 */
name: string, } | { "call": "stop" };

/**
 * One line of Help & checks and of `potluck doctor`.
 */
export type Check = { 
/**
 * "sandbox", "discovery", …
 */
name: string, 
/**
 * For people: "Safe box works".
 */
title: string, 
/**
 * State.
 */
state: CheckState, 
/**
 * Code of the problem, if it is one.
 */
code: string | null, 
/**
 * What was found.
 */
note: string, 
/**
 * What to do.
 */
fix: string, };

/**
 * How a check ended.
 */
export type CheckState = "ok" | "warn" | "fail" | "pending";

/**
 * One of the four pictures that both sides compare.
 */
export type CheckWord = { 
/**
 * An emoji.
 */
picture: string, 
/**
 * Its name.
 */
word: string, };

/**
 * How cores are counted.
 */
export type Cores = { "all_but": number } | { "count": number };

/**
 * Jobs by kind. Their sum is the number of jobs.
 */
export type Counts = { 
/**
 * Elsewhere.
 */
remote: number, 
/**
 * Here.
 */
here: number, 
/**
 * Only here.
 */
only: number, 
/**
 * Failed.
 */
failed: number, };

/**
 * Whether PCs can find each other here.
 */
export type Discovery = "works" | "starting" | "blocked" | "off";

/**
 * A call was carried out.
 */
export type Done = { 
/**
 * Always true.
 */
ok: boolean, };

/**
 * A job that failed.
 */
export type ErrorRow = { 
/**
 * Source.
 */
file: string, 
/**
 * Exit code.
 */
exit: number, 
/**
 * Machine.
 */
machine: string, 
/**
 * It failed there and worked here.
 */
differed: boolean, };

/**
 * What can be done about a problem.
 */
export type Fix = { 
/**
 * Words on the button.
 */
label: string, 
/**
 * What it does.
 */
action: FixAction, };

/**
 * What a button does.
 */
export type FixAction = { "is": "view", 
/**
 * Which.
 */
name: string, } | { "is": "call", 
/**
 * JSON of a [`crate::call::Call`].
 */
json: string, } | { "is": "command", 
/**
 * For a shell.
 */
text: string, };

/**
 * How a machine was found.
 */
export type FoundBy = "here" | "network" | "address" | "incoming";

/**
 * Why nothing is shared although it is on. Order: what the person did comes before what the machine does.
 */
export type HeldReason = "in_use" | "battery" | "schedule" | "cpu_busy" | "memory" | "disk" | "own_build";

/**
 * One submitter whose jobs run here.
 */
export type Helped = { 
/**
 * Name of its PC.
 */
name: string, 
/**
 * Jobs now.
 */
jobs: number, };

/**
 * Hours in which sharing is allowed, local time. `to` before `from` goes past midnight.
 */
export type Hours = { 
/**
 * Monday is bit 0.
 */
days: number, 
/**
 * Minutes after midnight.
 */
from_min: number, 
/**
 * Minutes after midnight.
 */
to_min: number, };

/**
 * A new invitation.
 */
export type Invitation = { 
/**
 * The link.
 */
link: string, 
/**
 * The same as a QR code: an SVG image.
 */
qr_svg: string, 
/**
 * The same for a terminal.
 */
qr_text: string, 
/**
 * End.
 */
expires_ms: number, 
/**
 * PCs that may use it.
 */
uses: number, };

/**
 * An open invitation.
 */
export type InviteView = { 
/**
 * For `team_uninvite`.
 */
id: string, 
/**
 * Uses left.
 */
uses_left: number, 
/**
 * End.
 */
expires_ms: number, 
/**
 * Each PC is approved.
 */
approve: boolean, };

/**
 * All jobs of a build as columns of the same length, in the order of their start.
 */
export type JobColumns = { 
/**
 * Names that `machine` counts in; 0 is this PC.
 */
machines: Array<string>, 
/**
 * Codes that `reason` counts in; 0 is none.
 */
reasons: Array<string>, 
/**
 * Start, milliseconds after the build's: when it got a core. Finding out and waiting come before it.
 */
start_ms: Array<number>, 
/**
 * From there to its end: travel, compile, finish.
 */
took_ms: Array<number>, 
/**
 * 0 remote, 1 here, 2 only here, 3 failed: [`Kind`].
 */
kind: Array<number>, 
/**
 * Index into `machines`.
 */
machine: Array<number>, 
/**
 * Row on that machine: jobs of one row do not overlap.
 */
lane: Array<number>, 
/**
 * Index into `reasons`.
 */
reason: Array<number>, 
/**
 * Source.
 */
file: Array<string>, 
/**
 * Waiting for a core.
 */
wait_ms: Array<number>, 
/**
 * Finding out what it needs.
 */
understand_ms: Array<number>, 
/**
 * On the way and in the other machine's queue, both directions.
 */
travel_ms: Array<number>, 
/**
 * The compiler's wall time.
 */
compile_ms: Array<number>, 
/**
 * Putting the outputs in place.
 */
finish_ms: Array<number>, 
/**
 * Times that it was taken back or lost before.
 */
repeats: Array<number>, };

/**
 * Somebody who wants to join.
 */
export type JoinAsk = { 
/**
 * For `team_approve`.
 */
id: string, 
/**
 * Name that it gave itself.
 */
name: string, 
/**
 * Where it asks from.
 */
address: string, 
/**
 * Must be the same on its screen.
 */
check: Array<CheckWord>, 
/**
 * Since when.
 */
since_ms: number, 
/**
 * By an invitation of this team, or without one.
 */
invited: boolean, };

/**
 * How far joining is.
 */
export type Joining = { "is": "connecting", 
/**
 * Its name, if it is known.
 */
team: string, 
/**
 * The PC that was asked has no time at this moment: this one asks again by itself.
 */
busy: boolean, } | { "is": "waiting", 
/**
 * Team.
 */
team: string, 
/**
 * Must be the same on the keeper's screen.
 */
check: Array<CheckWord>, } | { "is": "joined", 
/**
 * Team.
 */
team: string, 
/**
 * What the keeper's node showed.
 */
check: Array<CheckWord>, } | { "is": "failed", 
/**
 * One sentence, and a hint on a line of its own.
 */
error: string, };

/**
 * Where the node's private key lies.
 */
export type KeyPlace = "keyring" | { "file": string };

/**
 * What kind of work a bar is (UX 4.6).
 */
export type Kind = "remote" | "here" | "only" | "failed";

/**
 * One PC of the pool.
 */
export type Machine = { 
/**
 * Node id.
 */
id: string, 
/**
 * Name.
 */
name: string, 
/**
 * State.
 */
state: MachineState, 
/**
 * In words: "In use", "On battery", "Older version (0.0)".
 */
reason: string, 
/**
 * This PC.
 */
this_pc: boolean, 
/**
 * Jobs that run there, all submitters'.
 */
used: number, 
/**
 * Of them this PC's.
 */
used_by_me: number, 
/**
 * Slots that it gives now.
 */
offered: number, 
/**
 * Its logical cores; 0: unknown.
 */
cores: number, 
/**
 * Measured speed, 1 is this PC; None: nothing measured yet.
 */
speed: number | null, 
/**
 * Toolchains of this PC that are ready there, and all of them.
 */
toolchains_ready: number, 
/**
 * All that this PC has.
 */
toolchains: number, 
/**
 * Potluck's version there.
 */
version: string, 
/**
 * `x86_64`, `aarch64`.
 */
arch: string, 
/**
 * Address in use.
 */
address: string, 
/**
 * How it was found.
 */
found_by: FoundBy, 
/**
 * Round trip, microseconds.
 */
rtt_us: number, 
/**
 * Last heard of.
 */
seen_ms: number | null, };

/**
 * One machine's part in a build.
 */
export type MachineRow = { 
/**
 * Node id; empty: this PC.
 */
id: string, 
/**
 * Name.
 */
name: string, 
/**
 * Jobs whose results were used.
 */
jobs: number, 
/**
 * Their time on it.
 */
time_ms: number, 
/**
 * Times that its owner took it back during the build.
 */
reclaimed: number, };

/**
 * Three words for a machine.
 */
export type MachineState = "sharing" | "in_use" | "unavailable";

/**
 * One member.
 */
export type MemberView = { 
/**
 * Node id.
 */
id: string, 
/**
 * Name.
 */
name: string, 
/**
 * `keeper`, `member`, `submit-only`, `serve-only`.
 */
role: string, 
/**
 * This PC.
 */
this_pc: boolean, 
/**
 * Connected now.
 */
online: boolean, 
/**
 * Last seen, if ever.
 */
seen_ms: number | null, };

/**
 * A team on this network.
 */
export type NearbyTeam = { 
/**
 * For `team_ask`.
 */
id: string, 
/**
 * Name, as its nodes announce it.
 */
name: string, 
/**
 * Computers of it that were seen.
 */
computers: number, };

/**
 * Notification settings.
 */
export type NotifySettings = { 
/**
 * A build finished.
 */
finished: boolean, 
/**
 * From this duration on, seconds.
 */
finished_after_s: number, 
/**
 * A build ran mostly here, and something can be done about it.
 */
fell_back: boolean, 
/**
 * Somebody wants to join.
 */
joins: boolean, 
/**
 * Something needs the person.
 */
problems: boolean, };

/**
 * A view that the window shall show.
 */
export type OpenRequest = { 
/**
 * Another one for each request: whoever has seen it does not open it again.
 */
id: number, 
/**
 * As in [`FixAction::View`].
 */
view: string, };

/**
 * How long a pause lasts.
 */
export type Pause = { "for": number } | "tomorrow" | "open" | "finish";

/**
 * The pool's sum.
 */
export type PoolView = { 
/**
 * Machines that are connected, this one included.
 */
machines: number, 
/**
 * Slots that are offered now, elsewhere and here.
 */
cores: number, 
/**
 * Of them free.
 */
cores_free: number, 
/**
 * Machines that share.
 */
sharing: number, 
/**
 * Machines in use.
 */
in_use: number, 
/**
 * Machines that cannot be used.
 */
unavailable: number, 
/**
 * How this network lets PCs find each other.
 */
discovery: Discovery, };

/**
 * Named sets of settings.
 */
export type Preset = "away" | "a_little" | "dedicated" | "custom";

/**
 * Something that needs a person (UX 2.9).
 */
export type Problem = { 
/**
 * Stable code: N1, N2, S1, …
 */
code: string, 
/**
 * One sentence for everybody.
 */
headline: string, 
/**
 * More of it, for whoever wants to know.
 */
detail: string, 
/**
 * The one action.
 */
fix: Fix, 
/**
 * Changes the tray's icon to *Attention*.
 */
attention: boolean, 
/**
 * Since when.
 */
since_ms: number, };

/**
 * Jobs that ran here for one reason.
 */
export type ReasonRow = { 
/**
 * Stable code.
 */
code: string, 
/**
 * "Linking".
 */
title: string, 
/**
 * Jobs.
 */
jobs: number, 
/**
 * Their time.
 */
time_ms: number, 
/**
 * Something can be done about it.
 */
avoidable: boolean, 
/**
 * What it means and what to do.
 */
text: string, };

/**
 * What a submitter left here.
 */
export type ReceivedView = { 
/**
 * Node id.
 */
submitter: string, 
/**
 * Name of its PC.
 */
name: string, 
/**
 * Names of its compilers, as far as they are known.
 */
toolchains: Array<string>, 
/**
 * Bytes of all of its files here.
 */
bytes: number, 
/**
 * Last used.
 */
used_ms: number | null, };

/**
 * A row of Overview ▸ Recent.
 */
export type RecentRow = { 
/**
 * For `dismiss`.
 */
id: string, 
/**
 * When.
 */
at_ms: number, 
/**
 * One sentence.
 */
text: string, 
/**
 * View that it opens, such as "builds/ID".
 */
opens: string | null, };

/**
 * A call was not carried out.
 */
export type Refusal = { 
/**
 * One sentence, and a hint on a line of its own.
 */
error: string, };

/**
 * A build, summed up.
 */
export type Report = { 
/**
 * The row.
 */
build: BuildRow, 
/**
 * Command, if it is known.
 */
command: string, 
/**
 * Working directory.
 */
cwd: string, 
/**
 * Jobs.
 */
jobs: number, 
/**
 * Runs that were lost and done again elsewhere.
 */
repeated: number, 
/**
 * What one PC alone would have needed, if that can be said honestly.
 */
alone_ms: number | null, 
/**
 * Bytes sent and received.
 */
bytes_up: number, 
/**
 * Bytes received.
 */
bytes_down: number, 
/**
 * Who took part.
 */
machines: Array<MachineRow>, 
/**
 * Built here and why, most jobs first. Their jobs sum to `here + only` of the counts, failed ones aside.
 */
reasons: Array<ReasonRow>, 
/**
 * Findings in words.
 */
findings: Array<string>, 
/**
 * Toolchains that were used.
 */
toolchains: Array<string>, 
/**
 * First lines of the first errors.
 */
errors: Array<ErrorRow>, };

/**
 * Settings of sharing (UX 2.4). A preset fixes those that it names.
 */
export type ShareSettings = { 
/**
 * Which preset.
 */
preset: Preset, 
/**
 * Seconds without input that count as away; 1 to 3600, and the window offers minutes.
 */
away_after_s: number, 
/**
 * A locked screen counts as away after 5 s.
 */
away_when_locked: boolean, 
/**
 * Cores when away.
 */
cores_away: Cores, 
/**
 * Cores while in use.
 */
cores_in_use: Cores, 
/**
 * On battery.
 */
battery: Battery, 
/**
 * Hold if other programs use more than this share of the CPU, per cent; 10 to 80.
 */
load_gate_percent: number, 
/**
 * Memory to keep free, MiB; 0: max(2 GiB, 15 %).
 */
keep_free_mib: number, 
/**
 * Disk to keep free, MiB; 0: max(5 GiB, 10 %), at most 50 GiB.
 */
keep_free_disk_mib: number, 
/**
 * Empty: always.
 */
hours: Array<Hours>, 
/**
 * Start with the desktop.
 */
start_at_login: boolean, };

/**
 * State of sharing.
 */
export type ShareState = { "is": "off" } | { "is": "paused", 
/**
 * End.
 */
until_ms: number | null, } | { "is": "held", 
/**
 * Why.
 */
reason: HeldReason, 
/**
 * When that ends by itself, if that is known.
 */
resumes_ms: number | null, } | { "is": "ready", 
/**
 * Slots.
 */
slots: number, } | { "is": "helping", 
/**
 * Slots.
 */
slots: number, 
/**
 * Jobs that run.
 */
jobs: number, 
/**
 * Submitters.
 */
people: number, } | { "is": "finishing", 
/**
 * Jobs that still run.
 */
jobs: number, } | { "is": "blocked", 
/**
 * Code of a [`Problem`].
 */
problem: string, };

/**
 * What is shared now, and why.
 */
export type ShareView = { 
/**
 * The owner's switch.
 */
on: boolean, 
/**
 * State of UX 2.1.
 */
state: ShareState, 
/**
 * Status sentence: window, command line.
 */
sentence: string, 
/**
 * The same in a few words: tray.
 */
short: string, 
/**
 * What will happen next: "It will lend 7 of 8 cores after 3 minutes without input."
 */
next: string | null, 
/**
 * What the settings mean together.
 */
rule: string, 
/**
 * The rule can never be fulfilled.
 */
rule_is_warning: boolean, 
/**
 * Slots given now.
 */
slots: number, 
/**
 * Slots that are given when the person is away.
 */
slots_max: number, 
/**
 * Whom it helps now.
 */
helping: Array<Helped>, 
/**
 * Core time lent since midnight, milliseconds.
 */
lent_today_ms: number, 
/**
 * To whom, most first.
 */
lent_today_to: Array<string>, 
/**
 * Settings.
 */
settings: ShareSettings, 
/**
 * What tells that the person is there: "X11", "logind", … ; None: nothing does, so it counts as in use.
 */
presence_source: string | null, };

/**
 * Everything that tray and window draw.
 */
export type Snapshot = { 
/**
 * [`crate::SCHEMA`].
 */
schema: number, 
/**
 * This PC.
 */
this: ThisPc, 
/**
 * Its sharing.
 */
share: ShareView, 
/**
 * Its team.
 */
team: TeamView | null, 
/**
 * Teams that were seen on this network and that this PC is not in.
 */
nearby: Array<NearbyTeam>, 
/**
 * Where joining is, if it goes on.
 */
joining: Joining | null, 
/**
 * This PC first, then the others by name.
 */
machines: Array<Machine>, 
/**
 * Their sum.
 */
pool: PoolView, 
/**
 * Builds that run, newest first.
 */
building: Array<BuildLine>, 
/**
 * Last builds, newest first, at most 100; `builds` has all.
 */
builds: Array<BuildRow>, 
/**
 * Compilers of this PC.
 */
toolchains: Array<ToolchainView>, 
/**
 * Compilers that others left here.
 */
received: Array<ReceivedView>, 
/**
 * Bytes that received files may take, all submitters together, and what they take.
 */
cache: CacheView, 
/**
 * What needs the person, worst first.
 */
problems: Array<Problem>, 
/**
 * What happened lately, newest first, at most 20.
 */
recent: Array<RecentRow>, 
/**
 * Checks of Help & checks.
 */
checks: Array<Check>, 
/**
 * Notification settings.
 */
notify: NotifySettings, 
/**
 * Whether results of other PCs are right.
 */
trust: TrustView, 
/**
 * Addresses that a person gave.
 */
addresses: Array<string>, 
/**
 * Only of a simulated node: states that can be raised.
 */
scenes: Array<string>, 
/**
 * The last view that somebody asked for outside the window: the button of a notification.
 */
open: OpenRequest | null, };

/**
 * How far a toolchain is on one machine.
 */
export type SyncState = "absent" | "waiting" | "sending" | "proving" | "later" | "ready" | "failed";

/**
 * A toolchain on one machine.
 */
export type SyncView = { 
/**
 * Node id.
 */
machine: string, 
/**
 * Its name.
 */
name: string, 
/**
 * State.
 */
state: SyncState, 
/**
 * 0 to 100, of bytes.
 */
percent: number, 
/**
 * What is wrong, in words.
 */
note: string, };

/**
 * A team that this PC is in.
 */
export type TeamView = { 
/**
 * Team id.
 */
id: string, 
/**
 * Its name.
 */
name: string, 
/**
 * This PC may invite, approve and remove.
 */
is_keeper: boolean, 
/**
 * Keepers in all.
 */
keepers: number, 
/**
 * Members, this PC first.
 */
members: Array<MemberView>, 
/**
 * PCs that ask to be taken in.
 */
asking: Array<JoinAsk>, 
/**
 * Open invitations of this PC.
 */
invites: Array<InviteView>, };

/**
 * This PC.
 */
export type ThisPc = { 
/**
 * Node id.
 */
id: string, 
/**
 * Its name.
 */
name: string, 
/**
 * Potluck's version.
 */
version: string, 
/**
 * Logical cores.
 */
cores: number, 
/**
 * No window of its own: donors' settings apply all the same.
 */
headless: boolean, 
/**
 * Chosen in onboarding; None: not yet.
 */
role: UserRole | null, 
/**
 * When the node started.
 */
started_ms: number, 
/**
 * Where the node's key lies.
 */
key: KeyPlace, 
/**
 * Address that others are told.
 */
listen: string, 
/**
 * A simulated node: nothing here is real.
 */
demo: boolean, };

/**
 * A compiler of this PC.
 */
export type ToolchainView = { 
/**
 * Toolchain id; empty while it is packed or if that failed.
 */
id: string, 
/**
 * "gcc 12.2.0".
 */
name: string, 
/**
 * Its driver.
 */
path: string, 
/**
 * "x86_64-linux-gnu".
 */
target: string, 
/**
 * Files.
 */
files: number, 
/**
 * Bytes.
 */
bytes: number, 
/**
 * It is being packed.
 */
packing: boolean, 
/**
 * Why it cannot travel.
 */
error: string | null, 
/**
 * Where it is.
 */
machines: Array<SyncView>, };

/**
 * Which results of other PCs are used.
 */
export type TrustMode = "normal" | "careful" | "release";

/**
 * The same with the names.
 */
export type TrustSettings = { 
/**
 * Which.
 */
mode: TrustMode, 
/**
 * Node ids of PCs that compile also for `release`.
 */
peers: Array<string>, };

/**
 * Whether results of other PCs are right.
 */
export type TrustView = { 
/**
 * What the person chose.
 */
settings: TrustSettings, 
/**
 * Results that were compiled again since this node's start.
 */
compared: number, 
/**
 * Of them, where all were the same.
 */
agreed: number, 
/**
 * Those that wait for an idle moment.
 */
waiting: number, 
/**
 * PCs that gave a wrong result, newest first.
 */
wrong: Array<WrongView>, };

/**
 * What changed since the update before; the first one has everything.
 */
export type Update = { 
/**
 * One more than the one before; a gap means: watch anew.
 */
seq: number, 
/**
 * Changed fields of [`Snapshot`], whole.
 */
sections: Partial<Snapshot>, };

/**
 * What the person wants of Potluck.
 */
export type UserRole = "donor" | "developer";

/**
 * Where the window can be opened in a browser.
 */
export type WebAddress = { 
/**
 * With a one-time token; good for a minute.
 */
url: string, };

/**
 * A PC that gave a wrong result.
 */
export type WrongView = { 
/**
 * Node id.
 */
peer: string, 
/**
 * Name.
 */
name: string, 
/**
 * When that was found.
 */
at_ms: number, 
/**
 * Until when it gets no jobs; None: it gets some.
 */
until_ms: number | null, 
/**
 * What it rests on, in words.
 */
why: string, 
/**
 * The source whose object it was.
 */
source: string | null, 
/**
 * Files of the last builds that came from it, and are not removed yet.
 */
files: number, };
