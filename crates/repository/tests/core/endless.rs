//! Servers that have more to say than anybody can hold: what is taken of it has an end.

use repository::store::{RetryPolicy, S3Location, Store, StoreConfig, StoreErrorKind};
use repository::{ErrorKind, Secret};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a server writes, and how much of it was taken.
#[derive(Clone, Copy)]
enum Says {
    /// Pages of a list, each of which leads to another one.
    Pages,
    /// One page without an end.
    Page,
    /// An error without an end.
    Refusal,
    /// An object of ten bytes without an end.
    Object,
}

async fn server(says: Says) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::<AtomicU64>::default());
    let counted = taken.clone();
    tokio::spawn(async move {
        for number in 0.. {
            let (connection, _) = listener.accept().await.unwrap();
            let counted = counted.clone();
            // A client that has had enough closes the connection.
            tokio::spawn(async move { drop(answer(connection, says, number, &counted).await) });
        }
    });
    (address, taken)
}

async fn answer(connection: TcpStream, says: Says, number: u64, taken: &AtomicU64) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut line = String::new();
    while connection.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let (status, length) = match says {
        Says::Refusal => ("403 Forbidden", ""),
        Says::Object => ("200 OK", "Content-Length: 10\r\n"),
        _ => ("200 OK", ""),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nLast-Modified: Thu, 26 Nov 2026 10:00:00 GMT\r\nETag: \"e\"\r\n{length}Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    let mut say = async |text: &str| {
        connection.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await?;
        taken.fetch_add(text.len() as u64, Ordering::Relaxed);
        Ok::<_, std::io::Error>(())
    };
    let object = |at: u64| {
        format!(
            "<Contents><Key>points/{number}-{at}</Key><LastModified>2026-11-26T10:00:00Z</LastModified><Size>1</Size></Contents>"
        )
    };
    match says {
        Says::Pages => {
            let objects: String = (0..1000).map(object).collect();
            let next =
                format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{number}</NextContinuationToken>");
            say(&format!("<ListBucketResult>{objects}{next}</ListBucketResult>")).await?;
            connection.write_all(b"0\r\n\r\n").await
        }
        Says::Page => {
            say("<ListBucketResult>").await?;
            for at in 0.. {
                say(&object(at)).await?;
            }
            Ok(())
        }
        Says::Refusal | Says::Object => loop {
            say(&"x".repeat(1 << 16)).await?;
        },
    }
}

fn store(address: SocketAddr) -> Store {
    let location = S3Location {
        bucket: "b".into(),
        endpoint: Some(format!("http://{address}")),
        path_style: true,
        access_key_id: Some("i".into()),
        secret_access_key: Some(Secret::new("k".to_owned())),
        ..S3Location::default()
    };
    StoreConfig::S3(location).open(RetryPolicy::never()).unwrap()
}

#[tokio::test]
async fn a_list_that_does_not_end_is_given_up_before_it_takes_all_memory() {
    let (address, taken) = server(Says::Pages).await;
    let error = store(address).with_lists_up_to(1 << 20).list("points/").await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::TooLarge);
    let why = error.source.as_ref().unwrap().to_string();
    assert!(why.contains("1048576 bytes of memory"), "{why}");
    assert!(!error.is_retryable() && repository::Error::from(error).kind() == ErrorKind::Damaged);
    assert!(taken.load(Ordering::Relaxed) < 8 << 20, "it was listened to on and on");
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_given_up_before_it_takes_all_memory() {
    for says in [Says::Page, Says::Refusal] {
        let (address, taken) = server(says).await;
        assert!(store(address).list("points/").await.is_err());
        assert!(taken.load(Ordering::Relaxed) < 64 << 20, "it was listened to on and on");
    }
    let (address, taken) = server(Says::Object).await;
    let read = store(address).get("config", 1000).await;
    assert!(read.is_err() || read.is_ok_and(|bytes| bytes.len() <= 10));
    assert!(taken.load(Ordering::Relaxed) < 64 << 20, "it was listened to on and on");
}
