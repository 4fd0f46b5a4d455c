//! Inputs to begin with that are not text: made here from real messages, so that they follow when a format changes.
//! Those that are text, or once broke a promise, lie in `corpus`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use potluck_model::ids::Digest;
use potluck_model::plan::Family;
use potluck_node::core_content;
use potluck_node::toolchain::manifest::Program;
use potluck_node::toolchain::{Entry, FileSource, Manifest, Probe, export};
use potluck_runner::protocol::{self, End, FromRunner, HarvestKind, Harvested, Limits, Report, Setup, ToRunner, Trap};
use potluck_wire::ipc::{self, Compile, Reply, Request, Taken};
use potluck_wire::pool::{self, DeltaOps, DirOps, FileOp, Frame, LinkOp, frame};
use prost::Message;

use crate::Target;

/// Where the committed inputs lie.
pub fn corpus_of(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Every input to begin with, committed ones first, in an order that is always the same.
pub fn of(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let dir = corpus_of(target);
    let mut names: Vec<PathBuf> = match fs::read_dir(&dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    names.sort();
    let mut all = names.iter().map(fs::read).collect::<io::Result<Vec<_>>>()?;
    all.extend(made(target.name));
    all.push(Vec::new());
    Ok(all)
}

/// The ones that are made.
fn made(name: &str) -> Vec<Vec<u8>> {
    match name {
        "manifest" => vec![manifest().encode()],
        "archive" => archives(),
        "elf" => std::env::current_exe().ok().and_then(|exe| head(&exe, 16 << 10)).into_iter().collect(),
        "trace" => vec![b"o/usr/include/stdio.h\0s/usr\0x/usr/bin/as\0n/etc/nothing\0e/root\0w/scratch/a.o\0".to_vec()],
        "pool" => frames().iter().map(Message::encode_to_vec).chain([chunk().encode_to_vec()]).collect(),
        "hello" => vec![hello().encode_to_vec()],
        "delta" => vec![delta().encode_to_vec()],
        "contents" => contents(),
        "statement" => crate::teams::example().1.into_iter().flat_map(|raw| [body_of(&raw), raw]).collect(),
        "team" => vec![(0..200).map(|n| (n * 7 % 251) as u8).collect(), vec![1, 2, 0, 17, 3, 3, b'a', 1, b'b']],
        "announcement" => {
            vec![b"instance\0v=1\0id=0123456789abcdef\0team=fedcba9876543210\0name=office\0keeper=1".to_vec()]
        }
        "ipc" => ipc_frames(),
        "runner" => runner_frames(),
        "paths" => ["/work/project/a.c", "sub/../a.o", "/usr/include\0/usr", "/.potluck/trap/1"]
            .map(|p| p.as_bytes().to_vec())
            .into(),
        "placing" => (0..4).map(|n: u64| (0..300).map(|i| ((i * 31 + n * 97) % 253) as u8).collect()).collect(),
        _ => Vec::new(),
    }
}

fn head(path: &Path, bytes: usize) -> Option<Vec<u8>> {
    let mut all = fs::read(path).ok()?;
    all.truncate(bytes);
    Some(all)
}

fn body_of(raw: &[u8]) -> Vec<u8> {
    potluck_wire::team::Statement::decode(raw).map(|s| s.body).unwrap_or_default()
}

fn manifest() -> Manifest {
    let file = |path: &str, content: &[u8], mode| Entry::File {
        path: path.into(),
        digest: Digest::of(content),
        size: content.len() as u64,
        mode,
    };
    let link = Entry::Link { path: "/usr/bin/gcc".into(), target: "gcc-12".into() };
    let mut entries = vec![file("/usr/bin/gcc-12", b"driver", 0o755), link, file("/usr/lib/cc1", b"cc1", 0o755)];
    entries.sort_by(|a, b| a.path().cmp(b.path()));
    let probe = Probe {
        language: "c".into(),
        source_name: "probe.c".into(),
        source: b"int x;\n".to_vec(),
        args: vec![b"-c".to_vec()],
        object: Digest::of(b"object"),
        stderr: Digest::of(b""),
    };
    Manifest {
        family: Family::Gcc,
        cxx: false,
        version: "12.2.0".into(),
        target: "x86_64-linux-gnu".into(),
        driver: "/usr/bin/gcc".into(),
        programs: vec![Program { name: "cc1".into(), path: "/usr/lib/cc1".into() }],
        languages: vec!["c".into()],
        env: vec![b"LC_ALL=C".to_vec()],
        entries,
        dirs: vec!["/usr/include".into()],
        probes: vec![probe],
    }
}

/// As it is sent, and as the tar in it; the second is easier to change.
fn archives() -> Vec<Vec<u8>> {
    let dir = crate::paths::scratch();
    let manifest = manifest();
    for content in [&b"driver"[..], b"cc1"] {
        fs::write(dir.path().join(Digest::of(content).to_string()), content).expect("a scratch folder can be written");
    }
    let mut packed = Vec::new();
    let files = FileSource::of_folder(dir.path(), &manifest);
    export(&manifest, &files, &mut packed).expect("both files are there");
    let tar = zstd::stream::decode_all(&packed[..]).expect("just packed");
    vec![packed, tar]
}

fn hello() -> pool::Hello {
    pool::Hello {
        major: 1,
        abilities: vec!["mirror-1".into(), "credits-1".into(), "probe-1".into()],
        app_version: "0.1.0".into(),
        name: "tower".into(),
        membership: vec![7; 32],
        arch: "x86_64".into(),
        slots: 8,
        session: 77,
        memory_bytes: 16 << 30,
        port: 10555,
        ..Default::default()
    }
}

fn delta() -> DeltaOps {
    let dir = |path: &str| DirOps { path: path.into(), mode: 0o755, ..Default::default() };
    let file = |name: &str, content: &[u8]| FileOp {
        name: name.into(),
        digest: Digest::of(content).0.to_vec(),
        size: content.len() as u64,
        mode: 0o644,
        mtime_s: 1_700_000_000,
        mtime_ns: 5,
        content: Some(content.to_vec()),
    };
    let project = DirOps {
        poison: vec![b"secret".to_vec()],
        absent: vec![b"gone.h".to_vec()],
        files: vec![file("a.c", b"int a;\n"), file("a.h", b"")],
        links: vec![LinkOp { name: b"link".to_vec(), target: b"a.c".to_vec() }],
        ..dir("/work/project")
    };
    DeltaOps { dirs: vec![dir("/"), dir("/work"), project] }
}

fn frames() -> Vec<Frame> {
    let packed = core_content::pack(&delta().encode_to_vec()).expect("memory is there");
    let raw_bytes = delta().encoded_len() as u64;
    let job = pool::Job {
        id: 3,
        toolchain: vec![1; 32],
        program: b"/usr/bin/gcc".to_vec(),
        argv: ["gcc", "-c", "a.c"].map(Into::into).to_vec(),
        cwd: b"/work/project".to_vec(),
        outputs: vec![pool::OutputDir { path: b"/work/project".to_vec(), whiteouts: vec![b"a.o".to_vec()] }],
        ..Default::default()
    };
    let output = pool::Harvested { content: Some(vec![1, 2, 3]), size: 3, raw: true, ..Default::default() };
    let result = pool::Result { id: 3, stderr: b"warning".to_vec(), outputs: vec![output], ..Default::default() };
    [
        frame::Kind::Hello(hello()),
        frame::Kind::Delta(pool::Delta { seq: 1, ops: packed, raw_bytes }),
        frame::Kind::Delta(pool::Delta { seq: 2, ops: delta().encode_to_vec(), raw_bytes: 0 }),
        frame::Kind::Job(job),
        frame::Kind::Result(result),
        frame::Kind::Gossip(pool::Gossip { membership: vec![7; 32], statements: vec![vec![1, 2]] }),
    ]
    .into_iter()
    .map(|kind| Frame { kind: Some(kind) })
    .collect()
}

fn chunk() -> pool::Chunk {
    pool::Chunk::decode(&[0x08, 0x01, 0x12, 0x03, b'a', b'b', b'c'][..]).unwrap_or_default()
}

fn contents() -> Vec<Vec<u8>> {
    let raw: Vec<u8> = (0..2000u32).map(|i| (i / 9) as u8).collect();
    let with = |flags: u8, size: u16, packed: Vec<u8>| [&[flags][..], &size.to_le_bytes(), &packed].concat();
    vec![
        with(0, 2000, core_content::pack_inline(&raw)),
        with(0, 2000, core_content::pack(&raw).expect("memory is there")),
        with(4, 5, b"plain".to_vec()),
    ]
}

fn ipc_frames() -> Vec<Vec<u8>> {
    let compile = Compile {
        version: ipc::IPC_VERSION,
        compiler: b"/usr/bin/gcc".to_vec(),
        argv: ["gcc", "-c", "a.c", "-o", "a.o"].map(Into::into).to_vec(),
        env: vec![b"LANG=C".to_vec()],
        cwd: b"/work".to_vec(),
        pid: 77,
        stack_bytes: u64::MAX,
        ..Default::default()
    };
    let taken = Taken { told_ns: 99, thread: 7 };
    vec![
        ipc::encode(&Request::Compile(Box::new(compile))),
        ipc::encode(&Request::Api { json: "{\"call\":\"snapshot\"}".into() }),
        ipc::encode(&Request::Ended { exit: 1 }),
        ipc::encode(&Reply::Local { reason: "link".into() }),
        ipc::encode(&Reply::Done { exit: 0, stdout: Vec::new(), stderr: b"warning".to_vec() }),
        taken.to_bytes().to_vec(),
    ]
}

fn runner_frames() -> Vec<Vec<u8>> {
    let frame = |message: &ToRunner| {
        let mut out = Vec::new();
        protocol::write_frame(&mut out, message).expect("short");
        out
    };
    let setup = Setup { root: b"/r".to_vec(), generations: b"/g".to_vec(), uid: 1000, gid: 1000, allow_fuse: true };
    let job = protocol::Job {
        id: 1,
        program: b"/usr/bin/gcc".to_vec(),
        argv: vec![b"gcc".to_vec()],
        env: Vec::new(),
        cwd: b"/work".to_vec(),
        umask: 0o22,
        outputs: Vec::new(),
        limits: Limits::default(),
        discard_outputs: false,
        grouped: false,
    };
    let report = Report {
        end: End::Exited(0),
        stdout: Vec::new(),
        stderr: b"warning".to_vec(),
        wall_us: 1,
        user_us: 2,
        system_us: 3,
        overhead_us: 4,
        max_rss_bytes: 5,
        outputs: vec![Harvested { dir: 0, path: b"a.o".to_vec(), kind: HarvestKind::File { mode: 0o644, size: 3 } }],
    };
    let mut reported = Vec::new();
    protocol::write_frame(&mut reported, &report).expect("short");
    let mut ready = Vec::new();
    protocol::write_frame(&mut ready, &FromRunner::Ready { trap: Trap::Fuse, trap_note: String::new() })
        .expect("short");
    vec![
        [frame(&ToRunner::Setup(setup)), frame(&ToRunner::Run(job)), frame(&ToRunner::Kill(1))].concat(),
        reported,
        ready,
    ]
}
