use crate::rules::Rule;
use std::cell::Cell;
thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
}
pub(crate) fn keeps(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}
