//! How the control API and the metrics are reached.

use crate::node::Node;
use crate::proto::{self, node_client::NodeClient, node_server::NodeServer};
use crate::service::Service;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server, Uri};

/// Who asks a node.
pub type Client = NodeClient<Channel>;

/// Where a client is not, and what would be dialled without a connector.
const NOWHERE: &str = "http://node.invalid";
/// Bytes in each direction between an offline client and its service.
const PIPE: usize = 64 << 10;

/// Why a node does not answer, or is not asked.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one does.
    #[error("a node listens on {path} already; stop it first, or give this one another --runtime-dir", path = .0.display())]
    InUse(PathBuf),
    /// The system said no.
    #[error("{action} {place}")]
    System {
        /// What was to be done.
        action: &'static str,
        /// To what.
        place: String,
        /// What it said.
        source: io::Error,
    },
    /// The protocol.
    #[error("speak gRPC with the node on {place}")]
    Grpc {
        /// Where.
        place: String,
        /// What was said.
        source: tonic::transport::Error,
    },
    /// The API does not describe itself; a defect.
    #[error("describe the API: {0}")]
    Reflection(String),
}

/// The socket of a node, by its folder for what lives as long as the machine runs. The folder is open to its owner alone, and so the socket is.
#[must_use]
pub fn control_socket(runtime: &Path) -> PathBuf {
    runtime.join("node.sock")
}

/// Answers the control API on a node's socket until `stop`; what was asked by then is answered.
///
/// # Errors
///
/// If it cannot listen, or another node does.
pub async fn serve(node: Arc<Node>, runtime: &Path, stop: CancellationToken) -> Result<(), ServeError> {
    let path = control_socket(runtime);
    let place = || path.display().to_string();
    let system = |action| move |source| ServeError::System { action, place: place(), source };
    match UnixStream::connect(&path).await {
        Ok(_) => return Err(ServeError::InUse(path)),
        // One that a dead node has left.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(&path).map_err(system("remove"))?
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(system("listen on"))?;
    // Whoever reaches it has all volumes, and the folder may be one that somebody else has made for all to enter.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(system("keep to its owner"))?;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTOR)
        .build_v1()
        .map_err(|e| ServeError::Reflection(e.to_string()))?;
    tracing::info!(socket = %path.display(), "the control API is served");
    let served = Server::builder()
        .add_service(reflection)
        .add_service(NodeServer::new(Service::new(node)))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled())
        .await;
    let removed = std::fs::remove_file(&path);
    served.map_err(|source| ServeError::Grpc { place: place(), source })?;
    removed.map_err(system("remove"))
}

/// Comes to a node by its socket.
///
/// # Errors
///
/// If nobody listens there.
pub async fn connect(socket: &Path) -> Result<Client, ServeError> {
    let place = socket.display().to_string();
    let path = socket.to_owned();
    // Asked for by itself first: a connector's errors are told as those of a transport.
    UnixStream::connect(&path).await.map_err(|source| ServeError::System {
        action: "connect to",
        place: place.clone(),
        source,
    })?;
    let dial = move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    let channel = Endpoint::from_static(NOWHERE).connect_with_connector(tower::service_fn(dial)).await;
    channel.map(NodeClient::new).map_err(|source| ServeError::Grpc { place, source })
}

/// A client of a node that is in this process, and that nobody else can ask; and the service, which ends, and lets go of the node, when the client is
/// dropped.
///
/// # Errors
///
/// If the two do not come together.
pub async fn offline(node: Arc<Node>) -> Result<(Client, JoinHandle<()>), ServeError> {
    let place = "this process".to_owned();
    let (here, there) = tokio::io::duplex(PIPE);
    let incoming = tokio_stream::once(Ok::<_, io::Error>(there));
    let server = Server::builder().add_service(NodeServer::new(Service::new(node)));
    let service = tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::error!(%error, "the service of an offline pool has ended");
        }
    });
    let here = Mutex::new(Some(here));
    let dial = move |_: Uri| {
        let here = here.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { here.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    };
    let channel = Endpoint::from_static(NOWHERE).connect_with_connector(tower::service_fn(dial)).await;
    channel.map(|channel| (NodeClient::new(channel), service)).map_err(|source| ServeError::Grpc { place, source })
}

/// Serves health and metrics over HTTP until `stop`.
///
/// # Errors
///
/// If the listener breaks.
pub async fn serve_metrics(node: Arc<Node>, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let routes =
        Router::new().route("/healthz", get(|| async { "ok\n" })).route("/metrics", get(metrics)).with_state(node);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let made = tokio::task::spawn_blocking(move || node.metrics()).await;
    match made {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response(),
    }
}
