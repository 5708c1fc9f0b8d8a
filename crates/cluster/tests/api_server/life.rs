//! The life of replicated volumes.

use crate::world::{World, attach, detach, make, new_volume, read, times, until, write};
use api::{PlacementStrategy, StorageNode, VolumePhase};
use csi::{Kind, Volumes};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_used_taken_over_and_deleted() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    skips::require_block_devices!();
    let mut world = World::new(3).await;
    let made = make(&world, 0, "pvc-1", 2).await;
    assert_eq!((made.bytes, made.replicas, made.device), (16 << 20, 2, None));
    let members = world.members().await;
    assert!(members.len() == 2 && members.contains(&("node-0".into(), true)), "{members:?}");
    // Where there is no replica, while others have them.
    let outside = (0..3).find(|i| !members.iter().any(|(node, _)| *node == format!("node-{i}"))).unwrap();
    let device = attach(&world, outside, "pvc-1").await.unwrap();
    write(&device, 3, 3).await.unwrap();
    let begin = Instant::now();
    let refused = attach(&world, 0, "pvc-1").await.unwrap_err();
    assert!(refused.kind == Kind::Precondition && refused.story.contains(&format!("node-{outside}")), "{refused}");
    assert!(begin.elapsed() < times().dead_after, "who lives says so soon: {:?}", begin.elapsed());
    let refused = world.ask(0, |volumes| volumes.delete("pvc-1")).await.unwrap_err();
    assert!(refused.kind == Kind::Precondition, "{refused}");
    // It is cut off from the API server, and serves on: it is taken for dead, and the volume is taken from it.
    world.cut_off(outside).await;
    write(&device, 4, 4).await.unwrap();
    let taken = attach(&world, 0, "pvc-1").await.unwrap();
    assert_eq!((read(&taken, 3).await, read(&taken, 4).await), (3, 4), "what was acknowledged is there");
    write(&taken, 5, 5).await.unwrap();
    assert!(write(&device, 5, 9).await.is_err(), "who has lost it is told");
    assert_eq!(read(&taken, 5).await, 5);
    detach(&world, outside, "pvc-1").await;
    detach(&world, 0, "pvc-1").await;
    world.ask(0, |volumes| volumes.delete("pvc-1")).await.unwrap();
    world.ask(1, |volumes| volumes.delete("pvc-1")).await.unwrap();
    until("the volume to go with its replicas", async || {
        world.volume("pvc-1").await.is_none() && world.records().await.is_empty()
    })
    .await;
    for i in (0..3).filter(|i| *i != outside) {
        assert!(world.node(i).held().is_empty(), "node-{i} has {:?}", world.node(i).held());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_what_is_in_the_way() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let world = World::new(2).await;
    let refused = world.ask(0, |volumes| volumes.create(new_volume("pvc-3", 3), None)).await.unwrap_err();
    assert!(refused.kind == Kind::NoRoom && refused.story.contains("node-1"), "{refused}");
    until("what was refused to be gone", async || world.volume("pvc-3").await.is_none()).await;
    let secret = csi::Secret::new(b"open barley".to_vec());
    let made = world.ask(0, move |volumes| volumes.create(new_volume("pvc-2", 2), Some(&secret))).await.unwrap();
    assert!(made.is_encrypted && made.trouble.is_none(), "{made:?}");
    let smaller = world.ask(0, |volumes| volumes.grow("pvc-2", 8 << 20)).await.unwrap_err();
    assert!(smaller.kind == Kind::Invalid && smaller.story.contains("never becomes smaller"), "{smaller}");
    let several = ["pvc-2@s".to_owned(), "pvc-2@t".to_owned()];
    let several = world.ask(0, move |volumes| volumes.snapshot(&several, &csi::Labels::new())).await.unwrap_err();
    assert!(several.kind == Kind::Invalid && several.story.contains("one by one"), "{several}");
    let refused = attach(&world, 0, "pvc-2").await.unwrap_err();
    assert!(refused.kind == Kind::Denied, "an encrypted one needs its secret: {refused}");
    world.ask(1, |volumes| volumes.label("pvc-2", &csi::Labels::from([("a".into(), "b".into())]))).await.unwrap();
    let found = world.ask(0, |volumes| volumes.find("pvc-2")).await.unwrap().unwrap();
    assert_eq!(found.labels.get("a").map(String::as_str), Some("b"));
    world.ask(1, |volumes| volumes.label("pvc-2", &csi::Labels::from([("a".into(), String::new())]))).await.unwrap();
    assert!(world.ask(0, |volumes| volumes.find("pvc-2")).await.unwrap().unwrap().labels.is_empty());
    let capacity = world.ask(0, |volumes| (volumes.capacity(2).unwrap(), volumes.capacity(3).unwrap())).await;
    assert!(capacity.0.largest > 64 << 20 && capacity.1.largest == 0, "{capacity:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_replaced_and_a_drained_one_is_left() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    skips::require_block_devices!();
    let mut world = World::new(3).await;
    make(&world, 0, "pvc-1", 2).await;
    let device = attach(&world, 0, "pvc-1").await.unwrap();
    write(&device, 7, 7).await.unwrap();
    let members = world.members().await;
    let other = members.iter().find(|(node, _)| node != "node-0").map(|(node, _)| world.index(node)).unwrap();
    let third = 3 - other;
    world.stop(other).await;
    // I/O goes on; and when the node has been dead for long enough, the third gets all there is.
    write(&device, 8, 8).await.unwrap();
    let both = |a: usize, b: usize| {
        let mut both = vec![(format!("node-{a}"), true), (format!("node-{b}"), true)];
        both.sort();
        both
    };
    until("a replica in place of the dead one", async || {
        let mut members = world.members().await;
        members.sort();
        members == both(0, third)
    })
    .await;
    // The node comes back, and what it has is not needed any more.
    world.start(other).await;
    until("what is not needed to go", async || world.node(other).held().is_empty()).await;
    let nodes: Api<StorageNode> = Api::all(world.client.clone());
    let drain = Patch::Merge(json!({"spec": {"drain": true}}));
    nodes.patch(&format!("node-{third}"), &PatchParams::default(), &drain).await.unwrap();
    until("the drained node to be left", async || {
        let mut members = world.members().await;
        members.sort();
        members == both(0, other) && world.node(third).held().is_empty()
    })
    .await;
    until("the volume to be told as healthy", async || {
        let status = world.volume("pvc-1").await.and_then(|volume| volume.status).unwrap_or_default();
        status.phase == VolumePhase::Healthy && status.attached_node.as_deref() == Some("node-0")
    })
    .await;
    detach(&world, 0, "pvc-1").await;
    let device = attach(&world, other, "pvc-1").await.unwrap();
    assert_eq!((read(&device, 7).await, read(&device, 8).await), (7, 8));
    detach(&world, other, "pvc-1").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_where_the_strategy_of_their_volume_says() {
    sandbox::require_assets!("etcd", "kube-apiserver");
    let world = World::new(3).await;
    let placed = |id: &str, strategy: &str| csi::NewVolume { placement: Some(strategy.into()), ..new_volume(id, 2) };
    let first = placed("pvc-1", "fast");
    let refused = world.ask(0, move |volumes| volumes.create(first, None)).await.unwrap_err();
    assert!(refused.story.contains("there is no PlacementStrategy fast"), "{refused}");
    until("what was refused to be gone", async || world.volume("pvc-1").await.is_none()).await;
    let (machines, strategies) =
        (Api::<Node>::all(world.client.clone()), Api::<PlacementStrategy>::all(world.client.clone()));
    for (name, media) in [("node-0", "disk"), ("node-1", "ssd"), ("node-2", "ssd")] {
        let node = json!({"metadata": {"name": name, "labels": {"media": media}}});
        machines.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    }
    let make = async |name: &str, spec: serde_json::Value| {
        let strategy = PlacementStrategy::new(name, serde_json::from_value(spec).unwrap());
        strategies.create(&PostParams::default(), &strategy).await.unwrap();
    };
    let ssd = json!([{"key": "media", "operator": "In", "values": ["ssd"]}]);
    make("fast", json!({"replicaAffinity": [{"matchExpressions": ssd}]})).await;
    make("odd", json!({"replicaAffinity": [{"matchExpressions": ssd, "topologyKey": "media"}]})).await;
    // The controller hears of it all in its own time; and the node that asks would be the first choice without rules.
    until("a volume on the fast nodes", async || {
        let fast = placed("pvc-2", "fast");
        world.ask(0, move |volumes| volumes.create(fast, None)).await.is_ok()
    })
    .await;
    let mut members = world.members().await;
    members.sort();
    assert_eq!(members, [("node-1".into(), true), ("node-2".into(), true)]);
    let odd = placed("pvc-3", "odd");
    let refused = world.ask(0, move |volumes| volumes.create(odd, None)).await.unwrap_err();
    assert!(refused.story.contains("PlacementStrategy odd is wrong: spec.replicaAffinity[0]"), "{refused}");
    let many = csi::NewVolume { placement: Some("fast".into()), ..new_volume("pvc-4", 3) };
    let refused = world.ask(0, move |volumes| volumes.create(many, None)).await.unwrap_err();
    assert!(refused.story.contains("node-0") && refused.story.contains("media In (ssd)"), "{refused}");
    world.end().await;
}
