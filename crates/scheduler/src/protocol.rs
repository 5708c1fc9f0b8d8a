//! What kube-scheduler and its extenders say to each other. Its names have capitals in current versions; old ones and other schedulers write them small.

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A pod, and the nodes that it may be put on.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Args {
    #[serde(rename = "Pod", alias = "pod")]
    pub(crate) pod: Pod,
    /// Whole nodes, for an extender that is not said to know them (`nodeCacheCapable: false`).
    #[serde(rename = "Nodes", alias = "nodes", default)]
    pub(crate) nodes: Option<Nodes>,
    #[serde(rename = "NodeNames", alias = "nodenames", alias = "nodeNames", default)]
    pub(crate) node_names: Option<Vec<String>>,
}

/// A list of nodes, which are given back as they came.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Nodes {
    #[serde(default, deserialize_with = "none_is_empty")]
    pub(crate) items: Vec<Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn none_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Value>, D::Error> {
    Ok(Option::<Vec<Value>>::deserialize(from)?.unwrap_or_default())
}

/// The name of a node that came whole.
pub(crate) fn name(node: &Value) -> &str {
    node["metadata"]["name"].as_str().unwrap_or_default()
}

impl Args {
    /// The names of the nodes, in whichever way they came.
    pub(crate) fn names(&self) -> Vec<&str> {
        match (&self.node_names, &self.nodes) {
            (Some(names), _) => names.iter().map(String::as_str).collect(),
            (None, Some(nodes)) => nodes.items.iter().map(name).collect(),
            (None, None) => Vec::new(),
        }
    }
}

/// The nodes that are left, and why others are not.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Filtered {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<Nodes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_names: Option<Vec<String>>,
    pub(crate) failed_nodes: BTreeMap<String, String>,
    pub(crate) error: String,
}

impl Filtered {
    /// Out of a request, without those that are refused.
    pub(crate) fn new(args: Args, refused: BTreeMap<String, String>) -> Self {
        let stays = |name: &str| !refused.contains_key(name);
        let nodes = args.nodes.map(|mut nodes| {
            nodes.items.retain(|node| stays(name(node)));
            nodes
        });
        let node_names = args.node_names.map(|names| names.into_iter().filter(|name| stays(name)).collect());
        Self { nodes, node_names, failed_nodes: refused, error: String::new() }
    }
}

/// What a node is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HostPriority {
    pub(crate) host: String,
    pub(crate) score: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_come_by_name_or_whole_and_go_as_they_came() {
        let refused = || BTreeMap::from([("b".to_owned(), "no".to_owned())]);
        for (pod, names) in [("Pod", "NodeNames"), ("pod", "nodenames")] {
            let args: Args =
                serde_json::from_value(json!({pod: {"metadata": {"name": "p"}}, names: ["a", "b"]})).unwrap();
            assert_eq!(args.names(), ["a", "b"]);
            let answer = serde_json::to_value(Filtered::new(args, refused())).unwrap();
            assert_eq!(answer, json!({"NodeNames": ["a"], "FailedNodes": {"b": "no"}, "Error": ""}));
        }
        let node = |name: &str| json!({"metadata": {"name": name, "labels": {"x": "y"}}, "status": {"odd": [1]}});
        let list = json!({"metadata": {}, "items": [node("a"), node("b")]});
        let args: Args = serde_json::from_value(json!({"Pod": {}, "Nodes": list, "NodeNames": null})).unwrap();
        assert_eq!(args.names(), ["a", "b"]);
        let answer = serde_json::to_value(Filtered::new(args, refused())).unwrap();
        assert_eq!(answer["Nodes"], json!({"metadata": {}, "items": [node("a")]}));
        let none: Args = serde_json::from_value(json!({"Pod": {}, "Nodes": {"items": null}})).unwrap();
        assert!(none.names().is_empty());
    }
}
