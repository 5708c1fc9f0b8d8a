//! Who else writes an object: tools that keep it as a repository of manifests has it.
//!
//! Such a tool undoes what a restore changes, as soon as it looks at the object the next time. So it is said who that would be.

use serde_json::Value;

use crate::json;

const ARGO_LABEL: &str = "argocd.argoproj.io/instance";
const ARGO_ANNOTATION: &str = "argocd.argoproj.io/tracking-id";
/// What Flux writes on what it makes: the kind that made it, and the labels with its name and namespace.
const FLUX: [(&str, &str, &str); 2] = [
    ("Kustomization", "kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace"),
    ("HelmRelease", "helm.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/namespace"),
];

/// What keeps an object as its own source says, if it bears the mark of a tool that does: `Argo CD application shop`, `Flux Kustomization
/// flux-system/shop`. The label `app.kubernetes.io/instance`, which Argo CD can be told to use, is no such mark: others write it too.
pub fn manager(object: &Value) -> Option<String> {
    let label = |name: &str| json::text(object, &["metadata", "labels", name]);
    let tracked = json::text(object, &["metadata", "annotations", ARGO_ANNOTATION]);
    let application = match tracked.split_once(':') {
        Some((application, _)) => application,
        None => label(ARGO_LABEL),
    };
    if !application.is_empty() {
        return Some(format!("Argo CD application {application}"));
    }
    let flux = FLUX.iter().find(|(_, name, _)| !label(name).is_empty());
    flux.map(|(kind, name, namespace)| format!("Flux {kind} {}/{}", label(namespace), label(name)))
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
}
