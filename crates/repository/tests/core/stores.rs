//! What single stores do in special cases; `conformance.rs` has what all do.

use crate::conformance::kind;
use crate::faults::{EAGER, Fault, Faulty, OpenBook, memory};
use crate::s3::S3Server;
use bytes::Bytes;
use repository::store::AzureLocation;
use repository::{RetryPolicy, S3Location, Secret, StoreConfig, StoreErrorKind};

#[tokio::test]
async fn retries_end() {
    let faulty = Faulty::new(memory(), |_, _| Fault::Refused(StoreErrorKind::Unreachable));
    let error = faulty.store(EAGER).get("x", 1).await.unwrap_err();
    assert_eq!((error.kind, faulty.requests()), (StoreErrorKind::Unreachable, u64::from(EAGER.attempts)));
}

#[tokio::test]
async fn a_lost_answer_does_not_hide_that_another_was_first() {
    let shared = memory();
    shared.put_new("x", Bytes::from_static(b"theirs")).await.unwrap();
    let faulty = Faulty::new(shared.clone(), |number, _| {
        if number == 0 { Fault::Refused(StoreErrorKind::Unreachable) } else { Fault::None }
    });
    let error = faulty.store(EAGER).put_new("x", Bytes::from_static(b"ours!!")).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::AlreadyExists);
    assert_eq!(shared.get("x", 9).await.unwrap(), "theirs");
}

#[tokio::test]
async fn a_store_that_overwrites_is_noticed() {
    let book = OpenBook::overwriting();
    assert!(!book.store().probe().await.unwrap().conditional_create);
    assert_eq!(book.names(), Vec::<String>::new());
}

/// A server that does not know the condition under which an object is created.
#[tokio::test]
async fn s3_without_conditional_creation_is_found_out_and_written_to_without() {
    let server = S3Server::start_with(|request| {
        let conditional = request.headers().contains_key("if-none-match");
        conditional.then_some((501, "<Error><Code>NotImplemented</Code></Error>"))
    })
    .await;
    let store = server.config("").open(EAGER).unwrap();
    assert_eq!(kind(store.put_new("x", Bytes::new()).await), StoreErrorKind::NotSupported);
    let features = store.probe().await.unwrap();
    assert!(!features.conditional_create && features.delete);
    assert_eq!(store.list("").await.unwrap(), []);
    let repo = crate::fixture::create(store.clone()).await;
    let contents = crate::fixture::contents(&[("a", "1")]);
    crate::fixture::publish(&repo, "first", &contents, None).await.unwrap();
    let opened = repository::Repository::open(store, &crate::fixture::passphrase()).await.unwrap();
    assert_eq!(crate::fixture::restore(&opened, "first").await.unwrap(), contents);
    let other = crate::fixture::contents(&[("a", "2")]);
    let error = crate::fixture::publish(&opened, "first", &other, None).await.unwrap_err();
    assert_eq!(error.kind(), repository::ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn s3_credentials_that_may_not_delete_are_found_out() {
    let server = S3Server::start_with(|request| match (request.method().as_str(), request.uri().query()) {
        ("DELETE", _) => Some((403, "<Error><Code>AccessDenied</Code></Error>")),
        // A deletion of many is answered with a success that tells of the refusal.
        ("POST", Some(query)) if query.starts_with("delete") => Some((200, "<DeleteResult/>")),
        _ => None,
    })
    .await;
    let store = server.config("").open(RetryPolicy::never()).unwrap();
    let features = store.probe().await.unwrap();
    assert!(features.conditional_create && !features.delete);
    assert_eq!(store.list("probes/").await.unwrap().len(), 1, "the probe stays");
}

#[tokio::test]
async fn an_object_that_its_medium_does_not_give_is_tried_a_few_times() {
    let faulty = Faulty::new(memory(), |_, _| Fault::Refused(StoreErrorKind::Unreadable));
    let error = faulty.store(EAGER).get("x", 1).await.unwrap_err();
    assert_eq!((error.kind, faulty.requests()), (StoreErrorKind::Unreadable, 3));
    assert_eq!(repository::Error::from(error).kind(), repository::ErrorKind::Damaged);
}

#[tokio::test]
async fn s3_errors_are_told_apart() {
    let server = S3Server::start().await;
    let wrong_key = server.config_with(crate::s3::BUCKET, "", "wrong").open(RetryPolicy::never()).unwrap();
    assert_eq!(wrong_key.list("").await.unwrap_err().kind, StoreErrorKind::AccessDenied);
    assert_eq!(wrong_key.put_new("x", Bytes::new()).await.unwrap_err().kind, StoreErrorKind::AccessDenied);
    let no_bucket = server.config_with("nowhere", "", "a secret of the tests").open(RetryPolicy::never()).unwrap();
    assert_eq!(no_bucket.list("").await.unwrap_err().kind, StoreErrorKind::NotFound);

    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let StoreConfig::S3(location) = server.config("") else { panic!("not S3") };
    let nobody = StoreConfig::S3(S3Location { endpoint: Some(format!("http://{address}")), ..location });
    let error = nobody.open(RetryPolicy::never()).unwrap().list("").await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn names_cannot_leave_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreConfig::FileSystem { path: folder.path().join("inner") }.open(RetryPolicy::never()).unwrap();
    for name in ["../x", "a/../../x", "/x", "a//x", "./x", "", "a/"] {
        assert_eq!(store.put_new(name, Bytes::new()).await.unwrap_err().kind, StoreErrorKind::Invalid, "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A signature is a part of the address that is asked, and addresses are a part of messages.
#[tokio::test]
async fn secrets_are_in_no_message() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secret = || Some(Secret::new("sig=b3BlbiBzZXNhbWU".to_owned()));
    let azure = AzureLocation {
        container: "c".to_owned(),
        account: "a".to_owned(),
        endpoint: Some(format!("http://{address}/a")),
        sas_token: secret(),
        ..AzureLocation::default()
    };
    let s3 = S3Location {
        bucket: "b".to_owned(),
        endpoint: Some(format!("http://{address}")),
        path_style: true,
        access_key_id: Some("id".to_owned()),
        secret_access_key: secret(),
        session_token: secret(),
        ..S3Location::default()
    };
    for config in [StoreConfig::Azure(azure), StoreConfig::S3(s3)] {
        let store = config.open(RetryPolicy::never()).unwrap();
        let errors = [
            store.list("").await.unwrap_err(),
            store.get("x", 1).await.unwrap_err(),
            store.put_new("x", Bytes::new()).await.unwrap_err(),
            store.locked_until("x").await.err().unwrap_or_else(|| store_is_silent(&config)),
        ];
        for error in errors {
            let text = format!("{error} {error:?} {config:?} {store:?}");
            assert!(!text.contains("b3BlbiBzZXNhbWU"), "{text}");
        }
    }
}

/// Stands for the error of a request that a store of this kind does not make.
fn store_is_silent(config: &StoreConfig) -> repository::StoreError {
    repository::StoreError::new(StoreErrorKind::NotSupported, "ask", format!("{config:?}"))
}
