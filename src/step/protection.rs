//! Protects a copy from `drop` and `purge`, or takes that back.
//!
//! It stands on the database itself, as a note behind its mark: it holds for everybody, whatever becomes of a journal, and
//! it goes with the copy.

use std::fmt;

use async_trait::async_trait;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use journal::clock::{Clock as _, SystemClock};
use journal::event::{Detail, Failure, RunId};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::create_database::{Mark, comment_of, oid_of, require_seen};
use super::{Settings, announced, maintenance, maintenance_alone, read, write};
use crate::world::postgres::{Session, identifier, literal};

/// Why a copy must not go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The last day on which it holds; for good where there is none.
    pub until: Option<Date>,
    /// Why.
    pub reason: String,
}

/// The step.
pub struct Protect {
    /// Which copy, and where.
    pub settings: Settings,
    /// What is to hold.
    pub given: Given,
}

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The protection, in place of any other; without one, none is left.
    pub protection: Option<Protection>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    database: String,
    oid: u32,
    /// The notes that were there.
    before: Vec<Note>,
    after: Vec<Note>,
}

/// A note behind a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The id of the run that left it.
    run: String,
    text: String,
}

impl Protection {
    /// The one that a database's comment tells of and that holds today.
    pub fn of(comment: &str) -> Option<Protection> {
        let today = SystemClock.now().to_zoned_datetime(TimeZone::system()).date();
        Protection::on(comment, today)
    }

    fn on(comment: &str, today: Date) -> Option<Protection> {
        let mut notes = Mark::notes(comment).into_iter().filter_map(|(_, note)| Protection::parse(note));
        notes.rfind(|found| found.until.is_none_or(|until| until >= today))
    }

    /// What may drop the copy of that comment must leave it alone while it is protected.
    pub(super) fn must_not_hold(comment: &str, settings: &Settings) -> Result<(), Failure> {
        let Some(found) = Protection::of(comment) else { return Ok(()) };
        let Settings { database, section, .. } = settings;
        let date = database.rsplit('_').next().unwrap_or_default();
        Err(Failure::new(format!("{database} is {found}"))
            .hint(format!("take that back first: pg_staging unprotect {section} {date}")))
    }

    fn note(&self) -> String {
        let until = self.until.map(|until| format!(" until {until}")).unwrap_or_default();
        format!("protect{until}: {}", self.reason)
    }

    fn parse(note: &str) -> Option<Protection> {
        let rest = note.strip_prefix("protect")?;
        let Some(rest) = rest.strip_prefix(" until ") else {
            return Some(Protection { until: None, reason: rest.strip_prefix(": ")?.to_owned() });
        };
        let (until, reason) = rest.split_once(": ")?;
        Some(Protection { until: Some(until.parse().ok()?), reason: reason.to_owned() })
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.map(|until| format!(" until {until}")).unwrap_or_default();
        write!(f, "protected{until}: {}", self.reason)
    }
}

#[async_trait]
impl Step for Protect {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        let session = maintenance(at, &self.settings).await?;
        let database = self.settings.database.clone();
        let oid = require_seen(at, &session, &database).await?;
        // A second attempt may find what the first has changed.
        let before = match announced(at).await {
            Some(earlier) => read::<Change>(&earlier)?.before,
            None => protections(&comment_of(&session, &database).await?.unwrap_or_default()),
        };
        let given = self.given.protection.as_ref();
        if given.is_none() && before.is_empty() {
            return Ok(Intent::Skip(format!("{database} is not protected")));
        }
        let after = given.map(|protection| Note::of(at.run(), protection)).into_iter().collect();
        Ok(Intent::Do(write(&Change { database, oid, before, after })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let change: Change = read(intent)?;
        let session = maintenance_alone(at, &self.settings).await?;
        require_seen(at, &session, &change.database).await?;
        let now = protections(&comment_of(&session, &change.database).await?.unwrap_or_default());
        Ok(if now == change.after { Observed::Done(intent.clone()) } else { Observed::Absent })
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        let session = maintenance(at, &self.settings).await?;
        require_seen(at, &session, &change.database).await?;
        put(&session, &change.database, &change.after).await?;
        Ok(intent.clone())
    }

    /// Back to what held before; what somebody else has made of it since stays.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        let session = maintenance_alone(at, &self.settings).await?;
        let is_there = oid_of(&session, &change.database).await? == Some(change.oid);
        let now = protections(&comment_of(&session, &change.database).await?.unwrap_or_default());
        let ours = is_there && now == change.after;
        if ours {
            put(&session, &change.database, &change.before).await?;
        }
        Ok(write(&serde_json::json!({ "database": change.database, "changed": ours })))
    }
}

impl Note {
    fn of(run: RunId, protection: &Protection) -> Note {
        Note { run: run.to_string(), text: protection.note() }
    }
}

/// The notes that protect.
fn protections(comment: &str) -> Vec<Note> {
    let protects = Mark::notes(comment).into_iter().filter(|(_, text)| Protection::parse(text).is_some());
    protects.map(|(run, text)| Note { run: run.to_string(), text: text.to_owned() }).collect()
}

/// Leaves these notes in a comment in place of all that protect, and all else as it was.
fn with(comment: &str, notes: &[Note]) -> String {
    let put = |comment: String, note: &Note, text: Option<&str>| match note.run.parse() {
        Ok(run) => Mark::with_note(&comment, run, text),
        Err(_) => comment,
    };
    let bare = protections(comment).iter().fold(comment.to_owned(), |text, old| put(text, old, None));
    notes.iter().fold(bare, |text, note| put(text, note, Some(&note.text)))
}

async fn put(session: &Session, database: &str, notes: &[Note]) -> Result<(), Failure> {
    let comment = comment_of(session, database).await?.unwrap_or_default();
    let sql = format!("COMMENT ON DATABASE {} IS {}", identifier(database), literal(&with(&comment, notes)));
    Ok(session.execute(&sql).await?)
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date};
    use journal::event::RunId;
    use uuid::Uuid;

    use super::{Mark, Note, Protection, protections, with};

    #[test]
    fn a_protection_is_read_back_holds_through_its_last_day_and_leaves_all_else_as_it_was() {
        let [maker, one, other, next] = [1, 2, 3, 4].map(|number| RunId(Uuid::from_u128(number)));
        let comment = Mark::with_note(&Mark::text(maker), other, Some("post_sql 1.sql"));
        let until = |until: Option<Date>| Protection { until, reason: "audit: [all] of it".to_owned() };
        for (protection, holds) in [
            (until(None), true),
            (until(Some(date(2026, 11, 21))), true),
            (until(Some(date(2026, 11, 20))), false),
        ] {
            let protected = with(&comment, &[Note::of(one, &protection)]);
            let found = Protection::on(&protected, date(2026, 11, 21));
            assert_eq!(found, holds.then(|| protection.clone()));
            assert!(Mark::is_of(&protected, maker));
            assert_eq!(Mark::noted(&protected, other), Some("post_sql 1.sql"));
            let again = with(&protected, &[Note::of(next, &protection)]);
            assert_eq!(protections(&again), [Note::of(next, &protection)]);
            assert_eq!(with(&protected, &[]), comment);
        }
        assert_eq!(Protection::on(&comment, date(2026, 11, 21)), None);
    }
}
