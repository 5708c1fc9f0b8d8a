//! What an application is in Kubernetes: finding its objects, capturing them, and putting them into a cluster again.
//!
//! ```text
//! backup:   discover → Selection → Capture ─┬→ objects (for_storage) → table of objects
//!                                           └→ outcomes             → ledger
//! restore:  table of objects → Wave → for_restore → Mapping → transform → Applier → outcomes
//! ```
//!
//! Decisions are pure functions over JSON ([`rules`], [`clean`], [`order`], [`Mapping`], what an [`Applier`] does about an
//! object that exists); only [`discover()`], [`Capture`], [`Applier`], [`Foresight`], [`Trial`] and [`readiness::look`] talk to a cluster. Nothing here knows of repositories,
//! volumes or custom resources of Orlop.

mod absent;
mod access;
pub mod apply;
pub mod canonical;
pub mod capture;
pub mod catalog;
pub mod clean;
mod decide;
mod discover;
mod failure;
mod foresight;
pub mod gitops;
mod json;
mod key;
mod ledger;
mod list;
pub mod mapping;
mod needs;
pub mod order;
mod owners;
mod pods;
pub mod readiness;
mod retry;
mod roles;
pub mod rules;
pub mod selection;
mod status;
mod tasks;
mod transform;
mod trial;
pub mod versions;

pub use apply::{Applied, Applier};
pub use capture::{Capture, CaptureError, Captured, Found};
pub use catalog::ApiCatalog;
pub use clean::RestoreOptions;
pub use decide::ReplacePolicy;
pub use discover::discover;
pub use failure::Failure;
pub use foresight::{Change, Foreseen, Foresight, Will};
pub use key::{BadKey, Nameless, ObjectKey};
pub use ledger::{BadEntry, LedgerEntry, LedgerSummary, Outcome};
pub use mapping::{Loss, Mapping, MappingError};
pub use order::Wave;
pub use retry::Patience;
pub use rules::Rule;
pub use selection::{ObjectFilter, Selection, SelectionError};
pub use status::StatusWritten;
pub use transform::{Edit, Op, Transform, Transformed, transform};
pub use trial::Trial;
