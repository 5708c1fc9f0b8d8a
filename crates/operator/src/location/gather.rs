//! What is known of a location before anything is done about it.

use api::BackupLocation;
use jiff::Timestamp;
use kube::ResourceExt;

use super::validate::validate;
use crate::context::Context;
use crate::error::Error;
use crate::objects;
use crate::repositories::{Access, LastProbe, LocationProblem};

/// What is known of a location.
pub(super) struct Gathered {
    /// As it is now.
    pub location: BackupLocation,
    /// What it takes to open it, or why that is not known.
    pub access: Result<Access, LocationProblem>,
    /// How the last probe of just this spec and these Secrets by this process went.
    pub last_probe: Option<LastProbe>,
    /// Now.
    pub now: Timestamp,
}

/// Reads the location and its Secrets; nothing if it is gone, or about to be.
pub(super) async fn gather(context: &Context, cached: &BackupLocation) -> Result<Option<Gathered>, Error> {
    let namespace = cached.namespace().unwrap_or_default();
    let Some(location) = objects::read::<BackupLocation>(&context.client, &namespace, &cached.name_any()).await? else {
        return Ok(None);
    };
    if location.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let access = match validate(&location) {
        Ok(()) => context.repositories.access(&context.client, &location).await?,
        Err(problem) => Err(problem),
    };
    let last_probe = access.as_ref().ok().and_then(|access| context.repositories.last_probe(access));
    Ok(Some(Gathered { location, access, last_probe, now: Timestamp::now() }))
}
