//! Stores that go wrong.
//!
//! The fault model: a request may fail before anything was done; its answer may be lost after everything was done; it may be
//! slow; a read may bring fewer bytes than asked for; from some moment on, nothing more is accepted (the writer crashed, as the
//! store sees it); and there may be no space. Not modelled: answers that lie, which is what damage is (`damage.rs`).

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use repository::store::{ObjectAccess, ObjectInfo};
use repository::{RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Retries without waiting, so that tests do not wait either.
pub(crate) const EAGER: RetryPolicy =
    RetryPolicy { attempts: 6, first_wait: Duration::ZERO, longest_wait: Duration::ZERO };

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It fails, and nothing was done.
    Refused(StoreErrorKind),
    /// It was done, and the answer is lost.
    AnswerLost,
    /// A read brings only half of the bytes.
    CutShort,
    /// It takes a while.
    Slow,
}

/// The kinds of requests that a plan tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Read,
    List,
    Delete,
}

type Plan = dyn Fn(u64, Request) -> Fault + Send + Sync;

/// A store to which faults happen as planned; the plan sees the number of the request, from zero.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Store,
    plan: Arc<Plan>,
    requests: Arc<AtomicU64>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

impl Faulty {
    pub(crate) fn new(inner: Store, plan: impl Fn(u64, Request) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), requests: Arc::default() }
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn store(&self, retry: RetryPolicy) -> Store {
        Store::new(self.clone(), "a faulty store", retry)
    }

    async fn strike<T>(
        &self,
        request: Request,
        name: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match (self.plan)(self.requests.fetch_add(1, Ordering::SeqCst), request) {
            Fault::Refused(kind) => Err(StoreError::new(kind, "ask for", name)),
            Fault::AnswerLost => {
                work.await?;
                Err(StoreError::new(StoreErrorKind::Unreachable, "hear about", name))
            }
            Fault::Slow => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                work.await
            }
            Fault::None | Fault::CutShort => work.await,
        }
    }
}

#[async_trait]
impl ObjectAccess for Faulty {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.strike(Request::Create, name, self.inner.put_new(name, bytes)).await
    }

    async fn get(&self, name: &str, limit: u64) -> Result<Bytes, StoreError> {
        self.strike(Request::Read, name, self.inner.get(name, limit)).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let number = self.requests.load(Ordering::SeqCst);
        let bytes = self.strike(Request::Read, name, self.inner.get_range(name, range)).await?;
        let cut = (self.plan)(number, Request::Read) == Fault::CutShort;
        Ok(if cut { bytes.slice(..bytes.len() / 2) } else { bytes })
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.strike(Request::Read, name, self.inner.head(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.strike(Request::List, prefix, self.inner.list(prefix)).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.strike(Request::Delete, name, self.inner.delete(name)).await
    }
}

/// A store in memory, empty.
pub(crate) fn memory() -> Store {
    StoreConfig::Memory.open(RetryPolicy::never()).unwrap()
}

/// A store whose objects a test can change behind the repository's back.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenBook {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    /// When each was created, by a clock that a test may set forward.
    times: Arc<Mutex<BTreeMap<String, Timestamp>>>,
    /// How much later than now that clock is.
    later: Arc<Mutex<SignedDuration>>,
    /// An object that is not given, and how that is said.
    withheld: Arc<Mutex<Option<(String, StoreErrorKind)>>>,
    /// Creates over what exists, and says nothing about it.
    overwrites: bool,
}

impl OpenBook {
    /// One that creates over what exists, as some S3 servers do.
    pub(crate) fn overwriting() -> Self {
        Self { overwrites: true, ..Self::default() }
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.clone(), "an open book", RetryPolicy::never())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    /// Answers every request for an object with an error; an empty name stands for all objects.
    pub(crate) fn withhold(&self, name: &str, kind: StoreErrorKind) {
        *self.withheld.lock().unwrap() = Some((name.to_owned(), kind));
    }

    fn ask_for(&self, name: &str) -> Result<Bytes, StoreError> {
        match &*self.withheld.lock().unwrap() {
            Some((withheld, kind)) if withheld.is_empty() || withheld == name => {
                Err(StoreError::new(*kind, "ask for", name))
            }
            _ => self.read(name).ok_or_else(|| not_found(name)),
        }
    }

    /// Lets time pass, as the store sees it.
    pub(crate) fn pass(&self, time: SignedDuration) {
        *self.later.lock().unwrap() += time;
    }

    pub(crate) fn read(&self, name: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(name).cloned()
    }

    /// Puts other bytes in an object's place; none takes the object away. Gives what was there.
    pub(crate) fn swap(&self, name: &str, bytes: Option<Bytes>) -> Option<Bytes> {
        let mut objects = self.objects.lock().unwrap();
        match bytes {
            Some(bytes) => objects.insert(name.to_owned(), bytes),
            None => objects.remove(name),
        }
    }
}

fn not_found(name: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, "find", name)
}

#[async_trait]
impl ObjectAccess for OpenBook {
    async fn put_new(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let mut objects = self.objects.lock().unwrap();
        if objects.contains_key(name) && !self.overwrites {
            return Err(StoreError::new(StoreErrorKind::AlreadyExists, "create", name));
        }
        objects.insert(name.to_owned(), bytes);
        self.times.lock().unwrap().insert(name.to_owned(), Timestamp::now() + *self.later.lock().unwrap());
        Ok(())
    }

    async fn get(&self, name: &str, _limit: u64) -> Result<Bytes, StoreError> {
        self.ask_for(name)
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.ask_for(name)?;
        let len = bytes.len();
        let clamp = |end: u64| usize::try_from(end).unwrap().min(len);
        Ok(bytes.slice(clamp(range.start)..clamp(range.end)))
    }

    async fn head(&self, name: &str) -> Result<u64, StoreError> {
        self.ask_for(name).map(|bytes| bytes.len() as u64)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.objects.lock().unwrap();
        let times = self.times.lock().unwrap();
        let info = |(name, bytes): (&String, &Bytes)| {
            let modified = times.get(name).copied();
            ObjectInfo { name: name.clone(), size: bytes.len() as u64, modified }
        };
        Ok(objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(info).collect())
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.swap(name, None).map(drop).ok_or_else(|| not_found(name))
    }
}
