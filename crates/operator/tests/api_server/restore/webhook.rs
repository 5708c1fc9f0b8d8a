//! An admission webhook in the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::{parse, until};

/// Its name, as it is in the refusals of the API server.
pub const NAME: &str = "guard.example.com";
/// Longest request that is read, in bytes.
const REQUEST_BYTES: usize = 1 << 20;

/// Serves as long as it is there.
pub struct Guard(Arc<TcpListener>);

impl Drop for Guard {
    fn drop(&mut self) {
        // Wakes the thread, which finds that it is the last to hold the listener.
        if let Ok(address) = self.0.local_addr() {
            drop(TcpStream::connect(address));
        }
    }
}

/// Refuses config maps of a name; returns when the API server asks it.
pub async fn refuse(client: &Client, name: &str) -> Guard {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certified.cert.der().clone()], key).unwrap());
    let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let (serving, refused) = (listener.clone(), name.to_owned());
    std::thread::spawn(move || {
        for stream in serving.incoming().flatten() {
            if Arc::strong_count(&serving) == 1 {
                return;
            }
            let (config, refused) = (config.clone(), refused.clone());
            std::thread::spawn(move || {
                if let Err(error) = serve(stream, config, &refused) {
                    eprintln!("webhook: {error}");
                }
            });
        }
    });
    register(client, port, &certified.cert.pem()).await;
    let probe = parse::<k8s_openapi::api::core::v1::ConfigMap>(json!({"metadata": {"name": name}}));
    let maps = Api::namespaced(client.clone(), "default");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the webhook to be asked", || async { maps.create(&dry, &probe).await.is_err().then_some(()) }).await;
    Guard(listener)
}

async fn register(client: &Client, port: u16, pem: &str) {
    let bundle = k8s_openapi::ByteString(pem.as_bytes().to_vec());
    let configuration: ValidatingWebhookConfiguration = parse(json!({
        "metadata": {"name": "guard"},
        "webhooks": [{
            "name": NAME, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        }],
    }));
    Api::all(client.clone()).create(&PostParams::default(), &configuration).await.unwrap();
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, refused: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while let Some(review) = read_request(&mut stream)? {
        let request = &review["request"];
        let allowed = request["name"] != refused && request["object"]["metadata"]["name"] != refused;
        let answer = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": request["uid"], "allowed": allowed, "status": {"message": "not in this house"}},
        })
        .to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(answer.as_bytes())?;
        stream.flush()?;
    }
    Ok(())
}

/// The body of the next request; none when the other side has closed.
fn read_request(stream: &mut impl Read) -> std::io::Result<Option<Value>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if head.len() < REQUEST_BYTES => head.push(byte[0]),
            Ok(_) => return Err(std::io::Error::other("a head of a request that does not end")),
            // The API server closes connections without saying goodbye.
            Err(_) if head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.filter(|l| *l <= REQUEST_BYTES).ok_or_else(|| std::io::Error::other("no usable length"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    serde_json::from_slice(&body).map(Some).map_err(std::io::Error::other)
}
