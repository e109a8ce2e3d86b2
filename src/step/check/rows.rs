//! How many rows each table has, beside what it had in the last restore of the same section.

use std::collections::HashMap;

use journal::event::{Detail, Failure};
use journal::run::Run;
use journal::step::Context;

use super::found::{Named, found};
use super::{Found, dotted};
use crate::step::catalog::Expected;
use crate::step::{attached, read};
use crate::world::postgres::Session;

const COUNT: &str = include_str!("rows.sql");

/// Tables with their rows.
pub(super) type Counts = Vec<(Named, u64)>;

/// Counts the rows of all tables.
pub(super) async fn count(session: &Session, expected: &Expected) -> Result<Counts, Failure> {
    session.execute(COUNT).await?;
    let counted = found(session, "SELECT * FROM pg_temp.counted_rows()", expected).await?;
    Ok(counted.into_iter().filter_map(|(rows, table)| Some((table?, rows))).collect())
}

/// What the last restore of this section counted; nothing when it did not count, or there was none.
pub(super) async fn counted_before(at: &Context<'_>) -> Result<Counts, Failure> {
    let events = at.precedent().await?;
    let Ok(before) = Run::fold(&events) else { return Ok(Counts::new()) };
    let outcome: Option<Detail> = before.step(at.step()).and_then(|(_, step)| step.outcome.clone());
    let rows = outcome.and_then(|outcome| read::<Found>(&outcome).ok()).and_then(|found| found.rows);
    match rows {
        Some(hash) => attached(at, &hash, "how many rows the last copy had").await,
        None => Ok(Counts::new()),
    }
}

/// The tables that lost more than so many percent of their rows, in words. Those that are restored without rows count
/// for nothing.
pub(super) fn shrunk(now: &Counts, before: &Counts, most_percent: u8, expected: &Expected) -> Vec<String> {
    let before: HashMap<&Named, u64> = before.iter().map(|(table, rows)| (table, *rows)).collect();
    let lost = |(table, rows): &(Named, u64)| {
        let had = *before.get(table).filter(|_| !expected.without_rows.contains(table))?;
        let allowed = u128::from(had) * u128::from(most_percent);
        let lost = u128::from(had.saturating_sub(*rows)) * 100;
        (lost > allowed).then(|| format!("{} has {rows} rows, and had {had}", dotted(table)))
    };
    now.iter().filter_map(lost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_may_lose_so_much_and_no_more() {
        let table = |name: &str| ("public".to_owned(), name.to_owned());
        let counts = |rows: [u64; 3]| ["a", "b", "c"].into_iter().map(table).zip(rows).collect::<Counts>();
        let expected = Expected {
            tables: Vec::new(),
            not_valid: Vec::new(),
            without_rows: vec![table("c")],
            encoding: None,
            byte_by_byte: false,
            unknown: false,
        };
        let shrunk = |now, most| shrunk(&counts(now), &counts([100, 0, 100]), most, &expected);
        assert_eq!(shrunk([50, 0, 0], 50), Vec::<String>::new());
        assert_eq!(shrunk([49, 0, 0], 50), ["public.a has 49 rows, and had 100"]);
        assert_eq!(shrunk([99, 7, 0], 0), ["public.a has 99 rows, and had 100"]);
        assert_eq!(shrunk([0, 0, 0], 100), Vec::<String>::new());
    }
}
