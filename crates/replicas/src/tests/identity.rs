//! Who is who.

use super::cluster::{CLUSTER, Cluster, PATIENCE, VOLUME, node_name, read, write};
use crate::net::name_of;
use crate::{Limits, Security, ServeError, Server, Tls, TlsError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use replication::units::{AttachmentId, Blocks, NodeId, ReplicaId};
use replication::wire::{BLOCK, ClusterId, Farewell, Frames, Hello, Message, NEWEST, OLDEST};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of somebody.
    fn certify(&self, name: &NodeId) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.0.to_string()]).unwrap();
        (parameters.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(super) fn tls(&self, node: &NodeId) -> Security {
        let (certificate, key) = self.certify(node);
        Security::Tls(Tls::from_pem(node, certificate.as_bytes(), key.as_bytes(), self.0.pem().as_bytes()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nodes_with_certificates_of_one_authority_serve_a_volume() {
    let authority = Authority::new();
    let security = (0..3).map(|i| authority.tls(&node_name(i))).collect();
    let cluster = Cluster::with(security, 3, 64).await;
    let attachment = cluster.attach(0).await;
    write(&attachment.device(), 3, &[3; 5 * BLOCK]).await.unwrap();
    assert_eq!(read(&attachment.device(), Blocks { start: 4, count: 1 }).await.unwrap(), [3; BLOCK]);
    attachment.detach().await;
    cluster.assert_equal();
}

/// A replica that is not who it should be is as good as away, and so is one that takes the attachment for a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nodes_with_other_certificates_are_strangers() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (first, second, third) = (node_name(0), node_name(1), node_name(2));
    let pairs = [
        ("of another authority", authority.tls(&first), other.tls(&second)),
        ("seen by one of another authority", other.tls(&first), authority.tls(&second)),
        ("of another node", authority.tls(&first), authority.tls(&third)),
        ("that speaks in clear", authority.tls(&first), Security::ClearOnLoopback),
        ("asked in clear", Security::ClearOnLoopback, authority.tls(&second)),
    ];
    for (what, here, there) in pairs {
        let cluster = Cluster::with(vec![here, there], 1, 64).await;
        let attachment = cluster.attach(0).await;
        write(&attachment.device(), 3, &[3; BLOCK]).await.unwrap();
        assert_eq!(cluster.records.in_sync(), 1, "a replica {what} is not written to");
        assert!(cluster.contents(1).iter().all(|byte| *byte == 0), "a replica {what} has nothing");
    }
}

/// Says hello over a connection, and gives what is answered.
async fn say<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S, hello: Hello) -> Option<Message> {
    let frame = Message::Hello(hello).encode(NEWEST);
    stream.write_all(frame.front()).await.ok()?;
    stream.write_all(frame.data()).await.ok()?;
    let mut frames = Frames::new();
    loop {
        if let Some(message) = frames.next_message().unwrap() {
            return Some(message);
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(frames.room())).await.expect("it answers or leaves");
        read.ok().filter(|read| *read > 0)?;
    }
}

fn hello() -> Hello {
    Hello {
        oldest: OLDEST,
        newest: NEWEST,
        cluster: CLUSTER,
        volume: VOLUME,
        replica: ReplicaId(11),
        attachment: AttachmentId(1),
        node: node_name(0),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_speaks_only_for_itself() {
    let authority = Authority::new();
    let security: Vec<Security> = (0..2).map(|i| authority.tls(&node_name(i))).collect();
    let Security::Tls(tls) = security[0].clone() else { unreachable!() };
    let cluster = Cluster::with(security, 1, 64).await;
    let address = cluster.way(0, 1).address;
    let connect = || async {
        let stream = TcpStream::connect(address).await.unwrap();
        tls.connector().connect(name_of(&node_name(1)).unwrap(), stream).await.unwrap()
    };
    assert!(matches!(say(connect().await, hello()).await, Some(Message::Welcome(_))));
    let other = Hello { node: node_name(1), ..hello() };
    let refused = say(connect().await, other).await;
    assert!(matches!(refused, Some(Message::Farewell(Farewell::Identity(_)))), "{refused:?}");
    // Without a certificate nobody is listened to; nor is he in clear.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let bare = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let bare = bare.with_root_certificates(roots).with_no_client_auth();
    let bare = tokio_rustls::TlsConnector::from(std::sync::Arc::new(bare));
    let stream = TcpStream::connect(address).await.unwrap();
    if let Ok(stream) = bare.connect(name_of(&node_name(1)).unwrap(), stream).await {
        assert_eq!(say(stream, hello()).await, None);
    }
    assert_eq!(say(TcpStream::connect(address).await.unwrap(), hello()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_something_else_is_told_what_is_wrong() {
    let cluster = Cluster::new(2, 1, 64).await;
    let answer = async |hello| {
        let stream = TcpStream::connect(cluster.way(0, 1).address).await.unwrap();
        match say(stream, hello).await {
            Some(Message::Farewell(farewell)) => farewell,
            other => panic!("{other:?}"),
        }
    };
    let cluster_id = ClusterId(CLUSTER.0 + 1);
    assert!(matches!(answer(Hello { cluster: cluster_id, ..hello() }).await, Farewell::Cluster(_)));
    assert!(matches!(answer(Hello { replica: ReplicaId(99), ..hello() }).await, Farewell::NoReplica(_)));
    assert!(matches!(answer(Hello { oldest: 7, newest: 9, ..hello() }).await, Farewell::Version(_)));
}

#[tokio::test]
async fn nothing_is_served_in_clear_beyond_this_machine_nor_with_less_room_than_a_request() {
    let bind = |address: &str, limits: Limits| {
        let address: SocketAddr = address.parse().unwrap();
        Server::bind(address, CLUSTER, <_>::default(), Security::ClearOnLoopback, limits)
    };
    assert!(matches!(bind("0.0.0.0:0", Limits::default()).await, Err(ServeError::Clear { .. })));
    assert!(matches!(bind("[::]:0", Limits::default()).await, Err(ServeError::Clear { .. })));
    let few = Limits { bytes: 1 << 20, ..Limits::default() };
    assert!(matches!(bind("127.0.0.1:0", few).await, Err(ServeError::Bytes { .. })));
    assert!(bind("127.0.0.1:0", Limits::default()).await.is_ok());
}

#[test]
fn certificates_that_do_not_fit_are_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (a, b) = (node_name(0), node_name(1));
    let (certificate, key) = authority.certify(&a);
    let (_, other_key) = authority.certify(&a);
    let ca = authority.0.pem();
    let from = |node: &NodeId, certificate: &str, key: &str, ca: &str| {
        Tls::from_pem(node, certificate.as_bytes(), key.as_bytes(), ca.as_bytes())
    };
    assert!(from(&a, &certificate, &key, &ca).is_ok());
    assert!(matches!(from(&b, &certificate, &key, &ca), Err(TlsError::OtherNode { .. })));
    assert!(matches!(from(&a, &certificate, &other_key, &ca), Err(TlsError::Unusable(_))));
    assert!(matches!(from(&a, "", &key, &ca), Err(TlsError::Empty(_))));
    assert!(matches!(from(&a, &certificate, "", &ca), Err(TlsError::Pem { .. })));
    assert!(matches!(from(&a, &certificate, &key, ""), Err(TlsError::Empty(_))));
    assert!(from(&a, &certificate, &key, &other.0.pem()).is_ok(), "which others it believes is its own matter");
}
