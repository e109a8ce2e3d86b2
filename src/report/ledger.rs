//! `audit`: a line for each event, printed as they come.

use std::io::{self, BufWriter, Stdout, Write as _};

use super::entry::Entry;

/// How the events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFormat {
    /// Aligned columns.
    Table,
    /// A JSON object a line: E of the documentation.
    Json,
    /// RFC 4180, with a header: E with its actor in three fields, and its detail as JSON.
    Csv,
}

const CSV_HEADER: [&str; 11] =
    ["seq", "run", "n", "at", "kind", "step", "user", "host", "pid", "detail", "hash"];

/// What is printed so far.
pub struct Ledger {
    format: AuditFormat,
    out: BufWriter<Stdout>,
    /// Whether what is printed still gets anywhere.
    read: bool,
}

impl Ledger {
    /// With its header, where it has one.
    pub fn begin(format: AuditFormat) -> Ledger {
        let mut ledger = Ledger { format, out: BufWriter::new(io::stdout()), read: true };
        let header = match format {
            AuditFormat::Table => row(["SEQ", "AT", "RUN", "WHO", "KIND", "STEP", "WHAT"].map(str::to_owned)),
            AuditFormat::Json => return ledger,
            AuditFormat::Csv => csv_line(&CSV_HEADER),
        };
        ledger.print(&header);
        ledger
    }

    /// Prints these as well.
    pub fn tell(&mut self, entries: &[Entry]) {
        for entry in entries {
            let line = match self.format {
                AuditFormat::Table => table_row(entry),
                AuditFormat::Json => format!("{}\n", entry.json()).into_bytes(),
                AuditFormat::Csv => csv_row(entry),
            };
            self.print(&line);
        }
    }

    /// Whether anybody reads: `head` stops doing so early.
    pub fn is_read(&self) -> bool {
        self.read
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.read = self.read && self.out.flush().is_ok();
    }

    fn print(&mut self, line: &[u8]) {
        self.read = self.read && self.out.write_all(line).is_ok();
    }
}

/// The columns have fixed widths, since what comes later is not known yet.
fn row([seq, at, run, who, kind, step, what]: [String; 7]) -> Vec<u8> {
    let line = format!(" {seq:>8}  {at:<24}  {run:<8}  {who:<20}  {kind:<16}  {step:<16}  {what}");
    format!("{}\n", line.trim_end()).into_bytes()
}

fn table_row(entry: &Entry) -> Vec<u8> {
    let who = entry.actor().map(|actor| format!("{}@{}", actor.user, actor.host));
    row([
        entry.seq.to_string(),
        entry.at().unwrap_or_default(),
        entry.run.short(),
        who.unwrap_or_default(),
        entry.kind().to_owned(),
        entry.step.clone().unwrap_or_default(),
        entry.words(),
    ])
}

fn csv_row(entry: &Entry) -> Vec<u8> {
    let actor = entry.actor();
    let fields = [
        entry.seq.to_string(),
        entry.run.to_string(),
        entry.n.to_string(),
        entry.at().unwrap_or_default(),
        entry.kind().to_owned(),
        entry.step.clone().unwrap_or_default(),
        actor.map(|actor| actor.user.clone()).unwrap_or_default(),
        actor.map(|actor| actor.host.clone()).unwrap_or_default(),
        actor.map(|actor| actor.pid.to_string()).unwrap_or_default(),
        entry.detail().to_string(),
        entry.hash.to_string(),
    ];
    csv_line(&fields)
}

fn csv_line<T: AsRef<[u8]>>(fields: &[T]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Writing into memory does not fail.
    let written = writer.write_record(fields);
    written.ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default()
}
