//! What may be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command;

/// Keeps PostgreSQL staging environments fed from production backups.
///
/// Every command that changes something is a run of journaled steps: it can be continued after a crash, rolled back,
/// and asked about later.
///
/// Without a command it opens a console on a terminal, and elsewhere reads commands from standard input, one a line.
#[derive(Debug, Parser)]
#[command(name = "pg_staging", version)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of all commands.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Configuration file [default: $PG_STAGING_CONFIG, /etc/hm-tools/pg_staging.ini, /etc/pg_staging/pg_staging.ini]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the plan, step by step, and do nothing
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
    /// Tell every event
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Tell errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Show the chain of causes, with the programs that were run
    #[arg(short, long, global = true)]
    pub debug: bool,
    /// Where dumps are fetched to; wins over the configuration's tmpdir
    #[arg(short, long, global = true, value_name = "TMPDIR")]
    pub tmpdir: Option<PathBuf>,
    /// Results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours [default: auto]
    #[arg(long, global = true, value_enum)]
    pub color: Option<Color>,
    /// Where the journal is: a folder, or postgres://… [default: the configuration's, else /var/lib/pg_staging for root, else ~/.local/state/pg_staging]
    #[arg(long, global = true, value_name = "WHERE")]
    pub journal: Option<String>,
    /// Wait for a busy target, for ever or for so long (30s, 5m, 1h), instead of ending with code 5
    #[arg(long, global = true, value_name = "LIMIT", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = limit)]
    pub wait: Option<Limit>,
    /// Do not ask
    #[arg(short, long, global = true)]
    pub yes: bool,
}

impl Global {
    /// What holds for one line of a session: what was typed there, and what the session began with where that says
    /// nothing else.
    #[must_use]
    pub fn over(self, session: &Global) -> Global {
        Global {
            verbose: self.verbose || session.verbose && !self.quiet,
            quiet: self.quiet || session.quiet && !self.verbose,
            config: self.config.or_else(|| session.config.clone()),
            dry_run: self.dry_run || session.dry_run,
            debug: self.debug || session.debug,
            tmpdir: self.tmpdir.or_else(|| session.tmpdir.clone()),
            json: self.json || session.json,
            color: self.color.or(session.color),
            journal: self.journal.or_else(|| session.journal.clone()),
            wait: self.wait.or(session.wait),
            yes: self.yes || session.yes,
        }
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

fn limit(text: &str) -> Result<Limit, String> {
    if text.is_empty() {
        return Ok(Limit(None));
    }
    duration(text).map(|limit| Limit(Some(limit)))
}

/// A length of time in whole seconds, minutes or hours, as people type it: `30s`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let number: u64 =
        number.parse().map_err(|_| "a number and s, m or h is needed: 30s, 5m, 1h".to_owned())?;
    let seconds = match unit {
        "" | "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        other => return Err(format!("'{other}' is no unit of time: s, m or h is needed")),
    };
    Ok(Duration::from_secs(seconds))
}

/// What commands belong together. The number is clap's display order, by which a command carries its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// What the program is for.
    Main = 100,
    /// What there is.
    Listings = 200,
    /// pgbouncer.
    Pgbouncer = 300,
    /// Services on the target host.
    Services = 400,
    /// What a dump holds; from the shell only.
    Experimental = 500,
    /// What was done, and what is left to do.
    Journal = 600,
    /// The program itself.
    Program = 700,
    /// What only a session knows: the console, and scripts.
    Session = 800,
}

impl Group {
    /// All of them, in order.
    pub const ALL: [Group; 8] = [
        Group::Main,
        Group::Listings,
        Group::Pgbouncer,
        Group::Services,
        Group::Experimental,
        Group::Journal,
        Group::Program,
        Group::Session,
    ];

    /// The group of a command, when it has one.
    pub fn of(command: &clap::Command) -> Option<Group> {
        Group::ALL.into_iter().find(|group| *group as usize == command.get_display_order())
    }

    /// Its name, as the manual has it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Main => "main operation",
            Group::Listings => "listings",
            Group::Pgbouncer => "pgbouncer",
            Group::Services => "services",
            Group::Experimental => "experimental",
            Group::Journal => "journal",
            Group::Program => "program",
            Group::Session => "console and scripts",
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new copy from a backup, prove it, and point the alias at it
    #[command(display_order = Group::Main as usize)]
    Restore(command::restore::Restore),
    /// Make a new copy from a dump on this machine
    #[command(display_order = Group::Main as usize)]
    Load(command::restore::Load),
    /// Bring a backup here, and leave it in tmpdir
    #[command(display_order = Group::Main as usize)]
    Fetch(command::restore::Fetch),
    /// Make the empty copy and its entry in pgbouncer
    #[command(display_order = Group::Main as usize)]
    Createdb(command::copies::Createdb),
    /// Point the alias at a copy
    #[command(display_order = Group::Main as usize)]
    Switch(command::copies::Switch),
    /// Take a copy away: its entry in pgbouncer, then the database
    ///
    /// New clients are turned away first; those that are connected are not waited for. What is left of a copy goes as well: a
    /// database without an entry, or an entry without a database. With --force the alias that points at the copy goes too,
    /// since it would show the next copy of that name before that is proven.
    #[command(display_order = Group::Main as usize)]
    Drop(command::copies::Drop),
    /// List the sections of the configuration, or the copies that one has
    ///
    /// Sections are listed without asking a server, those that cannot be used as well; why not is told.
    #[command(display_order = Group::Listings as usize)]
    Databases(command::databases::Databases),
    /// Show how large a copy is
    #[command(display_order = Group::Listings as usize)]
    Dbsize(command::sizes::Dbsize),
    /// Show how large all copies of some sections are
    ///
    /// A section whose server cannot be asked is told, the others are shown, and the exit status is 1.
    #[command(display_order = Group::Listings as usize)]
    Dbsizes(command::sizes::Dbsizes),
    /// Show a setting of PostgreSQL, as it is in a copy
    #[command(display_order = Group::Listings as usize)]
    Show(command::show::Show),
    /// List pgbouncer's entries of the alias and its copies
    #[command(display_order = Group::Pgbouncer as usize)]
    Pgbouncer(command::pgbouncer::Pgbouncer),
    /// Open psql on a copy, through pgbouncer
    ///
    /// It is the psql beside pg_restore, and works as the role dbuser. Without a terminal it reads its commands from
    /// standard input; as a line of a script it has nothing to read, and takes its commands from arguments. Whatever status it fails with, the exit status is 1. The journal has that it was run, and by whom,
    /// but neither its arguments nor what was typed.
    #[command(display_order = Group::Main as usize)]
    Psql(command::psql::Psql),
    /// Show an option of the configuration, and where its value comes from
    ///
    /// The value goes to standard output, where it comes from to standard error. Passwords in URLs are not shown.
    #[command(display_order = Group::Program as usize)]
    Get(command::get::Get),
    /// Take away all copies but the newest keep_bases, the protected, and those in use
    ///
    /// Those of the last keep_days days stay as well.
    /// The oldest go first, each as drop does it. A copy never goes while an entry of pgbouncer points at it, nor when it
    /// belongs to a run that can still be continued; -n tells which would go, and why the others stay.
    #[command(display_order = Group::Main as usize)]
    Purge(command::purge::Purge),
    /// Keep drop and purge from a copy, until a day or for good
    ///
    /// It is noted on the database itself, and holds for everybody. drop takes the copy away with --force all the same; the
    /// restore that made it is not rolled back before unprotect. databases shows what is protected, and why.
    #[command(display_order = Group::Main as usize)]
    Protect(command::protect::Protect),
    /// Let drop and purge take a copy away again
    #[command(display_order = Group::Main as usize)]
    Unprotect(command::protect::Unprotect),
    /// Source the section's pre SQL files in a copy
    ///
    /// The files `pre/*.sql` below the section's folder in sql_path are sourced by psql in alphabetical order, a step each.
    /// A file that can run within one transaction takes effect exactly once, whatever happens; of another one that fails or
    /// is interrupted nobody can tell how far it came, and the run is stuck until you say so (resolve). What a file did
    /// cannot be undone: when a later one fails, the run stops, to be continued once that file is mended.
    #[command(display_order = Group::Main as usize)]
    Presql(command::upkeep::Presql),
    /// Source the section's post SQL files in a copy
    ///
    /// As presql, with `post/*.sql`: what restore sources when the data is there, such as what masks it.
    #[command(display_order = Group::Main as usize)]
    Postsql(command::upkeep::Postsql),
    /// VACUUM ANALYZE a copy
    #[command(display_order = Group::Main as usize)]
    Vacuumdb(command::upkeep::Vacuumdb),
    /// Set the configured search_path for a copy
    ///
    /// Sessions that begin afterwards have it. Rollback sets what was set before.
    #[command(name = "search_path", display_order = Group::Main as usize)]
    SearchPath(command::upkeep::SearchPath),
    /// Make the roles and tablespaces of production on the target, from dumpall_url
    ///
    /// Applies what pg_dumpall -g has written, as psql would: roles with their passwords, memberships and settings, then
    /// tablespaces. Those that exist already are told and are no error, so init can be run again. All about roles is one
    /// transaction: when anything else goes wrong, none of it took effect. PostgreSQL is reached on postgres_port; pgbouncer need
    /// not be set up yet. Passwords are neither shown nor recorded, and the file is never written to a disk here.
    #[command(display_order = Group::Main as usize)]
    Init(command::init::Init),
    /// List the backups there are, newest first
    ///
    /// Sizes and times are the server's own: from its listing where that tells them exactly (JSON, object stores), and
    /// otherwise by asking for each dump that is shown. In JSON, `exact` says whether that could be had.
    #[command(display_order = Group::Listings as usize)]
    Backups(command::backups::Backups),
    /// List the tables that are restored without rows, and why
    ///
    /// When no dump is named and the backup cannot be had, the tables that the replication file names are listed all the
    /// same, with a warning: they need no dump to be known.
    #[command(display_order = Group::Experimental as usize)]
    Nodata(command::contents::Nodata),
    /// Print what of a dump is restored, as a list for pg_restore -L
    ///
    /// Entries that are not restored are commented out, with the reason. Of a backup on the server only the table of
    /// contents is fetched.
    #[command(display_order = Group::Experimental as usize)]
    Catalog(command::contents::Catalog),
    /// List the functions that a dump's triggers call
    ///
    /// They have to be kept when a schema is left out, or their triggers go as well. Of a backup on the server only the
    /// table of contents is fetched.
    #[command(display_order = Group::Experimental as usize)]
    Triggers(command::contents::Triggers),
    /// Start pgbouncer or PostgreSQL on the target host, and wait until it answers
    ///
    /// The client script does it there, by systemctl, by service(8), or as the host's /etc/pg_staging/client.conf says. What
    /// runs already is left alone. A service that does not answer within the limit is stopped again, unless on_failure is
    /// keep.
    #[command(display_order = Group::Services as usize)]
    Start(command::services::Start),
    /// Stop pgbouncer or PostgreSQL on the target host, and wait until it is silent
    ///
    /// As start. A run at work on this target is never cut off: then the command ends with code 5, or waits with --wait.
    #[command(display_order = Group::Services as usize)]
    Stop(command::services::Stop),
    /// Stop pgbouncer or PostgreSQL on the target host, and start it again
    #[command(display_order = Group::Services as usize)]
    Restart(command::services::Restart),
    /// Say whether pgbouncer or PostgreSQL runs on the target host, and whether it answers
    ///
    /// Ends with code 0 when the service runs, as the host says, and with 1 when it is stopped.
    #[command(display_order = Group::Services as usize)]
    Status(command::services::Status),
    /// Dump the active copy into a new file, which load reads
    ///
    /// Only a dump that is whole gets the file's name. It is made by pg_dump -Fc, pg_restore's neighbour, from PostgreSQL's
    /// own port, or where that cannot be reached through pgbouncer, which should pool sessions then: pg_dump relies on
    /// its settings from one statement to the next.
    #[command(display_order = Group::Main as usize)]
    Dump(command::dumping::Dump),
    /// Dump the active copy in place of an older dump
    ///
    /// As dump, and the older file stays until the new one is whole. There need not be one.
    #[command(display_order = Group::Main as usize)]
    Redump(command::dumping::Redump),
    /// Hold back the clients of a name in pgbouncer, once their transactions have ended
    ///
    /// Their queries wait until resume; pgbouncer turns away those that wait for longer than its query_wait_timeout, two
    /// minutes unless configured. In session pooling, pgbouncer waits for every client to leave. When clients keep their
    /// server connections for longer than the limit, or the command is asked to stop, the pause is undone. A name that
    /// is paused already stays so.
    #[command(display_order = Group::Pgbouncer as usize)]
    Pause(command::pooling::Pause),
    /// Let the clients of a paused name go on
    #[command(display_order = Group::Pgbouncer as usize)]
    Resume(command::pooling::Resume),
    /// Go on with a run that was interrupted or stopped
    #[command(display_order = Group::Journal as usize)]
    Continue(command::runs::Continue),
    /// Undo what a run did
    #[command(display_order = Group::Journal as usize)]
    Rollback(command::runs::Rollback),
    /// List runs, newest first
    #[command(display_order = Group::Journal as usize)]
    History(command::history::History),
    /// Show one run: its steps, attempts, times and errors
    #[command(display_order = Group::Journal as usize)]
    Inspect(command::inspect::Inspect),
    /// Show every event of the journal, oldest first
    #[command(display_order = Group::Journal as usize)]
    Audit(command::audit::Audit),
    /// Look on while another process is at work on a run, and end as it does
    #[command(display_order = Group::Journal as usize)]
    Follow(command::follow::Follow),
    /// Say what became of a step that nobody but you can see
    #[command(display_order = Group::Journal as usize)]
    Resolve(command::mending::Resolve),
    /// Close a run that will be neither continued nor rolled back
    #[command(display_order = Group::Journal as usize)]
    Abandon(command::mending::Abandon),
    /// Look after the journal: verify, rebuild, export, import, prune, path
    #[command(display_order = Group::Journal as usize)]
    Journal(command::journal_upkeep::Journal),
    /// List the commands
    #[command(display_order = Group::Program as usize)]
    Commands(command::commands::Commands),
    /// Print the script by which a shell completes what is typed
    #[command(display_order = Group::Program as usize)]
    Completions(command::commands::Completions),
}
