//! Which sections, options, dates, runs and files there are to complete a line with. They are looked up when they are
//! asked for, under a short limit, and remembered until a command has run.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;

use super::completion::{Kind, Wanted, wanted};
use crate::command::session::Session;
use crate::command::{backups, runs};
use crate::config::{self, OPTIONS};
use crate::error::Error;
use crate::world::disk;

/// How long somebody who pressed a key waits for servers that do not answer.
const LIMIT: Duration = Duration::from_secs(2);

/// How many runs are offered: the newest.
const RUNS: usize = 20;

/// The words for dates, beside the dates there are.
const DATE_WORDS: [&str; 5] = ["today", "yesterday", "latest", "oldest", "active"];

/// A word that fits, and what is shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What it replaces the word at the cursor with.
    pub(super) replacement: String,
    /// What is shown when there are several.
    pub(super) display: String,
}

/// What was looked up, until a command runs.
pub(super) struct Candidates {
    language: clap::Command,
    known: BTreeMap<Kind, Vec<(String, String)>>,
}

impl Candidates {
    pub(super) fn new(mut language: clap::Command) -> Candidates {
        language.build();
        Candidates { language, known: BTreeMap::new() }
    }

    /// A command has run: nothing that was looked up before is known any more.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// What fits at the cursor, and where the word begins that it replaces.
    pub(super) async fn find(&mut self, session: &Session, text: &str, at: usize) -> (usize, Vec<Candidate>) {
        let Wanted { start, typed, mut words, kind } = wanted(&self.language, text, at);
        match kind {
            Some(Kind::File) => return (start, files(&typed)),
            Some(kind) => words.extend(self.look_up(session, kind, &typed).await),
            None => {}
        }
        let fits = words.into_iter().filter(|(word, _)| word.starts_with(&typed));
        let candidate = |(word, display): (String, String)| Candidate {
            replacement: format!("{} ", quoted(&word)),
            display,
        };
        (start, fits.map(candidate).collect())
    }

    async fn look_up(&mut self, session: &Session, kind: Kind, typed: &str) -> Vec<(String, String)> {
        if !self.known.contains_key(&kind) {
            let found = tokio::time::timeout(LIMIT, there_are(session, &kind)).await;
            // What cannot be found cannot be offered; the command that is typed will say why.
            let found = found.ok().and_then(Result::ok).unwrap_or_default();
            self.known.insert(kind.clone(), found);
        }
        let mut words = self.known.get(&kind).cloned().unwrap_or_default();
        if matches!(kind, Kind::Copy(_) | Kind::Backup(_)) {
            if !typed.contains('-') {
                words.iter_mut().for_each(|(word, _)| word.retain(|c| c != '-'));
                words.iter_mut().for_each(|(word, display)| display.clone_from(word));
            }
            words.extend(DATE_WORDS.map(plain));
        }
        words
    }
}

/// What there is of that kind.
async fn there_are(session: &Session, kind: &Kind) -> Result<Vec<(String, String)>, Error> {
    let app = session.plain_app()?;
    Ok(match kind {
        Kind::Section => app.config()?.sections().map(plain).collect(),
        Kind::Option => OPTIONS
            .iter()
            .map(|spec| (spec.name.to_owned(), format!("{:24} {}", spec.name, spec.meaning)))
            .collect(),
        Kind::Value(option) => {
            let kind = config::option(&option.to_lowercase()).map(|spec| spec.kind);
            match kind {
                Some(config::Kind::Bool) => ["True", "False"].map(plain).into(),
                Some(config::Kind::OneOf(words)) => words.iter().map(|word| plain(word)).collect(),
                _ => Vec::new(),
            }
        }
        Kind::Copy(section) => dates(app.copies(&app.target(section)?).await?),
        Kind::Backup(section) => dates(backups::dates(&app.target(section)?).await?),
        Kind::Run => runs::newest(&app, RUNS, false).await?,
        Kind::OpenRun => runs::newest(&app, RUNS, true).await?,
        Kind::File => Vec::new(),
    })
}

fn plain(word: &str) -> (String, String) {
    (word.to_owned(), word.to_owned())
}

/// Newest first.
fn dates(mut found: Vec<Date>) -> Vec<(String, String)> {
    found.sort_by(|one, other| other.cmp(one));
    found.iter().map(|date| plain(&date.to_string())).collect()
}

/// The files that a path can go on with; a folder ends in a slash, behind which one can go on.
fn files(typed: &str) -> Vec<Candidate> {
    let (folder, begun) = typed
        .rsplit_once('/')
        .map_or(("", typed), |(_, begun)| (typed.strip_suffix(begun).unwrap_or_default(), begun));
    let found =
        disk::names(if folder.is_empty() { ".".as_ref() } else { folder.as_ref() }).unwrap_or_default();
    let hidden = begun.starts_with('.');
    let fits =
        found.into_iter().filter(|(name, _)| name.starts_with(begun) && (hidden || !name.starts_with('.')));
    let candidate = |(name, is_folder): (String, bool)| {
        let (behind, slash) = if is_folder { ("", "/") } else { (" ", "") };
        let replacement = format!("{}{behind}", quoted(&format!("{folder}{name}{slash}")));
        Candidate { replacement, display: format!("{name}{slash}") }
    };
    fits.map(candidate).collect()
}

/// The word as a shell would read it back.
fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
}
