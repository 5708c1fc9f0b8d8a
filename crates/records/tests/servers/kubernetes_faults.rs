//! The Kubernetes API as a record store, while things go wrong.

use crate::support::kubernetes::{Plane, records_at};
use crate::support::{VOLUME, patient, race, read, record, until, write};
use replication::record::store::{RecordStore, SwapError, Watch};
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};
use std::time::{Duration, Instant};

#[tokio::test]
async fn of_two_stores_that_swap_at_once_one_wins() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    race(&plane.records().await, &plane.records().await, 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_is_killed_and_started_while_two_stores_swap_and_watch() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let mut plane = Plane::start().await;
    let (one, two) = (plane.records().await, plane.records().await);
    let mut watch = plane.records().await.watch(VOLUME).await.unwrap();
    let watched = tokio::spawn(async move { until(&mut watch, Some(9_001)).await });
    // The racers go on until the kills are over.
    let (over, is_over) = tokio::sync::watch::channel(false);
    let racers = tokio::spawn(async move {
        let mut rounds = 0;
        while !*is_over.borrow() {
            race(&one, &two, 3).await;
            rounds += 1;
        }
        let last = read(&one).await.map(|found| found.version);
        assert!(write(&two, last, 9_001).await);
        rounds
    });
    for _ in 0..2 {
        plane.0.restart_apiserver().await.unwrap();
        // It is used again before it is killed again.
        read(&plane.records().await).await;
    }
    over.send(true).unwrap();
    assert!(racers.await.unwrap() >= 1);
    watched.await.unwrap();
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_unknown_and_never_a_conflict() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    let near = plane.records().await;
    for (n, fault) in [Fault::LoseAnswer, Fault::Reset, Fault::answer(504), Fault::answer(429)].into_iter().enumerate()
    {
        let plan = Plan::none().with(Rule::any(fault.clone()).for_verbs(Verb::WRITES).nth(1));
        let proxy = FaultProxy::start(plane.0.kubeconfig(), plan).await.unwrap();
        let far = records_at(proxy.kubeconfig()).await;
        let first = read(&near).await;
        let number = 10 + n as u64;
        let swapped = far.swap(VOLUME, first.clone().map(|found| found.version), record(number)).await;
        assert!(matches!(swapped, Err(SwapError::Unknown { .. })), "{fault:?}: {swapped:?}");
        let now = read(&near).await;
        if fault == Fault::LoseAnswer {
            assert_eq!(now.unwrap().record.blocks, number);
        } else {
            assert_eq!(now, first, "{fault:?}");
            assert!(write(&far, first.map(|found| found.version), number).await);
        }
        let version = read(&near).await.unwrap().version;
        assert!(proxy.faulted().len() == 1, "{:?}", proxy.requests());
        proxy.set_plan(Plan::none().with(Rule::on(Verb::Delete, fault.clone()).nth(1)));
        let removed = far.remove(VOLUME, version.clone()).await;
        assert!(matches!(removed, Err(SwapError::Unknown { .. })), "{fault:?}: {removed:?}");
        let again = far.remove(VOLUME, version).await;
        let expected = if fault == Fault::LoseAnswer { Err(SwapError::Conflict) } else { Ok(()) };
        assert_eq!(again, expected, "{fault:?}");
    }
}

#[tokio::test]
async fn two_stores_swap_through_answers_that_are_lost_and_refused() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    let plan = Plan::from_environment()
        .with(Rule::any(Fault::LoseAnswer).or(Fault::Reset).or(Fault::UNAVAILABLE).for_verbs(Verb::WRITES).chance(0.3))
        .with(Rule::any(Fault::Reset).or(Fault::too_many_requests(1)).chance(0.1));
    let proxy = FaultProxy::start(plane.0.kubeconfig(), plan).await.unwrap();
    race(&records_at(proxy.kubeconfig()).await, &records_at(proxy.kubeconfig()).await, 25).await;
    assert!(proxy.faulted().len() > 10);
}

#[tokio::test]
async fn a_watch_goes_on_when_it_is_cut_refused_or_too_old() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let plane = Plane::start().await;
    let near = plane.records().await;
    let proxy = FaultProxy::start(plane.0.kubeconfig(), Plan::none()).await.unwrap();
    let far = records_at(proxy.kubeconfig()).await;
    let mut watch = far.watch(VOLUME).await.unwrap();
    assert_eq!(watch.next().await, Ok(None));
    let mut last = None;
    for (n, fault) in [Fault::CutAfterEvents(1), Fault::GONE, Fault::Reset, Fault::UNAVAILABLE].into_iter().enumerate()
    {
        let blocks = 10 + n as u64;
        proxy.set_plan(Plan::none().with(Rule::on(Verb::Watch, fault.clone()).first(2)));
        // What is open is cut too: the next event ends it.
        last = Some(near.swap(VOLUME, last, record(blocks)).await.unwrap());
        until(&mut watch, Some(blocks)).await;
    }
    near.remove(VOLUME, last.unwrap()).await.unwrap();
    until(&mut watch, None).await;
    assert!(tokio::time::timeout(Duration::ZERO, watch.next()).await.is_err(), "nothing has changed");
    near.swap(VOLUME, None, record(99)).await.unwrap();
    until(&mut watch, Some(99)).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let mut plane = Plane::start().await;
    let plan = Plan::none().with(Rule::any(Fault::Delay(Duration::from_secs(3600))));
    let proxy = FaultProxy::start(plane.0.kubeconfig(), plan).await.unwrap();
    let far = records_at(proxy.kubeconfig()).await;
    let begin = Instant::now();
    let error = far.get(VOLUME).await.unwrap_err().to_string();
    assert!(error.contains("did not answer within 2s"), "{error}");
    assert!(matches!(far.swap(VOLUME, None, record(1)).await, Err(SwapError::Unknown { .. })));
    assert!(far.watch(VOLUME).await.unwrap().next().await.is_err());
    assert!(begin.elapsed() < 5 * patient().request, "{:?}", begin.elapsed());
    let near = plane.records().await;
    plane.0.kill_apiserver().unwrap();
    let begin = Instant::now();
    assert!(near.get(VOLUME).await.is_err());
    assert!(begin.elapsed() < 2 * patient().request, "{:?}", begin.elapsed());
}
