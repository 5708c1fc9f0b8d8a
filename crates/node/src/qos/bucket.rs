//! A bucket of tokens that fills with time.

use super::rules::{Rule, Rules};
use std::num::NonZeroU64;

/// Nanoseconds of a clock that only goes on, from any begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(pub(super) u64);

/// Nanoseconds of a second, which are also the parts that a token is counted in: so that each nanosecond brings a whole number of parts,
/// and nothing is ever rounded.
const SECOND: u64 = 1_000_000_000;

impl Nanos {
    pub(super) fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    pub(super) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tokens of one kind. It holds those of one second at most, and is full at first.
///
/// It can be in debt: a request that costs more than the bucket holds would never be allowed, so it waits until the bucket is full, and the
/// next one waits for the rest to be paid. In the long run a volume gets its rate and no more, whatever the lengths of its requests.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    rate: NonZeroU64,
    /// In parts of a token; negative when in debt.
    level: i128,
    at: Nanos,
}

impl Bucket {
    pub(super) fn new(rate: NonZeroU64, now: Nanos) -> Self {
        Self { rate, level: parts(rate.get()), at: now }
    }

    fn capacity(&self) -> i128 {
        parts(self.rate.get())
    }

    pub(super) fn refill(&mut self, now: Nanos, rules: Rules) {
        let elapsed = now.since(self.at);
        self.at = self.at.max(now);
        if rules.keeps(Rule::Refill) {
            let parts = i128::from(elapsed).saturating_mul(i128::from(self.rate.get()));
            self.level = self.level.saturating_add(parts);
        }
        if rules.keeps(Rule::Burst) {
            self.level = self.level.min(self.capacity());
        }
    }

    /// What it must hold for so many tokens to be taken.
    fn needed(&self, tokens: u64) -> i128 {
        parts(tokens).min(self.capacity())
    }

    /// Nanoseconds until so many tokens can be taken; zero when they can.
    pub(super) fn wait(&self, tokens: u64) -> u64 {
        let missing = self.needed(tokens) - self.level;
        let nanos = missing.max(0).unsigned_abs().div_ceil(u128::from(self.rate.get()));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Takes tokens, whether they are there or not.
    pub(super) fn take(&mut self, tokens: u64) {
        self.level -= parts(tokens);
    }

    /// Takes tokens for what does not wait: at most down to a debt of one second, or who flushes all the time would never read again.
    pub(super) fn take_in_passing(&mut self, tokens: u64) {
        let floor = self.level.min(-self.capacity());
        self.level = (self.level - parts(tokens)).max(floor);
    }

    /// Goes on at another rate. Tokens that are there stay, up to those of one second; a debt takes the shorter of the times that it would have
    /// taken at either rate, since nobody should wait for what a past limit cost.
    pub(super) fn change(&mut self, rate: NonZeroU64) {
        if self.level < 0 {
            let scaled = (self.level / i128::from(self.rate.get())).saturating_mul(i128::from(rate.get()));
            self.level = self.level.max(scaled);
        }
        self.rate = rate;
        self.level = self.level.min(self.capacity());
    }
}

fn parts(tokens: u64) -> i128 {
    i128::from(tokens) * i128::from(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: fn() -> Rules = Rules::default;

    fn rate(rate: u64) -> NonZeroU64 {
        NonZeroU64::new(rate).unwrap()
    }

    fn seconds(seconds: u64) -> Nanos {
        Nanos(seconds * SECOND)
    }

    #[test]
    fn a_bucket_holds_a_second_and_fills_at_its_rate() {
        let mut bucket = Bucket::new(rate(100), Nanos(5));
        assert_eq!(bucket.wait(100), 0);
        bucket.take(100);
        assert_eq!((bucket.wait(1), bucket.wait(50)), (SECOND / 100, SECOND / 2));
        bucket.refill(Nanos(5 + SECOND / 2), ALL());
        assert_eq!((bucket.wait(50), bucket.wait(51)), (0, SECOND / 100));
        bucket.refill(seconds(3600), ALL());
        bucket.take(100);
        assert_eq!(bucket.wait(1), SECOND / 100, "an hour of idleness is worth a second");
        // A clock that was read earlier than another one takes nothing back.
        bucket.refill(seconds(3599), ALL());
        assert_eq!(bucket.wait(1), SECOND / 100);
    }

    #[test]
    fn what_costs_more_than_a_second_waits_for_a_full_bucket_and_is_paid_for() {
        let mut bucket = Bucket::new(rate(10), Nanos(0));
        assert_eq!(bucket.wait(1000), 0);
        bucket.take(1000);
        assert_eq!(bucket.wait(1), 99 * SECOND + SECOND / 10);
        assert_eq!(bucket.wait(1000), 100 * SECOND);
    }

    #[test]
    fn no_rounding_adds_up() {
        let mut bucket = Bucket::new(rate(3), Nanos(0));
        bucket.take(3);
        (1..=SECOND / 1000).for_each(|step| bucket.refill(Nanos(step * 1000), ALL()));
        assert_eq!((bucket.wait(3), bucket.level), (0, bucket.capacity()));
        let mut fast = Bucket::new(rate(u64::MAX), Nanos(0));
        fast.refill(Nanos(u64::MAX), ALL());
        fast.take(u64::MAX);
        assert_eq!(fast.wait(u64::MAX), SECOND);
    }

    #[test]
    fn what_does_not_wait_owes_a_second_at_most() {
        let mut bucket = Bucket::new(rate(100), Nanos(0));
        (0..1000).for_each(|_| bucket.take_in_passing(1));
        assert_eq!(bucket.wait(1), SECOND + SECOND / 100);
        // Nor does it forgive what is owed already.
        bucket.take(400);
        bucket.take_in_passing(1);
        assert_eq!(bucket.wait(1), 5 * SECOND + SECOND / 100);
    }

    #[test]
    fn another_rate_counts_from_now_on() {
        let with_debt = |seconds: i128| Bucket { level: -seconds * parts(100), ..Bucket::new(rate(100), Nanos(0)) };
        let mut raised = with_debt(10);
        raised.change(rate(1000));
        assert_eq!(raised.wait(0), SECOND, "a debt is paid at the new rate");
        let mut lowered = with_debt(10);
        lowered.change(rate(1));
        assert_eq!(lowered.wait(0), 10 * SECOND, "but does not take longer");
        let mut full = Bucket::new(rate(100), Nanos(0));
        full.change(rate(10));
        assert_eq!(full.level, parts(10));
        full.change(rate(1000));
        assert_eq!(full.level, parts(10), "tokens are not made of nothing");
        let mut extreme = Bucket { level: -parts(u64::MAX), ..Bucket::new(rate(1), Nanos(0)) };
        extreme.change(rate(u64::MAX));
        extreme.change(rate(1));
        assert!(extreme.level < 0);
    }
}
