//! Small clusters in which rules are often just possible, and often just not.

use placement::{
    Cluster, Domains, Enforcement, Expression, Labels, Node, Operator, Place, PlacedVolume, Pool, ReplicaRule, Request,
    Scope, Strategy as Rules, VolumeRule,
};
use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const NODES: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];
const POOLS: [&str; 2] = ["p1", "p2"];

fn value() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Labels> {
    (weighted(0.8, value()), weighted(0.6, value())).prop_map(|(zone, media)| {
        let zone = zone.map(|value| ("zone".to_owned(), value));
        zone.into_iter().chain(media.map(|value| ("media".to_owned(), value))).collect()
    })
}

fn pool(name: &'static str) -> impl Strategy<Value = Pool> {
    (weighted(0.3, value()), 0..20_u64, 0..5_u32).prop_map(move |(media, free, replicas)| Pool {
        name: name.into(),
        labels: media.map(|value| ("media".to_owned(), value)).into_iter().collect(),
        capacity: 20,
        free,
        replicas,
    })
}

fn node(name: &'static str) -> impl Strategy<Value = Node> {
    let pools = (weighted(0.9, pool(POOLS[0])), weighted(0.4, pool(POOLS[1])));
    let domains = (of(value()), of(value()), of(value()));
    (labels(), weighted(0.1, Just("it is being drained".to_owned())), pools, domains).prop_map(
        move |(labels, closed, (one, two), (region, zone, rack))| Node {
            name: name.into(),
            domains: Domains { region, zone, rack },
            labels,
            closed,
            pools: one.into_iter().chain(two).collect(),
        },
    )
}

fn volume() -> impl Strategy<Value = PlacedVolume> {
    (labels(), subsequence(NODES.to_vec(), 0..3))
        .prop_map(|(labels, nodes)| PlacedVolume { labels, nodes: nodes.into_iter().map(str::to_owned).collect() })
}

pub(crate) fn cluster() -> impl Strategy<Value = Cluster> {
    let nodes = subsequence(NODES.to_vec(), 1..=NODES.len());
    let nodes = nodes.prop_flat_map(|names| names.into_iter().map(node).collect::<Vec<_>>());
    (nodes, vec(volume(), 0..3)).prop_map(|(nodes, volumes)| Cluster { nodes, volumes })
}

fn expression() -> impl Strategy<Value = Expression> {
    let key = select(vec!["zone", "media"]).prop_map(str::to_owned);
    let operator = prop_oneof![
        vec(value(), 1..3).prop_map(Operator::In),
        vec(value(), 1..3).prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
    ];
    (key, operator).prop_map(|(key, operator)| Expression { key, operator })
}

fn enforcement() -> impl Strategy<Value = Enforcement> {
    prop_oneof![4 => Just(Enforcement::Required), 1 => (1..10_u32).prop_map(|weight| Enforcement::Preferred { weight })]
}

fn replica_rule() -> impl Strategy<Value = ReplicaRule> {
    let scope = prop_oneof![
        vec(expression(), 1..3).prop_map(Scope::Match),
        select(vec!["zone", "media"]).prop_map(|key| Scope::Topology(key.into())),
    ];
    (enforcement(), weighted(0.4, 1..4_usize), scope).prop_map(|(enforcement, affected, scope)| ReplicaRule {
        enforcement,
        affected,
        scope,
    })
}

fn volume_rule() -> impl Strategy<Value = VolumeRule> {
    let key = of(Just("zone".to_owned()));
    (enforcement(), weighted(0.4, 1..4_usize), vec(expression(), 0..2), key).prop_map(
        |(enforcement, affected, volumes, topology_key)| VolumeRule { enforcement, affected, volumes, topology_key },
    )
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let rules =
        (vec(replica_rule(), 0..2), vec(replica_rule(), 0..3), vec(volume_rule(), 0..2), vec(volume_rule(), 0..2));
    let present = subsequence(NODES.to_vec(), 0..3);
    (0..12_u64, 1..4_usize, labels(), present, subsequence(NODES.to_vec(), 0..2), rules).prop_map(
        |(size, replicas, labels, present, leaving, (near, apart, with, without))| Request {
            size,
            replicas,
            labels,
            present: present.into_iter().map(|node| Place { node: node.into(), pool: POOLS[0].into() }).collect(),
            leaving: leaving.into_iter().map(str::to_owned).collect(),
            strategy: Rules {
                replica_affinity: near,
                replica_anti_affinity: apart,
                volume_affinity: with,
                volume_anti_affinity: without,
            },
        },
    )
}
