//! Tests of `bouncer.rs`.

use proptest::prelude::*;

use super::reader::text;
use super::*;

const DEBIAN: &str = "\
;;; PgBouncer configuration file
[databases]

;; foodb over Unix socket
;foodb =

[users]

[pgbouncer]
listen_port = 6432
";

const TYPICAL: &str = "\
# staging
[databases]
shop = dbname=shop_20261120 host=10.0.0.1 port=5432 pool_mode=transaction
 Other\t=  host = '10.0.0.2'  dbname='it''s'
* = host=10.0.0.9

;; who
[users]
joe = pool_mode=statement max_user_connections=3

[pgbouncer]
listen_port = 6432
listen_port =   6433 \t
pool_mode = Session
unheard_of = kept
";

fn parsed(text: &str) -> PgbouncerIni {
    PgbouncerIni::parse(text).unwrap()
}

fn as_text(ini: &PgbouncerIni) -> &str {
    std::str::from_utf8(ini.to_bytes()).unwrap()
}

#[test]
fn entries_settings_and_modes_are_read_as_pgbouncer_reads_them() {
    let ini = parsed(TYPICAL);
    let names: Vec<_> = ini.entries().iter().map(|entry| (entry.alias(), entry.line())).collect();
    assert_eq!(names, [("shop", 3), ("Other", 4)]);
    let other = ini.entry("Other").unwrap();
    let keywords: Vec<_> = other.keywords().iter().map(|k| (k.name(), k.value())).collect();
    assert_eq!(keywords, [("host", "10.0.0.2".into()), ("dbname", "it's".into())]);
    assert_eq!((other.database(), other.port()), ("it's".into(), Some(5432)));
    assert!(ini.has_fallback());
    assert_eq!(ini.fallback().unwrap().host().as_deref(), Some("10.0.0.9"));
    assert_eq!(ini.setting("listen_port"), Some("6433"));
    assert_eq!(ini.setting("unheard_of"), Some("kept"));
    assert_eq!(ini.setting("listen_addr"), None);
    assert_eq!(ini.pool_mode("shop"), Some(PoolMode::Transaction));
    assert_eq!(ini.pool_mode("unknown"), Some(PoolMode::Session));
    assert_eq!(parsed(DEBIAN).pool_mode("unknown"), None);
}

#[test]
fn the_mode_of_a_forced_user_comes_first() {
    let users = "[users]\njoe = pool_mode=statement\n[pgbouncer]\n";
    let ini = parsed(&format!("[databases]\na = user=joe pool_mode=session\n{users}"));
    assert_eq!(ini.pool_mode("a"), Some(PoolMode::Statement));
}

#[test]
fn a_second_main_section_sets_all_back_to_defaults() {
    let first = "[pgbouncer]\npool_mode = statement\nlisten_port = 1\n";
    let ini = parsed(&format!("{first}[pgbouncer]\nlisten_port = 2\n"));
    assert_eq!((ini.setting("pool_mode"), ini.setting("listen_port")), (None, Some("2")));
}

#[test]
fn passwords_do_not_show_when_debugging() {
    let ini = parsed("[databases]\na = password=secret user=joe\n[pgbouncer]\n");
    let shown = format!("{ini:?} {:?}", ini.entries());
    assert!(!shown.contains("secret") && shown.contains("joe"), "{shown}");
}

#[test]
fn what_pgbouncer_refuses_is_refused_with_its_line() {
    for (text, line, message) in [
        ("[databases]\nshop\n", 2, "`shop` is not followed by `=`"),
        ("[databases]\nshop host=a\n", 2, "`shop` is not followed by `=`"),
        ("[databases]\n\"shop\" = host=a\n", 2, "a name cannot start or go on with `\"`"),
        ("[databases]\n\nmy/shop = host=a\n", 3, "a name cannot start or go on with `/`"),
        ("shop = host=a\n", 1, "`shop` comes before any section"),
        ("[databases\n", 1, "the section header does not end in `]`"),
        ("\n[Databases]\n", 2, "there is no section [Databases] in pgbouncer"),
        ("[databases]\na = host\n", 2, "the connection string of `a` breaks off: a key has no `=` and value"),
        ("[databases]\na = =b\n", 2, "the connection string of `a` breaks off: a key is missing before `=`"),
        (
            "[databases]\na = host=a ;x\n",
            2,
            "the connection string of `a` breaks off: a key has no `=` and value",
        ),
        (
            "[databases]\na = host=''\n",
            2,
            "the connection string of `a` breaks off: a key has an empty value",
        ),
        ("[databases]\na = host='b\n", 2, "the connection string of `a` breaks off: a quote is not closed"),
        ("[databases]\na = hst=b\n", 2, "`hst` of `a` is not a keyword that pgbouncer knows in [databases]"),
        ("[databases]\na = port=x\n", 2, "`x` is not a value for `port`"),
        ("[databases]\na = pool_mode=x\n", 2, "`x` is not a value for `pool_mode`"),
        ("[databases]\npgbouncer = host=b\n", 2, "`pgbouncer` is reserved for the admin console"),
        ("[users]\njoe = host=b\n", 2, "`host` of `joe` is not a keyword that pgbouncer knows in [users]"),
        ("[peers]\n0 = host=b\n", 2, "peer `0` is not a number from 1 to 65535"),
        ("[peers]\n1 = port=1\n", 2, "peer `1` has no host"),
        ("[pgbouncer]\n%include\n", 2, "a name cannot start or go on with `%`"),
        ("[pgbouncer]\n%include  \n", 2, "%include names no file"),
        ("[pgbouncer]\n;\0\n", 2, "there is a NUL byte, and pgbouncer ignores all that comes after it"),
        ("\u{feff}[pgbouncer]\n", 1, "the file starts with a byte order mark, which pgbouncer does not read"),
        ("[databases]\n'a = host=b\n", 2, "the quoted name is empty or not closed"),
    ] {
        let error = PgbouncerIni::parse(text).unwrap_err();
        assert_eq!(error.to_string(), format!("line {line}: {message}"), "{text}");
        assert!(!error.hint().is_empty());
    }
    assert_eq!(PgbouncerIni::parse("[databases]\n").unwrap_err(), BouncerError::NoMainSection);
    assert_eq!(PgbouncerIni::parse("").unwrap_err(), BouncerError::NoMainSection);
}

#[test]
fn what_only_newer_versions_read_is_read() {
    let entry = "[databases]\n'my shop' = auth_dbname=a load_balance_hosts=Disable\n";
    let ini = parsed(&format!("{entry}[peers]\n1 = host=a\n[pgbouncer]\n"));
    assert_eq!(ini.entries().first().unwrap().alias(), "my shop");
}

#[test]
fn an_included_file_may_hold_anything_so_its_absence_is_no_error() {
    let ini = parsed("%include a.ini\nx = 1\n[databases]\n%include  b c.ini \t\n");
    assert_eq!(ini.includes(), ["a.ini", "b c.ini"]);
}

#[test]
fn an_entry_goes_after_the_last_one() {
    let cases = [
        (DEBIAN, "[databases]\nnew = dbname=d\n\n;; foodb"),
        (
            "[databases]\na = \n\n;; who\n[users]\n[pgbouncer]",
            "[databases]\na = \nnew = dbname=d\n\n;; who\n[users]",
        ),
        ("[databases]\r\na = \r\n[pgbouncer]\r\n", "a = \r\nnew = dbname=d\r\n[pgbouncer]"),
        ("[pgbouncer]\n[databases]", "[databases]\nnew = dbname=d"),
        ("[pgbouncer]\r\n[databases]\r\na=", "a=\r\nnew = dbname=d"),
        ("[databases]\na=\n%include b\nc=\n[pgbouncer]\n", "a=\nnew = dbname=d\n%include"),
        ("[databases] ; here\n;a\n[pgbouncer]", "; here\nnew = dbname=d\n;a"),
        ("[databases] a = host=b\n[pgbouncer]", "host=b\nnew = dbname=d\n[pgb"),
        ("[databases]\na=\n[pgbouncer]\n[databases]\nb=\n* =\n", "* =\nnew = dbname=d\n"),
    ];
    for (text, expected) in cases {
        let mut ini = parsed(text);
        ini.add("new", &[("dbname", "d")]).unwrap();
        assert!(as_text(&ini).contains(expected), "{text:?} became {:?}", as_text(&ini));
        ini.remove("new").unwrap();
        assert_eq!(as_text(&ini), text);
    }
}

#[test]
fn values_are_quoted_when_they_must_be() {
    let mut ini = parsed(DEBIAN);
    let keywords =
        [("dbname", "my 'db'"), ("host", "h"), ("user", "'x"), ("password", "a'b="), ("port", "1")];
    ini.add("new", &keywords).unwrap();
    let line = "\nnew = dbname='my ''db''' host=h user='''x' password=a'b= port=1\n";
    assert!(as_text(&ini).contains(line), "{}", as_text(&ini));
    let entry = ini.entry("new").unwrap();
    assert!(keywords.iter().all(|(name, value)| entry.get(name).as_deref() == Some(value)));
}

#[test]
fn what_cannot_be_added_is_refused_and_changes_nothing() {
    let cases: [(&str, &[(&str, &str)]); 14] = [
        ("", &[]),
        ("*", &[]),
        ("pgbouncer", &[]),
        ("my db", &[]),
        ("\"db\"", &[]),
        ("é", &[]),
        ("a\nb", &[]),
        ("a=b", &[]),
        ("shop", &[("host", "other")]),
        ("new", &[("hst", "a")]),
        ("new", &[("host", "")]),
        ("new", &[("host", "a\nb")]),
        ("new", &[("port", "none")]),
        ("new", &[("pool_mode", "none")]),
    ];
    for (alias, keywords) in cases {
        let mut ini = parsed(TYPICAL);
        let error = ini.add(alias, keywords).unwrap_err();
        assert!(!error.hint().is_empty());
        assert_eq!(as_text(&ini), TYPICAL, "{alias:?} {keywords:?}");
    }
    assert!(parsed(DEBIAN).add(&"x".repeat(64), &[]).is_err());
    assert_eq!(parsed("[pgbouncer]").add("a", &[]), Err(BouncerError::NoDatabasesSection));
    let mut crowded = parsed("\n[databases] [pgbouncer]\n");
    assert_eq!(crowded.add("a", &[]), Err(BouncerError::CrowdedHeader { line: 2 }));
}

#[test]
fn what_a_destination_has_not_is_taken_out_and_there_and_back_gives_the_same_bytes() {
    for entry in
        ["shop = dbname=shop_1", "shop=dbname=shop_1 pool_size=5", "shop =  pool_size=5   dbname=shop_1 "]
    {
        let text = format!("[databases]\n{entry}\nother = dbname=x port=1\n[pgbouncer]\n");
        let mut ini = parsed(&text);
        ini.repoint("shop", &Destination::new("shop_2", "127.0.0.1", 5433)).unwrap();
        assert_eq!(ini.entry("shop").unwrap().port(), Some(5433), "{entry}");
        let back = Destination { dbname: Some("shop_1".to_owned()), host: None, port: None };
        ini.repoint("shop", &back).unwrap();
        assert_eq!(String::from_utf8_lossy(ini.to_bytes()), text, "{entry}");
    }
}

#[test]
fn a_keyword_that_comes_first_is_taken_out_with_the_blank_behind_it() {
    let mut ini = parsed("[databases]\nshop = host=h  dbname = a port=1\n[pgbouncer]\n");
    let to = Destination { dbname: Some("b".to_owned()), host: None, port: None };
    ini.repoint("shop", &to).unwrap();
    assert_eq!(String::from_utf8_lossy(ini.to_bytes()), "[databases]\nshop = dbname = b\n[pgbouncer]\n");
}

#[test]
fn an_entry_is_repointed_in_its_place_and_dress() {
    for (before, after) in [
        ("a = dbname=x host=h port=1 pool_size=3", "a = dbname=y host=new port=2 pool_size=3"),
        ("a=port=1  host = h   user=u  dbname='x' ", "a=port=2  host = new   user=u  dbname='y' "),
        ("\ta\t= ", "\ta\t= dbname=y host=new port=2"),
        ("a =", "a = dbname=y host=new port=2"),
        ("a = user=u", "a = user=u dbname=y host=new port=2"),
        ("a = dbname=w dbname=x host=h port=1", "a = dbname=w dbname=y host=new port=2"),
        ("a = dbname='x y'zhost='h h' port=1", "a = dbname='y'zhost=new port=2"),
        ("a = dbname=y host=new port=2", "a = dbname=y host=new port=2"),
        ("a = password='it''s' port='1' host=h", "a = password='it''s' port='2' host=new dbname=y"),
    ] {
        for eol in ["\n", "\r\n"] {
            let file =
                |line: &str| format!(";x{eol}[databases]{eol}{line}{eol}b = host=h{eol}[pgbouncer]{eol}");
            let mut ini = parsed(&file(before));
            ini.repoint("a", &Destination::new("y", "new", 2)).unwrap();
            assert_eq!(as_text(&ini), file(after));
            let entry = ini.entry("a").unwrap();
            let target = (entry.database(), entry.host(), entry.port());
            assert_eq!(target, ("y".into(), Some("new".into()), Some(2)));
        }
    }
}

#[test]
fn every_line_of_a_name_is_changed() {
    let mut ini = parsed("[databases]\na = host=1\nb = host=1\na = host=2 port=7\n[pgbouncer]\n");
    assert_eq!(ini.duplicates(), [("a", vec![2, 4])]);
    ini.repoint("a", &Destination::new("a", "3", 5432)).unwrap();
    let first = "a = host=3 dbname=a port=5432";
    let last = "a = host=3 port=5432 dbname=a";
    assert_eq!(as_text(&ini), format!("[databases]\n{first}\nb = host=1\n{last}\n[pgbouncer]\n"));
    ini.remove("a").unwrap();
    assert_eq!(as_text(&ini), "[databases]\nb = host=1\n[pgbouncer]\n");
}

#[test]
fn an_entry_that_shares_its_line_with_the_header_leaves_the_header() {
    let mut ini = parsed("[pgbouncer]\n[databases] a = host=b  \n");
    ini.remove("a").unwrap();
    assert_eq!(as_text(&ini), "[pgbouncer]\n[databases]   \n");
}

#[test]
fn what_is_not_there_or_unsure_cannot_be_changed() {
    let mut ini = parsed("[databases]\n%include b\na = host=b\n[pgbouncer]\n");
    assert_eq!(ini.remove("b"), Err(BouncerError::NoEntry { alias: "b".to_owned() }));
    let behind = BouncerError::BehindInclude { alias: "a".to_owned(), line: 3 };
    assert_eq!(ini.remove("a"), Err(behind.clone()));
    assert_eq!(ini.repoint("a", &Destination::new("b", "c", 1)), Err(behind));
    let mut typical = parsed(TYPICAL);
    assert!(typical.repoint("*", &Destination::new("b", "c", 1)).is_err());
    assert!(typical.repoint("shop", &Destination::new("b", "c", 0)).is_err());
    assert!(typical.repoint("shop", &Destination::new("", "c", 1)).is_err());
    assert!(typical.repoint("shop", &Destination::new("b\n", "c", 1)).is_err());
    assert_eq!(as_text(&typical), TYPICAL);
}

#[test]
fn an_upload_says_what_it_is_based_on() {
    let mut ini = parsed("[databases]\n[pgbouncer]\n");
    let base = ini.sha256_hex();
    assert_eq!(base, "0fbb1b42d9b3997b0725f065147a13efb9f956953bedc109461aa9dd67744d30");
    ini.add("a", &[]).unwrap();
    assert_eq!(ini.base_sha256_hex(), base);
    assert_ne!(ini.sha256_hex(), base);
    let upload = ini.upload("/etc/pgbouncer/pgbouncer.ini", "postgres").unwrap();
    let header = format!("; pg_staging 1 base={base} conf=/etc/pgbouncer/pgbouncer.ini user=postgres\n");
    assert_eq!(upload, [header.as_bytes(), ini.to_bytes()].concat());
    for conf in ["", "/", "x", "/a b", "/a//b", "/a/../b", "/a/", "/a;b", "/a\n", "~/a"] {
        assert!(ini.upload(conf, "postgres").is_err(), "{conf:?}");
    }
    for user in ["", "-c", "a b", "a\n", "a'b", &"x".repeat(64)] {
        assert!(ini.upload("/a", user).is_err(), "{user:?}");
    }
}

fn blank() -> impl Strategy<Value = String> {
    "[ \t]{0,3}"
}

fn eol() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["\n", "\r\n", " \n", "\n\n", "\t\r\n"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9_./=é-]{1,12}", "'[a-z ]{0,5}x(''|=|;)[a-z ]{0,5}'"]
}

fn pair(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    (prop::sample::select(keys), " {0,2}", " {0,2}", value())
        .prop_map(|(key, before, after, value)| format!("{key}{before}={after}{value}"))
}

fn connection() -> impl Strategy<Value = String> {
    let text = pair(&["dbname", "host", "user", "password", "connect_query"]);
    prop::collection::vec(prop_oneof![4 => text, 1 => "port=[1-9][0-9]{0,3}"], 0..5)
        .prop_map(|pairs| pairs.join("  "))
}

fn entry_line() -> impl Strategy<Value = String> {
    (blank(), "[a-d][a-z0-9_.-]{0,3}", blank(), blank(), connection(), eol())
        .prop_map(|(a, name, b, c, connection, eol)| format!("{a}{name}{b}={c}{connection}{eol}"))
}

fn comment() -> impl Strategy<Value = String> {
    (blank(), "[;#][^\0\r\n]{0,12}", eol()).prop_map(|(a, text, eol)| format!("{a}{text}{eol}"))
}

fn section(name: &'static str, line: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (blank(), blank(), eol(), prop::collection::vec(line, 0..6))
        .prop_map(move |(a, b, eol, lines)| format!("{a}[{name}]{b}{eol}{}", lines.concat()))
}

/// A file that pgbouncer reads, of any shape, sometimes without the last line end.
fn file() -> impl Strategy<Value = Vec<u8>> {
    let databases = section("databases", prop_oneof![3 => entry_line(), 2 => comment(), 1 => eol()]);
    let main = section("pgbouncer", prop_oneof!["x[a-z_]{1,4} = [^\0\n]{0,9}\n", comment()]);
    (databases, main, any::<bool>(), any::<bool>()).prop_map(|(databases, main, databases_first, whole)| {
        let text = if databases_first { databases + &main } else { main + &databases };
        let text = if whole { text.as_str() } else { text.trim_end_matches(['\n', '\r']) };
        // A comment in Latin-1, as old files have them.
        [b"; caf\xe9\n".as_slice(), text.as_bytes()].concat()
    })
}

fn lines(ini: &PgbouncerIni) -> Vec<String> {
    ini.to_bytes().split(|byte| *byte == b'\n').map(|line| text(line).trim_end().to_owned()).collect()
}

/// All lines but those of an alias, with their numbers.
fn other_lines(ini: &PgbouncerIni, alias: &str) -> Vec<(usize, String)> {
    let own = |number: &usize| ini.entries().iter().any(|e| e.alias == alias && e.line == number + 1);
    lines(ini).into_iter().enumerate().filter(|(number, _)| !own(number)).collect()
}

proptest! {
    #[test]
    fn reading_changes_nothing_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(ini) = PgbouncerIni::parse(bytes.clone()) {
            prop_assert_eq!(ini.to_bytes(), bytes);
        }
    }

    #[test]
    fn what_looks_like_a_file_is_edited_or_refused(
        text in r"([\[\]a'=; \n%*\t\r\\]|\[databases\]|\[pgbouncer\]|%include |host=|port=)*",
    ) {
        if let Ok(mut ini) = PgbouncerIni::parse(text.clone()) {
            prop_assert_eq!(ini.to_bytes(), text.as_bytes());
            if ini.add("new", &[("dbname", "x y")]).is_ok() {
                let entry = ini.entry("new").unwrap();
                prop_assert_eq!(entry.database(), "x y");
                ini.remove("new").unwrap();
                prop_assert_eq!(ini.to_bytes(), text.as_bytes());
            }
            if ini.repoint("a", &Destination::new("x y", "h", 1)).is_ok() {
                prop_assert_eq!(ini.entry("a").unwrap().database(), "x y");
            }
        }
    }

    #[test]
    fn adding_and_removing_gives_the_same_bytes(
        bytes in file(), dbname in "[^\0\n]{1,9}", port in 1_u16..,
    ) {
        let mut ini = PgbouncerIni::parse(bytes.clone()).unwrap();
        let before = lines(&ini);
        let port_text = port.to_string();
        ini.add("new", &[("dbname", &dbname), ("host", "h"), ("port", &port_text)]).unwrap();
        let entry = ini.entry("new").unwrap();
        prop_assert_eq!((entry.database(), entry.port()), (Cow::Borrowed(dbname.as_str()), Some(port)));
        let mut after = lines(&ini);
        after.remove(entry.line() - 1);
        prop_assert_eq!(after, before);
        ini.remove("new").unwrap();
        prop_assert_eq!(ini.to_bytes(), bytes);
    }

    #[test]
    fn removing_takes_only_the_lines_of_the_name(bytes in file()) {
        let mut ini = PgbouncerIni::parse(bytes).unwrap();
        while let Some(entry) = ini.entries().first() {
            let alias = entry.alias().to_owned();
            let strip = |lines: Vec<(usize, String)>| lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
            let others = strip(other_lines(&ini, &alias));
            ini.remove(&alias).unwrap();
            prop_assert_eq!(lines(&ini).concat(), others.concat());
            prop_assert!(ini.entry(&alias).is_none());
        }
    }

    #[test]
    fn repointing_changes_no_other_line(bytes in file(), dbname in "[^\0\n]{1,9}") {
        let read = PgbouncerIni::parse(bytes).unwrap();
        for entry in read.entries() {
            let mut ini = read.clone();
            ini.repoint(entry.alias(), &Destination::new(&dbname, "h", 5433)).unwrap();
            let changed = ini.entry(entry.alias()).unwrap();
            let target = (changed.database(), changed.host(), changed.port());
            prop_assert_eq!(target, (dbname.as_str().into(), Some("h".into()), Some(5433)));
            prop_assert_eq!(other_lines(&ini, entry.alias()), other_lines(&read, entry.alias()));
        }
    }

    #[test]
    fn repointing_there_and_back_gives_the_same_bytes(
        bytes in file(), quote in any::<bool>(), more in pair(&["user", "password", "connect_query"]),
    ) {
        let q = if quote { "'" } else { "" };
        let line = format!("shop = port={q}5432{q} {more} host={q}old{q}  dbname={q}shop_1{q}");
        let mut ini = PgbouncerIni::parse(bytes).unwrap();
        ini.add("shop", &[]).unwrap();
        let at = ini.entry("shop").unwrap().start;
        let (before, after) = ini.to_bytes().split_at(at);
        let bytes = [before, line.as_bytes(), &after["shop =".len()..]].concat();
        let mut ini = PgbouncerIni::parse(bytes.clone()).unwrap();
        ini.repoint("shop", &Destination::new("shop_2", "new", 1)).unwrap();
        prop_assert_ne!(ini.to_bytes(), bytes.as_slice());
        ini.repoint("shop", &Destination::new("shop_1", "old", 5432)).unwrap();
        prop_assert_eq!(ini.to_bytes(), bytes);
    }
}
