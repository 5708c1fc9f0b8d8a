//! Encryption of connections.

use crate::stream::Stream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
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
    /// Certificate, key and authority do not make a server.
    #[error("use the certificate and the key")]
    Unusable(#[from] rustls::Error),
    /// The certificate of clients cannot be checked.
    #[error("use the client authority")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// How a server proves who it is, and what it wants of its clients.
///
/// A server that has it speaks to nobody in clear.
#[derive(Clone)]
pub struct Tls(tokio_rustls::TlsAcceptor);

impl Tls {
    /// With the chain of certificates and the key of the server, and with the authority that has signed the certificates of its clients: with
    /// one, a client without a certificate is turned away. All are PEM.
    pub fn from_pem(certificates: &[u8], key: &[u8], client_authority: Option<&[u8]>) -> Result<Self, TlsError> {
        let chain = parse(certificates, "server's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|source| TlsError::Pem { what: "server's key", source })?;
        // Not the default of the process, which a library must not count on.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match client_authority {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in parse(pem, "client authority")? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        Ok(Self::new(Arc::new(builder.with_single_cert(chain, key)?)))
    }

    /// With a configuration of one's own, such as one that finds its certificate anew for each client.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(config.into())
    }

    pub(crate) async fn accept(&self, stream: Stream) -> io::Result<Stream> {
        Ok(Box::new(self.0.accept(stream).await?))
    }
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
