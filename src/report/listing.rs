//! What listings have in common: aligned columns for people, `{"schema":1,"<command>":[…]}` for scripts.

use comfy_table::CellAlignment;
use jiff::Timestamp;
use jiff::civil::Date;
use journal::event::RunId;
use serde_json::{Map, Value, json};

use super::{Style, out, tables};

/// A table of one command's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The command, which names the rows in JSON.
    pub command: &'static str,
    /// What each cell of a row is.
    pub columns: Vec<Column>,
    /// The rows, each with a cell a column.
    pub rows: Vec<Vec<Cell>>,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its heading for people; columns without one are for scripts only.
    pub heading: Option<&'static str>,
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// There is nothing: empty, and null.
    Nothing,
    /// Words.
    Text(String),
    /// A size in bytes.
    Bytes(u64),
    /// A number of things.
    Count(u64),
    /// A day.
    Date(Date),
    /// A moment.
    Time(Timestamp),
    /// A run.
    Run(RunId),
    /// Yes or no.
    Flag(bool),
    /// Several words.
    List(Vec<String>),
}

impl Column {
    /// A column that people see under `heading`.
    pub const fn new(key: &'static str, heading: &'static str) -> Column {
        Column { key, heading: Some(heading) }
    }

    /// A column that only scripts see.
    pub const fn hidden(key: &'static str) -> Column {
        Column { key, heading: None }
    }
}

impl Cell {
    /// `value` made a cell, or nothing.
    pub fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
        value.map_or(Cell::Nothing, cell)
    }

    fn shown(&self) -> String {
        match self {
            Cell::Nothing => String::new(),
            Cell::Text(text) => text.clone(),
            Cell::Bytes(bytes) => size(*bytes),
            Cell::Count(count) => count.to_string(),
            Cell::Date(date) => date.to_string(),
            Cell::Time(time) => tables::local(*time),
            Cell::Run(run) => run.short(),
            Cell::Flag(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            Cell::List(words) => words.join(", "),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Nothing => Value::Null,
            Cell::Text(text) => json!(text),
            Cell::Bytes(number) | Cell::Count(number) => json!(number),
            Cell::Date(date) => json!(date.to_string()),
            Cell::Time(time) => json!(super::json::time(*time)),
            Cell::Run(run) => json!(run.to_string()),
            Cell::Flag(yes) => json!(yes),
            Cell::List(words) => json!(words),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Cell::Bytes(_) | Cell::Count(_))
    }
}

impl Listing {
    /// Prints it as aligned columns, or as JSON.
    pub fn print(&self, style: Style) {
        if style.json {
            out(&self.json().to_string());
        } else {
            self.print_table();
        }
    }

    /// Prints it as JSON where that is asked for, and otherwise `text`, as it is.
    pub fn print_as(&self, text: &str, style: Style) {
        if style.json { out(&self.json().to_string()) } else { out(text.trim_end_matches('\n')) }
    }

    fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let pairs =
                self.columns.iter().zip(row).map(|(column, cell)| (column.key.to_owned(), cell.json()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        json!({ "schema": 1, self.command: self.rows.iter().map(row).collect::<Vec<_>>() })
    }

    fn print_table(&self) {
        let shown: Vec<(usize, &'static str)> =
            self.columns.iter().enumerate().filter_map(|(at, column)| Some((at, column.heading?))).collect();
        let mut table = tables::table(&shown.iter().map(|(_, heading)| *heading).collect::<Vec<_>>());
        for row in &self.rows {
            table.add_row(shown.iter().filter_map(|(at, _)| row.get(*at)).map(|cell| {
                let shown = comfy_table::Cell::new(cell.shown());
                if cell.is_number() { shown.set_alignment(CellAlignment::Right) } else { shown }
            }));
        }
        tables::print(&table);
    }
}

/// A size as PostgreSQL's pg_size_pretty gives it: `512 bytes`, `83 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    /// Up to here a number stays in its unit.
    const MOST: u64 = 10 * 1024;
    let mut number = bytes;
    // Twice the number from here on, so that it can be rounded to the nearest whole.
    let mut half = false;
    let last = UNITS.len() - 1;
    for (at, unit) in UNITS.iter().enumerate() {
        let limit = if half { 2 * MOST - 1 } else { MOST };
        if number < limit || at == last {
            let whole = if half { number.div_ceil(2) } else { number };
            return format!("{whole} {unit}");
        }
        number >>= if half { 10 } else { 9 };
        half = true;
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_pg_size_pretty() {
        // What PostgreSQL 15 answers.
        let known = [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (1_000_000, "977 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1_073_741_824, "1024 MB"),
            (216_000_000_000, "201 GB"),
        ];
        for (bytes, text) in known {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn scripts_get_numbers_and_every_column() {
        let listing = Listing {
            command: "dbsizes",
            columns: vec![Column::new("name", "NAME"), Column::new("bytes", "SIZE"), Column::hidden("date")],
            rows: vec![vec![
                Cell::Text("shop".to_owned()),
                Cell::Bytes(3),
                Cell::Date(jiff::civil::date(2026, 11, 21)),
            ]],
        };
        assert_eq!(
            listing.json().to_string(),
            r#"{"schema":1,"dbsizes":[{"name":"shop","bytes":3,"date":"2026-11-21"}]}"#
        );
    }
}
