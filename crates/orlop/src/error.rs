//! What goes wrong, in words for the person at the terminal, and how the process ends.
//!
//! Every error says what happened, to what, and, where something can be done, what to do next. Nothing of it is `Debug` output: the texts
//! are read by people, the exit codes by scripts.

use std::error::Error as StdError;
use std::fmt;

/// How the process ends. The numbers are a promise, listed in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for was done.
    Succeeded = 0,
    /// Something was not done, or a check found something.
    Failed = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// A run ended with something missing.
    Incomplete = 3,
    /// The time that was given was over before the end was seen.
    TimedOut = 4,
    /// The person stopped waiting, as shells count it: 128 and the number of SIGINT.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// One failure: what was being done, why it did not work, what to do next.
#[derive(Debug)]
pub(crate) struct Error {
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    next: Option<String>,
    exit: Exit,
}

/// What commands return.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure that ends the process with 1.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, next: None, exit: Exit::Failed }
    }

    /// A command line that cannot be understood; ends the process with 2.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what) }
    }

    /// The cause, kept whole.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the person can do about it: a sentence or a command.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Ends the process with another code.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// How the process ends for it.
    pub(crate) fn exit_code(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.what.clone();
        if let Some(source) = &self.source {
            for cause in causes(source.as_ref()) {
                text.push_str(": ");
                text.push_str(&cause);
            }
        }
        f.write_str(&text)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// The texts of a chain of errors, each said once: many libraries repeat the cause in the text of what wraps it.
fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut texts = Vec::<String>::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        next = error.source();
        if let Some(last) = texts.last_mut() {
            if last.contains(&text) {
                continue;
            }
            if text.contains(last.as_str()) {
                *last = text;
                continue;
            }
        }
        texts.push(text);
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_its_wrapper_repeats_is_said_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such bucket");
        let wrapped = Error::new("open the store").because(io);
        let shown = Error::new("list recovery points").because(wrapped).to_string();
        assert_eq!(shown, "list recovery points: open the store: no such bucket");
    }

    #[test]
    fn what_to_do_next_has_a_line_of_its_own() {
        let shown = Error::new("read x").next("write x").to_string();
        assert_eq!(shown, "read x\n  next: write x");
    }
}
