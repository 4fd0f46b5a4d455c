//! Programs that no compiler is, in a sandbox of their own.

use potluck_runner::client::{Finished, Sandbox};
use potluck_runner::protocol::Job;

use super::Lab;

/// For every program below.
pub const INCLUDES: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
/* Says which attempt succeeded or failed with another error than it must. */
static int bad;
#define MUST(call, error) do { errno = 0; long r = (long)(call); if (r != -1 || errno != (error)) { \
    bad = 1; printf("%s: %ld, %s\n", #call, r, strerror(errno)); } } while (0)
"#;

/// A sandbox with a program of this source in it, and a job that runs it.
pub fn hostile(source: &str) -> (Lab, Sandbox, Job) {
    let mut lab = Lab::new();
    super::build_c(&lab, "main", &format!("{INCLUDES}{source}"));
    lab.need(&lab.project.join("main"));
    let sandbox = lab.sandbox();
    let program = lab.project.join("main").display().to_string();
    let job = lab.job(&[&program]);
    (lab, sandbox, job)
}

/// Runs such a job to its end.
pub fn run(source: &str) -> Finished {
    let (_lab, mut sandbox, job) = hostile(source);
    sandbox.complete(&job).unwrap()
}

/// The program's own checks must all have passed.
pub fn expect_held(source: &str) {
    let done = run(source);
    assert_eq!(String::from_utf8_lossy(&done.report.stdout), "");
    super::expect_success(&done);
}
