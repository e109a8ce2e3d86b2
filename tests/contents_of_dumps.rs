//! `catalog`, `triggers` and `nodata`: what a dump's table of contents tells, and how little of the dump they fetch.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use pg_staging::contents::Contents;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use crate::{
    stage::{Asked, Conduct, Plan, Request, Scale, Serving, Site, SiteOptions, Stage, source_database},
    traces::{error, json as ask, names_in, plain, says, succeeds},
};

const DAY: &str = "20261121";
const DATE: &str = "2026-11-21";
/// What is asked for at first.
const FIRST: u64 = 64 * 1024;

fn site(serving: Serving) -> Site<'static> {
    let options = SiteOptions { serving, ..SiteOptions::default() };
    Site::new(Stage::shared().unwrap(), &options).unwrap()
}

/// A dump whose contents take several requests, and whose data is many times as large.
fn wide_dump() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let stage = Stage::shared().unwrap();
        let sql = "CREATE DATABASE wide";
        stage.cluster().psql("postgres", sql).unwrap();
        let tables = "DO $$ BEGIN FOR i IN 1..400 LOOP \
             EXECUTE format('CREATE TABLE t%s (id integer PRIMARY KEY, name text NOT NULL)', i); END LOOP; END $$; \
             CREATE TABLE large AS SELECT repeat(md5(n::text), 32) AS text FROM generate_series(1, 8000) n";
        stage.cluster().psql("wide", tables).unwrap();
        let path = stage.scratch().path().join("wide.dump");
        stage.cluster().pg_dump("wide", &["-Fc", "-Z0", "-f", &path.display().to_string()]).unwrap();
        path
    })
}

/// A site whose one backup is the wide dump.
fn wide_site() -> Site<'static> {
    let site = site(Serving::Rude);
    site.write_file(&site.backup_name(DATE), fs::read(wide_dump()).unwrap()).unwrap();
    site
}

/// The path of the one backup on the site's server.
fn path(site: &Site<'_>) -> String {
    format!("/{}/{}", site.dbname(), site.backup_name(DATE))
}

fn length_of_contents(dump: &Path) -> u64 {
    Contents::read(fs::File::open(dump).unwrap()).unwrap().length()
}

fn pg_restore(site: &Site<'_>, arguments: &[&str]) -> String {
    let output = site.cluster().client("pg_restore").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The dump ids of the entries in a list.
fn ids(list: &str) -> Vec<u64> {
    list.lines().filter_map(|line| line.split_once(';')?.0.parse().ok()).collect()
}

#[track_caller]
fn ends(site: &Site<'_>, arguments: &[&str], code: i32, said: &str) {
    let outcome = site.run(arguments).unwrap();
    says(&error(site, &outcome), said);
    assert_eq!(outcome.code, code, "{outcome}");
}

#[test]
fn the_catalog_is_a_list_that_pg_restore_takes_with_what_is_left_out_commented_out() {
    let mut site = site(Serving::Nginx);
    site.set("schemas", "public, ext, sales, warehouse, Odd Schema, empty_schema").unwrap();
    site.set("schemas_nodata", "warehouse").unwrap();
    let dump = site.dump().display().to_string();
    let section = site.section();
    let list = succeeds(&site, &["catalog", &section, &dump]).stdout;
    let file = site.folder().join("list");
    fs::write(&file, &list).unwrap();

    let told = ask(&site, &["catalog", &section, &dump]);
    let entries = told["catalog"].as_array().unwrap();
    // pg_restore reads these three whatever the list says, and does not show them.
    let unlisted = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];
    let of = |kept: bool, all: bool| {
        let listed = |entry: &&Value| all || !unlisted.contains(&entry["kind"].as_str().unwrap());
        let entries = entries.iter().filter(|entry| entry["kept"] == kept).filter(listed);
        entries.map(|entry| entry["dump_id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let taken = pg_restore(&site, &["-l", "-L", &file.display().to_string(), &dump]);
    assert_eq!(ids(&taken), of(true, false));
    assert_eq!(ids(&list), of(true, true));
    let dropped: Vec<&str> = list.lines().filter(|line| line.starts_with(';')).collect();
    assert_eq!(dropped.len(), of(false, true).len());
    assert!(dropped.iter().all(|line| line.contains(" ; dropped: ")), "{list}");
    let londiste = |line: &&&str| line.ends_with("schema londiste is not among the schemas to restore");
    assert!(dropped.iter().any(|line| londiste(&line)), "{list}");

    // Everything about an entry, and why it goes.
    let keys: Vec<&String> = entries[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["dump_id", "section", "kind", "schema", "name", "owner", "kept", "reason", "option"]);
    let find = |kind: &str, name: &str| {
        entries.iter().find(|entry| entry["kind"] == kind && entry["name"] == name).unwrap().clone()
    };
    let depot = find("TABLE DATA", "depot");
    assert_eq!(
        (&depot["section"], &depot["schema"], &depot["kept"], &depot["option"]),
        (&json!("data"), &json!("warehouse"), &json!(false), &json!("schemas_nodata"))
    );
    assert_eq!(find("TABLE", "depot")["reason"], Value::Null);
    // It is the list that a restore goes by.
    succeeds(&site, &["fetch", &section, DAY]);
    assert_eq!(succeeds(&site, &["catalog", &section, DAY]).stdout, list);
}

#[test]
fn the_contents_of_a_backup_are_fetched_in_a_few_parts_and_nothing_else_of_it_is() {
    let site = wide_site();
    let length = length_of_contents(wide_dump());
    let size = fs::metadata(wide_dump()).unwrap().len();
    assert!(length > 2 * FIRST && size > 10 * length, "{length} of {size}");
    let rude = site.rude().unwrap();
    let section = site.section();
    let remote = succeeds(&site, &["catalog", &section, DAY]).stdout;
    assert_eq!(remote, succeeds(&site, &["catalog", &section, &wide_dump().display().to_string()]).stdout);

    let requests = rude.requests();
    assert!(
        requests.iter().all(|request| request.path == path(&site) && request.status == 206),
        "{requests:?}"
    );
    let mut expected = vec![format!("bytes=0-{}", FIRST - 1)];
    let mut until = FIRST;
    while until < length {
        expected.push(format!("bytes={until}-{}", 2 * until - 1));
        until *= 2;
    }
    let of = |name: &str| {
        requests.iter().map(|request| request.header(name).map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(of("range").into_iter().flatten().collect::<Vec<_>>(), expected);
    // What comes later must be of the same file.
    let conditions = of("if-range");
    assert_eq!(conditions[0], None);
    assert!(conditions[1..].iter().all(|tag| tag.is_some() && *tag == conditions[1]), "{conditions:?}");
    assert_eq!(rude.bytes_sent(&path(&site)), until);
    assert!(until < 2 * length);
    assert_eq!(names_in(&site.tmpdir()), Vec::<String>::new());
}

#[test]
fn a_server_without_ranges_is_listened_to_as_far_as_the_contents_reach() {
    let site = wide_site();
    let length = length_of_contents(wide_dump());
    let rude = site.rude().unwrap();
    rude.plan(&path(&site), Conduct::IgnoreRange);
    // Whoever waits for more than the contents waits for ever.
    rude.plan(&path(&site), Conduct::StallAfter(length));
    let remote = succeeds(&site, &["catalog", &site.section(), DAY]).stdout;
    assert_eq!(
        remote,
        succeeds(&site, &["catalog", &site.section(), &wide_dump().display().to_string()]).stdout
    );
    let requests: Vec<Request> = rude.requests();
    assert_eq!((requests.len(), requests[0].status, requests[0].sent), (1, 200, length));
}

#[test]
fn a_backup_that_changes_while_it_is_read_is_noticed() {
    let site = wide_site();
    let section = site.section();
    let rude = site.rude().unwrap();
    let place = path(&site);
    let changed = |detail: &str| {
        format!(
            "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump has changed since it was first seen: {detail}\n\
             hint: the file was replaced on the server: begin again with a new run"
        )
    };
    let later = |conduct: Conduct| Plan::new(conduct).on(Asked::Range).after(1);
    let mut other = fs::read(wide_dump()).unwrap();
    other[20_000] ^= 1;

    // Another tag: the server does not serve a part of what it has now.
    rude.plan(&place, later(Conduct::NewTag));
    ends(&site, &["catalog", &section, DAY], 1, &changed("its etag was <etag> and now is \"new-1\""));
    rude.behave(&place);
    // Another length, and nothing else that tells.
    rude.plan(&place, Conduct::NoValidator);
    rude.plan(&place, later(Conduct::Content { bytes: other[..other.len() - 1].to_vec(), tag: None }));
    let outcome = site.run(&["catalog", &section, DAY]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(error(&site, &outcome).contains("has changed since it was first seen: it had "), "{outcome}");
    rude.behave(&place);
    // All of another file of the same length, and nothing at all that tells but its bytes.
    rude.plan(&place, Conduct::NoValidator);
    rude.plan(&place, later(Conduct::Content { bytes: other, tag: None }));
    rude.plan(&place, later(Conduct::IgnoreRange));
    ends(&site, &["catalog", &section, DAY], 1, &changed("its first bytes are others now"));
    // All of the same file is as good as a part of it.
    rude.behave(&place);
    rude.plan(&place, later(Conduct::IgnoreRange));
    succeeds(&site, &["catalog", &section, DAY]);
}

#[test]
fn a_dump_on_this_machine_is_read_as_far_as_its_contents_reach() {
    let site = site(Serving::Nginx);
    let pipe = site.folder().join("pipe.dump");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let program = site.spawn(&["catalog", &site.section(), &pipe.display().to_string()]).unwrap();
    let bytes = fs::read(site.dump()).unwrap();
    let length = usize::try_from(length_of_contents(site.dump())).unwrap();
    let mut end = OpenOptions::new().write(true).open(&pipe).unwrap();
    end.write_all(&bytes[..length]).unwrap();
    // Our end of the pipe is still open: who reads on waits for ever.
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    drop(end);
    let link = site.folder().join("link.dump");
    std::os::unix::fs::symlink(site.dump(), &link).unwrap();
    assert_eq!(
        outcome.stdout,
        succeeds(&site, &["catalog", &site.section(), &link.display().to_string()]).stdout
    );
}

#[test]
fn what_is_no_dump_in_custom_format_is_told_by_what_it_is() {
    let site = site(Serving::Rude);
    let section = site.section();
    let unfit = |name: &str, cause: &str, hint: &str| {
        format!("{name} is not a dump that can be restored\ncause: {cause}\nhint: {hint}")
    };
    let plain_sql = site.folder().join("plain.sql");
    fs::write(&plain_sql, "--\n-- PostgreSQL database dump\n--\n").unwrap();
    ends(
        &site,
        &["catalog", &section, "plain.sql"],
        1,
        &unfit(
            "plain.sql",
            "not a custom-format PostgreSQL archive but a plain SQL dump",
            "load it with psql, or make the backup with pg_dump -Fc",
        ),
    );
    ends(
        &site,
        &["triggers", &section, "sql"],
        1,
        &unfit(
            "sql",
            "not a custom-format PostgreSQL archive but a folder, as pg_dump -Fd writes it",
            "make the backup with pg_dump -Fc",
        ),
    );
    let url = "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump";
    for (bytes, cause, hint) in [
        (
            b"\x1f\x8b\x08\x00".to_vec(),
            "not a custom-format PostgreSQL archive but a gzip file",
            "unpack it first; pg_dump -Fc compresses by itself",
        ),
        (
            Vec::new(),
            "not a custom-format PostgreSQL archive but an empty file",
            "the backup is empty: take another day's, and look at the job that made it",
        ),
        (
            fs::read(wide_dump()).unwrap()[..100_000].to_vec(),
            "the archive ends after 100000 bytes, within its table of contents",
            "fetch the dump again, and compare its size with the one on the backup server; if they agree, pg_dump itself was \
             interrupted: take another day's backup",
        ),
    ] {
        site.write_file(&site.backup_name(DATE), bytes).unwrap();
        ends(&site, &["nodata", &section, DAY], 1, &unfit(url, cause, hint));
    }
    ends(
        &site,
        &["catalog", &section, "none.dump"],
        6,
        "there is no file none.dump\nhint: name a dump made by pg_dump -Fc, or the date of a backup",
    );
}

#[test]
fn without_a_file_the_backup_of_today_is_meant_or_what_default_date_says_or_the_one_that_is_named() {
    let mut site = site(Serving::Rude);
    let section = site.section();
    site.add_backup("2026-11-19").unwrap();
    let outcome = site.run(&["catalog", &section]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    let said = error(&site, &outcome);
    assert!(said.starts_with("no backup of 20"), "{said}");
    assert!(said.ends_with("\nhint: the newest of 2 backups: 2026-11-21, 2026-11-19"), "{said}");
    site.set("default_date", "latest").unwrap();
    let list = succeeds(&site, &["catalog", &section]).stdout;
    assert_eq!(list, succeeds(&site, &["catalog", &section, &site.dump().display().to_string()]).stdout);
    site.remove_file(&site.backup_name("2026-11-21")).unwrap();
    for typed in ["2026-11-19", "oldest", &site.backup_name("2026-11-19")] {
        assert_eq!(succeeds(&site, &["catalog", &section, typed]).stdout, list, "{typed}");
    }
    assert_eq!(site.run(&["catalog", "none.dev"]).unwrap().code, 6);
}

#[test]
fn every_trigger_is_listed_with_its_function_and_whether_it_stays() {
    let mut site = site(Serving::Nginx);
    site.set("schemas", "public, ext, sales, warehouse, Odd Schema, empty_schema").unwrap();
    let dump = site.dump().display().to_string();
    let told = ask(&site, &["triggers", &site.section(), &dump]);
    let triggers = told["triggers"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found: BTreeSet<[String; 3]> = triggers
        .iter()
        .map(|used| [text(&used["function"]), text(&used["table"]), text(&used["trigger"])])
        .collect();
    // As production itself has them.
    let sql = "SELECT fn.nspname || '.' || proname || '|' || cn.nspname || '.' || relname || '|' || tgname \
        FROM pg_trigger JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace fn ON fn.oid = pronamespace \
        JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace cn ON cn.oid = relnamespace \
        WHERE NOT tgisinternal AND tgparentid = 0";
    let answer = site.cluster().psql(&source_database(Scale::Small), sql).unwrap();
    let expected: BTreeSet<[String; 3]> = answer
        .lines()
        .map(|line| line.split('|').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap())
        .collect();
    assert!(expected.len() >= 5, "{answer}");
    assert_eq!(found, expected);
    for used in triggers {
        let gone = text(&used["function"]).starts_with("londiste.");
        assert_eq!(used["kept"], !gone, "{used}");
        assert_eq!(used["reason"].is_string(), gone, "{used}");
    }
    let table = succeeds(&site, &["triggers", &site.section(), &dump]).stdout;
    assert!(table.lines().next().unwrap().contains("FUNCTION"), "{table}");
    let line = table.lines().find(|line| line.contains("orders_replicate")).unwrap();
    let words: Vec<&str> = line.split_whitespace().take(4).collect();
    assert_eq!(words, ["londiste.note_change", "sales.orders", "orders_replicate", "no"], "{table}");
}

#[test]
fn tables_without_rows_are_listed_with_the_option_that_says_so() {
    let mut site = site(Serving::Nginx);
    let section = site.section();
    let replication = site.folder().join("replication.ini");
    let provides = format!(
        "[feed]\nprovider = shop.prod\nsubscriber = {section}\nprovides = public.hostile\n  warehouse.depot\n"
    );
    fs::write(&replication, provides).unwrap();
    site.set("replication", &replication.display().to_string()).unwrap();
    site.set("schemas_nodata", "londiste").unwrap();
    site.set("tablename_nodata_regexp", r"^sales\.invoice$, nothing_of_that_name").unwrap();
    let outcome = succeeds(&site, &["nodata", &section, DAY, "--json"]);
    assert_eq!(outcome.stderr, "warning: no table of the dump matches nothing_of_that_name\n");
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let rows = told["nodata"].as_array().unwrap();
    let find =
        |table: &str| rows.iter().find(|row| row["table"] == table).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(
        *find("warehouse.depot"),
        json!({"schema": "warehouse", "name": "depot", "table": "warehouse.depot", "option": "replication",
            "reason": "rows not wanted: warehouse.depot is fed by shop.prod"})
    );
    assert_eq!(find("public.hostile")["option"], "replication");
    assert_eq!(find("sales.invoice")["option"], "tablename_nodata_regexp");
    let others: Vec<&Value> = rows.iter().filter(|row| row["option"] == "schemas_nodata").collect();
    assert!(!others.is_empty() && others.iter().all(|row| row["schema"] == "londiste"), "{told}");
    let table = succeeds(&site, &["nodata", &section, DAY]).stdout;
    assert_eq!(table.lines().count(), rows.len() + 1, "{table}");

    // What is fed by others is known without any backup, and what is not is not.
    site.remove_file(&site.backup_name(DATE)).unwrap();
    let outcome = succeeds(&site, &["nodata", &section, "--json"]);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let tables: Vec<&Value> = told["nodata"].as_array().unwrap().iter().map(|row| &row["table"]).collect();
    assert_eq!(tables, ["public.hostile", "warehouse.depot"]);
    let said = plain(&site, &outcome.stderr);
    assert!(
        said.starts_with("warning: only the tables that <site>/replication.ini names: no backup of "),
        "{said}"
    );
    assert_eq!(site.run(&["nodata", &section, DAY]).unwrap().code, 6);
    site.unset("replication").unwrap();
    assert_eq!(site.run(&["nodata", &section]).unwrap().code, 6);
}
