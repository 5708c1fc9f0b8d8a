//! What the service answers.

use crate::keys::kms::KmsErrorKind;
use crate::secret::Secret;
use serde::Deserialize;

/// The answer to `Encrypt`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Encrypted {
    /// In Base64.
    pub(super) ciphertext_blob: String,
    /// The ARN of the key, also when it was named by an alias.
    pub(super) key_id: String,
}

/// The answer to `Decrypt`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Decrypted {
    /// In Base64.
    pub(super) plaintext: Secret<String>,
}

/// The answer to what cannot be done. Some have `message`, some `Message`, some none.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    #[serde(rename = "__type", default)]
    name: String,
    #[serde(alias = "Message", default)]
    message: String,
}

/// How the service said no.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// What was to be decrypted is not of this key, or not for this context, or no ciphertext.
    NotOfThisKey,
    Error(KmsErrorKind),
}

impl Refusal {
    pub(super) fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// The name without the namespace that some servers put before it.
    fn name(&self) -> &str {
        self.name.rsplit('#').next().unwrap_or_default()
    }

    /// The name and the message, as far as they are there.
    pub(super) fn text(&self, status: u16) -> String {
        let parts = [self.name(), &self.message];
        let text: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if text.is_empty() { format!("status {status}") } else { text.join(": ") }
    }

    pub(super) fn sort(&self, status: u16) -> Sorted {
        use KmsErrorKind::{AccessDenied, Invalid, NotFound, Unreachable, Unusable};
        Sorted::Error(match (self.name(), status) {
            ("IncorrectKeyException" | "InvalidCiphertextException", _) => return Sorted::NotOfThisKey,
            (
                "AccessDeniedException"
                | "ExpiredTokenException"
                | "IncompleteSignatureException"
                | "InvalidClientTokenId"
                | "InvalidSignatureException"
                | "MissingAuthenticationTokenException"
                | "NotAuthorizedException"
                | "OptInRequired"
                | "SignatureDoesNotMatch"
                | "UnrecognizedClientException",
                _,
            ) => AccessDenied,
            ("NotFoundException", _) => NotFound,
            ("DisabledException" | "InvalidKeyUsageException" | "KMSInvalidStateException", _) => Unusable,
            (
                "DependencyTimeoutException"
                | "KeyUnavailableException"
                | "KMSInternalException"
                | "RequestExpired"
                | "ThrottlingException",
                _,
            ) => Unreachable,
            (_, 408 | 429 | 500..=599) => Unreachable,
            (_, 401 | 403) => AccessDenied,
            _ => Invalid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sorted() {
        let check = |body: &str, status: u16, sorted: Sorted, text: &str| {
            let refusal = Refusal::read(body.as_bytes());
            assert_eq!((refusal.sort(status), refusal.text(status)), (sorted, text.to_owned()), "{body}");
        };
        let error = Sorted::Error;
        check(r#"{"__type":"IncorrectKeyException"}"#, 400, Sorted::NotOfThisKey, "IncorrectKeyException");
        check(
            r#"{"__type":"com.amazonaws.kms#NotFoundException","message":"no key"}"#,
            400,
            error(KmsErrorKind::NotFound),
            "NotFoundException: no key",
        );
        check(
            r#"{"__type":"AccessDeniedException","Message":"no"}"#,
            400,
            error(KmsErrorKind::AccessDenied),
            "AccessDeniedException: no",
        );
        check(r#"{"__type":"DisabledException"}"#, 400, error(KmsErrorKind::Unusable), "DisabledException");
        check(r#"{"__type":"ThrottlingException"}"#, 400, error(KmsErrorKind::Unreachable), "ThrottlingException");
        check("<html>", 502, error(KmsErrorKind::Unreachable), "status 502");
        check("", 403, error(KmsErrorKind::AccessDenied), "status 403");
        check("", 307, error(KmsErrorKind::Invalid), "status 307");
    }
}
