//! `orlop repo export`: recovery points as snapshots of a restic repository.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Args;
use repository::{Counters, Recipient, RecoveryPoint};
use restic::Exported;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::PlaceArgs;
use super::open::{explain, explain_tree, explain_volume, point};
use super::progress::Show;
use super::restore::tell;
use crate::error::{Error, Exit, Result};
use crate::human;
use crate::interrupt::until_interrupted;
use crate::location_add::read_secret;
use crate::output::{self, Format};

/// What the target begins with; other formats may follow.
const SCHEME: &str = "restic:";

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The recovery points, or `latest`
    #[arg(required = true)]
    ids: Vec<String>,
    /// Where to: the folder of a restic repository, which is made if there is none. What is in it already is not stored again
    #[arg(long, value_name = "restic:PATH")]
    to: String,
    /// File with the password of the restic repository; else it is the passphrase of the first one
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
}

/// What `export` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    target: PathBuf,
    snapshots: Vec<Exported>,
    seconds: f64,
}

pub(super) async fn run(place: &PlaceArgs, args: &ExportArgs, format: Format) -> Result<Exit> {
    let (target, recipient) = (target(&args.to)?, place.recipient().await?);
    let password = password(&recipient, args.to_password_file.as_deref())?;
    let repository = place.open_with(&recipient).await?;
    let mut points: Vec<RecoveryPoint> = Vec::new();
    for id in &args.ids {
        let point = point(&repository, id).await?;
        if points.iter().all(|known| known.id != point.id) {
            points.push(point);
        }
    }
    let clock = Instant::now();
    let cancel = CancellationToken::new();
    let what = format!("export to {}", args.to);
    let show = Show::start(what.clone());
    show.progress().total(total(&points));
    let options = restic::Options {
        path: target.clone(),
        password,
        host: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned()),
        program: format!("orlop {}", env!("CARGO_PKG_VERSION")),
        cancel: cancel.clone(),
    };
    let snapshots = Arc::new(Mutex::new(Vec::new()));
    let exported = snapshots.clone();
    let done = move |one| exported.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    let export = async {
        restic::export(&repository, points, options, show.progress(), done).await.map_err(|e| explain_export(what, e))
    };
    let ended = until_interrupted(&cancel, export).await;
    drop(show);
    let snapshots = std::mem::take(&mut *snapshots.lock().unwrap_or_else(PoisonError::into_inner));
    let done = Done { target, snapshots, seconds: clock.elapsed().as_secs_f64() };
    // What was exported before a failure is there, and is told.
    if ended.is_ok() || !done.snapshots.is_empty() {
        let names = || done.snapshots.iter().map(|one| format!("{}\n", one.snapshot)).collect();
        output::print(&output::render(format, &done, || table(&done), names)?)?;
    }
    for snapshot in &done.snapshots {
        tell(&snapshot.recovery_point, "not as it was", &snapshot.changed);
    }
    ended?;
    let whole = done.snapshots.iter().all(|snapshot| snapshot.changed.is_empty());
    Ok(if whole { Exit::Succeeded } else { Exit::Incomplete })
}

fn target(to: &str) -> Result<PathBuf> {
    match to.strip_prefix(SCHEME) {
        Some(path) if !path.is_empty() => Ok(Path::new(path).to_owned()),
        _ => Err(Error::usage(format!("export to {to:?}: this is no place that is known")).next("write restic:PATH")),
    }
}

/// The password, as restic will read it from the same file.
fn password(first: &Recipient, file: Option<&Path>) -> Result<String> {
    let (what, text) = match file {
        Some(path) => {
            let what = format!("read {}", path.display());
            let text = String::from_utf8(read_secret(path)?);
            (what.clone(), text.map_err(|_| Error::new(format!("{what}: a password is text")))?)
        }
        None => match first {
            Recipient::Passphrase(passphrase) => ("take the passphrase".to_owned(), passphrase.expose().to_owned()),
            Recipient::Kms(_) => {
                return Err(Error::usage("the password of the restic repository is missing")
                    .next("give --to-password-file: restic opens nothing with a key of a service"));
            }
        },
    };
    if text.trim() == text {
        Ok(text)
    } else {
        Err(Error::new(format!("{what}: restic would leave out the white space around the password"))
            .next("give --to-password-file and a password without it"))
    }
}

fn total(points: &[RecoveryPoint]) -> Counters {
    let sum = |count: fn(&repository::Root) -> u64| points.iter().flat_map(|point| &point.roots).map(count).sum();
    Counters { files: sum(|root| root.files), bytes: sum(|root| root.bytes), new_bytes: 0 }
}

fn explain_export(what: String, error: restic::Error) -> Error {
    match error {
        restic::Error::Source(error) => explain(what, error),
        restic::Error::Tree(error) => explain_tree(what, error),
        restic::Error::Volume(error) => explain_volume(what, error),
        other => Error::new(what).because(other),
    }
}

fn table(done: &Done) -> String {
    let row = |one: &Exported| {
        let short: String = one.snapshot.chars().take(8).collect();
        if one.existed {
            return [
                one.recovery_point.clone(),
                short,
                human::dash(),
                human::dash(),
                human::dash(),
                "was there".to_owned(),
            ];
        }
        let (bytes, new) = (human::bytes(one.bytes), human::bytes(one.new_bytes));
        [one.recovery_point.clone(), short, one.files.to_string(), bytes, new, human::bytes(one.stored_bytes)]
    };
    let header = ["RECOVERY POINT", "SNAPSHOT", "FILES", "BYTES", "NEW", "STORED"];
    let text = output::table(header, done.snapshots.iter().map(row));
    let (path, seconds) = (done.target.display(), done.seconds);
    format!(
        "{text}\nExported in {seconds:.1} s; every byte that was read was verified. Now: restic -r {path} check --read-data\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_folder_of_restic() {
        for (to, expected) in
            [("restic:/a/b", Some("/a/b")), ("restic:a", Some("a")), ("restic:", None), ("/a", None), ("tar:/a", None)]
        {
            assert_eq!(target(to).ok(), expected.map(PathBuf::from), "{to}");
        }
    }
}
