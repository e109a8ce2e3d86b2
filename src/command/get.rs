//! `get`: what an option of the configuration is, and where its value comes from.

use clap::Args;

use super::App;
use crate::config::{self, Config, ConfigError, DEFAULT_SECTION, OPTIONS, Origin};
use crate::error::{Error, ExitCode};
use crate::report::{self, Cell, Column, Listing};

/// `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Section of the configuration, or DEFAULT
    section: String,
    /// Name of the option; without it, all are shown
    option: Option<String>,
}

/// What an option is.
struct Found {
    value: String,
    from: From,
}

/// Where its value comes from.
#[derive(Clone, Copy)]
enum From {
    CommandLine(&'static str),
    Configuration(Origin),
}

impl Get {
    /// Shows one value, and on standard error where it comes from; or all of them.
    pub fn run(self, app: &App) -> Result<ExitCode, Error> {
        let config = app.config()?;
        let columns = vec![
            Column::new("option", "OPTION"),
            Column::new("value", "VALUE"),
            Column::hidden("origin"),
            Column::hidden("file"),
            Column::hidden("line"),
            Column::new("from", "FROM"),
        ];
        let listing = |rows| Listing { command: "get", columns, rows };
        let Some(option) = self.option.map(|option| option.to_lowercase()) else {
            let rows = all(app, config, &self.section)?;
            listing(rows).print(app.style);
            return Ok(ExitCode::DONE);
        };
        let found = find(app, config, &self.section, &option)?;
        let rows = vec![row(config, &option, Some(&found))];
        listing(rows).print_as(&found.value, app.style);
        if !app.style.json {
            report::aside(&words(config, found.from), app.style);
        }
        Ok(ExitCode::DONE)
    }
}

/// Every option that there is, set or not.
fn all(app: &App, config: &Config, section: &str) -> Result<Vec<Vec<Cell>>, Error> {
    let names = OPTIONS.iter().map(|spec| spec.name);
    let rows = names.map(|name| match find(app, config, section, name) {
        Ok(found) => Ok(row(config, name, Some(&found))),
        Err(ConfigError::NoOption { .. }) => Ok(row(config, name, None)),
        Err(error) => Err(error.into()),
    });
    rows.collect()
}

fn find(app: &App, config: &Config, section: &str, option: &str) -> Result<Found, ConfigError> {
    let typed = match option {
        "tmpdir" => app.global.tmpdir.as_ref().map(|tmpdir| ("-t", tmpdir.display().to_string())),
        "journal" => app.global.journal.as_ref().map(|place| ("--journal", config::without_secrets(place))),
        _ => None,
    };
    if let Some((typed, value)) = typed {
        return Ok(Found { value, from: From::CommandLine(typed) });
    }
    let value = config.shown(section, option)?;
    Ok(Found { value, from: From::Configuration(config.origin(section, option)?) })
}

fn row(config: &Config, option: &str, found: Option<&Found>) -> Vec<Cell> {
    let text = |text: &str| Cell::Text(text.to_owned());
    let (origin, line) = match found.map(|found| found.from) {
        None => (Cell::Nothing, None),
        Some(From::CommandLine(_)) => (text("command_line"), None),
        Some(From::Configuration(Origin::Session)) => (text("session"), None),
        Some(From::Configuration(Origin::Section { line })) => (text("section"), Some(line)),
        Some(From::Configuration(Origin::Default { line })) => (text("default"), Some(line)),
        Some(From::Configuration(Origin::BuiltIn)) => (text("built_in"), None),
    };
    vec![
        text(option),
        Cell::maybe(found, |found| text(&found.value)),
        origin,
        Cell::maybe(line, |_| Cell::Text(config.path().display().to_string())),
        Cell::maybe(line.and_then(|line| u64::try_from(line).ok()), Cell::Count),
        Cell::maybe(found, |found| Cell::Text(words(config, found.from))),
    ]
}

/// For people.
fn words(config: &Config, from: From) -> String {
    let file = config.path().display();
    match from {
        From::CommandLine(option) => format!("{option} on the command line"),
        From::Configuration(Origin::Section { line }) => format!("{file}:{line}"),
        From::Configuration(Origin::Default { line }) => format!("{file}:{line}, [{DEFAULT_SECTION}]"),
        From::Configuration(origin @ (Origin::Session | Origin::BuiltIn)) => origin.to_string(),
    }
}
