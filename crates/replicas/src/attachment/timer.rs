//! Wakes an attachment when time decides something.
//!
//! When that is, the machine says; asking it goes through all that is under way, so it is not asked after every event, but by the timer when it looks: at the time that it was
//! told last, and a step after something has happened. What begins now is due after a retry at the earliest, which is four steps.

use super::owner::Shared;
use crate::clock;
use replication::attachment::Event;
use replication::limits::Limits;
use replication::units::{Span, Time};
use std::sync::Weak;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the timer sleeps at most, so that a clock that jumps is noticed.
const LONGEST: Duration = Duration::from_secs(1);

pub(super) fn step(limits: &Limits) -> Span {
    let least = limits.retry.0.min(limits.lease.0 / 3).min(limits.record_retry.0).min(limits.member_deadline.0);
    Span((least / 4).max(1_000_000))
}

pub(super) fn start(shared: Weak<Shared>, limits: &Limits, stop: &CancellationToken) {
    let (stop, pause) = (stop.clone(), clock::duration(step(limits)));
    tokio::spawn(async move { stop.run_until_cancelled(keep(shared, pause)).await });
}

async fn keep(shared: Weak<Shared>, pause: Duration) {
    loop {
        let Some(here) = shared.upgrade() else { return };
        if here.lock().machine.deadline().is_some_and(|due| due <= clock::now()) {
            here.tell(Event::Tick);
        }
        let wait = {
            let mut owner = here.lock();
            if owner.machine.ending().is_some() {
                return;
            }
            let now = clock::now();
            // What is overdue is looked at again soon, and not at once: a machine that cannot do anything about it must not keep a core busy.
            let due = owner.machine.deadline().unwrap_or(Time(u64::MAX));
            let wait = if due <= now { pause } else { clock::until(now, due).min(LONGEST) };
            owner.timer_at = now + Span(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
            wait
        };
        // Who wakes it says that something has happened. What is due by that is so from a step later on.
        if tokio::time::timeout(wait, here.timer.notified()).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    }
}
