//! Takes finished runs out of the journal for good. The server gives their space to what comes.

use std::collections::BTreeSet;

use super::super::verified::{Damage, Flaw};
use super::super::{Pruned, StoreError};
use super::{Inner, answer, statement};
use crate::event::RunId;

/// So many runs go in one transaction. Others wait for it with what they have to record.
const AT_ONCE: usize = 64;

impl Inner {
    /// Takes those of `runs` out that are finished and that nobody works on.
    pub(super) async fn prune(&self, runs: &BTreeSet<RunId>) -> Result<Pruned, StoreError> {
        // A tombstone stands for a run that was right when it went.
        let of_attachments = |flaw| matches!(flaw, Flaw::AttachmentChanged | Flaw::AttachmentMissing);
        let mut damage = self.verify(None).await?.damage.into_iter();
        if let Some(Damage { path, what, .. }) = damage.find(|damage| !of_attachments(damage.flaw)) {
            return Err(StoreError::Damaged { path, what });
        }
        let not_understood = || self.link.not_understood("a pruning");
        let mut pruned = Pruned::default();
        for some in runs.iter().copied().collect::<Vec<_>>().chunks(AT_ONCE) {
            let said: Vec<String> = some.iter().map(|run| statement::prune(*run)).collect();
            let rows = self.link.rows(&said.join(";\n")).await?;
            let gone = rows.into_iter().flatten().map(|is| answer::boolean(is.as_deref()));
            let gone: Vec<bool> = gone.collect::<Option<_>>().ok_or_else(not_understood)?;
            pruned.runs.extend(some.iter().zip(gone).filter(|(_, gone)| *gone).map(|(run, _)| *run));
        }
        let removed = self.link.rows(&statement::tidy()).await?.into_iter().flatten().flatten().next();
        pruned.attachments = removed.and_then(|count| count.parse().ok()).ok_or_else(not_understood)?;
        Ok(pruned)
    }
}
