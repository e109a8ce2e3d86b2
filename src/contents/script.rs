//! A dump in plain SQL (`pg_dump -Fp`), looked at on its way to psql, in bounded memory.
//!
//! What reaches psql acts on the one database that it is connected to and can be held in one transaction: commands of
//! psql's own and statements about whole databases are refused, and so are those that end a transaction otherwise than
//! pg_dump does (around large objects, `StartTransaction` in pg_backup_null.c), which are left out. Privileges of roles
//! that do not exist are left out too, as they are lost from an archive, and told. Everything else goes through byte for
//! byte, whatever its encoding. What is a string, a comment or rows is decided as in psql (psqlscan.l), so that both
//! agree about it.

mod copy;
mod statement;

use std::collections::HashSet;

use self::copy::Copied;
use self::statement::{Judgement, Statement};

/// How pg_dump begins and ends its scripts, in comments.
const BEGINS: &[u8] = b"PostgreSQL database dump";
const ENDS: &[u8] = b"PostgreSQL database dump complete";
/// How much of a comment, of a tag between dollars, or of a command is kept, in bytes.
const KEPT: usize = 128;

/// Why a script is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A command of psql's.
    #[error("line {line} has {command}, a command of psql's")]
    Command {
        /// The line.
        line: u64,
        /// The command, without what follows it.
        command: String,
    },
    /// What ends a transaction, or may.
    #[error("line {line} has {statement}, which one transaction cannot hold")]
    Transaction {
        /// The line.
        line: u64,
        /// How the statement begins.
        statement: String,
    },
    /// What is about a database.
    #[error("line {line} has {statement}, which is about a whole database")]
    Database {
        /// The line.
        line: u64,
        /// How the statement begins.
        statement: String,
    },
    /// Text in an encoding in which a byte of a character can look like a quote or a backslash.
    #[error("it is in {encoding}, an encoding that cannot be looked into")]
    Encoding {
        /// Its name.
        encoding: String,
    },
    /// What psql may take for something else than we do.
    #[error("line {line} has {what}, which can be read in two ways")]
    Unclear {
        /// The line.
        line: u64,
        /// What.
        what: &'static str,
    },
    /// Something stands behind the statement that rows follow.
    #[error("line {line} has something behind COPY … FROM stdin")]
    BehindCopy {
        /// The line.
        line: u64,
    },
    /// It ends too early.
    #[error("it ends in line {line}, {within}")]
    Cut {
        /// Where.
        line: u64,
        /// Within what.
        within: &'static str,
    },
}

impl ScriptError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Command { .. } | Self::Database { .. } => {
                "make the backup without --create, or with pg_dump -Fc"
            }
            Self::Encoding { .. } => "make the backup with --encoding=UTF8, or with pg_dump -Fc",
            Self::Transaction { .. } | Self::BehindCopy { .. } | Self::Unclear { .. } => {
                "make the backup with pg_dump itself, best with -Fc"
            }
            Self::Cut { .. } => {
                "fetch the dump again; if it is as long on the backup server, pg_dump itself was interrupted: take another day's backup"
            }
        }
    }
}

/// Where in the script one is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Code,
    /// Behind a `-` or a `/`, which may begin a comment.
    Dash,
    Slash,
    LineComment(Vec<u8>),
    /// How deep, and the byte before.
    BlockComment(u32, u8),
    /// In a string, and whether a backslash means something in it.
    Text {
        escapes: bool,
    },
    /// Behind a backslash in one.
    Escaped,
    /// In a quoted name.
    Name,
    /// Behind a dollar, and what came since.
    Tag(Vec<u8>),
    /// Between dollars, by what it ends with and how much of that came.
    Body(Vec<u8>, usize),
    /// In a command of psql's.
    Command(Vec<u8>),
    /// Behind the statement that rows follow.
    BehindCopy,
    /// In rows.
    Rows(Copied),
}

/// What came since a string with escapes ended. Behind the end of a line, comments or not, it may go on.
#[derive(Debug, Clone, Copy, Default)]
struct Behind {
    blank: bool,
    line: bool,
}

/// A script on its way.
#[derive(Debug)]
pub struct Script {
    place: Place,
    behind: Option<Behind>,
    line: u64,
    statement: Statement,
    /// Whether a backslash means something in any string.
    escapes: bool,
    roles: HashSet<String>,
    left_out: Vec<String>,
    begins: bool,
    ends: bool,
}

impl Script {
    /// One whose privileges may be of these roles.
    #[must_use]
    pub fn new(roles: HashSet<String>) -> Self {
        Self {
            place: Place::Code,
            behind: None,
            line: 1,
            statement: Statement::default(),
            escapes: false,
            roles,
            left_out: Vec::new(),
            begins: false,
            ends: false,
        }
    }

    /// Takes what comes next, and adds to `out` what of all that came is fit for psql.
    ///
    /// # Errors
    /// As [`ScriptError`] has them; nothing may be committed then.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ScriptError> {
        // psql takes a line for what stands before a NUL, within rows too; pg_dump writes none.
        let nul = bytes.iter().position(|byte| *byte == 0);
        let mut rest = bytes.get(..nul.unwrap_or(bytes.len())).unwrap_or_default();
        while let Some(first) = rest.first() {
            if let Place::Rows(copied) = &mut self.place {
                let (taken, lines, whole) = copied.take(rest);
                out.extend_from_slice(rest.get(..taken).unwrap_or_default());
                self.line += lines;
                if whole {
                    self.place = Place::Code;
                }
                rest = rest.get(taken..).unwrap_or_default();
                continue;
            }
            self.byte(*first, out)?;
            self.line += u64::from(*first == b'\n');
            rest = rest.get(1..).unwrap_or_default();
        }
        match nul {
            None => Ok(()),
            Some(_) => Err(ScriptError::Unclear { line: self.line, what: "a NUL" }),
        }
    }

    /// Nothing comes any more. Gives what was left out.
    ///
    /// # Errors
    /// When it cannot be all of the script.
    pub fn end(mut self, out: &mut Vec<u8>) -> Result<Vec<String>, ScriptError> {
        // A last line need not have an end.
        if matches!(self.place, Place::LineComment(_) | Place::Command(_)) {
            self.byte(b'\n', out)?;
        }
        let within = match self.place {
            Place::Code if !self.statement.is_begun() => {
                if self.ends || !self.begins {
                    return Ok(self.left_out);
                }
                "before pg_dump says that it is complete"
            }
            Place::Rows(_) | Place::BehindCopy => "within the rows of a table",
            _ => "within a statement",
        };
        Err(ScriptError::Cut { line: self.line, within })
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ScriptError> {
        match std::mem::replace(&mut self.place, Place::Code) {
            Place::Code => return self.code(byte, out),
            Place::Dash if byte == b'-' => {
                self.statement.push(byte, out);
                self.place = Place::LineComment(Vec::new());
                return Ok(());
            }
            Place::Slash if byte == b'*' => {
                self.statement.push(byte, out);
                self.place = Place::BlockComment(1, 0);
                return Ok(());
            }
            // It was an operator.
            Place::Dash | Place::Slash => {
                self.behind = None;
                self.statement.begin();
                return self.code(byte, out);
            }
            Place::LineComment(comment) => self.place = self.comment(comment, byte),
            Place::BlockComment(depth, before) => self.place = block_comment(depth, before, byte),
            Place::Text { escapes } => {
                self.behind = (escapes && byte == b'\'').then(Behind::default);
                self.place = match byte {
                    b'\\' if escapes => Place::Escaped,
                    b'\'' => Place::Code,
                    _ => Place::Text { escapes },
                };
            }
            Place::Escaped => self.place = Place::Text { escapes: true },
            Place::Name => self.place = if byte == b'"' { Place::Code } else { Place::Name },
            Place::Tag(tag) => return self.tag(tag, byte, out),
            Place::Body(end, came) => self.place = body(end, came, byte),
            Place::Command(command) => return self.command(command, byte, out),
            Place::BehindCopy => {
                self.place = match byte {
                    b'\n' => Place::Rows(Copied::default()),
                    b' ' | b'\t' | b'\r' => Place::BehindCopy,
                    _ => return Err(ScriptError::BehindCopy { line: self.line }),
                };
            }
            rows @ Place::Rows(_) => self.place = rows,
        }
        self.statement.push(byte, out);
        Ok(())
    }

    /// A byte outside of strings, comments and rows.
    fn code(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), ScriptError> {
        if self.goes_on(byte) {
            // Two quotes are one; and a string may go on in another line.
            self.place = Place::Text { escapes: true };
            self.statement.push(byte, out);
            return Ok(());
        }
        if byte == b'$' && self.statement.is_in_number() {
            return Err(ScriptError::Unclear { line: self.line, what: "a dollar right behind a number" });
        }
        if is_word(byte) || (byte == b'$' && self.statement.is_in_word()) {
            self.statement.begin();
            self.statement.in_word(byte);
            self.statement.push(byte, out);
            return Ok(());
        }
        let escapes = self.escapes || self.statement.is_in_escape_prefix();
        self.statement.end_of_word();
        match self.statement.judge_beginning(out) {
            Judgement::Fine => {}
            Judgement::Transaction => return Err(self.transaction()),
            Judgement::Database => {
                return Err(ScriptError::Database { line: self.line, statement: self.statement.words() });
            }
        }
        self.place = match byte {
            b'\'' => Place::Text { escapes },
            b'"' => Place::Name,
            b'$' => Place::Tag(Vec::new()),
            b'-' => Place::Dash,
            b'/' => Place::Slash,
            b'\\' => {
                self.place = Place::Command(Vec::new());
                return Ok(());
            }
            _ => Place::Code,
        };
        match byte {
            b'\'' | b'"' | b'$' => self.statement.begin(),
            b'(' => self.statement.parenthesis(1),
            b')' => self.statement.parenthesis(-1),
            b';' if self.statement.may_end() => return self.end_of_statement(out),
            b'-' | b'/' => {}
            _ if byte.is_ascii_whitespace() => {}
            _ => self.statement.begin(),
        }
        self.statement.push(byte, out);
        Ok(())
    }

    /// Whether a string with escapes that ended goes on with this byte.
    fn goes_on(&mut self, byte: u8) -> bool {
        let Some(behind) = self.behind.take() else { return false };
        self.behind = match byte {
            b'\'' => return behind.line || !behind.blank,
            b'\n' | b'\r' => Some(Behind { blank: true, line: true }),
            // It may begin a comment.
            b' ' | b'\t' | b'\x0b' | b'\x0c' | b'-' => Some(Behind { blank: true, ..behind }),
            _ => None,
        };
        false
    }

    fn end_of_statement(&mut self, out: &mut Vec<u8>) -> Result<(), ScriptError> {
        let statement = std::mem::take(&mut self.statement);
        if statement.rows_follow() {
            self.place = Place::BehindCopy;
        }
        let Some(held) = statement.held() else {
            out.push(b';');
            return Ok(());
        };
        let keeps = match held.what() {
            statement::What::Transaction => {
                if !held.is_only_a_transaction() {
                    let statement = held.beginning();
                    return Err(ScriptError::Transaction { line: self.line, statement });
                }
                false
            }
            statement::What::Privileges => match held.unknown_role(&self.roles) {
                None => true,
                Some(role) => {
                    self.left_out.push(format!("role \"{role}\" does not exist ({})", held.beginning()));
                    false
                }
            },
            statement::What::Setting => {
                if let Some(encoding) = held.unfit_encoding() {
                    return Err(ScriptError::Encoding { encoding });
                }
                if let Some(escapes) = held.escapes() {
                    self.escapes = escapes;
                }
                // Servers up to 16 do not know it, and what it would be is set before.
                !held.is_of("transaction_timeout")
            }
        };
        if keeps {
            out.extend_from_slice(held.text());
            out.push(b';');
        } else {
            // So that psql counts lines as the script has them.
            out.extend(held.text().iter().filter(|byte| **byte == b'\n'));
        }
        Ok(())
    }

    fn transaction(&self) -> ScriptError {
        ScriptError::Transaction { line: self.line, statement: self.statement.words() }
    }

    fn comment(&mut self, mut comment: Vec<u8>, byte: u8) -> Place {
        if !matches!(byte, b'\n' | b'\r') {
            if comment.len() < KEPT {
                comment.push(byte);
            }
            return Place::LineComment(comment);
        }
        self.behind = self.behind.map(|_| Behind { blank: true, line: true });
        let comment = comment.trim_ascii();
        self.begins |= comment == BEGINS;
        self.ends |= comment == ENDS;
        Place::Code
    }

    fn tag(&mut self, mut tag: Vec<u8>, byte: u8, out: &mut Vec<u8>) -> Result<(), ScriptError> {
        let belongs = is_word(byte) && !(tag.is_empty() && byte.is_ascii_digit());
        if belongs && tag.len() >= KEPT {
            return Err(ScriptError::Unclear { line: self.line, what: "a long tag behind a dollar" });
        }
        if !belongs && byte != b'$' {
            // A parameter, such as $1.
            return self.code(byte, out);
        }
        self.statement.push(byte, out);
        self.place = if byte == b'$' {
            Place::Body([b"$", tag.as_slice(), b"$"].concat(), 0)
        } else {
            tag.push(byte);
            Place::Tag(tag)
        };
        Ok(())
    }

    /// Both that guard a script against commands in its data (pg_dump since 13.22, 14.19, 15.14, 16.10, 17.6) are left
    /// out: a psql that is older does not know them, and there are no other commands.
    fn command(&mut self, mut command: Vec<u8>, byte: u8, out: &mut Vec<u8>) -> Result<(), ScriptError> {
        if byte != b'\n' {
            if command.len() < KEPT {
                command.push(byte);
            }
            self.place = Place::Command(command);
            return Ok(());
        }
        let text = String::from_utf8_lossy(&command);
        let name = text.split_ascii_whitespace().next().unwrap_or_default();
        if matches!(name, "restrict" | "unrestrict") && !self.statement.is_begun() {
            self.statement.push(byte, out);
            return Ok(());
        }
        Err(ScriptError::Command { line: self.line, command: format!("\\{name}") })
    }
}

/// Whether a byte is part of a keyword, a name or a number.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Comments of several lines may be within each other.
fn block_comment(depth: u32, before: u8, byte: u8) -> Place {
    match (before, byte) {
        (b'*', b'/') if depth == 1 => Place::Code,
        (b'*', b'/') => Place::BlockComment(depth - 1, 0),
        (b'/', b'*') => Place::BlockComment(depth.saturating_add(1), 0),
        _ => Place::BlockComment(depth, byte),
    }
}

/// No tag has a dollar in it, so that what ends a body can begin anew only with one.
fn body(end: Vec<u8>, came: usize, byte: u8) -> Place {
    let came = if end.get(came) == Some(&byte) { came + 1 } else { usize::from(byte == b'$') };
    if came == end.len() { Place::Code } else { Place::Body(end, came) }
}

#[cfg(test)]
mod tests;
