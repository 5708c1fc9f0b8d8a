//! What of Orlop a cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{Api, ResourceExt};

use super::apply::Objects;
use super::manifests::{self, Choice, IMAGE, POOL, Server, Storage};
use crate::check;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::node;
use crate::version::numbers;

/// With this word a daemon holds replicas of volumes for the whole cluster.
pub(crate) const REPLICATED: &str = "--cluster";
/// Who installed an object.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

impl Storage {
    /// As arguments have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Csi => "csi",
            Self::Replicated => "replicated",
        }
    }
}

/// What was chosen when it was installed.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) storage: Storage,
    pub(crate) image: String,
    /// The pools of each node.
    pub(crate) pools: Vec<String>,
    pub(crate) monitoring: bool,
    pub(crate) by_helm: bool,
    /// A replica of the operator is ready, and lets go of what is deleted.
    pub(crate) has_operator: bool,
}

/// Looks for the operator and for the daemons of nodes.
pub(crate) async fn look(cluster: &Cluster) -> Result<Option<Present>> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), api::ADMIN_NAMESPACE);
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client(), api::STORAGE_NAMESPACE);
    let failed = |e| cluster.explain("look for what is installed", e);
    let operator = deployments.get_opt("orlop-operator").await.map_err(failed)?;
    let daemon = sets.get_opt("orlop-node").await.map_err(failed)?;
    let spec = daemon.as_ref().and_then(|daemon| daemon.spec.template.spec.as_ref());
    let words: Vec<&str> = spec.into_iter().flat_map(check::words).collect();
    let storage = match &daemon {
        None => Storage::None,
        Some(_) if words.contains(&REPLICATED) => Storage::Replicated,
        Some(_) => Storage::Csi,
    };
    let Some(operator) = operator else {
        // Of an installation that came to nothing, or was made without an operator, the storage counts.
        return Ok(daemon.as_ref().map(|daemon| Present {
            storage,
            image: image(&daemon.spec.template),
            pools: pools(&words),
            monitoring: false,
            by_helm: is_helms(daemon.labels()),
            has_operator: false,
        }));
    };
    Ok(Some(Present {
        storage,
        image: image(&operator.spec.template),
        pools: pools(&words),
        monitoring: has_monitors(cluster).await?,
        by_helm: is_helms(operator.labels()),
        has_operator: is_at_work(&operator),
    }))
}

fn image(template: &PodTemplateSpec) -> String {
    let first = template.spec.as_ref().and_then(|spec| spec.containers.first());
    first.and_then(|container| container.image.clone()).unwrap_or_default()
}

fn pools(words: &[&str]) -> Vec<String> {
    words.iter().filter_map(|word| word.strip_prefix(POOL)).map(str::to_owned).collect()
}

fn is_at_work(operator: &Deployment) -> bool {
    operator.status.as_ref().and_then(|status| status.ready_replicas).is_some_and(|ready| ready > 0)
}

fn is_helms(labels: &BTreeMap<String, String>) -> bool {
    labels.get(MANAGED_BY).is_some_and(|by| by == "Helm")
}

async fn has_monitors(cluster: &Cluster) -> Result<bool> {
    let choice = Choice { storage: Storage::None, image: IMAGE.to_owned(), pools: Vec::new(), monitoring: true };
    let all = manifests::objects(&choice, Server { snapshots: false, budgets: false })?;
    match all.iter().find(|one| manifests::kind(one) == "ServiceMonitor") {
        Some(monitor) => Ok(Objects::of(cluster).find(monitor).await?.is_some()),
        None => Ok(false),
    }
}

impl Present {
    /// The image that is there, if no other is given and this program is of its version.
    pub(crate) fn same_image(&self, given: Option<&str>) -> Result<String> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        let here = env!("CARGO_PKG_VERSION");
        let there = self.image.rsplit_once(':').and_then(|(_, tag)| numbers(tag));
        if there.is_some_and(|there| Some(there) != numbers(here)) {
            let says = format!("install Orlop: the cluster runs {}, and this program is of version {here}", self.image);
            return Err(Error::new(says)
                .next("orlop upgrade brings it to the version of the program; --image names another image"));
        }
        Ok(self.image.clone())
    }

    /// The pools that are there. Daemons that were given others would not find their replicas.
    pub(crate) fn same_pools(&self, given: &[String]) -> Result<Vec<String>> {
        if self.pools.is_empty() {
            return Ok(given.to_vec());
        }
        // A size can be written in more than one way.
        let meant =
            |pool: &String| node::parse_pool(pool).map_or_else(|_| (pool.into(), None), |spec| (spec.path, spec.bytes));
        let as_set = |pools: &[String]| pools.iter().map(meant).collect::<BTreeSet<(PathBuf, Option<u64>)>>();
        if given.is_empty() || as_set(given) == as_set(&self.pools) {
            return Ok(self.pools.clone());
        }
        let says = format!(
            "install Orlop: nodes have the pools {}, not {}, and what is in them would be found no more",
            self.pools.join(" "),
            given.join(" ")
        );
        Err(Error::new(says).next(format!(
            "leave --pool out to keep them; another one beside them is an argument more of the DaemonSet: kubectl -n {} edit daemonset orlop-node",
            api::STORAGE_NAMESPACE
        )))
    }

    /// The image that the operator has, in the version of this program.
    pub(crate) fn next_image(&self) -> Result<String> {
        let what = || format!("upgrade Orlop: the operator runs {}", self.image);
        let (name, tag) = match self.image.rsplit_once(':') {
            Some((name, tag)) if !name.contains('@') && !tag.contains('/') => (name, tag),
            _ => {
                let says = format!("{}, of which the next version has no name that is known", what());
                return Err(Error::new(says).next("name it: --image REGISTRY/orlop:VERSION"));
            }
        };
        if let (Some(there), Some(here)) = (numbers(tag), numbers(env!("CARGO_PKG_VERSION")))
            && there > here
        {
            let says = format!("{}, which is newer than this program ({})", what(), env!("CARGO_PKG_VERSION"));
            return Err(Error::new(says).next("use the program of that version; --image forces another"));
        }
        Ok(format!("{name}:{}", env!("CARGO_PKG_VERSION")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_image_has_the_name_of_the_last_one() {
        let check = |image: &str, expected: Result<&str, &str>| {
            let next = present(image, &[]).next_image().map_err(|e| e.to_string());
            match expected {
                Ok(name) => assert_eq!(next, Ok(format!("{name}:{}", env!("CARGO_PKG_VERSION")))),
                Err(says) => assert!(next.as_ref().is_err_and(|e| e.contains(says)), "{next:?}"),
            }
        };
        check("orlop/orlop:0.0.9", Ok("orlop/orlop"));
        check("registry.example.com:5000/orlop:dev", Ok("registry.example.com:5000/orlop"));
        check("registry.example.com:5000/orlop", Err("no name that is known"));
        check("orlop/orlop@sha256:00ff", Err("no name that is known"));
        check("orlop/orlop:99.0.0", Err("newer than this program"));
    }

    fn present(image: &str, pools: &[&str]) -> Present {
        let pools = pools.iter().map(|pool| (*pool).to_owned()).collect();
        let image = image.to_owned();
        Present { storage: Storage::Csi, image, pools, monitoring: false, by_helm: false, has_operator: true }
    }

    #[test]
    fn an_image_that_is_not_given_is_the_one_that_is_there_unless_it_is_of_another_version() {
        let check = |there: &str, given: Option<&str>, expected: Option<&str>| {
            let same = present(there, &[]).same_image(given);
            assert_eq!(same.as_deref().ok(), expected, "{there} {given:?}: {same:?}");
        };
        let same = format!("registry.example.com:5000/orlop:{}", env!("CARGO_PKG_VERSION"));
        check(&same, None, Some(&same));
        check("orlop/orlop:dev", None, Some("orlop/orlop:dev"));
        check("registry.example.com:5000/orlop@sha256:00ff", None, Some("registry.example.com:5000/orlop@sha256:00ff"));
        check("orlop/orlop:0.0.1", None, None);
        check("orlop/orlop:99.0.0", None, None);
        check("orlop/orlop:0.0.1", Some("orlop/orlop:next"), Some("orlop/orlop:next"));
    }

    #[test]
    fn pools_that_are_there_stay_and_others_are_refused() {
        let check = |there: &[&str], given: &[&str], expected: Option<&[&str]>| {
            let given: Vec<_> = given.iter().map(|pool| (*pool).to_owned()).collect();
            let same = present("orlop/orlop:dev", there).same_pools(&given);
            assert_eq!(
                same.as_ref().ok().map(|all| all.iter().map(String::as_str).collect()),
                expected.map(<[_]>::to_vec)
            );
        };
        check(&["/dev/a", "/dev/b"], &[], Some(&["/dev/a", "/dev/b"]));
        // In the order in which they are: another one would be another version of the daemon.
        check(&["/dev/a", "/dev/b"], &["/dev/b", "/dev/a"], Some(&["/dev/a", "/dev/b"]));
        let file = "/var/lib/orlop/pool,size=100GiB";
        check(&[file], &["/var/lib/orlop/pool,size=107374182400"], Some(&[file]));
        check(&[file], &["/var/lib/orlop/pool,size=200GiB"], None);
        check(&["/dev/a"], &["/dev/b"], None);
        check(&["/dev/a", "/dev/b"], &["/dev/a"], None);
        check(&[], &["/dev/a"], Some(&["/dev/a"]));
        check(&[], &[], Some(&[]));
    }

    #[test]
    fn pools_are_those_that_the_daemon_was_given() {
        let words = ["node", "--pool=/dev/a", "--keeper=awaited", "--pool=/var/lib/orlop/b,size=1GiB"];
        assert_eq!(pools(&words), ["/dev/a", "/var/lib/orlop/b,size=1GiB"]);
    }
}
