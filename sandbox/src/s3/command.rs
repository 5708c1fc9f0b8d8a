//! The S3 server as a program of its own, for the demo.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::{Credentials, S3Server};

/// What the server is told when it is a program of its own.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the buckets; made if it is not there
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Access key that clients must have
    #[arg(long, value_name = "KEY", env = "AWS_ACCESS_KEY_ID")]
    access_key: String,
    /// Secret key that clients must sign with
    #[arg(long, value_name = "KEY", env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: String,
    /// Bucket to make if it is not there; may be given more than once
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
}

/// Serves until the program is told to end by SIGINT or SIGTERM; the first line of output is the endpoint's URL.
pub async fn run(arguments: Arguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let Arguments { root, listen, access_key, secret_key, bucket } = arguments;
    let server = S3Server::start_on(listen, root, Credentials { access_key, secret_key })?;
    for bucket in &bucket {
        server.create_bucket(bucket)?;
    }
    println!("{}", server.endpoint());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
