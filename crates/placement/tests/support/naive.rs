//! What the rules say, replica by replica, without any preparation.

use placement::{Cluster, Enforcement, Expression, Labels, Place, ReplicaRule, Request, Scope, VolumeRule};
use std::collections::BTreeSet;

fn labels(cluster: &Cluster, place: &Place) -> Labels {
    let Some(node) = cluster.nodes.iter().find(|node| node.name == place.node) else { return Labels::new() };
    let mut labels = node.labels.clone();
    let pool = node.pools.iter().find(|pool| pool.name == place.pool);
    labels.extend(pool.map(|pool| pool.labels.clone()).unwrap_or_default());
    labels
}

fn hold(expressions: &[Expression], labels: &Labels) -> bool {
    expressions.iter().all(|expression| expression.holds(labels))
}

/// How many of these replicas keep a rule about each other.
fn replicas_that_keep(cluster: &Cluster, rule: &ReplicaRule, is_affinity: bool, all: &[Place]) -> usize {
    match &rule.scope {
        Scope::Match(expressions) => {
            all.iter().filter(|place| hold(expressions, &labels(cluster, place)) == is_affinity).count()
        }
        Scope::Topology(key) => {
            let values: Vec<String> = all.iter().filter_map(|place| labels(cluster, place).get(key).cloned()).collect();
            let different: BTreeSet<_> = values.iter().collect();
            if is_affinity {
                different.iter().map(|value| values.iter().filter(|other| other == value).count()).max().unwrap_or(0)
            } else {
                different.len()
            }
        }
    }
}

/// How many of these replicas keep a rule about other volumes.
fn near_volumes(cluster: &Cluster, request: &Request, rule: &VolumeRule, is_affinity: bool, all: &[Place]) -> usize {
    let volumes: Vec<_> = cluster.volumes.iter().filter(|volume| hold(&rule.volumes, &volume.labels)).collect();
    let nodes: Vec<&String> = volumes.iter().flat_map(|volume| &volume.nodes).collect();
    if is_affinity && nodes.is_empty() && hold(&rule.volumes, &request.labels) {
        return all.len();
    }
    let is_near = |place: &Place| match &rule.topology_key {
        None => Some(nodes.contains(&&place.node)),
        Some(key) => {
            let mine = labels(cluster, place).get(key).cloned()?;
            let same = |name: &&String| {
                let node = cluster.nodes.iter().find(|node| node.name == **name);
                node.and_then(|node| node.labels.get(key)) == Some(&mine)
            };
            Some(nodes.iter().any(same))
        }
    };
    all.iter().filter(|place| is_near(place) == Some(is_affinity)).count()
}

/// Whether all required rules hold for these replicas with those that there are. Those that there are cannot be asked to keep a rule that they break.
pub(crate) fn keeps_the_rules(cluster: &Cluster, request: &Request, chosen: &[Place]) -> bool {
    let all: Vec<Place> = request.present.iter().chain(chosen).cloned().collect();
    let is_enough = |affected: Option<usize>, count: &dyn Fn(&[Place]) -> usize| {
        let possible = count(&request.present) + chosen.len();
        count(&all) >= affected.unwrap_or(all.len()).min(possible).min(all.len())
    };
    let strategy = &request.strategy;
    let replicas = [(&strategy.replica_affinity, true), (&strategy.replica_anti_affinity, false)];
    let volumes = [(&strategy.volume_affinity, true), (&strategy.volume_anti_affinity, false)];
    let of_replicas = replicas.into_iter().flat_map(|(rules, near)| rules.iter().map(move |rule| (rule, near)));
    let of_volumes = volumes.into_iter().flat_map(|(rules, near)| rules.iter().map(move |rule| (rule, near)));
    of_replicas
        .filter(|(rule, _)| rule.enforcement == Enforcement::Required)
        .all(|(rule, near)| is_enough(rule.affected, &|places| replicas_that_keep(cluster, rule, near, places)))
        && of_volumes
            .filter(|(rule, _)| rule.enforcement == Enforcement::Required)
            .all(|(rule, near)| is_enough(rule.affected, &|places| near_volumes(cluster, request, rule, near, places)))
}
