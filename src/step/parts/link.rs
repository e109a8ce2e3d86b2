//! Whether rows would come faster if more of them were asked for at a time.
//!
//! They would when those that come are waited for by pg_restore no longer than it takes to load them. Where they are
//! waited for, another reading beside them is tried once: a server may give each connection only so much, and then several
//! together bring more; over a link that is full they would only keep each other waiting.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// After so many looks one knows what comes.
const KNOWN: u32 = 10;
/// How much of what was seen before a look takes away.
const NEWEST: f64 = 0.2;
/// Another reading is worth while when so much more comes with it.
const MORE: f64 = 1.2;

/// What came over the network so far.
#[derive(Debug)]
pub(super) struct Link {
    /// How much of the time somebody waited for rows, lately.
    waited: f64,
    /// What came while they were waited for, by how many readings there were.
    rates: BTreeMap<usize, Rate>,
    /// Bytes in all, and readings, at the last look.
    before: (u64, usize),
}

#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    looks: u32,
    bytes: f64,
}

impl Default for Link {
    fn default() -> Self {
        // Until more is known: the first rows are on their way.
        Link { waited: 1.0, rates: BTreeMap::new(), before: (0, 0) }
    }
}

impl Link {
    /// Takes in that so many bytes came until now, by so many readings, and whether some of them wait for more.
    #[allow(clippy::cast_precision_loss, reason = "it is about a fifth more or less")]
    pub(super) fn look(&mut self, came: u64, readings: usize, is_waited_for: bool) {
        let (before, as_many) = std::mem::replace(&mut self.before, (came, readings));
        if readings == 0 {
            return;
        }
        self.waited += NEWEST * (f64::from(u8::from(is_waited_for)) - self.waited);
        if is_waited_for && as_many == readings {
            let rate = self.rates.entry(readings).or_default();
            rate.looks += 1;
            rate.bytes += came.saturating_sub(before) as f64;
        }
    }

    /// Whether another reading would bring no more.
    pub(super) fn is_full(&self) -> bool {
        if self.waited < 0.5 {
            return false;
        }
        let known = |readings: usize| {
            let rate = self.rates.get(&readings).filter(|rate| rate.looks >= KNOWN);
            rate.map(|rate| rate.bytes / f64::from(rate.looks))
        };
        let readings = self.before.1;
        match (known(readings), known(readings + 1)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(now), Some(more)) => more < now * MORE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks ten times while so many bytes come each time.
    fn looked(link: &mut Link, readings: usize, bytes: u64, is_waited_for: bool) {
        for _ in 0..=KNOWN {
            link.look(link.before.0 + bytes, readings, is_waited_for);
        }
    }

    #[test]
    fn it_is_not_full_while_what_comes_is_not_waited_for() {
        let mut link = Link::default();
        assert!(link.is_full());
        looked(&mut link, 1, 1000, false);
        assert!(!link.is_full());
    }

    #[test]
    fn another_reading_is_tried_once_where_it_brings_nothing() {
        let mut link = Link::default();
        looked(&mut link, 1, 1000, true);
        assert!(!link.is_full());
        looked(&mut link, 2, 1050, true);
        looked(&mut link, 1, 1000, true);
        assert!(link.is_full());
    }

    #[test]
    fn a_server_that_gives_each_reading_its_own_is_read_by_as_many_as_may() {
        let mut link = Link::default();
        for readings in 1..4 {
            looked(&mut link, readings, 1000 * readings as u64, true);
            assert!(!link.is_full(), "{readings}");
        }
        looked(&mut link, 1, 1000, true);
        assert!(!link.is_full());
    }
}
