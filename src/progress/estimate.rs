//! How long what is left of a restore takes.
//!
//! It is reckoned from three things: the bytes that are still to come, at the pace of the last seconds (in the first
//! seconds, at that of the last restore); the jobs that are left, each by how long it took the last time, or else by the
//! bytes it has to do with, at the pace of what was built so far; and how many workers share them. Rows come one after
//! the other while the other workers build, so what is left takes no less than
//!
//! - the rows alone, since the network is shared,
//! - rows and jobs together, divided by the workers,
//! - the longest job.
//!
//! The longest of these is told. Where there is no pace for bytes that are to come, nothing is told; where it is not known
//! how long some of the jobs take, it is told that it takes at least as long as the others.

use std::fmt;

use super::rate::Pace;

/// What is left of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes that are to come.
    pub bytes: u64,
    /// What else there is to do.
    pub jobs: Vec<Job>,
    /// How many are at it.
    pub workers: u64,
}

/// Something that a worker does, besides loading rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Job {
    /// How long it took the last time, in milliseconds, for as many bytes as it has to do with now.
    pub last_ms: Option<u64>,
    /// How many bytes of rows it has to do with, as they are in the dump; 0 is next to no work.
    pub bytes: Option<u64>,
    /// For how long it has been at work, in milliseconds.
    pub spent_ms: u64,
}

/// How long something still takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// In milliseconds.
    pub ms: u64,
    /// Whether it takes longer, since some of it cannot be reckoned.
    pub at_least: bool,
}

impl Job {
    /// How long it still takes; nothing where there is no ground to say. One that takes longer than it should is taken to be
    /// at its end.
    fn ms_left(self, building: Option<Pace>) -> Option<u64> {
        let by_pace = || match self.bytes? {
            0 => Some(0),
            bytes => building?.ms_for(bytes),
        };
        Some(self.last_ms.or_else(by_pace)?.saturating_sub(self.spent_ms))
    }
}

/// How long `work` still takes when bytes come and jobs go at these paces; nothing where there is no ground to say.
#[must_use]
pub fn time_left(work: &Work, fetching: Option<Pace>, building: Option<Pace>) -> Option<Left> {
    let rows = match work.bytes {
        0 => 0,
        bytes => fetching?.ms_for(bytes)?,
    };
    let known: Vec<u64> = work.jobs.iter().filter_map(|job| job.ms_left(building)).collect();
    let at_least = known.len() < work.jobs.len();
    if at_least && known.is_empty() && work.bytes == 0 {
        return None;
    }
    let all = known.iter().fold(rows, |sum, ms| sum.saturating_add(*ms));
    let longest = known.iter().copied().max().unwrap_or_default();
    Some(Left { ms: rows.max(longest).max(all / work.workers.max(1)), at_least })
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.ms.div_ceil(1000);
        let how = if self.at_least { "at least" } else { "about" };
        match seconds {
            0..=9 if self.at_least => write!(f, "at least a few seconds left"),
            0..=9 => write!(f, "a few seconds left"),
            10..=55 => write!(f, "{how} {} s left", seconds.div_ceil(5) * 5),
            56..=5_399 => write!(f, "{how} {} min left", ((seconds + 30) / 60).max(1)),
            // Half an hour more or less is as much as can be said.
            _ => {
                let halves = (seconds + 900) / 1_800;
                write!(f, "{how} {}{} h left", halves / 2, if halves % 2 == 1 { ".5" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FETCHING: Option<Pace> = Some(Pace { bytes: 10_000, ms: 1_000 });
    const BUILDING: Option<Pace> = Some(Pace { bytes: 1_000, ms: 1_000 });

    fn job(bytes: u64) -> Job {
        Job { bytes: Some(bytes), ..Job::default() }
    }

    fn left(bytes: u64, jobs: &[Job], workers: u64) -> Option<Left> {
        time_left(&Work { bytes, jobs: jobs.to_vec(), workers }, FETCHING, BUILDING)
    }

    fn about(ms: u64) -> Option<Left> {
        Some(Left { ms, at_least: false })
    }

    #[test]
    fn rows_take_as_long_as_they_take_to_come() {
        assert_eq!(left(100_000, &[], 1), about(10_000));
        // However many are at it, the network is one.
        assert_eq!(left(100_000, &[], 8), about(10_000));
        assert_eq!(left(0, &[], 1), about(0));
    }

    #[test]
    fn one_worker_does_all_one_after_the_other_and_several_share_it() {
        let jobs = [job(4_000), job(6_000)];
        assert_eq!(left(100_000, &jobs, 1), about(20_000));
        assert_eq!(left(100_000, &jobs, 2), about(10_000));
        // Nobody can share a job.
        assert_eq!(left(0, &[job(9_000), job(1_000)], 4), about(9_000));
    }

    #[test]
    fn a_job_takes_as_long_as_the_last_time_less_what_it_has_been_at_it() {
        let job = Job { last_ms: Some(60_000), bytes: Some(1_000), spent_ms: 45_000 };
        assert_eq!(left(0, &[job], 1), about(15_000));
        assert_eq!(left(0, &[Job { spent_ms: 70_000, ..job }], 1), about(0));
    }

    #[test]
    fn nothing_is_told_without_ground() {
        let work = |bytes, jobs: &[Job]| Work { bytes, jobs: jobs.to_vec(), workers: 2 };
        assert_eq!(time_left(&work(5_000, &[]), None, BUILDING), None);
        assert_eq!(time_left(&work(5_000, &[]), Some(Pace { bytes: 0, ms: 20_000 }), BUILDING), None);
        // Nothing was built yet, and nothing is known of before.
        assert_eq!(time_left(&work(0, &[job(1_000)]), FETCHING, None), None);
        let unknown = Job::default();
        assert_eq!(time_left(&work(0, &[unknown]), FETCHING, BUILDING), None);
    }

    #[test]
    fn what_is_not_known_makes_it_longer() {
        let unknown = Job::default();
        assert_eq!(left(100_000, &[unknown], 2), Some(Left { ms: 10_000, at_least: true }));
        assert_eq!(left(0, &[unknown, job(3_000)], 2), Some(Left { ms: 3_000, at_least: true }));
        // What there is next to no work in is known.
        assert_eq!(left(100_000, &[job(0)], 2), about(10_000));
    }

    #[test]
    fn time_is_told_no_finer_than_it_is_known() {
        let told = |seconds: u64| Left { ms: seconds * 1_000, at_least: false }.to_string();
        assert_eq!(told(3), "a few seconds left");
        assert_eq!(told(31), "about 35 s left");
        assert_eq!(told(56), "about 1 min left");
        assert_eq!(told(230), "about 4 min left");
        assert_eq!(told(5_399), "about 90 min left");
        assert_eq!(told(5_400), "about 1.5 h left");
        assert_eq!(told(7_200), "about 2 h left");
        assert_eq!(Left { ms: 230_000, at_least: true }.to_string(), "at least 4 min left");
    }
}
