//! A journal that several controllers share: on a PostgreSQL server, reached directly or through pgbouncer.

#[path = "../journal/tests/conformance/mod.rs"]
mod conformance;
mod controllers;
mod getting_in;
mod looking_on;
#[path = "../journal/tests/material/mod.rs"]
mod material;
#[path = "../journal/tests/protocol/mod.rs"]
mod model;
mod protocol;
mod server;
mod upkeep;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use conformance::{Factory, keeps_every_promise};
use journal::store::{
    Store,
    postgres::{PostgresStore, Refused},
};
use tokio_postgres::NoTls;

use crate::stage::{Bouncer, BouncerOptions, Cluster, LOCAL, Stage};

/// How many databases there may be; pgbouncer is told of all of them when it starts.
const DATABASES: usize = 200;

/// An empty database of its own for one test's journal, on a stage.
struct Database<'stage> {
    cluster: &'stage Cluster,
    name: String,
    port: u16,
}

impl Database<'static> {
    /// On the shared stage.
    fn new() -> Database<'static> {
        Database::on(Stage::shared().unwrap())
    }

    /// The same, reached through a pgbouncer that pools transactions.
    fn through_pgbouncer() -> Database<'static> {
        static BOUNCER: OnceLock<Bouncer> = OnceLock::new();
        let bouncer = BOUNCER.get_or_init(|| {
            let alias = |number| (name(number), name(number));
            let options =
                BouncerOptions { aliases: (0..DATABASES).map(alias).collect(), ..BouncerOptions::default() };
            Bouncer::start(Stage::shared().unwrap(), &options).unwrap()
        });
        let mut database = Database::new();
        database.port = bouncer.port();
        database
    }
}

impl<'stage> Database<'stage> {
    fn on(stage: &'stage Stage) -> Database<'stage> {
        static NUMBERS: AtomicUsize = AtomicUsize::new(0);
        let name = name(NUMBERS.fetch_add(1, Ordering::Relaxed));
        let cluster = stage.cluster();
        cluster.psql("postgres", &format!("CREATE DATABASE {name}")).unwrap();
        Database { cluster, name, port: cluster.port() }
    }

    /// Its URL for that role, with these options.
    fn url(&self, role: &str, options: &str) -> String {
        format!("postgres://{role}@{LOCAL}:{}/{}{options}", self.port, self.name)
    }

    /// A store as another process would have it, with leases of that length.
    fn store(&self, lease: Duration) -> PostgresStore {
        let url = self.url("postgres", "");
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
        PostgresStore::open(url, lease, Box::new(connect)).unwrap()
    }

    fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.name, sql).unwrap()
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if self.cluster.pid().is_some() {
            self.cluster.psql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name)).unwrap();
        }
    }
}

fn name(number: usize) -> String {
    format!("journal{number}")
}

impl Factory for Database<'_> {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store(Duration::from_secs(60)))
    }
}

mod directly {
    super::keeps_every_promise!(super::Database::new());
}

mod through_pgbouncer {
    super::keeps_every_promise!(super::Database::through_pgbouncer());
}
