//! The plain manifests of `deploy/`, which are built into the program, as objects for one cluster.

use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::error::{Error, Result};

/// The image that the manifests name.
pub(crate) const IMAGE: &str = concat!("orlop/orlop:", env!("CARGO_PKG_VERSION"));
/// What begins an argument by which a daemon gets a pool.
pub(crate) const POOL: &str = "--pool=";

/// A folder of manifests: the names of the files, in the order in which they are applied, and what is in them.
type Files = &'static [(&'static str, &'static str)];

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../deploy/", $folder, "/", $name)))),+]
    };
}

const OPERATOR: Files =
    files!("operator": "00-namespace.yaml", "10-rights.yaml", "20-deployment.yaml", "30-network.yaml");
const CSI: Files = files!(
    "csi": "00-namespace.yaml", "10-driver.yaml", "20-rights.yaml", "30-keeper.yaml", "40-node.yaml", "50-sidecars.yaml", "60-classes.yaml",
    "70-snapshots.yaml", "80-network.yaml",
);
/// What is new for replicas, or takes the place of the file of its name in `csi`.
const REPLICATED: Files = files!("replicated": "20-rights.yaml", "40-node.yaml", "60-classes.yaml", "80-network.yaml");
const DISRUPTION: Files = files!("disruption": "csi.yaml", "operator.yaml");
const MONITORING: Files = files!("monitoring": "nodes.yaml", "operator.yaml", "rules.yaml");

/// What volumes there are to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Storage {
    // No documentation comments on these: help would give each a paragraph.
    #[default]
    None,
    Csi,
    Replicated,
}

/// What is to be installed.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) storage: Storage,
    pub(crate) image: String,
    /// Of each node, as arguments of `orlop node`; those of the manifests if there are none.
    pub(crate) pools: Vec<String>,
    pub(crate) monitoring: bool,
}

/// What the cluster has that not every cluster has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) snapshots: bool,
    pub(crate) budgets: bool,
}

/// All objects of a choice, in the order in which they are applied.
pub(crate) fn objects(choice: &Choice, server: Server) -> Result<Vec<DynamicObject>> {
    let has_storage = choice.storage != Storage::None;
    let mut texts: Vec<&str> = of(OPERATOR).collect();
    match choice.storage {
        Storage::None => {}
        Storage::Csi => texts.extend(of(CSI)),
        Storage::Replicated => {
            // Rights and classes are beside those of one copy; the daemon and its policy take the place of what is there.
            let replaced = |name: &str| name == "40-node.yaml" || name == "80-network.yaml";
            texts.extend(CSI.iter().filter(|(name, _)| !replaced(name)).chain(REPLICATED).map(|(_, text)| *text));
        }
    }
    if server.budgets {
        texts.extend(of(DISRUPTION));
    }
    if choice.monitoring {
        texts.extend(of(MONITORING));
    }
    let mut objects = Vec::new();
    for text in texts {
        for document in text.replace(IMAGE, &choice.image).split("\n---\n") {
            objects.push(serde_saphyr::from_str(document).map_err(|e| Error::new("read a manifest").because(e))?);
        }
    }
    objects.retain(|one: &DynamicObject| {
        let is_of_storage = one.namespace().as_deref() == Some(api::STORAGE_NAMESPACE);
        (has_storage || !is_of_storage) && (server.snapshots || kind(one) != "VolumeSnapshotClass")
    });
    for object in &mut objects {
        match (kind(object), object.name_any().as_str()) {
            ("DaemonSet", "orlop-csi") if !server.snapshots => leave_out(object, "snapshotter"),
            ("DaemonSet", "orlop-node") if !choice.pools.is_empty() => give_pools(object, &choice.pools),
            _ => {}
        }
    }
    Ok(objects)
}

fn of(files: Files) -> impl Iterator<Item = &'static str> {
    files.iter().map(|(_, text)| *text)
}

/// What kind an object is of.
pub(crate) fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default()
}

/// Without the kinds that it watches, a container would only fail.
fn leave_out(object: &mut DynamicObject, container: &str) {
    let containers = object.data.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    containers.into_iter().for_each(|all| all.retain(|one| one["name"] != container));
}

fn give_pools(object: &mut DynamicObject, pools: &[String]) {
    let words = object.data.pointer_mut("/spec/template/spec/containers/0/args").and_then(Value::as_array_mut);
    let Some(words) = words else { return };
    let is_pool = |word: &Value| word.as_str().is_some_and(|word| word.starts_with(POOL));
    // In the place of those that are there: the same words in another order would be another version of the daemon.
    let place = words.iter().position(is_pool).unwrap_or(words.len());
    words.retain(|word| !is_pool(word));
    words.splice(place..place, pools.iter().map(|pool| format!("{POOL}{pool}").into()));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn choice(storage: Storage) -> Choice {
        Choice { storage, image: IMAGE.to_owned(), pools: Vec::new(), monitoring: false }
    }

    const NEW: Server = Server { snapshots: true, budgets: true };

    fn names(choice: &Choice, server: Server) -> Vec<String> {
        let objects = objects(choice, server).expect("manifests are good");
        objects.iter().map(|one| format!("{} {}", kind(one), one.name_any())).collect()
    }

    #[test]
    fn every_manifest_is_built_in() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        for (folder, files) in [
            ("operator", OPERATOR),
            ("csi", CSI),
            ("replicated", REPLICATED),
            ("disruption", DISRUPTION),
            ("monitoring", MONITORING),
        ] {
            let entries = std::fs::read_dir(deploy.join(folder)).expect("a folder");
            let found = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
            let mut found: Vec<_> = found.filter(|name| name.ends_with(".yaml")).collect();
            found.sort();
            assert_eq!(files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), found, "{folder}");
        }
        let named = objects(&choice(Storage::Csi), NEW).expect("manifests are good");
        assert!(serde_json::to_string(&named).expect("JSON").contains(IMAGE), "{IMAGE} is in no manifest");
    }

    #[test]
    fn what_is_not_wanted_or_not_known_is_left_out() {
        let alone = names(&choice(Storage::None), NEW);
        assert!(alone.contains(&"Deployment orlop-operator".to_owned()), "{alone:?}");
        assert!(!alone.iter().any(|one| one.contains("orlop-node") || one.contains("orlop-csi")), "{alone:?}");
        let old = names(&choice(Storage::Csi), Server { snapshots: false, budgets: false });
        let new = names(&choice(Storage::Csi), NEW);
        let missing: Vec<_> = new.iter().filter(|one| !old.contains(one)).collect();
        assert_eq!(
            missing,
            [
                "VolumeSnapshotClass orlop",
                "PodDisruptionBudget orlop-csi-resizer",
                "PodDisruptionBudget orlop-operator"
            ]
        );
        let watched = names(&Choice { monitoring: true, ..choice(Storage::None) }, NEW);
        assert!(watched.contains(&"ServiceMonitor orlop-operator".to_owned()));
        assert!(!watched.contains(&"ServiceMonitor orlop-node".to_owned()), "{watched:?}");
    }

    #[test]
    fn every_object_is_there_once() {
        for storage in [Storage::None, Storage::Csi, Storage::Replicated] {
            let mut objects =
                objects(&Choice { monitoring: true, ..choice(storage) }, NEW).expect("manifests are good");
            objects.sort_by_key(|one| (kind(one).to_owned(), one.namespace(), one.name_any()));
            let same = |a: &DynamicObject, b: &DynamicObject| {
                kind(a) == kind(b) && a.namespace() == b.namespace() && a.name_any() == b.name_any()
            };
            let twice: Vec<_> =
                objects.windows(2).filter(|two| same(&two[0], &two[1])).map(|two| two[0].name_any()).collect();
            assert!(twice.is_empty(), "{storage:?}: {twice:?}");
        }
    }

    #[test]
    fn pools_and_images_are_those_that_were_chosen() {
        let pools = vec!["/dev/disk/by-id/a".to_owned(), "/var/lib/orlop/b,size=1GiB".to_owned()];
        let chosen = Choice { image: "registry/orlop:2".into(), pools, ..choice(Storage::Replicated) };
        let objects = objects(&chosen, Server { snapshots: false, budgets: true }).expect("manifests are good");
        let find =
            |name: &str| objects.iter().find(|one| kind(one) == "DaemonSet" && one.name_any() == name).expect(name);
        let daemon = &find("orlop-node").data["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(daemon["image"], "registry/orlop:2");
        let words: Vec<_> = daemon["args"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
        let given: Vec<_> = words.iter().filter(|word| word.starts_with(POOL)).collect();
        assert_eq!(given, [&"--pool=/dev/disk/by-id/a", &"--pool=/var/lib/orlop/b,size=1GiB"]);
        assert!(words.contains(&"--cluster"), "{words:?}");
        assert_eq!(words.iter().position(|word| word.starts_with(POOL)), Some(1), "{words:?}");
        let sidecars = find("orlop-csi").data["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        assert_eq!(sidecars.len(), 1);
        assert!(!serde_json::to_string(&objects).expect("JSON").contains(IMAGE));
    }
}
