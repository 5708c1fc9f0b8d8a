//! Probing a location.

use std::time::Duration;

use api::BackupLocation;
use jiff::Timestamp;
use repository::{RecoveryPoint, RetryPolicy, Source};

use super::plan::Plan;
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::repositories::{Access, LocationProblem};

/// What was found out.
#[derive(Debug)]
pub(super) enum Applied {
    /// Nothing new.
    Rested {
        /// Until the next probe.
        left: Duration,
    },
    /// It could not be tried.
    NotTried(LocationProblem),
    /// It was tried.
    Probed(Result<Found, LocationProblem>),
}

/// What a probe that got through found.
#[derive(Debug)]
pub(super) struct Found {
    /// Identity of the repository.
    pub repository_id: String,
    /// How many recovery points there are.
    pub points: u64,
    /// Recovery points whose documents cannot be read.
    pub unreadable: Vec<String>,
    /// The store refuses to create what exists, so that several may write.
    pub conditional_create: bool,
    /// Our credentials may delete.
    pub delete: bool,
}

/// Does what is planned.
pub(super) async fn apply(context: &Context, location: &BackupLocation, plan: Plan) -> Result<Applied, Error> {
    let (access, create, expected) = match plan {
        Plan::Rest { left } => return Ok(Applied::Rested { left }),
        Plan::Report(problem) => return Ok(Applied::NotTried(problem)),
        Plan::Probe { access, create, expected } => (access, create, expected),
    };
    let limit = context.limits().probe_timeout;
    let result = match tokio::time::timeout(limit, probe(context, &access, create, expected)).await {
        Ok(result) => result,
        Err(_) => Err(LocationProblem::TooSlow { place: location.spec.path.clone(), seconds: limit.as_secs() }),
    };
    if result.is_err() {
        context.repositories.forget(&objects::uid(location)?);
    }
    context.repositories.probed(&access, Timestamp::now(), result.is_ok());
    Ok(Applied::Probed(result))
}

async fn probe(
    context: &Context,
    access: &Access,
    create: bool,
    expected: Option<String>,
) -> Result<Found, LocationProblem> {
    let features = context.repositories.store(access, RetryPolicy::brief())?.probe().await?;
    let repository = context.repositories.reopen(access, create).await?.repository;
    let repository_id = repository.id().to_string();
    if let Some(expected) = expected.filter(|expected| *expected != repository_id) {
        return Err(LocationProblem::OtherRepository { expected, found: repository_id });
    }
    let entries = repository.points().await?;
    let mut found = Found {
        repository_id,
        points: entries.len() as u64,
        unreadable: Vec::new(),
        conditional_create: features.conditional_create,
        delete: features.delete,
    };
    for entry in entries {
        match entry.point {
            Ok(point) => count_good(context, &point),
            Err(_) => found.unreadable.push(entry.id.to_string()),
        }
    }
    Ok(found)
}

/// Tells the metrics of a good recovery point of this cluster, so that their ages are right after a restart too.
fn count_good(context: &Context, point: &RecoveryPoint) {
    let Source::Application { cluster_id, namespaces, .. } = &point.source else { return };
    if point.complete && *cluster_id == context.cluster_id {
        for namespace in namespaces {
            context.metrics.good_point(namespace, point.created);
        }
    }
}
