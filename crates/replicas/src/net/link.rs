//! From an attachment to a replica on another node.

use super::Closed;
use super::limits::{Limits, STRIPE_BLOCKS};
use super::outbox::Outbox;
use super::stream::{Incoming, Outgoing, Stream, prepare, split};
use super::tls::{Security, name_of};
use crate::replica::Answers;
use replication::message::{Body, Request};
use replication::units::{AttachmentId, NodeId, ReplicaId, VolumeId};
use replication::wire::{ClusterId, Hello, Message, NEWEST, OLDEST};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Knows where nodes serve their replicas.
pub trait Addresses: Send + Sync + 'static {
    /// Asked before each connection is made, so it may change; nothing as long as it is not known.
    fn of(&self, node: &NodeId) -> Option<SocketAddr>;
}

/// What all links of a node have in common.
#[derive(Clone)]
pub struct Network {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// How connections are protected.
    pub security: Security,
    /// Where the others are.
    pub addresses: Arc<dyn Addresses>,
    /// How much of anything there may be.
    pub limits: Limits,
}

impl Network {
    /// Whether the daemon of a node can be talked to: it has answered as who it is, before `limits.handshake` was over. (In clear, that something listens there.)
    pub async fn reaches(&self, node: &NodeId) -> bool {
        let opened = tokio::time::timeout(self.limits.handshake, self.open(node)).await;
        matches!(opened, Ok(Ok(_)))
    }

    /// Connects to a node, and makes sure that it is this one.
    async fn open(&self, node: &NodeId) -> Result<Stream, Closed> {
        let address = self.addresses.of(node).ok_or_else(|| Closed::NoAddress(node.clone()))?;
        if !self.security.allows(address) {
            let text = format!("{address} is reached over a network, and nothing would be encrypted");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
        }
        let stream = TcpStream::connect(address).await?;
        prepare(&stream, &self.limits)?;
        let Security::Tls(tls) = &self.security else { return Ok(Box::new(stream)) };
        let invalid =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("{node} has no name that certificates have"));
        let name = name_of(node).ok_or_else(invalid)?;
        Ok(Box::new(tls.connector().connect(name, stream).await?))
    }

    /// Connects to a replica, and agrees on a version.
    pub(super) async fn greet(&self, ends: &Ends) -> Result<(Incoming, Outgoing, u16), Closed> {
        let Ends { volume, attachment, replica, node } = ends.clone();
        let (mut incoming, mut outgoing) = split(self.open(&node).await?);
        let (cluster, me) = (self.cluster, self.node.clone());
        let hello = Hello { oldest: OLDEST, newest: NEWEST, cluster, volume, replica, attachment, node: me };
        outgoing.send_one(&Message::Hello(hello), NEWEST).await?;
        match incoming.message().await? {
            Message::Welcome(welcome) if (OLDEST..=NEWEST).contains(&welcome.version) => {
                incoming.frames.agreed(welcome.version);
                Ok((incoming, outgoing, welcome.version))
            }
            Message::Welcome(_) => Err(Closed::Unexpected("a version that was not offered")),
            Message::Farewell(farewell) => Err(Closed::Refused(farewell)),
            _ => Err(Closed::Unexpected("what is no welcome")),
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({}, {:?}, {:?})", self.node, self.security, self.limits)
    }
}

/// Whose messages a link carries, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) volume: VolumeId,
    pub(crate) attachment: AttachmentId,
    pub(crate) replica: ReplicaId,
    pub(crate) node: NodeId,
}

/// Several connections to one replica, each made again when it breaks. They end with this.
pub(crate) struct Link {
    control: Arc<Outbox>,
    data: Vec<Arc<Outbox>>,
    _stop: DropGuard,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn start(network: &Network, ends: Ends, answers: &Arc<dyn Answers>, runtime: &Handle) -> Self {
        let stop = CancellationToken::new();
        let start = || {
            let outbox = Arc::new(Outbox::new(&network.limits));
            let channel = Channel {
                network: network.clone(),
                ends: ends.clone(),
                outbox: outbox.clone(),
                answers: answers.clone(),
            };
            let stop = stop.clone();
            runtime.spawn(async move { stop.run_until_cancelled(channel.run()).await });
            outbox
        };
        let control = start();
        let data = (0..network.limits.data_connections.max(1)).map(|_| start()).collect();
        Self { control, data, _stop: stop.drop_guard() }
    }

    /// Sends a request, if it can be. What belongs to the same blocks takes the same way, so that it arrives in its order; what leases need never waits behind blocks.
    pub(crate) fn send(&self, request: Request) {
        let outbox = match &request.body {
            Body::Write { blocks, .. } | Body::Discard { blocks } | Body::Read { blocks } | Body::Digest { blocks } => {
                let stripe = blocks.start / STRIPE_BLOCKS;
                // Pieces that are copied begin at every fourth stripe; without the second term they would all take one way.
                let way = (stripe + stripe / 4) % self.data.len() as u64;
                usize::try_from(way).ok().and_then(|way| self.data.get(way)).unwrap_or(&self.control)
            }
            Body::Seal
            | Body::Renew
            | Body::Flush
            | Body::Confirm
            | Body::Changed { .. }
            | Body::Snapshot { .. }
            | Body::Grow { .. } => &self.control,
        };
        outbox.put(Message::Request(request), None);
    }

    /// Bytes that were sent on all its connections.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.data.iter().chain([&self.control]).map(|outbox| outbox.sent_bytes()).sum()
    }
}

/// One connection of a link.
struct Channel {
    network: Network,
    ends: Ends,
    outbox: Arc<Outbox>,
    answers: Arc<dyn Answers>,
}

impl Channel {
    /// Connects for as long as the link is there.
    async fn run(self) {
        let (first, last) = self.network.limits.backoff;
        let mut pause = first;
        loop {
            let connected = tokio::time::timeout(self.network.limits.handshake, self.network.greet(&self.ends)).await;
            let closed = match connected.unwrap_or(Err(Closed::Slow("connecting"))) {
                Ok((incoming, outgoing, version)) => {
                    pause = first;
                    self.exchange(incoming, outgoing, version).await
                }
                Err(closed) => Err(closed),
            };
            // What waits is asked again by whoever wants it, in a form that fits the time.
            self.outbox.clear();
            if let Err(error) = closed {
                let Ends { replica, node, .. } = &self.ends;
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%replica, %node, error, "a connection has ended, and is made again");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(last);
        }
    }

    async fn exchange(&self, incoming: Incoming, mut outgoing: Outgoing, version: u16) -> Result<(), Closed> {
        tokio::select! {
            // What follows from the answers is sent at once.
            biased;
            closed = self.take_answers(incoming) => closed,
            closed = self.outbox.send_all(&mut outgoing, version) => closed,
        }
    }

    async fn take_answers(&self, mut incoming: Incoming) -> Result<(), Closed> {
        loop {
            let mut answers = Vec::new();
            while let Some(message) = incoming.frames.next_message()? {
                match message {
                    Message::Answer(answer) if answer.attachment == self.ends.attachment => answers.push(answer),
                    Message::Answer(_) => return Err(Closed::Unexpected("an answer to another attachment")),
                    Message::Farewell(farewell) => return Err(Closed::Refused(farewell)),
                    _ => return Err(Closed::Unexpected("what is no answer")),
                }
            }
            if !answers.is_empty() {
                self.answers.answer_all(self.ends.replica, answers);
            }
            incoming.more().await?;
        }
    }
}
