//! A server in a test's process that answers also while the test blocks.

use std::future::Future;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use tokio::runtime;
use tokio::sync::oneshot;

/// Work on a thread and a runtime of its own; ended, with all that it spawned, when this is dropped.
///
/// On the test's own runtime a server would stand still while the test waits for a child process, which is what tests of
/// command lines do.
#[derive(Debug)]
pub(crate) struct Background {
    // Dropping the sender is the signal to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Runs what `prepare` makes; `prepare` is called in the context of the new runtime.
    pub(crate) fn run<F, W>(name: &str, prepare: F) -> Result<Self>
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = ()>,
    {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .with_context(|| format!("make a runtime for {name}"))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = prepare() => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.with_context(|| format!("start a thread for {name}"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!(?panic, "a background server panicked");
        }
    }
}
