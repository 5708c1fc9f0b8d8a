//! The extender as kube-scheduler calls it.

use crate::cache::Cache;
use crate::decide::{filter, prioritize};
use crate::metrics::Metrics;
use crate::protocol::{Args, Asked, Filtered, HostPriority};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Bytes of a request at most: the names of 5,000 nodes, of which each may have 253 bytes, and a pod.
const MOST_BYTES: usize = 2 << 20;
/// Requests that are read and answered at once; kube-scheduler asks one after the other. With what is made of each they take less than half of the 512 MiB that the manifests allow. Who comes
/// when there are so many is told to come later, so that nobody has others wait for him.
const MOST_AT_ONCE: usize = 16;
/// How long a request may take: as long as kube-scheduler waits.
const MOST_TIME: Duration = Duration::from_secs(5);
/// Pods of which it is told at once that nothing is known of their storage; of more it is counted only.
const MOST_TOLD: usize = 8;

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
    events: Option<(Client, Recorder)>,
    is_ready: AtomicBool,
    places: Semaphore,
    tellers: Arc<Semaphore>,
}

impl Extender {
    /// One that answers out of a cache, and tells of pods by events.
    #[must_use]
    pub fn new(cache: Arc<Cache>, client: Option<Client>) -> Self {
        let reporter = || Reporter { controller: "orlop-scheduler".into(), instance: None };
        let events = client.map(|client| (client.clone(), Recorder::new(client, reporter())));
        Self(Arc::new(Inner {
            cache,
            metrics: Metrics::default(),
            events,
            is_ready: AtomicBool::new(false),
            places: Semaphore::new(MOST_AT_ONCE),
            tellers: Arc::new(Semaphore::new(MOST_TOLD)),
        }))
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
            .route_layer(from_fn_with_state(self.clone(), in_turn))
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

    fn fail_open(self: &Arc<Self>, pod: &Asked, why: &'static str) {
        self.metrics.failed_open();
        tracing::warn!(namespace = pod.namespace, pod = pod.name, why, "a pod is put anywhere");
        let Ok(teller) = self.tellers.clone().try_acquire_owned() else { return };
        let (me, pod) = (self.clone(), pod.clone());
        // Whoever waits for the answer does not wait for the event.
        tokio::spawn(async move {
            if let Err(error) = me.tell(&pod, why).await {
                tracing::warn!(%error, "an event was not published");
            }
            drop(teller);
        });
    }

    /// Tells a pod that nothing is known of its storage, if the API server has one that waits to be put somewhere and has such volumes: anybody may ask about any pod.
    async fn tell(&self, pod: &Asked, why: &str) -> Result<(), kube::Error> {
        let Some((client, events)) = &self.events else { return Ok(()) };
        let Some(pod) = Api::<Pod>::namespaced(client.clone(), &pod.namespace).get_opt(&pod.name).await? else {
            return Ok(());
        };
        let waits = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none());
        if !waits || self.cache.wanted(&Asked::from(&pod)).volumes.is_empty() {
            return Ok(());
        }
        let event = Event {
            type_: EventType::Warning,
            reason: "StorageUnknown".into(),
            note: Some(format!("{why}: the pod may be put on any node, also where its volumes cannot be used")),
            action: "Scheduling".into(),
            secondary: None,
        };
        events.publish(&event, &pod.object_ref(&())).await
    }
}

/// Why a request is not answered.
type Refused = (StatusCode, String);

/// Has a request read and answered when there is a place for it, and while that lasts no longer than anybody waits.
async fn in_turn(State(extender): State<Extender>, request: Request, next: Next) -> Response {
    let Ok(_place) = extender.0.places.try_acquire() else {
        let why = format!("{MOST_AT_ONCE} requests are answered already; come later\n");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    match tokio::time::timeout(MOST_TIME, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            (StatusCode::REQUEST_TIMEOUT, format!("it took more than {} s\n", MOST_TIME.as_secs())).into_response()
        }
    }
}

/// What was asked, out of the body of a request.
fn asked(body: &Bytes) -> Result<Args, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is no ExtenderArgs of kube-scheduler: {error}\n")))
}

/// Nodes come by name.
fn names(args: &Args) -> Result<Vec<&str>, Refused> {
    let refused =
        "nodes came whole; set nodeCacheCapable: true for this extender in the configuration of kube-scheduler\n";
    args.names().ok_or_else(|| (StatusCode::BAD_REQUEST, refused.to_owned()))
}

fn answered(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("write the answer: {error}\n")).into_response(),
    }
}

async fn filtered(State(extender): State<Extender>, body: Bytes) -> Result<Response, Refused> {
    let args = asked(&body)?;
    let names = names(&args)?;
    let (me, begun) = (&extender.0, Instant::now());
    let wanted = me.cache.wanted(&args.pod);
    let refused = match me.unknown(begun) {
        // Of other pods there is nothing to know.
        Some(why) if !wanted.volumes.is_empty() => {
            me.fail_open(&args.pod, why);
            BTreeMap::new()
        }
        _ => filter(&wanted, names.clone(), |name| me.cache.node(name, begun)),
    };
    me.metrics.refused(refused.len());
    let answer = answered(&Filtered::new(names, refused));
    me.metrics.answered("filter", begun.elapsed());
    Ok(answer)
}

async fn prioritized(State(extender): State<Extender>, body: Bytes) -> Result<Response, Refused> {
    let args = asked(&body)?;
    let names = names(&args)?;
    let (me, begun) = (&extender.0, Instant::now());
    let wanted = me.cache.wanted(&args.pod);
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
