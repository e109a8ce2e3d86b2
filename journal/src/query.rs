//! What may be asked of a store, and how a run is shown to whoever asks.

use jiff::Timestamp;

use crate::codec;
use crate::event::RunId;
use crate::run::{Run, Status};

/// Where a run stands as people see it: what the events tell, and whether its process is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As its events tell.
    As(Status),
    /// Its events say that it is moving, and its process is gone.
    Interrupted,
    /// This version cannot read it.
    Unreadable,
}

impl Shown {
    /// What people see of a run whose events say `status`.
    pub fn of(status: Option<Status>, held: bool) -> Shown {
        match status {
            None => Shown::Unreadable,
            Some(status) if status.is_moving() && !held => Shown::Interrupted,
            Some(status) => Shown::As(status),
        }
    }

    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Shown::As(status) => status.as_str(),
            Shown::Interrupted => "interrupted",
            Shown::Unreadable => "unreadable",
        }
    }
}

/// What a store keeps of each run to find it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub id: RunId,
    /// When it began.
    pub started_at: Timestamp,
    /// Where it stands; `None` when this version cannot read it.
    pub status: Option<Status>,
    /// The command.
    pub command: String,
    /// The section it works on.
    pub section: Option<String>,
    /// The user who began it.
    pub user: String,
    /// Whether it changes nothing.
    pub read_only: bool,
}

impl Summary {
    /// What is kept of `run`.
    pub fn of(run: &Run) -> Summary {
        Summary {
            id: run.id,
            started_at: run.started_at,
            status: Some(run.status),
            command: run.started.command.clone(),
            section: run.started.section.clone(),
            user: run.actor.user.clone(),
            read_only: run.started.read_only,
        }
    }
}

/// Which runs are asked for; the default asks for all that change something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only of this section.
    pub section: Option<String>,
    /// Only those shown with this word, see [`Shown::as_str`].
    pub status: Option<String>,
    /// Only of this command.
    pub command: Option<String>,
    /// Only of this user.
    pub user: Option<String>,
    /// Only begun at this moment or later.
    pub since: Option<Timestamp>,
    /// Only begun before this moment.
    pub until: Option<Timestamp>,
    /// Only older than this run, by the order of ids.
    pub before: Option<RunId>,
    /// Also those that change nothing.
    pub read_only: bool,
    /// No more than these.
    pub limit: Option<usize>,
}

impl Query {
    /// Whether `summary` is asked for; `held` is asked only where it matters.
    pub fn matches(&self, summary: &Summary, held: impl FnOnce() -> bool) -> bool {
        self.before.is_none_or(|before| summary.id < before)
            && self.matches_person(&summary.user)
            && self.matches_time(summary.started_at)
            && self.matches_run(summary, held)
    }

    /// Whether events of the run that `summary` is of may be asked for: all but the user and the times, which each
    /// event has for itself.
    pub fn matches_run(&self, summary: &Summary, held: impl FnOnce() -> bool) -> bool {
        let moving = summary.status.is_some_and(Status::is_moving);
        (self.read_only || !summary.read_only)
            && self.section.as_deref().is_none_or(|section| summary.section.as_deref() == Some(section))
            && self.command.as_deref().is_none_or(|command| summary.command == command)
            && self
                .status
                .as_deref()
                .is_none_or(|wanted| Shown::of(summary.status, !moving || held()).as_str() == wanted)
    }

    /// Whether an encoded event of such a run is asked for, by its own user and time. One that does not tell them to
    /// this version is, unless either matters.
    pub fn matches_event(&self, event: &[u8]) -> bool {
        match codec::header(event) {
            Ok(header) => self.matches_person(&header.actor.user) && self.matches_time(header.at),
            Err(_) => self.user.is_none() && self.since.is_none() && self.until.is_none(),
        }
    }

    fn matches_person(&self, user: &str) -> bool {
        self.user.as_deref().is_none_or(|wanted| wanted == user)
    }

    fn matches_time(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}
