//! `journal export`, `import`, `verify` and `prune` on a server, and what is another matter there.

use serde_json::Value;

use super::{Database, controllers::site};
use crate::{
    gate::Gate,
    stage::{Outcome, Site, SiteOptions, Stage},
    traces::{error, json as ask, last_run, succeeds},
};

const DAY: &str = "20261121";

/// The runs that changed something, as they are told, but for their numbers in the journal.
fn runs(site: &Site<'_>) -> Vec<Value> {
    let history = ask(site, &["history"]);
    let ids = history["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned());
    let told = |id: String| {
        let mut run = ask(site, &["inspect", &id]);
        for event in run["events"].as_array_mut().unwrap() {
            event.as_object_mut().unwrap().remove("seq");
        }
        run
    };
    ids.map(told).collect()
}

fn verify(site: &Site<'_>, arguments: &[&str]) -> Outcome {
    site.run(&[&["journal", "verify"], arguments].concat()).unwrap()
}

fn head(site: &Site<'_>) -> String {
    let verified = ask(site, &["journal", "verify"]);
    assert_eq!(verified["journal"]["damage"], serde_json::json!([]));
    verified["journal"]["head"].as_str().unwrap().to_owned()
}

/// A site whose journal is in that database, and has runs that ended well and badly.
fn with_a_past(database: &Database<'_>) -> Site<'static> {
    let site = site(database, "60s");
    succeeds(&site, &["restore", &site.section(), DAY]);
    assert_eq!(site.run(&["createdb", &site.section(), DAY]).unwrap().code, 1);
    succeeds(&site, &["drop", &site.section(), DAY, "--force"]);
    site
}

#[test]
fn export_and_import_move_runs_from_a_folder_to_a_server_and_back() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    succeeds(&site, &["restore", &section, DAY]);
    assert_eq!(site.run(&["createdb", &section, DAY]).unwrap().code, 1);
    succeeds(&site, &["inspect", "--live", &section]);
    let in_folder = runs(&site);
    succeeds(&site, &["journal", "export", "-o", "first.jsonl"]);

    let database = Database::through_pgbouncer();
    site.set("journal", &database.url("postgres", "")).unwrap();
    let taken = succeeds(&site, &["journal", "import", "first.jsonl"]);
    assert!(!taken.stdout.contains(" 0 of the events are new"), "{taken}");
    assert_eq!(runs(&site), in_folder);
    assert_eq!(verify(&site, &[]).code, 0);
    let again = succeeds(&site, &["journal", "import", "first.jsonl"]);
    assert!(again.stdout.contains("; 0 of the events are new here"), "{again}");
    // It goes on there.
    succeeds(&site, &["switch", &section, DAY]);
    let on_server = runs(&site);
    assert_eq!(on_server.len(), 3);
    succeeds(&site, &["journal", "export", "-o", "second.jsonl"]);

    site.set("journal", &site.folder().join("another").display().to_string()).unwrap();
    succeeds(&site, &["journal", "import", "second.jsonl"]);
    assert_eq!(runs(&site), on_server);
    assert_eq!(verify(&site, &[]).code, 0);
}

#[test]
fn a_run_that_was_interrupted_moves_to_a_server_and_is_continued_there() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    program.kill().unwrap();
    drop(waiting);
    gate.remove(&site, "post", "wait.sql");
    succeeds(&site, &["journal", "export", "-o", "all.jsonl"]);
    let database = Database::new();
    site.set("journal", &database.url("postgres", "")).unwrap();
    succeeds(&site, &["journal", "import", "all.jsonl"]);
    assert_eq!(last_run(&site)["status"], "interrupted");
    succeeds(&site, &["continue", &site.section()]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    assert_eq!(verify(&site, &[]).code, 0);
}

#[test]
fn a_run_that_is_another_one_on_the_server_is_refused() {
    let database = Database::new();
    let site = with_a_past(&database);
    succeeds(&site, &["journal", "export", "-o", "all.jsonl"]);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    database.psql(&format!(
        "UPDATE staging_journal.event SET bytes = (SELECT bytes FROM staging_journal.event WHERE run = '{run}' AND n = 1)
         WHERE run = '{run}' AND n = 2"
    ));
    let refused = site.run(&["journal", "import", "all.jsonl"]).unwrap();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused.stderr.contains("is another one in this journal: its event 2 is not the same"),
        "{refused}"
    );
}

#[test]
fn verify_names_what_was_done_behind_the_back_of_the_journal() {
    let database = Database::new();
    let site = with_a_past(&database);
    let before = head(&site);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    // Each is mended before the next.
    database.psql(
        "CREATE SCHEMA kept; CREATE TABLE kept.event AS TABLE staging_journal.event;
         CREATE TABLE kept.run AS TABLE staging_journal.run; CREATE TABLE kept.ledger AS TABLE staging_journal.ledger;
         CREATE TABLE kept.attachment AS TABLE staging_journal.attachment; CREATE TABLE kept.journal AS TABLE staging_journal.journal;",
    );
    let mend = "TRUNCATE staging_journal.run, staging_journal.event, staging_journal.target, staging_journal.ledger,
                         staging_journal.attachment, staging_journal.journal;
                INSERT INTO staging_journal.run TABLE kept.run; INSERT INTO staging_journal.event TABLE kept.event;
                INSERT INTO staging_journal.ledger TABLE kept.ledger; INSERT INTO staging_journal.attachment TABLE kept.attachment;
                INSERT INTO staging_journal.journal TABLE kept.journal;";
    let event = |what: &str| format!("UPDATE staging_journal.event SET {what} WHERE run = '{run}' AND");
    let last = "n = (SELECT max(n) FROM staging_journal.event AS other WHERE other.run = event.run)";
    let cases = [
        (format!("{} n = 1", event("bytes = set_byte(bytes, 40, get_byte(bytes, 40) # 1)")), "changed bytes"),
        (format!("DELETE FROM staging_journal.event WHERE run = '{run}' AND n = 1"), "removed event"),
        (
            format!(
                "UPDATE staging_journal.event SET bytes = other.bytes FROM staging_journal.event AS other
                  WHERE event.run = '{run}' AND other.run = '{run}' AND (event.n, other.n) IN ((1, 2), (2, 1))"
            ),
            "reordered events",
        ),
        (format!("DELETE FROM staging_journal.event WHERE run = '{run}' AND {last}"), "truncated run"),
        (
            format!(
                "DELETE FROM staging_journal.event WHERE run = '{run}' AND {last};
                 UPDATE staging_journal.run SET events = events - 1 WHERE id = '{run}'"
            ),
            "truncated run",
        ),
        (
            format!(
                "DELETE FROM staging_journal.event WHERE run = '{run}'; DELETE FROM staging_journal.target;
                 DELETE FROM staging_journal.run WHERE id = '{run}'"
            ),
            "removed run",
        ),
        (format!("{} n = 0", event("seq = seq + 1000000")), "reordered events"),
        ("UPDATE staging_journal.run SET head = decode(repeat('07', 32), 'hex')".to_owned(), "changed bytes"),
        ("UPDATE staging_journal.ledger SET seq = seq + 1 WHERE entry = 3".to_owned(), "damaged ledger"),
        ("DELETE FROM staging_journal.ledger WHERE entry = 3".to_owned(), "damaged ledger"),
        ("UPDATE staging_journal.attachment SET bytes = 'other'".to_owned(), "changed attachment"),
        ("DELETE FROM staging_journal.attachment".to_owned(), "missing attachment"),
    ];
    for (change, flaw) in cases {
        database.psql(&change);
        let found = verify(&site, &[]);
        assert_eq!(found.code, 4, "{change}: {found}");
        assert!(
            found.stdout.starts_with(flaw) || found.stdout.contains(&format!("\n{flaw}")),
            "{change}: {found}"
        );
        assert!(found.stderr.contains("hint: keep a dump of its schema staging_journal"), "{found}");
        let pruned = site.run(&["journal", "prune", "--keep-last", "0", "--yes"]).unwrap();
        assert!(pruned.code == 4 || flaw.ends_with("attachment"), "{change}: {pruned}");
        database.psql(mend);
        assert_eq!(head(&site), before);
    }
    // A last entry that is taken away so that nothing shows it but the head that was kept.
    database.psql(
        "WITH last AS (DELETE FROM staging_journal.ledger WHERE entry = (SELECT entry FROM staging_journal.journal))
         SELECT 1;
         UPDATE staging_journal.journal SET (entry, chain) =
             (SELECT entry, chain FROM staging_journal.ledger ORDER BY entry DESC LIMIT 1);",
    );
    let found = verify(&site, &["--against", &before]);
    assert!(found.stdout.contains("not a continuation"), "{found}");
}

#[test]
fn a_head_holds_later_on_while_a_run_is_at_work_and_when_runs_are_pruned() {
    let database = Database::through_pgbouncer();
    let site = with_a_past(&database);
    succeeds(&site, &["createdb", &site.section(), "20261119"]);
    let before = head(&site);
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    assert_eq!(verify(&site, &["--against", &before]).code, 0);
    let meanwhile = head(&site);
    drop(waiting);
    let restored = program.wait().unwrap();
    assert_eq!(restored.code, 0, "{restored}");
    assert_eq!(verify(&site, &["--against", &meanwhile]).code, 0);

    succeeds(&site, &["drop", &site.section(), DAY, "--force"]);
    database.psql("UPDATE staging_journal.attachment SET stored_at = stored_at - interval '2 days'");
    let dry = succeeds(&site, &["-n", "journal", "prune", "--keep-last", "1"]);
    assert!(dry.stdout.contains("is still there"), "{dry}");
    let count = "SELECT count(*) FROM staging_journal.event";
    let events = database.psql(count);
    let pruned = succeeds(&site, &["journal", "prune", "--keep-last", "1", "--yes"]);
    assert!(pruned.stdout.contains("pruned"), "{pruned}");
    assert_ne!(database.psql(count), events);
    // The pruning, the newest of the section, and the one whose copy is still there.
    let left = ask(&site, &["history"])["runs"].as_array().unwrap().clone();
    let left: Vec<&str> = left.iter().map(|run| run["command"].as_str().unwrap()).collect();
    assert_eq!(left, ["journal", "drop", "createdb"]);
    for head in [&before, &meanwhile] {
        let verified = verify(&site, &["--against", head]);
        assert_eq!(verified.code, 0, "{verified}");
        assert!(verified.stdout.contains("runs that were pruned: "), "{verified}");
    }
    // What the restores named went with them.
    assert_eq!(database.psql("SELECT count(*) FROM staging_journal.attachment"), "0\n");
    // A head of another journal is none of this one's.
    let other = Database::new();
    let other = with_a_past(&other);
    assert_eq!(verify(&site, &["--against", &head(&other)]).code, 4);
}

#[test]
fn what_needs_a_folder_says_that_the_journal_is_on_a_server() {
    let database = Database::new();
    let site = site(&database, "60s");
    for command in [&["journal", "path"][..], &["journal", "rebuild"], &["-n", "journal", "rebuild"]] {
        let refused = site.run(command).unwrap();
        assert_eq!(refused.code, 2, "{refused}");
        let told = error(&site, &refused);
        assert!(
            told.starts_with("the journal is in no folder: it is on postgres://***@127.0.0.1:<port>/journal"),
            "{told}"
        );
    }
    assert_eq!(database.psql("SELECT to_regnamespace('staging_journal') IS NULL"), "t\n");
}
