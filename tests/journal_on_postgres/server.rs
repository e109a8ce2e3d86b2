//! The server that keeps a journal: who may make its tables and use them, which versions go together, and what is told.

use std::{
    fs,
    path::Path,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use journal::{
    query::Query,
    store::{Store, StoreError},
};

use super::{Database, conformance::Factory};
use crate::{
    stage::{Site, SiteOptions, Stage},
    traces::succeeds,
};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The SQL in a page, between the lines that fence it.
fn fenced(page: &str) -> String {
    let block = page.split("```sql\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

#[test]
fn the_documented_roles_can_do_what_they_are_for_and_no_more() {
    let database = Database::new();
    let mut site = site();
    site.set("journal", &database.url("staging", "")).unwrap();
    database.psql("CREATE ROLE passing_by LOGIN");
    let passing_by = database.url("passing_by", "");
    let refused = site.run(&["--journal", &passing_by, "createdb", &site.section(), "20261119"]).unwrap();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused.stderr.contains("the tables of the journal are not there, and cannot be made"),
        "{refused}"
    );
    assert!(refused.stderr.contains("journal/src/store/postgres/schema.sql"), "{refused}");

    database.psql(&file("journal/src/store/postgres/schema.sql"));
    let refused = site.run(&["--journal", &passing_by, "history"]).unwrap();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("this role may not read the journal"), "{refused}");

    database.psql(&fenced(&file("docs/journal.md")));
    succeeds(&site, &["restore", &site.section(), "20261121"]);
    for change in ["DELETE FROM staging_journal.event", "UPDATE staging_journal.event SET n = n + 1"] {
        let psql = database.cluster.psql(&database.name, &format!("SET ROLE staging; {change}"));
        assert!(psql.unwrap_err().to_string().contains("permission denied"));
    }
    let as_auditor = database.url("auditing", "");
    let history = succeeds(&site, &["--journal", &as_auditor, "history"]);
    assert!(history.stdout.contains("restore"), "{history}");
    let refused = site.run(&["--journal", &as_auditor, "createdb", &site.section(), "20261119"]).unwrap();
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("permission denied"), "{refused}");
    drop(database);
    Stage::shared()
        .unwrap()
        .cluster()
        .psql("postgres", "DROP ROLE staging; DROP ROLE auditing; DROP ROLE passing_by")
        .unwrap();
}

#[test]
fn tables_of_a_newer_version_are_left_alone() {
    let database = Database::new();
    let mut site = site();
    site.set("journal", &database.url("postgres", "")).unwrap();
    succeeds(&site, &["createdb", &site.section(), "20261119"]);
    database.psql("UPDATE staging_journal.journal SET version = 7");
    for command in [&["history"][..], &["createdb", &site.section(), "20261120"]] {
        let refused = site.run(command).unwrap();
        assert_eq!(refused.code, 1, "{refused}");
        assert!(
            refused.stderr.contains("its tables are of version 7, and this program knows version 1"),
            "{refused}"
        );
    }
    assert_eq!(site.copies().unwrap(), [site.copy("20261119")]);
}

#[test]
fn several_that_come_first_at_the_same_time_make_the_tables_once() {
    let database = Database::new();
    let stores: Vec<_> = (0..6).map(|_| database.open()).collect();
    let together = Arc::new(Barrier::new(stores.len()));
    let threads = stores.into_iter().map(|store| {
        let together = Arc::clone(&together);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            together.wait();
            runtime.block_on(store.runs(&Query::default())).unwrap()
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        assert_eq!(thread.join().unwrap(), []);
    }
}

#[test]
fn no_message_holds_the_password_of_the_url() {
    let site = site();
    let port = site.cluster().port();
    let cases = [
        ("postgres://ada:hunter2@127.0.0.1:1/journal".to_owned(), 1),
        (format!("postgres://ada:hunter2@127.0.0.1:{port}/no_such_database"), 1),
        (format!("postgres://ada:hunter2@127.0.0.1:{port}/postgres?lease=0s"), 2),
        (format!("postgres://ada:hunter2@127.0.0.1:{port}/postgres?lease=hunter2"), 2),
        (format!("postgres://ada@127.0.0.1:{port}/postgres?password=hunter2&nonsense=1"), 2),
        ("postgres://ada:hunter2@127.0.0.1:port/postgres".to_owned(), 2),
        ("mysql://ada:hunter2@127.0.0.1/journal".to_owned(), 2),
    ];
    for (url, code) in cases {
        for command in [&["-d", "history"][..], &["-d", "createdb", &site.section(), "20261120"]] {
            let refused = site.run(&[&["--journal", &url], command].concat()).unwrap();
            assert_eq!(refused.code, code, "{url}: {refused}");
            assert!(!format!("{refused}").contains("hunter2"), "{url}: {refused}");
            assert!(!refused.stderr.is_empty());
        }
    }
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_attachment_that_is_not_what_was_stored_is_not_given() {
    let database = Database::new();
    let store = database.store(Duration::from_secs(60));
    let hash = store.attach(b"what was said").await.unwrap();
    database.psql("UPDATE staging_journal.attachment SET bytes = 'something else'");
    let damaged = store.attachment(hash).await;
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{damaged:?}");
}
