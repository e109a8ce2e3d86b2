//! What can be wrong with a configuration file, where, and what to change about it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::syntax::DEFAULT_SECTION;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was set for this session only.
    Session,
    /// The section itself sets it, on that line.
    Section {
        /// From 1.
        line: usize,
    },
    /// `[DEFAULT]` sets it, on that line.
    Default {
        /// From 1.
        line: usize,
    },
    /// Nobody sets it: the default of the program.
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Session => write!(f, "set in this session"),
            Origin::Section { line } => write!(f, "line {line}"),
            Origin::Default { line } => write!(f, "[{DEFAULT_SECTION}], line {line}"),
            Origin::BuiltIn => write!(f, "built-in default"),
        }
    }
}

/// One option of one section, and where its value comes from: what a message about a value names first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The configuration file.
    pub file: PathBuf,
    /// The section that was asked for.
    pub section: String,
    /// The option, in lower case.
    pub option: String,
    /// Where its value comes from.
    pub origin: Origin,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, section, option, origin } = self;
        write!(f, "{}: section [{section}], option {option} ({origin})", file.display())
    }
}

/// Why a configuration cannot be used. Every message names the file and, as far as they are known, the line, the
/// section and the option; [`ConfigError::hint`] says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not text in UTF-8.
    #[error("{}, line {line}: not UTF-8", file.display())]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The line of the first bad byte.
        line: usize,
    },
    /// An option stands before the first section.
    #[error("{}, line {line}: `{}` stands before the first section", file.display(), shorten(text))]
    MissingSectionHeader {
        /// The file.
        file: PathBuf,
        /// The line of the option.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Lines that are no section, option, comment or continuation.
    #[error("{}, {}: neither a section nor an option", file.display(), list_lines(lines))]
    Parsing {
        /// The file.
        file: PathBuf,
        /// Number and text of every such line.
        lines: Vec<(usize, String)>,
    },
    /// No section has that name.
    #[error("{}: no section [{section}]", file.display())]
    NoSection {
        /// The file.
        file: PathBuf,
        /// The name that was asked for.
        section: String,
        /// The section whose name is nearest.
        nearest: Option<String>,
        /// Every section of the file, in file order.
        sections: Vec<String>,
    },
    /// Neither the section nor `[DEFAULT]` sets the option, and it has no default.
    #[error("{}: section [{section}] has no option {option}", file.display())]
    NoOption {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// The option, in lower case.
        option: String,
        /// The option whose name is nearest, unless the name is right and the option merely unset.
        nearest: Option<String>,
    },
    /// A `%` that is followed by neither `%` nor `(name)s`.
    #[error("{place}: `{}` does not follow the rules for `%`", shorten(text))]
    InterpolationSyntax {
        /// The value at fault.
        place: Box<Place>,
        /// The value from the bad `%` on; a password in it is blotted out.
        text: String,
    },
    /// `%(name)s` names an option that does not exist.
    #[error("{place}: %({name})s names an option that is not set")]
    InterpolationMissingOption {
        /// The value at fault.
        place: Box<Place>,
        /// The name in parentheses.
        name: String,
        /// The option whose name is nearest.
        nearest: Option<String>,
    },
    /// `%(name)s` leads to itself, or through more than ten values.
    #[error("{place}: %(…)s leads through more than ten options, or in a circle")]
    InterpolationDepth {
        /// The value that begins the chain.
        place: Box<Place>,
    },
    /// `%(name)s` makes a value of more than a mebibyte, or of more than ten thousand parts.
    #[error("{place}: %(…)s makes the value too large")]
    InterpolationSize {
        /// The value that was being made.
        place: Box<Place>,
    },
    /// A section lacks options without which it is no target.
    #[error("{}: section [{section}] lacks {}", file.display(), options.join(", "))]
    MissingOptions {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// Every required option that is missing or empty, in the manual's order.
        options: Vec<&'static str>,
    },
    /// A value that the option cannot take.
    #[error("{place}: `{}` {problem}", shorten(value))]
    InvalidValue {
        /// The value at fault.
        place: Box<Place>,
        /// The value; a password in it is blotted out.
        value: String,
        /// What is wrong with it: a predicate that goes on from the value.
        problem: String,
        /// What the option allows, or how to mend the value.
        hint: String,
    },
    /// Two options that exclude each other.
    #[error("{place}: cannot be combined with {option} = {value}")]
    Conflict {
        /// The first option.
        place: Box<Place>,
        /// The second option.
        option: &'static str,
        /// Its value.
        value: String,
        /// How to mend it.
        hint: String,
    },
}

impl ConfigError {
    /// The name of the kind of error: that of the exception which Python's `configparser` raises, where it has one.
    pub fn class(&self) -> &'static str {
        match self {
            ConfigError::NotUtf8 { .. } => "UnicodeDecodeError",
            ConfigError::MissingSectionHeader { .. } => "MissingSectionHeaderError",
            ConfigError::Parsing { .. } => "ParsingError",
            ConfigError::NoSection { .. } => "NoSectionError",
            ConfigError::NoOption { .. } => "NoOptionError",
            ConfigError::InterpolationSyntax { .. } => "InterpolationSyntaxError",
            ConfigError::InterpolationMissingOption { .. } => "InterpolationMissingOptionError",
            ConfigError::InterpolationDepth { .. } => "InterpolationDepthError",
            ConfigError::InterpolationSize { .. } => "InterpolationError",
            ConfigError::MissingOptions { .. } => "MissingOptionsError",
            ConfigError::InvalidValue { .. } | ConfigError::Conflict { .. } => "ValueError",
        }
    }

    /// What to change in the file, or to type next.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::NotUtf8 { .. } => {
                "save the file as UTF-8, for example with `iconv -f latin1 -t utf-8`".to_owned()
            }
            ConfigError::MissingSectionHeader { .. } => {
                format!("begin the file with a section, as [{DEFAULT_SECTION}]")
            }
            ConfigError::Parsing { .. } => {
                "write `name = value`; begin a comment with `#`; indent a line that continues a value"
                    .to_owned()
            }
            ConfigError::NoSection { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            ConfigError::NoSection { sections, .. } if sections.is_empty() => {
                "the file has no section but [DEFAULT]: add one for each target".to_owned()
            }
            ConfigError::NoSection { sections, .. } => format!("the sections are {}", some_of(sections)),
            ConfigError::NoOption { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            ConfigError::NoOption { section, option, .. } => {
                format!("add `{option} = …` to [{section}] or [{DEFAULT_SECTION}]")
            }
            ConfigError::InterpolationSyntax { .. } => {
                "write %% for a percent sign, %(name)s for the value of another option".to_owned()
            }
            ConfigError::InterpolationMissingOption { nearest: Some(nearest), .. } => {
                format!("did you mean %({nearest})s?")
            }
            ConfigError::InterpolationMissingOption { place, name, .. } => {
                format!("add `{name} = …` to [{}] or [{DEFAULT_SECTION}]", place.section)
            }
            ConfigError::InterpolationDepth { .. } => {
                "give one of the options in the chain a value without %(…)s".to_owned()
            }
            ConfigError::InterpolationSize { .. } => "write the value out, without %(…)s".to_owned(),
            ConfigError::MissingOptions { section, options, .. } => {
                let lines: Vec<String> = options.iter().map(|option| format!("`{option} = …`")).collect();
                format!("add {} to [{section}] or [{DEFAULT_SECTION}]", lines.join(", "))
            }
            ConfigError::InvalidValue { hint, .. } | ConfigError::Conflict { hint, .. } => hint.clone(),
        }
    }
}

/// Something in a configuration file that is allowed, and probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The option it is about.
    pub place: Place,
    /// What is odd about it: a predicate that goes on from the place.
    pub message: String,
    /// What was probably meant, where that can be told.
    pub hint: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// The candidate most like `word`, if one is near enough to have been meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    /// Below this, two names have little more than a few letters in common.
    const NEAR: f64 = 0.82;
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The error for a section that is not there.
pub(super) fn no_section(file: &Path, section: &str, sections: &[String]) -> ConfigError {
    ConfigError::NoSection {
        file: file.to_owned(),
        section: section.to_owned(),
        nearest: nearest(section, sections.iter().map(String::as_str)).map(str::to_owned),
        sections: sections.to_vec(),
    }
}

/// The beginning of a text, on one line.
fn shorten(text: &str) -> String {
    /// How many characters of a value a message shows.
    const SHOWN: usize = 60;
    let mut short = String::new();
    for c in text.chars().take(SHOWN) {
        if c.is_control() {
            short.extend(c.escape_default());
        } else {
            short.push(c);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

fn list_lines(lines: &[(usize, String)]) -> String {
    /// How many lines a message names.
    const SHOWN: usize = 3;
    let shown: Vec<String> =
        lines.iter().take(SHOWN).map(|(line, text)| format!("line {line} `{}`", shorten(text))).collect();
    let more = lines.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn some_of(names: &[String]) -> String {
    /// How many names a hint lists.
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
