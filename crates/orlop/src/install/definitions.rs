//! The custom resources: those of this program, and those that a cluster has.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::core::DynamicObject;

use crate::check::{self, Compared};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::verbs;

/// Those of this program, as what is applied.
pub(crate) fn ours() -> Result<Vec<DynamicObject>> {
    let failed = |e| Error::new("read the custom resources").because(e);
    let as_object = |crd| serde_json::to_value(crd).and_then(serde_json::from_value).map_err(failed);
    api::crds::all().iter().map(as_object).collect()
}

/// Those of Orlop that the cluster knows, also those of other versions of it.
pub(crate) async fn theirs(cluster: &Cluster) -> Result<Vec<CustomResourceDefinition>> {
    let all: Vec<CustomResourceDefinition> =
        verbs::pages(&cluster.api_all()).await.map_err(|e| cluster.explain("list the custom resources", e))?;
    Ok(all.into_iter().filter(|crd| crd.spec.group == api::GROUP).collect())
}

/// Refuses where the cluster has newer custom resources than this program: once it had our schemas, the server would drop what they lack from every resource that is written,
/// and with it what it says, such as which snapshots a volume has.
pub(crate) fn refuse_newer(theirs: &[CustomResourceDefinition]) -> Result<()> {
    let ours = api::crds::all();
    let is_newer = |crd: &&CustomResourceDefinition| {
        let same = ours.iter().find(|one| one.name_any() == crd.name_any());
        same.is_some_and(|one| matches!(check::compare(crd, one), Compared::Newer | Compared::Apart))
    };
    let newer: Vec<_> = theirs.iter().filter(is_newer).map(ResourceExt::name_any).collect();
    if newer.is_empty() {
        return Ok(());
    }
    let says = format!(
        "apply the custom resources: the cluster has them of a newer version than {}, with what would be lost: {}",
        env!("CARGO_PKG_VERSION"),
        newer.join(", ")
    );
    Err(Error::new(says).next("use the program of the version that the cluster has, or a newer one"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::manifests;
    use super::*;

    #[test]
    fn custom_resources_are_applied_whole() {
        let all = ours().expect("plain data");
        assert_eq!(all.len(), api::crds::all().len());
        assert!(all.iter().all(|one| manifests::kind(one) == "CustomResourceDefinition"));
    }

    #[test]
    fn what_a_newer_version_has_made_is_not_cut_down() {
        let changed = |change: &dyn Fn(&mut serde_json::Value)| -> Vec<CustomResourceDefinition> {
            let mut all = serde_json::to_value(api::crds::all()).expect("plain data");
            all.as_array_mut().expect("a list").iter_mut().for_each(|crd| {
                if crd["metadata"]["name"] == "volumerecords.orlop.io" {
                    change(crd);
                }
            });
            serde_json::from_value(all).expect("CRDs")
        };
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        assert!(refuse_newer(&changed(&|_| {})).is_ok());
        let older = changed(&|crd| {
            crd.pointer_mut(schema)
                .and_then(|all| all.as_object_mut())
                .expect("fields")
                .remove("snapshots")
                .expect("it");
        });
        assert!(refuse_newer(&older).is_ok());
        let newer = changed(&|crd| {
            let items = crd.pointer_mut(&format!("{schema}/snapshots/items/properties")).expect("fields of snapshots");
            items["colour"] = json!({"type": "string"});
        });
        let refused = refuse_newer(&newer).expect_err("snapshots would lose their colour");
        assert!(refused.to_string().contains("volumerecords.orlop.io"), "{refused}");
        let older_with_more = changed(&|crd| {
            crd["metadata"]["annotations"] = json!({api::crds::VERSION_ANNOTATION: "0.0.1"});
            let fields = crd.pointer_mut(schema).expect("fields");
            fields["gone"] = json!({"type": "string"});
        });
        assert!(refuse_newer(&older_with_more).is_ok(), "what this program has dropped keeps it from nothing");
        let next = changed(&|crd| {
            let versions = crd["spec"]["versions"].as_array_mut().expect("versions");
            let mut next = versions[0].clone();
            next["name"] = json!("v1");
            versions.push(next);
        });
        assert!(refuse_newer(&next).is_err());
        // What this program has no resource of, it does not touch.
        let mut other = api::crds::all().remove(0);
        other.metadata.name = Some("others.orlop.io".into());
        assert!(refuse_newer(&[other]).is_ok());
    }
}
