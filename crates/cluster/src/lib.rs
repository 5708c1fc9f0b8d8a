//! Replicated volumes in Kubernetes.
//!
//! ```text
//! CSI driver ─► Volumes ─► Volume (what is wanted) ◄──── controller: places replicas, follows dead nodes, deletes
//!                  │                                          │
//!                  │ attach                                   ▼
//!                  ▼                         VolumeRecord (what is so: epoch, attached, who is in sync)
//!             node::Node ◄─── agent ◄──────────────┘ ▲
//!                  └─────────── attachments ─────────┘ compare-and-swap
//!
//! agent ─► StorageNode (address, pools), Lease (it lives)
//! ```
//! Who decides what:
//!
//! * The **record** alone says who may serve a volume and which replicas are in sync. It is changed by compare-and-swap: by the attachment of the volume, and by
//!   the controller, which adds and retires members and never says that one is in sync.
//! * The **controller** ([`controller`]), one in a cluster, decides where replicas are. It is not in any path of data: while it is away, volumes are served,
//!   attached and taken over.
//! * The **agent** ([`Agent`]) of each node makes the replicas that records name for it, and removes those that they do not name any more.
//! * The **monitor** ([`monitor`]) says of which nodes the storage is offline, and deletes pods there that can go on elsewhere. Nothing of data hangs on it.
//! * **Whether a volume may be taken from another node** is decided where it is wanted, by one rule: [`takeover`].
//!
//! What is *absent*: the protocol (`replication`), data, and a second copy of what the record says: statuses are for people.

mod address_book;
mod agent;
pub mod certificates;
mod claims;
pub mod controller;
mod error;
pub mod heartbeat;
pub mod monitor;
mod placed;
pub mod takeover;
mod times;
mod volumes;

pub use address_book::AddressBook;
pub use agent::{Agent, Config as AgentConfig, watched};
pub use claims::claims;
pub use error::Error;
pub use placed::id as volume_id;
pub use times::Times;
pub use volumes::InCluster;

/// Waits until storage is installed: there is its namespace. The right to watch what is in it comes with it.
pub(crate) async fn wait_for_storage(client: &kube::Client, times: &Times) {
    let api: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client.clone());
    let is_there = async || {
        let found = api.get_opt(api::STORAGE_NAMESPACE);
        error::ask(times.request, || "look for the namespace".into(), found).await.is_ok_and(|found| found.is_some())
    };
    while !is_there().await {
        tokio::time::sleep(times.look).await;
    }
}
