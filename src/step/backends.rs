//! What the server says of a restore's sessions: how far an index is, and who holds a lock that is waited for.

use crate::progress::shown_query;
use crate::world::Trouble;
use crate::world::postgres::{Session, literal};

/// One worker's session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backend {
    /// The index that it builds.
    pub(super) building: Option<Building>,
    /// Who holds the lock that it waits for.
    pub(super) waits_for: Option<Holder>,
    /// What may be shown of its query.
    pub(super) query: String,
}

/// How far an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Building {
    /// In the server's words.
    pub(super) phase: String,
    /// How much of that phase is done.
    pub(super) done: u64,
    /// Of how much, when the server says so.
    pub(super) total: Option<u64>,
    /// `blocks` of the table, or `tuples`.
    pub(super) unit: &'static str,
}

/// A session that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its process on the server.
    pub(super) pid: i32,
    /// What it calls itself, as far as we may know.
    pub(super) application: String,
    /// What may be shown of its query.
    pub(super) query: String,
}

/// The name of a worker's sessions, as the server shows it.
pub(super) fn name_of(application_name: &str, worker: usize) -> String {
    format!("{application_name}:{}", worker + 1)
}

/// Asks about the sessions of that name and of its workers, which have a number.
pub(super) async fn ask(
    session: &Session,
    application_name: &str,
) -> Result<Vec<(Option<usize>, Backend)>, Trouble> {
    let sql = include_str!("backends.sql").replace(":'name'", literal(application_name).trim());
    Ok(session.rows(&sql).await?.iter().map(|row| read(application_name, row)).collect())
}

fn read(application_name: &str, row: &[Option<String>]) -> (Option<usize>, Backend) {
    let text = |at: usize| row.get(at)?.as_deref();
    let number = |at: usize| text(at)?.parse::<u64>().ok();
    let number_of = |name: &str| {
        let number = name.strip_prefix(application_name)?.strip_prefix(':')?.parse::<usize>().ok()?;
        number.checked_sub(1)
    };
    let worker = text(0).and_then(number_of);
    let amount = |done: usize, total: usize, unit| {
        let total = number(total).filter(|total| *total > 0)?;
        Some((number(done)?, Some(total), unit))
    };
    let building = text(1).map(|phase| {
        // Rows are counted from when the table has been read.
        let (done, total, unit) = amount(4, 5, "tuples").or_else(|| amount(2, 3, "blocks")).unwrap_or((
            number(2).unwrap_or_default(),
            None,
            "blocks",
        ));
        Building { phase: phase.to_owned(), done, total, unit }
    });
    let waits_for = text(6).and_then(|pid| pid.parse().ok()).map(|pid| Holder {
        pid,
        application: text(7).unwrap_or_default().to_owned(),
        query: text(8).filter(|query| *query != HIDDEN).map(shown_query).unwrap_or_default(),
    });
    let query = text(9).map(shown_query).unwrap_or_default();
    (worker, Backend { building, waits_for, query })
}

/// What the server shows instead of the query of somebody whom we may not look at (PostgreSQL, table 28.1).
const HIDDEN: &str = "<insufficient privilege>";

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "pg_staging:run:restore";

    fn row(values: &[&str]) -> (Option<usize>, Backend) {
        let value = |text: &&str| (!text.is_empty()).then(|| (*text).to_owned());
        read(NAME, &values.iter().map(value).collect::<Vec<_>>())
    }

    fn building(values: &[&str]) -> Building {
        row(&[&["pg_staging:run:restore:2"], values, &["", "", ""]].concat()).1.building.unwrap()
    }

    #[test]
    fn an_index_is_counted_in_blocks_and_then_in_tuples() {
        let reading = building(&["building index: scanning table", "40", "100", "0", "0"]);
        assert_eq!((reading.done, reading.total, reading.unit), (40, Some(100), "blocks"));
        let writing = building(&["building index: loading tuples in tree", "100", "100", "3", "9"]);
        assert_eq!((writing.done, writing.total, writing.unit), (3, Some(9), "tuples"));
        let begun = building(&["initializing", "0", "0", "0", "0"]);
        assert_eq!((begun.done, begun.total), (0, None));
    }

    #[test]
    fn who_holds_a_lock_is_told_as_far_as_we_may_know() {
        let waiting =
            |holder: &[&str]| row(&[&["pg_staging:run:restore:2", "", "", "", "", ""], holder].concat());
        let (worker, backend) = waiting(&["17", "psql", "LOCK TABLE t"]);
        let holder = backend.waits_for.unwrap();
        assert_eq!((worker, holder.pid, holder.application.as_str()), (Some(1), 17, "psql"));
        assert_eq!(holder.query, "LOCK TABLE t");
        let (_, backend) = waiting(&["0", "", HIDDEN]);
        assert_eq!(backend.waits_for.unwrap().query, "");
        assert_eq!(waiting(&["", "", ""]).1, Backend::default());
        // One of a program that has several.
        let own = row(&[NAME, "", "", "", "", "", "", "", "", "COPY t\n FROM stdin;"]);
        assert_eq!((own.0, own.1.query.as_str()), (None, "COPY t FROM stdin;"));
    }
}
