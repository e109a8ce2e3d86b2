//! What pg_restore says on its standard error, read into messages that can be judged one by one.
//!
//! The forms are those of `pg_backup_archiver.c` (`warn_or_exit_horribly`, `ahlog`) with `LC_ALL=C`.

use std::fmt;

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The errors, in order.
    pub(super) messages: Vec<Message>,
    /// What `errors ignored on restore` counts: there only when pg_restore went through to its end.
    pub(super) ignored: Option<u64>,
    /// Whether another try may go better: the server was lost on the way, or others were.
    pub(super) may_pass: bool,
}

/// One error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The archive's entry that it is about, as in `pg_restore --list`, when that is told.
    pub(super) entry: Option<String>,
    /// What the server, or pg_restore, says.
    pub(super) text: String,
    /// The beginning of the statement that failed.
    pub(super) statement: Option<String>,
}

impl Message {
    /// The short list of what is harmless: a comment on an extension that somebody else owns, a schema `public` that
    /// is there already, privileges for a role that is not there.
    pub(super) fn is_tolerated(&self) -> bool {
        let entry = self.entry.as_deref().unwrap_or_default();
        let statement = self.statement.as_deref().unwrap_or_default();
        let of = |kind: &str| entry.contains(kind);
        (of(" COMMENT ")
            && statement.starts_with("COMMENT ON EXTENSION")
            && self.text.contains("must be owner of extension"))
            || (of(" SCHEMA ") && self.text.contains("schema \"public\" already exists"))
            || ((of(" ACL ") || of(" DEFAULT ACL "))
                && self.text.contains("role ")
                && self.text.contains(" does not exist"))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Some(entry) => write!(f, "{} (entry {entry})", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Whether a line only tells how far pg_restore is.
pub(in crate::step) fn is_progress(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("pg_restore: ") else { return false };
    let telling = [
        "connecting to database",
        "creating ",
        "processing data for",
        "processing item",
        "processing missed item",
        "executing ",
        "entering main parallel loop",
        "launching item",
        "finished item",
        "finished main parallel loop",
        "setting owner",
        "skipping item",
        "implied data-only restore",
        "restoring large object",
        "restored ",
        "disabling triggers",
        "enabling triggers",
        "table \"",
    ];
    telling.iter().any(|words| rest.starts_with(words))
}

/// Reads what pg_restore said.
pub(super) fn read_messages(said: &str) -> Read {
    let mut read = Read::default();
    let mut entry = None;
    let mut in_statement = false;
    for line in said.lines() {
        let own = line.strip_prefix("pg_restore: ");
        if let Some(from) = own.and_then(|rest| rest.strip_prefix("from TOC entry ")) {
            entry = Some(from.to_owned());
        } else if let Some(count) =
            own.and_then(|rest| rest.strip_prefix("warning: errors ignored on restore: "))
        {
            read.ignored = count.trim().parse().ok();
        } else if let Some(text) = own.and_then(|rest| rest.strip_prefix("error: ")) {
            let text = text.strip_prefix("could not execute query: ").unwrap_or(text);
            read.messages.push(Message { entry: entry.take(), text: text.to_owned(), statement: None });
        } else if let Some(statement) = line.strip_prefix("Command was: ") {
            if let Some(message) = read.messages.last_mut() {
                message.statement = Some(statement.to_owned());
            }
            in_statement = true;
            continue;
        } else if let (None, false, Some(message)) = (own, in_statement, read.messages.last_mut()) {
            // DETAIL, HINT and the like belong to the error before them.
            if !line.trim().is_empty() {
                message.text.push_str("; ");
                message.text.push_str(line.trim());
            }
            continue;
        }
        if own.is_some() {
            in_statement = false;
        }
    }
    let passing = [
        "server closed the connection",
        "terminating connection",
        "connection to server",
        "Connection refused",
        "the database system is",
        "deadlock detected",
        "too many clients",
    ];
    read.may_pass =
        read.messages.iter().any(|message| passing.iter().any(|words| message.text.contains(words)));
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_from_progress_and_from_each_other() {
        let said = "pg_restore: connecting to database for restore\n\
                    pg_restore: creating SCHEMA \"public\"\n\
                    pg_restore: while PROCESSING TOC:\n\
                    pg_restore: from TOC entry 5; 2615 2200 SCHEMA - public postgres\n\
                    pg_restore: error: could not execute query: ERROR:  schema \"public\" already exists\n\
                    Command was: CREATE SCHEMA public;\n\n\n\
                    pg_restore: creating TABLE \"public.t\"\n\
                    pg_restore: from TOC entry 9; 1259 9 TABLE public t postgres\n\
                    pg_restore: error: could not execute query: ERROR:  type \"x\" does not exist\n\
                    LINE 2:     a x\n\
                    Command was: CREATE TABLE public.t (\n    a x\n);\n\n\
                    pg_restore: warning: errors ignored on restore: 2\n";
        let read = read_messages(said);
        assert_eq!(read.ignored, Some(2));
        assert!(!read.may_pass);
        let [public, table] = read.messages.as_slice() else { panic!("{:?}", read.messages) };
        assert!(public.is_tolerated());
        assert!(!table.is_tolerated());
        assert_eq!(table.entry.as_deref(), Some("9; 1259 9 TABLE public t postgres"));
        assert_eq!(table.text, "ERROR:  type \"x\" does not exist; LINE 2:     a x");
        assert_eq!(table.statement.as_deref(), Some("CREATE TABLE public.t ("));
    }

    #[test]
    fn privileges_for_a_missing_role_are_harmless_and_an_owner_that_is_missing_is_not() {
        let message = |entry: &str| Message {
            entry: Some(entry.to_owned()),
            text: "ERROR:  role \"app\" does not exist".to_owned(),
            statement: Some("GRANT SELECT ON TABLE public.t TO app;".to_owned()),
        };
        assert!(message("9; 0 0 ACL public TABLE t postgres").is_tolerated());
        assert!(!message("9; 1259 9 TABLE public t app").is_tolerated());
    }
}
