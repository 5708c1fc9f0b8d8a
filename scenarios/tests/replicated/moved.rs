//! The node with the pod loses its power, and nobody does anything: the pod is moved by Orlop.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::{StorageNode, StorageState};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use scenarios::install;
use scenarios::pods::{self, wait_for};

use crate::{NAMESPACE, Timer, World};

const SET: &str = include_str!("set.yaml");
const POD: &str = "ledger-0";
/// From the loss of power to a line elsewhere, with the pod's start and room for a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) async fn a_pod_is_moved_off_dead_storage(world: &World, timer: &mut Timer, told: u64) -> Result<()> {
    world.pods().delete("second", &DeleteParams::default()).await?;
    install::create(&world.client, SET).await?;
    let lost = world.ready(POD).await?;
    let mut lines = world.write(POD).await?;
    lines.after(told + 50).await?;
    let before = world.pods().get(POD).await?.uid();
    let cut = Instant::now();
    world.node(&lost)?.kill().await?;
    let told = lines.rest().await;
    println!("         {told} lines were acknowledged before the power of {lost} went");
    wait_for("the pod to be deleted", LIMIT, || async {
        Ok(world.pods().get_opt(POD).await?.is_none_or(|pod| pod.uid() != before).then_some(()))
    })
    .await?;
    println!("         {:.1} s from the cut until the pod was freed", cut.elapsed().as_secs_f32());
    let now = wait_for("the pod elsewhere", LIMIT, || async {
        let pod = world.pods().get(POD).await?;
        let is_new = pod.uid() != before && pods::is_ready(&pod);
        Ok(pod.spec.and_then(|spec| spec.node_name).filter(|_| is_new))
    })
    .await?;
    ensure!(now != lost, "it is on {now} again");
    let mut lines = world.write(POD).await?;
    lines.after(told + 1).await?;
    println!("         {:.1} s from the cut until it has written on {now}", cut.elapsed().as_secs_f32());
    ensure!(cut.elapsed() < LIMIT, "that took too long");
    world.has_all(POD, told).await?;
    let nodes: Api<StorageNode> = Api::all(world.client.clone());
    let health =
        nodes.get(&lost).await?.status.and_then(|status| status.health).context("nothing is said of the node")?;
    ensure!(health.state == StorageState::Offline, "it is held for {health:?}");
    timer.step("a node with a StatefulSet's pod lost its power, and the pod went on elsewhere by itself");

    world.node(&lost)?.start().await?;
    wait_for("the node to be well again", LIMIT, || async {
        Ok(nodes.get(&lost).await?.status.is_none_or(|status| status.health.is_none()).then_some(()))
    })
    .await?;
    world.all_in_sync().await?;
    let sets: Api<StatefulSet> = Api::namespaced(world.client.clone(), NAMESPACE);
    sets.delete("ledger", &DeleteParams::default()).await?;
    timer.step("the node is back, and its replica is equal again");
    Ok(())
}
