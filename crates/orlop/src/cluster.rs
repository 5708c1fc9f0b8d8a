//! The connection to a cluster, and what its refusals mean.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Api, Client, Config, Resource};

use crate::error::{Error, Result};

/// Time for the API server to take a connection; the default of 30 s is long for a person who mistyped a context.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is said when the custom resources are not known.
const NOT_INSTALLED: &str = "Orlop is not installed in this cluster: it does not know the custom resources of orlop.io";
const INSTALL: &str = "orlop install";

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ConnectionArgs {
    /// The kubeconfig to use; else KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
}

/// Which cluster, and which namespace in it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The namespace that the resource lives in; else the context's
    #[arg(short = 'n', long, value_name = "NAMESPACE", global = true)]
    namespace: Option<String>,
}

/// A client with what is needed to speak of the cluster.
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    server: String,
}

impl Cluster {
    /// Makes a client. Nothing is sent yet, so this fails only when the configuration cannot be used.
    pub(crate) async fn connect(args: &ClusterArgs) -> Result<Self> {
        Self::connect_to(&args.connection, args.namespace.clone()).await
    }

    /// The same with a namespace that is said elsewhere, or else the context's.
    pub(crate) async fn connect_to(args: &ConnectionArgs, namespace: Option<String>) -> Result<Self> {
        let mut config = configuration(args).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client =
            Client::try_from(config).map_err(|e| Error::new(format!("make a client for {server}")).because(e))?;
        Ok(Self { client, namespace, server })
    }

    /// The client, for what is not a resource of one kind.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace that resources live in when nothing else is said.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The resources of a kind in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The resources of a kind in all namespaces.
    pub(crate) fn api_all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Says what an error of the client means for what was being done.
    pub(crate) fn explain(&self, what: impl Into<String>, error: kube::Error) -> Error {
        let what = what.into();
        match error {
            kube::Error::Api(status) => refusal(what, &status),
            kube::Error::Auth(e) => Error::new(what)
                .because(e)
                .next("check the user of the kubeconfig's context; --context names another one"),
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
                Error::new(format!("{what}: the API server at {} cannot be reached", self.server))
                    .because(error)
                    .next("check that the cluster runs, and that --kubeconfig and --context name it")
            }
            other => Error::new(what).because(other),
        }
    }
}

pub(crate) async fn configuration(args: &ConnectionArgs) -> Result<Config> {
    let kubeconfig = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..Default::default() };
    let found = match kubeconfig {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
        Err(e) => Err(e),
    };
    match found {
        Ok(config) => Ok(config),
        Err(e) if args.kubeconfig.is_none() && args.context.is_none() => Config::incluster().map_err(|_| no_config(e)),
        Err(e) => Err(no_config(e)),
    }
}

fn no_config(error: kube::config::KubeconfigError) -> Error {
    Error::new("read the kubeconfig").because(error).next(
        "name a kubeconfig with --kubeconfig or KUBECONFIG, and one of its contexts with --context \
         (kubectl config get-contexts lists them)",
    )
}

/// What a refusal of the API server means.
fn refusal(what: String, status: &Status) -> Error {
    if is_unknown_kind(status) {
        return Error::new(format!("{what}: {NOT_INSTALLED}")).next(INSTALL);
    }
    let error = Error::new(format!("{what}: {}", status.message));
    match status.code {
        401 => error.next("sign in again: the server does not accept the credentials of the kubeconfig"),
        403 => error.next("ask an administrator of the cluster for this right, or use another --context"),
        _ => error,
    }
}

/// A kind that is not known is told from a resource that is not there by the name: only the latter has one.
fn is_unknown_kind(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty())
}

/// Whether a watch or a request that ended so is worth another try.
pub(crate) fn is_lasting(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400..=409 | 415 | 422))
        || matches!(error, kube::Error::Auth(_))
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn status(code: u16, message: &str, name: &str) -> Status {
        let details: StatusDetails = serde_json::from_value(serde_json::json!({"name": name})).expect("details");
        Status { code, message: message.to_owned(), details: Some(details), ..Default::default() }
    }

    #[test]
    fn an_unknown_kind_is_told_from_a_missing_resource() {
        let check = |status: &Status, expected: &str| {
            assert_eq!(refusal("list backups".to_owned(), status).to_string(), expected);
        };
        check(
            &status(404, "the server could not find the requested resource", ""),
            &format!("list backups: {NOT_INSTALLED}\n  next: {INSTALL}"),
        );
        check(
            &status(404, "applicationbackups.orlop.io \"a\" not found", "a"),
            "list backups: applicationbackups.orlop.io \"a\" not found",
        );
        check(&status(409, "it exists", "a"), "list backups: it exists");
    }

    #[test]
    fn what_the_server_refuses_for_good_is_not_tried_again() {
        for (code, lasting) in [(403, true), (404, true), (410, false), (429, false), (500, false), (503, false)] {
            assert_eq!(is_lasting(&kube::Error::Api(Box::new(status(code, "", "")))), lasting, "{code}");
        }
    }
}
