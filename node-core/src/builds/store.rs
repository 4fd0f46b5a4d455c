//! The history of builds in an embedded store, on a thread of its own. Whatever happens to the file, no build fails of it:
//! one that cannot be read is moved aside, one that cannot be written is tried again later, and both are said in the log.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use potluck_model::builds::{End, Job, Kind};
use potluck_model::limits::{BUILD_JOBS_MAX, HISTORY_BUILDS_MIN, HISTORY_BYTES_MAX, HISTORY_DAYS};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::Meta;

/// Builds by id, as JSON.
const BUILDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("builds");
/// Their jobs by id and number: postcard columns in zstd.
const JOBS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("jobs");
/// Memory that the store keeps of its file; the usual GiB is not for a program in the background.
const CACHE_BYTES: usize = 4 << 20;
/// Least time between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// After a write that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Messages that wait for a disk with room; then the oldest jobs are lost.
const WAITING_MAX: usize = 512;
/// Level 3 takes a third of the time of 9 for a tenth more bytes.
const ZSTD_LEVEL: i32 = 3;
/// Largest chunk of jobs, unpacked: a second's worth is some hundred kilobytes.
const CHUNK_BYTES_MAX: u64 = 256 << 20;
/// Builds that are searched for a source.
const SEARCHED_MAX: usize = 50;

type Gone = Box<dyn Fn(Vec<String>) + Send>;
type Answer<T> = Box<dyn FnOnce(T) + Send>;

enum Ask {
    Write(Box<Meta>, Vec<Job>),
    Forget(String),
    Jobs(String, Answer<Result<Vec<Job>, String>>),
    Find(String, Answer<Option<(Meta, Job)>>),
}

/// The history; dropped with its thread when what was said has been written.
pub struct Store {
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens it in the background; `loaded` is told of all builds, oldest first, and `gone` of those that were too old
    /// later, or too much.
    pub fn open(
        path: PathBuf,
        loaded: impl FnOnce(Vec<Meta>) + Send + 'static,
        gone: impl Fn(Vec<String>) + Send + 'static,
    ) -> Self {
        let (asks, inbox) = mpsc::channel();
        let work = move || {
            let mut file = File::open(path, Box::new(gone));
            loaded(file.begin());
            file.serve(&inbox);
        };
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(work);
        Self { asks: Some(asks), thread: thread.ok() }
    }

    fn ask(&self, ask: Ask) {
        if let Some(asks) = &self.asks {
            let _ = asks.send(ask);
        }
    }

    /// A build as it is now, and jobs that were not written yet.
    pub fn write(&self, meta: Meta, jobs: Vec<Job>) {
        self.ask(Ask::Write(Box::new(meta), jobs));
    }

    /// Removes a build.
    pub fn forget(&self, id: String) {
        self.ask(Ask::Forget(id));
    }

    /// The jobs of a build, in the order of their start. Answered on the store's thread.
    pub fn jobs(&self, id: String, answer: impl FnOnce(Result<Vec<Job>, String>) + Send + 'static) {
        self.ask(Ask::Jobs(id, Box::new(answer)));
    }

    /// The newest job of a source.
    pub fn find(&self, file: String, answer: impl FnOnce(Option<(Meta, Job)>) + Send + 'static) {
        self.ask(Ask::Find(file, Box::new(answer)));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct File {
    path: PathBuf,
    db: Option<Database>,
    metas: BTreeMap<(u64, String), Meta>,
    /// Bytes of each build's jobs, and the number of its next chunk.
    sizes: BTreeMap<String, (u64, u32)>,
    waiting: Vec<(Meta, Vec<Job>)>,
    again_at: Option<Instant>,
    /// The last failure was said.
    complained: bool,
    gone: Gone,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl File {
    fn open(path: PathBuf, gone: Gone) -> Self {
        let mut file = Self {
            path,
            db: None,
            metas: BTreeMap::new(),
            sizes: BTreeMap::new(),
            waiting: Vec::new(),
            again_at: None,
            complained: false,
            gone,
        };
        file.db = match database(&file.path) {
            Ok(db) => Some(db),
            Err(Bad::Damaged(why)) => file.anew(&why),
            Err(Bad::Closed(why)) => {
                file.failed(&why);
                None
            }
        };
        file
    }

    /// Sets the file aside and begins another.
    fn anew(&mut self, why: &str) -> Option<Database> {
        // Closed before it gets another name.
        self.db = None;
        match crate::store::set_aside(&self.path) {
            Ok(aside) => crate::log::warn(&format!(
                "the history of builds cannot be read and begins anew; the old one is {}: {why}",
                aside.display()
            )),
            Err(error) => {
                crate::log::warn(&format!("the history of builds can neither be read nor moved away ({error}): {why}"));
            }
        }
        database(&self.path).ok()
    }

    /// Everything that was kept. Builds that went on when the node ended are over.
    fn begin(&mut self) -> Vec<Meta> {
        if let Some(db) = &self.db {
            match catch_unwind(AssertUnwindSafe(|| load(db))) {
                Ok(Ok((metas, sizes))) => {
                    self.metas = metas.into_iter().map(|m| ((m.started_ms, m.id.clone()), m)).collect();
                    self.sizes = sizes;
                }
                // A full disk goes by; everything else is in the file, and would be there at every write.
                Ok(Err(error @ redb::Error::Io(_))) => self.failed(&text(error)),
                Ok(Err(error)) => self.db = self.anew(&text(error)),
                Err(_) => self.db = self.anew("its pages make no sense"),
            }
        }
        for meta in self.metas.values_mut().filter(|m| matches!(m.end, None | Some(End::Running))) {
            meta.end = Some(End::Cancelled);
            self.waiting.push((meta.clone(), Vec::new()));
        }
        self.metas.values().cloned().collect()
    }

    fn serve(&mut self, inbox: &mpsc::Receiver<Ask>) {
        let mut written = Instant::now() - WRITE_EVERY;
        loop {
            let due = written + WRITE_EVERY;
            let due = self.again_at.map_or(due, |at| due.max(at));
            let ask = match self.waiting.is_empty() {
                true => inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                false => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match ask {
                Ok(Ask::Write(meta, jobs)) => self.take(*meta, jobs),
                Ok(Ask::Forget(id)) => {
                    self.waiting.retain(|(meta, _)| meta.id != id);
                    self.remove(&[id]);
                }
                Ok(Ask::Jobs(id, answer)) => {
                    self.write();
                    answer(self.jobs(&id));
                }
                Ok(Ask::Find(file, answer)) => {
                    self.write();
                    answer(self.find(&file));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.again_at = None;
                    return self.write();
                }
            }
            if !self.waiting.is_empty() && Instant::now() >= due {
                self.write();
                written = Instant::now();
            }
        }
    }

    fn take(&mut self, meta: Meta, jobs: Vec<Job>) {
        // Only the last state of a build needs writing.
        if let Some((old, rows)) = self.waiting.iter_mut().find(|(m, _)| m.id == meta.id) {
            *old = meta;
            rows.extend(jobs);
            rows.truncate(BUILD_JOBS_MAX);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push((meta, jobs));
        }
    }

    fn write(&mut self) {
        if self.waiting.is_empty() || self.again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if self.db.is_none() {
            match database(&self.path) {
                Ok(db) => self.db = Some(db),
                Err(Bad::Closed(why) | Bad::Damaged(why)) => return self.failed(&why),
            }
        }
        let Some(db) = &self.db else { return };
        let sizes = &self.sizes;
        match catch_unwind(AssertUnwindSafe(|| append(db, &self.waiting, sizes))).unwrap_or(Err("it is damaged".into()))
        {
            Ok(added) => {
                for (id, bytes) in added {
                    let size = self.sizes.entry(id).or_default();
                    *size = (size.0 + bytes, size.1 + 1);
                }
                let mut ended = false;
                for (meta, _) in std::mem::take(&mut self.waiting) {
                    ended |= meta.end != Some(End::Running);
                    self.metas.insert((meta.started_ms, meta.id.clone()), meta);
                }
                if std::mem::take(&mut self.complained) {
                    crate::log::warn("the history of builds is kept again");
                }
                self.again_at = None;
                if ended {
                    self.prune();
                }
            }
            Err(why) => self.failed(&why),
        }
    }

    /// Old builds go, and the oldest where all take too much.
    fn prune(&mut self) {
        let now_ms = crate::core::Core::clock_us() / 1000;
        let oldest = now_ms.saturating_sub(HISTORY_DAYS * 86_400_000);
        let mut bytes: u64 = self.sizes.values().map(|s| s.0).sum();
        let mut left = self.metas.len();
        let mut gone = Vec::new();
        for ((started, id), meta) in &self.metas {
            let is_old = left > HISTORY_BUILDS_MIN && *started < oldest;
            if !(is_old || bytes > HISTORY_BYTES_MAX && left > 1) {
                break;
            }
            if meta.end == Some(End::Running) {
                continue;
            }
            left -= 1;
            bytes -= self.sizes.get(id).map_or(0, |s| s.0);
            gone.push(id.clone());
        }
        if !gone.is_empty() {
            self.remove(&gone);
            (self.gone)(gone);
        }
    }

    fn remove(&mut self, ids: &[String]) {
        self.metas.retain(|(_, id), _| !ids.contains(id));
        let sizes: Vec<(String, u32)> =
            ids.iter().filter_map(|id| Some((id.clone(), self.sizes.remove(id)?.1))).collect();
        let Some(db) = &self.db else { return };
        let removed = || -> Result<(), redb::Error> {
            let write = db.begin_write()?;
            {
                let (mut builds, mut jobs) = (write.open_table(BUILDS)?, write.open_table(JOBS)?);
                for id in ids {
                    builds.remove(id.as_str())?;
                }
                for (id, chunks) in &sizes {
                    for at in 0..*chunks {
                        jobs.remove((id.as_str(), at))?;
                    }
                }
            }
            Ok(write.commit()?)
        };
        match catch_unwind(AssertUnwindSafe(removed)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(&text(error)),
            Err(_) => self.failed("it is damaged"),
        }
    }

    /// All jobs of a build: those that were written, and those that wait for it.
    fn jobs(&mut self, id: &str) -> Result<Vec<Job>, String> {
        let mut jobs = self.written(id)?;
        jobs.extend(self.waiting.iter().filter(|(meta, _)| meta.id == id).flat_map(|(_, rows)| rows.iter().cloned()));
        jobs.sort_by_key(|j| j.start_ms);
        Ok(jobs)
    }

    fn written(&mut self, id: &str) -> Result<Vec<Job>, String> {
        let Some((_, chunks)) = self.sizes.get(id) else { return Ok(Vec::new()) };
        if self.db.is_none() {
            // What cannot be written can often be read.
            self.db = database(&self.path).ok();
        }
        let Some(db) = &self.db else {
            return Err(
                "the history of builds cannot be read now\nhint: is the disk full? potluck log says more".into()
            );
        };
        let read = || -> Result<Vec<Job>, String> {
            let table = db.begin_read().map_err(text)?.open_table(JOBS).map_err(text)?;
            let mut jobs = Vec::new();
            for at in 0..*chunks {
                if let Some(chunk) = table.get((id, at)).map_err(text)? {
                    jobs.extend(unpack(chunk.value())?);
                }
                if jobs.len() > BUILD_JOBS_MAX {
                    return Err("the build has more jobs than can be".to_owned());
                }
            }
            Ok(jobs)
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("the history is damaged".to_owned()))
    }

    fn find(&mut self, file: &str) -> Option<(Meta, Job)> {
        let searched: Vec<Meta> = self.metas.values().rev().take(SEARCHED_MAX).cloned().collect();
        searched.into_iter().find_map(|meta| {
            let is_it = |job: &Job| job.file == file || Path::new(&meta.cwd).join(&job.file) == Path::new(file);
            let job = self.jobs(&meta.id).ok()?.into_iter().rev().find(is_it)?;
            Some((meta, job))
        })
    }

    /// Nothing is kept until it works again: a full disk is the usual case.
    fn failed(&mut self, why: &str) {
        // A store that met an error takes no more writes.
        self.db = None;
        self.again_at = Some(Instant::now() + AGAIN_AFTER);
        if !std::mem::replace(&mut self.complained, true) {
            let file = self.path.display();
            crate::log::warn(&format!("the history of builds is not kept for now ({file}): {why}"));
        }
    }
}

/// Why a file cannot be opened.
enum Bad {
    /// Its content.
    Damaged(String),
    /// Everything else: rights, room, another process.
    Closed(String),
}

fn database(path: &Path) -> Result<Database, Bad> {
    let open = || {
        // For its owner alone, as everything of the node: the names of sources are nobody else's.
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(|error| redb::DatabaseError::Storage(redb::StorageError::Io(error)))?;
        let backend = redb::backends::FileBackend::new(file)?;
        Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => {
            let why = error.to_string();
            let damaged = match error {
                redb::DatabaseError::Storage(redb::StorageError::Io(error)) => {
                    // A folder in its place, or a mode that nobody here gave it: moved away, it is in nobody's way.
                    use std::io::ErrorKind::{InvalidData, IsADirectory, PermissionDenied, UnexpectedEof};
                    matches!(error.kind(), InvalidData | UnexpectedEof | IsADirectory | PermissionDenied)
                }
                redb::DatabaseError::DatabaseAlreadyOpen => false,
                _ => true,
            };
            Err(if damaged { Bad::Damaged(why) } else { Bad::Closed(why) })
        }
        Err(_) => Err(Bad::Damaged("its pages make no sense".to_owned())),
    }
}

type Loaded = (Vec<Meta>, BTreeMap<String, (u64, u32)>);

fn load(db: &Database) -> Result<Loaded, redb::Error> {
    let write = db.begin_write()?;
    write.open_table(BUILDS)?;
    write.open_table(JOBS)?;
    write.commit()?;
    let read = db.begin_read()?;
    let (mut metas, mut sizes) = (Vec::new(), BTreeMap::<String, (u64, u32)>::new());
    for entry in read.open_table(BUILDS)?.iter()? {
        // One that a later version wrote otherwise is left alone.
        metas.extend(serde_json::from_slice::<Meta>(entry?.1.value()));
    }
    for entry in read.open_table(JOBS)?.iter()? {
        let (key, value) = entry?;
        let (id, at) = key.value();
        let size = sizes.entry(id.to_owned()).or_default();
        *size = (size.0 + value.value().len() as u64, size.1.max(at + 1));
    }
    Ok((metas, sizes))
}

/// Writes all at once; the bytes of new chunks by build.
fn append(
    db: &Database,
    all: &[(Meta, Vec<Job>)],
    sizes: &BTreeMap<String, (u64, u32)>,
) -> Result<Vec<(String, u64)>, String> {
    let write = db.begin_write().map_err(text)?;
    let mut added = Vec::new();
    {
        let (mut builds, mut jobs) = (write.open_table(BUILDS).map_err(text)?, write.open_table(JOBS).map_err(text)?);
        for (meta, rows) in all {
            let json = serde_json::to_vec(meta).map_err(text)?;
            builds.insert(meta.id.as_str(), json.as_slice()).map_err(text)?;
            if !rows.is_empty() {
                let chunk = pack(rows)?;
                let at = sizes.get(&meta.id).map_or(0, |s| s.1);
                jobs.insert((meta.id.as_str(), at), chunk.as_slice()).map_err(text)?;
                added.push((meta.id.clone(), chunk.len() as u64));
            }
        }
    }
    write.commit().map_err(text)?;
    Ok(added)
}

/// The first byte of a chunk.
const CHUNK_VERSION: u8 = 1;

/// Jobs column by column: equal things beside each other pack to a third.
#[derive(Default, Serialize, Deserialize)]
struct Columns {
    times: [Vec<u32>; 7],
    kind: Vec<Kind>,
    machine: Vec<u16>,
    reason: Vec<u16>,
    file: Vec<String>,
    repeats: Vec<u8>,
    exit: Vec<Option<i32>>,
    probe: Vec<bool>,
}

fn pack(jobs: &[Job]) -> Result<Vec<u8>, String> {
    let mut columns = Columns::default();
    for j in jobs {
        let times = [j.start_ms, j.took_ms, j.wait_ms, j.understand_ms, j.travel_ms, j.compile_ms, j.finish_ms];
        columns.times.iter_mut().zip(times).for_each(|(column, time)| column.push(time));
        columns.kind.push(j.kind);
        columns.machine.push(j.machine);
        columns.reason.push(j.reason);
        columns.file.push(j.file.clone());
        columns.repeats.push(j.repeats);
        columns.exit.push(j.exit);
        columns.probe.push(j.probe);
    }
    let plain = postcard::to_stdvec(&columns).map_err(text)?;
    let mut out = vec![CHUNK_VERSION];
    out.extend(zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(text)?);
    Ok(out)
}

fn unpack(chunk: &[u8]) -> Result<Vec<Job>, String> {
    let bad = || "jobs in the history cannot be read".to_owned();
    let (&CHUNK_VERSION, packed) = chunk.split_first().ok_or_else(bad)? else { return Err(bad()) };
    let mut plain = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed).map_err(text)?;
    decoder.take(CHUNK_BYTES_MAX).read_to_end(&mut plain).map_err(text)?;
    let c: Columns = postcard::from_bytes(&plain).map_err(text)?;
    let rows = c.kind.len();
    let same = c.times.iter().all(|t| t.len() == rows)
        && [c.machine.len(), c.reason.len(), c.file.len(), c.repeats.len(), c.exit.len(), c.probe.len()] == [rows; 6];
    if !same {
        return Err(bad());
    }
    let [start, took, wait, understand, travel, compile, finish] = &c.times;
    Ok(c.file
        .into_iter()
        .enumerate()
        .map(|(at, file)| Job {
            start_ms: start[at],
            took_ms: took[at],
            kind: c.kind[at],
            machine: c.machine[at],
            reason: c.reason[at],
            file,
            wait_ms: wait[at],
            understand_ms: understand[at],
            travel_ms: travel[at],
            compile_ms: compile[at],
            finish_ms: finish[at],
            repeats: c.repeats[at],
            exit: c.exit[at],
            probe: c.probe[at],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn job(file: &str) -> Job {
        Job {
            start_ms: 0,
            took_ms: 1,
            kind: Kind::Here,
            machine: 0,
            reason: 0,
            file: file.to_owned(),
            wait_ms: 0,
            understand_ms: 0,
            travel_ms: 0,
            compile_ms: 1,
            finish_ms: 0,
            repeats: 0,
            exit: None,
            probe: false,
        }
    }

    fn meta(id: &str, started_ms: u64) -> Meta {
        Meta { id: id.to_owned(), started_ms, end: Some(End::Ok), ..Meta::default() }
    }

    fn files(jobs: Vec<Job>) -> Vec<String> {
        jobs.into_iter().map(|job| job.file).collect()
    }

    #[test]
    fn what_cannot_be_written_now_is_read_all_the_same_and_what_cannot_be_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("builds.redb");
        let mut file = File::open(path.clone(), Box::new(|_| ()));
        file.begin();
        file.take(meta("a", 1), vec![job("a.c")]);
        file.write();
        file.failed("the disk is full");
        file.take(meta("a", 1), vec![job("b.c")]);
        file.write();
        assert_eq!(files(file.jobs("a").unwrap()), ["a.c", "b.c"], "one on the disk, one that waits for it");
        file.failed("the disk is full");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let why = file.jobs("a").unwrap_err();
        assert!(why.contains("cannot be read now\nhint: "), "{why}");
    }

    #[test]
    fn builds_that_are_too_old_go_and_whoever_lists_them_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&heard);
        let gone = move |ids| tell.lock().unwrap().push(ids);
        let mut file = File::open(dir.path().join("builds.redb"), Box::new(gone));
        file.begin();
        let now_ms = crate::core::Core::clock_us() / 1000;
        let old_ms = now_ms - (HISTORY_DAYS + 1) * 86_400_000;
        for n in 0..WAITING_MAX.min(HISTORY_BUILDS_MIN + 2) {
            file.take(meta(&format!("old-{n}"), old_ms + n as u64), vec![job("a.c")]);
        }
        file.take(meta("new", now_ms), Vec::new());
        file.write();
        let gone = heard.lock().unwrap().clone();
        assert_eq!(gone, [["old-0", "old-1", "old-2"]], "what is more than the least number");
        assert!(file.jobs("old-0").unwrap().is_empty());
        assert_eq!(files(file.jobs("old-3").unwrap()), ["a.c"]);
    }
}
