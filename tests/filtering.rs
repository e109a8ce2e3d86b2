//! What the configuration leaves out of a dump stays out of the copy, and the journal tells what and why.

use std::fs;

use serde_json::{Value, json};

use crate::{
    stage::{Fingerprint, Scale, Site, SiteOptions, Stage, TableFingerprint, fingerprint, source_database},
    traces::{inspected, step, succeeds},
};

const DAY: &str = "20261121";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

fn production(site: &Site<'_>) -> Fingerprint {
    fingerprint(site.cluster(), &source_database(Scale::Small)).unwrap()
}

fn copy(site: &Site<'_>) -> Fingerprint {
    fingerprint(site.cluster(), &site.copy(DAY)).unwrap()
}

/// What the catalog step of the last run says, and the selection in the journal that it names.
fn selection(site: &Site<'_>) -> (Value, Value) {
    let told = inspected(site);
    let outcome = step(&told, "catalog")["detail"]["outcome"].clone();
    let file = site.journal().join("attachments").join(outcome["selection"].as_str().unwrap());
    (outcome, serde_json::from_slice(&fs::read(file).unwrap()).unwrap())
}

/// The words for why entries were left out, each once.
fn reasons(selection: &Value) -> Vec<String> {
    let reason = |dropped: &Value| match &dropped["reason"] {
        Value::Object(reason) => reason.keys().next().cloned().unwrap_or_default(),
        word => word.as_str().unwrap_or_default().to_owned(),
    };
    let mut all: Vec<String> = selection["dropped"].as_array().unwrap().iter().map(reason).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn only_the_schemas_that_are_named_are_restored_and_what_hangs_on_others_is_left_out() {
    let mut site = site();
    site.set("schemas", "public, ext, sales, warehouse, Odd Schema, empty_schema").unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);

    let mut wanted = production(&site);
    wanted.retain(|name, _| !name.starts_with("audit.") && !name.starts_with("londiste."));
    assert_eq!(copy(&site), wanted);
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('audit', 'londiste')";
    assert_eq!(site.cluster().psql(&site.copy(DAY), sql).unwrap(), "0\n");

    let (outcome, selection) = selection(&site);
    let count = |name: &str| selection[name].as_array().unwrap().len();
    assert_eq!(outcome["kept"], count("kept"));
    assert_eq!(outcome["dropped"], count("dropped"));
    assert_eq!(outcome["warnings"], json!([]));
    assert_eq!(reasons(&selection), ["DatabaseLevel", "DependsOn", "Schema", "TriggerFunction"]);
    // The triggers of kept tables that call functions of the dropped schema.
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE '%replicate'";
    assert_eq!(site.cluster().psql(&site.copy(DAY), triggers).unwrap(), "0\n");
}

#[test]
fn tables_without_rows_come_by_schema_by_expression_and_by_replication() {
    let mut site = site();
    let replication = site.folder().join("replication.ini");
    fs::write(
        &replication,
        format!(
            "[public_to_dev]\nprovider = shop.prod\nsubscriber = {}\nprovides = public.hostile\n  warehouse.depot\n\
             [elsewhere]\nprovider = shop.prod\nsubscriber = another.dev\nprovides = public.customer\n",
            site.section()
        ),
    )
    .unwrap();
    site.set("schemas_nodata", "londiste, audit").unwrap();
    site.set("tablename_nodata_regexp", r"^sales\.invoice$, country").unwrap();
    site.set("replication", &replication.display().to_string()).unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);

    let (production, copy) = (production(&site), copy(&site));
    assert_eq!(copy.keys().collect::<Vec<_>>(), production.keys().collect::<Vec<_>>());
    let sequences = site.cluster().psql(
        &site.copy(DAY),
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'S'",
    );
    let sequences = sequences.unwrap();
    let is_sequence = |name: &str| sequences.lines().any(|line| line == name);
    let without_rows = |name: &str| {
        ["londiste.", "audit."].iter().any(|schema| name.starts_with(schema))
            || ["sales.invoice", "public.country", "public.hostile", "warehouse.depot"].contains(&name)
    };
    for (name, found) in &copy {
        if is_sequence(name) {
            continue;
        }
        if without_rows(name) {
            assert_eq!(found.rows, 0, "{name}");
        } else {
            let TableFingerprint { rows, checksum } = &production[name];
            assert_eq!((&found.rows, &found.checksum), (rows, checksum), "{name}");
        }
    }

    let (outcome, selection) = selection(&site);
    assert_eq!(outcome["warnings"], json!([]));
    assert_eq!(
        reasons(&selection),
        ["DatabaseLevel", "ForeignKeyWithoutRows", "RowsMatch", "RowsNamed", "RowsOfSchema"]
    );
    let fed = selection["dropped"]
        .as_array()
        .unwrap()
        .iter()
        .find(|dropped| dropped["reason"].to_string().contains("shop.prod"));
    assert!(fed.is_some(), "{selection}");
    // Rows that refer to a table without rows keep their values, and lose the foreign key.
    let keys =
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'public.country'::regclass";
    assert_eq!(site.cluster().psql(&site.copy(DAY), keys).unwrap(), "0\n");
}

#[test]
fn a_rule_that_matches_nothing_is_told_of() {
    let mut site = site();
    site.set("tablename_nodata_regexp", "no_such_table").unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    assert_eq!(copy(&site), production(&site));
    let (outcome, _) = selection(&site);
    assert_eq!(outcome["warnings"], json!(["no table of the dump matches no_such_table"]));
}
