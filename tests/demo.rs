//! The demonstration: a restore of a production database, one that is killed half-way and goes on, and the way back.
//!
//! Everything is real and private: PostgreSQL, pgbouncer and an HTTP server are started in a folder of their own, and are
//! gone with it at the end. What a user would type is printed, and what the program answers. Each answer and each state
//! of the world is looked at; the first that is not as promised is told, and the exit code is 1.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the demo is read on a terminal")]
#![allow(clippy::disallowed_methods, reason = "the demo stands outside of the program and starts it")]

#[path = "stage/mod.rs"]
mod stage;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use stage::{
    Conduct, LOCAL, Outcome, Scale, Serving, Site, SiteOptions, Stage, StageError, StageOptions, binary,
    fingerprint, source_database,
};

/// Of what is restored; a few megabytes in some fifty tables.
const SCALE: Scale = Scale::Full;
const YESTERDAY: &str = "2026-11-20";
const TODAY: &str = "2026-11-21";
const LIMIT: Duration = Duration::from_secs(120);

/// Sourced before users see the copy.
const MASKING: &str = "\
SET session_replication_role = replica;
UPDATE public.customer
   SET name = 'Customer ' || id, email = 'customer' || id || '@staging.example', secret = NULL,
       home = ('Street ' || id, 'Town', '00000')::public.address;
";

/// What is not as the demo promises.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    /// The stage did not do its part.
    #[error("{0}")]
    Stage(#[from] StageError),
    /// The program, or the world after it.
    #[error("{0}")]
    Promise(String),
}

type Checked<T = ()> = Result<T, Wrong>;

fn main() -> ExitCode {
    match play() {
        Ok(()) => {
            println!("\nThe demo is over: all was as it should be, and its servers are gone.");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("\ndemo: not as it should be: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Checked {
    tell(
        "Starting a private PostgreSQL, pgbouncer and HTTP server, and making a production database to dump …",
    );
    let stage = Stage::start(&StageOptions::default())?;
    let options = SiteOptions {
        dbname: Some("shop".into()),
        dates: vec![YESTERDAY.into(), TODAY.into()],
        scale: SCALE,
        serving: Serving::Rude,
        ..SiteOptions::default()
    };
    let mut site = Site::new(&stage, &options)?;
    site.set("restore_jobs", "2")?;
    site.set("schemas_nodata", "londiste")?;
    site.add_sql("post", "10-masking.sql", MASKING)?;
    let demo = Demo { site };
    demo.first_restore()?;
    let before_second = demo.site.bouncer().ini_bytes()?;
    let run = demo.broken_restore()?;
    demo.goes_on(&run)?;
    demo.way_back(&run)?;
    same(&demo.site.bouncer().ini_bytes()?, &before_second, "pgbouncer.ini after the rollback")
}

/// The site, and what is said about it.
struct Demo<'stage> {
    site: Site<'stage>,
}

impl Demo<'_> {
    /// The daily job, when all goes well.
    fn first_restore(&self) -> Checked {
        tell("1. The configuration: one section is one staging database.");
        println!("$ export PG_STAGING_CONFIG=pg_staging.ini\n$ cat $PG_STAGING_CONFIG");
        let ini = std::fs::read_to_string(self.site.ini_path())
            .map_err(|error| Wrong::Promise(format!("pg_staging.ini cannot be read: {error}")))?;
        print!("{ini}");
        tell("2. What a restore would do. Nothing is touched yet.");
        self.types(&["-n", "restore", "shop.dev", "20261120"], 0)?;
        same(&self.site.copies()?, &Vec::<String>::new(), "the copies after -n")?;
        tell("3. The restore. Users get the new copy only when it is loaded, masked and checked.");
        self.types(&["restore", "shop.dev", "20261120"], 0)?;
        self.users_see(YESTERDAY)?;
        self.equals_production(YESTERDAY)
    }

    /// Today's restore loses its process in the middle of the download. Gives the run's id, as it is shown.
    fn broken_restore(&self) -> Checked<String> {
        tell(
            "4. The next day's restore is killed half-way through the download: no signal handler, no goodbye.",
        );
        let rude = self.site.rude()?;
        rude.plan(&self.dump(), Conduct::StallAt(self.length()? / 2));
        println!("$ pg_staging restore shop.dev 20261121 &");
        let mut program = self.site.spawn_command(&mut self.command(&["restore", "shop.dev", "20261121"]))?;
        rude.wait_until_stalled(&self.dump(), LIMIT)?;
        if !program.is_running()? {
            return wrong(format_args!("the restore has ended before it was killed: {}", program.wait()?));
        }
        let pid = program.pid();
        program.signal(Signal::KILL)?;
        let outcome = program.wait()?;
        print!("{}", said(&outcome));
        println!(
            "$ kill -9 {pid}          # {} bytes of {} have come",
            rude.bytes_sent(&self.dump()),
            self.length()?
        );
        same(&outcome.code, &137, "the exit code of the killed restore")?;
        rude.behave(&self.dump());
        rude.forget_requests();

        tell("5. What happened is known, and users noticed nothing.");
        let history = self.types(&["history"], 0)?;
        contains(&history.stdout, "interrupted", "history")?;
        let run = self.newest_run("interrupted")?;
        let inspect = self.types(&["inspect", &run], 0)?;
        for text in ["interrupted", "restore", "running", "pg_staging continue"] {
            contains(&inspect.stdout, text, "inspect")?;
        }
        self.users_see(YESTERDAY)?;
        Ok(run)
    }

    /// The interrupted run is continued.
    fn goes_on(&self, run: &str) -> Checked {
        tell("6. It goes on from where it was: only the tables that are missing are fetched.");
        let outcome = self.types(&["continue", "shop.dev"], 0)?;
        contains(&outcome.stdout, run, "the last line of continue")?;
        let (sent, length) = (self.site.rude()?.bytes_sent(&self.dump()), self.length()?);
        println!("(the HTTP server sent {sent} bytes more, of {length})");
        if sent >= length {
            return wrong(format_args!("all of the dump was fetched again: {sent} bytes of {length}"));
        }
        self.users_see(TODAY)?;
        self.equals_production(TODAY)?;
        same(&self.site.copies()?, &[self.site.copy(YESTERDAY), self.site.copy(TODAY)], "the copies")
    }

    /// The second restore is undone.
    fn way_back(&self, run: &str) -> Checked {
        tell("7. The new copy is not what people wanted? The way back.");
        self.types(&["rollback", run, "--yes"], 0)?;
        self.users_see(YESTERDAY)?;
        same(&self.site.copies()?, &[self.site.copy(YESTERDAY)], "the copies after the rollback")?;
        same(&self.left_in_tmpdir()?, &Vec::<String>::new(), "what is left in tmpdir")?;
        tell("8. And all of it stays known.");
        let history = self.types(&["history"], 0)?;
        contains(&history.stdout, "rolled_back", "history")?;
        contains(&history.stdout, "succeeded", "history")
    }

    /// The program as a user would run it, with nothing of our environment but what it needs.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.env_clear().current_dir(self.site.folder()).stdin(Stdio::null()).args(arguments);
        command.env("PG_STAGING_CONFIG", "pg_staging.ini").env("HOME", self.site.folder().join("home"));
        for name in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs the program with these arguments, and prints what was typed and what came.
    fn types(&self, arguments: &[&str], code: i32) -> Checked<Outcome> {
        println!("$ pg_staging {}", arguments.join(" "));
        let outcome = self.site.spawn_command(&mut self.command(arguments))?.wait()?;
        print!("{}", said(&outcome));
        same(&outcome.code, &code, &format!("the exit code of pg_staging {}", arguments.join(" ")))?;
        Ok(outcome)
    }

    /// Looks through pgbouncer, as a user does.
    fn users_see(&self, date: &str) -> Checked {
        let port = self.site.bouncer().port().to_string();
        let sql = "SELECT current_database(), count(*), min(email::text) AS first_email FROM customer";
        println!("$ psql -h {LOCAL} -p {port} -U postgres shop -c \"{sql}\"");
        let mut psql = self.site.cluster().client("psql");
        psql.args(["-X", "-h", LOCAL, "-p", &port, "-U", "postgres", "shop", "-c", sql]);
        let output = psql.output().map_err(|error| Wrong::Promise(format!("psql cannot be run: {error}")))?;
        let answer = String::from_utf8_lossy(&output.stdout);
        print!("{answer}{}", String::from_utf8_lossy(&output.stderr));
        contains(&answer, &self.site.copy(date), "what users see")?;
        contains(&answer, "@staging.example", "the masked address that users see")
    }

    /// Compares the copy with production, table by table: only what was masked or left out may differ.
    fn equals_production(&self, date: &str) -> Checked {
        let cluster = self.site.cluster();
        let production = fingerprint(cluster, &source_database(SCALE))?;
        let copy = fingerprint(cluster, &self.site.copy(date))?;
        let mut differing: Vec<&str> = Vec::new();
        for (name, table) in &production {
            if copy.get(name) != Some(table) {
                differing.push(name);
            }
        }
        println!(
            "({} tables, views and sequences were compared with production; these differ: {})",
            production.len(),
            differing.join(", ")
        );
        same(&differing, &["londiste.event", "londiste.queue", "public.customer"], "what differs")?;
        same(&copy.len(), &production.len(), "the number of tables, views and sequences")
    }

    /// The shown id of the one run with that status.
    fn newest_run(&self, status: &str) -> Checked<String> {
        let mut command = self.command(&["history", "--json", "--status", status]);
        let outcome = self.site.spawn_command(&mut command)?.wait()?;
        let history: Value = serde_json::from_str(&outcome.stdout)
            .map_err(|error| Wrong::Promise(format!("history --json is not JSON: {error}: {outcome}")))?;
        match history.pointer("/runs").and_then(Value::as_array).map(Vec::as_slice) {
            Some([run]) => Ok(short(run.get("id").and_then(Value::as_str).unwrap_or_default())),
            _ => wrong(format_args!("history --json should show one {status} run: {outcome}")),
        }
    }

    /// The path of today's dump on the HTTP server.
    fn dump(&self) -> String {
        format!("/shop/{}", self.site.backup_name(TODAY))
    }

    /// Its length in bytes.
    fn length(&self) -> Checked<u64> {
        let found = std::fs::metadata(self.site.dump());
        found.map(|found| found.len()).map_err(|error| Wrong::Promise(format!("there is no dump: {error}")))
    }

    fn left_in_tmpdir(&self) -> Checked<Vec<String>> {
        let tmpdir: PathBuf = self.site.tmpdir();
        let entries = std::fs::read_dir(&tmpdir)
            .map_err(|error| Wrong::Promise(format!("{} cannot be read: {error}", tmpdir.display())))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
}

fn tell(text: &str) {
    println!("\n# {text}");
}

/// What a terminal would show: progress, then the result.
fn said(outcome: &Outcome) -> String {
    format!("{}{}", outcome.stderr, outcome.stdout)
}

/// A run's id as the program shows it: its last eight digits, which are random.
fn short(id: &str) -> String {
    let digits: String = id.chars().filter(|c| *c != '-').collect();
    digits.get(digits.len().saturating_sub(8)..).unwrap_or_default().to_owned()
}

fn wrong<T>(what: impl Display) -> Checked<T> {
    Err(Wrong::Promise(what.to_string()))
}

fn same<T: PartialEq<U> + std::fmt::Debug + ?Sized, U: std::fmt::Debug + ?Sized>(
    found: &T,
    expected: &U,
    what: &str,
) -> Checked {
    if found == expected { Ok(()) } else { wrong(format_args!("{what}: {found:?}, not {expected:?}")) }
}

fn contains(text: &str, part: &str, what: &str) -> Checked {
    if text.contains(part) { Ok(()) } else { wrong(format_args!("{what} does not say '{part}':\n{text}")) }
}
