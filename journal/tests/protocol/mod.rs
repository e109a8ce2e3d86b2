//! What `journal/src/store/postgres/schema.sql` does, as a small model: each function is one step that happens whole.
//! One test holds the functions on a real server against it, another walks through all that controllers can do with it.

#![allow(clippy::indexing_slicing, reason = "there are two runs, and both are there")]

/// A run's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Row {
    pub(crate) epoch: u8,
    /// For how long it still is held.
    pub(crate) lease: u8,
    /// Who asked for it.
    pub(crate) claim: u8,
    pub(crate) events: u8,
    /// The hash of the last event.
    pub(crate) head: u8,
}

/// The server: two runs that work on the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Server {
    pub(crate) runs: [Row; 2],
    /// The run that took the target last, and the epoch in which it did.
    pub(crate) target: Option<(usize, u8)>,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Claimed {
    Granted { epoch: u8, events: u8, head: u8 },
    RunIsBusy,
    TargetIsBusy,
}

impl Server {
    pub(crate) fn holds(&self, run: usize) -> bool {
        self.runs[run].lease > 0
    }

    pub(crate) fn claim(&mut self, run: usize, claim: u8, lease: u8) -> Claimed {
        let other = self.target.filter(|(other, epoch)| *other != run && self.runs[*other].epoch == *epoch);
        if self.holds(run) && self.runs[run].claim != claim {
            return Claimed::RunIsBusy;
        }
        if other.is_some_and(|(other, _)| self.holds(other)) {
            return Claimed::TargetIsBusy;
        }
        if !self.holds(run) {
            if let Some((other, _)) = other {
                self.runs[other].epoch += 1;
                self.runs[other].lease = 0;
            }
            let row = &mut self.runs[run];
            *row = Row { epoch: row.epoch + 1, lease, claim, ..*row };
            self.target = Some((run, row.epoch));
        }
        let Row { epoch, events, head, .. } = self.runs[run];
        Claimed::Granted { epoch, events, head }
    }

    pub(crate) fn append(&mut self, run: usize, epoch: u8, n: u8, before: u8, hash: u8) -> bool {
        let owned = self.owns(run, epoch);
        let row = &mut self.runs[run];
        if owned && (row.events, row.head) == (n, before) {
            (row.events, row.head) = (n + 1, hash);
            return true;
        }
        owned && (row.events, row.head) == (n + 1, hash)
    }

    pub(crate) fn renew(&mut self, run: usize, epoch: u8, lease: u8) -> bool {
        let owned = self.owns(run, epoch);
        if owned {
            self.runs[run].lease = lease;
        }
        owned
    }

    pub(crate) fn release(&mut self, run: usize, epoch: u8) {
        let row = &mut self.runs[run];
        if row.epoch == epoch {
            (row.lease, row.claim) = (0, 0);
        }
    }

    /// Whether that epoch's owner still is the owner.
    pub(crate) fn owns(&self, run: usize, epoch: u8) -> bool {
        self.runs[run].epoch == epoch && self.holds(run)
    }
}
