//! Kernel change events of the known directories. Only file systems on which every change of this machine is
//! reported are watched; network and FUSE file systems are not.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{DirId, Kind, Name, Tree};
use crate::bytes;

pub(super) struct Watches {
    inotify: Option<Inotify>,
    dirs: HashMap<WatchDescriptor, DirId>,
    by_dir: HashMap<DirId, WatchDescriptor>,
    buffer: Vec<u8>,
    /// `/proc/self/mountinfo`: polling it tells of every mount and unmount, which no watch does.
    mounts: Option<File>,
}

/// File systems whose changes all pass through this kernel (statfs magic numbers of linux/magic.h).
const WATCHABLE: &[i64] = &[
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // zfs
];

/// `struct inotify_event` without its name, and with the longest (inotify(7)).
const EVENT_BYTES: usize = 16;
const EVENT_BYTES_MAX: usize = EVENT_BYTES + 256;

impl Watches {
    pub(super) fn new() -> Self {
        let inotify = Inotify::init().ok();
        Self {
            inotify,
            dirs: HashMap::new(),
            by_dir: HashMap::new(),
            buffer: vec![0; 64 << 10],
            mounts: File::open("/proc/self/mountinfo").ok(),
        }
    }

    /// Whether a mount that hides a watched directory would be noticed.
    pub(super) fn sees_mounts(&self) -> bool {
        self.mounts.is_some()
    }

    /// Whether something was mounted or unmounted since the last call.
    pub(super) fn mounts_changed(&self) -> bool {
        let Some(mounts) = &self.mounts else { return false };
        let mut fds = [PollFd::new(mounts, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An error of poll itself says nothing about mounts: better to look once too often.
        poll(&mut fds, Some(&now)).is_err() || !fds[0].revents().is_empty()
    }

    /// Watches `path`; false if its listing and files must be checked by stat.
    pub(super) fn add(&mut self, path: &Path, dir: DirId) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let Ok(fs) = rustix::fs::statfs(path) else { return false };
        if !WATCHABLE.contains(&fs.f_type) {
            return false;
        }
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW;
        match inotify.watches().add(path, mask) {
            // The same directory by another path (a bind mount): its events belong to the first one.
            Ok(descriptor) if self.dirs.get(&descriptor).is_some_and(|&first| first != dir) => false,
            Ok(descriptor) => {
                self.dirs.insert(descriptor.clone(), dir);
                self.by_dir.insert(dir, descriptor);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn remove(&mut self, dir: DirId) {
        if let Some(descriptor) = self.by_dir.remove(&dir) {
            self.dirs.remove(&descriptor);
            if let Some(inotify) = &self.inotify {
                // Fails when the directory is gone: then the kernel has removed it.
                let _ = inotify.watches().remove(descriptor);
            }
        }
    }
}

enum Event {
    Name(DirId, Name),
    Content(DirId, Name),
    Gone(DirId),
    /// The directory's own attributes: who may look up names below it may have changed.
    Attributes,
    Overflow,
}

impl Tree {
    pub(super) fn drain_events(&mut self) {
        self.drained_from = self.log.changes.len();
        loop {
            let mut events = Vec::new();
            let Some(inotify) = &mut self.watch.inotify else { return };
            let Ok(read) = inotify.read_events(&mut self.watch.buffer) else { return };
            let mut taken = 0;
            for event in read {
                // A name ends with a zero and is filled up to a multiple of the event's size.
                taken += EVENT_BYTES + event.name.map_or(0, |name| (name.len() + 1).next_multiple_of(EVENT_BYTES));
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    events.push(Event::Overflow);
                    continue;
                }
                let Some(&dir) = self.watch.dirs.get(&event.wd) else { continue };
                let name = event.name.map(|n| Name::from(std::os::unix::ffi::OsStrExt::as_bytes(n)));
                let structural = EventMask::CREATE | EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO;
                match name {
                    Some(name) if event.mask.intersects(structural) => events.push(Event::Name(dir, name)),
                    Some(name) => events.push(Event::Content(dir, name)),
                    None if event.mask.intersects(
                        EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED,
                    ) =>
                    {
                        events.push(Event::Gone(dir))
                    }
                    None if event.mask.contains(EventMask::ATTRIB) => events.push(Event::Attributes),
                    None => {}
                }
            }
            self.counts.events += events.len() as u64;
            for event in events {
                self.take_event(event);
            }
            // The kernel gives as many as fit: with room for another one left there was none.
            if taken + 2 * EVENT_BYTES_MAX < self.watch.buffer.len() {
                return;
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Content(dir, name) => self.name_touched(dir, &name),
            Event::Name(dir, name) => {
                if !self.dirs[dir as usize].loaded {
                    return;
                }
                let kind = self.kind_now(dir, &name);
                self.name_is(dir, name, kind);
            }
            Event::Gone(dir) => self.unload(dir),
            Event::Attributes => self.doubt += 1,
            Event::Overflow => {
                self.counts.overflows += 1;
                for dir in 0..self.dirs.len() as DirId {
                    self.unload_one(dir);
                }
                self.epoch += 1;
                self.touched += 1;
            }
        }
    }

    /// Content or attributes of a known name may have changed.
    pub(super) fn name_touched(&mut self, dir: DirId, name: &[u8]) {
        let Some(ids) = self.dirs[dir as usize].ids.get(name).copied() else { return };
        if let Some(file) = ids.file {
            let file = &mut self.files[file as usize];
            file.dirty = true;
            if file.version == 0 {
                return;
            }
            // A file may be dirty from the start (read just after it was written), and followers may already have taken
            // in the last entry of the log: only what this very draining has entered need not be said twice.
            let new = &self.log.changes[self.drained_from.min(self.log.changes.len())..];
            if new.last().is_none_or(|(d, n)| *d != dir || n[..] != *name) {
                self.touched += 1;
                self.log.changes.push((dir, name.into()));
            }
        }
    }

    /// What the name is at this moment.
    pub(super) fn kind_now(&mut self, dir: DirId, name: &[u8]) -> Option<Kind> {
        self.counts.stats += 1;
        let path = self.dirs[dir as usize].path.join(bytes::os(name));
        let stat = self.root.lstat(&path).ok()?;
        Some(super::listing::kind_of_mode(stat.st_mode))
    }
}
