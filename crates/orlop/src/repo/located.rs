//! A repository as the `BackupLocation` of a cluster has it: where it is, and what opens it.
//!
//! Who may read the location and its Secrets may read the repository, from any machine that reaches the store. Nothing runs in the cluster for it.

use std::sync::Arc;

use api::BackupLocation;
use operator::AsLocated;
use operator::repositories::{Access, Repositories};

use super::PlaceArgs;
use crate::cluster::{Cluster, ConnectionArgs};
use crate::error::{Error, Result};

/// What names the place otherwise.
const VARIABLE: &str = "ORLOP_LOCATION";

impl PlaceArgs {
    /// The same, with what the `BackupLocation` says that it names.
    pub(super) async fn located(mut self) -> Result<Self> {
        let Some(name) = self.backup_location.clone() else { return Ok(self) };
        let said = self.location.as_ref().filter(|location| std::env::var(VARIABLE).as_ref() != Ok(*location));
        if said.is_some() || self.secret.is_said() {
            return Err(Error::usage("--backup-location says where the repository is and what opens it")
                .next("leave out --location and what opens the repository, or --backup-location"));
        }
        self.located = Some(access(&name).await?);
        Ok(self)
    }
}

async fn access(text: &str) -> Result<Access> {
    let Some((namespace, name)) = parts(text) else {
        return Err(Error::usage(format!("{text:?} is not of the form NAMESPACE/NAME")));
    };
    let what = format!("read the BackupLocation {text}");
    let cluster = Cluster::connect_to(&ConnectionArgs::default(), Some(namespace.to_owned())).await?;
    let found = cluster.api::<BackupLocation>().get(name).await.map_err(|e| cluster.explain(what.clone(), e))?;
    match Repositories::new(Arc::new(AsLocated)).access(&cluster.client(), &found).await {
        Ok(access) => access.map_err(|problem| Error::new(what).because(problem)),
        Err(operator::Error::Kube { doing, source }) => Err(cluster.explain(doing, *source)),
        Err(error) => Err(Error::new(what).because(error)),
    }
}

fn parts(text: &str) -> Option<(&str, &str)> {
    text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_named_with_its_namespace() {
        assert_eq!(parts("orlop-system/main"), Some(("orlop-system", "main")));
        for wrong in ["main", "/main", "a/", "a/b/c"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
