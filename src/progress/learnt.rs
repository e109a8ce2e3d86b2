//! What an earlier restore of the same target teaches: how long each of its parts took, and how fast the rest went.

use std::collections::HashMap;

use super::rate::Pace;

/// A part of an earlier restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// What it was called.
    pub name: String,
    /// How many bytes of rows it fetched.
    pub fetched: u64,
    /// How many bytes of rows it had to do with, as they were in the dump; 0 where that was not known.
    pub bytes: u64,
    /// Whether it made what follows rows.
    pub builds: bool,
    /// When it ended, in milliseconds of any one clock.
    pub ended_ms: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// What is known from before.
#[derive(Debug, Clone, Default)]
pub struct Learnt {
    parts: HashMap<String, Pace>,
    /// How fast rows came.
    pub fetching: Option<Pace>,
    /// How fast what follows them was made, by one worker.
    pub building: Option<Pace>,
    /// How long the steps after this one took, in milliseconds.
    pub following_ms: Option<u64>,
}

impl Learnt {
    /// From the parts of a restore, as they were recorded; of two with one name the later one counts.
    #[must_use]
    pub fn from_parts(past: &[Past], following_ms: Option<u64>) -> Learnt {
        let came = past.iter().filter(|part| part.fetched > 0);
        let began = came.clone().map(|part| part.ended_ms.saturating_sub(part.ms)).min();
        let ended = came.clone().map(|part| part.ended_ms).max();
        let fetched = came.map(|part| part.fetched).sum();
        let built = past.iter().filter(|part| part.builds && part.bytes > 0);
        let built = built.map(|part| Pace { bytes: part.bytes, ms: part.ms }).reduce(Pace::and);
        let fetching = began.zip(ended).map(|(began, ended)| Pace { bytes: fetched, ms: ended - began });
        let parts = past.iter().map(|part| (part.name.clone(), Pace { bytes: part.bytes, ms: part.ms }));
        Learnt { parts: parts.collect(), fetching, building: built, following_ms }
    }

    /// How long a part of that name takes, in milliseconds, when it has to do with so many bytes: as long as the last time,
    /// and longer as there is more.
    #[must_use]
    pub fn ms_of(&self, name: &str, bytes: Option<u64>) -> Option<u64> {
        let past = self.parts.get(name)?;
        match bytes {
            Some(bytes) if bytes > 0 && past.bytes > 0 => past.ms_for(bytes),
            _ => Some(past.ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, bytes: u64, ended_ms: u64, ms: u64) -> Past {
        Past { name: name.to_owned(), fetched: bytes, bytes, builds: false, ended_ms, ms }
    }

    fn index(name: &str, bytes: u64, ended_ms: u64, ms: u64) -> Past {
        Past { builds: true, fetched: 0, ..rows(name, bytes, ended_ms, ms) }
    }

    #[test]
    fn rows_that_came_side_by_side_came_in_the_time_of_both() {
        let past =
            [rows("a", 600, 10_000, 6_000), rows("b", 400, 9_000, 3_000), index("i", 600, 15_000, 5_000)];
        let learnt = Learnt::from_parts(&past, Some(7));
        assert_eq!(learnt.fetching, Some(Pace { bytes: 1_000, ms: 6_000 }));
        assert_eq!(learnt.building, Some(Pace { bytes: 600, ms: 5_000 }));
        assert_eq!(learnt.following_ms, Some(7));
    }

    #[test]
    fn a_part_takes_as_long_as_the_last_time_and_longer_as_there_is_more() {
        let learnt = Learnt::from_parts(&[index("i", 600, 9, 5_000), index("o", 0, 9, 70)], None);
        assert_eq!(learnt.ms_of("i", Some(1_200)), Some(10_000));
        assert_eq!(learnt.ms_of("i", None), Some(5_000));
        assert_eq!(learnt.ms_of("o", Some(1_200)), Some(70));
        assert_eq!(learnt.ms_of("another", Some(1_200)), None);
        let again = Learnt::from_parts(&[index("i", 600, 9, 5_000), index("i", 600, 20, 6_000)], None);
        assert_eq!(again.ms_of("i", None), Some(6_000));
    }

    #[test]
    fn nothing_is_learnt_from_nothing() {
        let learnt = Learnt::from_parts(&[], None);
        assert_eq!((learnt.fetching, learnt.building, learnt.following_ms), (None, None, None));
    }
}
