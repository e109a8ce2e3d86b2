//! Connection strings, `key=value` pairs after the `=` of an entry: which keywords there are, how pgbouncer's
//! `loader.c` takes a string apart and judges its values, and when a value needs quotes.

use std::ops::Range;

use super::reader::{Reader, is_space, slice, text};
use super::{Keyword, PoolMode, Problem};

/// The connection keywords of `[databases]`, as `parse_database` knows them from 1.18 to 1.25 and after.
pub(super) const DATABASE_KEYWORDS: &[&str] = &[
    "dbname",
    "host",
    "port",
    "user",
    "password",
    "auth_user",
    "auth_dbname",
    "auth_query",
    "client_encoding",
    "datestyle",
    "timezone",
    "pool_size",
    "min_pool_size",
    "reserve_pool",
    "reserve_pool_size",
    "max_db_connections",
    "max_db_client_connections",
    "server_lifetime",
    "query_wait_timeout",
    "load_balance_hosts",
    "pool_mode",
    "connect_query",
    "application_name",
];

/// The keywords of `[users]`, as `parse_user` knows them.
pub(super) const USER_KEYWORDS: &[&str] = &[
    "pool_mode",
    "pool_size",
    "reserve_pool_size",
    "max_user_connections",
    "max_user_client_connections",
    "query_timeout",
    "query_wait_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "client_idle_timeout",
];

/// The keywords of `[peers]`, as `parse_peer` knows them.
pub(super) const PEER_KEYWORDS: &[&str] = &["host", "port", "pool_size"];

/// Where a connection string stopped making sense, and what came before.
pub(super) struct BrokenConnection {
    pub(super) before: Vec<Keyword>,
    reason: &'static str,
}

impl BrokenConnection {
    pub(super) fn of(self, entry: &str) -> Problem {
        Problem::BadConnection { entry: entry.to_owned(), reason: self.reason }
    }
}

/// Follows `cstr_get_pair` of pgbouncer's `loader.c`: only a space separates, and the byte after a closing quote is
/// skipped whatever it is. `offset` is the place of the string in the file.
pub(super) fn keywords(connection: &[u8], offset: usize) -> Result<Vec<Keyword>, BrokenConnection> {
    let mut reader = Reader::new(connection);
    let mut found = Vec::new();
    loop {
        reader.skip(|byte| byte == b' ');
        if reader.peek().is_none() {
            return Ok(found);
        }
        match keyword(&mut reader, offset) {
            Ok(keyword) => found.push(keyword),
            Err(reason) => {
                return Err(BrokenConnection { before: found, reason });
            }
        }
    }
}

fn keyword(reader: &mut Reader<'_>, offset: usize) -> Result<Keyword, &'static str> {
    let start = reader.at;
    reader.skip(|byte| byte != b'=' && byte != b' ');
    let name = slice(reader.bytes, start..reader.at);
    reader.skip(|byte| byte == b' ');
    if name.is_empty() {
        return Err("a key is missing before `=`");
    }
    if reader.peek() != Some(b'=') {
        return Err("a key has no `=` and value");
    }
    reader.at += 1;
    reader.skip(|byte| byte == b' ');
    let (value, written, quoted) = keyword_value(reader)?;
    if value.is_empty() {
        return Err("a key has an empty value");
    }
    let written = written.start + offset..written.end + offset;
    Ok(Keyword { name: text(name), value, written, quoted })
}

fn keyword_value(reader: &mut Reader<'_>) -> Result<(Vec<u8>, Range<usize>, bool), &'static str> {
    let start = reader.at;
    if reader.peek() != Some(b'\'') {
        reader.skip(|byte| byte != b' ');
        return Ok((slice(reader.bytes, start..reader.at).to_vec(), start..reader.at, false));
    }
    let mut value = Vec::new();
    loop {
        reader.at += 1;
        match (reader.peek(), reader.bytes.get(reader.at + 1)) {
            (None, _) => return Err("a quote is not closed"),
            (Some(b'\''), Some(b'\'')) => {
                reader.at += 1;
                value.push(b'\'');
            }
            (Some(b'\''), _) => break,
            (Some(byte), _) => value.push(byte),
        }
    }
    let end = reader.at + 1;
    reader.at = end + 1;
    Ok((value, start..end, true))
}

pub(super) fn check_keywords(
    section: &'static str,
    known: &[&str],
    entry: &str,
    keywords: &[Keyword],
) -> Result<(), Problem> {
    for keyword in keywords {
        if !known.contains(&keyword.name.as_str()) {
            let (entry, keyword) = (entry.to_owned(), keyword.name.clone());
            return Err(Problem::UnknownKeyword { section, entry, keyword });
        }
        let value = keyword.value();
        let bad = match keyword.name.as_str() {
            "port" => (atoi(&keyword.value) == 0).then_some("port"),
            "pool_mode" => PoolMode::named(&value).is_none().then_some("pool_mode"),
            "load_balance_hosts" => {
                let known = ["disable", "round-robin"].iter().any(|way| way.eq_ignore_ascii_case(&value));
                (!known).then_some("load_balance_hosts")
            }
            _ => None,
        };
        if let Some(keyword) = bad {
            return Err(Problem::BadValue { keyword, value: value.into_owned() });
        }
    }
    Ok(())
}

/// A value without quotes ends at the first space, and loses white space at the end of the line.
pub(super) fn needs_quotes(value: &str) -> bool {
    value.starts_with('\'') || value.bytes().any(is_space)
}

pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// C's `atoi`, which pgbouncer reads numbers with: what it finds at the start, 0 if there is nothing.
pub(super) fn atoi(text: &[u8]) -> i64 {
    let mut bytes = text.iter().copied().skip_while(|byte| is_space(*byte)).peekable();
    let negative = bytes.next_if(|byte| matches!(byte, b'+' | b'-')) == Some(b'-');
    let digits = bytes.take_while(u8::is_ascii_digit);
    let number =
        digits.fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -number } else { number }
}
