//! `orlop check`: whether a cluster has what Orlop needs, and survives what it should. It reads, and changes nothing.
//!
//! All facts are asked for first (`facts`); each file beside this one judges a part of them without asking again. What is not known is told as that, not as good.

mod availability;
mod clocks;
mod control_plane;
mod daemons;
mod definitions;
mod facts;
mod finding;
mod installed;
mod nodes;
mod replicated;
mod snapshots;

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cluster::{Cluster, ConnectionArgs};
use crate::error::{Error, Exit, Result};
use crate::human::{self, parse_duration};
use crate::output::{self, OutputArgs};
use facts::Facts;

pub(crate) use control_plane::is_ready;
pub(crate) use definitions::{Compared, compare};
use finding::{Finding, Verdict, few};
pub(crate) use installed::words;
pub(crate) use nodes::devices_outlive_daemons;

/// Look at a cluster: whether it has what Orlop needs, and what it would not survive
///
/// It changes nothing, and can be run before Orlop is installed and at any time after. What cannot be known from here is said to be unknown, not good. It
/// ends with 1 if there is a problem.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// End with 1 for warnings and for what is unknown, too
    #[arg(long)]
    strict: bool,
    /// Listen at most this long for the clocks of nodes, whose kubelets tell the time every ten seconds; 0s leaves that out
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "15s")]
    clocks: Duration,
    #[command(flatten)]
    output: OutputArgs,
    // It is about all of the cluster: there is no namespace to be chosen.
    #[command(flatten)]
    cluster: ConnectionArgs,
}

/// What programs are told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The worst of all verdicts but those that are unknown, or good.
    verdict: Verdict,
    findings: Vec<Finding>,
}

/// Runs the command.
pub(crate) async fn run(args: CheckArgs) -> Result<Exit> {
    let cluster = Cluster::connect_to(&args.cluster, None).await?;
    let client = cluster.client();
    // Whoever cannot be asked at all is no cluster of which nothing is known.
    client.apiserver_version().await.map_err(|e| cluster.explain("look at the cluster", e))?;
    if !args.clocks.is_zero() {
        eprintln!("Listening for the clocks of nodes, for {} at most ...", human::took(args.clocks));
    }
    let report = judge(&facts::gather(&client, args.clocks).await);
    let names = || report.findings.iter().map(|finding| format!("{}\n", finding.check)).collect();
    output::print(&output::render(args.output.format(), &report, || table(&report), names)?)?;
    verdict(&report, args.strict)
}

fn judge(facts: &Facts) -> Report {
    let mut findings = installed::judge(facts);
    findings.extend(control_plane::judge(facts));
    findings.extend(availability::judge(facts));
    findings.extend(nodes::judge(facts));
    findings.extend(clocks::judge(&facts.clocks, &nodes::names(facts)));
    let worst = findings.iter().map(|finding| finding.verdict).filter(|verdict| *verdict != Verdict::Unknown).max();
    Report { verdict: worst.unwrap_or(Verdict::Unknown), findings }
}

/// One line for all nodes of which the same is so.
fn table(report: &Report) -> String {
    let mut lines: Vec<(&Finding, Vec<String>)> = Vec::new();
    for finding in &report.findings {
        let same = |(other, _): &&mut (&Finding, Vec<String>)| {
            finding.node.is_some()
                && Finding { node: None, ..(*other).clone() } == Finding { node: None, ..finding.clone() }
        };
        match lines.iter_mut().find(same) {
            Some((_, nodes)) => nodes.extend(finding.node.clone()),
            None => lines.push((finding, finding.node.iter().cloned().collect())),
        }
    }
    let of = |nodes: &[String]| if nodes.is_empty() { "the cluster".to_owned() } else { few(nodes) };
    let row = |(finding, nodes): &(&Finding, Vec<String>)| {
        [finding.check.to_owned(), of(nodes), finding.verdict.word().to_owned(), finding.says.clone()]
    };
    let mut text = output::table(["CHECK", "OF", "VERDICT", "WHAT IS SO"], lines.iter().map(row));
    let todo: Vec<_> =
        lines.iter().filter_map(|(finding, nodes)| Some((finding, nodes, finding.next.as_ref()?))).collect();
    if !todo.is_empty() {
        let row = |(finding, nodes, next): &(&&Finding, &Vec<String>, &String)| {
            [finding.check.to_owned(), of(nodes), (*next).clone()]
        };
        text.push('\n');
        text.push_str(&output::table(["CHECK", "OF", "WHAT TO DO"], todo.iter().map(row)));
    }
    let count = |verdict: &Verdict| report.findings.iter().filter(|finding| finding.verdict == *verdict).count();
    let counts: Vec<_> = Verdict::ALL.iter().map(|verdict| format!("{} {}", count(verdict), verdict.word())).collect();
    format!("{text}\n{}\n", counts.join(", "))
}

fn verdict(report: &Report, strict: bool) -> Result<Exit> {
    let is_bad = |finding: &&Finding| match finding.verdict {
        Verdict::Problem => true,
        Verdict::Warning | Verdict::Unknown => strict,
        Verdict::Good => false,
    };
    match report.findings.iter().filter(is_bad).count() {
        0 => Ok(Exit::Succeeded),
        bad => {
            let found = human::count(bad as u64, "thing is", "things are");
            Err(Error::new(format!("{found} not as they should be")))
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};

    use super::*;
    use crate::check::clocks::Clocks;
    use crate::check::facts::Known;

    /// A cluster of which everything is known and in which there is nothing.
    pub(super) fn facts() -> Facts {
        Facts {
            version: Ok("v1.30.2".into()),
            crds: Ok(Vec::new()),
            knows_capacity: Ok(true),
            nodes: Ok(Vec::new()),
            csi_nodes: Ok(Vec::new()),
            pods: Ok(Vec::new()),
            daemons: Ok(Vec::new()),
            api_servers: Ok(None),
            deployments: Ok(Vec::new()),
            stateful_sets: Ok(Vec::new()),
            daemon_sets: Ok(Vec::new()),
            classes: Ok(Vec::new()),
            snapshot_drivers: Ok(None),
            persistent_volumes: Ok(Vec::new()),
            volumes: Ok(None),
            storage_nodes: Ok(None),
            clocks: Clocks::default(),
        }
    }

    /// A node that is ready.
    pub(super) fn node(name: &str, labels: Value) -> Node {
        let info = json!({
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "6.12.0", "kubeProxyVersion": "",
            "kubeletVersion": "v1.30.2", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        });
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info});
        let node = json!({"metadata": {"name": name, "labels": labels}, "status": status});
        serde_json::from_value(node).expect("a Node")
    }

    /// The first finding of a check.
    pub(super) fn found<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.check == check).expect(check)
    }

    #[test]
    fn what_is_the_same_of_several_nodes_is_one_line() {
        let of = |node: &str, verdict: Verdict| Finding::new("kernel", verdict, "Linux").of_node(node);
        let findings = vec![
            of("a", Verdict::Good),
            of("b", Verdict::Warning).next("drain it"),
            of("c", Verdict::Good),
            Finding::good("kubernetes", "v1"),
        ];
        let text = table(&Report { verdict: Verdict::Warning, findings });
        assert_eq!(
            text,
            "CHECK        OF            VERDICT   WHAT IS SO\n\
             kernel       a, c          good      Linux\n\
             kernel       b             warning   Linux\n\
             kubernetes   the cluster   good      v1\n\
             \n\
             CHECK    OF   WHAT TO DO\n\
             kernel   b    drain it\n\
             \n\
             3 good, 0 unknown, 1 warning, 0 problem\n"
        );
    }

    #[test]
    fn warnings_and_what_is_unknown_are_failures_only_for_who_wants_that() {
        let ends = |verdict: Verdict, strict: bool| {
            let findings = vec![Finding::new("x", verdict, "y")];
            super::verdict(&Report { verdict, findings }, strict).unwrap_or_else(|e| e.exit_code())
        };
        for (verdict, plain, strict) in [
            (Verdict::Good, Exit::Succeeded, Exit::Succeeded),
            (Verdict::Unknown, Exit::Succeeded, Exit::Failed),
            (Verdict::Warning, Exit::Succeeded, Exit::Failed),
            (Verdict::Problem, Exit::Failed, Exit::Failed),
        ] {
            assert_eq!((ends(verdict, false), ends(verdict, true)), (plain, strict), "{verdict:?}");
        }
    }

    #[test]
    fn nothing_that_is_not_known_is_good() {
        fn no<T>() -> Known<T> {
            Err("it is forbidden".into())
        }
        let facts = |nodes: Known<Vec<Node>>| Facts {
            version: no(),
            crds: no(),
            knows_capacity: no(),
            nodes,
            csi_nodes: no(),
            pods: no(),
            daemons: no(),
            api_servers: no(),
            deployments: no(),
            stateful_sets: no(),
            daemon_sets: no(),
            classes: no(),
            snapshot_drivers: no(),
            persistent_volumes: no(),
            volumes: no(),
            storage_nodes: no(),
            clocks: Clocks::default(),
        };
        let report = judge(&facts(no()));
        assert!(report.findings.len() > 8, "{report:?}");
        for finding in &report.findings {
            assert_eq!(finding.verdict, Verdict::Unknown, "{finding:?}");
        }
        assert_eq!(report.verdict, Verdict::Unknown);
        // Who may list nodes knows of them what they say themselves, and no more.
        let report = judge(&facts(Ok(["a", "b", "c"].map(|name| node(name, json!({}))).into())));
        let of_nodes = ["nodes", "ready", "kernel"];
        for finding in report.findings.iter().filter(|finding| !of_nodes.contains(&finding.check)) {
            assert_eq!(finding.verdict, Verdict::Unknown, "{finding:?}");
        }
        for check in ["daemon", "front ends", "clock"] {
            let of = report.findings.iter().filter(|finding| finding.check == check && finding.node.is_some());
            assert_eq!(of.count(), 3, "{check}");
        }
    }
}
