//! Rules, made ready for one search: each is a count of the replicas of a choice that keep it.
//!
//! The count only grows when a replica is added, and [`Rule::reachable`] never says less than what can still be reached; so a choice is given up as soon
//! as a rule cannot be kept any more, and no earlier.

use crate::cluster::{Cluster, Domains, Labels, Node, Place, Pool, Request};
use crate::strategy::{Enforcement, ReplicaRule, Scope, VolumeRule, all_hold, listed};
use std::collections::{BTreeMap, BTreeSet};

/// A pool of a node, as a place for a replica.
#[derive(Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) node: &'a str,
    pub(crate) pool: &'a str,
    pub(crate) domains: Domains,
    pub(crate) labels: Labels,
    pub(crate) capacity: u64,
    pub(crate) free: u64,
    pub(crate) replicas: u32,
}

impl<'a> Spot<'a> {
    pub(crate) fn new(node: &'a Node, pool: &'a Pool) -> Self {
        let mut labels = node.labels.clone();
        labels.extend(pool.labels.clone());
        Self {
            node: &node.name,
            pool: &pool.name,
            domains: node.domains.clone(),
            labels,
            capacity: pool.capacity,
            free: pool.free,
            replicas: pool.replicas,
        }
    }

    /// Where a replica is already. Of a node or a pool that is gone nothing is known but the name.
    pub(crate) fn present(cluster: &'a Cluster, place: &'a Place) -> Self {
        let node = cluster.nodes.iter().find(|node| node.name == place.node);
        let pool = node.and_then(|node| node.pools.iter().find(|pool| pool.name == place.pool));
        if let (Some(node), Some(pool)) = (node, pool) {
            return Self::new(node, pool);
        }
        Self {
            node: &place.node,
            pool: &place.pool,
            domains: node.map(|node| node.domains.clone()).unwrap_or_default(),
            labels: node.map(|node| node.labels.clone()).unwrap_or_default(),
            capacity: 0,
            free: 0,
            replicas: 0,
        }
    }
}

/// Which replicas of a choice keep a rule; for each spot.
#[derive(Debug)]
enum Keeps {
    /// Those on such spots.
    Each(Vec<bool>),
    /// The most that have the same value.
    Same(Vec<Option<usize>>),
    /// One of each value.
    Distinct(Vec<Option<usize>>),
}

/// A rule about the spots of one search.
#[derive(Debug)]
pub(crate) struct Rule {
    /// As a person knows it.
    pub(crate) name: String,
    /// How many replicas have to keep it, those that are there already among them.
    pub(crate) needed: usize,
    pub(crate) enforcement: Enforcement,
    /// The label that it is about, if a spot without that cannot keep it.
    label: Option<String>,
    keeps: Keeps,
}

impl Rule {
    /// How many replicas of a choice keep it.
    pub(crate) fn count(&self, chosen: &[usize]) -> usize {
        match &self.keeps {
            Keeps::Each(keeps) => chosen.iter().filter(|spot| keeps[**spot]).count(),
            Keeps::Same(values) => {
                tally(chosen.iter().filter_map(|spot| values[*spot])).into_values().max().unwrap_or(0)
            }
            Keeps::Distinct(values) => chosen.iter().filter_map(|spot| values[*spot]).collect::<BTreeSet<_>>().len(),
        }
    }

    /// How many could keep it at most, if so many more replicas come to some of these spots, one on a node.
    pub(crate) fn reachable(&self, chosen: &[usize], open: &[usize], more: usize, spots: &[Spot<'_>]) -> usize {
        let now = self.count(chosen);
        match &self.keeps {
            Keeps::Each(keeps) => now + nodes(open.iter().copied().filter(|spot| keeps[*spot]), spots).min(more),
            Keeps::Same(values) => {
                let taken = tally(chosen.iter().filter_map(|spot| values[*spot]));
                let of = |value| nodes(open.iter().copied().filter(|spot| values[*spot] == Some(value)), spots);
                let found: BTreeSet<_> = open.iter().filter_map(|spot| values[*spot]).collect();
                let best = found.iter().map(|value| taken.get(value).unwrap_or(&0) + of(*value).min(more)).max();
                best.unwrap_or(0).max(now)
            }
            Keeps::Distinct(values) => {
                let taken: BTreeSet<_> = chosen.iter().filter_map(|spot| values[*spot]).collect();
                let found: BTreeSet<_> = open.iter().filter_map(|spot| values[*spot]).collect();
                now + found.difference(&taken).count().min(more)
            }
        }
    }

    /// What two spots must have in common to be the same for this rule.
    pub(crate) fn signature(&self, spot: usize) -> usize {
        match &self.keeps {
            Keeps::Each(keeps) => usize::from(keeps[spot]),
            Keeps::Same(values) | Keeps::Distinct(values) => values[spot].map_or(0, |value| value + 1),
        }
    }

    /// Why a replica on this spot does not keep it, whatever the others are.
    pub(crate) fn broken_at(&self, spot: usize) -> Option<String> {
        match (&self.keeps, &self.label) {
            (Keeps::Each(keeps), _) if keeps[spot] => None,
            (Keeps::Same(values) | Keeps::Distinct(values), _) if values[spot].is_some() => None,
            (Keeps::Each(_), _) | (_, None) => Some(format!("it does not keep {}", self.name)),
            (_, Some(label)) => Some(format!("it has no label {label}, which {} is about", self.name)),
        }
    }
}

fn tally(values: impl Iterator<Item = usize>) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// On how many nodes these spots are.
pub(crate) fn nodes(spots: impl Iterator<Item = usize>, all: &[Spot<'_>]) -> usize {
    spots.map(|spot| all[spot].node).collect::<BTreeSet<_>>().len()
}

/// All rules of a request, in the order in which they are listed.
pub(crate) fn rules(cluster: &Cluster, request: &Request, spots: &[Spot<'_>], chosen: &[usize]) -> Vec<Rule> {
    let strategy = &request.strategy;
    let total = chosen.len() + request.replicas;
    let compiler = Compiler { cluster, request, spots };
    let near = strategy.replica_affinity.iter().enumerate().map(|(n, rule)| compiler.replicas(rule, true, n));
    let apart = strategy.replica_anti_affinity.iter().enumerate().map(|(n, rule)| compiler.replicas(rule, false, n));
    let with = strategy.volume_affinity.iter().enumerate().map(|(n, rule)| compiler.volumes(rule, true, n));
    let without = strategy.volume_anti_affinity.iter().enumerate().map(|(n, rule)| compiler.volumes(rule, false, n));
    let mut rules: Vec<_> = near.chain(apart).chain(with).chain(without).collect();
    for rule in &mut rules {
        // Replicas that are there already cannot be asked to keep it.
        rule.needed = rule.needed.min(total).min(rule.count(chosen) + request.replicas);
    }
    rules
}

struct Compiler<'a> {
    cluster: &'a Cluster,
    request: &'a Request,
    spots: &'a [Spot<'a>],
}

/// How many replicas a rule is about, as a person says it.
fn how_many(affected: Option<usize>) -> String {
    affected.map_or_else(|| "all replicas".to_owned(), |count| format!("at least {count} replicas"))
}

impl Compiler<'_> {
    fn replicas(&self, rule: &ReplicaRule, is_affinity: bool, number: usize) -> Rule {
        let whose = how_many(rule.affected);
        let (keeps, label, what) = match (&rule.scope, is_affinity) {
            (Scope::Match(all), true) => (self.each(all, true), None, format!("{whose} where {}", listed(all))),
            (Scope::Match(all), false) => (self.each(all, false), None, format!("{whose} not where {}", listed(all))),
            (Scope::Topology(key), true) => {
                (Keeps::Same(self.values(key)), Some(key.clone()), format!("{whose} with the same {key}"))
            }
            (Scope::Topology(key), false) => {
                (Keeps::Distinct(self.values(key)), Some(key.clone()), format!("{whose} with different {key}"))
            }
        };
        let kind = if is_affinity { "replicaAffinity" } else { "replicaAntiAffinity" };
        let name = format!("{kind} {} ({what})", number + 1);
        Rule { name, needed: rule.affected.unwrap_or(usize::MAX), enforcement: rule.enforcement, label, keeps }
    }

    fn volumes(&self, rule: &VolumeRule, is_affinity: bool, number: usize) -> Rule {
        let matching = self.cluster.volumes.iter().filter(|volume| all_hold(&rule.volumes, &volume.labels));
        let taken: BTreeSet<&str> = matching.flat_map(|volume| &volume.nodes).map(String::as_str).collect();
        let key = rule.topology_key.as_deref();
        let near = self.near(&taken, key);
        let is_first = taken.is_empty() && all_hold(&rule.volumes, &self.request.labels);
        let keeps = near.into_iter().map(|near| match (near, is_affinity) {
            (_, true) if is_first => true,
            (Some(near), _) => near == is_affinity,
            // Where it is, is not known.
            (None, _) => false,
        });
        let kind = if is_affinity { "volumeAffinity" } else { "volumeAntiAffinity" };
        let not = if is_affinity { "" } else { "not " };
        let by = key.map_or_else(|| "on a node".to_owned(), |key| format!("with the {key}"));
        let what = format!("{} {not}{by} of volumes with {}", how_many(rule.affected), listed(&rule.volumes));
        Rule {
            name: format!("{kind} {} ({what})", number + 1),
            needed: rule.affected.unwrap_or(usize::MAX),
            enforcement: rule.enforcement,
            label: None,
            keeps: Keeps::Each(keeps.collect()),
        }
    }

    /// For each spot whether it is near one of these nodes; `None` if its node has no such label.
    fn near(&self, taken: &BTreeSet<&str>, key: Option<&str>) -> Vec<Option<bool>> {
        let Some(key) = key else { return self.spots.iter().map(|spot| Some(taken.contains(spot.node))).collect() };
        let nodes = self.cluster.nodes.iter().filter(|node| taken.contains(node.name.as_str()));
        let values: BTreeSet<&String> = nodes.filter_map(|node| node.labels.get(key)).collect();
        self.spots.iter().map(|spot| spot.labels.get(key).map(|value| values.contains(value))).collect()
    }

    fn each(&self, expressions: &[crate::strategy::Expression], expected: bool) -> Keeps {
        Keeps::Each(self.spots.iter().map(|spot| all_hold(expressions, &spot.labels) == expected).collect())
    }

    fn values(&self, key: &str) -> Vec<Option<usize>> {
        let all: BTreeSet<&String> = self.spots.iter().filter_map(|spot| spot.labels.get(key)).collect();
        let numbers: BTreeMap<&String, usize> = all.into_iter().zip(0..).collect();
        self.spots.iter().map(|spot| spot.labels.get(key).map(|value| numbers[value])).collect()
    }
}
