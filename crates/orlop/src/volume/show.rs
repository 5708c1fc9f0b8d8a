//! Pools, volumes and snapshots as they are printed: tables for people, and structs with the same names for programs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use node::proto;
use serde::Serialize;

use crate::error::Result;
use crate::human;
use crate::output::{self, Format};

/// Something that is printed by itself or in a list.
pub(super) trait Shown: Serialize {
    const HEADINGS: &'static [&'static str];
    fn name(&self) -> &str;
    fn cells(&self) -> Vec<String>;

    /// What is told below the table of one, and is too much for a list.
    fn more(&self) -> String {
        String::new()
    }
}

pub(super) fn list<T: Shown>(format: Format, items: &[T]) -> Result<()> {
    let table = || output::table(T::HEADINGS, items.iter().map(Shown::cells));
    let names = || items.iter().map(|item| format!("{}\n", item.name())).collect();
    output::print(&output::render(format, &items, table, names)?)
}

pub(super) fn one<T: Shown>(format: Format, item: &T) -> Result<()> {
    let table = || output::table(T::HEADINGS, [item.cells()]) + &item.more();
    output::print(&output::render(format, item, table, || format!("{}\n", item.name()))?)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pool {
    name: String,
    bytes: u64,
    free_bytes: u64,
    state: &'static str,
}

impl From<proto::Pool> for Pool {
    fn from(pool: proto::Pool) -> Self {
        let state = match (pool.failed, pool.full) {
            (true, _) => "failed",
            (_, true) => "full",
            _ => "ready",
        };
        Self { name: pool.name, bytes: pool.bytes, free_bytes: pool.free_bytes, state }
    }
}

impl Shown for Pool {
    const HEADINGS: &'static [&'static str] = &["NAME", "SIZE", "FREE", "STATE"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), human::bytes(self.bytes), human::bytes(self.free_bytes), self.state.to_owned()]
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    name: String,
    pool: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iops_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second_limit: Option<u64>,
    encryption: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<Attached>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl From<proto::Volume> for Volume {
    fn from(volume: proto::Volume) -> Self {
        let encryption = encryption(volume.encryption());
        let limits = volume.limits.unwrap_or_default();
        let limit = |limit| Some(limit).filter(|limit| *limit != 0);
        Self {
            name: volume.name,
            pool: volume.pool,
            bytes: volume.bytes,
            origin: Some(volume.origin).filter(|origin| !origin.is_empty()),
            created: instant(volume.created),
            iops_limit: limit(limits.iops),
            bytes_per_second_limit: limit(limits.bytes_per_second),
            encryption,
            attached: volume.attachment.map(Attached::from),
            labels: volume.labels.into_iter().collect(),
        }
    }
}

impl Shown for Volume {
    const HEADINGS: &'static [&'static str] = &["NAME", "POOL", "SIZE", "ENCRYPTION", "LIMITS", "ORIGIN", "ATTACHED"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        let iops = self.iops_limit.map(|limit| format!("{limit} IOPS"));
        let bandwidth = self.bytes_per_second_limit.map(|limit| format!("{}/s", human::bytes(limit)));
        let limits: Vec<_> = iops.into_iter().chain(bandwidth).collect();
        vec![
            self.name.clone(),
            self.pool.clone(),
            human::bytes(self.bytes),
            self.encryption.to_owned(),
            if limits.is_empty() { human::dash() } else { limits.join(", ") },
            human::maybe(self.origin.clone()),
            place(self.attached.as_ref()),
        ]
    }

    fn more(&self) -> String {
        if self.labels.is_empty() {
            return String::new();
        }
        let labels = self.labels.iter().map(|(key, value)| vec![key.clone(), value.clone()]);
        format!("\n{}", output::table(&["LABEL", "VALUE"], labels))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    name: String,
    pool: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Timestamp>,
    encryption: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attached: Option<Attached>,
}

impl From<proto::Snapshot> for Snapshot {
    fn from(snapshot: proto::Snapshot) -> Self {
        Self {
            encryption: encryption(snapshot.encryption()),
            name: snapshot.name,
            pool: snapshot.pool,
            bytes: snapshot.bytes,
            created: instant(snapshot.created),
            attached: snapshot.attachment.map(Attached::from),
        }
    }
}

impl Shown for Snapshot {
    const HEADINGS: &'static [&'static str] = &["NAME", "POOL", "SIZE", "ENCRYPTION", "CREATED", "ATTACHED"];

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.pool.clone(),
            human::bytes(self.bytes),
            self.encryption.to_owned(),
            self.created.map_or_else(human::dash, human::instant),
            place(self.attached.as_ref()),
        ]
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attached {
    front_end: &'static str,
    place: String,
    read_only: bool,
}

impl From<proto::Attachment> for Attached {
    fn from(attachment: proto::Attachment) -> Self {
        let front_end = match attachment.front_end() {
            proto::FrontEnd::Nbd => "nbd",
            _ => "device",
        };
        Self { front_end, place: attachment.place, read_only: attachment.read_only }
    }
}

impl Shown for Attached {
    const HEADINGS: &'static [&'static str] = &["PLACE", "MODE"];

    fn name(&self) -> &str {
        &self.place
    }

    fn cells(&self) -> Vec<String> {
        vec![self.place.clone(), if self.read_only { "read-only" } else { "read-write" }.to_owned()]
    }
}

fn place(attached: Option<&Attached>) -> String {
    human::maybe(attached.map(|attached| attached.place.clone()))
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Ranges(Vec<Range>);

#[derive(Debug, Serialize)]
struct Range {
    offset: u64,
    length: u64,
}

impl From<Vec<proto::Range>> for Ranges {
    fn from(ranges: Vec<proto::Range>) -> Self {
        Self(ranges.into_iter().map(|range| Range { offset: range.offset, length: range.length }).collect())
    }
}

impl Shown for Ranges {
    const HEADINGS: &'static [&'static str] = &["RANGES"];

    fn name(&self) -> &'static str {
        "ranges"
    }

    fn cells(&self) -> Vec<String> {
        vec![self.0.len().to_string()]
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Operations {
    count: u64,
    bytes: u64,
    failed: u64,
    mean_microseconds: Option<f64>,
}

impl From<Option<proto::Operations>> for Operations {
    fn from(operations: Option<proto::Operations>) -> Self {
        let proto::Operations { count, bytes, failed, nanoseconds } = operations.unwrap_or_default();
        #[allow(clippy::cast_precision_loss)]
        let mean = (count > 0).then(|| nanoseconds as f64 / count as f64 / 1000.0);
        Self { count, bytes, failed, mean_microseconds: mean }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    reads: Operations,
    writes: Operations,
    flushes: Operations,
    discards: Operations,
    in_flight: u64,
}

impl From<proto::Stats> for Stats {
    fn from(stats: proto::Stats) -> Self {
        Self {
            reads: stats.reads.into(),
            writes: stats.writes.into(),
            flushes: stats.flushes.into(),
            discards: stats.discards.into(),
            in_flight: stats.in_flight,
        }
    }
}

impl Shown for Stats {
    const HEADINGS: &'static [&'static str] = &["READS", "WRITES", "FLUSHES", "DISCARDS", "IN FLIGHT"];

    fn name(&self) -> &'static str {
        "stats"
    }

    fn cells(&self) -> Vec<String> {
        let cell = |operations: &Operations| {
            let mut text = operations.count.to_string();
            if operations.bytes > 0 {
                text.push_str(&format!(", {}", human::bytes(operations.bytes)));
            }
            if let Some(mean) = operations.mean_microseconds {
                text.push_str(&format!(", {mean:.0} us each"));
            }
            if operations.failed > 0 {
                text.push_str(&format!(", {} failed", operations.failed));
            }
            text
        };
        let mut cells: Vec<_> = [&self.reads, &self.writes, &self.flushes, &self.discards].map(cell).into();
        cells.push(self.in_flight.to_string());
        cells
    }
}

fn encryption(encryption: proto::Encryption) -> &'static str {
    match encryption {
        proto::Encryption::Aes256Xts => "AES-256-XTS",
        proto::Encryption::KeyDestroyed => "key destroyed",
        _ => "none",
    }
}

fn instant(seconds: u64) -> Option<Timestamp> {
    i64::try_from(seconds).ok().filter(|seconds| *seconds > 0).and_then(|seconds| Timestamp::from_second(seconds).ok())
}
