//! What kube-scheduler and its extenders say to each other. Its names have capitals in current versions; old ones and other schedulers write them small.
//!
//! Invariant: whatever is asked, what is kept of it is not much larger than what was sent. Anybody may ask who reaches the port, so lists have bounds, and what is not needed of a pod is
//! passed over. That is why nodes come by their names alone.

use cluster::claims;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ONLY_LOCAL;

/// Nodes of a request at most: Kubernetes is made for 5,000.
const MOST_NODES: usize = 16_384;

/// A pod, and the nodes that it may be put on.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Args {
    #[serde(rename = "Pod", alias = "pod")]
    pub(crate) pod: Asked,
    /// Whole nodes: what an extender gets that is not said to know them.
    #[serde(rename = "Nodes", alias = "nodes", default)]
    nodes: Option<IgnoredAny>,
    #[serde(
        rename = "NodeNames",
        alias = "nodenames",
        alias = "nodeNames",
        default,
        deserialize_with = "not_too_many"
    )]
    names: Option<Vec<String>>,
}

impl Args {
    /// The names of the nodes; nothing if they came otherwise.
    pub(crate) fn names(&self) -> Option<Vec<&str>> {
        match (&self.names, &self.nodes) {
            (Some(names), _) => Some(names.iter().map(String::as_str).collect()),
            (None, None) => Some(Vec::new()),
            (None, Some(IgnoredAny)) => None,
        }
    }
}

fn not_too_many<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "up to {MOST_NODES} names of nodes")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = all.next_element()? {
                if names.len() == MOST_NODES {
                    return Err(A::Error::invalid_length(MOST_NODES + 1, &self));
                }
                names.push(name);
            }
            Ok(Some(names))
        }
    }
    from.deserialize_any(Names)
}

/// What matters of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// It is to be put only where its volumes are.
    pub(crate) only_local: bool,
    /// Each once.
    pub(crate) claims: BTreeSet<String>,
}

impl From<&Pod> for Asked {
    fn from(pod: &Pod) -> Self {
        Self {
            name: pod.name_any(),
            namespace: pod.namespace().unwrap_or_default(),
            only_local: pod.annotations().get(ONLY_LOCAL).is_some_and(|value| value == "true"),
            claims: claims(pod).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec } = Wire::deserialize(from)?;
        let volumes = spec.volumes.map(|volumes| volumes.0).unwrap_or_default();
        let claims = volumes.into_iter().map(|volume| match volume {
            Used::Claim(name) => name,
            Used::Ephemeral(volume) => format!("{}-{volume}", metadata.name),
        });
        Ok(Self {
            claims: claims.collect(),
            only_local: metadata
                .annotations
                .is_some_and(|annotations| annotations.only_local.as_deref() == Some("true")),
            name: metadata.name,
            namespace: metadata.namespace,
        })
    }
}

/// A pod as it is written, of which all else is passed over.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "orlop.io/prefer-local-node-only", default)]
    only_local: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    volumes: Option<Volumes>,
}

/// A claim by its name, or one that is made for the pod alone by the name of the volume.
enum Used {
    Claim(String),
    Ephemeral(String),
}

/// Volumes, less those of other kinds.
struct Volumes(Vec<Used>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    #[serde(default)]
    name: String,
    #[serde(default)]
    persistent_volume_claim: Option<Claim>,
    #[serde(default)]
    ephemeral: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    claim_name: String,
}

impl<'de> Deserialize<'de> for Volumes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Kept;
        impl<'de> Visitor<'de> for Kept {
            type Value = Volumes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the volumes of a pod")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Volumes, A::Error> {
                let mut kept = Vec::new();
                while let Some(volume) = all.next_element::<Volume>()? {
                    match (volume.persistent_volume_claim, volume.ephemeral) {
                        (Some(claim), _) => kept.push(Used::Claim(claim.claim_name)),
                        (None, Some(IgnoredAny)) => kept.push(Used::Ephemeral(volume.name)),
                        (None, None) => {}
                    }
                }
                Ok(Volumes(kept))
            }
        }
        from.deserialize_seq(Kept)
    }
}

/// The nodes that are left, and why others are not.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Filtered<'a> {
    pub(crate) node_names: Vec<&'a str>,
    pub(crate) failed_nodes: BTreeMap<String, String>,
    pub(crate) error: String,
}

impl<'a> Filtered<'a> {
    /// Of these, without those that are refused.
    pub(crate) fn new(mut names: Vec<&'a str>, refused: BTreeMap<String, String>) -> Self {
        names.retain(|name| !refused.contains_key(*name));
        Self { node_names: names, failed_nodes: refused, error: String::new() }
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
    use serde_json::{Value, json};

    fn args(value: Value) -> Result<Args, serde_json::Error> {
        serde_json::from_str(&value.to_string())
    }

    #[test]
    fn nodes_come_by_name_and_no_more_of_them_than_there_may_be() {
        for (pod, names) in [("Pod", "NodeNames"), ("pod", "nodenames")] {
            let args = args(json!({pod: {"metadata": {"name": "p"}}, names: ["a", "b"]})).unwrap();
            assert_eq!(args.names().unwrap(), ["a", "b"]);
            let refused = BTreeMap::from([("b".to_owned(), "no".to_owned())]);
            let answer = serde_json::to_value(Filtered::new(args.names().unwrap(), refused)).unwrap();
            assert_eq!(answer, json!({"NodeNames": ["a"], "FailedNodes": {"b": "no"}, "Error": ""}));
        }
        let whole = args(
            json!({"Pod": {}, "Nodes": {"metadata": {}, "items": [{"metadata": {"name": "a"}}]}, "NodeNames": null}),
        );
        assert!(whole.unwrap().names().is_none());
        let none = args(json!({"Pod": {}, "Nodes": null, "NodeNames": null})).unwrap();
        assert_eq!(none.names().unwrap(), Vec::<&str>::new());
        let many = |count: usize| args(json!({"Pod": {}, "NodeNames": vec!["n"; count]}));
        assert_eq!(many(MOST_NODES).unwrap().names().unwrap().len(), MOST_NODES);
        assert!(many(MOST_NODES + 1).unwrap_err().to_string().contains("up to 16384 names of nodes"));
    }

    #[test]
    fn a_pod_that_is_asked_about_is_read_as_one_of_the_server_is() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "shop", "annotations": {ONLY_LOCAL: "true", "a": "b"}, "labels": null},
            "spec": {"containers": [{"name": "c"}], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}},
                {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                {"name": "c", "emptyDir": {}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            ]},
        });
        let asked = args(json!({"Pod": pod.clone(), "NodeNames": []})).unwrap().pod;
        let expected = Asked {
            name: "p".into(),
            namespace: "shop".into(),
            only_local: true,
            claims: ["data".to_owned(), "p-b".to_owned()].into(),
        };
        assert_eq!(asked, expected);
        assert_eq!(Asked::from(&serde_json::from_value::<Pod>(pod).unwrap()), expected);
        let plain = json!({"metadata": {"name": "p", "annotations": null}, "spec": {"volumes": null}});
        let plain = args(json!({"pod": plain})).unwrap().pod;
        assert_eq!(plain, Asked { name: "p".into(), ..Asked::default() });
    }
}
