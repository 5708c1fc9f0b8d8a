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
use tokio_rustls::TlsAcceptor;

pub(crate) const BUCKET: &str = "harbour";
const ACCESS_KEY: &str = "AKORLOP";
const SECRET_KEY: &str = "a secret of the tests";

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct S3Server {
    address: SocketAddr,
    is_tls: bool,
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

    /// Starts a server that is reached by TLS, with a certificate from an authority that nobody knows; gives that authority's.
    pub(crate) async fn start_with_tls() -> (Self, String) {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Self::start_as(|_| None, Some(acceptor)).await, authority_pem)
    }

    /// Starts a server that refuses some requests.
    pub(crate) async fn start_with(refuse: impl Fn(&Request<Incoming>) -> Refusal + Send + Sync + 'static) -> Self {
        Self::start_as(refuse, None).await
    }

    async fn start_as(
        refuse: impl Fn(&Request<Incoming>) -> Refusal + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let (refuse, is_tls) = (Arc::new(refuse), tls.is_some());
        // The server looks and then writes; real ones do both in one step.
        let one_by_one = Arc::new(tokio::sync::Mutex::new(()));
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
                let (service, refuse, one_by_one) = (service.clone(), refuse.clone(), one_by_one.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (service, refuse) = (service.clone(), refuse.clone());
                    let one_by_one = one_by_one.clone();
                    async move {
                        let is_conditional = request.headers().contains_key("if-none-match");
                        let _turn = if is_conditional { Some(one_by_one.lock().await) } else { None };
                        match refuse(&request) {
                            None => Service::call(&service, request).await,
                            Some((status, body)) => {
                                let answer = Response::builder().status(status);
                                Ok(answer.body(s3s::Body::from(body.to_owned())).unwrap())
                            }
                        }
                    }
                });
                let tls = tls.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away in the middle, or does not trust us, is nothing to fail about.
                    let Some(tls) = tls else {
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                        return;
                    };
                    if let Ok(socket) = tls.accept(socket).await {
                        let _ = server.serve_connection(TokioIo::new(socket), service).await;
                    }
                });
            }
        });
        Self { address, is_tls, task, _folder: folder }
    }

    pub(crate) fn config(&self, prefix: &str) -> StoreConfig {
        self.config_with(BUCKET, prefix, SECRET_KEY)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The configuration for a server of another process.
    pub(crate) fn config_at(address: &str, prefix: &str) -> StoreConfig {
        Self::config_for(format!("http://{address}"), BUCKET, prefix, SECRET_KEY)
    }

    pub(crate) fn config_with(&self, bucket: &str, prefix: &str, secret: &str) -> StoreConfig {
        let scheme = if self.is_tls { "https" } else { "http" };
        Self::config_for(format!("{scheme}://{}", self.address), bucket, prefix, secret)
    }

    fn config_for(endpoint: String, bucket: &str, prefix: &str, secret: &str) -> StoreConfig {
        StoreConfig::S3(S3Location {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(endpoint),
            path_style: true,
            access_key_id: Some(ACCESS_KEY.to_owned()),
            secret_access_key: Some(Secret::new(secret.to_owned())),
            ..S3Location::default()
        })
    }
}
