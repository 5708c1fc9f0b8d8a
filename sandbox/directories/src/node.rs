//! Volumes are mounted where pods see them, and taken away again.

use crate::proto::{self, node_server::Node};
use crate::service::{Answer, Driver, Service, is_possible};
use crate::store::{Kind, failed};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Node for Service {
    async fn node_get_info(&self, _: Request<proto::NodeGetInfoRequest>) -> Answer<proto::NodeGetInfoResponse> {
        Ok(Response::new(proto::NodeGetInfoResponse {
            node_id: self.driver().node.clone(),
            accessible_topology: Some(self.driver().topology()),
            ..proto::NodeGetInfoResponse::default()
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<proto::NodeGetCapabilitiesRequest>,
    ) -> Answer<proto::NodeGetCapabilitiesResponse> {
        // No more than every node can.
        Ok(Response::new(proto::NodeGetCapabilitiesResponse { capabilities: Vec::new() }))
    }

    async fn node_publish_volume(
        &self,
        request: Request<proto::NodePublishVolumeRequest>,
    ) -> Answer<proto::NodePublishVolumeResponse> {
        let request = request.into_inner();
        self.ask(move |driver| driver.publish(&request)).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<proto::NodeUnpublishVolumeRequest>,
    ) -> Answer<proto::NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.ask(move |driver| driver.unpublish(&request)).await
    }
}

impl Driver {
    fn publish(&self, request: &proto::NodePublishVolumeRequest) -> Result<proto::NodePublishVolumeResponse, Status> {
        is_possible(request.volume_capability.as_slice()).map_err(Status::invalid_argument)?;
        let target = place(&request.target_path)?;
        if self.store.about(Kind::Volume, &request.volume_id)?.is_none() {
            return Err(Status::not_found(format!("there is no volume {} on {}", request.volume_id, self.node)));
        }
        let data = self.store.data(Kind::Volume, &request.volume_id);
        let _turn = self.store.turn();
        let publish = || {
            match fs::create_dir(target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if !is_same(&data, target)? {
                mount_bind(&data, target)?;
            }
            if request.readonly {
                mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "")?;
            }
            Ok(())
        };
        publish().map_err(failed(target))?;
        Ok(proto::NodePublishVolumeResponse {})
    }

    fn unpublish(
        &self,
        request: &proto::NodeUnpublishVolumeRequest,
    ) -> Result<proto::NodeUnpublishVolumeResponse, Status> {
        let target = place(&request.target_path)?;
        let _turn = self.store.turn();
        let unpublish = || {
            match unmount(target, UnmountFlags::NOFOLLOW) {
                // Nothing is mounted there, or there is nothing at all.
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            match fs::remove_dir(target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        };
        unpublish().map_err(failed(target))?;
        Ok(proto::NodeUnpublishVolumeResponse {})
    }
}

fn place(target: &str) -> Result<&Path, Status> {
    let path = Path::new(target);
    if path.is_absolute() { Ok(path) } else { Err(Status::invalid_argument(format!("{target:?} is no whole path"))) }
}

/// Whether two paths lead to one directory.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    Ok(identity(one)? == identity(other)?)
}
