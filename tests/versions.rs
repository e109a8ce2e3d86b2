//! Archives of one version of PostgreSQL restored into servers of others, with every compression that their pg_dump knows.
//!
//! Which versions there are is up to `stage/versions.sh`. Not to be had: pg_dump and pg_restore 14 (its server's databases
//! are dumped by the 15), and lz4 and zstd of 16 and 18.

mod choice;
mod damage;
mod forms;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{LazyLock, Mutex, PoisonError},
};

use serde_json::Value;

use crate::{
    chance::Chance,
    stage::{
        Cluster, ClusterOptions, Serving, Site, SiteOptions, Stage, StageOptions, Versions, fingerprint,
        production_roles, schema_fingerprint,
    },
    traces::{inspected, step, succeeds},
};

const DAY: &str = "20261121";
const DATABASE: &str = include_str!("stage/versions.sql");

/// The versions that every run of the tests needs.
const NEEDED: [u32; 4] = [15, 16, 17, 18];

static VERSIONS: LazyLock<Versions> =
    LazyLock::new(|| Versions::find(Stage::shared().unwrap().scratch()).unwrap());

/// A stage whose server is of that version, started by the first who asks; it ends with the process.
fn stage(major: u32) -> &'static Stage {
    static STAGES: Mutex<BTreeMap<u32, &'static Stage>> = Mutex::new(BTreeMap::new());
    let mut stages = STAGES.lock().unwrap_or_else(PoisonError::into_inner);
    stages.entry(major).or_insert_with(|| {
        let bin = Some(VERSIONS.get(major).unwrap().bin.clone());
        let options = StageOptions { cluster: ClusterOptions { bin, ..ClusterOptions::default() } };
        let stage = Stage::start(&options).unwrap();
        production_roles(stage.cluster()).unwrap();
        Box::leak(Box::new(stage))
    })
}

/// The database of [`DATABASE`] on the server of that version, made by the first who asks.
fn source(major: u32, scale: u32) -> String {
    static MADE: Mutex<Vec<(u32, u32)>> = Mutex::new(Vec::new());
    let database = format!("stock_{scale}");
    let cluster = stage(major).cluster();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if !made.contains(&(major, scale)) {
        cluster
            .psql(
                "postgres",
                &format!("CREATE DATABASE {database} TEMPLATE template0 OWNER shop_owner ENCODING 'UTF8'"),
            )
            .unwrap();
        cluster.psql_with(&database, DATABASE, &["-v", &format!("scale={scale}")]).unwrap();
        made.push((major, scale));
    }
    database
}

/// A dump of a database in custom format, with what more is asked of pg_dump.
fn dumped(major: u32, database: &str, flags: &[&str]) -> PathBuf {
    let stage = stage(major);
    let file = stage.scratch().new_folder("dump").unwrap().join("dump");
    let to = file.display().to_string();
    stage.cluster().pg_dump(database, &[&["-Fc", "-f", &to], flags].concat()).unwrap();
    stage.scratch().account().own(&file).unwrap();
    file
}

/// A site on the server of that version with that dump. The pg_restore that is configured is the system's.
fn site(major: u32, dump: PathBuf, path: &[u32]) -> Site<'static> {
    let options = SiteOptions { dump: Some(dump), serving: Serving::Rude, ..SiteOptions::default() };
    let mut site = Site::new(stage(major), &options).unwrap();
    site.set("restore_jobs", "2").unwrap();
    configure(&mut site, 15);
    site.set_env("PATH", &VERSIONS.path(path));
    site
}

/// Has that version's pg_restore configured.
fn configure(site: &mut Site<'_>, major: u32) {
    let pg_restore = VERSIONS.get(major).unwrap().bin.join("pg_restore");
    site.set("pg_restore", &pg_restore.display().to_string()).unwrap();
}

/// The pg_restore that the last run used: its path and its major version.
fn reader(site: &Site<'_>) -> (PathBuf, u32) {
    let told = inspected(site);
    let reader = &step(&told, "catalog")["detail"]["outcome"]["reader"];
    let version = pg_staging::contents::major(reader["version"].as_str().unwrap()).unwrap();
    (PathBuf::from(reader["path"].as_str().unwrap()), version)
}

/// What of the last run the step `contents` found.
fn way(site: &Site<'_>) -> Value {
    step(&inspected(site), "contents")["detail"]["outcome"]["way"].clone()
}

/// Restores the site's dump, and holds the copy against what the same pg_restore makes of the same dump by itself, and its rows
/// against those of the database that was dumped. Gives the version of that pg_restore.
#[track_caller]
fn restores(site: &Site<'_>, dumped: (&Cluster, &str)) -> u32 {
    succeeds(site, &["restore", &site.section(), DAY]);
    let cluster = site.cluster();
    let reference = reference(site);
    let create =
        format!("CREATE DATABASE {reference} TEMPLATE template0 OWNER staging_owner ENCODING 'UTF8'");
    cluster.psql("postgres", &create).unwrap();
    let (pg_restore, version) = reader(site);
    let mut pg_restore = cluster.client_at(&pg_restore);
    let output = pg_restore.args(["-d", &reference]).arg(site.dump()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copy = site.copy(DAY);
    assert_eq!(schema_fingerprint(cluster, &copy).unwrap(), schema_fingerprint(cluster, &reference).unwrap());
    let rows = fingerprint(cluster, &copy).unwrap();
    assert_eq!(rows, fingerprint(cluster, &reference).unwrap());
    assert_eq!(rows, fingerprint(dumped.0, dumped.1).unwrap());
    assert_eq!(site.active().unwrap(), Some(copy));
    version
}

/// The database that `restores` holds the copy against.
fn reference(site: &Site<'_>) -> String {
    format!("{}_reference", site.dbname())
}

/// How pg_dump of that version can be asked to compress here.
fn compressions(major: u32) -> &'static [&'static str] {
    match major {
        17 => &["-Z0", "-Z6", "--compress=lz4", "--compress=zstd"],
        _ => &["-Z0", "-Z6"],
    }
}

/// One restore of the matrix.
#[derive(Clone, Debug)]
struct Case {
    from: u32,
    compression: &'static str,
    into: u32,
}

fn matrix() -> Vec<Case> {
    let majors: Vec<u32> = VERSIONS.0.iter().map(|postgres| postgres.major).collect();
    let mut cases = Vec::new();
    for from in &majors {
        for compression in compressions(*from) {
            let into = majors.iter().filter(|into| *into >= from);
            cases.extend(into.map(|into| Case { from: *from, compression, into: *into }));
        }
    }
    cases
}

#[test]
fn a_dump_of_one_version_is_restored_into_a_server_of_that_or_a_later_one() {
    for major in NEEDED {
        VERSIONS.get(major).unwrap();
    }
    let all: Vec<u32> = VERSIONS.0.iter().map(|postgres| postgres.major).collect();
    println!("here are the versions {all:?}, of 13 to 18");
    for postgres in VERSIONS.0.iter().filter(|postgres| !postgres.has_clients) {
        println!("{} has no pg_dump and pg_restore of its own: the 15 dumps its databases", postgres.major);
    }
    let cases = Chance::of("versions").some_of(matrix(), 3);
    for Case { from, compression, into } in cases {
        println!("from {from} with {compression} into {into}");
        let database = source(from, 1);
        let site = site(into, dumped(from, &database, &[compression]), &all);
        let reader = restores(&site, (stage(from).cluster(), &database));
        assert_eq!(way(&site), "parts");
        assert!(reader >= from && (reader <= 16 || into >= 17), "{reader}");
    }
}
