//! The ready rules of `deploy/rules`, as they are, on the servers that Debian has: each is written to by a client, backed up under its rule from a snapshot, restored beside itself,
//! and judged by what the client was told and by the server's own checker. All on one node, at the same time.
//!
//! The volumes are Orlop's, with the stand-ins of the sandbox for the standard sidecars, as in `csi.rs`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::storage::v1::CSINode;
use kube::Client;
use kube::api::{Api, ListParams};
use sandbox::s3::{Credentials, S3Server};
use sandbox::{Cluster, Error, Sandbox};
use scenarios::images::{self, Images, NoPackages};
use scenarios::pods::wait_for;
use scenarios::{install, orlop};
use tempfile::TempDir;

#[path = "rules/etcd.rs"]
mod etcd;
#[path = "rules/journal.rs"]
mod journal;
#[path = "rules/mariadb.rs"]
mod mariadb;
#[path = "rules/postgresql.rs"]
mod postgresql;
#[path = "rules/redis.rs"]
mod redis;
#[path = "rules/trial.rs"]
mod trial;

const LIMIT: Duration = Duration::from_secs(120);
/// Where the rules and the backups are.
const HOME: &str = api::ADMIN_NAMESPACE;
/// Where those are that write.
const CLIENTS: &str = "clients";
/// What a cluster has for snapshots.
const SNAPSHOTS: &str = include_str!("../../sandbox/sidecars/snapshots.yaml");

struct World {
    client: Client,
    cluster: Cluster,
    begun: Instant,
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_rules_make_databases_fit_to_be_restored() {
    skips::require_block_devices!("mkfs.ext4");
    sandbox::control_plane::install_crypto_provider();
    let folder = Sandbox::test_directory("rules", env!("CARGO_TARGET_TMPDIR"));
    let sandbox = match open(&folder).await {
        Ok(sandbox) => sandbox,
        Err(Error::Machine { problem, remedy }) => skips::skip!("{problem}: {remedy}"),
        Err(error) => panic!("open the sandbox: {error:?}"),
    };
    // An earlier run that was killed has left its cluster where this one will have its own.
    sandbox.wipe().await.expect("end what an earlier run has left");
    let guard = sandbox.clone().guard();
    let done = scenario(&sandbox).await;
    drop(guard);
    std::fs::remove_dir(&folder).expect("an empty directory");
    match done {
        Err(error) if error.is::<NoPackages>() => skips::skip!("{error:#}"),
        done => done.expect("every rule does what it promises"),
    }
}

async fn open(folder: &Path) -> sandbox::Result<Sandbox> {
    let sandbox = Sandbox::open(folder)?;
    sandbox.require_programs().await?;
    Ok(sandbox)
}

async fn scenario(sandbox: &Sandbox) -> Result<()> {
    let begun = Instant::now();
    let manifests = [&[SNAPSHOTS.to_owned()][..], &install::manifests("csi")?].concat();
    let [mariadb, redis, etcd, postgres] = [
        images::from_packages(sandbox, "mariadb", "10.11").await?,
        images::from_packages(sandbox, "redis", "7.0").await?,
        images::from_packages(sandbox, "etcd", "3.4").await?,
        images::from_packages(sandbox, "postgres", "15").await?,
    ];
    Images::build_orlop(sandbox).await?;
    images::stand_ins(sandbox, &manifests).await?;
    let cluster = Cluster::up(sandbox, "east", Some(1)).await?;
    let world = World { client: cluster.client().await?, cluster, begun };
    world.said("images are made, and a cluster of one node is up");
    for manifest in &manifests {
        install::apply(&world.client, manifest).await?;
    }
    let clients = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {CLIENTS}}}}}");
    install::create(&world.client, &clients).await?;
    world.driver_is_known().await?;
    let store = world.location().await?;
    world.said("it has volumes, snapshots and a location for backups");
    let judged = tokio::try_join!(
        async { mariadb::trial(&world, &mariadb).await.context("MariaDB") },
        async { redis::trial(&world, &redis).await.context("Redis") },
        async { etcd::trial(&world, &etcd).await.context("etcd") },
        async { postgresql::trial(&world, &postgres).await.context("PostgreSQL") },
    )?;
    for line in <[String; 4]>::from(judged) {
        world.said(&line);
    }
    drop(store);
    Ok(())
}

impl World {
    /// Prints what was done, and how long after the begin.
    fn said(&self, what: &str) {
        println!("{:5.1} s  {what}", self.begun.elapsed().as_secs_f32());
    }

    async fn driver_is_known(&self) -> Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), api::STORAGE_NAMESPACE);
        for name in ["orlop-keeper", "orlop-node", "orlop-csi"] {
            wait_for(&format!("the DaemonSet {name}"), LIMIT, || async {
                Ok((sets.get(name).await?.status.unwrap_or_default().number_ready == 1).then_some(()))
            })
            .await?;
        }
        let nodes: Api<CSINode> = Api::all(self.client.clone());
        wait_for("the driver on the node", LIMIT, || async {
            let known = |node: &CSINode| node.spec.drivers.iter().any(|driver| driver.name == "volumes.orlop.io");
            Ok(nodes.list(&ListParams::default()).await?.items.iter().any(known).then_some(()))
        })
        .await
    }

    /// Orlop, and a store for its backups on this machine.
    async fn location(&self) -> Result<(S3Server, TempDir)> {
        let folder = tempfile::tempdir()?;
        let store = S3Server::start(folder.path().join("s3"), Credentials::generate())?;
        store.create_bucket("backups")?;
        let inside = self.cluster.forward_in(store.address().port(), store.address()).await?;
        install::orlop(&self.client, install::IMAGE_IN_MANIFESTS).await?;
        let passphrase = folder.path().join("passphrase");
        std::fs::write(&passphrase, "open sesame")?;
        let options = [format!("--endpoint=http://{inside}"), format!("--passphrase-file={}", passphrase.display())];
        let keys = store.credentials();
        let keys = [("AWS_ACCESS_KEY_ID", keys.access_key.clone()), ("AWS_SECRET_ACCESS_KEY", keys.secret_key.clone())];
        let add = ["location", "add", "vault", "-n", HOME, "--bucket", "backups", &options[0], &options[1]];
        orlop::succeed(Some(&self.cluster.kubeconfig_path()), &add, &keys).await?;
        Ok((store, folder))
    }
}
