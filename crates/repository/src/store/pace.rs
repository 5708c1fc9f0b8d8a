//! Keeping what goes to a store, and what comes from it, below a rate.
//!
//! A request begins when all before it, and its own bytes, have had their time at the rate. So the rate holds on average from the first byte on;
//! a request itself is as fast as the link, which is for one object at once: a pack of 32 MiB at the most.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes per second that may go each way, on average; none is any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// To the store.
    pub upload: Option<NonZeroU64>,
    /// From the store.
    pub download: Option<NonZeroU64>,
}

/// Both ways, each on its own.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pub(super) upload: Lane,
    pub(super) download: Lane,
}

impl Pace {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self { upload: Lane::new(limits.upload), download: Lane::new(limits.download) }
    }
}

/// One way.
#[derive(Debug, Default)]
pub(super) struct Lane {
    rate: Option<NonZeroU64>,
    /// When all that has begun to wait will have had its time.
    free_at: Mutex<Option<Instant>>,
}

impl Lane {
    fn new(rate: Option<NonZeroU64>) -> Self {
        Self { rate, free_at: Mutex::default() }
    }

    /// Waits until so many bytes have had their time.
    pub(super) async fn pass(&self, bytes: u64) {
        // What has no bytes waits behind nothing: signs of life are such, and a run without them is taken for dead.
        let Some(rate) = self.rate.filter(|_| bytes > 0) else { return };
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let wait = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            // Time that nobody used is not saved up.
            let begins = free_at.map_or(now, |at| at.max(now));
            *free_at = begins.checked_add(takes);
            begins.saturating_duration_since(now).saturating_add(takes)
        };
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RetryPolicy, Store, StoreConfig};
    use bytes::Bytes;

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    async fn took(work: impl Future<Output = ()>) -> Duration {
        let begun = Instant::now();
        work.await;
        begun.elapsed()
    }

    #[tokio::test]
    async fn those_who_come_at_once_share_the_rate() {
        let lane = Lane::new(rate(1 << 20));
        let three = async {
            tokio::join!(lane.pass(100 << 10), lane.pass(100 << 10), lane.pass(100 << 10));
        };
        assert!(took(three).await >= Duration::from_millis(290));
    }

    #[tokio::test]
    async fn what_has_no_bytes_waits_for_nobody() {
        let lane = Lane::new(rate(1));
        let pack = lane.pass(32 << 20);
        let sign_of_life = async {
            tokio::task::yield_now().await;
            lane.pass(0).await;
        };
        tokio::select! {
            biased;
            () = pack => panic!("a pack takes a year at this rate"),
            () = sign_of_life => {}
        }
    }

    #[tokio::test]
    async fn each_way_has_its_own_limit() {
        let store = |upload, download| -> Store {
            let limits = RateLimits { upload, download };
            StoreConfig::Memory.open(RetryPolicy::never()).unwrap().with_limits(limits)
        };
        let bytes = || Bytes::from(vec![7; 64 << 10]);
        let slow = store(rate(256 << 10), None);
        let put = async {
            slow.put_new("a", bytes()).await.unwrap();
            slow.put_new("b", bytes()).await.unwrap();
        };
        assert!(took(put).await >= Duration::from_millis(490));
        let slow = store(None, rate(256 << 10));
        slow.put_new("a", bytes()).await.unwrap();
        let get = async {
            assert_eq!(slow.get("a", 64 << 10).await.unwrap(), bytes());
            assert_eq!(slow.get_range("a", 0..64 << 10).await.unwrap(), bytes());
        };
        assert!(took(get).await >= Duration::from_millis(490));
    }
}
