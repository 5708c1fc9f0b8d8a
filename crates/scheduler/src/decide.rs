//! Which nodes a pod may be put on, and which are best: decided from what is known, without asking anybody.

use placement::Domains;
use std::collections::BTreeMap;

/// What a node is worth for one volume, by how near the next replica is.
const SAME_NODE: i64 = 100;
const SAME_RACK: i64 = 50;
const SAME_ZONE: i64 = 25;
const SAME_REGION: i64 = 10;
const ELSEWHERE: i64 = 5;

/// How the storage of a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Its daemon lives, and has a pool that works.
    Working {
        /// Bytes that are free in its pools.
        free: u64,
    },
    /// Its daemon lives, so volumes can be used there; none of its pools works.
    Down,
    /// No volume can be used there.
    Away(String),
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// What it shares its fate with.
    pub domains: Domains,
    /// Its storage.
    pub storage: Storage,
}

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    /// The claim that it is for.
    pub claim: String,
    /// The nodes with a replica that holds every acknowledged write; nothing if the volume is not made yet.
    pub replicas: Option<Vec<String>>,
}

/// What a pod needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its volumes that have replicas.
    pub volumes: Vec<VolumeFacts>,
    /// It is put on nodes with a replica of each alone.
    pub only_local: bool,
}

/// The nodes that the pod must not be put on, and why not.
pub fn filter<'a>(
    wanted: &Wanted,
    names: impl IntoIterator<Item = &'a str>,
    node: impl Fn(&str) -> NodeFacts,
) -> BTreeMap<String, String> {
    let works = |name: &String| !matches!(node(name).storage, Storage::Away(_));
    let placed = || wanted.volumes.iter().filter_map(|volume| Some((&volume.claim, volume.replicas.as_ref()?)));
    let lost = placed().find(|(_, replicas)| !replicas.iter().any(works));
    let lost = lost.map(|(claim, replicas)| {
        let all = if replicas.is_empty() { "it has none".to_owned() } else { replicas.join(", ") };
        format!("no replica of the volume of {claim} is on a node that works ({all})")
    });
    let why = |name: &str| -> Option<String> {
        if let Some(reason) = &lost {
            return Some(reason.clone());
        }
        if wanted.volumes.is_empty() {
            return None;
        }
        if let Storage::Away(reason) = node(name).storage {
            return Some(reason);
        }
        let is_here = |replicas: &Vec<String>| replicas.iter().any(|replica| replica == name);
        let missing = placed().find(|(_, replicas)| wanted.only_local && !is_here(replicas));
        missing.map(|(claim, replicas)| {
            format!(
                "it has no replica of the volume of {claim}, which the pod wants to be local: {}",
                replicas.join(", ")
            )
        })
    };
    names.into_iter().filter_map(|name| Some((name.to_owned(), why(name)?))).collect()
}

/// What each node is worth, in the order of the names. Of those that are worth the same the one with the most room is worth one more.
pub fn prioritize(wanted: &Wanted, names: &[&str], node: impl Fn(&str) -> NodeFacts) -> Vec<i64> {
    let replicas: Vec<Vec<(&String, NodeFacts)>> = wanted
        .volumes
        .iter()
        .filter_map(|volume| volume.replicas.as_ref())
        .map(|replicas| replicas.iter().map(|replica| (replica, node(replica))).collect())
        .collect();
    let nodes: Vec<NodeFacts> = names.iter().map(|name| node(name)).collect();
    let score = |name: &str, facts: &NodeFacts| -> i64 {
        let of = |replicas: &Vec<(&String, NodeFacts)>| {
            let all = replicas.iter().map(|(replica, other)| {
                if *replica == name { SAME_NODE } else { nearness(&facts.domains, &other.domains) }
            });
            let best = all.max().unwrap_or(ELSEWHERE);
            if facts.storage == Storage::Down { best / 2 } else { best }
        };
        match facts.storage {
            Storage::Away(_) => 0,
            _ => replicas.iter().map(of).sum(),
        }
    };
    let mut scores: Vec<i64> = names.iter().zip(&nodes).map(|(name, facts)| score(name, facts)).collect();
    if !wanted.volumes.is_empty() {
        prefer_room(&mut scores, &nodes);
    }
    scores
}

fn prefer_room(scores: &mut [i64], nodes: &[NodeFacts]) {
    let free = |facts: &NodeFacts| if let Storage::Working { free } = facts.storage { free } else { 0 };
    let mut alike: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (at, score) in scores.iter().enumerate() {
        alike.entry(*score).or_default().push(at);
    }
    for all in alike.into_values() {
        let most = all.iter().map(|at| free(&nodes[*at])).max().unwrap_or_default();
        if all.iter().any(|at| free(&nodes[*at]) < most) {
            all.iter().filter(|at| free(&nodes[**at]) == most).for_each(|at| scores[*at] += 1);
        }
    }
}

/// How near one node is to another. Racks of the same name in two zones are two racks, and zones of the same name in two regions two zones.
fn nearness(a: &Domains, b: &Domains) -> i64 {
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    if a.region != b.region {
        return ELSEWHERE;
    }
    if a.zone == b.zone && same(&a.rack, &b.rack) {
        SAME_RACK
    } else if same(&a.zone, &b.zone) {
        SAME_ZONE
    } else if same(&a.region, &b.region) {
        SAME_REGION
    } else {
        ELSEWHERE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node is called by its region, zone, rack and number: `r1z1a1`. Those of region 9 have no labels.
    fn facts(name: &str) -> NodeFacts {
        let part = |range: std::ops::Range<usize>| Some(name[range].to_owned());
        let domains = if name.starts_with("r9") {
            Domains::default()
        } else {
            Domains { region: part(0..2), zone: part(2..4), rack: part(4..5) }
        };
        NodeFacts { domains, storage: Storage::Working { free: 7 } }
    }

    fn volume(replicas: &[&str]) -> VolumeFacts {
        VolumeFacts { claim: "data".into(), replicas: Some(replicas.iter().map(|name| (*name).to_owned()).collect()) }
    }

    fn wanted(volumes: &[VolumeFacts]) -> Wanted {
        Wanted { volumes: volumes.to_vec(), ..Wanted::default() }
    }

    #[test]
    fn the_nearer_a_replica_the_better() {
        let names = ["r1z1a1", "r1z1a2", "r1z1b1", "r1z2a1", "r2z1a1", "r9x"];
        let one = wanted(&[volume(&["r1z1a1"])]);
        assert_eq!(prioritize(&one, &names, facts), [100, 50, 25, 10, 5, 5]);
        // The nearest of several counts, and volumes add up.
        let two = wanted(&[volume(&["r1z1a1", "r2z1a1"]), volume(&["r1z2a1"])]);
        assert_eq!(prioritize(&two, &names, facts), [110, 60, 35, 110, 105, 10]);
        // Without labels nothing is near but the node itself.
        assert_eq!(prioritize(&wanted(&[volume(&["r9x"])]), &["r9x", "r9y"], facts), [100, 5]);
        assert_eq!(prioritize(&Wanted::default(), &names, facts), [0; 6]);
    }

    #[test]
    fn a_node_whose_pools_do_not_work_is_worth_half_and_room_decides_between_equals() {
        let with = |name: &str| {
            let storage = match name {
                "r1z1a1" => Storage::Down,
                "r1z1a3" => Storage::Working { free: 9 },
                _ => Storage::Working { free: 7 },
            };
            NodeFacts { storage, ..facts(name) }
        };
        let one = wanted(&[volume(&["r1z1a1"])]);
        assert_eq!(prioritize(&one, &["r1z1a1", "r1z1a2", "r1z1a3"], with), [50, 50, 51]);
        assert_eq!(prioritize(&one, &["r1z1a2", "r1z1a4"], with), [50, 50], "there is nothing to decide");
        let pending =
            Wanted { volumes: vec![VolumeFacts { claim: "new".into(), replicas: None }], ..Wanted::default() };
        assert_eq!(
            prioritize(&pending, &["r1z1a2", "r1z1a3"], with),
            [0, 1],
            "a volume that is not made yet goes where room is"
        );
    }

    #[test]
    fn nodes_without_storage_are_refused_each_with_its_reason() {
        let with = |name: &str| {
            let storage = if name == "r1z1a2" { Storage::Away("its daemon is silent".into()) } else { Storage::Down };
            NodeFacts { storage, ..facts(name) }
        };
        let names = ["r1z1a1", "r1z1a2"];
        let one = wanted(&[volume(&["r1z1a1", "r1z1a2"])]);
        assert_eq!(filter(&one, names, with), BTreeMap::from([("r1z1a2".into(), "its daemon is silent".into())]));
        assert!(filter(&Wanted::default(), names, with).is_empty(), "a pod without such volumes may be anywhere");
        let local = Wanted { only_local: true, ..wanted(&[volume(&["r1z1a1"]), volume(&["r1z1a2", "r1z1a1"])]) };
        let refused = filter(&local, ["r1z1a1", "r1z1a3"], with);
        assert!(refused.len() == 1 && refused["r1z1a3"].contains("no replica of the volume of data"), "{refused:?}");
        let lost = filter(&wanted(&[volume(&["r1z1a2"])]), names, with);
        assert!(
            lost.len() == 2 && lost["r1z1a1"].contains("no replica of the volume of data is on a node that works"),
            "{lost:?}"
        );
    }
}
