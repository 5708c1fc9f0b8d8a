//! The fault proxy in front of a real API server: each fault does what the fault model says, and no more.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

use std::collections::BTreeSet;
use std::error::Error;
use std::time::{Duration, Instant};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::Kubeconfig;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use sandbox::control_plane::ControlPlane;
use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};
use sandbox::require_assets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What one of these tests waits for at most; all of it takes a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane, a proxy before it, and the same collection seen by both.
struct Fixture {
    proxy: FaultProxy,
    /// Through the proxy, by a client that repeats nothing.
    proxied: Api<ConfigMap>,
    direct: Api<ConfigMap>,
    _plane: ControlPlane,
}

impl Fixture {
    async fn new(plan: Plan) -> Self {
        let plane = ControlPlane::start().await.unwrap();
        let proxy = FaultProxy::start(plane.kubeconfig(), plan).await.unwrap();
        let mut config = Config::from_custom_kubeconfig(proxy.kubeconfig().clone(), &Default::default()).await.unwrap();
        config.default_retry = false;
        let proxied = Api::default_namespaced(Client::try_from(config).unwrap());
        let direct = Api::default_namespaced(plane.client());
        Self { proxy, proxied, direct, _plane: plane }
    }

    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        self.proxied.create(&PostParams::default(), &config_map(name)).await
    }

    async fn exists(&self, name: &str) -> bool {
        self.direct.get_opt(name).await.unwrap().is_some()
    }

    /// The faults so far, in order.
    fn faults(&self) -> Vec<String> {
        self.proxy.faulted().into_iter().filter_map(|record| record.fault).collect()
    }
}

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

fn creates(fault: Fault) -> Rule {
    Rule::on(Verb::Create, fault).path("/configmaps")
}

fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn io_error_kind(error: &(dyn Error + 'static)) -> Option<std::io::ErrorKind> {
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => Some(error.kind()),
        None => error.source().and_then(io_error_kind),
    }
}

#[tokio::test]
async fn a_refused_request_has_not_been_done() {
    require_assets!();
    let fixture = Fixture::new(Plan::none()).await;
    let refusals = [
        (Fault::CONFLICT, 409, "Conflict"),
        (Fault::GONE, 410, "Expired"),
        (Fault::too_many_requests(1), 429, "TooManyRequests"),
        (Fault::INTERNAL_ERROR, 500, "InternalError"),
        (Fault::UNAVAILABLE, 503, "ServiceUnavailable"),
    ];
    for (fault, code, reason) in refusals {
        fixture.proxy.set_plan(Plan::none().with(creates(fault)));
        let error = fixture.create("refused").await.unwrap_err();
        let kube::Error::Api(status) = &error else { panic!("no answer of an API server: {error}") };
        assert_eq!((status.code, status.reason.as_str()), (code, reason));
        assert!(!fixture.exists("refused").await, "{code}");
    }
    assert!(fixture.proxy.faulted().iter().all(|record| record.upstream_status.is_none()));

    fixture.proxy.heal();
    fixture.create("refused").await.unwrap();
    assert!(fixture.exists("refused").await);
}

#[tokio::test]
async fn a_client_that_is_told_to_wait_comes_back() {
    require_assets!();
    let fixture = Fixture::new(Plan::none().with(creates(Fault::too_many_requests(1)).first(2))).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(fixture.proxy.client().await.unwrap());
    let started = Instant::now();
    maps.create(&PostParams::default(), &config_map("patient")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2), "Retry-After was not heeded: {:?}", started.elapsed());
    assert_eq!(fixture.faults(), ["answered 429", "answered 429"]);
    let statuses: Vec<_> = fixture.proxy.requests().iter().map(|record| record.upstream_status).collect();
    assert_eq!(statuses, [None, None, Some(201)]);
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_has_been_done() {
    require_assets!();
    let plan = Plan::none().with(creates(Fault::LoseAnswer).nth(1)).with(Rule::on(Verb::Delete, Fault::LoseAnswer));
    let fixture = Fixture::new(plan).await;
    let error = fixture.create("there").await.unwrap_err();
    assert_eq!(status_code(&error), None, "an answer: {error}");
    assert!(fixture.exists("there").await);
    let again = fixture.create("there").await.unwrap_err();
    assert_eq!(status_code(&again), Some(409), "{again}");

    let error = fixture.proxied.delete("there", &DeleteParams::default()).await.unwrap_err();
    assert_eq!(status_code(&error), None, "an answer: {error}");
    assert!(!fixture.exists("there").await);
    let statuses: Vec<_> = fixture.proxy.faulted().iter().map(|record| record.upstream_status).collect();
    assert_eq!(statuses, [Some(201), Some(200)]);
}

#[tokio::test]
async fn a_request_whose_connection_was_reset_has_not_been_done() {
    require_assets!();
    let fixture = Fixture::new(Plan::none().with(creates(Fault::Reset).first(1))).await;
    let error = fixture.create("reset").await.unwrap_err();
    assert_eq!(io_error_kind(&error), Some(std::io::ErrorKind::ConnectionReset), "{error:?}");
    assert!(!fixture.exists("reset").await);
    fixture.create("reset").await.unwrap();
}

#[tokio::test]
async fn a_delayed_request_is_done_when_the_plan_is_healed() {
    require_assets!();
    let fixture = Fixture::new(Plan::none().with(creates(Fault::Delay(Duration::from_secs(3600))))).await;
    let heal = async {
        let record = fixture.proxy.wait_for(PATIENCE, |record| record.verb == Verb::Create).await.unwrap();
        assert_eq!(record.upstream_status, None);
        assert!(!fixture.exists("late").await);
        fixture.proxy.heal();
    };
    let (created, ()) = tokio::join!(fixture.create("late"), heal);
    created.unwrap();

    fixture.proxy.set_plan(Plan::none().with(Rule::on(Verb::List, Fault::Delay(Duration::from_millis(300)))));
    let started = Instant::now();
    fixture.proxied.list(&ListParams::default()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_watcher_sees_everything_in_spite_of_every_fault_of_watches() {
    require_assets!();
    let faults = [
        Fault::CutAfterEvents(1),
        Fault::GONE,
        Fault::CutAfter(Duration::from_millis(50)),
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::INTERNAL_ERROR,
        Fault::CutAfterEvents(2),
    ];
    let rules = faults.iter().zip(1..).map(|(fault, n)| Rule::on(Verb::Watch, fault.clone()).nth(n));
    let fixture = Fixture::new(rules.fold(Plan::none(), Plan::with)).await;
    let expected: BTreeSet<_> = (0..12).map(|i| format!("map-{i:02}")).collect();

    let create = async {
        // One after the other, while the watcher is at work: some before a cut, some after, some while there is no watch.
        for name in &expected {
            fixture.direct.create(&PostParams::default(), &config_map(name)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let script_done =
            |record: &sandbox::fault_proxy::RequestRecord| record.verb == Verb::Watch && record.fault.is_none();
        fixture.proxy.wait_for(PATIENCE, script_done).await.unwrap();
        fixture.direct.create(&PostParams::default(), &config_map("last")).await.unwrap();
    };
    let watch = tokio::time::timeout(PATIENCE, follow_until(&fixture.proxied, "last"));
    let (seen, ()) = tokio::join!(watch, create);
    let seen = seen.unwrap();
    assert!(seen.is_superset(&expected), "{seen:?}");
    let described: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(fixture.faults(), described);
}

/// Keeps the set of names as a controller's cache does, until one appears; errors are the watcher's to recover from.
async fn follow_until(maps: &Api<ConfigMap>, last: &str) -> BTreeSet<String> {
    let events = watcher(maps.clone(), watcher::Config::default());
    pin_mut!(events);
    let mut names = BTreeSet::new();
    while !names.contains(last) {
        match events.next().await.unwrap() {
            Ok(Event::Init) => names.clear(),
            Ok(Event::Apply(map) | Event::InitApply(map)) => {
                names.insert(map.metadata.name.unwrap());
            }
            Ok(Event::Delete(map)) => {
                names.remove(&map.metadata.name.unwrap());
            }
            Ok(Event::InitDone) => {}
            Err(error) => eprintln!("the watcher has to recover from: {error}"),
        }
    }
    names
}

#[tokio::test]
async fn requests_that_are_not_found_are_told_with_those_that_are() {
    require_assets!();
    let fixture = Fixture::new(Plan::none()).await;
    fixture.create("a").await.unwrap();
    let error =
        fixture.proxy.wait_for(Duration::from_millis(10), |record| record.verb == Verb::Delete).await.unwrap_err();
    assert!(error.to_string().contains("1 Create /api/v1/namespaces/default/configmaps"), "{error}");
}

/// A server that takes one connection, upgrades it, and gives back what it gets.
async fn echo_after_upgrade(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.unwrap();
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn upgraded_connections_are_passed_through() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(echo_after_upgrade(listener));
    let upstream = format!(
        r#"{{"current-context": "c", "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}],
            "clusters": [{{"name": "c", "cluster": {{"server": "http://{address}"}}}}], "users": [{{"name": "u", "user": {{}}}}]}}"#
    );
    let proxy = FaultProxy::start(&Kubeconfig::from_yaml(&upstream).unwrap(), Plan::none()).await.unwrap();

    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let request = "GET /api/v1/namespaces/a/pods/p/exec?command=x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut echo = [0; 4];
    for message in [b"ping", b"pong"] {
        client.write_all(message).await.unwrap();
        client.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, message);
    }
    assert_eq!(proxy.requests()[0].verb, Verb::Connect);
    drop(client);
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
}
