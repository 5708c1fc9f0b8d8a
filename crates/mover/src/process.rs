//! From a job to its outcome, and the process around it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use repository::{Repository, RetryPolicy};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Error;
use crate::job::{Direction, Form, Job};
use crate::outcome::{Outcome, Restore};
use crate::report::Lines;
use crate::{backup, device, restore};

/// How long work may take to end by itself after it was told to stop, before it is dropped where it is. Well under the 30
/// seconds after which the kubelet kills a pod.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Does a job. Every failure is in the outcome.
pub async fn run(job: &Job, lines: &Lines, cancel: &CancellationToken) -> Outcome {
    let started = Instant::now();
    let stop = async {
        cancel.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    let result = tokio::select! {
        result = work(job, lines, cancel) => result,
        () = stop => Err(Error::Stopped),
    };
    let mut outcome = result.unwrap_or_else(|error| Outcome::failed(&error));
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome
}

async fn work(job: &Job, lines: &Lines, cancel: &CancellationToken) -> Result<Outcome, Error> {
    let store = job.store.open(RetryPolicy::default())?;
    let repository = Repository::open(store, &job.passphrase).await?;
    match &job.direction {
        Direction::Backup { point, parents, content } => {
            let run = backup::Run {
                repository: &repository,
                volume: &job.volume,
                form: job.form,
                point,
                parents,
                content,
                lines,
                cancel,
            };
            let backup = run.backup().await?;
            Ok(Outcome::of_backup(backup))
        }
        Direction::Restore { root, expected, resumes } => {
            let (repository, expected, resumes) = (&repository, *expected, *resumes);
            let run = restore::Run { repository, root, expected, resumes, lines, cancel };
            let restore = match job.form {
                Form::Files => restore::restore(&run, &job.volume).await?,
                Form::Image => Restore::Image(device::restore(&run, &job.volume).await?),
            };
            Ok(Outcome::of_restore(restore))
        }
    }
}

/// What the process of a mover does: reads the job, does it, ends early at SIGTERM, and leaves the outcome in `message`
/// and in the last line of `lines`. The exit code is 0 only when the outcome is `ok`.
pub async fn run_process(job_file: &Path, message: &Path, lines: Lines) -> ExitCode {
    let cancel = CancellationToken::new();
    let outcome = match (read_job(job_file), stop_at_signal(&cancel)) {
        (Err(error), _) => Outcome::failed(&error),
        (Ok(job), watched) => {
            if let Err(error) = watched {
                tracing::warn!(%error, "watch for SIGTERM; the mover ends when it is killed");
            }
            run(&job, &lines, &cancel).await
        }
    };
    let text = outcome.to_message();
    let stored = write_message(message, &text);
    if let Err(error) = &stored {
        tracing::error!(%error, path = %message.display(), "write the outcome");
    }
    lines.write(&text);
    if outcome.ok && stored.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read_job(path: &Path) -> Result<Job, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::JobFile { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| Error::JobFormat { path: path.to_owned(), source })
}

fn stop_at_signal(cancel: &CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let cancel = cancel.clone();
    tokio::spawn(async move {
        if terminate.recv().await.is_some() {
            tracing::info!("told to stop by SIGTERM");
            cancel.cancel();
        }
    });
    Ok(())
}

/// Writes the message in one call, so that nobody reads a part of it. The file cannot be replaced by another: the kubelet
/// mounts it into the container.
fn write_message(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}
