//! The certificates and files with which a cluster's daemons start.
//!
//! All of it is written anew at each start, apart from the keys that etcd's content depends on.

use std::path::Path;

use serde_json::Value;

use crate::address::NodeNumber;
use crate::cluster::Cluster;
use crate::daemon::{self, CONFIGURATION, Daemon, Minor};
use crate::error::Result;
use crate::files::{PRIVATE, PUBLIC, write, write_json};
use crate::node::Node;
use crate::pki::{self, Authority, Identity, Subject};

/// Members of this group may do everything.
const ADMINISTRATORS: &str = "system:masters";

/// The port of the API server inside the cluster.
pub(crate) const API_PORT: u16 = 6443;

/// What signs, and where the API server is.
struct Authorities {
    cluster: Authority,
    front_proxy: Authority,
}

/// Of the files, only the kubelet's depends on the release, so it is the kubelet's.
pub(crate) fn write_all(cluster: &Cluster, minor: Minor) -> Result<()> {
    let kept = cluster.path("pki");
    let authorities =
        Authorities { cluster: Authority::kept(&kept, "ca")?, front_proxy: Authority::kept(&kept, "front-proxy-ca")? };
    let ca = &authorities.cluster;
    let admin = ca.client(&Subject::of("kubernetes-admin", ADMINISTRATORS))?;
    let outside = format!("https://127.0.0.1:{}", cluster.api_port());
    let inside = format!("https://{}:{API_PORT}", cluster.index().node(NodeNumber::CONTROL_PLANE));
    for (file, server) in [("kubeconfig", &outside), ("kubeconfig.inside", &inside)] {
        let kubeconfig = pki::kubeconfig(cluster.name(), server, ca, &admin);
        write_json(&cluster.path(file), &kubeconfig, PRIVATE)?;
    }
    let proxy = ca.client(&Subject::user("system:kube-proxy"))?;
    write_control_plane(cluster, &authorities, &proxy, minor)?;
    for node in cluster.nodes() {
        write_node(&node, ca, &inside, &proxy, minor)?;
    }
    Ok(())
}

fn write_control_plane(cluster: &Cluster, authorities: &Authorities, proxy: &Identity, minor: Minor) -> Result<()> {
    let node = cluster.control_plane();
    let ca = &authorities.cluster;
    let index = cluster.index();
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
            .map(String::from)
            .into();
    names.extend([
        "kubernetes.default.svc.cluster.local".into(),
        cluster.name().into(),
        index.api_service().to_string(),
        index.node(NodeNumber::CONTROL_PLANE).to_string(),
    ]);
    let etc = node.root().join(&CONFIGURATION[1..]);
    for (name, identity) in [
        ("apiserver", ca.server(&Subject::user("kube-apiserver"), names)?),
        ("kubelet-client", ca.client(&Subject::of("kube-apiserver-kubelet-client", ADMINISTRATORS))?),
        ("front-proxy-client", authorities.front_proxy.client(&Subject::user("front-proxy-client"))?),
    ] {
        write_identity(&etc, name, &identity)?;
    }
    let service_accounts = pki::kept_key(&cluster.path("pki"), "sa")?;
    write(&etc.join("ca.crt"), &ca.certificate_pem, PUBLIC)?;
    write(&etc.join("ca.key"), ca.key_pem(), PRIVATE)?;
    write(&etc.join("front-proxy-ca.crt"), &authorities.front_proxy.certificate_pem, PUBLIC)?;
    write(&etc.join("sa.key"), service_accounts.serialize_pem(), PRIVATE)?;
    write(&etc.join("sa.pub"), service_accounts.public_key_pem(), PUBLIC)?;
    let api = format!("https://127.0.0.1:{API_PORT}");
    for daemon in [Daemon::ControllerManager, Daemon::Scheduler] {
        let identity = ca.client(&Subject::user(&format!("system:{daemon}")))?;
        write_kubeconfig(&etc, daemon, &api, ca, &identity)?;
    }
    write_kubeconfig(&etc, Daemon::Proxy, &api, ca, proxy)?;
    write_common(&node, minor)
}

fn write_node(node: &Node<'_>, ca: &Authority, api: &str, proxy: &Identity, minor: Minor) -> Result<()> {
    let etc = node.root().join(&CONFIGURATION[1..]);
    let user = format!("system:node:{}", node.name());
    let subject = Subject::of(&user, "system:nodes");
    let names = vec![node.name().to_owned(), node.address().to_string(), "127.0.0.1".into()];
    write_identity(&etc, "kubelet-server", &ca.server(&subject, names)?)?;
    write(&etc.join("ca.crt"), &ca.certificate_pem, PUBLIC)?;
    write_kubeconfig(&etc, Daemon::Kubelet, api, ca, &ca.client(&subject)?)?;
    write_kubeconfig(&etc, Daemon::Proxy, api, ca, proxy)?;
    let place = node.place(minor);
    write_json(&etc.join("kubelet.yaml"), &daemon::kubelet_configuration(&place), PUBLIC)?;
    let root = node.root();
    write(&root.join("etc/containerd/config.toml"), daemon::containerd_configuration(), PUBLIC)?;
    write_json(&root.join("etc/cni/net.d/10-sandbox.conflist"), &daemon::pod_network(&place), PUBLIC)?;
    write_common(node, minor)
}

fn write_common(node: &Node<'_>, minor: Minor) -> Result<()> {
    let cluster = node.cluster();
    let etc = node.root().join("etc");
    let proxy: Value = daemon::proxy_configuration(&node.place(minor));
    write_json(&etc.join("kubernetes/kube-proxy.yaml"), &proxy, PUBLIC)?;
    let mut hosts = String::from("127.0.0.1 localhost\n");
    for other in std::iter::once(cluster.control_plane()).chain(cluster.nodes()) {
        hosts += &format!("{} {}\n", other.address(), other.name());
    }
    write(&etc.join("hosts"), hosts, PUBLIC)?;
    write(&etc.join("hostname"), format!("{}\n", node.name()), PUBLIC)?;
    write(
        &etc.join("machine-id"),
        format!("{}{:02x}\n", cluster.id().repeat(4).split_at(30).0, node.number().0),
        PUBLIC,
    )?;
    write(&etc.join("resolv.conf"), "", PUBLIC)?;
    write(&etc.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n", PUBLIC)?;
    write(&etc.join("fuse.conf"), "user_allow_other\n", PUBLIC)
}

fn write_identity(etc: &Path, name: &str, identity: &Identity) -> Result<()> {
    write(&etc.join(format!("{name}.crt")), &identity.certificate_pem, PUBLIC)?;
    write(&etc.join(format!("{name}.key")), &identity.key_pem, PRIVATE)
}

fn write_kubeconfig(etc: &Path, daemon: Daemon, api: &str, ca: &Authority, user: &Identity) -> Result<()> {
    let kubeconfig = pki::kubeconfig("sandbox", api, ca, user);
    write_json(&etc.join(format!("{daemon}.kubeconfig")), &kubeconfig, PRIVATE)
}
