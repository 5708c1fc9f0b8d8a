//! Whether a location's spec can be meant.

use api::BackupLocation;

use crate::repositories::LocationProblem;

/// Finds everything that is wrong with the spec. The schema checks most of it, but not on every server.
pub(super) fn validate(location: &BackupLocation) -> Result<(), LocationProblem> {
    let wrong = location.spec.validate();
    if wrong.is_empty() { Ok(()) } else { Err(LocationProblem::InvalidSpec(wrong)) }
}
