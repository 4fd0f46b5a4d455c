//! The processes above a wrapper, from /proc. Read once for each process group and directory of a build, never once a job.

use std::os::fd::OwnedFd;

use potluck_model::builds::Root;
use potluck_model::builds::root::{Ancestor, root_of};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Steps upwards: make in make in a package builder in a container is ten.
const DEPTH_MAX: usize = 32;

/// Process group and session of a wrapper, two system calls that read no file; 0 where its leader is outside this pid
/// namespace, as with a program that was put into a container. None: it is gone.
pub fn group_of(pid: u32) -> Option<(u32, u32)> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    // SAFETY: neither takes a pointer. rustix takes their 0 for impossible.
    let (group, session) = unsafe { (libc::getpgid(pid), libc::getsid(pid)) };
    Some((u32::try_from(group).ok()?, u32::try_from(session).ok()?))
}

/// What a wrapper's build began with, if that runs, and a descriptor that tells of its end. A process that ended between
/// the two looks is none.
pub fn find(wrapper: u32) -> Option<(Root, Option<OwnedFd>)> {
    let mut pid = stat(wrapper)?.0;
    let mut chain = Vec::new();
    while pid > 0 && chain.len() < DEPTH_MAX {
        let Some((parent, ancestor)) = stat(pid) else { break };
        chain.push(ancestor);
        pid = parent;
    }
    let root = root_of(&chain)?;
    let fd = pidfd_open(Pid::from_raw(i32::try_from(root.pid).ok()?)?, PidfdFlags::NONBLOCK);
    let same = stat(root.pid).is_some_and(|(_, now)| now.root == root);
    match fd {
        Ok(fd) => same.then_some((root, Some(fd))),
        // No descriptors left, or a kernel before 5.3: silence ends the build.
        Err(_) => same.then_some((root, None)),
    }
}

/// Parent, and the process as an ancestor.
fn stat(pid: u32) -> Option<(u32, Ancestor)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let name = head.split_once(" (")?.1.to_owned();
    // proc(5): state, parent, group, session are the fields 3 to 6, the start is the 22nd.
    let fields: Vec<&str> = tail.split_ascii_whitespace().take(20).collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let root = Root { pid, started: number(19)? };
    // A zombie has ended.
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    Some((number(1)? as u32, Ancestor { root, session: number(3)? as u32, name }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_with_its_parent_and_its_end_is_told() {
        let mut command = Command::new("sh");
        // A session of its own; the last command is not made the shell's own process.
        // SAFETY: setsid is a system call and nothing else.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
        let script = "(exec sh -c 'echo $$; read x; exit 0'); exit 0";
        let mut shell = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
        let inner: u32 = line.trim().parse().unwrap();
        assert_eq!(group_of(inner), Some((shell.id(), shell.id())));
        // Directly below the session's leader: typed into a shell.
        assert_eq!(find(inner).map(|f| f.0), None);
        let own = stat(inner).unwrap();
        assert_eq!((own.0, own.1.session, own.1.name.as_str()), (shell.id(), shell.id(), "sh"));
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(stat(inner).is_none() && group_of(inner).is_none());
    }

    #[test]
    fn a_program_that_was_put_into_a_container_has_a_group_without_a_number() {
        let test = std::env::current_exe().unwrap();
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--pid", "--fork"]).arg(test);
        let inner = "builds::root::tests::inside_a_pid_namespace_whose_leader_is_outside";
        let output = inside.args(["--ignored", "--exact", inner]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    #[ignore = "run by the test above, in a namespace"]
    fn inside_a_pid_namespace_whose_leader_is_outside() {
        assert_eq!(std::process::id(), 1);
        assert_eq!(group_of(1), Some((0, 0)));
    }
}
