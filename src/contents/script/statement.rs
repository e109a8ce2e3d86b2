//! A statement on its way: how it begins, where it may end, and whether it is looked at as a whole before it is given on.

use std::collections::HashSet;

use crate::contents::selection::roles_of_privileges;
use crate::contents::sql::{self, Token};

/// How many words of a statement decide what it is.
const DECISIVE: usize = 4;
/// The longest statement that is held back, in bytes. What is longer is none of those that are.
const LONGEST: usize = 1 << 20;

/// Encodings of clients only, in which the second byte of a character may be that of an ASCII character
/// (`PG_ENCODING_BE_LAST` in pg_wchar.h).
const UNFIT: [&str; 8] = ["sjis", "shift_jis_2004", "shiftjis2004", "big5", "gbk", "uhc", "gb18030", "johab"];

/// What a beginning is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It may go on.
    Fine,
    /// It would end the transaction.
    Transaction,
    /// It is about a whole database.
    Database,
}

/// Why a statement is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// BEGIN, COMMIT and the like.
    Transaction,
    /// GRANT, REVOKE and ALTER DEFAULT PRIVILEGES.
    Privileges,
    /// SET.
    Setting,
}

/// Whether what comes is given on.
#[derive(Debug, Default)]
enum Hold {
    /// Not before it is known what it is.
    #[default]
    Undecided,
    /// Not before all of it is there.
    Whole(What),
    /// At once.
    No,
}

/// A statement on its way.
#[derive(Debug, Default)]
pub(super) struct Statement {
    begun: bool,
    words: Vec<String>,
    word: Vec<u8>,
    /// Whether a word ended since the beginning was judged.
    fresh: bool,
    parentheses: i64,
    /// How many blocks of an SQL routine's body are open.
    blocks: u32,
    /// How much of FROM stdin came.
    from: u8,
    hold: Hold,
    text: Vec<u8>,
}

impl Statement {
    /// Whether there is more of it than blanks and comments.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    pub(super) fn is_in_word(&self) -> bool {
        !self.word.is_empty()
    }

    pub(super) fn is_in_number(&self) -> bool {
        self.word.first().is_some_and(u8::is_ascii_digit)
    }

    /// Whether a quote would begin a string with escapes here.
    pub(super) fn is_in_escape_prefix(&self) -> bool {
        matches!(self.word.as_slice(), b"e" | b"E")
    }

    pub(super) fn in_word(&mut self, byte: u8) {
        // No keyword is longer.
        if self.word.len() < 64 {
            self.word.push(byte.to_ascii_lowercase());
        }
    }

    pub(super) fn end_of_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = String::from_utf8_lossy(&self.word).into_owned();
        self.word.clear();
        if self.parentheses == 0 {
            self.from = match (self.from, word.as_str()) {
                (2, _) | (1, "stdin") => 2,
                (_, "from") => 1,
                _ => 0,
            };
            self.open_or_close_block(&word);
        }
        if self.words.len() < DECISIVE {
            self.words.push(word);
            self.fresh = true;
        }
    }

    /// As `psqlscan.l` has it: in CREATE [OR REPLACE] FUNCTION or PROCEDURE the body may be BEGIN ATOMIC … END.
    fn open_or_close_block(&mut self, word: &str) {
        let word_at = |at: usize| self.words.get(at).map(String::as_str).unwrap_or_default();
        let kind = if word_at(1) == "or" && word_at(2) == "replace" { word_at(3) } else { word_at(1) };
        if word_at(0) != "create" || !matches!(kind, "function" | "procedure") {
            return;
        }
        match word {
            "begin" => self.blocks += 1,
            "case" if self.blocks > 0 => self.blocks += 1,
            "end" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
    }

    pub(super) fn parenthesis(&mut self, change: i64) {
        self.begun = true;
        self.parentheses = (self.parentheses + change).max(0);
    }

    /// Whether a semicolon here is its end.
    pub(super) fn may_end(&self) -> bool {
        self.parentheses == 0 && self.blocks == 0
    }

    /// Decides by its first words, as soon as they are there, whether it is held back.
    pub(super) fn judge_beginning(&mut self, out: &mut Vec<u8>) -> Judgement {
        if !std::mem::take(&mut self.fresh) || !matches!(self.hold, Hold::Undecided) {
            return Judgement::Fine;
        }
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.hold = match words.as_slice() {
            ["rollback" | "abort", ..] | ["prepare", "transaction", ..] => return Judgement::Transaction,
            ["create" | "drop" | "alter", "database", ..] => return Judgement::Database,
            ["begin" | "commit" | "end" | "start", ..] => Hold::Whole(What::Transaction),
            ["grant" | "revoke", ..] | ["alter", "default", ..] => Hold::Whole(What::Privileges),
            ["set", ..] => Hold::Whole(What::Setting),
            ["create" | "drop" | "alter" | "prepare"] => Hold::Undecided,
            _ => Hold::No,
        };
        if matches!(self.hold, Hold::No) {
            out.append(&mut self.text);
        }
        Judgement::Fine
    }

    /// Adds a byte, and gives on what need not be held back.
    pub(super) fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        let held = self.begun && !matches!(self.hold, Hold::No);
        if !held {
            out.push(byte);
            return;
        }
        self.text.push(byte);
        if self.text.len() > LONGEST && !matches!(self.hold, Hold::Whole(What::Transaction)) {
            self.hold = Hold::No;
            out.append(&mut self.text);
        }
    }

    /// Its first words.
    pub(super) fn words(&self) -> String {
        self.words.join(" ").to_uppercase()
    }

    /// Whether rows follow it.
    pub(super) fn rows_follow(&self) -> bool {
        self.from == 2 && self.words.first().is_some_and(|word| word == "copy")
    }

    /// What of it was held back.
    pub(super) fn held(self) -> Option<Held> {
        let what = match self.hold {
            Hold::Whole(what) => what,
            // It is too short to be any of those; there is nothing else to look at.
            Hold::Undecided if !self.text.is_empty() => What::Setting,
            _ => return None,
        };
        let tokens = sql::tokens(&String::from_utf8_lossy(&self.text));
        Some(Held { what, text: self.text, tokens })
    }
}

/// A whole statement, without its semicolon.
#[derive(Debug)]
pub(super) struct Held {
    what: What,
    text: Vec<u8>,
    tokens: Vec<Token>,
}

impl Held {
    pub(super) fn what(&self) -> What {
        self.what
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The beginning of it, for people.
    pub(super) fn beginning(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let words: Vec<&str> = text.split_whitespace().take(12).collect();
        words.join(" ")
    }

    /// Whether it begins or ends a transaction and does nothing else.
    pub(super) fn is_only_a_transaction(&self) -> bool {
        let may_be = ["begin", "commit", "end", "start", "transaction", "work"];
        self.tokens.iter().all(|token| may_be.iter().any(|word| token.is_word(word)))
    }

    /// A role that it names and that there is not.
    pub(super) fn unknown_role(&self, roles: &HashSet<String>) -> Option<String> {
        let always = ["public", "current_user", "session_user", "current_role"];
        let named = roles_of_privileges(&self.tokens).into_iter();
        named.filter(|role| !always.contains(&role.as_str())).find(|role| !roles.contains(role))
    }

    /// Whether it sets this.
    pub(super) fn is_of(&self, setting: &str) -> bool {
        self.tokens.iter().take(3).any(|token| token.is_word(setting))
    }

    /// Whether backslashes mean something from here on, when it says so.
    pub(super) fn escapes(&self) -> Option<bool> {
        self.is_of("standard_conforming_strings").then(|| self.value().is_some_and(|value| value == "off"))
    }

    /// The encoding that it chooses, when that is one that cannot be looked into.
    pub(super) fn unfit_encoding(&self) -> Option<String> {
        let encoding = self.value().filter(|_| self.is_of("client_encoding") || self.is_of("names"))?;
        let plain: String = encoding.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
        UNFIT.contains(&plain.to_lowercase().as_str()).then_some(encoding)
    }

    /// What it sets.
    fn value(&self) -> Option<String> {
        match self.tokens.last()? {
            Token::Literal(value) => Some(value.to_lowercase()),
            token => token.as_name().map(str::to_lowercase),
        }
    }
}
