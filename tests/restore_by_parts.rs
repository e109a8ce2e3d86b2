//! Restores that load straight from the server: by every way in which a server or a dump lends itself to it.
#![allow(clippy::disallowed_methods, reason = "dumps are made by pg_dump itself")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use pg_staging::{
    contents::{
        Contents, ObjectType, Original, PartKind, Piece, RestorePart, Rules, Selection, filter, parts,
        preamble,
    },
    world::archive,
};
use serde_json::json;

use crate::{
    stage::{Asked, Conduct, Plan, Scale, Serving, Site, SiteOptions, Stage, fingerprint, source_database},
    traces::{Traces, inspected, step, succeeds},
};

const DAY: &str = "20261121";

fn rude_site(scale: Scale) -> Site<'static> {
    let options = SiteOptions { serving: Serving::Rude, scale, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("restore_jobs", "3").unwrap();
    site
}

fn path(site: &Site<'_>) -> String {
    format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21"))
}

/// The copy is what production is, and nothing but the copy was left anywhere.
#[track_caller]
fn equals_production(site: &Site<'_>, scale: Scale) {
    let copy = site.copy(DAY);
    let production = fingerprint(site.cluster(), &source_database(scale)).unwrap();
    assert_eq!(fingerprint(site.cluster(), &copy).unwrap(), production);
    let ours = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'staging_%'";
    assert_eq!(site.cluster().psql(&copy, ours).unwrap(), "0\n");
    assert_eq!(site.active().unwrap(), Some(copy));
    assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0);
}

/// What pg_dump writes where it cannot go back.
fn piped(database: &str) -> Vec<u8> {
    let mut pg_dump = Stage::shared().unwrap().cluster().client("pg_dump");
    let output = pg_dump.args(["-Fc", "-d", database]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// By which way the last run loaded its dump.
fn way(site: &Site<'_>) -> String {
    step(&inspected(site), "contents")["detail"]["outcome"]["way"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_without_ranges_is_read_once_from_the_dumps_start_to_its_end() {
    let site = rude_site(Scale::Full);
    site.rude().unwrap().plan(&path(&site), Conduct::IgnoreRange);
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Full);
    assert_eq!(way(&site), "stream");
}

#[test]
fn a_dump_that_does_not_tell_where_rows_are_is_read_from_its_first_block_to_its_end() {
    let site = rude_site(Scale::Small);
    site.write_file(&site.backup_name("2026-11-21"), piped(&source_database(Scale::Small))).unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
    assert_eq!(way(&site), "stream");
}

#[test]
fn a_connection_that_breaks_again_and_again_is_made_again_where_it_broke() {
    let site = rude_site(Scale::Full);
    let rude = site.rude().unwrap();
    for conduct in [Conduct::CloseAfter(200_000), Conduct::CloseAfter(1_000_000)] {
        rude.plan(&path(&site), conduct);
        succeeds(&site, &["restore", &site.section(), DAY]);
        equals_production(&site, Scale::Full);
        assert_eq!(way(&site), "parts");
        rude.behave(&path(&site));
        succeeds(&site, &["rollback", inspected(&site)["run"]["id"].as_str().unwrap(), "--yes"]);
    }
}

#[test]
fn what_was_loaded_before_a_kill_is_neither_fetched_nor_loaded_again() {
    let site = rude_site(Scale::Full);
    let rude = site.rude().unwrap();
    let length = fs::metadata(site.dump()).unwrap().len();
    rude.plan(&path(&site), Conduct::StallAt(length * 9 / 10));
    let program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    rude.wait_until_stalled(&path(&site), Duration::from_secs(60)).unwrap();
    program.kill().unwrap();
    rude.behave(&path(&site));
    rude.forget_requests();
    succeeds(&site, &["continue", &site.section()]);
    equals_production(&site, Scale::Full);
    let told = inspected(&site);
    let outcome = &step(&told, "restore")["detail"]["outcome"];
    assert!(outcome["kept"].as_u64().unwrap() > 0, "{outcome}");
    assert!(rude.bytes_sent(&path(&site)) < length, "{outcome}");
    assert_eq!(outcome["tolerated"], json!([]));
}

/// What is said of damaged rows: by pg_restore of what is compressed, and by us of the lengths of chunks.
const DAMAGED: &str = "cause: could not uncompress data|is damaged";

/// That content under the ETag that the dump was first seen with, unless another is told.
fn content(bytes: &[u8], tag: Option<&str>) -> Conduct {
    Conduct::Content { bytes: bytes.to_vec(), tag: Some(tag.unwrap_or("\"first\"").to_owned()) }
}

/// The dump with the rows behind that byte damaged: inside what is compressed, or where chunks have their lengths.
fn damaged_from(dump: &[u8], from: usize, how: impl Fn(usize) -> bool) -> Vec<u8> {
    let damaged = |(at, byte): (usize, &u8)| if at >= from && how(at) { !*byte } else { *byte };
    dump.iter().enumerate().map(damaged).collect()
}

#[test]
fn a_server_that_gives_something_else_meanwhile_is_told_of_and_the_run_goes_on_when_it_is_mended() {
    let mut site = rude_site(Scale::Full);
    site.set("on_failure", "keep").unwrap();
    site.set("retry_limit", "1s").unwrap();
    let (rude, place) = (site.rude().unwrap(), path(&site));
    let dump = fs::read(site.dump()).unwrap();
    let half = dump.len() / 2;
    rude.plan(&place, content(&dump, None));
    rude.plan(&place, Conduct::StallAt(half as u64));
    let program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
    rude.wait_until_stalled(&place, Duration::from_secs(60)).unwrap();
    program.kill().unwrap();

    let login = "<html><body>Please log in</body></html>".to_owned();
    let flipped = damaged_from(&dump, half, |at| at % 1000 == 0);
    let zeros: Vec<u8> =
        dump[..half].iter().copied().chain(std::iter::repeat_n(0, dump.len() - half)).collect();
    let cases: [(&str, Vec<Conduct>, &str); 7] = [
        ("another file", vec![content(&flipped, Some("\"second\""))], "changed"),
        ("a file cut short", vec![content(&dump[..half], None)], "changed"),
        ("other bytes under the same ETag", vec![content(&flipped, None)], DAMAGED),
        ("zeros under the same ETag", vec![content(&zeros, None)], "is damaged"),
        ("all of another file", vec![content(&flipped, Some("\"second\"")), Conduct::IgnoreRange], "changed"),
        ("all of the file", vec![content(&dump, None), Conduct::IgnoreRange], "does not serve parts"),
        ("a page", vec![Conduct::Html(login)], "changed"),
    ];
    for (what, conducts, word) in cases {
        rude.behave(&place);
        for conduct in conducts {
            rude.plan(&place, conduct);
        }
        let outcome = site.run(&["continue", &site.section()]).unwrap();
        assert_eq!(outcome.code, 3, "{what}: {outcome}");
        assert!(word.split('|').any(|word| outcome.stderr.contains(word)), "{what}: {outcome}");
        assert_eq!(site.active().unwrap(), None, "{what}");
    }
    rude.behave(&place);
    rude.plan(&place, content(&dump, None));
    succeeds(&site, &["continue", &site.section()]);
    equals_production(&site, Scale::Full);
    assert_eq!(way(&site), "parts");
}

#[test]
fn a_dump_that_is_damaged_or_cut_fails_by_whichever_way_it_comes_and_leaves_nothing() {
    let mut site = rude_site(Scale::Full);
    site.set("retry_limit", "1s").unwrap();
    let (rude, place) = (site.rude().unwrap(), path(&site));
    let dump = fs::read(site.dump()).unwrap();
    let half = dump.len() / 2;
    let zeros: Vec<u8> =
        dump[..half].iter().copied().chain(std::iter::repeat_n(0, dump.len() - half)).collect();
    let flipped = damaged_from(&dump, half, |at| at % 1000 == 0);
    let piped = piped(&source_database(Scale::Full));
    let before = Traces::of(&site);
    let cases: [(&str, Vec<Conduct>, &str); 8] = [
        ("cut", vec![content(&dump[..half], None)], "cause: the archive ends after"),
        (
            "cut, in a stream",
            vec![content(&dump[..half], None), Conduct::IgnoreRange],
            "cause: the archive ends after",
        ),
        (
            "cut by its last byte, in a stream",
            vec![content(&dump[..dump.len() - 1], None), Conduct::IgnoreRange],
            "is damaged",
        ),
        ("cut, without offsets", vec![content(&piped[..piped.len() - 100], None)], "is damaged"),
        ("zeros", vec![content(&zeros, None)], "is damaged"),
        ("zeros, in a stream", vec![content(&zeros, None), Conduct::IgnoreRange], "is damaged"),
        ("other bytes", vec![content(&flipped, None)], DAMAGED),
        ("other bytes, in a stream", vec![content(&flipped, None), Conduct::IgnoreRange], "is damaged"),
    ];
    for (what, conducts, word) in cases {
        rude.behave(&place);
        for conduct in conducts {
            rude.plan(&place, conduct);
        }
        let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
        assert_eq!(outcome.code, 1, "{what}: {outcome}");
        assert!(word.split('|').any(|word| outcome.stderr.contains(word)), "{what}: {outcome}");
        assert_eq!(Traces::of(&site), before, "{what}: {outcome}");
    }
}

#[test]
fn a_stream_that_never_comes_to_its_end_fails_and_one_that_breaks_once_is_read_again() {
    let mut site = rude_site(Scale::Full);
    site.set("retry_limit", "1s").unwrap();
    let (rude, place) = (site.rude().unwrap(), path(&site));
    let before = Traces::of(&site);
    let half = fs::metadata(site.dump()).unwrap().len() / 2;
    rude.plan(&place, Conduct::IgnoreRange);
    rude.plan(&place, Plan::new(Conduct::CloseAfter(half)).on(Asked::Get));
    let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains(&format!("only {half} of ")), "{outcome}");
    assert_eq!(Traces::of(&site), before, "{outcome}");
    rude.behave(&place);
    rude.plan(&place, Conduct::IgnoreRange);
    rude.plan(&place, Plan::new(Conduct::CloseAfter(half)).on(Asked::Get).after(1).times(1));
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Full);
    assert_eq!(way(&site), "stream");
}

#[test]
fn a_dump_without_offsets_is_read_from_a_server_without_ranges() {
    let site = rude_site(Scale::Small);
    site.write_file(&site.backup_name("2026-11-21"), piped(&source_database(Scale::Small))).unwrap();
    site.rude().unwrap().plan(&path(&site), Conduct::IgnoreRange);
    site.rude().unwrap().plan(&path(&site), Conduct::NoValidator);
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
    assert_eq!(way(&site), "stream");
}

/// The dump of all kinds of objects, divided; with the places of its blocks and without.
fn divided(known: bool) -> (Contents, Selection, Vec<RestorePart>) {
    let site = rude_site(Scale::Full);
    let contents = archive::local(site.dump()).unwrap();
    let selection = filter(&contents, &Rules::default());
    let length = fs::metadata(site.dump()).unwrap().len();
    let parts = parts(&contents, &selection, known.then_some(length));
    (contents, selection, parts)
}

#[test]
fn every_entry_that_is_kept_is_in_one_part_which_comes_after_all_that_it_needs() {
    for known in [true, false] {
        let (contents, selection, parts) = divided(known);
        let mut part_of = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            assert!(part.needs.iter().all(|need| *need < index), "{}: {:?}", part.name, part.needs);
            assert!(part.locks.is_sorted());
            for entry in &part.entries {
                assert_eq!(part_of.insert(contents.entries()[*entry].dump_id, index), None, "{}", part.name);
            }
        }
        let preamble: Vec<i32> =
            preamble(&contents).iter().map(|at| contents.entries()[*at].dump_id).collect();
        assert_eq!(preamble.len(), 3);
        let kept: BTreeSet<i32> =
            selection.kept.iter().copied().filter(|id| !preamble.contains(id)).collect();
        assert_eq!(part_of.keys().copied().collect::<BTreeSet<i32>>(), kept);
        // What pg_dump says comes before an entry is in the same part or in an earlier one, but for what pg_restore itself
        // puts off to the end.
        for entry in contents.entries().iter().filter(|entry| kept.contains(&entry.dump_id)) {
            for before in entry.dependencies.iter().filter_map(|id| part_of.get(id)) {
                let put_off = matches!(
                    parts[*before].kind,
                    PartKind::Privileges | PartKind::Refresh | PartKind::Finish
                );
                assert!(put_off || *before <= part_of[&entry.dump_id], "{entry:?}");
            }
        }
        let rows: Vec<i32> = parts.iter().flat_map(|part| &part.rows).map(|rows| rows.dump_id).collect();
        let blocks: Vec<i32> =
            contents.data_entries().map(|entry| entry.dump_id).filter(|id| kept.contains(id)).collect();
        assert_eq!(rows.iter().copied().collect::<BTreeSet<i32>>(), blocks.into_iter().collect());
        assert_eq!(parts.iter().flat_map(|part| &part.rows).all(|rows| rows.bytes.is_some()), known);
    }
}

#[test]
fn an_excerpt_of_all_entries_lists_as_the_archive_does() {
    let site = rude_site(Scale::Small);
    let bytes = fs::read(site.dump()).unwrap();
    let contents = archive::local(site.dump()).unwrap();
    let head = bytes[..usize::try_from(contents.length()).unwrap()].to_vec();
    let original = Original::new(head.clone()).unwrap();
    assert_eq!(original.bytes(), head);
    let all: Vec<Piece> = (0..contents.entries().len()).map(Piece::Entry).collect();
    assert_eq!(original.excerpt(&all), head);
    let list = |bytes: &[u8]| {
        let file = site.folder().join("excerpt");
        fs::write(&file, bytes).unwrap();
        let output = site.cluster().client("pg_restore").arg("--list").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect::<Vec<String>>()
    };
    let rows = contents.entries().iter().position(|entry| entry.desc == ObjectType::TableData).unwrap();
    let pieces =
        [Piece::Truncate(rows), Piece::Rows { at: rows, freeze: true }, Piece::Sql("SELECT 1;".into())];
    let excerpt = list(&original.excerpt(&pieces));
    let [truncate, copy, select] = excerpt.as_slice() else { panic!("{excerpt:?}") };
    assert!(list(&bytes).contains(copy), "{copy}");
    assert!([truncate, select].iter().all(|line| line.contains("PG_STAGING")), "{excerpt:?}");
}
