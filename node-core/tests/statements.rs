//! The team's list under a member that signs anything, and a keeper that has lost it: real nodes.

mod pool;
mod programs;
mod tree_space;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use pool::{Pc, copy_of, delegated, hello, say, team, until};
use potluck_model::ids::NodeId;
use potluck_model::team::{Body, Claim, MEMBER_BYTES_MAX, Role, StatementId, TeamSet};
use potluck_node::identity::Identity;
use potluck_node::membership::codec;
use potluck_node::transport::dial;
use potluck_wire::pool::{self as wire, frame::Kind};
use tree_space::Space;

/// As many statements as filled a set once for ever.
const FLOOD: usize = 10_000;

/// What a member's key can sign that is no use to anybody.
struct Liar<'a> {
    identity: &'a Identity,
    set: TeamSet,
    authority: StatementId,
}

impl Liar<'_> {
    fn claim(&self, body: Body) -> Claim {
        Claim { team: Some(self.set.team()), authority: Some(self.authority), prev: None, body }
    }

    fn body(&self, claim: &Claim) -> Vec<u8> {
        codec::body_of(self.identity.public_key(), claim)
    }

    /// One leaving in ten thousand encodings.
    fn padded_leavings(&self, padding: usize) -> Vec<Vec<u8>> {
        let own = self.body(&self.claim(Body::Remove { node: self.identity.id(), keep: vec![] }));
        let padded = (0..FLOOD as u32).map(|n| {
            let mut field = vec![0x7a];
            let len = 4 + padding;
            field.extend([(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
            field.extend(n.to_be_bytes());
            field.resize(field.len() + padding, 0);
            codec::sign_body(self.identity, &[&own[..], &field].concat())
        });
        padded.collect()
    }

    /// Well encoded, and each says something else: names, and votes for keepers that nobody knows.
    fn talk(&self) -> Vec<Vec<u8>> {
        let rename = |n: u64| Body::Rename { name: format!("pc-{n}"), addresses: vec![], version: n };
        let vote = |n: u32| Body::Recover { keepers: vec![NodeId([n as u8; 32])], unseen_days: 14 + n };
        let names = (0..1000).map(rename);
        let claims = names.chain((0..1000).map(vote)).map(|body| self.claim(body));
        claims.map(|claim| codec::sign_body(self.identity, &self.body(&claim))).collect()
    }

    /// What it would say as a keeper, hung on a vote for itself.
    fn as_own_keeper(&self) -> Vec<Vec<u8>> {
        let keepers = vec![self.identity.id()];
        let vote = self.body(&self.claim(Body::Recover { keepers, unseen_days: 14 }));
        let id = StatementId(ring::digest::digest(&ring::digest::SHA256, &vote).as_ref().try_into().unwrap());
        let adds = (0..2000u32).map(|n| {
            let mut node = [9; 32];
            node[..4].copy_from_slice(&n.to_be_bytes());
            let (name, addresses) = ("x".to_owned(), vec![]);
            let body = Body::Add { node: NodeId(node), role: Role::Member, name, addresses, version: 1 };
            let claim = Claim { authority: Some(id), ..self.claim(body) };
            codec::sign_body(self.identity, &self.body(&claim))
        });
        std::iter::once(codec::sign_body(self.identity, &vote)).chain(adds).collect()
    }
}

fn statements_of(pc: &Pc) -> PathBuf {
    pc.dir.join("state/potluck/team/statements")
}

#[test]
fn a_member_that_signs_anything_keeps_nobody_from_joining_and_nobody_from_being_removed() {
    if delegated("a_member_that_signs_anything_keeps_nobody_from_joining_and_nobody_from_being_removed") {
        return;
    }
    let space = Space::new("statements-flood");
    let keeper = Pc::start(&space, "keeper", &["--serve", "0"]);
    let other = Pc::start(&space, "other", &["--serve", "0"]);
    let mut liar = Pc::start(&space, "liar", &["--serve", "0"]);
    team(&keeper, &[&other, &liar]);
    let (keeper_file, other_file) = (statements_of(&keeper), statements_of(&other));
    let copy = copy_of(&liar, &space.path("copy"));
    liar.stop();
    let before = fs::metadata(&keeper_file).unwrap().len();

    let identity = copy.identity();
    let all = copy.all().iter().map(|raw| codec::decode(raw).unwrap()).collect();
    let (set, _) = TeamSet::from_statements(all).unwrap();
    let entry =
        |s: &&potluck_model::team::Statement| matches!(s.claim().body, Body::Add { node, .. } if node == identity.id());
    let authority = set.statements().find(entry).unwrap().id();
    let lies = Liar { identity: &identity, set, authority };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let to: SocketAddr = keeper.address.parse().unwrap();
    // What it may say first: whoever sends so much for nothing is cut off in between, and kept away for a while.
    'all: for batch in [lies.talk(), lies.padded_leavings(0), lies.padded_leavings(300), lies.as_own_keeper()] {
        // In frames that a link carries.
        for statements in batch.chunks(5000) {
            let Ok(link) = runtime.block_on(async { dial(&copy, to, None).await }) else {
                println!("it is kept away by now");
                break 'all;
            };
            say(&link, hello());
            say(&link, Kind::Gossip(wire::Gossip { membership: vec![], statements: statements.to_vec() }));
            say(&link, Kind::Ping(wire::Ping { id: 1 }));
            let mut link = link;
            // Frames are taken in order: the answer to the ping is after it.
            let answered = async {
                while let Some(frame) = link.control_rx.recv().await {
                    if matches!(frame.kind, Some(Kind::Pong(_))) {
                        break;
                    }
                }
            };
            runtime
                .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(120), answered).await })
                .unwrap();
        }
    }
    let news = until("something of what it said is taken", || {
        let names = keeper.says(&["team", "list"]);
        names.contains("pc-999").then_some(names)
    });
    println!("{news}");
    until("the other one hears of it", || other.says(&["team", "list"]).contains("pc-999").then_some(()));
    for file in [&keeper_file, &other_file] {
        let grown = fs::metadata(file).unwrap().len() - before;
        println!("{} bytes more in {}", grown, file.display());
        assert!(grown <= MEMBER_BYTES_MAX as u64, "{grown} bytes of one member");
    }

    // The team goes on: one more comes in, and the liar goes.
    let joiner = Pc::start(&space, "joiner", &["--serve", "0"]);
    let link = keeper.says(&["team", "invite"]);
    joiner.says(&["team", "join", link.lines().last().unwrap()]);
    keeper.says(&["team", "remove", &identity.id().to_string()]);
    until("everybody knows that it is out", || {
        let members = |pc: &Pc| pc.json(&["team", "list"])["members"].as_array().map(Vec::len);
        ([&keeper, &other].iter().all(|pc| members(pc) == Some(3))).then_some(())
    });
    let left = fs::metadata(&keeper_file).unwrap().len();
    assert!(left <= before + 1000, "what is left of it is its entry and its removal: {left} after {before}");
}

#[test]
fn the_only_keeper_gets_its_list_back_from_a_member_and_goes_on_as_keeper() {
    if delegated("the_only_keeper_gets_its_list_back_from_a_member_and_goes_on_as_keeper") {
        return;
    }
    let space = Space::new("statements-lost");
    let mut keeper = Pc::start(&space, "keeper", &["--serve", "0"]);
    let member = Pc::start(&space, "member", &["--serve", "0"]);
    team(&keeper, &[&member]);
    let member_id = member.id();
    let file = statements_of(&keeper);
    keeper.stop();

    // One file is damaged: the node mends it by itself.
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    keeper.again(&["--serve", "0"]);
    assert_eq!(keeper.json(&["team", "list"])["members"].as_array().map(Vec::len), Some(2));
    assert!(file.with_extension("damaged").exists(), "the damaged one is kept");
    keeper.stop();

    // Both are: it starts, says so, and is in no team.
    for name in ["statements", "statements.1"] {
        fs::write(file.with_file_name(name), &bytes[..200]).unwrap();
    }
    keeper.again(&["--serve", "0"]);
    let problems = keeper.json(&["status"])["problems"].clone();
    assert!(problems.as_array().unwrap().iter().any(|p| p["code"] == "T2"), "{problems}");
    let refused = keeper.command(&["team", "invite"]).output().unwrap();
    assert!(!refused.status.success());

    // From a stranger it gets nothing, from a member everything.
    let stranger = Pc::start(&space, "stranger", &["--serve", "0"]);
    stranger.says(&["team", "create", "other lab"]);
    let refused = keeper.command(&["team", "restore", &stranger.address]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("hint:"), "{said}");
    let said = keeper.says(&["team", "restore", &member.address]);
    assert!(said.contains("in the team lab"), "{said}");

    // It is the keeper that it was.
    let joiner = Pc::start(&space, "joiner", &["--serve", "0"]);
    let link = keeper.says(&["team", "invite"]);
    joiner.says(&["team", "join", link.lines().last().unwrap()]);
    keeper.says(&["team", "remove", &member_id]);
    until("the member knows that it is out", || {
        let problems = member.json(&["status"])["problems"].clone();
        problems.as_array().unwrap().iter().any(|p| p["code"] == "R2").then_some(())
    });
    let problems = keeper.json(&["status"])["problems"].clone();
    assert!(!problems.as_array().unwrap().iter().any(|p| p["code"] == "T2"), "{problems}");
}

#[test]
fn names_that_turn_a_line_around_are_refused_with_a_sentence() {
    if delegated("names_that_turn_a_line_around_are_refused_with_a_sentence") {
        return;
    }
    let space = Space::new("statements-names");
    let keeper = Pc::start(&space, "keeper", &["--serve", "0"]);
    let refused = keeper.command(&["team", "create", "la\u{202e}b"]).output().unwrap();
    assert!(!refused.status.success());
    keeper.says(&["team", "create", "lab"]);
    for name in ["pc\u{202e}1", "pc\u{200b}", "\u{2066}pc", "p\u{301}\u{301}\u{301}\u{301}\u{301}c", "a\u{7}"] {
        let refused = keeper.command(&["team", "rename", name]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("hint: choose a shorter, plain name"), "{name:?}: {said}");
    }
    keeper.says(&["team", "rename", "Käthes PC"]);
    // What an older version signed with such a name is shown without what hides in it.
    let identity: Arc<Identity> = copy_of(&keeper, &space.path("copy")).identity();
    assert!(keeper.says(&["team", "list"]).contains("Käthes PC"));
    let found = |name: &str| {
        let body = Body::Found { team_name: name.into(), node_name: name.into(), addresses: vec![] };
        let body = codec::body_of(identity.public_key(), &Claim { team: None, authority: None, prev: None, body });
        TeamSet::found(codec::decode(&codec::sign_body(&identity, &body)).unwrap()).unwrap()
    };
    let old = found("a\u{202e}\u{200b}b");
    assert_eq!(old.team_name(), "ab");
    assert_eq!(old.verdict().members[&identity.id()].name, "ab");
}
