//! A volume grows, and is filled by its file system, while it is used.
//!
//! The volume itself grows here, too, should nobody have asked its controller for that: where each node has a controller of its own, there is none that
//! knows all volumes, so an orchestrator asks the node that has the volume, and no other (see `controller::CAN`).

use super::publish::is_block;
use super::stage::GAP;
use crate::busy;
use crate::capability::Usage;
use crate::check;
use crate::driver::Driver;
use crate::host::Content;
use crate::proto;
use crate::size::Wanted;
use tonic::Status;

impl Driver {
    pub(super) fn expand_here(
        &self,
        request: &proto::NodeExpandVolumeRequest,
    ) -> Result<proto::NodeExpandVolumeResponse, Status> {
        let id = &request.volume_id;
        check::id("volume_id", id)?;
        check::map("secrets", &request.secrets)?;
        let at = check::any_path("volume_path", &request.volume_path)?;
        if !request.staging_target_path.is_empty() {
            check::path("staging_target_path", &request.staging_target_path)?;
        }
        let usage = request.volume_capability.as_ref().map(|capability| Usage::new(Some(capability))).transpose()?;
        let wanted = Wanted::new(request.capacity_range.as_ref())?;
        let _held = self.busy.hold([busy::volume(id)])?;
        let found = self.found(id, &at)?;
        if usage.is_some_and(|usage| is_block(&usage) != is_block(&found.staged.usage)) {
            let what = format!("volume_capability says that {id} is used otherwise than it is staged");
            return Err(Status::invalid_argument(what));
        }
        let bytes = self.larger(&found.volume, wanted)?;
        // Also when it has the size: the kernel may not have been told of it.
        self.volumes.grow(id, bytes)?;
        let info = self.host.device(&found.device)?;
        if !is_block(&found.staged.usage)
            && let Content::Known(fs, bytes) = self.host.probe(&found.device)?
            && bytes.saturating_add(GAP) < info.bytes
            && !found.staged.usage.is_read_only()
        {
            if !self.host.grows_mounted(fs) {
                let what = format!(
                    "{fs} grows while it is mounted only for a process with CAP_SYS_RESOURCE, which this node has not; let it run privileged, or stop the pods \
                     that use {id}: it grows when it is staged next"
                );
                return Err(Status::failed_precondition(what));
            }
            self.host.grow(fs, &found.device, &at)?;
        }
        let capacity_bytes = i64::try_from(info.bytes).unwrap_or(i64::MAX);
        Ok(proto::NodeExpandVolumeResponse { capacity_bytes })
    }
}
