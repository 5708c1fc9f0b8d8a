//! The extender with a real kube-scheduler and a real API server. Nodes are objects alone: no kubelet is needed to see where a pod is put.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

mod world;

use serde_json::json;
use std::time::Duration;
use world::{World, until};

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_put_on_replicas_and_off_nodes_whose_storage_is_gone() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kube-scheduler");
    let world = World::new(3).await;
    // Each is put where its replica is, whichever node that is.
    for i in 0..6 {
        let at = format!("node-{}", i % 3);
        world.volume(&format!("near-{i}"), &[&at]).await;
        world.pod(&format!("near-{i}"), false).await;
        assert_eq!(world.placed(&format!("near-{i}")).await, at);
    }
    world.volume("pair", &["node-1", "node-2"]).await;
    world.pod("pair", true).await;
    assert_ne!(world.placed("pair").await, "node-0");
    // A daemon falls silent: nothing more is put there, and what has its only replica there waits, with the reason.
    world.silence("node-2");
    world.volume("lost", &["node-2"]).await;
    until("the silence to be noticed", async || world.refused("node-2").await).await;
    world.pod("lost", false).await;
    let told = world.waiting("lost").await;
    assert!(told.contains("no replica of the volume of lost is on a node that works"), "{told}");
    world.volume("other", &["node-2", "node-0"]).await;
    world.pod("other", false).await;
    assert_eq!(world.placed("other").await, "node-0");
    // Without volumes of ours a pod may be anywhere, there too.
    world.fill("node-0").await;
    world.fill("node-1").await;
    world.plain("plain").await;
    assert_eq!(world.placed("plain").await, "node-2");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_start_all_the_same_when_nothing_is_known_or_nobody_answers() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kube-scheduler");
    let mut world = World::new(2).await;
    world.volume("data", &["node-1"]).await;
    // No node is heard of: that is no news of nodes, but of the way to them.
    world.silence("node-0");
    world.silence("node-1");
    until("nothing to be known", async || {
        world.refused("node-0").await;
        !world.metrics().await.contains("failed_open_total 0")
    })
    .await;
    // Anybody may ask; there is no such pod, so there is nothing to tell of it.
    assert!(world.asked("ghost", json!({"NodeNames": ["node-0"]}), "").await.0.contains(" 200 "));
    world.pod("data", false).await;
    world.placed("data").await;
    until("an event that says so", async || world.events("data").await.contains(&"StorageUnknown".to_owned())).await;
    assert_eq!(world.events("ghost").await, Vec::<String>::new());
    assert!(world.is_ready().await, "it answers, so it stays where it is asked");
    world.stop_extender().await;
    world.volume("more", &["node-0"]).await;
    world.pod("more", false).await;
    assert!(tokio::time::timeout(Duration::from_secs(60), world.placed("more")).await.is_ok());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_refused_and_takes_the_places_of_others_for_moments_only() {
    sandbox::require_assets!("etcd", "kube-apiserver", "kube-scheduler");
    let world = World::new(1).await;
    world.volume("data", &["node-0"]).await;
    let one = || json!({"NodeNames": ["node-0"]});
    let is_answered = async || world.asked("asks", one(), "").await.0.contains(" 200 ");
    assert!(is_answered().await);
    let (status, _) = world.asked("asks", one(), &"x".repeat(2 << 20)).await;
    assert!(status.is_empty() || status.contains(" 413 "), "{status}");
    let many = world.asked("asks", json!({"NodeNames": vec!["n"; 16_385]}), "").await;
    assert!(many.0.contains(" 400 ") && many.1.contains("16384 names of nodes"), "{many:?}");
    let whole = world.asked("asks", json!({"Nodes": {"items": [{"metadata": {"name": "node-0"}}]}}), "").await;
    assert!(whole.0.contains(" 400 ") && whole.1.contains("nodeCacheCapable: true"), "{whole:?}");
    // As many as are answered at once, of which none says what it asks.
    let mut slow = Vec::new();
    for _ in 0..16 {
        slow.push(world.begun(100).await);
    }
    until("all places to be taken", async || world.asked("asks", one(), "").await.0.contains(" 503 ")).await;
    assert!(world.is_ready().await, "who looks after it is answered");
    until("the places to be free", is_answered).await;
    drop(slow);
    world.end().await;
}
