//! etcd as a record store, while nothing goes wrong.

use crate::support::etcd::{Etcd, PASSWORD, PREFIX, USER, base64};
use crate::support::{VOLUME, record, until};
use records::etcd::{EtcdRecords, Password, Tls, User};
use records::form;
use replication::record::store::{RecordStore, SwapError, Version, Watch};
use replication::testing;
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the suite; each of its parts has keys of its own.
async fn suite(etcd: &Etcd) {
    let part = AtomicU32::new(0);
    let fresh = || {
        let mut config = etcd.config();
        config.prefix = format!("{PREFIX}{}/", part.fetch_add(1, Ordering::Relaxed));
        EtcdRecords::new(config).unwrap()
    };
    testing::record_store(fresh).await.unwrap_or_else(|what| panic!("{what}"));
    assert!(part.into_inner() >= 9);
}

#[tokio::test]
async fn etcd_passes_the_suite_of_record_stores() {
    sandbox::require_assets!("etcd");
    suite(&Etcd::start().await).await;
}

#[tokio::test]
async fn etcd_with_tls_and_a_password_passes_the_suite() {
    sandbox::require_assets!("etcd");
    suite(&Etcd::guarded().await).await;
}

#[tokio::test]
async fn a_record_is_json_that_a_person_can_read() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    etcd.records().swap(VOLUME, None, record(7)).await.unwrap();
    let key = format!("{PREFIX}0000000000000000000000000000001f");
    let answer = etcd.ask("kv/range", json!({"key": base64(&key)})).await;
    let expected = serde_json::to_string(&form::written(&record(7))).unwrap();
    assert_eq!(answer["kvs"][0]["value"], base64(&expected));
    assert!(expected.contains(r#""blocks":"7""#), "{expected}");
}

#[tokio::test]
async fn what_is_no_record_is_an_error_and_not_an_absence() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::start().await;
    let records = etcd.records();
    let key = base64(&format!("{PREFIX}{}", form::name(VOLUME)));
    let mut spec = form::written(&record(7));
    spec.in_sync = 1;
    for (value, says) in [("{}".to_owned(), "missing field"), (serde_json::to_string(&spec).unwrap(), "lists 2 of 2")] {
        etcd.ask("kv/put", json!({"key": key, "value": base64(&value)})).await;
        let error = records.get(VOLUME).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let error = records.watch(VOLUME).await.unwrap().next().await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_version_that_etcd_never_gave_is_a_conflict() {
    sandbox::require_assets!("etcd");
    let records = Etcd::start().await.records();
    for version in ["0", "-1", "", "x"] {
        let swapped = records.swap(VOLUME, Some(Version(version.into())), record(1)).await;
        assert_eq!(swapped, Err(SwapError::Conflict), "{version:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_an_unknown_authority_and_a_missing_right_say_what_they_are() {
    sandbox::require_assets!("etcd");
    let etcd = Etcd::guarded().await;
    let check = async |config, says: &str| {
        let records = EtcdRecords::new(config).unwrap();
        let error = records.get(VOLUME).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        let swapped = records.swap(VOLUME, None, record(1)).await;
        assert!(matches!(swapped, Err(SwapError::Unknown { .. })), "{swapped:?}");
    };
    let mut config = etcd.config();
    config.user = Some(User { name: USER.into(), password: Password::new("another".into()) });
    check(config, "give the user and the password that etcd knows").await;
    let mut config = etcd.config();
    config.user = None;
    check(config, "give the user and the password that etcd knows").await;
    let mut config = etcd.config();
    config.prefix = "/somewhere/else/".into();
    check(config, "grant the user the right").await;
    let mut config = etcd.config();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    config.tls = Some(Tls { authority: other.cert.pem(), identity: None });
    check(config, "certificate").await;
    assert_eq!(etcd.records().get(VOLUME).await, Ok(None));
}

#[tokio::test]
async fn a_token_that_is_not_valid_any_more_is_asked_for_again() {
    sandbox::require_assets!("etcd");
    let mut etcd = Etcd::guarded().await;
    let records = etcd.records();
    let first = records.swap(VOLUME, None, record(1)).await.unwrap();
    // Users that change make all tokens too old.
    etcd.ask_as_root("auth/user/changepw", json!({"name": "root", "password": PASSWORD})).await;
    let second = records.swap(VOLUME, Some(first), record(2)).await.unwrap();
    // Tokens are in its memory alone.
    etcd.kill();
    etcd.run().await;
    let mut watch = records.watch(VOLUME).await.unwrap();
    until(&mut watch, Some(2)).await;
    records.swap(VOLUME, Some(second), record(3)).await.unwrap();
    until(&mut watch, Some(3)).await;
}
