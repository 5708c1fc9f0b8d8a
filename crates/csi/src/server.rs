//! The socket that the driver answers on.

use crate::driver::{Driver, Service};
use crate::kubelet::Mended;
use crate::proto::controller_server::ControllerServer;
use crate::proto::group_controller_server::GroupControllerServer;
use crate::proto::identity_server::IdentityServer;
use crate::proto::node_server::NodeServer;
use crate::proto::snapshot_metadata_server::SnapshotMetadataServer;
use crate::registration::register;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// The longest request: the specification bounds all that is in one, and this is a hundred times of it.
pub(crate) const MOST_REQUEST: usize = 1 << 20;
/// The longest path of a socket that Linux takes.
const MOST_PATH: usize = 107;

/// Where a driver answers: `unix:///path/to/csi.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

impl Endpoint {
    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Listens there; whoever asks from then on is answered when it is served.
    ///
    /// # Errors
    ///
    /// If another process answers there, or the system does not let it.
    pub async fn listen(self) -> Result<Listening, ServeError> {
        let listener = listen(&self.0).await?;
        Ok(Listening { endpoint: self, listener })
    }
}

/// A socket that is listened on.
pub struct Listening {
    endpoint: Endpoint,
    listener: UnixListener,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(format!("{text:?} is no endpoint, which is unix:///path/to/csi.sock"));
        }
        if path.len() > MOST_PATH {
            return Err(format!("the path of the socket has {} bytes, and {MOST_PATH} are the most", path.len()));
        }
        Ok(Self(path.into()))
    }
}

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process does.
    #[error("a process answers on {} already; stop it first", .0.display())]
    InUse(PathBuf),
    /// The system said no.
    #[error("{action} {}", path.display())]
    System {
        /// What was to be done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The protocol.
    #[error("speak gRPC on {}", path.display())]
    Grpc {
        /// Where.
        path: PathBuf,
        /// What was said.
        source: tonic::transport::Error,
    },
}

/// Answers on a socket until `stop`; what was asked by then is answered. The kubelet whose folder is given is told of it when it answers.
///
/// # Errors
///
/// If the socket breaks, or the kubelet cannot be told.
pub async fn serve(
    driver: Arc<Driver>,
    socket: Listening,
    kubelet: Option<&Path>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let Listening { endpoint, listener } = socket;
    tracing::info!(socket = %endpoint.path().display(), node = driver.node, "CSI is served");
    // Whichever ends first ends the other.
    let answered = async {
        let answered = answer(driver, endpoint.path(), listener, stop.clone()).await;
        stop.cancel();
        answered
    };
    let registered = async {
        let Some(kubelet) = kubelet else { return Ok(()) };
        let registered = register(kubelet, &endpoint, stop.clone()).await;
        stop.cancel();
        registered
    };
    let (answered, registered) = tokio::join!(answered, registered);
    answered.and(registered)
}

async fn answer(
    driver: Arc<Driver>,
    path: &Path,
    listener: UnixListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let service = Service(driver);
    let served = Server::builder()
        .add_service(IdentityServer::new(service.clone()).max_decoding_message_size(MOST_REQUEST))
        .add_service(ControllerServer::new(service.clone()).max_decoding_message_size(MOST_REQUEST))
        .add_service(GroupControllerServer::new(service.clone()).max_decoding_message_size(MOST_REQUEST))
        .add_service(SnapshotMetadataServer::new(service.clone()).max_decoding_message_size(MOST_REQUEST))
        .add_service(NodeServer::new(service).max_decoding_message_size(MOST_REQUEST))
        .serve_with_incoming_shutdown(connections(listener), stop.cancelled())
        .await;
    let removed = fs::remove_file(path);
    served.map_err(|source| ServeError::Grpc { path: path.to_owned(), source })?;
    removed.map_err(|source| ServeError::System { action: "remove", path: path.to_owned(), source })
}

/// Who comes to a socket, with what kubelets say wrongly put right.
pub(crate) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Mended<UnixStream>>> {
    UnixListenerStream::new(listener).map(|connection| connection.map(Mended::new))
}

/// Listens on a socket that root alone can open; one that a dead process has left is replaced.
pub(crate) async fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let system = |action| {
        let path = path.to_owned();
        move |source| ServeError::System { action, path, source }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(system("make the folder of"))?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let odd = io::Error::other("there is something that is no socket");
            return Err(system("listen on")(odd));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(ServeError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(system("remove"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system("look at")(error)),
    }
    let listener = UnixListener::bind(path).map_err(system("listen on"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(system("protect"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket() {
        assert_eq!("unix:///a/csi.sock".parse(), Ok(Endpoint("/a/csi.sock".into())));
        assert_eq!("/a/csi.sock".parse(), Ok(Endpoint("/a/csi.sock".into())));
        for wrong in ["", "unix://", "unix://a.sock", "tcp://1.2.3.4:5", "unix:///", &format!("/{}", "x".repeat(200))] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
