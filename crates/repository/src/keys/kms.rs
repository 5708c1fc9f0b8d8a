//! Key management services: what holds a key that never leaves it, and uses it for whom it allows.

use crate::ids::{KeyId, RepositoryId};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A key of a key management service, ready to wrap and to unwrap.
///
/// What is wrapped is a key that wraps the master key, drawn for each recipient. So the service sees neither the master key nor
/// anything that could be compared with another recipient's, and who can listen to it can read nothing without the store.
#[async_trait]
pub trait Kms: fmt::Debug + Send + Sync + 'static {
    /// Which kind of service it is: 1 to 32 characters of `a-z`, `0-9` and `-`. Only keys that were wrapped by the same kind are tried.
    fn provider(&self) -> &'static str;

    /// What messages call the key.
    fn key(&self) -> &str;

    /// Has 32 bytes wrapped, bound to the context.
    async fn wrap(&self, plain: &[u8; 32], context: &KmsContext) -> Result<Wrapped, KmsError>;

    /// Has bytes unwrapped that were wrapped for this context; `None` when they were wrapped with another key or for another
    /// context, or are not what [`Self::wrap`] made.
    async fn unwrap(&self, wrapped: &[u8], context: &KmsContext) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError>;
}

/// What a service made of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The full name of the key that was used.
    pub key: String,
    /// What only that key unwraps; at most [`Wrapped::MAX_LEN`] bytes.
    pub bytes: Vec<u8>,
}

impl Wrapped {
    /// How long wrapped bytes may be: what AWS's answers are limited to, more than any service is known to make of 32 bytes.
    pub const MAX_LEN: usize = 6144;
    /// How long the name of a key may be; AWS's names have at most so many characters.
    pub const MAX_KEY_LEN: usize = 2048;
}

/// What a wrapped key is for. The service binds it, so that one recipient's key cannot be passed off as another's, and its log
/// tells which repository was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KmsContext {
    /// The repository.
    pub repository: RepositoryId,
    /// The key object.
    pub key: KeyId,
}

impl KmsContext {
    /// Names and values, sorted by name.
    pub fn pairs(&self) -> [(&'static str, String); 2] {
        [("orlop-key", self.key.to_string()), ("orlop-repository", self.repository.to_string())]
    }
}

/// The kinds of failures of a key management service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KmsErrorKind {
    /// It could not be reached, did not answer properly, or asked to slow down.
    Unreachable,
    /// The credentials are not accepted, or do not allow the use of the key.
    AccessDenied,
    /// It does not know the key.
    NotFound,
    /// The key is disabled, waits for its deletion, or is not of the right kind.
    Unusable,
    /// The configuration or the request makes no sense.
    Invalid,
}

/// A request to a key management service that did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {key}: {}", describe(.kind))]
pub struct KmsError {
    /// What kind of failure it was.
    pub kind: KmsErrorKind,
    /// What was being done, as a verb.
    pub operation: &'static str,
    /// The key of the service.
    pub key: String,
    /// What the service, or the system, said.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

fn describe(kind: &KmsErrorKind) -> &'static str {
    match kind {
        KmsErrorKind::Unreachable => "the key management service did not answer properly",
        KmsErrorKind::AccessDenied => "the key management service denies access",
        KmsErrorKind::NotFound => "the key management service does not know this key",
        KmsErrorKind::Unusable => "the key management service cannot use this key",
        KmsErrorKind::Invalid => "the key management service cannot be used like this",
    }
}

impl KmsError {
    /// An error that has no cause below it.
    pub fn new(kind: KmsErrorKind, operation: &'static str, key: &str) -> Self {
        Self { kind, operation, key: key.to_owned(), source: None }
    }

    /// Keeps what lies below.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        self.kind == KmsErrorKind::Unreachable
    }

    /// What its reader can do about it.
    pub(super) fn guidance(&self) -> &'static str {
        match self.kind {
            KmsErrorKind::Unreachable => {
                "check AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL and the region of the key, then try again"
            }
            KmsErrorKind::AccessDenied => {
                "check the credentials, and that they may use the key: kms:Decrypt to open, kms:Encrypt as well to add a recipient"
            }
            KmsErrorKind::NotFound => "check the name and the region of the key",
            KmsErrorKind::Unusable => {
                "enable the key again, or cancel its deletion; else open the repository as another recipient"
            }
            KmsErrorKind::Invalid => "correct what the message names",
        }
    }
}
