//! What kinds a cluster has: one entry per kind, at the version to read it at.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::core::Version;

use crate::key::ObjectKey;

/// Groups that serve, from the same storage, kinds that another group serves too: the left one is the old name. Reading both
/// would capture every object twice.
const OLD_NAMES: &[(&str, &str)] = &[
    ("extensions", "apps"),
    ("extensions", "networking.k8s.io"),
    ("extensions", "policy"),
    ("", "events.k8s.io"),
    ("authorization.openshift.io", "rbac.authorization.k8s.io"),
];

/// One kind of object that a cluster serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// The version to read and write it at: the one that the server prefers for the group where it has the kind, else the most
    /// stable one that has it.
    pub version: String,
    /// All versions that serve it.
    pub versions: Vec<String>,
    /// Kind, as in a manifest.
    pub kind: String,
    /// Plural, as in a path.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether its objects can be listed and read, and so captured.
    pub readable: bool,
    /// Whether its objects can be made by a client, and so restored. What can be read only (metrics, say) is a view of something.
    pub creatable: bool,
}

impl Kind {
    /// The path below which its objects are, at a version that the server has.
    pub fn path(&self, version: &str, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        match namespace {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{version}/{}", self.plural),
        }
    }

    /// The `apiVersion` of its manifests.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The key of an object of this kind.
    pub fn key(&self, namespace: Option<&str>, name: &str) -> ObjectKey {
        ObjectKey {
            group: self.group.clone(),
            version: self.version.clone(),
            kind: self.kind.clone(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }
}

/// A version of a group that the server lists but could not describe: an aggregated API whose server is down, mostly. Its kinds
/// are unknown, so they are missed, not forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenGroup {
    /// API group.
    pub group: String,
    /// The version that could not be described.
    pub version: String,
    /// What the server answered.
    pub reason: String,
}

/// One version of a group as discovered: its kinds, or why they are unknown.
#[derive(Clone, Debug)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Whether the server prefers this version among those of the group.
    pub preferred: bool,
    /// What it serves, or why that is unknown.
    pub resources: Result<APIResourceList, String>,
}

/// Every kind that a cluster serves.
#[derive(Clone, Debug, Default)]
pub struct ApiCatalog {
    kinds: BTreeMap<(String, String), Kind>,
    broken: Vec<BrokenGroup>,
}

impl ApiCatalog {
    /// Makes the catalog from what discovery found.
    pub fn build(discovered: Vec<GroupVersion>) -> Self {
        let mut catalog = Self::default();
        let mut preferred = BTreeMap::new();
        for GroupVersion { group, version, preferred: is_preferred, resources } in discovered {
            if is_preferred {
                preferred.insert(group.clone(), version.clone());
            }
            match resources {
                Ok(list) => list.resources.iter().for_each(|resource| catalog.add(&group, &version, resource)),
                Err(reason) => catalog.broken.push(BrokenGroup { group, version, reason }),
            }
        }
        for kind in catalog.kinds.values_mut() {
            kind.versions.sort_by_cached_key(|version| std::cmp::Reverse(Version::parse(version).priority()));
            let best = preferred.get(&kind.group).filter(|version| kind.versions.contains(version));
            kind.version = best.unwrap_or(&kind.versions[0]).clone();
        }
        catalog.drop_old_names();
        catalog.broken.sort_by(|a, b| (&a.group, &a.version).cmp(&(&b.group, &b.version)));
        catalog
    }

    fn add(&mut self, group: &str, version: &str, resource: &APIResource) {
        if resource.name.contains('/') {
            return; // a subresource: a part of its object, not an object
        }
        let can = |verbs: &[&str]| verbs.iter().all(|verb| resource.verbs.iter().any(|have| have == verb));
        let kind = self.kinds.entry((group.to_owned(), resource.kind.clone())).or_insert_with(|| Kind {
            group: group.to_owned(),
            version: String::new(),
            versions: Vec::new(),
            kind: resource.kind.clone(),
            plural: resource.name.clone(),
            namespaced: resource.namespaced,
            readable: false,
            creatable: false,
        });
        if kind.plural == resource.name && can(&["list", "get"]) {
            kind.versions.push(version.to_owned());
            kind.readable = true;
            kind.creatable |= can(&["create"]);
        } else if kind.versions.is_empty() {
            kind.versions.push(version.to_owned());
        }
    }

    fn drop_old_names(&mut self) {
        for (old, new) in OLD_NAMES {
            let doubled: Vec<_> = self
                .kinds
                .keys()
                .filter(|(group, kind)| group == old && self.kinds.contains_key(&((*new).to_owned(), kind.clone())))
                .cloned()
                .collect();
            for key in doubled {
                self.kinds.remove(&key);
            }
        }
    }

    /// All kinds, sorted by group and kind.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// The kinds whose objects live in namespaces and can be captured, sorted by group and kind.
    pub fn namespaced(&self) -> impl Iterator<Item = &Kind> {
        self.kinds().filter(|kind| kind.namespaced && kind.readable)
    }

    /// One kind.
    pub fn get(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.kinds.get(&(group.to_owned(), kind.to_owned()))
    }

    /// The groups whose kinds are not known.
    pub fn broken(&self) -> &[BrokenGroup] {
        &self.broken
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const ALL: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

    pub(crate) fn served(
        group: &str,
        version: &str,
        preferred: bool,
        kinds: &[(&str, &str, bool, &[&str])],
    ) -> GroupVersion {
        let resources = kinds
            .iter()
            .map(|(kind, name, namespaced, verbs)| APIResource {
                kind: (*kind).into(),
                name: (*name).into(),
                namespaced: *namespaced,
                verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
                ..APIResource::default()
            })
            .collect();
        GroupVersion {
            group: group.into(),
            version: version.into(),
            preferred,
            resources: Ok(APIResourceList { group_version: String::new(), resources }),
        }
    }

    fn names(catalog: &ApiCatalog) -> Vec<String> {
        catalog.namespaced().map(|kind| format!("{}/{} {}", kind.group, kind.version, kind.kind)).collect()
    }

    #[test]
    fn a_kind_is_read_at_the_preferred_version_that_has_it() {
        let catalog = ApiCatalog::build(vec![
            served("batch", "v1", true, &[("Job", "jobs", true, ALL), ("Job", "jobs/status", true, &["get"])]),
            served("batch", "v1beta1", false, &[("CronJob", "cronjobs", true, ALL)]),
            served("batch", "v2alpha1", false, &[("CronJob", "cronjobs", true, ALL), ("Job", "jobs", true, ALL)]),
        ]);
        assert_eq!(names(&catalog), ["batch/v1beta1 CronJob", "batch/v1 Job"]);
        assert_eq!(catalog.get("batch", "Job").expect("served").versions, ["v1", "v2alpha1"]);
    }

    #[test]
    fn a_kind_served_by_two_groups_is_taken_once() {
        let catalog = ApiCatalog::build(vec![
            served("", "v1", true, &[("Event", "events", true, ALL), ("Secret", "secrets", true, ALL)]),
            served("events.k8s.io", "v1", true, &[("Event", "events", true, ALL)]),
            served("extensions", "v1beta1", true, &[("Ingress", "ingresses", true, ALL), ("Old", "olds", true, ALL)]),
            served("networking.k8s.io", "v1", true, &[("Ingress", "ingresses", true, ALL)]),
        ]);
        assert_eq!(
            names(&catalog),
            ["/v1 Secret", "events.k8s.io/v1 Event", "extensions/v1beta1 Old", "networking.k8s.io/v1 Ingress"]
        );
    }

    #[test]
    fn what_cannot_be_listed_or_has_no_namespace_is_not_captured() {
        let catalog = ApiCatalog::build(vec![served(
            "",
            "v1",
            true,
            &[("Binding", "bindings", true, &["create"]), ("Node", "nodes", false, ALL), ("Pod", "pods", true, ALL)],
        )]);
        assert_eq!(names(&catalog), ["/v1 Pod"]);
        assert!(!catalog.get("", "Binding").expect("known").readable);
        assert!(!catalog.get("", "Node").expect("known").namespaced);
    }

    #[test]
    fn a_broken_group_does_not_hide_the_others() {
        let broken = GroupVersion {
            group: "metrics.example.com".into(),
            version: "v1".into(),
            preferred: true,
            resources: Err("the server is currently unable to handle the request".into()),
        };
        let catalog = ApiCatalog::build(vec![broken, served("", "v1", true, &[("Pod", "pods", true, ALL)])]);
        assert_eq!(names(&catalog), ["/v1 Pod"]);
        assert_eq!(catalog.broken().len(), 1);
        assert_eq!(catalog.broken()[0].group, "metrics.example.com");
    }

    #[test]
    fn paths_follow_group_version_and_scope() {
        let catalog = ApiCatalog::build(vec![
            served("", "v1", true, &[("Pod", "pods", true, ALL), ("Node", "nodes", false, ALL)]),
            served("apps", "v1", true, &[("Deployment", "deployments", true, ALL)]),
        ]);
        let path = |group, kind, version, namespace| catalog.get(group, kind).expect("served").path(version, namespace);
        assert_eq!(path("", "Pod", "v1", Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(path("", "Node", "v1", None), "/api/v1/nodes");
        assert_eq!(path("apps", "Deployment", "v1", Some("shop")), "/apis/apps/v1/namespaces/shop/deployments");
    }
}
