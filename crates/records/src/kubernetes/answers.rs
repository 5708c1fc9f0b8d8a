//! What an API server's refusals mean for a record.

use super::Failure;
use crate::chain;
use kube::core::Status;
use replication::record::store::SwapError;

/// Whether it says that this very object is not there. A server that does not know the kind answers with 404 as well.
pub(super) fn is_absence(status: &Status, name: &str) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| details.name == name)
}

/// What is known after a swap or a removal without a good answer.
pub(super) fn failed_swap(action: &str, failure: &Failure, name: &str) -> SwapError {
    match failure {
        Failure::Kube(kube::Error::Api(status)) if is_conflict(status) || is_absence(status, name) => {
            SwapError::Conflict
        }
        _ => SwapError::Unknown { reason: why(action, failure) },
    }
}

/// Whether it is another version, or is there already. These are answered by the server that has compared.
fn is_conflict(status: &Status) -> bool {
    status.code == 409 && ["Conflict", "AlreadyExists"].contains(&status.reason.as_str())
}

/// A request to the API and why it has failed, for a person.
pub(super) fn why(action: &str, failure: &Failure) -> String {
    let reason = match failure {
        Failure::Late(limit) => format!("the API server did not answer within {limit:?}"),
        Failure::Kube(kube::Error::Api(status)) => refusal(status),
        Failure::Kube(error) => chain(error),
    };
    format!("{action} a VolumeRecord: {reason}")
}

fn refusal(status: &Status) -> String {
    let said = &status.message;
    match status.code {
        404 => format!("the API server does not know the kind ({said}); apply deploy/crds"),
        401 | 403 => format!(
            "the API server does not allow it ({said}); give the account the right to volumerecords of orlop.io"
        ),
        code => format!("the API server refused it with {code}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{failed_swap, is_absence};
    use crate::kubernetes::Failure;
    use kube::core::Status;
    use replication::record::store::SwapError;

    fn status(text: &str) -> Status {
        serde_json::from_str(text).unwrap()
    }

    const ABSENT: &str = r#"{"kind":"Status","status":"Failure","message":"volumerecords.orlop.io \"1f\" not found",
        "reason":"NotFound","details":{"name":"1f","group":"orlop.io","kind":"volumerecords"},"code":404}"#;
    const UNKNOWN_KIND: &str = r#"{"kind":"Status","status":"Failure","reason":"NotFound","details":{},"code":404,
        "message":"the server could not find the requested resource"}"#;

    #[test]
    fn a_kind_that_is_not_known_is_no_absence() {
        assert!(is_absence(&status(ABSENT), "1f"));
        assert!(!is_absence(&status(ABSENT), "2f"));
        assert!(!is_absence(&status(UNKNOWN_KIND), "1f"));
    }

    #[test]
    fn only_what_the_server_has_compared_is_a_conflict() {
        let after = |text: &str| failed_swap("write", &Failure::Kube(kube::Error::Api(status(text).boxed())), "1f");
        let conflict = |reason: &str| format!(r#"{{"code":409,"reason":"{reason}","message":"m"}}"#);
        assert_eq!(after(&conflict("Conflict")), SwapError::Conflict);
        assert_eq!(after(&conflict("AlreadyExists")), SwapError::Conflict);
        assert_eq!(after(ABSENT), SwapError::Conflict);
        for unknown in
            [&conflict(""), r#"{"code":504,"reason":"Timeout"}"#, r#"{"code":500}"#, r#"{"code":429}"#, UNKNOWN_KIND]
        {
            assert!(matches!(after(unknown), SwapError::Unknown { .. }), "{unknown}");
        }
    }
}
