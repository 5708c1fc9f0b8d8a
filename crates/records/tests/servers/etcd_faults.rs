//! etcd as a record store, while things go wrong.

use crate::support::etcd::Etcd;
use crate::support::proxy::{Proxy, Way};
use crate::support::{PATIENCE, VOLUME, patient, race, read, record, until, write};
use records::etcd::{EtcdConfig, EtcdRecords};
use replication::record::store::{RecordStore, SwapError, Watch};
use serde_json::json;
use std::time::{Duration, Instant};

fn through(proxy: &Proxy, etcd: &Etcd) -> EtcdRecords {
    EtcdRecords::new(EtcdConfig { endpoints: vec![proxy.url()], ..etcd.config() }).unwrap()
}

#[tokio::test]
async fn of_two_stores_that_swap_at_once_one_wins() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    race(&etcd.records(), &etcd.records(), 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_killed_and_started_while_two_stores_swap_and_watch() {
    sandbox::require_assets!("etcd");
    let mut etcd = Etcd::start().await;
    let (one, two) = (etcd.records(), etcd.records());
    let mut watch = etcd.records().watch(VOLUME).await.unwrap();
    let watched = tokio::spawn(async move { until(&mut watch, Some(302)).await });
    let racers = tokio::spawn(async move {
        race(&one, &two, 30).await;
        let last = read(&one).await.map(|found| found.version);
        assert!(write(&two, last, 302).await);
    });
    let mut kills = 0;
    while !racers.is_finished() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        etcd.kill();
        etcd.run().await;
        kills += 1;
    }
    racers.await.unwrap();
    watched.await.unwrap();
    assert!(kills >= 1);
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_unknown_and_never_a_conflict() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    let (proxy, near) = (Proxy::start(etcd.port()).await, etcd.records());
    let far = through(&proxy, &etcd);
    let first = far.swap(VOLUME, None, record(1)).await.unwrap();
    proxy.set(Way::NoAnswers);
    let begin = Instant::now();
    let swapped = far.swap(VOLUME, Some(first.clone()), record(2)).await;
    assert!(matches!(swapped, Err(SwapError::Unknown { .. })), "{swapped:?}");
    assert!(begin.elapsed() < 2 * patient().request, "{:?}", begin.elapsed());
    // It was done.
    assert_eq!(near.get(VOLUME).await.unwrap().unwrap().record.blocks, 2);
    proxy.set(Way::Open);
    assert_eq!(read(&far).await.unwrap().record.blocks, 2);
    assert_eq!(far.swap(VOLUME, Some(first), record(3)).await, Err(SwapError::Conflict));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time_and_its_watch_goes_on_later() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    let (proxy, near) = (Proxy::start(etcd.port()).await, etcd.records());
    let far = through(&proxy, &etcd);
    let first = near.swap(VOLUME, None, record(1)).await.unwrap();
    let mut watch = far.watch(VOLUME).await.unwrap();
    until(&mut watch, Some(1)).await;
    proxy.set(Way::Frozen);
    let begin = Instant::now();
    assert!(far.get(VOLUME).await.is_err());
    assert!(matches!(far.swap(VOLUME, Some(first.clone()), record(9)).await, Err(SwapError::Unknown { .. })));
    assert!(begin.elapsed() < 4 * patient().request, "{:?}", begin.elapsed());
    proxy.set(Way::Open);
    // What was unknown may still be done: the request was on its way.
    let now = read(&near).await.unwrap();
    write(&near, Some(now.version), 2).await;
    let last = near.get(VOLUME).await.unwrap().unwrap().record.blocks;
    until(&mut watch, Some(last)).await;
}

#[tokio::test]
async fn what_one_endpoint_does_not_answer_is_read_from_the_next() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    let (dead, frozen) = (Proxy::start(1).await, Proxy::start(etcd.port()).await);
    frozen.set(Way::Frozen);
    let endpoints = vec![dead.url(), frozen.url(), etcd.url()];
    let records = EtcdRecords::new(EtcdConfig { endpoints, ..etcd.config() }).unwrap();
    assert_eq!(records.get(VOLUME).await, Ok(None));
    // From then on it stays with the one that answers.
    let begin = Instant::now();
    records.swap(VOLUME, None, record(1)).await.unwrap();
    assert!(begin.elapsed() < patient().request, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_watch_goes_on_over_a_compaction() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    let (proxy, records) = (Proxy::start(etcd.port()).await, etcd.records());
    let first = records.swap(VOLUME, None, record(1)).await.unwrap();
    let mut watch = through(&proxy, &etcd).watch(VOLUME).await.unwrap();
    until(&mut watch, Some(1)).await;
    proxy.set(Way::NoAnswers);
    let mut last = first;
    for blocks in 2..6 {
        last = records.swap(VOLUME, Some(last), record(blocks)).await.unwrap();
    }
    // What it was told is lost, and what it would go on from is forgotten.
    etcd.ask("kv/compaction", json!({"revision": etcd.revision().await, "physical": true})).await;
    proxy.set(Way::Open);
    until(&mut watch, Some(5)).await;
    // Nothing has changed since; and a wait that is given up loses nothing.
    assert!(tokio::time::timeout(Duration::ZERO, watch.next()).await.is_err());
    let now = read(&records).await.unwrap();
    assert_eq!(now.version, last);
    write(&records, Some(last), 6).await;
    until(&mut watch, Some(6)).await;
}

#[tokio::test]
async fn a_store_that_was_never_there_is_an_error_in_time() {
    let config = EtcdConfig {
        endpoints: vec!["http://127.0.0.1:1".into(), "http://127.0.0.1:2".into()],
        prefix: "/".into(),
        user: None,
        tls: None,
        patience: patient(),
    };
    let records = EtcdRecords::new(config).unwrap();
    let begin = Instant::now();
    let error = records.get(VOLUME).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    assert!(records.watch(VOLUME).await.unwrap().next().await.is_err());
    assert!(begin.elapsed() < PATIENCE);
}
