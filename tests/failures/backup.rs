//! The backup server and what it serves.

use std::{fs, io::Write as _};

use pg_staging::contents::{self, Contents};
use serde_json::{Value, json};

use super::{DAY, SmallDisk, rude_site, site};
use crate::{
    stage::{Asked, Conduct, Plan, Request, Site, dump},
    traces::{Traces, error, fails, inspected, is_refused, last_run, names_in, plain, says, step, succeeds},
};

/// The path of the one backup on a site's server.
fn path(site: &Site<'_>) -> String {
    format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21"))
}

fn unavailable() -> Plan {
    Plan::new(Conduct::Fail { status: 503, retry_after: None })
}

fn dump_bytes(site: &Site<'_>) -> Vec<u8> {
    fs::read(site.dump()).unwrap()
}

/// Lists other bytes in place of the backup.
fn list(site: &Site<'_>, bytes: impl AsRef<[u8]>) {
    site.write_file(&site.backup_name("2026-11-21"), bytes).unwrap();
}

/// The events of the last run that say that an attempt failed.
fn failed_attempts(site: &Site<'_>) -> Vec<Value> {
    let events = inspected(site)["events"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["kind"] == "step_failed").collect()
}

/// The requests for the dump itself, by method, range and condition.
fn asked(site: &Site<'_>) -> Vec<(String, Option<String>, Option<String>)> {
    let of = |request: &Request, name: &str| request.header(name).map(str::to_owned);
    let requests = site.rude().unwrap().requests_for(&path(site));
    requests
        .iter()
        .map(|request| (request.method.clone(), of(request, "range"), of(request, "if-range")))
        .collect()
}

/// The dump is in tmpdir, whole, and nothing else is.
#[track_caller]
fn is_fetched(site: &Site<'_>) {
    let name = site.backup_name("2026-11-21");
    assert_eq!(names_in(&site.tmpdir()), std::slice::from_ref(&name));
    assert!(fs::read(site.tmpdir().join(name)).unwrap() == dump_bytes(site), "the dump differs");
}

#[test]
fn a_backup_that_is_not_there_is_missed_with_a_word_on_those_that_are() {
    let site = site();
    site.add_backup("2026-11-19").unwrap();
    fails(
        &site,
        &["restore", &site.section(), "20261120"],
        6,
        "http://127.0.0.1:<port>/shop/shop.2026-11-20.dump does not exist\n\
         hint: the newest of 2 backups: 2026-11-21, 2026-11-19",
    );
    fails(
        &site,
        &["fetch", &site.section(), "20261120"],
        6,
        "http://127.0.0.1:<port>/shop/shop.2026-11-20.dump does not exist\n\
         hint: the newest of 2 backups: 2026-11-21, 2026-11-19",
    );
}

#[test]
fn a_server_that_refuses_connections_is_asked_again_until_the_limit() {
    let mut site = site();
    // Nothing listens on port 1.
    site.set("backup_host", "127.0.0.1:1").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "cannot connect to http://127.0.0.1:<port>/shop/shop.2026-11-21.dump: Connection refused (os error 111)\n\
         hint: check backup_host, and that its web server is up and can be reached from here",
    );
    assert!(failed_attempts(&site).len() > 1);
    is_refused(
        &site,
        &["restore", &site.section(), "latest"],
        1,
        "cannot connect to http://127.0.0.1:<port>/shop/: Connection refused (os error 111)\n\
         hint: check backup_host, and that its web server is up and can be reached from here",
    );
}

#[test]
fn a_server_that_is_unavailable_twice_is_waited_for_and_each_attempt_is_in_the_journal() {
    let mut site = rude_site();
    site.set("retry_limit", "1m").unwrap();
    site.rude().unwrap().plan(&path(&site), unavailable().on(Asked::Head).times(2));
    succeeds(&site, &["fetch", &site.section(), DAY]);
    is_fetched(&site);
    let told = inspected(&site);
    assert_eq!(step(&told, "preflight")["attempts"], 3);
    let attempts = failed_attempts(&site);
    assert_eq!(attempts.len(), 2);
    for (number, attempt) in attempts.iter().enumerate() {
        assert_eq!(attempt["step"], "preflight");
        assert_eq!(attempt["detail"]["attempt"], number + 1);
        assert_eq!(
            plain(&site, attempt["detail"]["error"]["message"].as_str().unwrap()),
            "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump was answered with 503 Service Unavailable"
        );
        assert!(attempt["detail"]["retry_in_ms"].as_u64().is_some_and(|wait| wait > 0), "{attempt}");
    }
}

#[test]
fn a_server_that_stays_unavailable_fails_the_run_at_the_limit() {
    let site = rude_site();
    site.rude().unwrap().plan(&path(&site), unavailable());
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump was answered with 503 Service Unavailable\n\
         hint: look at the backup server's log; start again when it is well",
    );
    let last = failed_attempts(&site).pop().unwrap();
    assert_eq!(last["detail"]["retry_in_ms"], Value::Null);
}

#[test]
fn a_download_that_broke_goes_on_where_it_broke_if_the_file_is_still_the_same() {
    let mut site = rude_site();
    site.set("retry_limit", "1m").unwrap();
    let half = dump_bytes(&site).len() as u64 / 2;
    site.rude().unwrap().plan(&path(&site), Plan::new(Conduct::CloseAfter(half)).on(Asked::Get).times(1));
    succeeds(&site, &["fetch", &site.section(), DAY]);
    is_fetched(&site);
    let tag = step(&inspected(&site), "preflight")["detail"]["outcome"]["backup"]["etag"].clone();
    let tag = tag.as_str().unwrap().to_owned();
    assert_eq!(
        asked(&site),
        [
            ("HEAD".to_owned(), None, None),
            ("GET".to_owned(), None, None),
            ("GET".to_owned(), Some(format!("bytes={half}-")), Some(tag)),
        ]
    );
}

#[test]
fn a_server_that_does_not_serve_parts_is_read_from_the_start_again() {
    let mut site = rude_site();
    site.set("retry_limit", "1m").unwrap();
    let half = dump_bytes(&site).len() as u64 / 2;
    let rude = site.rude().unwrap();
    rude.plan(&path(&site), Conduct::IgnoreRange);
    rude.plan(&path(&site), Plan::new(Conduct::CloseAfter(half)).on(Asked::Get).times(1));
    succeeds(&site, &["fetch", &site.section(), DAY]);
    is_fetched(&site);
    let statuses: Vec<u16> =
        site.rude().unwrap().requests_for(&path(&site)).iter().map(|request| request.status).collect();
    assert_eq!(statuses, [200, 200, 200]);
}

#[test]
fn a_file_that_is_replaced_while_it_is_fetched_is_refused() {
    for ignores_if_range in [false, true] {
        let site = rude_site();
        let half = dump_bytes(&site).len() as u64 / 2;
        let rude = site.rude().unwrap();
        rude.plan(&path(&site), Plan::new(Conduct::CloseAfter(half)).on(Asked::Get).times(1));
        let other = Conduct::Content { bytes: dump_bytes(&site), tag: Some("\"another\"".to_owned()) };
        rude.plan(&path(&site), Plan::new(other).on(Asked::Get).after(1));
        if ignores_if_range {
            rude.plan(&path(&site), Conduct::IgnoreIfRange);
        }
        fails(
            &site,
            &["restore", &site.section(), DAY],
            1,
            "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump has changed since it was first seen: its etag was <etag> and now is \"another\"\n\
             hint: the file was replaced on the server: begin again with a new run",
        );
    }
}

#[test]
fn what_is_no_archive_is_refused_by_what_it_is() {
    let site = rude_site();
    let login = "<!DOCTYPE html><html><body>Please log in</body></html>";
    site.rude().unwrap().plan(&path(&site), Conduct::Html(login.to_owned()));
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is not a dump that can be restored\n\
         cause: not a custom-format PostgreSQL archive but an HTML page\n\
         hint: the server answered with a page instead of a dump: check backup_base_url, and open it in a browser",
    );
    site.rude().unwrap().behave(&path(&site));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&dump_bytes(&site)).unwrap();
    list(&site, gzip.finish().unwrap());
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is not a dump that can be restored\n\
         cause: not a custom-format PostgreSQL archive but a gzip file\n\
         hint: unpack it first; pg_dump -Fc compresses by itself",
    );
    list(&site, "--\n-- PostgreSQL database cluster dump\n--\nSET statement_timeout = 0;\n");
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is not a dump that can be restored\n\
         cause: not a custom-format PostgreSQL archive but a plain SQL dump of a whole cluster\n\
         hint: load it with psql, or make the backup with pg_dump -Fc",
    );
    list(&site, "");
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is not a dump that can be restored\n\
         cause: not a custom-format PostgreSQL archive but an empty file\n\
         hint: the backup is empty: take another day's, and look at the job that made it",
    );
}

#[test]
fn an_archive_that_is_damaged_in_its_head_or_cut_is_refused_before_anything_is_loaded() {
    let site = site();
    let mut bytes = dump_bytes(&site);
    bytes[200..260].fill(0xff);
    list(&site, &bytes);
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is not a dump that can be restored\n\
         cause: the table of contents is larger than 536870912 bytes\n\
         hint: check the file with pg_restore -l, fetch it again, or take another day's backup",
    );
    list(&site, &dump_bytes(&site)[..1000]);
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is not a dump that can be restored\n\
         cause: the archive ends after 1000 bytes, within its table of contents\n\
         hint: fetch the dump again, and compare its size with the one on the backup server; if they agree, pg_dump itself was interrupted: take another day's backup",
    );
}

#[test]
fn an_archive_that_is_damaged_in_the_rows_of_a_table_fails_the_load_and_the_copy_goes() {
    let site = site();
    let mut bytes = dump_bytes(&site);
    let archive = Contents::read(bytes.as_slice()).unwrap();
    let note = archive.data_entries().find(|entry| contents::name(entry) == "note").unwrap();
    let at = usize::try_from(note.offset).unwrap();
    bytes[at + 40..at + 80].fill(0xff);
    list(&site, &bytes);
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "small tables 1: pg_restore into shop_20261121 failed (exit status: 1)\n\
         cause: could not uncompress data: invalid literal/lengths set\n\
         hint: see all it said: pg_staging inspect <run>",
    );
    assert_eq!(step(&inspected(&site), "restore")["status"], "undone");
    // What pg_restore said is kept.
    let outcome = succeeds(&site, &["inspect", last_run(&site)["id"].as_str().unwrap()]);
    assert!(outcome.stdout.contains("what restore said last:"), "{outcome}");
}

#[test]
fn a_dump_whose_sum_is_another_one_is_refused() {
    let mut site = site();
    site.set("verify", "full").unwrap();
    let name = site.backup_name("2026-11-21");
    site.write_file(&format!("{name}.sha256"), format!("{}  {name}\n", "0123456789abcdef".repeat(4)))
        .unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "http://127.0.0.1:<port>/shop/shop.2026-11-21.dump is damaged: its SHA-256 is not the one in http://127.0.0.1:<port>/shop/shop.2026-11-21.dump.sha256\n\
         cause: expected <sha256>, found <sha256>\n\
         hint: have the backup made or copied again",
    );
    site.write_file(&format!("{name}.sha256"), "not a sum\n").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "cannot use the sums in http://127.0.0.1:<port>/shop/shop.2026-11-21.dump.sha256\n\
         cause: no SHA-256 sum for shop.2026-11-21.dump in it\n\
         hint: write the file anew on the server: sha256sum DUMP > DUMP.sha256",
    );
}

#[test]
fn a_pg_restore_that_is_missing_is_named() {
    let mut site = site();
    site.set("pg_restore", "/nowhere/bin/pg_restore").unwrap();
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "there is no program /nowhere/bin/pg_restore\n\
         hint: install PostgreSQL's client programs, or set postgres_major or pg_restore to where they are",
    );
}

#[test]
fn an_archive_whose_objects_belong_to_a_role_that_is_not_there_is_refused() {
    let site = site();
    let cluster = site.cluster();
    cluster
        .psql("postgres", "CREATE ROLE owner_of_old; CREATE DATABASE owned_by_old TEMPLATE template0;")
        .unwrap();
    cluster.psql("owned_by_old", "CREATE TABLE t (); ALTER TABLE t OWNER TO owner_of_old;").unwrap();
    let file = site.folder().join("owned.dump");
    dump(cluster, "owned_by_old", &file).unwrap();
    cluster.psql("postgres", "DROP DATABASE owned_by_old; DROP ROLE owner_of_old;").unwrap();
    list(&site, fs::read(file).unwrap());
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "the dump's objects belong to roles that do not exist: owner_of_old\n\
         hint: create them (pg_staging init shop.dev), then try again",
    );
}

#[test]
fn a_dump_for_which_there_is_no_room_is_refused_at_once_or_when_the_room_is_used_up() {
    let mut site = rude_site();
    site.set("fast", "False").unwrap();
    let Some(_disk) = SmallDisk::mount(&site.tmpdir(), "256k") else { return };
    let before = Traces::of(&site);
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    let length = dump_bytes(&site).len().to_string();
    assert!(dump_bytes(&site).len() > 256 << 10, "{length}");
    let free = "262144";
    says(
        &error(&site, &outcome).replace(&length, "<length>").replace(free, "<free>"),
        "restore shop.dev failed before it changed anything (run <run>): <site>/tmp has too little room for the dump\n\
         cause: <length> bytes are needed, <free> are free\n\
         hint: make room there, or name another folder with -t or tmpdir",
    );
    assert_eq!((outcome.code, Traces::of(&site)), (1, before));
    assert_eq!(last_run(&site)["steps_done"], json!(0));

    // A server that does not tell how much there is, not even in answer to a range.
    for conduct in [Conduct::Chunked, Conduct::IgnoreRange] {
        site.rude().unwrap().plan(&path(&site), conduct);
    }
    fails(
        &site,
        &["restore", &site.section(), DAY],
        1,
        "cannot write <site>/tmp/pg_staging.<run>/shop.2026-11-21.dump.part\n\
    cause: No space left on device (os error 28)\n\
    hint: make room in the file system of <site>/tmp/pg_staging.<run>/shop.2026-11-21.dump.part, or name another with -t or tmpdir",
    );
}
