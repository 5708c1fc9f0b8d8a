//! Health, readiness and metrics.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::config::OperatorConfig;
use crate::error::Error;
use crate::metrics::Metrics;

/// What the pages are made from.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// The metrics served.
    pub metrics: Arc<Metrics>,
    /// Whether the API server has answered, so that this operator can lead or stand by.
    pub ready: Arc<AtomicBool>,
}

/// Takes the port. Apart from serving, so that a port that is taken ends the start at once.
///
/// # Errors
/// The port cannot be had.
pub async fn listen(config: &OperatorConfig) -> Result<TcpListener, Error> {
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    tracing::info!(address = %listener.local_addr().unwrap_or(address), "health and metrics are served");
    Ok(listener)
}

/// Serves until `stop`.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: TcpListener,
    pages: Pages,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
}

async fn readyz(State(pages): State<Pages>) -> Response {
    if pages.ready.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered yet\n").into_response()
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match pages.metrics.encode(Timestamp::now()) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("encode the metrics: {error}\n")).into_response(),
    }
}
