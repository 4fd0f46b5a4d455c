//! Hostile peers where they meet the node: deltas and transfers that a submitter sends to a worker's guest, and outputs
//! that a worker sends back.

mod programs;
mod tree_space;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use potluck_model::ids::{Digest, NodeId};
use potluck_model::limits::{BLOB_BYTES_MAX, GUEST_WAITING_BYTES_MAX, JobLimits};
use potluck_model::plan::{Manner, Role};
use potluck_model::reason::Reason;
use potluck_node::guest::{Command, Guest, GuestEvent, GuestSettings, Outlet};
use potluck_node::outputs::{self, Change};
use potluck_node::roots;
use potluck_wire::pool::{self, Chunk, DeltaOps, Frame, frame};
use programs::{NODE, until, wrapper};
use prost::Message;
use tree_space::{Space, as_user, dir_ops, down_to, file_op};

/// How long an answer may take on a busy machine before the test counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// The slot of jobs that a test sends as frames.
const ANY_SLOT: u64 = u64::MAX;

/// The end of the job with this number holds up whoever tells of it: its guest's own thread.
const HOLDS_UP: u64 = 999;

struct Submitter {
    guest: Guest,
    /// One word lets a guest that is held up go on.
    gate: mpsc::Sender<()>,
    id: NodeId,
    frames: tokio::sync::mpsc::Receiver<Frame>,
    bulk: tokio::sync::mpsc::Receiver<Chunk>,
    events: mpsc::Receiver<GuestEvent>,
    folder: PathBuf,
}

impl Submitter {
    fn new(space: &Space, number: u8, quota_bytes: u64) -> Self {
        let id = NodeId([number; 32]);
        let settings = GuestSettings {
            mirrors: space.path("mirrors"),
            quota_bytes,
            limits: JobLimits::default(),
            allow_fuse: false,
            signer: None,
            room: Arc::default(),
            idle: Arc::default(),
        };
        let (tx, events) = mpsc::channel();
        let (gate, go_on) = mpsc::channel();
        let go_on = Mutex::new(go_on);
        let told = move |event: GuestEvent| {
            let holds_up = matches!(&event, GuestEvent::Finished(served) if served.job == HOLDS_UP);
            drop(tx.send(event));
            if holds_up {
                let _ = go_on.lock().unwrap().recv();
            }
        };
        let guest = Guest::start(id, settings, Arc::new(told));
        let folder = space.path("mirrors").join(id.to_string());
        let (_, frames) = tokio::sync::mpsc::channel(1);
        let (_, bulk) = tokio::sync::mpsc::channel(1);
        let mut submitter = Self { guest, gate, id, frames, bulk, events, folder };
        submitter.connect();
        submitter
    }

    fn connect(&mut self) {
        let (control, frames) = tokio::sync::mpsc::channel(64);
        let (bulk_tx, bulk) = tokio::sync::mpsc::channel(64);
        (self.frames, self.bulk) = (frames, bulk);
        self.guest.tell(Command::Connected(Outlet { control, bulk: bulk_tx }));
    }

    /// Its guest's thread takes nothing until it may go on, as if it were busy with much data. What ended before is returned.
    fn hold_up(&self) -> Vec<(Option<u64>, String)> {
        let missing = pool::OutputDir { path: b"/missing".to_vec(), whiteouts: Vec::new() };
        self.send(frame::Kind::Job(pool::Job { id: HOLDS_UP, outputs: vec![missing], ..Default::default() }));
        let mut before = Vec::new();
        loop {
            match self.ended() {
                (None, _) => return before,
                ended => before.push(ended),
            }
        }
    }

    fn go_on(&self) {
        self.gate.send(()).unwrap();
    }

    /// The next job that ends: its slot, and how.
    fn ended(&self) -> (Option<u64>, String) {
        match self.events.recv_timeout(PATIENCE).expect("nothing ended") {
            GuestEvent::Finished(served) => (served.run.filter(|run| *run != ANY_SLOT), served.end),
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, kind: frame::Kind) {
        self.guest.tell(match kind {
            frame::Kind::Job(job) => Command::Run(ANY_SLOT, Box::new(job)),
            other => Command::Frame(other),
        });
    }

    fn delta(&self, ops: &DeltaOps) {
        self.raw_delta(&ops.encode_to_vec());
    }

    fn raw_delta(&self, raw: &[u8]) {
        let ops = zstd::bulk::compress(raw, 1).unwrap();
        self.send(frame::Kind::Delta(pool::Delta { seq: 1, ops, raw_bytes: raw.len() as u64 }));
    }

    fn frame(&mut self) -> Option<frame::Kind> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, self.frames.recv()).await.expect("no answer") })?.kind
    }

    /// What the mirror holds, by its own word: everything sent before has been applied then.
    fn holds(&mut self) -> Vec<String> {
        self.send(frame::Kind::MirrorQuery(pool::MirrorQuery {}));
        loop {
            let Some(frame::Kind::MirrorState(state)) = self.frame() else { continue };
            let mut packed = Vec::new();
            let mut more = state.transfer != 0;
            while more {
                let chunk = self.bulk.blocking_recv().unwrap();
                assert_eq!(chunk.transfer, state.transfer);
                packed.extend_from_slice(&chunk.data);
                more = !chunk.last;
            }
            if packed.is_empty() {
                return Vec::new();
            }
            let raw = zstd::bulk::decompress(&packed, state.raw_bytes as usize).unwrap();
            let state = DeltaOps::decode(&raw[..]).unwrap();
            let name = |dir: &[u8], name: &[u8]| String::from_utf8_lossy(&[dir, b"/", name].concat()).into_owned();
            return state.dirs.iter().flat_map(|d| d.files.iter().map(|f| name(&d.path, &f.name))).collect();
        }
    }

    fn misbehaved(&self) -> String {
        loop {
            match self.events.recv_timeout(PATIENCE).expect("nobody minded") {
                GuestEvent::Misbehaved(id, why) | GuestEvent::Unwell(id, why) => {
                    assert_eq!(id, self.id);
                    return why;
                }
                GuestEvent::Finished(_) | GuestEvent::Laden(..) | GuestEvent::Looked(..) => {}
                GuestEvent::Over(id) => panic!("the thread of {id} is over"),
            }
        }
    }

    fn chunk(&self, chunk: Chunk) {
        self.guest.tell(Command::Chunk(Chunk { blob: true, ..chunk }, None));
    }

    fn blob(&self, transfer: u64, digest: Digest, total: u64, data: &[u8], zstd: bool, last: bool) {
        self.chunk(Chunk {
            transfer,
            data: data.to_vec().into(),
            last,
            digest: digest.0.to_vec(),
            total,
            zstd,
            blob: true,
        });
    }

    fn stored(&mut self) -> String {
        loop {
            if let Some(frame::Kind::BlobStored(stored)) = self.frame() {
                return stored.error;
            }
        }
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.folder.join("stage")).unwrap().count()
    }
}

fn with_file(path: &str, name: &str, content: &[u8], inline: bool) -> DeltaOps {
    let mut ops = down_to(path);
    let mut file = file_op(name, content);
    if !inline {
        file.content = None;
    }
    ops.dirs.last_mut().unwrap().files.push(file);
    ops
}

/// Case 29: what one submitter sent is nobody else's, whatever digest or path they name.
#[test]
fn one_submitters_contents_are_not_anothers() {
    let space = Space::new("hostile-others");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    let mut bob = Submitter::new(&space, 2, 1 << 30);
    ann.delta(&with_file("/secret", "key.h", b"ann's", true));
    let large = vec![7; 300_000];
    ann.blob(1, Digest::of(&large), large.len() as u64, &large, false, true);
    assert_eq!(ann.stored(), "");
    assert_eq!(ann.holds(), ["/secret/key.h"]);
    for content in [&b"ann's"[..], &large] {
        bob.connect();
        bob.delta(&with_file("/mine", "key.h", content, false));
        assert!(bob.misbehaved().contains("was not sent before"));
    }
    // Nor by a path that leads there.
    bob.connect();
    let mut ops = down_to("/");
    ops.dirs[0].path = format!("/../../../{}/root/secret", ann.id).into_bytes();
    bob.delta(&ops);
    assert!(bob.misbehaved().contains("simplest form"));
    bob.connect();
    assert!(bob.holds().is_empty());
    assert_eq!(ann.holds(), ["/secret/key.h"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&ann.folder), mode(&bob.folder)), (0o700, 0o700));
}

/// A delta that fails ends the session: a job behind it would run on a mirror that is not what its submitter thinks.
#[test]
fn a_job_behind_a_broken_delta_is_not_run() {
    let space = Space::new("hostile-behind");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    ann.delta(&with_file("/a", "x.h", b"good", true));
    assert_eq!(ann.holds(), ["/a/x.h"]);
    // One thread takes them in order: all of this is there before the node can have ended the link.
    ann.delta(&with_file("/a", "..", b"evil", true));
    ann.delta(&with_file("/a", "y.h", b"after it", true));
    ann.blob(9, Digest::of(b"z"), 1, b"z", false, true);
    ann.send(frame::Kind::MirrorQuery(pool::MirrorQuery {}));
    ann.send(frame::Kind::Job(pool::Job {
        id: 77,
        argv: vec![b"gcc".to_vec(), b"m.c".to_vec()],
        ..Default::default()
    }));
    assert!(ann.misbehaved().contains("no file name"));
    // The node hears of the job, so that its slot is free; the submitter hears nothing more.
    match ann.events.recv_timeout(PATIENCE).unwrap() {
        GuestEvent::Finished(served) => assert_eq!((served.job, served.end.as_str()), (77, "refused")),
        other => panic!("{other:?}"),
    }
    assert_eq!(ann.frame(), None, "the session is over");
    ann.connect();
    assert_eq!(ann.holds(), ["/a/x.h"]);
}

/// After SIGKILL a submitter's node counts its jobs from 1 again, and may be back before the worker is through with the
/// old ones: were slots told apart by those numbers, the end of an old job would free that of a new one, and the old one's
/// would stay in use for ever.
#[test]
fn each_slot_is_freed_once_although_two_jobs_have_one_number() {
    let space = Space::new("hostile-numbers");
    let ann = Submitter::new(&space, 1, 1 << 30);
    ann.guest.tell(Command::Disconnected);
    for slot in [7, 8] {
        ann.guest.tell(Command::Run(slot, Box::new(pool::Job { id: 1, ..Default::default() })));
    }
    let mut freed = Vec::new();
    while freed.len() < 2 {
        match ann.events.recv_timeout(PATIENCE).unwrap() {
            GuestEvent::Finished(served) => freed.push((served.job, served.run)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(freed, [(1, Some(7)), (1, Some(8))]);
}

/// Whatever ends a guest's thread, the node hears of it: nothing else would free the slots of its jobs.
#[test]
fn the_end_of_a_guest_is_heard_of() {
    let space = Space::new("hostile-over");
    let ann = Submitter::new(&space, 1, 1 << 30);
    let Submitter { guest, id, events, .. } = ann;
    drop(guest);
    match events.recv_timeout(PATIENCE).unwrap() {
        GuestEvent::Over(over) => assert_eq!(over, id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn deltas_are_measured_before_memory_is_taken() {
    let space = Space::new("hostile-deltas");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    // A field of two bytes becomes a name of 24: 20 million of them are 0.5 GB.
    let names = [0x1a, 0].repeat(20_000_000);
    let mut raw = vec![0x0a];
    prost::encoding::encode_varint(names.len() as u64, &mut raw);
    raw.extend(names);
    let claims = |ops: Vec<u8>, raw_bytes| frame::Kind::Delta(pool::Delta { seq: 1, ops, raw_bytes });
    let zeros = zstd::bulk::compress(&vec![0; 200 << 20], 1).unwrap();
    let small = zstd::bulk::compress(&DeltaOps::default().encode_to_vec(), 1).unwrap();
    let cases = [
        ("operations", claims(zstd::bulk::compress(&raw, 1).unwrap(), raw.len() as u64)),
        ("bytes", claims(zeros.clone(), 200 << 20)),
        ("unpack", claims(zeros, 1 << 20)),
        ("size", claims(small, 5)),
        ("bytes", claims(Vec::new(), u64::MAX)),
        ("unpack", claims(vec![1, 2, 3], 3)),
        ("none", claims(vec![0xff; 40], 0)),
        ("operations", claims(raw, 0)),
        ("none", claims(zstd::bulk::compress(&[0xff; 40], 1).unwrap(), 40)),
        ("none", claims(zstd::bulk::compress(&[0x0a, 0x7f], 1).unwrap(), 2)),
    ];
    for (n, (word, kind)) in cases.into_iter().enumerate() {
        ann.connect();
        ann.send(kind);
        let why = ann.misbehaved();
        assert!(why.contains(word), "case {n}: {why}");
    }
    ann.connect();
    ann.delta(&with_file("/a", "x.h", b"good", true));
    assert_eq!(ann.holds(), ["/a/x.h"]);
}

#[test]
fn transfers_that_lie_cost_their_submitter_only_the_transfer() {
    let space = Space::new("hostile-transfers");
    let mut ann = Submitter::new(&space, 1, 10 << 20);
    let content = vec![b'c'; 1 << 20];
    let packed = zstd::bulk::compress(&content, 1).unwrap();
    let digest = Digest::of(&content);
    let total = content.len() as u64;
    // Grew while it was read: more than announced. What is still on its way belongs to it.
    ann.blob(1, digest, total - 1, &packed, true, false);
    assert!(ann.stored().contains("more than it announced"));
    ann.chunk(Chunk { transfer: 1, data: b"rest"[..].into(), ..Chunk::default() });
    ann.chunk(Chunk { transfer: 1, data: b"rest"[..].into(), last: true, ..Chunk::default() });
    // A bomb: 8 KiB that would be 256 MiB.
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap();
    ann.blob(2, digest, total, &bomb, true, true);
    assert!(ann.stored().contains("more than it announced"));
    // A window that takes 128 MiB of memory to look through.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(27)).unwrap();
    encoder.write_all(&content).unwrap();
    ann.blob(3, digest, total, &encoder.finish().unwrap(), true, true);
    assert_ne!(ann.stored(), "");
    // Too short, no zstd at all, another content, larger than the mirror may be.
    ann.blob(4, digest, total, &packed[..packed.len() / 2], true, true);
    assert!(ann.stored().contains("digest"));
    ann.blob(5, digest, total, b"this is no zstd", true, true);
    assert_ne!(ann.stored(), "");
    ann.blob(6, Digest::of(b"other"), total, &packed, true, true);
    assert!(ann.stored().contains("digest"));
    ann.blob(7, digest, 11 << 20, &packed, true, true);
    assert!(ann.stored().contains("quota"));
    // Nothing of all that is left, and the link stands.
    assert!(ann.holds().is_empty());
    assert_eq!(ann.staged(), 0);
    ann.blob(8, digest, total, &packed, true, true);
    assert_eq!(ann.stored(), "");
    ann.delta(&with_file("/a", "x.bin", &content, false));
    assert_eq!(ann.holds(), ["/a/x.bin"]);
}

#[test]
fn transfers_that_never_end_are_bounded() {
    let space = Space::new("hostile-endless");
    let mut ann = Submitter::new(&space, 1, 1 << 20);
    // Together they may not announce more than the mirror holds ...
    for transfer in 0..8 {
        ann.blob(transfer, Digest::of(&[transfer as u8]), 300_000, b"some", false, false);
    }
    for _ in 0..5 {
        assert!(ann.stored().contains("quota"));
    }
    assert!(ann.holds().is_empty());
    assert_eq!(ann.staged(), 3);
    // ... what was begun goes with the connection ...
    ann.connect();
    assert!(ann.holds().is_empty());
    assert_eq!(ann.staged(), 0);
    // ... and there are not many at a time.
    for transfer in 0..65 {
        ann.blob(transfer, Digest::of(&[transfer as u8]), 1, b"", false, false);
    }
    assert!(ann.misbehaved().contains("too many transfers"));
    ann.connect();
    ann.chunk(Chunk { transfer: 1, data: b"x"[..].into(), ..Chunk::default() });
    assert!(ann.misbehaved().contains("without digest"));
    ann.connect();
    ann.blob(1, Digest::of(b""), BLOB_BYTES_MAX + 1, b"", false, false);
    assert!(ann.misbehaved().contains("too large"));
}

#[test]
fn a_full_mirror_begins_anew() {
    let space = Space::new("hostile-full");
    let mut ann = Submitter::new(&space, 1, 100_000);
    ann.delta(&with_file("/a", "x.h", &[b'x'; 90_000], true));
    assert_eq!(ann.holds(), ["/a/x.h"]);
    ann.delta(&with_file("/a", "y.h", &[b'y'; 90_000], true));
    assert!(ann.misbehaved().contains("quota"));
    ann.connect();
    assert!(ann.holds().is_empty());
    ann.delta(&with_file("/a", "y.h", &[b'y'; 90_000], true));
    assert_eq!(ann.holds(), ["/a/y.h"]);
}

#[test]
fn jobs_beyond_reason_are_refused() {
    let space = Space::new("hostile-jobs");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    ann.delta(&down_to("/a"));
    let out = |path: &str| pool::OutputDir { path: path.as_bytes().to_vec(), whiteouts: Vec::new() };
    let job = |id, outputs| frame::Kind::Job(pool::Job { id, outputs, ..Default::default() });
    ann.send(job(1, (0..100_000).map(|_| out("/a")).collect()));
    ann.send(job(2, vec![out("/missing")]));
    ann.send(job(3, vec![out("/proc/self")]));
    ann.send(job(4, vec![out("/a/../etc")]));
    for id in 1..=4 {
        match ann.frame() {
            Some(frame::Kind::Refused(refused)) => assert_eq!((refused.id, refused.reason.as_str()), (id, "policy")),
            other => panic!("{other:?}"),
        }
    }
    assert!(ann.holds().is_empty());
    assert_eq!(fs::read_dir(ann.folder.join("gens")).unwrap().count(), 0);
}

fn file(path: &Path, manner: Manner, content: &[u8]) -> Change {
    Change { path: path.to_owned(), mode: 0o644, manner, role: Role::Main, content: content.to_vec() }
}

fn names(dir: &Path) -> HashSet<Vec<u8>> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec()).collect()
}

/// Case 30: the names in a result are a worker's; links among the folders of an output directory are the user's.
#[test]
fn an_output_does_not_leave_its_directory_through_a_link() {
    let space = Space::new("outputs-links");
    let (out, outside) = (space.path("out"), space.path("outside"));
    for dir in [&out, &outside] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(outside.join("victim"), "untouched").unwrap();
    symlink(&outside, out.join("link")).unwrap();
    symlink(".", out.join("here")).unwrap();
    for path in [&b"link/victim"[..], b"link/new.o", b"here/link/victim", b"link/sub/x"] {
        let path = roots::below(&out, path).unwrap();
        for manner in [Manner::Replace, Manner::Truncate] {
            assert_eq!(
                outputs::check_target(&mut outputs::Folders::default(), &path, manner),
                Err(Reason::SpecialOutput),
                "{}",
                path.display()
            );
            assert!(apply(&file(&path, manner, b"evil")).is_err(), "{}", path.display());
        }
    }
    // Names with tricks do not get that far.
    for path in [&b"../outside/victim"[..], b"/etc/passwd", b"x/../../outside/victim", b"", b"x\0y", b"./x"] {
        assert_eq!(roots::below(&out, path), None);
    }
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
    assert_eq!(names(&outside), HashSet::from([b"victim".to_vec()]));
    // No folder is made for an output.
    let lost = out.join("sub/a.dwo");
    assert!(outputs::check_target(&mut outputs::Folders::default(), &lost, Manner::Truncate).is_err());
    assert!(apply(&file(&lost, Manner::Truncate, b"x")).is_err() && !out.join("sub").exists());
    fs::create_dir(out.join("sub")).unwrap();
    apply(&file(&lost, Manner::Truncate, b"x")).unwrap();
}

#[test]
fn existing_outputs_are_treated_as_the_compiler_treats_them() {
    if as_user("existing_outputs_are_treated_as_the_compiler_treats_them") {
        return;
    }
    let space = Space::new("outputs-existing");
    let out = space.path("out");
    fs::create_dir(&out).unwrap();
    let at = |name: &str| out.join(name);
    let put = |name: &str, mode: u32| {
        fs::write(at(name), "old and rather longer").unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    // Private ones: a dependency file stays private, an object is a new file.
    for (name, manner, mode) in [("a.d", Manner::Truncate, 0o600), ("a.o", Manner::Replace, 0o644)] {
        put(name, 0o600);
        assert_eq!(outputs::check_target(&mut outputs::Folders::default(), &at(name), manner), Ok(()));
        apply(&file(&at(name), manner, b"new")).unwrap();
        assert_eq!(fs::read(at(name)).unwrap(), b"new");
        assert_eq!(fs::metadata(at(name)).unwrap().mode() & 0o777, mode, "{name}");
    }
    // Read-only ones: the assembler removes an object first; a dependency file cannot be opened.
    put("ro.o", 0o444);
    assert_eq!(outputs::check_target(&mut outputs::Folders::default(), &at("ro.o"), Manner::Replace), Ok(()));
    apply(&file(&at("ro.o"), Manner::Replace, b"new")).unwrap();
    assert_eq!(fs::read(at("ro.o")).unwrap(), b"new");
    // clang first looks whether it may write what is there.
    assert_eq!(
        outputs::check_target(&mut outputs::Folders::default(), &at("ro.o"), Manner::Rename),
        Ok(()),
        "by now it is a new file"
    );
    put("rw.o", 0o600);
    assert_eq!(outputs::check_target(&mut outputs::Folders::default(), &at("rw.o"), Manner::Rename), Ok(()));
    put("ro2.o", 0o444);
    assert_eq!(
        outputs::check_target(&mut outputs::Folders::default(), &at("ro2.o"), Manner::Rename),
        Err(Reason::SpecialOutput)
    );
    put("ro.d", 0o444);
    assert_eq!(
        outputs::check_target(&mut outputs::Folders::default(), &at("ro.d"), Manner::Truncate),
        Err(Reason::SpecialOutput)
    );
    assert!(apply(&file(&at("ro.d"), Manner::Truncate, b"new")).is_err());
    // Links, dangling links, hard links, FIFOs, directories: the compiler itself shall deal with them.
    fs::write(at("target"), "untouched").unwrap();
    symlink("target", at("link.o")).unwrap();
    symlink("nowhere", at("dangling.o")).unwrap();
    put("hard.o", 0o644);
    fs::hard_link(at("hard.o"), at("other name")).unwrap();
    fs::create_dir(at("dir.o")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo.o"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for name in ["link.o", "dangling.o", "hard.o", "dir.o", "fifo.o"] {
        for manner in [Manner::Replace, Manner::Truncate] {
            assert_eq!(
                outputs::check_target(&mut outputs::Folders::default(), &at(name), manner),
                Err(Reason::SpecialOutput),
                "{name}"
            );
        }
        // One that became so after it was looked at is not written through.
        assert!(apply(&file(&at(name), Manner::Truncate, b"evil")).is_err(), "{name}");
    }
    assert_eq!(fs::read(at("target")).unwrap(), b"untouched");
    assert_eq!(fs::read(at("other name")).unwrap(), b"old and rather longer");
    assert!(!at("nowhere").exists());
    // Somebody else's file, and one with a special bit.
    put("setgid.o", 0o2755);
    assert_eq!(
        outputs::check_target(&mut outputs::Folders::default(), &at("setgid.o"), Manner::Replace),
        Err(Reason::SpecialOutput)
    );
    assert_eq!(
        outputs::check_target(&mut outputs::Folders::default(), Path::new("/etc/passwd"), Manner::Replace),
        Err(Reason::SpecialOutput)
    );
    // A directory without write permission.
    let closed = at("closed");
    fs::create_dir(&closed).unwrap();
    assert_eq!(outputs::check_dir(&closed), Ok(()));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(outputs::check_dir(&closed), Err(Reason::BadCommand));
    assert!(apply(&file(&closed.join("a.o"), Manner::Replace, b"x")).is_err());
    assert!(names(&closed).is_empty());
}

#[test]
fn output_names_are_bytes_and_the_jobs_umask_holds() {
    let space = Space::new("outputs-names");
    let out = space.path("out");
    fs::create_dir(&out).unwrap();
    let odd: [&[u8]; 5] = [b"a\nb.o", b"\xff\xfe.o", b"-rf", b" ", b"\x1b[31m.o"];
    for name in odd {
        let path = roots::below(&out, name).unwrap();
        assert_eq!(path.file_name(), Some(OsStr::from_bytes(name)));
        for manner in [Manner::Replace, Manner::Truncate] {
            assert_eq!(outputs::check_target(&mut outputs::Folders::default(), &path, manner), Ok(()));
            apply(&file(&path, manner, name)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), name);
        }
    }
    assert_eq!(names(&out), odd.iter().map(|n| n.to_vec()).collect());
    // The mode is the job's: its umask is in it already, and a node has none.
    rustix::process::umask(rustix::fs::Mode::empty());
    for mode in [0o600, 0o664, 0o666, 0o755, 0o777] {
        let path = out.join(format!("{mode:o}.o"));
        apply(&Change { mode, ..file(&path, Manner::Replace, b"") }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
    }
    // Set-user-ID is not for a worker to give.
    let path = out.join("suid");
    apply(&Change { mode: 0o6755, ..file(&path, Manner::Replace, b"") }).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    // Nothing is left aside.
    assert!(!names(&out).iter().any(|n| n.starts_with(b".potluck")));
    // /dev/null stays what it is.
    let null = Path::new("/dev/null");
    for manner in [Manner::Replace, Manner::Truncate] {
        assert_eq!(outputs::check_target(&mut outputs::Folders::default(), null, manner), Ok(()));
        apply(&file(null, manner, b"x")).unwrap();
    }
    assert!(!fs::metadata(null).unwrap().is_file());
}

#[test]
fn a_guests_words_do_not_wait_for_a_slow_reader() {
    let space = Space::new("hostile-slow");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    // A submitter that takes nothing: the queues of its link are full.
    let (control, frames) = tokio::sync::mpsc::channel(1);
    let (bulk_tx, bulk) = tokio::sync::mpsc::channel(1);
    (ann.frames, ann.bulk) = (frames, bulk);
    ann.guest.tell(Command::Connected(Outlet { control, bulk: bulk_tx }));
    for n in 0..20 {
        ann.blob(n, Digest::of(b"no"), 2, b"go", false, true);
    }
    // Its guest still hears the node: a broken rule is noticed behind all of that.
    ann.delta(&DeltaOps { dirs: vec![dir_ops("relative")] });
    assert!(ann.misbehaved().contains("not absolute"));
}

/// Runs this test again with the runner of this build. True: done.
fn with_runner(test: &str) -> bool {
    if std::env::var_os("POTLUCK_RUNNER").is_some() {
        return as_user(test);
    }
    wrapper();
    let mut again = Program::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", test, "--nocapture"])
        .env("POTLUCK_RUNNER", Path::new(NODE).with_file_name("potluck-runner"));
    assert!(again.status().unwrap().success(), "{test} with a runner");
    true
}

/// A program that runs until it is killed; each job of it has a name of its own on this machine.
fn spin(slot: u64) -> String {
    format!("spin-{}-{slot}", std::process::id())
}

/// The state of its process, as the kernel calls it. None: there is none.
fn state(slot: u64) -> Option<char> {
    let argv = format!("{}\0", spin(slot)).into_bytes();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let is_it = fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == argv);
        let stat = is_it.then(|| fs::read_to_string(entry.path().join("stat")).ok())??;
        stat.rsplit(") ").next()?.chars().next()
    })
}

fn until_state(what: &str, slot: u64, is_it: impl Fn(Option<char>) -> bool) {
    until(what, || is_it(state(slot)).then_some(()));
}

/// The owner's key press, the kill ten seconds later and the submitter's removal: the guest's thread has not taken what was
/// sent before them, and takes it only when all have had their effect.
#[test]
fn a_stop_a_kill_and_the_end_of_a_link_do_not_wait_behind_what_a_submitter_sends() {
    if with_runner("a_stop_a_kill_and_the_end_of_a_link_do_not_wait_behind_what_a_submitter_sends") {
        return;
    }
    let space = Space::new("hostile-reins");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    let (source, program) = (space.write("spin.c", "void _start(void) { for (;;) {} }\n"), space.path("spin"));
    let made = Program::new("gcc").args(["-nostdlib", "-static", "-o"]).arg(&program).arg(source).status().unwrap();
    assert!(made.success());
    let mut ops = with_file("/bin", "spin", &fs::read(&program).unwrap(), true);
    ops.dirs.last_mut().unwrap().files[0].mode = 0o755;
    ann.delta(&ops);
    let run = |ann: &Submitter, slot: u64| {
        let (program, argv, cwd) = (b"/bin/spin".to_vec(), vec![spin(slot).into_bytes()], b"/".to_vec());
        let job = pool::Job { id: slot, program, argv, cwd, ..Default::default() };
        ann.guest.tell(Command::Run(slot, Box::new(job)));
    };
    let is_running = |state: Option<char>| state.is_some_and(|state| state != 'T');
    run(&ann, 1);
    until_state("the job runs", 1, is_running);

    // Stopped, resumed and stopped again behind a transfer; a job behind that was not started waits as well.
    assert_eq!(ann.hold_up(), []);
    ann.blob(1, Digest::of(b"no"), 2, b"go", false, true);
    run(&ann, 2);
    for (stop, what) in [(true, "it stands still"), (false, "it goes on"), (true, "it stands still again")] {
        ann.guest.tell(Command::Freeze(stop));
        until_state(what, 1, |state| if stop { state == Some('T') } else { is_running(state) });
    }
    assert!(ann.frames.try_recv().is_err(), "the transfer was taken");
    ann.go_on();
    assert!(ann.stored().contains("digest"));
    assert_eq!(ann.holds(), ["/bin/spin"]);
    assert_eq!((state(1), state(2)), (Some('T'), None), "a job began while jobs are stopped");
    ann.guest.tell(Command::Freeze(false));
    until_state("the job that waited runs", 2, is_running);
    until_state("the other one goes on", 1, is_running);

    // Killed: one that runs, one that was not taken yet, and one that waits because jobs are stopped.
    assert_eq!(ann.hold_up(), []);
    [3, 4].into_iter().for_each(|slot| run(&ann, slot));
    [1, 3].into_iter().for_each(|slot| ann.guest.tell(Command::Kill(slot)));
    until_state("it is gone", 1, |state| state.is_none());
    ann.guest.tell(Command::Freeze(true));
    ann.go_on();
    assert_eq!(ann.holds(), ["/bin/spin"]);
    ann.guest.tell(Command::Kill(4));
    let mut ended: Vec<_> = (0..3).map(|_| ann.ended()).collect();
    ann.guest.tell(Command::Freeze(false));
    until_state("the job that nobody killed goes on", 2, is_running);

    // The link is lost: what runs is killed, what was not taken is never started.
    ended.extend(ann.hold_up());
    run(&ann, 5);
    ann.blob(2, Digest::of(b"go"), 2, b"go", false, true);
    ann.guest.tell(Command::Disconnected);
    until_state("it is gone with its submitter", 2, |state| state.is_none());
    ann.go_on();
    ended.extend((0..2).map(|_| ann.ended()));
    ended.sort();
    let ends = ["killed", "killed", "killed", "killed", "refused"];
    let expected: Vec<_> = (1..).zip(ends).map(|(slot, end)| (Some(slot), end.to_owned())).collect();
    assert_eq!(ended, expected, "each slot is freed once");
    ann.connect();
    assert_eq!(ann.holds(), ["/bin/spin"]);
    assert!(ann.events.try_recv().is_err(), "each slot is freed once");
    // A kill that was said while nobody listened is of no later job.
    run(&ann, 6);
    until_state("the next one runs", 6, is_running);
}

#[test]
fn a_submitter_that_sends_more_than_is_taken_is_disconnected() {
    let space = Space::new("hostile-flood");
    let mut ann = Submitter::new(&space, 1, 1 << 30);
    ann.hold_up();
    let piece = prost::bytes::Bytes::from(vec![7; 64 << 10]);
    let chunk = Chunk { transfer: 1, data: piece, digest: vec![0; 32], total: 1 << 20, ..Chunk::default() };
    let mut sent = 0;
    let why = loop {
        ann.chunk(chunk.clone());
        match ann.events.try_recv() {
            Ok(GuestEvent::Misbehaved(_, why)) => break why,
            Ok(other) => panic!("{other:?}"),
            Err(_) => sent += chunk.data.len() as u64,
        }
        assert!(sent < 2 * GUEST_WAITING_BYTES_MAX, "nobody minded");
    };
    assert!(why.contains("more than is taken"), "{why}");
    assert!(sent > GUEST_WAITING_BYTES_MAX / 10 * 9, "as much as honest ones have on their way: {sent}");
    // Said once; and what came is of no later connection.
    ann.chunk(chunk.clone());
    assert!(ann.events.try_recv().is_err());
    ann.go_on();
    ann.connect();
    assert!(ann.holds().is_empty());
    ann.blob(1, Digest::of(b"go"), 2, b"go", false, true);
    assert_eq!(ann.stored(), "");
}

fn apply(change: &Change) -> std::io::Result<()> {
    outputs::apply_all(&mut outputs::Folders::default(), std::slice::from_ref(change))
}
