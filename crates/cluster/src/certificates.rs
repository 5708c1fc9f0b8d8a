//! The certificates by which nodes know each other.
//!
//! A cluster has an authority, in a Secret that the controller makes if there is none and that the daemons of the nodes have as files. With it each daemon makes
//! its own certificate when it starts, which names the node and lives in memory. So whoever has the Secret can speak for every node: it is worth what all
//! replicated volumes are. Where that is too much, give each node a certificate of its own (`tls.crt`, `tls.key`), and the authority without its key.

use crate::error::{Error, Result, ask};
use crate::times::Times;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use replicas::{Tls, TlsError};
use replication::units::NodeId;
use replication::wire::ClusterId;
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// The Secret with the authority.
pub const SECRET: &str = "orlop-replicas";
/// The certificate of the authority.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// Its key.
pub const CA_KEY: &str = "ca.key";
/// The certificate of a node, where each has one of its own.
pub const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub const KEY: &str = "tls.key";
/// What the authority calls itself; certificates name it as their issuer, so it stays the same.
const NAME: &str = "Orlop replicas";

/// What a node has to be one of a cluster.
#[derive(Debug)]
pub struct Identity {
    /// Who it is to the others.
    pub tls: Tls,
    /// The cluster: whoever has another authority is of another.
    pub cluster: ClusterId,
}

/// Why a node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing.
    #[error("read {path}; the folder has {CA_CERTIFICATE}, and with it {CERTIFICATE} and {KEY}, or {CA_KEY}")]
    File {
        /// Which one.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be made with the authority.
    #[error("make a certificate with {CA_KEY}, which must be a key in PEM that the controller has made")]
    Make(#[from] rcgen::Error),
    /// What there is cannot be used.
    #[error("use the certificates")]
    Use(#[from] TlsError),
}

/// Reads what a folder has.
///
/// # Errors
/// A file is missing, or they do not fit together.
pub fn identity(folder: &Path, node: &NodeId) -> std::result::Result<Identity, IdentityError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|source| IdentityError::File { path: path.display().to_string(), source })
    };
    let authority = read(CA_CERTIFICATE)?;
    let (certificate, key) =
        if folder.join(CERTIFICATE).exists() { (read(CERTIFICATE)?, read(KEY)?) } else { issue(&read(CA_KEY)?, node)? };
    let tls = Tls::from_pem(node, certificate.as_bytes(), key.as_bytes(), authority.as_bytes())?;
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(authority.trim().as_bytes()).as_bytes()[..16]);
    Ok(Identity { tls, cluster: ClusterId(u128::from_le_bytes(id)) })
}

/// A certificate for a node, and its key.
fn issue(authority_key: &str, node: &NodeId) -> std::result::Result<(String, String), rcgen::Error> {
    let issuer = Issuer::new(authority_parameters()?, KeyPair::from_pem(authority_key)?);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![node.0.to_string()])?.signed_by(&key, &issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn authority_parameters() -> std::result::Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, NAME);
    parameters.distinguished_name = name;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(parameters)
}

/// A new authority: its certificate and its key.
///
/// # Errors
/// There is no randomness.
pub fn new_authority() -> std::result::Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_parameters()?.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Makes the Secret with the authority, if there is none. Nobody can make it a second time: its name is taken.
pub(crate) async fn ensure_authority(client: &Client, times: &Times) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(client.clone(), api::STORAGE_NAMESPACE);
    let what = |verb: &str| format!("{verb} the Secret {}/{SECRET}", api::STORAGE_NAMESPACE);
    if ask(times.request, || what("read"), api.get_opt(SECRET)).await?.is_some() {
        return Ok(());
    }
    let (certificate, key) = new_authority()?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.into()),
            labels: Some([("app.kubernetes.io/name".into(), "orlop".into())].into()),
            ..ObjectMeta::default()
        },
        string_data: Some(BTreeMap::from([(CA_CERTIFICATE.into(), certificate), (CA_KEY.into(), key)])),
        ..Secret::default()
    };
    match ask(times.request, || what("make"), api.create(&PostParams::default(), &secret)).await {
        Ok(_) => {
            tracing::info!(secret = SECRET, "the authority of the nodes' certificates was made");
            Ok(())
        }
        Err(error) if crate::error::code(&error) == Some(409) => Ok(()),
        Err(error) => Err(error),
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        Self::Odd(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_authority_are_of_one_cluster_and_each_has_its_own_name() {
        let (certificate, key) = new_authority().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let missing = identity(folder.path(), &"a".into()).unwrap_err();
        assert!(missing.to_string().contains(CA_CERTIFICATE), "{missing}");
        fs::write(folder.path().join(CA_CERTIFICATE), &certificate).unwrap();
        fs::write(folder.path().join(CA_KEY), &key).unwrap();
        let [first, second] = ["a", "b"].map(|node| identity(folder.path(), &node.into()).unwrap());
        assert_eq!(first.cluster, second.cluster);
        // One of its own is taken before one is made, and must be of the node.
        let (own, own_key) = issue(&key, &"c".into()).unwrap();
        fs::write(folder.path().join(CERTIFICATE), own).unwrap();
        fs::write(folder.path().join(KEY), own_key).unwrap();
        fs::remove_file(folder.path().join(CA_KEY)).unwrap();
        identity(folder.path(), &"c".into()).unwrap();
        assert!(matches!(identity(folder.path(), &"a".into()), Err(IdentityError::Use(TlsError::OtherNode { .. }))));
        let other = tempfile::tempdir().unwrap();
        let (certificate, key) = new_authority().unwrap();
        fs::write(other.path().join(CA_CERTIFICATE), &certificate).unwrap();
        fs::write(other.path().join(CA_KEY), &key).unwrap();
        assert_ne!(identity(other.path(), &"a".into()).unwrap().cluster, first.cluster);
    }
}
