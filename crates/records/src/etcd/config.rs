//! Where etcd is, and who asks.

use crate::Patience;
use std::fmt;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

/// How often a quiet connection is asked whether it is alive. etcd closes those that ask more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Without it a text has no certificate, which the reader of certificates does not mind.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Where etcd is, and who asks.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// The members that may be asked: `http://host:port`, or `https://host:port` with [`EtcdConfig::tls`].
    pub endpoints: Vec<String>,
    /// What the keys begin with, such as `/orlop/volumes/`; so that other things may be kept in the same etcd.
    pub prefix: String,
    /// Who asks, where etcd has authentication by password.
    pub user: Option<User>,
    /// What endpoints with `https` must prove, and what is proven to them.
    pub tls: Option<Tls>,
    /// How long etcd is waited for.
    pub patience: Patience,
}

/// A user of etcd.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Password,
}

/// A password: it is never printed, and wiped when it is not needed any more.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// This text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Certificates, in PEM.
#[derive(Clone)]
pub struct Tls {
    /// Whose certificates are trusted.
    pub authority: String,
    /// A certificate of one's own and its key, where etcd asks for one.
    pub identity: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nobody can be asked.
    #[error("no endpoint of etcd is given; give at least one, such as https://10.0.0.1:2379")]
    NoEndpoint,
    /// It is no address.
    #[error("{endpoint:?} is not an endpoint of etcd, such as https://10.0.0.1:2379: {reason}")]
    Endpoint {
        /// What stands there.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is in clear, and what would be said there is not for everybody.
    #[error("{endpoint:?} is in clear, but certificates or a password are given; use https")]
    InClear {
        /// Which one.
        endpoint: String,
    },
    /// Nobody says whom to trust.
    #[error("{endpoint:?} needs the certificate of its authority, in PEM")]
    NoAuthority {
        /// Which one.
        endpoint: String,
    },
}

/// Whether a password may be sent there in clear: not beyond this machine.
fn is_here(uri: &tonic::transport::Uri) -> bool {
    uri.host().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host))
}

impl EtcdConfig {
    /// How each member is connected to.
    pub(super) fn connections(&self) -> Result<Vec<Endpoint>, ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        self.endpoints.iter().map(|endpoint| self.connection(endpoint)).collect()
    }

    fn connection(&self, text: &str) -> Result<Endpoint, ConfigError> {
        let wrong = |reason: String| ConfigError::Endpoint { endpoint: text.to_owned(), reason };
        let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|error| wrong(crate::chain(&error)))?;
        let uri = endpoint.uri();
        let endpoint = match uri.scheme_str() {
            Some("http") if self.tls.is_some() || (self.user.is_some() && !is_here(uri)) => {
                return Err(ConfigError::InClear { endpoint: text.to_owned() });
            }
            Some("http") => endpoint,
            Some("https") => {
                let tls = self.tls.as_ref().filter(|tls| tls.authority.contains(CERTIFICATE));
                let tls = tls.ok_or_else(|| ConfigError::NoAuthority { endpoint: text.to_owned() })?;
                endpoint.tls_config(tls.of_client()).map_err(|error| wrong(crate::chain(&error)))?
            }
            _ => return Err(wrong("it begins with neither http:// nor https://".into())),
        };
        Ok(endpoint
            .connect_timeout(self.patience.request)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(self.patience.request)
            .keep_alive_while_idle(true))
    }
}

impl Tls {
    fn of_client(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authority));
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key.as_bytes())),
            None => config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EtcdConfig, Password, Tls, User};
    use crate::Patience;

    fn config(endpoints: &[&str], has_user: bool, has_tls: bool) -> EtcdConfig {
        EtcdConfig {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            prefix: "/volumes/".into(),
            user: has_user.then(|| User { name: "orlop".into(), password: Password::new("a secret".into()) }),
            tls: has_tls.then(|| Tls { authority: "no certificate".into(), identity: None }),
            patience: Patience::default(),
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let check = |endpoints: &[&str], has_user, has_tls, says: &str| {
            let error = config(endpoints, has_user, has_tls).connections().map(|_| ()).expect_err(says).to_string();
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        };
        check(&[], false, false, "no endpoint of etcd is given");
        check(&["10.0.0.1:2379"], false, false, "neither http:// nor https://");
        check(&["ftp://10.0.0.1"], false, false, "neither http:// nor https://");
        check(&["http://10.0.0.1:2379"], true, false, "use https");
        check(&["http://127.0.0.1:2379"], false, true, "use https");
        check(&["https://10.0.0.1:2379"], false, false, "needs the certificate of its authority");
        check(&["https://10.0.0.1:2379"], false, true, "needs the certificate of its authority");
        assert_eq!(
            config(&["http://10.0.0.1:2379", "http://10.0.0.2:2379"], false, false).connections().unwrap().len(),
            2
        );
        assert_eq!(config(&["http://127.0.0.1:2379"], true, false).connections().unwrap().len(), 1);
    }

    #[test]
    fn a_password_is_not_printed() {
        assert!(!format!("{:?}", config(&[], true, true)).contains("secret"));
    }
}
