//! Which of the allowed places are chosen, and what a refusal says.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use placement::{
    Cluster, Domains, Enforcement, Expression, Labels, Node, Operator, Place, PlacedVolume, Pool, ReplicaRule, Request,
    Scope, VolumeRule, place,
};

const GIB: u64 = 1 << 30;

/// A node with one pool of 100 GiB; `at` is its region, zone and rack.
fn node(name: &str, at: [&str; 3], free: u64, replicas: u32) -> Node {
    let known = |part: &str| (!part.is_empty()).then(|| part.to_owned());
    let domains = Domains { region: known(at[0]), zone: known(at[1]), rack: known(at[2]) };
    let labels = [("zone".to_owned(), at[1].to_owned())].into();
    let pool = Pool { name: "pool".into(), labels: Labels::new(), capacity: 100 * GIB, free: free * GIB, replicas };
    Node { name: name.into(), domains, labels, closed: None, pools: vec![pool] }
}

fn cluster(nodes: Vec<Node>) -> Cluster {
    Cluster { nodes, volumes: Vec::new() }
}

fn want(replicas: usize) -> Request {
    Request { size: 10 * GIB, replicas, ..Request::default() }
}

fn check(cluster: &Cluster, request: &Request, expected: &[&str]) {
    let places = place(cluster, request).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(places.iter().map(|place| place.node.as_str()).collect::<Vec<_>>(), expected);
}

fn is(key: &str, value: &str) -> Expression {
    Expression { key: key.into(), operator: Operator::In(vec![value.into()]) }
}

#[test]
fn replicas_are_spread_over_regions_then_zones_then_racks() {
    let all = cluster(vec![
        node("a", ["west", "w1", "r1"], 90, 0),
        node("b", ["west", "w1", "r2"], 89, 0),
        node("c", ["west", "w2", "r3"], 30, 0),
        node("d", ["east", "e1", "r4"], 20, 0),
        node("e", ["east", "e1", "r4"], 19, 0),
    ]);
    check(&all, &want(3), &["a", "d", "c"]);
    check(&all, &want(5), &["a", "d", "c", "e", "b"]);
}

#[test]
fn what_is_not_known_to_be_apart_counts_as_together() {
    let all = cluster(vec![
        node("a", ["", "z1", ""], 90, 0),
        node("b", ["", "", ""], 80, 0),
        node("c", ["", "z2", ""], 20, 0),
    ]);
    check(&all, &want(2), &["a", "c"]);
}

#[test]
fn among_equals_the_one_with_the_greater_share_of_room_then_with_fewer_replicas_is_chosen() {
    let at = ["r", "z", "k"];
    check(&cluster(vec![node("a", at, 40, 0), node("b", at, 80, 9)]), &want(1), &["b"]);
    check(&cluster(vec![node("a", at, 81, 9), node("b", at, 80, 2)]), &want(1), &["b"]);
    check(&cluster(vec![node("b", at, 80, 2), node("a", at, 80, 2)]), &want(1), &["a"]);
}

#[test]
fn those_that_there_are_count_when_a_replica_is_replaced() {
    let all = cluster(vec![
        node("a", ["r", "z1", ""], 90, 0),
        node("b", ["r", "z1", ""], 90, 0),
        node("c", ["r", "z2", ""], 20, 0),
        node("d", ["r", "z3", ""], 20, 0),
    ]);
    let present = |node: &str| Place { node: node.into(), pool: "pool".into() };
    let request = Request { present: vec![present("a"), present("d")], ..want(1) };
    check(&all, &request, &["c"]);
    let request = Request { leaving: vec!["c".into()], ..request };
    check(&all, &request, &["b"]);
}

#[test]
fn a_preferred_rule_goes_before_spreading_and_gives_way_to_what_is_required() {
    let all = cluster(vec![
        node("a", ["r", "z1", ""], 90, 0),
        node("b", ["r", "z2", ""], 90, 0),
        node("c", ["r", "z2", ""], 50, 0),
    ]);
    let mut request = want(2);
    let scope = Scope::Match(vec![is("zone", "z2")]);
    let rule = |enforcement| ReplicaRule { enforcement, affected: None, scope: scope.clone() };
    request.strategy.replica_affinity = vec![rule(Enforcement::Preferred { weight: 1 })];
    check(&all, &request, &["b", "c"]);
    request.strategy.replica_anti_affinity =
        vec![ReplicaRule { enforcement: Enforcement::Required, affected: None, scope: Scope::Topology("zone".into()) }];
    check(&all, &request, &["b", "a"]);
}

#[test]
fn the_best_place_is_left_where_it_leads_nowhere() {
    // Only `a` and `c` are in different zones and both have room; `b` alone would be the best.
    let mut best = node("b", ["r", "z9", ""], 99, 0);
    best.labels.clear();
    let all = cluster(vec![node("a", ["r", "z1", ""], 20, 5), best, node("c", ["r", "z2", ""], 20, 5)]);
    let mut request = want(2);
    let scope = Scope::Topology("zone".into());
    request.strategy.replica_anti_affinity =
        vec![ReplicaRule { enforcement: Enforcement::Required, affected: None, scope }];
    check(&all, &request, &["a", "c"]);
}

#[test]
fn volumes_are_near_or_apart_and_the_first_of_a_group_is_placed() {
    let at = ["r", "z", ""];
    let mut all = cluster(vec![node("a", at, 90, 0), node("b", at, 20, 0)]);
    let mut request = want(1);
    request.labels = [("app".to_owned(), "db".to_owned())].into();
    let rule = VolumeRule {
        enforcement: Enforcement::Required,
        affected: None,
        volumes: vec![is("app", "db")],
        topology_key: None,
    };
    request.strategy.volume_affinity = vec![rule.clone()];
    check(&all, &request, &["a"]);
    all.volumes = vec![PlacedVolume { labels: request.labels.clone(), nodes: vec!["b".into()] }];
    check(&all, &request, &["b"]);
    request.strategy.volume_affinity.clear();
    all.volumes[0].nodes = vec!["a".into()];
    request.strategy.volume_anti_affinity = vec![rule];
    check(&all, &request, &["b"]);
}

#[test]
fn a_refusal_says_which_rule_fails_and_why_each_node_cannot() {
    let mut drained = node("d", ["r", "z4", ""], 90, 0);
    drained.closed = Some("it is being drained".into());
    let mut unlabelled = node("e", ["r", "", ""], 90, 0);
    unlabelled.labels.clear();
    let mut without = node("f", ["r", "z5", ""], 90, 0);
    without.pools.clear();
    let all = cluster(vec![
        node("a", ["r", "z1", ""], 90, 0),
        node("b", ["r", "z1", ""], 90, 0),
        node("c", ["r", "z3", ""], 9, 0),
        drained,
        unlabelled,
        without,
    ]);
    let mut request = want(2);
    let scope = Scope::Topology("zone".into());
    request.strategy.replica_anti_affinity =
        vec![ReplicaRule { enforcement: Enforcement::Required, affected: None, scope }];
    let expected = "\
2 replicas of 10 GiB cannot be placed; 2 of 6 nodes could take one
replicaAntiAffinity 1 (all replicas with different zone) can be kept by 1 of the 2 replicas that have to
node a: could take one
node b: could take one
node c: pool pool: 9 GiB are free, and 10 GiB are needed
node d: it is being drained
node e: pool pool: it has no label zone, which replicaAntiAffinity 1 (all replicas with different zone) is about
node f: it has no pool";
    assert_eq!(place(&all, &request).unwrap_err().to_string(), expected);
    let mut request = want(1);
    request.strategy.replica_affinity = vec![ReplicaRule {
        enforcement: Enforcement::Required,
        affected: None,
        scope: Scope::Match(vec![is("media", "ssd"), is("zone", "z1")]),
    }];
    let text = place(&all, &request).unwrap_err().to_string();
    let says =
        "node a: pool pool: it does not keep replicaAffinity 1 (all replicas where media In (ssd) and zone In (z1))";
    assert!(text.contains(says), "{text}");
}
