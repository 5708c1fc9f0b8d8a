//! The certificates of one control plane: an authority of its own, so that no other server can be mistaken for it.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

/// The group that every API server lets do everything.
const ADMINISTRATORS: &str = "system:masters";

/// A certificate with its key, both in PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Everything that a control plane's programs read, in PEM.
pub(super) struct Certificates {
    pub(super) authority: String,
    pub(super) server: Identity,
    pub(super) administrator: Identity,
    /// Signs the tokens of service accounts.
    pub(super) service_account_key: String,
    /// Verifies them.
    pub(super) service_account_public_key: String,
}

/// Chooses the process-wide provider of cryptography, which must happen before the first TLS connection.
///
/// Calling it again, also after another part of the program chose one, changes nothing.
pub fn install_crypto_provider() {
    // The only possible error is that there is a provider already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

impl Certificates {
    pub(super) fn generate() -> Result<Self> {
        let key = KeyPair::generate().context("generate the key of the certificate authority")?;
        let mut params = named("sandbox-authority", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).context("sign the certificate of the certificate authority")?;
        let issuer = Issuer::new(params, key);

        let mut server = named("kube-apiserver", None);
        server.subject_alt_names =
            CertificateParams::new(server_names()).context("name the API server")?.subject_alt_names;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut administrator = named("sandbox-administrator", Some(ADMINISTRATORS));
        administrator.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];

        let service_accounts = KeyPair::generate().context("generate the key of service accounts")?;

        Ok(Self {
            authority: certificate.pem(),
            server: issue(&issuer, &server).context("sign the API server's certificate")?,
            administrator: issue(&issuer, &administrator).context("sign the administrator's certificate")?,
            service_account_key: service_accounts.serialize_pem(),
            service_account_public_key: service_accounts.public_key_pem(),
        })
    }

    /// The administrator's kubeconfig for a server, in JSON, which every reader of kubeconfigs takes as YAML.
    pub(super) fn kubeconfig(&self, server: &str) -> Value {
        let data = |pem: &str| STANDARD.encode(pem);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "clusters": [{"name": "sandbox", "cluster": {
                "server": server,
                "certificate-authority-data": data(&self.authority),
            }}],
            "users": [{"name": "administrator", "user": {
                "client-certificate-data": data(&self.administrator.certificate),
                "client-key-data": data(&self.administrator.key),
            }}],
            "contexts": [{"name": "sandbox", "context": {
                "cluster": "sandbox", "user": "administrator", "namespace": "default",
            }}],
        })
    }
}

fn server_names() -> Vec<String> {
    ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).into()
}

fn named(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params
}

fn issue(issuer: &Issuer<'_, KeyPair>, params: &CertificateParams) -> Result<Identity, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}
