//! Shows on standard error how a run goes on: bars on a terminal, lines of what is new elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use api::{Phase, VolumeStage};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::view::{RunView, VolumeView};
use crate::human;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Where the progress of a run is shown.
pub(crate) enum Display {
    /// A terminal.
    Bars(Bars),
    /// A file or a pipe.
    Lines(Box<RunView>),
}

impl Display {
    /// Bars when standard error is a terminal.
    pub(crate) fn new() -> Self {
        if std::io::stderr().is_terminal() { Self::Bars(Bars::new()) } else { Self::Lines(Box::default()) }
    }

    /// Shows the run as it is now.
    pub(crate) fn update(&mut self, view: &RunView) {
        match self {
            Self::Bars(bars) => bars.update(view),
            Self::Lines(last) => {
                for line in news(last, view) {
                    eprintln!("{line}");
                }
                **last = view.clone();
            }
        }
    }

    /// Takes the bars away, so that the summary stands alone. Lines stay.
    pub(crate) fn end(self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}

/// One spinner for the run and one for each volume under way.
pub(crate) struct Bars {
    all: MultiProgress,
    run: ProgressBar,
    volumes: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let run = all.add(spinner("{spinner} {prefix:.bold}  {msg}  {elapsed}"));
        Self { all, run, volumes: BTreeMap::new() }
    }

    fn update(&mut self, view: &RunView) {
        self.run.set_prefix(view.title.clone());
        self.run.set_message(format!("{:?}, {}", view.phase, view.stage));
        for volume in &view.volumes {
            let bar = self
                .volumes
                .entry(volume.claim.clone())
                .or_insert_with(|| self.all.add(spinner("  {spinner} {prefix}  {msg}")));
            bar.set_prefix(volume.claim.clone());
            bar.set_message(volume_line(volume));
            if !matches!(volume.stage, VolumeStage::Pending | VolumeStage::Moving) {
                bar.finish();
            }
        }
    }

    fn end(self) {
        for bar in self.volumes.values().chain([&self.run]) {
            bar.finish_and_clear();
        }
    }
}

fn spinner(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates are constants, and tested");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

/// What is new in a run, one line each. Pure.
fn news(old: &RunView, new: &RunView) -> Vec<String> {
    let mut lines = Vec::new();
    if (new.phase, &new.stage) != (old.phase, &old.stage) && new.phase != Phase::Pending {
        let line = if new.phase.is_final() { format!("{:?}", new.phase) } else { new.stage.clone() };
        lines.push(format!("{}: {line}", new.title));
    }
    if new.message != old.message && !new.phase.is_final() {
        lines.extend(new.message.iter().map(|message| format!("{}: {message}", new.title)));
    }
    for volume in &new.volumes {
        let before = old.volumes.iter().find(|v| v.claim == volume.claim);
        let known =
            before.is_some_and(|v| (v.stage, v.attempts, &v.note) == (volume.stage, volume.attempts, &volume.note));
        if !known && volume.stage != VolumeStage::Pending {
            lines.push(format!("{}: volume {}: {}", new.title, volume.claim, volume_line(volume)));
        }
    }
    lines
}

/// Where a volume is, in a few words.
fn volume_line(volume: &VolumeView) -> String {
    let mut parts = vec![format!("{:?}", volume.stage).to_lowercase()];
    if volume.attempts > 1 && volume.stage == VolumeStage::Moving {
        parts.push(format!("attempt {}", volume.attempts));
    }
    parts.extend(volume.files.map(|n| human::count(n, "file", "files")));
    parts.extend(volume.bytes.map(human::bytes));
    parts.extend(volume.note.clone());
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(phase: Phase, stage: &str, volumes: &[VolumeView]) -> RunView {
        RunView {
            title: "backup a/b".into(),
            phase,
            stage: stage.into(),
            volumes: volumes.to_vec(),
            ..Default::default()
        }
    }

    fn volume(stage: VolumeStage, attempts: u32) -> VolumeView {
        VolumeView { claim: "a/data".into(), stage, attempts, ..Default::default() }
    }

    #[test]
    fn only_what_is_new_is_said() {
        let running = view(Phase::Running, "Volumes", &[volume(VolumeStage::Moving, 1)]);
        let again = view(Phase::Running, "Volumes", &[volume(VolumeStage::Moving, 2)]);
        let done = VolumeView { files: Some(1), bytes: Some(2048), ..volume(VolumeStage::Done, 2) };
        let check = |old: &RunView, new: &RunView, expected: &[&str]| assert_eq!(news(old, new), expected);
        check(&RunView::default(), &view(Phase::Pending, "Pending", &[]), &[]);
        check(&RunView::default(), &running, &["backup a/b: Volumes", "backup a/b: volume a/data: moving"]);
        check(&running, &running, &[]);
        check(&running, &again, &["backup a/b: volume a/data: moving, attempt 2"]);
        check(
            &again,
            &view(Phase::Succeeded, "Done", &[done]),
            &["backup a/b: Succeeded", "backup a/b: volume a/data: done, 1 file, 2.0 KiB"],
        );
    }

    #[test]
    fn bars_can_be_drawn() {
        let mut bars = Bars::new();
        bars.update(&view(Phase::Running, "Volumes", &[volume(VolumeStage::Moving, 1)]));
        assert_eq!(bars.volumes.len(), 1);
        bars.end();
    }
}
