//! A writer that crashes: the store accepts nothing more from some request on.
//!
//! Whatever the request was, the repository can be opened, what was published is whole, what was not is invisible, and the
//! next run succeeds.

use crate::faults::{Fault, Faulty, memory};
use crate::fixture::{self, Contents, contents, passphrase};
use repository::check::{CheckOptions, check};
use repository::{NoProgress, Repository, RetryPolicy, Store, StoreErrorKind};

fn first() -> Contents {
    contents(&[("kept", "from the first run"), ("gone", "only in the first run")])
}

fn second() -> Contents {
    contents(&[("kept", "from the first run"), ("new", "from the second run")])
}

/// Opens the repository, and writes both recovery points in sessions of their own.
async fn run(store: Store) -> repository::Result<()> {
    let repo = Repository::open(store, &passphrase()).await?;
    let stored = fixture::publish(&repo, "first", &first(), None).await?;
    fixture::publish(&repo, "second", &second(), Some(&stored)).await?;
    Ok(())
}

async fn is_sound(store: &Store, cut: u64) {
    let repo = Repository::open(store.clone(), &passphrase()).await.unwrap();
    for entry in repo.points().await.unwrap() {
        let expected = if entry.id.as_str() == "first" { first() } else { second() };
        assert_eq!(fixture::restore(&repo, entry.id.as_str()).await.unwrap(), expected, "cut at {cut}");
    }
    let mut on_finding = |finding| panic!("cut at {cut}: {finding:?}");
    check(&repo, CheckOptions { read_data: true }, &NoProgress, &mut on_finding).await.unwrap();
    fixture::publish(&repo, "next", &second(), None).await.unwrap();
    assert_eq!(fixture::restore(&repo, "next").await.unwrap(), second(), "cut at {cut}");
}

/// `fault` is what the request at the cut gets; everything after it is refused.
async fn crash_everywhere(fault: Fault) {
    let inner = memory();
    fixture::create(inner.clone()).await;
    let whole = Faulty::new(inner, |_, _| Fault::None);
    run(whole.store(RetryPolicy::never())).await.unwrap();
    let (mut published, requests) = (Vec::new(), whole.requests());
    for cut in 0..requests {
        let inner = memory();
        fixture::create(inner.clone()).await;
        let crashing = Faulty::new(inner.clone(), move |number, _| match number.cmp(&cut) {
            std::cmp::Ordering::Less => Fault::None,
            std::cmp::Ordering::Equal => fault,
            std::cmp::Ordering::Greater => Fault::Refused(StoreErrorKind::Unreachable),
        });
        run(crashing.store(RetryPolicy::never())).await.unwrap_err();
        published.push(inner.list("domains/default/points/").await.unwrap().len());
        is_sound(&inner, cut).await;
    }
    // The cuts went through all stages: before the first point, between the two, and up to the last.
    assert!(published.is_sorted() && published[0] == 0 && published.contains(&1), "{published:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_any_request_leaves_a_sound_repository() {
    crash_everywhere(Fault::Refused(StoreErrorKind::Unreachable)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_any_request_leaves_a_sound_repository() {
    crash_everywhere(Fault::AnswerLost).await;
}
