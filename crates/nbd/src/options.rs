//! Options of the handshake: what a client asks for, and the replies. Pure.

use crate::limits::MAX_TEXT_LEN;
use crate::wire::{self, Input, info, option, transmission_flag};
use block::{BlockSizes, ContextQuery, Description};

/// What a client asks for before it reads or writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To begin at once with an export, the old way, which knows no refusal.
    ExportName(String),
    Abort,
    List,
    /// To be told of an export, or to begin with it.
    Info {
        name: String,
        wanted: Vec<u16>,
        go: bool,
    },
    StructuredReply,
    /// To be told of the contexts of an export, or to have them in this connection.
    Contexts {
        name: String,
        queries: Vec<String>,
        set: bool,
    },
    /// To be encrypted from now on.
    Tls,
    /// Something of a later protocol.
    Other(u32),
}

/// Why the data of an option is not what the option has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Wrong(pub(crate) &'static str);

impl Asked {
    /// Reads an option from its data.
    pub(crate) fn decode(code: u32, data: &[u8]) -> Result<Self, Wrong> {
        match code {
            option::EXPORT_NAME => {
                let name = std::str::from_utf8(data).map_err(|_| Wrong("the name is not UTF-8"))?;
                Ok(Self::ExportName(checked_text(name)?))
            }
            option::ABORT => Ok(Self::Abort),
            option::LIST => empty(data).map(|()| Self::List),
            option::STRUCTURED_REPLY => empty(data).map(|()| Self::StructuredReply),
            option::START_TLS => empty(data).map(|()| Self::Tls),
            option::INFO | option::GO => decode_info(data, code == option::GO),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                decode_contexts(data, code == option::SET_META_CONTEXT)
            }
            other => Ok(Self::Other(other)),
        }
    }
}

fn empty(data: &[u8]) -> Result<(), Wrong> {
    if data.is_empty() { Ok(()) } else { Err(Wrong("the option takes no data")) }
}

fn checked_text(text: &str) -> Result<String, Wrong> {
    match text.len() <= MAX_TEXT_LEN {
        true => Ok(text.to_owned()),
        false => Err(Wrong("a text is longer than 4096 bytes")),
    }
}

fn text(input: &mut Input<'_>) -> Result<String, Wrong> {
    checked_text(input.text().ok_or(Wrong("a text is cut off, or not UTF-8"))?)
}

fn decode_info(data: &[u8], go: bool) -> Result<Asked, Wrong> {
    let cut = Wrong("the list of information is cut off");
    let mut input = Input::new(data);
    let name = text(&mut input)?;
    let count = input.u16().ok_or(cut)?;
    let mut wanted = Vec::new();
    for _ in 0..count {
        wanted.push(input.u16().ok_or(cut)?);
    }
    empty(input.rest()).map_err(|_| Wrong("there is more after the list of information"))?;
    Ok(Asked::Info { name, wanted, go })
}

fn decode_contexts(data: &[u8], set: bool) -> Result<Asked, Wrong> {
    let mut input = Input::new(data);
    let name = text(&mut input)?;
    let count = input.u32().ok_or(Wrong("the list of queries is cut off"))?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(text(&mut input)?);
    }
    empty(input.rest()).map_err(|_| Wrong("there is more after the list of queries"))?;
    Ok(Asked::Contexts { name, queries, set })
}

/// What a device is asked for the queries of a client.
///
/// A query is a name, or the begin of some: a namespace with its colon, or a family of contexts up to the sign that a value follows, as in
/// `orlop:changed-since=`. To be told, one may ask for all that begin so, or without a query for all that there are; to have them, each
/// must be named.
pub(crate) fn context_queries(queries: &[String], set: bool) -> Vec<ContextQuery<'_>> {
    if queries.is_empty() && !set {
        return vec![ContextQuery::Beginning("")];
    }
    let is_begin = |query: &String| query.ends_with(':') || query.ends_with('=');
    let ask = |query| if is_begin(query) { ContextQuery::Beginning(query) } else { ContextQuery::Named(query) };
    queries.iter().filter(|query| !set || !is_begin(query)).map(ask).collect()
}

/// One reply to an option.
pub(crate) fn encode_reply(code: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("replies to options are short");
    let mut out = Vec::with_capacity(20 + data.len());
    out.extend(wire::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(code.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(data);
    out
}

/// The data of a reply that names an export.
pub(crate) fn encode_server(name: &str, description: &str) -> Vec<u8> {
    let len = u32::try_from(name.len()).expect("names of exports have at most 4096 bytes");
    [&len.to_be_bytes()[..], name.as_bytes(), description.as_bytes()].concat()
}

/// The data of a reply that names a context.
pub(crate) fn encode_context(id: u32, name: &str) -> Vec<u8> {
    [&id.to_be_bytes()[..], name.as_bytes()].concat()
}

/// Size and flags of an export.
pub(crate) fn encode_export(description: &Description, structured: bool) -> Vec<u8> {
    [&description.size.to_be_bytes()[..], &transmission_flags(description, structured).to_be_bytes()].concat()
}

/// The pieces of information about an export that a client gets: always its size, its block sizes too since they bind him, and the texts that
/// he wants.
pub(crate) fn encode_infos(
    description: &Description,
    structured: bool,
    name: &str,
    text: &str,
    wanted: &[u16],
) -> Vec<Vec<u8>> {
    let with_kind = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], data].concat();
    let mut infos = vec![with_kind(info::EXPORT, &encode_export(description, structured))];
    if wanted.contains(&info::NAME) {
        infos.push(with_kind(info::NAME, name.as_bytes()));
    }
    if wanted.contains(&info::DESCRIPTION) && !text.is_empty() {
        infos.push(with_kind(info::DESCRIPTION, text.as_bytes()));
    }
    infos.push(encode_block_size(description.blocks));
    infos
}

/// The piece of information that says what requests must look like.
pub(crate) fn encode_block_size(blocks: BlockSizes) -> Vec<u8> {
    let BlockSizes { minimum, preferred, maximum } = blocks;
    [&info::BLOCK_SIZE.to_be_bytes()[..], &[minimum, preferred, maximum].map(u32::to_be_bytes).concat()].concat()
}

fn transmission_flags(description: &Description, structured: bool) -> u16 {
    let features = description.features;
    let writes = features.write;
    let mut flags = transmission_flag::HAS_FLAGS;
    for (has, flag) in [
        (!writes, transmission_flag::READ_ONLY),
        (writes && features.flush, transmission_flag::SEND_FLUSH),
        (writes && features.durable_writes, transmission_flag::SEND_FUA),
        (writes && features.discard, transmission_flag::SEND_TRIM),
        (writes && features.write_zeroes, transmission_flag::SEND_WRITE_ZEROES),
        (structured, transmission_flag::SEND_DF),
        (features.several_connections, transmission_flag::CAN_MULTI_CONN),
    ] {
        if has {
            flags |= flag;
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::Features;
    use proptest::prelude::*;

    fn put(out: &mut Vec<u8>, text: &str) {
        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend(text.as_bytes());
    }

    fn info_data(name: &str, wanted: &[u16]) -> Vec<u8> {
        let mut data = Vec::new();
        put(&mut data, name);
        data.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
        wanted.iter().for_each(|kind| data.extend(kind.to_be_bytes()));
        data
    }

    fn contexts_data(name: &str, queries: &[String]) -> Vec<u8> {
        let mut data = Vec::new();
        put(&mut data, name);
        data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
        queries.iter().for_each(|query| put(&mut data, query));
        data
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_wrong() {
        let whole = info_data("disk", &[info::NAME, info::BLOCK_SIZE]);
        assert!(Asked::decode(option::GO, &whole).is_ok());
        for cut in 0..whole.len() {
            assert!(Asked::decode(option::GO, &whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Asked::decode(option::GO, &[&whole[..], b"x"].concat()).is_err());
        let whole = contexts_data("disk", &["base:".to_owned(), "x:y".to_owned()]);
        for cut in 0..whole.len() {
            assert!(Asked::decode(option::SET_META_CONTEXT, &whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Asked::decode(option::LIST, b"x").is_err());
        assert!(Asked::decode(option::EXPORT_NAME, &[0xff]).is_err());
        assert!(Asked::decode(option::EXPORT_NAME, &vec![b'a'; 4097]).is_err());
        assert_eq!(Asked::decode(option::EXPORT_NAME, b""), Ok(Asked::ExportName(String::new())));
        // A count that no data could hold reserves nothing.
        let claimed = [&0_u32.to_be_bytes()[..], &u32::MAX.to_be_bytes()].concat();
        assert!(Asked::decode(option::SET_META_CONTEXT, &claimed).is_err());
    }

    #[test]
    fn contexts_are_told_by_begin_and_had_by_name() {
        use ContextQuery::{Beginning, Named};
        let check = |queries: &[&str], set, expected: &[ContextQuery<'_>]| {
            let queries: Vec<_> = queries.iter().map(|query| (*query).to_owned()).collect();
            assert_eq!(context_queries(&queries, set), expected, "{queries:?}");
        };
        check(&[], false, &[Beginning("")]);
        check(&[], true, &[]);
        check(&["base:"], false, &[Beginning("base:")]);
        check(&["base:"], true, &[]);
        check(
            &["orlop:changed-since=", "base:allocation"],
            false,
            &[Beginning("orlop:changed-since="), Named("base:allocation")],
        );
        check(&["orlop:changed-since=", "base:allocation"], true, &[Named("base:allocation")]);
    }

    #[test]
    fn a_read_only_device_offers_nothing_that_writes() {
        let all = Features { write: false, ..Features::ALL };
        let description = |features| Description { size: 5, blocks: BlockSizes::ASSUMED, features };
        assert_eq!(encode_export(&description(all), true), [0, 0, 0, 0, 0, 0, 0, 5, 0b1, 0b1000_0011]);
        assert_eq!(encode_export(&description(Features { write: true, ..all }), false)[8..], [0b1, 0b0110_1101]);
        assert_eq!(encode_export(&description(Features::default()), false)[8..], [0, 0b11]);
    }

    proptest! {
        #[test]
        fn options_survive(name in "[a-zé/]{0,40}", wanted: Vec<u16>, queries: Vec<String>, go: bool) {
            let code = if go { option::GO } else { option::INFO };
            let asked = Asked::Info { name: name.clone(), wanted: wanted.clone(), go };
            prop_assert_eq!(Asked::decode(code, &info_data(&name, &wanted)), Ok(asked));
            let code = if go { option::SET_META_CONTEXT } else { option::LIST_META_CONTEXT };
            let data = contexts_data(&name, &queries);
            prop_assert_eq!(Asked::decode(code, &data), Ok(Asked::Contexts { name, queries, set: go }));
        }

        #[test]
        fn arbitrary_bytes_never_panic(code in 0_u32..13, data: Vec<u8>) {
            let _ = Asked::decode(code, &data);
        }
    }
}
