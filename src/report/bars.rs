//! Bars that move on a terminal: one for the step, and one for each worker of a restore.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use journal::step::Progress;

use super::progress::{at_work, in_full, percent, restoring};

/// How many workers have a bar: as many as a terminal has room for.
const MOST: usize = 16;

/// The bars of one step. They stay until they are cleared.
pub(super) struct Bars {
    all: MultiProgress,
    step: ProgressBar,
    workers: Vec<ProgressBar>,
}

impl Bars {
    pub(super) fn new(progress: &Progress) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let bar = progress.total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let numbers = match progress.unit.as_ref() {
            _ if !progress.detail.is_empty() => "{wide_msg}",
            "bytes" => "{bytes}/{total_bytes} {bytes_per_sec} {eta}",
            _ => "{pos}/{len} {eta}",
        };
        let step = styled(bar, &format!("      {{prefix}} {{bar:30}} {numbers}"));
        step.set_prefix(progress.step.clone());
        Bars { step: all.add(step), all, workers: Vec::new() }
    }

    /// Moves them.
    pub(super) fn show(&mut self, progress: &Progress) {
        let mut found = restoring(progress).unwrap_or_default();
        found.workers.truncate(MOST);
        self.step.set_message(in_full(progress));
        self.step.set_position(progress.done);
        while self.workers.len() < found.workers.len() {
            let bar = styled(ProgressBar::new(100), "        {bar:20} {wide_msg}");
            self.workers.push(self.all.add(bar));
        }
        for idle in self.workers.drain(found.workers.len()..) {
            self.all.remove(&idle);
        }
        for (bar, worker) in self.workers.iter().zip(&found.workers) {
            bar.set_message(at_work(worker, &found.stalls));
            bar.set_position(percent(worker));
        }
    }

    /// Takes them away.
    pub(super) fn clear(&self) {
        // What cannot be written to cannot be cleared.
        let _gone = self.all.clear();
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
