//! Who else writes an object: tools that keep it as a repository of manifests has it.
//!
//! Such a tool undoes what a restore changes, as soon as it looks at the object the next time. So it is said who that would be, and it can be found to
//! be held meanwhile. What is known of a tool is what it writes on its objects (a mark), and what its own resources list.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json;
use crate::key::ObjectKey;

/// On a held resource: who holds it.
pub const HELD_BY: &str = "orlop.io/held-by";
/// By which Argo CD leaves an Application alone.
pub const SKIP: &str = "argocd.argoproj.io/skip-reconcile";
const ARGO_LABEL: &str = "argocd.argoproj.io/instance";
const ARGO_ANNOTATION: &str = "argocd.argoproj.io/tracking-id";
/// What an Argo CD that manages the cluster it is in calls that cluster.
const ARGO_HERE: (&str, &str) = ("https://kubernetes.default.svc", "in-cluster");
/// What Flux writes on what it makes: the kind that made it, and the labels with its name and namespace.
const FLUX: [(Tool, &str, &str); 2] = [
    (Tool::Kustomization, "kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace"),
    (Tool::HelmRelease, "helm.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/namespace"),
];

/// A resource that keeps other objects as their source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Of Argo CD.
    Application,
    /// Of Flux.
    Kustomization,
    /// Of Flux.
    HelmRelease,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Application, Self::Kustomization, Self::HelmRelease];

    /// API group and kind.
    pub fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Application => ("argoproj.io", "Application"),
            Self::Kustomization => ("kustomize.toolkit.fluxcd.io", "Kustomization"),
            Self::HelmRelease => ("helm.toolkit.fluxcd.io", "HelmRelease"),
        }
    }

    fn of(object: &Value) -> Option<Self> {
        let group = json::text(object, &["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
        Self::ALL.into_iter().find(|tool| tool.kind() == (group, json::text(object, &["kind"])))
    }
}

/// What a tool writes on an object that it keeps: which of its resources it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    tool: Tool,
    /// Empty for Argo CD, which writes it into the name where it is not its own.
    namespace: String,
    name: String,
}

/// Written for people: `Argo CD application shop`, `Flux Kustomization flux-system/shop`.
impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.tool {
            Tool::Application => write!(f, "Argo CD application {}", self.name),
            tool => write!(f, "Flux {} {}/{}", tool.kind().1, self.namespace, self.name),
        }
    }
}

/// The mark of a tool that keeps an object, if it bears one. The label `app.kubernetes.io/instance`, which Argo CD can be told to use, is no such mark: others
/// write it too. What it keeps by that is in the lists of its Applications ([`keeps`]).
pub fn mark(object: &Value) -> Option<Mark> {
    let label = |name: &str| json::text(object, &["metadata", "labels", name]);
    let tracked = json::text(object, &["metadata", "annotations", ARGO_ANNOTATION]);
    let application = match tracked.split_once(':') {
        Some((application, _)) => application,
        None => label(ARGO_LABEL),
    };
    if !application.is_empty() {
        return Some(Mark { tool: Tool::Application, namespace: String::new(), name: application.to_owned() });
    }
    let (tool, name, namespace) = FLUX.iter().find(|(_, name, _)| !label(name).is_empty())?;
    Some(Mark { tool: *tool, namespace: label(namespace).to_owned(), name: label(name).to_owned() })
}

/// What keeps an object as its own source says, for people.
pub fn manager(object: &Value) -> Option<String> {
    mark(object).map(|mark| mark.to_string())
}

/// Objects of which those are wanted who keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The marks that they bear.
    pub marks: BTreeSet<Mark>,
    /// Their keys in this cluster, without versions.
    keys: BTreeSet<(String, String, String, String)>,
}

impl Kept {
    /// Adds an object.
    pub fn add(&mut self, key: &ObjectKey) {
        self.keys.insert(names(key));
    }

    fn has(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        self.keys.contains(&(group.into(), kind.into(), namespace.into(), name.into()))
    }
}

fn names(key: &ObjectKey) -> (String, String, String, String) {
    (key.group.clone(), key.kind.clone(), key.namespace.clone().unwrap_or_default(), key.name.clone())
}

/// Takes a hold off an object, with the suspension that came with it. It is a run's and ends with the run. In another life of the object nobody would
/// end it but who sweeps up, and he would let go whatever bears it, also what a person has suspended.
pub(crate) fn forget_hold(object: &mut Value) {
    let is_held = !json::text(object, &["metadata", "annotations", HELD_BY]).is_empty();
    let tool = Tool::of(object).filter(|_| is_held);
    let is_ours = |name: &str| name == HELD_BY || (name == SKIP && tool == Some(Tool::Application));
    json::remove_keys(object, &["metadata", "annotations"], is_ours);
    if matches!(tool, Some(Tool::Kustomization | Tool::HelmRelease)) {
        json::remove(object, &["spec", "suspend"]);
    }
}

/// Whether a resource of a tool keeps some of these objects, in this cluster.
pub fn keeps(tool: Tool, resource: &Value, kept: &Kept) -> bool {
    let text = |path: &[&str]| json::text(resource, path);
    let (namespace, name) = (text(&["metadata", "namespace"]), text(&["metadata", "name"]));
    let is_marked = kept.marks.iter().filter(|mark| mark.tool == tool).any(|mark| match tool {
        Tool::Application => mark.name == name || mark.name == format!("{namespace}_{name}"),
        Tool::Kustomization | Tool::HelmRelease => mark.namespace == namespace && mark.name == name,
    });
    match tool {
        Tool::Application => {
            let (server, cluster) = (text(&["spec", "destination", "server"]), text(&["spec", "destination", "name"]));
            let is_here = ["", ARGO_HERE.0].contains(&server) && ["", ARGO_HERE.1].contains(&cluster);
            let lists = json::list(resource, &["status", "resources"]).iter().any(|item| {
                let of = |field: &str| json::text(item, &[field]);
                kept.has(of("group"), of("kind"), of("namespace"), of("name"))
            });
            is_here && (is_marked || lists)
        }
        // What has a way into another cluster keeps objects there.
        _ if json::at(resource, &["spec", "kubeConfig"]).is_some() => false,
        Tool::Kustomization => is_marked || inventory(resource, kept),
        Tool::HelmRelease => is_marked,
    }
}

/// Whether the inventory of a Kustomization has some of these objects: `namespace_name_group_kind`, in which a colon of a name is two underscores.
fn inventory(kustomization: &Value, kept: &Kept) -> bool {
    json::list(kustomization, &["status", "inventory", "entries"]).iter().any(|entry| {
        let id = json::text(entry, &["id"]);
        let parts = id.rsplit_once('_').and_then(|(rest, kind)| Some((rest.rsplit_once('_')?, kind)));
        let Some(((rest, group), kind)) = parts else { return false };
        let Some((namespace, name)) = rest.split_once('_') else { return false };
        kept.has(group, kind, namespace, &name.replace("__", ":"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_marks_of_the_tools_are_known() {
        let check = |metadata: Value, expected: Option<&str>| {
            assert_eq!(manager(&json!({"metadata": metadata})).as_deref(), expected, "{metadata}");
        };
        check(json!({"labels": {ARGO_LABEL: "shop"}}), Some("Argo CD application shop"));
        let tracked = "argocd_shop:apps/Deployment:shop/web";
        check(json!({"annotations": {ARGO_ANNOTATION: tracked}}), Some("Argo CD application argocd_shop"));
        let flux = |kind: &str| {
            let group = format!("{kind}.toolkit.fluxcd.io");
            json!({"labels": {format!("{group}/name"): "shop", format!("{group}/namespace"): "flux-system"}})
        };
        check(flux("kustomize"), Some("Flux Kustomization flux-system/shop"));
        check(flux("helm"), Some("Flux HelmRelease flux-system/shop"));
        check(json!({"labels": {"app.kubernetes.io/instance": "shop"}}), None);
        check(json!({}), None);
    }

    #[test]
    fn a_hold_goes_with_its_suspension_and_what_a_person_suspended_stays() {
        let check = |api_version: &str, kind: &str, annotations: Value, suspends: bool, left: Value| {
            let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"annotations": annotations},
                "spec": {"suspend": true}});
            forget_hold(&mut object);
            assert_eq!(object["metadata"].get("annotations").cloned().unwrap_or(json!({})), left, "{kind}");
            assert_eq!(object["spec"]["suspend"] == true, suspends, "{kind}");
        };
        let argo = "argoproj.io/v1alpha1";
        check(argo, "Application", json!({HELD_BY: "u", SKIP: "true", "a": "b"}), true, json!({"a": "b"}));
        check(argo, "Application", json!({SKIP: "true"}), true, json!({SKIP: "true"}));
        check("helm.toolkit.fluxcd.io/v2", "HelmRelease", json!({HELD_BY: "u"}), false, json!({}));
        check("kustomize.toolkit.fluxcd.io/v1", "Kustomization", json!({HELD_BY: "u"}), false, json!({}));
        check("kustomize.toolkit.fluxcd.io/v1", "Kustomization", json!({}), true, json!({}));
        check("batch/v1", "CronJob", json!({HELD_BY: "u"}), true, json!({}));
    }

    fn kept(marks: &[Value]) -> Kept {
        let mut kept = Kept { marks: marks.iter().filter_map(mark).collect(), ..Kept::default() };
        for (group, kind, name) in [("apps", "Deployment", "web"), ("rbac.authorization.k8s.io", "Role", "a:b")] {
            kept.add(&ObjectKey {
                group: group.into(),
                version: "v1".into(),
                kind: kind.into(),
                namespace: Some("shop".into()),
                name: name.into(),
            });
        }
        kept
    }

    fn check(tool: Tool, marks: &[Value], rest: Value, expected: bool) {
        let mut resource = json!({"metadata": {"namespace": "tools", "name": "shop"}});
        resource.as_object_mut().expect("a map").extend(rest.as_object().expect("a map").clone());
        assert_eq!(keeps(tool, &resource, &kept(marks)), expected, "{tool:?} {resource}");
    }

    #[test]
    fn applications_keep_what_bears_their_mark_or_is_in_their_list() {
        let tracked = |id: &str| json!({"metadata": {"annotations": {ARGO_ANNOTATION: format!("{id}:apps/Deployment:shop/web")}}});
        let of = |marks: &[Value], rest: Value, expected: bool| check(Tool::Application, marks, rest, expected);
        of(&[tracked("shop")], json!({}), true);
        of(&[tracked("tools_shop")], json!({}), true);
        of(&[tracked("others_shop")], json!({}), false);
        let lists = |name: &str| {
            let resource =
                json!({"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "shop", "name": name});
            json!({"status": {"resources": [resource]}})
        };
        of(&[], lists("web"), true);
        of(&[], lists("other"), false);
        let goes = |destination: Value| json!({"spec": {"destination": destination}});
        of(&[tracked("shop")], goes(json!({"server": "https://kubernetes.default.svc"})), true);
        of(&[tracked("shop")], goes(json!({"name": "in-cluster"})), true);
        of(&[tracked("shop")], goes(json!({"server": "https://east.example.com"})), false);
        of(&[tracked("shop")], goes(json!({"name": "east"})), false);
    }

    #[test]
    fn flux_keeps_what_bears_its_mark_or_is_in_its_inventory() {
        let marked = |kind: &str, namespace: &str| {
            let group = format!("{kind}.toolkit.fluxcd.io");
            json!({"metadata": {"labels": {format!("{group}/name"): "shop", format!("{group}/namespace"): namespace}}})
        };
        check(Tool::Kustomization, &[marked("kustomize", "tools")], json!({}), true);
        check(Tool::Kustomization, &[marked("kustomize", "others")], json!({}), false);
        check(Tool::Kustomization, &[marked("helm", "tools")], json!({}), false);
        check(Tool::HelmRelease, &[marked("helm", "tools")], json!({}), true);
        check(Tool::HelmRelease, &[marked("helm", "tools")], json!({"spec": {"kubeConfig": {}}}), false);
        let lists = |id: &str| json!({"status": {"inventory": {"entries": [{"id": id, "v": "v1"}]}}});
        check(Tool::Kustomization, &[], lists("shop_web_apps_Deployment"), true);
        check(Tool::Kustomization, &[], lists("shop_a__b_rbac.authorization.k8s.io_Role"), true);
        check(Tool::Kustomization, &[], lists("shop_other_apps_Deployment"), false);
        check(Tool::Kustomization, &[], lists("bad"), false);
    }
}
