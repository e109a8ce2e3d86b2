//! `commands` and `completions`: the program about itself. They need neither configuration nor journal.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell as Language;

use super::App;
use crate::cli::{Cli, Group};
use crate::error::{Error, ExitCode};
use crate::report::{self, Cell, Column, Listing};

/// `commands`.
#[derive(Debug, Args)]
pub struct Commands {}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The shells for which there is a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// eval "$(pg_staging completions bash)" in ~/.bashrc
    Bash,
    /// eval "$(pg_staging completions zsh)" in ~/.zshrc
    Zsh,
    /// pg_staging completions fish > ~/.config/fish/completions/pg_staging.fish
    Fish,
}

impl Commands {
    /// Lists them by group.
    pub fn run(self, app: &App) -> Result<ExitCode, Error> {
        let mut program = Cli::command();
        program.build();
        listing(&program).print_as(&text(&program), app.style);
        Ok(ExitCode::DONE)
    }
}

impl Completions {
    /// Prints the script.
    pub fn run(self) -> Result<ExitCode, Error> {
        let language = match self.shell {
            Shell::Bash => Language::Bash,
            Shell::Zsh => Language::Zsh,
            Shell::Fish => Language::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(language, &mut Cli::command(), "pg_staging", &mut script);
        report::out(String::from_utf8_lossy(&script).trim_end_matches('\n'));
        Ok(ExitCode::DONE)
    }
}

/// The commands of a group, in the order in which they are declared.
fn members(program: &clap::Command, group: Group) -> impl Iterator<Item = &clap::Command> {
    program.get_subcommands().filter(move |command| Group::of(command) == Some(group))
}

/// What is typed after the command's name, and its options are not.
fn operands(command: &clap::Command) -> String {
    let operands = command.get_positionals().map(|operand| {
        let name = operand.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
        let name = name.to_lowercase();
        if operand.is_required_set() { format!("<{name}>") } else { format!("[{name}]") }
    });
    operands.collect::<Vec<_>>().join(" ")
}

fn about(command: &clap::Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn listing(program: &clap::Command) -> Listing {
    let row = |group: Group, command: &clap::Command| {
        vec![
            Cell::Text(command.get_name().to_owned()),
            Cell::Text(group.name().to_owned()),
            Cell::Text(operands(command)),
            Cell::Text(about(command)),
        ]
    };
    let rows = Group::ALL
        .into_iter()
        .flat_map(|group| members(program, group).map(move |command| row(group, command)));
    Listing {
        command: "commands",
        columns: ["command", "group", "arguments", "about"].map(Column::hidden).into(),
        rows: rows.collect(),
    }
}

fn text(program: &clap::Command) -> String {
    let typed = |command: &clap::Command| {
        format!("{} {}", command.get_name(), operands(command)).trim_end().to_owned()
    };
    let width = program.get_subcommands().map(|command| typed(command).len()).max().unwrap_or_default();
    let mut text = String::new();
    for group in Group::ALL {
        let mut members = members(program, group).peekable();
        if members.peek().is_none() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}:\n", group.name()));
        for command in members {
            text.push_str(&format!("  {:width$}  {}\n", typed(command), about(command)));
        }
    }
    text
}
