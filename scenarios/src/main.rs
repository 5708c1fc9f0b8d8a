//! `demo up [--keep]` does the demo; `demo down` removes what it left.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sandbox::Sandbox;
use scenarios::demo;
use scenarios::environment::Environment;

#[derive(Parser)]
#[command(about = "Backs a namespace up, destroys it, and brings it back in another cluster", version)]
struct Arguments {
    /// Where the clusters are, or what is known of those that are given [default: demo in the sandbox's directory]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
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
    /// Ends what `up --keep`, or an `up` that was interrupted, has left running, and removes every trace of it.
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
    let arguments = Arguments::parse();
    let is_default = arguments.dir.is_none();
    let directory = arguments.dir.unwrap_or_else(Environment::default_directory);
    let done = match arguments.command {
        Command::Up { keep } => up(&directory, keep).await,
        Command::Down => demo::down(&directory).await,
    };
    if is_default {
        // Made for the demo; it stays while there is anything else in it, or the demo itself.
        drop(std::fs::remove_dir(Sandbox::default_directory()));
    }
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does the demo, and says what to do when it is interrupted: what it has started by then goes on.
async fn up(directory: &Path, keep: bool) -> anyhow::Result<bool> {
    tokio::select! {
        done = demo::up(directory, keep) => done,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            anyhow::bail!("interrupted: `make demo-down` ends what has been started")
        }
    }
}
