//! What old files rely on: the table of cases, files of every shape whose reading by Python was recorded, and a
//! section from end to end.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn load(text: &str) -> Config {
    Config::parse(Path::new("pg_staging.ini"), text.as_bytes()).unwrap()
}

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    section: String,
    option: String,
    expect: Option<String>,
    error: Option<String>,
}

#[test]
fn the_cases_that_old_files_rely_on_hold() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/data/ini-cases.json")).unwrap();
    assert!(cases.len() >= 39);
    for case in cases {
        let read = Config::parse(Path::new("pg_staging.ini"), case.file.as_bytes());
        let value = read.and_then(|config| config.get(&case.section, &case.option));
        let (value, error) = match value {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error.class().to_owned())),
        };
        assert_eq!((value, error), (case.expect, case.error), "{}", case.name);
    }
}

/// A file and what Python's `configparser` made of it: the whole of its sections, or the error and its lines.
#[derive(Deserialize)]
struct Recorded {
    file: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    lines: Vec<usize>,
    #[serde(default)]
    sections: serde_json::Map<String, serde_json::Value>,
}

/// Python 3.11 with `strict=False`, taught the two rules of Python 2 that `syntax.rs` names, read random files.
#[test]
fn files_are_read_as_python_reads_them() {
    let cases: Vec<Recorded> =
        serde_json::from_str(include_str!("../../tests/data/ini-recorded.json")).unwrap();
    for case in cases {
        let file = &case.file;
        match Config::parse(Path::new("x.ini"), file.as_bytes()) {
            Err(error) => {
                let lines = match &error {
                    ConfigError::Parsing { lines, .. } => lines.iter().map(|(line, _)| *line).collect(),
                    ConfigError::MissingSectionHeader { line, .. } => vec![*line],
                    _ => vec![],
                };
                assert_eq!((Some(error.class()), &lines), (case.error.as_deref(), &case.lines), "{file:?}");
            }
            Ok(config) => {
                assert_eq!(None, case.error, "{file:?}");
                let expected: Vec<&str> = case.sections.keys().map(String::as_str).collect();
                assert_eq!(config.sections().collect::<Vec<_>>(), expected, "{file:?}");
                for (section, options) in &case.sections {
                    assert_eq!(&read_all(&config, section), options, "{file:?}, {section:?}");
                }
            }
        }
    }
}

/// Every option that the file gives a section: its value, or the name of an error in a list of its own.
fn read_all(config: &Config, section: &str) -> serde_json::Value {
    let own = [section, DEFAULT_SECTION].into_iter().filter_map(|name| config.document.entries(name));
    let names: BTreeSet<&String> = own.flat_map(|entries| entries.keys()).collect();
    let read = |name: &String| match config.get(section, name) {
        Ok(value) => serde_json::Value::from(value),
        Err(error) => serde_json::Value::from(vec![error.class()]),
    };
    names.into_iter().map(|name| (name.clone(), read(name))).collect()
}

/// A section with everything that is required, and `more` after it.
fn shop(more: &str) -> Config {
    load(&format!(
        "[DEFAULT]\nbackup_host = backup.example\nhost = db.example\n\
         [shop.dev]\ndbname = shop\ndbowner = shop_owner\nbackup_base_url = /shop/\n{more}"
    ))
}

fn target(more: &str) -> Result<Target, ConfigError> {
    shop(more).target("shop.dev", Some(Path::new("/home/ada")))
}

/// The message and the hint of what is wrong with one section.
fn complaint(more: &str) -> String {
    let error = target(more).unwrap_err();
    format!("{error} / {}", error.hint())
}

#[test]
fn a_section_that_sets_only_what_it_must_has_the_documented_defaults() {
    let target = target("").unwrap();
    let shown = serde_json::to_value(&target).unwrap();
    let mut expected = serde_json::json!({
        "section": "shop.dev", "backups": "http://backup.example/shop/", "backup_token_file": null,
            "ca_file": null,
            "dumpall": null, "host": "db.example",
        "dbname": "shop", "dbowner": "shop_owner", "dbuser": "postgres", "maintdb": "postgres",
        "db_encoding": "UTF8", "postgres_port": 5432, "postgres_major": "15", "pgbouncer_port": 6432,
        "pgbouncer_conf": "/etc/pgbouncer/pgbouncer.ini", "remove_dump": true, "keep_bases": 2,
        "auto_switch": true, "use_sudo": true, "pg_restore": "/usr/lib/postgresql/15/bin/pg_restore",
        "pg_restore_st": false, "restore_vacuum": true, "restore_jobs": 1, "fast": true, "verify": "blocks", "replication": null,
        "tmpdir": "/tmp", "sql_path": null, "schemas": [], "schemas_nodata": [],
        "tablename_nodata_regexp": [], "search_path": [], "journal": null, "on_failure": "rollback",
        "default_date": "today", "ssh_options": [], "client_script": "./staging-client.sh", "max_row_drop": null, "retry_limit": 120, "stall_after": 30,
    });
    // More than that the macro cannot take in one piece.
    expected["on_interrupted"] = "ask".into();
    expected["keep_days"] = 0.into();
    expected["purge_after_restore"] = false.into();
    assert_eq!(shown, expected);
    assert_eq!(target.psql(), PathBuf::from("/usr/lib/postgresql/15/bin/psql"));
    assert_eq!(target.pg_dump(), PathBuf::from("/usr/lib/postgresql/15/bin/pg_dump"));
    assert_eq!(target.dumpall_url(), None);
}

#[test]
fn every_option_is_taken_from_the_file() {
    let target = target(
        "dumpall_url = /globals/dump all.sql\ndbuser = admin\nmaintdb = template1\ndb_encoding = LATIN1\n\
         postgres_port = 5433\npostgres_major: 9.6\npgbouncer_port = 6433\npgbouncer_conf = /etc/b.ini\n\
         remove_dump = no\nkeep_bases = 0\nkeep_days = 7\npurge_after_restore = on\nauto_switch = OFF\nuse_sudo = 0\npg_restore_st = False\n\
         restore_vacuum = false\nrestore_jobs = 4\nfast = no\nverify = full\nreplication = ~/r.ini\ntmpdir = /var/tmp\n\
         sql_path = ~\nschemas = public , audit,,\n    pgq\nschemas_nodata = audit\n\
         tablename_nodata_regexp = ^audit\\., _log$\nsearch_path = public, audit\njournal = ~/runs\n\
         on_failure = KEEP\non_interrupted = Rollback\ndefault_date = latest\nssh_options = -i '/a key' -p 2222\n\
         client_script = /opt/client.sh\nretry_limit = 1h\nmax_row_drop = 50%%\nstall_after = 5s\n",
    )
    .unwrap();
    assert_eq!(target.dumpall_url().unwrap().as_str(), "http://backup.example/globals/dump%20all.sql");
    let names = [&target.dbuser, &target.maintdb, &target.db_encoding, &target.postgres_major];
    assert_eq!(names, ["admin", "template1", "LATIN1", "9.6"]);
    assert_eq!((target.postgres_port, target.pgbouncer_port, target.keep_bases), (5433, 6433, 0));
    assert_eq!(target.pgbouncer_conf, "/etc/b.ini");
    let flags = [target.remove_dump, target.auto_switch, target.use_sudo, target.restore_vacuum, target.fast];
    assert_eq!(flags, [false; 5]);
    assert_eq!((target.restore_jobs, target.pg_restore_st, target.verify), (4, false, Verify::Full));
    assert_eq!(target.pg_restore, PathBuf::from("/usr/lib/postgresql/9.6/bin/pg_restore"));
    assert_eq!(target.replication, Some(PathBuf::from("/home/ada/r.ini")));
    assert_eq!(target.sql_path, Some(PathBuf::from("/home/ada")));
    assert_eq!(target.tmpdir, PathBuf::from("/var/tmp"));
    assert_eq!(target.schemas, ["public", "audit", "pgq"]);
    assert_eq!(target.schemas_nodata, ["audit"]);
    assert_eq!(target.search_path, ["public", "audit"]);
    let expressions: Vec<&str> = target.tablename_nodata_regexp.iter().map(|e| e.as_str()).collect();
    assert_eq!(expressions, ["^audit\\.", "_log$"]);
    assert_eq!(target.journal.unwrap().as_str(), "/home/ada/runs");
    assert_eq!((target.on_failure, target.default_date), (OnFailure::Keep, DefaultDate::Latest));
    assert_eq!(target.on_interrupted, OnInterrupted::Rollback);
    assert_eq!((target.keep_days, target.purge_after_restore), (7, true));
    assert_eq!(target.ssh_options, ["-i", "/a key", "-p", "2222"]);
    assert_eq!(target.client_script, "/opt/client.sh");
    assert_eq!(target.retry_limit, Duration::from_secs(3600));
    assert_eq!((target.stall_after, target.max_row_drop), (Duration::from_secs(5), Some(50)));
}

#[test]
fn the_table_of_options_and_the_target_agree() {
    let fields = serde_json::to_value(target("").unwrap()).unwrap();
    let renamed = |name| match name {
        "backup_base_url" => "backups",
        "dumpall_url" => "dumpall",
        name => name,
    };
    for spec in OPTIONS.iter().filter(|spec| spec.name != "backup_host") {
        assert!(fields.get(renamed(spec.name)).is_some(), "{}", spec.name);
        assert!(!spec.meaning.is_empty() && !spec.kind.allowed().is_empty(), "{}", spec.name);
    }
    // The section's name is a field and no option, backup_host an option and no field.
    assert_eq!(fields.as_object().unwrap().len(), OPTIONS.len());
}

#[test]
fn every_missing_option_is_named_at_once() {
    let config = load("[shop]\nhost =\ndbname = shop\n");
    let error = config.target("shop", None).unwrap_err();
    let expected = "pg_staging.ini: section [shop] lacks backup_host, backup_base_url, host, dbowner";
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().contains("`dbowner = …`"), "{}", error.hint());
}

#[test]
fn a_value_that_an_option_cannot_take_is_refused_with_its_place_and_the_mend() {
    for (more, expected) in [
        (
            "restore_jobs = 0\n",
            "pg_staging.ini: section [shop.dev], option restore_jobs (line 8): \
             `0` is not a whole number from 1 to 65535 / restore_jobs takes a whole number from 1 to 65535",
        ),
        (
            "use_sudo = maybe\n",
            "pg_staging.ini: section [shop.dev], option use_sudo (line 8): `maybe` is neither true nor false / \
             use_sudo takes True or False (yes/no, on/off and 1/0 as well)",
        ),
        (
            "on_failure = panic\n",
            "pg_staging.ini: section [shop.dev], option on_failure (line 8): \
             `panic` is not a word that on_failure knows / on_failure takes rollback or keep",
        ),
        (
            "pg_restore_st = True\nrestore_jobs = 2\n",
            "pg_staging.ini: section [shop.dev], option pg_restore_st (line 8): \
             cannot be combined with restore_jobs = 2 / \
             a single transaction has one worker: set `restore_jobs = 1` or `pg_restore_st = False`",
        ),
        (
            "tmpdir = /%Y\n",
            "pg_staging.ini: section [shop.dev], option tmpdir (line 8): \
             `%Y` does not follow the rules for `%` / \
             write %% for a percent sign, %(name)s for the value of another option",
        ),
        (
            "tmpdir = %(dbnam)s\n",
            "pg_staging.ini: section [shop.dev], option tmpdir (line 8): \
             %(dbnam)s names an option that is not set / did you mean %(dbname)s?",
        ),
        (
            "ssh_options = -i 'key\n",
            "pg_staging.ini: section [shop.dev], option ssh_options (line 8): \
             `-i 'key` ends inside a quotation / close the quotation mark",
        ),
        (
            "backup_host = ftp://ada:secret@backup.example/\n",
            "pg_staging.ini: section [shop.dev], option backup_host (line 8): \
             `ftp://***@backup.example/` has the scheme ftp / \
             backup_host takes host, host:port, or an http:// or https:// URL",
        ),
    ] {
        assert_eq!(complaint(more), expected);
    }
    for (more, part) in [
        ("dbname = x\0y\n", "holds a control character"),
        ("dbname = 0123456789012345678901234567890123456789012345678901234\n", "is 55 bytes long"),
        ("dbowner =\n", "lacks dbowner"),
        ("dbuser =\n", "is empty"),
        ("host = -oProxyCommand=x\n", "begins with `-`"),
        ("host = a b\n", "holds white space"),
        ("postgres_port = 65536\n", "from 1 to 65535"),
        ("keep_bases = -1\n", "from 0"),
        ("tablename_nodata_regexp = ok, (\n", "has an expression `(` that does not compile: unclosed group"),
        ("tablename_nodata_regexp = a{1,2}\n", "a comma ends an expression"),
        ("retry_limit = 30\n", "a number with a unit"),
        ("retry_limit = 99999999999999999h\n", "is not a length of time"),
        ("postgres_major = 15/../x\n", "is not a version"),
        ("sql_path = ~bob/sql\n", "the home of another user"),
        ("journal = sqlite://x\n", "is neither a folder nor"),
        ("client_script = -x\n", "begins with `-`"),
        ("backup_host = a b\n", "holds white space"),
        ("backup_host = h:0\n", "has a port"),
        ("backup_host = h:http\n", "has a port"),
        ("backup_host = http://\n", "has no host"),
        ("backup_base_url = gopher://h/\n", "has the scheme gopher"),
        ("default_date = a\n", "today or latest"),
        ("on_interrupted = abandon\n", "continue or rollback or ask"),
    ] {
        assert!(complaint(more).contains(part), "{}", complaint(more));
    }
    let error = shop("sql_path = ~/sql\n").target("shop.dev", None).unwrap_err();
    assert_eq!(error.hint(), "set HOME, or write the path out");
}

#[test]
fn the_backups_url_is_joined_and_encoded() {
    for (host, base, expected) in [
        ("backup.example", "/shop", "http://backup.example/shop/"),
        ("backup.example:8080", "shop/", "http://backup.example:8080/shop/"),
        ("https://backup.example", "/a b/é", "https://backup.example/a%20b/%C3%A9/"),
        ("https://backup.example/pg/", "/shop", "https://backup.example/pg/shop/"),
        ("http://ada:p%%40ss@backup.example", "/shop", "http://ada:p%40ss@backup.example/shop/"),
        ("[::1]:8080", "/shop", "http://[::1]:8080/shop/"),
        ("backup.example", "/50%% off/a%%20b/#1?", "http://backup.example/50%25%20off/a%20b/%231%3F/"),
        ("backup.example", "/a\\b", "http://backup.example/a%5Cb/"),
        ("backup.example", "/", "http://backup.example/"),
        ("backup.example", "https://other.example/x?list-type=2", "https://other.example/x/?list-type=2"),
    ] {
        let target = target(&format!("backup_host = {host}\nbackup_base_url = {base}\n")).unwrap();
        assert_eq!(target.backups_url().as_str(), expected, "{host} {base}");
    }
}

#[test]
fn secrets_are_used_and_never_shown() {
    let target = target(
        "backup_host = https://ada:hunter2@backup.example\n\
         dumpall_url = https://x.example/a?sig=hunter2\njournal = postgres://ada:hunter2@db/j?password=hunter2\n",
    )
    .unwrap();
    assert_eq!(target.backups_url().password(), Some("hunter2"));
    assert_eq!(target.dumpall_url().unwrap().query(), Some("sig=hunter2"));
    assert!(target.journal.as_ref().unwrap().as_str().contains("hunter2"));
    let json = serde_json::to_string(&target).unwrap();
    let shown = format!("{target:?} {} {json}", target.backups);
    assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    assert!(json.contains("https://***@backup.example/shop/"), "{json}");
    assert!(json.contains("https://x.example/a?***"), "{json}");
    assert!(json.contains("postgres://***@db/j?***"), "{json}");

    let wrong = [
        "backup_host = https://ada:hunter2%x@backup.example\n",
        "backup_host = ada:%xhunter2@backup.example\n",
        "backup_host = ftp://ada:hunter2@backup.example\n",
        "journal = mysql://ada:hunter2@db/\n",
        "url = http://ada:%xhunter2@h\ntmpdir = %(url)s\n",
        "= http://ada:hunter2@h\n",
    ];
    for more in wrong {
        let file =
            format!("[s]\nhost = h\ndbname = d\ndbowner = o\nbackup_base_url = /\nbackup_host = h\n{more}");
        let read = Config::parse(Path::new("x.ini"), file.as_bytes());
        let error = read.and_then(|config| config.target("s", None)).unwrap_err();
        let shown = format!("{error} {error:?} {}", error.hint());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let error = load("[s]\n").set("s", "backup_host", "ada:%xhunter2@h").unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_journal_on_a_server_may_say_how_long_its_leases_are() {
    let parsed =
        |url: &str| JournalServer::parse(url).map(|server| (server.url, server.lease.map(|l| l.as_secs())));
    let on = |url: &str, lease| Ok((url.to_owned(), lease));
    assert_eq!(parsed("postgres://ada@db/j"), on("postgres://ada@db/j", None));
    assert_eq!(parsed("postgres://ada@db/j?lease=2s"), on("postgres://ada@db/j", Some(2)));
    assert_eq!(
        parsed("postgresql://db/j?host=/run&lease=5m&options=-c%20x"),
        on("postgresql://db/j?host=/run&options=-c%20x", Some(300))
    );
    for wrong in [
        "postgres://db/j?lease=",
        "postgres://db/j?lease=0s",
        "postgres://db/j?lease=2",
        "postgres://db/j?lease=25h",
        "mysql://db/j",
        "/j",
    ] {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_session_overrides_the_file_and_origins_are_told() {
    let mut config = load("[DEFAULT]\na = 1\nb = 2\n[s]\nb = %(a)s\n");
    let origin = |config: &Config, option: &str| config.origin("s", option).unwrap();
    assert_eq!(origin(&config, "A"), Origin::Default { line: 2 });
    assert_eq!(origin(&config, "b"), Origin::Section { line: 5 });
    assert_eq!(origin(&config, "dbuser"), Origin::BuiltIn);
    assert_eq!(config.get("s", "dbuser").unwrap(), "postgres");
    config.set("DEFAULT", "B", "9").unwrap();
    assert_eq!(config.get("s", "b").unwrap(), "1");
    config.set("DEFAULT", "a", "8").unwrap();
    assert_eq!(config.get("s", "b").unwrap(), "8");
    config.set("s", "B", "%(a)s%%").unwrap();
    assert_eq!(config.get("s", "b").unwrap(), "8%");
    assert_eq!(origin(&config, "b"), Origin::Session);
    let error = config.set("s", "c", "100%").unwrap_err();
    assert_eq!(error.class(), "InterpolationSyntaxError");
    assert!(error.to_string().contains("set in this session"), "{error}");
    // A percentage is written as people write it.
    config.set("s", "max_row_drop", "50%").unwrap();
    assert_eq!(config.get("s", "max_row_drop").unwrap(), "50%");
    assert_eq!(config.set("t", "c", "1").unwrap_err().class(), "NoSectionError");
    assert_eq!(config.origin("s", "c").unwrap_err().class(), "NoOptionError");
}

#[test]
fn a_section_or_option_that_does_not_exist_brings_a_suggestion() {
    let config = load("[DEFAULT]\nx = 1\n[shop.dev]\n[Blog]\n");
    let hint = |section: &str| config.target(section, None).unwrap_err().hint();
    assert_eq!(hint("shop"), "did you mean shop.dev?");
    assert_eq!(hint("blog"), "did you mean Blog?");
    assert_eq!(hint("zzz"), "the sections are shop.dev, Blog");
    assert_eq!(config.target("DEFAULT", None).unwrap_err().class(), "NoSectionError");
    let hint = |option: &str| config.get("Blog", option).unwrap_err().hint();
    assert_eq!(hint("databasename"), "add `databasename = …` to [Blog] or [DEFAULT]");
    assert_eq!(hint("restore_job"), "did you mean restore_jobs?");
    assert_eq!(hint("schemas"), "add `schemas = …` to [Blog] or [DEFAULT]");
}

#[test]
fn odd_things_are_warned_of_and_names_in_use_are_not_odd() {
    let mut config = load(
        "[DEFAULT]\nroot = /srv\n[s]\ntmpdir = %(ROOT)s/tmp\nrestore_job = 2\nschemas = a,\n  # b\n\
         dbname = s ; the shop\nzzz = 1\n",
    );
    config.set("s", "zzz", "2").unwrap();
    let warnings: Vec<String> = config
        .warnings()
        .iter()
        .map(|w| format!("{} {} / {}", w.place.option, w.place.origin, w.hint.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        warnings,
        [
            "restore_job line 5 / did you mean restore_jobs?",
            "schemas line 6 / begin the comment in the first column to keep it out of the value",
            "dbname line 8 / put the comment on a line of its own if it is one",
            "zzz line 9 / -",
        ]
    );
}

#[test]
fn a_broken_file_is_told_with_its_lines() {
    let message = |bytes: &[u8]| Config::parse(Path::new("x.ini"), bytes).unwrap_err().to_string();
    assert_eq!(message(b"[s]\na\nb\n"), "x.ini, line 2 `a`, line 3 `b`: neither a section nor an option");
    assert_eq!(message(b"a = 1\n"), "x.ini, line 1: `a = 1` stands before the first section");
    assert_eq!(message(b"[s]\na = \xe9\n"), "x.ini, line 2: not UTF-8");
}

#[test]
fn values_that_grow_without_end_are_refused() {
    let mut file = "[s]\na9 = x\n".to_owned();
    for n in 0..9 {
        file.push_str(&format!("a{n} = {}\n", format!("%(a{})s", n + 1).repeat(40)));
    }
    let error = load(&file).get("s", "a0").unwrap_err();
    assert_eq!(error.class(), "InterpolationError");
    let long = format!("[s]\nbig = {}\na = %(big)s%(big)s\n", "x".repeat(600_000));
    assert_eq!(load(&long).get("s", "a").unwrap_err().class(), "InterpolationError");
    assert_eq!(load(&long).get("s", "big").unwrap().len(), 600_000);
}

#[test]
fn replication_names_the_tables_that_another_section_feeds() {
    let file = "[DEFAULT]\nhost = db\n[main]\nprovides = public.a\n[to_shop]\nprovider = erp\n\
                subscriber = shop.dev\nprovides = public.a public.b\n    audit.c\n\
                [second]\nsubscriber = shop.dev\nprovides = audit.c audit.d\n[other]\nsubscriber = blog\n";
    let replication = Replication::parse(Path::new("r.ini"), file.as_bytes()).unwrap();
    let tables = |section| replication.nodata_for(section).into_iter().collect::<Vec<_>>();
    let expected = [("audit.c", "erp"), ("audit.d", "second"), ("public.a", "erp"), ("public.b", "erp")];
    assert_eq!(tables("shop.dev"), expected.map(|(table, feed)| (table.to_owned(), feed.to_owned())));
    assert_eq!(tables("blog"), []);
    assert_eq!(tables("shop"), []);
    for bad in ["orders", "public.a,public.b", ".a", "public."] {
        let file = format!("[x]\nsubscriber = s\nprovides = public.a {bad}\n");
        let error = Replication::parse(Path::new("r.ini"), file.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("r.ini: section [x], option provides (line 3)"), "{error}");
    }
}

proptest! {
    /// No bytes make the reader panic, and whatever it reads can be asked for.
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        text in "(\\[[a-cD]{0,3}\\]|[a-c %()s=:#;~\\\\\"']{0,8}|[ \t]{0,3}|\\PC{0,4}|[\n\r]){0,30}",
    ) {
        for bytes in [&bytes[..], text.as_bytes(), &[b"[s]\n", text.as_bytes()].concat()] {
            match Config::parse(Path::new("x"), bytes) {
                Err(error) => prop_assert!(!error.hint().is_empty() && !error.to_string().is_empty()),
                Ok(config) => {
                    for section in config.sections().collect::<Vec<_>>() {
                        read_all(&config, section);
                        let _ = config.target(section, None);
                    }
                    config.warnings();
                }
            }
        }
    }

    /// What a section is called and what a value holds does not change on its way through `rust-ini`.
    #[test]
    fn names_and_values_are_read_verbatim(
        section in "[^\n\r]{1,12}",
        name in "[^\n\r=:\\s\u{1c}-\u{1f}\\[#;][^\n\r=:\\s\u{1c}-\u{1f}]{0,8}",
        value in "[^\n\r\\s%\u{1c}-\u{1f}]([^\n\r%]{0,12}[^\n\r\\s%\u{1c}-\u{1f}])?",
    ) {
        prop_assume!(!name.eq_ignore_ascii_case("rem") && section != DEFAULT_SECTION);
        let config = load(&format!("[{section}]\n{name} = {value}\n"));
        prop_assert_eq!(config.sections().collect::<Vec<_>>(), [&section]);
        prop_assert_eq!(config.get(&section, &name).unwrap(), value);
    }
}
