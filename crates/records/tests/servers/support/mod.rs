//! What the tests of both stores do.

pub(crate) mod etcd;
pub(crate) mod kubernetes;
pub(crate) mod proxy;

use records::Patience;
use replication::record::Record;
use replication::record::store::{RecordStore, SwapError, Version, Versioned, Watch};
use replication::units::{ReplicaId, VolumeId};
use std::time::Duration;
use tokio::time::timeout;

/// What one condition is waited for at most; on an idle machine each takes less than a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const VOLUME: VolumeId = VolumeId(0x1f);

/// Short, so that what does not answer is given up in a test's time.
pub(crate) fn patient() -> Patience {
    Patience {
        request: Duration::from_secs(2),
        watch: Duration::from_secs(20),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(200),
    }
}

/// A record that is told from others by its number.
pub(crate) fn record(blocks: u64) -> Record {
    Record::new([(ReplicaId(1), "a".into()), (ReplicaId(2), "b".into())], 1, blocks).unwrap()
}

/// Waits until a watch has come to the record with this number; what fails meanwhile is asked again.
pub(crate) async fn until<W: Watch>(watch: &mut W, blocks: Option<u64>) -> Option<Versioned> {
    let found = timeout(PATIENCE, async {
        loop {
            if let Ok(found) = watch.next().await
                && found.as_ref().map(|found| found.record.blocks) == blocks
            {
                return found;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("the watch does not come to {blocks:?}"))
}

/// Reads until the store answers.
pub(crate) async fn read<S: RecordStore>(store: &S) -> Option<Versioned> {
    let found = timeout(PATIENCE, async {
        loop {
            match store.get(VOLUME).await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    found.await.expect("the store does not come back")
}

/// Writes this number, and does not stop until it is there or somebody else has won; gives whether it was written by this.
///
/// It believes the store: a conflict is certain, and what is unknown is looked up.
pub(crate) async fn write<S: RecordStore>(store: &S, expected: Option<Version>, blocks: u64) -> bool {
    for _ in 0..200 {
        match store.swap(VOLUME, expected.clone(), record(blocks)).await {
            Ok(_) => return true,
            Err(SwapError::Conflict) => return false,
            Err(SwapError::Unknown { .. }) => {}
        }
        let now = read(store).await;
        if now.as_ref().is_some_and(|now| now.record.blocks == blocks) {
            return true;
        }
        if now.map(|now| now.version) != expected {
            return false;
        }
    }
    panic!("{blocks} was not written in many tries");
}

/// Two writers of distinct numbers, each from what it has read, for some rounds, whatever happens to the store meanwhile.
///
/// Each version has one successor: so each round has at most one winner, and a writer whose swap was a conflict never finds its number written.
pub(crate) async fn race<S: RecordStore>(one: &S, two: &S, rounds: u64) {
    let mut winners = 0;
    for round in 1..=rounds {
        let expected = read(one).await.map(|found| found.version);
        let (first, second) = (round * 10 + 1, round * 10 + 2);
        let (won_first, won_second) = tokio::join!(write(one, expected.clone(), first), write(two, expected, second));
        assert!(won_first != won_second, "round {round}: {won_first} and {won_second}");
        let winner = if won_first { first } else { second };
        assert_eq!(read(two).await.map(|found| found.record.blocks), Some(winner), "round {round}");
        winners += 1;
    }
    assert_eq!(winners, rounds);
}
