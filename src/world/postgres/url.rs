//! A `postgres://` URL as a way to a server. What the URL leaves out comes from the surroundings, as libpq has it, TLS
//! included (PostgreSQL 15, 34.1.1.2).

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use super::{Server, Way, kept_alive, ways};
use crate::config::without_secrets;
use crate::world::libpq::{Password, Surroundings};
use crate::world::{Trouble, machine};

/// The options of a URL that stand for something in the surroundings.
const OF_THE_SURROUNDINGS: [&str; 10] = [
    "channel_binding",
    "connect_timeout",
    "options",
    "passfile",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
];

/// What a URL leads to. No message holds a secret of the URL.
pub struct Destination {
    way: Way,
    place: String,
}

impl Destination {
    /// What `url` leads to; a connection says that it is `application_name`'s, where the URL does not.
    pub fn of(url: &str, application_name: &str) -> Result<Destination, Trouble> {
        let (url, given) = without_surroundings(url);
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Trouble::new(format!("{} is not a URL of PostgreSQL's", without_secrets(&url)))
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
        kept_alive(&mut config);
        let server = first_server(&config);
        let database = config.get_dbname().unwrap_or(&server.user).to_owned();
        let mut around = Surroundings::given(given, &server, &database)?;
        if let Some(password) = config.get_password() {
            let text = String::from_utf8_lossy(password).into_owned();
            around.password = Some(Password { text, from: "the URL".to_owned() });
        }
        let sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let modes: &[SslMode] = if sockets { &[SslMode::Disable] } else { ways(around.tls.mode) };
        let place = place(&config, &database);
        Ok(Destination { way: Way::new(config, around, modes)?, place })
    }

    /// Hosts, ports and database, without anything that is secret.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// A new connection, which is at work on the runtime of the caller.
    pub async fn connect(&self) -> Result<Client, Trouble> {
        self.way.client(&self.place).await
    }
}

/// The URL without those of its options that stand for something in the surroundings, and those.
fn without_surroundings(url: &str) -> (String, BTreeMap<String, String>) {
    let Some((place, options)) = url.split_once('?') else { return (url.to_owned(), BTreeMap::new()) };
    let known = |option: &&str| {
        let name = option.split('=').next().unwrap_or_default();
        OF_THE_SURROUNDINGS.contains(&name)
    };
    let (ours, others): (Vec<&str>, Vec<&str>) = options.split('&').partition(known);
    let pair = |option: &str| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        (name.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let given = ours.into_iter().map(pair).collect();
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    (format!("{place}{query}"), given)
}

/// The first host, for which a password is looked for.
fn first_server(config: &Config) -> Server {
    let host = config.get_hosts().first().map(shown).unwrap_or_default();
    let port = config.get_ports().first().copied().unwrap_or(5432);
    Server { host, port, user: config.get_user().unwrap_or_default().to_owned() }
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    }
}

fn place(config: &Config, database: &str) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let hosts = config.get_hosts().iter().enumerate();
    let hosts: Vec<String> = hosts.map(|(index, host)| format!("{}:{}", shown(host), port(index))).collect();
    format!("postgres://{}/{database}", hosts.join(","))
}
