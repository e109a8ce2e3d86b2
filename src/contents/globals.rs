//! What `pg_dumpall -g` writes: roles with their memberships and settings, and tablespaces.
//!
//! It is a script for psql that holds password verifiers. So what is shown of a statement is its kind and the object
//! that it is about, never its text, and a message that quotes from it is shown without that.

use std::fmt;

use super::sql::{Statement, Token, after, statements};

/// The statements of such a script, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    /// The statements.
    pub statements: Vec<Global>,
}

/// One statement.
#[derive(Clone, PartialEq, Eq)]
pub struct Global {
    /// The line it begins in, counted from 1.
    pub line: usize,
    /// What it is about.
    pub part: Part,
    /// The role or tablespace that it makes.
    pub makes: Option<String>,
    /// Its kind and its object: `ALTER ROLE app`.
    pub what: String,
    /// Its text, which may hold a secret.
    pub sql: String,
    literals: Vec<String>,
}

/// What a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The session that runs the script.
    Session,
    /// Roles: what one transaction can hold.
    Roles,
    /// Tablespaces: what it cannot, or what needs them.
    Tablespaces,
}

/// Why a script is not one of `pg_dumpall -g`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobalsError {
    /// There is something in it that such a script does not have.
    #[error("line {line} has {what}")]
    Foreign {
        /// The line.
        line: usize,
        /// The statement's kind.
        what: String,
    },
    /// Its last statement has no end.
    #[error("it ends within a statement, in line {line}")]
    CutOff {
        /// Where that statement begins.
        line: usize,
    },
    /// It is in an encoding that is not read here.
    #[error("it is not in UTF-8")]
    Encoding,
    /// There is nothing in it.
    #[error("it makes no role")]
    Empty,
}

impl fmt::Debug for Global {
    /// Leaves the text out, since it may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.line, self.what, self.part)
    }
}

impl Global {
    /// What a server says of the statement, without what it quotes from its strings.
    pub fn without_secrets(&self, said: &str) -> String {
        let strings = self.literals.iter().filter(|literal| literal.chars().count() > 2);
        strings.fold(said.to_owned(), |said, literal| said.replace(literal.as_str(), "…"))
    }
}

impl Globals {
    /// Reads a script, and refuses one that does more than make roles and tablespaces.
    ///
    /// # Errors
    /// As [`GlobalsError`] has them; none of them quotes from the script.
    pub fn parse(script: &[u8]) -> Result<Globals, GlobalsError> {
        let script = std::str::from_utf8(script).map_err(|_| GlobalsError::Encoding)?;
        let mut parsed = Vec::new();
        let (mut line, mut seen) = (1, 0);
        for statement in statements(script) {
            let between = script.get(seen..statement.start).unwrap_or_default();
            line += between.matches('\n').count();
            seen = statement.start;
            parsed.extend(read(&statement, line)?);
        }
        if parsed.iter().all(|global: &Global| global.part == Part::Session) {
            return Err(GlobalsError::Empty);
        }
        Ok(Globals { statements: parsed })
    }

    /// The statements about this.
    pub fn about(&self, part: Part) -> impl Iterator<Item = &Global> {
        self.statements.iter().filter(move |global| global.part == part)
    }
}

/// A statement, or nothing where it says nothing.
fn read(statement: &Statement<'_>, line: usize) -> Result<Option<Global>, GlobalsError> {
    let foreign = |what: &str| GlobalsError::Foreign { line, what: what.to_owned() };
    if statement.text.starts_with('\\') {
        // Both guard a script against psql commands in its data (pg_dumpall since 13.22, 14.19, 15.14, 16.10, 17.6).
        return match statement.text.split_whitespace().next() {
            Some("\\restrict" | "\\unrestrict") => Ok(None),
            Some("\\c" | "\\connect") => Err(foreign("\\connect, which leads to a database")),
            _ => Err(foreign("a command of psql's")),
        };
    }
    let tokens = &statement.tokens;
    if tokens.is_empty() {
        return Ok(None);
    }
    let Some((part, kind, object)) = kind_of(tokens) else { return Err(foreign(&foreign_kind(tokens))) };
    if !statement.ended {
        return Err(GlobalsError::CutOff { line });
    }
    let name = tokens.get(object).and_then(Token::as_name).unwrap_or_default();
    if kind == "SET" && name == "client_encoding" && !is_utf8(tokens) {
        return Err(GlobalsError::Encoding);
    }
    let literal = |token: &Token| match token {
        Token::Literal(text) | Token::Body(text) => Some(text.clone()),
        _ => None,
    };
    Ok(Some(Global {
        line,
        part,
        makes: kind.starts_with("CREATE").then(|| name.to_owned()),
        what: format!("{kind} {name}").trim_end().to_owned(),
        sql: statement.text.to_owned(),
        literals: tokens.iter().filter_map(literal).collect(),
    }))
}

/// What a statement of `pg_dumpall -g` is about, its kind, and the place of the object's name.
fn kind_of(tokens: &[Token]) -> Option<(Part, &'static str, usize)> {
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => word.as_str(),
        _ => "",
    };
    let has = |keyword: &str| tokens.iter().any(|token| token.is_word(keyword));
    let behind = |keywords: &[&str]| after(tokens, keywords).unwrap_or(usize::MAX);
    let on_tablespace = after(tokens, &["on", "tablespace"]).is_some();
    Some(match (word(0), word(1)) {
        ("set", "role" | "session" | "local") => return None,
        ("set", _) => (Part::Session, "SET", 1),
        ("create", "role" | "user" | "group") => (Part::Roles, "CREATE ROLE", 2),
        ("alter", "role" | "user" | "group") => (Part::Roles, "ALTER ROLE", 2),
        ("create", "tablespace") => (Part::Tablespaces, "CREATE TABLESPACE", 2),
        ("alter", "tablespace") => (Part::Tablespaces, "ALTER TABLESPACE", 2),
        ("grant", _) if on_tablespace => (Part::Tablespaces, "GRANT ON TABLESPACE", behind(&["tablespace"])),
        ("grant", _) => (Part::Roles, "GRANT", 1),
        ("revoke", _) if on_tablespace => {
            (Part::Tablespaces, "REVOKE ON TABLESPACE", behind(&["tablespace"]))
        }
        ("revoke", _) => (Part::Roles, "REVOKE", 1),
        ("comment", "on") => match word(2) {
            "role" => (Part::Roles, "COMMENT ON ROLE", 3),
            "tablespace" => (Part::Tablespaces, "COMMENT ON TABLESPACE", 3),
            _ => return None,
        },
        ("security", "label") if has("role") => (Part::Roles, "SECURITY LABEL ON ROLE", behind(&["role"])),
        ("security", "label") if has("tablespace") => {
            (Part::Tablespaces, "SECURITY LABEL ON TABLESPACE", behind(&["tablespace"]))
        }
        _ => return None,
    })
}

/// The kind of a statement that does not belong there, in words of SQL only: what is no SQL may hold anything.
fn foreign_kind(tokens: &[Token]) -> String {
    const KNOWN: &[&str] = &[
        "alter",
        "begin",
        "comment",
        "commit",
        "connect",
        "copy",
        "create",
        "database",
        "delete",
        "do",
        "drop",
        "extension",
        "function",
        "group",
        "index",
        "insert",
        "into",
        "on",
        "role",
        "schema",
        "select",
        "sequence",
        "set",
        "table",
        "tablespace",
        "update",
        "user",
        "view",
    ];
    let words = tokens.iter().map_while(|token| match token {
        Token::Word(word) if KNOWN.contains(&word.as_str()) => Some(word.to_ascii_uppercase()),
        _ => None,
    });
    let kind = words.take(2).collect::<Vec<_>>().join(" ");
    if kind.is_empty() { "something that is no SQL".to_owned() } else { kind }
}

fn is_utf8(tokens: &[Token]) -> bool {
    let value = tokens.iter().rev().find_map(|token| match token {
        Token::Literal(text) | Token::Word(text) => Some(text.as_str()),
        _ => None,
    });
    value.is_some_and(|name| {
        ["UTF8", "UTF-8", "UNICODE", "SQL_ASCII"].iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy";

    #[test]
    fn a_script_is_read_by_kind_and_object() {
        let script = format!(
            "--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict abc\nSET default_transaction_read_only = off;\n\n\
             SET client_encoding = 'UTF8';\nCREATE ROLE app;\n\
             ALTER ROLE app WITH LOGIN PASSWORD '{VERIFIER}';\nCREATE ROLE \"Odd; name\";\n\
             COMMENT ON ROLE app IS 'several\nlines; of it';\nALTER ROLE app SET search_path TO 'a';\n\
             GRANT app TO \"Odd; name\" WITH ADMIN OPTION GRANTED BY postgres;\n\
             CREATE TABLESPACE fast OWNER app LOCATION '/srv/fast';\nGRANT CREATE ON TABLESPACE fast TO app;\n\\unrestrict abc\n"
        );
        let globals = Globals::parse(script.as_bytes()).unwrap();
        let shown: Vec<String> = globals.statements.iter().map(|global| format!("{global:?}")).collect();
        assert_eq!(
            shown,
            [
                "6: SET default_transaction_read_only (Session)",
                "8: SET client_encoding (Session)",
                "9: CREATE ROLE app (Roles)",
                "10: ALTER ROLE app (Roles)",
                "11: CREATE ROLE Odd; name (Roles)",
                "12: COMMENT ON ROLE app (Roles)",
                "14: ALTER ROLE app (Roles)",
                "15: GRANT app (Roles)",
                "16: CREATE TABLESPACE fast (Tablespaces)",
                "17: GRANT ON TABLESPACE fast (Tablespaces)",
            ]
        );
        assert!(!format!("{globals:?}").contains("SCRAM"));
        let alter = &globals.statements[3];
        assert!(alter.sql.contains(VERIFIER));
        let said = alter.without_secrets(&format!("syntax error at or near \"'{VERIFIER}'\""));
        assert_eq!(said, "syntax error at or near \"'…'\"");
        let made: Vec<&str> =
            globals.statements.iter().filter_map(|global| global.makes.as_deref()).collect();
        assert_eq!(made, ["app", "Odd; name", "fast"]);
    }

    #[test]
    fn what_is_more_or_less_than_roles_and_tablespaces_is_refused_and_not_quoted() {
        for (script, expected) in [
            (
                "CREATE ROLE a;\n\\connect shop\nCREATE TABLE t();",
                "line 2 has \\connect, which leads to a database",
            ),
            ("\\! rm -r /", "line 1 has a command of psql's"),
            ("CREATE ROLE a;\nCREATE DATABASE shop;", "line 2 has CREATE DATABASE"),
            ("DROP ROLE a;\nCREATE ROLE a;", "line 1 has DROP ROLE"),
            ("COPY secret FROM stdin;", "line 1 has COPY"),
            ("<html>\n<h1>It works; or not</h1>", "line 1 has something that is no SQL"),
            ("secret:word", "line 1 has something that is no SQL"),
            ("CREATE ROLE a;\nALTER ROLE a PASSWORD 'abc", "it ends within a statement, in line 2"),
            ("CREATE ROLE a;\nCREATE ROLE b", "it ends within a statement, in line 2"),
            ("SET client_encoding = 'LATIN1';\nCREATE ROLE a;", "it is not in UTF-8"),
            ("SET x = 1;\n", "it makes no role"),
            ("", "it makes no role"),
        ] {
            let error = Globals::parse(script.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{script}");
        }
        assert_eq!(Globals::parse(b"CREATE ROLE \xff;"), Err(GlobalsError::Encoding));
    }
}
