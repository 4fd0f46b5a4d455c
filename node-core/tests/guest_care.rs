//! What a worker holds for its submitters: results that they do not take are not in the node's memory, and files that change
//! on its disk become nobody's object.

mod programs;
mod tree_space;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use potluck_model::ids::{Digest, NodeId};
use potluck_model::limits::{JobLimits, RESULTS_MEMORY_BYTES_MAX, RESULTS_UNTAKEN_BYTES_MAX};
use potluck_node::guest::{Command, Guest, GuestEvent, GuestSettings, Idle, Outlet, Room};
use potluck_node::job_group::Enforced;
use potluck_wire::pool::{self, Chunk, DeltaOps, Frame, frame};
use programs::{NODE, until, wrapper};
use prost::Message;
use tokio::sync::mpsc::{Receiver, channel};
use tree_space::{Space, as_user, dir_ops, down_to, file_op};

/// How long an answer may take before the test counts as hanging: jobs have the lowest priority on this machine.
const PATIENCE: Duration = Duration::from_secs(400);

struct Worker {
    guest: Guest,
    frames: Receiver<Frame>,
    bulk: Receiver<Chunk>,
    events: mpsc::Receiver<GuestEvent>,
    room: Arc<Room>,
    idle: Arc<Idle>,
    folder: PathBuf,
}

impl Worker {
    fn new(space: &Space) -> Self {
        Self::with(space, JobLimits::default())
    }

    fn with(space: &Space, limits: JobLimits) -> Self {
        let (room, idle, id) = (Arc::new(Room::default()), Arc::new(Idle::default()), NodeId([1; 32]));
        let settings = GuestSettings {
            mirrors: space.path("mirrors"),
            quota_bytes: 1 << 30,
            limits,
            allow_fuse: false,
            room: Arc::clone(&room),
            idle: Arc::clone(&idle),
            signer: None,
        };
        let (tx, events) = mpsc::channel();
        let guest = Guest::start(id, settings, Arc::new(move |event| drop(tx.send(event))));
        let folder = space.path("mirrors").join(id.to_string());
        let mut worker = Self { guest, frames: channel(1).1, bulk: channel(1).1, events, room, idle, folder };
        worker.connect(64);
        worker
    }

    /// A link whose queues hold so much.
    fn connect(&mut self, queue: usize) {
        let ((control, frames), (bulk_tx, bulk)) = (channel(queue), channel(queue));
        (self.frames, self.bulk) = (frames, bulk);
        self.guest.tell(Command::Connected(Outlet { control, bulk: bulk_tx }));
    }

    fn delta(&self, ops: &DeltaOps) {
        let delta = pool::Delta { seq: 1, ops: ops.encode_to_vec(), raw_bytes: 0 };
        self.guest.tell(Command::Frame(frame::Kind::Delta(delta)));
    }

    fn query(&self) {
        self.guest.tell(Command::Frame(frame::Kind::MirrorQuery(pool::MirrorQuery {})));
    }

    /// What the mirror holds by its own word: files with their digests.
    fn holds(&mut self) -> HashMap<String, Digest> {
        self.query();
        loop {
            let frame = self.frames.blocking_recv().expect("the link stands");
            let Some(frame::Kind::MirrorState(state)) = frame.kind else { continue };
            let mut packed = Vec::new();
            loop {
                let chunk = self.bulk.blocking_recv().expect("the link stands");
                packed.extend_from_slice(&chunk.data);
                if chunk.last {
                    break;
                }
            }
            let raw = zstd::bulk::decompress(&packed, state.raw_bytes as usize).unwrap();
            let state = DeltaOps::decode(&raw[..]).unwrap();
            let path = |dir: &[u8], name: &[u8]| String::from_utf8_lossy(&[dir, b"/", name].concat()).into_owned();
            let files = state.dirs.iter().flat_map(|d| d.files.iter().map(move |f| (d, f)));
            return files.map(|(d, f)| (path(&d.path, &f.name), Digest::try_from(&f.digest[..]).unwrap())).collect();
        }
    }

    fn event(&self) -> GuestEvent {
        loop {
            match self.events.recv_timeout(PATIENCE).expect("something happens") {
                // The look before a job, where the one before was a minute ago.
                GuestEvent::Looked(_, looked, false) if looked.rotten.is_empty() => {}
                event => return event,
            }
        }
    }
}

/// Runs this test again with the runner of this build. True: done.
fn with_runner(test: &str) -> bool {
    if std::env::var_os("POTLUCK_RUNNER").is_some() {
        return as_user(test);
    }
    wrapper();
    let runner = Path::new(NODE).with_file_name("potluck-runner");
    let mut again = Program::new(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture"]).env("POTLUCK_RUNNER", runner);
    assert!(again.status().unwrap().success(), "{test} with a runner");
    true
}

/// Memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Writes three files of 48 MiB that do not pack.
const NOISE: &str = r#"#include <stdio.h>
static unsigned char b[4 << 20];
int main(void) {
    unsigned s = 9;
    for (unsigned j = 0; j < sizeof b; j++) b[j] = (s = s * 1664525 + 1013904223) >> 24;
    for (int f = 0; f < 3; f++) {
        char n[9] = { 'o', '0' + f };
        FILE *o = fopen(n, "w");
        for (int i = 0; i < 12; i++) { b[0] = f; fwrite(b, 1, sizeof b, o); }
        fclose(o);
    }
    return 0;
}
"#;

/// A program in the mirror, and a folder for what it writes.
fn with_program(space: &Space, ann: &mut Worker, source: &str) {
    let (source, program) = (space.write("job.c", source), space.path("job"));
    assert!(Program::new("gcc").args(["-O1", "-static", "-o"]).arg(&program).arg(source).status().unwrap().success());
    let mut ops = down_to("/bin");
    let mut job = file_op("job", &fs::read(&program).unwrap());
    job.mode = 0o755;
    ops.dirs.last_mut().unwrap().files.push(job);
    ops.dirs.push(dir_ops("/out"));
    ann.delta(&ops);
    assert_eq!(ann.holds().len(), 1);
}

fn run(ann: &Worker, slot: u64, word: &str) {
    let job = pool::Job {
        id: slot,
        program: b"/bin/job".to_vec(),
        argv: vec![b"job".to_vec(), word.as_bytes().to_vec()],
        cwd: b"/out".to_vec(),
        outputs: vec![pool::OutputDir { path: b"/out".to_vec(), whiteouts: Vec::new() }],
        ..Default::default()
    };
    ann.guest.tell(Command::Run(slot, Box::new(job)));
}

/// Eight processes of which none takes much, or a file in /tmp.
const HUNGRY: &str = r#"#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char block[1 << 20];
int main(int argc, char **argv) {
    memset(block, 1, sizeof block);
    if (argv[1][0] == 'f') {
        int fd = open("/tmp/file", O_WRONLY | O_CREAT, 0600);
        for (int i = 0; i < 500; i++) write(fd, block, sizeof block);
        for (;;) pause();
    }
    for (int i = 0; i < 8; i++) if (!fork()) {
        char *p = mmap(NULL, 64l << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(p, 1, 64l << 20);
        break;
    }
    for (;;) pause();
}
"#;

/// By the kernel where there is a control group, by looking elsewhere: all processes of a job together, and what it writes,
/// have one limit.
#[test]
fn all_processes_of_a_job_and_what_it_writes_have_one_limit_of_memory() {
    if with_runner("all_processes_of_a_job_and_what_it_writes_have_one_limit_of_memory") {
        return;
    }
    let space = Space::new("care-memory");
    let mut ann = Worker::with(&space, JobLimits { address_bytes: 400 << 20, ..JobLimits::default() });
    with_program(&space, &mut ann, HUNGRY);
    for (slot, word) in [(1, "processes"), (2, "file")] {
        run(&ann, slot, word);
        match ann.event() {
            GuestEvent::Finished(served) => {
                let limit = potluck_node::guest::limit_name(served.value);
                assert_eq!((served.end.as_str(), limit), ("limit", "memory"), "{word}");
            }
            other => panic!("{other:?}"),
        }
    }
    let enforced = potluck_node::job_group::enforced();
    println!("memory of jobs is limited by: {enforced:?}");
    assert_eq!(enforced == Enforced::Kernel, std::env::var_os("POTLUCK_CGROUP").is_some());
}

/// Outputs of two jobs, 288 MiB that do not pack, for a submitter that reads nothing: the node holds none of them.
#[test]
fn results_that_nobody_takes_are_not_in_the_nodes_memory() {
    if with_runner("results_that_nobody_takes_are_not_in_the_nodes_memory") {
        return;
    }
    let space = Space::new("care-untaken");
    let mut ann = Worker::new(&space);
    with_program(&space, &mut ann, NOISE);
    // From here on it takes what its link's queues hold, and no more.
    ann.connect(1);
    let before = resident_bytes();
    [1, 2].into_iter().for_each(|slot| run(&ann, slot, ""));
    let (mut ended, mut laden) = (0, false);
    while ended < 2 || !laden {
        match ann.event() {
            GuestEvent::Finished(served) => {
                assert_eq!((served.end.as_str(), served.value), ("exited", 0));
                ended += 1;
            }
            GuestEvent::Laden(_, now) => laden = now,
            other => panic!("{other:?}"),
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    let (memory, files) = ann.room.held();
    println!("untaken: {} MiB more resident, {} MiB counted, {} MiB in files", grown >> 20, memory >> 20, files >> 20);
    assert!(grown < RESULTS_MEMORY_BYTES_MAX, "{grown}");
    assert!(memory < RESULTS_MEMORY_BYTES_MAX && files > RESULTS_UNTAKEN_BYTES_MAX, "{memory} {files}");
    assert_eq!(fs::read_dir(space.path("mirrors")).unwrap().count(), 1, "files without a name");
    // It takes them after all: whole, and jobs may start again.
    let mut packed: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut results = Vec::new();
    while results.len() < 2 {
        while let Ok(frame) = ann.frames.try_recv() {
            if let Some(frame::Kind::Result(result)) = frame.kind {
                results.push(result);
            }
        }
        match ann.bulk.try_recv() {
            Ok(chunk) => packed.entry(chunk.transfer).or_default().extend_from_slice(&chunk.data),
            Err(_) => std::thread::yield_now(),
        }
    }
    let digests = results.iter().flat_map(|result| &result.outputs).map(|output| {
        let raw = zstd::bulk::decompress(&packed[&output.transfer], output.size as usize).unwrap();
        assert_eq!(raw.len(), 48 << 20);
        Digest::of(&raw)
    });
    let digests: HashSet<Digest> = digests.collect();
    assert_eq!((packed.len(), digests.len()), (6, 3), "two jobs wrote the same three files");
    assert!(matches!(ann.event(), GuestEvent::Laden(_, false)));
    until("all is given back", || (ann.room.held() == (0, 0)).then_some(()));
}

/// One byte of a header and of a compiler, changed in place behind the node's back.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[3] ^= 1;
    let times = fs::metadata(path).unwrap().modified().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(3)).unwrap();
    file.write_all(&bytes[3..4]).unwrap();
    file.set_modified(times).unwrap();
}

fn tools() -> DeltaOps {
    let mut ops = down_to("/usr/include");
    ops.dirs.last_mut().unwrap().files.push(file_op("stdio.h", b"int puts();\n"));
    ops.dirs.push(dir_ops("/usr/lib"));
    ops.dirs.last_mut().unwrap().files.push(file_op("cc1", &[7; 5_000_000]));
    ops
}

#[test]
fn a_pass_finds_what_rotted_and_the_next_session_brings_it_anew() {
    if as_user("a_pass_finds_what_rotted_and_the_next_session_brings_it_anew") {
        return;
    }
    let space = Space::new("care-pass");
    let mut ann = Worker::new(&space);
    ann.delta(&tools());
    let sent = ann.holds();
    assert_eq!(sent.len(), 2);
    // Nobody is idle: nothing is read.
    ann.guest.tell(Command::Pass);
    assert_eq!(ann.holds(), sent);
    assert!(ann.events.try_recv().is_err());
    ann.idle.set(true);
    match ann.event() {
        GuestEvent::Looked(_, looked, true) => assert_eq!((looked.bytes, looked.rotten), (5_000_012, vec![])),
        other => panic!("{other:?}"),
    }
    for rotten in ["/usr/include/stdio.h", "/usr/lib/cc1"] {
        flip(&ann.folder.join("root").join(&rotten[1..]));
        ann.guest.tell(Command::Pass);
        match ann.event() {
            GuestEvent::Looked(_, looked, true) => assert_eq!(looked.rotten, [rotten.as_bytes()]),
            other => panic!("{other:?}"),
        }
        match ann.event() {
            GuestEvent::Unwell(_, why) => assert!(why.contains(rotten) && why.contains("fetched anew"), "{why}"),
            other => panic!("{other:?}"),
        }
        // It is poison, and the next session is told so.
        ann.connect(64);
        let left: Vec<String> = ann.holds().into_keys().collect();
        assert!(left.len() == 1 && left[0] != rotten, "{left:?}");
        ann.delta(&tools());
        assert_eq!(ann.holds(), sent);
    }
    // A link that leads elsewhere, and a name that nobody sent.
    std::os::unix::fs::symlink("/usr/lib/cc1", ann.folder.join("root/usr/include/evil.h")).unwrap();
    ann.guest.tell(Command::Pass);
    match ann.event() {
        GuestEvent::Looked(_, looked, true) => assert_eq!(looked.rotten, [b"/usr/include/evil.h"]),
        other => panic!("{other:?}"),
    }
}
