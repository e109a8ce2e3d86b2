//! Free loopback ports.

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{Mutex, OnceLock},
};

use super::{
    FAR, LOCAL,
    error::{Result, StageError},
    lock,
};

/// Below Linux's range for outgoing connections (32768 and up), so that no client takes the port of a server that is
/// down for a moment.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// How often a server is started anew when somebody else was quicker to take its port.
const ATTEMPTS: usize = 10;

/// A port that is free on both loopback addresses and was not given out by this process before.
pub(super) fn free_port() -> Result<u16> {
    static GIVEN_OUT: OnceLock<Mutex<HashSet<u16>>> = OnceLock::new();
    let mut given_out = lock(GIVEN_OUT.get_or_init(Mutex::default));
    // Processes start looking at different places, so that two of them seldom choose the same port.
    let start =
        FIRST + u16::try_from(std::process::id().wrapping_mul(37) % u32::from(LAST - FIRST)).unwrap_or(0);
    let is_free = |port: &u16| {
        let free_at = |host| TcpListener::bind((host, *port)).is_ok();
        !given_out.contains(port) && free_at(LOCAL) && free_at(FAR)
    };
    let port = (start..LAST).chain(FIRST..start).find(is_free);
    let port = port.ok_or(StageError::NoPort { first: FIRST, last: LAST })?;
    given_out.insert(port);
    Ok(port)
}

/// Starts a server on a free port, on another one if that was taken meanwhile.
pub(super) fn on_free_port<T>(mut start: impl FnMut(u16) -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match start(free_port()?) {
            Err(StageError::PortTaken { .. }) => {}
            started_or_failed => return started_or_failed,
        }
    }
    start(free_port()?)
}
