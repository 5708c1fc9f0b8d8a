//! Text as the Go library writes it, which restic relies on: a listing that is read and written again must be the same bytes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use unicode_general_category::{GeneralCategory, get_general_category};

/// A name as a Go string literal without its quotation marks: text stays, and bytes that are none are escaped.
pub(super) fn quote(name: &[u8]) -> String {
    let mut quoted = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        chunk.valid().chars().for_each(|letter| quote_letter(letter, &mut quoted));
        chunk.invalid().iter().for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")));
    }
    quoted
}

fn quote_letter(letter: char, quoted: &mut String) {
    match letter {
        '"' | '\\' => quoted.extend(['\\', letter]),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        _ if is_printable(letter) => quoted.push(letter),
        _ => {
            let number = u32::from(letter);
            quoted.push_str(&match number {
                0..0x20 | 0x7f => format!("\\x{number:02x}"),
                0..0x1_0000 => format!("\\u{number:04x}"),
                _ => format!("\\U{number:08x}"),
            });
        }
    }
}

/// What Go calls printable: letters, marks, numbers, punctuation, symbols, and of the spaces the one of ASCII.
fn is_printable(letter: char) -> bool {
    use GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, SpaceSeparator, Surrogate, Unassigned,
    };
    let category = get_general_category(letter);
    let hidden = matches!(
        category,
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | SpaceSeparator | Surrogate | Unassigned
    );
    letter == ' ' || !hidden
}

/// JSON with what HTML would take for markup escaped, as Go does.
pub(super) fn json<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter))?;
    Ok(bytes)
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(at);
            let letter = from.chars().next().unwrap_or_default();
            writer.write_all(plain.as_bytes())?;
            write!(writer, "\\u{:04x}", u32::from(letter))?;
            rest = &from[letter.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_go_does() {
        let check = |name: &[u8], expected: &str| assert_eq!(quote(name), expected, "{}", name.escape_ascii());
        check(b"plain name", "plain name");
        check("é…😀".as_bytes(), "é…😀");
        check(b"a\"b\\c", "a\\\"b\\\\c");
        check(b"\x07\x08\x0c\n\r\t\x0b", "\\a\\b\\f\\n\\r\\t\\v");
        check(b"\x01\x1f\x7f", "\\x01\\x1f\\x7f");
        check(b"\xff\xc3(", "\\xff\\xc3(");
        check("\u{85}\u{a0}\u{ad}\u{2028}".as_bytes(), "\\u0085\\u00a0\\u00ad\\u2028");
        check("\u{fffd}\u{feff}\u{e000}\u{10ffff}".as_bytes(), "\u{fffd}\\ufeff\\ue000\\U0010ffff");
    }

    #[test]
    fn json_escapes_what_html_would_take_for_markup() {
        let found = json(&"<a> & \u{2028}é\"\\\n").expect("JSON");
        assert_eq!(String::from_utf8_lossy(&found), r#""\u003ca\u003e \u0026 \u2028é\"\\\n""#);
    }
}
