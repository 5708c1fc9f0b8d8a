//! One suite of rules that every store keeps.

use crate::faults::{EAGER, Fault, Faulty, OpenBook, Request, memory};
use crate::s3::S3Server;
use bytes::Bytes;
use repository::{RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind};

/// Decides by the number and the kind of a request.
type Plan = fn(u64, Request) -> Fault;

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}

fn a_day_ago() -> jiff::Timestamp {
    jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24)
}

/// The rules. They hold for the store as its users see it, with retries.
async fn conforms(store: Store) {
    let long = Bytes::from(vec![7; 300_000]);

    store.put_new("folder/a", Bytes::from_static(b"first")).await.unwrap();
    store.put_new("folder/deep/b", long.clone()).await.unwrap();
    store.put_new("folder2/c", Bytes::new()).await.unwrap();

    // Nothing is overwritten, neither by the same nor by other bytes of the same length.
    assert_eq!(kind(store.put_new("folder/a", Bytes::from_static(b"other")).await), StoreErrorKind::AlreadyExists);
    assert_eq!(store.get("folder/a", 5).await.unwrap(), "first");

    assert_eq!(kind(store.get("folder/a", 4).await), StoreErrorKind::TooLarge);
    assert_eq!(store.get_range("folder/a", 1..3).await.unwrap(), "ir");
    assert_eq!(store.get_range("folder/deep/b", 0..300_000).await.unwrap(), long);
    assert_eq!(kind(store.get_range("folder/a", 3..6).await), StoreErrorKind::TooShort);
    assert_eq!(kind(store.get_range("folder/a", 5..6).await), StoreErrorKind::TooShort);
    assert_eq!(kind(store.get_range("folder/a", 100..106).await), StoreErrorKind::TooShort);
    assert_eq!(store.head("folder/deep/b").await.unwrap(), 300_000);
    assert_eq!(store.head("folder2/c").await.unwrap(), 0);

    for name in ["folder/x", "nowhere/x", "folder/a/x"] {
        assert_eq!(kind(store.get(name, 9).await), StoreErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.get_range(name, 0..1).await), StoreErrorKind::NotFound, "{name}");
        assert_eq!(store.head(name).await.unwrap_err().kind, StoreErrorKind::NotFound, "{name}");
    }

    let info = |name: &str, size| (name.to_owned(), size);
    let list = async |folder: &str| -> Vec<(String, u64)> {
        store.list(folder).await.unwrap().into_iter().map(|object| (object.name, object.size)).collect()
    };
    let (a, b, c) = (info("folder/a", 5), info("folder/deep/b", 300_000), info("folder2/c", 0));
    assert_eq!(list("").await, [a.clone(), b.clone(), c]);
    assert_eq!(list("folder/").await, [a, b]);
    assert_eq!(list("nowhere/").await, []);
    assert!(store.list("").await.unwrap().iter().all(|object| object.modified.is_some_and(|time| time > a_day_ago())));

    store.delete("folder/a").await.unwrap();
    store.delete("folder/a").await.unwrap();
    assert_eq!(kind(store.get("folder/a", 9).await), StoreErrorKind::NotFound);
    store.put_new("folder/a", Bytes::from_static(b"again")).await.unwrap();

    let features = store.probe().await.unwrap();
    assert!(features.conditional_create && features.delete);
    assert_eq!(store.list("probes/").await.unwrap(), []);
}

#[tokio::test]
async fn memory_conforms() {
    conforms(memory()).await;
}

#[tokio::test]
async fn a_file_system_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/yet/there");
    conforms(StoreConfig::FileSystem { path: path.clone() }.open(RetryPolicy::never()).unwrap()).await;
    assert_eq!(std::fs::read_dir(path.join("unfinished")).unwrap().count(), 0, "an unfinished file stayed behind");
}

#[tokio::test]
async fn s3_conforms_with_and_without_a_prefix() {
    let server = S3Server::start().await;
    conforms(server.config("").open(RetryPolicy::never()).unwrap()).await;
    let server = S3Server::start().await;
    let store = server.config("team/backups").open(RetryPolicy::never()).unwrap();
    conforms(store.clone()).await;
    let whole = server.config("").open(RetryPolicy::never()).unwrap();
    assert!(whole.list("").await.unwrap().iter().all(|object| object.name.starts_with("team/backups/")));
}

#[tokio::test]
async fn stores_with_passing_faults_conform() {
    let plans: [(&str, Plan); 6] = [
        ("every other request fails", |number, _| {
            if number % 2 == 0 { Fault::Refused(StoreErrorKind::Unreachable) } else { Fault::None }
        }),
        ("every other answer is lost", |number, request| match request {
            Request::Delete => Fault::None,
            _ if number % 2 == 0 => Fault::AnswerLost,
            _ => Fault::None,
        }),
        ("two of three answers to creations are lost", |number, request| {
            if request == Request::Create && number % 3 != 0 { Fault::AnswerLost } else { Fault::None }
        }),
        ("every other answer to a deletion is lost", |number, request| {
            if request == Request::Delete && number % 2 == 0 { Fault::AnswerLost } else { Fault::None }
        }),
        ("reads are cut short now and then", |number, request| {
            if request == Request::Read && number % 3 == 0 { Fault::CutShort } else { Fault::None }
        }),
        ("every request is slow", |_, _| Fault::Slow),
    ];
    for (name, plan) in plans {
        println!("{name}");
        conforms(Faulty::new(memory(), plan).store(EAGER)).await;
    }
}

#[tokio::test]
async fn retries_end() {
    let faulty = Faulty::new(memory(), |_, _| Fault::Refused(StoreErrorKind::Unreachable));
    let error = faulty.store(EAGER).get("x", 1).await.unwrap_err();
    assert_eq!((error.kind, faulty.requests()), (StoreErrorKind::Unreachable, u64::from(EAGER.attempts)));
}

#[tokio::test]
async fn final_errors_are_not_repeated() {
    for kind in [StoreErrorKind::AccessDenied, StoreErrorKind::NoSpace, StoreErrorKind::Invalid] {
        let faulty = Faulty::new(memory(), move |_, _| Fault::Refused(kind));
        let error = faulty.store(EAGER).put_new("x", Bytes::new()).await.unwrap_err();
        assert_eq!((error.kind, faulty.requests()), (kind, 1));
    }
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
    let StoreConfig::S3 { bucket, prefix, region, path_style, access_key_id, secret_access_key, .. } =
        server.config("")
    else {
        panic!("not S3");
    };
    let nobody = StoreConfig::S3 {
        bucket,
        prefix,
        region,
        path_style,
        access_key_id,
        secret_access_key,
        endpoint: Some(format!("http://{address}")),
        session_token: None,
        ca_pem: None,
    };
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
