//! How long answers take in a large cluster: 1,000 nodes, 10,000 volumes with three replicas, pods with three of them, over HTTP. Fails when 99 of 100 answers are not within
//! 10 ms: `cargo bench --bench extender`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::watcher::Event;
use scheduler::{Cache, Extender, Stores, listen};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::hash::Hash;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const NODES: usize = 1000;
const VOLUMES: usize = 10_000;
const PODS: usize = 500;
const MOST: Duration = Duration::from_millis(10);

fn filled<K>(objects: impl Iterator<Item = Value>) -> Store<K>
where
    K: Lookup + Clone + Debug + DeserializeOwned + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let (store, mut writer) = store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
    // Its store is not ready any more when it is gone.
    std::mem::forget(writer);
    store
}

fn stores() -> Stores {
    let node = |i: usize| format!("node-{i}");
    let uid = |i: usize| format!("{i:08x}-0000-0000-0000-000000000000");
    let member = |i: usize| json!({"replica": format!("{i:016x}"), "node": node(i % NODES), "standing": "InSync"});
    let record = move |i: usize| {
        json!({"metadata": {"name": uid(i).replace('-', "")}, "spec": {"epoch": "1", "equal": "1", "inSync": 3, "memberCount": 3, "minimum": 2, "blocks": "1024",
            "members": [member(i), member(i + 333), member(i + 666)]}})
    };
    Stores {
        claims: filled((0..VOLUMES).map(|i| {
            json!({"metadata": {"name": format!("data-{i}"), "namespace": "shop"}, "spec": {"volumeName": format!("pv-{i}")}})
        })),
        persistent: filled((0..VOLUMES).map(|i| {
            let source = json!({"driver": "volumes.orlop.io", "volumeHandle": format!("pvc-{i}")});
            json!({"metadata": {"name": format!("pv-{i}")}, "spec": {"csi": source}})
        })),
        classes: filled(std::iter::empty()),
        machines: filled((0..NODES).map(|i| {
            let labels = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": format!("z{}", i % 3), "topology.orlop.io/rack": format!("a{}", i % 30)});
            json!({"metadata": {"name": node(i), "labels": labels}})
        })),
        nodes: filled((0..NODES).map(|i| {
            let pools = json!([{"name": "pool", "bytes": 1 << 40, "freeBytes": (i as u64) << 30}]);
            json!({"metadata": {"name": node(i)}, "spec": {}, "status": {"freeBytes": 0, "pools": pools}})
        })),
        leases: filled::<Lease>((0..NODES).map(|i| {
            json!({"metadata": {"name": format!("storage-node-{i}"), "labels": {"orlop.io/storage-node": node(i)}, "resourceVersion": "1"}})
        })),
        volumes: filled((0..VOLUMES).map(|i| {
            json!({"metadata": {"name": format!("pvc-{i}"), "uid": uid(i)}, "spec": {"bytes": 4_194_304, "replicas": 3, "minimumInSync": 2, "limits": {}}})
        })),
        records: filled((0..VOLUMES).map(record)),
    }
}

/// One request on a connection of its own, as kube-scheduler may do it.
fn ask(address: SocketAddr, path: &str, body: &str) -> (Value, Duration) {
    let begun = Instant::now();
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let took = begun.elapsed();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    (serde_json::from_str(body).unwrap(), took)
}

fn main() -> Result<()> {
    // A test runner asks what there is: nothing that it should run.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let cache = Arc::new(Cache::new(stores(), Duration::from_secs(3600)));
    cache.look(Instant::now());
    let listener = runtime.block_on(listen(([127, 0, 0, 1], 0).into()))?;
    let address = listener.local_addr()?;
    runtime.block_on(cache.ready());
    runtime.spawn(Extender::new(cache, None).serve(listener, CancellationToken::new()));
    let names: Vec<String> = (0..NODES).map(|i| format!("node-{i}")).collect();
    for path in ["/filter", "/prioritize"] {
        let mut times = Vec::new();
        for i in 0..PODS {
            let claim = |at: usize| json!({"name": format!("v{at}"), "persistentVolumeClaim": {"claimName": format!("data-{at}")}});
            let volumes = json!([claim(i), claim(i + 1000), claim(i + 2000)]);
            let pod = json!({"metadata": {"name": format!("p{i}"), "namespace": "shop"}, "spec": {"containers": [], "volumes": volumes}});
            let (answer, took) = ask(address, path, &json!({"Pod": pod, "NodeNames": names}).to_string());
            match path {
                "/filter" => {
                    ensure!(answer["NodeNames"].as_array().is_some_and(|left| left.len() == NODES), "{answer}")
                }
                _ => ensure!(answer[i]["Score"].as_i64().is_some_and(|score| score >= 100), "{}", answer[i]),
            }
            times.push(took);
        }
        times.sort();
        let (half, most) = (times[PODS / 2], times[PODS * 99 / 100]);
        println!("{path}: {NODES} nodes, {VOLUMES} volumes, pods with 3: p50 {half:.1?}, p99 {most:.1?}");
        ensure!(most <= MOST, "p99 of {path} is {most:?}, and {MOST:?} is the most");
    }
    Ok(())
}
