//! What a line says: its words, as a shell would split them, read as a command of the program or of the session.

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::cli::{Command, Global, Group};
use crate::config;

/// A line that was read.
#[derive(Debug)]
pub(super) enum Said {
    /// It is empty, or a comment.
    Nothing,
    /// A command of the program.
    Program(Box<Typed>),
    /// A command of the session.
    Session(Own),
}

/// A command of the program on a line.
#[derive(Debug)]
pub(super) struct Typed {
    /// Its name.
    pub(super) name: String,
    /// The group it belongs to.
    pub(super) group: Option<Group>,
    /// The options on this line.
    pub(super) global: Global,
    /// The command.
    pub(super) command: Command,
}

/// A line that cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It ends inside a quotation.
    Quoting,
    /// It is no command, or asks for help.
    Usage(Box<clap::Error>),
}

/// Commands, one a line
#[derive(Debug, Parser)]
#[command(
    name = "pg_staging",
    no_binary_name = true,
    disable_version_flag = true,
    override_usage = "[OPTIONS] <COMMAND>",
    help_template = "{about}:\n\n{subcommands}{after-help}",
    after_help = "help <command> tells more of one. An option on a line holds for that line."
)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Spoken,
}

#[derive(Debug, Subcommand)]
enum Spoken {
    #[command(flatten)]
    Program(Command),
    #[command(flatten)]
    Session(Own),
}

/// What only a session knows.
#[derive(Debug, Subcommand)]
pub(super) enum Own {
    /// Read another file as the current configuration
    #[command(display_order = Group::Session as usize)]
    Config {
        /// The file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        filename: String,
    },
    /// Set an option for this session only
    #[command(display_order = Group::Session as usize)]
    Set {
        /// Section of the configuration, or DEFAULT
        section: String,
        /// The option
        option: String,
        /// Its value, quoted when it has several words
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Tell every event, or no longer
    #[command(display_order = Group::Session as usize)]
    Verbose,
    /// Leave
    #[command(display_order = Group::Session as usize, visible_alias = "exit")]
    Quit,
}

/// Every command that a line may hold, as clap has them.
pub fn language() -> clap::Command {
    Line::command()
}

/// What a line may hold on a terminal: the experimental commands are not shown.
pub(super) fn in_console() -> clap::Command {
    let experimental = |command: &clap::Command| Group::of(command) == Some(Group::Experimental);
    let language = language().mut_subcommands(|command| {
        let hidden = command.is_hide_set() || experimental(&command);
        command.hide(hidden)
    });
    let more = language.get_after_help().map(ToString::to_string).unwrap_or_default();
    language.after_help(format!("{more}\n! and a command of the shell runs that."))
}

/// Reads a line in one of these languages.
pub(super) fn read(text: &str, mut language: clap::Command) -> Result<Said, Unreadable> {
    let mut words = shlex::split(text).ok_or(Unreadable::Quoting)?;
    if words.first().is_some_and(|word| word == "pg_staging") {
        words.remove(0);
    }
    if words.is_empty() {
        return Ok(Said::Nothing);
    }
    let usage = |error: clap::Error| Unreadable::Usage(Box::new(error));
    let matches = language.try_get_matches_from_mut(words).map_err(usage)?;
    let line = Line::from_arg_matches(&matches).map_err(|error| usage(error.format(&mut language)))?;
    Ok(match line.command {
        Spoken::Session(own) => Said::Session(own),
        Spoken::Program(command) => {
            let name = matches.subcommand_name().unwrap_or_default().to_owned();
            let group = language.find_subcommand(&name).and_then(Group::of);
            Said::Program(Box::new(Typed { name, group, global: line.global, command }))
        }
    })
}

/// The words of a line without the secrets that may be in them; a line that has none is not changed.
pub(super) fn without_secrets(text: &str) -> String {
    let words = shlex::split(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect());
    // A host of backups takes a user and a password without a scheme before them.
    let set = words.iter().position(|word| word == "set");
    let option =
        set.and_then(|set| words.get(set + 2)).map(|option| option.to_lowercase()).unwrap_or_default();
    let shown: Vec<String> = words.iter().map(|word| config::fit_to_show(&option, word, word)).collect();
    if shown == words { text.trim().to_owned() } else { shown.join(" ") }
}

/// Whether a line holds a secret.
pub(super) fn holds_secrets(text: &str) -> bool {
    without_secrets(text) != text.trim()
}
