//! pg_dump -Ft, and a folder by pg_dump -Fd in a tar file.

use std::{fs, os::unix::fs::symlink, time::Duration};

use serde_json::json;

use super::{DAY, dumped, equals_production, gzipped, list, loaded, packed, roll_back, site, way, zstandard};
use crate::{
    chance::Chance,
    gate::Gate,
    stage::{Conduct, Scale, Site},
    traces::{fails, inspected, step, succeeds},
};

/// What a tar file may be: made by pg_dump itself, or of its folder in three ways.
fn tars(site: &Site<'_>, scale: Scale) -> Vec<(&'static str, Vec<u8>)> {
    let folder = dumped(site, scale, "-Fd");
    // The contents last: a folder has no order.
    let mut files: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_by_key(|name| (name == "toc.dat", name.clone()));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    vec![
        ("pg_dump -Ft", fs::read(dumped(site, scale, "-Ft")).unwrap()),
        ("a folder", packed(folder.parent().unwrap(), &["dumped-Fd"])),
        ("its files", packed(&folder, &files)),
        ("its files, posix", packed(&folder, &["--format=posix", "."])),
    ]
}

#[test]
fn a_tar_file_is_loaded_from_the_server_file_by_file() {
    let site = site();
    for (name, tar) in Chance::of("tar files").some_of(tars(&site, Scale::Small), 2) {
        list(&site, ".tar", &tar);
        succeeds(&site, &["restore", &site.section(), DAY]);
        equals_production(&site, Scale::Small);
        assert_eq!(way(&site), "tar", "{name}");
        assert_eq!(loaded(&site)["tolerated"], json!([]), "{name}");
        roll_back(&site);
    }
}

#[test]
fn of_a_tar_file_only_what_is_kept_is_fetched() {
    let mut site = site();
    let tar = fs::read(dumped(&site, Scale::Full, "-Ft")).unwrap();
    let path = list(&site, ".tar", &tar);
    site.set("tablename_nodata_regexp", "^public\\.orders|^sales\\.|invoice|measure|event|audit").unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    let sent = site.rude().unwrap().bytes_sent(&path);
    assert!(sent < tar.len() as u64 * 3 / 4, "{sent} of {}", tar.len());
    let told = inspected(&site);
    assert!(step(&told, "catalog")["detail"]["outcome"]["dropped"].as_u64().unwrap() > 0);
}

#[test]
fn a_compressed_tar_file_comes_through_tmpdir() {
    let site = site();
    let tar = packed(&dumped(&site, Scale::Small, "-Fd"), &["."]);
    let cases = vec![(".tar.gz", gzipped(&tar)), (".tgz", gzipped(&tar)), (".tar.zst", zstandard(&tar))];
    for (ending, bytes) in Chance::of("compressed tar files").some_of(cases, 1) {
        let path = list(&site, ending, &bytes);
        succeeds(&site, &["restore", &site.section(), DAY]);
        equals_production(&site, Scale::Small);
        assert_eq!(way(&site), "file");
        roll_back(&site);
        site.remove_file(path.rsplit('/').next().unwrap()).unwrap();
    }
}

#[test]
fn a_tar_file_comes_through_tmpdir_where_the_server_has_no_parts_or_the_file_is_wanted() {
    let mut site = site();
    let path = list(&site, ".tar", &fs::read(dumped(&site, Scale::Small, "-Ft")).unwrap());
    site.rude().unwrap().plan(&path, Conduct::IgnoreRange);
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
    assert_eq!(way(&site), "file");
    site.rude().unwrap().behave(&path);
    roll_back(&site);
    site.set("fast", "False").unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    equals_production(&site, Scale::Small);
}

#[test]
fn what_is_on_this_machine_is_loaded_whatever_it_is() {
    let site = site();
    let dumps = tars(&site, Scale::Small);
    let tar = dumps[1].1.clone();
    let mut files: Vec<_> = dumps
        .into_iter()
        .chain([("gzip", gzipped(&tar)), ("zstd", zstandard(&tar))])
        .map(|(name, bytes)| {
            let path = site.folder().join(name.replace(' ', "_"));
            fs::write(&path, bytes).unwrap();
            path
        })
        .collect();
    files.push(site.folder().join("dumped-Fd"));
    for file in Chance::of("files here").some_of(files, 2) {
        let file = file.display().to_string();
        succeeds(&site, &["load", &site.section(), &file, "--date", DAY]);
        equals_production(&site, Scale::Small);
        assert_eq!(loaded(&site)["tolerated"], json!([]), "{file}");
        roll_back(&site);
    }
}

/// When the run stands at the gate, all headers were read, so that the server stalls within rows.
#[test]
fn a_restore_from_a_tar_file_that_was_killed_goes_on_with_what_is_missing_or_is_rolled_back() {
    let site = site();
    let tar = fs::read(dumped(&site, Scale::Full, "-Ft")).unwrap();
    let path = list(&site, ".tar", &tar);
    let rude = site.rude().unwrap();
    for continued in [true, false] {
        let file = format!("wait_{continued}.sql");
        let gate = Gate::new(&site, "pre", &file, "");
        let mut program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
        let waiting = gate.wait(&mut program);
        rude.plan(&path, Conduct::StallAt(tar.len() as u64 * 9 / 10));
        drop(waiting);
        rude.wait_until_stalled(&path, Duration::from_secs(60)).unwrap();
        program.kill().unwrap();
        rude.behave(&path);
        if continued {
            succeeds(&site, &["continue", &site.section()]);
            equals_production(&site, Scale::Full);
            assert!(loaded(&site)["kept"].as_u64().unwrap() > 0, "{}", loaded(&site));
        }
        roll_back(&site);
        assert_eq!(site.active().unwrap(), None);
        gate.remove(&site, "pre", &file);
    }
}

#[test]
fn a_tar_file_that_holds_what_no_dump_does_is_refused() {
    let site = site();
    let folder = dumped(&site, Scale::Small, "-Fd");
    symlink("/etc/passwd", folder.join("link.dat")).unwrap();
    let at = "http://127.0.0.1:<port>/shop/shop.2026-11-21.tar is damaged\n";
    let hint = "\nhint: have the backup made or copied again";
    let refused = |tar: &[u8], cause: &str| {
        list(&site, ".tar", tar);
        fails(&site, &["restore", &site.section(), DAY], 1, &format!("{at}cause: {cause}{hint}"));
    };
    refused(&packed(&folder, &["."]), "it holds \"./link.dat\", which is a link");
    fs::remove_file(folder.join("link.dat")).unwrap();
    let cases: Vec<(&[&str], &str)> = vec![
        (
            &["-P", "--transform=s,toc.dat,../toc.dat,", "toc.dat"],
            "it holds \"../toc.dat\", which leads elsewhere",
        ),
        (
            &["-P", "--transform=s,toc.dat,/tmp/toc.dat,", "toc.dat"],
            "it holds \"/tmp/toc.dat\", which leads elsewhere",
        ),
        (&["--hard-dereference", "toc.dat", "toc.dat"], "it holds \"toc.dat\" twice"),
        (&["--exclude=toc.dat", "."], "it holds no toc.dat, which every dump by pg_dump -Fd or -Ft has"),
    ];
    for (names, cause) in Chance::of("what no dump holds").some_of(cases, 2) {
        refused(&packed(&folder, names), cause);
    }
}

#[test]
fn a_tar_file_that_is_damaged_is_refused_and_leaves_nothing() {
    let site = site();
    let folder = dumped(&site, Scale::Small, "-Fd");
    let restore = || site.run(&["restore", &site.section(), DAY]).unwrap();
    let whole = packed(&folder, &["."]);
    let largest = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let rows = fs::read(&largest).unwrap();
    // Cut in the tar file; and a file in it cut by whoever packed it.
    let cut = whole[..whole.len() / 2].to_vec();
    fs::write(&largest, &rows[..rows.len() - 9]).unwrap();
    let short = packed(&folder, &["."]);
    let mut changed = rows.clone();
    changed[rows.len() / 2] ^= 0x55;
    fs::write(&largest, changed).unwrap();
    let changed = packed(&folder, &["."]);
    let cases = vec![
        ("cut", cut, ".tar"),
        ("short", short, ".tar"),
        ("changed", changed, ".tar"),
        ("cut gzip", gzipped(&whole)[..1000].to_vec(), ".tar.gz"),
    ];
    for (what, tar, ending) in Chance::of("damaged tar files").some_of(cases, 2) {
        let path = list(&site, ending, &tar);
        let outcome = restore();
        assert_eq!(outcome.code, 1, "{what}: {outcome}");
        assert!(outcome.stderr.contains(" is damaged"), "{what}: {outcome}");
        assert_eq!(site.copies().unwrap(), Vec::<String>::new(), "{what}");
        assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0, "{what}");
        site.remove_file(path.rsplit('/').next().unwrap()).unwrap();
    }
}
