//! The server of a node's replicas.

use super::limits::Limits;
use super::outbox::Outbox;
use super::stream::{Incoming, Outgoing, Stream, prepare, split};
use super::tls::{Security, is_of};
use super::{Closed, ServeError};
use crate::replica::{Answers, Asker, Held, Replica, Replicas};
use replication::message::{Answer, Body, Request};
use replication::units::ReplicaId;
use replication::wire::{BLOCK, ClusterId, Farewell, Hello, MOST_DATA, Message, NEWEST, Welcome, agree};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Bytes that one permit of a connection's room stands for.
const UNIT: u32 = 4096;
/// How long accepting pauses when the system refuses a connection, because there are no more files for instance: long enough to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a peer may take to accept why he is refused.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves replicas to the attachments of other nodes.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    replicas: Arc<Replicas>,
    security: Security,
    limits: Limits,
    /// For connections that are not welcomed yet. Each has one of these, or a place.
    greetings: Arc<Semaphore>,
    places: Semaphore,
}

impl Server {
    /// Listens on an address; port 0 is any that is free.
    ///
    /// # Errors
    /// It cannot be listened on, or not in clear.
    pub async fn bind(
        address: SocketAddr,
        cluster: ClusterId,
        replicas: Arc<Replicas>,
        security: Security,
        limits: Limits,
    ) -> Result<Self, ServeError> {
        if !security.allows(address) {
            return Err(ServeError::Clear { address });
        }
        if usize::try_from(limits.bytes).is_ok_and(|bytes| bytes < MOST_DATA) {
            return Err(ServeError::Bytes { bytes: limits.bytes });
        }
        let system = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(system)?;
        let address = listener.local_addr().map_err(system)?;
        let (greetings, places) = (Arc::new(Semaphore::new(limits.handshakes)), Semaphore::new(limits.connections));
        let shared = Shared { cluster, replicas, security, limits, greetings, places };
        Ok(Self { listener, address, shared: Arc::new(shared) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is stopped; then all its connections end.
    pub async fn serve(self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let (shared, stop) = (self.shared.clone(), stop.clone());
                    // Taken here and not in its task, so that it is the newest that is closed.
                    let Ok(greeting) = shared.greetings.clone().try_acquire_owned() else {
                        tracing::info!(%peer, "a connection was closed: too many have not said who they are");
                        continue;
                    };
                    connections.spawn(async move { shared.connection(stream, peer, greeting, stop).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What was agreed with a peer.
struct Agreed {
    hello: Hello,
    version: u16,
    replica: Arc<Replica>,
}

impl Shared {
    async fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        greeting: OwnedSemaphorePermit,
        stop: CancellationToken,
    ) {
        let closed = tokio::select! {
            () = stop.cancelled() => return,
            closed = self.serve(stream, greeting) => closed,
        };
        match closed {
            Err(Closed::Left) | Ok(()) => tracing::debug!(%peer, "a connection has ended"),
            Err(error) => {
                tracing::info!(%peer, error = &error as &dyn std::error::Error, "a connection was closed");
            }
        }
    }

    async fn serve(&self, stream: TcpStream, greeting: OwnedSemaphorePermit) -> Result<(), Closed> {
        let limits = &self.limits;
        let (incoming, outgoing, agreed) = tokio::time::timeout(limits.handshake, self.handshake(stream))
            .await
            .map_err(|_| Closed::Slow("the handshake"))??;
        // Held until the connection ends.
        let Ok(_place) = self.places.try_acquire() else {
            let farewell = Farewell::Busy(format!("it has its {} connections", limits.connections));
            return Err(refuse(outgoing, farewell).await);
        };
        drop(greeting);
        let gone = agreed.replica.is_gone.clone();
        tokio::select! {
            () = gone.cancelled() => Err(Closed::Left),
            closed = self.exchange(incoming, outgoing, agreed) => closed,
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<(Incoming, Outgoing, Agreed), Closed> {
        prepare(&stream, &self.limits)?;
        let (stream, certificate) = self.secure(stream).await?;
        let (mut incoming, mut outgoing) = split(stream);
        let judged = match incoming.message().await {
            Ok(Message::Hello(hello)) => self.judge(hello, certificate.as_ref()),
            Ok(_) => Err(Farewell::Unclear("the first message is no hello".into())),
            // Whoever speaks something else does not understand an answer either.
            Err(error) => return Err(error),
        };
        match judged {
            Ok(agreed) => {
                let welcome = Message::Welcome(Welcome { version: agreed.version });
                outgoing.send_one(&welcome, agreed.version).await?;
                incoming.frames.agreed(agreed.version);
                Ok((incoming, outgoing, agreed))
            }
            Err(farewell) => Err(refuse(outgoing, farewell).await),
        }
    }

    /// With TLS, and who the peer is by his certificate.
    async fn secure(&self, stream: TcpStream) -> io::Result<(Stream, Option<CertificateDer<'static>>)> {
        let Security::Tls(tls) = &self.security else { return Ok((Box::new(stream), None)) };
        let stream = tls.acceptor().accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
        let none = || io::Error::new(io::ErrorKind::PermissionDenied, "the peer has shown no certificate");
        Ok((Box::new(stream), Some(certificate.ok_or_else(none)?)))
    }

    /// Whether somebody gets what he wants.
    fn judge(&self, hello: Hello, certificate: Option<&CertificateDer<'_>>) -> Result<Agreed, Farewell> {
        let version = agree(&hello)?;
        if hello.cluster != self.cluster {
            let text = format!("this is cluster {:x}, and {:x} was wanted", self.cluster.0, hello.cluster.0);
            return Err(Farewell::Cluster(text));
        }
        if certificate.is_some_and(|certificate| !is_of(certificate, &hello.node)) {
            let text = format!("the certificate is not one of {}", hello.node);
            return Err(Farewell::Identity(text));
        }
        let absent = || Farewell::NoReplica(format!("{} of volume {:x} is not here", hello.replica, hello.volume.0));
        let replica = self.replicas.find(hello.volume, hello.replica).ok_or_else(absent)?;
        Ok(Agreed { hello, version, replica })
    }

    /// Requests come and answers go until the peer leaves.
    async fn exchange(&self, incoming: Incoming, mut outgoing: Outgoing, agreed: Agreed) -> Result<(), Closed> {
        let outbox = Arc::new(Outbox::new(&self.limits));
        let closed = tokio::select! {
            // What is answered at once is sent at once.
            biased;
            closed = self.take_requests(incoming, &agreed, &outbox) => closed,
            closed = outbox.send_all(&mut outgoing, agreed.version) => closed,
        };
        outbox.close();
        if let Err(Closed::Wire(error)) = &closed {
            refuse(outgoing, Farewell::Unclear(error.to_string())).await;
        }
        closed
    }

    async fn take_requests(&self, mut incoming: Incoming, agreed: &Agreed, outbox: &Arc<Outbox>) -> Result<(), Closed> {
        let room = Arc::new(Semaphore::new(usize::try_from(self.limits.bytes / UNIT).unwrap_or(usize::MAX)));
        let to: Arc<dyn Answers> = Arc::new(ToOutbox(outbox.clone()));
        let mut batch = Vec::new();
        loop {
            while let Some(message) = incoming.frames.next_message()? {
                let request = match message {
                    Message::Request(request) => request,
                    Message::Look(look) => {
                        agreed.replica.ask(batch.drain(..));
                        // One at a time: who asks for more waits, and nobody else.
                        let held = room.clone().acquire_many_owned(permits_for_ranges(look.most)).await.ok();
                        outbox.put(Message::Seen(agreed.replica.look(&look).await), held);
                        continue;
                    }
                    _ => return Err(Closed::Unexpected("what is no request")),
                };
                if request.attachment != agreed.hello.attachment {
                    return Err(Closed::Unexpected("a request of another attachment than it said"));
                }
                let held = match permits(&request) {
                    0 => None,
                    permits => match room.clone().try_acquire_many_owned(permits) {
                        Ok(held) => Some(held),
                        Err(_) => {
                            agreed.replica.ask(batch.drain(..));
                            room.clone().acquire_many_owned(permits).await.ok()
                        }
                    },
                };
                batch.push((request, Asker { to: to.clone(), held }));
            }
            agreed.replica.ask(batch.drain(..));
            incoming.more().await?;
        }
    }
}

/// What so many ranges take of their connection's room.
fn permits_for_ranges(most: u32) -> u32 {
    most.saturating_mul(16).div_ceil(UNIT)
}

/// What a request takes of its connection's room. Not more than all of it: no request is longer than [`MOST_DATA`].
fn permits(request: &Request) -> u32 {
    let bytes = match &request.body {
        Body::Write { data, .. } => data.len() as u64,
        Body::Read { blocks } | Body::Digest { blocks } => blocks.count.saturating_mul(BLOCK as u64),
        Body::Changed { most, .. } => u64::from(*most) * 16,
        Body::Seal
        | Body::Renew
        | Body::Flush
        | Body::Confirm
        | Body::Discard { .. }
        | Body::Snapshot { .. }
        | Body::Grow { .. } => 0,
    };
    u32::try_from(bytes.div_ceil(u64::from(UNIT))).unwrap_or(u32::MAX)
}

/// Tells somebody why he is not served, if he listens.
async fn refuse(mut outgoing: Outgoing, farewell: Farewell) -> Closed {
    let message = Message::Farewell(farewell.clone());
    let said = tokio::time::timeout(FAREWELL, async {
        if outgoing.send_one(&message, NEWEST).await.is_ok() {
            outgoing.end().await;
        }
    });
    // One that does not listen learns it from the connection's end.
    drop(said.await);
    Closed::Refusing(farewell)
}

struct ToOutbox(Arc<Outbox>);

impl Answers for ToOutbox {
    fn answer(&self, _from: ReplicaId, answer: Answer, held: Held) {
        self.0.put(Message::Answer(answer), held);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
