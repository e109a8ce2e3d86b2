//! Backups of every format that pg_dump writes: whichever it is, the copy is the one that pg_dump -Fc would have given.
#![allow(clippy::disallowed_methods, reason = "dumps are made by pg_dump and tar themselves")]

mod folder;
mod sql;
mod tar;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::{
    stage::{Scale, Serving, Site, SiteOptions, Stage, fingerprint, schema_fingerprint, source_database},
    traces::{inspected, step},
};

const DAY: &str = "20261121";
const DATE: &str = "2026-11-21";

/// A site that lists no backup yet, whose server tells what it was asked for.
fn site() -> Site<'static> {
    let options = SiteOptions { serving: Serving::Rude, dates: Vec::new(), ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("restore_jobs", "3").unwrap();
    site
}

/// What pg_dump writes in that format, at a path of the site's own.
fn dumped(site: &Site<'_>, scale: Scale, format: &str) -> PathBuf {
    site.stage().production_dump(scale).unwrap();
    let path = site.folder().join(format!("dumped{format}"));
    let arguments = [format, "-f", &path.display().to_string()];
    site.cluster().pg_dump(&source_database(scale), &arguments).unwrap();
    path
}

/// The bytes of a tar file of that folder, or of some names in it, as GNU tar makes it.
fn packed(folder: &Path, names: &[&str]) -> Vec<u8> {
    let mut tar = std::process::Command::new("tar");
    let output = tar.arg("-C").arg(folder).args(["-c", "-f", "-"]).args(names).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Lists these bytes as the backup of the day, in place of what there was; gives the path on the server.
fn list(site: &Site<'_>, ending: &str, bytes: &[u8]) -> String {
    let name = format!("{}.{DATE}{ending}", site.dbname());
    site.write_file(&name, bytes).unwrap();
    format!("/{}/{name}", site.dbname())
}

/// The copy is what production is, its definitions too, and nothing but the copy was left anywhere.
#[track_caller]
fn equals_production(site: &Site<'_>, scale: Scale) {
    let (copy, production) = (site.copy(DAY), source_database(scale));
    let cluster = site.cluster();
    assert_eq!(fingerprint(cluster, &copy).unwrap(), fingerprint(cluster, &production).unwrap());
    assert_eq!(
        schema_fingerprint(cluster, &copy).unwrap(),
        schema_fingerprint(cluster, &production).unwrap()
    );
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'staging_%'";
    assert_eq!(cluster.psql(&copy, ours).unwrap(), "0\n");
    assert_eq!(site.active().unwrap(), Some(copy));
    assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0);
}

/// By which way the last run loaded its dump.
fn way(site: &Site<'_>) -> String {
    let told = inspected(site);
    step(&told, "contents")["detail"]["outcome"]["way"].as_str().unwrap().to_owned()
}

/// What came of the last run's restore.
fn loaded(site: &Site<'_>) -> Value {
    step(&inspected(site), "restore")["detail"]["outcome"].clone()
}

/// Undoes the last run.
#[track_caller]
fn roll_back(site: &Site<'_>) {
    let run = inspected(site)["run"]["id"].as_str().unwrap().to_owned();
    let outcome = site.run(&["rollback", &run, "--yes"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0);
}
