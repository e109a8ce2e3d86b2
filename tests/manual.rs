//! The man pages in `docs/` are what the definitions say: their lists come from the commands, options and configuration
//! options that the program has, and the rest from `docs/manual/`. `make man` writes them anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _};
use pg_staging::cli::Cli;
use pg_staging::config::{DefaultValue, OPTIONS, OptionSpec};

const PAGES: [&str; 2] = ["pg_staging.1", "pg_staging.5"];

#[test]
fn the_man_pages_are_what_the_definitions_say() {
    for page in PAGES {
        let made = rendered(page);
        let path = docs().join(page);
        if std::env::var_os("PG_STAGING_WRITE_MANUAL").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        let differs = there.lines().zip(made.lines()).find(|(there, made)| there != made);
        assert_eq!(differs, None, "{page} is out of date: make man");
        assert_eq!(there, made, "{page} is out of date: make man");
    }
}

#[test]
fn no_place_is_left_open_in_a_man_page() {
    for page in PAGES {
        let made = rendered(page);
        let open: Vec<&str> = made.lines().filter(|line| line.starts_with('@')).collect();
        assert_eq!(open, Vec::<&str>::new(), "{page}");
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn rendered(page: &str) -> String {
    let template = fs::read_to_string(docs().join("manual").join(format!("{page}.in"))).unwrap();
    let mut cli = Cli::command();
    cli.build();
    template
        .replace("@VERSION@", cli.get_version().unwrap())
        .replace("@COMMANDS@\n", &commands(&cli))
        .replace("@OPTIONS@\n", &options(cli.get_arguments()))
        .replace("@CONFIGURATION@\n", &OPTIONS.iter().map(configuration).collect::<String>())
}

/// Every command with its arguments, what it does, and the options that it has of its own.
fn commands(cli: &Command) -> String {
    let own = |command: &Command| -> Vec<Command> {
        command.get_subcommands().filter(|command| command.get_name() != "help").cloned().collect()
    };
    let with_theirs = |command: Command| match own(&command) {
        none if none.is_empty() => vec![(command.get_name().to_owned(), command)],
        theirs => {
            let name = |task: &Command| format!("{} {}", command.get_name(), task.get_name());
            theirs.into_iter().map(|task| (name(&task), task)).collect()
        }
    };
    own(cli)
        .into_iter()
        .flat_map(with_theirs)
        .map(|(name, command)| {
            let command = &command;
            let arguments: Vec<&Arg> =
                command.get_arguments().filter(|argument| !argument.is_global_set()).collect();
            let mut text = format!(".TP\n.B {}", escaped(&name));
            for argument in arguments.iter().filter(|argument| argument.is_positional()) {
                let name = placeholder(argument);
                let shown = if argument.is_required_set() { name } else { format!("[{name}]") };
                let _ = write!(text, " \\fI{}\\fP", escaped(&shown));
            }
            text.push('\n');
            text.push_str(&said(command.get_long_about().or(command.get_about())));
            let positional = arguments.iter().filter(|argument| argument.is_positional());
            let described =
                positional.filter(|argument| argument.get_help().is_some_and(|help| !is_usual(help)));
            text.push_str(".RS\n");
            for argument in described {
                let _ = write!(text, ".TP\n.I {}\n{}", escaped(&placeholder(argument)), help(argument));
            }
            text.push_str(&options(arguments.into_iter()));
            text.push_str(".RE\n");
            text
        })
        .collect()
}

/// Whether the section ARGUMENTS says it once for all commands.
fn is_usual(help: &StyledStr) -> bool {
    ["Section of the configuration", "A part of the run's id"].contains(&help.to_string().as_str())
}

/// Options, one paragraph each; arguments that are no options are left out.
fn options<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let shown = arguments.filter(|argument| !argument.is_positional() && argument.get_id() != "help");
    shown
        .map(|argument| {
            let short = argument.get_short().map(|short| format!("-{short}"));
            let long = argument.get_long().map(|long| format!("--{long}"));
            let names = short.into_iter().chain(long).map(|name| format!("\\fB{}\\fP", escaped(&name)));
            let mut head = names.collect::<Vec<_>>().join(", ");
            if argument.get_action().takes_values() {
                let equals = if argument.is_require_equals_set() { "=" } else { " " };
                let value = format!("\\fI{}\\fP", escaped(&placeholder(argument)));
                let optional = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
                head.push_str(&if optional {
                    format!("[{equals}{value}]")
                } else {
                    format!("{equals}{value}")
                });
            }
            format!(".TP\n{head}\n{}", help(argument))
        })
        .collect()
}

fn placeholder(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let name = names.first().map_or_else(|| argument.get_id().to_string(), ToString::to_string);
    let many = matches!(argument.get_num_args(), Some(count) if count.max_values() > 1);
    format!("{}{}", name.to_lowercase(), if many { "..." } else { "" })
}

/// What an argument is, with the values it may have and its default.
fn help(argument: &Arg) -> String {
    let mut text =
        argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        let _ = write!(text, ": {}", names.join(", "));
    }
    let defaults = argument.get_default_values();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let shown: Vec<String> = defaults.iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let _ = write!(text, " [default: {}]", shown.join(" "));
    }
    said(Some(&StyledStr::from(text)))
}

/// An option of the configuration file.
fn configuration(option: &OptionSpec) -> String {
    let default = match option.default {
        DefaultValue::Required => "Must be set.".to_owned(),
        DefaultValue::Unset => "Not set by default.".to_owned(),
        DefaultValue::Value(value) => format!("Default: {value}."),
    };
    let meaning = said(Some(&StyledStr::from(option.meaning)));
    let takes = escaped(&format!("Takes {}. {default}", option.kind.allowed()));
    format!(".TP\n.B {}\n{meaning}{takes}\n", escaped(option.name))
}

/// A text of one or several paragraphs, as sentences.
fn said(text: Option<&StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    let sentences = paragraphs.map(|paragraph| {
        let mut letters = paragraph.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        let end = if paragraph.ends_with(['.', ':', ']']) { "" } else { "." };
        escaped(&format!("{first}{}{end}", letters.as_str()))
    });
    sentences.collect::<Vec<_>>().join("\n.IP\n") + "\n"
}

/// Text for roff: what it would read as a request or an escape is said otherwise.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line =
        |line: &str| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
