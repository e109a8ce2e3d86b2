//! Just enough of SQL's lexical structure to find names in the definitions that pg_dump writes.
//!
//! pg_dump empties `search_path` and so qualifies every name that is not in `pg_catalog`. Comments, string literals
//! and dollar-quoted bodies are told apart from code; nothing is parsed beyond tokens. Lexical rules are those of
//! the manual's chapter 4.1, for the default `standard_conforming_strings = on`.

/// A piece of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword or an unquoted name, in lower case.
    Word(String),
    /// A quoted name, without its quotes.
    Quoted(String),
    /// The value of a string literal.
    Literal(String),
    /// What stands between dollar quotes: nearly always a function's body.
    Body(String),
    /// A number or a parameter such as `$1`.
    Number,
    /// An operator, or one punctuation character.
    Symbol(String),
}

impl Token {
    /// The name that this token can be.
    pub(super) fn as_name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }

    /// Whether this is the keyword, given in lower case.
    pub(super) fn is_word(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word == keyword)
    }

    /// Whether this is the operator or punctuation.
    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(this) if this == symbol)
    }
}

/// A qualified name in a definition: `schema.name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    /// The first part.
    pub(super) schema: String,
    /// The second part.
    pub(super) name: String,
    /// Whether by where it stands it can be no column of a table's alias, as other references may be.
    pub(super) certain: bool,
}

/// Splits a definition into tokens. Never fails: what is left open ends with the text.
pub(super) fn tokens(sql: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: sql };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token() {
        tokens.push(token);
    }
    tokens
}

/// A statement of a script, or one of psql's own commands in it.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// Where it begins, in bytes.
    pub(super) start: usize,
    /// Its text, without the semicolon.
    pub(super) text: &'a str,
    /// Its tokens; a command of psql's has none.
    pub(super) tokens: Vec<Token>,
    /// Whether its end is there.
    pub(super) ended: bool,
}

/// Splits a script into statements at the semicolons, and into psql's commands, which are a line each.
pub(super) fn statements(script: &str) -> Vec<Statement<'_>> {
    let mut lexer = Lexer { rest: script };
    let mut found = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = script.len() - lexer.rest.len();
        if lexer.rest.is_empty() {
            return found;
        }
        if lexer.rest.starts_with('\\') {
            let text = lexer.rest.split('\n').next().unwrap_or_default();
            found.push(Statement { start, text: text.trim_end(), tokens: Vec::new(), ended: true });
            lexer.skip(text.len());
            continue;
        }
        let mut tokens = Vec::new();
        let (end, ended) = loop {
            let end = script.len() - lexer.rest.len();
            match lexer.next_token() {
                None => break (end, false),
                Some(token) if token.is_symbol(";") => break (script.len() - lexer.rest.len() - 1, true),
                Some(token) => tokens.push(token),
            }
        };
        found.push(Statement { start, text: script.get(start..end).unwrap_or_default(), tokens, ended });
    }
}

/// All qualified names among the tokens, including those in literals that are cast to a `reg…` type.
pub(super) fn references(tokens: &[Token]) -> Vec<Reference> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let behind = at.checked_sub(1).and_then(|before| tokens.get(before));
        match token {
            Token::Word(_) | Token::Quoted(_) if !behind.is_some_and(|token| token.is_symbol(".")) => {
                found.extend(qualified_at(tokens, at));
            }
            Token::Literal(text) if is_cast_to_reg(tokens, at) => {
                let inner = self::tokens(text);
                found.extend(
                    qualified_at(&inner, 0).map(|reference| Reference { certain: true, ..reference }),
                );
            }
            _ => {}
        }
    }
    found
}

fn qualified_at(tokens: &[Token], at: usize) -> Option<Reference> {
    let schema = tokens.get(at)?.as_name()?.to_owned();
    tokens.get(at + 1).filter(|token| token.is_symbol("."))?;
    let name = tokens.get(at + 2)?;
    let behind = at.checked_sub(1).and_then(|before| tokens.get(before));
    if let Token::Symbol(operator) = name {
        return Some(Reference { schema, name: operator.clone(), certain: true });
    }
    let called = tokens.get(at + 3).is_some_and(|token| token.is_symbol("("));
    let cast = behind.is_some_and(|token| token.is_symbol("::"));
    Some(Reference { schema, name: name.as_name()?.to_owned(), certain: called || cast })
}

fn is_cast_to_reg(tokens: &[Token], at: usize) -> bool {
    tokens.get(at + 1).is_some_and(|token| token.is_symbol("::"))
        && matches!(tokens.get(at + 2), Some(Token::Word(word)) if word.starts_with("reg"))
}

/// The name, qualified or not, that starts at a token; an unqualified one is in `schema`.
pub(super) fn name_at(tokens: &[Token], at: usize, schema: &str) -> Option<(String, String)> {
    let first = tokens.get(at)?.as_name()?;
    let second = tokens
        .get(at + 1)
        .filter(|token| token.is_symbol("."))
        .and_then(|_| tokens.get(at + 2))
        .and_then(Token::as_name);
    Some(match second {
        Some(name) => (first.to_owned(), name.to_owned()),
        None => (schema.to_owned(), first.to_owned()),
    })
}

/// Where these keywords stand one after the other: the index of the token behind them.
pub(super) fn after(tokens: &[Token], keywords: &[&str]) -> Option<usize> {
    tokens
        .windows(keywords.len())
        .position(|window| window.iter().zip(keywords).all(|(token, keyword)| token.is_word(keyword)))
        .map(|at| at + keywords.len())
}

/// What stands in the parentheses that open right behind these keywords, wherever they occur.
pub(super) fn in_parentheses<'a>(tokens: &'a [Token], keywords: &[&str]) -> Vec<&'a [Token]> {
    let mut groups = Vec::new();
    let mut from = 0;
    while let Some(at) = tokens.get(from..).and_then(|rest| after(rest, keywords)).map(|at| from + at) {
        from = at;
        if !tokens.get(at).is_some_and(|token| token.is_symbol("(")) {
            continue;
        }
        let mut depth = 0usize;
        let length = tokens.iter().skip(at).take_while(|token| {
            depth += usize::from(token.is_symbol("("));
            depth -= usize::from(token.is_symbol(")"));
            depth > 0
        });
        let end = at + length.count();
        groups.extend(tokens.get(at + 1..end));
        from = end;
    }
    groups
}

struct Lexer<'a> {
    rest: &'a str,
}

impl Lexer<'_> {
    fn next_token(&mut self) -> Option<Token> {
        self.skip_blanks();
        let first = self.rest.chars().next()?;
        Some(match first {
            '\'' => {
                self.skip(1);
                Token::Literal(self.until_quote('\'', false))
            }
            '"' => {
                self.skip(1);
                Token::Quoted(self.until_quote('"', false))
            }
            '$' => self.dollar(),
            _ if is_name_start(first) => self.word(),
            _ if first.is_ascii_digit() => {
                self.take_while(|c| c.is_ascii_alphanumeric() || c == '.');
                Token::Number
            }
            _ if is_operator(first) => Token::Symbol(self.operator()),
            ':' if self.rest.starts_with("::") => {
                self.skip(2);
                Token::Symbol("::".to_owned())
            }
            _ => {
                self.skip(first.len_utf8());
                Token::Symbol(first.to_string())
            }
        })
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let taken = self.rest.get(..end).unwrap_or_default().to_owned();
        self.skip(end);
        taken
    }

    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("--") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.skip_comment();
            } else {
                return;
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else {
                let next = self.rest.chars().next().map_or(0, char::len_utf8);
                self.skip(next);
            }
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// The text up to the closing quote; a doubled one stands for itself, a backslash escapes where it may.
    fn until_quote(&mut self, quote: char, escapes: bool) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                if chars.next_if(|(_, next)| *next == quote).is_none() {
                    end = at + c.len_utf8();
                    break;
                }
            } else if c == '\\' && escapes {
                text.extend(chars.next().map(|(_, escaped)| escaped));
                continue;
            }
            text.push(c);
        }
        self.skip(end);
        text
    }

    fn word(&mut self) -> Token {
        let word = self.take_while(|c| is_name_start(c) || c.is_ascii_digit() || c == '$');
        // E'…' has escapes; B'…', X'…' and N'…' are literals like any other.
        if self.rest.starts_with('\'')
            && matches!(word.as_str(), "E" | "e" | "B" | "b" | "X" | "x" | "N" | "n")
        {
            self.skip(1);
            return Token::Literal(self.until_quote('\'', word.eq_ignore_ascii_case("e")));
        }
        Token::Word(word.to_ascii_lowercase())
    }

    fn dollar(&mut self) -> Token {
        let tag_end = self.rest.get(1..).and_then(|rest| {
            rest.find(|c: char| !(is_name_start(c) || c.is_ascii_digit())).map(|end| (end + 1, rest))
        });
        if let Some((end, inner)) = tag_end
            && self.rest.get(end..).is_some_and(|rest| rest.starts_with('$'))
            && !inner.starts_with(|c: char| c.is_ascii_digit())
        {
            let tag = self.rest.get(..=end).unwrap_or_default().to_owned();
            self.skip(tag.len());
            let close = self.rest.find(&tag).unwrap_or(self.rest.len());
            let body = self.rest.get(..close).unwrap_or_default().to_owned();
            self.skip((close + tag.len()).min(self.rest.len()));
            return Token::Body(body);
        }
        self.skip(1);
        self.take_while(|c| c.is_ascii_digit());
        Token::Number
    }

    fn operator(&mut self) -> String {
        let end = self.rest.find(|c| !is_operator(c)).unwrap_or(self.rest.len());
        let run = self.rest.get(..end).unwrap_or_default();
        // A comment ends an operator.
        let end = ["--", "/*"].iter().filter_map(|start| run.find(start)).min().unwrap_or(end);
        let operator = run.get(..end).unwrap_or_default().to_owned();
        self.skip(end);
        operator
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_operator(c: char) -> bool {
    "+-*/<>=~!@#%^&|`?".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        references(&tokens(sql))
            .into_iter()
            .map(|r| format!("{}|{}{}", r.schema, r.name, if r.certain { "!" } else { "" }))
            .collect()
    }

    #[test]
    fn finds_qualified_names() {
        let cases: &[(&str, &[&str])] = &[
            ("CREATE TABLE shop.item (id integer, m crm.mood[])", &["shop|item!", "crm|mood"]),
            (r#""a""b"."T.b" x"#, &[r#"a"b|T.b"#]),
            ("naïve.été", &["naïve|été"]),
            ("Shop.Item", &["shop|item"]),
            ("DEFAULT nextval('cold.ticket'::regclass)", &["cold|ticket!"]),
            (r#"nextval('"a""b"."s''q"'::regclass)"#, &[r#"a"b|s'q!"#]),
            ("'cold.ticket'::text", &[]),
            ("'it''s shop.x' || shop.f(1)", &["shop|f!"]),
            ("E'a\\'shop.x' || b.c", &["b|c"]),
            ("x::crm.mood", &["crm|mood!"]),
            ("COMMUTATOR = OPERATOR(cold.>>>)", &["cold|>>>!"]),
            ("SELECT t.s.c FROM t.s", &["t|s", "t|s"]),
            ("AS $_$ SELECT shop.x $1 $$ $_$ shop.y", &["shop|y"]),
            ("$1.5 1.5 a.b -- c.d\n/* e.f /* g.h */ i.j */ k.l", &["a|b", "k|l"]),
            ("/* never closed a.b", &[]),
            ("'never closed a.b", &[]),
            ("$x$ never closed a.b", &[]),
            ("\"never closed a.b", &[]),
            ("a.", &[]),
            (".b a . b", &["a|b"]),
            ("é.$", &[]),
        ];
        for (sql, expected) in cases {
            assert_eq!(names(sql), *expected, "{sql}");
        }
    }

    #[test]
    fn a_script_is_split_where_psql_splits_it() {
        let script =
            "-- a; b\nSET x = 'a;b';\n\\connect shop;\nCREATE ROLE \"q;r\" /* ; */ ;;\nSELECT $$;$$; open 'a";
        let found: Vec<(usize, &str, bool)> =
            statements(script).into_iter().map(|found| (found.start, found.text, found.ended)).collect();
        assert_eq!(
            found,
            [
                (8, "SET x = 'a;b'", true),
                (23, "\\connect shop;", true),
                (38, "CREATE ROLE \"q;r\" /* ; */ ", true),
                (65, "", true),
                (67, "SELECT $$;$$", true),
                (81, "open 'a", false),
            ]
        );
    }

    #[test]
    fn finds_keywords_and_what_follows() {
        let tokens =
            tokens("ALTER TABLE ONLY s.t ADD CONSTRAINT \"c d\" FOREIGN KEY (a) REFERENCES u(b) NOT VALID;");
        assert!(after(&tokens, &["not", "valid"]).is_some());
        let at = after(&tokens, &["references"]).unwrap();
        assert_eq!(name_at(&tokens, at, "s"), Some(("s".to_owned(), "u".to_owned())));
        let at = after(&tokens, &["add", "constraint"]).unwrap();
        assert_eq!(name_at(&tokens, at, "s"), Some(("s".to_owned(), "c d".to_owned())));
        assert_eq!(after(&tokens, &["no", "such"]), None);
    }

    #[test]
    fn finds_what_stands_in_parentheses() {
        let tokens = tokens("(a CHECK (s.f(a) > 0), b CHECK ((b)), c text CHECK, d CHECK (open (");
        let lengths: Vec<usize> =
            in_parentheses(&tokens, &["check"]).into_iter().map(<[Token]>::len).collect();
        assert_eq!(lengths, [8, 3, 2]);
    }
}
