//! All volumes in pages, and how much there is for more.

use super::volumes::{condition, signed};
use crate::capability::Usage;
use crate::check;
use crate::driver::Driver;
use crate::host::FileSystem;
use crate::names::labels;
use crate::parameters::Parameters;
use crate::proto::{self, volume_content_source as source};
use crate::token;
use crate::volumes::Volume;
use std::collections::HashMap;
use tonic::Status;

impl Driver {
    pub(super) fn list_volumes(
        &self,
        request: &proto::ListVolumesRequest,
    ) -> Result<proto::ListVolumesResponse, Status> {
        use proto::list_volumes_response::{Entry, VolumeStatus};
        let all = self.volumes.list()?;
        let (page, next_token) = token::page(all, |volume| &volume.id, request.max_entries, &request.starting_token)?;
        let entry = |volume: &Volume| Entry {
            volume: Some(self.told_volume(volume)),
            status: Some(VolumeStatus { published_node_ids: Vec::new(), volume_condition: Some(condition(volume)) }),
        };
        Ok(proto::ListVolumesResponse { entries: page.iter().map(entry).collect(), next_token })
    }

    /// Volumes are thin, so what is free is no bound for their sizes, but for what can be written to all of them.
    pub(super) fn capacity(&self, request: &proto::GetCapacityRequest) -> Result<proto::GetCapacityResponse, Status> {
        check::map("parameters", &request.parameters)?;
        let parameters = Parameters::new(&request.parameters, &HashMap::new())?;
        let usages: Vec<Usage> =
            request.volume_capabilities.iter().map(|one| Usage::new(Some(one))).collect::<Result<_, _>>()?;
        if request.accessible_topology.as_ref().is_some_and(|topology| !self.is_here(topology)) {
            return Ok(proto::GetCapacityResponse {
                available_capacity: 0,
                maximum_volume_size: Some(0),
                minimum_volume_size: None,
            });
        }
        let capacity = self.volumes.capacity(parameters.replicas)?;
        let fs = parameters.fs.or_else(|| usages.iter().find_map(Usage::fs));
        Ok(proto::GetCapacityResponse {
            available_capacity: signed(capacity.free),
            maximum_volume_size: Some(signed(capacity.largest)),
            minimum_volume_size: Some(signed(fs.map_or(4096, FileSystem::least))),
        })
    }
}

/// What a volume was made from, as it is noted.
pub(super) fn source(volume: &Volume) -> Option<proto::VolumeContentSource> {
    let (kind, id) = volume.labels.get(labels::SOURCE)?.split_once(' ')?;
    let id = id.to_owned();
    let source = match kind {
        "snapshot" => source::Type::Snapshot(source::SnapshotSource { snapshot_id: id }),
        _ => source::Type::Volume(source::VolumeSource { volume_id: id }),
    };
    Some(proto::VolumeContentSource { r#type: Some(source) })
}
