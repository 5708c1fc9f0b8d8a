//! Capture and restore through a proxy that injects faults give what they give without.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod support;

use application::{Applied, Captured, Patience, ReplacePolicy};
use kube::{Client, Config, config::KubeConfigOptions};
use sandbox::{
    control_plane::ControlPlane,
    fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb},
    require_assets,
};
use serde_json::Value;
use support::*;

/// A client that does not repeat requests by itself, so that this crate must.
async fn client_of(proxy: &FaultProxy) -> Client {
    let mut config =
        Config::from_custom_kubeconfig(proxy.kubeconfig().clone(), &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn many_maps(client: &Client) {
    let maps = (0..150).map(|n| config_map("shop", &format!("m{n:03}"), "x"));
    create(client, std::iter::once(namespace("shop")).chain(maps)).await;
}

fn keys(captured: &[Captured]) -> Vec<String> {
    captured.iter().map(|captured| captured.key.to_string()).collect()
}

#[tokio::test]
async fn an_expired_page_neither_loses_nor_doubles_objects() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    many_maps(&plane.client()).await;
    let plan = Plan::none()
        .with(Rule::any(Fault::GONE).path("continue=").nth(2))
        .with(Rule::any(Fault::GONE).path("continue=").nth(4));
    let proxy = FaultProxy::start(plane.kubeconfig(), plan).await.unwrap();
    let captured = capture(&client_of(&proxy).await, &["shop"]).await;
    assert_eq!(keys(&captured), keys(&capture(&plane.client(), &["shop"]).await));
    assert_eq!(proxy.faulted().len(), 2, "{:?}", proxy.requests());
}

#[tokio::test]
async fn a_capture_bears_what_passes() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    many_maps(&plane.client()).await;
    let often = |fault: Fault| Rule::any(fault).chance(0.08);
    let plan = Plan::from_environment()
        .with(often(Fault::UNAVAILABLE).or(Fault::INTERNAL_ERROR))
        .with(often(Fault::Reset).or(Fault::LoseAnswer))
        .with(often(Fault::answer(429)));
    let proxy = FaultProxy::start(plane.kubeconfig(), plan).await.unwrap();
    let captured = capture_patiently(&client_of(&proxy).await, &["shop"], patient()).await;
    assert_eq!(captured, capture(&plane.client(), &["shop"]).await);
    assert!(!proxy.faulted().is_empty());
}

/// Short waits and many tries: with a quarter of all requests failing, twelve in a row do so once in sixteen million.
fn patient() -> Patience {
    Patience { tries: 12, ..quick() }
}

#[tokio::test]
async fn a_restore_does_each_thing_once_though_answers_are_lost() {
    require_assets!();
    let plane = ControlPlane::start().await.unwrap();
    let there = (0..30).map(|n| config_map("shop", &format!("m{n:03}"), "old"));
    create(&plane.client(), std::iter::once(namespace("shop")).chain(there)).await;
    let objects: Vec<Value> = (0..60).map(|n| config_map("shop", &format!("m{n:03}"), "new")).collect();
    let plan = Plan::from_environment()
        .with(Rule::any(Fault::LoseAnswer).for_verbs(&[Verb::Patch, Verb::Delete]).chance(0.3))
        .with(Rule::any(Fault::CONFLICT).for_verbs(&[Verb::Patch]).chance(0.1))
        .with(Rule::any(Fault::UNAVAILABLE).path("configmaps").chance(0.1));
    let proxy = FaultProxy::start(plane.kubeconfig(), plan).await.unwrap();
    let client = client_of(&proxy).await;
    let outcomes = restore_patiently(&client, "run-1", ReplacePolicy::Delete, &objects, patient()).await;
    for (index, (key, applied)) in outcomes.iter().enumerate() {
        let expected = if index < 30 { Applied::Replaced } else { Applied::Created };
        assert_eq!(*applied, expected, "{key}");
    }
    assert!(proxy.faulted().len() > 10);
    for (key, _) in &outcomes {
        let map = read(&plane.client(), &format!("/api/v1/namespaces/shop/configmaps/{}", key.name)).await;
        assert_eq!(map["data"]["key"], "new", "{key}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_down_is_an_error_and_no_empty_capture() {
    require_assets!();
    let mut plane = ControlPlane::start().await.unwrap();
    let client = plane.client();
    create(&client, [namespace("shop"), config_map("shop", "a", "x")]).await;
    let catalog = catalog(&client).await;
    let selection = application::Selection { namespaces: vec!["shop".into()], ..application::Selection::default() };
    let mut capture = application::Capture::start(client, catalog, selection, quick()).await.unwrap();
    plane.kill_apiserver().unwrap();
    let ended = loop {
        match capture.next().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    let error = ended.expect_err("a capture that could not be finished does not end like one that was");
    assert!(error.to_string().contains("did not answer"), "{error}");
}
