//! Blocks of rows in which zeros stand where the length of a chunk should be: a pg_restore takes them for the end of the rows.

use std::fs;

use pg_staging::{contents::name, world::archive};
use serde_json::Value;

use super::{DAY, compressions, dumped, site, source};
use crate::{
    chance::Chance,
    stage::Conduct,
    traces::{error, inspected, last_run, step, succeeds},
};

/// An integer in an archive: a sign and four bytes.
const INTEGER: usize = 5;

/// Where the lengths of the chunks of a block stand, but for the one that ends it.
fn lengths(bytes: &[u8], block: usize) -> Vec<usize> {
    let mut at = block + 1 + INTEGER;
    let mut found = Vec::new();
    loop {
        let length = u32::from_le_bytes(bytes[at + 1..at + INTEGER].try_into().unwrap());
        if length == 0 {
            return found;
        }
        found.push(at);
        at += INTEGER + usize::try_from(length).unwrap();
    }
}

/// The dump with zeros from the middle one of the chunks of a table's block on.
fn damaged(dump: &std::path::Path, table: &str) -> Vec<u8> {
    let contents = archive::local(dump).unwrap();
    let entry = contents.data_entries().find(|entry| name(entry) == table).unwrap();
    let mut bytes = fs::read(dump).unwrap();
    let lengths = lengths(&bytes, usize::try_from(entry.offset).unwrap());
    let at = lengths[lengths.len() / 2];
    bytes[at..at + 2 * INTEGER].fill(0);
    bytes
}

#[test]
fn zeros_where_a_chunk_should_begin_are_found_before_any_row_of_that_part_is_committed() {
    let mut cases = Vec::new();
    for (major, compression) in
        [15, 17].into_iter().flat_map(|major| compressions(major).iter().map(move |by| (major, by)))
    {
        // Loaded by itself, in a group with others, and as it comes.
        for (table, streamed) in [("movement", false), ("article", false), ("movement", true)] {
            cases.push((major, *compression, table, streamed));
        }
    }
    for (major, compression, table, streamed) in Chance::of("damage").some_of(cases, 6) {
        println!("{major} {compression} {table}, streamed {streamed}");
        let dump = dumped(major, &source(major, 40), &[compression]);
        let mut site = site(major, dump.clone(), &[major]);
        site.set("on_failure", "keep").unwrap();
        let backup = site.backup_name("2026-11-21");
        site.write_file(&backup, damaged(&dump, table)).unwrap();
        if streamed {
            site.rude().unwrap().plan(&format!("/{}/{backup}", site.dbname()), Conduct::IgnoreRange);
        }
        let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
        assert_eq!(outcome.code, 3, "{outcome}");
        assert!(error(&site, &outcome).contains(" is damaged"), "{outcome}");
        let count = format!("SELECT count(*) FROM stock.{table}");
        assert_eq!(site.cluster().psql(&site.copy(DAY), &count).unwrap(), "0\n");
        assert_ne!(step(&inspected(&site), "restore")["error"], Value::Null);
        let run = last_run(&site)["id"].as_str().unwrap().to_owned();
        succeeds(&site, &["rollback", &run]);
    }
}
