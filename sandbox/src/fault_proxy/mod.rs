//! A proxy between a client and a real API server that makes things go wrong on purpose.
//!
//! # Fault model
//!
//! The API server itself is correct: it does what it says and keeps what it acknowledged. Between it and its client,
//! each request may meet one of these, and only these:
//!
//! * It is **delayed** for a bounded time and then done. Requests may overtake each other by that.
//! * It is **refused** with an error that an API server does give, without having been seen by it: 409, 410, 429 with or
//!   without advice when to come back, 500, 503, or another.
//! * It is **done, and its answer is lost**: the connection is closed after the API server has finished. The client
//!   cannot tell that from the next.
//! * It is **not done, and the connection is reset**.
//! * Its answer is **cut off**, after a number of whole events or after some time: what came before the cut did come, in
//!   order, unchanged. Watches are what this is meant for.
//!
//! Nothing is altered, invented, duplicated or put into another order within an answer, and a request that is passed on
//! is passed on once. After [`FaultProxy::heal`] nothing more goes wrong; what was cut stays cut.
//!
//! Which requests meet what is said by a [`Plan`]: scripted ("the second create of a Job loses its answer") or random
//! with a seed, which is printed. All requests and their faults are kept in a log for the test to look at.
//!
//! ```no_run
//! # async fn example(plane: &sandbox::control_plane::ControlPlane) -> anyhow::Result<()> {
//! use sandbox::fault_proxy::{Fault, FaultProxy, Plan, Rule, Verb};
//!
//! let plan = Plan::from_environment()
//!     .with(Rule::on(Verb::Create, Fault::LoseAnswer).path("/jobs").nth(2))
//!     .with(Rule::any(Fault::CONFLICT).or(Fault::too_many_requests(1)).for_verbs(Verb::WRITES).chance(0.1))
//!     .with(Rule::on(Verb::Watch, Fault::CutAfterEvents(3)).or(Fault::GONE).chance(0.5));
//! let proxy = FaultProxy::start(plane.kubeconfig(), plan).await?;
//! let client = proxy.client().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The proxy has the upstream identity of the kubeconfig that it is given, and lets everybody on this machine who finds
//! its port use it: it is for tests.

mod connection;
mod draw;
mod forward;
mod plan;
mod request;
mod state;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use crate::background::Background;
use crate::control_plane::install_crypto_provider;
pub use plan::{Fault, Plan, Rule, SEED_VARIABLE, When};
pub use request::{RequestRecord, Verb};
use state::State;

/// A running proxy; it ends, with its connections, when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    kubeconfig: Kubeconfig,
    state: Arc<State>,
    _background: Background,
}

impl FaultProxy {
    /// Starts a proxy on a free port of 127.0.0.1 in front of the API server that a kubeconfig names.
    pub async fn start(upstream: &Kubeconfig, plan: Plan) -> Result<Self> {
        install_crypto_provider();
        let mut config = Config::from_custom_kubeconfig(upstream.clone(), &KubeConfigOptions::default())
            .await
            .context("read the kubeconfig of the API server behind the fault proxy")?;
        // What goes wrong behind the proxy is for its client to see, and requests are passed on once.
        config.default_retry = false;

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on a port of 127.0.0.1")?;
        listener.set_nonblocking(true).context("make the listener fit for waiting")?;
        let address = listener.local_addr().context("read the address that is listened on")?;
        let kubeconfig = kubeconfig(address, &config.default_namespace)?;
        announce(&plan);
        let state = Arc::new(State::new(plan));
        let shared = Arc::clone(&state);
        let serve = async move || match Client::try_from(config) {
            Ok(upstream) => forward::serve(listener, shared, upstream).await,
            Err(error) => tracing::error!(%error, "the fault proxy has no client"),
        };
        let background = Background::run("fault-proxy", serve)?;
        Ok(Self { address, kubeconfig, state, _background: background })
    }

    /// The kubeconfig of the proxy, in place of the API server's.
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// Writes the proxy's kubeconfig to a file, for programs that read `KUBECONFIG`.
    pub fn write_kubeconfig(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string(&self.kubeconfig).context("write the fault proxy's kubeconfig as JSON")?;
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    /// A client of the proxy.
    ///
    /// It repeats refused requests by itself, as all clients with kube's default settings do; for one that does not,
    /// unset `default_retry` in a configuration made from [`Self::kubeconfig`].
    pub async fn client(&self) -> Result<Client> {
        let config = Config::from_custom_kubeconfig(self.kubeconfig.clone(), &KubeConfigOptions::default())
            .await
            .context("read the fault proxy's kubeconfig")?;
        Client::try_from(config).context("make a client of the fault proxy")
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the plan; its rules start to count from now. Requests that are being delayed are passed on at once.
    pub fn set_plan(&self, plan: Plan) {
        announce(&plan);
        self.state.set_plan(plan);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state.set_plan(Plan::none());
    }

    /// The requests so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.requests()
    }

    /// The requests so far that met a fault.
    pub fn faulted(&self) -> Vec<RequestRecord> {
        self.requests().into_iter().filter(|record| record.fault.is_some()).collect()
    }

    /// Waits until there is, or was, a request of a kind; an error lists the requests that there were instead.
    pub async fn wait_for(&self, patience: Duration, wanted: impl Fn(&RequestRecord) -> bool) -> Result<RequestRecord> {
        /// Requests that the error repeats.
        const LISTED: usize = 20;
        let mut changes = self.state.log();
        let found = tokio::time::timeout(patience, async {
            loop {
                changes.mark_unchanged();
                if let Some(record) = self.state.find(&wanted) {
                    return record;
                }
                if changes.changed().await.is_err() {
                    // The log lives as long as this proxy.
                    std::future::pending::<()>().await;
                }
            }
        });
        found.await.with_context(|| {
            let requests = self.requests();
            let last: Vec<_> = requests.iter().rev().take(LISTED).rev().map(ToString::to_string).collect();
            format!("no such request within {patience:?}; the last of {} were:\n{}", requests.len(), last.join("\n"))
        })
    }
}

/// Says what it takes to repeat what happens.
fn announce(plan: &Plan) {
    eprintln!("fault proxy: {SEED_VARIABLE}={}", plan.seed());
}

fn kubeconfig(address: SocketAddr, namespace: &str) -> Result<Kubeconfig> {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fault-proxy",
        "clusters": [{"name": "fault-proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "fault-proxy", "user": {}}],
        "contexts": [{"name": "fault-proxy", "context": {
            "cluster": "fault-proxy", "user": "fault-proxy", "namespace": namespace,
        }}],
    });
    Kubeconfig::from_yaml(&text.to_string()).context("make the fault proxy's kubeconfig")
}
