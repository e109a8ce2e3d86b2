//! How a restore is divided into parts: what is loaded in one transaction, what has to be there before, and what must
//! not be at work at the same time.
//!
//! - Definitions come first, some hundred at a time, one after the other in the archive's order; with them the indexes of
//!   partitioned tables, which are nothing but the root of those of their partitions.
//! - Rows of a large table are a part of their own; small tables that lie beside each other in the file share one. Where
//!   it is not known how large they are, each is by itself, and so is what follows it; [`Schedule`](super::Schedule) then
//!   puts together what turns out to be small.
//! - Rows that must find others in their tables wait for all that come before them in the archive, as they would in a
//!   pg_restore with one job: those that functions check or compute by what is in a table, and those of tables that are
//!   there already with their keys.
//! - What follows rows (`SECTION_POST_DATA`) begins as soon as the rows that it needs are in: each index and constraint
//!   of a large table by itself, those of small tables together. Entries that share a part have the same distance from
//!   the rows, so that no part ever waits for itself. The rows of a table are also those that reach it by way of the root
//!   of its partitions, and those of what inherits from it.
//! - Privileges, materialized views and event triggers come last and in this order, as they do in pg_restore
//!   (`_tocEntryRestorePass` in pg_backup_archiver.c).
//!
//! Locks follow pg_restore's rule (`identify_locking_dependencies`): indexes of a table may be built side by side, all
//! else that follows rows has its tables for itself. A part takes many locks, and two parts that want each other's would
//! end in a deadlock.

mod after_rows;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::needs::{self, Needs};
use super::sql;
use super::{Contents, Entry, ObjectType, Section, Selection, describe, is_partitioned, qualified_name};

/// Rows of fewer bytes than this, as they are in the archive, make a table small.
pub const LARGE: u64 = 1 << 20;
/// How many bytes of small tables share a part.
pub const TOGETHER: u64 = 8 << 20;
/// How many definitions share a part. Each takes a few locks, and a server has room for some thousand by default
/// (`max_locks_per_transaction`).
const MOST_DEFINITIONS: usize = 400;
/// How many tables share a part, or entries that follow their rows.
pub const MOST_TABLES: usize = 100;

/// An entry by its place in the archive.
pub type Place = usize;

/// One transaction of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// What it does.
    pub kind: PartKind,
    /// Its entries, in the archive's order.
    pub entries: Vec<Place>,
    /// The parts that come before it, all of them earlier in the list.
    pub needs: Vec<usize>,
    /// What it must have for itself, or shares with others that only share it.
    pub locks: Vec<Lock>,
    /// Where its rows are in the archive, in the archive's order.
    pub rows: Vec<Rows>,
    /// How much work it is, counted in bytes of rows in the archive.
    pub weight: u64,
}

/// What a part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// Makes what comes before rows.
    Definitions,
    /// Loads rows.
    Rows,
    /// Makes what comes after rows.
    AfterRows,
    /// Grants and revokes, and what else may fail without harm. Not one transaction: it can be repeated.
    Privileges,
    /// Fills a materialized view.
    Refresh,
    /// Makes event triggers, and is the end.
    Finish,
}

/// A table that a part locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock {
    /// The table.
    pub table: Place,
    /// Whether nobody else may have it.
    pub alone: bool,
}

/// A block of data of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Its entry.
    pub entry: Place,
    /// The entry's dump id, by which the block is known.
    pub dump_id: i32,
    /// Where it is in the file, when that is known.
    pub bytes: Option<Range<u64>>,
    /// Whether the table may be emptied before, which lets rows be written frozen and without WAL.
    pub empties: bool,
    /// Whether they must find the rows before them in the archive in their tables.
    pub waits: bool,
}

impl Rows {
    /// How long it is, in bytes; 0 where that is not known.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |bytes| bytes.end.saturating_sub(bytes.start))
    }
}

/// Divides what is kept into parts. `file_length` in bytes is where the last block ends, or unknown, and with it where
/// any block is.
#[must_use]
pub fn parts(contents: &Contents, selection: &Selection, file_length: Option<u64>) -> Vec<Part> {
    let kept: HashSet<i32> = selection.kept.iter().copied().collect();
    let mut division = Division {
        entries: contents.entries(),
        needs: Needs::of(contents.entries(), false),
        by_id: contents.entries().iter().enumerate().map(|(at, entry)| (entry.dump_id, at)).collect(),
        filled_by: HashMap::new(),
        extents: extents(contents, file_length),
        parts: Vec::new(),
        part_of: HashMap::new(),
    };
    let kept: Vec<Place> = (0..contents.entries().len())
        .filter(|at| contents.entries().get(*at).is_some_and(|entry| kept.contains(&entry.dump_id)))
        .collect();
    division.index_rows();
    division.divide(&kept);
    division.parts
}

/// The places of the entries that every archive begins with: they say how the rest is to be read.
#[must_use]
pub fn preamble(contents: &Contents) -> Vec<Place> {
    let is_preamble = |(_, entry): &(usize, &Entry)| is_preamble(entry);
    contents.entries().iter().enumerate().filter(is_preamble).map(|(at, _)| at).collect()
}

fn is_preamble(entry: &Entry) -> bool {
    matches!(entry.desc, ObjectType::Encoding | ObjectType::StdStrings | ObjectType::SearchPath)
}

/// Where each block is: from its offset to the next one's, whoever's that is.
fn extents(contents: &Contents, file_length: Option<u64>) -> HashMap<i32, Range<u64>> {
    let Some(end) = file_length.filter(|_| contents.offsets_known()) else { return HashMap::new() };
    let mut starts: Vec<(u64, i32)> =
        contents.data_entries().map(|entry| (entry.offset, entry.dump_id)).collect();
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset).chain([end]);
    starts.iter().zip(ends).map(|((start, id), end)| (*id, *start..end)).collect()
}

/// How many objects an entry makes. That of large objects names up to a thousand of them, a line each
/// (`MAX_BLOBS_PER_ARCHIVE_ENTRY` in pg_dump.c), and each is locked when it is given to its owner.
fn objects(entry: &Entry) -> usize {
    match entry.desc {
        ObjectType::BlobMetadata => entry.defn.as_deref().map_or(1, |oids| oids.lines().count()),
        _ => 1,
    }
}

/// What of the archive an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Definitions,
    Rows,
    AfterRows,
    Privileges,
    Refresh,
    Finish,
}

struct Division<'a> {
    entries: &'a [Entry],
    needs: Needs<'a>,
    by_id: HashMap<i32, Place>,
    extents: HashMap<i32, Range<u64>>,
    /// The entries whose rows may get into a table, where those are others than its own.
    filled_by: HashMap<Place, Vec<Place>>,
    parts: Vec<Part>,
    /// The part of each entry that has one already.
    part_of: HashMap<Place, usize>,
}

impl Division<'_> {
    /// Rows that are given to a root of partitions get into any of these.
    fn index_rows(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.desc != ObjectType::TableData {
                continue;
            }
            let Some(root) = self.needs.given_to(entry) else { continue };
            if self.needs.relation(&qualified_name(entry)) != Some(root) {
                for member in self.needs.family(root) {
                    self.filled_by.entry(member).or_default().push(at);
                }
            }
        }
    }

    fn divide(&mut self, kept: &[Place]) {
        let mut phases: BTreeMap<Phase, Vec<Place>> = BTreeMap::new();
        let mut known: HashMap<Place, Phase> = HashMap::new();
        for at in kept {
            let Some(entry) = self.entries.get(*at).filter(|entry| !is_preamble(entry)) else { continue };
            let phase = self.phase(entry, &known);
            known.insert(*at, phase);
            phases.entry(phase).or_default().push(*at);
        }
        let mut of = |phase| phases.remove(&phase).unwrap_or_default();
        let (definitions, rows, after_rows) = (of(Phase::Definitions), of(Phase::Rows), of(Phase::AfterRows));
        let (privileges, refresh, finish) = (of(Phase::Privileges), of(Phase::Refresh), of(Phase::Finish));
        self.definitions(&definitions);
        self.rows(&rows);
        self.after_rows(&after_rows);
        let all = |parts: &[Part]| (0..parts.len()).collect::<Vec<usize>>();
        if !privileges.is_empty() {
            let needs = all(&self.parts);
            self.push("privileges".to_owned(), PartKind::Privileges, privileges, needs);
        }
        for at in refresh {
            let name = self.entries.get(at).map(describe).unwrap_or_default();
            let needs = all(&self.parts);
            self.push(name, PartKind::Refresh, vec![at], needs);
        }
        let needs = all(&self.parts);
        self.push("end".to_owned(), PartKind::Finish, finish, needs);
    }

    fn phase(&self, entry: &Entry, known: &HashMap<Place, Phase>) -> Phase {
        let owner = || entry.dependencies.iter().find_map(|id| self.by_id.get(id));
        match (&entry.desc, entry.section) {
            (ObjectType::Acl | ObjectType::DefaultAcl, _) => Phase::Privileges,
            // Whoever restores may not be the owner of an extension, nor the one who makes a schema public.
            (ObjectType::Comment, _) if super::name(entry).starts_with("EXTENSION ") => Phase::Privileges,
            (ObjectType::Schema, _) if super::name(entry) == needs::PUBLIC => Phase::Privileges,
            (desc, _) if needs::is_about(desc) => {
                owner().and_then(|at| known.get(at)).copied().unwrap_or(Phase::Privileges)
            }
            // From version 1.16 of the format on it counts as data; it makes large objects, several of whose blocks may need it.
            (ObjectType::BlobMetadata, _) => Phase::Definitions,
            (ObjectType::MaterializedViewData, _) => Phase::Refresh,
            (ObjectType::EventTrigger, _) => Phase::Finish,
            (ObjectType::Other(desc), _) if desc == "STATISTICS DATA" => Phase::AfterRows,
            (ObjectType::Index | ObjectType::Constraint, _) if self.is_of_root_alone(entry) => {
                Phase::Definitions
            }
            (ObjectType::StatisticsData, _) | (_, Section::PostData) => Phase::AfterRows,
            (_, Section::Data) => Phase::Rows,
            _ => Phase::Definitions,
        }
    }

    /// Whether an index or constraint is of a partitioned table without its partitions: then it has no rows to look at,
    /// and those of the partitions, which need it, can be made as soon as their own rows are in.
    fn is_of_root_alone(&self, entry: &Entry) -> bool {
        let tokens = sql::tokens(entry.defn.as_deref().unwrap_or_default());
        let is_alone =
            [["table", "only"], ["on", "only"]].iter().any(|words| sql::after(&tokens, words).is_some());
        let tables = entry.dependencies.iter().filter_map(|id| self.entries.get(*self.by_id.get(id)?));
        is_alone && tables.filter(|table| table.desc == ObjectType::Table).any(is_partitioned)
    }

    fn push(&mut self, name: String, kind: PartKind, entries: Vec<Place>, needs: Vec<usize>) -> usize {
        let index = self.parts.len();
        self.part_of.extend(entries.iter().map(|at| (*at, index)));
        self.parts.push(Part { name, kind, entries, needs, locks: Vec::new(), rows: Vec::new(), weight: 0 });
        index
    }

    fn definitions(&mut self, entries: &[Place]) {
        let (mut rest, mut number) = (entries, 0);
        while !rest.is_empty() {
            let (chunk, others) = rest.split_at(self.how_many_together(rest));
            (rest, number) = (others, number + 1);
            let before = self.parts.len().checked_sub(1).into_iter().collect();
            self.push(format!("definitions {number}"), PartKind::Definitions, chunk.to_vec(), before);
        }
    }

    /// How many of these definitions, one at the least, can be made in one transaction.
    fn how_many_together(&self, entries: &[Place]) -> usize {
        let mut made: usize = 0;
        let fits = |at: &&Place| {
            made += self.entries.get(**at).map_or(1, objects);
            made <= MOST_DEFINITIONS
        };
        entries.iter().take_while(fits).count().max(1)
    }

    /// The last part of the definitions, on which all rows wait.
    fn last_definitions(&self) -> Vec<usize> {
        let is_definitions = |part: &Part| part.kind == PartKind::Definitions;
        self.parts.iter().rposition(is_definitions).into_iter().collect()
    }

    fn rows(&mut self, entries: &[Place]) {
        let mut group = Group::default();
        let mut sequences = Vec::new();
        for at in entries {
            let Some(entry) = self.entries.get(*at) else { continue };
            let Some(rows) = self.block(*at, entry) else {
                sequences.push(*at);
                continue;
            };
            let by_itself = rows.bytes.is_none() || rows.length() >= LARGE || entry.desc == ObjectType::Blobs;
            let is_full = group.rows.len() >= MOST_TABLES || group.bytes + rows.length() > TOGETHER;
            let others_wait = group.rows.first().is_some_and(|first| first.waits != rows.waits);
            if others_wait || (by_itself && rows.waits) || (is_full && !by_itself) {
                self.group_part(&mut group);
            }
            if by_itself {
                self.rows_part(describe(entry), vec![rows]);
            } else {
                group.bytes += rows.length();
                group.rows.push(rows);
            }
        }
        self.group_part(&mut group);
        for (number, chunk) in sequences.chunks(MOST_DEFINITIONS).enumerate() {
            let needs = self.last_definitions();
            self.push(format!("sequences {}", number + 1), PartKind::Rows, chunk.to_vec(), needs);
        }
    }

    fn group_part(&mut self, group: &mut Group) {
        let Group { rows, number, .. } = std::mem::take(group);
        group.number = number;
        if !rows.is_empty() {
            group.number += 1;
            self.rows_part(format!("small tables {}", group.number), rows);
        }
    }

    fn rows_part(&mut self, name: String, rows: Vec<Rows>) {
        let entries: Vec<Place> = rows.iter().map(|rows| rows.entry).collect();
        let mut needs = self.last_definitions();
        if rows.iter().any(|rows| rows.waits) {
            let waits = |part: &Part| part.rows.iter().any(|rows| rows.waits);
            // What that one waited for need not be named again.
            let from = self.parts.iter().rposition(waits).unwrap_or_default();
            let before = self.parts.iter().enumerate().skip(from);
            needs.extend(before.filter(|(_, part)| !part.rows.is_empty()).map(|(index, _)| index));
        }
        let weight = rows.iter().map(Rows::length).sum();
        let index = self.push(name, PartKind::Rows, entries, needs);
        if let Some(part) = self.parts.get_mut(index) {
            (part.rows, part.weight) = (rows, weight);
        }
    }

    /// The block of an entry that has one.
    fn block(&self, at: Place, entry: &Entry) -> Option<Rows> {
        if !super::has_block(entry) {
            return None;
        }
        let bytes = self.extents.get(&entry.dump_id).cloned();
        let (empties, waits) = (self.has_table_for_itself(entry), self.waits(at, entry));
        Some(Rows { entry: at, dump_id: entry.dump_id, bytes, empties, waits })
    }

    /// Whether rows go into a table that nothing else fills: an ordinary one, and not by way of the root of its
    /// partitions. Only COPY tells for sure by which way they go.
    fn has_table_for_itself(&self, entry: &Entry) -> bool {
        let own = self.needs.relation(&qualified_name(entry));
        let table = own.and_then(|at| self.entries.get(at));
        table.is_some_and(|table| table.desc == ObjectType::Table && !is_partitioned(table))
            && entry.copy_stmt.is_some()
            && self.needs.given_to(entry) == own
    }

    /// A table that is not made by this restore, as one of an extension's or of a dump of rows only, may have its keys and
    /// triggers already; pg_dump then puts what they look for before it in the archive, and tells by nothing else.
    fn waits(&self, at: Place, entry: &Entry) -> bool {
        entry.desc == ObjectType::TableData
            && (self.needs.relation(&qualified_name(entry)).is_none()
                || self.needs.looks_into_tables(at, entry))
    }
}

/// Small tables on their way into a part.
#[derive(Debug, Default)]
struct Group {
    rows: Vec<Rows>,
    bytes: u64,
    /// How many parts were made of such.
    number: usize,
}
