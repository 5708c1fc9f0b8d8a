//! The daemons of a cluster and how each is called.
//!
//! Flags that a release of Kubernetes has dropped are given only to older ones; what was run is 1.20, the flags for the
//! newer ones are from their documentation.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::address::{ClusterIndex, NodeNumber};
use crate::error::{Error, Result};
use crate::process_one::PROGRAMS;

/// Where a node keeps its certificates and configuration files.
pub(crate) const CONFIGURATION: &str = "/etc/kubernetes";
/// Where containerd listens.
const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";

/// One of the programs that make a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
}

impl Daemon {
    /// In the order in which they start.
    pub const OF_CONTROL_PLANE: &[Self] =
        &[Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Proxy];
    /// In the order in which they start.
    pub const OF_NODE: &[Self] = &[Self::Containerd, Self::Kubelet, Self::Proxy];

    pub(crate) fn is_of_kubernetes(self) -> bool {
        !matches!(self, Self::Etcd | Self::Containerd)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Daemon {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let mut all = Self::OF_CONTROL_PLANE.iter().chain(Self::OF_NODE);
        all.find(|daemon| daemon.name() == name).copied().ok_or_else(|| {
            let names: Vec<_> = Self::OF_CONTROL_PLANE.iter().chain(&Self::OF_NODE[..2]).map(|d| d.name()).collect();
            Error::input(format!("no daemon is called {name:?}; there are {}", names.join(", ")))
        })
    }
}

/// The second number of a version of Kubernetes, 20 of v1.20.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Minor(pub(crate) u32);

impl FromStr for Minor {
    type Err = Error;

    /// From what `kubelet --version` prints.
    fn from_str(text: &str) -> Result<Self> {
        text.trim()
            .strip_prefix("Kubernetes v1.")
            .and_then(|rest| rest.split(['.', '-', '+']).next())
            .and_then(|minor| minor.parse().ok())
            .map(Self)
            .ok_or_else(|| Error::input(format!("not a version of Kubernetes 1: {text:?}")))
    }
}

/// Whose daemon it is.
pub(crate) struct Place<'a> {
    pub(crate) cluster: ClusterIndex,
    pub(crate) number: NodeNumber,
    pub(crate) name: &'a str,
    pub(crate) cgroup: &'a str,
    pub(crate) minor: Minor,
}

impl Daemon {
    /// The program and its arguments.
    pub(crate) fn command_line(self, place: &Place<'_>) -> Vec<String> {
        let arguments = match self {
            Self::Etcd => etcd(),
            Self::ApiServer => api_server(place),
            Self::ControllerManager => controller_manager(place),
            Self::Scheduler => scheduler(place),
            Self::Containerd => vec!["--config=/etc/containerd/config.toml".into()],
            Self::Kubelet => kubelet(place),
            Self::Proxy => vec![format!("--config={CONFIGURATION}/kube-proxy.yaml"), "-v=1".into()],
        };
        let mut line = vec![format!("{PROGRAMS}/bin/{}", self.name())];
        line.extend(arguments);
        line
    }
}

fn etcd() -> Vec<String> {
    [
        "--name=sandbox",
        "--data-dir=/var/lib/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=sandbox=http://127.0.0.1:2380",
        // A power cut here is the end of processes: what was written is in the machine's memory and gets to its disk.
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=warn",
    ]
    .map(String::from)
    .into()
}

/// Releases before this served plain HTTP too unless told not to; later ones do not know the flag.
const NO_PLAIN_PORTS: Minor = Minor(24);
/// From this release a remote runtime is the only one, and the flag that says so is gone.
const REMOTE_RUNTIME_ONLY: Minor = Minor(24);
/// From this release a kubelet may refuse control groups of version 1 unless told not to.
const MAY_REFUSE_CGROUP_V1: Minor = Minor(31);

fn api_server(place: &Place<'_>) -> Vec<String> {
    let address = place.cluster.node(place.number);
    let services = place.cluster.services();
    let c = CONFIGURATION;
    let mut flags = vec![
        "--etcd-servers=http://127.0.0.1:2379".into(),
        "--bind-address=0.0.0.0".into(),
        "--secure-port=6443".into(),
        format!("--advertise-address={address}"),
        format!("--tls-cert-file={c}/apiserver.crt"),
        format!("--tls-private-key-file={c}/apiserver.key"),
        format!("--client-ca-file={c}/ca.crt"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--service-cluster-ip-range={services}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={c}/sa.pub"),
        format!("--service-account-signing-key-file={c}/sa.key"),
        format!("--kubelet-client-certificate={c}/kubelet-client.crt"),
        format!("--kubelet-client-key={c}/kubelet-client.key"),
        format!("--kubelet-certificate-authority={c}/ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={c}/front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--proxy-client-cert-file={c}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={c}/front-proxy-client.key"),
        // Webhooks and aggregated servers are reached at their pods, without the detour over a service's address.
        "--enable-aggregator-routing=true".into(),
        "--profiling=false".into(),
        "-v=1".into(),
    ];
    if place.minor < NO_PLAIN_PORTS {
        flags.push("--insecure-port=0".into());
    }
    flags
}

fn own_kubeconfig(daemon: Daemon, minor: Minor) -> Vec<String> {
    let file = format!("{CONFIGURATION}/{daemon}.kubeconfig");
    let mut flags = vec![
        format!("--kubeconfig={file}"),
        format!("--authentication-kubeconfig={file}"),
        format!("--authorization-kubeconfig={file}"),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "-v=1".into(),
    ];
    if minor < NO_PLAIN_PORTS {
        flags.push("--port=0".into());
    }
    flags
}

fn controller_manager(place: &Place<'_>) -> Vec<String> {
    let c = CONFIGURATION;
    let mut flags = own_kubeconfig(Daemon::ControllerManager, place.minor);
    flags.extend([
        "--use-service-account-credentials=true".into(),
        format!("--root-ca-file={c}/ca.crt"),
        format!("--service-account-private-key-file={c}/sa.key"),
        format!("--cluster-signing-cert-file={c}/ca.crt"),
        format!("--cluster-signing-key-file={c}/ca.key"),
        format!("--service-cluster-ip-range={}", place.cluster.services()),
        // A dead node is seen in half of the usual time, so that tests of it are short.
        "--node-monitor-period=2s".into(),
        "--node-monitor-grace-period=20s".into(),
        "--flex-volume-plugin-dir=/var/lib/flexvolume".into(),
    ]);
    flags
}

fn scheduler(place: &Place<'_>) -> Vec<String> {
    own_kubeconfig(Daemon::Scheduler, place.minor)
}

fn kubelet(place: &Place<'_>) -> Vec<String> {
    let mut flags = vec![
        format!("--config={CONFIGURATION}/kubelet.yaml"),
        format!("--kubeconfig={CONFIGURATION}/kubelet.kubeconfig"),
        format!("--container-runtime-endpoint={CONTAINERD}"),
        format!("--hostname-override={}", place.name),
        format!("--node-ip={}", place.cluster.node(place.number)),
        "-v=1".into(),
    ];
    if place.minor < REMOTE_RUNTIME_ONLY {
        flags.push("--container-runtime=remote".into());
    }
    flags
}

pub(crate) fn kubelet_configuration(place: &Place<'_>) -> Value {
    let mut configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.cluster.node(place.number),
        "healthzBindAddress": "127.0.0.1",
        "tlsCertFile": format!("{CONFIGURATION}/kubelet-server.crt"),
        "tlsPrivateKeyFile": format!("{CONFIGURATION}/kubelet-server.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{CONFIGURATION}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", place.cgroup),
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "failSwapOn": false,
        "volumePluginDir": "/var/lib/flexvolume",
        "serializeImagePulls": false,
        // Images come from no registry, so one that was collected would never come back.
        "imageGCHighThresholdPercent": 100,
        // The disk is the machine's and may be nearly full: that is no reason to evict.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "1m",
        "nodeLeaseDurationSeconds": 20,
    });
    if place.minor >= MAY_REFUSE_CGROUP_V1 {
        configuration["failCgroupV1"] = json!(false);
    }
    configuration
}

pub(crate) fn proxy_configuration(place: &Place<'_>) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": place.cluster.node(place.number),
        "clusterCIDR": place.cluster.pods(),
        "clientConnection": {"kubeconfig": format!("{CONFIGURATION}/kube-proxy.kubeconfig")},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // The table of connections is the machine's: its size is left alone.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "hostnameOverride": place.name,
        "iptables": {"minSyncPeriod": "0.5s", "syncPeriod": "30s"},
    })
}

pub(crate) fn containerd_configuration() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  # Machines differ in what they allow: negative scores need a capability, and huge pages a control group.
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  sandbox_image = "{pause}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PROGRAMS}/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{PROGRAMS}/bin/runc"
      SystemdCgroup = false
"#,
        pause = crate::image::PAUSE
    )
}

pub(crate) fn pod_network(place: &Place<'_>) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "sandbox",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    // Lost with the power, as the pods that have the addresses are.
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": place.cluster.pods_of(place.number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_version(text: &str, expected: Option<u32>) {
        assert_eq!(text.parse::<Minor>().ok(), expected.map(Minor), "{text}");
    }

    #[test]
    fn versions_are_understood() {
        check_version("Kubernetes v1.20.2\n", Some(20));
        check_version("Kubernetes v1.31.0-rc.1", Some(31));
        check_version("Kubernetes v1.9+", Some(9));
        check_version("kubelet 1.20", None);
        check_version("", None);
    }

    #[test]
    fn flags_that_newer_releases_lack_go_to_older_ones_only() {
        let line = |minor| {
            let place = Place {
                cluster: ClusterIndex(0),
                number: NodeNumber(1),
                name: "east1",
                cgroup: "x/east1",
                minor: Minor(minor),
            };
            [Daemon::ApiServer, Daemon::Scheduler, Daemon::Kubelet]
                .map(|daemon| daemon.command_line(&place).join(" "))
                .join("\n")
        };
        for flag in ["--insecure-port=0", "--port=0", "--container-runtime=remote"] {
            assert!(line(20).contains(flag), "{flag}");
            assert!(!line(30).contains(flag), "{flag}");
        }
    }

    #[test]
    fn daemons_are_found_by_name() {
        for daemon in Daemon::OF_CONTROL_PLANE.iter().chain(Daemon::OF_NODE) {
            assert_eq!(daemon.name().parse::<Daemon>().expect("known"), *daemon);
        }
        let error = "kublet".parse::<Daemon>().expect_err("not one").to_string();
        assert!(error.contains("kubelet"), "{error}");
    }
}
