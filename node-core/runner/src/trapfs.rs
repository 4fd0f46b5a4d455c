//! The trap: a file system of the FUSE protocol that records which poisons a job looks up and answers ELOOP.
//! Pure: one request in, at most one reply out; the sandbox's loop does the reading and writing.
//!
//! Layout: the root holds one directory `j<job>` per running job, and looking up a decimal number below it is a touch.
//! Nothing is cached: an error reply is never remembered by the kernel (only ENOENT could be, and only on request).

use std::collections::{HashMap, HashSet};

/// Largest request: header and the longest write that is allowed below (none is ever served).
pub const REQUEST_BYTES_MAX: usize = 8192 + 4096;
/// Faults that are kept per job, as `FAULTS_PER_JOB_MAX` of the model: beyond it the job runs locally anyway.
const FAULTS_MAX: usize = 4096;
/// Node id of the root, fixed by the protocol.
const ROOT: u64 = 1;
/// `struct fuse_in_header`
const IN_HEADER: usize = 40;
/// Attributes of directories never change: a year.
const ATTR_VALID_S: u64 = 365 * 24 * 3600;

/// Operation numbers of the FUSE protocol (linux/fuse.h).
mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const STATFS: u32 = 17;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const ACCESS: u32 = 34;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// What a job touched.
#[derive(Default)]
pub struct Faults {
    /// In order of first touch.
    pub ids: Vec<u64>,
    /// More were touched than are listed.
    pub overflow: bool,
    seen: HashSet<u64>,
}

impl Faults {
    fn touch(&mut self, id: u64) {
        if self.seen.contains(&id) {
            return;
        }
        if self.ids.len() == FAULTS_MAX {
            self.overflow = true;
            return;
        }
        self.seen.insert(id);
        self.ids.push(id);
    }
}

/// The file system's state.
pub struct TrapFs {
    uid: u32,
    gid: u32,
    next_node: u64,
    nodes: HashMap<u64, u64>,
    jobs: HashMap<u64, (u64, Faults)>,
}

impl TrapFs {
    /// An empty trap whose directories belong to `uid` and `gid` as seen in its user namespace.
    pub fn new(uid: u32, gid: u32) -> Self {
        Self { uid, gid, next_node: ROOT + 1, nodes: HashMap::new(), jobs: HashMap::new() }
    }

    /// Makes a job's directory. Node ids are never used twice, so a late lookup cannot reach another job.
    pub fn add(&mut self, job: u64) {
        self.nodes.insert(self.next_node, job);
        self.jobs.insert(job, (self.next_node, Faults::default()));
        self.next_node += 1;
    }

    /// Removes it and says what was touched.
    pub fn remove(&mut self, job: u64) -> Faults {
        let Some((node, faults)) = self.jobs.remove(&job) else { return Faults::default() };
        self.nodes.remove(&node);
        faults
    }

    /// Answers one request; `None` when the protocol wants no answer or the request is not one.
    pub fn answer(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let (header, body) = request.split_at_checked(IN_HEADER)?;
        let (opcode, unique, node) = (u32_at(header, 4), u64_at(header, 8), u64_at(header, 16));
        let outcome = match opcode {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return None,
            op::INIT => Ok(init()),
            op::LOOKUP => self.lookup(node, body),
            op::GETATTR if self.exists(node) => {
                let mut reply = Reply::default();
                reply.u64(ATTR_VALID_S).u32(0).u32(0);
                self.attributes(&mut reply, node);
                Ok(reply)
            }
            op::GETATTR => Err(libc::ENOENT),
            op::STATFS => {
                let mut reply = Reply::default();
                // struct fuse_kstatfs: five counts, then block, name and fragment size, padding and spare words.
                (0..5).for_each(|_| _ = reply.u64(0));
                reply.u32(4096).u32(255).u32(4096);
                (0..7).for_each(|_| _ = reply.u32(0));
                Ok(reply)
            }
            op::OPENDIR => {
                let mut reply = Reply::default();
                reply.u64(0).u32(0).u32(0);
                Ok(reply)
            }
            // An empty listing: names in the trap are found by looking them up only.
            op::READDIR | op::RELEASEDIR | op::ACCESS | op::DESTROY => Ok(Reply::default()),
            _ => Err(libc::ENOSYS),
        };
        let (error, payload) = match outcome {
            Ok(reply) => (0, reply.0),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut answer = Vec::with_capacity(16 + payload.len());
        answer.extend_from_slice(&(16 + payload.len() as u32).to_ne_bytes());
        answer.extend_from_slice(&error.to_ne_bytes());
        answer.extend_from_slice(&unique.to_ne_bytes());
        answer.extend_from_slice(&payload);
        Some(answer)
    }

    fn exists(&self, node: u64) -> bool {
        node == ROOT || self.nodes.contains_key(&node)
    }

    fn lookup(&mut self, parent: u64, body: &[u8]) -> Result<Reply, i32> {
        let name = body.split(|b| *b == 0).next().and_then(|n| std::str::from_utf8(n).ok()).ok_or(libc::ENOENT)?;
        if parent == ROOT {
            let job: u64 = name.strip_prefix('j').and_then(|n| n.parse().ok()).ok_or(libc::ENOENT)?;
            let node = self.jobs.get(&job).ok_or(libc::ENOENT)?.0;
            let mut reply = Reply::default();
            // Node id, generation, the name is never cached, the attributes are.
            reply.u64(node).u64(0).u64(0).u64(ATTR_VALID_S).u32(0).u32(0);
            self.attributes(&mut reply, node);
            return Ok(reply);
        }
        let job = self.nodes.get(&parent).ok_or(libc::ENOENT)?;
        let id: u64 = name.parse().map_err(|_| libc::ENOENT)?;
        self.jobs.get_mut(job).ok_or(libc::ENOENT)?.1.touch(id);
        Err(libc::ELOOP)
    }

    /// `struct fuse_attr` of a directory that may be searched.
    fn attributes(&self, reply: &mut Reply, node: u64) {
        reply.u64(node);
        (0..5).for_each(|_| _ = reply.u64(0));
        (0..3).for_each(|_| _ = reply.u32(0));
        reply.u32(libc::S_IFDIR | 0o555).u32(2).u32(self.uid).u32(self.gid).u32(0).u32(4096).u32(0);
    }
}

/// `struct fuse_init_out` of protocol 7.31: no abilities are asked for.
fn init() -> Reply {
    let mut reply = Reply::default();
    reply.u32(7).u32(31).u32(0).u32(0);
    // max_background and congestion_threshold share one word each half.
    reply.u32(16 | 12 << 16).u32(4096).u32(1);
    (0..9).for_each(|_| _ = reply.u32(0));
    reply
}

#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("the header is 40 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("the header is 40 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(trap: &mut TrapFs, opcode: u32, node: u64, body: &[u8]) -> Option<(i32, Vec<u8>)> {
        let mut request = Vec::new();
        request.extend_from_slice(&(40 + body.len() as u32).to_ne_bytes());
        request.extend_from_slice(&opcode.to_ne_bytes());
        request.extend_from_slice(&77u64.to_ne_bytes());
        request.extend_from_slice(&node.to_ne_bytes());
        request.resize(40, 0);
        request.extend_from_slice(body);
        let answer = trap.answer(&request)?;
        assert_eq!(u32_at(&answer, 0) as usize, answer.len());
        assert_eq!(u64_at(&answer, 8), 77);
        Some((u32_at(&answer, 4) as i32, answer[16..].to_vec()))
    }

    #[test]
    fn a_touch_is_recorded_once_for_its_job_and_answers_eloop() {
        let mut trap = TrapFs::new(1000, 1000);
        trap.add(5);
        trap.add(6);
        let (error, entry) = ask(&mut trap, op::LOOKUP, ROOT, b"j5\0").unwrap();
        assert_eq!((error, entry.len()), (0, 128));
        let node = u64_at(&entry, 0);
        for name in ["9\0", "8\0", "9\0"] {
            assert_eq!(ask(&mut trap, op::LOOKUP, node, name.as_bytes()).unwrap().0, -libc::ELOOP);
        }
        assert_eq!(ask(&mut trap, op::LOOKUP, node, b"x\0").unwrap().0, -libc::ENOENT);
        assert_eq!(trap.remove(5).ids, [9, 8]);
        assert!(trap.remove(6).ids.is_empty());
        assert_eq!(ask(&mut trap, op::LOOKUP, node, b"9\0").unwrap().0, -libc::ENOENT);
    }

    #[test]
    fn faults_are_bounded() {
        let mut faults = Faults::default();
        (0..5000).for_each(|id| faults.touch(id));
        assert!(faults.overflow);
        assert_eq!(faults.ids.len(), FAULTS_MAX);
    }

    #[test]
    fn replies_have_the_sizes_of_the_protocol() {
        let mut trap = TrapFs::new(1, 1);
        assert_eq!(ask(&mut trap, op::INIT, 0, &[]).unwrap().1.len(), 64);
        assert_eq!(ask(&mut trap, op::GETATTR, ROOT, &[]).unwrap().1.len(), 104);
        assert_eq!(ask(&mut trap, op::STATFS, ROOT, &[]).unwrap().1.len(), 80);
        assert_eq!(ask(&mut trap, op::OPENDIR, ROOT, &[]).unwrap().1.len(), 16);
        assert!(ask(&mut trap, op::FORGET, ROOT, &[]).is_none());
        assert_eq!(ask(&mut trap, 9, ROOT, &[]).unwrap().0, -libc::ENOSYS);
        assert!(trap.answer(b"short").is_none());
    }
}
