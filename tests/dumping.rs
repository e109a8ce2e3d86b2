//! `dump` and `redump`: under the name of a dump there is always a whole one, the old or the new.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use rustix::process::Signal;

use crate::{
    failures::SmallDisk,
    stage::{Outcome, Program, Scale, Site, SiteOptions, Stage, fingerprint, wait_until},
    traces::{Traces, fails, is_refused, last_run, names_in, plain, says, succeeds},
};

const DAY: &str = "20261121";
const LIMIT: Duration = Duration::from_secs(60);

/// A site whose active copy holds one table.
fn site() -> Site<'static> {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.set("retry_limit", "1s").unwrap();
    for command in ["createdb", "switch"] {
        succeeds(&site, &[command, &site.section(), DAY]);
    }
    let rows = "CREATE TABLE item AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 5000) g;";
    site.cluster().psql(&site.copy(DAY), rows).unwrap();
    site
}

/// What pg_restore lists of a dump, without its head.
fn listed(site: &Site<'_>, file: &Path) -> Vec<String> {
    let output = site.cluster().client("pg_restore").arg("--list").arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect()
}

#[track_caller]
fn is_whole(site: &Site<'_>, file: &Path) {
    assert!(listed(site, file).iter().any(|line| line.contains("TABLE DATA public item")), "{file:?}");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
}

/// A session that holds the table back from pg_dump until it is told to end.
struct Held {
    psql: Child,
}

impl Held {
    fn table(site: &Site<'_>) -> Held {
        let mut psql = site.cluster().client("psql");
        psql.args(["-Xq", "-d", &site.copy(DAY), "-c", "BEGIN", "-c", "LOCK TABLE item"]);
        psql.args(["-c", "SELECT pg_sleep(600)"]).stdout(Stdio::null()).stderr(Stdio::null());
        let psql = psql.spawn().unwrap();
        wait_until("a lock", LIMIT, || count(site, "granted AND mode = 'AccessExclusiveLock'") == 1).unwrap();
        Held { psql }
    }

    fn let_go(mut self, site: &Site<'_>) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' \
                   AND pid <> pg_backend_pid() AND datname = current_database()";
        site.cluster().psql(&site.copy(DAY), sql).unwrap();
        self.psql.wait().unwrap();
    }
}

/// How many sessions have, or wait for, such a lock on the table.
fn count(site: &Site<'_>, what: &str) -> u32 {
    let sql = format!(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE relation = 'item'::regclass AND {what}"
    );
    site.cluster().psql(&site.copy(DAY), &sql).unwrap().trim().parse().unwrap()
}

/// Starts the command and waits until its pg_dump stands before the held table.
fn held_up(site: &Site<'_>, arguments: &[&str]) -> Program {
    let program = site.spawn(arguments).unwrap();
    wait_until("pg_dump to be held up", LIMIT, || {
        let run = last_run(site);
        let ours =
            format!("NOT granted AND application_name = 'pg_staging:{}:dump'", run["id"].as_str().unwrap());
        run["command"] == arguments[0] && run["status"] == "running" && count(site, &ours) == 1
    })
    .unwrap();
    program
}

#[test]
fn a_dump_that_is_loaded_makes_the_same_database() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    succeeds(&site, &["restore", &section, DAY]);
    let original = fingerprint(site.cluster(), &site.copy(DAY)).unwrap();
    assert_eq!(original, fingerprint(site.cluster(), &crate::stage::source_database(Scale::Small)).unwrap());
    let before = Traces::of(&site);

    let today = Timestamp::now().to_zoned_datetime(TimeZone::UTC).date();
    let name = site.backup_name(&today.to_string());
    let file = site.tmpdir().join(&name);
    let planned = succeeds(&site, &["-n", "dump", &section]);
    let here = format!("<site>/tmp/shop.{today}.dump");
    says(
        &plain(&site, &planned.stdout),
        &format!(
            "dump shop.dev would make these steps on 127.0.0.1:\n  1  preflight        look at PostgreSQL on 127.0.0.1, <bin>/pg_restore\n  2  dump             pg_dump shop_20261121, to be {here}\n  3  publish          name the dump {here}\n"
        ),
    );
    let outcome = succeeds(&site, &["dump", &section]);
    let size = regex::Regex::new(r"\d+ [kM]B").unwrap().replace(&outcome.stdout, "<size>").into_owned();
    says(&plain(&site, &size), &format!("dump shop.dev: {here}, <size> (run <run>, <seconds> s)\n"));
    assert_eq!(names_in(&site.tmpdir()), [name]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!((Traces::of(&site).databases, Traces::of(&site).ini), (before.databases, before.ini));

    // The name tells load which copy to make.
    succeeds(&site, &["load", &section, &file.display().to_string()]);
    let copy = site.copy(&today.to_string());
    assert_eq!(site.active().unwrap().as_ref(), Some(&copy));
    assert_eq!(fingerprint(site.cluster(), &copy).unwrap(), original);
}

#[test]
fn a_file_that_is_there_is_replaced_by_redump_only() {
    let site = site();
    let section = site.section();
    let file = site.folder().join("my.dump");
    fs::write(&file, "somebody's").unwrap();
    fails(
        &site,
        &["dump", &section, "my.dump"],
        1,
        "<site>/my.dump exists already\n\
         hint: name another file, or have it replaced with redump",
    );
    assert_eq!(fs::read(&file).unwrap(), b"somebody's");

    let planned = succeeds(&site, &["-n", "redump", &section, "my.dump"]);
    assert!(
        plain(&site, &planned.stdout)
            .ends_with("publish          name the dump <site>/my.dump, in place of an older one\n")
    );
    succeeds(&site, &["redump", &section, "my.dump"]);
    is_whole(&site, &file);
    // It need not have been there.
    succeeds(&site, &["redump", &section, "other.dump"]);
    is_whole(&site, &site.folder().join("other.dump"));
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    is_refused(
        &site,
        &["rollback", &run, "--yes"],
        1,
        "run <run> is succeeded: its step 'publish' took effect and cannot be taken back",
    );

    let taken_back = site.folder().join("third.dump");
    succeeds(&site, &["dump", &section, &taken_back.display().to_string()]);
    is_whole(&site, &taken_back);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    succeeds(&site, &["rollback", &run, "--yes"]);
    assert!(!taken_back.exists());
    let dumps: Vec<String> =
        names_in(site.folder()).into_iter().filter(|name| name.contains(".dump")).collect();
    assert_eq!(dumps, ["my.dump", "other.dump"]);
}

#[test]
fn a_place_where_no_dump_can_be_is_refused_before_anything_is_made() {
    let site = site();
    let section = site.section();
    fails(
        &site,
        &["dump", &section, "none/my.dump"],
        1,
        "cannot write in <site>/none\n\
         cause: No such file or directory (os error 2)\n\
         hint: make that folder, or name a file in another: <site>/none/my.dump cannot be written",
    );
    fs::write(site.folder().join("letter"), "a letter").unwrap();
    fails(
        &site,
        &["dump", &section, "letter/my.dump"],
        1,
        "cannot write in <site>/letter\n\
         cause: not a directory\n\
         hint: make that folder, or name a file in another: <site>/letter/my.dump cannot be written",
    );
    symlink("letter", site.folder().join("link")).unwrap();
    for name in ["tmp", "link"] {
        fails(
            &site,
            &["redump", &section, name],
            1,
            &format!(
                "<site>/{name} is not a file that can be replaced\n\
                 hint: name another file, or take away what is there"
            ),
        );
    }
    assert_eq!(fs::read(site.folder().join("letter")).unwrap(), b"a letter");
    is_refused(
        &site,
        &["dump", "nobody.dev"],
        6,
        "<site>/pg_staging.ini: no section [nobody.dev]\n\
         hint: the sections are shop.dev",
    );
}

#[test]
fn without_an_active_copy_there_is_nothing_to_dump() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    for command in ["dump", "redump"] {
        is_refused(
            &site,
            &[command, &section],
            6,
            "no copy is active\n\
             hint: `switch <dbname> <date>` makes a copy active; `databases <dbname>` lists them",
        );
    }
    for command in ["createdb", "switch"] {
        succeeds(&site, &[command, &section, DAY]);
    }
    let copy = site.copy(DAY);
    site.cluster().psql("postgres", &format!("DROP DATABASE {copy} WITH (FORCE)")).unwrap();
    fails(
        &site,
        &["dump", &section],
        6,
        "there is no database shop_20261121\n\
         hint: pg_staging databases shop.dev lists those there are; pg_staging restore shop.dev 20261121 makes this one",
    );
}

#[test]
fn a_pg_dump_that_fails_is_told_in_its_own_words_and_leaves_the_old_dump() {
    let mut site = site();
    let section = site.section();
    let file = site.folder().join("my.dump");
    fs::write(&file, "the old dump").unwrap();
    let copy = site.copy(DAY);
    site.cluster().psql(&copy, "CREATE SCHEMA lost; CREATE TABLE lost.thing (); DELETE FROM pg_namespace WHERE nspname = 'lost';").unwrap();
    let outcome = site.run(&["redump", &section, "my.dump"]).unwrap();
    let said = regex::Regex::new(r"OID \d+").unwrap();
    let error = crate::traces::error(&site, &outcome);
    says(
        &said.replace_all(&error, "OID <oid>"),
        "redump shop.dev failed, and what it had done is undone (run <run>): pg_dump of shop_20261121 failed (exit status: 1)\n\
         cause: pg_dump: error: schema with OID <oid> does not exist\n\
         hint: see all it said: pg_staging inspect <run>",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    let told = succeeds(&site, &["inspect", &run]);
    assert!(told.stdout.contains("what dump said last:\n  | pg_dump: error: schema with OID"), "{told}");
    assert_eq!(fs::read(&file).unwrap(), b"the old dump");

    let bin = site.folder().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["pg_restore", "psql"] {
        symlink(site.cluster().bin().join(name), bin.join(name)).unwrap();
    }
    site.set("pg_restore", &bin.join("pg_restore").display().to_string()).unwrap();
    fails(
        &site,
        &["redump", &section, "my.dump"],
        1,
        "there is no program <site>/bin/pg_dump\n\
         hint: install PostgreSQL's client programs, or set postgres_major or pg_restore to where they are",
    );
    let dumps: Vec<String> =
        names_in(site.folder()).into_iter().filter(|name| name.contains(".dump")).collect();
    assert_eq!((dumps, fs::read(&file).unwrap()), (vec!["my.dump".to_owned()], b"the old dump".to_vec()));
}

#[test]
fn a_disk_that_is_full_leaves_the_old_dump() {
    let site = site();
    let folder = site.folder().join("small");
    fs::create_dir(&folder).unwrap();
    let Some(_disk) = SmallDisk::mount(&folder, "64k") else { return };
    fs::write(folder.join("my.dump"), "the old dump").unwrap();
    fails(
        &site,
        &["redump", &site.section(), "small/my.dump"],
        1,
        "pg_dump of shop_20261121 failed (exit status: 1)\n\
         cause: pg_dump: error: could not write to output file: No space left on device\n\
         hint: make room in <site>/small, or name a file elsewhere",
    );
    assert_eq!(names_in(&folder), ["my.dump"]);
    assert_eq!(fs::read(folder.join("my.dump")).unwrap(), b"the old dump");
}

#[test]
fn a_dump_killed_half_way_is_made_anew_or_leaves_nothing() {
    let site = site();
    let section = site.section();
    let file = site.folder().join("my.dump");
    let dumps = || -> Vec<String> {
        names_in(site.folder()).into_iter().filter(|name| name.contains(".dump")).collect()
    };
    for command in ["dump", "redump"] {
        let old = if command == "redump" { vec!["my.dump".to_owned()] } else { Vec::new() };
        if command == "redump" {
            fs::write(&file, "the old dump").unwrap();
        }
        let held = Held::table(&site);
        held_up(&site, &[command, &section, "my.dump"]).kill().unwrap();
        let run = last_run(&site);
        let id = run["id"].as_str().unwrap().to_owned();
        assert_eq!(run["status"], "interrupted");
        let part = format!("my.dump.{id}.part");
        assert!(dumps().contains(&part), "{:?}", dumps());
        assert_eq!(fs::metadata(site.folder().join(&part)).unwrap().permissions().mode() & 0o7777, 0o600);
        succeeds(&site, &["rollback", &id]);
        assert_eq!(dumps(), old);

        let mut program = held_up(&site, &[command, &section, "my.dump"]);
        program.signal(Signal::TERM).unwrap();
        let outcome = program.wait().unwrap();
        assert_eq!(outcome.code, 143, "{outcome}");
        if command == "redump" {
            assert_eq!(fs::read(&file).unwrap(), b"the old dump");
        }
        held.let_go(&site);
        succeeds(&site, &["continue", &section]);
        assert_eq!(dumps(), ["my.dump"]);
        is_whole(&site, &file);
        fs::remove_file(&file).unwrap();
    }
}

/// Runs the command under strace with these options.
fn traced(site: &Site<'_>, options: &[&str], arguments: &[&str]) -> Outcome {
    let wanted = site.command(arguments);
    let mut command = Command::new("strace");
    command.env_clear().envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(site.folder()).stdin(Stdio::null());
    command.args(["-qq", "-y", "-e", "signal=none"]).args(options);
    command.arg("--").arg(wanted.get_program()).args(wanted.get_args());
    site.spawn_command(&mut command).unwrap().wait().unwrap()
}

/// Which of the calls of its kind, counted from 1, is the last one with that path.
fn last_with(site: &Site<'_>, call: &str, path: &Path, arguments: &[&str]) -> usize {
    let log = site.folder().join("strace").display().to_string();
    let outcome = traced(site, &["-o", &log, "-e", &format!("trace={call}")], arguments);
    assert_eq!(outcome.code, 0, "{outcome}");
    let log = fs::read_to_string(log).unwrap();
    let path = path.display().to_string();
    let quoted = [format!("{path}\""), format!("{path}>")];
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.iter().rposition(|line| quoted.iter().any(|path| line.contains(path)));
    last.unwrap_or_else(|| panic!("{call} {path}:\n{log}")) + 1
}

#[test]
fn a_dump_killed_around_its_naming_is_named_or_taken_back() {
    if !crate::killed::can_trace() {
        return;
    }
    let site = site();
    let section = site.section();
    let folder = site.folder().join("dumps");
    fs::create_dir(&folder).unwrap();
    let file: PathBuf = folder.join("my.dump");
    let typed = file.display().to_string();
    // The folder is synced last when the dump has its name.
    let moments = [
        ("dump", "linkat", &file, false),
        ("dump", "fsync", &folder, true),
        ("redump", "rename", &file, false),
        ("redump", "fsync", &folder, true),
    ];
    for (command, call, path, named) in moments {
        let nth = last_with(&site, call, path, &[command, &section, &typed]);
        fs::remove_file(&file).unwrap();
        for then in ["continue", "rollback"] {
            let when = format!("{command} killed at {call} {nth}, then {then}");
            if command == "redump" {
                fs::write(&file, "the old dump").unwrap();
            }
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let options = ["-o", "/dev/null", "-e", &inject];
            let outcome = traced(&site, &options, &[command, &section, &typed]);
            assert_eq!(outcome.code, 137, "{when}: {outcome}");
            let run = last_run(&site);
            assert_eq!(run["status"], "interrupted", "{when}: {run}");
            let id = run["id"].as_str().unwrap();
            match (then, command, named) {
                ("continue", ..) => {
                    succeeds(&site, &["continue", id]);
                    is_whole(&site, &file);
                }
                (_, "dump", _) => {
                    succeeds(&site, &["rollback", id]);
                    assert_eq!(names_in(&folder), Vec::<String>::new(), "{when}");
                    continue;
                }
                (_, _, false) => {
                    succeeds(&site, &["rollback", id]);
                    assert_eq!(fs::read(&file).unwrap(), b"the old dump", "{when}");
                }
                (_, _, true) => {
                    let refused = site.run(&["rollback", id]).unwrap();
                    assert_eq!(refused.code, 1, "{when}: {refused}");
                    succeeds(&site, &["continue", id]);
                    is_whole(&site, &file);
                }
            }
            assert_eq!(names_in(&folder), ["my.dump"], "{when}");
            fs::remove_file(&file).unwrap();
        }
    }
}
