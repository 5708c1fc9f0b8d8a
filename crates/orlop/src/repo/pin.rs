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
}

#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// The recovery point
    id: String,
}

/// What `pin` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pinned {
    recovery_point: String,
    reason: String,
    created: Timestamp,
}

/// What `unpin` did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unpinned {
    recovery_point: String,
}

pub(super) async fn pin(place: &PlaceArgs, args: &PinArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    // One that is damaged has a name all the same; only `latest` must be looked up.
    let id: PointId = match args.id.parse() {
        Ok(id) if args.id != super::open::LATEST => id,
        _ => point(&repository, &args.id).await?.id,
    };
    let pin = repository.pin(&id, &args.reason, Timestamp::now()).await;
    let pin = pin.map_err(|e| explain(format!("pin {id}"), e))?;
    let done = Pinned { recovery_point: id.to_string(), reason: pin.reason, created: pin.created };
    let table = || format!("{id} is pinned: {}\n", done.reason);
    output::print(&output::render(format, &done, table, || format!("{id}\n"))?)?;
    Ok(Exit::Succeeded)
}

pub(super) async fn unpin(place: &PlaceArgs, args: &UnpinArgs, format: Format) -> Result<Exit> {
    let what = format!("unpin {}", args.id);
    let id: PointId = args.id.parse().map_err(|e| Error::usage(&what).because(e))?;
    let repository = place.open().await?;
    if !repository.unpin(&id).await.map_err(|e| explain(&what, e))? {
        return Err(Error::new(format!("{what}: it is not pinned")).next("orlop repo list shows what is pinned"));
    }
    let done = Unpinned { recovery_point: id.to_string() };
    let table = || format!("{id} is not pinned any more.\n");
    output::print(&output::render(format, &done, table, || format!("{id}\n"))?)?;
    Ok(Exit::Succeeded)
}
