use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::*;

/// Real Ed25519 over a body that is only as well encoded as these tests need.
struct Ed25519;

impl Signatures for Ed25519 {
    fn sha256(&self, bytes: &[u8]) -> [u8; 32] {
        digest(&SHA256, bytes).as_ref().try_into().unwrap()
    }

    fn node(&self, key: &[u8]) -> Option<NodeId> {
        Some(NodeId(self.sha256(key)))
    }

    fn is_signed(&self, key: &[u8], body: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(body, signature).is_ok()
    }
}

struct Key(Ed25519KeyPair);

impl Key {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn id(&self) -> NodeId {
        NodeId(Ed25519.sha256(self.0.public_key().as_ref()))
    }

    fn sign(&self, claim: Claim) -> Statement {
        let body = format!("{:?} {claim:?}", self.id()).into_bytes();
        let signature = self.0.sign(&body);
        let key = self.0.public_key().as_ref();
        let raw = [&body, signature.as_ref()].concat();
        Statement::verify(&raw, &body, key, signature.as_ref(), claim, &Ed25519).unwrap()
    }
}

fn keys(count: u8) -> Vec<Key> {
    (1..=count).map(Key::new).collect()
}

fn found(founder: &Key) -> TeamSet {
    let body = Body::Found { team_name: "lab".into(), node_name: "pc".into(), addresses: vec![] };
    TeamSet::found(founder.sign(Claim { team: None, authority: None, prev: None, body })).unwrap()
}

fn add(node: &Key, role: Role) -> Body {
    Body::Add { node: node.id(), role, name: "pc".into(), addresses: vec![], version: 1 }
}

fn remove(set: &TeamSet, node: &Key) -> Body {
    Body::Remove { node: node.id(), keep: set.heads_of(node.id()) }
}

fn say(set: &mut TeamSet, by: &Key, body: Body) -> Statement {
    let statement = by.sign(set.draft(by.id(), body).unwrap());
    let merged = set.merge(vec![statement.clone()]);
    assert_eq!(merged, Merged { changed: true, refused: vec![] });
    statement
}

/// A team of keepers; the first founded it and added the others.
fn keepers(keys: &[Key]) -> TeamSet {
    let mut set = found(&keys[0]);
    for key in &keys[1..] {
        say(&mut set, &keys[0], add(key, Role::Keeper));
    }
    set
}

/// What nodes tell each other and what it means; what each keeps for itself may differ.
fn meaning(set: &TeamSet) -> (Digest, Verdict) {
    (set.digest(), set.verdict().clone())
}

fn who(set: &TeamSet, keys: &[Key]) -> Vec<usize> {
    (0..keys.len()).filter(|i| set.is_member(keys[*i].id())).collect()
}

#[test]
fn an_added_node_is_a_member_and_a_removed_one_never_again() {
    let keys = keys(3);
    let mut set = found(&keys[0]);
    say(&mut set, &keys[0], add(&keys[1], Role::Member));
    assert_eq!(who(&set, &keys), [0, 1]);
    let epoch = set.verdict().epoch;
    say(&mut set, &keys[0], add(&keys[2], Role::SubmitOnly));
    assert_eq!(set.verdict().epoch, epoch, "joins leave caches alone");
    let gone = remove(&set, &keys[1]);
    say(&mut set, &keys[0], gone);
    assert_eq!(who(&set, &keys), [0, 2]);
    assert_ne!(set.verdict().epoch, epoch);
    say(&mut set, &keys[0], add(&keys[1], Role::Keeper));
    assert_eq!(who(&set, &keys), [0, 2], "remove wins");
}

#[test]
fn only_keepers_say_who_is_in_but_anyone_may_leave() {
    let keys = keys(4);
    let mut set = found(&keys[0]);
    let entry = say(&mut set, &keys[0], add(&keys[1], Role::Member));
    say(&mut set, &keys[0], add(&keys[2], Role::Member));
    assert_eq!(set.draft(keys[1].id(), add(&keys[3], Role::Member)), Err(Refusal::NotEntitled));
    // Not even with a statement made by hand.
    for body in [add(&keys[3], Role::Member), Body::Remove { node: keys[2].id(), keep: vec![] }] {
        let forged = keys[1].sign(Claim { team: Some(set.team()), authority: Some(entry.id()), prev: None, body });
        assert_eq!(set.merge(vec![forged.clone()]).refused, [(forged.id(), Refusal::NotEntitled)]);
    }
    say(&mut set, &keys[1], Body::Remove { node: keys[1].id(), keep: vec![] });
    assert_eq!(who(&set, &keys), [0, 2]);
}

#[test]
fn a_statement_of_another_team_or_with_an_altered_byte_is_refused() {
    let keys = keys(2);
    let mut set = found(&keys[0]);
    let mut claim = set.draft(keys[0].id(), add(&keys[1], Role::Member)).unwrap();
    claim.team = Some(TeamId([7; 32]));
    let foreign = keys[0].sign(claim.clone());
    assert_eq!(set.merge(vec![foreign.clone()]).refused, [(foreign.id(), Refusal::OtherTeam)]);
    let body = b"body".to_vec();
    let signature = keys[0].0.sign(&body);
    let key = keys[0].0.public_key().as_ref();
    let altered = Statement::verify(b"", b"bodY", key, signature.as_ref(), claim, &Ed25519);
    assert_eq!(altered, Err(Refusal::BadSignature));
}

#[test]
fn what_a_removed_keeper_says_later_is_void_whatever_date_it_claims() {
    let keys = keys(5);
    let mut set = keepers(&keys[..3]);
    say(&mut set, &keys[1], add(&keys[3], Role::Member));
    let mut thief = set.clone();
    let gone = remove(&set, &keys[1]);
    say(&mut set, &keys[0], gone);
    assert_eq!(who(&set, &keys), [0, 2, 3], "what it had said before stays valid");
    // The thief goes on from where it was, as if it had not heard.
    say(&mut thief, &keys[1], add(&keys[4], Role::Keeper));
    let strike = Body::Remove { node: keys[2].id(), keep: vec![] };
    say(&mut thief, &keys[1], strike);
    let strike = remove(&thief, &keys[3]);
    say(&mut thief, &keys[4], strike);
    assert_eq!(who(&thief, &keys), [0, 1, 4]);
    set.union(&thief);
    assert_eq!(who(&set, &keys), [0, 2, 3]);
}

#[test]
fn keep_nothing_takes_out_everyone_whom_the_keeper_took_in() {
    let keys = keys(4);
    let mut set = keepers(&keys[..2]);
    say(&mut set, &keys[1], add(&keys[2], Role::Keeper));
    say(&mut set, &keys[2], add(&keys[3], Role::Member));
    say(&mut set, &keys[0], Body::Remove { node: keys[1].id(), keep: vec![] });
    assert_eq!(who(&set, &keys), [0]);
}

#[test]
fn keepers_that_remove_each_other_are_both_out_on_every_node() {
    let keys = keys(3);
    let base = keepers(&keys);
    let (mut left, mut right) = (base.clone(), base.clone());
    let body = remove(&left, &keys[1]);
    say(&mut left, &keys[0], body);
    let body = remove(&right, &keys[0]);
    say(&mut right, &keys[1], body);
    let mut merged = left.clone();
    merged.union(&right);
    right.union(&left);
    assert_eq!(merged, right);
    assert_eq!(who(&merged, &keys), [2]);
}

#[test]
fn keepers_that_remove_each_other_in_a_ring_are_all_out() {
    let keys = keys(4);
    let base = keepers(&keys);
    let mut all = base.clone();
    for i in 0..3 {
        let mut side = base.clone();
        let body = remove(&side, &keys[(i + 1) % 3]);
        say(&mut side, &keys[i], body);
        all.union(&side);
    }
    assert_eq!(who(&all, &keys), [3]);
}

#[test]
fn a_removed_keeper_cannot_undo_removals_by_striking_at_their_signers() {
    let keys = keys(5);
    let mut set = keepers(&keys);
    let mut thief = set.clone();
    let body = remove(&set, &keys[4]);
    say(&mut set, &keys[2], body);
    let body = remove(&set, &keys[1]);
    say(&mut set, &keys[0], body);
    assert_eq!(who(&set, &keys), [0, 2, 3]);
    // 1 was removed by 0 and strikes at 2, so that 2's removal of 4 would be void.
    say(&mut thief, &keys[1], Body::Remove { node: keys[2].id(), keep: vec![] });
    set.union(&thief);
    assert_eq!(who(&set, &keys), [0, 2, 3]);
}

#[test]
fn a_keeper_can_disown_a_removal_made_with_a_stolen_key() {
    let keys = keys(3);
    let mut set = keepers(&keys);
    let known = set.heads_of(keys[1].id());
    say(&mut set, &keys[1], Body::Remove { node: keys[2].id(), keep: vec![] });
    assert_eq!(who(&set, &keys), [0, 1]);
    say(&mut set, &keys[0], Body::Remove { node: keys[1].id(), keep: known });
    assert_eq!(who(&set, &keys), [0, 2]);
}

#[test]
fn a_removal_must_not_void_what_entitles_its_signer() {
    let keys = keys(2);
    let mut set = keepers(&keys);
    let body = Body::Remove { node: keys[0].id(), keep: vec![] };
    assert_eq!(set.draft(keys[1].id(), body.clone()), Err(Refusal::BadReference));
    // Not even with a statement made by hand.
    let mut claim = set.draft(keys[1].id(), add(&keys[1], Role::Keeper)).unwrap();
    claim.body = body;
    assert!(!set.merge(vec![keys[1].sign(claim)]).changed);
    assert_eq!(who(&set, &keys), [0, 1]);
}

#[test]
fn a_majority_recovers_a_team_without_keepers_and_a_minority_does_not() {
    let keys = keys(6);
    let mut set = found(&keys[0]);
    for key in &keys[1..5] {
        say(&mut set, &keys[0], add(key, Role::Member));
    }
    let proposal = || Body::Recover { keepers: vec![keys[1].id()], unseen_days: 20 };
    for voter in &keys[1..3] {
        say(&mut set, voter, proposal());
    }
    assert!(!set.is_keeper(keys[1].id()), "two of five");
    assert_eq!(set.draft(keys[1].id(), add(&keys[5], Role::Member)), Err(Refusal::NotEntitled));
    say(&mut set, &keys[3], proposal());
    assert!(set.is_keeper(keys[1].id()), "three of five");
    say(&mut set, &keys[1], add(&keys[5], Role::Member));
    let body = remove(&set, &keys[0]);
    say(&mut set, &keys[1], body);
    assert_eq!(who(&set, &keys), [1, 2, 3, 4, 5]);
    let early = Body::Recover { keepers: vec![keys[2].id()], unseen_days: 13 };
    assert_eq!(set.draft(keys[2].id(), early), Err(Refusal::KeeperSeen));
}

#[test]
fn only_the_newest_name_is_stored() {
    let keys = keys(2);
    let mut set = found(&keys[0]);
    say(&mut set, &keys[0], add(&keys[1], Role::Member));
    let rename = |version| Body::Rename { name: format!("pc-{version}"), addresses: vec![], version };
    let old = keys[1].sign(set.draft(keys[1].id(), rename(2)).unwrap());
    say(&mut set, &keys[1], rename(3));
    let len = set.statements().count();
    assert!(!set.merge(vec![old]).changed);
    say(&mut set, &keys[1], rename(4));
    assert_eq!(set.statements().count(), len);
    assert_eq!(set.verdict().members[&keys[1].id()].name, "pc-4");
    let bad = Body::Rename { name: "a\u{7}b".into(), addresses: vec![], version: 9 };
    assert_eq!(set.draft(keys[1].id(), bad), Err(Refusal::BadName));
}

#[test]
fn a_keeper_that_floods_its_chain_costs_little() {
    let keys = keys(2);
    let mut set = keepers(&keys);
    // A long chain, and removals by the other one that keep ever more of it.
    let mut flood = Vec::new();
    let mut claim = set.draft(keys[1].id(), add(&keys[1], Role::Keeper)).unwrap();
    for _ in 0..2000 {
        let statement = keys[1].sign(claim.clone());
        claim.prev = Some(statement.id());
        flood.push(statement);
    }
    let mut strike = set.draft(keys[0].id(), Body::Remove { node: keys[1].id(), keep: vec![] }).unwrap();
    for at in (0..2000).step_by(10) {
        strike.body = Body::Remove { node: keys[1].id(), keep: vec![flood[at].id()] };
        let statement = keys[0].sign(strike.clone());
        strike.prev = Some(statement.id());
        flood.push(statement);
    }
    flood.reverse();
    let refused = set.merge(flood).refused;
    assert!(!refused.is_empty(), "one keeper says of one node only so often that it is out");
    assert_eq!(who(&set, &keys), [0]);
}

const NODES: u8 = 7;

/// Something that one of several partitioned nodes does to its own copy of the set.
#[derive(Debug, Clone)]
struct Act {
    replica: usize,
    by: usize,
    target: usize,
    kind: u8,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let node = 0..NODES as usize;
    let act = (0..3usize, node.clone(), node, 0..8u8);
    prop::collection::vec(act.prop_map(|(replica, by, target, kind)| Act { replica, by, target, kind }), 1..40)
}

fn play(keys: &[Key], acts: &[Act]) -> [TeamSet; 3] {
    let base = keepers(&keys[..3]);
    let mut replicas = [base.clone(), base.clone(), base];
    for (at, act) in acts.iter().enumerate() {
        let (by, target) = (&keys[act.by], &keys[act.target]);
        let set = &mut replicas[act.replica];
        let name = format!("pc-{at}");
        let body = match act.kind {
            0 => add(target, Role::Keeper),
            1 => add(target, Role::Member),
            2 => remove(set, target),
            3 => Body::Remove { node: target.id(), keep: set.heads_of(target.id()).into_iter().skip(1).collect() },
            4 => Body::Rename { name, addresses: vec![], version: at as u64 },
            5 => Body::Recover { keepers: vec![target.id()], unseen_days: 14 },
            6 => {
                let other = replicas[(act.replica + 1) % 3].clone();
                replicas[act.replica].union(&other);
                continue;
            }
            _ => add(target, Role::ServeOnly),
        };
        let body = match body {
            Body::Remove { node, .. } if node == by.id() => Body::Remove { node, keep: vec![] },
            other => other,
        };
        if let Ok(claim) = set.draft(by.id(), body) {
            set.merge(vec![by.sign(claim)]);
        }
    }
    replicas
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(acts in acts()) {
        let [a, b, c] = play(&keys(NODES), &acts);
        let union = |x: &TeamSet, y: &TeamSet| {
            let mut all = x.clone();
            let merged = all.union(y);
            assert_eq!(merged.refused, []);
            all
        };
        prop_assert_eq!(meaning(&union(&a, &b)), meaning(&union(&b, &a)));
        let left = union(&union(&a, &b), &c);
        prop_assert_eq!(meaning(&left), meaning(&union(&a, &union(&b, &c))));
        prop_assert_eq!(meaning(&left), meaning(&union(&left, &a)));
        prop_assert_eq!(meaning(&left), meaning(&union(&c, &union(&b, &a))));
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(acts in acts(), seed in any::<u64>()) {
        let [mut all, b, c] = play(&keys(NODES), &acts);
        all.union(&b);
        all.union(&c);
        let mut statements: Vec<_> = all.statements().chain(all.attic()).cloned().collect();
        let mut state = seed | 1;
        for i in (1..statements.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            statements.swap(i, (state >> 33) as usize % (i + 1));
        }
        let (again, merged) = TeamSet::from_statements(statements).unwrap();
        prop_assert_eq!(merged.refused, vec![]);
        prop_assert_eq!(meaning(&again), meaning(&all));
    }

    #[test]
    fn a_keeper_removed_by_all_others_hurts_nobody_but_them(acts in acts()) {
        // Node 1 is removed by 0 with everything kept; whatever it then does with any date, 2 and the members stay.
        let keys = keys(NODES);
        let mut set = keepers(&keys[..3]);
        say(&mut set, &keys[2], add(&keys[3], Role::Member));
        let mut thief = set.clone();
        let gone = remove(&set, &keys[1]);
        say(&mut set, &keys[0], gone);
        for act in &acts {
            // Keys 4.. are the thief's own; it signs with them and with the stolen one.
            let by = if act.by < 4 { &keys[1] } else { &keys[act.by] };
            let target = &keys[act.target];
            let keep = if act.kind % 2 == 0 { thief.heads_of(target.id()) } else { vec![] };
            let body = match act.kind {
                0 | 1 => add(target, Role::Keeper),
                2..=5 if target.id() != by.id() => Body::Remove { node: target.id(), keep },
                _ => Body::Recover { keepers: vec![target.id()], unseen_days: 14 },
            };
            if let Ok(claim) = thief.draft(by.id(), body) {
                thief.merge(vec![by.sign(claim)]);
            }
            set.union(&thief);
            prop_assert!(set.is_keeper(keys[2].id()));
            prop_assert!(set.is_member(keys[3].id()));
            prop_assert!(!set.is_member(keys[1].id()));
            prop_assert!(!(4..7).any(|i| set.is_member(keys[i].id())));
        }
    }
}
