//! A section as the program uses it: every option typed, checked and defaulted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde::{Serialize, Serializer};
use url::Url;

use super::error::{ConfigError, no_section};
use super::options::{self, DefaultValue, OPTIONS};
use super::value::{self, JournalLocation, Problem, SecretUrl};
use super::{Config, DEFAULT_SECTION};
use crate::database::DateWord;

/// How long the name of a database may be: PostgreSQL's NAMEDATALEN, less its final NUL.
const NAME_BYTES: usize = 63;
/// How long `dbname` may be, so that `_YYYYMMDD` still fits.
const DBNAME_BYTES: usize = NAME_BYTES - "_YYYYMMDD".len();

/// One target: its options by their own names. What was not set holds the default.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// The section's name, by which a user names this target.
    pub section: String,
    /// The directory of the dumps: `backup_base_url` joined to `backup_host`; its path ends in a slash.
    pub backups: SecretUrl,
    /// The file that holds the bearer token for the server of `backups`.
    pub backup_token_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The file made by `pg_dumpall -g`: `dumpall_url` joined to `backup_host`.
    pub dumpall: Option<SecretUrl>,
    /// The target host; never begins with `-`, never holds white space.
    pub host: String,
    /// The undated name of the database, of at most 54 bytes.
    pub dbname: String,
    /// The owner of the restored database.
    pub dbowner: String,
    /// The role that creates and drops databases.
    pub dbuser: String,
    /// The maintenance database.
    pub maintdb: String,
    /// The encoding given to CREATE DATABASE.
    pub db_encoding: String,
    /// PostgreSQL's port, the one written into pgbouncer's entries.
    pub postgres_port: u16,
    /// The version of the client programs, as `15` or `9.6`.
    pub postgres_major: String,
    /// pgbouncer's port, for connections unless said otherwise.
    pub pgbouncer_port: u16,
    /// pgbouncer.ini's path on the host.
    pub pgbouncer_conf: String,
    /// Whether the fetched dump is removed after a restore.
    pub remove_dump: bool,
    /// How many dated copies `purge` keeps.
    pub keep_bases: usize,
    /// For how many days, counted by their dates, copies are kept by `purge` beside those.
    pub keep_days: usize,
    /// Whether a restore that has switched the alias is followed by a purge.
    pub purge_after_restore: bool,
    /// Whether `restore` ends by switching the alias.
    pub auto_switch: bool,
    /// Whether the client script runs under sudo.
    pub use_sudo: bool,
    /// pg_restore's path on this machine.
    pub pg_restore: PathBuf,
    /// Whether to restore in one transaction; never together with more than one job.
    pub pg_restore_st: bool,
    /// Whether VACUUM ANALYZE follows the restore.
    pub restore_vacuum: bool,
    /// How many workers restore in parallel, from 1.
    pub restore_jobs: u16,
    /// Load straight from the server.
    pub fast: bool,
    /// How a dump is proven.
    pub verify: Verify,
    /// The file that describes the replication.
    pub replication: Option<PathBuf>,
    /// Where dumps are fetched to.
    pub tmpdir: PathBuf,
    /// The directory of `<section>/pre/*.sql` and `<section>/post/*.sql`.
    pub sql_path: Option<PathBuf>,
    /// The only schemas to restore; all, if empty.
    pub schemas: Vec<String>,
    /// Schemas to restore without their rows.
    pub schemas_nodata: Vec<String>,
    /// Tables to restore without their rows: unanchored, matched with `schema.table`.
    #[serde(serialize_with = "as_text")]
    pub tablename_nodata_regexp: Vec<Regex>,
    /// The search_path to set for the database; none, if empty.
    pub search_path: Vec<String>,
    /// Where the runs are recorded.
    pub journal: Option<JournalLocation>,
    /// What becomes of a run that fails.
    pub on_failure: OnFailure,
    /// What `restore` does about a run that was interrupted on the same target.
    pub on_interrupted: OnInterrupted,
    /// The backup that `restore` takes where no date is given.
    pub default_date: DefaultDate,
    /// Arguments put before the host in ssh and scp.
    pub ssh_options: Vec<String>,
    /// The client script's path on the host.
    pub client_script: String,
    /// How long a transient failure is retried.
    #[serde(serialize_with = "as_seconds")]
    pub retry_limit: Duration,
    /// How many percent of its rows a table may have lost since the last restore; not looked at, where it is not set.
    pub max_row_drop: Option<u8>,
    /// For how long nothing may come from the backup server before that is told.
    #[serde(serialize_with = "as_seconds")]
    pub stall_after: Duration,
}

/// What becomes of a run that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// What it did is undone.
    Rollback,
    /// What it did stays, and the run can be continued.
    Keep,
}

/// What `restore` does first about a run that was interrupted on the same target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupted {
    /// It is continued.
    Continue,
    /// It is undone.
    Rollback,
    /// It is left to an operator.
    Ask,
}

/// The backup that `restore` takes where no date is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultDate {
    /// That of the day.
    Today,
    /// The newest there is.
    Latest,
}

/// How a dump is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Each block of rows by its frame.
    Blocks,
    /// The whole file by its sum.
    Full,
}

impl From<DefaultDate> for DateWord {
    fn from(date: DefaultDate) -> DateWord {
        match date {
            DefaultDate::Today => DateWord::Today,
            DefaultDate::Latest => DateWord::Latest,
        }
    }
}

impl Target {
    /// Reads a section; see [`Config::target`].
    pub(super) fn read(config: &Config, section: &str, home: Option<&Path>) -> Result<Target, ConfigError> {
        if section == DEFAULT_SECTION {
            return Err(no_section(config.path(), section, &config.document.order));
        }
        let reader = Reader { config, section };
        reader.require_all()?;
        let path = |text: &str| value::local_path(text, home);
        let name = |text: &str| value::name(text, NAME_BYTES);
        let server = reader.value("backup_host", value::backup_host)?;
        let target = Target {
            section: section.to_owned(),
            backups: reader.value("backup_base_url", |text| value::below_host(&server, text, true))?,
            backup_token_file: reader.optional("backup_token_file", path)?,
            ca_file: reader.optional("ca_file", path)?,
            dumpall: reader.optional("dumpall_url", |text| value::below_host(&server, text, false))?,
            host: reader.value("host", value::host)?,
            dbname: reader.value("dbname", |text| value::name(text, DBNAME_BYTES))?,
            dbowner: reader.value("dbowner", name)?,
            dbuser: reader.value("dbuser", name)?,
            maintdb: reader.value("maintdb", name)?,
            db_encoding: reader.value("db_encoding", name)?,
            postgres_port: reader.value("postgres_port", value::from_one)?,
            postgres_major: reader.value("postgres_major", value::version)?,
            pgbouncer_port: reader.value("pgbouncer_port", value::from_one)?,
            pgbouncer_conf: reader.value("pgbouncer_conf", value::remote_path)?,
            remove_dump: reader.value("remove_dump", value::boolean)?,
            keep_bases: reader.value("keep_bases", value::count)?,
            keep_days: reader.value("keep_days", value::count)?,
            purge_after_restore: reader.value("purge_after_restore", value::boolean)?,
            auto_switch: reader.value("auto_switch", value::boolean)?,
            use_sudo: reader.value("use_sudo", value::boolean)?,
            pg_restore: reader.value("pg_restore", path)?,
            pg_restore_st: reader.value("pg_restore_st", value::boolean)?,
            restore_vacuum: reader.value("restore_vacuum", value::boolean)?,
            restore_jobs: reader.value("restore_jobs", value::from_one)?,
            fast: reader.value("fast", value::boolean)?,
            verify: reader.value("verify", verify)?,
            replication: reader.optional("replication", path)?,
            tmpdir: reader.value("tmpdir", path)?,
            sql_path: reader.optional("sql_path", path)?,
            schemas: reader.list("schemas", value::names)?,
            schemas_nodata: reader.list("schemas_nodata", value::names)?,
            tablename_nodata_regexp: reader.list("tablename_nodata_regexp", value::expressions)?,
            search_path: reader.list("search_path", value::names)?,
            journal: reader.optional("journal", |text| value::journal(text, home))?,
            on_failure: reader.value("on_failure", on_failure)?,
            on_interrupted: reader.value("on_interrupted", on_interrupted)?,
            default_date: reader.value("default_date", default_date)?,
            ssh_options: reader.list("ssh_options", value::words)?,
            client_script: reader.value("client_script", value::remote_path)?,
            retry_limit: reader.value("retry_limit", value::duration)?,
            max_row_drop: reader.optional("max_row_drop", value::percentage)?,
            stall_after: reader.value("stall_after", value::duration)?,
        };
        if target.pg_restore_st && target.restore_jobs > 1 {
            return Err(ConfigError::Conflict {
                place: config.place(section, "pg_restore_st"),
                option: "restore_jobs",
                value: target.restore_jobs.to_string(),
                hint:
                    "a single transaction has one worker: set `restore_jobs = 1` or `pg_restore_st = False`"
                        .to_owned(),
            });
        }
        Ok(target)
    }

    /// The directory of the dumps, user and password included; its path ends in a slash.
    pub fn backups_url(&self) -> Url {
        self.backups.url().clone()
    }

    /// The file made by `pg_dumpall -g`, user and password included.
    pub fn dumpall_url(&self) -> Option<Url> {
        self.dumpall.as_ref().map(|dumpall| dumpall.url().clone())
    }

    /// psql's path: pg_restore's neighbour.
    pub fn psql(&self) -> PathBuf {
        self.pg_restore.with_file_name("psql")
    }

    /// pg_dump's path: pg_restore's neighbour.
    pub fn pg_dump(&self) -> PathBuf {
        self.pg_restore.with_file_name("pg_dump")
    }
}

/// The options of one section on their way into a [`Target`].
struct Reader<'c> {
    config: &'c Config,
    section: &'c str,
}

impl Reader<'_> {
    /// Fails with every required option that is not set, or set to nothing.
    fn require_all(&self) -> Result<(), ConfigError> {
        let mut missing = Vec::new();
        for spec in OPTIONS.iter().filter(|spec| spec.default == DefaultValue::Required) {
            if self.text(spec.name)?.is_none_or(|text| text.is_empty()) {
                missing.push(spec.name);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(self.missing(missing)) }
    }

    fn missing(&self, options: Vec<&'static str>) -> ConfigError {
        ConfigError::MissingOptions {
            file: self.config.path().to_owned(),
            section: self.section.to_owned(),
            options,
        }
    }

    fn text(&self, option: &str) -> Result<Option<String>, ConfigError> {
        self.config.lookup(self.section, option)
    }

    /// An option that is required or has a default.
    fn value<T>(
        &self,
        option: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Result<T, ConfigError> {
        let text = self.text(option)?.ok_or_else(|| self.missing(vec![option]))?;
        parse(&text).map_err(|problem| self.invalid(option, &text, problem))
    }

    /// An option that may be unset, or set to nothing, which is the same.
    fn optional<T>(
        &self,
        option: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Result<Option<T>, ConfigError> {
        match self.text(option)?.filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => parse(&text).map(Some).map_err(|problem| self.invalid(option, &text, problem)),
        }
    }

    /// An option that may be unset, which is an empty list.
    fn list<T>(
        &self,
        option: &'static str,
        parse: impl FnOnce(&str) -> Result<Vec<T>, Problem>,
    ) -> Result<Vec<T>, ConfigError> {
        Ok(self.optional(option, parse)?.unwrap_or_default())
    }

    fn invalid(&self, option: &str, text: &str, problem: Problem) -> ConfigError {
        let kind = options::option(option).map(|spec| spec.kind);
        let value = match kind {
            Some(kind) if kind.may_hold_secrets() => value::without_secrets(text),
            _ => text.to_owned(),
        };
        let allowed = || kind.map(|kind| format!("{option} takes {}", kind.allowed())).unwrap_or_default();
        ConfigError::InvalidValue {
            place: self.config.place(self.section, option),
            value,
            problem: problem.problem,
            hint: problem.hint.unwrap_or_else(allowed),
        }
    }
}

fn on_failure(text: &str) -> Result<OnFailure, Problem> {
    match text.to_lowercase().as_str() {
        "rollback" => Ok(OnFailure::Rollback),
        "keep" => Ok(OnFailure::Keep),
        _ => Err(Problem::new("is not a word that on_failure knows")),
    }
}

fn on_interrupted(text: &str) -> Result<OnInterrupted, Problem> {
    match text.to_lowercase().as_str() {
        "continue" => Ok(OnInterrupted::Continue),
        "rollback" => Ok(OnInterrupted::Rollback),
        "ask" => Ok(OnInterrupted::Ask),
        _ => Err(Problem::new("is not a word that on_interrupted knows")),
    }
}

fn verify(text: &str) -> Result<Verify, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "blocks" => Ok(Verify::Blocks),
        "full" => Ok(Verify::Full),
        _ => Err(Problem::new("is not a word that verify knows")),
    }
}

fn default_date(text: &str) -> Result<DefaultDate, Problem> {
    match text.to_lowercase().as_str() {
        "today" => Ok(DefaultDate::Today),
        "latest" => Ok(DefaultDate::Latest),
        _ => Err(Problem::new("is not a word that default_date knows")),
    }
}

fn as_text<S: Serializer>(expressions: &[Regex], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(expressions.iter().map(Regex::as_str))
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}
