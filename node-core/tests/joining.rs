//! Joining a team over real sockets: the four pictures, a keeper's yes or no, and who sits in between.

mod team_space;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use potluck_model::limits::{ASKING_PER_ADDRESS_MAX, FAREWELL};
use potluck_model::nearby::TeamTag;
use potluck_model::team::Role;
use potluck_model::team::check::Check;
use potluck_node::membership::door::{Asking, News};
use potluck_node::membership::invite::JoinLink;
use potluck_node::membership::{Membership, MembershipError};
use potluck_node::transport::{self, JoinError, Joined, Pending, Way, dial, enter, tls};
use potluck_wire::team::{JoinConfirm, JoinOffer, JoinRefusal, JoinRequest, JoinWelcome};
use prost::Message;
use team_space::{DAY, Node, PATIENCE, all_bytes, receive, request, send, stranger};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream as ServerStream;

/// A keeper's node, and what happens at its door.
struct Keeper {
    node: Node,
    news: mpsc::UnboundedReceiver<News>,
}

impl Keeper {
    async fn founder() -> Self {
        Self::of(Node::founder().await)
    }

    fn of(node: Node) -> Self {
        let (told, news) = mpsc::unbounded_channel();
        node.membership.door().listen(Box::new(move |item| {
            let _ = told.send(item);
        }));
        Self { node, news }
    }

    fn membership(&self) -> &Arc<Membership> {
        &self.node.membership
    }

    /// Who waits, once it fits.
    async fn waiting(&mut self, fits: impl Fn(&[Asking]) -> bool) -> Vec<Asking> {
        loop {
            let waiting = self.membership().door().waiting();
            if fits(&waiting) {
                return waiting;
            }
            timeout(PATIENCE, self.news.recv()).await.expect("news in time");
        }
    }

    async fn asked(&mut self) -> Asking {
        self.waiting(|waiting| waiting.len() == 1).await.remove(0)
    }

    /// The pictures that it showed of somebody who came in.
    async fn admitted(&mut self) -> (String, Option<Check>) {
        loop {
            match timeout(PATIENCE, self.news.recv()).await.expect("news in time").unwrap() {
                News::Admitted { name, check, .. } => return (name, check),
                News::Changed => {}
            }
        }
    }

    fn invite_with_approval(&self, uses: u32) -> JoinLink {
        let via = [self.node.addr.to_string()];
        self.membership().invite_as(uses, DAY, &via, true).unwrap()
    }
}

type Attempt = JoinHandle<Result<Joined, JoinError>>;

/// Starts to join; what its screen shows comes out of the receiver.
fn start(node: &Node, way: Way) -> (Attempt, mpsc::UnboundedReceiver<Pending>) {
    let (told, shown) = mpsc::unbounded_channel();
    let (membership, addr) = (Arc::clone(&node.membership), node.addr.to_string());
    let attempt = tokio::spawn(async move {
        let pending = move |pending| {
            let _ = told.send(pending);
        };
        enter(&membership, &way, "joiner", &[addr], pending).await
    });
    (attempt, shown)
}

fn ask(addr: SocketAddr) -> Way {
    Way::Ask { vias: vec![addr.to_string()], team: None }
}

async fn ended(attempt: Attempt) -> Result<Joined, JoinError> {
    timeout(PATIENCE, attempt).await.expect("an end in time").unwrap()
}

async fn shown(screen: &mut mpsc::UnboundedReceiver<Pending>) -> Pending {
    timeout(PATIENCE, screen.recv()).await.expect("pictures in time").expect("pictures")
}

#[tokio::test]
async fn both_sides_of_a_join_by_a_link_show_the_same_pictures_afterwards() {
    let mut keeper = Keeper::founder().await;
    let joiner = Node::start().await;
    let (attempt, mut screen) = start(&joiner, Way::Link(keeper.node.invite(1)));
    let joined = ended(attempt).await.unwrap();
    let (name, check) = keeper.admitted().await;
    assert_eq!((name.as_str(), check), ("joiner", joined.check));
    assert!(check.is_some());
    assert_eq!(screen.recv().await, None, "no person was asked");
}

#[tokio::test]
async fn who_asks_without_a_link_waits_for_a_keeper_and_both_see_the_same_pictures() {
    let mut keeper = Keeper::founder().await;
    let joiner = Node::start().await;
    let (attempt, mut screen) = start(&joiner, ask(keeper.node.addr));
    let asking = keeper.asked().await;
    let pending = shown(&mut screen).await;
    assert_eq!((pending.team.as_str(), pending.check), ("Kernel lab", asking.check));
    assert_eq!((asking.name.as_str(), asking.node, asking.invited), ("joiner", joiner.id(), false));
    assert!(!keeper.membership().is_member(joiner.id()), "nobody is in before the yes");
    assert!(keeper.membership().door().answer(asking.id, true));
    assert_eq!(ended(attempt).await.unwrap().check, Some(asking.check));
    assert_eq!(keeper.membership().view(), joiner.membership.view());
    assert!(keeper.membership().door().waiting().is_empty());
}

#[tokio::test]
async fn who_answers_for_a_team_that_is_picked_and_is_of_another_gets_nobody() {
    let (mut impostor, mut keeper) = (Keeper::founder().await, Keeper::founder().await);
    let team = TeamTag::of(keeper.node.invite(1).team);
    let joiner = Node::start().await;
    let by = |addresses: &[SocketAddr]| Way::Ask {
        vias: addresses.iter().map(SocketAddr::to_string).collect(),
        team: Some(team),
    };
    let refused = ended(start(&joiner, by(&[impostor.node.addr])).0).await;
    assert!(matches!(refused, Err(JoinError::OtherTeam)), "{refused:?}");
    assert!(!joiner.membership.view().joined && impostor.membership().door().waiting().is_empty());
    // Whoever is announced behind it is found all the same.
    let (attempt, _screen) = start(&joiner, by(&[impostor.node.addr, keeper.node.addr]));
    let asking = keeper.asked().await;
    keeper.membership().door().answer(asking.id, true);
    assert_eq!(TeamTag::of(ended(attempt).await.unwrap().team), team);
    assert!(impostor.news.try_recv().is_err(), "its keeper was asked");
}

#[tokio::test]
async fn a_keepers_no_keeps_out_and_consumes_no_invitation() {
    let mut keeper = Keeper::founder().await;
    let joiner = Node::start().await;
    let link = keeper.invite_with_approval(1);
    for (way, invited) in [(ask(keeper.node.addr), false), (Way::Link(link.clone()), true)] {
        let (attempt, _screen) = start(&joiner, way);
        let asking = keeper.asked().await;
        assert_eq!(asking.invited, invited);
        keeper.membership().door().answer(asking.id, false);
        let refused = ended(attempt).await;
        assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::JoinDeclined))), "{refused:?}");
    }
    assert_eq!(keeper.membership().list().members.len(), 1);
    assert_eq!(keeper.membership().invites()[0].uses_left, 1);
    // The same link with a yes.
    let (attempt, _screen) = start(&joiner, Way::Link(link));
    let asking = keeper.asked().await;
    keeper.membership().door().answer(asking.id, true);
    ended(attempt).await.unwrap();
    assert!(keeper.membership().invites().is_empty());
}

#[tokio::test]
async fn an_invitation_that_was_taken_back_lets_nobody_in_not_even_who_waits() {
    let mut keeper = Keeper::founder().await;
    let (early, late) = (Node::start().await, Node::start().await);
    let link = keeper.invite_with_approval(2);
    let (attempt, _screen) = start(&early, Way::Link(link.clone()));
    let asking = keeper.asked().await;
    let id = keeper.membership().invites()[0].id.clone();
    keeper.membership().uninvite(&id).unwrap();
    assert!(matches!(keeper.membership().uninvite(&id), Err(MembershipError::NoInvite)));
    keeper.membership().door().answer(asking.id, true);
    for attempt in [attempt, start(&late, Way::Link(link)).0] {
        let refused = ended(attempt).await;
        assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::JoinInviteInvalid))), "{refused:?}");
    }
    assert_eq!(keeper.membership().list().members.len(), 1);
}

#[tokio::test]
async fn who_gives_up_waiting_is_not_shown_any_more_and_not_let_in() {
    let mut keeper = Keeper::founder().await;
    let joiner = Node::start().await;
    let (attempt, _screen) = start(&joiner, ask(keeper.node.addr));
    let asking = keeper.asked().await;
    attempt.abort();
    keeper.waiting(<[_]>::is_empty).await;
    assert!(!keeper.membership().door().answer(asking.id, true));
    assert_eq!(keeper.membership().list().members.len(), 1);
}

#[tokio::test]
async fn a_member_that_is_no_keeper_sends_who_asks_to_the_keeper() {
    let mut keeper = Keeper::founder().await;
    let member = Node::start().await;
    member.join(&keeper.node.invite(1)).await.unwrap();
    let joiner = Node::start().await;
    let (attempt, mut screen) = start(&joiner, ask(member.addr));
    let asking = keeper.asked().await;
    assert_eq!(shown(&mut screen).await.check, asking.check);
    keeper.membership().door().answer(asking.id, true);
    ended(attempt).await.unwrap();
    // Who is in no team knows no keeper, and asking oneself is a mistake with a sentence of its own.
    let stray = Node::start().await;
    let refused = ended(start(&stray, ask(Node::start().await.addr)).0).await;
    assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::JoinNotKeeper) | JoinError::Unreachable(_))));
    let itself = ended(start(&stray, ask(stray.addr)).0).await;
    assert!(matches!(itself, Err(JoinError::Itself(_))), "{itself:?}");
}

#[tokio::test]
async fn strangers_of_one_address_cannot_take_all_places() {
    let mut keeper = Keeper::founder().await;
    let mut attempts = Vec::new();
    for n in 0..=ASKING_PER_ADDRESS_MAX {
        let node = Node::start().await;
        let (attempt, screen) = start(&node, ask(keeper.node.addr));
        if n < ASKING_PER_ADDRESS_MAX {
            keeper.waiting(|waiting| waiting.len() == n + 1).await;
            attempts.push((attempt, screen, node));
        } else {
            let refused = ended(attempt).await;
            assert!(matches!(refused, Err(JoinError::Refused(JoinRefusal::JoinBusy))), "{refused:?}");
        }
    }
    // A link without approval gets in meanwhile.
    let joiner = Node::start().await;
    joiner.join(&keeper.node.invite(1)).await.unwrap();
}

/// Strangers who begin to join and then say nothing, or less than that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Before TLS.
    Tcp,
    /// After a first part of the handshake, and a byte now and then.
    Hello,
    /// After the handshake.
    Join,
    /// After the offer: it never confirms.
    Offer,
}

/// From `address`, `per_s` of them each second until it is aborted. Each holds its connection as long as it is let.
fn silent(kind: Silence, address: &'static str, keeper: SocketAddr, per_s: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let stray = Node::start().await;
        let identity = stray.membership.identity();
        let mut tick = tokio::time::interval(Duration::from_millis(1000 / per_s));
        loop {
            tick.tick().await;
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
            let identity = Arc::clone(&identity);
            tokio::spawn(async move {
                let Ok(mut tcp) = socket.connect(keeper).await else { return };
                if kind == Silence::Tcp {
                    let _ = tcp.read_u8().await;
                } else if kind == Silence::Hello {
                    for byte in [22, 3, 1, 2, 0, 1, 0, 1] {
                        if tcp.write_u8(byte).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                } else {
                    let config = tls::client(&identity, tls::ALPN_JOIN, Arc::new(|_| true)).unwrap();
                    let connector = tokio_rustls::TlsConnector::from(config);
                    let Ok(mut tls) = connector.connect(tls::server_name(), tcp).await else { return };
                    if kind == Silence::Offer {
                        let asks = JoinRequest { name: "s".into(), commitment: vec![1; 32], ..JoinRequest::default() };
                        send(&mut tls, &asks).await;
                    }
                    let _ = tls.read_to_end(&mut Vec::new()).await;
                }
            });
        }
    })
}

/// The promise is three seconds; a machine that builds something else at the same time may need twice as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_do_not_keep_a_valid_invitation_from_being_used() {
    let keeper = Keeper::founder().await;
    // All at the same time, from the joiner's own address as well.
    let kinds = [Silence::Tcp, Silence::Hello, Silence::Join, Silence::Offer];
    let places = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let per_s = |kind| if kind == Silence::Join { 6 } else { 2 };
    let of = |kind| places.map(|place| silent(kind, place, keeper.node.addr, per_s(kind)));
    let strays: Vec<_> = kinds.into_iter().flat_map(of).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..6 {
        let joiner = Node::start().await;
        let link = keeper.node.invite(1);
        let began = std::time::Instant::now();
        joiner.join(&link).await.expect("a valid invitation works");
        slowest = slowest.max(began.elapsed());
    }
    strays.iter().for_each(JoinHandle::abort);
    println!("the slowest of 6 joins took {slowest:?}");
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");
}

/// Whoever has no invitation and no time is told so, and asks again by itself until there is a try for it.
#[tokio::test]
async fn who_is_told_that_the_door_is_busy_asks_again_by_itself() {
    let mut keeper = Keeper::founder().await;
    // The tries of this address are used up.
    for _ in 0..3 {
        let (_, offer) = offered(&keeper, vec![1; 32]).await;
        assert_eq!((offer.refusal(), offer.retry_ms), (JoinRefusal::JoinOk, 0));
    }
    let (mut stream, offer) = offered(&keeper, vec![1; 32]).await;
    assert_eq!(offer.refusal(), JoinRefusal::JoinBusy);
    assert!((1..=10_000).contains(&offer.retry_ms), "{}", offer.retry_ms);
    assert_eq!(all_bytes(&mut stream).await, b"");
    let joiner = Node::start().await;
    let (told, mut busy) = mpsc::unbounded_channel();
    let (membership, way) = (Arc::clone(&joiner.membership), ask(keeper.node.addr));
    let attempt = tokio::spawn(async move {
        let busy = move || told.send(()).unwrap();
        transport::enter_patiently(&membership, &way, "joiner", &[], |_| (), busy).await
    });
    let asking = keeper.asked().await;
    assert_eq!(timeout(PATIENCE, busy.recv()).await.expect("a word in time"), Some(()), "it says so");
    keeper.membership().door().answer(asking.id, true);
    ended(attempt).await.unwrap();
}

/// Case 3: a stranger who tries pictures has few tries however many addresses it has, and what it hears does not tell
/// whether there was anything to guess.
#[tokio::test]
async fn pictures_cannot_be_tried_often_and_a_guessed_invitation_is_no_oracle() {
    let keeper = Keeper::founder().await;
    let link = keeper.node.invite(1);
    let stray = Node::start().await;
    let identity = stray.membership.identity();
    let mut heard = Vec::new();
    // An invitation that does not exist, one that does with a wrong proof, and one of another team.
    for (name, team) in [
        ([9; 16], link.team),
        (link.secret.name(), link.team),
        (link.secret.name(), potluck_model::ids::TeamId([9; 32])),
    ] {
        let mut stream = stranger(&identity, tls::ALPN_JOIN, keeper.node.addr).await.unwrap();
        let guess = JoinRequest {
            team: team.0.to_vec(),
            invite: name.to_vec(),
            proof: vec![7; 32],
            name: "stranger".into(),
            commitment: vec![1; 32],
            ..JoinRequest::default()
        };
        send(&mut stream, &guess).await;
        heard.push(receive::<JoinOffer>(&mut stream).await);
        assert_eq!(all_bytes(&mut stream).await, b"");
    }
    assert!(heard.iter().all(|offer| *offer == heard[0]), "{heard:?}");
    assert_eq!(heard[0].refusal(), JoinRefusal::JoinInviteInvalid);
    let mut listened = 0;
    for _ in 0..8 {
        listened += u32::from(offered(&keeper, vec![1; 32]).await.1.refusal() == JoinRefusal::JoinOk);
        // Not heard at all is no try either; here it shall be refused by the tries alone.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(listened, 3);
    assert!(keeper.membership().door().waiting().is_empty(), "nobody was shown to a person");
    assert_eq!(keeper.membership().invites()[0].uses_left, 1);
}

/// A machine in the middle: what the joiner says goes to the keeper under the middle's own keys, and back.
struct Middle {
    addr: SocketAddr,
    _task: JoinHandle<()>,
}

impl Middle {
    async fn start(keeper: SocketAddr) -> Self {
        let node = Node::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let config = tls::server(&node.membership.identity(), tls::ALPN_JOIN, Arc::new(|_| true)).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut front) = acceptor.accept(tcp).await else { continue };
                let mut back = stranger(&node.membership.identity(), tls::ALPN_JOIN, keeper).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
            }
        });
        Self { addr, _task: task }
    }
}

#[tokio::test]
async fn a_man_in_the_middle_of_a_link_is_refused_by_the_pinned_key() {
    let keeper = Keeper::founder().await;
    let middle = Middle::start(keeper.node.addr).await;
    let joiner = Node::start().await;
    let link = keeper.node.invite(1);
    let through = JoinLink { via: vec![middle.addr.to_string()], ..link.clone() };
    let refused = ended(start(&joiner, Way::Link(through)).0).await;
    assert!(matches!(refused, Err(JoinError::WrongNode(_))), "{refused:?}");
    assert_eq!(keeper.membership().invites()[0].uses_left, 1, "nothing was consumed");
    joiner.join(&link).await.unwrap();
}

#[tokio::test]
async fn a_man_in_the_middle_of_asking_makes_the_pictures_differ() {
    let mut keeper = Keeper::founder().await;
    let middle = Middle::start(keeper.node.addr).await;
    let joiner = Node::start().await;
    let (attempt, mut screen) = start(&joiner, ask(middle.addr));
    let asking = keeper.asked().await;
    let pending = shown(&mut screen).await;
    assert_ne!(pending.check, asking.check);
    assert_ne!(asking.node, joiner.id());
    keeper.membership().door().answer(asking.id, false);
    assert!(ended(attempt).await.is_err());
    assert!(!joiner.membership.view().joined);
}

/// A stranger without a link that has sent its request and read the offer.
async fn offered(keeper: &Keeper, commitment: Vec<u8>) -> (tokio_rustls::client::TlsStream<TcpStream>, JoinOffer) {
    let node = Node::start().await;
    let mut stream = stranger(&node.membership.identity(), tls::ALPN_JOIN, keeper.node.addr).await.unwrap();
    send(&mut stream, &JoinRequest { name: "stranger".into(), commitment, ..JoinRequest::default() }).await;
    let offer = receive(&mut stream).await;
    (stream, offer)
}

#[tokio::test]
async fn who_does_not_reveal_what_it_was_bound_to_is_refused_and_shown_to_nobody() {
    let keeper = Keeper::founder().await;
    let committed = |nonce: [u8; 32]| {
        let text = [b"potluck-join-commit-1\0", &nonce[..]].concat();
        ring::digest::digest(&ring::digest::SHA256, &text).as_ref().to_vec()
    };
    for commitment in [Vec::new(), vec![1; 31], vec![1; 33]] {
        let (mut stream, offer) = offered(&keeper, commitment).await;
        assert_eq!((offer.refusal(), offer.nonce.len()), (JoinRefusal::JoinBadRequest, 0));
        assert_eq!(all_bytes(&mut stream).await, b"");
    }
    // Another nonce than the one that was bound, as somebody would have to choose it who makes the pictures fit.
    for nonce in [vec![2; 32], Vec::new(), vec![1; 31]] {
        let (mut stream, offer) = offered(&keeper, committed([1; 32])).await;
        assert_eq!((offer.refusal(), offer.nonce.len()), (JoinRefusal::JoinOk, 32));
        send(&mut stream, &JoinConfirm { nonce }).await;
        assert_eq!(receive::<JoinWelcome>(&mut stream).await.refusal(), JoinRefusal::JoinBadRequest);
        assert!(keeper.membership().door().waiting().is_empty());
    }
    assert_eq!(keeper.membership().list().members.len(), 1);
}

#[tokio::test]
async fn a_link_that_asks_a_keeper_does_not_work_without_pictures() {
    let keeper = Keeper::founder().await;
    let node = Node::start().await;
    let identity = node.membership.identity();
    for (link, refusal) in [
        (keeper.invite_with_approval(1), JoinRefusal::JoinBadRequest),
        // An older Potluck, which shows none, gets in where nobody is asked.
        (keeper.node.invite(1), JoinRefusal::JoinOk),
    ] {
        let mut stream = stranger(&identity, tls::ALPN_JOIN, keeper.node.addr).await.unwrap();
        let old = request(&stream, &identity, &link);
        assert!(old.commitment.is_empty());
        send(&mut stream, &old).await;
        assert_eq!(receive::<JoinOffer>(&mut stream).await.refusal(), refusal);
    }
}

/// One answer of somebody who plays a keeper's node and breaks a rule.
async fn answered_with(offer: JoinOffer, welcome: Vec<JoinWelcome>) -> Result<Joined, JoinError> {
    let node = Node::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let config = tls::server(&node.membership.identity(), tls::ALPN_JOIN, Arc::new(|_| true)).unwrap();
    let playing = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream: ServerStream<TcpStream> = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await.unwrap();
        let mut len = [0; 4];
        stream.read_exact(&mut len).await.unwrap();
        let mut request = vec![0; u32::from_be_bytes(len) as usize];
        stream.read_exact(&mut request).await.unwrap();
        for body in std::iter::once(offer.encode_to_vec()).chain(welcome.iter().map(Message::encode_to_vec)) {
            let frame = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
            // The joiner may have had enough already.
            if stream.write_all(&frame).await.is_err() {
                return;
            }
        }
        let _ = stream.flush().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let joiner = Node::start().await;
    let answer = ended(start(&joiner, ask(addr)).0).await;
    assert!(!joiner.membership.view().joined);
    playing.abort();
    answer
}

#[tokio::test]
async fn a_false_keeper_gets_nobody_into_a_team_that_is_none() {
    let offer = || JoinOffer { team: vec![7; 32], nonce: vec![1; 32], approve: true, ..JoinOffer::default() };
    let short = answered_with(JoinOffer { nonce: vec![1; 31], ..offer() }, vec![]).await;
    assert!(matches!(short, Err(JoinError::Broken(_))), "{short:?}");
    let none = answered_with(JoinOffer { nonce: vec![], ..offer() }, vec![]).await;
    assert!(matches!(none, Err(JoinError::Broken(_))), "{none:?}");
    let no_team = answered_with(JoinOffer { team: vec![7; 3], ..offer() }, vec![]).await;
    assert!(matches!(no_team, Err(JoinError::Broken(_))), "{no_team:?}");
    let empty = answered_with(offer(), vec![JoinWelcome::default()]).await;
    assert!(matches!(empty, Err(JoinError::Membership(_))), "{empty:?}");
    // Statements of another team than the one that the pictures stand for.
    let other = Node::founder().await;
    let statements = other.membership.all();
    let foreign = answered_with(offer(), vec![JoinWelcome { statements, ..JoinWelcome::default() }]).await;
    assert!(matches!(foreign, Err(JoinError::Membership(_))), "{foreign:?}");
    // Sent in circles.
    let keepers = vec!["127.0.0.1:1".to_owned(); 1000];
    let circle = JoinOffer { refusal: JoinRefusal::JoinNotKeeper.into(), keepers, ..JoinOffer::default() };
    let circled = answered_with(circle, vec![]).await;
    assert!(circled.is_err());
}

#[tokio::test]
async fn the_only_keeper_does_not_leave_the_others_alone_by_accident() {
    let keeper = Keeper::founder().await;
    let member = Node::start().await;
    member.join(&keeper.node.invite(1)).await.unwrap();
    assert!(matches!(keeper.membership().leave(false), Err(MembershipError::LastKeeper)));
    let demoted = keeper.membership().set_role(keeper.node.id(), Role::Member);
    assert!(matches!(demoted, Err(MembershipError::StaysKeeper)));
    keeper.membership().set_role(member.id(), Role::Keeper).unwrap();
    keeper.membership().leave(false).unwrap();
    assert!(keeper.membership().was_removed());
    // Alone one may always go, and knowingly too.
    let alone = Node::founder().await;
    alone.membership.leave(false).unwrap();
    let other = Keeper::founder().await;
    Node::start().await.join(&other.node.invite(1)).await.unwrap();
    other.membership().leave(true).unwrap();
}

#[tokio::test]
async fn the_founders_disk_dies_and_a_second_keeper_takes_in_others() {
    let founder = Keeper::founder().await;
    let second = Keeper::of(Node::start().await);
    second.node.join(&founder.node.invite(1)).await.unwrap();
    founder.membership().set_role(second.node.id(), Role::Keeper).unwrap();
    second.membership().merge(founder.membership().all()).unwrap();
    drop(founder);
    let joiner = Node::start().await;
    joiner.join(&second.node.invite(1)).await.unwrap();
    assert_eq!(second.membership().list().members.len(), 3);
}

#[tokio::test]
async fn without_keepers_a_majority_recovers_the_team_and_a_minority_cannot() {
    let founder = Keeper::founder().await;
    let nodes = [Node::start().await, Node::start().await, Node::start().await, Node::start().await];
    let link = founder.node.invite(4);
    for node in &nodes {
        node.join(&link).await.unwrap();
    }
    let founder_id = founder.node.id();
    drop(founder);
    let spread = |from: usize| {
        let all = nodes[from].membership.all();
        nodes.iter().for_each(|node| {
            node.membership.merge(all.clone()).unwrap();
        });
    };
    // The last who joined knows all.
    spread(3);
    let new = nodes[0].id();
    let is_keeper = |node: &Node| node.membership.view().members.get(&new).is_some_and(|m| m.role == Role::Keeper);
    assert!(nodes[0].membership.recover(&[new], 13).is_err(), "a holiday overthrows nobody");
    // Five members: two votes are a minority, three a majority.
    for (at, node) in nodes.iter().take(3).enumerate() {
        assert!(nodes.iter().all(|node| !is_keeper(node)), "{at} votes are not enough");
        assert!(nodes[0].membership.invite(1, DAY, &[nodes[0].addr.to_string()]).is_err());
        node.membership.recover(&[new], 14).unwrap();
        spread(at);
    }
    assert!(nodes.iter().all(is_keeper));
    let joiner = Node::start().await;
    joiner.join(&nodes[0].invite(1)).await.unwrap();
    nodes[0].membership.remove(founder_id).unwrap();
    assert!(!nodes[0].membership.is_member(founder_id));
}

#[tokio::test]
async fn a_removed_members_connection_has_time_for_the_news_and_not_more() {
    let mut keeper = Keeper::founder().await;
    let member = Node::start().await;
    member.join(&keeper.node.invite(1)).await.unwrap();
    let link = dial(&member.membership, keeper.node.addr, None).await.unwrap();
    let accepted = keeper.node.accepted().await;
    let removed = std::time::Instant::now();
    keeper.membership().remove(member.id()).unwrap();
    timeout(PATIENCE, link.closer.closed()).await.unwrap();
    let took = removed.elapsed();
    assert!(took >= FAREWELL && took < Duration::from_secs(5), "{took:?}");
    drop(accepted);
}
