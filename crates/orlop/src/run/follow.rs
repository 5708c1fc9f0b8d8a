//! Waiting for a resource to get where it should be; following a run to its end.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::display::Display;
use super::view::Run;
use crate::cluster::{Cluster, is_lasting};
use crate::error::{Error, Exit, Result};
use crate::human::{self, parse_duration};
use crate::output::{self, Format};
use crate::verbs::Kind;

/// Whether to wait, and how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Wait for the end of the run, and show how it goes on
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait at most this long, such as 90s or 1h30m; the run goes on all the same
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
}

/// Shows a run until it ends, prints its summary, and says how the process ends for it.
pub(crate) async fn see_through<K: Run + Kind>(
    cluster: &Cluster,
    name: &str,
    timeout: Option<Duration>,
    format: Format,
) -> Result<Exit> {
    let mut display = Display::new();
    let what = format!("wait for {} {name}", K::NOUN);
    let end = watch_until(cluster, cluster.api::<K>(), name, &what, timeout, |state| {
        let Some(run) = state else {
            return Err(Error::new(format!("{what}: it was deleted before its end was seen")));
        };
        let view = run.view();
        display.update(&view);
        Ok(view.phase.is_final().then_some(run))
    })
    .await;
    display.end();
    let end: K = end.map_err(|e| match e.exit_code() {
        Exit::TimedOut | Exit::Interrupted => {
            e.next(format!("orlop {} show {name} -n {}", K::NOUN, cluster.namespace()))
        }
        _ => e,
    })?;
    let view = end.view();
    output::print(&output::resource(format, &end, || view.summary())?)?;
    Ok(view.exit())
}

/// Watches a resource until `judge` has what it waits for. `judge` is given `None` while the resource does not exist.
///
/// Lost connections and servers that are busy are waited out; what the server refuses for good ends the wait, and so do the time limit
/// and the interrupt key.
pub(crate) async fn watch_until<K, T>(
    cluster: &Cluster,
    api: Api<K>,
    name: &str,
    what: &str,
    timeout: Option<Duration>,
    judge: impl FnMut(Option<K>) -> Result<Option<T>>,
) -> Result<T>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let states = pin!(watcher::watch_object(api, name).default_backoff());
    let limit = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        end = judge_all(cluster, what, states, judge) => end,
        () = limit => {
            let limit = human::took(timeout.unwrap_or_default());
            Err(Error::new(format!("{what}: not within {limit}; it goes on without being watched")).exit(Exit::TimedOut))
        }
        interrupt = tokio::signal::ctrl_c() => match interrupt {
            Ok(()) => Err(Error::new(format!("{what}: interrupted; it goes on without being watched")).exit(Exit::Interrupted)),
            Err(e) => Err(Error::new("listen for the interrupt key").because(e)),
        }
    }
}

async fn judge_all<K, T>(
    cluster: &Cluster,
    what: &str,
    mut states: impl Stream<Item = watcher::Result<Option<K>>> + Unpin,
    mut judge: impl FnMut(Option<K>) -> Result<Option<T>>,
) -> Result<T> {
    loop {
        match states.next().await {
            Some(Ok(state)) => {
                if let Some(end) = judge(state)? {
                    return Ok(end);
                }
            }
            Some(Err(e)) => again(cluster, what, e)?,
            None => return Err(Error::new(format!("{what}: the watch ended by itself"))),
        }
    }
}

/// Passes errors that are worth another try; the stream backs off by itself.
fn again(cluster: &Cluster, what: &str, error: watcher::Error) -> Result<()> {
    match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e)
            if is_lasting(&e) =>
        {
            Err(cluster.explain(what, e))
        }
        passing => {
            tracing::debug!(error = %passing, "the watch is begun again");
            Ok(())
        }
    }
}
