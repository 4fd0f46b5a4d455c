//! Builds for people, at 80 columns, and for other programs: JSON, Chrome's trace format, CSV.

use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, call};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// `1:52`.
pub(super) fn clock(ms: u64) -> String {
    potluck_model::notify::clock(std::time::Duration::from_millis(ms))
}

/// `3.6`: how many times faster than one PC alone, if that is known and worth saying.
pub(super) fn faster(report: &Value) -> Option<String> {
    let (alone, took) = (report["alone_ms"].as_u64()?, number(&report["build"]["took_ms"]));
    (alone > took && took > 0).then(|| format!("{:.1}", alone as f64 / took as f64))
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Local time of day, with the date if it was not today.
fn when(ms: u64) -> String {
    let shown = |ms: u64| {
        let at = (ms / 1000) as libc::time_t;
        // SAFETY: tm is plain numbers and a pointer that is not used; localtime_r fills the one that is handed in.
        let mut tm: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live locals.
        unsafe { libc::localtime_r(&raw const at, &raw mut tm) };
        (tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, format!("{:02}:{:02}", tm.tm_hour, tm.tm_min))
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (then, today) = (shown(ms), shown(now.as_millis() as u64));
    if (then.0, then.1, then.2) == (today.0, today.1, today.2) {
        then.3
    } else {
        format!("{}-{:02}-{:02}", then.0, then.1, then.2)
    }
}

/// A name from outside in so many columns.
fn fitted(name: &str, columns: usize) -> String {
    let name = potluck_model::names::cleaned(name, name.len());
    if name.chars().count() <= columns {
        return format!("{name:<columns$}");
    }
    let kept: String = name.chars().take(columns - 1).collect();
    format!("{kept}…")
}

/// Words in lines of so many columns; a longer word has its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `potluck builds`.
pub(super) fn builds(limit: Option<u32>, json: bool) -> Result<(), Failure> {
    let rows = call(&json!({"call": "builds", "limit": limit.unwrap_or(20)}))?;
    if json {
        println!("{}", json!({"schema": 1, "builds": rows}));
        return Ok(());
    }
    if list(&rows).is_empty() {
        println!("no build came to this node yet; build with: potluck run -- make");
        return Ok(());
    }
    println!("{:<10} {:<22} {:<10} {:>7} {:<9} {:>6} elsewhere", "BUILD", "PROJECT", "WHEN", "TIME", "END", "JOBS");
    for row in list(&rows) {
        let counts = &row["counts"];
        let all: u64 = ["remote", "here", "only", "failed"].iter().map(|k| number(&counts[*k])).sum();
        let share = (number(&counts["remote"]) * 100).checked_div(all).map_or("-".to_owned(), |p| format!("{p} %"));
        println!(
            "{} {} {:<10} {:>7} {:<9} {all:>6} {share:>9}",
            fitted(text(&row["id"]), 10),
            fitted(text(&row["name"]), 22),
            when(number(&row["started_ms"])),
            clock(number(&row["took_ms"])),
            text(&row["end"]),
        );
    }
    Ok(())
}

/// Where else a report goes.
pub(super) struct Exports<'a> {
    pub(super) json: bool,
    pub(super) trace: Option<&'a Path>,
    pub(super) csv: Option<&'a Path>,
}

/// `potluck report`.
pub(super) fn report(build: &str, exports: &Exports<'_>) -> Result<(), Failure> {
    let report = call(&json!({"call": "report", "build": build}))?;
    if exports.trace.is_some() || exports.csv.is_some() {
        let id = text(&report["build"]["id"]);
        let jobs = call(&json!({"call": "jobs", "build": id}))?;
        for (path, content) in [(exports.trace, trace(&report, &jobs)), (exports.csv, csv(&jobs))] {
            let Some(path) = path else { continue };
            std::fs::write(path, content).map_err(|e| Failure::from(format!("{}: {e}", path.display())))?;
            println!("{}", path.display());
        }
        return Ok(());
    }
    if exports.json {
        let mut whole = json!({"schema": 1});
        if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), report) {
            whole.extend(fields);
        }
        println!("{whole}");
        return Ok(());
    }
    let b = &report["build"];
    head(b, number(&report["jobs"]));
    if let Some(faster) = faster(&report) {
        println!("about {faster}x faster than alone (about {})", clock(number(&report["alone_ms"])));
    }
    for machine in list(&report["machines"]) {
        let taken = match number(&machine["reclaimed"]) {
            0 => String::new(),
            1 => "   taken back once".to_owned(),
            n => format!("   taken back {n} times"),
        };
        let name = fitted(text(&machine["name"]), 20);
        println!("{:>6} on {name} {:>10}{taken}", machine["jobs"], seconds(number(&machine["time_ms"])));
    }
    for finding in list(&report["findings"]) {
        for (at, part) in wrapped(text(finding), 80 - 2).iter().enumerate() {
            println!("{} {part}", if at == 0 { "-" } else { " " });
        }
    }
    for error in list(&report["errors"]) {
        let how = if error["differed"] == true { "failed there, worked here" } else { "failed" };
        println!("! {}: {how} (exit {}, {})", text(&error["file"]), error["exit"], text(&error["machine"]));
    }
    println!("next: potluck explain {}   ·   potluck report --json", text(&b["id"]));
    Ok(())
}

fn head(build: &Value, jobs: u64) {
    let end = match text(&build["end"]) {
        "ok" => String::new(),
        other => format!(" · {other}"),
    };
    println!(
        "{} · {} · {} · {} of {jobs} elsewhere{end}",
        fitted(text(&build["name"]), 24).trim_end(),
        when(number(&build["started_ms"])),
        clock(number(&build["took_ms"])),
        build["counts"]["remote"]
    );
}

/// The table of UX 4.4.
pub(super) fn explain(answer: &Value) {
    head(&answer["build"], number(&answer["total"]));
    for row in list(&answer["local"]) {
        let avoidable = if row["avoidable"] == true { "avoidable" } else { "" };
        let (count, time) = (number(&row["count"]), seconds(number(&row["time_ms"])));
        let line = format!("{count:>5} here  {} {time:>10}  {avoidable}", fitted(text(&row["reason"]), 24));
        println!("{}", line.trim_end());
        wrapped(text(&row["text"]), 80 - 12).iter().for_each(|part| println!("            {part}"));
    }
    if number(&answer["failed"]) > 0 {
        println!("{:>5} failed", number(&answer["failed"]));
    }
    if number(&answer["repeated"]) > 0 {
        println!("{:>5} runs were lost and done again", number(&answer["repeated"]));
    }
    let id = text(&answer["build"]["id"]);
    match answer["example"].as_str() {
        Some(file) => println!("next: potluck explain {file}   ·   potluck report {id}"),
        None => println!("next: potluck report {id}"),
    }
}

const KINDS: [&str; 4] = ["remote", "here", "only", "failed"];

/// The Trace Event Format: a machine is a process, a row of the timeline a thread.
fn trace(report: &Value, jobs: &Value) -> String {
    let mut events = Vec::new();
    for (pid, name) in list(&jobs["machines"]).iter().enumerate() {
        events.push(json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}));
    }
    for at in 0..list(&jobs["start_ms"]).len() {
        let of = |column: &str| &jobs[column][at];
        events.push(json!({
            "ph": "X", "name": of("file"), "pid": of("machine"), "tid": of("lane"),
            "cat": KINDS[(number(of("kind")) as usize).min(3)],
            "ts": number(of("start_ms")) * 1000, "dur": number(of("took_ms")) * 1000,
            "args": {
                "reason": jobs["reasons"][number(of("reason")) as usize], "wait_ms": of("wait_ms"),
                "travel_ms": of("travel_ms"), "compile_ms": of("compile_ms"), "repeats": of("repeats"),
            },
        }));
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"build": report["build"]}}).to_string()
}

fn csv(jobs: &Value) -> String {
    let quoted = |value: &Value| format!("\"{}\"", text(value).replace('"', "\"\""));
    let numbers =
        ["start_ms", "took_ms", "lane", "wait_ms", "understand_ms", "travel_ms", "compile_ms", "finish_ms", "repeats"];
    let mut out = format!("file,kind,machine,reason,{}\r\n", numbers.join(","));
    for at in 0..list(&jobs["start_ms"]).len() {
        let of = |column: &str| &jobs[column][at];
        let named = |names: &str, column: &str| quoted(&jobs[names][number(of(column)) as usize]);
        out.push_str(&format!(
            "{},{},{},{}",
            quoted(of("file")),
            KINDS[(number(of("kind")) as usize).min(3)],
            named("machines", "machine"),
            named("reasons", "reason")
        ));
        for column in numbers {
            out.push_str(&format!(",{}", of(column)));
        }
        out.push_str("\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_name_stays_one_field() {
        let jobs = json!({
            "machines": ["me"], "reasons": ["", "link"], "start_ms": [1], "took_ms": [2], "kind": [2], "machine": [0],
            "lane": [0], "reason": [1], "file": ["a,\"b\".c"], "wait_ms": [0], "understand_ms": [0], "travel_ms": [0],
            "compile_ms": [2], "finish_ms": [0], "repeats": [0],
        });
        let text = csv(&jobs);
        assert_eq!(text.lines().nth(1), Some("\"a,\"\"b\"\".c\",only,\"me\",\"link\",1,2,0,0,0,0,2,0,0"));
        let trace: Value = serde_json::from_str(&trace(&json!({}), &jobs)).unwrap();
        assert_eq!(trace["traceEvents"][1]["dur"], 2000);
    }

    #[test]
    fn names_from_outside_fit_their_column_and_move_no_cursor() {
        assert_eq!(fitted("a\x1b[2Jb", 6), "a[2Jb ");
        assert_eq!(fitted("abcdefgh", 4), "abc…");
    }
}
