//! How far a restore is, what holds it up, and how long it will still take: what a step tells while it is at work, and
//! what is shown of it, here or by another process.
//!
//! It is told as JSON beside the step's own numbers. Fields are only ever added, and one that is missing has its default,
//! so that another version reads what it knows.

mod estimate;
mod learnt;
mod rate;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::estimate::{Job, Left, Work, time_left};
pub use self::learnt::{Learnt, Past};
pub use self::rate::{Pace, Recent};

/// A restore part by part, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restoring {
    /// Bytes that came from the server.
    pub fetched: Amount,
    /// Bytes of rows, as they are in the dump, that are in the copy for good.
    pub loaded: Amount,
    /// Tables whose rows are in.
    pub tables: Amount,
    /// Indexes that are built, those of constraints among them.
    pub indexes: Amount,
    /// How long the step still takes, in milliseconds; nothing where there is no ground to say.
    pub left_ms: Option<u64>,
    /// Whether some of what is left cannot be reckoned, so that it takes longer than that.
    pub left_at_least: bool,
    /// How long the steps after it take, in milliseconds, as they did the last time.
    pub following_ms: Option<u64>,
    /// What keeps workers from getting on.
    pub stalls: Vec<Stall>,
    /// Who is at work on what.
    pub workers: Vec<Worker>,
}

/// How much of something is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// So much.
    pub done: u64,
    /// Of so much, when that is known.
    pub total: Option<u64>,
}

/// One of those who work side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// What it makes.
    pub part: String,
    /// What the server says of that, when it builds an index.
    pub phase: Option<String>,
    /// How far it is with it.
    pub done: u64,
    /// Of how much, when that is known.
    pub total: Option<u64>,
    /// What is counted: `bytes`, `blocks` or `tuples`.
    pub unit: String,
}

/// What keeps a worker from getting on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Stall {
    /// The backup server sends nothing.
    Silence {
        /// What is made.
        part: String,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// Somebody else holds a lock that it needs.
    Lock {
        /// What is made.
        part: String,
        /// The server process that holds it; 0 stands for a prepared transaction.
        pid: i32,
        /// Who that is, as it says itself.
        application: String,
        /// What it did last, or does.
        query: String,
    },
}

impl Restoring {
    /// How long all of it still takes, in words; nothing where there is no ground to say.
    #[must_use]
    pub fn time_left(&self) -> Option<String> {
        let left = Left { ms: self.left_ms?, at_least: self.left_at_least };
        Some(match self.following_ms {
            Some(following) => Left { ms: left.ms.saturating_add(following), ..left }.to_string(),
            None => format!("{left} of this step"),
        })
    }
}

impl Stall {
    /// What is held up.
    #[must_use]
    pub fn part(&self) -> &str {
        match self {
            Stall::Silence { part, .. } | Stall::Lock { part, .. } => part,
        }
    }

    /// Whether both are the same stall, the one later than the other.
    #[must_use]
    pub fn is(&self, other: &Stall) -> bool {
        match (self, other) {
            (Stall::Silence { part, .. }, Stall::Silence { part: of_other, .. }) => part == of_other,
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Silence { part, ms } => write!(f, "{part}: no byte for {} s", ms / 1000),
            Stall::Lock { part, pid: 0, .. } => {
                write!(f, "{part}: waiting for a lock held by a prepared transaction")
            }
            Stall::Lock { part, pid, application, query } => {
                write!(f, "{part}: waiting for a lock held by pid {pid}")?;
                match (application.as_str(), query.as_str()) {
                    ("", "") => Ok(()),
                    (one, "") | ("", one) => write!(f, " ({one})"),
                    (application, query) => write!(f, " ({application}: {query})"),
                }
            }
        }
    }
}

/// What may be shown of a query of somebody else: its beginning, on one line, and nothing that sets a password.
#[must_use]
pub fn shown_query(query: &str) -> String {
    const LONGEST: usize = 80;
    if query.to_ascii_lowercase().contains("password") {
        return String::new();
    }
    let line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_version_reads_what_it_knows() {
        let told = json!({ "fetched": { "done": 1, "total": null }, "of_a_later_version": {} });
        let read: Restoring = serde_json::from_value(told).unwrap();
        let fetched = Amount { done: 1, total: None };
        assert_eq!(read, Restoring { fetched, ..Restoring::default() });
    }

    #[test]
    fn the_steps_that_follow_count_where_it_is_known_how_long_they_take() {
        let step = Restoring { left_ms: Some(120_000), ..Restoring::default() };
        assert_eq!(step.time_left().unwrap(), "about 2 min left of this step");
        let run = Restoring { following_ms: Some(60_000), ..step.clone() };
        assert_eq!(run.time_left().unwrap(), "about 3 min left");
        assert_eq!(Restoring { left_at_least: true, ..run }.time_left().unwrap(), "at least 3 min left");
        assert_eq!(Restoring { left_ms: None, ..step }.time_left(), None);
    }

    #[test]
    fn a_stall_is_named_with_what_it_waits_for() {
        let silence = |ms| Stall::Silence { part: "TABLE DATA public.orders".into(), ms };
        assert_eq!(silence(31_900).to_string(), "TABLE DATA public.orders: no byte for 31 s");
        assert!(silence(31_900).is(&silence(32_900)));
        let lock = |pid, application: &str, query: &str| Stall::Lock {
            part: "INDEX public.i".into(),
            pid,
            application: application.into(),
            query: query.into(),
        };
        let named = lock(7, "psql", "LOCK TABLE t");
        assert_eq!(
            named.to_string(),
            "INDEX public.i: waiting for a lock held by pid 7 (psql: LOCK TABLE t)"
        );
        assert_eq!(lock(7, "", "").to_string(), "INDEX public.i: waiting for a lock held by pid 7");
        assert!(lock(0, "", "").to_string().ends_with("held by a prepared transaction"));
        assert!(!named.is(&lock(8, "psql", "LOCK TABLE t")) && !named.is(&silence(1)));
    }

    #[test]
    fn a_query_of_somebody_else_is_shown_in_short_and_without_passwords() {
        assert_eq!(shown_query("LOCK TABLE\n   public.orders"), "LOCK TABLE public.orders");
        assert_eq!(shown_query("ALTER ROLE r PassWord 'x'"), "");
        let long = shown_query(&"é".repeat(200));
        assert_eq!((long.chars().count(), long.ends_with('…')), (81, true));
    }
}
