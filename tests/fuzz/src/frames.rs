//! Frames: between nodes, between wrapper and node, between node and sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use potluck_model::ids::{Digest, JobId, NodeId, ToolchainId};
use potluck_model::limits::HELLO_BYTES_MAX;
use potluck_model::nearby;
use potluck_model::place::{Arch, Compile, Config, Event, JobSpec, PeerFacts, Submitter, Work};
use potluck_node::guest::unpack_delta;
use potluck_node::mirror::{Mirror, MirrorError};
use potluck_runner::protocol::{self, FromRunner, Report, ToRunner};
use potluck_wire::ipc::{self, Reply, Request, Taken};
use potluck_wire::pool::{Chunk, Delta, DeltaOps, Frame, Hello, frame};
use prost::Message;

/// Any frame and any chunk: what is read is read again as it is written. A delta in it is unpacked within its limits.
pub fn pool(input: &[u8]) {
    if let Ok(frame) = Frame::decode(input) {
        reads_back(&frame);
        match frame.kind {
            Some(frame::Kind::Delta(delta)) => drop(unpack_delta(&delta)),
            Some(frame::Kind::MirrorState(state)) => drop(DeltaOps::decode(&state.encode_to_vec()[..])),
            _ => {}
        }
    }
    if let Ok(chunk) = Chunk::decode(input) {
        reads_back(&chunk);
    }
    // Not packed: every byte of the input is an operation's.
    let _ = unpack_delta(&Delta { seq: 1, ops: input.to_vec(), raw_bytes: 0 });
    let _ = unpack_delta(&Delta { seq: 1, ops: input.to_vec(), raw_bytes: 1 << 16 });
}

fn reads_back<M: Message + Default + PartialEq>(message: &M) {
    let bytes = message.encode_to_vec();
    let again = M::decode(&bytes[..]).expect("what was written is read");
    assert_eq!(again.encode_to_vec(), bytes);
}

/// A hello says anything: whoever it is, no job is lost to it, and what it calls itself can be shown.
pub fn hello(input: &[u8]) {
    if input.len() > HELLO_BYTES_MAX {
        return;
    }
    let Ok(hello) = Hello::decode(input) else { return };
    reads_back(&hello);
    let name = nearby::clean(hello.name.as_bytes(), 64);
    assert!(name.len() <= 64 && !name.chars().any(char::is_control));
    let facts = PeerFacts {
        rtt: Duration::from_millis(1),
        bandwidth_bytes_s: 0,
        memory_bytes: hello.memory_bytes,
        arch: Arch::from_name(&hello.arch),
        slots_max: hello.slots,
    };
    let config = Config { arch: Arch::X86_64, ..Config::default() };
    let (me, peer) = (NodeId([0; 32]), NodeId([1; 32]));
    let mut submitter = Submitter::new(me, config);
    let mut actions = Vec::new();
    let toolchain = ToolchainId(Digest([7; 32]));
    let compile = Compile { toolchain, cpu_ms: 100, memory_bytes: 1 << 20, missing_bytes: Vec::new(), may_local: true };
    submitter.handle(Duration::ZERO, Event::PeerUp { peer, facts }, &mut actions);
    let job = JobId(1);
    submitter.handle(Duration::ZERO, Event::JobReady(JobSpec { job, work: Work::Anywhere(compile) }), &mut actions);
    submitter.handle(Duration::from_secs(1), Event::PeerDown { peer }, &mut actions);
    submitter.handle(Duration::from_secs(60), Event::Tick, &mut actions);
    assert_eq!(submitter.running_here(), 1, "the only peer is gone and the job is not here");
}

/// A delta as it is, applied to an empty mirror: nothing outside its root changes, whatever it names, and the mirror that
/// is opened again holds the same.
pub fn delta(input: &[u8]) {
    let Ok(ops) = unpack_delta(&Delta { seq: 1, ops: input.to_vec(), raw_bytes: 0 }) else { return };
    let dir = crate::paths::scratch();
    fs::write(dir.path().join("outside"), "untouched").expect("a scratch folder can be written");
    let base = dir.path().join("mirror");
    let mut mirror = Mirror::open(&base, 1 << 20).expect("an empty mirror");
    let applied = mirror.apply(&ops);
    assert!(!matches!(applied, Err(MirrorError::Io(ref why)) if !why.contains("os error")), "{applied:?}");
    let beside = fs::read_dir(dir.path()).expect("its folder").count();
    assert_eq!((beside, fs::read(dir.path().join("outside")).ok().as_deref()), (2, Some(&b"untouched"[..])));
    only_what_a_mirror_has(&base);
    if applied.is_ok() {
        let before = names(&mirror);
        drop(mirror);
        let again = Mirror::open(&base, 1 << 20).expect("the same mirror");
        assert_eq!(names(&again), before, "a mirror that is opened again holds something else");
    }
}

/// Every directory and name, with what it is.
fn names(mirror: &Mirror) -> BTreeSet<(Vec<u8>, u8, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for dir in mirror.state().dirs {
        all.insert((dir.path.clone(), b'd', Vec::new()));
        all.extend(dir.poison.into_iter().map(|n| (dir.path.clone(), b'p', n)));
        all.extend(dir.links.into_iter().map(|l| (dir.path.clone(), b'l', l.name)));
        all.extend(dir.files.into_iter().map(|f| (dir.path.clone(), b'f', f.name)));
    }
    all
}

/// Files, folders and links, nothing that is a device or belongs to a group; no file with more than plain permissions.
fn only_what_a_mirror_has(dir: &Path) {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        let kind = meta.file_type();
        let odd = kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device();
        assert!(!odd, "{:?}", entry.path());
        if meta.is_file() {
            assert_eq!(meta.permissions().mode() & 0o7022, 0, "{:?}", entry.path());
        } else if meta.is_dir() {
            only_what_a_mirror_has(&entry.path());
        }
    }
}

/// Both ways, and the file beside the socket.
pub fn ipc(input: &[u8]) {
    let (head, body) = match input.split_first_chunk::<4>() {
        Some((head, body)) => (*head, body),
        None => ([0; 4], input),
    };
    if let Ok(len) = ipc::frame_len(head) {
        assert!(len <= ipc::FRAME_BYTES_MAX);
    }
    for body in [body, input] {
        if let Ok(request) = ipc::decode::<Request>(body) {
            let bytes = ipc::encode(&request);
            let again: Request = ipc::decode(&bytes[4..]).expect("what was written is read");
            assert_eq!(ipc::encode(&again), bytes);
        }
        if let Ok(reply) = ipc::decode::<Reply>(body) {
            let bytes = ipc::encode(&reply);
            let again: Reply = ipc::decode(&bytes[4..]).expect("what was written is read");
            assert_eq!(ipc::encode(&again), bytes);
        }
        if let Some(taken) = Taken::from_bytes(body) {
            assert_eq!(Taken::from_bytes(&taken.to_bytes()), Some(taken));
        }
    }
}

/// Both ways, and the report of a job, whose writer has run foreign code.
pub fn runner(input: &[u8]) {
    fn each<T: for<'a> serde::Deserialize<'a> + serde::Serialize>(input: &[u8]) {
        let mut rest = input;
        while let Ok(Some((message, used))) = protocol::read_frame::<T>(rest) {
            assert!(used >= 4 && used <= rest.len());
            let mut bytes = Vec::new();
            protocol::write_frame(&mut bytes, &message).expect("it was short enough to be read");
            let (again, _) = protocol::read_frame::<T>(&bytes).expect("written").expect("whole");
            let mut more = Vec::new();
            protocol::write_frame(&mut more, &again).expect("as long as before");
            assert_eq!(more, bytes);
            rest = &rest[used..];
        }
    }
    each::<ToRunner>(input);
    each::<FromRunner>(input);
    each::<Report>(input);
}
