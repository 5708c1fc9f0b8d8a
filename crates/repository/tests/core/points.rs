//! Publishing, listing and forgetting recovery points.

use crate::faults::{EAGER, Fault, Faulty, OpenBook, Request, memory};
use crate::fixture::{self, contents, point_id};
use bytes::Bytes;
use repository::{ErrorKind, Repository, SessionId, WriterId};

#[tokio::test]
async fn what_is_published_comes_back() {
    let repo = fixture::create(memory()).await;
    let ours = contents(&[("a", "first"), ("b", "second")]);
    let stored = fixture::publish(&repo, "one", &ours, None).await.unwrap();
    let point = repo.point(&point_id("one")).await.unwrap();
    assert_eq!(point.root("/srv").unwrap().table, stored.table);
    assert_eq!(fixture::restore(&repo, "one").await.unwrap(), ours);
    let missing = repo.point(&point_id("two")).await.unwrap_err();
    assert_eq!(
        (missing.kind(), missing.to_string()),
        (ErrorKind::NotFound, "there is no recovery point two".to_owned())
    );
}

#[tokio::test]
async fn publishing_the_same_again_is_fine_and_another_is_refused() {
    let repo = fixture::create(memory()).await;
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    let point = repo.point(&point_id("one")).await.unwrap();
    repo.publish(&point).await.unwrap();
    let other = repository::RecoveryPoint { complete: false, ..point.clone() };
    assert_eq!(repo.publish(&other).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(repo.point(&point_id("one")).await.unwrap(), point);
}

#[tokio::test]
async fn sessions_that_others_name_are_told_from_those_of_another_point() {
    let repo = fixture::create(memory()).await;
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    let one = repo.point(&point_id("one")).await.unwrap();
    assert!(!one.packs.is_empty());
    repo.verify_sessions(&one.id, &one.sessions, &one.packs).await.unwrap();
    repo.verify_sessions(&one.id, &[], &[]).await.unwrap();
    let unknown = SessionId { epoch: 1, writer: WriterId([9; 12]) };
    for (id, sessions, packs, said) in [
        ("two", &one.sessions[..], &one.packs[..], "is of the recovery point one, and not of two"),
        ("one", &[unknown], &[], "sessions/"),
        ("one", &[], &one.packs[..], "is of none of the sessions"),
    ] {
        let error = repo.verify_sessions(&point_id(id), sessions, packs).await.unwrap_err();
        assert!(error.to_string().contains(said) && !error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn a_lost_answer_to_publishing_is_no_failure() {
    let inner = memory();
    fixture::create(inner.clone()).await;
    // Not all of them: a session begins only when its creation is answered.
    let faulty = Faulty::new(inner, |number, request| match request {
        Request::Create if number % 3 != 0 => Fault::AnswerLost,
        _ => Fault::None,
    });
    let repo = Repository::open(faulty.store(EAGER), &fixture::passphrase()).await.unwrap();
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    assert_eq!(fixture::restore(&repo, "one").await.unwrap(), contents(&[("a", "1")]));
}

#[tokio::test]
async fn a_damaged_point_does_not_hide_the_others() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    for name in ["a", "b", "c"] {
        fixture::publish(&repo, name, &contents(&[("x", name)]), None).await.unwrap();
    }
    book.swap("domains/default/points/b", Some(Bytes::from_static(b"ORLOPPNT is not enough")));
    book.swap("domains/default/points/NOT-OURS", Some(Bytes::new()));
    let points = repo.points().await.unwrap();
    let told: Vec<_> = points.iter().map(|entry| (entry.id.as_str(), entry.point.is_ok())).collect();
    assert_eq!(told, [("a", true), ("b", false), ("c", true)]);
    assert_eq!(points[1].point.as_ref().unwrap_err().kind(), ErrorKind::Damaged);
}

/// A document that was moved to another name is not that recovery point.
#[tokio::test]
async fn a_point_counts_only_under_its_own_name() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "a", &contents(&[("x", "1")]), None).await.unwrap();
    book.swap("domains/default/points/b", book.read("domains/default/points/a"));
    assert_eq!(repo.point(&point_id("b")).await.unwrap_err().kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn forgetting_removes_the_point_and_nothing_else() {
    let store = memory();
    let repo = fixture::create(store.clone()).await;
    let first = fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    fixture::publish(&repo, "two", &contents(&[("a", "1"), ("b", "2")]), Some(&first)).await.unwrap();
    let packs = store.list("domains/default/packs/").await.unwrap();
    repo.forget(&point_id("one")).await.unwrap();
    repo.forget(&point_id("one")).await.unwrap();
    assert_eq!(repo.point(&point_id("one")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.list("domains/default/packs/").await.unwrap(), packs);
    assert_eq!(fixture::restore(&repo, "two").await.unwrap(), contents(&[("a", "1"), ("b", "2")]));
}

/// The document as version 1 has it; a change to it is a change of the format.
#[test]
fn the_document_keeps_its_form() {
    let frozen = include_str!("point-v1.json").trim_end();
    let point: repository::RecoveryPoint = serde_json::from_str(frozen).unwrap();
    let written = repository::canonical_json::to_bytes(&point).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), frozen);
    let unknown = frozen.replacen("{", "{\"novelty\":1,", 1);
    assert!(serde_json::from_str::<repository::RecoveryPoint>(&unknown).is_err(), "an unknown field was ignored");
}
