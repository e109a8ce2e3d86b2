//! pgbouncer's admin console.
//!
//! It speaks the simple query protocol only, one command a call (pgbouncer 1.18 and 1.25); columns are read by name,
//! since their order and number differ between versions.

use std::time::Duration;

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

    async fn on_alias(&self, command: &str, alias: &str) -> Result<(), Trouble> {
        if self.database(alias).await?.is_none() {
            return Ok(());
        }
        self.ask(&format!("{command} {}", super::postgres::identifier(alias))).await.map(|_| ())
    }

    /// One command, answered within a limit: pgbouncer can take a connection and then say nothing.
    async fn ask(&self, command: &str) -> Result<(Vec<String>, Rows), Trouble> {
        let session = self.session().await?;
        tokio::time::timeout(ANSWER_LIMIT, session.named_rows(command)).await.unwrap_or_else(|_| {
            let limit = ANSWER_LIMIT.as_secs();
            Err(Trouble::new(format!("pgbouncer on {} does not answer {command}", self.server.place()))
                .because(format!("nothing came within {limit} s"))
                .transient(true))
        })
    }
}

fn shown(columns: &[String], rows: &Rows) -> Vec<Shown> {
    let place = |name: &str| columns.iter().position(|column| column == name);
    let text = |row: &[Option<String>], name: &str| -> Option<String> {
        place(name).and_then(|index| row.get(index).cloned().flatten())
    };
    let yes = |row: &[Option<String>], name: &str| text(row, name).is_some_and(|value| value == "1");
    let number = |row: &[Option<String>], name: &str| -> Option<u64> { text(row, name)?.parse().ok() };
    rows.iter()
        .map(|row| Shown {
            name: text(row, "name").unwrap_or_default(),
            host: text(row, "host").unwrap_or_default(),
            port: text(row, "port").unwrap_or_default(),
            database: text(row, "database").unwrap_or_default(),
            pool_mode: text(row, "pool_mode").filter(|mode| !mode.is_empty()),
            max_connections: number(row, "max_connections").filter(|most| *most > 0),
            connections: number(row, "current_connections"),
            pool_size: number(row, "pool_size"),
            paused: yes(row, "paused"),
            disabled: yes(row, "disabled"),
        })
        .collect()
}
