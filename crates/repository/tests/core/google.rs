//! A server in this process that speaks the XML interface of Google Cloud Storage, as much of it as a store asks for.
//!
//! It is written from Google's description of the interface, because no server of others knows the condition `x-goog-if-generation-match`.
//! So it shows that the store agrees with that description; whether Google does, nobody has tried here.

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use repository::StoreConfig;
use repository::store::GoogleLocation;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const BUCKET: &str = "harbour";
/// How many objects Google lists in one answer.
const PAGE: usize = 1_000;
const GENERATION: &str = "x-goog-generation";

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct GoogleServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for GoogleServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    generation: u64,
    modified: Timestamp,
}

/// All objects of the bucket, and how many were ever made.
#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    made: u64,
}

impl GoogleServer {
    pub(crate) async fn start() -> Self {
        let bucket = Arc::new(Mutex::new(Bucket::default()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let bucket = bucket.clone();
                let service = service_fn(move |request| {
                    let bucket = bucket.clone();
                    async move { Ok::<_, Infallible>(serve(&bucket, request).await) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away in the middle is nothing to fail about.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, task }
    }

    pub(crate) fn config(&self, prefix: &str) -> StoreConfig {
        StoreConfig::Google(GoogleLocation {
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            emulator: Some(format!("http://{}", self.address)),
            ..GoogleLocation::default()
        })
    }
}

async fn serve(bucket: &Mutex<Bucket>, request: Request<Incoming>) -> Response<s3s::Body> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        // One that breaks off in the middle creates nothing.
        let Ok(frame) = frame else { return answer(400) };
        bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    let path = head.uri.path().trim_start_matches('/');
    let (name, object) = path.split_once('/').unwrap_or((path, ""));
    if name != BUCKET {
        return refusal(404, "NoSuchBucket");
    }
    let (object, mut bucket) = (decode(object), bucket.lock().unwrap());
    match (head.method, object.as_str()) {
        (Method::GET, "") => bucket.list(head.uri.query().unwrap_or_default()),
        (Method::PUT, name) => bucket.put(name, &head.headers, bytes.into()),
        (Method::GET | Method::HEAD, name) => bucket.get(name, &head.headers),
        (Method::DELETE, name) => bucket.objects.remove(name).map_or_else(no_such_key, |_| answer(204)),
        _ => refusal(405, "MethodNotAllowed"),
    }
}

impl Bucket {
    fn put(&mut self, name: &str, headers: &HeaderMap, bytes: Bytes) -> Response<s3s::Body> {
        // The generation of what is not there is 0.
        let there = self.objects.get(name).map_or(0, |object| object.generation);
        let wanted = headers.get("x-goog-if-generation-match").map(|wanted| wanted.to_str().unwrap().parse());
        if wanted.is_some_and(|wanted| wanted != Ok(there)) {
            return refusal(412, "PreconditionFailed");
        }
        self.made += 1;
        let object = Object { bytes, generation: self.made, modified: Timestamp::now() };
        let answer = described(200, &object);
        self.objects.insert(name.to_owned(), object);
        answer.body(s3s::Body::empty()).unwrap()
    }

    fn get(&self, name: &str, headers: &HeaderMap) -> Response<s3s::Body> {
        let Some(object) = self.objects.get(name) else { return no_such_key() };
        let len = object.bytes.len();
        let Some(range) = headers.get(RANGE) else {
            // Said to who asks without the bytes, too.
            let answer = described(200, object).header(CONTENT_LENGTH, len);
            return answer.body(s3s::Body::from(object.bytes.clone())).unwrap();
        };
        let (start, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
        if start >= len {
            return refusal(416, "InvalidRange");
        }
        let end = len.min(last + 1);
        let answer = described(206, object).header(CONTENT_RANGE, format!("bytes {start}-{}/{len}", end - 1));
        answer.body(s3s::Body::from(object.bytes.slice(start..end))).unwrap()
    }

    fn list(&self, query: &str) -> Response<s3s::Body> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query: HashMap<_, _> = pairs.map(|(name, value)| (name, decode(&value.replace('+', " ")))).collect();
        assert_eq!(query.get("list-type").map(String::as_str), Some("2"));
        let (none, prefix) = (String::new(), query.get("prefix").cloned().unwrap_or_default());
        let after = query.get("continuation-token").unwrap_or(&none);
        let wanted = |(name, _): &(&String, &Object)| name.starts_with(&prefix) && (after.is_empty() || *name > after);
        let mut found = self.objects.iter().filter(wanted).peekable();
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let mut text = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        for (name, object) in &page {
            let (name, len, modified) = (escape(name), object.bytes.len(), object.modified);
            text.push_str(&format!(
                "<Contents><Key>{name}</Key><Size>{len}</Size><LastModified>{modified}</LastModified></Contents>"
            ));
        }
        if let (Some((last, _)), Some(_)) = (page.last(), found.peek()) {
            text.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", escape(last)));
        }
        text.push_str("</ListBucketResult>");
        Response::new(s3s::Body::from(text))
    }
}

fn described(status: u16, object: &Object) -> hyper::http::response::Builder {
    let modified = object.modified.strftime("%a, %d %b %Y %T GMT").to_string();
    let (generation, etag) = (object.generation, format!("\"{}\"", object.generation));
    Response::builder().status(status).header(ETAG, etag).header(GENERATION, generation).header(LAST_MODIFIED, modified)
}

fn answer(status: u16) -> Response<s3s::Body> {
    Response::builder().status(status).body(s3s::Body::empty()).unwrap()
}

fn refusal(status: u16, code: &str) -> Response<s3s::Body> {
    let text = format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
    Response::builder().status(status).body(s3s::Body::from(text)).unwrap()
}

fn no_such_key() -> Response<s3s::Body> {
    refusal(404, "NoSuchKey")
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [byte, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, left) = decoded.map_or((*byte, after), |decoded| (decoded, &after[2..]));
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).unwrap()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
