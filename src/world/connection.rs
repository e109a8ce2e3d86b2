//! A `postgres://` URL as what a connection is made with: what the URL leaves out comes from the environment, as libpq
//! has it.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::libpq::{Password, Surroundings};
use super::postgres::Server;
use super::{Trouble, machine};
use crate::config::without_secrets;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What `url` leads to. No message holds a secret of the URL.
pub fn of_url(url: &str, application_name: &str) -> Result<Config, Trouble> {
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        Trouble::new(format!("{} is not a URL of PostgreSQL's", without_secrets(url)))
            .because(why)
            .hint("write postgres://user@host:port/database")
    })?;
    if config.get_user().is_none() {
        config.user(machine::user());
    }
    if config.get_hosts().is_empty() {
        config.host("localhost");
    }
    if config.get_application_name().is_none() {
        config.application_name(application_name);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_LIMIT);
    }
    if config.get_password().is_none()
        && let Some(password) = password_for(&config)?
    {
        config.password(password.text);
    }
    config
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(60));
    Ok(config)
}

/// The password that the environment or a password file has for the first host.
fn password_for(config: &Config) -> Result<Option<Password>, Trouble> {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => return Ok(None),
    };
    let user = config.get_user().unwrap_or_default().to_owned();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().unwrap_or(&user).to_owned();
    Ok(Surroundings::of(&Server { host, port, user }, &database)?.password)
}
