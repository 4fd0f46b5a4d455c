use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn txt<'a>(pairs: &'a [(&'a str, &'a [u8])]) -> impl Fn(&str) -> Option<&'a [u8]> {
    move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

fn said(instance: &str, node: u64, team: u64, name: &str) -> Announcement {
    Announcement {
        instance: instance.into(),
        node: NodePrefix(node),
        team: TeamTag(team),
        team_name: name.into(),
        keeper: node.is_multiple_of(2),
        addresses: vec![addr(&format!("10.0.0.{}:1", node % 250 + 1))],
    }
}

const FULL: &[(&str, &[u8])] =
    &[("v", b"1"), ("id", b"00000000000000aa"), ("team", b"00000000000000bb"), ("name", b"lab"), ("keeper", b"1")];

#[test]
fn an_announcement_is_read_with_the_nearest_addresses_first() {
    let said = Announcement::read("x", 7, ["[fe80::1%3]:7", "[fd00::1]:7", "10.0.0.1:7"].map(addr), txt(FULL)).unwrap();
    assert_eq!((said.node, said.team, said.keeper), (NodePrefix(0xaa), TeamTag(0xbb), true));
    assert_eq!(said.addresses, ["10.0.0.1:7", "[fd00::1]:7", "[fe80::1%3]:7"].map(addr));
}

#[test]
fn half_an_announcement_is_none() {
    for missing in ["v", "id", "team"] {
        let left: Vec<_> = FULL.iter().copied().filter(|(k, _)| *k != missing).collect();
        assert_eq!(Announcement::read("x", 7, [], txt(&left)), None, "{missing}");
    }
    assert_eq!(Announcement::read("x", 0, [], txt(FULL)), None);
    for bad in ["", "+0000000000000aa", "00000000000000a", "00000000000000aaa", "zz000000000000aa"] {
        let with = [&[("id", bad.as_bytes())][..], FULL].concat();
        assert_eq!(Announcement::read("x", 7, [], txt(&with)), None, "{bad:?}");
    }
}

#[test]
fn addresses_that_are_this_pc_or_everybody_are_left_out_and_their_number_is_bounded() {
    let bad = ["127.0.0.1:7", "[::1]:7", "0.0.0.0:7", "255.255.255.255:7", "224.0.0.251:7", "[ff02::fb]:7"];
    let said = Announcement::read("x", 7, bad.map(addr), txt(FULL)).unwrap();
    assert_eq!(said.addresses, []);
    let many = (0..200).map(|n| addr(&format!("10.0.0.{n}:7")));
    assert_eq!(Announcement::read("x", 7, many, txt(FULL)).unwrap().addresses.len(), HINT_ADDRESSES_MAX);
}

#[test]
fn names_lose_what_turns_or_hides_text_and_are_cut_at_a_character() {
    assert_eq!(clean("a\u{202e}b\u{200b}c\u{7}\u{1b}[31m\n".as_bytes(), 63), "abc[31m");
    assert_eq!(clean(&[b'a', 0xff, b'b'], 63), "a\u{fffd}b");
    assert_eq!(clean("\u{e4}".repeat(40).as_bytes(), 63).len(), 62);
}

#[test]
fn only_members_of_the_own_team_are_dialled() {
    let mut hints = Hints::default();
    hints.announced(said("a", 1, 7, ""), |_| true);
    hints.announced(said("b", 2, 7, ""), |_| true);
    hints.announced(said("c", 3, 8, ""), |_| true);
    let member = |p: NodePrefix| (p.0 != 2).then_some(NodeId([p.0 as u8; 32]));
    assert_eq!(hints.targets(TeamTag(7), member), [(NodeId([1; 32]), addr("10.0.0.2:1"))]);
    hints.gone("a");
    assert_eq!(hints.targets(TeamTag(7), member), []);
}

#[test]
fn a_goodbye_counts_although_an_earlier_start_was_never_taken_back() {
    let mut hints = Hints::default();
    hints.announced(said("before the crash", 1, 7, ""), |_| true);
    hints.announced(said("after it", 1, 7, ""), |_| true);
    assert_eq!(hints.gone("after it").map(|(_, is_last)| is_last), Some(true));
    hints.announced(said("again", 1, 7, ""), |_| true);
    assert_eq!(hints.gone("before the crash").map(|(_, is_last)| is_last), Some(false));
    assert_eq!(hints.gone("before the crash"), None);
}

#[test]
fn a_flood_of_inventions_keeps_no_member_out_and_takes_bounded_room() {
    let mut hints = Hints::default();
    let is_member = |p: NodePrefix| p.0 < 100;
    for n in 0..5000u64 {
        hints.announced(said(&format!("fake {n}"), 1000 + n, 7, ""), is_member);
    }
    assert_eq!(hints.entries.len(), HINTS_MAX);
    assert!(hints.announced(said("real", 5, 7, ""), is_member));
    for n in 0..5000u64 {
        hints.announced(said(&format!("fake again {n}"), 9000 + n, 7, ""), is_member);
    }
    assert_eq!(hints.entries.len(), HINTS_MAX);
    assert!(hints.nodes(TeamTag(7)).contains(&NodePrefix(5)));
    for n in 0..50u64 {
        hints.announced(said(&format!("as member {n}"), 5, 7, ""), is_member);
    }
    assert_eq!(hints.of(TeamTag(7)).filter(|e| e.node == NodePrefix(5)).count(), HINTS_PER_NODE_MAX);
}

#[test]
fn the_own_team_is_not_nearby_and_others_are_counted_by_computer() {
    let mut hints = Hints::default();
    for (instance, node, team, name) in
        [("a", 1, 7, "own"), ("b", 2, 8, "theirs"), ("c", 2, 8, "theirs"), ("d", 3, 8, "theirs"), ("e", 5, 8, "liar")]
    {
        hints.announced(said(instance, node, team, name), |_| true);
    }
    let nearby = hints.nearby(Some(TeamTag(7)));
    assert_eq!(nearby.len(), 1);
    assert_eq!((nearby[0].name.as_str(), nearby[0].computers), ("theirs", 3));
    assert!(nearby[0].keepers.contains(&addr("10.0.0.3:1")));
    assert_eq!(hints.nearby(None).len(), 2);
}

#[test]
fn the_network_is_judged_by_what_was_seen() {
    let base =
        Evidence { on: true, announced_for: Some(Duration::from_secs(60)), own_seen: true, ..Evidence::default() };
    assert_eq!(judge(Evidence { on: false, ..base }), Finding::Off);
    assert_eq!(judge(base), Finding::Works);
    assert_eq!(judge(Evidence { hidden: true, ..base }), Finding::Blocked);
    assert_eq!(judge(Evidence { hidden: true, others_seen: true, ..base }), Finding::Works, "it is that one PC");
    assert_eq!(judge(Evidence { own_seen: false, ..base }), Finding::Blocked);
    assert_eq!(
        judge(Evidence { own_seen: false, announced_for: Some(Duration::from_secs(2)), ..base }),
        Finding::Starting
    );
    assert_eq!(judge(Evidence { own_seen: false, announced_for: None, ..base }), Finding::Starting);
}

/// Addresses as `ip/bits`.
fn own(all: &[&str]) -> BTreeSet<Own> {
    let parts = all.iter().map(|text| text.split_once('/').unwrap());
    parts.map(|(ip, bits)| Own { ip: ip.parse().unwrap(), bits: bits.parse().unwrap() }).collect()
}

const LAN: &str = "10.1.2.3/24";
const LAN_V6: &str = "2001:db8:a::3/64";
const LOCAL: &str = "fe80::3/64";
const CONTAINERS: &str = "172.17.0.1/16";
const ELSEWHERE: &str = "192.168.7.3/24";

/// In `before`, where a member was seen at each of `seen`, the addresses become those of each next one in turn.
fn changes(before: &[&str], seen: &[&str], then: &[&[&str]]) -> Vec<Change> {
    let mut networks = Networks::new(own(before));
    networks.seen_at(seen.iter().map(|ip| ip.parse().unwrap()));
    then.iter().map(|all| networks.changed(own(all))).collect()
}

#[test]
fn a_move_is_noticed_although_addresses_of_containers_or_local_ones_stay() {
    use Change::{Addresses, Moved, Same};
    assert_eq!(changes(&[LAN, CONTAINERS], &["10.1.2.9"], &[&[ELSEWHERE, CONTAINERS]]), [Moved]);
    assert_eq!(
        changes(&[LAN, CONTAINERS], &["10.1.2.9"], &[&[CONTAINERS], &[ELSEWHERE, CONTAINERS]]),
        [Moved, Addresses]
    );
    assert_eq!(changes(&[LAN, LOCAL], &[], &[&[LAN, LOCAL], &[ELSEWHERE, LOCAL]]), [Same, Moved]);
    assert_eq!(changes(&[LAN, LOCAL], &["10.1.2.9", "fe80::9"], &[&[LOCAL], &[LOCAL, ELSEWHERE]]), [Moved, Addresses]);
    assert_eq!(changes(&[LAN, LAN_V6, LOCAL], &["10.1.2.9", "2001:db8:a::9"], &[&[LOCAL, ELSEWHERE]]), [Moved]);
    // All members have the same address for their own containers: nobody is met there.
    assert_eq!(changes(&[LAN, CONTAINERS], &["10.1.2.9", "172.17.0.1"], &[&[CONTAINERS]]), [Moved]);
    // Nothing is known of where members are: as long as an address stays, nothing says that this PC moved.
    assert_eq!(changes(&[LAN, CONTAINERS], &[], &[&[CONTAINERS], &[]]), [Addresses, Moved]);
}

#[test]
fn an_address_more_or_another_temporary_one_is_no_move() {
    use Change::{Addresses, Moved};
    for seen in [&["10.1.2.9", "2001:db8:a::9"][..], &["2001:db8:a::9"], &[]] {
        let temporary = ["2001:db8:a::aaaa/64", "2001:db8:a::bbbb/64"];
        let changes = changes(
            &[LAN, LAN_V6, LOCAL, temporary[0]],
            seen,
            &[
                &[LAN, LAN_V6, LOCAL, temporary[0], temporary[1]],
                &[LAN, LAN_V6, LOCAL, temporary[1]],
                &[LAN_V6, LOCAL, CONTAINERS],
                &[LAN_V6, LOCAL, CONTAINERS, LAN],
            ],
        );
        assert_eq!(changes, [Addresses; 4], "{seen:?}");
    }
    // A PC that starts has its local address first.
    assert_eq!(changes(&[], &[], &[&[LOCAL], &[LOCAL, LAN], &[LOCAL, LAN, LAN_V6]]), [Moved, Addresses, Addresses]);
    assert_eq!(changes(&[LOCAL], &["fe80::9"], &[&[LOCAL, LAN], &[LOCAL]]), [Addresses, Moved]);
}

#[test]
fn of_two_networks_with_members_one_may_go() {
    let seen = ["10.1.2.9", "192.168.7.9"];
    let then: &[&[&str]] = &[&[ELSEWHERE, CONTAINERS], &[CONTAINERS, LAN]];
    assert_eq!(changes(&[LAN, ELSEWHERE, CONTAINERS], &seen, then), [Change::Addresses, Change::Moved]);
}

#[test]
fn a_network_is_as_large_as_its_mask_says() {
    let is_near = |own_ip: &str, ip: &str| {
        let own = *own(&[own_ip]).first().unwrap();
        own.cut(ip.parse().unwrap()) == own.network()
    };
    for (own_ip, near, far) in [
        ("10.1.2.3/31", "10.1.2.2", "10.1.2.4"),
        ("10.1.2.3/32", "10.1.2.3", "10.1.2.2"),
        ("2001:db8::1/64", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        // No mask was told.
        ("10.1.2.3/128", "10.1.2.3", "10.1.2.2"),
    ] {
        assert!(is_near(own_ip, near) && !is_near(own_ip, far), "{own_ip}");
    }
    assert!(is_near("10.1.2.3/0", "192.168.0.1") && is_near("fd00::1/0", "2001:db8::1"));
}
