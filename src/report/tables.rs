//! The tables of `history` and `inspect`.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use journal::event::Event;
use journal::query::{Shown, Summary};
use journal::run::{Run, Status, StepRecord, StepStatus};
use journal::step::Progress;

use super::entry::{Entry, Reading, verdict_word};
use super::progress::{at_work, in_full, restoring, so_far};
use super::text::ways_on;
use super::{Inspected, Style, Unread, out};

/// One run in the list.
#[derive(Debug, Clone)]
pub struct Line {
    /// What the store keeps of it.
    pub summary: Summary,
    /// What its events tell; `None` when this version cannot read them.
    pub run: Option<Run>,
    /// Where it stands.
    pub shown: Shown,
    /// How far its step is, when it is at work and shows that.
    pub progress: Option<Progress>,
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// Without the blanks that fill up the last column.
pub(super) fn print(table: &Table) {
    for line in table.lines() {
        out(line.trim_end());
    }
}

pub(super) fn local(at: Timestamp) -> String {
    at.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn duration(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs_f64().max(0.0);
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = to.duration_since(from).as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours} h {minutes:02} min") } else { format!("{minutes} min {seconds:02} s") }
}

pub(super) fn history(lines: &[Line], now: Timestamp) {
    let mut table = table(&["RUN", "STARTED", "WHO", "COMMAND", "DATABASE", "STATUS", "TIME", "STEP"]);
    for line in lines {
        table.add_row(history_row(line, now));
    }
    print(&table);
}

fn history_row(line: &Line, now: Timestamp) -> [String; 8] {
    let id = line.summary.id.short();
    let started = local(line.summary.started_at);
    let status = line.shown.as_str().to_owned();
    let Some(run) = &line.run else {
        let command = super::name_of(&line.summary).to_owned();
        return [
            id,
            started,
            line.summary.user.clone(),
            command,
            String::new(),
            status,
            String::new(),
            String::new(),
        ];
    };
    let who = format!("{}@{}", run.actor.user, run.actor.host);
    let command = run.started.command_line();
    let database = run.started.database.clone().unwrap_or_default();
    let until = match (run.finished_at, line.shown) {
        (Some(finished), _) => finished,
        (None, Shown::Interrupted) => run.last_at,
        _ => now,
    };
    let step = match line.shown {
        Shown::As(status) if status.is_finished() => String::new(),
        _ => run
            .current()
            .map(|step| format!("{} ({}/{})", step.planned.name, run.steps_done(), run.steps.len()))
            .unwrap_or_default(),
    };
    let step = match &line.progress {
        Some(progress) => format!("{step}, {}", so_far(progress)),
        None => step,
    };
    [id, started, who, command, database, status, duration(run.started_at, until), step]
}

pub(super) fn inspect(inspected: &Inspected<'_>, now: Timestamp) {
    let Inspected { run, shown, progress, outputs, events } = inspected;
    head(run, *shown, now);
    if let Some(progress) = progress {
        out(&format!("progress  {}: {}", progress.step, in_full(progress)));
        let found = restoring(progress).unwrap_or_default();
        for worker in &found.workers {
            out(&format!("          {}", at_work(worker, &found.stalls)));
        }
    }
    if let Some(error) = &run.error {
        out(&format!("error     {error}"));
        if let Some(hint) = &error.hint {
            out(&format!("hint      {hint}"));
        }
    }
    events.iter().filter_map(by_hand).for_each(|line| out(&line));
    out("");
    let mut table = table(&["STEP", "STATUS", "TRIES", "TIME", ""]);
    for step in &run.steps {
        table.add_row(step_row(step, now));
    }
    print(&table);
    for (step, output) in outputs {
        out("");
        out(&format!("what {step} said last:"));
        for line in output.lines() {
            out(&format!("  | {line}"));
        }
    }
    if let Some(next) = next(run, *shown) {
        out("");
        out(&format!("next: {next}"));
    }
}

fn head(run: &Run, shown: Shown, now: Timestamp) {
    let arguments = run.started.arguments.join(" ");
    out(&format!("run       {} ({})", run.id.short(), run.id));
    out(&format!("command   {} {arguments}", run.started.command));
    out(&format!(
        "who       {}@{}, process {}, version {}",
        run.actor.user, run.actor.host, run.actor.pid, run.started.version
    ));
    if let Some(database) = &run.started.database {
        out(&format!("database  {database}"));
    }
    let until = run.finished_at.unwrap_or(if shown == Shown::Interrupted { run.last_at } else { now });
    out(&format!("started   {}, {}", local(run.started_at), duration(run.started_at, until)));
    out(&format!("status    {}", shown.as_str()));
}

/// What somebody came and did with a run after it had begun.
fn by_hand(entry: &Entry) -> Option<String> {
    let Reading::Event(envelope) = &entry.told else { return None };
    let did = match &envelope.event {
        Event::RunContinued { version, process } => {
            format!("taken up again, process {}, version {version}", process.pid)
        }
        Event::StepResolved { verdict, reason, .. } => {
            let step = entry.step.as_deref().unwrap_or_default();
            format!("{step} resolved as {}: {reason}", verdict_word(*verdict))
        }
        Event::RunAbandoned { reason } => format!("abandoned: {reason}"),
        _ => return None,
    };
    let by = &envelope.actor;
    Some(format!("then      {}, {}@{}: {did}", local(envelope.at), by.user, by.host))
}

/// What the envelopes tell of a run that cannot be read.
pub(super) fn inspect_unread(unread: &Unread<'_>) {
    out(&format!("run       {} ({})", unread.id.short(), unread.id));
    let by = unread.written_by.as_ref();
    let by = by.map_or_else(|| "a version that does not tell".to_owned(), |by| format!("version {by}"));
    out(&format!("written   by {by} of pg_staging; this is {}", env!("CARGO_PKG_VERSION")));
    out(&format!("status    {}", Shown::Unreadable.as_str()));
    out(&format!("error     {}", unread.why));
    events(unread.events);
    out("");
    out("next: use the version of pg_staging that wrote it, or a newer one");
}

fn step_row(step: &StepRecord, now: Timestamp) -> [String; 5] {
    let time = match (step.started_at, step.finished_at) {
        (Some(from), Some(to)) => duration(from, to),
        (Some(from), None) => duration(from, now),
        _ => String::new(),
    };
    let said = match step.status {
        StepStatus::Skipped => step.skipped.clone().unwrap_or_default(),
        StepStatus::Succeeded | StepStatus::Pending | StepStatus::Running => String::new(),
        _ => step.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
    };
    let tries = if step.attempts == 0 { String::new() } else { step.attempts.to_string() };
    [step.planned.name.clone(), step.status.as_str().to_owned(), tries, time, said]
}

/// What to type next.
fn next(run: &Run, shown: Shown) -> Option<String> {
    let id = run.id.short();
    match shown {
        _ if run.started.read_only => None,
        Shown::Interrupted | Shown::As(Status::Stopped) => Some(ways_on(run)),
        Shown::As(Status::Running | Status::RollingBack) => None,
        Shown::As(Status::Stuck) => {
            let open =
                |step: &&StepRecord| matches!(step.status, StepStatus::Unknown | StepStatus::UndoFailed);
            let name = run.steps.iter().find(open).map_or("<step>", |step| step.planned.name.as_str());
            Some(format!(
                "look at what the error names, then {}\n      \
                 or, where only you can see what became of it: \
                 pg_staging resolve {id} {name} --as <applied, absent or undone> --reason <how you know>",
                ways_on(run)
            ))
        }
        Shown::As(Status::Failed) => {
            let words = [std::slice::from_ref(&run.started.command), &run.started.arguments].concat();
            let typed = shlex::try_join(words.iter().map(String::as_str)).ok()?;
            Some(format!("once the cause is mended, pg_staging {typed}"))
        }
        Shown::As(Status::Succeeded | Status::RolledBack | Status::Abandoned) | Shown::Unreadable => None,
    }
}

pub(super) fn events(events: &[Entry]) {
    out("");
    let mut table = table(&["N", "AT", "WHO", "KIND", "STEP", "DETAIL"]);
    for entry in events {
        let who = entry.actor().map(|actor| format!("{}@{}", actor.user, actor.host));
        table.add_row([
            entry.n.to_string(),
            entry.at().unwrap_or_default(),
            who.unwrap_or_default(),
            entry.kind().to_owned(),
            entry.step.clone().unwrap_or_default(),
            entry.detail().to_string(),
        ]);
    }
    print(&table);
}

/// What continuing or rolling back a run would do, for `-n`.
pub fn remaining(run: &Run, backward: bool, style: Style) {
    let names: Vec<String> = if backward {
        run.steps
            .iter()
            .rev()
            .filter(|step| step.needs_undo())
            .map(|step| format!("undo {}", step.planned.name))
            .collect()
    } else {
        let open = |step: &&StepRecord| !matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped);
        run.steps.iter().filter(open).map(|step| step.planned.name.clone()).collect()
    };
    if style.json {
        let plan = serde_json::json!({ "run": run.id.to_string(), "steps": names });
        out(&serde_json::json!({ "schema": 1, "plan": plan }).to_string());
        return;
    }
    out(&format!("run {} ({}) would make these steps:", run.id.short(), run.started.command_line()));
    for (index, name) in names.iter().enumerate() {
        out(&format!("{:>3}  {name}", index + 1));
    }
}
