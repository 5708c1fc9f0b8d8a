//! Whether the controller of an object is captured with it, so that it will make the object again.

use std::collections::HashMap;

use kube::api::ListParams;
use serde_json::Value;

use crate::{
    access::{Access, Listed},
    catalog::ApiCatalog,
    failure::Failure,
    json, rules,
    selection::Selection,
};

/// Owners remembered at most, about 100 bytes each. When there are more, all are forgotten and asked for again: the objects of
/// one owner mostly follow each other.
const MOST_REMEMBERED: usize = 20_000;

/// What is known of owners, by their uid.
#[derive(Default)]
pub(crate) struct Owners {
    known: HashMap<String, bool>,
}

impl Owners {
    /// Whether an object's controller is there, is the one that is meant, and is captured.
    ///
    /// The uid is compared, because an owner reference by name may name another life of the owner; then nobody makes the object
    /// again. Only an API server that does not answer is an error: an owner that cannot be seen counts as not captured, and its
    /// object is stored.
    pub(crate) async fn controller_is_captured(
        &mut self,
        access: &Access,
        catalog: &ApiCatalog,
        selection: &Selection,
        namespace: &str,
        object: &Value,
    ) -> Result<bool, Failure> {
        let Some(owner) = rules::controller(object) else {
            return Ok(false);
        };
        let uid = json::text(owner, &["uid"]);
        if let Some(captured) = self.known.get(uid) {
            return Ok(*captured);
        }
        let captured = is_captured(access, catalog, selection, namespace, owner).await?;
        if self.known.len() >= MOST_REMEMBERED {
            self.known.clear();
        }
        self.known.insert(uid.to_owned(), captured);
        Ok(captured)
    }
}

async fn is_captured(
    access: &Access,
    catalog: &ApiCatalog,
    selection: &Selection,
    namespace: &str,
    owner: &Value,
) -> Result<bool, Failure> {
    let (api_version, name) = (json::text(owner, &["apiVersion"]), json::text(owner, &["name"]));
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let Some(kind) = catalog.get(group, json::text(owner, &["kind"])) else {
        return Ok(false);
    };
    let is_wanted = kind.namespaced
        && kind.readable
        && rules::for_kind(&kind.group, &kind.kind).is_none()
        && selection.wants_kind(kind)
        && selection.wants(kind, namespace, name);
    if !is_wanted {
        return Ok(false);
    }
    // A list of one, not a read: only lists can be asked whether the selected labels are there.
    let params = ListParams {
        label_selector: selection.label_selector.clone(),
        field_selector: Some(format!("metadata.name={name}")),
        ..ListParams::default()
    };
    match access.page(&kind.path(&kind.version, Some(namespace)), &params).await {
        Ok(Listed::Page(page)) => {
            let uid = json::text(owner, &["uid"]);
            let is_it = |item: &Value| json::text(item, &["metadata", "uid"]) == uid && !rules::is_being_deleted(item);
            Ok(page.items.iter().any(is_it))
        }
        Ok(Listed::Expired(_)) => Ok(false),
        Err(failure) if failure.was_answered() => Ok(false),
        Err(failure) => Err(failure),
    }
}
