//! The requests to the service.

use super::answer::{Decrypted, Encrypted, Refusal, Sorted};
use super::{AwsKmsConfig, SERVICE};
use crate::keys::kms::{Kms, KmsContext, KmsError, KmsErrorKind, Wrapped};
use crate::store::RetryPolicy;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// How long a connection to the service may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one request may take in all; the service answers in milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes; the longest that the service has is about 9 KiB.
const MAX_ANSWER_LEN: usize = 64 << 10;
/// The room for a request, in bytes: names of keys and wrapped keys at their longest. A buffer that grew would leave copies.
const REQUEST_LEN: usize = 24 << 10;

/// A key of AWS KMS.
#[derive(Debug)]
pub struct AwsKms {
    config: AwsKmsConfig,
    credential: AwsCredential,
    client: HttpClient,
    retry: RetryPolicy,
}

/// What is asked; the fields that a request does not have are left out.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_blob: Option<&'a str>,
    #[serde(serialize_with = "as_map")]
    encryption_context: &'a KmsContext,
}

fn as_map<S: Serializer>(context: &&KmsContext, serializer: S) -> Result<S::Ok, S::Error> {
    BTreeMap::from(context.pairs()).serialize(serializer)
}

/// What the service said, when it was not yes.
enum Failed {
    NotOfThisKey,
    Error(KmsError),
}

impl AwsKms {
    /// Makes the client; nothing is asked of the service yet.
    pub fn new(config: AwsKmsConfig, retry: RetryPolicy) -> Result<Self, KmsError> {
        let invalid = || KmsError::new(KmsErrorKind::Invalid, "use the key", &config.key);
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // A redirection would take the key elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &config.ca_pem {
            let bundle = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| invalid().because(format!("the certificates are not PEM: {error}")))?;
            client = bundle.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
        }
        let client = client.build().map_err(|error| invalid().because(error))?;
        let credential = AwsCredential {
            key_id: config.access_key_id.clone(),
            secret_key: config.secret_access_key.expose().clone(),
            token: config.session_token.as_ref().map(|token| token.expose().clone()),
        };
        Ok(Self { config, credential, client: HttpClient::new(client), retry })
    }

    /// Asks until there is an answer, or until it is no use to ask again.
    async fn ask(
        &self,
        action: &'static str,
        operation: &'static str,
        question: &Question<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let mut body = Zeroizing::new(Vec::with_capacity(REQUEST_LEN));
        serde_json::to_writer(&mut *body, question)
            .map_err(|error| Failed::Error(self.error(KmsErrorKind::Invalid, operation).because(error)))?;
        // The request's own copy, too, is wiped when the last who holds it lets it go.
        let body = Bytes::from_owner(body);
        let mut attempts = self.retry.attempts();
        loop {
            match self.ask_once(action, operation, body.clone()).await {
                Err(Failed::Error(error)) if error.is_retryable() => {
                    if !attempts.another(self.retry.attempts, &error).await {
                        return Err(Failed::Error(error));
                    }
                }
                other => return other,
            }
        }
    }

    async fn ask_once(&self, action: &str, operation: &'static str, body: Bytes) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let invalid = |error: Box<dyn std::error::Error + Send + Sync>| {
            Failed::Error(self.error(KmsErrorKind::Invalid, operation).because(error))
        };
        let unreachable = |error: object_store::client::HttpError| {
            Failed::Error(self.error(KmsErrorKind::Unreachable, operation).because(error))
        };
        let mut request: HttpRequest = http::Request::post(format!("{}/", self.config.endpoint))
            .header(http::header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{action}"))
            .body(HttpRequestBody::from(body))
            .map_err(|error| invalid(error.into()))?;
        AwsAuthorizer::new(&self.credential, SERVICE, &self.config.region)
            .try_authorize(&mut request, None)
            .map_err(|error| invalid(error.into()))?;
        let answer = self.client.execute(request).await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_LEN));
        let mut chunks = answer.into_body().bytes_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER_LEN {
                return Err(invalid(format!("its answer is longer than {MAX_ANSWER_LEN} bytes").into()));
            }
            body.extend_from_slice(&chunk);
            if let Ok(mut chunk) = chunk.try_into_mut() {
                chunk.as_mut().zeroize();
            }
        }
        if status == 200 {
            return Ok(body);
        }
        let refusal = Refusal::read(&body);
        Err(match refusal.sort(status) {
            Sorted::NotOfThisKey => Failed::NotOfThisKey,
            Sorted::Error(kind) => Failed::Error(self.error(kind, operation).because(refusal.text(status))),
        })
    }

    fn error(&self, kind: KmsErrorKind, operation: &'static str) -> KmsError {
        KmsError::new(kind, operation, &self.config.key)
    }

    /// An answer that says yes, and not what it should.
    fn nonsense(&self, operation: &'static str, what: &'static str) -> KmsError {
        self.error(KmsErrorKind::Invalid, operation).because(what)
    }
}

const WRAP: &str = "wrap a key with";
const UNWRAP: &str = "unwrap a key with";

#[async_trait]
impl Kms for AwsKms {
    fn provider(&self) -> &'static str {
        "aws"
    }

    fn key(&self) -> &str {
        &self.config.key
    }

    async fn wrap(&self, plain: &[u8; 32], context: &KmsContext) -> Result<Wrapped, KmsError> {
        let plain = Zeroizing::new(STANDARD.encode(plain));
        let question = Question {
            key_id: &self.config.key,
            plaintext: Some(&plain),
            ciphertext_blob: None,
            encryption_context: context,
        };
        let answer = self.ask("Encrypt", WRAP, &question).await.map_err(|failed| match failed {
            Failed::Error(error) => error,
            Failed::NotOfThisKey => self.nonsense(WRAP, "it finds a ciphertext wrong where there is none"),
        })?;
        let answer: Encrypted = serde_json::from_slice(&answer)
            .map_err(|_| self.nonsense(WRAP, "its answer to Encrypt is not understood"))?;
        let bytes = STANDARD
            .decode(&answer.ciphertext_blob)
            .map_err(|_| self.nonsense(WRAP, "the ciphertext in its answer is not Base64"))?;
        Ok(Wrapped { key: answer.key_id, bytes })
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KmsContext) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        let blob = STANDARD.encode(wrapped);
        let question = Question {
            key_id: &self.config.key,
            plaintext: None,
            ciphertext_blob: Some(&blob),
            encryption_context: context,
        };
        let answer = match self.ask("Decrypt", UNWRAP, &question).await {
            Ok(answer) => answer,
            Err(Failed::NotOfThisKey) => return Ok(None),
            Err(Failed::Error(error)) => return Err(error),
        };
        let answer: Decrypted = serde_json::from_slice(&answer)
            .map_err(|_| self.nonsense(UNWRAP, "its answer to Decrypt is not understood"))?;
        let plain = STANDARD.decode(answer.plaintext.expose());
        plain
            .map(Zeroizing::new)
            .map(Some)
            .map_err(|_| self.nonsense(UNWRAP, "the plain key in its answer is not Base64"))
    }
}
