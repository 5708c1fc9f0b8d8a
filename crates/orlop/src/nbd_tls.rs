//! `--nbd-tls`: the certificates of a node that serves volumes over NBD and TCP.

use std::path::Path;

use nbd::Tls;

use crate::error::{Error, Result};

/// Reads the folder: the node's certificate and key, and the authority that has signed the certificates of its clients, since whoever reaches a volume can
/// write to it. The names are those that a Secret of certificates has in Kubernetes.
pub(crate) fn read(folder: &Path) -> Result<Tls> {
    let text = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|e| {
            Error::new(format!("read {} for NBD over TLS", path.display()))
                .because(e)
                .next("the folder must have tls.crt and tls.key of this node, and ca.crt, which has signed the certificates of clients")
        })
    };
    let (certificates, key, authority) = (text("tls.crt")?, text("tls.key")?, text("ca.crt")?);
    Tls::from_pem(&certificates, &key, Some(&authority))
        .map_err(|e| Error::new(format!("use the certificates in {} for NBD", folder.display())).because(e))
}
