//! A run under way, on standard error: a line a step, and how far it is: bars that move where that is a terminal, a line
//! every so often elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use journal::event::{Effect, Envelope, Event, Hash};
use journal::run::Run;
use journal::step::{Listener, Progress};

use super::bars::Bars;
use super::progress::{Told, in_full, restoring};
use super::text::touched;
use super::{Style, err};

/// The listener.
pub(super) struct Live {
    style: Style,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    bars: Option<Bars>,
    told: Told,
}

impl Live {
    pub(super) fn new(style: Style) -> Live {
        Live { style, shown: Mutex::default() }
    }

    fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bars) = shown.bars.take() {
            bars.clear();
        }
    }

    fn say(&self, line: &str) {
        if !self.style.quiet {
            self.clear();
            err(line);
        }
    }
}

impl Listener for Live {
    fn recorded(&self, run: &Run, envelope: &Envelope, _: Hash) {
        if let Some(line) = line(run, &envelope.event, self.style) {
            self.say(&line);
        } else if self.style.verbose {
            self.say(&format!("      {} {}", envelope.n, envelope.event.kind()));
        }
    }

    fn progressed(&self, progress: &Progress) {
        if self.style.quiet {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if self.style.bars {
            shown.bars.get_or_insert_with(|| Bars::new(progress)).show(progress);
            return;
        }
        if !shown.told.is_due(progress) {
            return;
        }
        err(&format!("      {}: {}", progress.step, in_full(progress)));
        for stall in restoring(progress).map(|found| found.stalls).unwrap_or_default() {
            err(&format!("      {}: {stall}", progress.step));
        }
    }

    fn warned(&self, warning: &str) {
        self.clear();
        self.style.warn(warning);
    }
}

/// The line that an event is worth, when it is worth one.
fn line(run: &Run, event: &Event, style: Style) -> Option<String> {
    let name = || {
        event.step().and_then(|index| run.steps.get(usize::from(index))).map(|step| step.planned.name.clone())
    };
    // What changes nothing outside of what other steps undo has nothing to tell of its undo.
    let is_effect = || {
        let step = event.step().and_then(|index| run.steps.get(usize::from(index)));
        step.is_some_and(|step| step.planned.effect != Effect::None)
    };
    let good = style.paint("32", " ok ");
    let bad = style.paint("31", "fail");
    let told = match event {
        Event::RunStarted(started) => {
            format!("run {}: {}", run.id.short(), started.command_line())
        }
        Event::RunContinued { .. } => {
            format!("run {}: {}, taken up again", run.id.short(), run.started.command_line())
        }
        Event::StepSucceeded { observed, .. } => {
            let seconds = name().and_then(|name| duration(run, &name)).unwrap_or_default();
            let found = if *observed { " (was done already)" } else { "" };
            format!("{good}  {} {seconds}{found}", name()?)
        }
        Event::StepSkipped { reason, .. } => format!("  -   {}: {reason}", name()?),
        Event::StepFailed { error, retry_in_ms, .. } => match retry_in_ms {
            Some(wait) => format!("{bad}  {}: {error}; again in {:.1} s", name()?, seconds(*wait)),
            None => format!("{bad}  {}: {}", name()?, error.message),
        },
        Event::UndoSucceeded { .. } if is_effect() => format!("undo  {}", name()?),
        Event::UndoFailed { error, .. } => format!("{bad}  undoing {}: {error}", name()?),
        Event::StepsReset { reason, .. } => format!("redo  {reason}"),
        Event::StepUnknown { error, .. } => format!("{bad}  {}: {}", name()?, error.message),
        Event::RollbackStarted { .. } if touched(run) => "      rolling back".to_owned(),
        _ => return None,
    };
    Some(told.trim_end().to_owned())
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

fn duration(run: &Run, name: &str) -> Option<String> {
    let (_, step) = run.step(name)?;
    let (from, to) = step.started_at.zip(step.finished_at)?;
    Some(format!("({:.1} s)", to.duration_since(from).as_secs_f64()))
}
