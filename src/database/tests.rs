//! Tests of `database.rs`.

use jiff::civil::date;
use proptest::prelude::*;

use super::*;

#[test]
fn a_copy_belongs_to_its_base_only() {
    let day = date(2026, 11, 21);
    assert_eq!(DatedName::new("shop", day).unwrap().to_string(), "shop_20261121");
    assert_eq!(DatedName::date_of("shop_eu", "shop_eu_20261121"), Some(day));
    for (base, name) in [
        ("shop", "shop_eu_20261121"),
        ("eu", "shop_eu_20261121"),
        ("shop", "shop_20261121_old"),
        ("shop", "shop_20261121\n"),
        ("shop", "Shop_20261121"),
        ("shop", "shop20261121"),
        ("shop", "shop_2026112"),
        ("shop", "shop_020261121"),
        ("shop", "shop_20260230"),
        ("shop", "shop_20261301"),
        ("shop", "shop_٢٠٢٦١١٢١"),
        ("shop", "shop"),
        ("", "_20261121"),
    ] {
        assert_eq!(DatedName::date_of(base, name), None, "{base:?} {name:?}");
    }
}

#[test]
fn a_name_that_postgresql_would_cut_is_refused() {
    let day = date(2026, 11, 21);
    assert!(DatedName::new(&"x".repeat(54), day).is_ok());
    let error = DatedName::new(&"x".repeat(55), day).unwrap_err();
    assert!(error.to_string().contains("64 bytes"), "{error}");
    assert!(DatedName::new("", day).is_err());
    assert!(DatedName::new("a\0b", day).is_err());
    assert!(DatedName::new("shop", date(-1, 1, 1)).is_err());
}

#[test]
fn a_dump_belongs_to_its_database_only() {
    let day = date(2026, 11, 21);
    assert_eq!(DumpName::new("shop", day).unwrap().to_string(), "shop.2026-11-21.dump");
    assert_eq!(DumpName::date_of("shop.eu", "shop.eu.2026-11-21.dump"), Some(day));
    for ending in DUMP_ENDINGS {
        let name = format!("shop.2026-11-21{ending}");
        assert_eq!(DumpName::date_of("shop", &name), Some(day));
        assert_eq!(DumpName::parse(&name).unwrap().to_string(), name);
        assert_eq!(DumpName::parse(&name).unwrap().is_sql(), name.contains(".sql"));
    }
    for folder in ["shop.2026-11-21", "shop.2026-11-21.dump", "shop.2026-11-21.dir"] {
        assert_eq!(DumpName::date_of_folder("shop", folder), Some(day), "{folder}");
    }
    for folder in ["shop", "shop.2026-11-21.tar", "shop_eu.2026-11-21", "shop.2026-11-21.old"] {
        assert_eq!(DumpName::date_of_folder("shop", folder), None, "{folder}");
    }
    for name in [
        "shop.eu.2026-11-21.dump",
        "shop.2026-11-21.dump.part",
        "shop.2026-11-21.dump.sha256",
        "shop.2026-02-30.dump",
        "shop.20261121.dump",
        "shop.2026-11-1.dump",
        "shop.+026-11-21.dump",
        "shop_2026-11-21.dump",
        "old/shop.2026-11-21.dump",
        ".2026-11-21.dump",
    ] {
        assert_eq!(DumpName::date_of("shop", name), None, "{name}");
    }
}

#[test]
fn words_and_both_ways_to_write_a_date_are_understood() {
    let day = DateWord::Exact(date(2026, 11, 21));
    for (text, word) in [
        ("20261121", day),
        ("2026-11-21", day),
        ("today", DateWord::Today),
        ("Yesterday", DateWord::Yesterday),
        ("LATEST", DateWord::Latest),
        ("oldest", DateWord::Oldest),
        ("aCtive", DateWord::Active),
    ] {
        assert_eq!(text.parse(), Ok(word), "{text}");
    }
    for text in ["", "tomorrow", "2026/11/21", "261121", "2026-1-1", " 20261121", "2026é1121"] {
        let error = DateWord::from_str(text).unwrap_err();
        assert_eq!(error, DateError::NotADate { text: text.to_owned() });
        assert!(error.hint().contains("YYYYMMDD"));
    }
    for text in ["20260230", "2026-13-01"] {
        assert_eq!(DateWord::from_str(text), Err(DateError::NoSuchDay { text: text.to_owned() }));
    }
}

#[test]
fn words_choose_among_what_there_is() {
    let today = date(2026, 3, 1);
    let available = [date(2026, 1, 2), date(2026, 2, 3), date(2026, 1, 1)];
    let active = Some(date(2026, 1, 2));
    let resolve = |word: DateWord| word.resolve(today, &available, active);
    assert_eq!(resolve(DateWord::Today), Ok(today));
    assert_eq!(resolve(DateWord::Yesterday), Ok(date(2026, 2, 28)));
    assert_eq!(resolve(DateWord::Latest), Ok(date(2026, 2, 3)));
    assert_eq!(resolve(DateWord::Oldest), Ok(date(2026, 1, 1)));
    assert_eq!(resolve(DateWord::Active), Ok(date(2026, 1, 2)));
    assert_eq!(resolve(DateWord::Exact(today)), Ok(today));
    assert_eq!(
        DateWord::Latest.resolve(today, &[], None),
        Err(DateError::NoneAvailable { word: DateWord::Latest })
    );
    assert_eq!(DateWord::Active.resolve(today, &available, None), Err(DateError::NoneActive));
    assert_eq!(DateWord::Yesterday.resolve(Date::MIN, &[], None), Err(DateError::OutOfRange));
}

#[test]
fn a_purge_keeps_the_newest_and_those_in_use() {
    let day = |d| date(2026, 11, d);
    let existing = [day(3), day(1), day(4), day(2), day(4)];
    assert_eq!(to_purge(&existing, &[], 2), [day(1), day(2)]);
    assert_eq!(to_purge(&existing, &[day(1)], 2), [day(2)]);
    assert_eq!(to_purge(&existing, &[day(4)], 0), [day(1), day(2), day(3)]);
    assert_eq!(to_purge(&existing, &[], 4), []);
}

fn any_date() -> impl Strategy<Value = Date> {
    (0i16..=9999, 1i8..=12, 1i8..=31).prop_filter_map("no such day", |(y, m, d)| Date::new(y, m, d).ok())
}

proptest! {
    #[test]
    fn what_is_made_is_parsed(base in "[^\0/]{1,13}", day in any_date()) {
        let name = DatedName::new(&base, day).unwrap();
        prop_assert_eq!(DatedName::parse(&name.to_string()), Some(name));
        let dump = DumpName::new(&base, day).unwrap();
        prop_assert_eq!(DumpName::parse(&dump.to_string()), Some(dump));
    }

    #[test]
    fn what_is_parsed_is_what_would_be_made(text in "([a-z_.]{0,4}_?[0-9-]{8,10}(\\.dump)?|\\PC{0,20})") {
        if let Some(name) = DatedName::parse(&text) {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Some(name) = DumpName::parse(&text) {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Err(error) = text.parse::<DateWord>() {
            prop_assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn a_date_is_said_as_it_is_shown(day in any_date()) {
        prop_assert_eq!(DateWord::Exact(day).to_string().parse(), Ok(DateWord::Exact(day)));
    }

    #[test]
    fn a_purge_drops_only_what_may_go(
        existing in proptest::collection::vec(any_date(), 0..12),
        in_use in proptest::collection::vec(0usize..12, 0..4),
        keep in 0usize..6,
    ) {
        let in_use: Vec<Date> = in_use.into_iter().filter_map(|i| existing.get(i).copied()).collect();
        let purged = to_purge(&existing, &in_use, keep);
        let all: BTreeSet<Date> = existing.iter().copied().collect();
        prop_assert!(purged.is_sorted_by(|a, b| a < b));
        prop_assert!(purged.iter().all(|day| all.contains(day) && !in_use.contains(day)));
        let kept: Vec<Date> = all.iter().copied().filter(|day| !purged.contains(day)).collect();
        prop_assert!(kept.len() >= keep.min(all.len()));
        let newest: Vec<Date> = all.iter().rev().take(keep).copied().collect();
        prop_assert!(newest.iter().all(|day| kept.contains(day)));
        prop_assert!(kept.iter().all(|day| newest.contains(day) || in_use.contains(day)));
    }
}
