//! The certificates of a cluster.
//!
//! The authorities and the key of the service accounts are kept in the cluster's directory, because etcd holds what was
//! signed with them; every other certificate is made anew at each start.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files;

/// An authority: its certificate, and what signs with its key.
pub(crate) struct Authority {
    pub(crate) certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// Who somebody is to Kubernetes: the common name is the user, the organization the group.
pub(crate) struct Subject<'a> {
    pub(crate) user: &'a str,
    pub(crate) group: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub(crate) fn user(user: &'a str) -> Self {
        Self { user, group: None }
    }

    pub(crate) fn of(user: &'a str, group: &'a str) -> Self {
        Self { user, group: Some(group) }
    }
}

fn named(name: &str) -> impl Fn(rcgen::Error) -> Error {
    move |source| Error::Certificate { name: name.to_owned(), source }
}

fn params(subject: &Subject<'_>, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).map_err(named(subject.user))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.user);
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    // Wide bounds: a sandbox is also run on machines whose clock is wrong.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    Ok(params)
}

impl Authority {
    /// The authority that is kept in a directory, made there when it is not yet.
    pub(crate) fn kept(directory: &Path, name: &str) -> Result<Self> {
        let certificate_path = directory.join(format!("{name}.crt"));
        let mut params = params(&Subject::user(name), Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = kept_key(directory, name)?;
        let certificate_pem = if let Some(text) = files::read(&certificate_path)? {
            text
        } else {
            let pem = params.self_signed(&key).map_err(named(name))?.pem();
            files::write(&certificate_path, &pem, files::PUBLIC)?;
            pem
        };
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate with which somebody shows who he is.
    pub(crate) fn client(&self, subject: &Subject<'_>) -> Result<Identity> {
        self.sign(subject, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate of a server that is reached by these names and addresses.
    pub(crate) fn server(&self, subject: &Subject<'_>, names: Vec<String>) -> Result<Identity> {
        self.sign(subject, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, subject: &Subject<'_>, names: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        let mut params = params(subject, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().map_err(named(subject.user))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(named(subject.user))?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// The key that is kept in a directory, made there when it is not yet.
pub(crate) fn kept_key(directory: &Path, name: &str) -> Result<KeyPair> {
    let path = directory.join(format!("{name}.key"));
    if let Some(text) = files::read(&path)? {
        return KeyPair::from_pem(&text).map_err(named(name));
    }
    let key = KeyPair::generate().map_err(named(name))?;
    files::write(&path, key.serialize_pem(), files::PRIVATE)?;
    Ok(key)
}

/// A kubeconfig for one user of one server, complete in itself.
pub(crate) fn kubeconfig(name: &str, server: &str, ca: &Authority, user: &Identity) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": server,
            "certificate-authority-data": BASE64.encode(&ca.certificate_pem),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate-data": BASE64.encode(&user.certificate_pem),
            "client-key-data": BASE64.encode(&user.key_pem),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_stays_the_same_over_starts() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = Authority::kept(directory.path(), "ca").expect("made");
        let second = Authority::kept(directory.path(), "ca").expect("read");
        assert_eq!(first.certificate_pem, second.certificate_pem);
        assert_eq!(first.key_pem(), second.key_pem());
        let other = Authority::kept(directory.path(), "other").expect("made");
        assert_ne!(first.certificate_pem, other.certificate_pem);
    }
}
