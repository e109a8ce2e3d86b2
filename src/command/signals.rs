//! The signals that ask the program to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use journal::step::Stop;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, ExitCode};
use crate::report::Style;

/// SIGHUP and SIGTERM, by their numbers: signal(7).
const ENDS: [u8; 2] = [1, 15];

/// Listens for as long as the program runs: once somebody listens, a signal does not end the program by itself.
pub(super) struct Signals {
    tell: watch::Sender<Stop>,
    heeded: Heeded,
    lent: Arc<AtomicBool>,
}

/// While this lives, what is pressed on the keyboard is meant for another program, and asks nothing of us.
pub(super) struct Lent {
    lent: Arc<AtomicBool>,
    _quits: Signal,
}

/// What the command at work does about a signal.
#[derive(Debug, Clone, Default)]
struct Heeded {
    /// It looks whether it is asked to stop, and ends by itself.
    by_itself: Arc<AtomicBool>,
    /// It stops at a safe point, which may take a while.
    at_safe_points: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to listen. The first SIGINT asks to stop at the next safe point, a second one, or SIGTERM, at once; so
    /// does SIGHUP with `hangups`, for what has no use without its terminal.
    pub(super) fn listen(style: Style, hangups: bool) -> Result<Signals, Error> {
        let mut interrupts = signals(SignalKind::interrupt())?;
        let mut terminations = signals(SignalKind::terminate())?;
        let mut hangups = if hangups { Some(signals(SignalKind::hangup())?) } else { None };
        let (tell, _) = watch::channel(Stop::No);
        let heeded = Heeded::default();
        let (telling, at_safe_points) = (tell.clone(), Arc::clone(&heeded.at_safe_points));
        let lent = Arc::new(AtomicBool::new(false));
        let is_lent = Arc::clone(&lent);
        tokio::spawn(async move {
            loop {
                let hangup = async {
                    match &mut hangups {
                        Some(hangups) => hangups.recv().await,
                        None => std::future::pending().await,
                    }
                };
                let asked = tokio::select! {
                    Some(()) = interrupts.recv() => match *telling.borrow() {
                        _ if is_lent.load(Ordering::Relaxed) => continue,
                        Stop::No => Stop::Soon(2),
                        Stop::Soon(signal) | Stop::Now(signal) => Stop::Now(signal),
                    },
                    Some(()) = terminations.recv() => Stop::Now(15),
                    Some(()) = hangup => Stop::Now(1),
                    else => return,
                };
                if matches!(asked, Stop::Soon(_)) && at_safe_points.load(Ordering::Relaxed) {
                    style.warn("stopping at the next safe point; once more stops at once");
                }
                telling.send_replace(asked);
            }
        });
        Ok(Signals { tell, heeded, lent })
    }

    /// Leaves the keyboard's signals to another program.
    pub(super) fn lend(&self) -> Result<Lent, Error> {
        let quits = signals(SignalKind::quit())?;
        self.lent.store(true, Ordering::Relaxed);
        Ok(Lent { lent: Arc::clone(&self.lent), _quits: quits })
    }

    /// What was asked for so far, and changes with it; for what stops at safe points.
    pub(super) fn stop(&self) -> watch::Receiver<Stop> {
        self.heeded.at_safe_points.store(true, Ordering::Relaxed);
        self.stop_at_once()
    }

    /// The same, for what ends at once.
    pub(super) fn stop_at_once(&self) -> watch::Receiver<Stop> {
        self.heeded.by_itself.store(true, Ordering::Relaxed);
        self.tell.subscribe()
    }

    /// Another command begins, which has yet to say what it does about signals.
    pub(super) fn begin(&self) {
        self.heeded.by_itself.store(false, Ordering::Relaxed);
        self.heeded.at_safe_points.store(false, Ordering::Relaxed);
    }

    /// Forgets what was asked for so far, unless the program is to end.
    pub(super) fn forget(&self) {
        self.begin();
        if self.ending().is_none() {
            self.tell.send_replace(Stop::No);
        }
    }

    /// The signal that asked to stop, if one did.
    pub(super) fn asked(&self) -> Option<u8> {
        number(*self.tell.borrow())
    }

    /// The signal that asked the program to end, and not only the command at work, if one did.
    pub(super) fn ending(&self) -> Option<u8> {
        self.asked().filter(|signal| ENDS.contains(signal))
    }

    /// Waits until a signal asks to stop.
    pub(super) async fn stopped(&self) -> u8 {
        wait(self.tell.subscribe(), |_| true).await
    }

    /// Waits until the program is asked to end.
    pub(super) async fn ended(&self) -> u8 {
        wait(self.tell.subscribe(), |signal| ENDS.contains(&signal)).await
    }

    /// Waits until a signal comes that the command at work does nothing about.
    pub(super) async fn unheeded(&self) -> u8 {
        wait(self.tell.subscribe(), |_| !self.heeded.by_itself.load(Ordering::Relaxed)).await
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

fn signals(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| Error::new(ExitCode::FAILED, "cannot listen to signals").because(error))
}

/// Waits for a signal that is `wanted`; there will never be one when nobody is left to tell of it.
pub(super) async fn wait(mut stop: watch::Receiver<Stop>, wanted: impl Fn(u8) -> bool) -> u8 {
    let found = stop.wait_for(|stop| number(*stop).is_some_and(&wanted)).await.map(|stop| number(*stop));
    match found {
        Ok(Some(signal)) => signal,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn number(stop: Stop) -> Option<u8> {
    match stop {
        Stop::No => None,
        Stop::Soon(signal) | Stop::Now(signal) => Some(signal),
    }
}
