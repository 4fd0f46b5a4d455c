//! A PC that its team has removed and that does not stop: real nodes, real compilers, and somebody with its key.

mod pool;
mod programs;
mod tree_space;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pool::{Pc, copy_of, delegated, hello, local_object, say, team, until, write_sources};
use potluck_node::transport::{Link, dial, tls};
use potluck_wire::pool::{self as wire, frame::Kind};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tree_space::Space;

/// A removed PC's connections are closed everywhere where it can be reached within this time.
const REMOVED_MAX: Duration = Duration::from_secs(5);
const SLOW: [&str; 4] = ["s0", "s1", "s2", "s3"];
const SHORT: [&str; 2] = ["a", "b"];

#[test]
fn a_removed_worker_is_cut_off_in_five_seconds_and_its_jobs_end_elsewhere_with_the_right_objects() {
    if delegated("a_removed_worker_is_cut_off_in_five_seconds_and_its_jobs_end_elsewhere_with_the_right_objects") {
        return;
    }
    let space = Space::new("removal-worker");
    let keeper = Pc::start(&space, "keeper", &["--serve", "0", "--local-compiles", "0"]);
    let stays = Pc::start(&space, "stays", &["--serve", "2"]);
    let removed = Pc::start(&space, "removed", &["--serve", "2"]);
    team(&keeper, &[&stays, &removed]);
    let (stays_id, removed_id) = (stays.id(), removed.id());
    let project = space.path("project");
    write_sources(&project, &SLOW, &SHORT);
    keeper.says(&["toolchain", "add", "/usr/bin/gcc"]);
    keeper.says(&["toolchain", "sync"]);
    let right: Vec<Vec<u8>> = SLOW.iter().chain(&SHORT).map(|name| local_object(&project, name)).collect();

    let cut_off = std::thread::scope(|scope| {
        let compiles: Vec<_> = SLOW
            .iter()
            .map(|name| {
                let (keeper, project) = (&keeper, &project);
                scope.spawn(move || keeper.compile(project, name, &format!("{name}.o")))
            })
            .collect();
        // Both its slots are full of jobs that have seconds to go.
        until("jobs on the worker that is removed", || keeper.peer(&removed_id).filter(|p| p["running"] == 2));
        until("compilers there", || (removed.json(&["status"])["served"]["running"] == 2).then_some(()));
        let start = Instant::now();
        keeper.says(&["team", "remove", "removed"]);
        until("it is cut off at both others and knows of nobody", || {
            let cut = |pc: &Pc| pc.peer(&removed_id).is_none_or(|p| p["connected"] != true);
            (cut(&keeper) && cut(&stays) && !removed.is_linked()).then_some(())
        });
        let cut_off = start.elapsed();
        until("its jobs are over there", || (removed.json(&["status"])["served"]["running"] == 0).then_some(()));
        for compile in compiles {
            let output = compile.join().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
        cut_off
    });
    println!("cut off after {cut_off:?}");
    assert!(cut_off <= REMOVED_MAX, "{cut_off:?}");
    for (name, right) in SLOW.iter().zip(&right) {
        assert!(fs::read(project.join(format!("{name}.o"))).unwrap() == *right, "{name}.o differs from gcc's");
    }
    // It had jobs whose results nobody took: each ended at the other worker, and was given up here by no one.
    let ran_here =
        |records: &[serde_json::Value]| records.iter().filter(|r| r["worker"] == removed_id.as_str()).count();
    let records = keeper.records("submitter");
    assert_eq!((records.len(), ran_here(&records)), (SLOW.len(), 0), "{records:#?}");
    assert!(records.iter().all(|r| r["worker"] == stays_id.as_str()), "{records:#?}");

    // What is compiled from now on never goes there, although there was room.
    let served = removed.records("worker").len();
    for (name, right) in SHORT.iter().zip(&right[SLOW.len()..]) {
        let output = keeper.compile(&project, name, &format!("{name}.o"));
        assert!(output.status.success(), "{output:?}");
        assert!(fs::read(project.join(format!("{name}.o"))).unwrap() == *right, "{name}.o differs from gcc's");
        assert_eq!(keeper.last_job(), (true, stays_id.clone()));
    }
    assert_eq!(removed.records("worker").len(), served);

    // What the removed PC submits is compiled by itself, at once and without a word.
    let served = stays.records("worker").len();
    let output = removed.compile(&project, "b", "own.o");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(fs::read(project.join("own.o")).unwrap() == right[SLOW.len() + 1]);
    assert!(!removed.last_job().0, "{:?}", removed.last_job());
    assert_eq!(stays.records("worker").len(), served);
    let problems = removed.json(&["status"])["problems"].clone();
    assert!(problems.as_array().unwrap().iter().any(|p| p["code"] == "R2"), "its owner is told: {problems}");
}

#[test]
fn a_removed_pc_that_goes_on_with_its_old_key_gets_no_word_no_job_and_no_worker() {
    if delegated("a_removed_pc_that_goes_on_with_its_old_key_gets_no_word_no_job_and_no_worker") {
        return;
    }
    let space = Space::new("removal-stubborn");
    let keeper = Pc::start(&space, "keeper", &["--serve", "0", "--local-compiles", "0"]);
    let worker = Pc::start(&space, "worker", &["--serve", "2"]);
    let mut removed = Pc::start(&space, "removed", &["--serve", "0"]);
    team(&keeper, &[&worker, &removed]);
    let copy = copy_of(&removed, &space.path("copy"));
    let address = removed.address.clone();
    // Whoever has the key now is no node of ours.
    removed.stop();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dialled = |pc: &Pc| {
        let to: SocketAddr = pc.address.parse().unwrap();
        runtime.block_on(async { dial(&copy, to, None).await })
    };
    // Links that stand, greeted, and with a slot that is asked for; they are held as long as the others let them be.
    let mut links: Vec<Link> = [&keeper, &worker].map(|pc| dialled(pc).unwrap()).into();
    for link in &mut links {
        assert!(say(link, hello()) && say(link, Kind::Demand(wire::Demand { slots: 2 })));
        // Heard: they are members' links.
        assert!(runtime.block_on(link.control_rx.recv()).is_some());
    }
    let start = Instant::now();
    keeper.says(&["team", "remove", "removed"]);
    for link in &mut links {
        let over = async { while link.control_rx.recv().await.is_some() {} };
        let over = runtime.block_on(async { tokio::time::timeout(REMOVED_MAX, over).await });
        assert!(over.is_ok(), "a link of a removed PC is open after {:?}", start.elapsed());
    }
    assert!(start.elapsed() <= REMOVED_MAX, "{:?}", start.elapsed());

    // It submits: no handshake of its ends in a link, at nobody's.
    for pc in [&keeper, &worker] {
        for _ in 0..3 {
            // The client's side of TLS 1.3 may be done before the other has looked at its key: then nothing is heard.
            let Ok(mut link) = dialled(pc) else { continue };
            say(&link, hello());
            assert!(runtime.block_on(link.control_rx.recv()).is_none(), "a removed PC is spoken to");
        }
    }

    // It serves: where it was reached before, with its key, and whoever comes is welcome.
    let heard = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let config = tls::server(&copy.identity(), tls::ALPN_POOL, Arc::new(|_| true)).unwrap();
    let counted = Arc::clone(&heard);
    let listener = runtime.block_on(TcpListener::bind(&address)).unwrap();
    runtime.spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        while let Ok((tcp, _)) = listener.accept().await {
            let mut said = [0; 4096];
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let bytes = stream.read(&mut said).await.unwrap_or(0);
                counted.1.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            counted.0.fetch_add(1, Ordering::Relaxed);
        }
    });
    // The keeper's owner even asks for it.
    keeper.says(&["peers", "add", &address]);
    until("the keeper's node dials the address", || (heard.0.load(Ordering::Relaxed) > 0).then_some(()));
    let project = space.path("project");
    write_sources(&project, &[], &["a"]);
    let right = local_object(&project, "a");
    let worker_id = worker.id();
    until("the worker that stays", || keeper.peer(&worker_id).filter(|p| p["slots"] == 2));
    keeper.says(&["toolchain", "add", "/usr/bin/gcc"]);
    keeper.says(&["toolchain", "sync"]);
    let output = keeper.compile(&project, "a", "a.o");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(keeper.last_job(), (true, worker_id));
    assert!(fs::read(project.join("a.o")).unwrap() == right);
    assert_eq!(heard.1.load(Ordering::Relaxed), 0, "bytes were sent to a removed PC");
}
