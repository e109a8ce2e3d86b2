//! The sizes and times that pages tell of their files, in the many ways in which servers write them.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::database::dashed_date;

/// Size and time as a page has them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Hints {
    pub(super) size: Option<u64>,
    pub(super) exact: bool,
    pub(super) modified: Option<DateTime>,
}

/// The date, the time and the size that follow a link's end, in this order in every server's page.
pub(super) fn tail_hints(tail: &str) -> Hints {
    let mut words = tail.split_whitespace();
    while let Some(word) = words.next() {
        let Some(date) = day(word) else { continue };
        let Some(time) = words.next().and_then(time_of_day) else {
            continue;
        };
        let (size, exact) = words.next().and_then(size).unzip();
        return Hints { size, exact: exact.unwrap_or(false), modified: Some(date.to_datetime(time)) };
    }
    Hints::default()
}

/// Apache's `2026-11-21`, nginx's `21-Nov-2026`, lighttpd's `2026-Nov-21`.
fn day(word: &str) -> Option<Date> {
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    dashed_date(word)
        .or_else(|| ["%d-%b-%Y", "%Y-%b-%d"].iter().find_map(|format| Date::strptime(format, word).ok()))
}

fn time_of_day(word: &str) -> Option<Time> {
    ["%H:%M", "%H:%M:%S"].iter().find_map(|format| Time::strptime(format, word).ok())
}

/// A size and whether it is exact: `5000`, `4.9K`, `12M`. Units are powers of 1024.
pub(super) fn size(word: &str) -> Option<(u64, bool)> {
    let unit_at = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at_checked(unit_at)?;
    if unit.is_empty() {
        return Some((number.parse().ok()?, true));
    }
    let power = match unit.trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // A cast from float to integer saturates, so that no number on a page can overflow.
    Some(((number * 1024_f64.powi(power)) as u64, false))
}

/// An instant in RFC 3339's form, as the day and time it is in UTC.
pub(super) fn utc(text: &str) -> Option<DateTime> {
    text.trim().parse().ok().map(in_utc)
}

pub(super) fn in_utc(instant: Timestamp) -> DateTime {
    TimeZone::UTC.to_datetime(instant)
}

/// An instant as HTTP headers have it, `Sun, 22 Nov 2026 07:08:44 GMT`.
#[must_use]
pub fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}
