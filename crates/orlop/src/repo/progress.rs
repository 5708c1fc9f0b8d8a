//! How far work on a repository is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use repository::{Counters, Progress};

use crate::human;

/// How often the bar is drawn anew.
const TICK: Duration = Duration::from_millis(200);
/// How often a line is written where there is no terminal: often enough to see that it lives, seldom enough for a log.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The word for one thing, and for several.
type Units = (&'static str, &'static str);

/// What has been done so far, and how it is shown.
pub(super) struct Shown {
    what: String,
    /// What is counted beside bytes: one of them, several of them.
    units: Units,
    files: AtomicU64,
    bytes: AtomicU64,
    /// All bytes that there are to do; 0 while that is not known.
    total: AtomicU64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress for Shown {
    fn add(&self, done: Counters) {
        let files = self.files.fetch_add(done.files, Ordering::Relaxed) + done.files;
        let bytes = self.bytes.fetch_add(done.bytes, Ordering::Relaxed) + done.bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(human::count(files, self.units.0, self.units.1));
        }
    }

    fn total(&self, total: Counters) {
        self.total.store(total.bytes, Ordering::Relaxed);
        if let Some(bar) = self.bar.as_ref().filter(|_| total.bytes > 0) {
            bar.set_length(total.bytes);
            bar.set_style(style(
                "{prefix}  {wide_bar} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}  {eta} left",
            ));
        }
    }
}

impl Shown {
    fn line(&self) -> String {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let elapsed = self.started.elapsed();
        let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
        let total = self.total.load(Ordering::Relaxed);
        let of = if total == 0 { String::new() } else { format!(" of {}", human::bytes(total)) };
        let left = left(elapsed, bytes, total).map_or_else(String::new, |left| format!(", {} left", human::took(left)));
        format!(
            "{}: {}, {}{of}, {}/s, {}{left}",
            self.what,
            human::count(files, self.units.0, self.units.1),
            human::bytes(bytes),
            human::bytes(u64::try_from(rate).unwrap_or(u64::MAX)),
            human::took(elapsed)
        )
    }
}

/// How long it takes for the rest if it goes on as it went; not known before anything was done, or without a total that is still ahead.
fn left(elapsed: Duration, done: u64, total: u64) -> Option<Duration> {
    let rest = total.checked_sub(done).filter(|_| done > 0)?;
    let left = elapsed.as_millis() * u128::from(rest) / u128::from(done);
    u64::try_from(left).ok().map(Duration::from_millis)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants, and tested")
}

/// Shows the progress of one piece of work while it lives.
pub(super) struct Show {
    shown: Arc<Shown>,
    lines: Option<tokio::task::JoinHandle<()>>,
}

impl Show {
    /// Begins to show work on files.
    pub(super) fn start(what: impl Into<String>) -> Self {
        Self::start_of(what, ("file", "files"))
    }

    /// Begins to show work on packs.
    pub(super) fn start_of_packs(what: impl Into<String>) -> Self {
        Self::start_of(what, ("pack", "packs"))
    }

    fn start_of(what: impl Into<String>, units: Units) -> Self {
        let what = what.into();
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let style = style("{spinner} {prefix}  {bytes}  {binary_bytes_per_sec}  {msg}  {elapsed}");
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix(what.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        let [files, bytes, total] = [const { AtomicU64::new(0) }; 3];
        let shown = Arc::new(Shown { what, units, files, bytes, total, started: Instant::now(), bar });
        let lines = (!terminal).then(|| tokio::spawn(write_lines(shown.clone())));
        Self { shown, lines }
    }

    /// What the work tells how far it is.
    pub(super) fn progress(&self) -> Arc<dyn Progress> {
        self.shown.clone()
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.abort();
        }
        if let Some(bar) = &self.shown.bar {
            bar.finish_and_clear();
        }
    }
}

async fn write_lines(shown: Arc<Shown>) {
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + LINE_EVERY, LINE_EVERY);
    loop {
        due.tick().await;
        eprintln!("{}", shown.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_added_is_shown() {
        let show = Show::start("backup /data");
        show.progress().total(Counters { files: 2, bytes: 4096, new_bytes: 0 });
        show.progress().add(Counters { files: 1, bytes: 2048, new_bytes: 0 });
        let line = show.shown.line();
        assert!(line.starts_with("backup /data: 1 file, 2.0 KiB of 4.0 KiB, ") && line.ends_with(" left"), "{line}");
        let show = Show::start_of_packs("check");
        assert!(show.shown.line().starts_with("check: 0 packs, 0 B, "), "{}", show.shown.line());
    }

    #[test]
    fn the_time_left_follows_the_rate() {
        let seconds = Duration::from_secs;
        for (elapsed, done, total, expected) in [
            (seconds(10), 25, 100, Some(seconds(30))),
            (seconds(10), 100, 100, Some(seconds(0))),
            (seconds(3), u64::MAX / 2, u64::MAX - 1, Some(seconds(3))),
            (seconds(10), 0, 100, None),
            (seconds(10), 25, 0, None),
            (seconds(10), 120, 100, None),
        ] {
            assert_eq!(left(elapsed, done, total), expected, "{done} of {total}");
        }
    }

    #[test]
    fn the_templates_are_understood() {
        style("{prefix}  {wide_bar} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}  {eta} left");
        style("{spinner} {prefix}  {bytes}  {binary_bytes_per_sec}  {msg}  {elapsed}");
    }
}
