//! The time of this process.

use replication::units::{Span, Time};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Now. The clock goes on while the machine is suspended: an attachment that slept must not take its leases for fresh.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Time(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0)))
}

/// How long it is from one time to another; nothing if that is past.
pub(crate) fn until(from: Time, to: Time) -> Duration {
    Duration::from_nanos(to.0.saturating_sub(from.0))
}

/// The same length as the standard library has it.
pub(crate) fn duration(span: Span) -> Duration {
    Duration::from_nanos(span.0)
}
