//! An etcd of one member, with TLS and users where they are wanted.

use super::{PATIENCE, patient};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use records::etcd::{EtcdConfig, EtcdRecords, Password, Tls, User};
use sandbox::assets::Assets;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user of the tests, who may change what is below [`PREFIX`] alone.
pub(crate) const USER: &str = "orlop";
pub(crate) const PASSWORD: &str = "a password of a test";
pub(crate) const PREFIX: &str = "/orlop/volumes/";

/// A running etcd; it ends with this.
pub(crate) struct Etcd {
    directory: TempDir,
    port: u16,
    tls: Option<String>,
    child: Option<Child>,
}

/// A port below those that outgoing connections get, so that nobody takes it while the server is down.
fn port() -> u16 {
    let ports = std::iter::repeat_with(|| rand::random_range(20_000..32_000_u16));
    ports.take(100).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}

/// Writes a server's certificate and its key; the authority's certificate.
fn certificates(directory: &TempDir) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.path().join("server.crt"), server.pem()).unwrap();
    std::fs::write(directory.path().join("server.key"), key.serialize_pem()).unwrap();
    authority
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        Self::launch(false).await
    }

    /// With TLS, and a user who may change the records and nothing else.
    pub(crate) async fn guarded() -> Self {
        let etcd = Self::launch(true).await;
        etcd.ask("auth/user/add", json!({"name": "root", "password": PASSWORD})).await;
        etcd.ask("auth/user/grant", json!({"user": "root", "role": "root"})).await;
        etcd.ask("auth/user/add", json!({"name": USER, "password": PASSWORD})).await;
        etcd.ask("auth/role/add", json!({"name": "records"})).await;
        etcd.grant().await;
        etcd.ask("auth/user/grant", json!({"user": USER, "role": "records"})).await;
        etcd.ask("auth/enable", json!({})).await;
        etcd
    }

    async fn grant(&self) {
        let end = format!("{}0", PREFIX.trim_end_matches('/'));
        let permission = json!({"permType": "READWRITE", "key": base64(PREFIX), "range_end": base64(&end)});
        self.ask("auth/role/grant", json!({"name": "records", "perm": permission})).await;
    }

    async fn launch(is_guarded: bool) -> Self {
        sandbox::control_plane::install_crypto_provider();
        let directory = tempfile::Builder::new().prefix("etcd-").tempdir().unwrap();
        let tls = is_guarded.then(|| certificates(&directory));
        let mut etcd = Self { directory, port: port(), tls, child: None };
        etcd.run().await;
        etcd
    }

    /// Starts it, on what it has kept, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let url = self.url();
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(Assets::from_environment().find("etcd").unwrap());
        command.args(["--data-dir=data", "--listen-peer-urls=http://127.0.0.1:0", "--log-level=warn"]);
        command.args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")]);
        if self.tls.is_some() {
            command.args(["--cert-file=server.crt", "--key-file=server.key"]);
        }
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        while self.client().get(format!("{url}/health")).send().await.is_err() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(Instant::now() < end, "etcd does not answer: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_some() { "https" } else { "http" }, self.port)
    }

    fn client(&self) -> reqwest::Client {
        let mut builder = reqwest::Client::builder();
        if let Some(authority) = &self.tls {
            builder = builder.add_root_certificate(reqwest::Certificate::from_pem(authority.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    /// Asks etcd in JSON what the stores under test do not ask.
    pub(crate) async fn ask(&self, what: &str, body: Value) -> Value {
        self.ask_as(None, what, body).await
    }

    /// The same, as root, where users have been made.
    pub(crate) async fn ask_as_root(&self, what: &str, body: Value) -> Value {
        let token = self.ask("auth/authenticate", json!({"name": "root", "password": PASSWORD})).await;
        self.ask_as(token["token"].as_str(), what, body).await
    }

    async fn ask_as(&self, token: Option<&str>, what: &str, body: Value) -> Value {
        let mut request = self.client().post(format!("{}/v3/{what}", self.url())).json(&body);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{what}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The revision of the whole store.
    pub(crate) async fn revision(&self) -> i64 {
        let answer = self.ask("kv/range", json!({"key": base64("none")})).await;
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![self.url()],
            prefix: PREFIX.into(),
            user: self.tls.is_some().then(|| User { name: USER.into(), password: Password::new(PASSWORD.into()) }),
            tls: self.tls.clone().map(|authority| Tls { authority, identity: None }),
            patience: patient(),
        }
    }

    pub(crate) fn records(&self) -> EtcdRecords {
        EtcdRecords::new(self.config()).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// etcd's JSON has keys and values in base64.
pub(crate) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}
