//! Membership statements: as bytes, and as everything that a hostile member can sign.

use std::sync::{Arc, LazyLock};

use potluck_model::team::{Body, Claim, Role, Statement, TeamSet};
use potluck_node::identity::Identity;
use potluck_node::membership::codec;
use potluck_wire::team as wire;
use prost::Message;

use crate::frugal::Frugal;

/// Set before every signed body (`membership::codec`): a hostile member knows it as well as we do.
const DOMAIN: &[u8] = b"potluck-statement-1\0";

/// A team of a keeper, a hostile member and an honest one, whose keys are new with every start: what a key is decides
/// nothing, only whose it is.
struct Office {
    keeper: Identity,
    hostile: Identity,
    honest: Identity,
    set: TeamSet,
}

static OFFICE: LazyLock<Office> = LazyLock::new(|| {
    let key = || Identity::ephemeral().expect("keys can be made");
    let (keeper, hostile, honest) = (key(), key(), key());
    let found = Body::Found { team_name: "office".into(), node_name: "keeper".into(), addresses: vec!["a:1".into()] };
    let found =
        codec::sign(&keeper, Claim { team: None, authority: None, prev: None, body: found }).expect("a founding");
    let mut set = TeamSet::found(found).expect("a team");
    for (who, name) in [(&hostile, "hostile"), (&honest, "honest")] {
        let add =
            Body::Add { node: who.id(), role: Role::Member, name: name.into(), addresses: Vec::new(), version: 1 };
        let claim = set.draft(keeper.id(), add).expect("a keeper may");
        set.merge(vec![codec::sign(&keeper, claim).expect("signed")]);
    }
    assert_eq!(set.verdict().members.len(), 3);
    Office { keeper, hostile, honest, set }
});

/// Bytes as they come: as a whole statement, and as a body that a member has signed. What is taken is the same when it is
/// read again.
pub fn statement(input: &[u8]) {
    if let Ok(statement) = codec::decode(input) {
        taken_is_the_same_again(&statement);
    }
    if let Some(statement) = signed(&OFFICE.hostile, input) {
        taken_is_the_same_again(&statement);
    }
}

fn taken_is_the_same_again(statement: &Statement) {
    let again = codec::decode(statement.raw()).expect("what is stored is read");
    assert_eq!((again.id(), again.by(), again.raw()), (statement.id(), statement.by(), statement.raw()));
}

/// These bytes as the body of a statement with a right signature.
fn signed(by: &Identity, body: &[u8]) -> Option<Statement> {
    let signature = by.sign(&[DOMAIN, body].concat());
    codec::decode(&wire::Statement { body: body.to_vec(), signature }.encode_to_vec()).ok()
}

/// Claims of the hostile member, made out of the input. However many: keeper and honest member stay what they are, the
/// order in which statements arrive does not matter, and what was taken is there when it is merged again.
pub fn team(input: &[u8]) {
    let office = &*OFFICE;
    let mut numbers = Frugal::new(input);
    let mut said: Vec<Statement> = Vec::new();
    while !numbers.is_empty() && said.len() < 24 {
        said.extend(claim(office, &mut numbers, &said));
    }
    let (mut one, mut other) = (office.set.clone(), office.set.clone());
    one.merge(said.clone());
    said.iter().rev().for_each(|s| drop(other.merge(vec![s.clone()])));
    other.merge(said.iter().rev().cloned().collect());
    assert_eq!(one.digest(), other.digest(), "what is known depends on the order in which it came");
    let members = &one.verdict().members;
    for (who, role) in [(&office.keeper, Role::Keeper), (&office.honest, Role::Member)] {
        assert_eq!(members.get(&who.id()).map(|m| m.role), Some(role), "a member without rights has changed somebody");
    }
    let strangers =
        members.keys().filter(|n| ![office.keeper.id(), office.hostile.id(), office.honest.id()].contains(n));
    assert_eq!(strangers.count(), 0, "a member without rights has taken somebody in");
    assert!(one.statements().count() <= office.set.statements().count() + said.len());
    let kept: Vec<Statement> = one.statements().cloned().collect();
    let (again, _) = TeamSet::from_statements(kept).expect("a set that is stored is a set");
    assert_eq!((again.digest(), again.verdict()), (one.digest(), one.verdict()));
}

/// One statement of the hostile member; where the input says so, padded behind what it says, as only its own signer can.
fn claim(office: &Office, numbers: &mut Frugal<'_>, said: &[Statement]) -> Option<Statement> {
    let nodes = [office.keeper.id(), office.hostile.id(), office.honest.id(), potluck_model::ids::NodeId([9; 32])];
    let node = |numbers: &mut Frugal<'_>| nodes[usize::from(numbers.below(4))];
    let known: Vec<_> = office.set.statements().map(Statement::id).chain(said.iter().map(Statement::id)).collect();
    let statement = |numbers: &mut Frugal<'_>| known[usize::from(numbers.byte()) % known.len()];
    let text = |numbers: &mut Frugal<'_>| String::from_utf8_lossy(numbers.bytes(24)).into_owned();
    let role = |numbers: &mut Frugal<'_>| {
        [Role::Keeper, Role::Member, Role::SubmitOnly, Role::ServeOnly][usize::from(numbers.below(4))]
    };
    let body = match numbers.below(5) {
        0 => Body::Add {
            node: node(numbers),
            role: role(numbers),
            name: text(numbers),
            addresses: vec![text(numbers)],
            version: numbers.short().into(),
        },
        1 => Body::Remove { node: node(numbers), keep: vec![statement(numbers)] },
        2 => Body::Rename { name: text(numbers), addresses: vec![text(numbers)], version: numbers.short().into() },
        3 => Body::Recover { keepers: vec![node(numbers)], unseen_days: numbers.short().into() },
        _ => Body::Found { team_name: text(numbers), node_name: text(numbers), addresses: Vec::new() },
    };
    let flags = numbers.byte();
    let claim = match office.set.draft(office.hostile.id(), body.clone()) {
        Ok(claim) if flags & 1 == 0 => claim,
        _ => Claim {
            team: (flags & 2 == 0).then(|| office.set.team()),
            authority: (flags & 4 == 0).then(|| statement(numbers)),
            prev: (flags & 8 != 0).then(|| statement(numbers)),
            body,
        },
    };
    let plain = codec::sign(&office.hostile, claim).ok()?;
    if flags & 16 == 0 {
        return Some(plain);
    }
    let mut body = wire::Statement::decode(plain.raw()).ok()?.body;
    // Field 15, which no version has: bytes that mean nothing.
    body.push(15 << 3 | 2);
    let padding = numbers.bytes(40);
    body.push(padding.len() as u8);
    body.extend_from_slice(padding);
    signed(&office.hostile, &body)
}

/// Somebody who signs, for seeds.
pub fn example() -> (Arc<Identity>, Vec<Vec<u8>>) {
    let all = OFFICE.set.statements().map(|s| s.raw().to_vec()).collect();
    (Arc::new(Identity::ephemeral().expect("keys can be made")), all)
}
