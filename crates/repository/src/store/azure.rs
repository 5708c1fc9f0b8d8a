//! Containers of Azure storage accounts.

use super::client::{self, first_of};
use super::config::Env;
use super::object::Objects;
use super::{StoreError, StoreErrorKind};
use crate::secret::Secret;
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use serde::{Deserialize, Serialize};

/// The account of Azurite, Microsoft's emulator, in connection strings that only say that it is meant.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
/// The key of that account, which is public.
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Where the emulator listens unless it is told otherwise.
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

/// A container of an Azure storage account. Without any credentials, those of the machine (its managed identity) are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureLocation {
    /// The container; it must exist.
    pub container: String,
    /// The names of all objects begin with this and a slash; empty for the whole container.
    #[serde(default)]
    pub prefix: String,
    /// The storage account.
    pub account: String,
    /// The service, if it is not Microsoft's own at the account's name. Where the account is part of the path, it ends with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A key of the account, in base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<Secret<String>>,
    /// A shared access signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas_token: Option<Secret<String>>,
    /// An application that is known to Entra ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<AzureApplication>,
    /// Certificates to trust beside those of the system, in PEM form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// An application that is known to Entra ID, and what proves that this is it: a secret, or the token of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureApplication {
    /// The directory.
    pub tenant_id: String,
    /// The application in it.
    pub client_id: String,
    /// Its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret<String>>,
    /// The file with the token that Kubernetes gives to a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

impl AzureLocation {
    pub(super) fn from_env(container: String, prefix: String, env: Env<'_>) -> Result<Self, StoreError> {
        let mut location =
            Self { container, prefix, ca_pem: client::certificates(env, "REQUESTS_CA_BUNDLE")?, ..Self::default() };
        if let Some(text) = env("AZURE_STORAGE_CONNECTION_STRING") {
            location.connect_as(&text)?;
            return Ok(location);
        }
        let account = first_of(env, &["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]);
        location.account = account.ok_or_else(|| {
            StoreError::configuration("AZURE_STORAGE_ACCOUNT is not set, nor is AZURE_STORAGE_CONNECTION_STRING")
        })?;
        location.endpoint = env("AZURE_STORAGE_ENDPOINT");
        let key = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"];
        location.access_key = first_of(env, &key).map(Secret::new);
        if location.access_key.is_none() {
            location.sas_token = first_of(env, &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]).map(Secret::new);
        }
        if location.access_key.is_none() && location.sas_token.is_none() {
            location.application = application(env)?;
        }
        Ok(location)
    }

    /// Takes what a connection string says. Its parts are never shown, because one of them is a secret.
    fn connect_as(&mut self, text: &str) -> Result<(), StoreError> {
        let parts = text.split(';').filter_map(|part| part.trim().split_once('='));
        let (mut scheme, mut suffix) = ("https", "core.windows.net");
        for (name, value) in parts {
            match name {
                "AccountName" => self.account = value.to_owned(),
                "AccountKey" => self.access_key = Some(Secret::new(value.to_owned())),
                "SharedAccessSignature" => self.sas_token = Some(Secret::new(value.to_owned())),
                "BlobEndpoint" => self.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "DefaultEndpointsProtocol" => scheme = value,
                "EndpointSuffix" => suffix = value,
                "UseDevelopmentStorage" if value.eq_ignore_ascii_case("true") => {
                    self.account = EMULATOR_ACCOUNT.to_owned();
                    self.access_key = Some(Secret::new(EMULATOR_KEY.to_owned()));
                    self.endpoint = Some(EMULATOR_ENDPOINT.to_owned());
                }
                _ => {}
            }
        }
        if self.account.is_empty() {
            // With a signature, the service alone names the account.
            let host = self.endpoint.as_deref().and_then(|endpoint| endpoint.split_once("://"));
            let account = host.and_then(|(_, rest)| rest.split_once('.')).map(|(account, _)| account.to_owned());
            self.account = account.ok_or_else(|| {
                StoreError::configuration("AZURE_STORAGE_CONNECTION_STRING has neither AccountName nor BlobEndpoint")
            })?;
        }
        if self.endpoint.is_none() {
            self.endpoint = Some(format!("{scheme}://{}.blob.{suffix}", self.account));
        }
        Ok(())
    }

    pub(super) fn place(&self) -> String {
        client::place("az", &self.container, &self.prefix)
    }

    pub(super) fn access(&self) -> Result<Objects<MicrosoftAzure>, StoreError> {
        let invalid = |error| StoreError::new(StoreErrorKind::Invalid, "configure", self.place()).because(error);
        Objects::new(self.builder()?.build().map_err(invalid)?, &self.prefix)
    }

    fn builder(&self) -> Result<MicrosoftAzureBuilder, StoreError> {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_container_name(&self.container)
            .with_account(&self.account)
            .with_retry(client::no_retries())
            .with_client_options(client::options(self.ca_pem.as_deref())?)
            .with_http_connector(client::Bounded::default());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(key) = &self.access_key {
            builder = builder.with_access_key(key.expose());
        }
        if let Some(token) = &self.sas_token {
            builder = builder.with_config(AzureConfigKey::SasKey, token.expose());
        }
        if let Some(application) = &self.application {
            builder = builder.with_tenant_id(&application.tenant_id).with_client_id(&application.client_id);
            if let Some(secret) = &application.client_secret {
                builder = builder.with_client_secret(secret.expose());
            }
            if let Some(file) = &application.token_file {
                builder = builder.with_federated_token_file(file);
            }
        }
        Ok(builder)
    }
}

/// The application that the variables of Microsoft's libraries name; none where they name none.
fn application(env: Env<'_>) -> Result<Option<AzureApplication>, StoreError> {
    let (secret, token_file) = (env("AZURE_CLIENT_SECRET"), env("AZURE_FEDERATED_TOKEN_FILE"));
    if secret.is_none() && token_file.is_none() {
        return Ok(None);
    }
    let need = |name: &str| env(name).ok_or_else(|| StoreError::configuration(format!("{name} is not set")));
    Ok(Some(AzureApplication {
        tenant_id: need("AZURE_TENANT_ID")?,
        client_id: need("AZURE_CLIENT_ID")?,
        token_file: token_file.filter(|_| secret.is_none()),
        client_secret: secret.map(Secret::new),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(variables: &[(&str, &str)]) -> Result<AzureLocation, StoreError> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        AzureLocation::from_env("c".to_owned(), String::new(), &env)
    }

    #[test]
    fn connection_strings_are_understood() {
        let of = |text: &str| located(&[("AZURE_STORAGE_CONNECTION_STRING", text)]).unwrap();
        let usual =
            of("DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5==;EndpointSuffix=core.windows.net");
        assert_eq!(
            (usual.account.as_str(), usual.endpoint.as_deref()),
            ("acc", Some("https://acc.blob.core.windows.net"))
        );
        assert_eq!(usual.access_key.as_ref().map(|key| key.expose().as_str()), Some("a2V5=="));
        let azurite = of("UseDevelopmentStorage=true");
        assert_eq!(azurite.endpoint.as_deref(), Some(EMULATOR_ENDPOINT));
        let signed = of("BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D");
        assert_eq!(signed.account, "acc");
        assert_eq!(signed.sas_token.as_ref().map(|token| token.expose().as_str()), Some("sv=1&sig=x%3D"));
        let error = located(&[("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hidden")]).unwrap_err();
        assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
    }

    #[test]
    fn applications_are_complete_or_refused() {
        let account = ("AZURE_STORAGE_ACCOUNT_NAME", "acc");
        let error = located(&[account, ("AZURE_CLIENT_SECRET", "s"), ("AZURE_TENANT_ID", "t")]).unwrap_err();
        assert_eq!(error.source.unwrap().to_string(), "AZURE_CLIENT_ID is not set");
        let workload =
            [account, ("AZURE_FEDERATED_TOKEN_FILE", "/f"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "i")];
        let location = located(&workload).unwrap();
        assert_eq!(location.application.as_ref().unwrap().token_file.as_deref(), Some("/f"));
        location.access().unwrap();
        assert_eq!(located(&[account]).unwrap().application, None);
    }
}
