//! The suite that every record store has to pass, and the judge of what a volume's users see. The suite names no runtime: await it in the one that the store needs.

pub mod history;

use crate::record::store::{RecordStore, SwapError, Version, Versioned, Watch};
use crate::record::{Attached, Record};
use crate::units::{AttachmentId, Epoch, NodeId, ReplicaId, SnapshotId, VolumeId};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

type Check = Result<(), String>;

/// Runs the whole suite; `fresh` gives a store that has none of the volumes 1 to 9.
///
/// # Errors
/// What the store does that it must not do.
pub async fn record_store<S: RecordStore>(fresh: impl Fn() -> S) -> Check {
    told("what is not there", nothing_is_there(&fresh()).await)?;
    told("a first record", a_record_is_made_once(&fresh()).await)?;
    told("a swap", only_the_expected_version_is_swapped(&fresh()).await)?;
    told("every field", every_field_comes_back(&fresh()).await)?;
    told("versions", no_version_comes_back(&fresh()).await)?;
    told("a removal", a_removal_needs_the_version(&fresh()).await)?;
    told("many at once", one_of_many_wins(&fresh()).await)?;
    told("a watch", a_watch_tells_what_is_and_what_becomes(&fresh()).await)?;
    told("two volumes", volumes_are_apart(&fresh()).await)
}

fn told(part: &str, result: Check) -> Check {
    result.map_err(|what| format!("{part}: {what}"))
}

const VOLUME: VolumeId = VolumeId(1);

fn record(minimum: u32) -> Record {
    let node = |name: &str| NodeId::from(name);
    let members = [(ReplicaId(1), node("a")), (ReplicaId(2), node("b")), (ReplicaId(3), node("c"))];
    // Three replicas allow for minimums of one to three.
    Record::new(members, minimum, 1 << 40).unwrap_or_else(|e| unreachable!("{e}"))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Check {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?} instead of {expected:?}")) }
}

async fn found<S: RecordStore>(store: &S, volume: VolumeId) -> Result<Option<Versioned>, String> {
    store.get(volume).await.map_err(|e| e.to_string())
}

async fn made<S: RecordStore>(store: &S, of: VolumeId, minimum: u32) -> Result<Version, String> {
    store.swap(of, None, record(minimum)).await.map_err(|e| e.to_string())
}

async fn nothing_is_there<S: RecordStore>(store: &S) -> Check {
    equal("the record", &found(store, VOLUME).await?, &None)?;
    let version = made(store, VolumeId(2), 1).await?;
    let swapped = store.swap(VOLUME, Some(version), record(1)).await;
    equal("a swap of what is not there", &swapped.map(|_| ()), &Err(SwapError::Conflict))
}

async fn a_record_is_made_once<S: RecordStore>(store: &S) -> Check {
    let version = made(store, VOLUME, 1).await?;
    let again = store.swap(VOLUME, None, record(2)).await;
    equal("a second record", &again.map(|_| ()), &Err(SwapError::Conflict))?;
    equal("what is there", &found(store, VOLUME).await?, &Some(Versioned { version, record: record(1) }))
}

async fn only_the_expected_version_is_swapped<S: RecordStore>(store: &S) -> Check {
    let first = made(store, VOLUME, 1).await?;
    let second = store.swap(VOLUME, Some(first.clone()), record(2)).await.map_err(|e| e.to_string())?;
    let late = store.swap(VOLUME, Some(first), record(3)).await;
    equal("a swap of an older version", &late.map(|_| ()), &Err(SwapError::Conflict))?;
    equal("what is there", &found(store, VOLUME).await?, &Some(Versioned { version: second, record: record(2) }))
}

async fn every_field_comes_back<S: RecordStore>(store: &S) -> Check {
    let mut rich = record(2).claimed(Attached { node: "a".into(), id: AttachmentId(u128::MAX - 5) });
    rich.epoch = Epoch(u64::MAX - 7);
    let [taken, wanted] = [SnapshotId(u128::MAX - 3), SnapshotId(0)];
    let rich = rich.with_replica(ReplicaId(u64::MAX), "a-longer.name-of.a-node".into());
    let rich = rich.and_then(|rich| rich.with_retiring(ReplicaId(2)));
    let rich = rich.and_then(|rich| rich.with_snapshot(taken)?.with_taken(taken)?.with_snapshot(wanted));
    let rich = rich.and_then(|rich| rich.with_wanted_blocks(u64::MAX)).map_err(|e| e.to_string())?;
    let version = store.swap(VOLUME, None, rich.clone()).await.map_err(|e| e.to_string())?;
    equal(
        "what is there",
        &found(store, VOLUME).await?,
        &Some(Versioned { version: version.clone(), record: rich.clone() }),
    )?;
    let detached = rich.detached();
    let version = store.swap(VOLUME, Some(version), detached.clone()).await.map_err(|e| e.to_string())?;
    equal("what is there", &found(store, VOLUME).await?, &Some(Versioned { version, record: detached }))
}

async fn no_version_comes_back<S: RecordStore>(store: &S) -> Check {
    let mut seen = vec![made(store, VOLUME, 1).await?];
    for round in 0..6 {
        let last = seen.last().cloned();
        // The same contents again are another version all the same.
        let next = store.swap(VOLUME, last, record(1 + round % 2)).await.map_err(|e| e.to_string())?;
        if seen.contains(&next) {
            return Err(format!("version {next:?} is used twice"));
        }
        seen.push(next);
    }
    let last = seen.last().cloned().ok_or("there is a version")?;
    store.remove(VOLUME, last).await.map_err(|e| e.to_string())?;
    let anew = made(store, VOLUME, 1).await?;
    if seen.contains(&anew) { Err(format!("version {anew:?} is used again after a removal")) } else { Ok(()) }
}

async fn a_removal_needs_the_version<S: RecordStore>(store: &S) -> Check {
    let first = made(store, VOLUME, 1).await?;
    let second = store.swap(VOLUME, Some(first.clone()), record(2)).await.map_err(|e| e.to_string())?;
    equal("a removal of an older version", &store.remove(VOLUME, first).await, &Err(SwapError::Conflict))?;
    equal("a removal", &store.remove(VOLUME, second.clone()).await, &Ok(()))?;
    equal("what is there", &found(store, VOLUME).await?, &None)?;
    equal("a removal of nothing", &store.remove(VOLUME, second).await, &Err(SwapError::Conflict))
}

/// Awaits all of them together.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).map(Some).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, done) in waiting.iter_mut().zip(&mut done) {
            if let Some(pending) = future
                && let Poll::Ready(value) = pending.as_mut().poll(context)
            {
                (*done, *future) = (Some(value), None);
            }
        }
        if waiting.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

async fn one_of_many_wins<S: RecordStore>(store: &S) -> Check {
    let mut version = made(store, VOLUME, 1).await?;
    for round in 0..4 {
        let tries = (0..8_u64).map(|i| {
            let mut mine = record(1);
            mine.blocks = 100 * (round + 1) + i;
            store.swap(VOLUME, Some(version.clone()), mine)
        });
        let results = all(tries.collect()).await;
        let won: Vec<usize> = (0..results.len()).filter(|i| results[*i].is_ok()).collect();
        equal("the number of those who win", &won.len(), &1)?;
        let others = results.iter().filter(|result| **result == Err(SwapError::Conflict)).count();
        equal("the number of conflicts", &others, &7)?;
        let now = found(store, VOLUME).await?.ok_or("the record is gone")?;
        equal("whose record is there", &now.record.blocks, &(100 * (round + 1) + won[0] as u64))?;
        equal("the version", &results[won[0]], &Ok(now.version.clone()))?;
        version = now.version;
    }
    Ok(())
}

async fn a_watch_tells_what_is_and_what_becomes<S: RecordStore>(store: &S) -> Check {
    let mut early = store.watch(VOLUME).await.map_err(|e| e.to_string())?;
    equal("what is watched before it is there", &early.next().await.map_err(|e| e.to_string())?, &None)?;
    let first = made(store, VOLUME, 1).await?;
    let second = store.swap(VOLUME, Some(first), record(2)).await.map_err(|e| e.to_string())?;
    let last = Some(Versioned { version: second.clone(), record: record(2) });
    until(&mut early, &last).await?;
    let mut late = store.watch(VOLUME).await.map_err(|e| e.to_string())?;
    equal("what a later watch begins with", &late.next().await.map_err(|e| e.to_string())?, &last)?;
    {
        let mut next = pin!(late.next());
        let is_quiet = poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await;
        equal("whether a watch is quiet while nothing changes", &is_quiet, &true)?;
        let third = store.swap(VOLUME, Some(second), record(3)).await.map_err(|e| e.to_string())?;
        let told = next.await.map_err(|e| e.to_string())?;
        equal("what a watch is woken with", &told, &Some(Versioned { version: third.clone(), record: record(3) }))?;
        store.remove(VOLUME, third).await.map_err(|e| e.to_string())?;
    }
    until(&mut late, &None).await?;
    until(&mut early, &None).await
}

/// What a watch leaves out is not the last.
async fn until<W: Watch>(watch: &mut W, last: &Option<Versioned>) -> Check {
    for _ in 0..8 {
        if watch.next().await.map_err(|e| e.to_string())? == *last {
            return Ok(());
        }
    }
    Err(format!("a watch does not come to {last:?}"))
}

async fn volumes_are_apart<S: RecordStore>(store: &S) -> Check {
    let one = made(store, VolumeId(1), 1).await?;
    let two = made(store, VolumeId(2), 2).await?;
    store.remove(VolumeId(1), one).await.map_err(|e| e.to_string())?;
    equal("the other", &found(store, VolumeId(2)).await?, &Some(Versioned { version: two, record: record(2) }))
}
