//! Objects of built-in kinds that the target serves only at another version, or in another group, than the backup has them at.
//!
//! Custom kinds have their own ways between versions, which only their definitions know. Of the built-in ones, a backup reads each at the
//! version that its server prefers; between servers some ten releases apart that is another one for a few kinds. These are rewritten as
//! the API server itself converts them, by way of the newest version.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{
    catalog::{ApiCatalog, Kind},
    failure::Failure,
    json,
    key::ObjectKey,
};

const HOST_LABEL: &str = "kubernetes.io/hostname";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The key by which the API server itself writes "every pod" in version 1beta1 of a disruption budget: no pod has such a label.
const NO_POD_HAS: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

/// A group and a version in it.
type Place = (&'static str, &'static str);

/// The versions of a kind that can be made from each other.
struct Family {
    kind: &'static str,
    newest: Place,
    older: &'static [Place],
    /// From any of the older ones to the newest.
    raise: fn(&mut Value),
    /// From the newest to any of the older ones.
    lower: fn(&mut Value),
}

const FAMILIES: [Family; 6] = [
    Family { kind: "CronJob", newest: ("batch", "v1"), older: &[("batch", "v1beta1")], raise: same, lower: same },
    Family {
        kind: "PodDisruptionBudget",
        newest: ("policy", "v1"),
        older: &[("policy", "v1beta1")],
        raise: raise_budget,
        lower: lower_budget,
    },
    Family {
        kind: "HorizontalPodAutoscaler",
        newest: ("autoscaling", "v2"),
        older: &[("autoscaling", "v2beta2")],
        raise: same,
        lower: same,
    },
    Family {
        kind: "EndpointSlice",
        newest: ("discovery.k8s.io", "v1"),
        older: &[("discovery.k8s.io", "v1beta1")],
        raise: raise_slice,
        lower: lower_slice,
    },
    Family {
        kind: "Ingress",
        newest: ("networking.k8s.io", "v1"),
        older: &[("networking.k8s.io", "v1beta1"), ("extensions", "v1beta1")],
        raise: raise_ingress,
        lower: lower_ingress,
    },
    Family {
        kind: "IngressClass",
        newest: ("networking.k8s.io", "v1"),
        older: &[("networking.k8s.io", "v1beta1")],
        raise: same,
        lower: same,
    },
];

/// Where an object is put in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The path of its kind.
    pub(crate) path: String,
    /// Group and version to rewrite it to; none if the cluster serves those of the backup.
    rewritten: Option<(usize, Place)>,
}

/// Whether a cluster takes objects of that kind at that version, as they are or rewritten to a version that it serves; if not, what
/// it lacks.
pub fn check(catalog: &ApiCatalog, key: &ObjectKey) -> Result<(), Failure> {
    find(catalog, key).map(drop)
}

/// Where a cluster takes an object, or what it lacks.
pub(crate) fn find(catalog: &ApiCatalog, key: &ObjectKey) -> Result<Spot, Failure> {
    let name = if key.group.is_empty() { key.kind.clone() } else { format!("{}.{}", key.kind, key.group) };
    let served = catalog.get(&key.group, &key.kind);
    let (kind, version, rewritten) = match served.filter(|kind| kind.versions.contains(&key.version)) {
        Some(kind) => (kind, key.version.as_str(), None),
        None => match other_version(catalog, key) {
            Some((kind, index, place)) => (kind, place.1, Some((index, place))),
            None => return Err(lacks(served, &name, key)),
        },
    };
    if kind.namespaced != key.namespace.is_some() {
        let scope = if kind.namespaced { "in namespaces" } else { "in cluster scope" };
        return Err(Failure::lasting(format!("{name} lives {scope} in this cluster, and in the backup it does not")));
    }
    Ok(Spot { path: kind.path(version, key.namespace.as_deref()), rewritten })
}

fn lacks(served: Option<&Kind>, name: &str, key: &ObjectKey) -> Failure {
    Failure::lasting(match served {
        None => format!(
            "the kind {name} is not known to this cluster: install what defines it (a CRD or an aggregated API), then restore again"
        ),
        Some(kind) => format!(
            "this cluster serves {name} in {} only, and the backup has it in {}: install a release that serves both",
            kind.versions.join(", "),
            key.version
        ),
    })
}

/// Another version that the object can be rewritten to, the newest that the cluster serves.
fn other_version<'a>(catalog: &'a ApiCatalog, key: &ObjectKey) -> Option<(&'a Kind, usize, Place)> {
    let place = (key.group.as_str(), key.version.as_str());
    let index = FAMILIES
        .iter()
        .position(|family| family.kind == key.kind && (family.newest == place || family.older.contains(&place)))?;
    let family = &FAMILIES[index];
    [&family.newest].into_iter().chain(family.older).find_map(|place| {
        let kind = catalog.get(place.0, family.kind).filter(|kind| kind.versions.iter().any(|v| v == place.1))?;
        Some((kind, index, *place))
    })
}

impl Spot {
    /// The object as it is put there.
    pub(crate) fn fit<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        let Some((index, place)) = self.rewritten else { return Cow::Borrowed(object) };
        let (family, (group, version)) = (&FAMILIES[index], place);
        let mut object = object.clone();
        let (newest_group, newest_version) = family.newest;
        if json::text(&object, &["apiVersion"]) != format!("{newest_group}/{newest_version}") {
            (family.raise)(&mut object);
        }
        if place != family.newest {
            (family.lower)(&mut object);
        }
        json::set(&mut object, &["apiVersion"], format!("{group}/{version}").into());
        Cow::Owned(object)
    }
}

/// The versions differ in nothing but their names.
fn same(_: &mut Value) {}

/// A selector that is there and empty selects no pod in version 1beta1, and every pod in version 1.
fn raise_budget(budget: &mut Value) {
    if selects_by_nothing(budget) {
        json::remove(budget, &["spec", "selector"]);
    }
}

fn lower_budget(budget: &mut Value) {
    if selects_by_nothing(budget) {
        let every = json!({"matchExpressions": [{"key": NO_POD_HAS, "operator": "DoesNotExist"}]});
        json::set(budget, &["spec", "selector"], every);
    }
}

fn selects_by_nothing(budget: &Value) -> bool {
    json::at(budget, &["spec", "selector"]).and_then(Value::as_object).is_some_and(|selector| {
        let is_empty = |part: &Value| part.as_object().is_some_and(serde_json::Map::is_empty);
        selector.values().all(|part| part.is_null() || is_empty(part) || part.as_array().is_some_and(Vec::is_empty))
    })
}

/// Version 1 has fields for the two labels of a node that version 1beta1 has in a map, and none for others.
fn raise_slice(slice: &mut Value) {
    for endpoint in json::list_mut(slice, &["endpoints"]) {
        for (field, label) in [("nodeName", HOST_LABEL), ("zone", ZONE_LABEL)] {
            let value = json::text(endpoint, &["topology", label]).to_owned();
            if !value.is_empty() && json::text(endpoint, &[field]).is_empty() {
                json::set(endpoint, &[field], value.into());
            }
        }
        json::remove(endpoint, &["topology"]);
    }
}

fn lower_slice(slice: &mut Value) {
    for endpoint in json::list_mut(slice, &["endpoints"]) {
        for (field, label) in [("nodeName", HOST_LABEL), ("zone", ZONE_LABEL)] {
            let value = json::text(endpoint, &[field]).to_owned();
            if !value.is_empty() {
                json::set(endpoint, &["topology", label], value.into());
            }
        }
        for field in ["zone", "deprecatedTopology"] {
            json::remove(endpoint, &[field]);
        }
    }
}

fn raise_ingress(ingress: &mut Value) {
    if let Some(mut backend) = take(ingress, &["spec"], "backend") {
        raise_backend(&mut backend);
        json::set(ingress, &["spec", "defaultBackend"], backend);
    }
    for_each_path(ingress, |path| {
        if json::text(path, &["pathType"]).is_empty() {
            json::set(path, &["pathType"], "ImplementationSpecific".into()); // what it meant where it was absent
        }
        if let Some(backend) = json::at_mut(path, &["backend"]) {
            raise_backend(backend);
        }
    });
}

fn lower_ingress(ingress: &mut Value) {
    if let Some(mut backend) = take(ingress, &["spec"], "defaultBackend") {
        lower_backend(&mut backend);
        json::set(ingress, &["spec", "backend"], backend);
    }
    for_each_path(ingress, |path| {
        if let Some(backend) = json::at_mut(path, &["backend"]) {
            lower_backend(backend);
        }
    });
}

fn for_each_path(ingress: &mut Value, mut change: impl FnMut(&mut Value)) {
    for rule in json::list_mut(ingress, &["spec", "rules"]) {
        json::list_mut(rule, &["http", "paths"]).iter_mut().for_each(&mut change);
    }
}

fn raise_backend(backend: &mut Value) {
    if let Some(name) = take(backend, &[], "serviceName") {
        json::set(backend, &["service", "name"], name);
    }
    if let Some(port) = take(backend, &[], "servicePort") {
        let field = if port.is_number() { "number" } else { "name" };
        json::set(backend, &["service", "port", field], port);
    }
}

fn lower_backend(backend: &mut Value) {
    let Some(mut service) = take(backend, &[], "service") else { return };
    if let Some(name) = take(&mut service, &[], "name") {
        json::set(backend, &["serviceName"], name);
    }
    let port = take(&mut service, &["port"], "number").or_else(|| take(&mut service, &["port"], "name"));
    if let Some(port) = port {
        json::set(backend, &["servicePort"], port);
    }
}

/// Takes a field out of the map at a path.
fn take(value: &mut Value, path: &[&str], field: &str) -> Option<Value> {
    json::at_mut(value, path)?.as_object_mut()?.remove(field)
}

#[cfg(test)]
#[path = "versions_tests.rs"]
mod tests;
