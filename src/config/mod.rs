//! The configuration file: one section is one target, `[DEFAULT]` gives defaults to all.
//!
//! - `syntax.rs`: the file's syntax, which is that of Python's `ConfigParser`.
//! - `options.rs`: the table of known options.
//! - `value.rs`: from an option's text to its value.
//! - `target.rs`: a section with every option typed and defaulted.
//! - `replication.rs`: the second file, that says which tables another section feeds.
//! - `error.rs`: what can be wrong, where, and what to change.
//!
//! Nothing here reads a file, asks the environment, or prints.

mod error;
mod options;
mod replication;
mod syntax;
mod target;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use error::{ConfigError, Origin, Place, Warning};
pub use options::{DefaultValue, Kind, OPTIONS, OptionSpec, option};
pub use replication::Replication;
pub use syntax::DEFAULT_SECTION;
pub use target::{DefaultDate, OnFailure, OnInterrupted, Target, Verify};
pub use value::{JournalLocation, JournalServer, SecretUrl, without_secrets};

use error::{nearest, no_section};
use syntax::{Document, Entry, Fault, interpolate, malformed_percent, option_name, referenced};

/// A configuration file, and what was set on top of it in this session.
#[derive(Debug, Clone)]
pub struct Config {
    document: Document,
    /// By section, then option.
    session: BTreeMap<String, BTreeMap<String, String>>,
}

/// A raw value and where it was found.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    value: &'a str,
    origin: Origin,
}

impl Config {
    /// Reads the bytes of a configuration file; `path` is for messages. What single values hold is looked at when
    /// they are asked for.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Config, ConfigError> {
        Ok(Config { document: Document::parse(path, bytes)?, session: BTreeMap::new() })
    }

    /// The file's path as it was given.
    pub fn path(&self) -> &Path {
        &self.document.path
    }

    /// The sections in file order, without `DEFAULT`.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.document.order.iter().map(String::as_str)
    }

    /// The value of an option, `%(name)s` replaced: what this session set, else the section, else `[DEFAULT]`, else
    /// the built-in default. `DEFAULT` may be asked for as a section.
    ///
    /// Fails where the section does not exist, the option has no value, or a `%` in it cannot be resolved.
    pub fn get(&self, section: &str, option: &str) -> Result<String, ConfigError> {
        let option = option_name(option);
        self.lookup(section, &option)?.ok_or_else(|| self.no_option(section, &option))
    }

    /// The value that [`Config::get`] gives, fit to be shown: without user, password and query where it may be a URL.
    /// What another option puts into such a place of its URL is not shown either.
    pub fn shown(&self, section: &str, name: &str) -> Result<String, ConfigError> {
        let name = option_name(name);
        let value = self.get(section, &name)?;
        let is_secret = || {
            OPTIONS.iter().filter(|spec| spec.kind.may_hold_secrets()).any(|spec| {
                let url = self.get(section, spec.name).unwrap_or_default();
                url.contains(&value) && !without_secrets(&url).contains(&value)
            })
        };
        match option(&name) {
            None if !value.is_empty() && is_secret() => Ok("***".to_owned()),
            _ => Ok(fit_to_show(&name, &value, &value)),
        }
    }

    /// Where the value that [`Config::get`] gives comes from. Fails where the section does not exist, or the option
    /// has no value.
    pub fn origin(&self, section: &str, option: &str) -> Result<Origin, ConfigError> {
        let option = option_name(option);
        self.require_section(section)?;
        self.find(section, &option).map(|found| found.origin).ok_or_else(|| self.no_option(section, &option))
    }

    /// Sets an option for as long as this value lives; the file is not touched. The section must exist, or be
    /// `DEFAULT`; a `%` must be well-formed.
    pub fn set(&mut self, section: &str, option: &str, value: &str) -> Result<(), ConfigError> {
        self.require_section(section)?;
        let option = option_name(option);
        if let Some(text) = malformed_percent(value).filter(|_| !is_percentage(&option, value)) {
            let place = Place { origin: Origin::Session, ..*self.place(section, &option) };
            return Err(ConfigError::InterpolationSyntax {
                place: Box::new(place),
                text: fit_to_show(&option, value, text),
            });
        }
        self.session.entry(section.to_owned()).or_default().insert(option, value.to_owned());
        Ok(())
    }

    /// One section with every option typed and defaulted; `home` is what `~` stands for.
    ///
    /// Fails where the section does not exist, lacks required options (all are named at once), or holds a value that
    /// its option cannot take.
    pub fn target(&self, section: &str, home: Option<&Path>) -> Result<Target, ConfigError> {
        Target::read(self, section, home)
    }

    /// What is odd about the file, in the order of its lines: names that are no options, and values that another
    /// reading of the syntax would understand otherwise. Names that only serve as `%(name)s` are not odd.
    pub fn warnings(&self) -> Vec<Warning> {
        let names = std::iter::once(DEFAULT_SECTION).chain(self.sections());
        let options: Vec<(&str, &str, &Entry)> = names
            .filter_map(|section| Some((section, self.document.entries(section)?)))
            .flat_map(|(section, entries)| {
                entries.iter().map(move |(name, entry)| (section, name.as_str(), entry))
            })
            .collect();
        let used: BTreeSet<String> =
            options.iter().flat_map(|(_, _, entry)| referenced(&entry.value)).collect();
        let mut warnings: Vec<(usize, Warning)> = Vec::new();
        for (section, name, entry) in options {
            let unknown = (option(name).is_none() && !used.contains(name)).then(|| unknown_option(name));
            for (message, hint) in unknown.into_iter().chain(misleading_comment(&entry.value)) {
                let origin = Self::file_origin(section, entry.line);
                let place = Place { origin, ..*self.place(section, name) };
                warnings.push((entry.line, Warning { place, message: message.to_owned(), hint }));
            }
        }
        warnings.sort_by_key(|(line, _)| *line);
        warnings.into_iter().map(|(_, warning)| warning).collect()
    }

    /// The value of an option in lower case; `None` where nothing sets it.
    fn lookup(&self, section: &str, option: &str) -> Result<Option<String>, ConfigError> {
        self.require_section(section)?;
        let Some(found) = self.find(section, option) else {
            return Ok(None);
        };
        let raw = |name: &str| self.find(section, name).map(|found| found.value);
        if is_percentage(option, found.value) {
            return Ok(Some(found.value.to_owned()));
        }
        let value = interpolate(option, found.value, &raw);
        value.map(Some).map_err(|fault| self.interpolation_error(section, option, fault))
    }

    /// The raw value of an option in lower case. Only in a section that exists.
    fn find(&self, section: &str, name: &str) -> Option<Found<'_>> {
        let session = |section: &str| {
            let value = self.session.get(section)?.get(name)?;
            Some(Found { value, origin: Origin::Session })
        };
        let file = |section: &str| {
            let entry = self.document.entry(section, name)?;
            let origin = Self::file_origin(section, entry.line);
            Some(Found { value: &entry.value, origin })
        };
        let built_in = || match option(name)?.default {
            DefaultValue::Value(value) => Some(Found { value, origin: Origin::BuiltIn }),
            DefaultValue::Required | DefaultValue::Unset => None,
        };
        session(section)
            .or_else(|| file(section))
            .or_else(|| session(DEFAULT_SECTION))
            .or_else(|| file(DEFAULT_SECTION))
            .or_else(built_in)
    }

    fn file_origin(section: &str, line: usize) -> Origin {
        if section == DEFAULT_SECTION { Origin::Default { line } } else { Origin::Section { line } }
    }

    fn require_section(&self, section: &str) -> Result<(), ConfigError> {
        if section == DEFAULT_SECTION || self.document.entries(section).is_some() {
            return Ok(());
        }
        Err(no_section(self.path(), section, &self.document.order))
    }

    fn no_option(&self, section: &str, name: &str) -> ConfigError {
        let nearest = match option(name) {
            Some(_) => None,
            None => self.nearest_option(section, name),
        };
        ConfigError::NoOption {
            file: self.path().to_owned(),
            section: section.to_owned(),
            option: name.to_owned(),
            nearest,
        }
    }

    /// The option nearest to a name, among those that are known and those that the file sets for the section.
    fn nearest_option(&self, section: &str, name: &str) -> Option<String> {
        let set = [section, DEFAULT_SECTION].into_iter().filter_map(|section| self.document.entries(section));
        let set = set.flat_map(|entries| entries.keys().map(String::as_str));
        nearest(name, OPTIONS.iter().map(|spec| spec.name).chain(set)).map(str::to_owned)
    }

    fn place(&self, section: &str, option: &str) -> Box<Place> {
        Box::new(Place {
            file: self.path().to_owned(),
            section: section.to_owned(),
            option: option.to_owned(),
            origin: self.find(section, option).map_or(Origin::BuiltIn, |found| found.origin),
        })
    }

    /// The error for a fault that was met while `wanted` was being resolved.
    fn interpolation_error(&self, section: &str, wanted: &str, fault: Fault) -> ConfigError {
        match fault {
            Fault::Syntax { option, text } => {
                let value = self.find(section, &option).map_or("", |found| found.value);
                ConfigError::InterpolationSyntax {
                    place: self.place(section, &option),
                    text: fit_to_show(&option, value, &text),
                }
            }
            Fault::Missing { option, name } => {
                let nearest = self.nearest_option(section, &name);
                ConfigError::InterpolationMissingOption { place: self.place(section, &option), name, nearest }
            }
            Fault::Depth => ConfigError::InterpolationDepth { place: self.place(section, wanted) },
            Fault::Size => ConfigError::InterpolationSize { place: self.place(section, wanted) },
        }
    }
}

/// Whether this is the value of an option that takes a percentage, which needs no second `%`.
fn is_percentage(name: &str, value: &str) -> bool {
    let takes_one = option(name).is_some_and(|spec| spec.kind == Kind::Percentage);
    takes_one && value.strip_suffix('%').is_some_and(|number| !number.contains('%'))
}

fn unknown_option(name: &str) -> (&'static str, Option<String>) {
    let meant = nearest(name, OPTIONS.iter().map(|spec| spec.name));
    let hint = meant.map(|meant| format!("did you mean {meant}?"));
    ("is not an option of pg_staging, and no other value uses it", hint)
}

/// What looks like a comment in a value and is none: an indented one among continuation lines, and the `;` at a line's
/// end, which Python 2 took for one.
fn misleading_comment(value: &str) -> Option<(&'static str, Option<String>)> {
    if value.lines().skip(1).any(|line| line.starts_with(['#', ';'])) {
        let hint = "begin the comment in the first column to keep it out of the value";
        return Some(("has an indented comment, which is part of the value", Some(hint.to_owned())));
    }
    if value.contains(" ;") || value.contains("\t;") {
        let hint = "put the comment on a line of its own if it is one";
        return Some(("has a `;` after white space, which is part of the value", Some(hint.to_owned())));
    }
    None
}

/// Part of the value of an option, whose name is in lower case, fit to be shown: without the secrets of a URL. A bad `%`
/// often stands in a password.
pub fn fit_to_show(name: &str, value: &str, part: &str) -> String {
    let is_url = option(name).is_some_and(|spec| spec.kind.may_hold_secrets());
    if is_url || value.contains("://") { without_secrets(part) } else { part.to_owned() }
}

#[cfg(test)]
mod tests;
