//! Guessing what will be read next. Pure.

use std::collections::VecDeque;
use std::ops::Range;

/// How many readers in sequence are told apart: a client with four connections that copies has four.
const RUNS: usize = 8;
/// Bytes by which a read may begin before or after the end of the last one and still follow it: requests in flight overtake each other.
const SLACK: u64 = 2 << 20;
/// Bytes that must have been read in sequence before any are read ahead: what a program that looks at one place reads is less.
const TRUSTED: u64 = 512 << 10;

/// Readers, each of which reads in sequence.
#[derive(Debug)]
pub(super) struct ReadAhead {
    runs: VecDeque<Run>,
    /// How far to read ahead, in bytes.
    distance: u64,
}

#[derive(Debug)]
struct Run {
    /// Where the next read should begin.
    next: u64,
    /// Bytes that were read in sequence.
    read: u64,
    /// What lies before it was read ahead.
    fetched: u64,
}

impl ReadAhead {
    pub(super) fn new(distance: u64) -> Self {
        Self { runs: VecDeque::new(), distance }
    }

    /// Learns of a read in a volume of `size` bytes; what should be read ahead for it.
    pub(super) fn after(&mut self, read: &Range<u64>, size: u64) -> Option<Range<u64>> {
        let follows = |run: &Run| read.start <= run.next + SLACK && run.next <= read.start + SLACK;
        let Some(index) = self.runs.iter().position(follows) else {
            self.runs.truncate(RUNS - 1);
            self.runs.push_front(Run { next: read.end, read: read.end - read.start, fetched: read.end });
            return None;
        };
        let mut run = self.runs.remove(index)?;
        // Only what goes on counts: who reads one place again and again is not on his way.
        run.read = run.read.saturating_add(read.end.saturating_sub(run.next));
        run.next = run.next.max(read.end);
        let end = run.next.saturating_add(self.distance).min(size);
        let start = run.fetched.max(run.next);
        // In steps of half the distance: each makes few large requests.
        let worth = end > start && (end == size || end - start >= self.distance / 2);
        let ahead = (run.read >= TRUSTED && worth).then(|| {
            run.fetched = end;
            start..end
        });
        self.runs.push_front(run);
        ahead
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 100 * MIB;

    /// What is read ahead for these reads.
    fn check(reads: &[Range<u64>], expected: &[Range<u64>]) {
        let mut ahead = ReadAhead::new(8 * MIB);
        let found: Vec<_> = reads.iter().filter_map(|read| ahead.after(read, SIZE)).collect();
        assert_eq!(found, expected, "{reads:?}");
    }

    fn sequence(start: u64, count: u64) -> Vec<Range<u64>> {
        (0..count).map(|index| start + index * MIB / 4..start + (index + 1) * MIB / 4).collect()
    }

    #[test]
    fn who_reads_in_sequence_is_read_ahead_for_in_large_steps() {
        check(&sequence(0, 1), &[]);
        check(&sequence(0, 2), &[MIB / 2..MIB / 2 + 8 * MIB]);
        check(&sequence(0, 18), &[MIB / 2..MIB / 2 + 8 * MIB, MIB / 2 + 8 * MIB..MIB / 2 + 12 * MIB]);
    }

    #[test]
    fn nothing_is_read_ahead_beyond_the_end_or_twice() {
        let reads = sequence(SIZE - MIB, 4);
        check(&reads, &[SIZE - MIB / 2..SIZE]);
        check(&[reads, vec![SIZE - 1..SIZE]].concat(), &[SIZE - MIB / 2..SIZE]);
    }

    #[test]
    fn who_reads_here_and_there_is_not_read_ahead_for() {
        let reads: Vec<_> = (0..40).map(|index| index * 37 % 97 * MIB..index * 37 % 97 * MIB + 4096).collect();
        check(&reads, &[]);
    }

    #[test]
    fn who_reads_one_place_again_and_again_is_not_read_ahead_for() {
        check(&vec![0..MIB / 4; 50], &[]);
    }

    #[test]
    fn several_readers_and_reads_that_overtake_each_other_are_told_apart() {
        let (mut first, second) = (sequence(0, 4), sequence(50 * MIB, 4));
        first.swap(1, 2);
        let reads: Vec<_> = first.into_iter().zip(second).flat_map(|(a, b)| [a, b]).collect();
        let half = MIB / 2;
        check(&reads, &[3 * MIB / 4..8 * MIB + 3 * MIB / 4, 50 * MIB + half..58 * MIB + half]);
    }
}
