//! Passing requests on to the API server, and injecting the faults that the plan has for them.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::connection::{Resettable, cut_after_lines, cut_after_time};
use super::plan::Fault;
use super::request::Verb;
use super::state::State;

/// Bytes of a request's body that are held: the API server itself refuses more than 3 MiB.
const LONGEST_REQUEST_BYTES: usize = 16 << 20;

/// Accepts connections until the runtime ends.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, upstream: Client) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the fault proxy cannot wait for connections"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, Arc::clone(&state), upstream.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the fault proxy could not accept a connection");
                // Out of descriptors, most likely: others must run to give some back.
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>, upstream: Client) {
    let (stream, reset) = Resettable::new(stream);
    let answer = service_fn(|request| {
        let exchange = Exchange { state: Arc::clone(&state), upstream: upstream.clone(), reset: Arc::clone(&reset) };
        exchange.answer(request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    let connection = server.serve_connection(TokioIo::new(stream), answer).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the fault proxy ended early");
    }
}

/// One request and its answer; an error closes the connection without one.
struct Exchange {
    state: Arc<State>,
    upstream: Client,
    reset: Arc<AtomicBool>,
}

impl Exchange {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let client_upgrade = parts.extensions.remove::<OnUpgrade>();
        let verb = Verb::of(&parts);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // All of it is read before anything else happens, so that a fault does not depend on how much was sent.
        let body = to_bytes(Body::new(body), LONGEST_REQUEST_BYTES).await.context("read the body of a request")?;
        let (number, fault) = self.state.admit(verb, &path);
        match fault {
            Some(Fault::Answer { status, retry_after_s }) => return refusal(status, retry_after_s),
            Some(Fault::Reset) => {
                self.reset.store(true, Ordering::Relaxed);
                return Err(anyhow!("reset by the fault proxy"));
            }
            Some(Fault::Delay(time)) => self.delay(time).await,
            _ => {}
        }
        // No connection, or one that breaks, behind the proxy: the client gets to see the same.
        let mut answer = self.forward(&parts, body.into()).await?;
        self.state.answered(number, answer.status().as_u16());
        if let Some(client) = client_upgrade.filter(|_| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
            join(client, &mut answer)?;
        }
        match fault {
            Some(Fault::LoseAnswer) => {
                // Its end says that the API server has finished; what it says is what gets lost.
                drop(to_bytes(first_part(answer.into_body(), verb), usize::MAX).await);
                Err(anyhow!("answer lost by the fault proxy"))
            }
            Some(Fault::CutAfterEvents(events)) => Ok(answer.map(|body| cut_after_lines(body, events))),
            Some(Fault::CutAfter(time)) => Ok(answer.map(|body| cut_after_time(body, time))),
            _ => Ok(answer),
        }
    }

    /// Waits for a while, or until the plan is changed.
    async fn delay(&self, time: Duration) {
        let mut plans = self.state.plans();
        // Either end of the wait is what was wanted.
        drop(tokio::time::timeout(time, plans.changed()).await);
    }

    async fn forward(&self, parts: &Parts, body: kube::client::Body) -> Result<Response<Body>> {
        let mut request = Request::builder().method(parts.method.clone()).uri(parts.uri.clone());
        if let Some(headers) = request.headers_mut() {
            *headers = end_to_end(&parts.headers);
        }
        let request = request.body(body).context("repeat a request")?;
        let answer = self.upstream.send(request).await.context("pass a request on to the API server")?;
        let (mut parts, body) = answer.into_parts();
        parts.headers = end_to_end(&parts.headers);
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

/// Headers without those that are about the connection and not about the message; an upgrade is both.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(HOST);
    headers.remove(TRANSFER_ENCODING);
    if !headers.contains_key(UPGRADE) {
        headers.remove(CONNECTION);
    }
    headers
}

/// Connects the two ends of an upgraded connection for as long as both live.
fn join(client: OnUpgrade, answer: &mut Response<Body>) -> Result<()> {
    let upstream = answer.extensions_mut().remove::<OnUpgrade>().context("take over an upgraded connection")?;
    tokio::spawn(async move {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade was not completed"),
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        if let Err(error) = copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(%error, "an upgraded connection ended early");
        }
    });
    Ok(())
}

/// What must have come of an answer before it counts as given: all of it, but a stream has no end.
fn first_part(body: Body, verb: Verb) -> Body {
    if matches!(verb, Verb::Watch | Verb::Connect) { Body::empty() } else { body }
}

/// An error in the form in which the API server gives errors.
fn refusal(status: u16, retry_after_s: Option<u32>) -> Result<Response<Body>> {
    let reason = match status {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status, "reason": reason,
        "message": "injected by the fault proxy",
        "details": retry_after_s.map(|seconds| json!({"retryAfterSeconds": seconds})),
    })
    .to_string();
    let mut answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer = answer.header(CONTENT_LENGTH, body.len());
    if let Some(seconds) = retry_after_s {
        answer = answer.header(RETRY_AFTER, seconds);
    }
    answer.body(Body::from(body)).context("make an answer of the fault proxy")
}
