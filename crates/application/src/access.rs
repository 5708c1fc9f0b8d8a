//! The requests that this crate makes, on objects as JSON.

use kube::{
    Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{Request, params::GetParams},
};
use serde_json::Value;

use crate::{failure::Failure, retry::Patience};

/// A cluster, and how patient to be with it.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) client: Client,
    pub(crate) patience: Patience,
}

/// One page of a list.
pub(crate) struct Page {
    /// The objects; those of built-in kinds do not say what they are.
    pub(crate) items: Vec<Value>,
    /// What to ask with for the next page; none after the last.
    pub(crate) next: Option<String>,
    /// Size of the answer.
    pub(crate) bytes: usize,
}

/// The answer to a request for a page.
pub(crate) enum Listed {
    /// A page.
    Page(Page),
    /// The token of the page was too old. The server may offer another, to go on behind the last page as things are now.
    Expired(Option<String>),
}

impl Access {
    /// Reads an object; none if it is not there. Tries again what may pass.
    pub(crate) async fn get(&self, path: &str, name: &str) -> Result<Option<Value>, Failure> {
        match self.patience.request(|| self.get_once(path, name)).await {
            Err(failure) if failure.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Reads an object; none if it is not there. One try.
    pub(crate) async fn look(&self, path: &str, name: &str) -> Result<Option<Value>, Failure> {
        match self.get_once(path, name).await {
            Err(failure) if failure.is_not_found() && !failure.retryable => Ok(None),
            answer => answer.map(Some),
        }
    }

    async fn get_once(&self, path: &str, name: &str) -> Result<Value, Failure> {
        let request = Request::new(path).get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        parse(&self.client.request_text(request).await?)
    }

    /// Reads a page of a list.
    pub(crate) async fn page(&self, path: &str, params: &ListParams) -> Result<Listed, Failure> {
        self.patience.request(|| self.page_once(path, params)).await
    }

    async fn page_once(&self, path: &str, params: &ListParams) -> Result<Listed, Failure> {
        let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?;
        let text = match self.client.request_text(request).await {
            Ok(text) => text,
            Err(kube::Error::Api(status)) if status.code == 410 && params.continue_token.is_some() => {
                let offered = status.metadata.and_then(|metadata| metadata.continue_);
                return Ok(Listed::Expired(offered.filter(|token| !token.is_empty())));
            }
            Err(error) => return Err(error.into()),
        };
        let mut list = parse(&text)?;
        let next = crate::json::text(&list, &["metadata", "continue"]).to_owned();
        let items = match list.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            Some(Value::Null) => Vec::new(),
            _ => {
                return Err(Failure::lasting(format!("the answer to a list of {path} has no items")));
            }
        };
        Ok(Listed::Page(Page { items, next: Some(next).filter(|next| !next.is_empty()), bytes: text.len() }))
    }

    /// Applies an object. One try.
    pub(crate) async fn apply(
        &self,
        path: &str,
        name: &str,
        params: &PatchParams,
        object: &Value,
    ) -> Result<Value, Failure> {
        let request =
            Request::new(path).patch(name, params, &Patch::Apply(object)).map_err(kube::Error::BuildRequest)?;
        parse(&self.client.request_text(request).await?)
    }

    /// Creates an object. One try.
    pub(crate) async fn create(&self, path: &str, params: &PostParams, object: &Value) -> Result<Value, Failure> {
        let body = crate::canonical::to_bytes(object);
        let request = Request::new(path).create(params, body).map_err(kube::Error::BuildRequest)?;
        parse(&self.client.request_text(request).await?)
    }

    /// Puts a status in place of the one that an object has. One try.
    pub(crate) async fn put_status(
        &self,
        path: &str,
        name: &str,
        params: &PatchParams,
        status: &Value,
    ) -> Result<Value, Failure> {
        let pointer = json_patch::jsonptr::PointerBuf::from_tokens(["status"]);
        let put = json_patch::AddOperation { path: pointer, value: status.clone() };
        let patch: Patch<()> = Patch::Json(json_patch::Patch(vec![json_patch::PatchOperation::Add(put)]));
        let request = Request::new(path).patch_subresource("status", name, params, &patch);
        parse(&self.client.request_text(request.map_err(kube::Error::BuildRequest)?).await?)
    }

    /// Deletes an object. One try; that it is gone already is success.
    pub(crate) async fn delete(&self, path: &str, name: &str, params: &DeleteParams) -> Result<(), Failure> {
        let request = Request::new(path).delete(name, params).map_err(kube::Error::BuildRequest)?;
        match self.client.request_text(request).await.map_err(Failure::from) {
            Err(failure) if !failure.is_not_found() => Err(failure),
            _ => Ok(()),
        }
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::passing(format!("the API server's answer is no JSON: {error}")))
}
