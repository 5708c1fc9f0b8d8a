//! The messages. Pure.

use super::{MOST_NAME_LEN, MOST_STATE_LEN};

const MAGIC: [u8; 4] = *b"orlK";
const VERSION: u16 = 1;
const HEADER: usize = 16;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) name: String,
    pub(crate) state: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Keep,
    Take,
    Drop,
    Next,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) name: String,
    pub(crate) state: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Absent,
    /// By this process.
    Held(u32),
    Refused,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("this is no message of a keeper")]
    Foreign,
    #[error("this speaks version {0}, and here is version {VERSION}")]
    Version(u16),
    #[error("the message is cut off, too long, or has an unknown number in it")]
    Malformed,
}

impl Answer {
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self { outcome, name: String::new(), state: Vec::new() }
    }

    pub(crate) fn refused(why: &str) -> Self {
        Self { state: why.as_bytes().to_vec(), ..Self::new(Outcome::Refused) }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (outcome, process) = match self.outcome {
            Outcome::Done => (0, 0),
            Outcome::Absent => (1, 0),
            Outcome::Held(process) => (2, process),
            Outcome::Refused => (3, 0),
        };
        encode(outcome, process, &self.name, &self.state)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let (outcome, process, name, state) = decode(bytes)?;
        let outcome = match outcome {
            0 => Outcome::Done,
            1 => Outcome::Absent,
            2 => Outcome::Held(process),
            3 => Outcome::Refused,
            _ => return Err(Fault::Malformed),
        };
        Ok(Self { outcome, name, state })
    }
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let operation = match self.operation {
            Operation::Keep => 1,
            Operation::Take => 2,
            Operation::Drop => 3,
            Operation::Next => 4,
        };
        encode(operation, 0, &self.name, &self.state)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let (operation, _, name, state) = decode(bytes)?;
        let operation = match operation {
            1 => Operation::Keep,
            2 => Operation::Take,
            3 => Operation::Drop,
            4 => Operation::Next,
            _ => return Err(Fault::Malformed),
        };
        if name.is_empty() && operation != Operation::Next {
            return Err(Fault::Malformed);
        }
        Ok(Self { operation, name, state })
    }
}

fn encode(code: u16, process: u32, name: &str, state: &[u8]) -> Vec<u8> {
    let short = |len: usize| u16::try_from(len).expect("names and states were checked for their length");
    let mut bytes = Vec::with_capacity(HEADER + name.len() + state.len());
    bytes.extend(MAGIC);
    for number in [VERSION, code, short(name.len()), short(state.len())] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(process.to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(state);
    bytes
}

fn decode(bytes: &[u8]) -> Result<(u16, u32, String, Vec<u8>), Fault> {
    if bytes.get(..4) != Some(&MAGIC) {
        return Err(Fault::Foreign);
    }
    let short = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map(|two| u16::from_le_bytes(*two));
    let version = short(4).ok_or(Fault::Malformed)?;
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let body = bytes.get(HEADER..).ok_or(Fault::Malformed)?;
    let process = bytes[12..].first_chunk().map(|four| u32::from_le_bytes(*four)).ok_or(Fault::Malformed)?;
    let [code, name_len, state_len] = [6, 8, 10].map(|at| short(at).unwrap_or_default());
    let (name, state) = body.split_at_checked(usize::from(name_len)).ok_or(Fault::Malformed)?;
    let fits = name.len() <= MOST_NAME_LEN && state.len() <= MOST_STATE_LEN;
    if !fits || state.len() != usize::from(state_len) {
        return Err(Fault::Malformed);
    }
    let name = std::str::from_utf8(name).map_err(|_| Fault::Malformed)?;
    Ok((code, process, name.to_owned(), state.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_that_of_version_1() {
        let keep = Request { operation: Operation::Keep, name: "ab".into(), state: vec![9, 8, 7] };
        assert_eq!(keep.encode(), b"orlK\x01\0\x01\0\x02\0\x03\0\0\0\0\0ab\x09\x08\x07");
        let held = Answer::new(Outcome::Held(0x0102));
        assert_eq!(held.encode(), b"orlK\x01\0\x02\0\0\0\0\0\x02\x01\0\0");
    }

    #[test]
    fn other_versions_and_other_protocols_are_told_apart() {
        let mut bytes = Request { operation: Operation::Take, name: "a".into(), state: Vec::new() }.encode();
        bytes[4] = 2;
        assert_eq!(Request::decode(&bytes), Err(Fault::Version(2)));
        bytes[0] = b'x';
        assert_eq!(Request::decode(&bytes), Err(Fault::Foreign));
        let long = Request { operation: Operation::Take, name: "a".repeat(129), state: Vec::new() };
        assert_eq!(Request::decode(&long.encode()), Err(Fault::Malformed));
        let nameless = Request { operation: Operation::Drop, name: String::new(), state: Vec::new() };
        assert_eq!(Request::decode(&nameless.encode()), Err(Fault::Malformed));
    }

    proptest! {
        #[test]
        fn messages_survive_the_way_and_nothing_else_is_one(
            code in 0_u16..6, process: u32, name in "[a-zé]{0,40}", state in proptest::collection::vec(any::<u8>(), 0..40), cut: prop::sample::Index,
        ) {
            let bytes = encode(code, process, &name, &state);
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode()[..12].to_vec(), bytes[..12].to_vec());
                prop_assert_eq!((&request.name, &request.state), (&name, &state));
            }
            match Answer::decode(&bytes) {
                Ok(answer) => prop_assert_eq!((&answer.name, &answer.state), (&name, &state)),
                Err(_) => prop_assert!(code > 3),
            }
            let cut = cut.index(bytes.len());
            prop_assert!(Answer::decode(&bytes[..cut]).is_err());
        }

        #[test]
        fn whatever_comes_there_is_no_panic(bytes: Vec<u8>) {
            let _ = (Request::decode(&bytes), Answer::decode(&bytes));
            let _ = Request::decode(&[&b"orlK\x01\0"[..], &bytes].concat());
        }
    }
}
