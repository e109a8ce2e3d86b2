//! The signals that ask the program to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use journal::step::Stop;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, ExitCode};
use crate::report::Style;

/// Listens for as long as the program runs: once somebody listens, a signal does not end the program by itself.
pub(super) struct Signals {
    tell: watch::Sender<Stop>,
    lent: Arc<AtomicBool>,
}

/// While this lives, what is pressed on the keyboard is meant for another program, and asks nothing of us.
pub(super) struct Lent {
    lent: Arc<AtomicBool>,
    _quits: Signal,
}

impl Signals {
    /// Begins to listen. The first SIGINT asks to stop at the next safe point, a second one, or SIGTERM, at once.
    pub(super) fn listen(style: Style) -> Result<Signals, Error> {
        let mut interrupts = listen(SignalKind::interrupt())?;
        let mut terminations = listen(SignalKind::terminate())?;
        let (tell, _) = watch::channel(Stop::No);
        let telling = tell.clone();
        let lent = Arc::new(AtomicBool::new(false));
        let is_lent = Arc::clone(&lent);
        tokio::spawn(async move {
            loop {
                let asked = tokio::select! {
                    Some(()) = interrupts.recv() => match *telling.borrow() {
                        _ if is_lent.load(Ordering::Relaxed) => continue,
                        Stop::No => Stop::Soon(2),
                        Stop::Soon(signal) | Stop::Now(signal) => Stop::Now(signal),
                    },
                    Some(()) = terminations.recv() => Stop::Now(15),
                    else => return,
                };
                if let Stop::Soon(_) = asked {
                    style.warn("stopping at the next safe point; once more stops at once");
                }
                telling.send_replace(asked);
            }
        });
        Ok(Signals { tell, lent })
    }

    /// Leaves the keyboard's signals to another program.
    pub(super) fn lend(&self) -> Result<Lent, Error> {
        let quits = listen(SignalKind::quit())?;
        self.lent.store(true, Ordering::Relaxed);
        Ok(Lent { lent: Arc::clone(&self.lent), _quits: quits })
    }

    /// What was asked for so far, and changes with it.
    pub(super) fn stop(&self) -> watch::Receiver<Stop> {
        self.tell.subscribe()
    }
}

impl Lent {
    /// Takes the keyboard back. A signal that came before is still the other program's.
    pub(super) async fn end(self) {
        // The task that listens goes first.
        tokio::task::yield_now().await;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.lent.store(false, Ordering::Relaxed);
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| Error::new(ExitCode::FAILED, "cannot listen to signals").because(error))
}
