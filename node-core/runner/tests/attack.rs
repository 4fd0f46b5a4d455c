//! Hostile jobs: what a member's compromised PC could send. Numbers are the acceptance cases of the trust study.

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;

use lab::hostile::{expect_held, hostile, run};
use lab::{as_user, expect_success, kinds};
use potluck_runner::client::Sandbox;
use potluck_runner::protocol::{End, FromRunner, HarvestKind, Job, LimitKind, ToRunner};

/// Processes of this machine below a sandbox, with their state and CPU ticks.
fn below(sandbox: &Sandbox) -> BTreeMap<u32, (char, u64)> {
    let mut stats = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let mut stat = String::new();
        if fs::File::open(entry.path().join("stat")).and_then(|mut f| f.read_to_string(&mut stat)).is_err() {
            continue;
        }
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let number = |at: usize| fields[at].parse::<u64>().unwrap();
        stats.insert(pid, (fields[0].chars().next().unwrap(), number(1) as u32, number(11) + number(12)));
    }
    let belongs = |mut pid: u32| {
        while let Some((_, parent, _)) = stats.get(&pid) {
            if *parent == sandbox.pid() {
                return true;
            }
            pid = *parent;
        }
        false
    };
    stats.iter().filter(|(pid, _)| belongs(**pid)).map(|(pid, (state, _, cpu))| (*pid, (*state, *cpu))).collect()
}

#[test]
fn case_9_a_job_reads_only_what_it_was_sent() {
    if as_user("case_9_a_job_reads_only_what_it_was_sent") {
        return;
    }
    let done = run(r#"
        extern char **environ;
        int main(void) {
            const char *paths[] = {"/etc/passwd", "/etc/shadow", "/root/.ssh", "/home", "/run/user", "/sys", "/proc/sys",
                "/proc/1/environ", "/proc/1/root/etc/passwd", "/proc/1/cwd/", "/proc/1/fd/3", "/proc/1/mem", "/proc/kcore",
                "/proc/self/cwd/../../../../etc/passwd", "/dev/mem", "/dev/shm", "/.potluck/proc/1", "/.potluck/gens/g1",
                "/proc/cpuinfo", "/proc/net"};
            for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
                if (open(paths[i], O_RDONLY) >= 0) { bad = 1; printf("opened %s\n", paths[i]); }
            for (char **e = environ; *e; e++) fprintf(stderr, "%s\n", *e);
            for (int fd = 3; fd < 1024; fd++) if (fcntl(fd, F_GETFD) != -1) { bad = 1; printf("fd %d\n", fd); }
            return bad;
        }"#);
    assert_eq!(String::from_utf8_lossy(&done.report.stdout), "");
    assert_eq!(String::from_utf8_lossy(&done.report.stderr), lab::ENV.join("\n") + "\n");
}

#[test]
fn case_10_a_job_reaches_no_network_and_no_socket() {
    if as_user("case_10_a_job_reaches_no_network_and_no_socket") {
        return;
    }
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let (lab, mut sandbox, job) = hostile(&format!(
        r#"int main(void) {{
            int types[] = {{AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, AF_PACKET, AF_VSOCK}};
            for (int i = 0; i < 6; i++) {{ MUST(socket(types[i], SOCK_STREAM, 0), EPERM); MUST(socket(types[i], SOCK_RAW, 0), EPERM); }}
            int pair[2];
            MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), EPERM);
            struct sockaddr_in a = {{AF_INET, htons({port}), {{htonl(INADDR_LOOPBACK)}}, {{0}}}};
            MUST(connect(0, (void *)&a, sizeof a), EPERM);
            return bad;
        }}"#
    ));
    let _unix = UnixListener::bind(lab.project.join("socket")).unwrap();
    let done = sandbox.complete(&job).unwrap();
    assert_eq!(String::from_utf8_lossy(&done.report.stdout), "");
    expect_success(&done);
}

#[test]
fn case_11_a_fork_bomb_ends_at_its_limit() {
    if as_user("case_11_a_fork_bomb_ends_at_its_limit") {
        return;
    }
    let (_lab, mut sandbox, mut job) = hostile("int main(void) { for (;;) fork(); }");
    job.limits.processes = 40;
    let done = sandbox.complete(&job).unwrap();
    assert_eq!(done.report.end, End::Limit(LimitKind::Processes));
    assert!(below(&sandbox).is_empty());
    // Orphans in sessions of their own count the same.
    let (_lab, mut sandbox, mut job) =
        hostile("int main(void) { for (;;) { if (fork() > 0 && getpid() != 2) _exit(0); setsid(); } }");
    (job.limits.processes, job.limits.wall_ms) = (40, 3000);
    let end = sandbox.complete(&job).unwrap().report.end;
    assert!(matches!(end, End::Limit(LimitKind::Processes | LimitKind::Wall)), "{end:?}");
    assert!(below(&sandbox).is_empty());
}

#[test]
fn case_11_huge_files_memory_time_and_output_end_at_their_limits() {
    if as_user("case_11_huge_files_memory_time_and_output_end_at_their_limits") {
        return;
    }
    let ends = |source: &str, change: fn(&mut Job)| {
        let (_lab, mut sandbox, mut job) = hostile(source);
        change(&mut job);
        let report = sandbox.complete(&job).unwrap().report;
        assert!(below(&sandbox).is_empty());
        eprintln!(
            "{:?}: wall {} ms, CPU {} ms",
            report.end,
            report.wall_us / 1000,
            (report.user_us + report.system_us) / 1000
        );
        report.end
    };
    let truncated = "int main(void) { int f = open(\"x\", O_CREAT | O_RDWR, 0600); return ftruncate(f, 100L << 30); }";
    assert_eq!(ends(truncated, |_| {}), End::Limit(LimitKind::OutputBytes));
    let written =
        "static char b[1 << 20]; int main(void) { for (int n = 0;; n++) { char p[32]; sprintf(p, \"/tmp/%d\", n);
        int f = open(p, O_CREAT | O_WRONLY, 0600); if (write(f, b, sizeof b) != sizeof b) return 1; close(f); } }";
    assert_eq!(ends(written, |j| j.limits.output_bytes = 16 << 20), End::Limit(LimitKind::OutputBytes));
    let many = "int main(void) { for (int n = 0;; n++) { char p[32]; sprintf(p, \"f%d\", n);
        int f = creat(p, 0600); if (f < 0) return n < 1000; close(f); } }";
    assert_eq!(ends(many, |j| j.limits.output_files = 100), End::Limit(LimitKind::OutputFiles));
    let memory = "int main(void) { for (;;) { char *p = mmap(0, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) pause(); memset(p, 1, 8 << 20); usleep(5000); } }";
    assert_eq!(ends(memory, |j| j.limits.resident_bytes = 128 << 20), End::Limit(LimitKind::Memory));
    // Not malloc: gcc would drop stores to memory that nobody reads.
    let spread = "int main(void) { for (int i = 0; i < 15; i++) if (!fork()) break;
        char *p = mmap(0, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (;;) { memset(p, 1, 16 << 20); usleep(1000); } }";
    assert_eq!(ends(spread, |j| j.limits.resident_bytes = 128 << 20), End::Limit(LimitKind::Memory));
    let reserve = "int main(void) { return mmap(0, 50L << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED; }";
    assert_eq!(ends(reserve, |_| {}), End::Exited(0));
    let kernel = "int main(void) { int p[2]; MUST(memfd_create(\"x\", 0), ENOSYS); MUST(mlockall(3), EPERM);
        MUST(shmget(1, 1 << 20, 0666 | IPC_CREAT), EPERM); return bad; }";
    assert_eq!(ends(kernel, |_| {}), End::Exited(0));
    let cpu = "int main(void) { for (int i = 0; i < 3; i++) if (!fork()) break; for (;;); }";
    assert_eq!(ends(cpu, |j| j.limits.cpu_s = 1), End::Limit(LimitKind::Cpu));
    assert_eq!(ends("int main(void) { for (;;) pause(); }", |j| j.limits.wall_ms = 200), End::Limit(LimitKind::Wall));
    let noise = "int main(void) { for (;;) fputs(\"noise\", stderr); }";
    assert_eq!(ends(noise, |j| j.limits.stdio_bytes = 1 << 20), End::Limit(LimitKind::Stdio));
}

#[test]
fn case_12_special_outputs_are_refused_and_nothing_is_followed() {
    if as_user("case_12_special_outputs_are_refused_and_nothing_is_followed") {
        return;
    }
    let done = run(r#"int main(void) {
            symlink("/etc/hostname", "link"); symlink("../../../../../etc/passwd", "up"); symlink(".", "loop");
            MUST(mkfifo("fifo", 0666), EPERM);
            int f = open("hard", O_CREAT | O_WRONLY, 0600); write(f, "x", 1); link("hard", "hard2");
            mkdir("d", 0777); symlink("/", "d/root"); close(open("d/line\nbreak", O_CREAT | O_WRONLY, 06777));
            MUST(mknod("device", S_IFCHR | 0666, makedev(1, 3)), EPERM);
            MUST(mknod("whiteout", S_IFCHR, makedev(0, 0)), EPERM);
            MUST(mknod("block", S_IFBLK | 0666, makedev(8, 0)), EPERM);
            MUST(open("../outside", O_CREAT | O_WRONLY, 0600), EROFS);
            mkdir("closed", 0); close(open("secret", O_CREAT | O_WRONLY, 0));
            return bad;
        }"#);
    assert_eq!(String::from_utf8_lossy(&done.report.stdout), "");
    let refused = |why: &str| HarvestKind::Refused(why.into());
    let file = |mode, size| HarvestKind::File { mode, size };
    assert_eq!(
        kinds(&done),
        [
            ("closed".into(), HarvestKind::Dir { mode: 0 }),
            ("d".into(), HarvestKind::Dir { mode: 0o755 }),
            ("d/line\nbreak".into(), file(0o755, 0)),
            ("d/root".into(), refused("a symbolic link")),
            ("hard".into(), refused("a file with several names")),
            ("hard2".into(), refused("a file with several names")),
            ("link".into(), refused("a symbolic link")),
            ("loop".into(), refused("a symbolic link")),
            ("secret".into(), file(0, 0)),
            ("up".into(), refused("a symbolic link")),
        ]
    );
    let deep = run(
        "int main(void) { for (int i = 0; i < 200; i++) if (mkdir(\"d\", 0700) || chdir(\"d\")) return 1; return 0; }",
    );
    assert_eq!(deep.report.end, End::Exited(0));
    assert_eq!(deep.report.outputs.len(), 64);
    assert_eq!(deep.report.outputs.last().unwrap().kind, refused("too deep"));
    let million = run(
        "int main(void) { for (int i = 0; i < 6000; i++) { char p[16]; sprintf(p, \"%d\", i); close(creat(p, 0600)); } return 0; }",
    );
    assert_eq!(million.report.end, End::Limit(LimitKind::OutputFiles));
    assert!(million.report.outputs.is_empty());
}

#[test]
fn case_15_no_way_out_by_system_calls() {
    if as_user("case_15_no_way_out_by_system_calls") {
        return;
    }
    expect_held(
        r#"int child(void *_) { return 0; }
        int main(void) {
            static char stack[65536];
            MUST(unshare(CLONE_NEWUSER), EPERM); MUST(unshare(CLONE_NEWNS), EPERM);
            MUST(clone(child, stack + 65536, CLONE_NEWUSER | SIGCHLD, 0), EPERM);
            MUST(clone(child, stack + 65536, CLONE_NEWPID | CLONE_NEWNET | SIGCHLD, 0), EPERM);
            MUST(setns(0, 0), EPERM);
            MUST(mount("x", "/tmp", "tmpfs", 0, ""), EPERM); MUST(umount2("/proc", MNT_DETACH), EPERM);
            MUST(syscall(SYS_open_tree, AT_FDCWD, "/", 1), EPERM); MUST(syscall(SYS_fsopen, "tmpfs", 0), EPERM);
            MUST(chroot("/tmp"), EPERM); MUST(syscall(SYS_pivot_root, "/", "/tmp"), EPERM);
            MUST(ptrace(PTRACE_ATTACH, 1, 0, 0), EPERM); MUST(ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM);
            MUST(syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0), EPERM);
            MUST(syscall(SYS_io_uring_setup, 8, 0), EPERM); MUST(syscall(SYS_bpf, 0, 0, 0), EPERM);
            MUST(syscall(SYS_perf_event_open, 0, 0, 0, 0, 0), EPERM); MUST(syscall(SYS_userfaultfd, 0), EPERM);
            MUST(syscall(SYS_keyctl, 0, 0, 0, 0, 0), EPERM); MUST(syscall(SYS_open_by_handle_at, 0, 0, 0), EPERM);
            MUST(syscall(SYS_clone3, 0, 0), ENOSYS);
            MUST(ioctl(0, TIOCSTI, "x"), EPERM); MUST(ioctl(0, 0x541c, "x"), EPERM);
            /* The high half of the number is ignored by the kernel and must be by the filter. */
            MUST(syscall(SYS_ioctl, 0, (1L << 32) | TIOCSTI, "x"), EPERM);
            MUST(setpriority(PRIO_PROCESS, 0, 0), EPERM);
            struct sched_param p = {0}; MUST(sched_setscheduler(0, SCHED_OTHER, &p), EPERM);
            MUST(open("/proc/1/ns/user", O_RDONLY), ENOENT); MUST(open("/proc/2/oom_score_adj/x", O_RDONLY), ENOTDIR);
            MUST(kill(-1, 0), ESRCH);
            kill(1, SIGKILL); kill(1, SIGSTOP); kill(getppid(), SIGTERM);
            struct rlimit l = {RLIM_INFINITY, RLIM_INFINITY}; MUST(setrlimit(RLIMIT_NPROC, &l), EPERM);
            /* What compilers do need goes on working. */
            pid_t pid = fork(); if (!pid) _exit(7); int status; waitpid(pid, &status, 0);
            if (WEXITSTATUS(status) != 7) return 2;
            pthread_t t; if (pthread_create(&t, 0, (void *(*)(void *))child, 0) || pthread_join(t, 0)) return 3;
            return bad;
        }"#,
    );
}

#[test]
fn case_32_two_jobs_cannot_talk_and_one_cannot_harm_the_other() {
    if as_user("case_32_two_jobs_cannot_talk_and_one_cannot_harm_the_other") {
        return;
    }
    let (mut lab, mut sandbox, mut bomb) = hostile(
        r#"int main(int argc, char **argv) {
            if (argc == 1) for (;;) fork();
            /* The neighbour: counts what it can see and needs processes of its own. */
            int seen = 0; DIR *d = opendir("/proc"); struct dirent *e;
            while ((e = readdir(d))) if (e->d_name[0] >= '0' && e->d_name[0] <= '9') seen++;
            if (seen != 1) { bad = 1; printf("%d processes\n", seen); }
            MUST(msgget(7, 0666 | IPC_CREAT), EPERM); MUST(shmget(7, 4096, 0666 | IPC_CREAT), EPERM);
            MUST(syscall(SYS_mq_open, "/x", O_CREAT, 0666, 0), EPERM); MUST(kill(-1, SIGTERM), ESRCH);
            if (access("left", F_OK) == 0 || access("/tmp/left", F_OK) == 0) { bad = 1; puts("a file of the other"); }
            close(creat("left", 0666)); close(creat("/tmp/left", 0666));
            for (int i = 0; i < 200; i++) {
                pid_t pid = fork(); if (pid < 0) { bad = 1; perror("fork"); printf("fork %d\n", i); break; }
                if (!pid) _exit(0); waitpid(pid, 0, 0);
            }
            return bad;
        }"#,
    );
    bomb.limits.processes = 100;
    // It shall still be there when the neighbours run; the neighbours' end is what ends it.
    bomb.limits.wall_ms = 20_000;
    let bombs: Vec<_> = (0..3)
        .map(|n| {
            bomb.id += 100 + n;
            sandbox.run(&bomb).unwrap()
        })
        .collect();
    let program = lab.project.join("main").display().to_string();
    for _ in 0..2 {
        let neighbour = lab.job(&[&program, "neighbour"]);
        let done = sandbox.complete(&neighbour).unwrap();
        assert_eq!(String::from_utf8_lossy(&done.report.stdout), "");
        expect_success(&done);
    }
    for bomb in bombs {
        assert_eq!(bomb.read().unwrap().0.end, End::Limit(LimitKind::Processes));
    }
}

/// Waits for a frame; other jobs' frames are passed over.
fn await_frame(sandbox: &mut Sandbox, wanted: impl Fn(&FromRunner) -> bool) {
    while !wanted(&sandbox.next().unwrap()) {}
}

/// Blocks until the job has written a byte: it runs.
const SAY_READY: &str = "write(1, \"r\", 1);";

#[test]
fn case_33_a_forking_job_is_stopped_completely_and_resumes() {
    if as_user("case_33_a_forking_job_is_stopped_completely_and_resumes") {
        return;
    }
    // Chains of processes that leave their session and parent for ever, and some that burn CPU.
    let (_lab, mut sandbox, mut job) = hostile(&format!(
        r#"int main(void) {{ {SAY_READY}
            for (int i = 0; i < 4; i++) if (!fork()) for (;;) {{ if (fork() > 0) _exit(0); setsid(); }}
            for (int i = 0; i < 4; i++) if (!vfork()) for (;;);
            for (;;) pause(); }}"#
    ));
    job.limits.processes = 0;
    let stream = sandbox.run(&job).unwrap();
    for _ in 0..20 {
        sandbox.send(&ToRunner::Stop(job.id)).unwrap();
        await_frame(&mut sandbox, |f| matches!(f, FromRunner::Stopped(_)));
        let before = below(&sandbox);
        let init = *before.keys().next().unwrap();
        // Give anything that still runs the time to show it: reading /proc several times over.
        let mut after = below(&sandbox);
        for _ in 0..4 {
            after = below(&sandbox);
        }
        assert!(before.len() > 1, "the job lives");
        for (pid, (state, cpu)) in after.iter().filter(|(pid, _)| **pid != init) {
            assert!("TtDZX".contains(*state), "{pid} is {state}");
            assert_eq!(before.get(pid).map(|b| b.1), Some(*cpu), "{pid} did not run on and is not new");
        }
        sandbox.send(&ToRunner::Resume(job.id)).unwrap();
    }
    sandbox.send(&ToRunner::Kill(job.id)).unwrap();
    await_frame(&mut sandbox, |f| matches!(f, FromRunner::Done { .. }));
    assert_eq!(stream.read().unwrap().0.end, End::Killed);
    assert!(below(&sandbox).is_empty());
}

#[test]
fn time_while_stopped_does_not_count() {
    if as_user("time_while_stopped_does_not_count") {
        return;
    }
    let (_lab, mut sandbox, mut job) = hostile("int main(void) { usleep(300000); return 0; }");
    job.limits.wall_ms = 600;
    let stream = sandbox.run(&job).unwrap();
    sandbox.send(&ToRunner::Stop(job.id)).unwrap();
    await_frame(&mut sandbox, |f| matches!(f, FromRunner::Stopped(_)));
    // Not synchronisation: the time itself is what is tested.
    std::thread::sleep(std::time::Duration::from_millis(900));
    sandbox.send(&ToRunner::Resume(job.id)).unwrap();
    assert_eq!(stream.read().unwrap().0.end, End::Exited(0));
}

#[test]
fn no_process_survives_the_sandbox_however_it_ends() {
    if as_user("no_process_survives_the_sandbox_however_it_ends") {
        return;
    }
    let source =
        format!("int main(void) {{ for (int i = 0; i < 3; i++) if (!fork()) setsid(); {SAY_READY} for (;;); }}");
    for kill in [false, true] {
        let (_lab, mut sandbox, job) = hostile(&source);
        let stream = sandbox.run(&job).unwrap();
        sandbox.send(&ToRunner::Stop(job.id)).unwrap();
        await_frame(&mut sandbox, |f| matches!(f, FromRunner::Stopped(_)));
        sandbox.send(&ToRunner::Resume(job.id)).unwrap();
        let alive = below(&sandbox);
        assert!(alive.len() > 1);
        if kill {
            assert!(Command::new("kill").args(["-9", &sandbox.pid().to_string()]).status().unwrap().success());
        }
        drop(sandbox);
        // The report's end closes when the last process of the job has.
        assert!(stream.read().is_err());
        let gone = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !alive.keys().all(gone) {
            assert!(std::time::Instant::now() < deadline, "processes live on");
            std::thread::yield_now();
        }
    }
}

#[test]
fn case_27_paths_of_the_sandbox_itself_are_refused() {
    if as_user("case_27_paths_of_the_sandbox_itself_are_refused") {
        return;
    }
    let (mut lab, mut sandbox, job) = hostile("int main(void) { return 0; }");
    for path in [
        "/",
        "/proc",
        "/proc/1",
        "/dev",
        "/tmp/x",
        "/.potluck",
        "/.potluck/gens",
        "relative",
        "/a/../tmp",
        "//x",
        "/a/",
    ] {
        let mut job = job.clone();
        job.outputs[0].path = path.as_bytes().to_vec();
        let end = sandbox.complete(&job).unwrap().report.end;
        assert!(matches!(&end, End::NotStarted(why) if why.contains("cannot be written")), "{path}: {end:?}");
    }
    for name in ["..", "a/b", "", "x,upperdir=/"] {
        let mut job = job.clone();
        job.outputs[0].generation = name.as_bytes().to_vec();
        assert!(matches!(sandbox.complete(&job).unwrap().report.end, End::NotStarted(_)), "{name}");
        let mut job = job.clone();
        (job.outputs[0].generation, job.outputs[0].whiteouts) = (b"g1".to_vec(), vec![b"../x".to_vec()]);
        assert!(matches!(sandbox.complete(&job).unwrap().report.end, End::NotStarted(_)));
    }
    let mut missing = lab.job(&["/no/such/program"]);
    missing.program = b"/no/such/program".to_vec();
    let end = sandbox.complete(&missing).unwrap().report.end;
    assert!(
        matches!(&end, End::NotStarted(why) if why.starts_with("/no/such/program could not be executed")),
        "{end:?}"
    );
    // The sandbox has taken no harm.
    expect_success(&sandbox.complete(&job).unwrap());
}
