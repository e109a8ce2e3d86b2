//! Every kind of object that a dump can hold comes out as it does from pg_restore itself.
#![allow(
    clippy::disallowed_methods,
    reason = "dumps and what they are compared with are made by PostgreSQL's own programs"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::OnceLock,
};

use pg_staging::{
    contents::{PartKind, Rules, filter, parts},
    world::archive,
};
use serde_json::json;

use crate::{
    stage::{
        Cluster, Conduct, Serving, Site, SiteOptions, Stage, StageOptions, everything, production_roles,
        restored_by_pg_restore, told_in_full,
    },
    traces::{inspected, step, succeeds},
};

const DAY: &str = "20261121";

/// A database, its dump, and what pg_restore makes of that.
struct Original {
    dump: PathBuf,
    /// As [`told_in_full`] has it.
    restored: Vec<String>,
}

fn cluster() -> &'static Cluster {
    Stage::shared().unwrap().cluster()
}

/// The database of all kinds, made once.
fn of_everything_in() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| everything(cluster(), "kinds_of_everything").unwrap());
    "kinds_of_everything"
}

/// A dump of it, with what is of the database itself, and so large that tables do not all share one part.
fn of_everything() -> &'static Original {
    static MADE: OnceLock<Original> = OnceLock::new();
    MADE.get_or_init(|| original(of_everything_in(), &["-Fc", "-Z0", "--create"]))
}

/// Dumps a database with these arguments.
fn dumped(database: &str, arguments: &[&str]) -> PathBuf {
    let scratch = Stage::shared().unwrap().scratch();
    let dump = scratch.new_folder("kinds").unwrap().join("dump");
    let file = dump.display().to_string();
    cluster().pg_dump(database, &[arguments, &["-f", &file]].concat()).unwrap();
    scratch.account().own(&dump).unwrap();
    dump
}

/// Dumps a database with these arguments, and has pg_restore restore the dump.
fn original(database: &str, arguments: &[&str]) -> Original {
    let dump = dumped(database, arguments);
    production_roles(cluster()).unwrap();
    let name = format!("by_pg_restore_{}", dump.parent().unwrap().file_name().unwrap().to_string_lossy());
    restored_by_pg_restore(cluster(), &dump, &name).unwrap();
    let restored = told_in_full(cluster(), &name).unwrap();
    cluster().psql("postgres", &format!("DROP DATABASE \"{name}\"")).unwrap();
    Original { dump, restored }
}

/// How a dump gets into the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Parts,
    Stream,
    File,
}

/// Restores a dump that way, with so many workers.
fn restored(original: &Original, way: Way, jobs: u16) -> Site<'static> {
    let site = site_of(original, way, jobs);
    restore(&site, way);
    site
}

fn site_of(original: &Original, way: Way, jobs: u16) -> Site<'static> {
    let options = SiteOptions { serving: Serving::Rude, dates: Vec::new(), ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    let name = site.backup_name("2026-11-21");
    site.add_file(&original.dump, &name).unwrap();
    site.set("restore_jobs", &jobs.to_string()).unwrap();
    match way {
        Way::Parts => {}
        Way::Stream => {
            site.rude().unwrap().plan(&format!("/{}/{name}", site.dbname()), Conduct::IgnoreRange);
        }
        Way::File => site.set("fast", "False").unwrap(),
    }
    site
}

fn restore(site: &Site<'_>, way: Way) {
    succeeds(site, &["restore", &site.section(), DAY]);
    if way != Way::File {
        let told = inspected(site);
        let outcome = &step(&told, "contents")["detail"]["outcome"];
        assert_eq!(outcome["way"], if way == Way::Parts { "parts" } else { "stream" });
    }
    assert_eq!(fs::read_dir(site.tmpdir()).unwrap().count(), 0);
}

/// The copy is what pg_restore made of the same dump.
#[track_caller]
fn is_the_same(site: &Site<'_>, original: &Original) {
    let told = told_in_full(cluster(), &site.copy(DAY)).unwrap();
    let short = |line: &&String| line.chars().take(200).collect::<String>();
    let missing: Vec<String> = original
        .restored
        .iter()
        .filter(|line| told.binary_search(line).is_err())
        .take(20)
        .map(|line| short(&line))
        .collect();
    let added: Vec<String> = told
        .iter()
        .filter(|line| original.restored.binary_search(line).is_err())
        .take(20)
        .map(|line| short(&line))
        .collect();
    assert!(told == original.restored, "missing: {missing:#?}\nadded: {added:#?}");
}

#[test]
fn every_kind_of_object_comes_out_of_a_restore_by_parts_as_from_pg_restore() {
    for jobs in [1, 4] {
        is_the_same(&restored(of_everything(), Way::Parts, jobs), of_everything());
    }
}

#[test]
fn every_kind_of_object_comes_out_of_a_stream_as_from_pg_restore() {
    for jobs in [1, 4] {
        is_the_same(&restored(of_everything(), Way::Stream, jobs), of_everything());
    }
}

#[test]
fn every_kind_of_object_comes_out_of_a_file_in_tmpdir_as_from_pg_restore() {
    is_the_same(&restored(of_everything(), Way::File, 1), of_everything());
}

#[test]
fn what_an_entry_needs_is_waited_for_by_the_part_that_it_is_in() {
    let contents = archive::local(&of_everything().dump).unwrap();
    let selection = filter(&contents, &Rules::default());
    let length = fs::metadata(&of_everything().dump).unwrap().len();
    for known in [Some(length), None] {
        let parts = parts(&contents, &selection, known);
        let mut waits_for: Vec<BTreeSet<usize>> = Vec::new();
        for part in &parts {
            let through = part.needs.iter().flat_map(|need| waits_for[*need].iter().copied());
            waits_for.push(part.needs.iter().copied().chain(through).collect());
        }
        let mut part_of = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            part_of.extend(part.entries.iter().map(|at| (contents.entries()[*at].dump_id, index)));
        }
        for entry in contents.entries() {
            let Some(index) = part_of.get(&entry.dump_id) else { continue };
            for before in entry.dependencies.iter().filter_map(|id| part_of.get(id)) {
                // pg_restore itself puts these off.
                let put_off = [PartKind::Privileges, PartKind::Refresh, PartKind::Finish]
                    .contains(&parts[*before].kind);
                assert!(put_off || before == index || waits_for[*index].contains(before), "{entry:?}");
            }
        }
    }
}

/// A database of that many rows in each table, more than share a part; children come before parents by name.
const RELATED: &str = "
    CREATE TABLE public.z_parent (id integer PRIMARY KEY, filler text);
    CREATE TABLE public.a_child (id integer PRIMARY KEY, parent integer REFERENCES public.z_parent, filler text);
    CREATE TABLE public.small_child (parent integer REFERENCES public.z_parent);
    INSERT INTO public.z_parent SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 5000) AS i;
    INSERT INTO public.a_child SELECT i, 1 + i % 5000, repeat(md5(i::text), 20) FROM generate_series(1, 9000) AS i;
    INSERT INTO public.small_child SELECT i FROM generate_series(1, 5000) AS i;";

#[test]
fn rows_come_in_the_order_of_their_keys_when_the_keys_are_there_before() {
    cluster().psql("postgres", "CREATE DATABASE kinds_of_keys TEMPLATE template0").unwrap();
    cluster().psql("kinds_of_keys", RELATED).unwrap();
    let dump = dumped("kinds_of_keys", &["-Fc", "-Z0", "--data-only"]);
    let definitions = cluster().pg_dump("kinds_of_keys", &["-s"]).unwrap();
    let definitions: String =
        definitions.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect();
    let original = Original { dump, restored: told_in_full(cluster(), "kinds_of_keys").unwrap() };
    for way in [Way::Parts, Way::Stream] {
        let site = site_of(&original, way, 4);
        site.add_sql("pre", "definitions.sql", &definitions).unwrap();
        restore(&site, way);
        is_the_same(&site, &original);
    }
}

#[test]
fn rows_that_are_loaded_through_the_root_of_partitions_are_all_there() {
    let database = of_everything_in();
    for arguments in [
        &["-Fc", "-Z0", "--load-via-partition-root"][..],
        &["-Fc", "-Z0", "--load-via-partition-root", "--column-inserts", "--rows-per-insert=100"],
    ] {
        let original = original(database, arguments);
        is_the_same(&restored(&original, Way::Parts, 4), &original);
        is_the_same(&restored(&original, Way::Stream, 4), &original);
    }
}

/// An encoding that a server knows, and a character of it that is not ASCII; of some, one that has a backslash within.
const ENCODINGS: &[(&str, char)] = &[
    ("LATIN1", 'é'),
    ("EUC_JP", '表'),
    ("WIN1252", '€'),
    ("KOI8R", 'ж'),
    ("EUC_CN", '中'),
    ("EUC_JIS_2004", '表'),
    ("EUC_KR", '한'),
    ("EUC_TW", '中'),
    ("ISO_8859_5", 'ж'),
    ("ISO_8859_6", 'ع'),
    ("ISO_8859_7", 'λ'),
    ("ISO_8859_8", 'ש'),
    ("KOI8U", 'ї'),
    ("LATIN2", 'ł'),
    ("LATIN3", 'ħ'),
    ("LATIN4", 'ķ'),
    ("LATIN5", 'ş'),
    ("LATIN6", 'ŋ'),
    ("LATIN7", 'ž'),
    ("LATIN8", 'ŵ'),
    ("LATIN9", '€'),
    ("LATIN10", 'ș'),
    ("WIN866", 'ж'),
    ("WIN874", 'ก'),
    ("WIN1250", 'ł'),
    ("WIN1251", 'ж'),
    ("WIN1253", 'λ'),
    ("WIN1254", 'ş'),
    ("WIN1255", 'ש'),
    ("WIN1256", 'ع'),
    ("WIN1257", 'ž'),
    ("WIN1258", '₫'),
];

/// Encodings that no server has, but a dump may: in them, a character may hold a byte that is ASCII. Not so in JOHAB, as
/// PostgreSQL has it: there it takes those only whose bytes are all within the range of EUC (pg_johab_verifychar in wchar.c).
const OF_CLIENTS: &[(&str, char)] = &[
    ("SJIS", '表'),
    ("GB18030", '中'),
    ("BIG5", '功'),
    ("GBK", '郳'),
    ("UHC", '한'),
    ("JOHAB", '미'),
    ("SHIFT_JIS_2004", '表'),
];

/// Names and rows with that character, in a database of that encoding; the first line says in which they are sent.
fn named_with(character: char) -> String {
    let name = format!("a \"\"{character}\"\" \\ {character}");
    format!(
        "SET client_encoding = 'UTF8';
         CREATE SCHEMA \"{name}\";
         CREATE TYPE \"{name}\".\"{name}\" AS ENUM ('{character}', '\\');
         CREATE TABLE \"{name}\".\"{name} t\" (\"{name}\" text PRIMARY KEY, kind \"{name}\".\"{name}\", number serial);
         INSERT INTO \"{name}\".\"{name} t\" VALUES ('{character}', '{character}'), (E'\\t{character}\\\\', NULL);
         CREATE TABLE \"{name}\".\"{name} u\" (\"{name}\" text REFERENCES \"{name}\".\"{name} t\", CHECK (\"{name}\" <> '{character}x'));
         INSERT INTO \"{name}\".\"{name} u\" VALUES ('{character}'), (NULL);
         CREATE INDEX \"{name} i\" ON \"{name}\".\"{name} u\" ((\"{name}\" || '{character}'));
         CREATE VIEW \"{name}\".\"{name} v\" AS SELECT \"{name}\" AS \"{name} c\" FROM \"{name}\".\"{name} t\";
         COMMENT ON TABLE \"{name}\".\"{name} t\" IS '{character}\\';"
    )
}

/// What a database in that encoding is, dumped with these arguments, and restored by pg_restore.
fn encoded(encoding: &str, character: char, arguments: &[&str]) -> Original {
    let database = format!("kinds_in_{}_{}", encoding.to_lowercase(), arguments.len());
    let create = format!("CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
    cluster().psql("postgres", &create).unwrap();
    cluster().psql(&database, &named_with(character)).unwrap();
    original(&database, &[&["-Fc"], arguments].concat())
}

/// Some of them, or all with `PG_STAGING_TEST_ALL=1`.
fn some(encodings: &[(&'static str, char)]) -> Vec<(&'static str, char)> {
    let all = env::var("PG_STAGING_TEST_ALL").is_ok_and(|value| value == "1");
    encodings.iter().take(if all { usize::MAX } else { 2 }).copied().collect()
}

#[test]
fn names_and_rows_of_every_encoding_come_out_as_from_pg_restore() {
    for (encoding, character) in some(ENCODINGS) {
        let original = encoded(encoding, character, &[]);
        is_the_same(&restored(&original, Way::Parts, 2), &original);
    }
    for (encoding, character) in some(OF_CLIENTS) {
        let original = encoded("UTF8", character, &["-E", encoding]);
        is_the_same(&restored(&original, Way::Parts, 2), &original);
        is_the_same(&restored(&original, Way::Stream, 2), &original);
        cluster().psql("postgres", "DROP DATABASE kinds_in_utf8_2").unwrap();
    }
}

#[test]
fn bytes_that_are_of_no_encoding_come_out_as_from_pg_restore() {
    let create = "CREATE DATABASE kinds_of_bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0";
    cluster().psql("postgres", create).unwrap();
    let bytes = "DO $$ BEGIN EXECUTE format('CREATE TABLE public.%I (a text)', convert_from('\\xff22fe5c', 'SQL_ASCII')); END $$;
        DO $$ BEGIN EXECUTE format('INSERT INTO public.%I VALUES (%L)', convert_from('\\xff22fe5c', 'SQL_ASCII'), convert_from('\\xe9095cc3', 'SQL_ASCII')); END $$;";
    cluster().psql("kinds_of_bytes", bytes).unwrap();
    let dump = dumped("kinds_of_bytes", &["-Fc"]);
    let original = Original { dump, restored: told_in_full(cluster(), "kinds_of_bytes").unwrap() };
    let mut site = site_of(&original, Way::Parts, 2);
    site.set("db_encoding", "SQL_ASCII").unwrap();
    restore(&site, Way::Parts);
    is_the_same(&site, &original);
}

#[test]
fn owners_are_known_by_their_names_in_the_encoding_of_the_copy_whatever_that_of_the_dump() {
    // Names of roles are shared by all databases, whose encodings differ: others would stumble over these.
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let cluster = stage.cluster();
    production_roles(cluster).unwrap();
    cluster.psql("postgres", "CREATE DATABASE books ENCODING 'KOI8R' LOCALE 'C' TEMPLATE template0").unwrap();
    let sql = "SET client_encoding = 'UTF8';
        CREATE ROLE \"владелец\"; CREATE ROLE \"читатель\";
        CREATE TABLE public.\"книга\" (a text);
        INSERT INTO public.\"книга\" VALUES ('война');
        ALTER TABLE public.\"книга\" OWNER TO \"владелец\";
        GRANT SELECT ON public.\"книга\" TO \"читатель\";";
    cluster.psql("books", sql).unwrap();
    let dump = stage.scratch().new_folder("books").unwrap().join("dump");
    cluster.pg_dump("books", &["-Fc", "-f", &dump.display().to_string()]).unwrap();
    stage.scratch().account().own(&dump).unwrap();
    // In a copy without an encoding the name that was given in production is known, byte by byte.
    for (fast, encoding, owner, grants) in [
        ("True", "UTF8", "владелец".as_bytes(), "0"),
        ("False", "UTF8", "владелец".as_bytes(), "0"),
        ("True", "SQL_ASCII", b"\xd7\xcc\xc1\xc4\xc5\xcc\xc5\xc3", "2"),
    ] {
        println!("{encoding}, fast {fast}");
        let options =
            SiteOptions { dump: Some(dump.clone()), serving: Serving::Rude, ..SiteOptions::default() };
        let mut site = Site::new(&stage, &options).unwrap();
        site.set("fast", fast).unwrap();
        site.set("db_encoding", encoding).unwrap();
        if encoding == "UTF8" {
            let outcome = site.run(&["restore", &site.section(), DAY]).unwrap();
            assert_eq!(outcome.code, 1, "{outcome}");
            let said = "belong to roles that do not exist: владелец\n";
            assert!(outcome.stderr.contains(said), "{outcome}");
            cluster.psql("postgres", "CREATE ROLE \"владелец\"").unwrap();
        }
        succeeds(&site, &["restore", &site.section(), DAY]);
        let found = "SELECT encode(textsend(pg_get_userbyid(relowner)::text), 'hex'), coalesce(cardinality(relacl), 0)
            FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
        let hex: String = owner.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(cluster.psql(&site.copy(DAY), found).unwrap(), format!("{hex}|{grants}\n"));
        let told = inspected(&site);
        let outcome_of = |name: &str| &step(&told, name)["detail"]["outcome"];
        let missing = &outcome_of("catalog")["missing_grantees"];
        let tolerated = &outcome_of("restore")["tolerated"];
        if encoding == "UTF8" {
            assert_eq!(missing, &json!(["читатель"]));
            assert!(tolerated[0].as_str().unwrap().contains("does not exist (entry "), "{tolerated}");
            assert_eq!(tolerated.as_array().unwrap().len(), 1, "{tolerated}");
            drop(site);
            cluster.psql("postgres", "DROP ROLE \"владелец\"").unwrap();
        } else {
            assert_eq!((missing, tolerated), (&json!([]), &json!([])));
        }
    }
}

#[test]
fn a_foreign_partition_that_is_out_of_reach_is_told_and_all_else_is_analyzed() {
    cluster().psql("postgres", "CREATE DATABASE kinds_far_away TEMPLATE template0").unwrap();
    let sql = "CREATE EXTENSION postgres_fdw;
        CREATE SERVER production FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'x');
        CREATE USER MAPPING FOR PUBLIC SERVER production;
        CREATE TABLE public.visit (year integer, page text) PARTITION BY LIST (year);
        CREATE TABLE public.visit_now PARTITION OF public.visit FOR VALUES IN (2026);
        CREATE FOREIGN TABLE public.visit_then PARTITION OF public.visit FOR VALUES IN (2016) SERVER production;
        CREATE TABLE public.\"Place\" (id integer) PARTITION BY LIST (id);
        CREATE TABLE public.place_1 PARTITION OF public.\"Place\" FOR VALUES IN (1);
        CREATE TABLE public.person (id integer);
        CREATE TABLE public.child () INHERITS (public.person);
        CREATE FOREIGN TABLE public.stranger () INHERITS (public.person) SERVER production;
        CREATE MATERIALIZED VIEW public.pages AS SELECT page FROM public.visit_now;
        INSERT INTO public.visit_now SELECT 2026, 'page' FROM generate_series(1, 100);
        INSERT INTO public.\"Place\" VALUES (1);
        INSERT INTO public.child VALUES (1);";
    cluster().psql("kinds_far_away", sql).unwrap();
    let original = Original { dump: dumped("kinds_far_away", &["-Fc"]), restored: Vec::new() };
    let site = site_of(&original, Way::Parts, 2);
    let outcome = succeeds(&site, &["restore", &site.section(), DAY]);
    let why = "could not connect to server \"production\"";
    let said = format!("not analyzed: public.person ({why}), public.visit ({why})");
    assert!(outcome.stdout.contains(&said), "{outcome}");
    let copy = site.copy(DAY);
    let told = |sql: &str| cluster().psql(&copy, sql).unwrap();
    let with_statistics = "SELECT DISTINCT starelid::regclass::text COLLATE \"C\" FROM pg_statistic
        WHERE starelid >= 16384 ORDER BY 1";
    assert_eq!(told(with_statistics), "\"Place\"\nchild\npages\nplace_1\nvisit_now\n");
    let vacuumed = "SELECT count(*) FILTER (WHERE last_vacuum IS NULL) FROM pg_stat_user_tables
        WHERE relname IN ('visit_now', 'place_1', 'person', 'child')";
    assert_eq!(told(vacuumed), "0\n");
    // When it can be reached, it counts as well.
    let reached = format!(
        "ALTER SERVER production OPTIONS (SET port '{}', SET dbname 'kinds_far_away');
         ALTER FOREIGN TABLE public.visit_then OPTIONS (ADD table_name 'visit_now');
         ALTER FOREIGN TABLE public.stranger OPTIONS (ADD table_name 'child');",
        cluster().port()
    );
    told(&reached);
    let outcome = succeeds(&site, &["vacuumdb", &site.section()]);
    assert!(outcome.stdout.contains("is vacuumed and analyzed (run "), "{outcome}");
    assert_eq!(told("SELECT count(*) > 0 FROM pg_statistic WHERE starelid = 'visit'::regclass"), "t\n");
}
