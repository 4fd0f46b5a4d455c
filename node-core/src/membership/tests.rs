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

#[test]
fn a_damaged_file_is_named_and_never_half_used() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    first.create("lab", "pc", &[]).unwrap();
    drop(first);
    let path = dir.path().join("team/statements");
    let good = std::fs::read(&path).unwrap();
    let identity = Arc::new(Identity::load_or_create(dir.path()).unwrap());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(Membership::open(identity.clone(), dir.path()).is_err(), "byte {at}");
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(Membership::open(identity.clone(), dir.path()).is_err(), "cut at {at}");
    }
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
    assert!(other.merge(gossip.clone()).unwrap());
    assert!(!other.merge(gossip).unwrap());
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
