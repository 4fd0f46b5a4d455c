//! Jobs into builds: what belongs together, how it ended, and that every number of a report adds up.

use std::time::Duration;

use potluck_model::builds::report::{self, alone_ms, findings, lanes, reasons, saved_ms};
use potluck_model::builds::root::{Ancestor, root_of};
use potluck_model::builds::*;
use proptest::prelude::*;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn root(pid: u32) -> Root {
    Root { pid, started: u64::from(pid) * 10 }
}

fn from(root: Option<Root>, cwd: &str) -> Origin<'_> {
    Origin { run: None, root, session: 7, cwd: cwd.as_bytes() }
}

fn chain(names: &[(u32, &str)]) -> Vec<Ancestor> {
    names.iter().map(|(pid, name)| Ancestor { root: root(*pid), session: 7, name: (*name).to_owned() }).collect()
}

#[test]
fn one_root_is_one_build_wherever_its_jobs_run() {
    let mut groups = Groups::default();
    let (key, is_new) = groups.join(s(0), &from(Some(root(1)), "/p"));
    assert!(is_new);
    assert_eq!(groups.join(s(40), &from(Some(root(1)), "/p/sub")), (key, false));
    let other = groups.join(s(41), &from(Some(root(2)), "/p"));
    assert!(other.1 && other.0 != key, "two makes at the same time are two builds");
}

#[test]
fn potluck_run_is_its_build_whatever_the_processes_say() {
    let mut groups = Groups::default();
    let run = |pid, cwd| Origin { run: Some("b7f3k2"), ..from(Some(root(pid)), cwd) };
    let key = groups.begin(s(0), &run(1, "/p"), true);
    assert_eq!(groups.join(s(1), &run(2, "/p")), (key, false));
    assert_eq!(groups.join(s(90), &run(3, "/q")), (key, false));
    groups.ended(key, s(91), false);
    groups.ended(key, s(91), false);
    assert_eq!(groups.over(s(900)), [], "only its own end ends it");
    groups.close(key);
    assert!(groups.join(s(901), &run(4, "/p")).1);
}

#[test]
fn commands_without_a_root_belong_together_if_they_come_close() {
    let mut groups = Groups::default();
    let (key, _) = groups.join(s(0), &from(None, "/p"));
    assert_eq!(groups.join(s(2), &from(None, "/p")), (key, false));
    assert!(groups.join(s(3), &from(None, "/q")).1, "another directory");
    assert!(groups.join(s(6), &from(None, "/p")).1, "3 s and more later");
}

#[test]
fn make_after_make_in_one_directory_goes_on_and_ends_once() {
    let mut groups = Groups::default();
    let (key, _) = groups.join(s(0), &from(Some(root(1)), "/p"));
    groups.ended(key, s(1), false);
    groups.root_ended(root(1), s(1));
    assert_eq!(groups.over(s(2)), []);
    assert_eq!(groups.join(s(3), &from(Some(root(2)), "/p")), (key, false));
    groups.ended(key, s(4), false);
    assert_eq!(groups.over(s(30)), [], "its new root lives");
    groups.root_ended(root(2), s(31));
    assert_eq!(groups.over(s(34)), [(key, false)]);
    assert_eq!(groups.over(s(99)), []);
}

#[test]
fn silence_ends_a_build_whose_root_lives_on() {
    let mut groups = Groups::default();
    let (key, _) = groups.join(s(0), &from(Some(root(1)), "/p"));
    assert_eq!(groups.over(s(500)), [], "a job runs");
    groups.ended(key, s(500), false);
    assert_eq!(groups.over(s(559)), []);
    assert_eq!(groups.over(s(560)), [(key, false)]);
    assert!(groups.join(s(561), &from(Some(root(1)), "/p")).1);
}

#[test]
fn what_was_cut_with_its_root_is_cancelled_and_what_failed_is_failed() {
    let mut groups = Groups::default();
    let (key, _) = groups.join(s(0), &from(Some(root(1)), "/p"));
    groups.ended(key, s(1), true);
    groups.root_ended(root(1), s(1));
    assert_eq!(groups.over(s(5)), [(key, true)]);
    // A compile that was killed alone, while its build went on.
    let (key, _) = groups.join(s(10), &from(Some(root(2)), "/p"));
    groups.ended(key, s(11), true);
    groups.join(s(12), &from(Some(root(2)), "/p"));
    groups.ended(key, s(13), false);
    groups.root_ended(root(2), s(13));
    assert_eq!(groups.over(s(20)), [(key, false)]);
    assert_eq!(end_of(None, 0, true), End::Cancelled);
    assert_eq!(end_of(None, 1, false), End::Failed);
    assert_eq!(end_of(Some(0), 1, true), End::Ok);
    assert_eq!(end_of(Some(2), 0, false), End::Failed);
    assert_eq!(end_of(Some(130), 0, false), End::Cancelled);
}

#[test]
fn the_outermost_build_program_of_the_session_is_the_root() {
    let of = |names: &[(u32, &str)]| root_of(&chain(names)).map(|r| r.pid);
    assert_eq!(of(&[(90, "sh"), (80, "make"), (70, "make"), (60, "build.sh"), (7, "bash")]), Some(70));
    assert_eq!(of(&[(90, "sh"), (60, "configure"), (7, "bash")]), Some(60), "a script without make");
    assert_eq!(of(&[(7, "bash")]), None, "typed into a shell");
    assert_eq!(of(&[(7, "make")]), Some(7), "a container's first process");
    assert_eq!(of(&[]), None);
    let mut far = chain(&[(90, "ninja"), (60, "clangd")]);
    far.push(Ancestor { root: root(3), session: 3, name: "make".to_owned() });
    assert_eq!(root_of(&far).map(|r| r.pid), Some(90), "another session is none of ours");
}

#[test]
fn ids_and_names_from_outside_are_short_and_plain() {
    assert_eq!(id_of(0), "b00000");
    assert_eq!(id_of(u64::MAX).len(), 6);
    assert_eq!(id_given(b"ci-17.a_B"), Some("ci-17.a_B"));
    for bad in [&b""[..], b"a b", b"../x", "ä".as_bytes(), &[b'a'; 65]] {
        assert_eq!(id_given(bad), None);
    }
    assert_eq!(name_given(" wine\n\x1b[1m ").as_deref(), Some("wine[1m"));
    assert_eq!(name_given(" \n"), None);
}

fn job(start_ms: u32, took_ms: u32, kind: Kind, machine: u16) -> Job {
    Job {
        start_ms,
        took_ms,
        kind,
        machine,
        reason: u16::from(matches!(kind, Kind::Only)),
        file: format!("f{start_ms}.c"),
        wait_ms: 0,
        understand_ms: 0,
        travel_ms: 0,
        compile_ms: took_ms,
        finish_ms: 0,
        repeats: 0,
        exit: None,
        probe: false,
    }
}

#[test]
fn alone_is_what_a_list_schedule_of_the_same_jobs_needs() {
    // 40 jobs of 2 s, all at once on other machines: 4 cores here need 10 rounds of 2 s.
    let mut jobs: Vec<Job> = (0..40).map(|_| job(0, 2000, Kind::Remote, 1)).collect();
    let same = [Some(1.0), Some(1.0)];
    assert_eq!(alone_ms(&jobs, 16_000, 4, &same), Some(20_000 + 14_000), "where nothing ran, nothing would have run");
    let half = [Some(1.0), Some(0.5)];
    assert_eq!(alone_ms(&jobs, 16_000, 4, &half), Some(10_000 + 14_000), "a slow machine's seconds count half");
    assert_eq!(saved_ms(Some(34_000), 16_000), Some(18_000));
    assert_eq!(saved_ms(Some(15_000), 16_000), None);
    assert_eq!(alone_ms(&jobs, 14_999, 4, &same), None, "too short");
    assert_eq!(alone_ms(&jobs, 16_000, 4, &[Some(1.0), None]), None, "never measured");
    jobs.truncate(19);
    assert_eq!(alone_ms(&jobs, 16_000, 4, &same), None, "too few");
}

#[test]
fn findings_are_true_and_have_numbers() {
    let names = ["".to_owned(), "link".to_owned(), "toolchain-not-synced".to_owned()];
    let mut jobs: Vec<Job> = (0..4).map(|n| job(n, 5000, Kind::Remote, 1)).collect();
    jobs[2].wait_ms = 900;
    jobs[3].repeats = 1;
    jobs.push(Job { reason: 2, ..job(10, 3000, Kind::Here, 0) });
    jobs.push(Job { file: "prog".to_owned(), ..job(5100, 31_000, Kind::Only, 0) });
    let said = findings(&jobs, 36_100, &names);
    assert_eq!(
        said,
        [
            "Linking prog ran alone for 31.0 s: nothing else was there to run",
            "1 job ran here because of toolchain-not-synced: 3.0 s of compiling",
            "1 job waited 0.4 s or more for a free core, at most 0.9 s",
        ]
    );
    assert_eq!(findings(&[job(0, 100, Kind::Remote, 1)], 100, &names), Vec::<String>::new());
}

#[test]
fn a_build_fell_back_where_most_of_what_could_travel_stayed_for_a_reason_that_can_be_mended() {
    let codes = ["", "link", "toolchain-not-synced", "no-free-slot", "plugin"];
    let names: Vec<String> = codes.iter().map(|code| (*code).to_owned()).collect();
    let here = |reason, count| (0..count).map(move |n| Job { reason, ..job(n, 10, Kind::Here, 0) });
    let fell = |jobs: Vec<Job>| report::fell_back(&jobs, &names).map(|r| r.code());
    let elsewhere = || (0..10).map(|n| job(n, 10, Kind::Remote, 1));
    let links = || (0..50).map(|n| job(n, 10, Kind::Only, 0));
    assert_eq!(fell(elsewhere().chain(here(2, 10)).chain(links()).collect()), None, "a half is not most");
    assert_eq!(fell(elsewhere().chain(here(2, 11)).chain(links()).collect()), Some("toolchain-not-synced"));
    assert_eq!(fell(elsewhere().chain(here(2, 5)).chain(here(4, 7)).collect()), Some("plugin"), "the most frequent");
    assert_eq!(fell(elsewhere().chain(here(3, 40)).collect()), None, "busy machines are nothing to mend");
    assert_eq!((fell(links().collect()), fell(Vec::new())), (None, None));
}

proptest! {
    #[test]
    fn bars_of_one_row_never_overlap_and_reasons_add_up(
        mut list in proptest::collection::vec((0u32..5000, 0u32..400, 0u8..4, 0u16..3), 0..200),
    ) {
        list.sort_unstable();
        let kinds = [Kind::Remote, Kind::Here, Kind::Only, Kind::Failed];
        let jobs: Vec<Job> = list.iter().map(|(at, took, kind, m)| job(*at, *took, kinds[usize::from(*kind)], *m)).collect();
        let rows = lanes(&jobs);
        prop_assert_eq!(rows.len(), jobs.len());
        for (a, first) in jobs.iter().enumerate() {
            for (b, second) in jobs.iter().enumerate().skip(a + 1) {
                if first.machine == second.machine && rows[a] == rows[b] {
                    prop_assert!(first.start_ms + first.took_ms <= second.start_ms);
                }
            }
        }
        let mut counts = Counts::default();
        jobs.iter().for_each(|j| counts.add(j.kind));
        prop_assert_eq!(counts.total() as usize, jobs.len());
        prop_assert_eq!(report::reasons(&jobs).iter().map(|r| r.jobs).sum::<u32>(), counts.here + counts.only);
        prop_assert_eq!(reasons(&jobs).len(), reasons(&jobs).iter().map(|r| r.reason).collect::<std::collections::HashSet<_>>().len());
    }
}
