//! An S3 server in the process that uses it: buckets are directories, objects are files below them.
//!
//! It is a stand-in for a bucket of a real provider in tests and in the demo. Signatures are checked, conditional puts
//! are atomic, multipart uploads and ranges work; versions and object locks do not exist. Since objects are plain files,
//! a test can look at what was stored, flip a byte of it, or put a foreign file beside it.

mod body;
mod command;
mod store;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rand::distr::{Alphanumeric, SampleString};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::background::Background;
use body::PatientBody;
pub use command::{Arguments, run};
use store::Store;

/// Characters of a generated key, as many as Amazon's secret keys have.
const GENERATED_KEY_LENGTH: usize = 40;

/// What a client must know to be let in.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The public half, which names the secret one.
    pub access_key: String,
    /// The half that signs.
    pub secret_key: String,
}

impl Credentials {
    /// Keys that nobody else knows.
    pub fn generate() -> Self {
        let key = || Alphanumeric.sample_string(&mut rand::rng(), GENERATED_KEY_LENGTH);
        Self { access_key: key(), secret_key: key() }
    }
}

/// A running server; it ends when this is dropped, and the files stay.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    root: PathBuf,
    credentials: Credentials,
    _background: Background,
}

impl S3Server {
    /// Starts a server over a directory, which is made if it is not there, on a free port of 127.0.0.1.
    ///
    /// At most one server may use a directory at a time: they would write to the same temporary files.
    pub fn start(root: impl Into<PathBuf>, credentials: Credentials) -> Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), root, credentials)
    }

    /// Starts a server on a given address.
    pub fn start_on(address: SocketAddr, root: impl Into<PathBuf>, credentials: Credentials) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).with_context(|| format!("make the directory {}", root.display()))?;
        let mut builder = S3ServiceBuilder::new(Store::open(&root)?);
        builder.set_auth(SimpleAuth::from_single(credentials.access_key.clone(), credentials.secret_key.clone()));
        let service = builder.build();

        let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true).context("make the listener fit for waiting")?;
        let address = listener.local_addr().context("read the address that is listened on")?;
        let background = Background::run("s3-server", move || serve(listener, service))?;
        Ok(Self { address, root, credentials, _background: background })
    }

    /// The URL that clients take as the endpoint, with path-style addresses of buckets.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client must know to be let in.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Makes a bucket if it is not there.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        match fs::create_dir(self.bucket_path(bucket)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("make the bucket {bucket}"))
            }
            _ => Ok(()),
        }
    }

    /// The directory that holds a bucket's objects and nothing else.
    pub fn bucket_path(&self, bucket: &str) -> PathBuf {
        self.root.join(bucket)
    }

    /// The file that holds exactly an object's bytes.
    pub fn object_path(&self, bucket: &str, key: &str) -> PathBuf {
        self.bucket_path(bucket).join(key)
    }

    /// The directory that the server was given.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the S3 server cannot wait for connections"),
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the S3 server could not accept a connection");
                // Out of descriptors, most likely: others must run to give some back.
                tokio::task::yield_now().await;
                continue;
            }
        };
        let service = service.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let service = service.clone();
            let request = request.map(|body| s3s::Body::http_body_unsync(PatientBody::new(body)));
            async move { service.call(request).await }
        });
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(error, "a client of the S3 server went away");
            }
        });
    }
}
