//! What a writer was told: kept by the test, so outside of the database and of its cluster.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use scenarios::pods::wait_for;

use super::LIMIT;

/// Numbers from 1 on, in order, each with when it was heard that it is acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    heard: Vec<Timestamp>,
    ended: Option<String>,
}

impl Journal {
    /// Notes what the writer says; anything but the next number is its end.
    pub(crate) fn note(&self, line: &str) {
        let mut pages = self.0.lock().expect("nobody panics with it");
        let next = pages.heard.len() + 1;
        match line.trim().parse::<usize>() {
            Ok(number) if number == next && pages.ended.is_none() => pages.heard.push(Timestamp::now()),
            _ => {
                pages.ended.get_or_insert_with(|| format!("instead of {next} it said {line:?}"));
            }
        }
    }

    /// The last number.
    pub(crate) fn last(&self) -> usize {
        self.0.lock().expect("nobody panics with it").heard.len()
    }

    /// Waits until this many more are acknowledged.
    pub(crate) async fn grows(&self, more: usize) -> Result<()> {
        let wanted = self.last() + more;
        wait_for(&format!("{wanted} to be acknowledged"), LIMIT, || async {
            let pages = self.0.lock().expect("nobody panics with it");
            ensure!(pages.ended.is_none(), "the writer has ended: {:?}", pages.ended);
            Ok((pages.heard.len() >= wanted).then_some(()))
        })
        .await
    }

    /// How many had been acknowledged at an instant.
    pub(crate) fn by(&self, instant: Timestamp) -> usize {
        self.0.lock().expect("nobody panics with it").heard.partition_point(|heard| *heard <= instant)
    }

    /// When a number was acknowledged.
    pub(crate) fn at(&self, number: usize) -> Result<Timestamp> {
        let pages = self.0.lock().expect("nobody panics with it");
        let heard = number.checked_sub(1).and_then(|index| pages.heard.get(index));
        heard.copied().with_context(|| format!("{number} was not acknowledged, {} were", pages.heard.len()))
    }
}
