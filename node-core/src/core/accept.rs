//! What of a worker's result is taken: the files that this command makes, under the names, with the modes and in the form
//! that it makes them, and nothing else. Nothing is unpacked before its name is known to be wanted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use potluck_model::ids::{JobId, NodeId};
use potluck_model::limits::JobLimits;
use potluck_model::plan::{Loose, Manner, Role, StopAt};
use potluck_model::reason::Reason;
use potluck_model::{message, object};
use potluck_wire::pool::{self, HarvestKind, Harvested};

use super::Core;
use super::by_products::{loose_dirs, physical_output};
use super::job::Job;
use super::submit::Ask;
use crate::core_content::inline;
use crate::outputs::{self, Change, Folders};
use crate::tree::Tree;
use crate::{bytes, roots};

/// Permission bits with which compilers make files; the caller's umask takes some away.
const NEW_FILE_MODE: u32 = 0o666;

/// Why a result is not taken.
pub(super) enum Unfit {
    /// No honest worker sends it.
    Lie(String),
    /// An honest one may; the compile runs here for this reason.
    Here(Reason, String),
}

fn lie<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit::Lie(why.into()))
}

/// A file that the command makes.
struct Expected {
    path: PathBuf,
    manner: Manner,
    role: Role,
}

/// One of a result's files that is wanted: its place in the result, and what becomes of it.
struct Wanted {
    index: usize,
    file: Expected,
}

/// A result that is taken.
pub(super) struct Accepted {
    /// By the result's outputs.
    pub(super) contents: Vec<Option<Vec<u8>>>,
    wanted: Vec<Wanted>,
    mode: u32,
}

impl Accepted {
    /// The files that it leaves, the object last: when it is there, everything is.
    pub(super) fn changes(mut self) -> Vec<Change> {
        let wanted = std::mem::take(&mut self.wanted).into_iter();
        let mut changes: Vec<Change> = wanted
            .filter_map(|Wanted { index, file: Expected { path, manner, role } }| {
                let content = self.contents[index].take()?;
                Some(Change { path, mode: self.mode, manner, role, content })
            })
            .collect();
        changes.sort_by_key(|change| change.role == Role::Main);
        changes
    }
}

/// The files that one command makes.
struct Expectation {
    files: Vec<Expected>,
    loose: Vec<(PathBuf, Loose)>,
    source: PathBuf,
    stop_at: StopAt,
    mode: u32,
}

impl Core {
    /// What of a result is taken; or why it is not.
    pub(super) fn accept(&mut self, id: JobId, peer: NodeId, result: &pool::Result) -> Result<Accepted, Unfit> {
        check_size(result)?;
        let gone = || Unfit::Here(Reason::Internal, "the job is gone".to_owned());
        let job = self.jobs.get(&id).ok_or_else(gone)?;
        let ask = self.asks.get(&job.ask).ok_or_else(gone)?;
        let expected = expectation(&self.tree, ask, job)?;
        let wanted = self.wanted(job, &expected, result)?;
        self.check_missing(&expected, &wanted, result)?;
        self.check_messages(peer, result)?;
        let mut contents: Vec<Option<Vec<u8>>> = vec![None; result.outputs.len()];
        for Wanted { index, file } in &wanted {
            let Some(content) = self.content_of(peer, &result.outputs[*index]) else {
                return lie("an output that does not unpack");
            };
            let is_object = file.role == Role::Main && expected.stop_at == StopAt::Object && result.value == 0;
            if is_object && file.path != Path::new("/dev/null") {
                check_object(&content)?;
            }
            contents[*index] = Some(content);
        }
        Ok(Accepted { contents, wanted, mode: expected.mode })
    }

    /// All contents of a result that no file is made of.
    pub(super) fn take_contents(&mut self, peer: NodeId, result: &pool::Result) -> Vec<Option<Vec<u8>>> {
        if check_size(result).is_err() {
            self.drop_contents(peer, result);
            return vec![None; result.outputs.len()];
        }
        result.outputs.iter().map(|output| self.content_of(peer, output)).collect()
    }

    /// The files of a result by their names.
    fn wanted(&self, job: &Job, expected: &Expectation, result: &pool::Result) -> Result<Vec<Wanted>, Unfit> {
        let (mut wanted, mut seen) = (Vec::with_capacity(result.outputs.len()), HashSet::new());
        for (index, output) in result.outputs.iter().enumerate() {
            let Some((dir, _)) = job.dirs.get(output.dir as usize) else {
                return lie("an output outside the plan's directories");
            };
            let Some(path) = roots::below(dir, &output.path) else {
                return lie(format!("{:?} is no path for an output", bytes::show(&output.path)));
            };
            if self.tree.known_path(&path).is_some_and(|file| job.closure.files.contains(&file)) {
                return lie(format!("{} is a source", path.display()));
            }
            match HarvestKind::try_from(output.kind).unwrap_or_default() {
                HarvestKind::HarvestFile => {}
                // No compiler makes one; perhaps it was made here meanwhile.
                HarvestKind::HarvestDir if path.is_dir() => continue,
                HarvestKind::HarvestDir => return lie(format!("it made the directory {}", path.display())),
                HarvestKind::HarvestDeleted => return lie(format!("it removed {}", path.display())),
                HarvestKind::HarvestRefused => return lie(format!("{}: {}", path.display(), output.note)),
                HarvestKind::HarvestUnknown => return lie("an output of an unknown kind"),
            }
            if !seen.insert(path.clone()) {
                return lie(format!("{} stands twice in it", path.display()));
            }
            let file = expected.file(path)?;
            wanted.push(Wanted { index, file });
        }
        self.check_replaced(expected, &wanted)?;
        Ok(wanted)
    }

    /// Over files that may be a person's nothing is put.
    fn check_replaced(&self, expected: &Expectation, wanted: &[Wanted]) -> Result<(), Unfit> {
        let mut folders = Folders::default();
        let beside = wanted.iter().filter(|w| w.file.role == Role::Beside).map(|w| &w.file.path);
        let mut known = beside.map(|path| (path, self.by_products.may_replace(&mut folders, path, &expected.source)));
        match known.find(|(_, may)| !may) {
            Some((path, _)) => Err(Unfit::Here(Reason::ExistingByProduct, format!("{} is there", path.display()))),
            None => Ok(()),
        }
    }

    /// A compile that ended well has made its object, and its dependency file if it was to make one. Whether an option
    /// made its file can depend on others; but an old one of it must not seem new.
    fn check_missing(&self, expected: &Expectation, wanted: &[Wanted], result: &pool::Result) -> Result<(), Unfit> {
        if result.value != 0 {
            return Ok(());
        }
        let mut folders = Folders::default();
        for file in expected.files.iter().filter(|f| f.path != Path::new("/dev/null")) {
            if wanted.iter().any(|w| w.file.path == file.path) {
                continue;
            }
            match file.role {
                Role::Main | Role::Dependencies => return lie(format!("{} is missing", file.path.display())),
                Role::Named | Role::Beside if outputs::exists(&mut folders, &file.path) => {
                    return Err(Unfit::Here(Reason::UnexpectedOutput, format!("{} was not made", file.path.display())));
                }
                Role::Named | Role::Beside => {}
            }
        }
        Ok(())
    }

    /// What would steer a terminal is shown from a compile here: a source may hold it, so nobody is blamed, but it is
    /// counted.
    fn check_messages(&mut self, peer: NodeId, result: &pool::Result) -> Result<(), Unfit> {
        if message::is_harmless(&result.stdout) && message::is_harmless(&result.stderr) {
            return Ok(());
        }
        self.marks.entry(peer).or_default().messages += 1;
        let why = format!("{} sent messages with control characters or bytes that are no text", peer.short());
        Err(Unfit::Here(Reason::MessageBytes, why))
    }

    fn content_of(&mut self, peer: NodeId, output: &Harvested) -> Option<Vec<u8>> {
        match output.transfer {
            0 => inline(output),
            transfer => {
                let arrivals = &mut self.peers.get_mut(&peer)?.arrivals;
                // What announced another size than its result is not unpacked.
                if arrivals.size(transfer) != Some(output.size) {
                    return None;
                }
                arrivals.take(transfer)
            }
        }
    }

    /// What came for a result that is not taken is dropped.
    pub(super) fn drop_contents(&mut self, peer: NodeId, result: &pool::Result) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        for output in result.outputs.iter().filter(|o| o.transfer != 0) {
            peer.arrivals.discard(output.transfer);
        }
    }

    /// A peer returned what no honest one does: it is remembered.
    pub(super) fn mark_bad(&mut self, peer: NodeId, why: String) {
        self.totals.bad_outputs += 1;
        let marks = self.marks.entry(peer).or_default();
        marks.bad_output += 1;
        marks.refused_at = Some(Instant::now());
        marks.last = why;
    }
}

impl Expectation {
    /// What the file at `path` is to the command.
    fn file(&self, path: PathBuf) -> Result<Expected, Unfit> {
        if let Some(known) = self.files.iter().find(|f| f.path == path) {
            return Ok(Expected { path, manner: known.manner, role: known.role });
        }
        let name = path.file_name().unwrap_or_default();
        let is_loose = self.loose.iter().any(|(dir, loose)| path.parent() == Some(dir) && loose.holds(name));
        if is_loose {
            return Ok(Expected { path, manner: Manner::Truncate, role: Role::Beside });
        }
        // Options that make files make others in other versions of a compiler. It is not taken, and nobody is blamed.
        let makes_more = !self.loose.is_empty() || self.files.iter().any(|f| f.role == Role::Beside);
        let from = self.files.iter().map(|f| f.path.as_path()).chain([self.source.as_path()]);
        if makes_more && roots::is_derived(name, from) {
            let why = format!("{} is no output that is known of this command", path.display());
            return Err(Unfit::Here(Reason::UnexpectedOutput, why));
        }
        lie(format!("{} is no output of this command", path.display()))
    }
}

/// Bytes and files of one result, before anything of it is unpacked.
fn check_size(result: &pool::Result) -> Result<(), Unfit> {
    let limits = JobLimits::default();
    let size_sum = result.outputs.iter().fold(0u64, |sum, o| sum.saturating_add(o.size));
    let largest = result.outputs.iter().map(|o| o.size).max().unwrap_or(0);
    if result.outputs.len() as u64 > limits.output_files {
        return lie(format!("{} files are more than a job may make", result.outputs.len()));
    }
    if size_sum > limits.output_bytes || largest > limits.file_bytes {
        return lie(format!("{size_sum} bytes are more than a job may make"));
    }
    if result.stdout.len().max(result.stderr.len()) as u64 > limits.stdio_bytes {
        return lie("its messages are longer than a job may make them");
    }
    Ok(())
}

fn check_object(content: &[u8]) -> Result<(), Unfit> {
    match object::kind(content) {
        object::Kind::Object => Ok(()),
        object::Kind::Never => lie("its object is none"),
        object::Kind::Unknown => {
            Err(Unfit::Here(Reason::UnexpectedOutput, "its object is of a format that is not known here".to_owned()))
        }
    }
}

/// The files that the job's command makes, by their physical paths.
fn expectation(tree: &Tree, ask: &Ask, job: &Job) -> Result<Expectation, Unfit> {
    let (plan, cwd) = (&ask.plans[job.part], &job.want.cwd);
    let file = |output: &potluck_model::plan::Output| {
        let path = if output.path == Path::new("/dev/null") {
            Some(output.path.clone())
        } else {
            physical_output(tree, cwd, &output.path)
        };
        // Its directory was there when the job was sent.
        let path = path.ok_or_else(|| Unfit::Here(Reason::InputChanged, "an output directory is gone".to_owned()))?;
        Ok(Expected { path, manner: output.manner, role: output.role })
    };
    Ok(Expectation {
        files: plan.outputs.iter().map(file).collect::<Result<_, _>>()?,
        loose: loose_dirs(tree, plan, cwd),
        source: cwd.join(&plan.source),
        stop_at: plan.stop_at,
        mode: NEW_FILE_MODE & !ask.compile.umask & 0o777,
    })
}

#[cfg(test)]
mod tests {
    use potluck_model::plan::Rest;

    use super::*;

    fn expectation(beside: &[&str], loose: bool) -> Expectation {
        let file = |path: &str, role| Expected { path: path.into(), manner: Manner::Truncate, role };
        let mut files = vec![file("/w/a.o", Role::Main), file("/w/a.d", Role::Dependencies)];
        files.extend(beside.iter().map(|path| file(path, Role::Beside)));
        let dumps = Loose { dir: "".into(), stem: "a.c".into(), rest: Rest::Pass };
        Expectation {
            files,
            loose: loose.then(|| ("/w".into(), dumps)).into_iter().collect(),
            source: "/w/a.c".into(),
            stop_at: StopAt::Object,
            mode: 0o644,
        }
    }

    /// What becomes of a file of this name: its role, the reason to compile here, or `None` for a lie.
    fn fate(expected: &Expectation, path: &str) -> Option<Result<Role, Reason>> {
        match expected.file(path.into()) {
            Ok(file) => Some(Ok(file.role)),
            Err(Unfit::Here(reason, _)) => Some(Err(reason)),
            Err(Unfit::Lie(_)) => None,
        }
    }

    #[test]
    fn a_plain_compile_makes_two_files_and_nothing_else() {
        let plain = expectation(&[], false);
        assert_eq!(fate(&plain, "/w/a.o"), Some(Ok(Role::Main)));
        assert_eq!(fate(&plain, "/w/a.d"), Some(Ok(Role::Dependencies)));
        for lie in
            ["/w/a.su", "/w/a.rs", "/w/a", "/w/a.i", "/w/a.c.005t.original", "/w/b/a.o", "/w/Makefile", "/w/a.o.d"]
        {
            assert_eq!(fate(&plain, lie), None, "{lie}");
        }
    }

    #[test]
    fn where_options_make_files_an_unknown_one_blames_nobody_and_is_not_taken() {
        let more = expectation(&["/w/a.su"], true);
        assert_eq!(fate(&more, "/w/a.su"), Some(Ok(Role::Beside)));
        assert_eq!(fate(&more, "/w/a.c.005t.original"), Some(Ok(Role::Beside)));
        assert_eq!(fate(&more, "/w/a.rs"), Some(Err(Reason::UnexpectedOutput)));
        assert_eq!(fate(&more, "/w/a.c.mk"), Some(Err(Reason::UnexpectedOutput)));
        assert_eq!(fate(&more, "/w/b/a.c.005t.original"), Some(Err(Reason::UnexpectedOutput)));
        assert_eq!(fate(&more, "/w/GNUmakefile"), None);
    }

    #[test]
    fn a_result_is_bounded_before_it_is_unpacked() {
        let of = |sizes: &[u64], stdio: usize| {
            let outputs = sizes.iter().map(|&size| Harvested { size, ..Harvested::default() }).collect();
            check_size(&pool::Result { outputs, stderr: vec![b'x'; stdio], ..pool::Result::default() }).is_ok()
        };
        let limits = JobLimits::default();
        assert!(of(&[limits.file_bytes, limits.file_bytes], 0) && of(&[1], limits.stdio_bytes as usize));
        assert!(!of(&[limits.file_bytes + 1], 0));
        assert!(!of(&[limits.file_bytes, limits.file_bytes, 1], 0));
        assert!(!of(&[u64::MAX, u64::MAX], 0));
        assert!(!of(&vec![0; limits.output_files as usize + 1], 0));
        assert!(!of(&[1], limits.stdio_bytes as usize + 1));
    }
}
