//! Other formats than the custom one, rows in other forms than COPY, and large objects: many, a very large one, and more
//! than fit into one transaction.

use std::{fs, path::PathBuf, process::Command};

use super::{DAY, NEEDED, VERSIONS, dumped, reference, restores, site, source, stage, way};
use crate::{
    chance::{self, Chance},
    stage::{
        ClusterOptions, Serving, Site, SiteOptions, Stage, StageOptions, fingerprint, production_roles,
        schema_fingerprint,
    },
    traces::{inspected, succeeds},
};

/// What pg_dump writes where it cannot go back: nowhere is told where the rows are.
fn piped(major: u32, database: &str, flags: &[&str]) -> PathBuf {
    let stage = stage(major);
    let file = stage.scratch().new_folder("dump").unwrap().join("dump");
    let output =
        stage.cluster().client("pg_dump").args(["-Fc", "-d", database]).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stage.scratch().write(&file, output.stdout).unwrap();
    file
}

#[test]
fn rows_that_were_dumped_as_inserts_are_restored() {
    let mut cases = Vec::new();
    for major in [15, 17] {
        for flags in [&["--inserts"][..], &["--column-inserts"], &["--rows-per-insert=50"]] {
            cases.extend([(major, flags, true), (major, flags, false)]);
        }
    }
    for (major, flags, offsets) in Chance::of("inserts").some_of(cases, 3) {
        println!("{major} {flags:?}, offsets {offsets}");
        let database = source(major, 1);
        let dump = if offsets { dumped(major, &database, flags) } else { piped(major, &database, flags) };
        let site = site(major, dump, &[major]);
        restores(&site, (stage(major).cluster(), &database));
        assert_eq!(way(&site), if offsets { "parts" } else { "stream" });
    }
}

/// What pg_dump writes in that format as one file, and how its name ends.
fn in_format(major: u32, database: &str, format: &str) -> (&'static str, Vec<u8>) {
    let stage = stage(major);
    let folder = stage.scratch().new_folder("dump").unwrap();
    let to = folder.join("dump");
    stage.cluster().pg_dump(database, &[format, "-f", &to.display().to_string()]).unwrap();
    match format {
        "-Fd" => {
            let tar = Command::new("tar").arg("-C").arg(&to).args(["-c", "."]).output().unwrap();
            assert!(tar.status.success());
            (".tar", tar.stdout)
        }
        "-Ft" => (".tar", fs::read(to).unwrap()),
        _ => (".sql", fs::read(to).unwrap()),
    }
}

#[test]
fn whatever_the_format_a_dump_of_one_version_is_restored_into_a_server_of_that_or_a_later_one() {
    let mut cases = Vec::new();
    for from in NEEDED {
        for format in ["-Fd", "-Ft", "-Fp"] {
            cases.extend(NEEDED.iter().filter(|into| **into >= from).map(|into| (from, format, *into)));
        }
    }
    for (from, format, into) in Chance::of("formats").some_of(cases, 2) {
        println!("from {from} as {format} into {into}");
        let database = source(from, 1);
        let site = site(into, dumped(from, &database, &[]), &NEEDED);
        restores(&site, (stage(from).cluster(), &database));
        succeeds(&site, &["rollback", inspected(&site)["run"]["id"].as_str().unwrap(), "--yes"]);
        site.remove_file(&site.backup_name("2026-11-21")).unwrap();
        let (ending, bytes) = in_format(from, &database, format);
        site.write_file(&format!("{}.2026-11-21{ending}", site.dbname()), bytes).unwrap();
        succeeds(&site, &["restore", &site.section(), DAY]);
        let (cluster, copy, reference) = (site.cluster(), site.copy(DAY), reference(&site));
        assert_eq!(way(&site), if ending == ".sql" { "sql" } else { "tar" });
        let definitions = schema_fingerprint(cluster, &copy).unwrap();
        assert_eq!(definitions, schema_fingerprint(cluster, &reference).unwrap());
        assert_eq!(fingerprint(cluster, &copy).unwrap(), fingerprint(cluster, &reference).unwrap());
    }
}

/// 2,000 small large objects, and one of 100 MB.
const LARGE_OBJECTS: &str = "
CREATE TABLE scan (id integer PRIMARY KEY, content oid NOT NULL);
INSERT INTO scan SELECT i, lo_from_bytea(800000 + i, convert_to('page ' || i, 'UTF8')) FROM generate_series(1, 2000) AS i;
SELECT lo_create(900000) \\g /dev/null
SELECT count(lo_put(900000, i * 1048576::bigint, decode(repeat(md5(i::text), 65536), 'hex')))
  FROM generate_series(0, 99) AS i \\g /dev/null
COMMENT ON LARGE OBJECT 900000 IS 'a film';
GRANT SELECT ON LARGE OBJECT 800001 TO shop_reader;
";

/// All of them, told by what they hold, who owns them, and what else there is about them.
const ALL: &str = "
SELECT count(*), sum(length(lo_get(oid))), md5(string_agg(md5(lo_get(oid)) || lomowner::regrole::text || coalesce(lomacl::text, '')
       || coalesce(obj_description(oid, 'pg_largeobject'), ''), ',' ORDER BY oid))
  FROM pg_largeobject_metadata";

#[test]
fn thousands_of_large_objects_and_one_of_100_mb_are_restored() {
    let cases = [15, 17].into_iter().flat_map(|major| [(major, true), (major, false)]).collect();
    for (major, offsets) in Chance::of("large objects").some_of(cases, 2) {
        println!("{major}, offsets {offsets}");
        let cluster = stage(major).cluster();
        let database = format!("scans_{offsets}");
        cluster.psql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0")).unwrap();
        cluster.psql(&database, LARGE_OBJECTS).unwrap();
        let dump =
            if offsets { dumped(major, &database, &["-Z0"]) } else { piped(major, &database, &["-Z1"]) };
        let site = site(major, dump.clone(), &[major]);
        succeeds(&site, &["restore", &site.section(), DAY]);
        let expected = cluster.psql(&database, ALL).unwrap();
        assert!(expected.starts_with("2001|"), "{expected}");
        assert_eq!(cluster.psql(&site.copy(DAY), ALL).unwrap(), expected);
        assert_eq!(way(&site), if offsets { "parts" } else { "stream" });
        cluster.psql("postgres", &format!("DROP DATABASE {database}")).unwrap();
        fs::remove_file(dump).unwrap();
    }
}

/// A server that has room for as many locks as PostgreSQL's own defaults give it.
fn with_default_locks(major: u32) -> Stage {
    let defaults = [("max_connections", "100"), ("max_locks_per_transaction", "64")];
    let settings = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let bin = Some(VERSIONS.get(major).unwrap().bin.clone());
    let stage = Stage::start(&StageOptions { cluster: ClusterOptions { settings, bin } }).unwrap();
    production_roles(stage.cluster()).unwrap();
    stage
}

#[test]
fn more_large_objects_than_one_transaction_can_lock_are_restored() {
    // The pg_dump of 17 puts a thousand of them into an entry; earlier ones make an entry of each.
    let (count, majors) = if chance::everything() { (100_000, &[15, 17][..]) } else { (20_000, &[17][..]) };
    for major in majors {
        let stage = with_default_locks(*major);
        let cluster = stage.cluster();
        cluster.psql("postgres", "CREATE DATABASE pages TEMPLATE template0 OWNER shop_owner").unwrap();
        let made = format!(
            "SET ROLE shop_owner;
             SELECT count(lo_from_bytea(800000 + i, convert_to('page ' || i, 'UTF8'))) FROM generate_series(1, {count}) AS i"
        );
        cluster.psql("pages", &made).unwrap();
        let dump = stage.scratch().new_folder("dump").unwrap().join("dump");
        cluster.pg_dump("pages", &["-Fc", "-f", &dump.display().to_string()]).unwrap();
        stage.scratch().account().own(&dump).unwrap();
        let options = SiteOptions { dump: Some(dump), serving: Serving::Rude, ..SiteOptions::default() };
        let mut site = Site::new(&stage, &options).unwrap();
        site.set("restore_jobs", "4").unwrap();
        succeeds(&site, &["restore", &site.section(), DAY]);
        assert_eq!(way(&site), "parts");
        let expected = cluster.psql("pages", ALL).unwrap();
        assert!(expected.starts_with(&format!("{count}|")), "{expected}");
        assert_eq!(cluster.psql(&site.copy(DAY), ALL).unwrap(), expected);
    }
}
