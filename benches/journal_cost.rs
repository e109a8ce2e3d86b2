//! What the journal costs a restore: the events of a real one, recorded again on the same disk, against the time that
//! the restore took.
//!
//! `cargo bench --bench journal_cost` fails when making events durable takes more than is promised. Bringing them to
//! where they are queried happens once at the end of a run, and is told beside it; so is what an event costs in a journal
//! on a server, where making it durable and bringing it to where it is queried are one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on ends, and its result is what it prints"
)]
#![allow(clippy::disallowed_methods, reason = "benchmarks measure time")]

#[path = "../tests/stage/mod.rs"]
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use journal::event::Actor;
use journal::query::Query;
use journal::store::files::FileStore;
use journal::store::postgres::{LEASE, PostgresStore, Refused};
use journal::store::{Claim, Store};
use stage::{Scale, Site, SiteOptions, Stage, StageOptions};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// The share of a restore's time that making its events durable may take.
const PROMISED: f64 = 0.01;
/// The median of so many recordings counts.
const ROUNDS: usize = 15;

fn main() -> ExitCode {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let site = Site::new(&stage, &SiteOptions { scale: Scale::Full, ..SiteOptions::default() }).unwrap();
    let begun = Instant::now();
    let outcome = site.run(&["restore", &site.section(), "20261121"]).unwrap();
    let restore = begun.elapsed();
    assert_eq!(outcome.code, 0, "{outcome}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let recorded = Recorded::of(&runtime, &site.journal());
    let again = |round| {
        let store = FileStore::open(site.folder().join(format!("again{round}"))).unwrap();
        recorded.again(&runtime, &store)
    };
    let rounds = (0..ROUNDS).map(again);
    let (mut append, mut publish): (Vec<Duration>, Vec<Duration>) = rounds.unzip();
    let (append, publish) = (median(&mut append), median(&mut publish));
    let share = append.as_secs_f64() / restore.as_secs_f64();
    println!(
        "a restore of {:.1} s, {} events: making them durable takes {:.1} ms, {:.2} % (promised: under {:.0} %); \
         publishing them at the end {:.1} ms",
        restore.as_secs_f64(),
        recorded.events.len(),
        append.as_secs_f64() * 1000.0,
        share * 100.0,
        PROMISED * 100.0,
        publish.as_secs_f64() * 1000.0
    );
    let mut shared: Vec<Duration> =
        (0..ROUNDS).map(|round| recorded.again(&runtime, &on_server(&stage, round)).0).collect();
    let each = median(&mut shared).as_secs_f64() * 1000.0 / recorded.events.len() as f64;
    println!("on a PostgreSQL server of this machine: {each:.2} ms an event");
    if share < PROMISED { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The events of a run, as they are stored.
struct Recorded {
    claim: Claim,
    events: Vec<Vec<u8>>,
}

impl Recorded {
    /// The one run of a journal.
    fn of(runtime: &Runtime, journal: &Path) -> Recorded {
        runtime.block_on(async {
            let store = FileStore::open(journal.to_path_buf()).unwrap();
            let runs = store.runs(&Query::default()).await.unwrap();
            let [run] = runs.as_slice() else { unreachable!("one restore is one run") };
            let events = store.load(run.id).await.unwrap();
            let actor = Actor { user: run.user.clone(), host: "localhost".into(), pid: std::process::id() };
            let claim = Claim {
                run: run.id.to_string(),
                target: None,
                actor,
                since: run.started_at,
                command: run.command.clone(),
            };
            Recorded { claim, events }
        })
    }

    /// Records them in a new journal: how long it took to make all of them durable, and to publish them.
    fn again(&self, runtime: &Runtime, store: &dyn Store) -> (Duration, Duration) {
        runtime.block_on(async {
            let mut log = store.claim(&self.claim).await.unwrap();
            let begun = Instant::now();
            for (n, event) in (0..).zip(&self.events) {
                log.append(n, event).await.unwrap();
            }
            let durable = begun.elapsed();
            log.publish().await.unwrap();
            (durable, begun.elapsed() - durable)
        })
    }
}

/// A new journal in a database of the stage's.
fn on_server(stage: &Stage, round: usize) -> PostgresStore {
    let cluster = stage.cluster();
    cluster.psql("postgres", &format!("CREATE DATABASE again{round}")).unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/again{round}", cluster.port());
    let config: tokio_postgres::Config = url.parse().unwrap();
    let connect = move || {
        let config = config.clone();
        let connected = async move {
            let refused = |error: tokio_postgres::Error| Refused { what: error.to_string(), hint: None };
            let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
            tokio::spawn(connection);
            Ok(client)
        };
        Box::pin(connected) as _
    };
    PostgresStore::open(url, LEASE, Box::new(connect)).unwrap()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
