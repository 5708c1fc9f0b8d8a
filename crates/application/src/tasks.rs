//! The steps of a capture, planned in the order of keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    capture::{Captured, Found},
    catalog::{ApiCatalog, Kind},
    key::ObjectKey,
    needs::Needs,
    rules::{self, Rule},
    selection::Selection,
};

/// Kinds of cluster scope in which objects that have to do with the application are searched for; others are read by name.
const SEARCHED: [(&str, &str); 4] = [
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("apiregistration.k8s.io", "APIService"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
];

/// A step of a capture.
#[derive(Debug, PartialEq)]
pub(crate) enum Task {
    /// An outcome that is known already.
    Give(Captured),
    /// The objects of a kind in a namespace.
    List(Kind, String),
    /// One object of cluster scope, by its name.
    Read(Kind, String),
    /// The objects of a kind of cluster scope that have to do with the application.
    Search(Kind),
}

/// The steps in namespaces: every wanted kind in every namespace, and what is known of kinds that cannot be seen.
pub(crate) fn in_namespaces(
    catalog: &ApiCatalog,
    selection: &Selection,
    namespaces: &BTreeSet<String>,
) -> VecDeque<Task> {
    let mut tasks: Vec<(ObjectKey, Task)> = Vec::new();
    for kind in catalog.namespaced().filter(|kind| selection.wants_kind(kind)) {
        let rule = rules::for_kind(&kind.group, &kind.kind).or((!kind.creatable).then_some(Rule::Views));
        for namespace in namespaces {
            let key = kind.key(Some(namespace), ObjectKey::ALL_NAMES);
            tasks.push(match rule {
                Some(rule) => give(key, Found::Skipped(rule)),
                None => (key, Task::List(kind.clone(), namespace.clone())),
            });
        }
    }
    for (group, reason) in unseen_groups(catalog, selection) {
        for namespace in namespaces {
            let whole = unversioned(&group, ObjectKey::ALL_KINDS, ObjectKey::ALL_NAMES);
            let key = ObjectKey { namespace: Some(namespace.clone()), ..whole };
            tasks.push(match rules::for_group(&group) {
                Some(rule) => give(key, Found::Skipped(rule)),
                None => give(key, Found::Missed(reason.clone())),
            });
        }
    }
    in_order(tasks)
}

/// The steps in cluster scope: what captured objects need, and the namespaces that were selected and cannot be captured.
pub(crate) fn in_cluster(catalog: &ApiCatalog, needs: &Needs, lost: &BTreeMap<String, String>) -> VecDeque<Task> {
    let definitions = needs.custom_kinds.iter().filter_map(|(group, kind)| catalog.get(group, kind));
    let definitions: BTreeSet<String> = definitions.map(|kind| format!("{}.{}", kind.plural, kind.group)).collect();
    let named: [(&str, &str, &BTreeSet<String>); 8] = [
        ("", "Namespace", &needs.namespaces),
        ("", "PersistentVolume", &needs.volumes),
        ("apiextensions.k8s.io", "CustomResourceDefinition", &definitions),
        ("networking.k8s.io", "IngressClass", &needs.ingress_classes),
        ("node.k8s.io", "RuntimeClass", &needs.runtime_classes),
        ("rbac.authorization.k8s.io", "ClusterRole", &needs.cluster_roles),
        ("scheduling.k8s.io", "PriorityClass", &needs.priority_classes),
        ("storage.k8s.io", "StorageClass", &needs.storage_classes),
    ];
    let mut tasks: Vec<(ObjectKey, Task)> = Vec::new();
    for (group, kind, names) in named {
        for name in names {
            let key = unversioned(group, kind, name);
            tasks.push(match catalog.get(group, kind) {
                Some(kind) => (key, Task::Read(kind.clone(), name.clone())),
                None => give(key, Found::Missed("the cluster does not serve its kind".into())),
            });
        }
    }
    for kind in SEARCHED.iter().filter_map(|(group, kind)| catalog.get(group, kind)) {
        tasks.push((kind.key(None, ObjectKey::ALL_NAMES), Task::Search(kind.clone())));
    }
    if let Some(reason) = &needs.unseen_roles {
        let key = unversioned("rbac.authorization.k8s.io", "ClusterRole", ObjectKey::ALL_NAMES);
        tasks.push(give(key, Found::Missed(format!("listing those that others are put together from: {reason}"))));
    }
    for (name, reason) in lost {
        tasks.push(give(unversioned("", "Namespace", name), Found::Missed(reason.clone())));
    }
    in_order(tasks)
}

/// Groups of which something wanted could not be seen, with the reason. Only when all kinds are wanted: kinds that are named
/// were found, or the selection was refused.
fn unseen_groups(catalog: &ApiCatalog, selection: &Selection) -> BTreeMap<String, String> {
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for broken in catalog.broken().iter().filter(|broken| selection.wants_unknown_kinds_of(&broken.group)) {
        let reason = format!("its kinds of version {} could not be discovered: {}", broken.version, broken.reason);
        let reasons = groups.entry(broken.group.clone()).or_default();
        *reasons = if reasons.is_empty() { reason } else { format!("{reasons}; {reason}") };
    }
    groups
}

fn give(key: ObjectKey, found: Found) -> (ObjectKey, Task) {
    (key.clone(), Task::Give(Captured { key, found }))
}

fn in_order(mut tasks: Vec<(ObjectKey, Task)>) -> VecDeque<Task> {
    tasks.sort_by(|(a, _), (b, _)| a.cmp(b));
    tasks.into_iter().map(|(_, task)| task).collect()
}

/// The key of something in cluster scope whose version does not matter or is not known.
fn unversioned(group: &str, kind: &str, name: &str) -> ObjectKey {
    ObjectKey { group: group.into(), version: "v1".into(), kind: kind.into(), namespace: None, name: name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{GroupVersion, tests::served};

    const ALL: &[&str] = &["create", "get", "list"];

    fn catalog() -> ApiCatalog {
        let down = GroupVersion {
            group: "down.example.com".into(),
            version: "v1".into(),
            preferred: true,
            resources: Err("no endpoints".into()),
        };
        ApiCatalog::build(vec![
            down,
            served(
                "",
                "v1",
                true,
                &[
                    ("Secret", "secrets", true, ALL),
                    ("Event", "events", true, ALL),
                    ("Namespace", "namespaces", false, ALL),
                ],
            ),
            served("views.example.com", "v1", true, &[("View", "views", true, &["get", "list"])]),
            served("example.com", "v1", true, &[("Widget", "widgets", true, ALL)]),
            served(
                "apiextensions.k8s.io",
                "v1",
                true,
                &[("CustomResourceDefinition", "customresourcedefinitions", false, ALL)],
            ),
            served("apiregistration.k8s.io", "v1", true, &[("APIService", "apiservices", false, ALL)]),
        ])
    }

    fn told(tasks: VecDeque<Task>) -> Vec<String> {
        let tell = |task| match task {
            Task::Give(Captured { key, found: Found::Skipped(rule) }) => format!("skip {key}: {}", rule.name()),
            Task::Give(Captured { key, found }) => format!("give {key}: {found:?}"),
            Task::List(kind, namespace) => format!("list {} in {namespace}", kind.kind),
            Task::Read(kind, name) => format!("read {} {name}", kind.kind),
            Task::Search(kind) => format!("search {}", kind.kind),
        };
        tasks.into_iter().map(tell).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn namespaces_are_planned_kind_by_kind_and_what_is_left_out_is_told() {
        let all = told(in_namespaces(&catalog(), &Selection::default(), &set(&["b", "a"])));
        let expected = [
            "skip Event a/~: events",
            "skip Event b/~: events",
            "list Secret in a",
            "list Secret in b",
            r#"give *.down.example.com a/~: Missed("its kinds of version v1 could not be discovered: no endpoints")"#,
            r#"give *.down.example.com b/~: Missed("its kinds of version v1 could not be discovered: no endpoints")"#,
            "list Widget in a",
            "list Widget in b",
            "skip View.views.example.com a/~: views",
            "skip View.views.example.com b/~: views",
        ];
        assert_eq!(all, expected);
        let widgets = Selection { resource_types: vec!["widgets".into()], ..Selection::default() };
        assert_eq!(told(in_namespaces(&catalog(), &widgets, &set(&["a"]))), ["list Widget in a"]);
    }

    #[test]
    fn cluster_scope_is_planned_from_needs() {
        let needs = Needs {
            namespaces: set(&["shop"]),
            custom_kinds: BTreeSet::from([
                ("example.com".into(), "Widget".into()),
                ("gone.example.com".into(), "Gone".into()),
            ]),
            runtime_classes: set(&["gvisor"]),
            unseen_roles: Some("not allowed".into()),
            ..Needs::default()
        };
        let lost = BTreeMap::from([("lost".to_owned(), "gone".to_owned())]);
        let expected = [
            r#"give Namespace lost: Missed("gone")"#,
            "read Namespace shop",
            "read CustomResourceDefinition widgets.example.com",
            "search APIService",
            r#"give RuntimeClass.node.k8s.io gvisor: Missed("the cluster does not serve its kind")"#,
            r#"give ClusterRole.rbac.authorization.k8s.io ~: Missed("listing those that others are put together from: not allowed")"#,
        ];
        assert_eq!(told(in_cluster(&catalog(), &needs, &lost)), expected);
    }
}
