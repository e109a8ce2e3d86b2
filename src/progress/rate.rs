//! How fast something goes.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back is looked for the rate at which bytes come.
const WINDOW: Duration = Duration::from_secs(20);
/// What came in less time than this says nothing of what will come.
const LEAST: Duration = Duration::from_secs(2);

/// So many bytes in so much time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bytes.
    pub bytes: u64,
    /// Milliseconds.
    pub ms: u64,
}

impl Pace {
    /// How long so many bytes take at this pace, in milliseconds; nothing where none moved, or in no time.
    #[must_use]
    pub fn ms_for(self, bytes: u64) -> Option<u64> {
        if self.ms == 0 {
            return None;
        }
        let ms = u128::from(bytes) * u128::from(self.ms);
        let ms = ms.checked_div(u128::from(self.bytes))?;
        Some(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// Both one after the other.
    #[must_use]
    pub fn and(self, more: Pace) -> Pace {
        Pace { bytes: self.bytes.saturating_add(more.bytes), ms: self.ms.saturating_add(more.ms) }
    }
}

/// What came in the last seconds.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    /// When, and how much had come in all.
    seen: VecDeque<(Duration, u64)>,
}

impl Recent {
    /// By now, so much has come.
    pub fn note(&mut self, now: Duration, bytes: u64) {
        let long_ago = |seen: &(Duration, u64)| now.saturating_sub(seen.0) >= WINDOW;
        // The newest of those that are too old is where the window begins.
        while self.seen.get(1).is_some_and(long_ago) {
            self.seen.pop_front();
        }
        self.seen.push_back((now, bytes));
    }

    /// The pace of the last seconds, once there are some.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let ((began, before), (now, after)) = (self.seen.front()?, self.seen.back()?);
        let took = now.saturating_sub(*began);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (took >= LEAST).then_some(Pace { bytes: after.saturating_sub(*before), ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_last_seconds_count_and_not_those_before() {
        let mut recent = Recent::default();
        recent.note(after(0), 0);
        assert_eq!(recent.pace(), None);
        recent.note(after(1), 500);
        assert_eq!(recent.pace(), None);
        recent.note(after(2), 1_000);
        assert_eq!(recent.pace(), Some(Pace { bytes: 1_000, ms: 2_000 }));
        for second in 3..=60 {
            recent.note(after(second), 1_000 + (second - 2) * 10);
        }
        assert_eq!(recent.pace(), Some(Pace { bytes: 200, ms: 20_000 }));
        assert_eq!(recent.pace().unwrap().ms_for(1_000), Some(100_000));
        // Nothing comes any more.
        recent.note(after(90), 1_580);
        recent.note(after(111), 1_580);
        assert_eq!(recent.pace().unwrap().ms_for(1), None);
    }

    #[test]
    fn no_pace_overflows() {
        assert_eq!(Pace { bytes: 1, ms: u64::MAX }.ms_for(u64::MAX), Some(u64::MAX));
        assert_eq!(Pace { bytes: 5, ms: 0 }.ms_for(5), None);
    }
}
