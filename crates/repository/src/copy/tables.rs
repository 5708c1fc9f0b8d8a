//! Building tables again around the references of the other repository.

use super::blobs::Blobs;
use super::pairs::Pairs;
use crate::error::Result;
use crate::ids::{BlobRef, TableRef};
use crate::layout;
use crate::references::{self, Values};
use crate::repository::Repository;
use crate::table::{Builder, Reader};
use crate::writer::Writer;
use bytes::Bytes;
use futures::TryStreamExt;
use std::pin::Pin;

/// Most entries that wait for their blobs.
const BATCH_ENTRIES: usize = 4096;
/// Plain bytes of blobs that are read for one batch: with what is in the packs, they are in memory.
const BATCH_LEN: u64 = 8 << 20;

/// Copies tables; all of one recovery point share what is known of blobs.
pub(super) struct Tables {
    pub(super) from: Repository,
    pub(super) writer: Writer,
    pub(super) blobs: Blobs,
}

/// An entry on its way.
enum Waiting {
    /// As the other repository has it.
    Done(Bytes, Bytes),
    /// As it is here, with its blobs here, and its tables there.
    Open { key: Bytes, value: Bytes, blobs: Vec<BlobRef>, tables: Vec<TableRef> },
}

/// Entries that wait, and what they wait for.
#[derive(Default)]
struct Batch {
    entries: Vec<Waiting>,
    bytes: u64,
}

impl Tables {
    /// Copies a table and everything that it refers to. `base` is an earlier state of it, here and there.
    pub(super) fn copy(
        &mut self,
        table: TableRef,
        values: Values,
        base: Option<(TableRef, TableRef)>,
    ) -> Pin<Box<dyn Future<Output = Result<TableRef>> + Send + '_>> {
        Box::pin(self.copy_table(table, values, base))
    }

    async fn copy_table(
        &mut self,
        table: TableRef,
        values: Values,
        base: Option<(TableRef, TableRef)>,
    ) -> Result<TableRef> {
        let to = self.writer.repository().clone();
        let mut builder = match &base {
            Some((_, there)) => Builder::with_parent(&self.writer, there),
            None => Builder::new(&self.writer),
        };
        let mut pairs = match base {
            Some(tables) => Some(Pairs::new(&self.from, &to, tables, values).await?),
            None => None,
        };
        let mut batch = Batch::default();
        let mut entries = std::pin::pin!(Reader::new(&self.from, table).scan(&[]));
        while let Some((key, value)) = entries.try_next().await? {
            let entry = self.entry(&table, values, key, value, pairs.as_mut(), &mut batch.bytes).await?;
            batch.entries.push(entry);
            if batch.entries.len() >= BATCH_ENTRIES || batch.bytes >= BATCH_LEN {
                self.land(&table, values, std::mem::take(&mut batch), &mut builder).await?;
            }
        }
        self.land(&table, values, batch, &mut builder).await?;
        builder.finish().await
    }

    async fn entry(
        &mut self,
        table: &TableRef,
        values: Values,
        key: Bytes,
        value: Bytes,
        pairs: Option<&mut Pairs>,
        bytes: &mut u64,
    ) -> Result<Waiting> {
        let mut earlier = None;
        if let Some(pairs) = pairs {
            while let Some(pair) = pairs.up_to(&key).await? {
                let Some(matched) = pairs.matched(&pair)? else { continue };
                if pair.0 == key && pair.1 == value {
                    self.blobs.learn(&matched.0.blobs, &matched.1.blobs);
                    return Ok(Waiting::Done(key, pair.2));
                }
                self.blobs.learn(&matched.0.blobs, &matched.1.blobs);
                earlier = (pair.0 == key).then_some(matched);
            }
        }
        let found = references::of(values, &key, &value);
        let found = found.map_err(|what| what.in_object(layout::pack(&table.root.pack)))?;
        let mut tables = Vec::new();
        for (index, (nested, values)) in found.tables.into_iter().enumerate() {
            let base = earlier.as_ref().and_then(|(here, there)| here.tables.get(index).zip(there.tables.get(index)));
            tables.push(self.copy(nested, values, base.map(|(here, there)| (here.0, there.0))).await?);
        }
        *bytes += self.blobs.want(&found.blobs);
        Ok(Waiting::Open { key, value, blobs: found.blobs, tables })
    }

    /// Waits for the blobs of a batch and puts its entries into the table.
    async fn land(&mut self, table: &TableRef, values: Values, batch: Batch, builder: &mut Builder) -> Result<()> {
        let blobs = batch.entries.iter().flat_map(|entry| match entry {
            Waiting::Done(..) => &[][..],
            Waiting::Open { blobs, .. } => blobs.as_slice(),
        });
        let places = self.blobs.copy(blobs.copied().collect()).await?;
        for entry in batch.entries {
            match entry {
                Waiting::Done(key, value) => builder.push(&key, &value).await?,
                Waiting::Open { key, value, blobs, tables } => {
                    let blobs = blobs.iter().filter_map(|blob| places.get(blob).copied());
                    let value = references::replace(values, &key, &value, blobs, tables.into_iter());
                    let value = value.map_err(|what| what.in_object(layout::pack(&table.root.pack)))?;
                    builder.push(&key, &value).await?;
                }
            }
        }
        Ok(())
    }
}
