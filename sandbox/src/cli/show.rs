//! What the commands print.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{Table, presets};
use sandbox::{Cluster, Distribution, Node, Sandbox};

/// Lines for a shell that lead kubectl to a cluster.
pub(crate) async fn environment(cluster: &Cluster) -> Result<()> {
    println!("export KUBECONFIG={}", cluster.kubeconfig_path().display());
    println!("export PATH={}:$PATH", cluster.programs_path().await?.display());
    Ok(())
}

pub(crate) fn list(sandbox: &Sandbox) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NODE", "ADDRESS", "STATE", "DAEMONS"]);
    let mut notes = Vec::new();
    for cluster in sandbox.clusters()? {
        let up = cluster.is_up()?;
        for node in std::iter::once(cluster.control_plane()).chain(cluster.nodes()) {
            table.add_row([
                node.name().to_owned(),
                node.address().to_string(),
                state(&node, up)?.into(),
                daemons(&node)?,
            ]);
        }
        if up {
            notes.push(format!("{cluster}: API server at https://127.0.0.1:{}", cluster.api_port()));
            notes.extend(cuts(&cluster)?);
            for (name, forward) in cluster.forwards()? {
                notes.push(format!("{cluster}: forward {name}: {} to {}", forward.listen, forward.dial));
            }
        }
    }
    println!("{table}");
    for note in notes {
        println!("{note}");
    }
    Ok(())
}

fn state(node: &Node<'_>, up: bool) -> Result<&'static str> {
    Ok(match (up, node.is_on()?) {
        (true, true) => "on",
        (true, false) => "off",
        (false, _) => "down",
    })
}

/// The daemons with their process numbers on this machine.
fn daemons(node: &Node<'_>) -> Result<String> {
    let mut words = Vec::new();
    for daemon in node.daemons() {
        words.push(match node.daemon_pid(*daemon)? {
            Some(pid) => format!("{daemon}:{pid}"),
            None => format!("{daemon}:-"),
        });
    }
    Ok(words.join(" "))
}

fn cuts(cluster: &Cluster) -> Result<Vec<String>> {
    let cuts = cluster.cuts()?;
    let nodes = cuts.nodes.iter().map(|node| format!("{cluster}: {node} is cut from everything"));
    let pairs = cuts.pairs.iter().map(|(a, b)| format!("{cluster}: {a} and {b} are cut from each other"));
    let links = cuts.links.iter().map(|other| format!("{cluster}: the link to {other} is cut"));
    Ok(nodes.chain(pairs).chain(links).collect())
}

/// From which directories the programs were taken.
pub(crate) fn origin(distribution: &Distribution) {
    let mut places: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (place, found) in distribution.origin() {
        let name = place.rsplit('/').next().unwrap_or(place);
        places.entry(found.parent()).or_default().push(name);
    }
    for (directory, names) in places {
        let directory = directory.unwrap_or(std::path::Path::new("/"));
        println!("{}: {}", directory.display(), names.join(" "));
    }
}
