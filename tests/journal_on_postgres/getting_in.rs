//! The way to the server of a shared journal: TLS, certificates and passwords, which are used and never shown.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Database;
use crate::{
    secrets::{PASSWORD, guarded},
    stage::{FAR, LOCAL, Outcome, Site, SiteOptions, Stage},
    traces::{error, succeeds},
};

const DAY: &str = "20261121";

/// A site whose journal is on the guarded stage, and nothing else of it.
fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

fn guarded_database() -> Database<'static> {
    Database::on(&guarded().stage)
}

/// The same URL with another host.
fn at(host: &str, url: &str) -> String {
    url.replace(&format!("@{LOCAL}:"), &format!("@{host}:"))
}

fn history(site: &Site<'_>, url: &str) -> Outcome {
    site.run(&["--journal", url, "history", "--all"]).unwrap()
}

#[test]
fn tls_is_spoken_as_the_url_asks_and_never_left_out_when_it_is_asked_for() {
    let (site, database) = (site(), guarded_database());
    for (mode, code) in [
        ("", 0),
        ("?sslmode=disable", 1),
        ("?sslmode=allow", 0),
        ("?sslmode=prefer", 0),
        ("?sslmode=require", 0),
    ] {
        let outcome = history(&site, &database.url("sealed", mode));
        assert_eq!(outcome.code, code, "{mode}: {outcome}");
        assert_eq!(outcome.stderr.contains("no encryption"), code == 1, "{outcome}");
    }
    // One that speaks no TLS.
    let plain = Database::new();
    assert_eq!(history(&site, &plain.url("postgres", "")).code, 0);
    let refused = history(&site, &plain.url("postgres", "?sslmode=require"));
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("server does not support TLS"), "{refused}");
}

#[test]
fn the_server_is_verified_as_the_url_asks() {
    let (mut site, database) = (site(), guarded_database());
    let [authority, stranger] =
        [&guarded().authority, &guarded().stranger].map(|file| file.display().to_string());
    let options = |mode: &str, root: &str| format!("?sslmode={mode}&sslrootcert={root}&lease=20s");
    for (mode, host, root, code) in [
        ("verify-full", LOCAL, &authority, 0),
        ("verify-full", FAR, &authority, 1),
        ("verify-full", LOCAL, &stranger, 1),
        ("verify-ca", FAR, &authority, 0),
        ("verify-ca", LOCAL, &stranger, 1),
    ] {
        let url = at(host, &database.url("sealed", &options(mode, root)));
        let outcome = history(&site, &url);
        assert_eq!(outcome.code, code, "{url}: {outcome}");
        if code == 1 {
            assert!(outcome.stderr.contains("hint: look at sslmode and sslrootcert"), "{outcome}");
        }
    }
    for (options, said) in [
        ("?sslmode=sometimes", "sslmode cannot be 'sometimes'"),
        ("?sslmode=verify-full&sslrootcert=/nonexistent", "there is no root certificate file /nonexistent"),
    ] {
        let outcome = history(&site, &database.url("sealed", options));
        assert_eq!(outcome.code, 2, "{outcome}");
        assert!(error(&site, &outcome).contains(said), "{outcome}");
    }
    // A run by that way, and by the environment's word.
    site.set("journal", &database.url("sealed", &options("verify-full", &authority))).unwrap();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    site.set("journal", &database.url("sealed", "")).unwrap();
    site.set_env("PGSSLMODE", "disable");
    assert_eq!(site.run(&["history"]).unwrap().code, 1);
}

#[test]
fn a_certificate_of_ours_is_shown_to_a_server_that_wants_one() {
    let (site, database) = (site(), guarded_database());
    let [certificate, key] = [&guarded().certificate, &guarded().key].map(|file| file.display().to_string());
    assert_eq!(history(&site, &database.url("certified", "")).code, 1);
    let options = format!("?sslcert={certificate}&sslkey={key}");
    let outcome = history(&site, &database.url("certified", &options));
    assert_eq!(outcome.code, 0, "{outcome}");
}

#[test]
fn the_password_of_the_url_lets_us_in_and_is_shown_nowhere() {
    let (mut site, database) = (site(), guarded_database());
    let password = utf8_percent_encode(PASSWORD, NON_ALPHANUMERIC).to_string();
    let url = database.url(&format!("guarded:{password}"), "");
    site.set("journal", &url).unwrap();
    site.add_sql("pre", "a.sql", "SELECT 1;").unwrap();
    let section = site.section();
    let mut said = vec![succeeds(&site, &["-v", "-d", "restore", &section, DAY, "--json"])];
    // The copy is there already.
    said.push(site.run(&["-v", "-d", "restore", &section, DAY]).unwrap());
    assert_eq!(said[1].code, 1, "{}", said[1]);
    for asked in [
        &["history", "--all", "--json"][..],
        &["audit", "--all", "--format", "json"],
        &["inspect", "--live", &section],
        &["config"],
        &["get", &section, "journal"],
        &["-d", "-n", "createdb", &section, "20261120"],
    ] {
        said.push(site.run(asked).unwrap());
    }
    for outcome in &said {
        let outcome = outcome.to_string();
        assert!(!outcome.contains(PASSWORD) && !outcome.contains(&password), "{outcome}");
    }
    let stored =
        "SELECT bytes FROM staging_journal.event UNION ALL SELECT bytes FROM staging_journal.attachment";
    for secret in [PASSWORD, &password] {
        let quoted = secret.replace('\\', "\\\\").replace('\'', "''");
        let found = format!(
            "SELECT count(*), count(*) FILTER (WHERE position(E'{quoted}'::bytea IN bytes) > 0) FROM ({stored}) AS stored"
        );
        let found = database.psql(&found.replace("E'", "convert_to(E'").replace("'::bytea", "', 'UTF8')"));
        assert!(found.ends_with("|0\n") && !found.starts_with("0|"), "{found}");
    }
    let rows = database.psql("SELECT string_agg(run::text, '') FROM staging_journal.run");
    assert!(!rows.contains(PASSWORD) && !rows.contains(&password), "{rows}");
}

#[test]
fn a_password_that_is_wrong_or_missing_is_told_with_where_it_belongs() {
    let (mut site, database) = (site(), guarded_database());
    let missing = history(&site, &database.url("guarded", ""));
    assert_eq!(missing.code, 1, "{missing}");
    assert!(error(&site, &missing).contains("hint: put it into ~/.pgpass"), "{missing}");
    let wrong = history(&site, &database.url("guarded:hunter2", ""));
    assert_eq!(wrong.code, 1, "{wrong}");
    assert!(
        error(&site, &wrong).ends_with("hint: the password comes from the URL: correct it there"),
        "{wrong}"
    );
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
    site.set_env("PGPASSWORD", PASSWORD);
    assert_eq!(history(&site, &database.url("guarded", "")).code, 0);
    // What the URL says wins.
    assert_eq!(history(&site, &database.url("guarded:hunter2", "")).code, 1);
}
