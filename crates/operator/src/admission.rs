//! Which of several runs that make objects in one namespace goes first.

use std::collections::BTreeSet;

use api::{ApplicationClone, ApplicationRestore, CloneStage, Phase, RestoreStage};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::error::{During, Error};
use crate::objects::{self, Object};

/// What runs are ordered by: since when one exists, and its uid. The older goes first.
pub(crate) type Age = (Timestamp, String);

/// Another run that is not over.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    /// What it is, with its namespace and name.
    pub(crate) name: String,
    pub(crate) age: Age,
    /// It is past its preparation.
    pub(crate) begun: bool,
    /// Namespaces it makes objects in, as far as it knows.
    pub(crate) namespaces: BTreeSet<String>,
}

pub(crate) fn age<K: Object>(run: &K) -> Age {
    let created = run.meta().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    (created, run.meta().uid.clone().unwrap_or_default())
}

/// For which other run one waits that makes objects in `ours`, in words.
pub(crate) fn first_of(others: &[Other], age: &Age, ours: &BTreeSet<String>) -> Option<String> {
    let first = others.iter().find(|o| (o.begun || o.age < *age) && !o.namespaces.is_disjoint(ours))?;
    let shared: Vec<&str> = first.namespaces.intersection(ours).map(String::as_str).collect();
    Some(format!("waits for the {}, which goes to {} too, to end", first.name, shared.join(", ")))
}

/// The other runs that make objects.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn others<K: Object>(client: &Client, run: &K) -> Result<Vec<Other>, Error> {
    let own = run.meta().uid.as_ref();
    let is_other = |uid: &Option<String>| uid.as_ref() != own;
    let restores = Api::<ApplicationRestore>::all(client.clone()).list(&ListParams::default()).await;
    let restores = restores.during(|| "list the restores".into())?.items;
    let clones = Api::<ApplicationClone>::namespaced(client.clone(), api::ADMIN_NAMESPACE);
    let clones = clones.list(&ListParams::default()).await.during(|| "list the clones".into())?.items;
    let restores = restores.iter().filter(|other| is_other(&other.metadata.uid)).filter_map(restore);
    Ok(restores.chain(clones.iter().filter(|other| is_other(&other.metadata.uid)).filter_map(clone)).collect())
}

/// Another restore; none if it is over. Where one goes that is not the administrators' is known, whatever it says: so it keeps nobody waiting elsewhere.
fn restore(restore: &ApplicationRestore) -> Option<Other> {
    let status = restore.status.clone().unwrap_or_default();
    let may_go = |namespace: &String| objects::scope(restore).is_none_or(|own| namespace == own);
    (!status.phase.is_final()).then(|| Other {
        name: name("restore", restore),
        age: age(restore),
        begun: status.stage > RestoreStage::Preparing && status.phase == Phase::Running,
        namespaces: status.namespaces.into_iter().filter(may_go).collect(),
    })
}

fn clone(clone: &ApplicationClone) -> Option<Other> {
    let status = clone.status.clone().unwrap_or_default();
    (!status.phase.is_final()).then(|| Other {
        name: name("clone", clone),
        age: age(clone),
        begun: status.stage > CloneStage::Preparing,
        namespaces: BTreeSet::from([clone.spec.destination_namespace.clone()]),
    })
}

fn name<K: Object>(noun: &str, run: &K) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{noun} {}/{}", of(&run.meta().namespace), of(&run.meta().name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_restore(own: &str, status: api::ApplicationRestoreStatus) -> ApplicationRestore {
        let mut run = ApplicationRestore::new("r", api::ApplicationRestoreSpec::default());
        (run.metadata.namespace, run.status) = (Some(own.into()), Some(status));
        run
    }

    #[test]
    fn a_restore_says_only_of_its_own_namespace_that_it_goes_there() {
        let goes = |own: &str| {
            let namespaces = vec![own.to_owned(), "victim".into()];
            let status = api::ApplicationRestoreStatus { namespaces, ..Default::default() };
            let other = restore(&a_restore(own, status));
            other.expect("it is not over").namespaces.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(goes("tenant"), ["tenant"]);
        assert_eq!(goes(api::ADMIN_NAMESPACE), [api::ADMIN_NAMESPACE, "victim"]);
    }

    #[test]
    fn a_run_that_is_over_is_in_nobodys_way() {
        let with = |phase, stage| {
            let status = api::ApplicationRestoreStatus { phase, stage, ..Default::default() };
            restore(&a_restore("shop", status)).map(|o| o.begun)
        };
        assert_eq!(with(Phase::Succeeded, RestoreStage::Done), None);
        assert_eq!(with(Phase::Pending, RestoreStage::Preparing), Some(false));
        assert_eq!(with(Phase::Running, RestoreStage::Volumes), Some(true));
        let with = |phase, stage| {
            let spec = api::ApplicationCloneSpec { destination_namespace: "copy".into(), ..Default::default() };
            let mut run = ApplicationClone::new("c", spec);
            run.status = Some(api::ApplicationCloneStatus { phase, stage, ..Default::default() });
            clone(&run).map(|other| (other.begun, other.namespaces.contains("copy")))
        };
        assert_eq!(with(Phase::Failed, CloneStage::Done), None);
        assert_eq!(with(Phase::Pending, CloneStage::Preparing), Some((false, true)));
        assert_eq!(with(Phase::Running, CloneStage::Volumes), Some((true, true)));
    }
}
