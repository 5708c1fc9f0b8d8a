//! The handshake of one connection: which export, and which extensions of the protocol.

use crate::connection::{Reader, Writer};
use crate::device::{Description, Failure};
use crate::limits::{MAX_OPTION_LEN, MAX_OPTIONS, MAX_SKIPPED_LEN};
use crate::options::{
    Asked, Wrong, encode_block_size, encode_context, encode_export, encode_infos, encode_reply, encode_server, pick,
};
use crate::server::Export;
use crate::wire::{self, handshake_flag, info, option, option_reply};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Why a connection is closed by the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("read from or write to the client")]
    Io(#[from] io::Error),
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

/// What a handshake works on.
pub(crate) struct Handshake<'a> {
    reader: &'a mut Reader,
    writer: &'a mut Writer,
    exports: &'a [Export],
    no_zeroes: bool,
    structured: bool,
    /// The export whose contexts were chosen, and which.
    contexts: Option<(String, Vec<(u32, String)>)>,
}

/// What an option leads to.
enum Next {
    Goes,
    Left,
    Begins(Ready),
}

/// Agrees with a client; nothing when he leaves.
pub(crate) async fn negotiate(
    reader: &mut Reader,
    writer: &mut Writer,
    exports: &[Export],
) -> Result<Option<Ready>, Closed> {
    let offered = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    writer.write_all(&wire::INIT_MAGIC.to_be_bytes()).await?;
    writer.write_all(&wire::OPTION_MAGIC.to_be_bytes()).await?;
    writer.write_all(&offered.to_be_bytes()).await?;
    writer.flush().await?;
    let flags = reader.read_u32().await?;
    if flags & !u32::from(offered) != 0 {
        return Err(Closed::Broken(format!("it answered with the unknown flags {flags:#010x}")));
    }
    let no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
    let mut handshake = Handshake { reader, writer, exports, no_zeroes, structured: false, contexts: None };
    for _ in 0..MAX_OPTIONS {
        match handshake.option().await? {
            Next::Goes => {}
            Next::Left => return Ok(None),
            Next::Begins(ready) => return Ok(Some(ready)),
        }
    }
    Err(Closed::Broken(format!("it sent {MAX_OPTIONS} options and began nothing")))
}

impl Handshake<'_> {
    async fn option(&mut self) -> Result<Next, Closed> {
        if self.reader.read_u64().await? != wire::OPTION_MAGIC {
            return Err(Closed::Broken("an option does not begin as one".to_owned()));
        }
        let (code, len) = (self.reader.read_u32().await?, self.reader.read_u32().await?);
        if len > MAX_OPTION_LEN {
            return self.too_long(code, len).await;
        }
        let mut data = vec![0; len as usize];
        self.reader.read_exact(&mut data).await?;
        match Asked::decode(code, &data) {
            Ok(asked) => self.answer(code, asked).await,
            // Here there is no reply that would say so.
            Err(Wrong(what)) if code == option::EXPORT_NAME => Err(Closed::Broken(what.to_owned())),
            Err(Wrong(what)) => self.refuse(code, option_reply::INVALID, what).await,
        }
    }

    async fn too_long(&mut self, code: u32, len: u32) -> Result<Next, Closed> {
        if code == option::EXPORT_NAME || len > MAX_SKIPPED_LEN {
            return Err(Closed::Broken(format!("an option has {len} bytes")));
        }
        skip(self.reader, len).await?;
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
            Asked::Tls => {
                self.refuse(code, option_reply::UNSUPPORTED, "the server has no TLS; connect to it in clear").await
            }
            Asked::Other(_) => {
                self.refuse(code, option_reply::UNSUPPORTED, "the server does not know the option").await
            }
        }
    }

    /// An export by its name; the empty name stands for the only one.
    fn find(&self, name: &str) -> Option<Export> {
        let named = self.exports.iter().find(|export| export.name == name);
        let only = if let ([only], "") = (self.exports, name) { Some(only) } else { None };
        named.or(only).cloned()
    }

    async fn begin_the_old_way(&mut self, name: &str) -> Result<Next, Closed> {
        let Some(export) = self.find(name) else {
            return Err(Closed::Broken(format!("there is no export {name:?}")));
        };
        let description = described(&export).await?;
        if description.blocks.minimum > 1 {
            return Err(Closed::Broken(
                "it does not ask for the block size, which it would have to keep to".to_owned(),
            ));
        }
        self.writer.write_all(&encode_export(&description, self.structured)).await?;
        if !self.no_zeroes {
            self.writer.write_all(&[0; 124]).await?;
        }
        self.writer.flush().await?;
        Ok(Next::Begins(self.ready(export, description)))
    }

    fn ready(&mut self, export: Export, description: Description) -> Ready {
        let chosen = self.contexts.take().filter(|(name, _)| *name == export.name);
        let contexts = chosen.map(|(_, contexts)| contexts).unwrap_or_default();
        Ready { export, description, structured: self.structured, contexts }
    }

    async fn list(&mut self, code: u32) -> Result<Next, Closed> {
        for export in self.exports {
            self.reply(code, option_reply::SERVER, &encode_server(&export.name, &export.description)).await?;
        }
        self.acknowledge(code).await
    }

    async fn info(&mut self, code: u32, name: &str, wanted: &[u16], go: bool) -> Result<Next, Closed> {
        let Some(export) = self.find(name) else {
            return self.refuse(code, option_reply::UNKNOWN, "there is no export of this name").await;
        };
        let description = match described(&export).await {
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
        let description = match described(&export).await {
            Ok(description) => description,
            Err(failure) => return self.refuse(code, option_reply::PLATFORM, &failure.message).await,
        };
        let picked = pick(&description.contexts, queries, set);
        let numbered: Vec<_> = (1..).zip(picked.into_iter().cloned()).collect();
        for (id, context) in &numbered {
            self.reply(code, option_reply::META_CONTEXT, &encode_context(*id, context)).await?;
        }
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
        self.writer.write_all(&encode_reply(code, kind, data)).await?;
        self.writer.flush().await
    }
}

/// What a device says of itself, if a client may be told that.
async fn described(export: &Export) -> Result<Description, Failure> {
    let description = export.device.describe().await?;
    if description.blocks.are_valid() {
        return Ok(description);
    }
    let what = format!("{:?} are no block sizes of the protocol; this is a defect of the server", description.blocks);
    Err(Failure::new(crate::FailureKind::Invalid, what))
}

/// Reads bytes that nobody wants, without keeping them.
pub(crate) async fn skip(reader: &mut Reader, len: u32) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut reader.take(u64::from(len)), &mut tokio::io::sink()).await?;
    if skipped == u64::from(len) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
