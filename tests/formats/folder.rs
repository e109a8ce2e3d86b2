//! pg_dump -Fd: a folder of files on the backup server.

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use super::{DATE, DAY, dumped, equals_production, loaded, roll_back, site, way};
use crate::{
    chance::Chance,
    stage::{Conduct, Scale, Site, SiteOptions, Stage},
    traces::{fails, inspected, json as asked, step, succeeds},
};

/// Lists a folder under that name, in place of what there was; gives its path on the server.
fn list_folder(site: &Site<'_>, from: &Path, name: &str) -> String {
    let to = site.backups().join(name);
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    site.stage().scratch().make_folder(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        site.stage().scratch().write(&to.join(entry.file_name()), bytes).unwrap();
    }
    format!("/{}/{name}", site.dbname())
}

/// The file in a folder that has the most bytes.
fn largest(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let largest = entries.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap();
    largest.file_name().into_string().unwrap()
}

#[test]
fn a_folder_is_loaded_from_the_server_file_by_file() {
    let site = site();
    let folder = dumped(&site, Scale::Small, "-Fd");
    for ending in Chance::of("endings of folders").some_of(vec![".dump", ".dir", ""], 1) {
        let name = format!("{}.{DATE}{ending}", site.dbname());
        list_folder(&site, &folder, &name);
        succeeds(&site, &["restore", &site.section(), DAY]);
        equals_production(&site, Scale::Small);
        assert_eq!(way(&site), "folder", "{ending}");
        assert_eq!(loaded(&site)["tolerated"], json!([]), "{ending}");
        let listed = asked(&site, &["backups", &site.section()])["backups"].clone();
        assert_eq!(listed[0]["name"], format!("{name}/"));
        assert_eq!(listed[0]["date"], DATE);
        roll_back(&site);
        fs::remove_dir_all(site.backups().join(name)).unwrap();
    }
}

#[test]
fn a_folder_that_nginx_lists_is_restored_too() {
    let options = SiteOptions { dates: Vec::new(), ..SiteOptions::default() };
    let site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    list_folder(&site, &dumped(&site, Scale::Small, "-Fd"), &format!("{}.{DATE}.dir", site.dbname()));
    succeeds(&site, &["restore", &site.section(), "latest"]);
    equals_production(&site, Scale::Small);
    assert_eq!(way(&site), "folder");
}

#[test]
fn of_a_folder_only_what_is_kept_is_fetched() {
    let mut site = site();
    let folder = dumped(&site, Scale::Small, "-Fd");
    let path = list_folder(&site, &folder, &format!("{}.{DATE}.dir", site.dbname()));
    site.set("tablename_nodata_regexp", ".").unwrap();
    succeeds(&site, &["restore", &site.section(), DAY]);
    let rude = site.rude().unwrap();
    assert_eq!(rude.bytes_sent(&format!("{path}/{}", largest(&folder))), 0);
    assert!(rude.bytes_sent(&format!("{path}/toc.dat")) > 0);
    let told = inspected(&site);
    assert!(step(&told, "catalog")["detail"]["outcome"]["dropped"].as_u64().unwrap() > 0);
}

#[test]
fn a_restore_from_a_folder_that_was_killed_goes_on_with_what_is_missing() {
    let site = site();
    let folder = dumped(&site, Scale::Full, "-Fd");
    let path = list_folder(&site, &folder, &format!("{}.{DATE}.dir", site.dbname()));
    let file = format!("{path}/{}", largest(&folder));
    let rude = site.rude().unwrap();
    for continued in Chance::of("killed folders").some_of(vec![true, false], 1) {
        rude.plan(&file, Conduct::StallAt(100_000));
        let program = site.spawn(&["restore", &site.section(), DAY]).unwrap();
        rude.wait_until_stalled(&file, Duration::from_secs(60)).unwrap();
        program.kill().unwrap();
        rude.behave(&file);
        if continued {
            succeeds(&site, &["continue", &site.section()]);
            equals_production(&site, Scale::Full);
            assert!(loaded(&site)["kept"].as_u64().unwrap() > 0, "{}", loaded(&site));
        }
        roll_back(&site);
    }
}

#[test]
fn a_folder_that_lacks_a_file_or_has_a_short_one_is_refused_and_leaves_nothing() {
    let site = site();
    let folder = dumped(&site, Scale::Small, "-Fd");
    let name = largest(&folder);
    let bytes = fs::read(folder.join(&name)).unwrap();
    for cut in [true, false] {
        fs::remove_file(folder.join(&name)).unwrap();
        if cut {
            fs::write(folder.join(&name), &bytes[..bytes.len() / 2]).unwrap();
        }
        list_folder(&site, &folder, &format!("{}.{DATE}.dir", site.dbname()));
        let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome}");
        assert!(outcome.stderr.contains(" is damaged"), "{outcome}");
        assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_folder_is_not_brought_here() {
    let mut site = site();
    list_folder(&site, &dumped(&site, Scale::Small, "-Fd"), &format!("{}.{DATE}.dir", site.dbname()));
    let said = format!(
        "http://127.0.0.1:<port>/shop/shop.{DATE}.dir/toc.dat is in a folder of files, which is not brought here\n\
         hint: restore straight from the server: fast = True, verify = blocks, remove_dump = True and pg_restore_st = False; or have the backup made as one file, with pg_dump -Fc"
    );
    fails(&site, &["fetch", &site.section(), DAY], 1, &said);
    site.set("restore_jobs", "1").unwrap();
    for (option, value, usual) in [
        ("fast", "False", "True"),
        ("verify", "full", "blocks"),
        ("remove_dump", "False", "True"),
        ("pg_restore_st", "True", "False"),
    ] {
        site.set(option, value).unwrap();
        fails(&site, &["restore", &site.section(), DAY], 1, &said);
        site.set(option, usual).unwrap();
    }
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}
