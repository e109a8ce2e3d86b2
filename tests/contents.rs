//! What `pg_staging::contents` decides, held against the real pg_dump and pg_restore: every selection is restored
//! into an empty database, must restore without a word, and must leave there exactly what it said it would.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "what a test calls fails as the test itself does, by panicking"
)]

mod cluster;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Cursor;

use pg_staging::contents::{self, Contents, ContentsError, Found, Reason, Rules, Warning, filter};
use regex::Regex;

use self::cluster::{Cluster, read};

const SCHEMAS: [&str; 13] = [
    "shop",
    "crm",
    "audit",
    "ext",
    "parts",
    "cold",
    "kinds",
    "reports",
    "Odd Schema",
    "a\"b",
    "naïve.é",
    "empty",
    "public",
];

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn only(schemas: &[&str]) -> Rules {
    Rules { schemas: strings(schemas), ..Rules::default() }
}

fn all_but(schema: &str) -> Vec<String> {
    SCHEMAS.iter().filter(|name| **name != schema).map(|name| (*name).to_owned()).collect()
}

fn matching(patterns: &[&str]) -> Rules {
    let tables_nodata = patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect();
    Rules { tables_nodata, ..Rules::default() }
}

// ---------------------------------------------------------------------------------------------------------------
// Reading

#[test]
fn contents_say_what_pg_restore_says() {
    let cluster = Cluster::shared();
    let dump = cluster.production();
    let contents = read(&dump);
    assert_eq!(contents.dbname(), "production");
    assert_eq!(contents.archive_version().to_string(), "1.14.0");
    assert_eq!(contents.encoding().as_deref(), Some("UTF8"));
    assert!(contents.server_version().starts_with("15."), "{}", contents.server_version());
    assert!(contents.dump_version().starts_with("15."), "{}", contents.dump_version());
    assert!(contents.offsets_known() && !contents.has_foreign_text());

    let listing = cluster.run("pg_restore", &["-l", &dump.display().to_string()]);
    let listing = String::from_utf8(listing.stdout).unwrap();
    let created = contents.created().unwrap();
    assert!(
        listing.contains(&format!("Archive created at {created}").replace('T', " ")),
        "{created}\n{listing}"
    );

    let theirs: Vec<&str> = listing.lines().filter(|line| !line.starts_with(';')).collect();
    let list = filter(&contents, &Rules::default()).list(&contents);
    // pg_restore lists subscriptions and the database, which we leave out.
    let theirs: Vec<&&str> = theirs
        .iter()
        .filter(|line| !line.contains(" SUBSCRIPTION ") && !line.contains(" DATABASE "))
        .collect();
    // What sets the session up belongs to every restore, and pg_restore does not list it in all versions.
    let ours: Vec<&str> = list.lines().filter(|line| !line.starts_with(';')).collect();
    for line in &theirs {
        assert!(ours.contains(line), "{line}");
    }
    for line in &ours {
        let of_the_session = ["ENCODING", "STDSTRINGS", "SEARCHPATH"].iter().any(|kind| line.contains(kind));
        assert!(theirs.contains(&line) || of_the_session, "{line}");
    }
}

#[test]
fn only_the_head_is_read_and_data_lies_behind_it() {
    let cluster = Cluster::shared();
    let bytes = fs::read(cluster.production()).unwrap();
    let mut cursor = Cursor::new(&bytes);
    let contents = Contents::read(&mut cursor).unwrap();
    assert_eq!(cursor.position(), contents.length());
    let first = contents.data_entries().map(|entry| entry.offset).min();
    assert_eq!(first, Some(contents.length()), "the first block starts where the contents end");
    let length = bytes.len() as u64;
    contents.check_extent(length).unwrap();
    let last = contents.data_entries().map(|entry| entry.offset).max().unwrap();
    let error = contents.check_extent(last).unwrap_err();
    assert!(matches!(error, ContentsError::Cut { .. }), "{error}");
    assert!(error.hint().unwrap().contains("fetch the dump again"));
    assert!(matches!(contents.check_extent(100), Err(ContentsError::Truncated { length: 100 })));
}

#[test]
fn a_dump_written_to_a_pipe_has_no_offsets() {
    let cluster = Cluster::shared();
    let piped = cluster.run("pg_dump", &["-Fc", "-d", "production"]).stdout;
    let contents = Contents::read(piped.as_slice()).unwrap();
    assert!(!contents.offsets_known());
    contents.check_extent(piped.len() as u64).unwrap();
    assert!(contents.data_entries().count() > 20);
}

#[test]
fn other_formats_are_named() {
    let cluster = Cluster::shared();
    for (format, found) in [("-Ft", Found::Tar), ("-Fp", Found::PlainSql)] {
        let bytes = cluster.run("pg_dump", &[format, "-n", "cold", "-d", "production"]).stdout;
        match Contents::read(bytes.as_slice()) {
            Err(ContentsError::NotAnArchive { found: named }) => assert_eq!(named, found),
            other => panic!("{format}: {other:?}"),
        }
    }
    let folder = cluster.fresh("folder");
    cluster.run("pg_dump", &["-Fd", "-n", "cold", "-d", "production", "-f", &folder.display().to_string()]);
    let toc = fs::read(folder.join("toc.dat")).unwrap();
    let error = Contents::read(toc.as_slice()).unwrap_err();
    assert!(matches!(error, ContentsError::NotAnArchive { found: Found::DirectoryToc }), "{error}");
    assert_eq!(error.hint().unwrap(), "make the backup with pg_dump -Fc");
}

#[test]
fn every_archive_version_is_read() {
    let cluster = Cluster::shared();
    let metadata = read(&cluster.production()).metadata().clone();
    for minor in 12..=16 {
        let mut header = metadata.header.clone();
        header.version = contents::ArchiveVersion::new(1, minor, 0);
        let archive = libpgdump::format::custom::ArchiveData {
            header,
            timestamp: metadata.timestamp.clone(),
            dbname: metadata.dbname.clone(),
            server_version: metadata.server_version.clone(),
            dump_version: metadata.dump_version.clone(),
            entries: metadata.entries.clone(),
            data: HashMap::new(),
            blobs: HashMap::new(),
        };
        let mut bytes = Cursor::new(Vec::new());
        libpgdump::format::custom::write_archive(&mut bytes, &archive).unwrap();
        let contents = Contents::read(bytes.get_ref().as_slice()).unwrap();
        assert_eq!(contents.archive_version().minor, minor);
        assert_eq!(contents.length(), bytes.get_ref().len() as u64);
        let names = |entries: &[contents::Entry]| entries.iter().map(contents::describe).collect::<Vec<_>>();
        assert_eq!(names(contents.entries()), names(&metadata.entries));
    }
}

#[test]
fn text_that_is_not_utf8_is_read_byte_by_byte() {
    let cluster = Cluster::shared();
    let database = cluster.create();
    cluster.sql(
        &database,
        "CREATE SCHEMA \"été\"; CREATE TABLE \"été\".\"naïf\" (x text DEFAULT 'ü'); CREATE SCHEMA b;",
    );
    let dump = cluster.dump(&database, &["-E", "LATIN1"]);
    let contents = read(&dump);
    assert!(contents.has_foreign_text());
    assert_eq!(contents.encoding().as_deref(), Some("LATIN1"));
    contents.check_extent(fs::metadata(&dump).unwrap().len()).unwrap();
    let rules = only(&["été"]);
    let restored = cluster.restore(&dump, &contents, &rules, &[]);
    let tables = restored.selection.kept_tables(&contents);
    assert_eq!(tables.iter().map(ToString::to_string).collect::<Vec<_>>(), ["été.naïf"]);
    assert_eq!(restored.rows(&contents).len(), 1);
}

// ---------------------------------------------------------------------------------------------------------------
// Hostile bytes

/// A dump with a few kilobytes of contents.
fn small_dump(cluster: &Cluster) -> Vec<u8> {
    fs::read(cluster.dump("production", &["-n", "cold"])).unwrap()
}

#[test]
fn every_truncation_is_called_one() {
    let cluster = Cluster::shared();
    let bytes = small_dump(&cluster);
    let length = usize::try_from(Contents::read(bytes.as_slice()).unwrap().length()).unwrap();
    for end in 0..length {
        match Contents::read(&bytes[..end]).unwrap_err() {
            ContentsError::NotAnArchive { found: Found::Empty } => assert_eq!(end, 0),
            ContentsError::Truncated { length } => assert_eq!(length, end as u64),
            other => panic!("{end}: {other}"),
        }
    }
}

/// Changes a few bits and bytes, or puts some in or takes some out.
fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(mutated.len());
        match random.below(4) {
            0 => mutated[at] = random.byte(),
            1 => mutated[at] ^= 1 << random.below(8),
            2 => mutated.insert(at, random.byte()),
            _ => drop(mutated.remove(at)),
        }
    }
    mutated
}

#[test]
fn mutations_never_panic() {
    let cluster = Cluster::shared();
    let rules = Rules { schemas: strings(&["cold", "shop", "parts"]), ..matching(&["event"]) };
    let mut random = Random(20261124);
    for (bytes, times) in [(small_dump(&cluster), 2000), (fs::read(cluster.production()).unwrap(), 200)] {
        let length = usize::try_from(Contents::read(bytes.as_slice()).unwrap().length()).unwrap();
        let mut read = 0;
        for _ in 0..times {
            let Ok(contents) = Contents::read(mutate(&bytes[..length], &mut random).as_slice()) else {
                continue;
            };
            read += 1;
            // Whether the offsets still make sense is of no matter here, only that they can be asked about.
            drop(contents.check_extent(bytes.len() as u64));
            let selection = filter(&contents, &rules);
            assert_eq!(selection.kept.len() + selection.dropped.len(), contents.entries().len());
            assert_eq!(selection.list(&contents).lines().count(), contents.entries().len());
            let roles = selection.roles(&contents);
            assert!(roles.len() <= bytes.len());
        }
        assert!(read > times / 20, "only {read} mutations of {times} could be read: they test too little");
    }
}

#[test]
fn lengths_and_counts_are_not_believed() {
    let header = |version: [u8; 3]| [b"PGDMP".as_slice(), &version, &[4, 8, 1]].concat();
    let huge = [0, 0xff, 0xff, 0xff, 0x7f];
    let integers = |count: usize| vec![0u8; 5 * count];
    // Level of compression and a time of seven fields; then the database's name.
    let long_name = [header([1, 14, 0]), integers(8), huge.to_vec()].concat();
    let many_entries = [header([1, 14, 0]), integers(8 + 3), huge.to_vec()].concat();
    assert!(matches!(Contents::read(long_name.as_slice()), Err(ContentsError::TooLarge { .. })));
    assert!(matches!(Contents::read(many_entries.as_slice()), Err(ContentsError::Truncated { .. })));
    let endless = std::io::Read::chain(many_entries.as_slice(), std::io::repeat(1));
    assert!(Contents::read(endless).is_err());

    let newer = Contents::read(header([1, 17, 0]).as_slice()).unwrap_err();
    assert_eq!(newer.to_string(), "archive version 1.17.0 is newer than 1.16.0, the newest that is known");
    let older = Contents::read(header([1, 10, 0]).as_slice()).unwrap_err();
    assert_eq!(older.to_string(), "unsupported archive: archive version 1.10.0 is older than 1.12.0");
}

/// Numbers from a seed that are the same on every machine (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn some_of(&mut self, names: &[&str], in_ten: usize) -> Vec<String> {
        names.iter().filter(|_| self.below(10) < in_ten).map(|name| (*name).to_owned()).collect()
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Restoring

fn restores(rules: &[Rules]) {
    let cluster = Cluster::shared();
    let dump = cluster.production();
    let contents = read(&dump);
    for rules in rules {
        cluster.restore(&dump, &contents, rules, &[]).check(&contents, rules);
    }
}

#[test]
fn without_rules_everything_is_restored() {
    restores(&[Rules::default()]);
}

#[test]
fn each_schema_alone_can_be_restored() {
    restores(&SCHEMAS.map(|schema| only(&[schema])));
}

#[test]
fn each_schema_alone_can_be_left_out() {
    restores(&SCHEMAS.map(|schema| Rules { schemas: all_but(schema), ..Rules::default() }));
}

#[test]
fn each_schema_can_go_without_rows() {
    restores(&SCHEMAS.map(|schema| Rules { schemas_nodata: strings(&[schema]), ..Rules::default() }));
}

#[test]
fn tables_can_go_without_rows() {
    restores(&[
        matching(&["."]),
        matching(&[r"^shop\.item$"]),
        matching(&[r"^crm\.customer$", r"^shop\.orders$"]),
        matching(&[r"^parts\.event$"]),
        matching(&[r"^parts\.event_2025$"]),
        matching(&[r"^parts\.event_2024$"]),
        matching(&["event; 2025", r"T\.b$", "ключ|плюс"]),
        matching(&[r"^shop\.orders$", "^parts"]),
        Rules {
            tables_nodata_named: [("shop.item".to_owned(), "subscribed from shop.prod".to_owned())].into(),
            ..only(&["shop", "parts"])
        },
    ]);
}

#[test]
fn random_rules_can_be_restored() {
    let tables =
        ["shop.item", "crm.customer", "parts.event", "parts.event_2025", "Odd Schema.T.b", "naïve.é.tàble"];
    let rules: Vec<Rules> = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610]
        .into_iter()
        .map(|seed| {
            let mut random = Random(seed);
            let mut rules = Rules {
                schemas: random.some_of(&SCHEMAS, 6),
                schemas_nodata: random.some_of(&SCHEMAS, 1),
                ..Rules::default()
            };
            for table in random.some_of(&tables, 3) {
                rules.tables_nodata_named.insert(table, "subscribed".to_owned());
            }
            let patterns = random.some_of(&["event", "e[m|d]", r"^shop\.[a-o]", "log$"], 2);
            rules.tables_nodata = patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect();
            rules
        })
        .collect();
    restores(&rules);
}

#[test]
fn rows_loaded_through_the_root_can_be_restored() {
    let cluster = Cluster::shared();
    let dump = cluster.dump("production", &["--load-via-partition-root"]);
    let contents = read(&dump);
    for rules in [only(&["parts", "shop"]), only(&["cold"]), matching(&["2025_a"])] {
        let restored = cluster.restore(&dump, &contents, &rules, &[]);
        if rules.schemas != ["cold"] {
            assert_eq!(restored.rows(&contents), restored.rows_expected(&contents), "{rules:?}");
        }
    }
}

#[test]
fn a_selection_can_be_restored_in_parallel() {
    let cluster = Cluster::shared();
    let dump = cluster.production();
    let contents = read(&dump);
    let rules =
        Rules { schemas: strings(&["shop", "parts", "reports", "crm"]), ..matching(&["^parts.event_2025"]) };
    cluster.restore(&dump, &contents, &rules, &["-j", "3"]).check(&contents, &rules);
}

#[test]
fn partial_dumps_restore_without_what_they_lack() {
    let cluster = Cluster::shared();
    for options in
        [["--exclude-table-data=shop.item", "--no-comments"], ["-T", "crm.mutual"], ["-s", "--no-comments"]]
    {
        let dump = cluster.dump("production", &options);
        let contents = read(&dump);
        cluster.restore(&dump, &contents, &Rules::default(), &[]);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Explaining

/// Lines `kind name: reason` of what rules drop, those whose kind or name is asked for.
fn reasons(contents: &Contents, rules: &Rules, wanted: &[&str]) -> Vec<String> {
    let selection = filter(contents, rules);
    let reasons = selection.reasons();
    let mut lines = Vec::new();
    for entry in contents.entries() {
        let described = contents::describe(entry);
        if wanted.contains(&described.as_str()) {
            let reason = reasons.get(&entry.dump_id).map_or("kept".to_owned(), ToString::to_string);
            lines.push(format!("{described}: {reason}"));
        }
    }
    lines.sort();
    lines
}

#[test]
fn every_dropped_entry_says_why() {
    let cluster = Cluster::shared();
    let contents = read(&cluster.production());
    let rules = Rules {
        schemas: strings(&["shop", "reports", "public", "parts", "crm", "kinds"]),
        schemas_nodata: strings(&["crm"]),
        tables_nodata: vec![Regex::new(r"^parts\.event$").unwrap()],
        tables_nodata_named: [("shop.item".to_owned(), "subscribed from shop.prod".to_owned())].into(),
    };
    let wanted = [
        "DATABASE production",
        "DATABASE PROPERTIES production",
        "COMMENT DATABASE production",
        "ACL DATABASE production",
        "SCHEMA public",
        "SUBSCRIPTION upstream",
        "SCHEMA audit",
        "EXTENSION hstore",
        "EXTENSION earthdistance",
        "EXTENSION citext",
        "ACL shop.FUNCTION earth()",
        "TABLE shop.tagged",
        "TABLE shop.ticket",
        "TABLE shop.inherits",
        "SERVER far",
        "USER MAPPING USER MAPPING contents_reader SERVER far",
        "USER MAPPING USER MAPPING public SERVER near; by",
        "OPERATOR kinds.<<<",
        "OPERATOR kinds.=~~=",
        "TRIGGER shop.orders noted",
        "COMMENT shop.TRIGGER noted ON orders",
        "EVENT TRIGGER audit_ddl",
        "RULE shop.line copy_to_log",
        "POLICY shop.item see",
        "TABLE DATA crm.customer",
        "TABLE DATA reports.backwards",
        "TABLE DATA parts.event_2025_a",
        "TABLE DATA shop.item",
        "FK CONSTRAINT parts.event event_item_fkey",
        "FK CONSTRAINT parts.follows follows_event_year_kind_fkey",
        "FK CONSTRAINT shop.orders orders_item_fkey",
        "FK CONSTRAINT shop.item item_parent_fkey",
        "FK CONSTRAINT shop.line item_later",
        "TABLE ATTACH cold.event_2023",
        "VIEW reports.alias",
    ];
    let expected = "\
ACL DATABASE production: it belongs to the dumped database, not to its contents
ACL shop.FUNCTION earth(): it depends on EXTENSION earthdistance, which is not restored
COMMENT DATABASE production: it belongs to the dumped database, not to its contents
COMMENT shop.TRIGGER noted ON orders: it depends on TRIGGER shop.orders noted, which is not restored
DATABASE PROPERTIES production: it belongs to the dumped database, not to its contents
DATABASE production: it belongs to the dumped database, not to its contents
EVENT TRIGGER audit_ddl: its function audit.ddl() is not restored
EXTENSION citext: kept
EXTENSION earthdistance: it depends on EXTENSION cube, which is not restored
EXTENSION hstore: schema ext is not among the schemas to restore
FK CONSTRAINT parts.event event_item_fkey: kept
FK CONSTRAINT parts.follows follows_event_year_kind_fkey: foreign key to parts.event, which is restored without the rows of cold.event_2023
FK CONSTRAINT shop.item item_parent_fkey: kept
FK CONSTRAINT shop.line item_later: kept
FK CONSTRAINT shop.orders orders_item_fkey: foreign key to shop.item, which is restored without rows
OPERATOR kinds.<<<: its definition uses cold.>>>, which is not restored
OPERATOR kinds.=~~=: it depends on FUNCTION audit.near(integer, integer), which is not restored
POLICY shop.item see: it depends on FUNCTION audit.may_see(text), which is not restored
RULE shop.line copy_to_log: it depends on TABLE audit.log, which is not restored
SCHEMA audit: schema audit is not among the schemas to restore
SCHEMA public: kept
SERVER far: it depends on EXTENSION postgres_fdw, which is not restored
SUBSCRIPTION upstream: a staging database must not subscribe to production
TABLE ATTACH cold.event_2023: schema cold is not among the schemas to restore
TABLE DATA crm.customer: rows not wanted: crm.customer is in schema crm, restored without rows
TABLE DATA parts.event_2025_a: rows not wanted: ^parts\\.event$ matches parts.event
TABLE DATA reports.backwards: it depends on TABLE reports.backwards, which is not restored
TABLE DATA shop.item: rows not wanted: shop.item is subscribed from shop.prod
TABLE shop.inherits: it depends on TABLE audit.base, which is not restored
TABLE shop.tagged: it depends on EXTENSION cube, which is not restored
TABLE shop.ticket: it depends on SEQUENCE cold.ticket, which is not restored
TRIGGER shop.orders noted: its function audit.note() is not restored
USER MAPPING USER MAPPING contents_reader SERVER far: it depends on SERVER far, which is not restored
USER MAPPING USER MAPPING public SERVER near; by: kept
VIEW reports.alias: kept";
    assert_eq!(reasons(&contents, &rules, &wanted).join("\n"), expected);
    let selection = filter(&contents, &rules);
    assert_eq!(selection.warnings, []);
    let json = serde_json::to_string(&selection).unwrap();
    assert_eq!(serde_json::from_str::<contents::Selection>(&json).unwrap(), selection);
}

#[test]
fn functions_that_would_fail_are_not_run() {
    let cluster = Cluster::shared();
    let contents = read(&cluster.production());
    let wanted = [
        "FUNCTION shop.customer_count()",
        "MATERIALIZED VIEW shop.counted",
        "MATERIALIZED VIEW DATA shop.counted",
        "MATERIALIZED VIEW DATA shop.counted_twice",
    ];
    let runs =
        "it would run FUNCTION shop.customer_count(), whose body uses crm.customer, which is not restored";
    assert_eq!(
        reasons(&contents, &only(&["shop"]), &wanted),
        [
            "FUNCTION shop.customer_count(): kept".to_owned(),
            format!("MATERIALIZED VIEW DATA shop.counted: {runs}"),
            "MATERIALIZED VIEW DATA shop.counted_twice: it depends on MATERIALIZED VIEW DATA shop.counted, which is not restored".to_owned(),
            "MATERIALIZED VIEW shop.counted: kept".to_owned(),
        ]
    );
}

#[test]
fn rules_that_do_nothing_are_told() {
    let cluster = Cluster::shared();
    let contents = read(&cluster.production());
    let rules = Rules {
        schemas: strings(&["shop", "Shop", "public", "empty"]),
        schemas_nodata: strings(&["logs", "Odd Schema"]),
        tables_nodata: vec![Regex::new("^item").unwrap(), Regex::new("T.b").unwrap()],
        tables_nodata_named: [("shop.itms".to_owned(), "subscribed from x".to_owned())].into(),
    };
    let warnings = filter(&contents, &rules).warnings;
    assert_eq!(
        warnings,
        [
            Warning::NoSuchSchema { schema: "Shop".to_owned() },
            Warning::NoSuchSchemaWithoutRows { schema: "logs".to_owned() },
            Warning::PatternMatchesNothing { pattern: "^item".to_owned() },
            Warning::NoSuchTable { table: "shop.itms".to_owned(), why: "subscribed from x".to_owned() },
        ]
    );
    assert_eq!(warnings[3].to_string(), "the dump has no table shop.itms, subscribed from x");
}

#[test]
fn a_selection_knows_what_the_target_must_have() {
    let cluster = Cluster::shared();
    let contents = read(&cluster.production());
    let everything = filter(&contents, &Rules::default());
    let set = |names: &[&str]| -> BTreeSet<String> { strings(names).into_iter().collect() };
    assert_eq!(
        everything.roles(&contents),
        set(&["postgres", "contents_owner", "contents_reader", "Odd \"Role"])
    );
    assert_eq!(everything.tablespaces(&contents), set(&["contents_space"]));
    assert_eq!(
        everything.extensions(&contents),
        set(&["hstore", "citext", "cube", "earthdistance", "btree_gist", "postgres_fdw"])
    );
    let not_valid: Vec<String> =
        everything.not_valid_constraints(&contents).into_iter().map(contents::describe).collect();
    assert_eq!(
        not_valid,
        [
            "CHECK CONSTRAINT kinds.positive positive",
            "CHECK CONSTRAINT reports.checked_later probed",
            "CHECK CONSTRAINT shop.line later",
            "FK CONSTRAINT reports.visit_high own",
            "FK CONSTRAINT shop.line item_later"
        ]
    );
    assert_eq!(everything.tables_without_rows(&contents), []);

    let cold = filter(&contents, &only(&["cold"]));
    assert_eq!(cold.tablespaces(&contents), set(&[]));
    assert_eq!(cold.extensions(&contents), set(&["citext"]));
    let names =
        |tables: Vec<contents::QualifiedName>| tables.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(cold.kept_tables(&contents)), ["cold.event_2023", "cold.visit", "cold.visit_low"]);
    let empty = filter(&contents, &matching(&["2023"]));
    assert_eq!(names(empty.tables_without_rows(&contents)), ["cold.event_2023"]);
    let dropped =
        empty.dropped.iter().find(|dropped| matches!(dropped.reason, Reason::ForeignKeyWithoutRows { .. }));
    assert_eq!(
        dropped.map(|dropped| dropped.reason.to_string()).as_deref(),
        Some("foreign key to parts.event, which is restored without the rows of cold.event_2023")
    );
}
