//! A volume that is taken over.

use super::cluster::{Cluster, limits, until};
use super::proxy::Mode;
use super::registers::Judge;
use crate::testing::seed;
use replication::attachment::Ending;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The old attachment lives on, and is cut off in some way from what it needs; its users read nothing that is not true any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_volume_is_taken_over_by_force_while_the_old_attachment_lives() {
    let seed = seed();
    for (round, mode) in [Mode::Open, Mode::Stuck, Mode::Cut].into_iter().enumerate() {
        let cluster = Cluster::new(3, 1, 16).await;
        let judge = Judge::new(16);
        let old = cluster.attach(0).await;
        let mut users = JoinSet::new();
        (0..4).for_each(|user| drop(users.spawn(judge.clone().user(old.device(), seed ^ (user + 10 * round as u64)))));
        until("it is used", || judge.acknowledged.load(Ordering::SeqCst) > 100).await;
        cluster.set_ways_from(0, mode);
        let begun = Instant::now();
        let new = cluster.attach_with(1, |options| options.force = true).await;
        let mut more = JoinSet::new();
        (0..4).for_each(|user| drop(more.spawn(judge.clone().user(new.device(), seed ^ (user + 99)))));
        let served = || new.status().suspended.is_none() && new.status().epoch.0 > 1;
        until("the new one serves", served).await;
        // The leases of the old one have ended first.
        let least = Duration::from_nanos(limits().lease.0 + limits().clock_bound.0);
        assert!(begun.elapsed() >= least, "it served after {:?}", begun.elapsed());
        let (writes, reads) = (judge.acknowledged.load(Ordering::SeqCst), judge.read.load(Ordering::SeqCst));
        let goes_on = || {
            judge.acknowledged.load(Ordering::SeqCst) > writes + 100 && judge.read.load(Ordering::SeqCst) > reads + 100
        };
        until("its users go on", goes_on).await;
        cluster.set_ways_from(0, Mode::Open);
        assert_eq!(old.ended().await, Ending::Displaced);
        users.join_all().await;
        judge.end();
        more.join_all().await;
        cluster.all_in_sync().await;
        judge.judge(&new.device()).await;
        assert_eq!(new.detach().await, Ending::Detached);
        cluster.assert_equal();
    }
}

/// The node with the attachment ends under load; another one goes on with what was acknowledged, without waiting where the end is certain.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_node_that_ends_under_load_loses_nothing_that_was_acknowledged() {
    let seed = seed();
    let mut cluster = Cluster::new(3, 1, 16).await;
    let judge = Judge::new(16);
    let mut ended = None;
    for round in 0..6_usize {
        let here = round % 3;
        let attachment = cluster.attach_with(here, |options| options.ended = ended).await;
        let mut users = JoinSet::new();
        (0..4).for_each(|user| {
            drop(users.spawn(judge.clone().user(attachment.device(), seed ^ (user + 10 * round as u64))))
        });
        let before = judge.acknowledged.load(Ordering::SeqCst);
        until("it is used", || judge.acknowledged.load(Ordering::SeqCst) > before + 100).await;
        ended = Some(attachment.id());
        // The process as a whole: the attachment and the replica.
        drop(attachment);
        cluster.kill(here);
        users.join_all().await;
        cluster.start(here).await;
    }
    let last = cluster.attach_with(1, |options| options.ended = ended).await;
    cluster.all_in_sync().await;
    judge.judge(&last.device()).await;
    assert_eq!(last.detach().await, Ending::Detached);
    cluster.assert_equal();
}
