//! `orlop version` and `orlop crds`: what this program is and speaks.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::output::{self, Format};

/// What `orlop version` prints for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    /// Of this program.
    version: &'static str,
    /// The custom resources that it speaks.
    api_version: String,
}

/// The three numbers of `0.1.0` or `v0.1.0`.
pub(crate) fn numbers(version: &str) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = version.trim_start_matches('v').split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Prints the version.
pub(crate) fn version(format: Format) -> Result<()> {
    let version =
        Version { version: env!("CARGO_PKG_VERSION"), api_version: format!("{}/{}", api::GROUP, api::VERSION) };
    let table = || output::fields([("Orlop", version.version.to_owned()), ("API", version.api_version.clone())]);
    output::print(&output::render(format, &version, table, || format!("{}\n", version.version))?)
}

/// Prints the custom resource definitions, ready for `kubectl apply -f -`.
pub(crate) fn crds(format: Format) -> Result<()> {
    let crds = api::crds::all();
    let text = match format {
        Format::Name => crds.iter().map(|crd| format!("{}\n", output::resource_name(crd))).collect(),
        Format::Json => output::resources(format, &crds, String::new)?,
        Format::Table | Format::Yaml => {
            let documents: Result<Vec<_>, Error> = crds.iter().map(output::yaml).collect();
            documents?.join("---\n")
        }
    };
    output::print(&text)
}
