//! Restores against a real API server.

mod claims;
mod crash;
mod devices;
mod faults;
mod holds;
mod plan;
mod point;
mod preflight;
mod ready;
mod rules;
mod statuses;
mod transforms;
mod volumes;
mod webhook;
mod whole;

use crate::support::{ADMIN, SHOP, World, until};
use api::{ApplicationRestore, ApplicationRestoreSpec, ApplicationRestoreStatus};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};

/// A world with a location in the admin namespace.
async fn ready() -> World {
    let world = World::new().await;
    world.location(ADMIN).await;
    world
}

/// Creates a restore of a recovery point of `shop` into another namespace.
async fn restore(world: &World, name: &str, point: &str, target: &str) -> ApplicationRestore {
    restore_with(world, name, |spec| {
        spec.recovery_point = Some(point.into());
        spec.namespace_mapping = [(SHOP.to_owned(), target.to_owned())].into();
    })
    .await
}

/// Creates a restore in the admin namespace. Unless it is changed, it does not wait for workloads: nobody runs their pods.
async fn restore_with(
    world: &World,
    name: &str,
    change: impl FnOnce(&mut ApplicationRestoreSpec),
) -> ApplicationRestore {
    let mut spec = ApplicationRestoreSpec {
        backup_location: "main".into(),
        ready_timeout: Some("0s".into()),
        ..ApplicationRestoreSpec::default()
    };
    change(&mut spec);
    let api: Api<ApplicationRestore> = world.api(ADMIN);
    api.create(&PostParams::default(), &ApplicationRestore::new(name, spec)).await.unwrap()
}

async fn status(world: &World, name: &str) -> ApplicationRestoreStatus {
    let api: Api<ApplicationRestore> = world.api(ADMIN);
    api.get(name).await.unwrap().status.unwrap_or_default()
}

/// Waits until a restore is over.
async fn over(world: &World, name: &str) -> ApplicationRestoreStatus {
    until(&format!("the end of the restore {name}"), || async {
        let status = status(world, name).await;
        status.phase.is_final().then_some(status)
    })
    .await
}

/// Waits until a restore says that.
async fn says(world: &World, name: &str, part: &str) -> ApplicationRestoreStatus {
    until(&format!("{part:?} in the message of {name}"), || async {
        let status = status(world, name).await;
        status.message.as_ref().is_some_and(|m| m.contains(part)).then_some(status)
    })
    .await
}

/// The word of the condition `Complete`.
fn reason(status: &ApplicationRestoreStatus) -> &str {
    status.conditions.iter().find(|c| c.type_ == "Complete").map_or("", |c| c.reason.as_str())
}

async fn namespace_exists(world: &World, name: &str) -> bool {
    Api::<Namespace>::all(world.client.clone()).get_opt(name).await.unwrap().is_some()
}

/// Asserts that nothing is left of what runs made for their own use, volumes that are held back included.
async fn assert_nothing_left(world: &World) {
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    let held = volumes.list(&ListParams::default().labels(api::RUN_LABEL)).await.unwrap();
    assert_eq!(held.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), Vec::<String>::new(), "held volumes");
}

/// The volumes that are promised to claims of a namespace.
async fn volumes_of(world: &World, namespace: &str) -> Vec<PersistentVolume> {
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    let of = |v: &PersistentVolume| {
        let claim = v.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        claim.and_then(|c| c.namespace.as_deref()) == Some(namespace)
    };
    volumes.list(&ListParams::default()).await.unwrap().items.into_iter().filter(of).collect()
}
