//! What holds a message together on its way.

use super::answer::RANGE;
use super::{LOOKS, MOST_DATA, MOST_RANGES, Message, OLDEST, WireError};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a frame's header.
pub const HEADER: usize = 24;
const MAGIC: [u8; 4] = *b"OrRp";
/// The version that frames have before one is agreed.
pub(super) const UNAGREED: u16 = 0;
/// What is read at once, and kept for it: many small frames, or sixteen writes of a block.
const CHUNK: usize = 64 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`super::Hello`].
    Hello,
    /// See [`super::Welcome`].
    Welcome,
    /// See [`super::Farewell`].
    Farewell,
    /// See [`crate::message::Request`].
    Request,
    /// See [`crate::message::Answer`].
    Answer,
    /// See [`crate::look::Look`].
    Look,
    /// What a replica says to a look.
    Seen,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Hello, Self::Welcome, Self::Farewell, Self::Request, Self::Answer, Self::Look, Self::Seen];

    fn number(self) -> u16 {
        match self {
            Self::Hello => 1,
            Self::Welcome => 2,
            Self::Farewell => 3,
            Self::Request => 4,
            Self::Answer => 5,
            Self::Look => 6,
            Self::Seen => 7,
        }
    }

    /// Bytes of its head; each kind has one length.
    #[must_use]
    pub fn head(self) -> usize {
        match self {
            Self::Hello => 72,
            Self::Welcome => 8,
            Self::Farewell => 4,
            Self::Request | Self::Answer => 80,
            Self::Look => 72,
            Self::Seen => 16,
        }
    }

    /// The most data that can come with it.
    fn most_data(self) -> usize {
        match self {
            Self::Hello => super::MOST_NODE_NAME,
            Self::Welcome | Self::Look => 0,
            Self::Farewell => super::MOST_REASON,
            Self::Request | Self::Answer => MOST_DATA,
            Self::Seen => MOST_RANGES as usize * RANGE,
        }
    }

    /// The version that has it first.
    fn first_version(self) -> u16 {
        match self {
            Self::Hello | Self::Welcome | Self::Farewell => UNAGREED,
            Self::Request | Self::Answer => OLDEST,
            Self::Look | Self::Seen => LOOKS,
        }
    }

    fn is_before_agreement(self) -> bool {
        matches!(self, Self::Hello | Self::Welcome | Self::Farewell)
    }
}

/// A message, ready to be sent: its first bytes, which are made for it, and its data, which is where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    front: [u8; HEADER + 80],
    len: usize,
    data: Bytes,
}

impl Frame {
    /// Header and head.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        &self.front[..self.len]
    }

    /// What follows them.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Bytes in all.
    #[must_use]
    pub fn size(&self) -> usize {
        self.len + self.data.len()
    }
}

/// Puts a frame together: the head, field by field, then [`Builder::frame`].
pub(super) struct Builder {
    kind: Kind,
    front: [u8; HEADER + 80],
    len: usize,
}

impl Builder {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, front: [0; HEADER + 80], len: HEADER }
    }

    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) -> &mut Self {
        self.front[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
        self
    }

    pub(super) fn frame(&mut self, version: u16, data: Bytes) -> Frame {
        assert!(
            self.len == HEADER + self.kind.head() && data.len() <= self.kind.most_data(),
            "a frame has its lengths"
        );
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        let version = if self.kind.is_before_agreement() { UNAGREED } else { version };
        header[4..6].copy_from_slice(&version.to_le_bytes());
        header[6..8].copy_from_slice(&self.kind.number().to_le_bytes());
        // Both were compared with bounds that fit.
        header[8..12].copy_from_slice(&u32::try_from(self.kind.head()).unwrap_or_default().to_le_bytes());
        header[12..16].copy_from_slice(&u32::try_from(data.len()).unwrap_or_default().to_le_bytes());
        let payload = crc32c::crc32c_append(crc32c::crc32c(&self.front[HEADER..self.len]), &data);
        header[16..20].copy_from_slice(&payload.to_le_bytes());
        let own = crc32c::crc32c(&header[..20]);
        header[20..24].copy_from_slice(&own.to_le_bytes());
        self.front[..HEADER].copy_from_slice(&header);
        Frame { front: self.front, len: self.len, data }
    }
}

#[derive(Debug, Clone, Copy)]
struct Announced {
    kind: Kind,
    data: usize,
    checksum: u32,
}

impl Announced {
    fn decode(header: &[u8; HEADER], version: u16) -> Result<Self, WireError> {
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let magic = [header[0], header[1], header[2], header[3]];
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        if crc32c::crc32c(&header[..20]) != u32_at(20) {
            return Err(WireError::Checksum("header"));
        }
        let number = u16_at(6);
        let is_known = |kind: &Kind| kind.number() == number && kind.first_version() <= version;
        let kind = Kind::ALL.into_iter().find(is_known).ok_or(WireError::Kind(number))?;
        let expected = if kind.is_before_agreement() { UNAGREED } else { version };
        if u16_at(4) != expected {
            return Err(WireError::Version { found: u16_at(4), expected });
        }
        let (head, data) = (u32_at(8), u32_at(12));
        if usize::try_from(head) != Ok(kind.head()) {
            return Err(WireError::Length { kind, part: "head", len: head, allowed: kind.head() });
        }
        let allowed = kind.most_data();
        let fits = usize::try_from(data).ok().filter(|data| *data <= allowed);
        let data = fits.ok_or(WireError::Length { kind, part: "data", len: data, allowed })?;
        Ok(Self { kind, data, checksum: u32_at(16) })
    }
}

/// Takes messages out of what is received.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
    version: u16,
    announced: Option<Announced>,
}

impl Frames {
    /// Of a connection on which no version is agreed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on frames have this version.
    pub fn agreed(&mut self, version: u16) {
        self.version = version;
    }

    /// Where the next bytes are appended: there is room for as much of a frame as has been announced, or for many small ones.
    pub fn room(&mut self) -> &mut BytesMut {
        let wanted = self.announced.map_or(HEADER, |announced| announced.kind.head() + announced.data);
        let missing = wanted.saturating_sub(self.bytes.len());
        if self.bytes.capacity() - self.bytes.len() < missing.max(CHUNK / 16) {
            self.bytes.reserve(missing.max(CHUNK));
        }
        &mut self.bytes
    }

    /// Whether a frame has come in part.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.bytes.is_empty() && self.announced.is_none()
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// What has come is none; nothing more can be taken.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let announced = match self.announced {
            Some(announced) => announced,
            None => {
                let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
                let announced = Announced::decode(header, self.version)?;
                self.bytes.advance(HEADER);
                *self.announced.insert(announced)
            }
        };
        let head = announced.kind.head();
        if self.bytes.len() < head + announced.data {
            return Ok(None);
        }
        self.announced = None;
        let mut head = self.bytes.split_to(head + announced.data).freeze();
        if crc32c::crc32c(&head) != announced.checksum {
            return Err(WireError::Checksum("payload"));
        }
        let data = head.split_off(announced.kind.head());
        Message::decode(announced.kind, &head, data).map(Some)
    }
}
