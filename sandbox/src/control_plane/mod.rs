//! A control plane alone: etcd and kube-apiserver, and on request kube-controller-manager, without nodes and without root.
//!
//! It is real Kubernetes as far as the API goes: validation, defaulting, RBAC, watches, server-side apply, custom
//! resources. What nodes do, a test does itself: it writes the status that a kubelet would write. Each instance has its
//! own authority, its own ports on the loopback interface and its own temporary directory, so that any number runs side
//! by side, and it dies with the process that started it.

mod certificates;
mod flags;
mod lending;
mod ports;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;

use crate::assets::{Assets, is_executable};
use certificates::Certificates;
pub use certificates::install_crypto_provider;
use flags::Version;
pub use lending::{Borrowed, SOCKET_VARIABLE, lend};
use ports::{Ports, is_port_clash};
use process::Process;

/// How often a condition is looked at again while waiting for it: short against a start, long against one request.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a program may take until it is ready: an API server takes about four seconds when nothing else runs, and
/// three times that was seen on one that was building nine things at the same time.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Attempts to start on freshly picked ports, since another process can take a port between its being picked and used.
const PORT_ATTEMPTS: usize = 4;

/// What a control plane consists of, before it is started.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    controller_manager: bool,
    assets: Option<Assets>,
}

/// A running control plane; everything of it ends when this is dropped.
pub struct ControlPlane {
    // Declared in the order in which they must end: clients of etcd before etcd, the directory last.
    controller_manager: Option<Process>,
    api_server: Option<Process>,
    etcd: Process,
    programs: Programs,
    ports: Ports,
    kubeconfig: Kubeconfig,
    client: Client,
    probe: Client,
    /// Whether service accounts are to be had, which only the controllers make.
    controllers: bool,
    directory: TempDir,
}

#[derive(Clone, Debug)]
struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
    /// With its version, which some of its flags depend on.
    controller_manager: Option<(PathBuf, Version)>,
}

impl Builder {
    /// Also runs the controllers: without them namespaces are never emptied, owned objects are never collected, and
    /// service accounts get no tokens, so that the admission of pods does not ask for any.
    ///
    /// The one that evicts pods from silent nodes is left out, because tests make nodes that have no kubelet.
    #[must_use]
    pub fn with_controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    /// Takes the programs from given places and not from those that the environment names.
    #[must_use]
    pub fn with_assets(mut self, assets: Assets) -> Self {
        self.assets = Some(assets);
        self
    }

    /// Starts everything and returns when it is ready to be used.
    pub async fn start(self) -> Result<ControlPlane> {
        install_crypto_provider();
        let programs = Programs::find(&self.assets.unwrap_or_else(Assets::from_environment), self.controller_manager)?;
        let certificates = Certificates::generate()?;
        let mut attempt = 1;
        loop {
            let launch = ControlPlane::launch(&programs, &certificates, Ports::pick()?, self.controller_manager);
            match launch.await {
                Err(error) if attempt < PORT_ATTEMPTS && is_port_clash(&error) => {
                    tracing::info!(?error, attempt, "another process took a port, trying other ports");
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver and returns when the API is ready.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Chooses more than the least.
    pub fn builder() -> Builder {
        Builder::default()
    }

    async fn launch(programs: &Programs, certificates: &Certificates, ports: Ports, controllers: bool) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("control-plane-").tempdir().context("make a temporary directory")?;
        let kubeconfig = write_files(directory.path(), certificates, ports)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default())
            .await
            .context("read the kubeconfig that was just made")?;
        let client = Client::try_from(config.clone()).context("make a client")?;
        // Its own patience would be added to that of the loops that wait.
        config.default_retry = false;
        let probe = Client::try_from(config).context("make a client for probing")?;
        let etcd = Process::start("etcd", &programs.etcd, &flags::etcd(ports), directory.path())?;
        let programs = programs.clone();
        let mut plane = Self {
            controller_manager: None,
            api_server: None,
            etcd,
            programs,
            ports,
            kubeconfig,
            client,
            probe,
            controllers,
            directory,
        };
        plane.start_api_server().await?;
        if controllers {
            // At the same time as the API server they would not be ready sooner, and give up if it takes too long.
            plane.start_controller_manager().await?;
        }
        Ok(plane)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// The administrator's kubeconfig as a file, for programs that read `KUBECONFIG`; it is gone with the control plane.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Kills the API server; clients get refused connections until [`Self::restart_apiserver`].
    pub fn kill_apiserver(&mut self) -> Result<()> {
        self.api_server.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Kills the API server if it runs, starts it again on the same port and waits until it is ready.
    ///
    /// Every connection and watch is lost; what was acknowledged is kept, for etcd goes on.
    pub async fn restart_apiserver(&mut self) -> Result<()> {
        self.kill_apiserver()?;
        self.start_api_server().await
    }

    /// Ends the controllers; the API goes on without them.
    pub fn kill_controller_manager(&mut self) -> Result<()> {
        self.controller_manager.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts the controllers if they do not run, and waits until they work.
    pub async fn start_controller_manager(&mut self) -> Result<()> {
        if self.controller_manager.is_none() {
            let Some((program, version)) = &self.programs.controller_manager else {
                bail!(
                    "this control plane was started without controllers: Builder::with_controller_manager finds them"
                );
            };
            let flags = flags::controller_manager(self.ports, *version);
            let process = self.start_process("kube-controller-manager", program, &flags)?;
            self.controller_manager = Some(process);
        }
        // Their first visible work that other things depend on.
        self.wait_for("/api/v1/namespaces/default/serviceaccounts/default").await
    }

    async fn start_api_server(&mut self) -> Result<()> {
        let flags = flags::api_server(self.ports, self.controllers);
        let process = self.start_process("kube-apiserver", &self.programs.api_server, &flags)?;
        self.api_server = Some(process);
        self.wait_for("/readyz").await?;
        self.wait_for("/api/v1/namespaces/default").await
    }

    fn start_process(&self, name: &str, program: &Path, flags: &[String]) -> Result<Process> {
        Process::start(name, program, flags, self.directory.path())
    }

    /// Waits until the API server answers a path with success, as long as all programs run.
    async fn wait_for(&mut self, path: &str) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let request = Request::get(path).body(Vec::new()).context("make a request")?;
            let Err(error) = self.probe.request_text(request).await else {
                return Ok(());
            };
            let mut running = [Some(&mut self.etcd), self.api_server.as_mut(), self.controller_manager.as_mut()];
            for process in running.iter_mut().flatten() {
                process.check_running()?;
            }
            if Instant::now() > deadline {
                let what = format!("does not answer {path} after {START_DEADLINE:?}: {error}");
                return Err(self.api_server.as_ref().unwrap_or(&self.etcd).failure(&what));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Programs {
    /// The API server and the controllers are of one directory; etcd is of the same if it is there, else of any.
    fn find(assets: &Assets, controllers: bool) -> Result<Self> {
        const API_SERVER: &str = "kube-apiserver";
        const CONTROLLERS: &str = "kube-controller-manager";
        let wanted = if controllers { &[API_SERVER, CONTROLLERS][..] } else { &[API_SERVER] };
        let directory = assets.find_together(wanted)?;
        let beside = directory.join("etcd");
        let etcd = if is_executable(&beside) { beside } else { assets.find("etcd")? };
        let controller_manager = directory.join(CONTROLLERS);
        let version = controllers.then(|| Version::of(&controller_manager)).transpose()?;
        let controller_manager = version.map(|version| (controller_manager, version));
        Ok(Self { etcd, api_server: directory.join(API_SERVER), controller_manager })
    }
}

/// Writes what the programs read, and returns the administrator's kubeconfig.
fn write_files(directory: &Path, certificates: &Certificates, ports: Ports) -> Result<Kubeconfig> {
    let kubeconfig = certificates.kubeconfig(&format!("https://127.0.0.1:{}", ports.api_server)).to_string();
    let files = [
        ("authority.crt", &certificates.authority),
        ("server.crt", &certificates.server.certificate),
        ("server.key", &certificates.server.key),
        ("service-accounts.key", &certificates.service_account_key),
        ("service-accounts.pub", &certificates.service_account_public_key),
        ("kubeconfig", &kubeconfig),
    ];
    for (name, text) in files {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Kubeconfig::from_yaml(&kubeconfig).context("parse the kubeconfig that was just made")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// A program that only says its version.
    fn program(path: &Path, version: &str) {
        crate::files::write(path, format!("#!/bin/sh\necho Kubernetes {version}\n"), crate::files::PROGRAM).unwrap();
    }

    #[test]
    fn the_controllers_are_of_the_release_of_the_api_server_and_so_are_their_flags() {
        let root = tempfile::tempdir().unwrap();
        let (named, cache) = (root.path().join("named"), root.path().join("cache"));
        program(&named.join("etcd"), "");
        program(&named.join("kube-apiserver"), "v1.30.1");
        for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
            program(&cache.join("bin").join(name), "v1.20.2");
        }
        let assets = Assets::new(Some(named.as_os_str()), None, Some(&cache));
        let alone = Programs::find(&assets, false).unwrap();
        assert_eq!((alone.api_server, alone.controller_manager), (named.join("kube-apiserver"), None));
        let both = Programs::find(&assets, true).unwrap();
        assert_eq!((both.etcd, both.api_server), (cache.join("bin/etcd"), cache.join("bin/kube-apiserver")));
        let (controllers, version) = both.controller_manager.unwrap();
        assert_eq!(controllers, cache.join("bin/kube-controller-manager"));
        assert_eq!(version, Version::of(&controllers).unwrap());
        let error = Programs::find(&Assets::new(Some(named.as_os_str()), None, None), true).unwrap_err().to_string();
        assert!(error.contains("named lacks kube-controller-manager"), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_was_taken_is_told_from_other_failures() {
        crate::require_assets!();
        install_crypto_provider();
        let programs = Programs::find(&Assets::from_environment(), true).unwrap();
        let certificates = Certificates::generate().unwrap();
        let taken: [fn(&Ports) -> u16; 3] = [|p| p.etcd, |p| p.api_server, |p| p.controller_manager];
        for port_of in taken {
            let ports = Ports::pick().unwrap();
            let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port_of(&ports))).unwrap();
            let outcome = ControlPlane::launch(&programs, &certificates, ports, true).await;
            let error = outcome.err().unwrap();
            assert!(is_port_clash(&error), "{ports:?}: {error:#}");
        }
        let broken = Programs { api_server: "/bin/false".into(), ..programs };
        let ports = Ports::pick().unwrap();
        let outcome = ControlPlane::launch(&broken, &certificates, ports, false).await;
        let error = outcome.err().unwrap();
        assert!(!is_port_clash(&error), "{error:#}");
        assert!(error.to_string().contains("kube-apiserver ended with exit code 1"), "{error:#}");
    }
}
