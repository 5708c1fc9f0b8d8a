//! Why a request failed, in words for people and in one bit for the machine: is it worth trying again?

use std::time::Duration;

use kube::core::Status;

/// A request that did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// What happened, to what, and what to do, as far as the answer tells.
    pub reason: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// HTTP status of the answer; none when there was no answer.
    pub code: Option<u16>,
    /// How long the server asked to wait before the next try.
    pub retry_after: Option<Duration>,
}

/// Parts of messages by which servers say that an object is too large; there is no code that they agree on.
const TOO_LARGE: &[&str] = &[
    "request is too large",            // etcd: over --max-request-bytes
    "Request entity too large",        // kube-apiserver: body over 3 MiB
    "trying to send message larger",   // gRPC between kube-apiserver and etcd
    "must have at most 1048576 bytes", // ConfigMap and Secret
    "must have at most 262144 bytes",  // annotations
];

/// Parts of messages by which server-side apply refuses what a plain creation may take.
const APPLY_ONLY: &[&str] = &["failed to create typed patch object", "duplicate entries for key"];

/// What a server says whose webhook does not answer.
const SILENT_WEBHOOK: &str = "failed calling webhook";
/// What a server says that has webhooks which cannot be asked without consequences.
const NO_DRY_RUN: &str = "does not support dry run";
/// Parts of refusals that depend on where an object is made and on what is there, though they have the codes of those that do not.
const NOT_CONTENT: &[&str] = &["admission webhook", "ValidatingAdmissionPolicy", "is already allocated", NO_DRY_RUN];

impl Failure {
    /// Whether only server-side apply refuses it.
    pub(crate) fn is_apply_only(&self) -> bool {
        APPLY_ONLY.iter().any(|part| self.reason.contains(part))
    }

    /// Whether the server has looked at what is in the object, and found it wrong.
    pub(crate) fn is_about_content(&self) -> bool {
        matches!(self.code, Some(400 | 422)) && !NOT_CONTENT.iter().any(|part| self.reason.contains(part))
    }

    /// Whether the server could not ask one of its webhooks, so that it has not come to say what it thinks.
    pub(crate) fn is_silent_webhook(&self) -> bool {
        matches!(self.code, Some(500..=599)) && self.reason.contains(SILENT_WEBHOOK)
    }

    /// Whether the server has webhooks that cannot be asked without consequences.
    pub(crate) fn is_no_dry_run(&self) -> bool {
        self.reason.contains(NO_DRY_RUN)
    }

    /// A failure that trying again does not mend.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: false, code: None, retry_after: None }
    }

    /// A failure that may pass by itself.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retryable: true, code: None, retry_after: None }
    }

    /// Whether the server answered that there is no such object or path.
    pub fn is_not_found(&self) -> bool {
        self.code == Some(404)
    }

    /// Whether the server could be reached at all.
    pub fn was_answered(&self) -> bool {
        self.code.is_some()
    }

    fn from_status(status: &Status) -> Self {
        let message = if status.message.is_empty() { status.reason.as_str() } else { status.message.as_str() };
        let (reason, retryable) = explain(status.code, message);
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        Self {
            reason,
            retryable,
            code: Some(status.code),
            retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(&status),
            kube::Error::BuildRequest(error) => Self::lasting(format!("the request could not be made: {error}")),
            kube::Error::Auth(error) => Self::lasting(format!("signing in to the API server: {error}")),
            other => Self::passing(format!("the API server did not answer: {}", with_causes(&other))),
        }
    }
}

/// An error with all that caused it, since the outer text of a transport error says next to nothing.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The reason in words, and whether it may pass.
fn explain(code: u16, message: &str) -> (String, bool) {
    if let Some((webhook, denial)) = denied_by_webhook(message) {
        return (format!("the admission webhook {webhook:?} refused it: {denial}"), false);
    }
    if code == 413 || TOO_LARGE.iter().any(|part| message.contains(part)) {
        return (format!("it is larger than this cluster accepts: {message}"), false);
    }
    if message.contains("because it is being terminated") {
        return (format!("its namespace is being deleted: {message}"), true);
    }
    // Old servers answer 500 to what they will refuse for ever.
    if APPLY_ONLY.iter().any(|part| message.contains(part)) {
        return (message.to_owned(), false);
    }
    match code {
        401 => (format!("the API server does not know who asks: {message}"), false),
        403 => (format!("not allowed: {message}"), false),
        404 if message.contains("could not find the requested resource") => (message.to_owned(), true),
        409 | 429 | 500..=599 => (message.to_owned(), true),
        _ => (message.to_owned(), false),
    }
}

/// Name of the webhook, and what it said, of `admission webhook "NAME" denied the request: TEXT`.
fn denied_by_webhook(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("admission webhook \"")?;
    let (name, rest) = rest.split_once('"')?;
    let denial = rest.split_once("denied the request")?.1;
    Some((name, denial.trim_start_matches(':').trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16, message: &str) -> Failure {
        Failure::from(kube::Error::Api(Box::new(Status { code, message: message.into(), ..Status::default() })))
    }

    fn check(code: u16, message: &str, reason: &str, retryable: bool) {
        let failure = failure(code, message);
        assert_eq!((failure.reason.as_str(), failure.retryable), (reason, retryable), "{code} {message}");
    }

    #[test]
    fn answers_are_told_apart() {
        check(
            400,
            r#"admission webhook "guard.example.com" denied the request: no latest tags"#,
            r#"the admission webhook "guard.example.com" refused it: no latest tags"#,
            false,
        );
        let down = r#"Internal error occurred: failed calling webhook "guard.example.com": connection refused"#;
        check(500, down, down, true);
        assert!(failure(500, down).is_silent_webhook() && !failure(500, "etcd is down").is_silent_webhook());
        check(
            500,
            "etcdserver: request is too large",
            "it is larger than this cluster accepts: etcdserver: request is too large",
            false,
        );
        check(413, "limit is 3145728", "it is larger than this cluster accepts: limit is 3145728", false);
        check(
            422,
            "ConfigMap \"x\" is invalid: []: Too long: must have at most 1048576 bytes",
            "it is larger than this cluster accepts: ConfigMap \"x\" is invalid: []: Too long: must have at most 1048576 bytes",
            false,
        );
        check(
            403,
            "unable to create new content in namespace x because it is being terminated",
            "its namespace is being deleted: unable to create new content in namespace x because it is being terminated",
            true,
        );
        check(403, "exceeded quota: q", "not allowed: exceeded quota: q", false);
        check(404, "namespaces \"x\" not found", "namespaces \"x\" not found", false);
        check(
            404,
            "the server could not find the requested resource",
            "the server could not find the requested resource",
            true,
        );
        check(409, "the object has been modified", "the object has been modified", true);
        check(429, "too many requests", "too many requests", true);
        check(503, "unavailable", "unavailable", true);
        check(422, "spec.x: Required value", "spec.x: Required value", false);
    }

    #[test]
    fn the_wait_that_the_server_asks_for_is_kept() {
        let mut status = Status { code: 429, message: "slow down".into(), ..Status::default() };
        status.details = Some(serde_json::from_str(r#"{"retryAfterSeconds": 3}"#).expect("details"));
        assert_eq!(Failure::from_status(&status).retry_after, Some(Duration::from_secs(3)));
    }
}
