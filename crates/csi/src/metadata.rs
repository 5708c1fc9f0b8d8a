//! Which bytes of a snapshot are data, and which have changed since an older one: what a backup has to read.

use crate::check;
use crate::controller::told_snapshot;
use crate::driver::{Driver, Service};
use crate::proto::{self, snapshot_metadata_server::SnapshotMetadata};
use crate::volumes::{Error, Kind, Range, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Ranges in a message, if nobody wants fewer: some 100 KB.
const PAGE: usize = 4096;
/// Messages that wait for a client who reads slowly.
const WAITING: usize = 4;
/// Ranges begin at whole blocks.
const BLOCK: u64 = 4096;

type Pages<T> = ReceiverStream<Result<T, Status>>;

/// What is asked, whichever of the two it is.
struct Asked {
    of: String,
    since: Option<String>,
    start: i64,
    most: i32,
}

#[tonic::async_trait]
impl SnapshotMetadata for Service {
    type GetMetadataAllocatedStream = Pages<proto::GetMetadataAllocatedResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<proto::GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let request = request.into_inner();
        let asked =
            Asked { of: request.snapshot_id, since: None, start: request.starting_offset, most: request.max_results };
        let page = |capacity, block_metadata| proto::GetMetadataAllocatedResponse {
            block_metadata_type: proto::BlockMetadataType::VariableLength.into(),
            volume_capacity_bytes: capacity,
            block_metadata,
        };
        self.tell(asked, request.secrets, page).await
    }

    type GetMetadataDeltaStream = Pages<proto::GetMetadataDeltaResponse>;

    async fn get_metadata_delta(
        &self,
        request: Request<proto::GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let request = request.into_inner();
        let asked = Asked {
            of: request.target_snapshot_id,
            since: Some(request.base_snapshot_id),
            start: request.starting_offset,
            most: request.max_results,
        };
        let page = |capacity, block_metadata| proto::GetMetadataDeltaResponse {
            block_metadata_type: proto::BlockMetadataType::VariableLength.into(),
            volume_capacity_bytes: capacity,
            block_metadata,
        };
        self.tell(asked, request.secrets, page).await
    }
}

impl Service {
    async fn tell<T: Send + 'static>(
        &self,
        asked: Asked,
        secrets: HashMap<String, String>,
        page: impl Fn(i64, Vec<proto::BlockMetadata>) -> T + Send + 'static,
    ) -> Result<Response<Pages<T>>, Status> {
        check::map("secrets", &secrets)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let driver: Arc<Driver> = self.0.clone();
        let (of, start, most, asked) = self
            .ask("GetMetadata", move |driver| {
                let (of, start, most) = driver.checked(&asked)?;
                Ok((of, start, most, asked))
            })
            .await?
            .into_inner();
        tokio::task::spawn_blocking(move || {
            let capacity = told_snapshot(&of).size_bytes;
            let told = driver.stream(&asked, start, most, &sender, |ranges| page(capacity, ranges));
            if let Err(status) = told {
                tracing::warn!(snapshot = asked.of, error = status.message(), "its changes were not told");
                // Who is gone does not hear why.
                let _heard = sender.blocking_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Driver {
    fn checked(&self, asked: &Asked) -> Result<(Snapshot, u64, usize), Status> {
        check::id("snapshot_id", &asked.of)?;
        let of = self.snapshot(&asked.of)?;
        if let Some(since) = &asked.since {
            check::id("base_snapshot_id", since)?;
            self.snapshot(since)?;
        }
        let most = match usize::try_from(asked.most) {
            Ok(0) => PAGE,
            Ok(most) => most.min(PAGE),
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "max_results is {}, and must not be negative",
                    asked.most
                )));
            }
        };
        let start = u64::try_from(asked.start).ok().filter(|start| *start <= of.bytes).ok_or_else(|| {
            Status::out_of_range(format!("starting_offset is {}, and the snapshot has {} bytes", asked.start, of.bytes))
        })?;
        Ok((of, start, most))
    }

    fn stream<T>(
        &self,
        asked: &Asked,
        start: u64,
        most: usize,
        to: &Sender<Result<T, Status>>,
        page: impl Fn(Vec<proto::BlockMetadata>) -> T,
    ) -> Result<(), Status> {
        let mut is_told = false;
        let mut waiting: Vec<proto::BlockMetadata> = Vec::new();
        let first = start / BLOCK * BLOCK;
        let mut tell = |ranges: Vec<Range>| {
            waiting.extend(ranges.into_iter().filter_map(|range| told(range, first)));
            while waiting.len() >= most {
                let rest = waiting.split_off(most);
                let full = std::mem::replace(&mut waiting, rest);
                is_told = true;
                if to.blocking_send(Ok(page(full))).is_err() {
                    return false;
                }
            }
            true
        };
        let since = asked.since.as_deref();
        self.volumes.ranges(&asked.of, since, start, &mut tell).map_err(|error| unrelated(error, asked))?;
        // At least one message, since it tells the size.
        if !waiting.is_empty() || !is_told {
            let _heard = to.blocking_send(Ok(page(waiting)));
        }
        Ok(())
    }
}

/// Both snapshots are there: what is not found is a way from the one to the other.
fn unrelated(error: Error, asked: &Asked) -> Status {
    match (error.kind, &asked.since) {
        (Kind::NotFound | Kind::Precondition | Kind::Invalid, Some(since)) => Status::invalid_argument(format!(
            "it cannot be told what has changed in {} since {since}; read all of it: {}",
            asked.of, error.story
        )),
        _ => error.into(),
    }
}

fn told(range: Range, first: u64) -> Option<proto::BlockMetadata> {
    let begin = range.offset.max(first);
    let size = (range.offset + range.length).checked_sub(begin).filter(|size| *size > 0)?;
    Some(proto::BlockMetadata { byte_offset: i64::try_from(begin).ok()?, size_bytes: i64::try_from(size).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    /// Who is told the first reads all of it, and who is told the second asks again.
    #[test]
    fn what_cannot_be_compared_is_told_from_what_cannot_be_told_now() {
        let code = |kind, since: Option<&str>| {
            let asked = Asked { of: "a@two".into(), since: since.map(str::to_owned), start: 0, most: 0 };
            let status = unrelated(Error { kind, story: "the story".into() }, &asked);
            assert!(status.message().contains("the story"), "{status}");
            assert_eq!(status.message().contains("read all of it"), status.code() == Code::InvalidArgument, "{status}");
            status.code()
        };
        for kind in [Kind::NotFound, Kind::Precondition, Kind::Invalid] {
            assert_eq!(code(kind, Some("a@one")), Code::InvalidArgument);
        }
        assert_eq!(code(Kind::Busy, Some("a@one")), Code::Aborted);
        assert_eq!(code(Kind::Damaged, Some("a@one")), Code::DataLoss);
        assert_eq!(code(Kind::NotFound, None), Code::NotFound, "it was deleted meanwhile");
        assert_eq!(code(Kind::Busy, None), Code::Aborted);
    }
}
