//! Counts what a job takes of things that the kernel counts per user: they are the owner's too, and the job has his user
//! id. The kernel asks the job's init about each such call (seccomp's user notification), which lets it go on while
//! there is something left for this job. Whoever wants more than a compiler ever does is ended by a limit.
//!
//! What needs no counting: inotify, asynchronous I/O, POSIX timers, keys, System V objects and namespaces, because no
//! call makes them (`calls`); locked memory, message queues and queued signals by limits of the process (`program`);
//! processes by limits of the user namespace (`root`).

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::c_long;
use rustix::event::PollFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use seccompiler::{BpfProgram, SeccompAction};

use crate::filter;
use crate::sys;

/// Buffers of a pipe as it is made, in pages: so much each takes of `pipe-user-pages-soft`.
const PIPE_PAGES: u64 = 16;
/// What jobs may have of it all together, when there is one on each processor: half. Beyond the whole of it every new
/// pipe of the owner holds two pages instead of sixteen.
const PIPES_SHARE: u64 = 2;
/// Pipes that a job may make in its life: a compile makes one to five (measured), a wrapper script some more.
const PIPES_MAX: u64 = 256;
/// The least that a job gets on a machine with very many processors.
const PIPES_MIN: u64 = 8;
/// Descriptors that a job may watch with epoll: Go programs watch each file that they open, at most for a moment.
const WATCHES_MAX: u64 = 4096;
/// Locks on files, of which one takes two hundred bytes of the kernel's memory: gcc takes one for a coverage file.
const LOCKS_MAX: u64 = 256;
/// Signals that a job may send: each takes an entry of the owner's queue while it is blocked. A compile sends one when
/// it is ended by one. Without an information that goes along, so that the limit of queued signals does not hold.
const SIGNALS_MAX: u64 = 256;

/// How many pipes a job may make on a machine with this many processors and this soft limit of pages for one user.
pub fn pipes_max(soft_pages: u64, processors: u64) -> u64 {
    // Zero means that there is no limit.
    if soft_pages == 0 {
        return PIPES_MAX;
    }
    (soft_pages / PIPES_SHARE / PIPE_PAGES / processors.max(1)).clamp(PIPES_MIN, PIPES_MAX)
}

/// What is counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Pipe,
    Watch,
    Lock,
    Signal,
}

/// Every counted call. What is not here never comes to the listener.
fn kind(number: c_long) -> Kind {
    match number {
        libc::SYS_epoll_ctl => Kind::Watch,
        libc::SYS_fcntl => Kind::Lock,
        libc::SYS_kill | libc::SYS_tkill | libc::SYS_tgkill => Kind::Signal,
        _ => Kind::Pipe,
    }
}

/// The program that asks the listener.
pub fn program() -> Result<BpfProgram, String> {
    const LOCKS: &[u64] =
        &[libc::F_SETLK as u64, libc::F_SETLKW as u64, libc::F_OFD_SETLK as u64, libc::F_OFD_SETLKW as u64];
    let mut calls: BTreeMap<c_long, Vec<_>> =
        [libc::SYS_pipe2, libc::SYS_epoll_ctl, libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill]
            .into_iter()
            .map(|number| (number, vec![]))
            .collect();
    #[cfg(target_arch = "x86_64")]
    calls.insert(libc::SYS_pipe, vec![]);
    calls.insert(libc::SYS_fcntl, filter::any_of(1, LOCKS).map_err(filter::sentence)?);
    // The library has no name for this action: another one holds its place.
    let mut program = filter::compile(calls, SeccompAction::Log, SeccompAction::Allow)?;
    for instruction in program.iter_mut().filter(|i| is_return(i.code) && i.k == libc::SECCOMP_RET_LOG) {
        instruction.k = libc::SECCOMP_RET_USER_NOTIF;
    }
    Ok(program)
}

fn is_return(code: u16) -> bool {
    u32::from(code) & 0x07 == libc::BPF_RET
}

/// The two ends by which the listener comes from the program's process to its init.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Applies the program to this process and sends its listener to the init, which is not counted itself: it could not
/// answer while it waits.
pub fn begin(program: &BpfProgram, to_init: &OwnedFd) -> Result<(), String> {
    let sentence = |e: io::Error| format!("counting what belongs to the user: {e}");
    let listener = sys::seccomp_listener(program).map_err(sentence)?;
    let fds = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(to_init, &[IoSlice::new(b"L")], &mut ancillary, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|e| sentence(e.into()))
}

/// Where the questions come from.
enum Source {
    /// The program's process has not sent its listener yet.
    Awaited(OwnedFd),
    /// It has.
    Listener(OwnedFd),
    /// It ended before: there is nothing to count.
    None,
}

/// One job's counts, in its init.
pub struct Counter {
    source: Source,
    pipes: u64,
    watches: u64,
    locks: u64,
    signals: u64,
}

impl Counter {
    /// Nothing has been taken yet; the listener will come by `from_program`.
    pub fn new(from_program: OwnedFd, pipes_max: u64) -> Self {
        let source = Source::Awaited(from_program);
        Self { source, pipes: pipes_max, watches: WATCHES_MAX, locks: LOCKS_MAX, signals: SIGNALS_MAX }
    }

    /// What to poll for reading; None when nothing will come any more.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Awaited(fd) | Source::Listener(fd) => Some(fd.as_fd()),
            Source::None => None,
        }
    }

    /// Takes what has come, given what `fd` is ready for. False when the job wants more than it may have.
    pub fn answer(&mut self, ready: PollFlags) -> bool {
        match &self.source {
            _ if ready.is_empty() => true,
            Source::Awaited(fd) => {
                self.source = receive(fd).map_or(Source::None, Source::Listener);
                true
            }
            // No process is left that could ask, and asking for a question would wait for ever.
            Source::Listener(_) if !ready.contains(PollFlags::IN) => {
                self.source = Source::None;
                true
            }
            Source::Listener(fd) => {
                let question = match sys::seccomp_question(fd) {
                    Ok(question) => question,
                    // Whoever asked has been killed or stopped meanwhile; stopped, it asks again.
                    Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return true,
                    Err(_) => {
                        self.source = Source::None;
                        return true;
                    }
                };
                let left = match kind(question.number) {
                    Kind::Pipe => &mut self.pipes,
                    Kind::Watch => &mut self.watches,
                    Kind::Lock => &mut self.locks,
                    Kind::Signal => &mut self.signals,
                };
                let granted = *left > 0;
                *left = left.saturating_sub(1);
                sys::seccomp_answer(fd, question.id, (!granted).then_some(libc::EMFILE));
                granted
            }
            Source::None => true,
        }
    }
}

fn receive(channel: &OwnedFd) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_on_all_processors_leave_the_owner_half_of_his_pipes() {
        for processors in [1, 2, 4, 8, 16, 32, 64] {
            let pages = pipes_max(16384, processors) * PIPE_PAGES * processors;
            assert!(pages <= 16384 / PIPES_SHARE, "{processors} processors: {pages} pages");
        }
        assert_eq!(pipes_max(16384, 2), 256);
        assert_eq!(pipes_max(16384, 16), 32);
        assert_eq!(pipes_max(16384, 256), PIPES_MIN);
        assert_eq!(pipes_max(0, 16), PIPES_MAX);
    }
}
