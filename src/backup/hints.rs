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

/// The date, the time and the size that follow a link's end, in this order in the pages of most servers.
pub(super) fn tail_hints(tail: &str) -> Hints {
    let mut words = tail.split_whitespace();
    while let Some(word) = words.next() {
        let Some(date) = day(word) else { continue };
        let Some(time) = words.next().and_then(time_of_day) else {
            continue;
        };
        let size = words.next().and_then(size);
        return Hints { size, exact: false, modified: Some(date.to_datetime(time)) };
    }
    Hints::default()
}

/// The date, the time and the size in bytes that stand before a link, as IIS has them: `11/21/2026  3:12 AM  1536`, in
/// the words of the server's country. `None` for anything else.
pub(super) fn lead_hints(lead: &str) -> Option<Hints> {
    let mut words: Vec<&str> = lead.split_whitespace().collect();
    let size = words.pop()?.parse().ok()?;
    let afternoon = match *words.last()? {
        "AM" => Some(false),
        "PM" => Some(true),
        _ => None,
    };
    if afternoon.is_some() {
        words.pop();
    }
    let time = time_of_day(words.pop()?)?;
    let time = afternoon.map_or(Some(time), |afternoon| in_24_hours(time, afternoon))?;
    // A long date has the year last, a short one is a word.
    if !words.last()?.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let date = day_in_words(&words.join(" "), afternoon.is_some());
    Some(Hints { size: Some(size), exact: false, modified: date.map(|date| date.to_datetime(time)) })
}

/// A time on a clock that goes round twice a day.
fn in_24_hours(time: Time, afternoon: bool) -> Option<Time> {
    let hour = time.hour() % 12 + if afternoon { 12 } else { 0 };
    time.with().hour(hour).build().ok()
}

/// A date as some country writes it. Where day and month could be either, they are the American way round only if the
/// clock is.
fn day_in_words(text: &str, american: bool) -> Option<Date> {
    const LONG: [&str; 2] = ["%A, %B %d, %Y", "%B %d, %Y"];
    const DAY_FIRST: [&str; 3] = ["%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y"];
    const MONTH_FIRST: &str = "%m/%d/%Y";
    let read = |format: &&str| Date::strptime(format, text).ok();
    if let Some(date) = dashed_date(text).or_else(|| LONG.iter().find_map(read)) {
        return Some(date);
    }
    match (DAY_FIRST.iter().find_map(read), read(&MONTH_FIRST)) {
        (Some(date), None) => Some(date),
        (None, Some(date)) => Some(date),
        (Some(_), Some(date)) if american => Some(date),
        (Some(a), Some(b)) if a == b => Some(a),
        _ => None,
    }
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

/// A size: `5000`, `4.9K`, `12M`. Units are powers of 1024.
pub(super) fn size(word: &str) -> Option<u64> {
    let unit_at = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at_checked(unit_at)?;
    if unit.is_empty() {
        return number.parse().ok();
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
    Some((number * 1024_f64.powi(power)) as u64)
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
