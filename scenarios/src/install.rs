//! Installs Orlop as its guide says: the CRDs and the manifests in `deploy/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Client, ResourceExt};

use crate::pods;

/// The image that the manifests name.
pub const IMAGE_IN_MANIFESTS: &str = "orlop/orlop:0.1.0";

/// The project's `deploy/`.
#[must_use]
pub fn deploy_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Installs Orlop with `image` and waits until the operator is ready.
///
/// # Errors
/// A manifest is refused, or the operator does not become ready.
pub async fn orlop(client: &Client, image: &str) -> anyhow::Result<()> {
    for dir in ["crds", "operator"] {
        for file in yaml_files(&deploy_dir().join(dir))? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            apply(client, &text.replace(IMAGE_IN_MANIFESTS, image))
                .await
                .with_context(|| format!("apply {}", file.display()))?;
        }
    }
    pods::ready_pod(client, api::ADMIN_NAMESPACE, "app.kubernetes.io/name=orlop-operator", Duration::from_secs(60))
        .await?;
    Ok(())
}

/// How long a server may say that it is not yet so far.
const SERVER_BUSY: Duration = Duration::from_secs(30);

/// The manifests in a folder of `deploy/`, in the order in which they are applied.
///
/// # Errors
/// They cannot be read.
pub fn manifests(folder: &str) -> anyhow::Result<Vec<String>> {
    let read = |file: PathBuf| std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()));
    yaml_files(&deploy_dir().join(folder))?.into_iter().map(read).collect()
}

fn yaml_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut files: Vec<_> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    Ok(files)
}

/// Applies every document of `text`. A kind that was made by an earlier document is waited for.
///
/// # Errors
/// A document is refused.
pub async fn apply(client: &Client, text: &str) -> anyhow::Result<()> {
    for document in documents(text) {
        let (api, object, name) = place(client, document).await?;
        create_or_change(&api, &object).await.with_context(|| format!("apply {name}"))?;
    }
    Ok(())
}

/// Makes every document of `text`; changes nothing that is there.
///
/// # Errors
/// A document is refused, also because there is such an object.
pub async fn create(client: &Client, text: &str) -> anyhow::Result<()> {
    for document in documents(text) {
        let (api, object, name) = place(client, document).await?;
        pods::wait_for(&format!("the server to create {name}"), SERVER_BUSY, || async {
            match api.create(&PostParams::default(), &object).await {
                // Such as a pod whose namespace is so new that its service account has no token yet.
                Err(kube::Error::Api(status)) if status.reason == "ServerTimeout" => Ok(None),
                created => created.map(Some).with_context(|| format!("create {name}")),
            }
        })
        .await?;
    }
    Ok(())
}

fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n---").map(str::trim).filter(|d| has_content(d))
}

/// What a document is, and where it goes.
async fn place(client: &Client, document: &str) -> anyhow::Result<(Api<DynamicObject>, DynamicObject, String)> {
    let object: DynamicObject =
        serde_saphyr::from_str(document.trim_start_matches("---")).context("read the manifest")?;
    let types = object.types.clone().context("a manifest without apiVersion and kind")?;
    let gvk = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = pods::wait_for(&format!("kind {}", gvk.kind), Duration::from_secs(20), || async {
        Ok(Some(discovery::pinned_kind(client, &gvk).await?))
    })
    .await?;
    let namespace = object.namespace().unwrap_or_else(|| "default".into());
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), &namespace, &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    };
    let name = format!("{} {}", gvk.kind, object.name_any());
    Ok((api, object, name))
}

/// Not by server-side apply: older servers refuse in it what they take in a plain creation, such as a port without a protocol.
async fn create_or_change(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), kube::Error> {
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(object)).await.map(drop)
        }
        created => created.map(drop),
    }
}

fn has_content(document: &str) -> bool {
    document.lines().any(|l| !l.trim().is_empty() && !l.starts_with('#') && l != "---")
}
