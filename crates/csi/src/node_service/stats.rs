//! How full a volume is, and whether it is well.

use super::publish::is_block;
use super::table::There;
use crate::check;
use crate::driver::Driver;
use crate::host::DeviceInfo;
use crate::ledger::Staged;
use crate::proto::{self, VolumeUsage, volume_usage::Unit};
use crate::volumes::Volume;
use std::path::{Path, PathBuf};
use tonic::Status;

/// A volume in a place of this node.
pub(super) struct Found {
    pub(super) volume: Volume,
    pub(super) staged: Staged,
    pub(super) device: PathBuf,
    pub(super) info: DeviceInfo,
}

impl Driver {
    pub(super) fn stats(
        &self,
        request: &proto::NodeGetVolumeStatsRequest,
    ) -> Result<proto::NodeGetVolumeStatsResponse, Status> {
        check::id("volume_id", &request.volume_id)?;
        let at = check::any_path("volume_path", &request.volume_path)?;
        if !request.staging_target_path.is_empty() {
            check::path("staging_target_path", &request.staging_target_path)?;
        }
        let found = self.found(&request.volume_id, &at)?;
        let usage = if is_block(&found.staged.usage) {
            vec![used(Unit::Bytes, (found.info.bytes, 0, 0))]
        } else {
            let room = self.host.room(&at)?;
            vec![used(Unit::Bytes, room.bytes), used(Unit::Inodes, room.files)]
        };
        let condition = match &found.volume.trouble {
            Some(trouble) => proto::VolumeCondition { abnormal: true, message: trouble.clone() },
            None => proto::VolumeCondition { abnormal: false, message: "all is well".to_owned() },
        };
        Ok(proto::NodeGetVolumeStatsResponse { usage, volume_condition: Some(condition) })
    }

    /// The volume, if it is staged or published in that place.
    pub(super) fn found(&self, id: &str, at: &Path) -> Result<Found, Status> {
        let volume = self.volume(id)?;
        let elsewhere =
            || Status::not_found(format!("the volume {id} is neither staged nor published on {}", at.display()));
        check::path("volume_path", &at.to_string_lossy()).map_err(|_| elsewhere())?;
        let staged = self.ledger().get(id).ok_or_else(elsewhere)?;
        let device = volume.device.clone().ok_or_else(elsewhere)?;
        let info = self.host.device(&device)?;
        let is_there = matches!(self.there(at, Some(info.number))?, There::Volume(_));
        let is_staged_device = is_block(&staged.usage) && staged.at == at;
        if !is_there && !is_staged_device {
            return Err(elsewhere());
        }
        Ok(Found { volume, staged, device, info })
    }
}

fn used(unit: Unit, (total, used, available): (u64, u64, u64)) -> VolumeUsage {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    VolumeUsage { unit: unit.into(), total: signed(total), used: signed(used), available: signed(available) }
}
