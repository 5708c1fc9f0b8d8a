//! Which of two definitions of the same custom resource is the newer one.

use std::collections::BTreeSet;

use api::crds::VERSION_ANNOTATION;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Crd;
use kube::ResourceExt;
use serde_json::Value;

use crate::version::numbers;

/// How a definition that a cluster has compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It says the same, as far as it matters.
    Same,
    /// It lacks something of ours.
    Older,
    /// It is of a newer version, or says more than ours.
    Newer,
    /// Each says something that the other does not, and nobody knows which is the newer one.
    Apart,
}

/// Compares by the versions that they bear. Where these are the same, or one bears none, by what may stand in a resource: fields, and the values of those that have a few.
pub(crate) fn compare(theirs: &Crd, ours: &Crd) -> Compared {
    let lacks = || !says_all_of(theirs, ours);
    match (version(theirs), version(ours)) {
        (Some(theirs), Some(ours)) if theirs > ours => Compared::Newer,
        (Some(theirs), Some(ours)) if theirs < ours => {
            if lacks() {
                Compared::Older
            } else {
                Compared::Same
            }
        }
        _ => match (lacks(), !says_all_of(ours, theirs)) {
            (false, false) => Compared::Same,
            (true, false) => Compared::Older,
            (false, true) => Compared::Newer,
            (true, true) => Compared::Apart,
        },
    }
}

fn version(crd: &Crd) -> Option<[u64; 3]> {
    numbers(crd.annotations().get(VERSION_ANNOTATION)?)
}

/// Whether all fields and values of a definition are in the schemas of another.
fn says_all_of(found: &Crd, wanted: &Crd) -> bool {
    let said = |crd: &Crd| {
        let mut said = BTreeSet::new();
        for version in &crd.spec.versions {
            let schema = serde_json::to_value(&version.schema).unwrap_or_default();
            gather(&schema["openAPIV3Schema"], &version.name, &mut said);
        }
        said
    };
    said(wanted).is_subset(&said(found))
}

fn gather(schema: &Value, path: &str, said: &mut BTreeSet<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        gather(inner, &path, said);
        said.insert(path);
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        said.insert(format!("{path}={value}"));
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            gather(&schema[inner], path, said);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";

    fn ours() -> Crd {
        api::crds::all().remove(0)
    }

    /// Ours, changed, of another version, or of none that is known.
    fn theirs(version: Option<&str>, change: impl FnOnce(&mut Value)) -> Crd {
        let mut crd = serde_json::to_value(ours()).expect("plain data");
        crd["metadata"]["annotations"] = version.map_or(Value::Null, |version| json!({VERSION_ANNOTATION: version}));
        change(crd.pointer_mut(FIELDS).expect("fields"));
        serde_json::from_value(crd).expect("a CRD")
    }

    fn without(fields: &mut Value) {
        fields.as_object_mut().expect("fields").remove("backupLocation").expect("a field");
    }

    fn with(fields: &mut Value) {
        fields["colour"] = json!({"type": "string"});
    }

    fn other(fields: &mut Value) {
        without(fields);
        with(fields);
    }

    fn with_a_value(fields: &mut Value) {
        fields["reclaimPolicy"]["enum"].as_array_mut().expect("values").push(json!("Archive"));
    }

    #[test]
    fn versions_say_which_is_newer_whatever_has_come_or_gone() {
        let check = |version: &str, change: fn(&mut Value), expected: Compared| {
            assert_eq!(compare(&theirs(Some(version), change), &ours()), expected, "{version}");
        };
        check("99.0.0", |_| {}, Compared::Newer);
        check("99.0.0", without, Compared::Newer);
        // What a newer program has dropped keeps nobody from upgrading to it.
        check("0.0.1", with, Compared::Same);
        check("0.0.1", without, Compared::Older);
        check("0.0.1", |_| {}, Compared::Same);
    }

    #[test]
    fn without_versions_fields_and_values_are_compared() {
        for version in [None, Some("next"), Some(env!("CARGO_PKG_VERSION"))] {
            let check = |change: fn(&mut Value), expected: Compared| {
                assert_eq!(compare(&theirs(version, change), &ours()), expected, "{version:?}");
            };
            check(|_| {}, Compared::Same);
            check(without, Compared::Older);
            check(with, Compared::Newer);
            check(with_a_value, Compared::Newer);
            check(other, Compared::Apart);
        }
    }
}
