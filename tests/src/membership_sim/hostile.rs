//! What dishonest keys say: a member's, which may sign anything and is believed little, and a keeper's that was stolen,
//! whose thief goes on from where the team was when it took the key, as if it had heard of nothing since.

use potluck_model::ids::NodeId;
use potluck_model::team::{Body, Claim, RECOVER_KEEPERS_MAX, Role, Statement, StatementId, TeamSet};

use super::keys::Key;
use super::world::{LIAR, THIEF, World};

/// Statements of one outburst.
const LIES_MAX: usize = 24;

/// The member says something to some nodes.
pub(super) fn lie(world: &mut World) -> Result<(), String> {
    let Some(held) = world.held[LIAR].clone() else { return Ok(()) };
    let mut raws = Vec::new();
    for _ in 0..1 + world.dice.below(LIES_MAX) {
        raws.extend(one_lie(world, &held.set));
    }
    world.lied(raws.len());
    raws.iter().for_each(|raw| world.remember(raw));
    for _ in 0..1 + world.dice.below(3) {
        let to = world.somebody();
        world.dice.shuffle(&mut raws);
        world.tell(to, raws.clone())?;
    }
    Ok(())
}

/// A key of which nobody but the liar knows.
fn invent(world: &mut World) -> Key {
    let key = Key::new(&mut world.dice);
    world.invented.insert(key.id());
    key
}

/// Something that may entitle the liar, or may not.
fn some_authority(world: &mut World, set: &TeamSet) -> Option<StatementId> {
    let own = world.keys[LIAR].id();
    let naming: Vec<StatementId> = set
        .statements()
        .filter(|s| match &s.claim().body {
            Body::Add { node, .. } => *node == own,
            Body::Recover { keepers, .. } => keepers.contains(&own),
            _ => false,
        })
        .map(Statement::id)
        .collect();
    let all: Vec<StatementId> = set.statements().map(Statement::id).collect();
    let from = if world.dice.percent(80) { &naming } else { &all };
    world.dice.one(from).copied()
}

fn some_node(world: &mut World) -> NodeId {
    let at = world.dice.below(world.keys.len());
    world.keys[at].id()
}

/// One statement, or several that hang on each other.
fn one_lie(world: &mut World, set: &TeamSet) -> Vec<Vec<u8>> {
    let liar = world.keys[LIAR];
    let (team, authority) = (Some(set.team()), some_authority(world, set));
    let version = [world.dice.roll(), u64::MAX, 1][world.dice.below(3)];
    let long =
        || ("n".repeat(64), (0..8).map(|n| format!("[2001:db8:ffff:ffff:ffff:ffff:ffff:fff{n}]:65535")).collect());
    let claim = |body| Claim { team, authority, prev: None, body };
    match world.dice.below(10) {
        0 => vec![liar.sign(&claim(Body::Remove { node: liar.id(), keep: vec![] }))],
        1 => {
            // The same, in an encoding of its own.
            let mut body = liar.body(&claim(Body::Remove { node: liar.id(), keep: vec![] }));
            body.extend([0x7a, 2]);
            body.extend((world.dice.roll() as u16).to_le_bytes());
            world.padded.insert(StatementId(*blake3::hash(&body).as_bytes()));
            vec![liar.sign_body(&body)]
        }
        2 | 3 => {
            let (name, addresses) = long();
            let name = format!("{:.60}{:04x}", name, world.dice.below(0xffff));
            vec![liar.sign(&claim(Body::Rename { name, addresses, version }))]
        }
        4 | 5 => {
            let mut keepers: Vec<NodeId> = (0..RECOVER_KEEPERS_MAX).map(|_| some_node(world)).collect();
            if world.dice.percent(50) {
                keepers[0] = invent(world).id();
            }
            keepers.sort_unstable();
            keepers.dedup();
            let unseen_days = 14 + world.dice.below(1000) as u32;
            vec![liar.sign(&claim(Body::Recover { keepers, unseen_days }))]
        }
        6 => hang_on_own_vote(world, set, authority),
        7 => {
            // A keeper's words by somebody who is none.
            let (name, addresses) = long();
            let node = if world.dice.percent(50) { invent(world).id() } else { some_node(world) };
            vec![liar.sign(&claim(Body::Add { node, role: Role::Keeper, name, addresses, version }))]
        }
        8 => {
            let node = some_node(world);
            let keep = set.keep_of(node);
            vec![liar.sign(&claim(Body::Remove { node, keep }))]
        }
        _ => {
            // Altered on the way: another's words in its own mouth.
            let others: Vec<&Statement> = set.statements().collect();
            let Some(other) = world.dice.one(&others) else { return Vec::new() };
            let mut raw = other.raw().to_vec();
            let at = world.dice.below(raw.len());
            raw[at] ^= 1 << world.dice.below(8);
            vec![raw]
        }
    }
}

/// A vote that names the liar and keys of its own as keepers, and what those would say if it were one.
fn hang_on_own_vote(world: &mut World, set: &TeamSet, authority: Option<StatementId>) -> Vec<Vec<u8>> {
    let (liar, puppet) = (world.keys[LIAR], invent(world));
    let mut keepers = vec![liar.id(), puppet.id()];
    keepers.sort_unstable();
    let claim = |authority, prev, body| Claim { team: Some(set.team()), authority, prev, body };
    let vote = liar.body(&claim(authority, None, Body::Recover { keepers, unseen_days: 14 }));
    let vote_id = Some(StatementId(*blake3::hash(&vote).as_bytes()));
    let mut raws = vec![liar.sign_body(&vote)];
    let mut prev = None;
    for n in 0..world.dice.below(LIES_MAX) {
        let by = if n % 2 == 0 { puppet } else { liar };
        let body = if n % 3 == 0 {
            Body::Remove { node: some_node(world), keep: vec![] }
        } else {
            let node = invent(world).id();
            Body::Add { node, role: Role::Keeper, name: "puppet".into(), addresses: vec![], version: 1 }
        };
        let body = by.body(&claim(vote_id, if n % 2 == 0 { prev } else { None }, body));
        if n % 2 == 0 {
            prev = Some(StatementId(*blake3::hash(&body).as_bytes()));
        }
        raws.push(by.sign_body(&body));
    }
    raws
}

/// The thief takes the key, or says something with it.
pub(super) fn steal(world: &mut World) -> Result<(), String> {
    let Some(stolen) = world.stolen.clone() else {
        world.stolen = world.held[THIEF].clone();
        return Ok(());
    };
    let mut set = stolen.set.clone();
    let mut raws = Vec::new();
    let count = if world.dice.percent(2) { 1000 } else { 1 + world.dice.below(12) };
    let chained = count < 1000 || world.dice.percent(50);
    for n in 0..count {
        let key =
            if count < 1000 && world.dice.percent(30) { world.dice.one(&world.thief_keys).copied() } else { None };
        let key = key.unwrap_or(world.keys[THIEF]);
        let body = match world.dice.below(4) {
            0 if count < 1000 => {
                let node = some_node(world);
                let keep = if world.dice.percent(50) { set.keep_of(node) } else { vec![] };
                Body::Remove { node, keep }
            }
            _ => {
                let own = Key::new(&mut world.dice);
                if world.thief_keys.len() < 8 {
                    world.thief_keys.push(own);
                }
                let role = if n % 4 == 0 { Role::Keeper } else { Role::Member };
                Body::Add { node: own.id(), role, name: "thief".into(), addresses: vec![], version: 1 }
            }
        };
        let Ok(mut claim) = set.draft(key.id(), body) else { continue };
        if !chained || world.dice.percent(20) {
            claim.prev = None;
        }
        if count >= 1000 {
            // All from one point: a thousand branches, or one that is written from its end.
            raws.push(key.sign(&claim));
            continue;
        }
        let raw = key.sign(&claim);
        if let Some(statement) = read(&raw) {
            set.merge(vec![statement]);
        }
        raws.push(raw);
    }
    raws.iter().take(50).for_each(|raw| world.remember(raw));
    for _ in 0..1 + world.dice.below(2) {
        let to = world.somebody();
        world.tell(to, raws.clone())?;
    }
    Ok(())
}

fn read(raw: &[u8]) -> Option<Statement> {
    let unverified = potluck_node::membership::codec::read(raw, &super::keys::Fast).ok()?;
    unverified.verify(&super::keys::Fast).ok()
}
