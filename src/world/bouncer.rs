//! pgbouncer's admin console.
//!
//! It speaks the simple query protocol only, one command a call (pgbouncer 1.18 and 1.25); columns are read by name,
//! since their order and number differ between versions.

use std::time::Duration;

use jiff::Unit;
use jiff::civil::DateTime;

use super::Trouble;
use super::postgres::{Rows, Server, Session};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The console of one pgbouncer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// Where pgbouncer listens, and one of its `admin_users`.
    pub server: Server,
}

/// A line of SHOW DATABASES.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The name that clients use.
    pub name: String,
    /// The server's host; empty for a unix socket.
    pub host: String,
    /// The server's port.
    pub port: String,
    /// The database there.
    pub database: String,
    /// `pool_mode` where the entry sets one of its own.
    pub pool_mode: Option<String>,
    /// Server connections that there may be at most; none where that is not limited.
    pub max_connections: Option<u64>,
    /// Server connections that there are.
    pub connections: Option<u64>,
    /// Server connections that a pool of it may have.
    pub pool_size: Option<u64>,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether it is disabled.
    pub disabled: bool,
}

/// A client that has a server connection to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// As whom it is there.
    pub user: String,
    /// Where it comes from: address and port, or `unix` for a socket.
    pub address: String,
    /// How long it has been connected, in seconds.
    pub seconds: Option<i64>,
}

impl Console {
    async fn session(&self) -> Result<Session, Trouble> {
        self.server.connect("pgbouncer", "pg_staging").await.map_err(|trouble| {
            let transient = trouble.transient;
            let hint = format!(
                "check that pgbouncer runs there and that '{}' is one of its admin_users (psql -h {} -p {} -U {} pgbouncer)",
                self.server.user, self.server.host, self.server.port, self.server.user
            );
            let message = format!("cannot reach pgbouncer's console on {}", self.server.place());
            Trouble { hint: trouble.hint.or(Some(hint)), ..Trouble::new(message).because(trouble.cause.unwrap_or(trouble.message)) }
                .transient(transient)
        })
    }

    /// SHOW DATABASES.
    pub async fn databases(&self) -> Result<Vec<Shown>, Trouble> {
        let (columns, rows) = self.ask("SHOW DATABASES").await?;
        Ok(shown(&columns, &rows))
    }

    /// What the alias points at.
    pub async fn database(&self, alias: &str) -> Result<Option<Shown>, Trouble> {
        Ok(self.databases().await?.into_iter().find(|shown| shown.name == alias))
    }

    /// DISABLE: no new client connections for this alias. Fine when there is no such alias.
    pub async fn disable(&self, alias: &str) -> Result<(), Trouble> {
        self.on_alias("DISABLE", alias).await
    }

    /// ENABLE: the opposite of DISABLE. Fine when there is no such alias.
    pub async fn enable(&self, alias: &str) -> Result<(), Trouble> {
        self.on_alias("ENABLE", alias).await
    }

    /// PAUSE, for an alias that there is: from now on its clients wait for a server connection. Says whether those in use
    /// were given back within `limit`. Where they were not, the pause holds all the same: it is the alias's, and not the
    /// connection's that asked for it.
    pub async fn pause(&self, alias: &str, limit: Duration) -> Result<bool, Trouble> {
        let command = format!("PAUSE {}", super::postgres::identifier(alias));
        Ok(self.ask_within(&command, limit).await?.is_some())
    }

    /// RESUME, for an alias that is paused.
    pub async fn resume(&self, alias: &str) -> Result<(), Trouble> {
        self.on_alias("RESUME", alias).await
    }

    /// SHOW CLIENTS: those of the alias that have a server connection, which PAUSE waits for.
    pub async fn holders(&self, alias: &str) -> Result<Vec<Holder>, Trouble> {
        let (columns, rows) = self.ask("SHOW CLIENTS").await?;
        Ok(holders(&columns, &rows, alias))
    }

    async fn on_alias(&self, command: &str, alias: &str) -> Result<(), Trouble> {
        if self.database(alias).await?.is_none() {
            return Ok(());
        }
        self.ask(&format!("{command} {}", super::postgres::identifier(alias))).await.map(|_| ())
    }

    /// One command, answered within a limit: pgbouncer can take a connection and then say nothing.
    async fn ask(&self, command: &str) -> Result<(Vec<String>, Rows), Trouble> {
        self.ask_within(command, ANSWER_LIMIT).await?.ok_or_else(|| {
            let limit = ANSWER_LIMIT.as_secs();
            Trouble::new(format!("pgbouncer on {} does not answer {command}", self.server.place()))
                .because(format!("nothing came within {limit} s"))
                .transient(true)
        })
    }

    /// One command; `None` when no answer comes within `limit`.
    async fn ask_within(
        &self,
        command: &str,
        limit: Duration,
    ) -> Result<Option<(Vec<String>, Rows)>, Trouble> {
        let session = self.session().await?;
        tokio::time::timeout(limit, session.named_rows(command)).await.ok().transpose()
    }
}

/// The fields of each row, by the names of their columns.
fn fields<'r>(
    columns: &'r [String],
    rows: &'r Rows,
) -> impl Iterator<Item = impl Fn(&str) -> Option<String> + 'r> {
    let of_row = move |row: &'r Vec<Option<String>>| {
        move |name: &str| {
            let place = columns.iter().position(|column| column == name);
            place.and_then(|index| row.get(index).cloned().flatten())
        }
    };
    rows.iter().map(of_row)
}

fn shown(columns: &[String], rows: &Rows) -> Vec<Shown> {
    let yes = |value: Option<String>| value.is_some_and(|value| value == "1");
    let number = |value: Option<String>| -> Option<u64> { value?.parse().ok() };
    fields(columns, rows)
        .map(|text| Shown {
            name: text("name").unwrap_or_default(),
            host: text("host").unwrap_or_default(),
            port: text("port").unwrap_or_default(),
            database: text("database").unwrap_or_default(),
            pool_mode: text("pool_mode").filter(|mode| !mode.is_empty()),
            max_connections: number(text("max_connections")).filter(|most| *most > 0),
            connections: number(text("current_connections")),
            pool_size: number(text("pool_size")),
            paused: yes(text("paused")),
            disabled: yes(text("disabled")),
        })
        .collect()
}

/// A client has a server connection when it has a `link`. pgbouncer's time is that of the newest connection, which is
/// the one that asks; it writes times as `2026-11-21 10:11:12 UTC`, in a zone of its own.
fn holders(columns: &[String], rows: &Rows, alias: &str) -> Vec<Holder> {
    let time = |text: Option<String>| text?.get(..19)?.parse::<DateTime>().ok();
    let now = fields(columns, rows).filter_map(|text| time(text("connect_time"))).max();
    fields(columns, rows)
        .filter(|text| text("database").as_deref() == Some(alias))
        .filter(|text| text("link").is_some_and(|link| !link.is_empty()))
        .map(|text| {
            let address = text("addr").unwrap_or_default();
            let address = match text("port").filter(|_| address != "unix") {
                Some(port) => format!("{address}:{port}"),
                None => address,
            };
            let since = time(text("connect_time"));
            let age = since.zip(now).and_then(|(since, now)| now.since((Unit::Second, since)).ok());
            let seconds = age.map(|age| age.get_seconds());
            Holder { user: text("user").unwrap_or_default(), address, seconds }
        })
        .collect()
}
