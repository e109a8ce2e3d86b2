//! Somebody's place at the board, while at work.

use journal::clock::SystemClock;

use super::{Board, Busy, millis};
use crate::contents::PartKind;
use crate::progress::Pace;

/// A place at the board, free again when this goes.
pub(in crate::step) struct Slot<'b> {
    board: &'b Board,
    number: usize,
}

impl<'b> Slot<'b> {
    pub(super) fn new(board: &'b Board, number: usize) -> Slot<'b> {
        Slot { board, number }
    }

    /// The worker's number, by which its sessions on the server are known.
    pub(in crate::step) fn number(&self) -> usize {
        self.number
    }

    /// Waits for bytes from the server.
    pub(in crate::step) async fn awaited<T>(&self, bytes: impl Future<Output = T>) -> T {
        self.busy(|busy| busy.awaiting = Some(SystemClock.uptime()));
        let came = bytes.await;
        self.busy(|busy| busy.awaiting = None);
        came
    }

    /// So many bytes came.
    pub(in crate::step) fn came(&self, bytes: u64) {
        self.board.state().came += bytes;
        self.busy(|busy| busy.came += bytes);
    }

    /// By now so many bytes of all are here, and more are waited for.
    pub(in crate::step) fn has(&self, bytes: u64) {
        self.board.state().came = bytes;
        self.busy(|busy| busy.awaiting = Some(SystemClock.uptime()));
    }

    /// What it was at is done and durable; gives how long that took, in milliseconds.
    pub(in crate::step) fn done(&self) -> u64 {
        let mut state = self.board.state();
        let Some(busy) = state.slots.get_mut(self.number).and_then(Option::as_mut) else { return 0 };
        let (parts, ms) =
            (std::mem::take(&mut busy.parts), millis(SystemClock.uptime().saturating_sub(busy.since)));
        let mut built = 0;
        for at in parts {
            let Some(part) = self.board.parts.get(at) else { continue };
            state.ended.insert(at);
            state.loaded += part.rows;
            state.tables.done += part.tables.total.unwrap_or_default();
            state.indexes.done += part.indexes.total.unwrap_or_default();
            built += part.weight.filter(|_| part.kind == PartKind::AfterRows).unwrap_or_default();
        }
        if built > 0 {
            let now = Pace { bytes: built, ms };
            state.built = Some(state.built.map_or(now, |before| before.and(now)));
        }
        ms
    }

    fn busy(&self, change: impl FnOnce(&mut Busy)) {
        if let Some(busy) = self.board.state().slots.get_mut(self.number).and_then(Option::as_mut) {
            change(busy);
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.board.state();
        if let Some(slot) = state.slots.get_mut(self.number) {
            *slot = None;
        }
        state.backends.remove(&self.number);
    }
}
