//! Entries of listings: files, folders and other things, as JSON with the fields in the order in which restic writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;

use super::error::{Error, Result};
use super::{Id, go_text};

/// The permission bits.
const PERMISSIONS: u32 = 0o777;
/// Bits of Go's file modes, which are not those of Unix.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SET_USER_ID: u32 = 1 << 23;
const GO_SET_GROUP_ID: u32 = 1 << 22;
const GO_CHARACTER_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

/// What is known of a file, without its name.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: NodeKind,
    /// Permissions with set-user-id, set-group-id and sticky, as Unix has them.
    pub mode: u32,
    pub modified: Timestamp,
    pub changed: Timestamp,
    pub uid: u32,
    pub gid: u32,
    pub inode: u64,
    /// The device that it is on.
    pub device: u64,
    /// How many names it has.
    pub links: u64,
    pub attributes: Vec<Attribute>,
}

/// What differs between kinds of files.
#[derive(Debug, Clone)]
pub enum NodeKind {
    File { size: u64, content: Vec<Id> },
    Directory { subtree: Id },
    Symlink { target: Vec<u8> },
    Fifo,
    CharacterDevice { number: u64 },
    BlockDevice { number: u64 },
}

/// An extended attribute.
#[derive(Debug, Clone, Serialize)]
pub struct Attribute {
    pub name: String,
    #[serde(serialize_with = "base64")]
    pub value: Vec<u8>,
}

/// The bits of a mode above the permissions, and what Go has for them.
const SPECIAL_BITS: [(u32, u32); 3] = [(0o4000, GO_SET_USER_ID), (0o2000, GO_SET_GROUP_ID), (0o1000, GO_STICKY)];

/// A node as it is written. The name comes before, because names of one file differ in nothing else.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    mode: u32,
    mtime: Timestamp,
    /// The time of access is not stored; restic without `--with-atime` writes this, too.
    atime: Timestamp,
    ctime: Timestamp,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<String>,
    /// The target where it is no text; restic before 0.17 does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget_raw: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    extended_attributes: &'a [Attribute],
    #[serde(skip_serializing_if = "is_zero")]
    device: u64,
    content: Option<&'a [Id]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<Id>,
}

impl Node {
    /// The JSON of everything but the name, without the brace that opens it; [`named`] puts a name before it.
    pub fn body(&self) -> Result<Vec<u8>> {
        let kind = &self.kind;
        let links = match kind {
            NodeKind::Directory { .. } | NodeKind::Fifo => 0,
            _ => self.links,
        };
        let mut body = Body {
            kind: kind.name(),
            mode: go_mode(self.mode, kind),
            mtime: self.modified,
            atime: self.modified,
            ctime: self.changed,
            uid: self.uid,
            gid: self.gid,
            inode: self.inode,
            device_id: self.device,
            size: 0,
            links,
            linktarget: None,
            linktarget_raw: None,
            extended_attributes: &self.attributes,
            device: 0,
            content: None,
            subtree: None,
        };
        match kind {
            NodeKind::File { size, content } => (body.size, body.content) = (*size, Some(&content[..])),
            NodeKind::Directory { subtree } => body.subtree = Some(*subtree),
            NodeKind::Symlink { target } => {
                body.linktarget = Some(String::from_utf8_lossy(target).into_owned()).filter(|text| !text.is_empty());
                body.linktarget_raw = std::str::from_utf8(target).is_err().then(|| STANDARD.encode(target));
            }
            NodeKind::CharacterDevice { number } | NodeKind::BlockDevice { number } => body.device = *number,
            NodeKind::Fifo => {}
        }
        let json = go_text::json(&body).map_err(|error| unfit(&error))?;
        Ok(json[1..].to_vec())
    }
}

impl NodeKind {
    fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory { .. } => "dir",
            Self::Symlink { .. } => "symlink",
            Self::Fifo => "fifo",
            Self::CharacterDevice { .. } => "chardev",
            Self::BlockDevice { .. } => "dev",
        }
    }
}

/// Appends a node with this name.
pub(super) fn named(name: &[u8], body: &[u8], json: &mut Vec<u8>) -> Result<()> {
    json.extend_from_slice(b"{\"name\":");
    json.extend(go_text::json(&go_text::quote(name)).map_err(|error| unfit(&error))?);
    json.push(b',');
    json.extend_from_slice(body);
    Ok(())
}

fn go_mode(mode: u32, kind: &NodeKind) -> u32 {
    let special = SPECIAL_BITS.iter().filter(|(unix, _)| mode & unix != 0).map(|(_, go)| go).sum::<u32>();
    let kind = match kind {
        NodeKind::File { .. } => 0,
        NodeKind::Directory { .. } => GO_DIRECTORY,
        NodeKind::Symlink { .. } => GO_SYMLINK,
        NodeKind::Fifo => GO_FIFO,
        NodeKind::CharacterDevice { .. } => GO_DEVICE | GO_CHARACTER_DEVICE,
        NodeKind::BlockDevice { .. } => GO_DEVICE,
    };
    mode & PERMISSIONS | special | kind
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn unfit(error: &serde_json::Error) -> Error {
    Error::DoesNotFit { what: "an entry of a listing".to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: NodeKind, mode: u32) -> String {
        let modified = "2026-11-25T23:12:25.0938401Z".parse().expect("a time");
        let node = Node {
            kind,
            mode,
            modified,
            changed: Timestamp::UNIX_EPOCH,
            uid: 0,
            gid: 5,
            inode: 7,
            device: 0,
            links: 1,
            attributes: vec![Attribute { name: "user.a".to_owned(), value: b"b".to_vec() }],
        };
        let mut json = Vec::new();
        named(b"<\xff>", &node.body().expect("JSON"), &mut json).expect("JSON");
        String::from_utf8(json).expect("text")
    }

    /// What restic 0.14 wrote for such files, but for the attributes.
    #[test]
    fn nodes_have_the_fields_of_restic_in_its_order() {
        let start = r#"{"name":"\u003c\\xff\u003e","type":"#;
        let times = r#""mtime":"2026-11-25T23:12:25.0938401Z","atime":"2026-11-25T23:12:25.0938401Z","ctime":"1970-01-01T00:00:00Z""#;
        let extended = r#""extended_attributes":[{"name":"user.a","value":"Yg=="}]"#;
        let check = |kind, mode, begin: &str, middle: &str, end: &str| {
            let expected = format!(r#"{start}{begin},{times},"uid":0,"gid":5,"inode":7,{middle}{extended},{end}}}"#);
            assert_eq!(text(kind, mode), expected);
        };
        let id = Id::of(b"");
        let file = NodeKind::File { size: 1, content: vec![id] };
        check(file, 0o4755, r#""file","mode":8389101"#, r#""size":1,"links":1,"#, &format!(r#""content":["{id}"]"#));
        let empty = NodeKind::File { size: 0, content: vec![] };
        check(empty, 0o644, r#""file","mode":420"#, r#""links":1,"#, r#""content":[]"#);
        let end = format!(r#""content":null,"subtree":"{id}""#);
        check(NodeKind::Directory { subtree: id }, 0o755, r#""dir","mode":2147484141"#, "", &end);
        let null = r#""content":null"#;
        check(NodeKind::Fifo, 0o644, r#""fifo","mode":33554852"#, "", null);
        let target = |target: &[u8]| NodeKind::Symlink { target: target.to_vec() };
        let one = r#""links":1,"linktarget":"one","#;
        check(target(b"one"), 0o777, r#""symlink","mode":134218239"#, one, null);
        let raw = "\"links\":1,\"linktarget\":\"\u{fffd}\",\"linktarget_raw\":\"/w==\",";
        check(target(b"\xff"), 0o777, r#""symlink","mode":134218239"#, raw, null);
        let device = r#""device":259,"content":null"#;
        check(
            NodeKind::CharacterDevice { number: 259 },
            0o644,
            r#""chardev","mode":69206436"#,
            r#""links":1,"#,
            device,
        );
        let device = r#""device":1792,"content":null"#;
        check(NodeKind::BlockDevice { number: 1792 }, 0o644, r#""dev","mode":67109284"#, r#""links":1,"#, device);
    }
}
