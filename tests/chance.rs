//! Long matrices are sampled by chance; `PG_STAGING_TEST_ALL=1` tries everything, `PG_STAGING_TEST_SEED=<number>` the same
//! sample again.

use std::{
    env,
    hash::{BuildHasher, RandomState},
};

/// Chance that can be had again: `PG_STAGING_TEST_SEED` sets it, and each test prints it.
pub struct Chance(u64);

impl Chance {
    /// The chance of the test of that name.
    pub fn of(test: &str) -> Chance {
        let given = env::var("PG_STAGING_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(test) % 1_000_000);
        println!("{test}: PG_STAGING_TEST_SEED={seed}");
        Chance(seed)
    }

    /// A number below `limit` (SplitMix64).
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    /// `count` of them, in order; all of them with `PG_STAGING_TEST_ALL=1`.
    pub fn some_of<T>(&mut self, points: Vec<T>, count: usize) -> Vec<T> {
        if everything() { points } else { self.sample_of(points, count) }
    }

    /// `count` of them, in order.
    pub fn sample_of<T>(&mut self, mut points: Vec<T>, count: usize) -> Vec<T> {
        while points.len() > count {
            points.remove(self.below(points.len()));
        }
        points
    }

    /// One of them.
    pub fn one_of<T: Clone>(&mut self, points: &[T]) -> T {
        points[self.below(points.len())].clone()
    }
}

/// Whether every point is wanted, not a sample.
pub fn everything() -> bool {
    env::var("PG_STAGING_TEST_ALL").is_ok_and(|value| value == "1")
}
