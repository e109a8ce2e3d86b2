//! The signals that ask the program to stop.

use journal::step::Stop;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, ExitCode};
use crate::report::Style;

/// Listens for as long as the program runs: once somebody listens, a signal does not end the program by itself.
pub(super) struct Signals {
    tell: watch::Sender<Stop>,
}

impl Signals {
    /// Begins to listen. The first SIGINT asks to stop at the next safe point, a second one, or SIGTERM, at once.
    pub(super) fn listen(style: Style) -> Result<Signals, Error> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Error::new(ExitCode::FAILED, "cannot listen to signals").because(error))
        };
        let mut interrupts = listen(SignalKind::interrupt())?;
        let mut terminations = listen(SignalKind::terminate())?;
        let (tell, _) = watch::channel(Stop::No);
        let telling = tell.clone();
        tokio::spawn(async move {
            loop {
                let asked = tokio::select! {
                    Some(()) = interrupts.recv() => match *telling.borrow() {
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
        Ok(Signals { tell })
    }

    /// What was asked for so far, and changes with it.
    pub(super) fn stop(&self) -> watch::Receiver<Stop> {
        self.tell.subscribe()
    }
}
