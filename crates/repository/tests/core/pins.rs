//! Tags and pins.

use crate::faults::{EAGER, Fault, Faulty, OpenBook, Request, memory};
use crate::fixture::{self, contents, point_id};
use bytes::Bytes;
use jiff::Timestamp;
use repository::check::{CheckOptions, check};
use repository::{ErrorKind, NoProgress, Repository, Tags};

fn now() -> Timestamp {
    "2026-11-25T10:00:00Z".parse().unwrap()
}

const PIN: &str = "domains/default/pins/one";

#[tokio::test]
async fn a_pinned_point_is_not_forgotten() {
    let repo = fixture::create(memory()).await;
    let ours = contents(&[("a", "1")]);
    fixture::publish(&repo, "one", &ours, None).await.unwrap();
    let pin = repo.pin(&point_id("one"), "audit 2026", now()).await.unwrap();
    let error = repo.forget(&point_id("one")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Pinned, false));
    assert_eq!(error.to_string(), "recovery point one is pinned: audit 2026");
    assert_eq!(fixture::restore(&repo, "one").await.unwrap(), ours);
    // The same reason again is no failure; another one is, and changes nothing.
    let later = Timestamp::from_second(now().as_second() + 5).unwrap();
    assert_eq!(repo.pin(&point_id("one"), "audit 2026", later).await.unwrap(), pin);
    assert_eq!(repo.pin(&point_id("one"), "another", later).await.unwrap_err().kind(), ErrorKind::Pinned);
    let pins = repo.pins().await.unwrap();
    assert_eq!((pins.len(), pins[&point_id("one")].as_ref().unwrap()), (1, &pin));

    assert!(repo.unpin(&point_id("one")).await.unwrap());
    assert!(!repo.unpin(&point_id("one")).await.unwrap());
    repo.forget(&point_id("one")).await.unwrap();
    assert!(repo.pins().await.unwrap().is_empty());
}

#[tokio::test]
async fn only_what_is_there_can_be_pinned_with_a_reason() {
    let store = memory();
    let repo = fixture::create(store.clone()).await;
    assert_eq!(repo.pin(&point_id("one"), "why", now()).await.unwrap_err().kind(), ErrorKind::NotFound);
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    for reason in ["", "two\nlines", &"x".repeat(repository::MAX_REASON_LEN + 1)] {
        assert_eq!(repo.pin(&point_id("one"), reason, now()).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(store.list("domains/default/pins/").await.unwrap(), []);
}

/// The point goes while the pin is made: that is said, and the pin goes too.
#[tokio::test]
async fn a_point_that_goes_while_it_is_pinned_is_said_to_be_gone() {
    let inner = memory();
    let repo = fixture::create(inner.clone()).await;
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    let other = repo.clone();
    // Another process forgets it between the look and the pin: the answer to the pin's creation comes after that.
    let inner_of_plan = inner.clone();
    let faulty = Faulty::new(inner.clone(), move |_, request| {
        if request == Request::Create {
            let store = inner_of_plan.clone();
            futures::executor::block_on(async move { store.delete("domains/default/points/one").await.unwrap() });
        }
        Fault::None
    });
    let pinning = Repository::open(faulty.store(EAGER), &fixture::passphrase()).await.unwrap();
    assert_eq!(pinning.pin(&point_id("one"), "why", now()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(other.pins().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_pin_still_pins_and_is_found() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    repo.pin(&point_id("one"), "why", now()).await.unwrap();
    let good = book.read(PIN).unwrap();
    for position in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[position] ^= 1;
        book.swap(PIN, Some(Bytes::from(bytes)));
        let error = repo.forget(&point_id("one")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Pinned, "byte {position}");
        assert!(repo.pins().await.unwrap()[&point_id("one")].is_err());
    }
    let mut findings = Vec::new();
    let mut note = |finding| findings.push(finding);
    check(&repo, CheckOptions::default(), &NoProgress, &mut note).await.unwrap();
    assert_eq!(findings.iter().map(|f| (f.object.as_str(), f.points.len())).collect::<Vec<_>>(), [(PIN, 0)]);
    // A pin under the name of another point is damage too.
    book.swap("domains/default/pins/two", Some(good.clone()));
    assert!(repo.pins().await.unwrap()[&point_id("two")].is_err());
    assert!(repo.unpin(&point_id("two")).await.unwrap());
    book.swap(PIN, Some(good));
    let mut findings = Vec::new();
    check(&repo, CheckOptions { read_data: true }, &NoProgress, &mut |finding| findings.push(finding)).await.unwrap();
    assert_eq!(findings, []);
}

#[tokio::test]
async fn a_point_that_is_damaged_can_be_pinned() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    book.swap("domains/default/points/one", Some(Bytes::from_static(b"ORLOPPNT")));
    repo.pin(&point_id("one"), "it is being repaired", now()).await.unwrap();
    assert_eq!(repo.forget(&point_id("one")).await.unwrap_err().kind(), ErrorKind::Pinned);
}

/// A store that does not answer about the pin does not give the point free.
#[tokio::test]
async fn without_an_answer_about_the_pin_nothing_is_forgotten() {
    let book = OpenBook::default();
    let repo = fixture::create(book.store()).await;
    fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    book.withhold(PIN, repository::StoreErrorKind::AccessDenied);
    assert_eq!(repo.forget(&point_id("one")).await.unwrap_err().kind(), ErrorKind::AccessDenied);
    assert!(book.read("domains/default/points/one").is_some());
}

#[tokio::test]
async fn tags_come_back() {
    let repo = fixture::create(memory()).await;
    let tags = Tags::new(["b".parse().unwrap(), "a".parse().unwrap()]).unwrap();
    let stored = fixture::publish(&repo, "one", &contents(&[("a", "1")]), None).await.unwrap();
    let session = repo.point(&point_id("one")).await.unwrap().sessions[0];
    let mut point = fixture::point_of("two", stored.table, session, Vec::new());
    point.tags = tags.clone();
    repo.publish(&point).await.unwrap();
    assert!(repo.point(&point_id("one")).await.unwrap().tags.is_empty());
    assert_eq!(repo.point(&point_id("two")).await.unwrap().tags, tags);
}
