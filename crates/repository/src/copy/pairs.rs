//! A table here and its copy there, walked beside the table that is being copied.

use crate::error::{Error, Result};
use crate::ids::TableRef;
use crate::layout;
use crate::references::{self, References, Values};
use crate::repository::Repository;
use crate::table::Reader;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

type Entries = BoxStream<'static, Result<(Bytes, Bytes)>>;

/// An entry, and its copy: the key, the value here, the value there.
pub(super) type Pair = (Bytes, Bytes, Bytes);

/// What a pair of entries refers to, here and there, in the same order.
pub(super) type Matched = (References, References);

/// Pairs of entries in the order of their keys.
pub(super) struct Pairs {
    values: Values,
    tables: (TableRef, TableRef),
    /// None when one of the tables cannot be read any further; that only costs space.
    streams: Option<(Entries, Entries)>,
    next: Option<Pair>,
}

impl Pairs {
    pub(super) async fn new(
        from: &Repository,
        to: &Repository,
        tables: (TableRef, TableRef),
        values: Values,
    ) -> Result<Self> {
        let streams = (Reader::new(from, tables.0).scan(&[]).boxed(), Reader::new(to, tables.1).scan(&[]).boxed());
        let mut pairs = Self { values, tables, streams: Some(streams), next: None };
        pairs.next = pairs.read().await?;
        Ok(pairs)
    }

    /// The next pair if its key is not above `key`.
    pub(super) async fn up_to(&mut self, key: &[u8]) -> Result<Option<Pair>> {
        if self.next.as_ref().is_none_or(|(next, ..)| next.as_ref() > key) {
            return Ok(None);
        }
        let following = self.read().await?;
        Ok(std::mem::replace(&mut self.next, following))
    }

    async fn read(&mut self) -> Result<Option<Pair>> {
        let Some((here, there)) = &mut self.streams else { return Ok(None) };
        let pair = match (here.try_next().await, there.try_next().await) {
            (Ok(Some((key, here))), Ok(Some((other, there)))) if key == other => Some((key, here, there)),
            (Ok(_), Ok(_)) => None,
            (Err(error), _) | (_, Err(error)) if error.is_damage() => {
                tracing::warn!(%error, "a table of an earlier copy cannot be read; what it has is stored again");
                None
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        if pair.is_none() {
            self.streams = None;
        }
        Ok(pair)
    }

    /// What a pair refers to; none if the two are not built alike.
    pub(super) fn matched(&self, (key, here, there): &Pair) -> Result<Option<Matched>> {
        let of = |value: &Bytes, table: &TableRef| {
            let found = references::of(self.values, key, value);
            found.map_err(|what| -> Error { what.in_object(layout::pack(&table.root.pack)) })
        };
        let (here, there) = (of(here, &self.tables.0)?, of(there, &self.tables.1)?);
        let lens = |of: &References| of.blobs.iter().map(|blob| blob.plain_len).collect::<Vec<_>>();
        let entries = |of: &References| of.tables.iter().map(|(table, _)| table.entries).collect::<Vec<_>>();
        let alike = lens(&here) == lens(&there) && entries(&here) == entries(&there);
        Ok(alike.then_some((here, there)))
    }
}
