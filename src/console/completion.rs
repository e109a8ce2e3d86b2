//! What can stand where the cursor is. It comes from the definitions of the commands: names of commands and options,
//! the words an argument knows, and what the name of an argument or its hint says about its values.

use clap::{Arg, ValueHint};

use super::line;

/// What can stand at the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where the word begins that is to be replaced, in bytes.
    pub start: usize,
    /// What of it is there already, without quotation marks.
    pub typed: String,
    /// The words it can be, each with what is shown of it.
    pub words: Vec<(String, String)>,
    /// Or else one of these, which are to be looked up.
    pub kind: Option<Kind>,
}

/// Values that are not known from the definitions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A section of the configuration.
    Section,
    /// An option of the configuration.
    Option,
    /// A value of that option.
    Value(String),
    /// The date of a copy of that section.
    Copy(String),
    /// The date of a backup of that section.
    Backup(String),
    /// A run.
    Run,
    /// A run that is not finished.
    OpenRun,
    /// A file that is there.
    File,
}

impl Kind {
    /// What the values of an argument are, by its name or its hint. `before` holds the arguments before it by name.
    fn of(argument: &Arg, before: &[(String, String)]) -> Option<Kind> {
        let value_of = |names: &[&str]| {
            let found = before.iter().find(|(name, _)| names.contains(&name.as_str()));
            found.map(|(_, value)| value.clone())
        };
        let section = || value_of(&["dbname", "section"]);
        match argument.get_id().as_str() {
            "dbname" | "section" => Some(Kind::Section),
            "option" => Some(Kind::Option),
            "value" => value_of(&["option"]).map(Kind::Value),
            "date" => section().map(Kind::Copy),
            "backup" => section().map(Kind::Backup),
            "run" => Some(Kind::Run),
            "open_run" => Some(Kind::OpenRun),
            _ => match argument.get_value_hint() {
                ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath => Some(Kind::File),
                _ => None,
            },
        }
    }
}

/// What can stand at the cursor, which is `at` bytes into a line that is typed in that language.
pub fn wanted(language: &clap::Command, text: &str, at: usize) -> Wanted {
    let cursor = Cursor::find(text.get(..at).unwrap_or(text));
    let mut place = Place { command: language, before: Vec::new(), operands: 0, open: None };
    for word in cursor.before {
        place = place.after(&word);
    }
    let mut wanted = Wanted { start: cursor.start, typed: cursor.word, words: Vec::new(), kind: None };
    if text.trim_start().starts_with('!') {
        wanted.kind = Some(Kind::File);
        return wanted;
    }
    place.offer(&mut wanted);
    wanted
}

/// The words before the cursor, and the one at it.
struct Cursor {
    before: Vec<String>,
    start: usize,
    word: String,
}

impl Cursor {
    fn find(text: &str) -> Cursor {
        let start = last_word(text);
        let (before, word) = text.split_at(start);
        let mut before = shlex::split(before).unwrap_or_default();
        if before.first().is_some_and(|word| word == "pg_staging") {
            before.remove(0);
        }
        // A quotation that is still open is closed to see what is in it.
        let closed = ["", "\"", "'"].iter().find_map(|end| shlex::split(&format!("{word}{end}")));
        let word = closed.unwrap_or_default().into_iter().next().unwrap_or_default();
        Cursor { before, start, word }
    }
}

/// Where the last word of a text begins, which is at its end behind white space.
fn last_word(text: &str) -> usize {
    let mut start = 0;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            (_, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => start = at + c.len_utf8(),
            _ => {}
        }
    }
    start
}

/// A place in a line: what came before it.
struct Place<'l> {
    command: &'l clap::Command,
    /// The values so far, by the names of their arguments.
    before: Vec<(String, String)>,
    operands: usize,
    /// The option whose value is next.
    open: Option<&'l Arg>,
}

impl<'l> Place<'l> {
    /// The place after another word.
    fn after(mut self, word: &str) -> Place<'l> {
        if let Some(option) = self.open.take() {
            self.before.push((option.get_id().to_string(), word.to_owned()));
        } else if let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) {
            self.open = self.flag(flag).filter(|option| takes_a_word(option));
        } else if let Some(command) = self.command.find_subcommand(word) {
            self.command = command;
            self.operands = 0;
        } else {
            if let Some(operand) = self.operand() {
                self.before.push((operand.get_id().to_string(), word.to_owned()));
            }
            self.operands += 1;
        }
        self
    }

    /// The option that is typed so; `flag` is without the first hyphen. One with its value in the same word is none.
    fn flag(&self, flag: &str) -> Option<&'l Arg> {
        let mut arguments = self.command.get_arguments();
        match flag.strip_prefix('-') {
            Some(long) => arguments.find(|argument| argument.get_long() == Some(long)),
            None => {
                let short = flag.chars().next_back();
                arguments.find(|argument| argument.get_short().is_some() && argument.get_short() == short)
            }
        }
    }

    /// The argument that an operand here is; the last one may take many.
    fn operand(&self) -> Option<&'l Arg> {
        let last = self.command.get_positionals().last().filter(|last| many(last));
        self.command.get_positionals().nth(self.operands).or(last)
    }

    fn offer(&self, wanted: &mut Wanted) {
        if let Some(option) = self.open {
            self.offer_values(option, wanted);
        } else if let Some((name, value)) =
            wanted.typed.strip_prefix("--").and_then(|long| long.split_once('='))
        {
            if let Some(option) = self.flag(&format!("-{name}")) {
                wanted.start += "--=".len() + name.len();
                wanted.typed = value.to_owned();
                self.offer_values(option, wanted);
            }
        } else if wanted.typed.starts_with('-') {
            wanted.words = self.flags();
        } else if self.command.has_subcommands() {
            wanted.words = commands(self.command);
        } else if let Some(operand) = self.operand() {
            self.offer_values(operand, wanted);
        }
    }

    fn offer_values(&self, argument: &Arg, wanted: &mut Wanted) {
        let words = argument.get_possible_values().into_iter().filter(|word| !word.is_hide_set());
        wanted.words = match argument.get_id().as_str() {
            "command" => commands(&line::language()),
            _ => words.map(|word| described(word.get_name(), word.get_help())).collect(),
        };
        wanted.kind = Kind::of(argument, &self.before);
    }

    fn flags(&self) -> Vec<(String, String)> {
        let shown = self.command.get_arguments().filter(|argument| !argument.is_hide_set());
        let flag = |argument: &Arg| {
            let long = argument.get_long()?;
            Some(described(&format!("--{long}"), argument.get_help()))
        };
        shown.filter_map(flag).collect()
    }
}

fn takes_a_word(option: &Arg) -> bool {
    option.get_action().takes_values() && !option.is_require_equals_set()
}

fn many(operand: &Arg) -> bool {
    operand.get_num_args().is_some_and(|range| range.max_values() > 1)
        || matches!(operand.get_action(), clap::ArgAction::Append)
}

fn commands(language: &clap::Command) -> Vec<(String, String)> {
    let shown = language.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.flat_map(|command| {
        let names = std::iter::once(command.get_name()).chain(command.get_visible_aliases());
        names.map(|name| described(name, command.get_about())).collect::<Vec<_>>()
    });
    names.collect()
}

/// A word, and what is shown of it.
fn described(word: &str, about: Option<&clap::builder::StyledStr>) -> (String, String) {
    let about = about.map(ToString::to_string).unwrap_or_default();
    (word.to_owned(), format!("{word:16} {about}").trim_end().to_owned())
}
