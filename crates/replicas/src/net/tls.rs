//! Who is who: mutual TLS 1.3 between nodes.
//!
//! Every node has a certificate of the cluster's authority that names it as a DNS name. A node that connects checks that the other one is the node that it wants; one that is
//! connected to checks that the other one is the node that it says. So nobody speaks for another node, and nobody without a certificate speaks at all.

use replication::units::NodeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was given is not what it should be.
    #[error("the {what} is not readable as PEM")]
    Pem {
        /// Which of the texts.
        what: &'static str,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// There is nothing in a text.
    #[error("there is no certificate in the {0}")]
    Empty(&'static str),
    /// The certificate is another node's.
    #[error("the certificate is not one of {node}: give it one that has this as a DNS name")]
    OtherNode {
        /// Who should have it.
        node: NodeId,
    },
    /// Certificate, key and authority do not fit together.
    #[error("use the certificate, its key and the authority")]
    Unusable(#[from] rustls::Error),
    /// The certificates of others cannot be checked.
    #[error("use the authority")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// A node's certificate, and the authority that has signed those of all nodes.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// From files in PEM: the chain of the node's certificate, its key, and the certificates of the authority.
    ///
    /// # Errors
    /// A file cannot be read, or they do not fit together.
    pub fn from_files(node: &NodeId, certificate: &Path, key: &Path, authority: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source });
        Self::from_pem(node, &read(certificate)?, &read(key)?, &read(authority)?)
    }

    /// The same from texts.
    ///
    /// # Errors
    /// They do not fit together.
    pub fn from_pem(node: &NodeId, certificate: &[u8], key: &[u8], authority: &[u8]) -> Result<Self, TlsError> {
        let chain = parse(certificate, "node's certificate")?;
        if !chain.first().is_some_and(|own| is_of(own, node)) {
            return Err(TlsError::OtherNode { node: node.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|source| TlsError::Pem { what: "node's key", source })?;
        let mut roots = RootCertStore::empty();
        for root in parse(authority, "authority")? {
            roots.add(root)?;
        }
        let roots = Arc::new(roots);
        // Not the default of the process, which a library must not count on.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = &[&rustls::version::TLS13];
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
        let server = server.with_client_cert_verifier(verifier);
        let server = server.with_single_cert(chain.clone(), key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let client = client.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    pub(crate) fn connector(&self) -> &TlsConnector {
        &self.connector
    }
}

/// How the connections of a node are protected.
#[derive(Debug, Clone)]
pub enum Security {
    /// By TLS; nothing is said in clear.
    Tls(Tls),
    /// Not at all: whoever reaches the port reads and destroys every volume. For tests, on addresses that only this machine reaches; others are refused.
    ClearOnLoopback,
}

impl Security {
    /// Whether this address may be used with it.
    pub(super) fn allows(&self, address: SocketAddr) -> bool {
        matches!(self, Self::Tls(_)) || address.ip().is_loopback()
    }
}

/// The name that a node has in certificates; none if it is no DNS name.
pub(crate) fn name_of(node: &NodeId) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(node.0.to_string()).ok();
    name.filter(|name| matches!(name, ServerName::DnsName(_)))
}

/// Whether a certificate, which was checked otherwise, is this node's.
pub(super) fn is_of(certificate: &CertificateDer<'_>, node: &NodeId) -> bool {
    let Some(name) = name_of(node) else { return false };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn parse(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() { Err(TlsError::Empty(what)) } else { Ok(found) }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
