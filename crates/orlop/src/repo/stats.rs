//! `orlop repo stats`: what recovery points and the repository take in space.

use std::collections::BTreeSet;

use clap::Args;
use jiff::Timestamp;
use repository::accounting::{self, PointSpace, RepositorySpace};
use serde::Serialize;

use super::PlaceArgs;
use super::open::{explain, point};
use crate::error::{Exit, Result};
use crate::human;
use crate::output::{self, Format};

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// The recovery points, or `latest`; else all
    ids: Vec<String>,
}

/// What `stats` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    recovery_points: Vec<PointStats>,
    repository: RepositoryStats,
}

/// See [`PointSpace`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PointStats {
    id: String,
    created: Timestamp,
    source_bytes: u64,
    reachable_bytes: u64,
    unique_bytes: u64,
    shared_bytes: u64,
    freed_bytes: u64,
}

/// See [`RepositorySpace`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RepositoryStats {
    objects: u64,
    bytes: u64,
    packs: u64,
    pack_bytes: u64,
    recovery_points: u64,
    blobs: u64,
    source_bytes: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    unused_packs: u64,
    unused_pack_bytes: u64,
    dead_bytes: u64,
    missing_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deduplication_ratio: Option<f64>,
}

pub(super) async fn run(place: &PlaceArgs, args: &StatsArgs, format: Format) -> Result<Exit> {
    let repository = place.open().await?;
    let mut wanted = BTreeSet::new();
    for name in &args.ids {
        wanted.insert(point(&repository, name).await?.id);
    }
    let measured = accounting::measure(&repository).await;
    let space = measured.map_err(|e| explain("measure: what cannot be read may share anything with the rest", e))?;
    let points = space.points.iter().filter(|point| wanted.is_empty() || wanted.contains(&point.id));
    let stats = Stats {
        recovery_points: points.map(PointStats::new).collect(),
        repository: RepositoryStats::new(&space.repository, space.points.len() as u64),
    };
    let names = || stats.recovery_points.iter().map(|point| format!("{}\n", point.id)).collect();
    output::print(&output::render(format, &stats, || table(&stats), names)?)?;
    Ok(Exit::Succeeded)
}

impl PointStats {
    fn new(space: &PointSpace) -> Self {
        Self {
            id: space.id.to_string(),
            created: space.created,
            source_bytes: space.source_bytes,
            reachable_bytes: space.reachable_bytes,
            unique_bytes: space.unique_bytes,
            shared_bytes: space.shared_bytes(),
            freed_bytes: space.freed_bytes,
        }
    }
}

impl RepositoryStats {
    fn new(space: &RepositorySpace, recovery_points: u64) -> Self {
        Self {
            objects: space.objects,
            bytes: space.bytes,
            packs: space.packs,
            pack_bytes: space.pack_bytes,
            recovery_points,
            blobs: space.blobs,
            source_bytes: space.source_bytes,
            plain_bytes: space.plain_bytes,
            stored_bytes: space.stored_bytes,
            unused_packs: space.unused_packs,
            unused_pack_bytes: space.unused_pack_bytes,
            dead_bytes: space.dead_bytes,
            missing_bytes: space.missing_bytes,
            compression_ratio: space.compression(),
            deduplication_ratio: space.deduplication(),
        }
    }
}

fn table(stats: &Stats) -> String {
    let mut text = String::new();
    if !stats.recovery_points.is_empty() {
        let row = |point: &PointStats| {
            [
                point.id.clone(),
                human::instant(point.created),
                human::bytes(point.source_bytes),
                human::bytes(point.reachable_bytes),
                human::bytes(point.shared_bytes),
                human::bytes(point.unique_bytes),
                human::bytes(point.freed_bytes),
            ]
        };
        let header = ["RECOVERY POINT", "CREATED", "SOURCE", "STORED", "SHARED", "UNIQUE", "FREES PACKS OF"];
        text = output::table(header, stats.recovery_points.iter().map(row));
        text.push('\n');
    }
    let repository = &stats.repository;
    let ratio = |ratio: Option<f64>| ratio.map_or_else(human::dash, |ratio| format!("{ratio:.2}"));
    let unused = human::count(repository.unused_packs, "pack", "packs");
    text.push_str(&output::fields([
        ("Objects", format!("{}, {}", repository.objects, human::bytes(repository.bytes))),
        ("Packs", format!("{}, {}", repository.packs, human::bytes(repository.pack_bytes))),
        (
            "Needed",
            format!("{} in {}", human::bytes(repository.stored_bytes), human::count(repository.blobs, "blob", "blobs")),
        ),
        ("Needed by nothing", format!("{} in {unused}", human::bytes(repository.unused_pack_bytes))),
        ("Dead in other packs", human::bytes(repository.dead_bytes)),
        ("Missing", human::bytes(repository.missing_bytes)),
        ("Compression", ratio(repository.compression_ratio)),
        ("Deduplication", ratio(repository.deduplication_ratio)),
    ]));
    text
}
