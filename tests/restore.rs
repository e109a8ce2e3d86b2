//! The main job, from the backup server's listing to the alias.

use crate::stage::{Scale, Site, SiteOptions, Stage, fingerprint, source_database};

/// A site of its own on the shared stage.
fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

#[test]
fn a_restore_ends_with_the_alias_on_a_copy_that_equals_production() {
    let site = site();
    let before = site.bouncer().ini_bytes().unwrap();

    let outcome = site.run(&["restore", &site.section(), "20261121"]).unwrap();

    assert_eq!(outcome.code, 0, "{outcome:#?}");
    let copy = site.copy("20261121");
    assert_eq!(site.active().unwrap().as_deref(), Some(copy.as_str()));
    let production = fingerprint(site.cluster(), &source_database(Scale::Small)).unwrap();
    assert_eq!(fingerprint(site.cluster(), &copy).unwrap(), production);
    let after = site.bouncer().ini_bytes().unwrap();
    assert_ne!(before, after);
}
