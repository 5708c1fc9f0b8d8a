//! A proxy of TCP that can lose what a server answers, or stop in the middle of everything.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It passes.
    Open,
    /// What clients say passes; what the server says is thrown away.
    NoAnswers,
    /// Nothing passes, and nothing is closed.
    Frozen,
}

/// A running proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    _all: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let mut all = JoinSet::new();
        all.spawn(accept(listener, to, Arc::clone(&way)));
        Self { address, way, _all: all }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this happens. What was thrown away cannot be had again: so connections that have lost something are closed when the way is open again.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn accept(listener: TcpListener, to: u16, way: Arc<watch::Sender<Way>>) {
    let mut all = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
        all.spawn(connection(client, server, way.subscribe()));
    }
}

async fn connection(client: TcpStream, server: TcpStream, way: watch::Receiver<Way>) {
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let (mut way_there, mut way_back) = (way.clone(), way);
    let there = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = client_in.read(&mut bytes).await {
            if way_there.wait_for(|way| *way != Way::Frozen).await.is_err() {
                return;
            }
            if server_out.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = server_in.read(&mut bytes).await {
            let Ok(now) = way_back.wait_for(|way| *way != Way::Frozen).await.map(|way| *way) else { return };
            if now == Way::NoAnswers {
                // A stream with a hole in it is of no use.
                way_back.wait_for(|way| *way == Way::Open).await.ok();
                return;
            }
            if client_out.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
