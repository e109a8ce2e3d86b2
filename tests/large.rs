//! Very large values and large objects: they are the same in the copy, and the program itself does not hold them.

use std::{fs, path::PathBuf};

use pg_staging::world::archive;

use crate::{
    chance,
    stage::{Cluster, Conduct, Outcome, Serving, Site, SiteOptions, Stage, production_roles},
    traces::{inspected, step},
};

const DAY: &str = "20261121";

/// What the program may have at once, in KiB, besides three times the dump's contents.
const PROMISED: u64 = 64 * 1024;

fn cluster() -> &'static Cluster {
    Stage::shared().unwrap().cluster()
}

/// Values between small ones: of text, and of bytes, which take twice as much in a dump. A line of COPY has room for 1 GB.
fn values(text: u64, bytes: u64) -> String {
    format!(
        "CREATE TABLE paper (id integer PRIMARY KEY, words text, scan bytea);
         ALTER TABLE paper ALTER words SET STORAGE EXTERNAL, ALTER scan SET STORAGE EXTERNAL;
         INSERT INTO paper VALUES (1, 'before', 'before');
         INSERT INTO paper SELECT 2, repeat(E'\\\\tline ' || md5('2') || E'\\n', {text} / 40), NULL;
         INSERT INTO paper VALUES (3, E'between\\\\', E'\\\\x00ff');
         INSERT INTO paper SELECT 4, NULL, decode(repeat(md5('4'), {bytes} / 16), 'hex');
         INSERT INTO paper VALUES (5, 'after', NULL);
         CREATE INDEX ON paper (md5(words));"
    )
}

const ALL_VALUES: &str =
    "SELECT id, length(words), md5(words), length(scan), md5(scan) FROM paper ORDER BY id";

/// Many large objects, and one of so many bytes.
fn objects(bytes: u64) -> String {
    format!(
        "SELECT count(lo_from_bytea(800000 + i, convert_to('page ' || i, 'UTF8'))) FROM generate_series(1, 2000) AS i;
         SELECT lo_create(900000);
         SELECT count(lo_put(900000, i * 1048576::bigint, decode(repeat(md5(i::text), 65536), 'hex')))
           FROM generate_series(0, {bytes} / 1048576 - 1) AS i;"
    )
}

const ALL_OBJECTS: &str = "SELECT count(*), sum(length(lo_get(oid))), max(length(lo_get(oid))), \
     md5(string_agg(md5(lo_get(oid)), ',' ORDER BY oid)) FROM pg_largeobject_metadata";

/// A database of that, dumped.
fn dumped(database: &str, sql: &str, flags: &[&str]) -> PathBuf {
    production_roles(cluster()).unwrap();
    cluster().psql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0")).unwrap();
    cluster().psql(database, sql).unwrap();
    let scratch = Stage::shared().unwrap().scratch();
    let dump = scratch.new_folder("large").unwrap().join("dump");
    let file = dump.display().to_string();
    cluster().pg_dump(database, &[&["-Fc", "-f", &file], flags].concat()).unwrap();
    scratch.account().own(&dump).unwrap();
    dump
}

/// Restores it that way; the copy answers like the database, and the program has had no more memory than is promised.
#[track_caller]
fn restores(database: &str, dump: PathBuf, question: &str, way: &str) {
    let options = SiteOptions { dump: Some(dump), serving: Serving::Rude, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("restore_jobs", "4").unwrap();
    if way == "stream" {
        let path = format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21"));
        site.rude().unwrap().plan(&path, Conduct::IgnoreRange);
    }
    let (outcome, peak) = watched(&site, &["restore", &site.section(), DAY]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(step(&inspected(&site), "contents")["detail"]["outcome"]["way"], way);
    let answer = cluster().psql(&site.copy(DAY), question).unwrap();
    assert_eq!(answer, cluster().psql(database, question).unwrap());
    let bytes = fs::metadata(site.dump()).unwrap().len();
    println!("{database}, {way}: a dump of {bytes} bytes, a peak of {peak} KiB; {answer}");
    let contents = archive::local(site.dump()).unwrap().length();
    assert!(peak > 0 && peak < PROMISED + 3 * contents / 1024, "{peak} KiB");
}

/// Runs the program to its end, and tells how much memory it has had at the most, in KiB.
fn watched(site: &Site<'_>, arguments: &[&str]) -> (Outcome, u64) {
    let mut program = site.spawn(arguments).unwrap();
    let peak = program.most_own_memory_to_its_end().unwrap();
    (program.wait().unwrap(), peak)
}

const MEGABYTE: u64 = 1_000_000;

#[test]
fn values_as_large_as_they_may_be_are_restored_and_not_held_in_memory() {
    let (text, bytes) = if chance::everything() { (1_000, 500) } else { (80, 40) };
    let sql = values(text * MEGABYTE, bytes * MEGABYTE);
    let dump = dumped("large_values", &sql, &["-Z0"]);
    for way in ["parts", "stream"] {
        restores("large_values", dump.clone(), ALL_VALUES, way);
    }
    fs::remove_file(dump).unwrap();
    cluster().psql("postgres", "DROP DATABASE large_values").unwrap();
}

#[test]
fn many_large_objects_and_a_very_large_one_are_restored_and_not_held_in_memory() {
    let bytes = if chance::everything() { 1_000 } else { 100 };
    let dump = dumped("large_objects", &objects(bytes << 20), &["-Z0"]);
    for way in ["parts", "stream"] {
        restores("large_objects", dump.clone(), ALL_OBJECTS, way);
    }
    fs::remove_file(dump).unwrap();
    cluster().psql("postgres", "DROP DATABASE large_objects").unwrap();
}
