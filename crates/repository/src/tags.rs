//! Tags: words that people give to recovery points, to find them and to keep them by.

use crate::codec::Malformed;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeSet;
use std::fmt;

/// How many tags a recovery point has at most: they are for people, and are read with every list.
pub const MAX_TAGS: usize = 32;

/// A word of 1 to 63 characters of `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`, `:`, `/` and `=`, which begins with a letter or a digit.
///
/// No comma and no blank, so that lists of tags need no quoting anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Tag(String);

impl Tag {
    /// The longest tag, in bytes.
    pub const MAX_LEN: usize = 63;

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Tag {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/=".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= Self::MAX_LEN && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(Malformed::new(format!(
            "{text:?} is no tag: 1 to {} characters of a-z, A-Z, 0-9 and ._-:/=, of which the first is a letter or a digit",
            Self::MAX_LEN
        )))
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The tags of a recovery point: each once, in the order of their bytes, and not too many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tags(BTreeSet<Tag>);

impl Tags {
    /// Sorts the tags and drops repeated ones; refuses more than [`MAX_TAGS`].
    pub fn new(tags: impl IntoIterator<Item = Tag>) -> Result<Self, Malformed> {
        let tags: BTreeSet<_> = tags.into_iter().collect();
        if tags.len() > MAX_TAGS {
            return Err(Malformed::new(format!("{} tags are more than {MAX_TAGS}", tags.len())));
        }
        Ok(Self(tags))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this tag is among them.
    pub fn contains(&self, tag: &Tag) -> bool {
        self.0.contains(tag)
    }

    /// Whether all of these are among them.
    pub fn contain_all(&self, wanted: &[Tag]) -> bool {
        wanted.iter().all(|tag| self.contains(tag))
    }

    /// The tags in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, tag) in self.iter().enumerate() {
            write!(f, "{}{tag}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Tags {
    /// Only the one spelling that is written is read, so that equal documents have equal bytes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tags = Vec::<Tag>::deserialize(deserializer)?;
        if tags.is_empty() || !tags.is_sorted_by(|one, next| one < next) {
            return Err(de::Error::custom("tags are not sorted, repeated, or none"));
        }
        Self::new(tags).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_restricted() {
        for good in ["a", "Release-1.2", "app=shop", "team/a:b_c", &"x".repeat(63)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "=a", "a b", "a,b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_read_in_one_spelling_only() {
        let read = |text: &str| serde_json::from_str::<Tags>(text);
        let tags = read(r#"["A","a","b"]"#).unwrap();
        assert_eq!(
            (tags.to_string().as_str(), serde_json::to_string(&tags).unwrap().as_str()),
            ("A,a,b", r#"["A","a","b"]"#)
        );
        for bad in ["[]", r#"["b","a"]"#, r#"["a","a"]"#, r#"["a b"]"#, r#"[1]"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn there_are_not_too_many() {
        let tags =
            |count: usize| (0..count).map(|number| format!("t{number:02}").parse().unwrap()).collect::<Vec<Tag>>();
        assert!(Tags::new(tags(MAX_TAGS)).is_ok());
        assert!(Tags::new(tags(MAX_TAGS + 1)).is_err());
        assert!(serde_json::from_str::<Tags>(&serde_json::to_string(&tags(MAX_TAGS + 1)).unwrap()).is_err());
        let twice = [tags(1), tags(1)].concat();
        assert_eq!(Tags::new(twice).unwrap().iter().count(), 1);
    }
}
