//! The members of etcd that may be asked: which one is, with which token, and for how long.

use super::config::{ConfigError, EtcdConfig, User};
use super::wire::auth_client::AuthClient;
use super::wire::kv_client::KvClient;
use super::wire::watch_client::WatchClient;
use super::wire::{
    AuthenticateRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use crate::Patience;
use futures::{Stream, StreamExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

type Token = MetadataValue<Ascii>;

/// A member that has no leader answers nothing that is asked with this.
const REQUIRE_LEADER: (&str, &str) = ("hasleader", "true");
/// A token that was given before the users were changed is refused with this text (`InvalidArgument`).
const TOKEN_TOO_OLD: &str = "revision of auth store is old";

/// All members, of which one is asked at a time.
pub(super) struct Members {
    channels: Vec<Channel>,
    /// Counts how often another member was turned to; modulo their number it is the one that is asked.
    current: AtomicUsize,
    user: Option<User>,
    token: Mutex<Option<Token>>,
    pub(super) patience: Patience,
}

impl Members {
    pub(super) fn new(config: EtcdConfig) -> Result<Self, ConfigError> {
        let channels = config.connections()?.iter().map(tonic::transport::Endpoint::connect_lazy).collect();
        let EtcdConfig { user, patience, .. } = config;
        Ok(Self { channels, current: AtomicUsize::new(0), user, token: Mutex::new(None), patience })
    }

    /// Asks what changes nothing: one member after the other, until one can answer.
    pub(super) async fn read<T, F: Future<Output = Result<T, Status>>>(
        &self,
        ask: impl Fn(Caller) -> F,
    ) -> Result<T, Status> {
        let mut last = self.once(&ask).await;
        for _ in 1..self.channels.len() {
            match &last {
                Err(status) if is_members_own(status) => last = self.once(&ask).await,
                _ => break,
            }
        }
        last
    }

    /// Asks one member, once; a second time only with a new token, if the first was refused because of its token, before anything was done.
    pub(super) async fn once<T, F: Future<Output = Result<T, Status>>>(
        &self,
        ask: impl Fn(Caller) -> F,
    ) -> Result<T, Status> {
        let turn = self.current.load(Ordering::Relaxed);
        let limit = self.patience.request;
        let late = |_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}")));
        let answer = timeout(limit, self.with_token(turn, ask)).await.unwrap_or_else(late);
        if answer.as_ref().is_err_and(is_members_own) {
            // Whoever else has failed with this member has turned to another already.
            let next = turn.wrapping_add(1);
            self.current.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        answer
    }

    async fn with_token<T, F: Future<Output = Result<T, Status>>>(
        &self,
        turn: usize,
        ask: impl Fn(Caller) -> F,
    ) -> Result<T, Status> {
        let channel = &self.channels[turn % self.channels.len()];
        let Some(user) = &self.user else {
            return ask(Caller { channel: channel.clone(), token: None }).await;
        };
        let known = self.token().clone();
        if known.is_some() {
            let answer = ask(Caller { channel: channel.clone(), token: known }).await;
            if !answer.as_ref().is_err_and(is_of_token) {
                return answer;
            }
        }
        let token = authenticate(channel, user).await?;
        *self.token() = Some(token.clone());
        ask(Caller { channel: channel.clone(), token: Some(token) }).await
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        // It is only ever replaced as a whole.
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it says something about the member and not about the request, so that another may answer better. What is not known counts as that.
fn is_members_own(status: &Status) -> bool {
    let of_request = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::FailedPrecondition,
        Code::OutOfRange,
    ];
    !of_request.contains(&status.code())
}

/// Whether the token was refused; nothing is done before it is looked at.
fn is_of_token(status: &Status) -> bool {
    match status.code() {
        Code::Unauthenticated => true,
        Code::InvalidArgument | Code::FailedPrecondition => status.message().contains(TOKEN_TOO_OLD),
        _ => false,
    }
}

/// Why something was not done, for a person.
pub(super) fn why(action: &str, status: &Status) -> String {
    let said = if status.message().is_empty() { status.code().description() } else { status.message() };
    let cause =
        std::error::Error::source(status).map(|cause| format!(" ({})", crate::chain(cause))).unwrap_or_default();
    let advice = match status.code() {
        Code::PermissionDenied => "; grant the user the right to read and write the keys with the prefix",
        Code::Unauthenticated | Code::InvalidArgument if said.contains("auth") || said.contains("user name") => {
            "; give the user and the password that etcd knows"
        }
        _ => "",
    };
    format!("{action} in etcd: {said}{cause}{advice}")
}

async fn authenticate(channel: &Channel, user: &User) -> Result<Token, Status> {
    let request = AuthenticateRequest { name: user.name.clone(), password: user.password.text().to_owned() };
    let token = AuthClient::new(channel.clone()).authenticate(request).await?.into_inner().token;
    token.parse().map_err(|_| Status::internal("etcd gave a token that cannot be sent"))
}

/// One member, to be asked with a token.
pub(super) struct Caller {
    channel: Channel,
    token: Option<Token>,
}

impl Caller {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let (key, value) = REQUIRE_LEADER;
        request.metadata_mut().insert(key, MetadataValue::from_static(value));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    pub(super) async fn range(&mut self, message: RangeRequest) -> Result<RangeResponse, Status> {
        let request = self.request(message);
        Ok(KvClient::new(self.channel.clone()).range(request).await?.into_inner())
    }

    pub(super) async fn txn(&mut self, message: TxnRequest) -> Result<TxnResponse, Status> {
        let request = self.request(message);
        Ok(KvClient::new(self.channel.clone()).txn(request).await?.into_inner())
    }

    /// The watch lasts until what is returned is dropped.
    pub(super) async fn watch(&mut self, message: WatchRequest) -> Result<Streaming<WatchResponse>, Status> {
        let request = self.request(lasting(message));
        Ok(WatchClient::new(self.channel.clone()).watch(request).await?.into_inner())
    }
}

/// One message; no end follows, which would end the watch.
fn lasting(message: WatchRequest) -> impl Stream<Item = WatchRequest> {
    futures::stream::once(async { message }).chain(futures::stream::pending())
}
