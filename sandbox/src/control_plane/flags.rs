//! The flags of each program: only what a control plane on one machine cannot do without, so that they suit all versions.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Ports;

/// The minor version of Kubernetes since which controllers have no insecure port to be turned off.
const WITHOUT_INSECURE_PORT: Version = Version { major: 1, minor: 24 };

/// A version of Kubernetes, as far as flags depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Asks a program of Kubernetes.
    pub(super) fn of(program: &Path) -> Result<Self> {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("run {} --version", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Self::parse(&text).with_context(|| format!("read a version in the answer of {}: {text:?}", program.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().strip_prefix("Kubernetes v")?.split('.');
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { major: next()?, minor: next()? })
    }
}

pub(super) fn etcd(ports: Ports) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}", ports.etcd);
    vec![
        "--data-dir=etcd".into(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        // There are no peers: any port will do, and nobody needs to know it.
        "--listen-peer-urls=http://127.0.0.1:0".into(),
        // The data lives as long as the test: a power cut of the machine need not be survived, a killed etcd is.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

pub(super) fn api_server(ports: Ports, service_accounts: bool) -> Vec<String> {
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        format!("--secure-port={}", ports.api_server),
        "--bind-address=127.0.0.1".into(),
        // A machine without a default route has no address that could be found out.
        "--advertise-address=127.0.0.1".into(),
        // Endpoints may not be loopback addresses, and nobody uses them without nodes.
        "--endpoint-reconciler-type=none".into(),
        "--tls-cert-file=server.crt".into(),
        "--tls-private-key-file=server.key".into(),
        "--client-ca-file=authority.crt".into(),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.0.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        "--service-account-signing-key-file=service-accounts.key".into(),
        "--service-account-key-file=service-accounts.pub".into(),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
    ];
    if !service_accounts {
        flags.push("--disable-admission-plugins=ServiceAccount".into());
    }
    flags
}

pub(super) fn controller_manager(ports: Ports, version: Version) -> Vec<String> {
    let mut flags = vec![
        "--kubeconfig=kubeconfig".into(),
        format!("--secure-port={}", ports.controller_manager),
        "--bind-address=127.0.0.1".into(),
        // It would make itself a certificate below /var/run, which takes root.
        "--cert-dir=controller-manager".into(),
        "--leader-elect=false".into(),
        // Nodes in tests have no kubelet that says they are alive.
        "--controllers=*,-nodelifecycle".into(),
        "--service-account-private-key-file=service-accounts.key".into(),
        "--root-ca-file=authority.crt".into(),
    ];
    if version < WITHOUT_INSECURE_PORT {
        flags.push("--port=0".into());
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let check = |text, expected: Option<(u32, u32)>| {
            assert_eq!(Version::parse(text).map(|v| (v.major, v.minor)), expected, "{text:?}");
        };
        check("Kubernetes v1.20.2\n", Some((1, 20)));
        check("Kubernetes v1.37.0-rc.1+abc\n", Some((1, 37)));
        check("etcd Version: 3.4.23", None);
        check("", None);
        assert!(Version { major: 1, minor: 9 } < WITHOUT_INSECURE_PORT);
        assert!(Version { major: 2, minor: 0 } > WITHOUT_INSECURE_PORT);
    }

    #[test]
    fn only_old_controllers_are_told_to_close_their_insecure_port() {
        let ports = Ports { etcd: 1, api_server: 2, controller_manager: 3 };
        let told = |minor| controller_manager(ports, Version { major: 1, minor }).contains(&"--port=0".to_owned());
        assert!(told(20) && told(23) && !told(24) && !told(37));
    }
}
