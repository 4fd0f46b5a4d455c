//! Nodes of a team over real sockets: joining, links, and who is kept out.

mod team_space;

use std::time::{Duration, Instant};

use potluck_model::limits::{BULK_CHUNK_BYTES, CONNECTIONS_PER_PEER_MAX, LOST_BUSY};
use potluck_node::membership::MembershipError;
use potluck_node::membership::invite::{JoinLink, Secret};
use potluck_node::transport::{self, ConnectError, JoinError, Link, LinkError, dial, tls};
use potluck_wire::pool::frame::Kind;
use potluck_wire::pool::{Chunk, Frame, Hello, Ping, Pong};
use potluck_wire::team::{JoinConfirm, JoinOffer, JoinRefusal, JoinWelcome};
use team_space::{Node, PATIENCE, all_bytes, receive, request, send, stranger};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Two nodes of one team and a link between them, as each side sees it.
async fn pair() -> (Node, Node, Link, Link) {
    let mut founder = Node::founder().await;
    let other = Node::start().await;
    other.join(&founder.invite(1)).await.unwrap();
    let dialed = dial(&other.membership, founder.addr, Some(founder.id())).await.unwrap();
    let accepted = founder.accepted().await;
    (founder, other, dialed, accepted)
}

fn frame(kind: Kind) -> Frame {
    Frame { kind: Some(kind) }
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> Option<T> {
    timeout(PATIENCE, receiver.recv()).await.expect("something in time")
}

#[tokio::test]
async fn two_nodes_join_by_a_link_and_talk_both_ways() {
    let (founder, other, mut dialed, mut accepted) = pair().await;
    assert_eq!(founder.membership.view(), other.membership.view());
    let names: Vec<_> = founder.membership.list().members.into_iter().map(|m| m.name).collect();
    assert!(names.contains(&"founder".to_owned()) && names.contains(&"joiner".to_owned()));
    assert_eq!((dialed.peer, dialed.dialed), (founder.id(), true));
    assert_eq!((accepted.peer, accepted.dialed), (other.id(), false));
    assert_eq!(dialed.remote_addr, founder.addr);

    let hello = frame(Kind::Hello(Hello { name: "joiner".into(), ..Hello::default() }));
    dialed.control_tx.send(hello.clone()).await.unwrap();
    assert_eq!(next(&mut accepted.control_rx).await, Some(hello));
    let pong = frame(Kind::Pong(Pong { id: 7 }));
    accepted.control_tx.send(pong.clone()).await.unwrap();
    assert_eq!(next(&mut dialed.control_rx).await, Some(pong));

    let chunk = Chunk { transfer: 1, data: vec![5; BULK_CHUNK_BYTES].into(), last: true, ..Chunk::default() };
    dialed.bulk_tx.send(chunk.clone()).await.unwrap();
    assert_eq!(next(&mut accepted.bulk_rx).await, Some(chunk.clone()));
    accepted.bulk_tx.send(chunk.clone()).await.unwrap();
    assert_eq!(next(&mut dialed.bulk_rx).await, Some(chunk));
}

#[tokio::test]
async fn dropping_a_link_ends_it_at_the_other_side() {
    let (_founder, _other, dialed, mut accepted) = pair().await;
    drop(dialed);
    assert_eq!(next(&mut accepted.control_rx).await, None);
    assert_eq!(next(&mut accepted.bulk_rx).await, None);
    timeout(PATIENCE, accepted.closer.closed()).await.unwrap();
}

#[tokio::test]
async fn an_oversized_chunk_ends_the_link() {
    let (_founder, _other, dialed, mut accepted) = pair().await;
    let chunk = Chunk { data: vec![0; BULK_CHUNK_BYTES + 1].into(), ..Chunk::default() };
    dialed.bulk_tx.send(chunk).await.unwrap();
    assert_eq!(next(&mut accepted.bulk_rx).await, None);
    timeout(PATIENCE, dialed.closer.closed()).await.unwrap();
}

#[tokio::test]
async fn a_removed_members_connections_end_on_both_sides() {
    let (founder, other, mut dialed, mut accepted) = pair().await;
    founder.membership.remove(other.id()).unwrap();
    assert_eq!(next(&mut accepted.control_rx).await, None);
    assert_eq!(next(&mut dialed.control_rx).await, None);
    let again = dial(&other.membership, founder.addr, Some(founder.id())).await;
    assert!(matches!(again, Err(LinkError::Refused(_) | LinkError::Connect(ConnectError::Handshake(..)))), "{again:?}");
    // Once it knows, it does not even try.
    other.membership.merge(founder.membership.all()).unwrap();
    let again = dial(&other.membership, founder.addr, Some(founder.id())).await;
    assert!(matches!(again, Err(LinkError::Connect(ConnectError::WrongNode(_)))), "{again:?}");
    let again = other.join(&founder.invite(1)).await;
    assert!(matches!(again, Err(JoinError::Membership(MembershipError::Removed))), "{again:?}");
}

#[tokio::test]
async fn members_that_have_not_met_connect_once_gossip_has_told_them() {
    let founder = Node::founder().await;
    let (mut a, b) = (Node::start().await, Node::start().await);
    let link = founder.invite(2);
    a.join(&link).await.unwrap();
    // The same address may try again a second later; until then it waits.
    b.join(&link).await.unwrap();
    let early = dial(&b.membership, a.addr, Some(a.id())).await;
    assert!(early.is_err(), "a does not know b yet");
    a.membership.merge(b.membership.all()).unwrap();
    let dialed = dial(&b.membership, a.addr, None).await.unwrap();
    assert_eq!(dialed.peer, a.id());
    assert_eq!(a.accepted().await.peer, b.id());
}

#[tokio::test]
async fn another_node_than_the_expected_one_is_refused() {
    let founder = Node::founder().await;
    let (a, b) = (Node::start().await, Node::start().await);
    let link = founder.invite(2);
    a.join(&link).await.unwrap();
    let wrong = dial(&a.membership, founder.addr, Some(a.id())).await;
    assert!(matches!(wrong, Err(LinkError::Connect(ConnectError::WrongNode(_)))), "{wrong:?}");
    // A machine in the middle answers at the keeper's address.
    let middle = JoinLink { via: vec![b.addr.to_string()], ..link.clone() };
    let joiner = Node::start().await;
    let wrong = joiner.join(&middle).await;
    assert!(matches!(wrong, Err(JoinError::WrongNode(_))), "{wrong:?}");
    assert!(!joiner.membership.view().joined);
    joiner.join(&link).await.expect("the use is still there");
}

#[tokio::test]
async fn a_link_works_as_often_as_it_says() {
    let founder = Node::founder().await;
    let (a, b) = (Node::start().await, Node::start().await);
    let link = founder.invite(1);
    let guessed = JoinLink { secret: Secret([1; 16]), ..link.clone() };
    assert!(matches!(a.join(&guessed).await, Err(JoinError::Refused(JoinRefusal::JoinInviteInvalid))));
    a.join(&link).await.unwrap();
    assert!(matches!(b.join(&link).await, Err(JoinError::Refused(JoinRefusal::JoinInviteInvalid))));
    let elsewhere = Node::founder().await;
    assert!(matches!(a.join(&elsewhere.invite(1)).await, Err(JoinError::Membership(MembershipError::InTeam(_)))));
    let gone = JoinLink { via: vec!["127.0.0.1:1".into()], ..link };
    assert!(matches!(b.join(&gone).await, Err(JoinError::Unreachable(tried)) if tried.len() == 1));
}

#[tokio::test]
async fn a_stranger_is_refused_before_any_application_byte() {
    let mut founder = Node::founder().await;
    let stray = Node::start().await;
    // The handshake may look finished to the client, which is told of the refusal right after it.
    if let Ok(mut stream) = stranger(&stray.membership.identity(), tls::ALPN_POOL, founder.addr).await {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let _ = stream.write_all(preface).await;
        assert_eq!(all_bytes(&mut stream).await, b"");
    }
    assert!(stranger(&stray.membership.identity(), b"h2", founder.addr).await.is_err());
    // Not Potluck at all.
    let mut tcp = TcpStream::connect(founder.addr).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = all_bytes(&mut tcp).await;
    assert!(answer.len() < 16 && !answer.starts_with(b"HTTP"), "at most a TLS alert: {answer:?}");
    assert!(founder.links.try_recv().is_err());
}

#[tokio::test]
async fn many_failures_of_one_address_are_not_even_heard_and_then_forgiven() {
    let founder = Node::founder().await;
    let stray = Node::start().await;
    let mut unheard = 0;
    for _ in 0..100 {
        unheard += usize::from(stranger(&stray.membership.identity(), b"h2", founder.addr).await.is_err());
    }
    assert_eq!(unheard, 100);
    // Heard again after the window, which `join` finds out by asking until then.
    let link = founder.invite(1);
    let joined = async {
        while let Err(error) = stray.join(&link).await {
            assert!(matches!(error, JoinError::Unreachable(_)), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, joined).await.unwrap();
}

#[tokio::test]
async fn one_peer_holds_only_so_many_connections() {
    let mut founder = Node::founder().await;
    let other = Node::start().await;
    other.join(&founder.invite(1)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_PEER_MAX {
        held.push(dial(&other.membership, founder.addr, None).await.unwrap());
        held.push(founder.accepted().await);
    }
    assert!(dial(&other.membership, founder.addr, None).await.is_err());
    held.truncate(2);
    // The slots come back when the connections are over.
    let again = async {
        loop {
            if let Ok(link) = dial(&other.membership, founder.addr, None).await {
                return link;
            }
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn a_connection_without_both_streams_ends() {
    let mut founder = Node::founder().await;
    let other = Node::start().await;
    other.join(&founder.invite(1)).await.unwrap();
    let mut silent = transport::connect(&other.membership, founder.addr, None).await.unwrap();
    let started = Instant::now();
    all_bytes(&mut silent).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(founder.links.try_recv().is_err());
}

#[tokio::test]
async fn a_replayed_or_altered_join_is_refused_and_consumes_nothing() {
    let founder = Node::founder().await;
    let link = founder.invite(1);
    let honest = Node::start().await;
    let identity = &*honest.membership.identity();
    let join_stream = || async { stranger(identity, tls::ALPN_JOIN, founder.addr).await.unwrap() };

    // Captured before it was confirmed.
    let mut first = join_stream().await;
    let captured = request(&first, identity, &link);
    send(&mut first, &captured).await;
    assert_eq!(receive::<JoinOffer>(&mut first).await.refusal(), JoinRefusal::JoinOk);
    drop(first);

    let thief = Node::start().await;
    for by in [identity, &*thief.membership.identity()] {
        let mut replay = stranger(by, tls::ALPN_JOIN, founder.addr).await.unwrap();
        send(&mut replay, &captured).await;
        let offer: JoinOffer = receive(&mut replay).await;
        assert_eq!((offer.refusal(), offer.proof.len()), (JoinRefusal::JoinInviteInvalid, 0));
        assert_eq!(all_bytes(&mut replay).await, b"");
    }
    let mut altered = join_stream().await;
    let mut changed = request(&altered, identity, &link);
    changed.proof[0] ^= 1;
    send(&mut altered, &changed).await;
    assert_eq!(receive::<JoinOffer>(&mut altered).await.refusal(), JoinRefusal::JoinInviteInvalid);

    // Too much, announced or sent.
    let mut large = join_stream().await;
    large.write_u32(17 << 10).await.unwrap();
    assert_eq!(all_bytes(&mut large).await, b"");

    assert_eq!(founder.membership.list().members.len(), 1);
    assert_eq!(founder.membership.list().open_invites, 1);
    let mut last = join_stream().await;
    let proved = request(&last, identity, &link);
    send(&mut last, &proved).await;
    assert_eq!(receive::<JoinOffer>(&mut last).await.refusal(), JoinRefusal::JoinOk);
    send(&mut last, &JoinConfirm::default()).await;
    assert_eq!(receive::<JoinWelcome>(&mut last).await.statements.len(), 2);
    assert_eq!(founder.membership.list().open_invites, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_is_answered_while_200_mib_of_bulk_flow() {
    let (_founder, _other, mut dialed, accepted) = pair().await;
    const CHUNKS: u64 = (200 << 20) / BULK_CHUNK_BYTES as u64;
    let Link { control_tx: pong_tx, control_rx: mut ping_rx, mut bulk_rx, closer, .. } = accepted;
    let echo = tokio::spawn(async move {
        while let Some(Frame { kind: Some(Kind::Ping(Ping { id })) }) = ping_rx.recv().await {
            if pong_tx.send(frame(Kind::Pong(Pong { id }))).await.is_err() {
                return;
            }
        }
    });
    let sink = tokio::spawn(async move {
        let mut bytes = 0u64;
        while let Some(chunk) = bulk_rx.recv().await {
            bytes += chunk.data.len() as u64;
            if chunk.last {
                break;
            }
        }
        bytes
    });
    let bulk_tx = dialed.bulk_tx.clone();
    let source = tokio::spawn(async move {
        let data = bytes_of_bulk();
        for at in 1..=CHUNKS {
            let chunk = Chunk { transfer: 1, data: data.clone(), last: at == CHUNKS, ..Chunk::default() };
            bulk_tx.send(chunk).await.unwrap();
        }
    });
    let mut waits = Vec::new();
    while !sink.is_finished() {
        let (id, sent) = (waits.len() as u64, Instant::now());
        dialed.control_tx.send(frame(Kind::Ping(Ping { id }))).await.unwrap();
        assert_eq!(next(&mut dialed.control_rx).await, Some(frame(Kind::Pong(Pong { id }))));
        waits.push(sent.elapsed());
    }
    source.await.unwrap();
    assert_eq!(sink.await.unwrap(), 200 << 20);
    waits.sort_unstable();
    let (median, worst) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{} pings, median {median:?}, worst {worst:?}", waits.len());
    assert!(waits.len() > 20, "{}", waits.len());
    assert!(worst < LOST_BUSY, "{worst:?}");
    drop((closer, dialed));
    echo.await.unwrap();
}

fn bytes_of_bulk() -> prost::bytes::Bytes {
    vec![0x5a; BULK_CHUNK_BYTES].into()
}

#[tokio::test]
async fn bulk_that_nobody_reads_does_not_stop_control() {
    let (_founder, _other, dialed, mut accepted) = pair().await;
    let bulk_tx = dialed.bulk_tx.clone();
    let data = bytes_of_bulk();
    // Fill every queue and window until nothing more is taken for a while.
    let mut sent = 0;
    while timeout(Duration::from_millis(300), bulk_tx.send(Chunk { data: data.clone(), ..Chunk::default() }))
        .await
        .is_ok()
    {
        sent += 1;
    }
    assert!(sent * BULK_CHUNK_BYTES < 64 << 20, "memory is bounded: {sent} chunks");
    let ping = frame(Kind::Ping(Ping { id: 1 }));
    dialed.control_tx.send(ping.clone()).await.unwrap();
    assert_eq!(next(&mut accepted.control_rx).await, Some(ping));
}
