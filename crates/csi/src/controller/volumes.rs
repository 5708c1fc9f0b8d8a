//! Volumes that are there: deleted, grown, limited, told of.

use super::create::in_use;
use crate::busy;
use crate::capability::{Access, Usage};
use crate::check;
use crate::driver::Driver;
use crate::parameters;
use crate::proto;
use crate::size::Wanted;
use crate::volumes::Volume;
use std::collections::HashMap;
use tonic::Status;

impl Driver {
    pub(super) fn delete_volume(
        &self,
        request: &proto::DeleteVolumeRequest,
    ) -> Result<proto::DeleteVolumeResponse, Status> {
        check::id("volume_id", &request.volume_id)?;
        check::map("secrets", &request.secrets)?;
        let _held = self.busy.hold([busy::volume(&request.volume_id)])?;
        if self.volumes.find(&request.volume_id)?.is_some() {
            self.volumes.delete(&request.volume_id).map_err(in_use)?;
        }
        Ok(proto::DeleteVolumeResponse {})
    }

    pub(super) fn expand(
        &self,
        request: &proto::ControllerExpandVolumeRequest,
    ) -> Result<proto::ControllerExpandVolumeResponse, Status> {
        let id = &request.volume_id;
        check::id("volume_id", id)?;
        check::map("secrets", &request.secrets)?;
        let usage = request.volume_capability.as_ref().map(|capability| Usage::new(Some(capability))).transpose()?;
        let wanted = Wanted::new(request.capacity_range.as_ref())?;
        if !wanted.is_said() {
            return Err(Status::invalid_argument("capacity_range is missing"));
        }
        let _held = self.busy.hold([busy::volume(id)])?;
        let volume = self.volume(id)?;
        let bytes = self.larger(&volume, wanted)?;
        // Also when it has the size: the kernel may not have been told of it.
        let volume = self.volumes.grow(id, bytes)?;
        let node_expansion_required = usage.is_none_or(|usage| usage.access != Access::Block);
        Ok(proto::ControllerExpandVolumeResponse { capacity_bytes: signed(volume.bytes), node_expansion_required })
    }

    /// The size that a volume is to grow to; its own, if that is enough.
    pub(crate) fn larger(&self, volume: &Volume, wanted: Wanted) -> Result<u64, Status> {
        let bytes = wanted.size(volume.bytes, ", as many as it has already")?;
        match self.too_large(bytes, volume.replicas)?.filter(|_| bytes > volume.bytes) {
            Some(refused) => Err(Status::out_of_range(refused)),
            None => Ok(bytes),
        }
    }

    pub(super) fn modify(
        &self,
        request: &proto::ControllerModifyVolumeRequest,
    ) -> Result<proto::ControllerModifyVolumeResponse, Status> {
        check::id("volume_id", &request.volume_id)?;
        check::map("secrets", &request.secrets)?;
        check::map("mutable_parameters", &request.mutable_parameters)?;
        let _held = self.busy.hold([busy::volume(&request.volume_id)])?;
        let volume = self.volume(&request.volume_id)?;
        let limits = parameters::change(volume.limits, &request.mutable_parameters)?;
        if limits != volume.limits {
            self.volumes.limit(&volume.id, limits)?;
        }
        Ok(proto::ControllerModifyVolumeResponse {})
    }

    pub(super) fn get_volume(
        &self,
        request: &proto::ControllerGetVolumeRequest,
    ) -> Result<proto::ControllerGetVolumeResponse, Status> {
        use proto::controller_get_volume_response::VolumeStatus;
        check::id("volume_id", &request.volume_id)?;
        let volume = self.volume(&request.volume_id)?;
        let status = VolumeStatus { published_node_ids: Vec::new(), volume_condition: Some(condition(&volume)) };
        Ok(proto::ControllerGetVolumeResponse { volume: Some(self.told_volume(&volume)), status: Some(status) })
    }

    /// A volume as the protocol has it.
    pub(super) fn told_volume(&self, volume: &Volume) -> proto::Volume {
        proto::Volume {
            capacity_bytes: signed(volume.bytes),
            volume_id: volume.id.clone(),
            volume_context: HashMap::new(),
            content_source: super::list::source(volume),
            // No place is named for what can be used on every node.
            accessible_topology: if volume.replicas > 1 { Vec::new() } else { vec![self.topology()] },
        }
    }
}

/// Whether something is wrong with it.
pub(crate) fn condition(volume: &Volume) -> proto::VolumeCondition {
    match &volume.trouble {
        Some(trouble) => proto::VolumeCondition { abnormal: true, message: trouble.clone() },
        None => proto::VolumeCondition { abnormal: false, message: "all is well".to_owned() },
    }
}

/// Bytes as the protocol has them: sizes of volumes are far below its bound.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
