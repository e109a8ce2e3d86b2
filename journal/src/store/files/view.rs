//! The database and the sealed segments as one.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::super::Stored;
use super::database::Broken;
use super::folder::Folder;
use super::locks;
use super::record::{self, Record};
use super::sealed::Sealed;
use super::session::Session;
use crate::event::RunId;
use crate::query::{Query, Summary};

/// What is known of all runs, while the database is open. What the database has of a run goes before what is sealed.
pub(super) struct View<'a> {
    pub(super) session: &'a Session,
    pub(super) sealed: &'a Sealed,
}

impl View<'_> {
    /// What is kept of `run`.
    pub(super) fn record(&self, run: RunId) -> Result<Option<Record>, Broken> {
        if let Some(record) = self.session.record(run)? {
            return Ok(Some(record));
        }
        let row = self.sealed.row(run)?;
        Ok(row.and_then(|(opened, at)| opened.rows.get(at).map(|row| row.record.clone())))
    }

    /// The events of `run`, in order.
    pub(super) fn events(&self, run: RunId) -> Result<Vec<Stored>, Broken> {
        let events = self.session.events(run)?;
        if events.is_empty() { Ok(self.sealed.events(run)?) } else { Ok(events) }
    }

    /// Event number `n` of `run`, which is there.
    pub(super) fn event(&self, run: RunId, n: u64) -> Result<Stored, Broken> {
        if self.session.record(run)?.is_some() {
            return self.session.event(run, n);
        }
        let events = self.sealed.events(run)?;
        let event = usize::try_from(n).ok().and_then(|n| events.get(n).cloned());
        event.ok_or_else(|| Broken::Damaged(format!("it lost event {n} of run {run}")))
    }

    /// The number that the next event gets.
    pub(super) fn next_seq(&self) -> Result<u64, Broken> {
        Ok(self.session.next_seq()?.max(self.sealed.next_seq()))
    }

    /// Says that work goes on.
    pub(super) fn alive(&self) {
        self.session.alive();
    }

    /// Which events of which runs have the numbers from `from` on, in the order of those, each with its number.
    pub(super) fn numbered_from(&self, from: u64) -> impl Iterator<Item = Result<(u64, RunId, u64), Broken>> {
        let hot = self.session.numbered_from(from).map(|place| place.map(|(seq, run, n)| (seq, (run, n))));
        let sealed = self.sealed.numbered_from(from).into_iter().map(move |(first, number)| {
            let open = move || {
                let opened = self.sealed.opened(number)?;
                let mut places: Vec<(u64, (RunId, u64))> = Vec::new();
                for row in &opened.rows {
                    let numbered = row.seqs.iter().copied().zip(0..);
                    let wanted = numbered.filter(|(seq, _)| *seq >= from);
                    places.extend(wanted.map(|(seq, n)| (seq, (row.record.summary.id, n))));
                }
                places.sort_unstable();
                Ok(places)
            };
            Source::Closed(first, Box::new(open))
        });
        let mut merged = Merged::new(std::iter::once(Source::of(hot)).chain(sealed).collect());
        std::iter::from_fn(move || merged.next_new()).map(|place| place.map(|(seq, (run, n))| (seq, run, n)))
    }

    /// The runs of which `part` is a part of the id, newest first.
    pub(super) fn find(&self, part: &Part) -> Result<Vec<RunId>, Broken> {
        let mut found: BTreeSet<RunId> = self.sealed.ids(|id| part.is_in(id))?;
        for run in self.session.all_runs() {
            let run = run?;
            if part.is_in(run) {
                found.insert(run);
            }
        }
        Ok(found.into_iter().rev().collect())
    }

    /// The runs that `query` asks for, newest first, by the indexes that leave the fewest to look at.
    pub(super) fn select(&self, folder: &Folder, query: &Query) -> Result<Vec<Summary>, Broken> {
        let codes = query.status.as_deref().map(record::codes_shown_as);
        let hot: Box<dyn Iterator<Item = Result<RunId, Broken>>> = match (&query.section, &codes) {
            (Some(section), _) => Box::new(self.session.runs_of(section)),
            (None, Some(codes)) => {
                let of_code = codes.iter().map(|code| Source::of(keyed(self.session.runs_with(*code))));
                let mut merged = Merged::new(of_code.collect());
                Box::new(
                    std::iter::from_fn(move || merged.next_new()).map(|id| id.map(|(Reverse(id), ())| id)),
                )
            }
            (None, None) => Box::new(self.session.all_runs()),
        };
        let sealed = self.sealed.asked_for(query, codes.as_deref()).into_iter().map(|(last, number)| {
            let open = move || {
                let opened = self.sealed.opened(number)?;
                let ids = opened.rows.iter().rev().map(|row| (Reverse(row.record.summary.id), ()));
                Ok(ids.collect())
            };
            Source::Closed(last, Box::new(open))
        });
        let mut merged = Merged::new(std::iter::once(Source::of(keyed(hot))).chain(sealed).collect());
        let mut found = Vec::new();
        while found.len() < query.limit.unwrap_or(usize::MAX) {
            let Some(id) = merged.next_new() else { break };
            let (Reverse(id), ()) = id?;
            if query.before.is_some_and(|before| id >= before) {
                continue;
            }
            let missing = || Broken::Damaged(format!("it lost run {id}"));
            let summary = self.record(id)?.ok_or_else(missing)?.summary;
            let mut held = Ok(false);
            let wanted = query.matches(&summary, || {
                held = locks::held(&folder.run_lock(id));
                matches!(held, Ok(true))
            });
            held?;
            if wanted {
                found.push(summary);
            }
        }
        Ok(found)
    }
}

fn keyed<'a>(
    ids: impl Iterator<Item = Result<RunId, Broken>> + 'a,
) -> impl Iterator<Item = Result<(Reverse<RunId>, ()), Broken>> + 'a {
    ids.map(|id| id.map(|id| (Reverse(id), ())))
}

type Items<'a, K, V> = Box<dyn Iterator<Item = Result<(K, V), Broken>> + 'a>;

/// Fetches items that are not in memory yet.
type Open<'a, K, V> = Box<dyn FnOnce() -> Result<Vec<(K, V)>, Broken> + 'a>;

/// Items in the order of their keys.
enum Source<'a, K, V> {
    /// None of them comes before this key; they are fetched when it is their turn.
    Closed(K, Open<'a, K, V>),
    /// The next one, and those after it.
    Open(Option<Result<(K, V), Broken>>, Items<'a, K, V>),
}

impl<'a, K: 'a, V: 'a> Source<'a, K, V> {
    fn of(items: impl Iterator<Item = Result<(K, V), Broken>> + 'a) -> Source<'a, K, V> {
        let mut items: Items<'a, K, V> = Box::new(items);
        Source::Open(items.next(), items)
    }
}

/// One sequence out of several, in the order of their keys; a key that comes again is passed over.
struct Merged<'a, K, V> {
    sources: Vec<Source<'a, K, V>>,
    last: Option<K>,
}

impl<'a, K: Ord + Clone + 'a, V: 'a> Merged<'a, K, V> {
    fn new(sources: Vec<Source<'a, K, V>>) -> Merged<'a, K, V> {
        Merged { sources, last: None }
    }

    fn next_new(&mut self) -> Option<Result<(K, V), Broken>> {
        loop {
            let next = self.next()?;
            match &next {
                Ok((key, _)) if self.last.as_ref() == Some(key) => {}
                Ok((key, _)) => {
                    self.last = Some(key.clone());
                    return Some(next);
                }
                Err(_) => return Some(next),
            }
        }
    }

    fn next(&mut self) -> Option<Result<(K, V), Broken>> {
        loop {
            // An error comes as soon as it is seen; of equal keys, that of the first source.
            let key = |source: &Source<'a, K, V>| match source {
                Source::Closed(key, _) | Source::Open(Some(Ok((key, _))), _) => Some(Some(key.clone())),
                Source::Open(Some(Err(_)), _) => Some(None),
                Source::Open(None, _) => None,
            };
            let keys = self.sources.iter().enumerate().filter_map(|(at, source)| Some((key(source)?, at)));
            let at = keys.min().map(|(_, at)| at)?;
            let source = self.sources.get_mut(at)?;
            match source {
                Source::Open(next, items) => return std::mem::replace(next, items.next()),
                Source::Closed(..) => {
                    let closed = std::mem::replace(source, Source::Open(None, Box::new(std::iter::empty())));
                    let Source::Closed(_, open) = closed else { continue };
                    match open() {
                        Ok(items) => *source = Source::of(items.into_iter().map(Ok)),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }
}

/// A part of an id, made ready to be looked for in many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    digits: u32,
    value: u128,
}

impl Part {
    /// From what people type: hexadecimal digits, hyphens ignored, any case. Nothing else is a part of an id.
    pub(super) fn parse(text: &str) -> Option<Part> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let value = u128::from_str_radix(&digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        let digits = u32::try_from(digits.len()).ok().filter(|digits| *digits <= 32)?;
        Some(Part { digits, value })
    }

    fn is_in(&self, run: RunId) -> bool {
        let id = run.0.as_u128();
        let mask = u128::MAX.checked_shr(128 - 4 * self.digits).unwrap_or(0);
        (0..=32 - self.digits).any(|shift| (id >> (4 * shift)) & mask == self.value)
    }
}
