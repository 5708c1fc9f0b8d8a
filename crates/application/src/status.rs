//! Writing the status of an object back that a run has made.
//!
//! A status is the word of a controller, and a controller that runs may have written a newer one by then. So it is written once for each object: who
//! wrote it is noted among the managers of the object's fields, by the server and with the status itself.

use kube::api::PatchParams;
use serde_json::Value;

use crate::absent::absent_fields;
use crate::apply::Applier;
use crate::failure::Failure;
use crate::json;
use crate::key::ObjectKey;

/// The field manager of statuses that a restore writes.
const STATUS_MANAGER: &str = "orlop-restore-status";

/// How the writing of a status ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusWritten {
    /// It is written; without these fields, which this cluster does not know.
    Written(Vec<String>),
    /// The kind has no status that could be written by itself.
    NoSubresource,
}

impl Applier {
    /// Writes the status of an object that this run has made, unless it has done so before.
    ///
    /// # Errors
    /// The server did not answer, or does not take it.
    pub async fn write_status(&self, key: &ObjectKey, status: &Value) -> Result<StatusWritten, Failure> {
        self.access.patience.request(|| self.status_once(key, status)).await
    }

    async fn status_once(&self, key: &ObjectKey, status: &Value) -> Result<StatusWritten, Failure> {
        let spot = self.spot(key).await?;
        let Some(object) = self.access.look(&spot.path, &key.name).await? else {
            return Err(Failure::lasting("it is gone: somebody deleted it after it was made"));
        };
        let managers = json::list(&object, &["metadata", "managedFields"]);
        if managers.iter().any(|entry| json::text(entry, &["manager"]) == STATUS_MANAGER) {
            return Ok(StatusWritten::Written(Vec::new()));
        }
        let params = PatchParams { field_manager: Some(STATUS_MANAGER.into()), ..PatchParams::default() };
        match self.access.put_status(&spot.path, &key.name, &params, status).await {
            // The object itself was there a moment ago.
            Err(failure) if failure.is_not_found() => Ok(StatusWritten::NoSubresource),
            Ok(answer) => {
                let written = json::at(&answer, &["status"]).cloned().unwrap_or_default();
                Ok(StatusWritten::Written(absent_fields(status, &written)))
            }
            Err(failure) => Err(failure),
        }
    }
}
