//! The table of every option that a target's section may hold. The manual page, `get`, the warnings about unknown
//! names and the defaults are all drawn from it.

/// One option of the configuration file.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Its name, in lower case.
    pub name: &'static str,
    /// What it means, for the manual.
    pub meaning: &'static str,
    /// What applies where neither the section nor `[DEFAULT]` sets it.
    pub default: DefaultValue,
    /// What values it takes.
    pub kind: Kind,
}

/// What applies where an option is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing: the section cannot be used without it.
    Required,
    /// Nothing, and nothing is needed.
    Unset,
    /// This value, as it would stand in the file.
    Value(&'static str),
}

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `True` or `False`.
    Bool,
    /// A number from 0.
    Count,
    /// A number from 1.
    Jobs,
    /// A TCP port.
    Port,
    /// A length of time.
    Duration,
    /// A share in percent.
    Percentage,
    /// A version of PostgreSQL.
    Version,
    /// A host, or the folder of a local socket.
    Host,
    /// A host, with or without a port, or a URL.
    BackupHost,
    /// A path below `backup_host`, or a URL.
    BackupPath,
    /// The undated name of a database.
    Database,
    /// The name of a role or database.
    Name,
    /// A path on this machine.
    LocalPath,
    /// A path on the target host.
    RemotePath,
    /// A folder, or the URL of a database.
    Journal,
    /// Names, separated by commas.
    Names,
    /// Regular expressions, separated by commas.
    Expressions,
    /// Words, quoted as in a shell.
    Words,
    /// One of the listed words.
    OneOf(&'static [&'static str]),
}

impl Kind {
    /// Whether a value may hold a password, as URLs do; such a value is shown without it.
    pub fn may_hold_secrets(self) -> bool {
        matches!(self, Kind::BackupHost | Kind::BackupPath | Kind::Journal)
    }

    /// What the option allows, for the manual and for error messages.
    pub fn allowed(self) -> String {
        let text = match self {
            Kind::Bool => "True or False (yes/no, on/off and 1/0 as well)",
            Kind::Count => "a whole number from 0",
            Kind::Jobs => "a whole number from 1 to 65535",
            Kind::Port => "a port from 1 to 65535",
            Kind::Duration => "a number with a unit: 30s, 5m, 1h",
            Kind::Percentage => "a percentage from 0% to 100%",
            Kind::Version => "a version as 15 or 9.6",
            Kind::Host => "a host name, an address, or the folder of a local socket",
            Kind::BackupHost => "host, host:port, or an http:// or https:// URL",
            Kind::BackupPath => "a path below backup_host, or an http:// or https:// URL",
            Kind::Database => "a name of at most 54 bytes, so that _YYYYMMDD still fits",
            Kind::Name => "a name of at most 63 bytes",
            Kind::LocalPath => "a path on this machine; ~ is the home directory",
            Kind::RemotePath => "a path on the target host",
            Kind::Journal => "a folder, or a postgres:// URL",
            Kind::Names => "names separated by commas",
            Kind::Expressions => "regular expressions separated by commas",
            Kind::Words => "words, quoted as in a shell",
            Kind::OneOf(words) => return words.join(" or "),
        };
        text.to_owned()
    }
}

/// The option of that name, which is in lower case.
pub fn option(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.name == name)
}

const fn spec(name: &'static str, kind: Kind, default: DefaultValue, meaning: &'static str) -> OptionSpec {
    OptionSpec { name, meaning, default, kind }
}

use DefaultValue::{Required, Unset, Value};

/// Every option, in the order of the manual.
pub static OPTIONS: &[OptionSpec] = &[
    spec("backup_host", Kind::BackupHost, Required, "the server that serves the backups over HTTP"),
    spec("backup_base_url", Kind::BackupPath, Required, "the directory that lists this database's dumps"),
    spec(
        "backup_token_file",
        Kind::LocalPath,
        Unset,
        "a file that holds the bearer token for the server of backup_base_url, and nothing else; without it, and without \
         a user in the URL, what ~/.netrc (or the file that $NETRC names) has for the host lets in",
    ),
    spec(
        "ca_file",
        Kind::LocalPath,
        Unset,
        "certificates (PEM) of authorities to trust besides the system's, for https",
    ),
    spec("dumpall_url", Kind::BackupPath, Unset, "the file made by pg_dumpall -g, for init"),
    spec("host", Kind::Host, Required, "the target host: PostgreSQL, pgbouncer, ssh and scp all use it"),
    spec("dbname", Kind::Database, Required, "the database's name; a dated copy is dbname_YYYYMMDD"),
    spec("dbowner", Kind::Name, Required, "the owner of the restored database"),
    spec("dbuser", Kind::Name, Value("postgres"), "the role that creates and drops databases"),
    spec("maintdb", Kind::Name, Value("postgres"), "the maintenance database"),
    spec("db_encoding", Kind::Name, Value("UTF8"), "the encoding given to CREATE DATABASE"),
    spec("postgres_port", Kind::Port, Value("5432"), "PostgreSQL's port, written into pgbouncer's entries"),
    spec("postgres_major", Kind::Version, Value("15"), "chooses the client programs through pg_restore"),
    spec(
        "pgbouncer_port",
        Kind::Port,
        Value("6432"),
        "pgbouncer's port, for connections unless said otherwise",
    ),
    spec(
        "pgbouncer_conf",
        Kind::RemotePath,
        Value("/etc/pgbouncer/pgbouncer.ini"),
        "pgbouncer's configuration file on the host",
    ),
    spec("remove_dump", Kind::Bool, Value("True"), "remove the fetched dump after a restore"),
    spec("keep_bases", Kind::Count, Value("2"), "how many dated copies purge keeps"),
    spec(
        "keep_days",
        Kind::Count,
        Value("0"),
        "of how many days, by their dates, purge keeps the copies beside those; 0 for none",
    ),
    spec(
        "purge_after_restore",
        Kind::Bool,
        Value("False"),
        "purge once a restore has switched the alias, as a run of its own",
    ),
    spec("auto_switch", Kind::Bool, Value("True"), "restore ends by pointing the alias at the new copy"),
    spec("use_sudo", Kind::Bool, Value("True"), "run the client script under sudo"),
    spec(
        "pg_restore",
        Kind::LocalPath,
        Value("/usr/lib/postgresql/%(postgres_major)s/bin/pg_restore"),
        "pg_restore's path; psql and pg_dump are its neighbours. When it is too old for a dump, or too new for the server, \
         another that is in /usr/lib/postgresql or on PATH is used",
    ),
    spec(
        "pg_restore_st",
        Kind::Bool,
        Value("False"),
        "restore in a single transaction; needs restore_jobs = 1",
    ),
    spec("restore_vacuum", Kind::Bool, Value("True"), "VACUUM ANALYZE after the restore"),
    spec("restore_jobs", Kind::Jobs, Value("1"), "how many workers restore in parallel"),
    spec(
        "fast",
        Kind::Bool,
        Value("True"),
        "load straight from the server, what is kept only and part by part; False brings the whole dump to tmpdir first, \
         as do verify = full, pg_restore_st = True, remove_dump = False, and a server or a dump that lends itself to \
         nothing else",
    ),
    spec(
        "verify",
        Kind::OneOf(&["blocks", "full"]),
        Value("blocks"),
        "how a dump is proven: each block of rows by its frame, or all of the file by the SHA-256 in the .sha256 file beside \
         it, for which it has to be fetched whole",
    ),
    spec("replication", Kind::LocalPath, Unset, "an ini file that describes the replication"),
    spec("tmpdir", Kind::LocalPath, Value("/tmp"), "where dumps are fetched to; -t wins over it"),
    spec(
        "sql_path",
        Kind::LocalPath,
        Unset,
        "the directory of <section>/pre/*.sql, <section>/post/*.sql and <section>/check/*.sql",
    ),
    spec("schemas", Kind::Names, Unset, "the only schemas to restore; all, where it is not set"),
    spec("schemas_nodata", Kind::Names, Unset, "schemas to restore without their rows"),
    spec(
        "tablename_nodata_regexp",
        Kind::Expressions,
        Unset,
        "tables to restore without their rows: unanchored, matched with schema.table",
    ),
    spec("search_path", Kind::Names, Unset, "the search_path to set for the database"),
    spec(
        "journal",
        Kind::Journal,
        Unset,
        "where the runs are recorded: a folder, or postgres://user@host:port/database",
    ),
    spec(
        "on_failure",
        Kind::OneOf(&["rollback", "keep"]),
        Value("rollback"),
        "what becomes of a run that fails: undone, or kept to be continued",
    ),
    spec(
        "on_interrupted",
        Kind::OneOf(&["continue", "rollback", "ask"]),
        Value("ask"),
        "what restore does first about a run that was interrupted, or stopped by a signal, on the same target: finish it, undo \
         it, or tell of it and leave it to be asked for",
    ),
    spec(
        "default_date",
        Kind::OneOf(&["today", "latest"]),
        Value("today"),
        "the backup that restore takes where no date is given",
    ),
    spec(
        "max_row_drop",
        Kind::Percentage,
        Unset,
        "how many of its rows a table may have lost since the section's last restore, before the check fails; rows are not \
         counted, where it is not set",
    ),
    spec("ssh_options", Kind::Words, Unset, "arguments put before the host in ssh and scp"),
    spec(
        "client_script",
        Kind::RemotePath,
        Value("./staging-client.sh"),
        "the client script's path on the target host",
    ),
    spec("retry_limit", Kind::Duration, Value("2m"), "how long a transient failure is retried"),
    spec(
        "stall_after",
        Kind::Duration,
        Value("30s"),
        "for how long nothing may come from the backup server before a restore tells that it is held up",
    ),
];
