//! The extender as kube-scheduler calls it.

use crate::cache::Cache;
use crate::decide::{filter, prioritize};
use crate::metrics::Metrics;
use crate::protocol::{Args, Filtered, HostPriority};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Bytes of a request at most: thousands of whole nodes.
const MOST_BYTES: usize = 256 << 20;

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("listen on {address}; another program has it, or it is not one of this machine's")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The listener broke.
    #[error("serve the scheduler")]
    Serve(#[source] io::Error),
}

/// Takes the port. Apart from serving, so that a port that is taken ends the start at once.
///
/// # Errors
/// It cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// What answers.
#[derive(Clone)]
pub struct Extender(Arc<Inner>);

struct Inner {
    cache: Arc<Cache>,
    metrics: Metrics,
    /// For events; without it there are none.
    events: Option<Recorder>,
    is_ready: AtomicBool,
}

impl Extender {
    /// One that answers out of a cache, and tells of pods by events.
    #[must_use]
    pub fn new(cache: Arc<Cache>, client: Option<Client>) -> Self {
        let reporter = || Reporter { controller: "orlop-scheduler".into(), instance: None };
        let events = client.map(|client| Recorder::new(client, reporter()));
        Self(Arc::new(Inner { cache, metrics: Metrics::default(), events, is_ready: AtomicBool::new(false) }))
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// The listener broke.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), Error> {
        let me = self.0.clone();
        let ready = async move {
            me.cache.ready().await;
            me.is_ready.store(true, Ordering::Release);
            tracing::info!("what there is of storage is known");
            std::future::pending::<()>().await;
        };
        let routes = Router::new()
            .route("/filter", post(filtered))
            .route("/prioritize", post(prioritized))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .with_state(self);
        let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
        tokio::select! {
            served = async { serving.await } => served.map_err(Error::Serve),
            () = ready => Ok(()),
        }
    }
}

impl Inner {
    /// Why nothing can be said of any node.
    fn unknown(&self, now: Instant) -> Option<&'static str> {
        if !self.is_ready.load(Ordering::Acquire) {
            Some("the scheduler extender has just started, and does not know the nodes' storage yet")
        } else if self.cache.is_blind(now) {
            Some("the scheduler extender has heard of no node's storage for a while")
        } else {
            None
        }
    }

    async fn fail_open(&self, pod: &Pod, why: &str) {
        self.metrics.failed_open();
        tracing::warn!(pod = pod.metadata.name, why, "a pod is put anywhere");
        let Some(events) = &self.events else { return };
        let event = Event {
            type_: EventType::Warning,
            reason: "StorageUnknown".into(),
            note: Some(format!("{why}: the pod may be put on any node, also where its volumes cannot be used")),
            action: "Scheduling".into(),
            secondary: None,
        };
        if let Err(error) = events.publish(&event, &pod.object_ref(&())).await {
            tracing::warn!(%error, "an event was not published");
        }
    }
}

/// Why a request is not answered.
type Refused = (StatusCode, String);

/// What was asked, out of the body of a request.
fn asked(body: &Bytes) -> Result<Args, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is no ExtenderArgs of kube-scheduler: {error}\n")))
}

fn answered(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("write the answer: {error}\n")).into_response(),
    }
}

async fn filtered(State(extender): State<Extender>, body: Bytes) -> Result<Response, Refused> {
    let args = asked(&body)?;
    let (me, begun) = (&extender.0, Instant::now());
    let wanted = me.cache.wanted(&args.pod);
    let refused = match me.unknown(begun) {
        // Of other pods there is nothing to know.
        Some(why) if !wanted.volumes.is_empty() => {
            let (pod, me) = (args.pod.clone(), me.clone());
            // Whoever waits for the answer does not wait for the event.
            tokio::spawn(async move { me.fail_open(&pod, why).await });
            BTreeMap::new()
        }
        _ => filter(&wanted, args.names(), |name| me.cache.node(name, begun)),
    };
    me.metrics.refused(refused.len());
    let answer = Filtered::new(args, refused);
    let answer = answered(&answer);
    me.metrics.answered("filter", begun.elapsed());
    Ok(answer)
}

async fn prioritized(State(extender): State<Extender>, body: Bytes) -> Result<Response, Refused> {
    let args = asked(&body)?;
    let (me, begun) = (&extender.0, Instant::now());
    let wanted = me.cache.wanted(&args.pod);
    let names = args.names();
    let scores = prioritize(&wanted, &names, |name| me.cache.node(name, begun));
    let answer = names.iter().zip(scores).map(|(host, score)| HostPriority { host: (*host).to_owned(), score });
    let answer = answered(&answer.collect::<Vec<_>>());
    me.metrics.answered("prioritize", begun.elapsed());
    Ok(answer)
}

async fn readyz(State(extender): State<Extender>) -> Response {
    // One that has heard of nobody for a while answers all the same, and says so of pods.
    if extender.0.is_ready.load(Ordering::Acquire) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "what there is of storage is not known yet\n").into_response()
    }
}

async fn metrics(State(extender): State<Extender>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match extender.0.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("encode the metrics: {error}\n")).into_response(),
    }
}
