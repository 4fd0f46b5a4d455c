//! What a worker signs of a result, and how that is checked: by whom and for whom, what was asked, and what came. The worker
//! hashes contents, which it has at hand; a submitter hashes only those of results that it compares.
//!
//! The state of the inputs is a number of the submitter's: it makes the signature one for this state of its files and no
//! other, and proves nothing about these files to anybody else. So evidence shows others that a worker gave this answer, not
//! that the answer is wrong: they look at its answers to themselves (`model::trust::Accusations`).

use std::fmt;
use std::sync::Arc;

use potluck_model::ids::{Digest, NodeId};
use potluck_wire::pool::{HarvestKind, Harvested, Job, Result, Signed};
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};

use crate::identity::node_of_key;
use crate::membership::Membership;

/// Nothing else that a node signs begins like this.
const DOMAIN: &[u8] = b"potluck result 1\0";

/// Signs with this node's key.
#[derive(Clone)]
pub struct Signer(Arc<Membership>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With the key of this membership, which the keyring may give later.
    pub fn new(membership: Arc<Membership>) -> Self {
        Self(membership)
    }

    /// Puts a signature on what came of a job of `submitter`.
    pub fn sign(&self, submitter: NodeId, asked: Digest, result: &mut Result) {
        let identity = self.0.identity();
        let mut signed = Signed {
            signature: Vec::new(),
            key: identity.public_key().to_vec(),
            epoch: self.0.view().epoch.map(|epoch| epoch.0.to_vec()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at_s: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        signed.signature = identity.sign(&statement(submitter, identity.id(), asked, came(result), &signed));
        result.signed = Some(Box::new(signed));
    }
}

/// Whether `worker` signed this result for `submitter`, as the answer to what was asked.
pub fn is_signed(submitter: NodeId, worker: NodeId, asked: Digest, result: &Result) -> bool {
    let Some(signed) = &result.signed else { return false };
    let Ok(key) = <[u8; ED25519_PUBLIC_KEY_LEN]>::try_from(&signed.key[..]) else { return false };
    if node_of_key(&key) != worker {
        return false;
    }
    let text = statement(submitter, worker, asked, came(result), signed);
    UnparsedPublicKey::new(&ED25519, key).verify(&text, &signed.signature).is_ok()
}

fn statement(submitter: NodeId, worker: NodeId, asked: Digest, came: Digest, signed: &Signed) -> Vec<u8> {
    let mut text = DOMAIN.to_vec();
    [submitter.0, worker.0, asked.0, came.0].iter().for_each(|part| text.extend_from_slice(part));
    text.extend_from_slice(&signed.at_s.to_le_bytes());
    for part in [&signed.epoch[..], signed.version.as_bytes()] {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part);
    }
    text
}

/// Everything that can influence what comes of a job.
pub fn asked(job: &Job) -> Digest {
    let mut hash = Parts::default();
    hash.bytes(&job.toolchain).bytes(&job.program).list(&job.argv).list(&job.env).bytes(&job.cwd);
    hash.number(job.umask.into()).number(job.stack_bytes).number(job.file_bytes);
    hash.number(job.discard_outputs.into()).number(job.inputs).number(job.outputs.len() as u64);
    for dir in &job.outputs {
        hash.bytes(&dir.path).list(&dir.whiteouts);
    }
    hash.end()
}

/// Everything that came, whatever way the contents went and in whatever order they were found. Not what it cost.
pub fn came(result: &Result) -> Digest {
    let mut hash = Parts::default();
    hash.number(result.end as u64).number(result.value as u64).bytes(&result.stdout).bytes(&result.stderr);
    hash.list(&result.faults).list(&result.written).number(result.faults_overflow.into());
    let mut outputs: Vec<&Harvested> = result.outputs.iter().collect();
    outputs.sort_by(|a, b| (a.dir, &a.path).cmp(&(b.dir, &b.path)));
    hash.number(outputs.len() as u64);
    for output in outputs {
        hash.number(output.dir.into()).bytes(&output.path).number(output.kind as u64);
        hash.number(output.mode.into()).number(output.size).bytes(&output.digest);
    }
    hash.end()
}

/// Whether the contents that came are those that the result names.
pub fn has_contents(result: &Result, contents: &[Option<Digest>]) -> bool {
    let is_file = |output: &&Harvested| output.kind == HarvestKind::HarvestFile as i32;
    result.outputs.len() == contents.len()
        && result
            .outputs
            .iter()
            .zip(contents)
            .filter(|(output, _)| is_file(output))
            .all(|(output, content)| content.is_some_and(|content| output.digest == content.0))
}

/// Hashes parts so that no two lists of parts are the same text.
#[derive(Default)]
struct Parts(blake3::Hasher);

impl Parts {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    fn list(&mut self, list: &[Vec<u8>]) -> &mut Self {
        self.number(list.len() as u64);
        for bytes in list {
            self.bytes(bytes);
        }
        self
    }

    fn end(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use potluck_wire::pool::OutputDir;

    fn job() -> Job {
        Job {
            toolchain: vec![1; 32],
            program: b"/usr/bin/gcc".to_vec(),
            argv: [&b"gcc"[..], b"-c", b"a.c"].map(<[u8]>::to_vec).to_vec(),
            env: vec![b"LANG=C".to_vec()],
            cwd: b"/home/lab".to_vec(),
            umask: 0o22,
            inputs: 7,
            outputs: vec![OutputDir { path: b"/home/lab".to_vec(), whiteouts: vec![b"a.o".to_vec()] }],
            ..Job::default()
        }
    }

    fn file(path: &str, content: &[u8]) -> Harvested {
        Harvested {
            path: path.as_bytes().to_vec(),
            kind: HarvestKind::HarvestFile as i32,
            mode: 0o644,
            size: content.len() as u64,
            digest: Digest::of(content).0.to_vec(),
            content: Some(content.to_vec()),
            raw: true,
            ..Harvested::default()
        }
    }

    fn result() -> Result {
        Result {
            end: 1,
            stderr: b"warning".to_vec(),
            outputs: vec![file("a.o", b"object"), file("a.d", b"list")],
            ..Result::default()
        }
    }

    #[test]
    fn a_signature_holds_for_what_was_asked_and_what_came_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        let worker = identity.id();
        let signer = Signer::new(Arc::new(Membership::open(Arc::new(identity), dir.path()).unwrap()));
        let submitter = NodeId([9; 32]);
        let mut signed = result();
        signer.sign(submitter, asked(&job()), &mut signed);
        assert!(is_signed(submitter, worker, asked(&job()), &signed));
        assert!(!is_signed(NodeId([8; 32]), worker, asked(&job()), &signed), "for another submitter");
        assert!(!is_signed(submitter, submitter, asked(&job()), &signed), "by another worker");
        // How it travelled, in which order, and what it cost are not part of it.
        let mut same = signed.clone();
        same.outputs.reverse();
        same.outputs[0].content = None;
        (same.id, same.cpu_us, same.outputs[1].transfer) = (77, 5, 9);
        assert!(is_signed(submitter, worker, asked(&job()), &same));
        type Change = fn(&mut Result);
        let changes: [Change; 8] = [
            |r| r.value = 1,
            |r| r.stdout.push(b'x'),
            |r| r.stderr.clear(),
            |r| r.outputs[0].digest[0] ^= 1,
            |r| r.outputs[0].mode = 0o755,
            |r| drop(r.outputs.pop()),
            |r| r.signed.as_mut().unwrap().at_s += 1,
            |r| r.signed.as_mut().unwrap().version.push('1'),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut other = signed.clone();
            change(&mut other);
            assert!(!is_signed(submitter, worker, asked(&job()), &other), "change {n}");
        }
        type Ask = fn(&mut Job);
        let asks: [Ask; 6] = [
            |j| j.argv.push(b"-O2".to_vec()),
            |j| j.env.clear(),
            |j| j.cwd.push(b'x'),
            |j| j.umask = 0o77,
            |j| j.inputs = 8,
            |j| j.outputs[0].whiteouts.clear(),
        ];
        for (n, ask) in asks.into_iter().enumerate() {
            let mut other = job();
            ask(&mut other);
            assert!(!is_signed(submitter, worker, asked(&other), &signed), "question {n}");
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let split =
            |argv: &[&str]| Job { argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(), ..Job::default() };
        assert_ne!(asked(&split(&["ab", "c"])), asked(&split(&["a", "bc"])));
        let env = Job { env: vec![b"a".to_vec()], ..Job::default() };
        assert_ne!(asked(&env), asked(&split(&["a"])));
    }

    #[test]
    fn contents_must_be_those_that_were_signed() {
        let result = result();
        let right: Vec<_> = [&b"object"[..], b"list"].map(|c| Some(Digest::of(c))).to_vec();
        assert!(has_contents(&result, &right));
        assert!(!has_contents(&result, &[right[0], None]));
        assert!(!has_contents(&result, &[right[1], right[0]]));
        assert!(!has_contents(&result, &right[..1]));
    }
}
