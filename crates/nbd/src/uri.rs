//! How clients name an export: the URIs that libnbd and qemu understand.

use crate::listen::Listener;
use std::fmt::Write;

/// The URI of an export of a listener, in clear or encrypted.
pub(crate) fn uri(listener: &Listener, export: &str, encrypted: bool) -> String {
    let scheme = if encrypted { "nbds" } else { "nbd" };
    match listener {
        Listener::Unix(socket) => {
            let path = std::path::absolute(socket.path()).unwrap_or_else(|_| socket.path().to_owned());
            let path = escaped(path.as_os_str().as_encoded_bytes());
            format!("{scheme}+unix:///{}?socket={path}", escaped(export.as_bytes()))
        }
        Listener::Tcp(_) => {
            let address = listener.address().map(|address| address.to_string()).unwrap_or_default();
            format!("{scheme}://{address}/{}", escaped(export.as_bytes()))
        }
    }
}

/// Everything but letters, digits and a few marks as `%XX`.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(*byte)),
            other => write!(out, "%{other:02X}").expect("a string takes what is written"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn exports_have_uris() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("a b.sock");
        let socket = Listener::unix(&path).unwrap();
        let shown = path.to_str().unwrap().replace(' ', "%20");
        assert_eq!(uri(&socket, "shop/data?", false), format!("nbd+unix:///shop/data%3F?socket={shown}"));
        let port = Listener::tcp("[::1]:0".parse().unwrap()).await;
        let port = match port {
            Ok(port) => port,
            Err(_) => Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap(),
        };
        let address = port.address().unwrap();
        assert_eq!(uri(&port, "/srv/é", true), format!("nbds://{address}//srv/%C3%A9"));
    }
}
