//! The S3 server by the eyes of the client that the product uses.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic as the test itself may")]

use std::fs;

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use sandbox::control_plane::install_crypto_provider;
use sandbox::s3::{Credentials, S3Server};
use tempfile::TempDir;

const BUCKET: &str = "backups";

struct Fixture {
    server: S3Server,
    _root: TempDir,
}

impl Fixture {
    fn new() -> Self {
        install_crypto_provider();
        let root = tempfile::tempdir().unwrap();
        let server = S3Server::start(root.path().join("s3"), Credentials::generate()).unwrap();
        server.create_bucket(BUCKET).unwrap();
        Self { server, _root: root }
    }

    fn client(&self) -> AmazonS3 {
        self.client_with(BUCKET, &self.server.credentials().secret_key)
    }

    fn client_with(&self, bucket: &str, secret_key: &str) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(self.server.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(bucket)
            .with_access_key_id(&self.server.credentials().access_key)
            .with_secret_access_key(secret_key)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .unwrap()
    }
}

fn keys(count: usize) -> Vec<Path> {
    (0..count).map(|i| Path::from(format!("packs/{:02x}/{i:04}", i % 7))).collect()
}

async fn listed(client: &AmazonS3, prefix: &str) -> Vec<Path> {
    let objects: Vec<_> = client.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    let mut keys: Vec<_> = objects.into_iter().map(|object| object.location).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn what_is_put_is_a_file_and_what_the_file_has_is_got() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let key = Path::from("packs/ab/pack");
    client.put(&key, "content".into()).await.unwrap();
    let file = fixture.server.object_path(BUCKET, key.as_ref());
    assert_eq!(fs::read(&file).unwrap(), b"content");

    fs::write(&file, "c0ntent").unwrap();
    assert_eq!(client.get(&key).await.unwrap().bytes().await.unwrap(), "c0ntent");
    assert_eq!(client.get_range(&key, 1..3).await.unwrap(), "0n");

    client.delete(&key).await.unwrap();
    assert!(!file.exists());
    assert!(matches!(client.get(&key).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn wrong_keys_are_refused() {
    let fixture = Fixture::new();
    let client = fixture.client_with(BUCKET, "wrong");
    let refused = client.put(&Path::from("a"), "b".into()).await.unwrap_err();
    assert!(matches!(refused, Error::PermissionDenied { .. }), "{refused:?}");
    assert!(!fixture.server.object_path(BUCKET, "a").exists());
}

#[tokio::test]
async fn a_missing_bucket_is_not_made_by_a_put() {
    let fixture = Fixture::new();
    let client = fixture.client_with("absent", &fixture.server.credentials().secret_key);
    let refused = client.put(&Path::from("a"), "b".into()).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound { .. }), "{refused:?}");
    assert!(!fixture.server.bucket_path("absent").exists());
}

#[tokio::test]
async fn of_many_creators_exactly_one_succeeds() {
    const CREATORS: usize = 16;
    let fixture = Fixture::new();
    let client = fixture.client();
    for round in 0..8 {
        let key = Path::from(format!("points/{round}"));
        let create = async |creator: usize| {
            let payload = PutPayload::from(vec![u8::try_from(creator).unwrap(); 100_000]);
            client.put_opts(&key, payload, PutMode::Create.into()).await
        };
        let outcomes = join_all((0..CREATORS).map(create)).await;
        let winners: Vec<_> = (0..CREATORS).filter(|i| outcomes[*i].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        let losers = outcomes.iter().filter(|o| matches!(o, Err(Error::AlreadyExists { .. })));
        assert_eq!(losers.count(), CREATORS - 1, "round {round}: {outcomes:?}");
        let stored = client.get(&key).await.unwrap().bytes().await.unwrap();
        assert!(stored.iter().all(|byte| usize::from(*byte) == winners[0]), "round {round}");
    }
}

#[tokio::test]
async fn an_update_needs_the_version_that_was_read() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let key = Path::from("lease");
    let first = client.put(&key, "1".into()).await.unwrap();
    client.put_opts(&key, "2".into(), PutMode::Update(first.clone().into()).into()).await.unwrap();
    let stale = client.put_opts(&key, "3".into(), PutMode::Update(first.into()).into()).await;
    assert!(matches!(stale, Err(Error::Precondition { .. })), "{stale:?}");
    assert_eq!(client.get(&key).await.unwrap().bytes().await.unwrap(), "2");
}

#[tokio::test]
async fn a_large_object_goes_in_parts() {
    const PART_BYTES: usize = 5 << 20;
    let fixture = Fixture::new();
    let client = fixture.client();
    let key = Path::from("packs/large");
    let mut upload = client.put_multipart(&key).await.unwrap();
    for part in 1..=3_u8 {
        upload.put_part(vec![part; PART_BYTES].into()).await.unwrap();
    }
    upload.complete().await.unwrap();
    let stored = client.get(&key).await.unwrap().bytes().await.unwrap();
    assert_eq!(stored.len(), 3 * PART_BYTES);
    assert!((0..3).all(|part| stored[part * PART_BYTES] == u8::try_from(part + 1).unwrap()));
}

#[tokio::test]
async fn listings_are_whole_over_many_pages() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let expected = keys(2_345);
    for key in &expected {
        let file = fixture.server.object_path(BUCKET, key.as_ref());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(listed(&client, "packs").await, sorted);
    assert_eq!(listed(&client, "packs/03").await.len(), 335);
    assert_eq!(listed(&client, "pack").await, Vec::<Path>::new());
}

#[tokio::test]
async fn deleting_does_not_disturb_a_listing() {
    let fixture = Fixture::new();
    let client = fixture.client();
    let doomed = keys(200);
    join_all(doomed.iter().map(|key| client.put(key, "x".into()))).await;
    client.put(&Path::from("packs/00/kept"), "x".into()).await.unwrap();
    let delete = async {
        for key in &doomed {
            client.delete(key).await.unwrap();
        }
    };
    let list = async {
        for _ in 0..20 {
            assert!(listed(&client, "packs").await.contains(&Path::from("packs/00/kept")));
        }
    };
    tokio::join!(delete, list);
    assert_eq!(listed(&client, "packs").await, [Path::from("packs/00/kept")]);
}

#[tokio::test]
async fn a_prefix_is_not_an_object() {
    let fixture = Fixture::new();
    let client = fixture.client();
    client.put(&Path::from("packs/a"), "x".into()).await.unwrap();
    assert!(matches!(client.head(&Path::from("packs")).await, Err(Error::NotFound { .. })));
    assert!(matches!(client.get(&Path::from("packs")).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_key_that_is_too_long_leaves_nothing() {
    let fixture = Fixture::new();
    let long = Path::from("k".repeat(200));
    assert!(fixture.client().put(&long, "x".into()).await.is_err());
    assert!(!fixture.server.object_path(BUCKET, long.as_ref()).exists());
    let longest = Path::from("k".repeat(130 - BUCKET.len()));
    let client = fixture.client();
    let mut upload = client.put_multipart(&longest).await.unwrap();
    upload.put_part("x".into()).await.unwrap();
    upload.complete().await.unwrap();
}

#[test]
fn the_port_is_free_again_when_the_server_is_dropped() {
    let fixture = Fixture::new();
    let address = fixture.server.address();
    drop(fixture);
    std::net::TcpStream::connect(address).unwrap_err();
}
