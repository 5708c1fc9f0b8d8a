//! `demo up [--keep]` does the demo; `demo down` removes what it left.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Backs a namespace up, destroys it, and brings it back in another cluster", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Does the demo.
    Up {
        /// Leaves clusters and servers running, and says how to look around.
        #[arg(long)]
        keep: bool,
    },
    /// Ends what `up --keep` left running, and removes every trace of it.
    Down,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,kube_client=off".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    let done = match Arguments::parse().command {
        Command::Up { keep } => scenarios::demo::up(keep).await,
        Command::Down => scenarios::demo::down().await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}
