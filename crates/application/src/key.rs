//! What names an object, and the bytes that sort it in a table.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json;

/// First byte of the key of an object that lives in a namespace.
const IN_NAMESPACE: u8 = b'a';
/// First byte of the key of an object of cluster scope: they follow the others, because what an application needs from cluster
/// scope is known only when its own objects have been seen, and tables take their keys in ascending order.
const IN_CLUSTER: u8 = b'c';
/// Stands between the parts of a key. No part can hold it: the API server refuses it in every name.
const SEPARATOR: u8 = 0;

/// The identity of one object in one cluster.
///
/// `version` is how the object was read, and takes no part in the order or in the bytes of the key: the same object read at two
/// versions is one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group at which the object was read.
    pub version: String,
    /// Kind, as in the manifest.
    pub kind: String,
    /// Namespace; none for an object of cluster scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// A table key that does not name an object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the table key {key:?} does not name an object: expected scope, group, kind, namespace and name, separated by zero bytes"
)]
pub struct BadKey {
    key: String,
}

/// An object that does not say what it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the object has no {field}: it cannot be named")]
pub struct Nameless {
    field: &'static str,
}

impl ObjectKey {
    /// The name that stands for every object of a kind that was not (or could not be) listed one by one. It sorts after all usual
    /// names, so that it can be written when a listing breaks off in its middle.
    pub const ALL_NAMES: &str = "~";
    /// The kind that stands for every kind of a group that the server could not describe. It sorts before all kinds.
    pub const ALL_KINDS: &str = "*";

    /// Reads the key off an object.
    pub fn of(object: &Value) -> Result<Self, Nameless> {
        let required = |path: &[&str], field| match json::text(object, path) {
            "" => Err(Nameless { field }),
            text => Ok(text.to_owned()),
        };
        let api_version = required(&["apiVersion"], "apiVersion")?;
        let (group, version) = match api_version.split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), api_version),
        };
        Ok(Self {
            group,
            version,
            kind: required(&["kind"], "kind")?,
            namespace: Some(json::text(object, &["metadata", "namespace"]).to_owned()).filter(|n| !n.is_empty()),
            name: required(&["metadata", "name"], "metadata.name")?,
        })
    }

    /// The `apiVersion` of a manifest.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether this is that kind of that group, at any version.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// The bytes that sort this object in a table: scope, then group, kind, namespace and name, separated by zero bytes, so that
    /// a prefix scan finds a scope, a group, a kind, or a kind in one namespace.
    pub fn encode(&self) -> Vec<u8> {
        let mut key = vec![if self.namespace.is_some() { IN_NAMESPACE } else { IN_CLUSTER }];
        let namespace = self.namespace.as_deref().unwrap_or_default();
        for part in [&self.group, &self.kind, namespace, &self.name] {
            key.push(SEPARATOR);
            key.extend_from_slice(part.as_bytes());
        }
        key
    }

    /// Reads back what `encode` wrote; the version comes from the table's value.
    pub fn decode(key: &[u8], version: &str) -> Result<Self, BadKey> {
        let bad = || BadKey { key: String::from_utf8_lossy(key).into_owned() };
        let text = std::str::from_utf8(key).map_err(|_| bad())?;
        let parts: Vec<&str> = text.split(char::from(SEPARATOR)).collect();
        let &[scope, group, kind, namespace, name] = parts.as_slice() else {
            return Err(bad());
        };
        let namespace = match (scope.as_bytes(), namespace) {
            ([IN_NAMESPACE], namespace) if !namespace.is_empty() => Some(namespace.to_owned()),
            ([IN_CLUSTER], "") => None,
            _ => return Err(bad()),
        };
        if kind.is_empty() || name.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            namespace,
            name: name.to_owned(),
        })
    }

    fn parts(&self) -> (bool, &str, &str, &str, &str) {
        let namespace = self.namespace.as_deref();
        (namespace.is_none(), &self.group, &self.kind, namespace.unwrap_or_default(), &self.name)
    }
}

/// Written for people: `Deployment.apps shop/web`.
impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " {namespace}/{}", self.name),
            None => write!(f, " {}", self.name),
        }
    }
}

/// The order of the encoded bytes, then of the versions.
impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts()).then_with(|| self.version.cmp(&other.version))
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(group: &str, kind: &str, namespace: Option<&str>, name: &str) -> ObjectKey {
        ObjectKey {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for key in [
            key("", "ConfigMap", Some("shop"), "settings"),
            key("apps", "Deployment", Some("shop"), "web"),
            key("", "Namespace", None, "shop"),
            key("rbac.authorization.k8s.io", "ClusterRole", None, "system:node"),
        ] {
            assert_eq!(ObjectKey::decode(&key.encode(), "v1"), Ok(key));
        }
    }

    #[test]
    fn bytes_sort_as_keys_do() {
        let mut keys = vec![
            key("", "Namespace", None, "shop"),
            key("apps", "Deployment", Some("shop"), "web"),
            key("apps", "Deployment", Some("shop-2"), "a"),
            key("", "Secret", Some("a.b"), "x"),
            key("", "Secret", Some("a-b"), "y"),
            key("", "Secret", Some("a"), "z"),
            key("", "Secret", Some("a"), ObjectKey::ALL_NAMES),
            key("apps", ObjectKey::ALL_KINDS, Some("a"), ObjectKey::ALL_NAMES),
        ];
        keys.sort();
        let encoded: Vec<_> = keys.iter().map(ObjectKey::encode).collect();
        assert!(encoded.is_sorted());
        assert_eq!(keys.last(), Some(&key("", "Namespace", None, "shop")), "cluster scope comes last");
    }

    #[test]
    fn bytes_that_name_nothing_are_refused() {
        for bad in [
            &b""[..],
            b"a",
            b"a\0\0Secret\0\0x",
            b"c\0\0Secret\0ns\0x",
            b"x\0\0Secret\0ns\0x",
            b"a\0\0\0ns\0x",
            b"a\0\0Secret\0ns\0",
            b"a\0\xff\0K\0n\0x",
        ] {
            assert!(ObjectKey::decode(bad, "v1").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_object_names_itself() {
        let object =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}});
        assert_eq!(ObjectKey::of(&object), Ok(key("apps", "Deployment", Some("shop"), "web")));
        assert_eq!(key("apps", "Deployment", Some("shop"), "web").to_string(), "Deployment.apps shop/web");
        assert_eq!(
            ObjectKey::of(&json!({"apiVersion": "v1", "kind": "Pod"})),
            Err(Nameless { field: "metadata.name" })
        );
    }
}
