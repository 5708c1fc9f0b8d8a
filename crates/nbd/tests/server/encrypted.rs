//! TLS: by a client that looks at each step, and by libnbd.

use super::client::{ACK, Client, ERROR, go_data};
use super::judges::{good, has, run};
use super::memory::{BLOCK, sparse};
use block::testing::Memory;
use nbd::{Export, Limits, Listener, Server, Tls, TlsError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const INVALID: u32 = ERROR + 3;
const TLS_REQUIRED: u32 = ERROR + 5;
const SIZE: usize = 100 * BLOCK;

/// An authority, and the PEM of its certificate.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// A certificate and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// The folder that libnbd reads a client's certificates from.
    fn folder(&self, identity: Option<&(String, String)>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca-cert.pem", &self.1);
        if let Some((certificate, key)) = identity {
            write("client-cert.pem", certificate);
            write("client-key.pem", key);
        }
        folder
    }
}

struct Encrypted {
    folder: tempfile::TempDir,
    uri: String,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Encrypted {
    /// Over TCP, or over a socket of a path.
    async fn start(tls: Tls, tcp: bool) -> Self {
        let device = Arc::new(Memory::new(&sparse(SIZE)));
        let export = Export { name: "disk".into(), description: String::new(), device };
        let server = Server::new(vec![export], Limits::default()).unwrap().with_tls(tls);
        let folder = tempfile::tempdir().unwrap();
        let listener = match tcp {
            true => Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap(),
            false => Listener::unix(&folder.path().join("nbd.sock")).unwrap(),
        };
        // The certificate is for a name.
        let uri = server.uri(&listener, "disk").replace("127.0.0.1", "localhost");
        let stop = CancellationToken::new();
        let ends = stop.clone();
        let task = tokio::spawn(async move { server.serve(listener, ends).await });
        Self { folder, uri, stop, task }
    }

    fn uri(&self, certificates: &Path) -> String {
        let sign = if self.uri.contains('?') { '&' } else { '?' };
        format!("{}{sign}tls-certificates={}", self.uri, certificates.display())
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_server_with_tls_speaks_to_nobody_in_clear() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("localhost");
    let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes(), None).unwrap();
    let served = Encrypted::start(tls, false).await;
    let socket = served.folder.path().join("nbd.sock");
    let mut client = Client::greet(&socket, 3).await;
    for (code, data) in [(3, vec![]), (6, go_data("disk", &[])), (7, go_data("disk", &[])), (8, vec![]), (77, vec![])] {
        assert_eq!(client.option(code, &data).await.kind, TLS_REQUIRED, "option {code}");
    }
    assert_eq!(client.option(5, b"x").await.kind, INVALID);
    assert_eq!(client.option(5, &[]).await.kind, ACK);
    // What follows is no TLS.
    client.stream.write_all(&[0; 100]).await.unwrap();
    let mut rest = Vec::new();
    // An alert may come before the end.
    tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut rest).await.ok();
    // The old way has no refusal.
    let mut client = Client::greet(&socket, 3).await;
    client.send_option(1, b"disk").await;
    client.expect_closed().await;
    // Something in clear behind the wish to encrypt may be another's.
    let mut client = Client::greet(&socket, 3).await;
    client.stream.write_all(b"IHAVEOPT\0\0\0\x05\0\0\0\0IHAVEOPT\0\0\0\x03\0\0\0\0").await.unwrap();
    assert_eq!(client.option_reply(5).await.kind, ACK);
    client.expect_closed().await;
    // And he may leave.
    let mut client = Client::greet(&socket, 3).await;
    assert_eq!(client.option(2, &[]).await.kind, ACK);
    client.expect_closed().await;
    served.end().await;
}

#[tokio::test]
async fn libnbd_copies_over_tls() {
    if !has("nbdinfo") || !has("nbdcopy") {
        skips::skip!("nbdinfo and nbdcopy are missing: run tools/setup");
    }
    let authority = Authority::new();
    let (certificate, key) = authority.sign("localhost");
    let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes(), None).unwrap();
    let served = Encrypted::start(tls, true).await;
    assert!(served.uri.starts_with("nbds://localhost:"), "{}", served.uri);
    let certificates = authority.folder(None);
    let uri = served.uri(certificates.path());
    let about: serde_json::Value = serde_json::from_slice(&good("nbdinfo", &["--json", &uri]).await).unwrap();
    assert_eq!((&about["TLS"], &about["structured"]), (&true.into(), &true.into()), "{about}");
    let copy = served.folder.path().join("copy");
    good("nbdcopy", &["--request-size=65536", &uri, copy.to_str().unwrap()]).await;
    assert!(std::fs::read(&copy).unwrap() == sparse(SIZE));
    // A server that somebody else vouches for is not believed; nor does it speak in clear.
    let strangers = Authority::new().folder(None);
    assert!(!run("nbdinfo", &[&served.uri(strangers.path())]).await.status.success());
    let clear = served.uri.replace("nbds://", "nbd://") + "?tls=disable";
    assert!(!run("nbdinfo", &[&clear]).await.status.success());
    served.end().await;
}

#[tokio::test]
async fn a_server_that_wants_certificates_of_its_clients_gets_them() {
    if !has("nbdinfo") {
        skips::skip!("nbdinfo is missing: run tools/setup");
    }
    let authority = Authority::new();
    let (certificate, key) = authority.sign("localhost");
    let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes(), Some(authority.1.as_bytes())).unwrap();
    let served = Encrypted::start(tls, true).await;
    let known = authority.folder(Some(&authority.sign("client")));
    good("nbdinfo", &[&served.uri(known.path())]).await;
    let unknown = authority.folder(Some(&Authority::new().sign("client")));
    for folder in [authority.folder(None), unknown] {
        assert!(!run("nbdinfo", &[&served.uri(folder.path())]).await.status.success());
    }
    served.end().await;
}

#[test]
fn what_is_no_certificate_is_told() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("localhost");
    let error = |certificate: &str, key: &str, clients: Option<&str>| {
        Tls::from_pem(certificate.as_bytes(), key.as_bytes(), clients.map(str::as_bytes)).map(|_| ()).unwrap_err()
    };
    assert!(matches!(error("", &key, None), TlsError::Empty("server's certificate")));
    assert!(matches!(error(&certificate, "", None), TlsError::Pem { what: "server's key", .. }));
    assert!(matches!(error(&certificate, &key, Some("")), TlsError::Empty("client authority")));
    let (_, other) = authority.sign("localhost");
    assert!(matches!(error(&certificate, &other, None), TlsError::Unusable(_)));
}
