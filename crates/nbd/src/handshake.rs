//! The handshake of one connection: which export, and which extensions of the protocol.

use crate::limits::{MAX_CHOSEN, MAX_LISTED, MAX_OPTION_LEN, MAX_OPTIONS, MAX_SKIPPED_LEN, MAX_TEXT_LEN};
use crate::options::{
    Asked, Wrong, context_queries, encode_block_size, encode_context, encode_export, encode_infos, encode_reply,
    encode_server,
};
use crate::request;
use crate::server::Export;
use crate::stream::{Stream, Wire};
use crate::tls::Tls;
use crate::wire::{self, handshake_flag, info, option, option_reply};
use block::{Description, Failure, FailureKind};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that are read at once: some options.
const READ_LEN: usize = 16 << 10;

/// What a server offers to all its clients.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) exports: Arc<[Export]>,
    /// Set, it is what every client must use.
    pub(crate) tls: Option<Tls>,
}

/// Why a connection is closed by the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("read from or write to the client")]
    Io(#[from] io::Error),
    #[error("agree with the client on TLS")]
    Tls(#[source] io::Error),
    #[error("the client broke the protocol: {0}")]
    Broken(String),
    #[error("the client took too long over {0}")]
    Slow(&'static str),
    #[error("the export cannot be served: {0}")]
    Export(#[from] Failure),
}

/// What a connection has agreed on.
pub(crate) struct Ready {
    pub(crate) export: Export,
    pub(crate) description: Description,
    pub(crate) structured: bool,
    pub(crate) contexts: Vec<(u32, String)>,
}

impl Ready {
    /// What requests are checked against.
    pub(crate) fn terms(&self) -> request::Terms<'_> {
        request::Terms { description: &self.description, structured: self.structured, contexts: self.contexts.len() }
    }
}

/// A client who has begun with an export.
pub(crate) struct Agreed {
    pub(crate) ready: Ready,
    pub(crate) stream: Stream,
    /// What he has sent since.
    pub(crate) early: Vec<u8>,
}

/// What a handshake works on.
struct Handshake<'a> {
    wire: Wire,
    terms: &'a Terms,
    no_zeroes: bool,
    encrypted: bool,
    structured: bool,
    /// The export whose contexts were chosen, and which.
    contexts: Option<(String, Vec<(u32, String)>)>,
}

/// What an option leads to.
enum Next {
    Goes,
    Left,
    Encrypts,
    Begins(Ready),
}

/// Agrees with a client; nothing when he leaves.
pub(crate) async fn negotiate(stream: Stream, terms: &Terms) -> Result<Option<Agreed>, Closed> {
    let mut wire = Wire::with_capacity(READ_LEN, stream);
    let offered = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    let hello = [&wire::INIT_MAGIC.to_be_bytes()[..], &wire::OPTION_MAGIC.to_be_bytes(), &offered.to_be_bytes()];
    wire.write_all(&hello.concat()).await?;
    let flags = wire.read_u32().await?;
    if flags & !u32::from(offered) != 0 {
        return Err(Closed::Broken(format!("it answered with the unknown flags {flags:#010x}")));
    }
    let no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
    let mut handshake = Handshake { wire, terms, no_zeroes, encrypted: false, structured: false, contexts: None };
    for _ in 0..MAX_OPTIONS {
        match handshake.option().await? {
            Next::Goes => {}
            Next::Left => return Ok(None),
            Next::Encrypts => handshake = handshake.encrypt().await?,
            Next::Begins(ready) => {
                let early = handshake.wire.buffer().to_vec();
                return Ok(Some(Agreed { ready, stream: handshake.wire.into_inner(), early }));
            }
        }
    }
    Err(Closed::Broken(format!("it sent {MAX_OPTIONS} options and began nothing")))
}

impl Handshake<'_> {
    async fn option(&mut self) -> Result<Next, Closed> {
        if self.wire.read_u64().await? != wire::OPTION_MAGIC {
            return Err(Closed::Broken("an option does not begin as one".to_owned()));
        }
        let (code, len) = (self.wire.read_u32().await?, self.wire.read_u32().await?);
        if len > MAX_OPTION_LEN {
            return self.too_long(code, len).await;
        }
        let mut data = vec![0; len as usize];
        self.wire.read_exact(&mut data).await?;
        match Asked::decode(code, &data) {
            Ok(asked) if self.wants_tls_for(&asked) => {
                self.refuse(code, option_reply::TLS_REQUIRED, "the server speaks to nobody in clear; start TLS").await
            }
            // Here there is no reply that would say so.
            Ok(Asked::ExportName(_)) if self.terms.tls.is_some() && !self.encrypted => {
                Err(Closed::Broken("it began in clear, and the server has TLS".to_owned()))
            }
            Ok(asked) => self.answer(code, asked).await,
            // Nor here.
            Err(Wrong(what)) if code == option::EXPORT_NAME => Err(Closed::Broken(what.to_owned())),
            Err(Wrong(what)) => self.refuse(code, option_reply::INVALID, what).await,
        }
    }

    async fn too_long(&mut self, code: u32, len: u32) -> Result<Next, Closed> {
        if code == option::EXPORT_NAME || len > MAX_SKIPPED_LEN {
            return Err(Closed::Broken(format!("an option has {len} bytes")));
        }
        skip(&mut self.wire, len).await?;
        self.refuse(code, option_reply::TOO_BIG, "the option is too long").await
    }

    async fn answer(&mut self, code: u32, asked: Asked) -> Result<Next, Closed> {
        match asked {
            Asked::ExportName(name) => self.begin_the_old_way(&name).await,
            Asked::Abort => {
                // He may be gone already, which is his right.
                let _ = self.reply(code, option_reply::ACK, &[]).await;
                Ok(Next::Left)
            }
            Asked::List => self.list(code).await,
            Asked::Info { name, wanted, go } => self.info(code, &name, &wanted, go).await,
            Asked::StructuredReply => {
                self.structured = true;
                self.acknowledge(code).await
            }
            Asked::Contexts { name, queries, set } => self.choose(code, name, &queries, set).await,
            Asked::Tls if self.terms.tls.is_none() => {
                self.refuse(code, option_reply::UNSUPPORTED, "the server has no TLS; connect to it in clear").await
            }
            Asked::Tls if self.encrypted => {
                self.refuse(code, option_reply::INVALID, "the connection is encrypted already").await
            }
            Asked::Tls => {
                self.acknowledge(code).await?;
                Ok(Next::Encrypts)
            }
            Asked::Other(_) => {
                self.refuse(code, option_reply::UNSUPPORTED, "the server does not know the option").await
            }
        }
    }

    /// Whether a client in clear is asked to encrypt first; he may always leave.
    fn wants_tls_for(&self, asked: &Asked) -> bool {
        let in_clear = self.terms.tls.is_some() && !self.encrypted;
        in_clear && !matches!(asked, Asked::Tls | Asked::Abort | Asked::ExportName(_))
    }

    /// Begins to encrypt; what was agreed on in clear is forgotten.
    async fn encrypt(self) -> Result<Self, Closed> {
        if !self.wire.buffer().is_empty() {
            // Somebody in between could have put it there.
            return Err(Closed::Broken("it sent something in clear after it had asked for TLS".to_owned()));
        }
        let tls = self.terms.tls.as_ref().ok_or_else(|| Closed::Broken("there is no TLS".to_owned()))?;
        let stream = tls.accept(self.wire.into_inner()).await.map_err(Closed::Tls)?;
        let wire = Wire::with_capacity(READ_LEN, stream);
        Ok(Self { wire, encrypted: true, structured: false, contexts: None, ..self })
    }

    /// An export by its name; the empty name stands for the only one.
    fn find(&self, name: &str) -> Option<Export> {
        let exports = &*self.terms.exports;
        let named = exports.iter().find(|export| export.name == name);
        let only = if let ([only], "") = (exports, name) { Some(only) } else { None };
        named.or(only).cloned()
    }

    async fn begin_the_old_way(&mut self, name: &str) -> Result<Next, Closed> {
        let Some(export) = self.find(name) else {
            return Err(Closed::Broken(format!("there is no export {name:?}")));
        };
        let description = described(&export)?;
        if description.blocks.minimum > 1 {
            return Err(Closed::Broken(
                "it does not ask for the block size, which it would have to keep to".to_owned(),
            ));
        }
        self.wire.write_all(&encode_export(&description, self.structured)).await?;
        if !self.no_zeroes {
            self.wire.write_all(&[0; 124]).await?;
        }
        self.wire.flush().await?;
        Ok(Next::Begins(self.ready(export, description)))
    }

    fn ready(&mut self, export: Export, description: Description) -> Ready {
        let chosen = self.contexts.take().filter(|(name, _)| *name == export.name);
        let contexts = chosen.map(|(_, contexts)| contexts).unwrap_or_default();
        Ready { export, description, structured: self.structured, contexts }
    }

    async fn list(&mut self, code: u32) -> Result<Next, Closed> {
        for export in self.terms.exports.clone().iter() {
            self.reply(code, option_reply::SERVER, &encode_server(&export.name, &export.description)).await?;
        }
        self.acknowledge(code).await
    }

    async fn info(&mut self, code: u32, name: &str, wanted: &[u16], go: bool) -> Result<Next, Closed> {
        let Some(export) = self.find(name) else {
            return self.refuse(code, option_reply::UNKNOWN, "there is no export of this name").await;
        };
        let description = match described(&export) {
            Ok(description) => description,
            Err(failure) => return self.refuse(code, option_reply::PLATFORM, &failure.message).await,
        };
        if go && description.blocks.minimum > 1 && !wanted.contains(&info::BLOCK_SIZE) {
            let what = "ask for the block size, and keep to it";
            self.reply(code, option_reply::INFO, &encode_block_size(description.blocks)).await?;
            return self.refuse(code, option_reply::BLOCK_SIZE_REQUIRED, what).await;
        }
        for info in encode_infos(&description, self.structured, &export.name, &export.description, wanted) {
            self.reply(code, option_reply::INFO, &info).await?;
        }
        self.acknowledge(code).await?;
        Ok(if go { Next::Begins(self.ready(export, description)) } else { Next::Goes })
    }

    async fn choose(&mut self, code: u32, name: String, queries: &[String], set: bool) -> Result<Next, Closed> {
        if set {
            // Whatever comes of it, the earlier choice is gone.
            self.contexts = None;
        }
        if !self.structured {
            return self.refuse(code, option_reply::INVALID, "ask for structured replies first").await;
        }
        let Some(export) = self.find(&name) else {
            return self.refuse(code, option_reply::UNKNOWN, "there is no export of this name").await;
        };
        let picked = match contexts(&export, queries, set) {
            Ok(picked) => picked,
            Err(failure) => return self.refuse(code, option_reply::PLATFORM, &failure.message).await,
        };
        if set && picked.len() > MAX_CHOSEN {
            let message = format!("a connection has at most {MAX_CHOSEN} contexts");
            return self.refuse(code, option_reply::TOO_BIG, &message).await;
        }
        let numbered: Vec<_> = (1..).zip(picked).collect();
        // One write for all: there may be thousands.
        let mut replies = Vec::new();
        for (id, context) in &numbered {
            replies.extend(encode_reply(code, option_reply::META_CONTEXT, &encode_context(*id, context)));
        }
        self.wire.write_all(&replies).await?;
        if set {
            self.contexts = Some((export.name, numbered));
        }
        self.acknowledge(code).await
    }

    async fn acknowledge(&mut self, code: u32) -> Result<Next, Closed> {
        self.reply(code, option_reply::ACK, &[]).await?;
        Ok(Next::Goes)
    }

    async fn refuse(&mut self, code: u32, kind: u32, message: &str) -> Result<Next, Closed> {
        self.reply(code, kind, message.as_bytes()).await?;
        Ok(Next::Goes)
    }

    async fn reply(&mut self, code: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        self.wire.write_all(&encode_reply(code, kind, data)).await?;
        self.wire.flush().await
    }
}

/// What a device says of itself, if a client may be told that.
fn described(export: &Export) -> Result<Description, Failure> {
    let description = export.device.describe()?;
    if description.blocks.are_valid() {
        return Ok(description);
    }
    let what = format!("{:?} are no block sizes of the protocol; this is a defect of the server", description.blocks);
    Err(Failure::new(FailureKind::Invalid, what))
}

/// The contexts that the queries pick, each once.
fn contexts(export: &Export, queries: &[String], set: bool) -> Result<Vec<String>, Failure> {
    let (mut seen, mut picked) = (HashSet::new(), Vec::new());
    for query in context_queries(queries, set) {
        let found = export.device.contexts(query, MAX_LISTED - picked.len())?;
        let fits = |name: &String| name.len() <= MAX_TEXT_LEN && query.picks(name);
        picked.extend(found.into_iter().filter(fits).filter(|name| seen.insert(name.clone())));
        picked.truncate(MAX_LISTED);
    }
    Ok(picked)
}

/// Reads bytes that nobody wants, without keeping them.
async fn skip(reader: &mut Wire, len: u32) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut reader.take(u64::from(len)), &mut tokio::io::sink()).await?;
    if skipped == u64::from(len) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
