//! `audit`: every fact in the journal, in the order in which they became known. It reads a page at a time, so that it
//! neither holds up a command at work nor needs more memory in a large journal than in a small one.

use std::collections::{BTreeMap, VecDeque};

use clap::{Args, ValueEnum};
use journal::codec;
use journal::event::{Event, RunId, RunStarted};
use journal::query::Query;
use journal::store::{Page, Store};

use super::App;
use super::filter::Filter;
use crate::error::{Error, ExitCode};
use crate::report::{AuditFormat, Entry, Ledger};

/// `audit`.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    filter: Filter,
    /// Only of runs on this database: a copy, or the name that users know
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// No more events than this: the last ones
    #[arg(long)]
    limit: Option<usize>,
    /// How to show them [default: table, or json with --json]
    #[arg(long, value_enum)]
    format: Option<Word>,
}

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Word {
    /// Aligned columns
    Table,
    /// A JSON object a line
    Json,
    /// RFC 4180, with a header
    Csv,
}

/// How many numbers are gone back at a time, to find the last events.
const STRIDE: u64 = 5_000;

impl Audit {
    /// Shows the events.
    pub async fn run(self, app: &App) -> Result<ExitCode, Error> {
        let format = match self.format {
            Some(Word::Json) => AuditFormat::Json,
            Some(Word::Csv) => AuditFormat::Csv,
            None if app.style.json => AuditFormat::Json,
            Some(Word::Table) | None => AuditFormat::Table,
        };
        let query = self.filter.query(app, None)?;
        let store = app.store(self.filter.dbname.as_deref())?;
        let asked = Asked { store: &*store, query, database: self.database };
        let mut ledger = Ledger::begin(format);
        match self.limit {
            None => asked.tell_all(&mut ledger).await?,
            Some(limit) => ledger.tell(&asked.last(limit).await?),
        }
        ledger.end();
        app.tell_notices(&*store);
        Ok(ExitCode::DONE)
    }
}

struct Asked<'a> {
    store: &'a dyn Store,
    query: Query,
    database: Option<String>,
}

impl Asked<'_> {
    /// Tells everything, for as long as somebody reads.
    async fn tell_all(&self, ledger: &mut Ledger) -> Result<(), Error> {
        let mut from = Some(0);
        while let Some(number) = from.filter(|_| ledger.is_read()) {
            let page = self.store.events(&self.query, number).await?;
            from = page.next;
            ledger.tell(&self.entries(&page));
        }
        Ok(())
    }

    /// The last `limit` events, found by going back from the end.
    async fn last(&self, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut found = VecDeque::new();
        let mut end = self.store.events(&self.query, u64::MAX).await?.end;
        while end > 0 && found.len() < limit {
            let begin = end.saturating_sub(STRIDE);
            let stride = self.between(begin, end).await?;
            for entry in stride.into_iter().rev().take(limit - found.len()) {
                found.push_front(entry);
            }
            end = begin;
        }
        Ok(found.into())
    }

    async fn between(&self, begin: u64, end: u64) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let mut from = Some(begin);
        while let Some(number) = from.filter(|number| *number < end) {
            let page = self.store.events(&self.query, number).await?;
            from = page.next;
            found.extend(self.entries(&page).into_iter().filter(|entry| entry.seq < end));
        }
        Ok(found)
    }

    /// The events of a page, with the names of their steps.
    fn entries(&self, page: &Page) -> Vec<Entry> {
        let beginnings: BTreeMap<RunId, RunStarted> =
            page.beginnings.iter().filter_map(|(run, bytes)| Some((*run, beginning(bytes)?))).collect();
        let entry = |event: &journal::store::Numbered| {
            let started = beginnings.get(&event.run);
            let steps = started.map(|started| started.plan.as_slice()).unwrap_or_default();
            self.is_on_database(started)
                .then(|| Entry::of(event.seq, event.run, event.n, &event.bytes, steps))
        };
        page.events.iter().filter_map(entry).collect()
    }

    fn is_on_database(&self, started: Option<&RunStarted>) -> bool {
        let Some(wanted) = &self.database else { return true };
        started.is_some_and(|started| {
            let known_as = started.settings.get("dbname").and_then(|name| name.as_str());
            started.database.as_ref() == Some(wanted) || known_as == Some(wanted)
        })
    }
}

fn beginning(bytes: &[u8]) -> Option<RunStarted> {
    match codec::decode(bytes).ok()?.event {
        Event::RunStarted(started) => Some(*started),
        _ => None,
    }
}
