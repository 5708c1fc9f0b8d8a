//! Ports that nobody else uses, as far as that can be known beforehand.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Ports to pick from: below those that Linux hands to outgoing connections (32768 up), so that the port of a server that
/// is down for a moment is not taken meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) api_server: u16,
    pub(super) controller_manager: u16,
}

impl Ports {
    pub(super) fn pick() -> Result<Self> {
        // All are held until all are picked, so that they differ.
        let held = [pick_port()?, pick_port()?, pick_port()?];
        let [etcd, api_server, controller_manager] = held.map(|(port, _)| port);
        Ok(Self { etcd, api_server, controller_manager })
    }
}

fn pick_port() -> Result<(u16, TcpListener)> {
    /// The range is nearly empty; this many busy ports in a row mean that something else is wrong.
    const ATTEMPTS: usize = 100;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let port = rand::random_range(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok((port, listener)),
            Err(error) => last = Some(error),
        }
    }
    bail!("no free port of 127.0.0.1 in {PORTS:?} after {ATTEMPTS} attempts; the last one: {last:?}")
}

/// Whether a start failed because another process took a port after it was picked.
pub(super) fn is_port_clash(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}
