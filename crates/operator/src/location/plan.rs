//! What to do about a location.

use std::time::Duration;

use super::gather::Gathered;
use crate::config::Limits;
use crate::repositories::{Access, LastProbe, LocationProblem};

/// What to do about a location.
#[derive(Debug)]
pub(super) enum Plan {
    /// The last probe is fresh.
    Rest {
        /// Until the next one.
        left: Duration,
    },
    /// It cannot even be tried.
    Report(LocationProblem),
    /// Try it.
    Probe {
        /// What it takes.
        access: Access,
        /// Whether a repository may be made. Not where one was found before under the same spec: that it is gone is a loss, and a new
        /// one in its place would hide it.
        create: bool,
        /// The repository that was found there before.
        expected: Option<String>,
    },
}

/// Decides. A location that cannot be used is tried more often than one that can.
pub(super) fn plan(gathered: &Gathered, limits: &Limits) -> Plan {
    let access = match &gathered.access {
        Ok(access) => access.clone(),
        Err(problem) => return Plan::Report(problem.clone()),
    };
    if let Some(left) = rest(gathered, limits) {
        return Plan::Rest { left };
    }
    let status = gathered.location.status.clone().unwrap_or_default();
    let same_spec = status.observed_generation == gathered.location.metadata.generation;
    let expected = status.repository_id.filter(|_| same_spec);
    Plan::Probe { access, create: expected.is_none(), expected }
}

fn rest(gathered: &Gathered, limits: &Limits) -> Option<Duration> {
    let LastProbe { at, ready } = gathered.last_probe?;
    let interval = if ready { limits.probe_interval } else { limits.probe_retry };
    let age = gathered.now.duration_since(at).unsigned_abs();
    interval.checked_sub(age).filter(|left| !left.is_zero())
}
