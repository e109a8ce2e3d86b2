//! The main job, from the backup server's listing to the alias.

use std::fs;

use pg_staging::world::disk;
use serde_json::json;

use crate::{
    gate::Gate,
    stage::{
        BouncerOptions, Fingerprint, PoolMode, Scale, Site, SiteOptions, Stage, fingerprint, source_database,
    },
    traces::{Traces, error, inspected, names_in, step, succeeds},
};

const DAY: &str = "20261121";

fn stage() -> &'static Stage {
    Stage::shared().unwrap()
}

/// A site of its own on the shared stage.
fn site() -> Site<'static> {
    Site::new(stage(), &SiteOptions::default()).unwrap()
}

/// A site whose alias points at an older, empty copy already; the name is that of the database.
fn with_older_copy(dbname: &str, pool_mode: PoolMode, scale: Scale) -> Site<'static> {
    let older = format!("{dbname}_20261120");
    let bouncer = BouncerOptions {
        pool_mode,
        aliases: vec![(dbname.to_owned(), older.clone()), (older.clone(), older.clone())],
        ..BouncerOptions::default()
    };
    let options = SiteOptions { dbname: Some(dbname.to_owned()), bouncer, scale, ..SiteOptions::default() };
    let site = Site::new(stage(), &options).unwrap();
    site.cluster().psql("postgres", &format!("CREATE DATABASE {older}")).unwrap();
    site
}

fn production(scale: Scale) -> Fingerprint {
    fingerprint(stage().cluster(), &source_database(scale)).unwrap()
}

/// The copy holds what production holds, the alias points at it, pgbouncer.ini is the old one to the byte but for the
/// alias and the copy's entry, and nothing else is left.
#[track_caller]
fn is_restored(site: &Site<'_>, before: &Traces, scale: Scale) {
    let copy = site.copy(DAY);
    assert_eq!(fingerprint(site.cluster(), &copy).unwrap(), production(scale));
    let after = Traces::of(site);
    let port = site.cluster().port();
    let new_line = |name: &str| format!("{name} = dbname={copy} host=127.0.0.1 port={port}\n");
    let changed_line = format!("{} = host=127.0.0.1 port={port} dbname={copy}\n", site.dbname());
    let is_alias = |line: &&str| line.starts_with(&format!("{} = ", site.dbname()));
    let old_alias = before.ini.split_inclusive('\n').find(is_alias);
    let mut old = String::new();
    for line in after.ini.split_inclusive('\n') {
        match old_alias {
            _ if line == new_line(&copy) => {}
            None if line == new_line(site.dbname()) => {}
            Some(old_alias) if line == changed_line => old.push_str(old_alias),
            _ => old.push_str(line),
        }
    }
    assert_eq!(old, before.ini);
    let added = if old_alias.is_some() { 1 } else { 2 };
    assert_eq!(after.ini.lines().count(), before.ini.lines().count() + added);
    assert_eq!(after.aliases[site.dbname()].dbname, copy);
    assert_eq!(after.aliases[&copy].dbname, copy);
    assert_eq!(after.tmpdir, Vec::<String>::new());
    let mut databases = before.databases.clone();
    databases.push(copy);
    assert_eq!(after.databases, databases);
}

#[test]
fn a_restore_ends_with_the_alias_on_a_copy_that_equals_production() {
    let site = site();
    let before = Traces::of(&site);
    let outcome = succeeds(&site, &["restore", &site.section(), DAY]);
    is_restored(&site, &before, Scale::Small);
    let told = inspected(&site);
    assert_eq!(told["run"]["status"], "succeeded", "{outcome}");
    assert_eq!(step(&told, "restore")["detail"]["outcome"]["tolerated"], json!([]));
    assert_eq!(step(&told, "restore")["detail"]["outcome"]["output"], json!(null));
    assert_eq!(step(&told, "fetch")["detail"]["outcome"]["sha256"], json!(null));
    let owner = format!(
        "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{}'",
        site.copy(DAY)
    );
    assert_eq!(site.cluster().psql("postgres", &owner).unwrap(), "staging_owner|UTF8\n");
    assert_eq!(vacuumed(&site), "t\n");
    assert_eq!(
        site.bouncer().psql(site.dbname(), "SELECT count(*) AS customers FROM public.customer").unwrap(),
        "customers\n500\n"
    );
}

/// Whether anything in the copy was vacuumed on request.
fn vacuumed(site: &Site<'_>) -> String {
    let sql = "SELECT bool_or(last_vacuum IS NOT NULL) FROM pg_stat_user_tables";
    site.cluster().psql(&site.copy(DAY), sql).unwrap()
}

#[test]
fn a_sum_beside_the_dump_is_held_against_what_came() {
    let mut site = site();
    site.set("verify", "full").unwrap();
    let sum = disk::sha256(&fs::read(site.dump()).unwrap());
    let name = site.backup_name("2026-11-21");
    site.write_file(&format!("{name}.sha256"), format!("{sum}  {name}\n")).unwrap();
    let before = Traces::of(&site);
    succeeds(&site, &["restore", &site.section(), DAY]);
    is_restored(&site, &before, Scale::Small);
    assert_eq!(step(&inspected(&site), "fetch")["detail"]["outcome"]["sha256"], sum);
}

#[test]
fn a_large_restore_with_two_jobs_under_session_pooling_moves_the_alias_from_the_older_copy() {
    let mut site = with_older_copy("shopsession", PoolMode::Session, Scale::Full);
    site.set("restore_jobs", "2").unwrap();
    let before = Traces::of(&site);
    succeeds(&site, &["restore", &site.section(), DAY]);
    is_restored(&site, &before, Scale::Full);
    assert_eq!(step(&inspected(&site), "restore")["detail"]["intent"]["jobs"], 2);
}

#[test]
fn what_is_switched_off_is_not_done() {
    let mut site = with_older_copy("shopkept", PoolMode::Transaction, Scale::Small);
    for (option, value) in [
        ("pg_restore_st", "True"),
        ("remove_dump", "False"),
        ("auto_switch", "False"),
        ("restore_vacuum", "False"),
    ] {
        site.set(option, value).unwrap();
    }
    let before = Traces::of(&site);
    succeeds(&site, &["restore", &site.section(), DAY]);
    let after = Traces::of(&site);
    let copy = site.copy(DAY);
    assert_eq!(fingerprint(site.cluster(), &copy).unwrap(), production(Scale::Small));
    assert_eq!(site.active().unwrap(), before.aliases.get(site.dbname()).map(|to| to.dbname.clone()));
    let entry = format!("{copy} = dbname={copy} host=127.0.0.1 port={}\n", site.cluster().port());
    assert_eq!(after.ini.replace(&entry, ""), before.ini);
    let name = site.backup_name("2026-11-21");
    assert_eq!(names_in(&site.tmpdir()), std::slice::from_ref(&name));
    assert_eq!(fs::read(site.tmpdir().join(&name)).unwrap(), fs::read(site.dump()).unwrap());
    assert_eq!(vacuumed(&site), "f\n");
    let told = inspected(&site);
    assert_eq!(step(&told, "restore")["detail"]["intent"]["single_transaction"], true);
    for (name, why) in [
        ("switch", "auto_switch is off"),
        ("vacuum", "restore_vacuum is off"),
        ("search_path", "search_path is not configured"),
    ] {
        let step = step(&told, name);
        assert_eq!((&step["status"], &step["detail"]["skipped"]), (&json!("skipped"), &json!(why)));
    }

    // The dump that stayed is used by the next one that wants it.
    succeeds(&site, &["fetch", &site.section(), DAY]);
    let skipped = step(&inspected(&site), "fetch")["detail"]["skipped"].as_str().unwrap().to_owned();
    assert!(skipped.ends_with("is there already, whole"), "{skipped}");
}

#[test]
fn sql_files_run_in_order_of_their_names_before_and_after_the_data_come() {
    let mut site = site();
    site.set("search_path", "sales,public").unwrap();
    let note = |what: &str| format!("INSERT INTO ran (what) VALUES ('{what}');");
    site.add_sql("pre", "01-make.sql", "CREATE TABLE ran (n serial, what text);").unwrap();
    site.add_sql("pre", "02.sql", &note("pre 02")).unwrap();
    site.add_sql("pre", "10.sql", &format!("VACUUM ran;\n{}", note("pre 10"))).unwrap();
    site.add_sql("pre", "11.sql.off", &note("a file of another kind")).unwrap();
    site.add_sql("pre/deeper", "00.sql", &note("a file in a folder")).unwrap();
    site.add_sql(
        "post",
        "a.sql",
        "INSERT INTO public.ran (what) SELECT 'post a, customers: ' || count(*) FROM customer;",
    )
    .unwrap();
    site.add_sql(
        "post",
        "b.sql",
        "UPDATE note SET body = 'masked';\nINSERT INTO public.ran (what) VALUES ('post b');",
    )
    .unwrap();
    let gate = Gate::new(&site, "post", "c.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    // Nobody sees the copy before all of them went through.
    assert_eq!(site.active().unwrap(), None);
    drop(waiting);
    let outcome = program.wait().unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let ran = site.cluster().psql(&site.copy(DAY), "SELECT what FROM ran ORDER BY n").unwrap();
    assert_eq!(ran, "pre 02\npre 10\npost a, customers: 500\npost b\n");
    let seen = site.bouncer().psql(
        site.dbname(),
        "SELECT current_setting('search_path') AS path, count(*) AS masked FROM note WHERE body = 'masked'",
    );
    assert_eq!(seen.unwrap(), "path\tmasked\nsales, public\t1500\n");
    let parts = step(&inspected(&site), "post_sql")["detail"]["parts"].as_object().unwrap().clone();
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["a.sql", "b.sql", "c.sql"]);
}

#[test]
fn where_only_pgbouncer_can_be_reached_everything_goes_through_it() {
    // An address at which pgbouncer listens, and PostgreSQL does not.
    let front = "127.0.0.3";
    let bouncer = BouncerOptions { also_listen: vec![front.to_owned()], ..BouncerOptions::default() };
    let options = SiteOptions { bouncer, over_ssh: true, ..SiteOptions::default() };
    let mut site = Site::new(stage(), &options).unwrap();
    let ssh = [site.sshd().unwrap().ssh_options().join(" "), "-o HostName=127.0.0.2".to_owned()].join(" ");
    site.set("ssh_options", &ssh).unwrap();
    site.set("host", front).unwrap();
    let before = Traces::of(&site);
    let outcome = succeeds(&site, &["restore", &site.section(), DAY]);
    assert_eq!(error(&site, &outcome), "");
    is_restored(&site, &before, Scale::Small);
    let way = step(&inspected(&site), "preflight")["detail"]["outcome"]["postgres"].clone();
    assert_eq!(way, json!({ "host": front, "port": site.bouncer().port() }));
    // What ran through the pool left nothing of its session behind for those who come after.
    let settings =
        "SELECT current_setting('search_path') AS path, current_setting('statement_timeout') AS timeout";
    assert_eq!(
        site.bouncer().psql(site.dbname(), settings).unwrap(),
        "path\ttimeout\n\"$user\", public\t0\n"
    );
}
