//! Takes in many runs of another journal at once.

use super::super::{Adopted, StoreError};
use super::log::Told;
use super::{Inner, answer, statement};

/// So many bytes of events are taken in together, in one transaction.
const TOGETHER: usize = 1024 * 1024;

impl Inner {
    /// Takes in those of `runs` of which there is nothing; gives how many events that were, and the other runs.
    pub(super) async fn adopt_new(&self, runs: Vec<Adopted>) -> Result<(u64, Vec<Adopted>), StoreError> {
        let (mut new, mut known) = (0, Vec::new());
        let mut together = Vec::new();
        let mut bytes = 0;
        for run in runs {
            bytes += run.events.iter().map(Vec::len).sum::<usize>();
            together.push(run);
            if bytes > TOGETHER {
                new += self.adopt_together(std::mem::take(&mut together), &mut known).await?;
                bytes = 0;
            }
        }
        new += self.adopt_together(together, &mut known).await?;
        Ok((new, known))
    }

    async fn adopt_together(&self, runs: Vec<Adopted>, known: &mut Vec<Adopted>) -> Result<u64, StoreError> {
        let not_understood = || self.link.not_understood("an import");
        let mut said = Vec::new();
        for adopted in &runs {
            let mut told = Told::default();
            let summary = adopted.events.iter().fold(None, |_, event| told.take(event));
            said.push(statement::adopt(adopted.run, &adopted.events, &summary.ok_or_else(not_understood)?));
        }
        if said.is_empty() {
            return Ok(0);
        }
        let rows = self.link.rows(&said.join(";\n")).await?;
        let taken: Option<Vec<bool>> =
            rows.into_iter().flatten().map(|is| answer::boolean(is.as_deref())).collect();
        let taken = taken.filter(|taken| taken.len() == runs.len()).ok_or_else(not_understood)?;
        let mut new = 0;
        for (adopted, taken) in runs.into_iter().zip(taken) {
            if taken {
                new += u64::try_from(adopted.events.len()).unwrap_or(u64::MAX);
            } else {
                known.push(adopted);
            }
        }
        Ok(new)
    }
}
