//! A key management service as recipient: AWS KMS as moto plays it, and services that answer nonsense.

use crate::faults::memory;
use crate::fixture::{self, passphrase};
use async_trait::async_trait;
use repository::keys::{
    AwsKms, AwsKmsConfig, KeyError, KeyMethod, KeyRing, Kms, KmsContext, KmsError, KmsErrorKind, NewKey, Wrapped,
};
use repository::{Error, ErrorKind, Recipient, Repository, RetryPolicy};
use sandbox::kms::User;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

fn new_key() -> NewKey {
    NewKey { label: "the service".to_owned(), created: "2026-11-25T10:00:00Z".parse().unwrap() }
}

fn config(server: &sandbox::kms::Kms, user: &User, key: &str) -> Result<AwsKmsConfig, KmsError> {
    let variables = server.environment(user);
    let env = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
    AwsKmsConfig::from_name(&format!("aws:{key}"), &env)
}

fn recipient(server: &sandbox::kms::Kms, user: &User, key: &str) -> Recipient {
    let kms = AwsKms::new(config(server, user, key).unwrap(), RetryPolicy::never()).unwrap();
    Recipient::Kms(Arc::new(kms))
}

#[tokio::test]
async fn who_may_use_the_key_opens_the_repository() {
    sandbox::require_kms!();
    let server = sandbox::kms::Kms::start().unwrap();
    let (user, first, second) = (server.user(), server.first_key(), server.second_key());
    let store = memory();
    let by_kms = recipient(&server, user, first);
    let created = Repository::create(store.clone(), &by_kms).await.unwrap();
    let opened = Repository::open(store.clone(), &by_kms).await.unwrap();
    assert_eq!(opened.id(), created.id());

    // By its alias, and beside a passphrase; a passphrase alone opens no key of a service.
    let error = Repository::open(store.clone(), &passphrase()).await.unwrap_err();
    assert_eq!(error.to_string(), "none of the 1 keys of the repository opens with this passphrase");
    let ring = KeyRing::open(store.clone(), &recipient(&server, user, "alias/first")).await.unwrap();
    ring.add(&passphrase().into(), &new_key()).await.unwrap();
    Repository::open(store.clone(), &passphrase()).await.unwrap();
    let method =
        ring.list().await.unwrap().into_iter().find(|entry| entry.id == ring.in_use()).unwrap().info.unwrap().method;
    assert_eq!(method, KeyMethod::Kms { provider: "aws".to_owned(), key: first.to_owned() });

    // Another key does not open it, and becomes a recipient in the place of the first.
    assert!(Repository::open(store.clone(), &recipient(&server, user, second)).await.is_err());
    ring.rotate(&recipient(&server, user, second), &new_key()).await.unwrap();
    Repository::open(store.clone(), &recipient(&server, user, second)).await.unwrap();
    assert!(Repository::open(store, &by_kms).await.is_err());
}

#[tokio::test]
async fn what_the_service_refuses_is_told_apart() {
    sandbox::require_kms!();
    let server = sandbox::kms::Kms::start().unwrap();
    let (user, first) = (server.user(), server.first_key());
    let store = memory();
    fixture::create(store.clone()).await;
    let ring = KeyRing::open(store, &passphrase()).await.unwrap();
    let mut kinds = Vec::new();
    let wrong = User { id: user.id.clone(), secret: "wrong".to_owned() };
    for (user, key) in [
        (&wrong, first.to_owned()),
        (server.user_who_encrypts(), first.to_owned()),
        (user, format!("{}000", &first[..first.len() - 3])),
    ] {
        let error = ring.add(&recipient(&server, user, &key), &new_key()).await.unwrap_err();
        assert!(matches!(error, Error::Key(KeyError::Kms(_))), "{error}");
        kinds.push(error.kind());
    }
    assert_eq!(kinds, [ErrorKind::AccessDenied, ErrorKind::AccessDenied, ErrorKind::NotFound]);
    assert_eq!(ring.list().await.unwrap().len(), 1, "nothing was written");

    let config = config(&server, user, first).unwrap();
    drop(server);
    let nobody = AwsKms::new(config, RetryPolicy::never()).unwrap();
    let error = ring.add(&Recipient::Kms(Arc::new(nobody)), &new_key()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unreachable, true), "{error}");
}

#[tokio::test]
async fn the_context_binds_a_wrapped_key_to_its_repository_and_object() {
    sandbox::require_kms!();
    let server = sandbox::kms::Kms::start().unwrap();
    let kms = AwsKms::new(config(&server, server.user(), server.first_key()).unwrap(), RetryPolicy::never()).unwrap();
    let context = KmsContext { repository: repository::RepositoryId([1; 16]), key: repository::KeyId([2; 16]) };
    let wrapped = kms.wrap(&[7; 32], &context).await.unwrap();
    assert_eq!(kms.unwrap(&wrapped.bytes, &context).await.unwrap().unwrap().as_slice(), [7; 32]);
    for other in [
        KmsContext { repository: repository::RepositoryId([3; 16]), ..context },
        KmsContext { key: repository::KeyId([3; 16]), ..context },
    ] {
        assert!(kms.unwrap(&wrapped.bytes, &other).await.unwrap().is_none());
    }
    assert!(kms.unwrap(&[0; 90], &context).await.unwrap_or(None).is_none());
}

/// A service that wraps by turning bits round, as a test wants it to.
#[derive(Debug, Default)]
struct Toy {
    failures: Mutex<Vec<KmsErrorKind>>,
    key: &'static str,
    wrapped_len: usize,
    plain_len: Option<usize>,
    turned: u8,
}

#[async_trait]
impl Kms for Toy {
    fn provider(&self) -> &'static str {
        "toy"
    }

    fn key(&self) -> &str {
        self.key
    }

    async fn wrap(&self, plain: &[u8; 32], _: &KmsContext) -> Result<Wrapped, KmsError> {
        let mut bytes: Vec<u8> = plain.iter().map(|byte| !byte).collect();
        bytes.resize(self.wrapped_len, 0);
        Ok(Wrapped { key: self.key.to_owned(), bytes })
    }

    async fn unwrap(&self, wrapped: &[u8], _: &KmsContext) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        if let Some(kind) = self.failures.lock().unwrap().pop() {
            return Err(KmsError::new(kind, "unwrap a key with", self.key));
        }
        let plain = wrapped.iter().take(self.plain_len.unwrap_or(32)).map(|byte| !byte ^ self.turned);
        Ok(Some(Zeroizing::new(plain.collect())))
    }
}

fn toy() -> Toy {
    Toy { key: "the-key", wrapped_len: 48, ..Toy::default() }
}

#[tokio::test]
async fn a_service_that_answers_nonsense_becomes_no_recipient() {
    let store = memory();
    fixture::create(store.clone()).await;
    let ring = KeyRing::open(store.clone(), &passphrase()).await.unwrap();
    let add = async |toy: Toy| ring.add(&Recipient::Kms(Arc::new(toy)), &new_key()).await;
    let long = "k".repeat(2049).leak();
    for (toy, what) in [
        (Toy { key: "", ..toy() }, "the name of the service's key"),
        (Toy { key: long, ..toy() }, "the name of the service's key"),
        (Toy { key: "a b", ..toy() }, "the name of the service's key"),
        (Toy { wrapped_len: 0, ..toy() }, "its wrapped key has not"),
        (Toy { wrapped_len: 6145, ..toy() }, "its wrapped key has not"),
        (Toy { plain_len: Some(31), ..toy() }, "its wrapped key has not 32 bytes"),
        (Toy { turned: 1, ..toy() }, "does not open with his secret"),
    ] {
        let error = add(toy).await.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert_eq!(ring.list().await.unwrap().len(), 1, "nothing was written");
    // At its longest.
    let longest = || Toy { key: &long[..2048], wrapped_len: 6144, ..toy() };
    add(longest()).await.unwrap();
    Repository::open(store, &Recipient::Kms(Arc::new(longest()))).await.unwrap();
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_no_wrong_key() {
    let store = memory();
    let recipient = Recipient::Kms(Arc::new(toy()));
    Repository::create(store.clone(), &recipient).await.unwrap();
    let open = async |toy: Toy| Repository::open(store.clone(), &Recipient::Kms(Arc::new(toy))).await.map(drop);
    open(toy()).await.unwrap();
    for (kind, expected) in [
        (KmsErrorKind::Unreachable, ErrorKind::Unreachable),
        (KmsErrorKind::AccessDenied, ErrorKind::AccessDenied),
        (KmsErrorKind::Unusable, ErrorKind::Invalid),
    ] {
        let error = open(Toy { failures: Mutex::new(vec![kind]), ..toy() }).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
    }
    let error = open(Toy { turned: 1, ..toy() }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "none of the 1 keys of the repository opens with the key the-key of the key management service"
    );
}
