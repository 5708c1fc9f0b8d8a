//! In place of livenessprobe: `/healthz` says what `Probe` of the driver says.

use crate::driver;
use crate::flags::{ToDriver, duration};
use crate::proto;
use crate::proto::identity_client::IdentityClient;
use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The socket of the driver
    #[arg(long, default_value = "/run/csi/socket")]
    csi_address: PathBuf,
    /// Where to answer
    #[arg(long, default_value_t = 9808)]
    health_port: u16,
    /// The longest that a probe may take
    #[arg(long, default_value = "3s", value_parser = duration)]
    probe_timeout: Duration,
}

#[derive(Debug, Clone)]
struct Probe {
    channel: Channel,
    timeout: Duration,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { csi_address, health_port, probe_timeout: timeout } = arguments;
    let channel = driver::channel(&ToDriver { csi_address, timeout })?;
    let app = Router::new().route("/healthz", get(healthz)).with_state(Probe { channel, timeout });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, health_port)).await;
    let listener = listener.with_context(|| format!("listen on port {health_port}"))?;
    axum::serve(listener, app).await.context("answer")
}

async fn healthz(State(probe): State<Probe>) -> (StatusCode, String) {
    let request = driver::timed(proto::ProbeRequest {}, probe.timeout);
    match IdentityClient::new(probe.channel).probe(request).await {
        Ok(answer) if answer.get_ref().ready != Some(false) => (StatusCode::OK, "ok".to_owned()),
        Ok(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the driver is not ready".to_owned()),
        Err(status) => (StatusCode::INTERNAL_SERVER_ERROR, status.to_string()),
    }
}
