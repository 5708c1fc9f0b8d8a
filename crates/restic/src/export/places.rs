//! Where the contents of a recovery point go in a snapshot.
//!
//! Folders of a machine go where they were, as restic itself would store them. What belongs to an application goes below names that say what
//! it is. Names come from the repository, so each part is made one that is a file name.

use std::collections::BTreeMap;

use ::repository::{RecoveryPoint, Root, RootKind, Source, TableRef};

use crate::format::Id;

/// The longest name of a file, in bytes.
const NAME_LEN: usize = 255;
/// What is kept of a longer name, in bytes; a hash follows, and what the name ends with.
const KEPT_LEN: usize = 200;

/// A folder of the snapshot that is no content itself, or a content.
pub(super) enum Place<'a> {
    Folder(BTreeMap<Vec<u8>, Place<'a>>),
    Content(Content<'a>),
}

/// Something that is stored.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Tree(&'a Root),
    Volume(&'a Root),
    Stream(&'a Root),
    Objects(TableRef),
    Ledger(TableRef),
    /// The recovery point itself, of an application.
    Document,
}

/// The top of a snapshot, and the paths of its contents.
pub(super) struct Places<'a> {
    pub(super) top: Place<'a>,
    pub(super) paths: Vec<String>,
}

impl<'a> Places<'a> {
    /// Finds a place for everything in a recovery point.
    pub(super) fn of(point: &'a RecoveryPoint) -> Self {
        let application = matches!(point.source, Source::Application { .. });
        let mut places = Self { top: Place::Folder(BTreeMap::new()), paths: Vec::new() };
        let whole = match &point.roots[..] {
            [root] => !application && root.kind == RootKind::Tree && parts(&root.name).is_empty(),
            _ => false,
        };
        if whole {
            places.top = Place::Content(Content::Tree(&point.roots[0]));
            places.paths.push("/".to_owned());
            return places;
        }
        let extra = [
            ("objects", point.objects.map(Content::Objects)),
            ("ledger.jsonl", point.ledger.map(Content::Ledger)),
            ("recovery-point.json", application.then_some(Content::Document)),
        ];
        for (name, content) in extra {
            if let Some(content) = content {
                places.put(vec![name.as_bytes().to_vec()], content);
            }
        }
        for root in &point.roots {
            places.put_root(root, application);
        }
        places.paths.sort_unstable();
        places
    }

    fn put_root(&mut self, root: &'a Root, application: bool) {
        let mut path = parts(&root.name);
        if application {
            path.insert(0, b"volumes".to_vec());
        }
        if path.is_empty() {
            path.push(b"root".to_vec());
        }
        let content = match root.kind {
            RootKind::Tree => Content::Tree(root),
            RootKind::Volume => Content::Volume(root),
            RootKind::Stream => Content::Stream(root),
        };
        if root.kind == RootKind::Volume
            && let Some(name) = path.last_mut().filter(|name| !name.ends_with(b".img"))
        {
            *name = fit(name, b".img");
        }
        self.put(path, content);
    }

    /// Puts a content at a path, or where that is taken, or lies within another content, beside the others at the top.
    fn put(&mut self, path: Vec<Vec<u8>>, content: Content<'a>) {
        let beside = path.join(&b'_');
        let others = (1..).map(|number| match number {
            1 => vec![fit(&beside, b"")],
            _ => vec![fit(&beside, format!("~{number}").as_bytes())],
        });
        let free = std::iter::once(path).chain(others).find(|path| self.top.is_free(path));
        if let Some(path) = free {
            let text: Vec<_> = path.iter().map(|name| String::from_utf8_lossy(name)).collect();
            self.paths.push(format!("/{}", text.join("/")));
            self.top.insert(&path, content);
        }
    }
}

impl<'a> Place<'a> {
    fn is_free(&self, path: &[Vec<u8>]) -> bool {
        match (self, path) {
            (Self::Content(_), _) | (Self::Folder(_), []) => false,
            (Self::Folder(places), [name, rest @ ..]) => places.get(name).is_none_or(|place| place.is_free(rest)),
        }
    }

    /// Puts a content where it is free.
    fn insert(&mut self, path: &[Vec<u8>], content: Content<'a>) {
        if let (Self::Folder(places), [name, rest @ ..]) = (self, path) {
            let new = if rest.is_empty() { Self::Content(content) } else { Self::Folder(BTreeMap::new()) };
            places.entry(name.clone()).or_insert(new).insert(rest, content);
        }
    }
}

/// The parts of a name that was chosen by somebody, as file names.
fn parts(name: &str) -> Vec<Vec<u8>> {
    name.split('/').filter(|part| !part.is_empty()).map(|part| file_name(part, "")).collect()
}

/// Text as the name of a file that ends with `end`; equal names come from equal texts.
///
/// A slash, a percent sign and a zero byte are written as a percent sign and two digits, and so is the first byte of `.` and `..`.
pub(super) fn file_name(text: &str, end: &str) -> Vec<u8> {
    let mut name = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '/' | '%' | '\0' => name.push_str(&format!("%{:02X}", u32::from(letter))),
            _ => name.push(letter),
        }
    }
    if matches!(name.as_str(), "." | "..") {
        name.replace_range(..1, "%2E");
    }
    fit(name.as_bytes(), end.as_bytes())
}

/// A name with this end that is not too long for a file: of a longer one a part is kept, and a hash of all of it.
fn fit(name: &[u8], end: &[u8]) -> Vec<u8> {
    if name.len() + end.len() <= NAME_LEN {
        return [name, end].concat();
    }
    let hash = Id::of(name).to_string();
    [&name[..KEPT_LEN], b"~", &hash.as_bytes()[..16], end].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_file_name_of_its_own() {
        let check = |text: &str, expected: &[u8]| assert_eq!(file_name(text, ".json"), expected, "{text}");
        check("web", b"web.json");
        check("system:node", b"system:node.json");
        check("a/../b", b"a%2F..%2Fb.json");
        check("%2F", b"%252F.json");
        assert_eq!(file_name("..", ""), b"%2E.");
        assert_eq!(file_name(".", ""), b"%2E");
        let long = |last: &str| file_name(&format!("{}{last}", "x".repeat(252)), ".json");
        assert_eq!(long("a").len(), KEPT_LEN + 1 + 16 + 5);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn contents_do_not_lie_in_each_other() {
        let root = |name: &str| parts(name);
        let mut places = Places { top: Place::Folder(BTreeMap::new()), paths: Vec::new() };
        for name in ["/srv/data", "/srv/data/sub", "/srv", "/srv/other", "/srv/data", "srv", "/a/../b"] {
            places.put(root(name), Content::Document);
        }
        let expected = ["/srv/data", "/srv_data_sub", "/srv~2", "/srv/other", "/srv_data", "/srv~3", "/a/%2E./b"];
        assert_eq!(places.paths, expected);
    }
}
