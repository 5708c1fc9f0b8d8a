//! The control API: what a node can be asked over gRPC.

use crate::attachments::FrontEnd;
use crate::error::{Error, Kind};
use crate::node::Node;
use crate::proto::{self, node_server};
use crate::secrets::Wiped;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// Pages of a diff that wait for a client who reads slowly.
const PAGES: usize = 4;

/// Answers requests for a node.
#[derive(Clone)]
pub struct Service(Arc<Node>);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Of this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self(node)
    }

    /// Pools and devices are used with calls that wait, so none of them is made where other requests are served.
    async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&Node) -> crate::Result<T> + Send + 'static) -> Answer<T> {
        let node = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&node)).await;
        let asked = asked.map_err(|_| Status::internal("the request has panicked, which is a defect"))?;
        asked.map(Response::new).map_err(status)
    }
}

fn status(error: Error) -> Status {
    let code = match error.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::NoRoom => Code::ResourceExhausted,
        Kind::Denied => Code::PermissionDenied,
        Kind::Damaged => Code::DataLoss,
        Kind::Busy => Code::Aborted,
        Kind::Failed => Code::Internal,
    };
    Status::new(code, error.story())
}

#[tonic::async_trait]
impl node_server::Node for Service {
    async fn list_pools(&self, _: Request<proto::ListPoolsRequest>) -> Answer<proto::ListPoolsResponse> {
        self.ask(|node| Ok(proto::ListPoolsResponse { pools: node.pools() })).await
    }

    async fn grow_pool(&self, request: Request<proto::GrowPoolRequest>) -> Answer<proto::Pool> {
        let request = request.into_inner();
        self.ask(move |node| node.grow_pool(&request.name, request.bytes)).await
    }

    async fn create_volume(&self, request: Request<proto::CreateVolumeRequest>) -> Answer<proto::Volume> {
        let request = Wiped::new(request.into_inner());
        self.ask(move |node| node.create_volume(&request)).await
    }

    async fn get_volume(&self, request: Request<proto::GetVolumeRequest>) -> Answer<proto::Volume> {
        let request = request.into_inner();
        self.ask(move |node| node.get_volume(&request.name)).await
    }

    async fn list_volumes(&self, _: Request<proto::ListVolumesRequest>) -> Answer<proto::ListVolumesResponse> {
        self.ask(|node| Ok(proto::ListVolumesResponse { volumes: node.list_volumes() })).await
    }

    async fn delete_volume(&self, request: Request<proto::DeleteVolumeRequest>) -> Answer<proto::DeleteVolumeResponse> {
        let request = request.into_inner();
        let delete = move |node: &Node| node.delete_volume(&request.name, request.with_snapshots);
        self.ask(move |node| delete(node).map(|()| proto::DeleteVolumeResponse {})).await
    }

    async fn grow_volume(&self, request: Request<proto::GrowVolumeRequest>) -> Answer<proto::Volume> {
        let request = request.into_inner();
        self.ask(move |node| node.grow_volume(&request.name, request.bytes)).await
    }

    async fn set_limits(&self, request: Request<proto::SetLimitsRequest>) -> Answer<proto::Volume> {
        let request = request.into_inner();
        self.ask(move |node| node.set_limits(&request.name, request.limits.as_ref())).await
    }

    async fn set_labels(&self, request: Request<proto::SetLabelsRequest>) -> Answer<proto::Volume> {
        let request = request.into_inner();
        self.ask(move |node| node.set_labels(&request.name, &request.labels)).await
    }

    async fn rollback_volume(&self, request: Request<proto::RollbackVolumeRequest>) -> Answer<proto::Volume> {
        let request = request.into_inner();
        self.ask(move |node| node.roll_back(&request.snapshot)).await
    }

    async fn trim_volume(&self, request: Request<proto::TrimVolumeRequest>) -> Answer<proto::TrimVolumeResponse> {
        let request = Wiped::new(request.into_inner());
        let trim = move |node: &Node| node.trim(&request.name, &request.secret);
        self.ask(move |node| trim(node).map(|freed_bytes| proto::TrimVolumeResponse { freed_bytes })).await
    }

    async fn attach(&self, request: Request<proto::AttachRequest>) -> Answer<proto::Attachment> {
        let request = Wiped::new(request.into_inner());
        let front_end = match (request.front_end(), request.listen.as_str()) {
            (proto::FrontEnd::Nbd, "") => FrontEnd::Nbd,
            (proto::FrontEnd::Nbd, address) => FrontEnd::Tcp(address.parse().map_err(|_| {
                Status::invalid_argument(format!("{address:?} is no address with a port, as 127.0.0.1:10809 is"))
            })?),
            (_, "") => FrontEnd::Device,
            _ => return Err(Status::invalid_argument("a block device listens on no address; an NBD server does")),
        };
        if proto::FrontEnd::try_from(request.front_end).is_err() {
            return Err(Status::invalid_argument(format!("there is no front end {}", request.front_end)));
        }
        self.ask(move |node| node.attach(&request.name, front_end, &request.secret)).await
    }

    async fn detach(&self, request: Request<proto::DetachRequest>) -> Answer<proto::DetachResponse> {
        let request = request.into_inner();
        self.ask(move |node| node.detach(&request.name).map(|()| proto::DetachResponse {})).await
    }

    async fn create_snapshots(
        &self,
        request: Request<proto::CreateSnapshotsRequest>,
    ) -> Answer<proto::CreateSnapshotsResponse> {
        let request = request.into_inner();
        let create = move |node: &Node| node.create_snapshots(&request);
        self.ask(move |node| create(node).map(|snapshots| proto::CreateSnapshotsResponse { snapshots })).await
    }

    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Answer<proto::ListSnapshotsResponse> {
        let request = request.into_inner();
        let list = move |node: &Node| node.list_snapshots(&request.volume);
        self.ask(move |node| list(node).map(|snapshots| proto::ListSnapshotsResponse { snapshots })).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<proto::DeleteSnapshotRequest>,
    ) -> Answer<proto::DeleteSnapshotResponse> {
        let request = request.into_inner();
        let delete = move |node: &Node| node.delete_snapshot(&request.name);
        self.ask(move |node| delete(node).map(|()| proto::DeleteSnapshotResponse {})).await
    }

    async fn clone_snapshot(&self, request: Request<proto::CloneSnapshotRequest>) -> Answer<proto::Volume> {
        let request = request.into_inner();
        self.ask(move |node| node.clone_snapshot(&request)).await
    }

    type DiffStream = ReceiverStream<Result<proto::DiffResponse, Status>>;

    async fn diff(&self, request: Request<proto::DiffRequest>) -> Answer<Self::DiffStream> {
        let request = request.into_inner();
        let (sender, receiver) = mpsc::channel(PAGES);
        let node = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let tell = |ranges| {
                let page = proto::DiffResponse { ranges };
                sender
                    .blocking_send(Ok(page))
                    .map_err(|e| Error::new(Kind::Failed, "tell a client that is gone").because(e))
            };
            if let Err(error) = node.diff(&request.name, &request.since, request.start, tell) {
                // Who is gone does not hear why.
                let _heard = sender.blocking_send(Err(status(error)));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_stats(&self, request: Request<proto::GetStatsRequest>) -> Answer<proto::Stats> {
        let request = request.into_inner();
        self.ask(move |node| node.stats(&request.name)).await
    }

    async fn change_secret(&self, request: Request<proto::ChangeSecretRequest>) -> Answer<proto::ChangeSecretResponse> {
        let request = Wiped::new(request.into_inner());
        let change = move |node: &Node| node.change_secret(&request.name, &request.old_secret, &request.new_secret);
        self.ask(move |node| change(node).map(|()| proto::ChangeSecretResponse {})).await
    }

    async fn destroy_key(&self, request: Request<proto::DestroyKeyRequest>) -> Answer<proto::DestroyKeyResponse> {
        let request = request.into_inner();
        self.ask(move |node| node.destroy_key(&request.name).map(|()| proto::DestroyKeyResponse {})).await
    }
}
