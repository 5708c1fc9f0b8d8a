//! More than fits at once.

use super::cluster::{Cluster, PATIENCE, asked};
use block::{Buffer, Device};
use replication::attachment::Ending;
use replication::wire::BLOCK;

/// Far more is asked at once than the attachment, its machine and the connections hold: it waits its turn, and all of it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_asked_beyond_all_bounds_waits_its_turn() {
    let cluster = Cluster::new(2, 2, 2048).await;
    let attachment = cluster.attach_with(0, |options| options.most_bytes = 4 << 20).await;
    let device = attachment.device();
    let write = |block: u64, count: usize| {
        let bytes = Buffer::copy_of(&vec![(block % 251) as u8; count * BLOCK]);
        asked(|done| device.write(block * BLOCK as u64, bytes, block.is_multiple_of(7), done))
    };
    // 3,000 small ones, of which many are of the same blocks; then long ones.
    let mut answers: Vec<_> = (0..3000).map(|i| write(i % 2048, 1)).collect();
    answers.extend((0..16).map(|i| write(i * 128, 128)));
    answers.extend((0..8).map(|_| write(0, 1024)));
    answers.push(asked(|done| device.flush(done)));
    for answer in answers {
        tokio::time::timeout(PATIENCE, answer).await.expect("it is answered").unwrap().unwrap();
    }
    assert_eq!(attachment.detach().await, Ending::Detached);
    cluster.assert_equal();
    assert!(cluster.contents(1)[..1024 * BLOCK].iter().all(|byte| *byte == 0), "the last write is there");
}
