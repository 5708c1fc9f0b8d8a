//! An S3 server in this process, which checks signatures.

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use repository::{S3Location, Secret, StoreConfig};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const BUCKET: &str = "harbour";
const ACCESS_KEY: &str = "AKORLOP";
const SECRET_KEY: &str = "a secret of the tests";

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct S3Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The status and the body with which a request is answered instead of being done.
pub(crate) type Refusal = Option<(u16, &'static str)>;

impl S3Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    /// Starts a server that refuses some requests.
    pub(crate) async fn start_with(refuse: impl Fn(&Request<Incoming>) -> Refusal + Send + Sync + 'static) -> Self {
        let refuse = Arc::new(refuse);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (service, refuse) = (service.clone(), refuse.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (service, refuse) = (service.clone(), refuse.clone());
                    async move {
                        match refuse(&request) {
                            None => Service::call(&service, request).await,
                            Some((status, body)) => {
                                let answer = Response::builder().status(status);
                                Ok(answer.body(s3s::Body::from(body.to_owned())).unwrap())
                            }
                        }
                    }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away in the middle is nothing to fail about.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, task, _folder: folder }
    }

    pub(crate) fn config(&self, prefix: &str) -> StoreConfig {
        self.config_with(BUCKET, prefix, SECRET_KEY)
    }

    pub(crate) fn config_with(&self, bucket: &str, prefix: &str, secret: &str) -> StoreConfig {
        StoreConfig::S3(S3Location {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            path_style: true,
            access_key_id: Some(ACCESS_KEY.to_owned()),
            secret_access_key: Some(Secret::new(secret.to_owned())),
            ..S3Location::default()
        })
    }
}
