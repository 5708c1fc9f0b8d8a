//! Logs: to standard error, as text or JSON, as much as `RUST_LOG` says.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// How logs are written.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// How logs are written; RUST_LOG says which
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        global = true,
        env = "ORLOP_LOG_FORMAT",
        hide_env_values = true,
        help_heading = "Output"
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    // No documentation comments on these: help would give each a paragraph.
    Text,
    Json,
}

/// Daemons tell what they do; commands only warn, since they answer by themselves.
fn default_filter(daemon: bool) -> &'static str {
    if daemon { "info,kube_client=warn" } else { "warn,kube_runtime=error,kube_client=error" }
}

/// Begins to write logs.
pub(crate) fn start(args: &LogArgs, daemon: bool) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter).map_err(|e| {
            Error::usage(format!("RUST_LOG: {filter:?} cannot be understood"))
                .because(e)
                .next("write, for example, info or warn,operator=debug")
        })?,
        _ => EnvFilter::new(default_filter(daemon)),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    started.map_err(|e| Error::new("begin to write logs").because(e))
}
