//! What the wrapper does with each thing that a node can say, or fail to say.

mod lab;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Lab, POTLUCK, bytes};
use potluck_wire::ipc::{IPC_VERSION, Reply, Request};

const COMPILE: &[&str] = &["gcc", "-c", "a.c"];

fn kill(child: &Child, signal: i32) {
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

fn code_and_words(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn without_a_node_the_compiler_runs() {
    let lab = Lab::new();
    lab.expect_compiled(&lab.potluck(COMPILE).output().expect("runs"));
}

#[test]
fn a_socket_that_nobody_serves_is_no_node() {
    let lab = Lab::new();
    drop(lab.node());
    assert!(lab.path("node.sock").exists());
    lab.expect_compiled(&lab.potluck(COMPILE).output().expect("runs"));
}

#[test]
fn a_silent_node_costs_its_patience_and_no_more() {
    let lab = Lab::new();
    let node = lab.node();
    let start = Instant::now();
    let child = lab.potluck(COMPILE).env_remove("POTLUCK_PATIENCE_MS").spawn().expect("runs");
    let (mut silent, _) = node.accept_compile();
    silent.expect_end();
    assert!(start.elapsed() >= Duration::from_millis(250));
    let Request::Notice { reason, .. } = node.accept().1 else { panic!("not a notice") };
    assert_eq!(reason, "node-silent");
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
}

#[test]
fn a_node_that_has_taken_the_question_is_waited_for() {
    // What it took before does not count.
    for early in [true, false] {
        let lab = Lab::new();
        let node = lab.node();
        if early {
            lab::taken(&lab);
        }
        let child = lab.potluck(COMPILE).env("POTLUCK_PATIENCE_MS", "1500").spawn().expect("runs");
        let (mut conversation, _) = node.accept_compile();
        if early {
            conversation.expect_end();
            lab.expect_compiled(&child.wait_with_output().expect("ends"));
            continue;
        }
        lab::taken(&lab);
        // Not synchronisation: that its patience has passed is what is tested.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(conversation.is_open());
        conversation.reply(&Reply::Done { exit: 3, stdout: Vec::new(), stderr: Vec::new() });
        assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(3));
    }
}

/// A thread that computes or sleeps until it is let go, and its number.
fn thread(computes: bool, until: Arc<AtomicBool>) -> (u32, std::thread::JoinHandle<()>) {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).expect("told");
        while !until.load(Ordering::Relaxed) {
            if computes { std::hint::spin_loop() } else { std::thread::park() }
        }
    });
    (told.recv().expect("started"), thread)
}

#[test]
fn a_node_that_computes_is_waited_for() {
    let lab = Lab::new();
    let node = lab.node();
    let until = Arc::new(AtomicBool::new(false));
    let (number, thread) = thread(true, Arc::clone(&until));
    lab::leave(&lab, 0, number);
    let child = lab.potluck(COMPILE).env("POTLUCK_PATIENCE_MS", "300").spawn().expect("runs");
    let (mut conversation, _) = node.accept_compile();
    // Not synchronisation: that its patience has passed, three times, is what is tested.
    std::thread::sleep(Duration::from_millis(1000));
    assert!(conversation.is_open());
    conversation.reply(&Reply::Done { exit: 3, stdout: Vec::new(), stderr: Vec::new() });
    assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(3));
    until.store(true, Ordering::Relaxed);
    thread.join().expect("ends");
}

#[test]
fn a_node_that_computes_for_ever_or_sleeps_is_silent() {
    for computes in [true, false] {
        let lab = Lab::new();
        let node = lab.node();
        let until = Arc::new(AtomicBool::new(false));
        let (number, thread) = thread(computes, Arc::clone(&until));
        lab::leave(&lab, 0, number);
        let start = Instant::now();
        let child = lab.potluck(COMPILE).env("POTLUCK_PATIENCE_MS", "100").spawn().expect("runs");
        let (mut conversation, _) = node.accept_compile();
        conversation.expect_end();
        assert!(!computes || start.elapsed() >= Duration::from_millis(2000));
        lab.expect_compiled(&child.wait_with_output().expect("ends"));
        until.store(true, Ordering::Relaxed);
        thread.thread().unpark();
        thread.join().expect("ends");
    }
}

#[test]
fn a_node_that_does_not_even_read_a_huge_request_is_silent() {
    let lab = Lab::new();
    let node = lab.node();
    // gcc itself takes 128 KiB at most: it puts all options into one variable.
    let mut command = lab.potluck(&["sh", "-c", "exec gcc -c a.c", "sh"]);
    command.args((0..10_000).map(|i| format!("-DA_LONG_NAME_THAT_FILLS_THE_SOCKET_{i:060}")));
    let child = command.env_remove("POTLUCK_PATIENCE_MS").spawn().expect("runs");
    let _unread = node.accept_only();
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
}

#[test]
fn a_node_that_speaks_something_else_is_no_node() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[2, 0, 0, 0, 0xff, 0xff], &[0xff; 4]] {
        let lab = Lab::new();
        let node = lab.node();
        let child = lab.potluck(COMPILE).spawn().expect("runs");
        let (mut conversation, _) = node.accept_compile();
        conversation.0.write_all(garbage).expect("garbage");
        lab.expect_compiled(&child.wait_with_output().expect("ends"));
    }
}

#[test]
fn a_node_that_dies_while_it_works_costs_time_only() {
    let lab = Lab::new();
    let node = lab.node();
    let child = lab.potluck(COMPILE).spawn().expect("runs");
    let (conversation, _) = node.accept_compile();
    lab::taken(&lab);
    drop(conversation);
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
}

#[test]
fn half_a_reply_is_none() {
    let lab = Lab::new();
    let node = lab.node();
    let child = lab.potluck(COMPILE).spawn().expect("runs");
    let (mut conversation, _) = node.accept_compile();
    let frame = potluck_wire::ipc::encode(&Reply::Done { exit: 0, stdout: vec![7; 100], stderr: Vec::new() });
    conversation.0.write_all(&frame[..50]).expect("half");
    drop(conversation);
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
}

#[test]
fn a_remote_result_is_shown_byte_for_byte() {
    let lab = Lab::new();
    let node = lab.node();
    let child = lab.potluck(COMPILE).spawn().expect("runs");
    let (mut conversation, _) = node.accept_compile();
    let stdout: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let stderr = b"a.c:1:1: warning: \xff\xfe\n".to_vec();
    lab::taken(&lab);
    conversation.reply(&Reply::Done { exit: 3, stdout: stdout.clone(), stderr: stderr.clone() });
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout == stdout);
    assert_eq!(output.stderr, stderr);
    assert!(!lab.path("a.o").exists(), "no compiler ran");
}

#[test]
fn a_non_blocking_standard_output_gets_every_byte() {
    let lab = Lab::new();
    let node = lab.node();
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("flags");
    let mut command = lab.potluck(COMPILE);
    command.stdout(OwnedFd::from(writer));
    let mut child = command.spawn().expect("runs");
    drop(command);
    let (mut conversation, _) = node.accept_compile();
    let stdout = vec![b'x'; 500_000];
    conversation.reply(&Reply::Done { exit: 0, stdout: stdout.clone(), stderr: Vec::new() });
    let mut seen = Vec::new();
    reader.read_to_end(&mut seen).expect("read");
    assert!(seen == stdout);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_refusal_is_one_sentence_and_its_code() {
    let lab = Lab::new();
    let node = lab.node();
    let child = lab.potluck(COMPILE).spawn().expect("runs");
    let (mut conversation, _) = node.accept_compile();
    conversation.reply(&Reply::Fail { exit: 116, message: "no machine is free".to_owned() });
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(116));
    assert_eq!(output.stderr, b"potluck: no machine is free\n");
    assert!(!lab.path("a.o").exists());
}

#[test]
fn the_slot_is_held_until_the_last_process_of_the_compiler_ends() {
    let lab = Lab::new();
    let node = lab.node();
    let fifo = lab.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    let mut child = lab.potluck(&["gcc", "-x", "c", "-c", "fifo", "-o", "a.o"]).spawn().expect("runs");
    let (mut conversation, _) = node.accept_compile();
    conversation.local("link");
    // Opens when cc1 opens the other end: the compiler runs.
    let source = std::fs::OpenOptions::new().write(true).open(&fifo).expect("fifo");
    assert!(conversation.is_open());
    kill(&child, libc::SIGKILL);
    assert_eq!(child.wait().expect("ends").signal(), Some(libc::SIGKILL));
    assert!(conversation.is_open(), "cc1 still burns a core");
    drop(source);
    conversation.expect_end();
}

#[test]
fn the_slot_never_becomes_a_standard_stream() {
    let lab = Lab::new();
    let node = lab.node();
    let mut command = lab.program("sh");
    command.args(["-c", "exec \"$@\" <&-", "sh", POTLUCK, "sh", "-c", "readlink /proc/self/fd/0 || echo closed"]);
    let child = command.spawn().expect("runs");
    node.accept_compile().0.local("unsupported-compiler");
    assert_eq!(child.wait_with_output().expect("ends").stdout, b"closed\n");
}

#[test]
fn the_reason_is_told_only_on_request() {
    for (value, words) in [("1", "potluck: compiled here: link\n"), ("0", "")] {
        let lab = Lab::new();
        let node = lab.node();
        let child = lab.potluck(COMPILE).env("POTLUCK_WARN_LOCAL", value).spawn().expect("runs");
        node.accept_compile().0.local("link");
        assert_eq!(String::from_utf8_lossy(&child.wait_with_output().expect("ends").stderr), words);
        assert!(lab.path("a.o").exists());
    }
}

#[test]
fn an_interrupted_wrapper_dies_of_the_signal_and_the_node_hears_it() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let lab = Lab::new();
        let node = lab.node();
        let mut command = lab.potluck(COMPILE);
        // Whoever runs the tests may ignore it (nohup, a shell's background), and a wrapper inherits that as a compiler does.
        // SAFETY: signal(2) with the default action is all that happens between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::signal(signal, libc::SIG_DFL);
                Ok(())
            })
        };
        let mut child = command.spawn().expect("runs");
        let (mut conversation, compile) = node.accept_compile();
        assert_eq!(compile.pid, child.id());
        lab::taken(&lab);
        kill(&child, signal);
        conversation.expect_end();
        assert_eq!(child.wait().expect("ends").signal(), Some(signal));
        assert!(!lab.path("a.o").exists());
    }
}

#[test]
fn with_fallback_off_each_trouble_has_its_code() {
    let lab = Lab::new();
    let compile = || {
        let mut command = lab.potluck(COMPILE);
        command.env("POTLUCK_FALLBACK", "0");
        command
    };
    let (code, words) = code_and_words(compile());
    assert_eq!(code, Some(103));
    assert!(
        words.starts_with("potluck: the Potluck node cannot be reached: ") && words.lines().count() == 1,
        "{words}"
    );
    std::fs::write(lab.path("node.sock"), "").expect("file");
    assert_eq!(code_and_words(compile()).0, Some(103));
    std::fs::remove_file(lab.path("node.sock")).expect("removed");

    let node = lab.node();
    let child = compile().env_remove("POTLUCK_PATIENCE_MS").spawn().expect("runs");
    let (mut silent, asked) = node.accept_compile();
    assert!(asked.no_fallback);
    silent.expect_end();
    assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(118));

    let child = compile().spawn().expect("runs");
    let (mut garbled, _) = node.accept_compile();
    garbled.0.write_all(&[1, 0, 0, 0, 99]).expect("garbage");
    assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(109));

    let child = compile().spawn().expect("runs");
    let (dying, _) = node.accept_compile();
    lab::taken(&lab);
    drop(dying);
    assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(107));
    assert!(!lab.path("a.o").exists(), "nothing was compiled here");
}

#[test]
fn the_socket_of_another_user_is_not_used() {
    let lab = Lab::new();
    let node = lab.node();
    // Only root can give a file away; others cannot make the situation that they are protected from.
    let stranger = rustix::process::getuid().as_raw() + 1;
    if chown(lab.path("node.sock"), Some(stranger), None).is_err() {
        return;
    }
    lab.expect_compiled(&lab.potluck(COMPILE).output().expect("runs"));
    assert!(!node.was_contacted());
}

#[test]
fn the_request_says_what_can_influence_the_compile() {
    let lab = Lab::new();
    let node = lab.node();
    let mut command = lab.potluck(COMPILE);
    command.env("LC_ALL", "C").env("SECRET", "x").env("POTLUCK_PREFER", "a").env("POTLUCK_LEVEL", "1:2");
    // SAFETY: umask is async-signal-safe, and changes nothing but the child.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0o027);
            Ok(())
        })
    };
    let child = command.spawn().expect("runs");
    let (mut conversation, compile) = node.accept_compile();
    conversation.local("link");
    lab.expect_compiled(&child.wait_with_output().expect("ends"));
    let here = std::fs::metadata(lab.root.path()).expect("folder");
    assert_eq!(compile.version, IPC_VERSION);
    let root = compile.root;
    assert!(root.inode != 0 && root.namespace != 0, "{root:?}");
    assert_eq!(compile.compiler, b"/usr/bin/gcc");
    assert_eq!(compile.argv, [b"gcc".to_vec(), b"-c".to_vec(), b"a.c".to_vec()]);
    assert_eq!(compile.cwd, bytes(&lab.root.path().canonicalize().expect("exists")));
    assert_eq!(compile.cwd_identity, (here.dev(), here.ino()));
    assert_eq!(compile.umask, 0o027);
    assert!(compile.stack_bytes > 0 && compile.file_bytes > 0);
    assert_eq!((compile.stdout_tty, compile.stderr_tty, compile.columns), (false, false, 0));
    assert!(!compile.force_local && !compile.no_fallback);
    let mut names: Vec<_> =
        compile.env.iter().map(|e| e.split(|b| *b == b'=').next().expect("name").to_vec()).collect();
    names.sort();
    assert_eq!(
        names,
        ["HOME", "LC_ALL", "PATH", "POTLUCK_PATIENCE_MS", "POTLUCK_PREFER", "POTLUCK_SOCKET"]
            .map(|n| n.as_bytes().to_vec())
    );
    let mode = std::fs::metadata(lab.path("a.o")).expect("object").mode();
    assert_eq!(mode & 0o777, 0o640, "the umask was set back");
}

#[test]
fn a_terminal_is_reported_with_its_width() {
    let lab = Lab::new();
    let node = lab.node();
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two places for descriptors, no name, no attributes, a size that lives through the call.
    let result = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(result, 0);
    // SAFETY: both were just opened and belong to nobody else.
    let (_master, slave): (OwnedFd, OwnedFd) =
        unsafe { (std::os::fd::FromRawFd::from_raw_fd(master), std::os::fd::FromRawFd::from_raw_fd(slave)) };
    let mut child = lab.potluck(COMPILE).stderr(Stdio::from(slave)).spawn().expect("runs");
    let (mut conversation, compile) = node.accept_compile();
    assert_eq!((compile.stdout_tty, compile.stderr_tty, compile.columns), (false, true, 97));
    conversation.reply(&Reply::Done { exit: 0, stdout: Vec::new(), stderr: Vec::new() });
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn long_and_strange_command_lines_pass_unchanged() {
    let lab = Lab::new();
    let node = lab.node();
    let mut args: Vec<Vec<u8>> = COMPILE.iter().map(|a| a.as_bytes().to_vec()).collect();
    args.extend((0..1_700).map(|i| format!("-I/nowhere/{i:060}").into_bytes()));
    args.push(b"-DNOT_UTF8=\"\xff\xfe\"".to_vec());
    args.push(b"-DNEWLINE=a\nb".to_vec());
    args.push(b"-I".to_vec());
    args.push(Vec::new());
    assert!(args.iter().map(Vec::len).sum::<usize>() > 120_000);
    let child = lab.program(POTLUCK).args(args.iter().map(|a| OsStr::from_bytes(a))).spawn().expect("runs");
    let (mut conversation, compile) = node.accept_compile();
    assert!(compile.argv == args);
    conversation.local("link");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{output:?}");
    assert!(lab.path("a.o").exists(), "the compiler got them too");
}

#[test]
fn a_full_backlog_is_a_silent_node() {
    let lab = Lab::new();
    let node = lab.node();
    let mut waiting = Vec::new();
    // The listener's queue is as long as the system allows: fill it with connections that do not block us.
    loop {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let Ok(socket) = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else { return };
        match connect(&socket, &SocketAddrUnix::new(lab.path("node.sock")).expect("address")) {
            Ok(()) => waiting.push(socket),
            Err(error) => {
                assert_eq!(error, rustix::io::Errno::AGAIN);
                break;
            }
        }
    }
    lab.expect_compiled(&lab.potluck(COMPILE).env_remove("POTLUCK_PATIENCE_MS").output().expect("runs"));
    drop(node);
}
