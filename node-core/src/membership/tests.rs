use potluck_model::team::{MEMBER_BYTES_MAX, SET_BYTES_MAX, VOID_BYTES_MAX};
use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn node(dir: &Path) -> Membership {
    Membership::open(Arc::new(Identity::load_or_create(dir).unwrap()), dir).unwrap()
}

fn via() -> Vec<String> {
    vec!["127.0.0.1:7878".to_owned()]
}

#[test]
fn a_team_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    let team = first.create("Kernel lab", "pc", &via()).unwrap();
    first.rename("new name", &via()).unwrap();
    let before = first.list();
    drop(first);
    let again = node(dir.path());
    assert_eq!(again.list(), before);
    assert_eq!(again.view().team, Some(team));
    assert_eq!(again.list().members[0].name, "new name");
    assert!(matches!(again.create("other", "pc", &[]), Err(MembershipError::InTeam(_))));
}

#[test]
fn a_second_process_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    let identity = first.identity().clone();
    assert!(matches!(Membership::open(identity, dir.path()), Err(MembershipError::InUse(_))));
}

/// What every damage of `name` does, one after the other, to a team that is stored in `dir`.
fn for_each_damage(dir: &Path, names: &[&str], check: impl Fn(&str, Membership)) {
    let identity = Arc::new(Identity::load_or_create(dir).unwrap());
    let good: Vec<Vec<u8>> = names.iter().map(|name| std::fs::read(dir.join("team").join(name)).unwrap()).collect();
    let len = good[0].len();
    let cuts = (0..len).step_by(7).map(|at| (format!("cut at {at}"), good[0][..at].to_vec()));
    let flips = (0..len).step_by(5).map(|at| {
        let mut bad = good[0].clone();
        bad[at] ^= 1 << (at % 8);
        (format!("bit of byte {at}"), bad)
    });
    for (what, bad) in cuts.chain(flips) {
        for (name, whole) in ["statements", "statements.1"].iter().zip([&good[0], good.last().unwrap()]) {
            let content = if names.contains(name) { &bad } else { whole };
            std::fs::write(dir.join("team").join(name), content).unwrap();
        }
        check(&what, Membership::open(identity.clone(), dir).unwrap_or_else(|e| panic!("{what}: {e}")));
    }
}

#[test]
fn a_damaged_file_is_replaced_by_its_copy_and_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    first.create("lab", "pc", &[]).unwrap();
    first.rename("renamed", &[]).unwrap();
    let before = first.list();
    drop(first);
    for_each_damage(dir.path(), &["statements"], |what, again| {
        assert_eq!(again.list(), before, "{what}");
        assert!(matches!(again.trouble(), Some(Trouble::Mended(_))), "{what}");
        assert!(dir.path().join("team/statements.damaged").exists());
    });
    // The copy alone is not even looked at, and a file that is gone comes back too.
    std::fs::write(dir.path().join("team/statements.1"), b"nothing").unwrap();
    let again = node(dir.path());
    assert_eq!((again.list(), again.trouble()), (before.clone(), None));
    again.rename("renamed", &[]).unwrap();
    drop(again);
    std::fs::remove_file(dir.path().join("team/statements")).unwrap();
    assert_eq!(node(dir.path()).list(), before);
}

#[test]
fn without_a_good_copy_the_node_starts_and_says_that_its_list_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    let team = first.create("lab", "pc", &[]).unwrap();
    let all = first.all();
    drop(first);
    for_each_damage(dir.path(), &["statements", "statements.1"], |what, again| {
        assert!(!again.view().joined && again.view().team.is_none(), "{what}: half a file is not used");
        assert!(matches!(again.trouble(), Some(Trouble::Lost(_))), "{what}");
    });
    // Also after another start, until the list is back.
    let again = node(dir.path());
    assert!(matches!(again.trouble(), Some(Trouble::Lost(_))));
    assert_eq!(again.take_back(None, &all).unwrap(), team, "its own key founded it");
    assert!(again.view().joined);
    assert_eq!(again.trouble(), None);
}

#[test]
fn invitations_that_cannot_be_read_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    first.create("lab", "pc", &via()).unwrap();
    first.invite(1, DAY, &via()).unwrap();
    drop(first);
    std::fs::write(dir.path().join("team/invites"), b"[{").unwrap();
    let again = node(dir.path());
    assert!(again.view().joined && again.invites().is_empty());
    assert!(dir.path().join("team/invites.damaged").exists());
    again.invite(1, DAY, &via()).unwrap();
}

#[test]
fn a_team_that_a_stranger_gives_back_is_taken_only_if_it_is_known_to_be_the_own() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (stranger, lost) = (node(here.path()), node(there.path()));
    let team = stranger.create("trap", "pc", &[]).unwrap();
    let link = stranger.invite(1, DAY, &via()).unwrap();
    let all = stranger.admit(Some(link.secret), lost.identity().id(), "caught", &[]).unwrap();
    let unsure = lost.take_back(None, &all);
    assert!(matches!(unsure, Err(MembershipError::Unsure { team: of, .. }) if of == team));
    assert!(lost.view().team.is_none());
    assert!(lost.take_back(Some(TeamId([7; 32])), &all).is_err());
    assert_eq!(lost.take_back(Some(team), &all).unwrap(), team, "a person said that it is");
}

#[test]
fn files_of_the_first_version_are_read_and_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    first.create("lab", "pc", &[]).unwrap();
    let (identity, before) = (first.identity(), first.list());
    let mut file = b"potluck-team-1\n".to_vec();
    let mut put = |raw: &[u8]| {
        file.extend((raw.len() as u32).to_be_bytes());
        file.extend(raw);
    };
    first.all().iter().for_each(|raw| put(raw));
    // What a hostile member got into it then: signed well, and padded with an unknown field.
    let set = first.lock().set.clone().unwrap();
    let claim = set.draft(identity.id(), Body::Rename { name: "x".into(), addresses: vec![], version: 9 }).unwrap();
    for n in 0..100u8 {
        let mut body = codec::body_of(identity.public_key(), &claim);
        body.extend([0x7a, 1, n]);
        put(&codec::sign_body(&identity, &body));
    }
    drop(first);
    std::fs::remove_file(dir.path().join("team/statements.1")).unwrap();
    std::fs::write(dir.path().join("team/statements"), &file).unwrap();
    let again = node(dir.path());
    assert_eq!((again.list(), again.trouble()), (before, None));
    assert_eq!(again.all().len(), 1);
}

#[test]
fn only_the_canonical_encoding_of_a_statement_is_one() {
    let identity = Identity::ephemeral().unwrap();
    let body = Body::Found { team_name: "lab".into(), node_name: "pc".into(), addresses: vec![] };
    let claim = Claim { team: None, authority: None, prev: None, body };
    let good = codec::body_of(identity.public_key(), &claim);
    assert!(codec::decode(&codec::sign_body(&identity, &good)).is_ok());
    // The key comes first: two bytes of tag and length, and 32 of it.
    let key = good[..34].to_vec();
    let found = good[34..].to_vec();
    let stretched = [&key[..], &[0x52, found[1] | 0x80, 0], &found[2..]].concat();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown field", [&good[..], &[0x7a, 1, 0]].concat()),
        ("an unknown field first", [&[0x7a, 1, 0], &good[..]].concat()),
        ("a default that is written out", [&[0x0a, 0], &good[..]].concat()),
        ("a field twice", [&key[..], &good[..]].concat()),
        ("a message twice", [&good[..], &found[..]].concat()),
        ("another order", [&found[..], &key[..]].concat()),
        ("a stretched number", stretched),
        ("an unknown field within", {
            let mut within = good.clone();
            within[35] += 3;
            [&within[..], &[0x7a, 1, 0]].concat()
        }),
    ];
    for (what, body) in bad {
        let raw = codec::sign_body(&identity, &body);
        assert!(codec::is_signed(&raw), "{what}: the test signs nonsense");
        assert_eq!(codec::decode(&raw), Err(Refusal::Malformed), "{what}");
    }
    let raw = codec::sign_body(&identity, &good);
    assert_eq!(codec::decode(&[&raw[..], &[0x1a, 1, 0]].concat()), Err(Refusal::Malformed), "around the body");
}

#[test]
fn an_invitation_is_used_as_often_as_it_says_and_answers_again_to_who_used_it() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = node(dir.path());
    keeper.create("lab", "pc", &[]).unwrap();
    let link = keeper.invite(1, DAY, &via()).unwrap();
    let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
    let check = |node| {
        keeper.check_invite(&link.secret.name(), node, |secret| *secret == link.secret).map(|ticket| ticket.secret)
    };
    assert_eq!(check(a), Ok(link.secret));
    assert_eq!(check(b), Ok(link.secret), "checking consumes nothing");
    assert_eq!(keeper.check_invite(&link.secret.name(), a, |_| false), Err(Rejection::InviteInvalid));
    assert_eq!(keeper.admit(Some(link.secret), a, "bad\nname", &[]), Err(Rejection::BadRequest));
    assert_eq!(keeper.admit(Some(link.secret), a, "a", &["no address".into()]), Err(Rejection::BadRequest));
    let statements = keeper.admit(Some(link.secret), a, "a", &[]).unwrap();
    assert!(keeper.is_member(a));
    assert_eq!(keeper.admit(Some(link.secret), b, "b", &[]), Err(Rejection::InviteInvalid));
    assert_eq!(keeper.admit(Some(link.secret), a, "a", &[]).unwrap(), statements);
    keeper.remove(a).unwrap();
    assert_eq!(keeper.admit(Some(link.secret), a, "a", &[]), Err(Rejection::KeyRemoved));
    let expired = keeper.invite(5, Duration::ZERO, &via()).unwrap();
    assert_eq!(keeper.admit(Some(expired.secret), b, "b", &[]), Err(Rejection::InviteInvalid));
    assert_eq!(keeper.list().open_invites, 0);
}

#[test]
fn numbers_out_of_range_and_strangers_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = node(dir.path());
    assert!(matches!(keeper.invite(1, DAY, &via()), Err(MembershipError::NoTeam)));
    keeper.create("lab", "pc", &[]).unwrap();
    assert!(matches!(keeper.invite(0, DAY, &via()), Err(MembershipError::OutOfRange(..))));
    assert!(matches!(keeper.invite(1, DAY * 31, &via()), Err(MembershipError::OutOfRange(..))));
    assert!(matches!(keeper.invite(1, DAY, &[]), Err(MembershipError::OutOfRange(..))));
    assert!(matches!(keeper.invite(1, DAY, &["nonsense".into()]), Err(MembershipError::Address(_))));
    assert!(matches!(keeper.remove(NodeId([9; 32])), Err(MembershipError::NotAMember(_))));
}

#[test]
fn statements_spread_by_gossip_and_bad_ones_hide_nothing() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (keeper, other) = (node(here.path()), node(there.path()));
    let team = keeper.create("lab", "pc", &[]).unwrap();
    let link = keeper.invite(2, DAY, &via()).unwrap();
    let statements = keeper.admit(Some(link.secret), other.identity().id(), "other", &[]).unwrap();
    other.adopt(team, &statements).unwrap();
    assert_eq!(keeper.digest(), other.digest());
    let third = NodeId([3; 32]);
    keeper.admit(Some(link.secret), third, "third", &[]).unwrap();
    assert_ne!(keeper.digest(), other.digest());
    let mut changes = other.subscribe();
    changes.borrow_and_update();
    let mut gossip = vec![b"nonsense".to_vec(), vec![0; 1 << 20]];
    gossip.extend(keeper.all());
    let heard = other.merge(gossip.clone()).unwrap();
    assert!(heard.changed);
    assert_eq!(heard.verified, 1, "what is known already is not checked again");
    assert_eq!(other.merge(gossip).unwrap(), Heard { changed: false, read: 5, verified: 0, forged: 0 });
    assert!(changes.has_changed().unwrap());
    assert!(other.is_member(third));
    assert_eq!(keeper.digest(), other.digest());
    // The other one is no keeper.
    let refused = other.remove(third);
    assert!(matches!(refused, Err(MembershipError::Refused(Refusal::NotEntitled))));
    // Who is removed trusts nobody any more and cannot join again with the same key.
    keeper.remove(other.identity().id()).unwrap();
    other.merge(keeper.all()).unwrap();
    assert!(!other.is_member(keeper.identity().id()));
    assert!(matches!(other.may_join(Some(team)), Err(MembershipError::Removed)));
}

#[test]
fn a_link_reads_back_and_forgives_what_desktops_do_to_it() {
    let link = JoinLink {
        team: TeamId([1; 32]),
        via: vec!["192.0.2.7:7878".into(), "[2001:db8::1]:7878".into(), "pc.example:1".into()],
        keeper: NodeId([2; 32]),
        secret: Secret([3; 16]),
    };
    let text = link.to_string();
    assert!(!format!("{link:?}").contains("0303"), "a log does not tell the secret");
    for text in [
        text.clone(),
        format!("  {text}\n"),
        text.replace("pool:join", "potluck:join"),
        text.replace("pool:join", "POOL://join/"),
        text.replace('[', "%5B").replace(']', "%5D"),
        format!("{text}&new=1"),
    ] {
        assert_eq!(text.parse::<JoinLink>().as_ref(), Ok(&link), "{text}");
    }
    let cut = &text[..text.len() - 1];
    assert_eq!(cut.parse::<JoinLink>(), Err(BadLink::Unreadable("secret")));
    assert_eq!(text.split("&s=").next().unwrap().parse::<JoinLink>(), Err(BadLink::Missing("secret")));
    assert_eq!(format!("{text}&s={}", "00".repeat(16)).parse::<JoinLink>(), Err(BadLink::Double("secret")));
    assert_eq!("https://example".parse::<JoinLink>(), Err(BadLink::NotALink));
    assert!(matches!(text.replace(":7878", ":0").parse::<JoinLink>(), Err(BadLink::BadAddress(_))));
}

proptest! {
    #[test]
    fn reading_a_link_never_panics(text in ".*", query in "(pool|potluck):(//)?join/?\\?((team|via|id|s|x)=[0-9a-f:.%\\[\\]é&=]{0,70}&?){0,6}") {
        let _ = text.parse::<JoinLink>();
        let _ = query.parse::<JoinLink>();
    }

    #[test]
    fn every_link_reads_back(team: [u8; 32], keeper: [u8; 32], secret: [u8; 16], ip: [u8; 4], port in 1..=u16::MAX) {
        let via = vec![format!("{}:{port}", std::net::Ipv4Addr::from(ip))];
        let link = JoinLink { team: TeamId(team), via, keeper: NodeId(keeper), secret: Secret(secret) };
        prop_assert_eq!(link.to_string().parse(), Ok(link));
    }

    #[test]
    fn reading_a_statement_or_a_node_id_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".*") {
        prop_assert!(codec::decode(&bytes).is_err());
        let _ = crate::identity::read(&text);
    }
}

/// A team without files: its founder, a second keeper, a member, and their keys.
fn small_team() -> (TeamSet, [Identity; 3]) {
    let keys = [(); 3].map(|()| Identity::ephemeral().unwrap());
    let body = Body::Found { team_name: "lab".into(), node_name: "pc".into(), addresses: vec![] };
    let founding = codec::sign(&keys[0], Claim { team: None, authority: None, prev: None, body }).unwrap();
    let mut set = TeamSet::found(founding).unwrap();
    for (key, role) in keys[1..].iter().zip([Role::Keeper, Role::Member]) {
        let body = Body::Add { node: key.id(), role, name: "pc".into(), addresses: via(), version: 1 };
        assert_eq!(said(&mut set, &keys[0], body), None);
    }
    (set, keys)
}

/// Signs and merges; why it is not taken.
fn said(set: &mut TeamSet, by: &Identity, body: Body) -> Option<Refusal> {
    let statement = match set.draft(by.id(), body).and_then(|claim| codec::sign(by, claim)) {
        Ok(statement) => statement,
        Err(why) => return Some(why),
    };
    let id = statement.id();
    let refused = set.merge(vec![statement]).refused;
    refused.into_iter().find(|(of, _)| *of == id).map(|(_, why)| why)
}

#[test]
fn no_member_grows_the_set_by_more_than_its_room_whatever_it_signs() {
    let (mut base, keys) = small_team();
    // Two more statements that entitle it: each could be named as an authority.
    for (version, role) in [(2, Role::SubmitOnly), (3, Role::Member)] {
        let body = Body::Add { node: keys[2].id(), role, name: "pc".into(), addresses: vec![], version };
        assert_eq!(said(&mut base, &keys[0], body), None);
    }
    let entries: Vec<StatementId> = base.statements().filter(|s| s.claim().prev.is_some()).map(Statement::id).collect();
    let mut largest = 0;
    for seed in 0..8u64 {
        let mut state = seed;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut set = base.clone();
        for _ in 0..20 {
            let mut batch = Vec::new();
            for _ in 0..40 {
                let version = [below(u64::from(u32::MAX)), u64::MAX][below(2) as usize];
                let addresses = (0..8).map(|n| format!("[2001:db8:ffff:ffff:ffff:ffff:ffff:fff{n}]:65535")).collect();
                let name = format!("{:0>64}", below(1000));
                let keepers: Vec<NodeId> = (0..16).map(|n| NodeId([n * 16 + below(16) as u8; 32])).collect();
                let body = match below(4) {
                    0 => Body::Remove { node: keys[2].id(), keep: vec![] },
                    1 => Body::Rename { name, addresses, version },
                    2 => Body::Recover { keepers, unseen_days: 14 + below(2_000_000) as u32 },
                    _ => Body::Add { node: NodeId([7; 32]), role: Role::Keeper, name, addresses, version },
                };
                let authority = entries.get(below(entries.len() as u64) as usize).copied();
                let claim = Claim { team: Some(base.team()), authority, prev: None, body };
                let body = codec::body_of(keys[2].public_key(), &claim);
                batch.push(codec::read(&codec::sign_body(&keys[2], &body), &codec::Ring).unwrap());
            }
            let mut heard = Heard::default();
            hear::take_wanted(&mut set, batch, &codec::Ring, &mut heard);
            assert!(heard.verified <= 20, "{heard:?}: of forty that one member signs few could matter");
            largest = largest.max(set.bytes() - base.bytes());
        }
    }
    println!("one member adds at most {largest} bytes ({MEMBER_BYTES_MAX} allowed)");
    assert!(largest > 0 && largest <= MEMBER_BYTES_MAX + 64, "{largest}");
}

#[test]
fn a_keeper_that_adds_ten_thousand_invented_nodes_stops_no_removal_and_leaves_nothing_behind() {
    let (mut set, keys) = small_team();
    let before = set.bytes();
    let mut claim = set
        .draft(
            keys[1].id(),
            Body::Add { node: NodeId([0; 32]), role: Role::Member, name: "x".into(), addresses: via(), version: 1 },
        )
        .unwrap();
    let mut flood = Vec::new();
    for n in 0..10_000u32 {
        let mut node = [1; 32];
        node[..4].copy_from_slice(&n.to_be_bytes());
        claim.body =
            Body::Add { node: NodeId(node), role: Role::Member, name: "x".into(), addresses: via(), version: 1 };
        let statement = codec::sign(&keys[1], claim.clone()).unwrap();
        claim.prev = Some(statement.id());
        flood.push(statement);
    }
    let refused = set.merge(flood).refused;
    assert!(refused.iter().any(|(_, why)| *why == Refusal::Full), "there is an end to it");
    assert!(set.bytes() <= SET_BYTES_MAX);
    let members = set.verdict().members.len();
    println!("{members} members, {} bytes", set.bytes());

    // The room of additions is full, that of removals is not.
    let add =
        Body::Add { node: NodeId([9; 32]), role: Role::Member, name: "new".into(), addresses: vec![], version: 1 };
    assert_eq!(said(&mut set, &keys[0], add.clone()), Some(Refusal::Full));
    let member = Body::Remove { node: keys[2].id(), keep: vec![] };
    assert_eq!(said(&mut set, &keys[0], member), None);
    // Also a removal that keeps all that it said; then everything that it said goes.
    let mut kept = set.clone();
    let keep = kept.keep_of(keys[1].id());
    assert_eq!(said(&mut kept, &keys[0], Body::Remove { node: keys[1].id(), keep }), None);
    assert!(!kept.is_member(keys[1].id()));
    assert_eq!(said(&mut set, &keys[0], Body::Remove { node: keys[1].id(), keep: vec![] }), None);
    assert_eq!(set.verdict().members.len(), 1);
    assert!(set.bytes() < before + 1000, "{} bytes are left of {before}", set.bytes());
    assert!(set.attic().map(|s| s.raw().len()).sum::<usize>() <= VOID_BYTES_MAX);
    assert_eq!(said(&mut set, &keys[0], add), None);
    // Whoever still has the flood brings nothing of it back.
    let digest = set.digest();
    set.union(&kept);
    assert_eq!(set.verdict().members.len(), 2);
    assert!(set.digest() == digest || set.bytes() < before + 2000);
}
