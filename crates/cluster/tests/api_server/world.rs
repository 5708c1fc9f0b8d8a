//! A control plane, the controller, and nodes in this process, each with a pool of its own.

use api::{StorageNode, Volume, VolumeRecord};
use cluster::{AddressBook, Agent, AgentConfig, InCluster, Times, certificates, controller, monitor};
use csi::{Limits, NewVolume, Volumes};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use node::{Access, AnyRecords, Node, PoolSpec, Replication, Serving};
use records::Patience;
use records::kubernetes::KubernetesRecords;
use replicas::{Network, Security};
use replication::units::{NodeId, Span};
use sandbox::control_plane::ControlPlane;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take that must happen; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn times() -> Times {
    Times {
        heartbeat: Duration::from_millis(300),
        dead_after: Duration::from_secs(4),
        offline_after: Duration::from_secs(7),
        pod_end: Duration::from_secs(2),
        rebuild_after: Duration::from_secs(8),
        look: Duration::from_secs(1),
        settle: Duration::from_millis(50),
        report: Duration::from_secs(1),
        ..Times::default()
    }
}

pub(crate) struct Machine {
    pub(crate) name: String,
    disk: TempDir,
    memory: TempDir,
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) volumes: Option<Arc<InCluster>>,
    stop: CancellationToken,
    agent: Option<JoinHandle<()>>,
}

pub(crate) struct World {
    _plane: ControlPlane,
    pub(crate) client: Client,
    config: Config,
    tls: TempDir,
    pub(crate) machines: Vec<Machine>,
    controller: JoinHandle<()>,
    monitor: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new(nodes: usize) -> Self {
        let plane = ControlPlane::start().await.unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(plane.kubeconfig().clone(), &options).await.unwrap();
        let client = plane.client();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in api::crds::all() {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let metadata = ObjectMeta { name: Some(api::STORAGE_NAMESPACE.into()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        until("the kinds to be served", async || {
            let all = ListParams::default();
            let nodes = Api::<StorageNode>::all(client.clone()).list(&all).await.is_ok();
            let volumes = Api::<Volume>::all(client.clone()).list(&all).await.is_ok();
            nodes && volumes && Api::<VolumeRecord>::all(client.clone()).list(&all).await.is_ok()
        })
        .await;
        let kept = KubernetesRecords::new(config.clone(), Patience::default()).unwrap();
        let controller = tokio::spawn(controller::run(client.clone(), kept, times()));
        let monitor = tokio::spawn(monitor::run(client.clone(), times(), monitor::Metrics::default()));
        let secrets: Api<Secret> = Api::namespaced(client.clone(), api::STORAGE_NAMESPACE);
        until("the authority", async || secrets.get_opt(certificates::SECRET).await.unwrap().is_some()).await;
        let tls = tempfile::tempdir().unwrap();
        for (name, text) in secrets.get(certificates::SECRET).await.unwrap().data.unwrap() {
            fs::write(tls.path().join(name), text.0).unwrap();
        }
        let mut world = Self { _plane: plane, client, config, tls, machines: Vec::new(), controller, monitor };
        for i in 0..nodes {
            world.machines.push(Machine {
                name: format!("node-{i}"),
                disk: tempfile::tempdir().unwrap(),
                memory: tempfile::tempdir_in("/dev/shm").unwrap(),
                node: None,
                volumes: None,
                stop: CancellationToken::new(),
                agent: None,
            });
            world.start(i).await;
        }
        let nodes_told: Api<StorageNode> = Api::all(world.client.clone());
        until("all nodes to tell of their pools", async || {
            let found = nodes_told.list(&ListParams::default()).await.unwrap().items;
            found.iter().filter(|node| node.status.as_ref().is_some_and(|status| status.free_bytes > 0)).count()
                == nodes
        })
        .await;
        world
    }

    /// Starts the process of a node.
    pub(crate) async fn start(&mut self, i: usize) {
        let (client, tls) = (self.client.clone(), self.tls.path().to_owned());
        let machine = &mut self.machines[i];
        let name = machine.name.clone();
        let me = NodeId::from(name.as_str());
        let identity = certificates::identity(&tls, &me).unwrap();
        let records = AnyRecords::new(KubernetesRecords::new(self.config.clone(), Patience::default()).unwrap());
        let book = Arc::<AddressBook>::default();
        let network = Network {
            cluster: identity.cluster,
            node: me,
            security: Security::Tls(identity.tls),
            addresses: book.clone(),
            limits: replicas::Limits::default(),
        };
        let limits = replication::limits::Limits {
            lease: Span::from_millis(2000),
            clock_bound: Span::from_millis(200),
            member_deadline: Span::from_millis(1500),
            join_pause: Span::from_millis(500),
            ..replication::limits::Limits::default()
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let replication = Some(Replication { network: network.clone(), listen, records: records.clone(), limits });
        let pools = vec![PoolSpec { path: machine.disk.path().join("pool"), bytes: Some(128 << 20) }];
        let runtime = node::RuntimeDir::claim(&machine.memory.path().join("run")).unwrap();
        let serving = Some(Serving { runtime, keeper: None, nbd_tls: None });
        let config =
            node::Config { pools, cache_bytes: 4 << 20, access: Access::Best, scrub: None, serving, replication };
        let node = tokio::task::spawn_blocking(move || Arc::new(Node::start(config).unwrap())).await.unwrap();
        machine.stop = CancellationToken::new();
        let agent = Agent::new(AgentConfig {
            client: client.clone(),
            node: node.clone(),
            me: name.clone(),
            records: records.clone(),
            times: times(),
            book,
            network,
            address: node.replicas_address().unwrap(),
            version: "test".into(),
            machine: api::StorageMachine::default(),
        });
        machine.agent = Some(tokio::spawn(agent.run(machine.stop.clone())));
        machine.volumes = Some(Arc::new(InCluster::new(node.clone(), client, records, name, times())));
        machine.node = Some(node);
    }

    /// Ends what tells of a node and follows the cluster; what it serves is served on.
    pub(crate) async fn cut_off(&mut self, i: usize) {
        self.machines[i].stop.cancel();
        if let Some(agent) = self.machines[i].agent.take() {
            agent.await.unwrap();
        }
    }

    /// Ends the process of a node.
    pub(crate) async fn stop(&mut self, i: usize) {
        self.cut_off(i).await;
        let machine = &mut self.machines[i];
        machine.volumes = None;
        let node = machine.node.take().unwrap();
        // What the agent had asked of it in a thread goes on for a moment.
        until("nobody else to have the node", async || Arc::strong_count(&node) == 1).await;
        let stopped = tokio::task::spawn_blocking(move || Arc::into_inner(node).map(Node::stop));
        assert!(stopped.await.unwrap().is_some(), "somebody still has the node");
    }

    pub(crate) fn node(&self, i: usize) -> &Arc<Node> {
        self.machines[i].node.as_ref().unwrap()
    }

    /// Asks for something where waiting is allowed.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        i: usize,
        ask: impl FnOnce(&InCluster) -> T + Send + 'static,
    ) -> T {
        let volumes = self.machines[i].volumes.clone().unwrap();
        tokio::task::spawn_blocking(move || ask(&volumes)).await.unwrap()
    }

    pub(crate) async fn volume(&self, name: &str) -> Option<Volume> {
        Api::<Volume>::all(self.client.clone()).get_opt(name).await.unwrap()
    }

    pub(crate) async fn records(&self) -> Vec<VolumeRecord> {
        Api::<VolumeRecord>::all(self.client.clone()).list(&ListParams::default()).await.unwrap().items
    }

    /// The nodes with replicas of the only volume, and whether each is in sync.
    pub(crate) async fn members(&self) -> Vec<(String, bool)> {
        let members = self.records().await.into_iter().flat_map(|record| record.spec.members);
        members.map(|member| (member.node, member.standing == api::RecordStanding::InSync)).collect()
    }

    /// Which of the machines these are.
    pub(crate) fn index(&self, name: &str) -> usize {
        self.machines.iter().position(|machine| machine.name == name).unwrap()
    }

    pub(crate) async fn end(mut self) {
        self.controller.abort();
        self.monitor.abort();
        for i in 0..self.machines.len() {
            if self.machines[i].node.is_some() {
                self.stop(i).await;
            }
        }
    }
}

pub(crate) fn new_volume(id: &str, replicas: u32) -> NewVolume {
    let (limits, labels) = (Limits::default(), csi::Labels::new());
    NewVolume { id: id.into(), bytes: 16 << 20, replicas, placement: None, limits, labels }
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn make(world: &World, i: usize, id: &'static str, replicas: u32) -> csi::Volume {
    world.ask(i, move |volumes| volumes.create(new_volume(id, replicas), None)).await.unwrap()
}

pub(crate) async fn attach(world: &World, i: usize, id: &'static str) -> Result<std::path::PathBuf, csi::Error> {
    world.ask(i, move |volumes| volumes.attach(id, None)).await
}

pub(crate) async fn detach(world: &World, i: usize, id: &'static str) {
    world.ask(i, move |volumes| volumes.detach(id)).await.unwrap();
}

pub(crate) async fn write(device: &Path, block: u64, byte: u8) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let device = device.to_owned();
    let write = move || {
        let file = fs::OpenOptions::new().read(true).write(true).open(device)?;
        file.write_all_at(&[byte; 4096], block * 4096)?;
        file.sync_all()
    };
    tokio::task::spawn_blocking(write).await.unwrap()
}

pub(crate) async fn read(device: &Path, block: u64) -> u8 {
    use std::os::unix::fs::FileExt;
    let device = device.to_owned();
    let read = move || {
        let mut found = [0; 4096];
        fs::File::open(device).unwrap().read_exact_at(&mut found, block * 4096).unwrap();
        assert!(found.iter().all(|byte| *byte == found[0]));
        found[0]
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}
