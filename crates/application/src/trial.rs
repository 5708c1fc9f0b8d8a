//! Whether a server takes an object, asked without making it.
//!
//! What is asked is whether the object is one: whether its fields are known, and its values allowed. What would be in its way otherwise, such as
//! a quota, or something that is yet to be made, is found out when it is made.

use std::sync::Arc;

use kube::Client;
use kube::api::PostParams;
use serde_json::Value;

use crate::absent::all_absent_fields;
use crate::access::Access;
use crate::apply::FIELD_MANAGER;
use crate::catalog::ApiCatalog;
use crate::failure::Failure;
use crate::foresight::Change;
use crate::json;
use crate::key::ObjectKey;
use crate::retry::Patience;
use crate::versions;

/// Asks one server.
pub struct Trial {
    access: Access,
    catalog: Arc<ApiCatalog>,
    name: String,
}

impl Trial {
    /// For a cluster that serves these kinds. Where one of its name is there, an object is tried under this name.
    pub fn new(client: Client, catalog: Arc<ApiCatalog>, name: impl Into<String>, patience: Patience) -> Self {
        Self { access: Access { client, patience }, catalog, name: name.into() }
    }

    /// Why the server would not take an object that has these changes, or would not keep them. `namespace` is one that is there.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn refusal(
        &self,
        key: &ObjectKey,
        object: &Value,
        changes: &[Change],
        namespace: &str,
    ) -> Result<Option<String>, Failure> {
        let key = ObjectKey { namespace: key.namespace.as_ref().map(|_| namespace.to_owned()), ..key.clone() };
        // A kind that the cluster does not serve yet is one that the restore defines itself: nobody can be asked.
        let Ok(spot) = versions::find(&self.catalog, &key) else { return Ok(None) };
        let mut tried = spot.fit(object).into_owned();
        if let Some(namespace) = &key.namespace {
            json::set(&mut tried, &["metadata", "namespace"], namespace.clone().into());
        }
        let mut said = self.ask(&spot.path, &tried).await?;
        // One is there: what is asked about was good enough to come that far, but the answer does not have it. So it is asked once more, under another
        // name; that this one is refused, as names may be, says nothing.
        if matches!(said, Said::There) && !is_named_by_content(&key) {
            json::set(&mut tried, &["metadata", "name"], self.name.clone().into());
            said = self.ask(&spot.path, &tried).await?;
            if matches!(said, Said::Refused(_)) {
                said = Said::Nothing;
            }
        }
        Ok(match said {
            Said::Taken(answer) => dropped(&tried, &answer, changes),
            Said::Refused(why) => Some(why),
            Said::There | Said::Nothing => None,
        })
    }

    async fn ask(&self, path: &str, object: &Value) -> Result<Said, Failure> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: true };
        let once = || async {
            match self.access.create(path, &params, object).await {
                Err(failure) if failure.code == Some(409) => Ok(Said::There),
                Err(failure) if failure.is_silent_webhook() => Ok(Said::Nothing),
                answer => answer.map(Said::Taken),
            }
        };
        match self.access.patience.request(once).await {
            Err(failure) if failure.is_about_content() => Ok(Said::Refused(failure.reason)),
            Err(failure) if failure.was_answered() && !failure.retryable => Ok(Said::Nothing),
            said => said,
        }
    }
}

/// What the server says about an object.
enum Said {
    /// It would be this.
    Taken(Value),
    /// One of its name is there.
    There,
    /// It is not one; why.
    Refused(String),
    /// Nothing that is about what is in it.
    Nothing,
}

/// Kinds whose names say what is in them.
fn is_named_by_content(key: &ObjectKey) -> bool {
    key.is("apiextensions.k8s.io", "CustomResourceDefinition") || key.is("apiregistration.k8s.io", "APIService")
}

/// Changes that the answer does not have: fields that the server does not know.
fn dropped(sent: &Value, answer: &Value, changes: &[Change]) -> Option<String> {
    let absent = all_absent_fields(sent, answer);
    let made: Vec<String> = changes.iter().filter(|c| c.to.is_some()).map(|c| dotted(sent, &c.path)).collect();
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let lost: Vec<&str> = absent
        .iter()
        .filter(|field| made.iter().any(|made| is_within(field, made) || is_within(made, field)))
        .map(String::as_str)
        .collect();
    (!lost.is_empty()).then(|| format!("this cluster does not know, and would drop: {}", lost.join(", ")))
}

/// A JSON pointer, as absent fields are written.
fn dotted(object: &Value, pointer: &str) -> String {
    let (mut path, mut at) = (String::new(), Some(object));
    for name in pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")) {
        match at {
            Some(Value::Array(items)) => {
                path.push_str(&format!("[{name}]"));
                at = name.parse::<usize>().ok().and_then(|index| items.get(index));
            }
            _ => {
                path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                at = at.and_then(|at| at.get(&name));
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_changed_and_dropped_is_named_and_nothing_else() {
        let sent = json!({"spec": {"old": 1, "new": {"a": 1}, "list": [{"name": "x", "b": 1}], "good": 1}});
        let answer = json!({"spec": {"list": [{"name": "injected"}, {"name": "x"}], "good": 1}});
        let check = |path: &str, expected: Option<&str>| {
            let change = Change { path: path.into(), from: None, to: Some(json!(1)) };
            let said = dropped(&sent, &answer, &[change]);
            assert_eq!(said.as_deref().map(|said| said.rsplit(' ').next().unwrap_or_default()), expected, "{path}");
        };
        check("/spec/new/a", Some("spec.new"));
        check("/spec/new", Some("spec.new"));
        check("/spec/list/0/b", Some("spec.list[0].b"));
        check("/spec/good", None);
        check("/spec", Some("spec.old"));
        let gone = Change { path: "/spec/new".into(), from: Some(json!(1)), to: None };
        assert_eq!(dropped(&sent, &answer, &[gone]), None);
    }
}
