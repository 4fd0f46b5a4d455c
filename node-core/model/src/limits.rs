//! Everything that can grow has its limit here, with the reason.

use std::time::Duration;

/// Largest control message between nodes. A job with its deltas is some kilobytes; 4 MiB is room for a first-seen batch.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// One message of team statements. A link carries them in parts: some hundred statements each, and a ping waits for none.
pub const GOSSIP_BYTES_MAX: usize = 256 << 10;
/// Largest hello: read before anything is trusted.
pub const HELLO_BYTES_MAX: usize = 64 << 10;
/// A bulk chunk: small enough that a control message never waits more than 0.5 ms behind it at 1 Gbit/s.
pub const BULK_CHUNK_BYTES: usize = 64 << 10;
/// Largest blob (one file). Unity sources and precompiled headers reach 200 MiB.
pub const BLOB_BYTES_MAX: u64 = 512 << 20;
/// Content up to this size travels inside the job's message, above it on the bulk stream.
pub const INLINE_BYTES_MAX: usize = 128 << 10;
/// Path limit of Linux.
pub const PATH_BYTES_MAX: usize = 4096;
/// Name limit of Linux file systems.
pub const NAME_BYTES_MAX: usize = 255;
/// Directory depth that a mirror accepts.
pub const PATH_DEPTH_MAX: usize = 64;
/// Arguments of one command. Generated command lines reach some thousands.
pub const ARGS_MAX: usize = 8192;
/// One argument: MAX_ARG_STRLEN of Linux.
pub const ARG_BYTES_MAX: usize = 128 << 10;
/// Environment variables of one job: the allow list is much shorter.
pub const ENV_MAX: usize = 256;
/// Nesting of response files; gcc's own limit is 2000 expansions, real ones nest twice.
pub const RESPONSE_FILE_DEPTH_MAX: usize = 16;
/// Entries of one submitter's mirror. A kernel tree with its build directory has 150,000 names.
pub const MIRROR_ENTRIES_MAX: usize = 2_000_000;
/// Operations in one delta.
pub const DELTA_OPS_MAX: usize = 500_000;
/// Files of a toolchain.
pub const TOOLCHAIN_FILES_MAX: usize = 200_000;
/// Bytes of an unpacked toolchain.
pub const TOOLCHAIN_BYTES_MAX: u64 = 8 << 30;
/// Default quota of all mirrors of a worker (UX: cache 10 GiB).
pub const MIRROR_QUOTA_BYTES: u64 = 10 << 30;
/// Jobs of one submitter that a worker holds at once.
pub const JOBS_PER_PEER_MAX: usize = 512;
/// Connections: an office has at most 200 PCs, two dials each while they race.
pub const CONNECTIONS_MAX: usize = 512;
/// Addresses whose failed handshakes are remembered: more than PCs in an office, and some 100 kB.
pub const DOOR_ADDRESSES_MAX: usize = 1024;
/// Connections not yet past the handshake, those from addresses of members apart from all others.
pub const HALF_OPEN_MAX: usize = 64;
/// Of them from one address: a single stranger cannot take them all.
pub const HALF_OPEN_PER_ADDRESS_MAX: usize = 16;
/// Time for a stranger's first message after the handshake: an honest one has it ready.
pub const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Conversations at a time with PCs that have proved an invitation: an office that joins at one moment, the rest asks
/// again by itself.
pub const JOINS_PROVED_MAX: usize = 32;
/// Of them from one address: some PCs behind one router.
pub const JOINS_PROVED_PER_ADDRESS_MAX: usize = 8;
/// Conversations at a time with strangers who have proved none; whoever waits for a person is counted elsewhere.
pub const JOINS_MAX: usize = 8;
/// Of them from one address.
pub const JOINS_PER_ADDRESS_MAX: usize = 2;
/// Connections of one peer: one in use, the rest while both sides dial.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// HTTP/2 streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Time to connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for the first message of the TLS handshake, which a client has ready when it connects.
pub const HELLO_TLS_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer with jobs out is pinged this often ...
pub const PING_BUSY: Duration = Duration::from_millis(500);
/// ... and lost after this silence: its jobs must be elsewhere within 2 s, the time to place them again included.
pub const LOST_BUSY: Duration = Duration::from_millis(1800);
/// An idle peer is pinged this often ...
pub const PING_IDLE: Duration = Duration::from_secs(2);
/// ... and lost after this silence: two pings went unanswered, and everybody knows of a crash within 5 s.
pub const LOST_IDLE: Duration = Duration::from_millis(4500);
/// Announcements on the network that are remembered: an office has 200 PCs; restarts and teams next door make it more.
pub const HINTS_MAX: usize = 1024;
/// Announcements that say to be the same node: a restart leaves an old one for two minutes.
pub const HINTS_PER_NODE_MAX: usize = 4;
/// Addresses of one announcement: several interfaces, two families.
pub const HINT_ADDRESSES_MAX: usize = 8;
/// Name of a team in an announcement: one DNS label's worth.
pub const HINT_NAME_BYTES_MAX: usize = 63;
/// Teams nearby that are shown: more is no choice but a flood.
pub const TEAMS_NEARBY_MAX: usize = 32;
/// Addresses of a team's keepers that are kept for asking.
pub const KEEPER_ADDRESSES_MAX: usize = 8;
/// Dials of hints at a time: each may cost a handshake with a stranger.
pub const HINT_DIALS_MAX: usize = 16;
/// Dials of hints in a second, all together: a handshake takes a millisecond of CPU, so that a flood costs 4 %.
pub const HINT_DIALS_PER_SECOND_MAX: u32 = 40;
/// A hint that leads to nobody who answers like a member within this time is given up for now. A LAN needs milliseconds.
pub const HINT_TIMEOUT: Duration = Duration::from_secs(2);
/// Peers whose addresses are remembered for the next start: the team has at most 200 PCs.
pub const REMEMBERED_PEERS_MAX: usize = 256;
/// Addresses of one peer that are remembered, newest first.
pub const REMEMBERED_ADDRESSES_MAX: usize = 4;
/// Addresses that a person may name: a list that is typed.
pub const TYPED_ADDRESSES_MAX: usize = 512;
/// The wrapper compiles itself when the node is silent for this long, and neither computes nor waits for a disk.
pub const WRAPPER_PATIENCE: Duration = Duration::from_millis(250);
/// Retries of one job because of faults before `-M`, then local.
pub const FAULT_RETRIES_MAX: u32 = 2;
/// Tries of one job on different peers before it runs here.
pub const PEER_TRIES_MAX: u32 = 3;
/// Siblings shipped with a faulted path.
pub const SIBLINGS_MAX: usize = 128;
/// Faults that one result may report: beyond it the job runs locally.
pub const FAULTS_PER_JOB_MAX: usize = 4096;
/// Job records kept in memory and shown by `explain`.
pub const JOB_RECORDS_MAX: usize = 20_000;
/// Proofs of toolchains of one submitter that wait for a slot on a worker. It has one on its way at a time; older ones
/// had one for each of their compilers.
pub const PROOFS_WAITING_MAX: usize = 32;
/// Proofs of one toolchain over one link: some twenty, each of them up to eight times.
pub const PROOFS_PER_TOOLCHAIN_MAX: u32 = 256;
/// Toolchains of one submitter that are proved over one link.
pub const TOOLCHAINS_PER_LINK_MAX: usize = 128;
/// Largest job that proves a toolchain: its command line. Those that wait are held in memory.
pub const PROOF_BYTES_MAX: usize = 256 << 10;
/// CPU and wall time of a proof: it compiles some lines.
pub const PROOF_TIME_MAX: Duration = Duration::from_secs(60);
/// Contents of results that all guests of a worker together hold in the node's memory until their submitters take them;
/// beyond it they wait in files without a name. As much as a hundred objects of a debug build.
pub const RESULTS_MEMORY_BYTES_MAX: u64 = 64 << 20;
/// One content in memory: what is larger goes into a file in any case, piece by piece.
pub const RESULT_CONTENT_MEMORY_BYTES_MAX: u64 = 8 << 20;
/// Contents inside one result, packed: with standard output and error it is to fit into a control message.
pub const RESULT_INLINE_BYTES_MAX: usize = 512 << 10;
/// Bytes, packed, that wait for one submitter before no further job of it starts: two or three large outputs.
pub const RESULTS_UNTAKEN_BYTES_MAX: u64 = 128 << 20;
/// Answers without contents that wait for one submitter; whoever asks more and reads nothing is disconnected.
pub const ANSWERS_UNTAKEN_MAX: u64 = 65_536;
/// Files that hold results, all submitters', packed: what a few running jobs may still write when nobody takes anything.
/// Beyond it a result is dropped, and its submitter told.
pub const RESULTS_FILES_BYTES_MAX: u64 = 4 << 30;
/// A submitter that takes nothing for this long although something waits is disconnected.
pub const RESULTS_UNTAKEN_TIME: Duration = Duration::from_secs(60);
/// Deltas that wait in memory for guests' threads, all submitters'. Further ones wait in files.
pub const DELTAS_MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Bytes of what one submitter sent that wait for its guest's thread, wherever. Packed, all that a large tree has in files
/// too small for an upload is some hundred megabytes.
pub const GUEST_WAITING_BYTES_MAX: u64 = 1 << 30;
/// How fast a worker reads what others keep on it to find what has rotted: 10 GiB take 11 minutes of a day, and a disk that
/// reads 500 MB/s is asked for a thirtieth of that.
pub const SCRUB_BYTES_PER_S: u64 = 16 << 20;
/// Between two such passes over one submitter's files.
pub const SCRUB_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Submitters that hold a sandbox on one worker at a time.
pub const SUBMITTERS_MAX: usize = 64;
/// PCs that wait for a keeper's yes at a time, those with an invitation apart from those without: more than one person
/// compares.
pub const ASKING_MAX: usize = 8;
/// Of them from one address: one stranger cannot take all places.
pub const ASKING_PER_ADDRESS_MAX: usize = 4;
/// A keeper's yes is waited for this long.
pub const ASKING_TIMEOUT: Duration = Duration::from_secs(600);
/// Whoever waits hears this often that it still does.
pub const ASKING_BEAT: Duration = Duration::from_secs(2);
/// Keepers' addresses that a member tells a stranger who asks it.
pub const KEEPERS_TOLD_MAX: usize = 8;
/// A removed peer's connection stays open so long for the news of its removal; nothing that it says is heard.
pub const FAREWELL: Duration = Duration::from_millis(500);

/// What one job may use on a worker. Values from `trust` section 2 of the design study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JobLimits {
    /// Wall time.
    pub wall_ms: u64,
    /// CPU time, all processes.
    pub cpu_s: u64,
    /// Address space of one process.
    pub address_bytes: u64,
    /// Size of one written file.
    pub file_bytes: u64,
    /// Processes at a time.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// All written files together.
    pub output_bytes: u64,
    /// Number of written files.
    pub output_files: u64,
    /// Standard output and standard error, each.
    pub stdio_bytes: u64,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            wall_ms: 10 * 60 * 1000,
            cpu_s: 10 * 60,
            address_bytes: 4 << 30,
            file_bytes: 512 << 20,
            processes: 256,
            open_files: 1024,
            output_bytes: 1 << 30,
            output_files: 4096,
            stdio_bytes: 4 << 20,
        }
    }
}
/// Jobs of one build that are kept one by one; later ones are only counted. Chromium has 60,000; a row is some 150 bytes.
pub const BUILD_JOBS_MAX: usize = 200_000;
/// Builds that go on at a time; beyond it the oldest is closed.
pub const BUILDS_OPEN_MAX: usize = 64;
/// Builds that the history keeps however old they are.
pub const HISTORY_BUILDS_MIN: usize = 500;
/// Days for which it keeps all.
pub const HISTORY_DAYS: u64 = 30;
/// Bytes of it on disk, whatever the two above say.
pub const HISTORY_BYTES_MAX: u64 = 1 << 30;
/// Comparisons of a new peer's results before fewer than all are compiled again.
pub const SAMPLE_FIRST: u32 = 10;
/// The part of a well-known peer's results that is compiled again: with 1 in 100, one that always lies is found within 459
/// results with 99 %.
pub const SAMPLE_RATE_MIN: f64 = 0.01;
/// The part after something spoke against a peer ...
pub const SAMPLE_DOUBT_RATE: f64 = 0.2;
/// ... until so many comparisons agreed.
pub const SAMPLE_DOUBT_AGREED: u32 = 20;
/// Results that wait to be compiled again: some kilobytes each, and what an idle minute can do.
pub const SAMPLES_MAX: usize = 64;
/// One that waited longer is dropped: its inputs have most likely changed, and nobody still uses the object.
pub const SAMPLE_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// A peer that gave a wrong result gets no jobs for this long.
pub const QUARANTINE_MS: u64 = 24 * 3600 * 1000;
/// Members that must each have been given a wrong result before the others do without a peer too.
pub const ACCUSERS_MIN: u32 = 2;
/// Words of members about others that are remembered: everybody of a team of 200 about some.
pub const ACCUSATIONS_MAX: usize = 4096;
/// Toolchains remembered for one peer: a developer has some.
pub const TOOLCHAINS_OF_PEER_MAX: usize = 16;
/// Outputs of which it is remembered who made them, to list what a wrong peer made: the last builds of a large project; a
/// path each, some 20 MB.
pub const MADE_OUTPUTS_MAX: usize = 200_000;
/// Outputs that are listed with one verdict.
pub const AFFECTED_MAX: usize = 10_000;
/// Evidence that one member sends: a command and the names and digests of what came.
pub const EVIDENCE_BYTES_MAX: usize = 256 << 10;
