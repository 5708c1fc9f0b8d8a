//! Whether what was answered can have happened in one order: a checker of registers, one for each block.
//!
//! Every write has a value of its own. A value and its reads make a cluster; the cluster's *zone* reaches from the first end to the last begin of its
//! operations. Zones in which the first end comes before the last begin are *forward*: during all of it the block must have had that value, so no two of
//! them may overlap. In a *backward* zone there is one instant that suffices; it must not lie wholly in a forward zone of another value. With values
//! written once this is also sufficient (Gibbons and Korach, "Testing shared memories", 1997).
//!
//! When all in-sync replicas lose their power, what was not flushed may be lost: the history is cut there. Behind the cut the block has one of the values
//! that it may have, and keeps it.

use std::collections::BTreeMap;

/// Counts what happens, in the order in which it does.
pub type Step = u64;

#[derive(Debug, Clone, Default)]
struct Write {
    begun: Step,
    /// When it was acknowledged.
    ended: Option<Step>,
    /// When its attachment was replaced: later it must not appear any more, if it has not before.
    closed: Option<Step>,
    is_flushed: bool,
    /// It was there at a cut already, and was seen after it.
    is_old: bool,
    reads: Vec<(Step, Step)>,
}

impl Write {
    fn end(&self) -> Step {
        self.ended.or(self.closed).unwrap_or(Step::MAX)
    }
}

/// One block, since the last cut.
#[derive(Debug, Clone)]
pub struct History {
    writes: BTreeMap<u64, Write>,
    /// The begin of the latest write that was acknowledged.
    latest_begin: Step,
    /// What it may have had at the cut, until that is known.
    candidates: Vec<u64>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// A block that holds zeros.
    #[must_use]
    pub fn new() -> Self {
        let initial = Write { ended: Some(0), is_flushed: true, ..Write::default() };
        Self { writes: BTreeMap::from([(0, initial)]), latest_begin: 0, candidates: Vec::new() }
    }

    pub fn begin_write(&mut self, value: u64, now: Step) {
        self.writes.insert(value, Write { begun: now, ..Write::default() });
    }

    pub fn end_write(&mut self, value: u64, now: Step) {
        if let Some(write) = self.writes.get_mut(&value) {
            write.ended = Some(now);
            self.latest_begin = self.latest_begin.max(write.begun);
        }
    }

    /// What was acknowledged before this is flushed.
    pub fn flushed(&mut self, before: Step) {
        for write in self.writes.values_mut() {
            write.is_flushed |= write.ended.is_some_and(|ended| ended < before);
        }
    }

    /// Nobody has this write under way any more.
    pub fn close(&mut self, value: u64, now: Step) {
        if let Some(write) = self.writes.get_mut(&value) {
            write.closed = write.closed.or(Some(now));
        }
    }

    /// What the block has is known: right after a cut, one of the candidates is taken for good.
    pub fn seen(&mut self, value: u64, now: Step) {
        if self.candidates.contains(&value) {
            self.candidates.clear();
            let seen = Write { ended: Some(now), begun: now, is_flushed: true, is_old: true, ..Write::default() };
            self.writes.insert(value, seen);
        }
    }

    /// The same for a block that has this value on all replicas when they begin to be served.
    pub fn settle(&mut self, value: u64, now: Step) {
        self.seen(value, now);
        self.candidates.clear();
    }

    pub fn read(&mut self, value: u64, begun: Step, ended: Step) -> Result<(), String> {
        self.seen(value, begun.saturating_sub(1));
        let write = self.writes.get_mut(&value).ok_or_else(|| format!("value {value} is read, and cannot be there"))?;
        if ended < write.begun {
            return Err(format!("value {value} is read before it is written"));
        }
        write.reads.push((begun, ended));
        Ok(())
    }

    /// A read by one that has served since before the cut and has not noticed it: it may see what was there, and settles nothing, since it has to end yet.
    ///
    /// # Errors
    /// It cannot have been there.
    pub fn read_unaware(&self, value: u64) -> Result<(), String> {
        let was_there = self.candidates.contains(&value) || self.writes.contains_key(&value);
        if was_there { Ok(()) } else { Err(format!("value {value} is read, and cannot have been there")) }
    }

    /// Whether a replica that holds all that is acknowledged may have this value now.
    pub fn may_hold(&self, value: u64) -> bool {
        let is_new = self.writes.get(&value).is_some_and(|write| write.end() >= self.latest_begin);
        is_new || (self.candidates.contains(&value) && self.latest_begin == 0)
    }

    /// When the block may have had this value: after the first and before the second. That is when it was begun to be written, and when the first write was
    /// acknowledged that was begun after it had ended.
    pub fn time_of(&self, value: u64) -> Option<(Step, Step)> {
        let (begun, ended) = match self.writes.get(&value) {
            Some(write) => (if write.is_old { 0 } else { write.begun }, write.end()),
            None if self.candidates.contains(&value) => (0, 0),
            None => return None,
        };
        let later = self.writes.values().filter(|other| other.begun > ended).filter_map(|other| other.ended);
        Some((begun, later.min().unwrap_or(Step::MAX)))
    }

    /// What was acknowledged last, for messages.
    pub fn latest(&self) -> Vec<u64> {
        self.writes.iter().filter(|(_, write)| write.end() >= self.latest_begin).map(|(value, _)| *value).collect()
    }

    /// Whether there is an order.
    pub fn check(&self) -> Result<(), String> {
        let mut forward = Vec::new();
        let mut backward = Vec::new();
        for (value, write) in &self.writes {
            if write.ended.is_none() && write.reads.is_empty() {
                // It may have happened never.
                continue;
            }
            let first_end = write.reads.iter().map(|read| read.1).chain([write.end()]).min().unwrap_or(0);
            let last_begin = write.reads.iter().map(|read| read.0).chain([write.begun]).max().unwrap_or(0);
            if first_end < last_begin {
                forward.push((first_end, last_begin, *value));
            } else {
                backward.push((last_begin, first_end, *value));
            }
        }
        forward.sort_unstable();
        for pair in forward.windows(2) {
            if pair[0].1 > pair[1].0 {
                return Err(format!("values {} and {} must both be there at once: {pair:?}", pair[0].2, pair[1].2));
            }
        }
        for (begin, end, value) in backward {
            if let Some(around) = forward.iter().find(|zone| zone.0 < begin && end < zone.1) {
                return Err(format!("value {value} ({begin} to {end}) is nowhere between the reads of {around:?}"));
            }
        }
        Ok(())
    }

    /// All in-sync replicas have lost their power.
    pub fn cut(&mut self) -> Result<(), String> {
        self.check()?;
        let flushed = self.writes.values().filter(|write| write.is_flushed).map(|write| write.begun).max().unwrap_or(0);
        let is_open = |write: &Write| write.ended.is_none() && write.closed.is_none();
        let fits = |write: &Write| write.end() >= flushed && !is_open(write);
        let mut candidates: Vec<u64> =
            self.writes.iter().filter(|(_, write)| fits(write)).map(|(value, _)| *value).collect();
        let has_flushed_new = self.writes.values().any(|write| write.is_flushed);
        if !has_flushed_new {
            candidates.append(&mut self.candidates);
        }
        // What is under way may come still, from whoever asked for it.
        self.writes.retain(|_, write| is_open(write));
        self.writes.values_mut().for_each(|write| write.reads.clear());
        (self.latest_begin, self.candidates) = (0, candidates);
        Ok(())
    }
}

/// Whether there is an instant, not before the one and not after the other, at which all blocks may have had these values.
///
/// # Errors
/// There is none.
pub fn instant(blocks: &[History], values: &[u64], asked: Step, now: Step) -> Result<(), String> {
    let (mut from, mut until) = (asked, now);
    for (block, (history, value)) in blocks.iter().zip(values).enumerate() {
        let time = history.time_of(*value);
        let (begun, replaced) = time.ok_or_else(|| format!("block {block} is {value}, which cannot be there"))?;
        (from, until) = (from.max(begun), until.min(replaced));
        if from > until {
            return Err(format!(
                "block {block} is {value}, and with those before it there is no instant after {from} and before {until}; it was asked for at {asked}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::History;

    fn with(writes: &[(u64, u64, u64)], reads: &[(u64, u64, u64)]) -> Result<(), String> {
        let mut history = History::new();
        for (value, begun, ended) in writes {
            history.begin_write(*value, *begun);
            if *ended > 0 {
                history.end_write(*value, *ended);
            }
        }
        for (value, begun, ended) in reads {
            history.read(*value, *begun, *ended)?;
        }
        history.check()
    }

    #[test]
    fn an_order_is_found_where_there_is_one() {
        assert_eq!(with(&[(7, 1, 4)], &[(0, 2, 3), (7, 5, 6)]), Ok(()));
        assert_eq!(with(&[(7, 1, 9), (8, 2, 8)], &[(8, 3, 4), (7, 10, 11)]), Ok(()));
        assert_eq!(with(&[(7, 1, 0)], &[(0, 5, 6), (7, 7, 8)]), Ok(()), "it was never acknowledged, and may come late");
    }

    #[test]
    fn a_value_has_its_time() {
        let mut history = History::new();
        for (value, begun, ended) in [(7, 1, 5), (8, 4, 6), (9, 7, 9)] {
            history.begin_write(value, begun);
            history.end_write(value, ended);
        }
        history.begin_write(10, 8);
        let times = [0, 7, 8, 9, 10, 11].map(|value| history.time_of(value));
        let most = super::Step::MAX;
        let (first, second) = (Some((1, 9)), Some((4, 9)));
        assert_eq!(times, [Some((0, 5)), first, second, Some((7, most)), Some((8, most)), None]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert!(with(&[(7, 1, 4)], &[(0, 5, 6)]).is_err(), "a lost write");
        assert!(with(&[(7, 1, 9)], &[(7, 2, 3), (0, 4, 5)]).is_err(), "what was seen is not there any more");
        assert!(with(&[(7, 1, 2), (8, 3, 4)], &[(7, 5, 6)]).is_err(), "an old value");
        assert!(with(&[], &[(5, 1, 2)]).is_err(), "a value of nobody");
        assert!(with(&[(7, 5, 6)], &[(7, 1, 2)]).is_err(), "before it is written");
    }

    #[test]
    fn what_was_flushed_is_there_behind_a_cut() {
        let mut history = History::new();
        history.begin_write(7, 1);
        history.end_write(7, 2);
        history.flushed(3);
        history.begin_write(8, 4);
        history.end_write(8, 5);
        history.cut().unwrap();
        let mut other = history.clone();
        assert!(history.read(0, 6, 7).is_err(), "it was replaced by what was flushed");
        assert_eq!(history.read(7, 6, 7), Ok(()));
        assert!(history.read(8, 8, 9).is_err(), "it is the other one");
        assert_eq!(other.read(8, 6, 7), Ok(()));
    }
}
