//! Lists of changed ranges.

use super::{BLOCK_LEN, Span, common};

/// Why a list of changes cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    /// A line is not two numbers.
    #[error("line {line} of the list of changes is {text:?}; a line is the offset and the length of a range, in bytes")]
    Line {
        /// From 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// A range does not lie in the volume.
    #[error("the list of changes names {offset} +{len}, and the volume ends at {size}")]
    Beyond {
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The size of the volume.
        size: u64,
    },
}

/// Ranges of a volume that may have changed: whole blocks, in order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    spans: Vec<Span>,
}

impl Changes {
    /// Takes ranges in any order, overlapping or not, and widens them to whole blocks.
    ///
    /// # Errors
    /// A range ends beyond `size`: the list is of another volume.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>, size: u64) -> Result<Self, ChangesError> {
        let mut spans = Vec::new();
        for (offset, len) in ranges {
            let end = offset.checked_add(len).filter(|end| *end <= size);
            let end = end.ok_or(ChangesError::Beyond { offset, len, size })?;
            if len > 0 {
                spans.push(offset / BLOCK_LEN * BLOCK_LEN..end.div_ceil(BLOCK_LEN).saturating_mul(BLOCK_LEN).min(size));
            }
        }
        spans.sort_unstable_by_key(|span| span.start);
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.end >= span.start => last.end = last.end.max(span.end),
                _ => joined.push(span),
            }
        }
        Ok(Self { spans: joined })
    }

    /// Reads lines of `offset length`, in bytes. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// A line says something else, or a range ends beyond `size`.
    pub fn parse(text: &str, size: u64) -> Result<Self, ChangesError> {
        let said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let lines = text.lines().enumerate().filter(|(_, line)| said(line));
        let ranges: Result<Vec<_>, _> = lines
            .map(|(index, line)| {
                let mut words = line.split_whitespace().map(str::parse::<u64>);
                match (words.next(), words.next(), words.next()) {
                    (Some(Ok(offset)), Some(Ok(len)), None) => Ok((offset, len)),
                    _ => Err(ChangesError::Line { line: index + 1, text: line.to_owned() }),
                }
            })
            .collect();
        Self::new(ranges?, size)
    }

    /// The ranges in order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// How many bytes they have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }

    /// The same with a range more, which is cut to whole blocks and may lie anywhere.
    pub(super) fn and(self, span: Span, size: u64) -> Self {
        let ranges = self.spans.into_iter().chain([span]).map(|span| (span.start, span.end - span.start));
        Self::new(ranges, size).expect("both lie within the volume")
    }

    /// What of them lies in `span`, in order.
    pub(super) fn within(&self, span: &Span) -> impl Iterator<Item = Span> + use<'_> {
        let span = span.clone();
        let first = self.spans.partition_point(|known| known.end <= span.start);
        let rest = self.spans[first..].iter();
        rest.map(move |known| common(known, &span)).take_while(|part| !part.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one span is meant")]
mod tests {
    use super::*;

    const SIZE: u64 = 100_000;

    #[test]
    fn ranges_are_widened_to_blocks_and_joined() {
        let check = |ranges: &[(u64, u64)], expected: &[Span]| {
            assert_eq!(Changes::new(ranges.iter().copied(), SIZE).unwrap().spans(), expected, "{ranges:?}");
        };
        check(&[], &[]);
        check(&[(5, 0)], &[]);
        check(&[(5, 1)], &[0..4096]);
        check(&[(8192, 4096), (0, 4096)], &[0..4096, 8192..12_288]);
        check(&[(4000, 200), (100, 1)], &[0..8192]);
        check(&[(99_999, 1)], &[98_304..100_000]);
        check(&[(0, 50_000), (4096, 4096)], &[0..53_248]);
    }

    #[test]
    fn what_lies_in_a_span_is_found() {
        let changes = Changes::new([(0, 8192), (16_384, 8192), (40_960, 1)], SIZE).unwrap();
        let within = |span: Span| changes.within(&span).collect::<Vec<_>>();
        assert_eq!(within(4096..20_480), [4096..8192, 16_384..20_480]);
        assert_eq!(within(8192..16_384), []);
        assert_eq!(within(0..SIZE).len(), 3);
        assert_eq!(within(41_000..41_001), [41_000..41_001]);
    }

    #[test]
    fn a_list_is_read_and_a_wrong_one_is_named() {
        assert_eq!(Changes::parse("# made by hand\n\n0 1\n  8192\t10 \n", SIZE).unwrap().bytes(), 8192);
        for wrong in ["x 1", "1", "1 2 3", "-1 5", "1 99999999999999999999999"] {
            let error = Changes::parse(&format!("0 1\n{wrong}"), SIZE).unwrap_err();
            assert_eq!(error, ChangesError::Line { line: 2, text: wrong.to_owned() });
        }
        let beyond = ChangesError::Beyond { offset: 99_999, len: 2, size: SIZE };
        assert_eq!(Changes::parse("99999 2", SIZE).unwrap_err(), beyond);
        assert!(Changes::parse(&format!("{} {}", u64::MAX, 2), SIZE).is_err());
    }
}
