//! Members that send without end, each kind of message there is, to a real node: each is marked, cut off and kept away, and
//! whoever sits at the node is answered meanwhile.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Node;
use potluck_node::identity::Identity;
use potluck_node::membership::Membership;
use potluck_node::membership::invite::JoinLink;
use potluck_node::transport;
use potluck_wire::pool::frame::Kind;
use potluck_wire::pool::{self, Chunk, Frame};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A flood that goes on for so long on a busy machine was not noticed.
const CUT_WITHIN: Duration = Duration::from_secs(30);

struct Member {
    membership: Arc<Membership>,
    _dir: tempfile::TempDir,
}

impl Member {
    async fn join(node: &Node) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::load_or_create(dir.path()).unwrap());
        let membership = Arc::new(Membership::open(identity, dir.path()).unwrap());
        let invite = node.call(&json!({"call": "team_invite", "uses": 1, "expires_s": 600}));
        let link: JoinLink = invite["link"].as_str().unwrap_or_else(|| panic!("{invite}")).parse().unwrap();
        transport::join(&membership, &link, "flood", &[]).await.unwrap();
        Self { membership, _dir: dir }
    }

    fn id(&self) -> String {
        self.membership.identity().id().to_string()
    }
}

fn founder() -> (Node, SocketAddr) {
    let node = Node::start(&["--listen", "127.0.0.1:0", "--no-discovery"]);
    assert_eq!(node.call(&json!({"call": "team_create", "name": "floods"}))["ok"], true);
    let ready = node.said.iter().find_map(|line| line.strip_prefix("potluck node ready on ")).unwrap();
    let address = ready.parse().unwrap();
    (node, address)
}

/// The node's marks of this member.
fn marks(node: &Node, id: &str) -> Value {
    let status = node.call(&json!({"call": "status"}));
    let all = status["floods"].as_array().unwrap_or_else(|| panic!("{status}")).clone();
    all.into_iter().find(|one| one["id"] == id).unwrap_or_default()
}

fn hello() -> Frame {
    let hello = pool::Hello { major: 1, name: "flood".into(), arch: "x86_64".into(), ..pool::Hello::default() };
    Frame { kind: Some(Kind::Hello(hello)) }
}

/// Sends until the node hangs up; for how long that was.
async fn flood(member: &Member, address: SocketAddr, name: &str, make: impl Fn(u64) -> Frame) -> Duration {
    let link = transport::dial(&member.membership, address, None).await.unwrap();
    let transport::Link { control_tx, mut control_rx, closer, .. } = link;
    control_tx.send(hello()).await.unwrap();
    tokio::spawn(async move { while control_rx.recv().await.is_some() {} });
    let began = Instant::now();
    let mut n = 0;
    let sending = async {
        while control_tx.send(make(n)).await.is_ok() {
            n += 1;
        }
    };
    let is_over = timeout(CUT_WITHIN, sending).await.is_ok();
    assert!(is_over, "{name}: nobody minded {n} of them in {CUT_WITHIN:?}");
    drop(closer);
    began.elapsed()
}

/// Somebody at the node asks all the time; the longest that an answer took.
fn asking(node: &Arc<Node>) -> (Arc<AtomicBool>, std::thread::JoinHandle<Duration>) {
    let (node, over) = (Arc::clone(node), Arc::new(AtomicBool::new(false)));
    let stop = Arc::clone(&over);
    let thread = std::thread::spawn(move || {
        let mut worst = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            node.call(&json!({"call": "status"}));
            worst = worst.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        worst
    });
    (over, thread)
}

type Make = Box<dyn Fn(u64) -> Frame>;

/// All kinds but demands and credits: those have so high a rate that a busy machine reads them more slowly anyway.
fn kinds(useless: Vec<Vec<u8>>) -> Vec<(&'static str, Make)> {
    fn frame(kind: Kind) -> Frame {
        Frame { kind: Some(kind) }
    }
    let content = vec![7; 300_000];
    vec![
        ("pings", Box::new(|id| frame(Kind::Ping(pool::Ping { id })))),
        ("pongs", Box::new(|id| frame(Kind::Pong(pool::Pong { id })))),
        ("pulses", Box::new(|n| frame(Kind::Pulse(pool::Pulse { running: n as u32, ..pool::Pulse::default() })))),
        ("greetings", Box::new(|_| hello())),
        ("mirror queries", Box::new(|_| frame(Kind::MirrorQuery(pool::MirrorQuery {})))),
        (
            "results of nothing",
            Box::new(move |id| {
                let outputs = vec![pool::Harvested { content: Some(content.clone()), ..pool::Harvested::default() }];
                frame(Kind::Result(pool::Result { id, outputs, ..pool::Result::default() }))
            }),
        ),
        ("refusals", Box::new(|id| frame(Kind::Refused(pool::Refused { id, ..pool::Refused::default() })))),
        (
            "receipts",
            Box::new(|n| {
                let digest = [n.to_be_bytes(); 4].concat();
                frame(Kind::BlobStored(pool::BlobStored { digest, error: String::new() }))
            }),
        ),
        ("jobs", Box::new(|id| frame(Kind::Job(pool::Job { id, ..pool::Job::default() })))),
        ("unknown", Box::new(|_| Frame { kind: None })),
        (
            "statements",
            Box::new(move |_| {
                frame(Kind::Gossip(pool::Gossip { membership: Vec::new(), statements: useless.clone() }))
            }),
        ),
    ]
}

/// Statements that are rightly signed and say nothing that counts any more.
fn outdated(member: &Member) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for n in 0..200 {
        member.membership.rename(&format!("flood {n}"), &[]).unwrap();
        all.extend(member.membership.all());
    }
    all.sort();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_floods_is_marked_and_cut_off_and_stays_away() {
    let (node, address) = founder();
    let node = Arc::new(node);
    let useless = outdated(&Member::join(&node).await);
    for (name, make) in kinds(useless) {
        let member = Member::join(&node).await;
        let (over, asked) = asking(&node);
        let took = flood(&member, address, name, make).await;
        over.store(true, Ordering::Relaxed);
        let worst = asked.join().unwrap();
        println!("{name}: cut off after {took:?}; status took at most {worst:?}");
        // The link may have ended a moment before the node says so.
        let marked = (0..50).find(|_| {
            std::thread::sleep(Duration::from_millis(20));
            marks(&node, &member.id())["floods"] == 1
        });
        assert!(marked.is_some(), "{name}: {}", marks(&node, &member.id()));
        let again = transport::dial(&member.membership, address, None).await;
        assert!(again.is_err(), "{name}: it is let in again at once");
        // A machine that builds something else at the same time is slow; a core that is busy with a flood is slower.
        assert!(worst < Duration::from_secs(3), "{name}: status took {worst:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_nobody_asked_for_and_frames_without_content_are_floods_too() {
    let (node, address) = founder();
    let member = Member::join(&node).await;
    let link = transport::dial(&member.membership, address, None).await.unwrap();
    link.control_tx.send(hello()).await.unwrap();
    let mut transfer = 0;
    let sending = async {
        loop {
            transfer += 1;
            let data = vec![7; 64 << 10].into();
            let chunk = Chunk { transfer, data, total: 1 << 20, ..Chunk::default() };
            if link.bulk_tx.send(chunk).await.is_err() {
                return;
            }
        }
    };
    timeout(CUT_WITHIN, sending).await.expect("nobody minded");

    // HTTP/2 pings, which no message follows.
    let pinger = Member::join(&node).await;
    let mut stream = transport::connect(&pinger.membership, address, None).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await.unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(1000);
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::spawn(async move {
        let mut space = vec![0; 64 << 10];
        while matches!(read.read(&mut space).await, Ok(n) if n > 0) {}
    });
    let mut pings = 0_u64;
    let sending = async {
        while write.write_all(&ping).await.is_ok() {
            pings += 1000;
        }
    };
    timeout(CUT_WITHIN, sending).await.expect("nobody minded");
    println!("{transfer} pieces, {pings} HTTP/2 pings");
    assert_eq!(node.call(&json!({"call": "status"}))["schema"], 1);
}
