//! Holding the tools that keep objects as their own source says, for as long as a restore is under way.
//!
//! Invariant: who holds what stands on the held resource itself, written with the hold at once. So it is let go by whoever comes by after the run has
//! ended, and what somebody else has suspended is left alone.

use api::{GitOpsHold, HoldState};
use application::gitops::{HELD_BY, Kept, SKIP, Tool, keeps};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use kube::error::DiscoveryError;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::error::{During, Error};

/// Resources of a tool in memory at a time; lists of what they keep may make each some hundred KiB.
const PAGE: u32 = 32;
/// What writes holds. One of its own: Flux takes away what kubectl has written.
const MANAGER: &str = "orlop-hold";

/// A resource of a tool, as it was read.
pub(crate) struct Held {
    tool: Tool,
    resource: ApiResource,
    object: DynamicObject,
}

/// Those resources of a tool that are wanted, of all namespaces, if the cluster has the tool. There may be thousands, so only these are kept.
async fn all(client: &Client, tool: Tool, is_wanted: impl Fn(&Held) -> bool) -> Result<Vec<Held>, Error> {
    let (group, kind) = tool.kind();
    let found = match kube::discovery::group(client, group).await {
        Ok(found) => found,
        Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => return Ok(Vec::new()),
        Err(error) => return Err(error).during(|| format!("ask what kinds the group {group} has")),
    };
    let Some((resource, _)) = found.recommended_kind(kind) else { return Ok(Vec::new()) };
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let (mut found, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = match api.list(&params).await {
            // The token was too old: all of it again, for which there is one answer.
            Err(kube::Error::Api(status)) if status.code == 410 && params.limit.is_some() => {
                (found, params) = (Vec::new(), ListParams::default());
                continue;
            }
            answer => answer.during(|| format!("list the {kind}s of {group}"))?,
        };
        let held = |object| Held { tool, resource: resource.clone(), object };
        found.extend(page.items.into_iter().map(held).filter(&is_wanted));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

impl Held {
    fn holders(&self) -> Vec<String> {
        let holders = self.object.annotations().get(HELD_BY).map(String::as_str).unwrap_or_default();
        holders.split(',').filter(|holder| !holder.is_empty()).map(ToOwned::to_owned).collect()
    }

    /// Whether the tool leaves its objects alone now, whoever wants that.
    fn is_suspended(&self) -> bool {
        match self.tool {
            Tool::Application => self.object.annotations().get(SKIP).is_some_and(|skip| skip == "true"),
            Tool::Kustomization | Tool::HelmRelease => self.object.data["spec"]["suspend"] == true,
        }
    }

    /// What a run does about it that may act on one namespace, or on all.
    fn state(&self, scope: Option<&str>) -> HoldState {
        if scope.is_some_and(|own| self.object.namespace().as_deref() != Some(own)) {
            HoldState::LeftAlone
        } else if self.is_suspended() && self.holders().is_empty() {
            HoldState::WasSuspended
        } else {
            HoldState::Held
        }
    }

    fn told(&self, scope: Option<&str>) -> GitOpsHold {
        GitOpsHold {
            kind: self.tool.kind().1.to_owned(),
            namespace: self.object.namespace().unwrap_or_default(),
            name: self.object.name_any(),
            state: self.state(scope),
        }
    }

    fn title(&self) -> String {
        format!("{} {}/{}", self.tool.kind().1, self.object.namespace().unwrap_or_default(), self.object.name_any())
    }

    /// Writes who holds it, if it is still as it was read; with nobody left, it is let go.
    async fn write(&self, client: &Client, holders: &[String]) -> Result<(), Error> {
        let is_held = !holders.is_empty();
        let by = is_held.then(|| holders.join(","));
        let mut annotations = json!({HELD_BY: by});
        if self.tool == Tool::Application {
            annotations[SKIP] = if is_held { "true".into() } else { Value::Null };
        }
        let metadata = json!({"annotations": annotations, "resourceVersion": self.object.resource_version()});
        let mut patch = json!({"metadata": metadata});
        if self.tool != Tool::Application {
            patch["spec"] = json!({"suspend": if is_held { true.into() } else { Value::Null }});
        }
        let namespace = self.object.namespace().unwrap_or_default();
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &self.resource);
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let written = api.patch(&self.object.name_any(), &params, &Patch::Merge(patch)).await;
        match written {
            // There is nothing to hold, and nothing to let go.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => {
                other.map(drop).during(|| format!("{} the {}", if is_held { "hold" } else { "let go" }, self.title()))
            }
        }
    }
}

/// What keeps some objects, and what a restore would do about each. `scope` is the namespace that it may act on, if not on all: whose marks are on objects
/// says whoever wrote the recovery point, so they give nobody a way into another namespace.
///
/// # Errors
/// The API server did not answer, or refused.
pub(crate) async fn find(client: &Client, kept: &Kept, scope: Option<&str>) -> Result<Vec<GitOpsHold>, Error> {
    Ok(keepers(client, kept).await?.iter().map(|held| held.told(scope)).collect())
}

async fn keepers(client: &Client, kept: &Kept) -> Result<Vec<Held>, Error> {
    let mut found = Vec::new();
    for tool in Tool::ALL {
        let is_keeper = |held: &Held| serde_json::to_value(&held.object).is_ok_and(|value| keeps(tool, &value, kept));
        found.extend(all(client, tool, is_keeper).await?);
    }
    Ok(found)
}

/// Holds what keeps some objects, for a run. Done twice it is done once.
///
/// # Errors
/// A conflict, or the API server did not answer, or refused.
pub(crate) async fn hold(
    client: &Client,
    uid: &str,
    kept: &Kept,
    scope: Option<&str>,
) -> Result<Vec<GitOpsHold>, Error> {
    let found = keepers(client, kept).await?;
    for held in found.iter().filter(|held| held.state(scope) == HoldState::Held) {
        let mut holders = held.holders();
        let is_ours = holders.iter().any(|holder| holder == uid);
        if !is_ours {
            holders.push(uid.to_owned());
        }
        if !is_ours || !held.is_suspended() {
            held.write(client, &holders).await?;
        }
    }
    Ok(found.iter().map(|held| held.told(scope)).collect())
}

/// What is held by whomever, as far as it could be found.
pub(crate) struct Holds {
    held: Vec<Held>,
    /// Why some of it could not be found: the first of the reasons.
    error: Option<Error>,
}

/// Looks for everything that is held. A tool that does not answer hides nothing that others hold.
pub(crate) async fn held(client: &Client) -> Holds {
    let mut holds = Holds { held: Vec::new(), error: None };
    for tool in Tool::ALL {
        match all(client, tool, |held| !held.holders().is_empty()).await {
            Ok(held) => holds.held.extend(held),
            Err(error) => drop(holds.error.get_or_insert(error)),
        }
    }
    holds
}

impl Holds {
    /// Lets go what is held by runs that are over. What cannot be let go keeps nothing else held.
    ///
    /// # Errors
    /// The first reason why something could not be found or let go: a conflict, or the API server did not answer, or refused.
    pub(crate) async fn let_go(self, client: &Client, is_over: impl Fn(&str) -> bool) -> Result<(), Error> {
        let mut first = self.error;
        for held in self.held {
            let (over, left): (Vec<_>, Vec<_>) = held.holders().into_iter().partition(|holder| is_over(holder));
            if !over.is_empty()
                && let Err(error) = held.write(client, &left).await
            {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}
