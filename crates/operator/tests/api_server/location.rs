//! Locations: what is wrong with one is told apart, named, and noticed when it is mended.

use std::sync::Arc;

use crate::support::{ADMIN, PASSPHRASE, World, location_manifest, start, until};
use api::{BackupLocation, LocationPhase};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use operator::AsLocated;
use sandbox::s3::{Credentials, S3Server};
use serde_json::{Value, json};

fn reason(location: &BackupLocation) -> String {
    let conditions = &location.status.as_ref().unwrap().conditions;
    conditions.iter().find(|c| c.type_ == "Ready").unwrap().reason.clone()
}

fn message(location: &BackupLocation) -> String {
    location.status.as_ref().unwrap().message.clone().unwrap()
}

async fn patch<K: operator::objects::Object>(api: &Api<K>, name: &str, patch: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_says_what_is_missing_and_turns_ready_when_it_comes() {
    sandbox::require_assets!();
    let world = World::new().await;
    let operator = world.operator();
    world.create::<BackupLocation>(ADMIN, location_manifest("main")).await;
    let location = world.location_phase(ADMIN, "main", LocationPhase::Unavailable).await;
    assert_eq!(reason(&location), "SecretNotFound");
    assert!(message(&location).contains("orlop-system/keys"), "{}", message(&location));
    world.secret(ADMIN, PASSPHRASE).await;
    let location = world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    let id = location.status.as_ref().unwrap().repository_id.clone().unwrap();
    assert_eq!(world.repository().await.id().to_string(), id);
    assert!(location.status.as_ref().unwrap().last_checked_at.is_some());
    world.events(ADMIN, "main", &["SecretNotFound", "Ready"]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_is_noticed_and_so_is_the_right_one() {
    sandbox::require_assets!();
    let world = World::new().await;
    let operator = world.operator();
    world.location(ADMIN).await;
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    let secrets: Api<Secret> = world.api(ADMIN);
    patch(&secrets, "keys", json!({"stringData": {"passphrase": "wrong"}})).await;
    let location = world.location_phase(ADMIN, "main", LocationPhase::Unavailable).await;
    assert_eq!(reason(&location), "WrongPassphrase");
    patch(&secrets, "keys", json!({"stringData": {"passphrase": PASSPHRASE}})).await;
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_vanished_is_a_loss_and_is_not_replaced() {
    sandbox::require_assets!();
    let world = World::new().await;
    let operator = world.operator();
    world.location(ADMIN).await;
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    let (here, away) = (world.buckets().join("bucket"), world.buckets().join("away"));
    std::fs::rename(&here, &away).unwrap();
    let location = world.location_phase(ADMIN, "main", LocationPhase::Unavailable).await;
    assert_eq!(reason(&location), "NotARepository");
    assert!(!here.join("orlop-repository").exists(), "no other repository was made in its place");
    std::fs::remove_dir_all(&here).unwrap();
    std::fs::rename(&away, &here).unwrap();
    world.location_phase(ADMIN, "main", LocationPhase::Ready).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_refuse_or_do_not_answer_are_told_apart() {
    sandbox::require_assets!();
    let world = World::new().await;
    let root = world.directory.path().join("s3");
    std::fs::create_dir_all(root.join("bucket")).unwrap();
    std::fs::write(root.join("bucket/somebody-elses"), "a foreign object").unwrap();
    let credentials = Credentials { access_key: "id".into(), secret_key: "key".into() };
    let server = S3Server::start(&root, credentials).unwrap();
    let operator = start(world.client.clone(), {
        let mut config = world.config();
        config.stores = Arc::new(AsLocated);
        config
    });
    world.secret(ADMIN, PASSPHRASE).await;
    let bad = json!({"access-key-id": "id", "secret-access-key": "wrong", "passphrase": PASSPHRASE});
    world.create::<Secret>(ADMIN, json!({"metadata": {"name": "bad-keys"}, "stringData": bad})).await;
    let location = |name: &str, secret: &str, endpoint: &str| {
        let mut manifest = location_manifest(name);
        manifest["spec"]["credentialsSecret"] = secret.into();
        manifest["spec"]["s3"] = json!({"endpoint": endpoint});
        manifest
    };
    let url = server.endpoint();
    world.create::<BackupLocation>(ADMIN, location("good", "keys", &url)).await;
    world.create::<BackupLocation>(ADMIN, location("denied", "bad-keys", &url)).await;
    // Nobody listens on port 1.
    world.create::<BackupLocation>(ADMIN, location("dead", "keys", "http://127.0.0.1:1")).await;
    world.location_phase(ADMIN, "good", LocationPhase::Ready).await;
    let foreign = std::fs::read_to_string(root.join("bucket/somebody-elses")).unwrap();
    assert_eq!(foreign, "a foreign object", "what is foreign is left alone");
    for (name, expected) in [("denied", "AccessDenied"), ("dead", "Unreachable")] {
        let location = world.location_phase(ADMIN, name, LocationPhase::Unavailable).await;
        assert_eq!(reason(&location), expected, "{name}: {}", message(&location));
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_refused_by_the_schema_or_named_in_the_status() {
    sandbox::require_assets!();
    let world = World::new().await;
    let operator = world.operator();
    world.secret(ADMIN, PASSPHRASE).await;
    let mut manifest = location_manifest("odd");
    manifest["spec"]["prefix"] = "/east//".into();
    world.create::<BackupLocation>(ADMIN, manifest).await;
    let location = world.location_phase(ADMIN, "odd", LocationPhase::Unavailable).await;
    assert_eq!(reason(&location), "InvalidSpec");
    let message = message(&location);
    assert!(message.contains("spec.prefix") && message.contains("/east//"), "{message}");
    // Mended in place, it is probed at once.
    let api: Api<BackupLocation> = world.api(ADMIN);
    patch(&api, "odd", json!({"spec": {"prefix": "east"}})).await;
    world.location_phase(ADMIN, "odd", LocationPhase::Ready).await;
    api.delete("odd", &DeleteParams::default()).await.unwrap();
    until("the location to go", || async { api.get_opt("odd").await.unwrap().is_none().then_some(()) }).await;
    operator.stop().await;
}
