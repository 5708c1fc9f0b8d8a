//! `orlop repo pin` and `unpin`.

use clap::Args;
use jiff::Timestamp;
use repository::PointId;
use serde::Serialize;

use super::PlaceArgs;
use super::open::{explain, point};
use crate::error::{Error, Exit, Result};
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The recovery point, or `latest`
    id: String,
    /// Why it must stay, for whoever wants to forget it; it is stored unencrypted
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// The recovery point
    id: String,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

/// What `pin` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pinned {
    recovery_point: String,
    reason: String,
    /// Since when; absent after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    dry_run: bool,
}

/// What `unpin` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unpinned {
    recovery_point: String,
    dry_run: bool,
}

pub(super) async fn pin(place: &PlaceArgs, args: &PinArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    // One that is damaged has a name all the same; only `latest` must be looked up.
    let id: PointId = match args.id.parse() {
        Ok(id) if args.id != super::open::LATEST => id,
        _ => point(&repository, &args.id).await?.id,
    };
    let created = match args.dry_run {
        true => repository.may_pin(&id, &args.reason).await.map(|()| None),
        false => repository.pin(&id, &args.reason, Timestamp::now()).await.map(|pin| Some(pin.created)),
    };
    let created = created.map_err(|e| explain(format!("pin {id}"), e))?;
    let dry_run = args.dry_run;
    let done = Pinned { recovery_point: id.to_string(), reason: args.reason.clone(), created, dry_run };
    let table = || match dry_run {
        true => format!("{id} would be pinned: {} (dry run: nothing was changed)\n", done.reason),
        false => format!("{id} is pinned: {}\n", done.reason),
    };
    output::print(&output::render(format, &done, table, || format!("{id}\n"))?)?;
    Ok(Exit::Succeeded)
}

pub(super) async fn unpin(place: &PlaceArgs, args: &UnpinArgs, format: Format) -> Result<Exit> {
    let what = format!("unpin {}", args.id);
    let id: PointId = args.id.parse().map_err(|e| Error::usage(&what).because(e))?;
    let repository = place.open().await?;
    let was_pinned = match args.dry_run {
        true => repository.is_pinned(&id).await,
        false => repository.unpin(&id).await,
    };
    if !was_pinned.map_err(|e| explain(&what, e))? {
        return Err(Error::new(format!("{what}: it is not pinned")).next("orlop repo list shows what is pinned"));
    }
    let done = Unpinned { recovery_point: id.to_string(), dry_run: args.dry_run };
    let table = || match args.dry_run {
        true => format!("{id} would not be pinned any more (dry run: nothing was changed)\n"),
        false => format!("{id} is not pinned any more.\n"),
    };
    output::print(&output::render(format, &done, table, || format!("{id}\n"))?)?;
    Ok(Exit::Succeeded)
}
