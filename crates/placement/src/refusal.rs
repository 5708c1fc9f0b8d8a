//! Why a request is refused: for each rule and each node, in words.

use crate::cluster::{Node, Pool, Request};
use std::fmt;

/// There is no choice of places that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// How many replicas were wanted.
    pub wanted: usize,
    /// Bytes that each needs.
    pub size: u64,
    /// On how many nodes one could be.
    pub found: usize,
    /// The rules that are in the way, each with what it lacks.
    pub rules: Vec<String>,
    /// Every node.
    pub nodes: Vec<Verdict>,
}

/// What speaks against a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which one.
    pub node: String,
    /// All that does; if nothing, it could take a replica.
    pub reasons: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, found, .. } = self;
        write!(
            f,
            "{wanted} replicas of {} cannot be placed; {found} of {} nodes could take one",
            up(self.size),
            self.nodes.len()
        )?;
        for rule in &self.rules {
            write!(f, "\n{rule}")?;
        }
        for Verdict { node, reasons } in &self.nodes {
            let said = if reasons.is_empty() { "could take one".to_owned() } else { reasons.join("; ") };
            write!(f, "\nnode {node}: {said}")?;
        }
        Ok(())
    }
}

/// Why no pool of this node can take a replica of the volume.
pub(crate) fn of_node(node: &Node, request: &Request) -> Option<String> {
    if request.present.iter().any(|place| place.node == node.name) {
        return Some("it has a replica of the volume already".into());
    }
    if request.leaving.contains(&node.name) {
        return Some("it has a replica of the volume that has not left yet".into());
    }
    if let Some(why) = &node.closed {
        return Some(why.clone());
    }
    node.pools.is_empty().then(|| "it has no pool".into())
}

/// Why this pool cannot take a replica of this size.
pub(crate) fn of_pool(pool: &Pool, size: u64) -> Option<String> {
    let (free, name) = (down(pool.free), &pool.name);
    (pool.free < size).then(|| format!("pool {name}: {free} are free, and {} are needed", up(size)))
}

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// A size in its greatest unit, with one digit after the point, not more than it is: for what there is.
fn down(bytes: u64) -> String {
    sized(bytes, |bytes, unit| bytes * 10 / unit)
}

/// Not less than it is: for what is needed.
fn up(bytes: u64) -> String {
    sized(bytes, |bytes, unit| (bytes * 10).div_ceil(unit))
}

fn sized(bytes: u64, tenths_of: impl Fn(u128, u128) -> u128) -> String {
    let Some((name, shift)) = UNITS.iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} bytes");
    };
    let tenths = tenths_of(u128::from(bytes), 1 << shift);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{down, up};

    #[test]
    fn sizes_are_rounded_so_that_too_little_never_looks_like_enough() {
        let check = |bytes: u64, at_most: &str, at_least: &str| {
            assert_eq!((down(bytes).as_str(), up(bytes).as_str()), (at_most, at_least), "{bytes}");
        };
        check(0, "0 bytes", "0 bytes");
        check(1023, "1023 bytes", "1023 bytes");
        check(10 << 30, "10 GiB", "10 GiB");
        check((10 << 30) - 1, "9.9 GiB", "10 GiB");
        check((10 << 30) + 1, "10 GiB", "10.1 GiB");
        check(3 << 39, "1.5 TiB", "1.5 TiB");
    }
}
