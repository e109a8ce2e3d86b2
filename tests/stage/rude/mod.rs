//! An HTTP/1.1 server that serves a folder properly, with validators, ranges and listings, except where a test plans
//! otherwise; and that remembers what it was asked and what it sent. Written by hand, because a library would not let us
//! lie about lengths or hang up in the middle of a body.

mod answer;
mod plan;
mod request;

use std::{
    collections::HashMap,
    io::BufReader,
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use plan::{Asked, Conduct, Plan};
pub use request::Request;

use super::{
    FAR, LOCAL,
    error::{Doing, Result, StageError},
    lock,
    port::on_free_port,
    scratch::tell,
};
use plan::Planned;

/// A running server. Dropping it closes all its connections.
#[derive(Debug)]
pub struct RudeServer {
    port: u16,
    shared: Arc<Shared>,
    doors: Vec<JoinHandle<()>>,
}

/// What the connections' threads share.
#[derive(Debug)]
struct Shared {
    root: PathBuf,
    closing: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    link: Mutex<Link>,
}

/// What all answers go through together.
#[derive(Debug, Default)]
struct Link {
    /// `None` is as fast as can be.
    bytes_per_second: Option<u64>,
    /// Until when it is taken by what was sent.
    busy_until: Option<Instant>,
}

/// What a link that had nothing to do may send late is what would have gone through in that time, so that waiting a little
/// too long does not make it a slower one.
const LATE: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct State {
    plans: HashMap<String, Vec<Planned>>,
    requests: Vec<Request>,
    /// How many requests came before the first of `requests`.
    forgotten: usize,
    /// How many answers wait at a stall, by path.
    stalled: HashMap<String, usize>,
    /// How often each path's stalls were released.
    releases: HashMap<String, u64>,
    /// Our ends of the open connections, by a number of their own.
    connections: HashMap<u64, TcpStream>,
    next_connection: u64,
    tags: u64,
}

impl RudeServer {
    /// Starts a server over that folder, on [`LOCAL`] and [`FAR`].
    pub fn start(root: &Path) -> Result<RudeServer> {
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            closing: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            link: Mutex::default(),
        });
        on_free_port(|port| {
            let listeners = [listen(LOCAL, port)?, listen(FAR, port)?];
            let doors = listeners.into_iter().map(|listener| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || accept(&listener, &shared))
            });
            Ok(RudeServer { port, doors: doors.collect(), shared: Arc::clone(&shared) })
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, requests for that path (decoded, such as `/shop1/shop1.2026-11-21.dump`; with `?` and a query as it is
    /// sent, only those) meet this conduct, beside those planned before. Of several that are an answer of their own, the one planned first that still applies is given.
    pub fn plan(&self, path: &str, plan: impl Into<Plan>) {
        self.shared.state().plans.entry(path.to_owned()).or_default().push(Planned::new(plan.into()));
    }

    /// From now on, requests for that path are answered properly. What stalls goes on.
    pub fn behave(&self, path: &str) {
        self.shared.state().plans.remove(path);
        self.release(path);
    }

    /// From now on, all answers together send that many bytes of their bodies each second; `None` is as fast as can be.
    pub fn set_link(&self, bytes_per_second: Option<u64>) {
        *lock(&self.shared.link) = Link { bytes_per_second, busy_until: None };
    }

    /// Lets the answers go on that stall at that path now.
    pub fn release(&self, path: &str) {
        *self.shared.state().releases.entry(path.to_owned()).or_default() += 1;
        self.shared.changed.notify_all();
    }

    /// Every request so far, in the order in which their answers began.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// The requests for that path so far.
    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path == path).collect()
    }

    /// The bytes of bodies sent for that path so far, over all requests.
    pub fn bytes_sent(&self, path: &str) -> u64 {
        self.requests_for(path).iter().map(|request| request.sent).sum()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        let mut state = self.shared.state();
        state.forgotten += state.requests.len();
        state.requests.clear();
    }

    /// Waits until there were that many requests for the path.
    pub fn wait_for_requests(&self, path: &str, count: usize, limit: Duration) -> Result<()> {
        self.wait(&format!("{count} requests for {path}"), limit, |state| {
            state.requests.iter().filter(|request| request.path == path).count() >= count
        })
    }

    /// Waits until an answer for the path has come to its planned stall.
    pub fn wait_until_stalled(&self, path: &str, limit: Duration) -> Result<()> {
        self.wait(&format!("{path} to stall"), limit, |state| {
            state.stalled.get(path).is_some_and(|count| *count > 0)
        })
    }

    fn wait(&self, what: &str, limit: Duration, holds: impl Fn(&State) -> bool) -> Result<()> {
        let state = self.shared.state();
        let waited = self.shared.changed.wait_timeout_while(state, limit, |state| !holds(state));
        let (_state, result) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if result.timed_out() {
            return Err(StageError::Late { what: what.into(), limit, log: String::new() });
        }
        Ok(())
    }
}

impl Drop for RudeServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        for connection in self.shared.state().connections.values() {
            // The client may have closed it first.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // A connection wakes the thread that waits for one; it then sees that we are closing.
        for host in [LOCAL, FAR] {
            if let Err(error) = TcpStream::connect((host, self.port)) {
                tell(&format!("cannot wake the rude server: {error}"));
            }
        }
        for door in self.doors.drain(..) {
            if door.join().is_err() {
                tell("a thread of the rude server panicked");
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until the link has room for so many bytes, which then are on it.
    fn wait_for_link(&self, bytes: u64) {
        let begins = {
            let mut link = lock(&self.link);
            let Some(bytes_per_second) = link.bytes_per_second else { return };
            let now = Instant::now();
            let earliest = now.checked_sub(LATE).unwrap_or(now);
            let begins = link.busy_until.map_or(now, |until| until.max(earliest));
            let nanoseconds = bytes.saturating_mul(1_000_000_000) / bytes_per_second.max(1);
            link.busy_until = Some(begins + Duration::from_nanos(nanoseconds));
            begins
        };
        thread::sleep(begins.saturating_duration_since(Instant::now()));
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits until the stalls of that path are released, or the server closes.
    fn stall(&self, path: &str) {
        let mut state = self.state();
        let before = state.releases.get(path).copied();
        *state.stalled.entry(path.to_owned()).or_default() += 1;
        self.changed.notify_all();
        let held = |state: &mut State| state.releases.get(path).copied() == before && !self.is_closing();
        // Looked at now and then as well, because closing is told without the lock.
        while held(&mut state) {
            let waited = self.changed.wait_timeout_while(state, Duration::from_millis(100), held);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        if let Some(count) = state.stalled.get_mut(path) {
            *count -= 1;
        }
    }
}

fn listen(host: &str, port: u16) -> Result<TcpListener> {
    TcpListener::bind((host, port)).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => StageError::PortTaken { server: "the rude server", port },
        _ => StageError::Io { doing: format!("listen on {host}:{port}"), source },
    })
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.is_closing() {
            return;
        }
        // A client that gave up before we came to it is not our concern.
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            if let Err(error) = serve(&connection, &shared) {
                tell(&error.to_string());
            }
        });
    }
}

/// Answers request after request until either side closes.
fn serve(connection: &TcpStream, shared: &Shared) -> Result<()> {
    let ours = connection.try_clone().doing(|| "share a connection".into())?;
    let number = {
        let mut state = shared.state();
        state.next_connection += 1;
        let number = state.next_connection;
        state.connections.insert(number, ours);
        number
    };
    // A head and its body are two writes; the second shall not wait for the first to be acknowledged.
    connection.set_nodelay(true).doing(|| "send without delay".into())?;
    let mut reader = BufReader::new(connection);
    // Any failure to read or write is the client's going away, or our closing.
    while !shared.is_closing() {
        let Ok(Some(request)) = request::read(&mut reader) else { break };
        match answer::answer(request, connection, shared) {
            Ok(answer::Afterwards::KeepAlive) => {}
            Ok(answer::Afterwards::Close) | Err(_) => break,
        }
    }
    shared.state().connections.remove(&number);
    // The client may have closed it first.
    let _ = connection.shutdown(Shutdown::Both);
    Ok(())
}
