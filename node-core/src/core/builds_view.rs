//! Builds as they are shown: the list, reports, the jobs as columns, and why jobs ran here.

use potluck_api::build::{BuildEnd, BuildLine, BuildRow, Counts, ErrorRow, JobColumns, MachineRow, ReasonRow, Report};
use potluck_api::call::Call;
use potluck_api::view::Done;
use potluck_api::words::reason::title;
use potluck_model::builds::{End, Job, Kind, report};
use potluck_model::reason::{Class, Reason};
use potluck_wire::ipc;
use serde::Serialize;
use serde_json::{Value, json};

use super::{ConnId, Core, Replies};
use crate::builds::Meta;

/// Errors that a report has.
const ERRORS_MAX: usize = 50;

/// What is asked of one build.
#[derive(Clone, Copy)]
enum Part {
    Report,
    Columns,
    Explain,
}

fn answer(replies: &Replies, value: &impl Serialize) {
    let json = serde_json::to_string(value).unwrap_or_default();
    let _ = replies.send(ipc::Reply::Api { json, last: true });
}

fn shape(part: Part, meta: &Meta, jobs: &[Job]) -> Value {
    let value = match part {
        Part::Report => serde_json::to_value(report_of(meta, jobs)),
        Part::Columns => serde_json::to_value(columns_of(meta, jobs)),
        Part::Explain => Ok(explained(meta, jobs)),
    };
    value.unwrap_or_default()
}

impl Core {
    pub(super) fn builds_call(&mut self, conn: ConnId, call: Call, replies: Replies) {
        if let Some(early) = &mut self.builds.early
            && !matches!(call, Call::BuildBegin { .. } | Call::BuildEnd { .. })
        {
            return early.push((conn, call, replies));
        }
        match call {
            Call::Builds { limit } => {
                answer(&replies, &self.build_rows(limit.map_or(usize::MAX, |n| n as usize)));
            }
            Call::Report { build } => self.of_build(&build, Part::Report, replies),
            Call::Jobs { build } => self.of_build(&build, Part::Columns, replies),
            Call::Explain { what, cwd } => self.explain(&what, cwd.as_deref(), replies),
            Call::BuildBegin { name, argv, cwd } => self.build_begin(conn, name, &argv, &cwd, replies),
            Call::BuildEnd { id, exit } => self.build_end(&id, exit, replies),
            Call::BuildForget { build } => {
                let had = self.builds.past.len();
                self.builds.past.retain(|m| m.id != build);
                if had == self.builds.past.len() {
                    return answer(&replies, &unknown(&build));
                }
                self.builds.store.forget(build);
                answer(&replies, &Done { ok: true });
            }
            other => answer(&replies, &json!({"error": format!("{other:?} is no call about builds")})),
        }
    }

    /// Builds that go on, newest first.
    pub fn building(&self) -> Vec<BuildLine> {
        let mut lines: Vec<BuildLine> = self
            .builds
            .open
            .iter()
            .map(|(key, build)| {
                let (cores, waiting) = self.build_now(*key);
                let counts = self.build_counts(*key);
                BuildLine {
                    id: build.meta.id.clone(),
                    name: build.meta.name.clone(),
                    done: counts.total(),
                    total: None,
                    cores,
                    waiting,
                    started_ms: build.meta.started_ms,
                    counts: counts_of(counts),
                }
            })
            .collect();
        lines.sort_by_key(|l| std::cmp::Reverse(l.started_ms));
        lines
    }

    /// At most so many builds, newest first; those that go on among them.
    pub fn build_rows(&self, limit: usize) -> Vec<BuildRow> {
        let now = self.now();
        let mut rows: Vec<BuildRow> = self.builds.open.values().map(|b| row_of(&b.meta_at(now))).collect();
        rows.extend(self.builds.past.iter().rev().take(limit).map(row_of));
        rows.sort_by_key(|r| std::cmp::Reverse(r.started_ms));
        rows.truncate(limit);
        rows
    }

    fn of_build(&mut self, what: &str, part: Part, replies: Replies) {
        let now = self.now();
        let open = self.builds.open.values().filter(|b| fits(&b.meta, what)).max_by_key(|b| b.meta.started_ms);
        let past = self.builds.past.iter().rev().find(|m| fits(m, what));
        if let Some(build) = open.filter(|b| past.is_none_or(|p| p.started_ms <= b.meta.started_ms)) {
            let mut jobs = build.jobs.clone();
            jobs.sort_by_key(|j| j.start_ms);
            return answer(&replies, &shape(part, &build.meta_at(now), &jobs));
        }
        let Some(meta) = past.cloned() else { return answer(&replies, &unknown(what)) };
        self.builds.store.jobs(meta.id.clone(), move |jobs| match jobs {
            Ok(jobs) => answer(&replies, &shape(part, &meta, &jobs)),
            Err(error) => answer(&replies, &json!({"error": error})),
        });
    }

    fn explain(&mut self, what: &str, cwd: Option<&str>, replies: Replies) {
        let none = self.builds.open.is_empty() && self.builds.past.is_empty();
        if what == "last" && none {
            return answer(&replies, &json!({"schema": 1, "total": 0, "remote": 0, "local": []}));
        }
        let is_build = |m: &Meta| what == "last" || m.id == what;
        if self.builds.open.values().any(|b| is_build(&b.meta)) || self.builds.past.iter().any(is_build) {
            return self.of_build(what, Part::Explain, replies);
        }
        if let Some(job) = self.explain_job(what, cwd) {
            return answer(&replies, &job);
        }
        if self.builds.open.values().any(|b| b.meta.name == what) || self.builds.past.iter().any(|m| m.name == what) {
            return self.of_build(what, Part::Explain, replies);
        }
        let file =
            cwd.map_or_else(|| what.to_owned(), |cwd| std::path::Path::new(cwd).join(what).display().to_string());
        let what = what.to_owned();
        self.builds.store.find(file, move |found| {
            let Some((meta, job)) = found else {
                let error = format!(
                    "no job of {what} is known\nhint: potluck log lists all since this node started, potluck explain -- COMMAND tells of one to come"
                );
                return answer(&replies, &json!({"error": error}));
            };
            let code = meta.reasons.get(usize::from(job.reason)).filter(|_| job.machine == 0).cloned();
            let text = code.as_deref().and_then(Reason::from_code).map_or("", |r| r.sentence());
            let worker = meta.machines.get(usize::from(job.machine)).filter(|_| job.machine != 0);
            let record = json!({
                "source": job.file, "cwd": meta.cwd, "build": meta.id, "exit": job.exit, "reason": code,
                "where": if worker.is_some() { "remote" } else { "local" },
                "worker": worker.map(|w| &w.id), "worker_name": worker.map(|w| &w.name),
                "retries": job.repeats, "worker_wall_us": u64::from(job.compile_ms) * 1000,
                "wall_us": u64::from(job.took_ms) * 1000, "faults": [], "note": "",
            });
            answer(&replies, &json!({"job": record, "text": text}));
        });
    }
}

fn unknown(build: &str) -> Value {
    json!({"error": format!("no build {build} is known\nhint: potluck builds shows all")})
}

fn fits(meta: &Meta, what: &str) -> bool {
    what == "last" || meta.id == what || meta.name == what
}

fn counts_of(counts: potluck_model::builds::Counts) -> Counts {
    Counts { remote: counts.remote, here: counts.here, only: counts.only, failed: counts.failed }
}

fn row_of(meta: &Meta) -> BuildRow {
    BuildRow {
        id: meta.id.clone(),
        name: meta.name.clone(),
        started_ms: meta.started_ms,
        took_ms: meta.took_ms,
        end: match meta.end {
            None | Some(End::Running) => BuildEnd::Running,
            Some(End::Ok) => BuildEnd::Ok,
            Some(End::Failed) => BuildEnd::Failed,
            Some(End::Cancelled) => BuildEnd::Cancelled,
        },
        exit: meta.exit,
        counts: counts_of(meta.counts),
        saved_ms: report::saved_ms(meta.alone_ms, meta.took_ms),
        machines: meta.machines.iter().skip(1).filter(|m| m.jobs > 0).count() as u32,
    }
}

fn reason_rows(meta: &Meta, jobs: &[Job]) -> Vec<ReasonRow> {
    let row = |sum: report::ReasonSum| {
        let code = meta.reasons.get(usize::from(sum.reason)).cloned().unwrap_or_default();
        let reason = Reason::from_code(&code);
        let is_option = reason.as_ref().is_some_and(|r| r.class() == Class::Flag);
        ReasonRow {
            title: title(&code, is_option),
            jobs: sum.jobs,
            time_ms: sum.time_ms,
            avoidable: reason.as_ref().is_some_and(Reason::is_avoidable),
            text: reason.as_ref().map_or("", |r| r.sentence()).to_owned(),
            code,
        }
    };
    report::reasons(jobs).into_iter().map(row).collect()
}

/// A build, summed up. `jobs` are in the order of their start.
pub(super) fn report_of(meta: &Meta, jobs: &[Job]) -> Report {
    let failed = jobs.iter().filter(|j| j.kind == Kind::Failed && !j.probe);
    let differed = |j: &&Job| {
        j.exit == Some(0) && meta.reasons.get(usize::from(j.reason)).is_some_and(|r| r == "remote-error-local-ok")
    };
    let machine = |j: &Job| meta.machines.get(usize::from(j.machine)).map_or("", |m| &m.name).to_owned();
    let error =
        |j: &Job, differed| ErrorRow { file: j.file.clone(), exit: j.exit.unwrap_or(1), machine: machine(j), differed };
    let mut errors: Vec<ErrorRow> = failed.map(|j| error(j, false)).take(ERRORS_MAX).collect();
    errors.extend(jobs.iter().filter(differed).map(|j| error(j, true)).take(ERRORS_MAX));
    let took_part = |m: &&crate::builds::MachinePart| m.jobs > 0 || m.reclaimed > 0;
    Report {
        build: row_of(meta),
        command: meta.command.clone(),
        cwd: meta.cwd.clone(),
        jobs: meta.counts.total(),
        repeated: meta.repeated,
        alone_ms: meta.alone_ms,
        bytes_up: meta.bytes_up,
        bytes_down: meta.bytes_down,
        machines: meta
            .machines
            .iter()
            .filter(took_part)
            .map(|m| MachineRow {
                id: m.id.clone(),
                name: m.name.clone(),
                jobs: m.jobs,
                time_ms: m.time_ms,
                reclaimed: m.reclaimed,
            })
            .collect(),
        reasons: reason_rows(meta, jobs),
        findings: report::findings(jobs, meta.took_ms, &meta.reasons),
        toolchains: meta.toolchains.clone(),
        errors,
    }
}

fn columns_of(meta: &Meta, jobs: &[Job]) -> JobColumns {
    JobColumns {
        machines: meta.machines.iter().map(|m| m.name.clone()).collect(),
        reasons: meta.reasons.clone(),
        start_ms: jobs.iter().map(|j| j.start_ms).collect(),
        took_ms: jobs.iter().map(|j| j.took_ms).collect(),
        kind: jobs.iter().map(|j| j.kind as u8).collect(),
        machine: jobs.iter().map(|j| j.machine).collect(),
        lane: report::lanes(jobs),
        reason: jobs.iter().map(|j| j.reason).collect(),
        file: jobs.iter().map(|j| j.file.clone()).collect(),
        wait_ms: jobs.iter().map(|j| j.wait_ms).collect(),
        understand_ms: jobs.iter().map(|j| j.understand_ms).collect(),
        travel_ms: jobs.iter().map(|j| j.travel_ms).collect(),
        compile_ms: jobs.iter().map(|j| j.compile_ms).collect(),
        finish_ms: jobs.iter().map(|j| j.finish_ms).collect(),
        repeats: jobs.iter().map(|j| j.repeats).collect(),
    }
}

/// Why jobs of a build ran here.
fn explained(meta: &Meta, jobs: &[Job]) -> Value {
    let rows = reason_rows(meta, jobs);
    // The slowest job that somebody can do something about.
    let code = |j: &Job| meta.reasons.get(usize::from(j.reason)).map_or("", String::as_str);
    let can_help = |j: &&Job| j.machine == 0 && Reason::from_code(code(j)).is_some_and(|r| r.is_avoidable());
    let example = jobs.iter().filter(can_help).max_by_key(|j| j.took_ms).map(|j| &j.file);
    let local: Vec<Value> = rows
        .iter()
        .map(|r| {
            json!({"reason": r.code, "count": r.jobs, "text": r.text, "avoidable": r.avoidable, "time_ms": r.time_ms})
        })
        .collect();
    json!({
        "schema": 1, "build": row_of(meta), "total": meta.counts.total(), "remote": meta.counts.remote,
        "failed": meta.counts.failed, "repeated": meta.repeated, "local": local, "example": example,
    })
}
