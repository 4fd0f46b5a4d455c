//! What runs inside a worker's namespaces: builds a root in which project, compilers and headers are absent or
//! decoys, enters it by pivot_root, and is the first process there, starting and reaping the node.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};

use rustix::fs::{FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::{Context, Outcome, Trouble};

/// Name of the helper program beside the harness.
pub const PROGRAM: &str = "lab-worker";
/// Where a worker's programs are.
pub const PROGRAMS_DIR: &str = "/potluck";
/// Where a worker keeps everything it writes.
pub const STATE_DIR: &str = "/home/worker";
/// What a decoy header says.
pub const DECOY_TEXT: &str = "#error decoy\n";
/// The distribution's name of this machine's kind.
#[cfg(target_arch = "x86_64")]
macro_rules! triplet {
    () => {
        "x86_64-linux-gnu"
    };
}
#[cfg(not(target_arch = "x86_64"))]
macro_rules! triplet {
    () => {
        "aarch64-linux-gnu"
    };
}

/// Compilers that a worker finds in its root: each prints DECOY and fails.
pub const DECOY_COMPILERS: &[&str] = &[
    "/usr/bin/gcc",
    "/usr/bin/g++",
    "/usr/bin/cc",
    "/usr/bin/c++",
    "/usr/bin/clang",
    "/usr/bin/clang++",
    "/usr/bin/as",
    "/usr/bin/ld",
    "/usr/bin/gcc-12",
    "/usr/bin/g++-12",
    "/usr/bin/clang-14",
    concat!("/usr/bin/", triplet!(), "-gcc-12"),
    concat!("/usr/bin/", triplet!(), "-as"),
    concat!("/usr/lib/gcc/", triplet!(), "/12/cc1"),
    concat!("/usr/lib/gcc/", triplet!(), "/12/cc1plus"),
    "/usr/lib/llvm-14/bin/clang",
];
/// Files that get a decoy in place of a project.
const DECOY_SUFFIXES: &[&str] = &["h", "hh", "hpp", "hxx", "c", "cc", "cpp", "inc", "ipp", "def", "gch", "S"];

/// How one worker's root shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// An empty folder to build it on.
    pub mountpoint: PathBuf,
    /// Folder with the programs.
    pub programs: PathBuf,
    /// Shared libraries that these programs load; copied to the same paths.
    pub libraries: Vec<PathBuf>,
    /// Folder of the host that becomes the worker's state.
    pub state: PathBuf,
    /// Instead of the folder a file system of this size, to be filled.
    pub state_bytes: Option<u64>,
    /// Folders of the host that are shown as decoys; all others are absent.
    pub decoys: Vec<PathBuf>,
    /// Folders of the host that are shown as they are: only for the test that the harness notices.
    pub leaks: Vec<PathBuf>,
    /// User of the node.
    pub uid: u32,
    /// Group of the node.
    pub gid: u32,
    /// The node's command line.
    pub node: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
}

/// The helper's path: beside the running program, or one folder up when that is a test in `deps`.
pub fn program() -> Outcome<PathBuf> {
    let exe = std::env::current_exe()?;
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(PROGRAM))
        .find(|p| p.is_file())
        .context(|| format!("{PROGRAM} is not beside {}: cargo build -p potluck-tests --bins", exe.display()))
}

/// The helper's whole life.
pub fn main() -> Outcome<()> {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    if Path::new(&name).file_name() != Some(OsStr::new(PROGRAM)) {
        println!("DECOY");
        std::process::exit(1);
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let args: Vec<String> = args.collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["hold"] => hold(),
        ["start", uid, gid] => crate::run::serve_starts(uid, gid),
        ["worker", spec] => worker(spec),
        ["first", spec] => first(&serde_json::from_str(spec)?),
        _ => Err(Trouble::new("this program is started by the Lab only")),
    }
}

fn hold() -> Outcome<()> {
    unshare(UnshareFlags::NEWNET)?;
    say("ready");
    let mut line = String::new();
    // Ends with the harness: its end of the pipe closes.
    while std::io::stdin().read_line(&mut line)? > 0 {}
    Ok(())
}

fn worker(spec: &str) -> Outcome<()> {
    unshare(
        UnshareFlags::NEWNS
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWCGROUP,
    )?;
    let mut first = Command::new("/proc/self/exe").arg0(PROGRAM).args(["first", spec]).spawn()?;
    say(&format!("first {}", first.id()));
    first.wait()?;
    Ok(())
}

/// Leaves namespaces. To be called while the process has one thread.
pub(crate) fn unshare(flags: UnshareFlags) -> Outcome<()> {
    // SAFETY: this process has one thread and shares no descriptor table; nothing it holds refers to the old namespaces.
    unsafe { rustix::thread::unshare_unsafe(flags) }.context(|| "making namespaces (needs root)".into())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The harness may be gone; then this process is about to be killed.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn first(spec: &Spec) -> Outcome<()> {
    // Its number in the host is told by its parent; nothing is said here before the harness has read that.
    let mut known = String::new();
    std::io::stdin().read_line(&mut known)?;
    enter_root(spec).context(|| "building a worker's root".into())?;
    say("ready");
    // Held while a node is started, so that its end cannot be seen before its number is known.
    let node = std::sync::Arc::new(Mutex::new(0u32));
    let (started, child_exists) = mpsc::channel::<()>();
    let commands = {
        let (spec, node) = (spec.clone(), node.clone());
        move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if line == "go" {
                    let mut current = node.lock().expect("nobody panics with it");
                    // Before the node itself can say anything: what comes after this line is of the new node.
                    say("starting");
                    match start_node(&spec) {
                        Ok(pid) => {
                            *current = pid;
                            let _ = started.send(());
                        }
                        Err(e) => say(&format!("ended 0 {e}")),
                    }
                }
            }
            std::process::exit(0);
        }
    };
    std::thread::spawn(commands);
    // The first process of a pid namespace inherits every orphan.
    while child_exists.recv().is_ok() {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    if pid.as_raw_nonzero().get() as u32 == *node.lock().expect("nobody panics with it") {
                        say(&format!("ended {} {:?}", pid.as_raw_nonzero(), status.exit_status()));
                    }
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
    Ok(())
}

fn start_node(spec: &Spec) -> Outcome<u32> {
    let log = fs::OpenOptions::new().create(true).append(true).open(Path::new(STATE_DIR).join("node.err"))?;
    let mut command = Command::new(&spec.node[0]);
    command.args(&spec.node[1..]).env_clear().envs(spec.env.iter().cloned()).current_dir(STATE_DIR);
    command.uid(spec.uid).gid(spec.gid).stdin(Stdio::null()).stderr(log);
    Ok(command.spawn().context(|| format!("starting {}", spec.node[0]))?.id())
}

fn enter_root(spec: &Spec) -> Outcome<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let root = &spec.mountpoint;
    mount_tmpfs(root, "mode=755")?;
    for dir in ["proc", "dev", "dev/shm", "tmp", "var/tmp", "run", "etc", "home/worker", "potluck", "old"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::write(root.join("etc/passwd"), format!("worker:x:{}:{}::{STATE_DIR}:/bin/false\n", spec.uid, spec.gid))?;
    for library in &spec.libraries {
        copy_to(root, library)?;
    }
    bind(&spec.programs, &root.join("potluck"))?;
    let state = root.join("home/worker");
    match spec.state_bytes {
        Some(bytes) => mount_tmpfs(&state, &format!("mode=755,size={bytes},uid={},gid={}", spec.uid, spec.gid))?,
        None => bind(&spec.state, &state)?,
    }
    for tmp in ["tmp", "var/tmp", "dev/shm"] {
        mount_tmpfs(&root.join(tmp), "mode=1777")?;
    }
    make_devices(&root.join("dev"))?;
    if spec.leaks.is_empty() {
        make_decoys(root, spec)?;
    }
    for leak in &spec.leaks {
        let at = below(root, leak);
        fs::create_dir_all(&at)?;
        bind(leak, &at)?;
    }
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", "old")?;
    rustix::process::chdir("/")?;
    rustix::mount::mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    rustix::mount::unmount("/old", UnmountFlags::DETACH)?;
    fs::remove_dir("/old")?;
    Ok(())
}

fn mount_tmpfs(at: &Path, options: &str) -> Outcome<()> {
    let options = std::ffi::CString::new(options).expect("no zero byte in mount options");
    rustix::mount::mount("lab", at, "tmpfs", MountFlags::NOSUID, Some(options.as_c_str()))
        .context(|| format!("mounting a tmpfs on {}", at.display()))
}

fn bind(from: &Path, to: &Path) -> Outcome<()> {
    rustix::mount::mount_bind_recursive(from, to).context(|| format!("binding {} to {}", from.display(), to.display()))
}

/// An absolute path of a worker as whoever sees its root at `root` names it.
pub fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.components().filter(|c| matches!(c, Component::Normal(_))).collect::<PathBuf>())
}

fn copy_to(root: &Path, file: &Path) -> Outcome<()> {
    let to = below(root, file);
    fs::create_dir_all(to.parent().expect("a file has a folder"))?;
    fs::copy(file, &to).context(|| format!("copying {}", file.display()))?;
    Ok(())
}

fn make_devices(dev: &Path) -> Outcome<()> {
    // Major and minor numbers of Documentation/admin-guide/devices.txt; fuse is 0666 as udev makes it on desktops.
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("fuse", 10, 229)]
    {
        let path = dev.join(name);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
            .context(|| format!("making the device {name}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    symlink("/proc/self/fd", dev.join("fd"))?;
    Ok(())
}

fn make_decoys(root: &Path, spec: &Spec) -> Outcome<()> {
    let program = below(root, Path::new("/usr/lib/decoy"));
    fs::create_dir_all(program.parent().expect("it has one"))?;
    fs::copy("/proc/self/exe", &program)?;
    for compiler in DECOY_COMPILERS {
        let at = below(root, Path::new(compiler));
        fs::create_dir_all(at.parent().expect("a compiler has a folder"))?;
        fs::hard_link(&program, &at)?;
    }
    decoy_tree(root, Path::new("/usr/include"), 3)?;
    for dir in &spec.decoys {
        decoy_tree(root, dir, 12)?;
    }
    Ok(())
}

fn decoy_tree(root: &Path, dir: &Path, depth: u32) -> Outcome<()> {
    let at = below(root, dir);
    fs::create_dir_all(&at)?;
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && depth > 1 {
            decoy_tree(root, &path, depth - 1)?;
        } else if kind.is_file() && has_decoy(&path) {
            fs::write(at.join(entry.file_name()), DECOY_TEXT)?;
        }
    }
    Ok(())
}

/// Whether a file of this name is shown as a decoy.
pub fn has_decoy(path: &Path) -> bool {
    match path.extension() {
        Some(suffix) => DECOY_SUFFIXES.iter().any(|s| OsStr::new(s) == suffix),
        // The C++ library's headers have none.
        None => path.starts_with("/usr/include"),
    }
}
