//! Health, readiness and metrics, as a kubelet and a scraper ask for them.

use std::sync::atomic::Ordering;

use operator::http::{Pages, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn an_operator_is_alive_before_it_is_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (pages, token) = (Pages::default(), CancellationToken::new());
    let server = tokio::spawn(serve(listener, pages.clone(), token.clone().cancelled_owned()));
    assert_eq!(get(address, "/healthz").await.0, 200);
    assert_eq!(get(address, "/readyz").await.0, 503);
    pages.ready.store(true, Ordering::Relaxed);
    pages.metrics.set_leader(true);
    assert_eq!(get(address, "/readyz").await.0, 200);
    let (status, metrics) = get(address, "/metrics").await;
    assert!(status == 200 && metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\norlop_leader 1\n"), "{metrics}");
    assert_eq!(get(address, "/elsewhere").await.0, 404);
    token.cancel();
    server.await.unwrap().unwrap();
}
