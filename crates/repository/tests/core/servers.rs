//! Servers of other makers, each a process of its own on a private port, ended with the test.
//!
//! `tools/setup` installs them into `target/servers`; a test of one that is not there is skipped, with the reason.

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpConnector, HttpRequestBody, ReqwestConnector};
use repository::store::AzureLocation;
use repository::{S3Location, Secret, StoreConfig};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a server may take to answer its first request, on a machine that is busy.
const START: Duration = Duration::from_secs(90);
/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) const BUCKET: &str = "harbour";
pub(crate) const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that is gone already is no trouble.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Moto: S3 with versions and object lock.
pub(crate) async fn moto() -> Result<Server, String> {
    let program = installed("python/bin/moto_server")?;
    Server::start(&program, |_, port| vec!["-H".into(), "127.0.0.1".into(), "-p".into(), port.to_string()]).await
}

/// S3rver: S3 without conditions.
pub(crate) async fn s3rver() -> Result<Server, String> {
    let program = installed("node_modules/.bin/s3rver")?;
    let arguments = |folder: &Path, port: u16| {
        let folder = folder.display().to_string();
        let port = port.to_string();
        ["-d", &folder, "-a", "127.0.0.1", "-p", &port, "--silent", "--no-vhost-buckets", "--configure-bucket", BUCKET]
            .map(str::to_owned)
            .to_vec()
    };
    Server::start(&program, arguments).await
}

/// Azurite: Microsoft's emulator of Azure's storage, with a container.
pub(crate) async fn azurite() -> Result<Server, String> {
    let program = installed("node_modules/.bin/azurite-blob")?;
    let arguments = |_: &Path, port: u16| {
        let port = port.to_string();
        let given = ["--blobHost", "127.0.0.1", "--blobPort", &port, "--silent"];
        let fixed = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"];
        given.into_iter().chain(fixed).map(str::to_owned).collect()
    };
    let server = Server::start(&program, arguments).await?;
    server.make_container().await;
    Ok(server)
}

fn installed(path: &str) -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let path = target.join("servers").join(path);
    if path.exists() { Ok(path) } else { Err(format!("{} is not installed; run tools/setup", path.display())) }
}

impl Server {
    async fn start(program: &Path, arguments: impl Fn(&Path, u16) -> Vec<String>) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        // A port that is free now; who starts a server on it is told.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(arguments(folder.path(), address.port()))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let mut server = Self { child, address, _folder: folder };
        let begun = Instant::now();
        while ask(address, "GET", "/", &[], "").await.is_err() {
            assert_eq!(server.child.try_wait().unwrap(), None, "{} ended at its start", program.display());
            assert!(begun.elapsed() < START, "{} does not answer", program.display());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(server)
    }

    /// Makes a bucket of an S3 server that does not look at signatures.
    pub(crate) async fn make_bucket(&self, name: &str, headers: &[(&str, &str)]) {
        let (status, answer) = ask(self.address, "PUT", &format!("/{name}"), headers, "").await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }

    pub(crate) fn s3(&self, bucket: &str, prefix: &str) -> StoreConfig {
        StoreConfig::S3(self.s3_location(bucket, prefix, "a key", "a secret"))
    }

    pub(crate) fn s3rver_config(&self) -> StoreConfig {
        StoreConfig::S3(self.s3_location(BUCKET, "p", "S3RVER", "S3RVER"))
    }

    fn s3_location(&self, bucket: &str, prefix: &str, id: &str, secret: &str) -> S3Location {
        S3Location {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            path_style: true,
            access_key_id: Some(id.to_owned()),
            secret_access_key: Some(Secret::new(secret.to_owned())),
            ..S3Location::default()
        }
    }

    pub(crate) fn azure(&self, prefix: &str) -> StoreConfig {
        StoreConfig::Azure(self.azure_location(prefix))
    }

    pub(crate) fn azure_location(&self, prefix: &str) -> AzureLocation {
        AzureLocation {
            container: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            account: ACCOUNT.to_owned(),
            endpoint: Some(format!("http://{}/{ACCOUNT}", self.address)),
            access_key: Some(Secret::new(ACCOUNT_KEY.to_owned())),
            ..AzureLocation::default()
        }
    }

    async fn make_container(&self) {
        let url = format!("http://{}/{ACCOUNT}/{BUCKET}?restype=container", self.address);
        let request = http::Request::builder().method("PUT").uri(url).header("content-length", "0");
        let mut request = request.body(HttpRequestBody::empty()).unwrap();
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(ACCOUNT_KEY).unwrap());
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).unwrap();
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
        let answer = client.execute(request).await.unwrap();
        assert_eq!(answer.status(), 201);
    }

    /// Asks the server something that no store asks.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        ask(self.address, method, path, headers, body).await.unwrap()
    }
}

/// One request over a connection of its own; gives the status and the body, both as they came.
async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(address).await?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}
