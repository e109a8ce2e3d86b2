//! The line editor, in a thread of its own: reading a terminal holds up whoever does it, and the main thread has to hear
//! of signals meanwhile. It asks the main thread what to complete a word with, and keeps the history.

use std::path::PathBuf;
use std::sync::mpsc;

use rustyline::completion::{Candidate as Shown, Completer};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Config, Context, Editor, Helper};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::candidates::Candidate;
use super::line;
use crate::error::{Error, ExitCode};
use crate::world::{Trouble, disk, terminal};

/// What stands before what is typed.
const PROMPT: &str = "pg_staging> ";

/// How many lines are remembered.
const REMEMBERED: usize = 1000;

/// What the thread tells.
pub(super) enum Heard {
    /// Somebody wants to know what fits at the cursor.
    Complete {
        /// The line so far.
        text: String,
        /// Where the cursor is, in bytes.
        at: usize,
        /// Who waits for the answer.
        reply: mpsc::Sender<(usize, Vec<Candidate>)>,
    },
    /// A line was typed.
    Line(String),
    /// The line was given up with ^C.
    Interrupted,
    /// There will be no more.
    End,
    /// The history cannot be kept.
    Warning(String),
    /// The terminal cannot be read.
    Failed(String),
}

/// The thread, from outside.
pub(super) struct Lines {
    ask: mpsc::Sender<()>,
    heard: UnboundedReceiver<Heard>,
    modes: Option<terminal::Modes>,
}

impl Lines {
    /// Starts the thread. The history is in that file; with no file, in no file.
    pub(super) fn start(history: Option<PathBuf>) -> Result<Lines, Error> {
        let modes = terminal::Modes::now();
        let (ask, asked) = mpsc::channel();
        let (tell, heard) = unbounded_channel();
        let read = move || Reader { tell, history }.read_when_asked(&asked);
        let started = std::thread::Builder::new().name("editor".to_owned()).spawn(read);
        started.map_err(|error| Error::new(ExitCode::FAILED, "cannot read the terminal").because(error))?;
        Ok(Lines { ask, heard, modes })
    }

    /// Asks for a line.
    pub(super) fn prompt(&self) {
        // A thread that is gone tells so itself, by the end of what is heard.
        let _gone = self.ask.send(());
    }

    /// What the thread tells next.
    pub(super) async fn next(&mut self) -> Heard {
        self.heard.recv().await.unwrap_or(Heard::End)
    }

    /// Makes the terminal what it was before, while a line is being read.
    pub(super) fn leave(self) {
        if let Some(modes) = &self.modes {
            modes.restore();
        }
    }
}

/// The thread, from inside.
struct Reader {
    tell: UnboundedSender<Heard>,
    history: Option<PathBuf>,
}

impl Reader {
    fn read_when_asked(self, asked: &mpsc::Receiver<()>) {
        // When nobody hears any more, the program is about to end.
        let _gone = match self.editor() {
            Ok(mut editor) => asked.iter().try_for_each(|()| self.read(&mut editor)),
            Err(error) => self.tell.send(Heard::Failed(error.to_string())),
        };
    }

    fn editor(&self) -> Result<Editor<Questions, FileHistory>, ReadlineError> {
        let config = Config::builder()
            .behavior(Behavior::PreferTerm)
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .history_ignore_space(true)
            .history_ignore_dups(true)?
            .max_history_size(REMEMBERED)?
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Questions(self.tell.clone())));
        if let Some(path) = self.history.as_ref().filter(|path| disk::exists(path)) {
            // A file that others could read is made ours before anything is added to it.
            let read = disk::make_private(path).and_then(|()| {
                editor
                    .load_history(path)
                    .map_err(|error| Trouble::new(format!("cannot read {}", path.display())).because(error))
            });
            self.warn_of(read);
        }
        Ok(editor)
    }

    /// Reads what is typed up to Enter, which may be several lines that were pasted.
    fn read(
        &self,
        editor: &mut Editor<Questions, FileHistory>,
    ) -> Result<(), tokio::sync::mpsc::error::SendError<Heard>> {
        let text = match editor.readline(PROMPT) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => return self.tell.send(Heard::Interrupted),
            Err(ReadlineError::Eof) => return self.tell.send(Heard::End),
            Err(error) => return self.tell.send(Heard::Failed(error.to_string())),
        };
        for text in text.lines() {
            self.keep(editor, text);
        }
        self.tell.send(Heard::Line(text))
    }

    /// Adds a line to the history, in the file as well, before anything comes of it.
    fn keep(&self, editor: &mut Editor<Questions, FileHistory>, text: &str) {
        if line::holds_secrets(text) {
            return;
        }
        let kept = editor.add_history_entry(text).and_then(|added| match &self.history {
            Some(path) if added => editor.append_history(path),
            _ => Ok(()),
        });
        self.warn_of(kept.map_err(|error| Trouble::new("what is typed cannot be remembered").because(error)));
    }

    fn warn_of(&self, outcome: Result<(), Trouble>) {
        if let Err(trouble) = outcome {
            let _gone = self.tell.send(Heard::Warning(trouble.to_string()));
        }
    }
}

/// Asks the main thread what fits.
struct Questions(UnboundedSender<Heard>);

impl Completer for Questions {
    type Candidate = Candidate;

    fn complete(&self, text: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Candidate>)> {
        let (reply, answer) = mpsc::channel();
        let _gone = self.0.send(Heard::Complete { text: text.to_owned(), at, reply });
        Ok(answer.recv().unwrap_or((at, Vec::new())))
    }
}

impl Shown for Candidate {
    fn display(&self) -> &str {
        &self.display
    }

    fn replacement(&self) -> &str {
        &self.replacement
    }
}

impl Hinter for Questions {
    type Hint = String;
}
impl Highlighter for Questions {}
impl Validator for Questions {}
impl Helper for Questions {}
