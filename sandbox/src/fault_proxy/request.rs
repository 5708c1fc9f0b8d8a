//! What a request asks of the API server, and the record that is kept of it.

use std::fmt;

use hyper::Method;
use hyper::http::request::Parts;

/// What a request asks, in the words that RBAC and audit logs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Reads one object, or something that is no resource, such as discovery.
    Get,
    /// Reads a collection.
    List,
    /// Follows changes.
    Watch,
    /// Makes an object, or a subresource such as an eviction.
    Create,
    /// Replaces an object.
    Update,
    /// Changes an object in part; server-side apply too.
    Patch,
    /// Deletes one object.
    Delete,
    /// Deletes all objects that are selected.
    DeleteCollection,
    /// Opens a stream in both directions: exec, attach, port-forward.
    Connect,
}

impl Verb {
    /// The verbs that change something.
    pub const WRITES: &[Self] = &[Self::Create, Self::Update, Self::Patch, Self::Delete, Self::DeleteCollection];

    pub(super) fn of(request: &Parts) -> Self {
        if request.headers.contains_key(hyper::header::UPGRADE) {
            return Self::Connect;
        }
        let names_object = names_object(request.uri.path());
        match request.method {
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if names_object => Self::Delete,
            Method::DELETE => Self::DeleteCollection,
            _ if is_watch(request.uri.query().unwrap_or_default()) => Self::Watch,
            _ if names_object => Self::Get,
            _ => Self::List,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn is_watch(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1"))
}

/// Whether a path is that of one object (or of no resource at all), and not that of a collection.
fn names_object(path: &str) -> bool {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let resource = match segments.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return true,
    };
    let in_namespace = match resource {
        // A namespace's own subresources are those of an object.
        ["namespaces", _name, "status" | "finalize"] => return true,
        ["namespaces", _name, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    in_namespace.len() != 1
}

/// A request that went through the proxy, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its place in the order of arrival, from 1, also over changes of the plan.
    pub number: u64,
    /// What it asked.
    pub verb: Verb,
    /// The path, with the query.
    pub path: String,
    /// What was done to it, in the words of the fault; `None` if it was only passed on.
    pub fault: Option<String>,
    /// The status that the API server answered; `None` while it has not, or if it was never asked.
    pub upstream_status: Option<u16>,
}

impl fmt::Display for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.number, self.verb, self.path)?;
        match self.upstream_status {
            Some(status) => write!(f, " -> {status}")?,
            None => write!(f, " -> -")?,
        }
        self.fault.as_ref().map_or(Ok(()), |fault| write!(f, " [{fault}]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn verb_of(method: &str, uri: &str, upgrade: bool) -> Verb {
        let mut request = Request::builder().method(method).uri(uri);
        if upgrade {
            request = request.header("upgrade", "websocket");
        }
        Verb::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn verbs_are_told_from_methods_and_paths() {
        let check = |method, uri, expected| assert_eq!(verb_of(method, uri, false), expected, "{method} {uri}");
        check("GET", "/version", Verb::Get);
        check("GET", "/apis/apps/v1", Verb::Get);
        check("GET", "/api/v1/namespaces", Verb::List);
        check("GET", "/api/v1/namespaces/a", Verb::Get);
        check("PUT", "/api/v1/namespaces/a/finalize", Verb::Update);
        check("GET", "/api/v1/namespaces/a/status", Verb::Get);
        check("GET", "/api/v1/namespaces/a/pods?limit=500", Verb::List);
        check("GET", "/api/v1/namespaces/a/pods/p", Verb::Get);
        check("GET", "/api/v1/pods?watch=true&resourceVersion=1", Verb::Watch);
        check("GET", "/api/v1/pods?resourceVersion=1&watch=1", Verb::Watch);
        check("GET", "/api/v1/pods?watch=false", Verb::List);
        check("GET", "/api/v1/pods?labelSelector=watch", Verb::List);
        check("GET", "/apis/orlop.io/v1alpha1/backuplocations", Verb::List);
        check("POST", "/apis/apps/v1/namespaces/a/deployments", Verb::Create);
        check("PATCH", "/apis/apps/v1/namespaces/a/deployments/d", Verb::Patch);
        check("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", Verb::Delete);
        check("DELETE", "/apis/apps/v1/namespaces/a/deployments", Verb::DeleteCollection);
        assert_eq!(verb_of("GET", "/api/v1/namespaces/a/pods/p/exec?command=x", true), Verb::Connect);
    }
}
