//! What is the owner's: what the kernel counts for his user id, which is the job's too, and who he is.

mod lab;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lab::hostile::{INCLUDES, hostile, run};
use lab::{Lab, as_user, build_c, expect_success};
use potluck_runner::client::Sandbox;
use potluck_runner::protocol::{End, LimitKind};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Declarations that both programs need.
const KERNEL: &str = r#"
#include <linux/aio_abi.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <time.h>
"#;

/// Takes all it can of the thing that it is named, keeps it, and says by its name that it has.
const TAKER: &str = r#"
static void block(void) { sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0); }
int main(int argc, char **argv) {
    const char *what = argv[1];
    long most = argc > 2 ? atol(argv[2]) : 1000000, taken = 0;
    if (!strcmp(what, "inotify")) while (taken < most && inotify_init() >= 0) taken++;
    if (!strcmp(what, "aio")) for (;;) {
        aio_context_t context = 0; if (syscall(SYS_io_setup, 1024, &context)) break; taken++; }
    if (!strcmp(what, "timers")) for (;;) {
        timer_t timer; if (timer_create(CLOCK_MONOTONIC, 0, &timer)) break; taken++; }
    if (!strcmp(what, "queue")) {
        block();
        union sigval none = {0};
        while (!sigqueue(getpid(), SIGRTMAX, none)) taken++;
        /* kill never fails for want of room: what it sends then carries no information. */
        for (long n = 0; n < most && !kill(getpid(), SIGRTMAX - 1); n++) taken++;
    }
    /* Several processes, because one may open a thousand files only. */
    if (!strcmp(what, "pipes")) for (; taken < most; ) {
        if (taken % 400 == 0 && fork() > 0) { for (;;) pause(); }
        int ends[2]; if (pipe(ends)) break;
        fcntl(ends[0], F_SETPIPE_SZ, 1 << 20); taken++; }
    if (!strcmp(what, "fifos")) for (; taken < most; taken++) {
        char name[32]; sprintf(name, "f%ld", taken);
        if (mkfifo(name, 0600) || open(name, O_RDWR) < 0) break; }
    if (!strcmp(what, "watches")) {
        int set = epoll_create1(0), ends[2]; struct epoll_event event = {.events = EPOLLIN};
        for (; pipe(ends) == 0; taken++) if (epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event)) break; }
    if (!strcmp(what, "locks")) for (int f = creat("locked", 0600); taken < most; taken++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2 * taken, .l_len = 1};
        if (fcntl(f, F_SETLK, &lock)) break; }
    if (!strcmp(what, "huge")) while (mmap(0, 2 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0) != MAP_FAILED) taken++;
    if (!strcmp(what, "forks")) while (taken < most) {
        pid_t pid = fork(); if (pid < 0) break; if (!pid) for (;;) pause(); taken++; }
    prctl(PR_SET_NAME, "has-taken");
    for (;;) pause();
}
"#;

/// What the owner's own programs do all the time. Prints what they cannot.
const OWNER: &str = r#"
int main(void) {
    for (int n = 0; n < 8; n++) if (inotify_init() < 0) { perror("inotify_init"); break; }
    aio_context_t context = 0; if (syscall(SYS_io_setup, 1024, &context)) perror("io_setup");
    sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0);
    for (int n = 0; n < 50; n++) { timer_t timer; if (timer_create(CLOCK_MONOTONIC, 0, &timer)) { perror("timer_create"); break; } }
    union sigval none = {0};
    for (int n = 0; n < 200; n++) if (sigqueue(getpid(), SIGRTMAX, none)) { perror("sigqueue"); break; }
    for (int n = 0; n < 100; n++) {
        int ends[2]; if (pipe(ends)) { perror("pipe"); break; }
        if (fcntl(ends[0], F_GETPIPE_SZ) != 65536) { printf("a pipe holds %d\n", fcntl(ends[0], F_GETPIPE_SZ)); break; } }
    int set = epoll_create1(0), ends[2]; struct epoll_event event = {.events = EPOLLIN};
    if (pipe(ends) || epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event)) perror("epoll_ctl");
    if (fcntl(ends[0], F_SETPIPE_SZ, 1 << 20) < 0) perror("F_SETPIPE_SZ");
    for (int n = 0; n < 100; n++) { pid_t pid = fork(); if (pid < 0) { perror("fork"); break; } if (!pid) pause(); }
    fflush(stdout);
    kill(0, SIGKILL);
}
"#;

/// Whether a process of a sandbox has given itself this name.
fn is_named(sandbox: &Sandbox, name: &str) -> bool {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent =
        |pid: u32| stat(pid).rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2)?.parse::<u32>().ok());
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).contains(&format!("({name})"))).any(|mut pid| {
        while let Some(above) = parent(pid).filter(|above| *above > 1) {
            if above == sandbox.pid() {
                return true;
            }
            pid = above;
        }
        false
    })
}

/// What is counted per user is counted for all tests: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

/// Limits of this user that a job can reach within the test, set as a login would.
fn small_limits() {
    for (resource, most) in [(Resource::Nproc, 1500), (Resource::Sigpending, 1000)] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
    }
}

/// Runs the owner's program; returns what it complains of.
fn owner(lab: &Lab) -> String {
    // In a process group of its own, which it kills in the end.
    let out = Command::new("setsid").arg("--wait").arg(lab.project.join("owner")).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// A job has taken all it gets of something: the owner, outside, has as much as before.
fn owner_has_enough_beside(what: &[&str]) {
    small_limits();
    let (mut lab, mut sandbox, _) = hostile(&format!("{KERNEL}{TAKER}"));
    build_c(&lab, "owner", &format!("{INCLUDES}{KERNEL}{OWNER}"));
    assert_eq!(owner(&lab), "", "the owner has enough before");
    let program = lab.project.join("main").display().to_string();
    let mut job = lab.job(&[&[program.as_str()], what].concat());
    // What the node asks for is one wall; here it is the other one that shall hold.
    job.limits.processes = 0;
    let stream = sandbox.run(&job).unwrap();
    // Jobs have only CPU that nobody else wants.
    let deadline = Instant::now() + Duration::from_secs(400);
    while !is_named(&sandbox, "has-taken") {
        assert!(Instant::now() < deadline, "{what:?} never took what it can");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(owner(&lab), "", "beside {what:?}");
    drop(sandbox);
    drop(stream);
}

#[test]
fn the_owner_has_his_inotify_instances() {
    let _alone = alone();
    if !as_user("the_owner_has_his_inotify_instances") {
        owner_has_enough_beside(&["inotify"]);
    }
}

#[test]
fn the_owner_has_his_asynchronous_input_and_output() {
    let _alone = alone();
    if !as_user("the_owner_has_his_asynchronous_input_and_output") {
        owner_has_enough_beside(&["aio"]);
    }
}

#[test]
fn the_owner_has_his_timers() {
    let _alone = alone();
    if !as_user("the_owner_has_his_timers") {
        owner_has_enough_beside(&["timers"]);
    }
}

#[test]
fn the_owner_has_his_queued_signals() {
    let _alone = alone();
    if !as_user("the_owner_has_his_queued_signals") {
        owner_has_enough_beside(&["queue", "200"]);
    }
}

#[test]
fn the_owner_has_his_pipes() {
    let _alone = alone();
    if !as_user("the_owner_has_his_pipes") {
        // Not more than a job may make on a machine with two processors; with more there would be more jobs.
        owner_has_enough_beside(&["pipes", "200"]);
        owner_has_enough_beside(&["fifos"]);
    }
}

#[test]
fn the_owner_has_his_processes() {
    let _alone = alone();
    if !as_user("the_owner_has_his_processes") {
        owner_has_enough_beside(&["forks", "1400"]);
    }
}

#[test]
fn who_takes_more_than_any_compiler_is_ended_by_a_limit() {
    let _alone = alone();
    if as_user("who_takes_more_than_any_compiler_is_ended_by_a_limit") {
        return;
    }
    let (mut lab, mut sandbox, _) = hostile(&format!("{KERNEL}{TAKER}"));
    let program = lab.project.join("main").display().to_string();
    for what in ["pipes", "watches", "locks", "queue"] {
        let job = lab.job(&[&program, what]);
        let done = sandbox.complete(&job).unwrap();
        assert_eq!(done.report.end, End::Limit(LimitKind::KernelObjects), "{what}");
    }
    // What a compile uses of them goes on.
    let some = "int main(void) { for (int n = 0; n < 5; n++) { int ends[2]; if (pipe(ends)) return 1;
            struct flock lock = {.l_type = F_WRLCK}; if (fcntl(creat(\"x\", 0600), F_SETLKW, &lock)) return 2;
            signal(SIGTERM, SIG_IGN); if (kill(getpid(), SIGTERM)) return 3; } return 0; }";
    expect_success(&run(some));
}

#[test]
fn nothing_in_a_job_shows_whose_machine_it_is() {
    let _alone = alone();
    if as_user("nothing_in_a_job_shows_whose_machine_it_is") {
        return;
    }
    let (mut lab, mut sandbox, _) = hostile(
        r#"#include <ftw.h>
        #include <sys/utsname.h>
        static char **words; static int files;
        static void look(const char *where, const char *text, ssize_t length) {
            for (char **word = words; *word; word++)
                if (length > 0 && memmem(text, length, *word, strlen(*word))) { bad = 1; printf("%s shows %s\n", where, *word); }
        }
        static int visit(const char *path, const struct stat *s, int kind, struct FTW *at) {
            static char text[1 << 20];
            if (kind == FTW_SL) look(path, text, readlink(path, text, sizeof text));
            if (kind != FTW_F || !S_ISREG(s->st_mode) || strstr(path, "/cmdline")) return 0;
            int file = open(path, O_RDONLY | O_NONBLOCK);
            if (file < 0) return 0;
            look(path, text, read(file, text, sizeof text)); close(file); files++;
            return 0;
        }
        int main(int argc, char **argv) {
            const char *machine = argv[1];
            words = argv + 2;
            nftw("/proc", visit, 32, FTW_PHYS); nftw("/dev", visit, 32, FTW_PHYS);
            /* Also what belongs to the others of the job. */
            if (!fork()) { nftw("/proc", visit, 32, FTW_PHYS); exit(bad); }
            int status; wait(&status);
            struct utsname names; uname(&names);
            if (!strcmp(names.nodename, machine)) { bad = 1; puts("uname shows the machine's name"); }
            if (files < 40) { printf("only %d files\n", files); return 1; }
            return bad || status;
        }"#,
    );
    let at = |name: &str| lab.project.parent().unwrap().join(name).display().to_string();
    let machine = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let folder = lab.project.parent().unwrap().file_name().unwrap().to_owned();
    // The project's own path is the submitter's, and a job knows it.
    let (mirror, generations, program) = (at("root"), at("gens"), at("project/main"));
    let below = format!("{}/root", String::from_utf8_lossy(folder.as_bytes()));
    let owner = rustix::process::geteuid().as_raw().to_string();
    let (uid, map) = (format!("uid={owner}"), format!(" {owner} "));
    let job = lab.job(&[&program, &machine, &mirror, &generations, &below, &uid, &map]);
    let done = sandbox.complete(&job).unwrap();
    assert_eq!(String::from_utf8_lossy(&done.report.stdout), "");
    expect_success(&done);
}
