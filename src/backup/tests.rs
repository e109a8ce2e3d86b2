//! Tests of `backup.rs`.

use super::hints::size;
use super::*;
use jiff::civil::{Time, date};
use proptest::prelude::*;

const EU: &str = "a_very_long_customer_database_name_for_the_european_region";

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.files.iter().map(|file| file.name.as_str()).collect()
}

fn file<'a>(listing: &'a Listing, name: &str) -> &'a ListedFile {
    listing.files.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("{name} is not listed"))
}

struct Sample {
    server: &'static str,
    body: &'static [u8],
    content_type: &'static str,
    url: &'static str,
    /// Whether the server lists files whose names begin with a dot.
    hidden: bool,
    /// What the page says of `shop.2026-11-20.dump`, whose 1536 bytes were written at 03:12:45.
    shop: Option<(u64, bool, Time)>,
}

macro_rules! sample {
    ($server:literal, $file:literal, $type:literal, $url:literal, $hidden:literal, $shop:expr) => {
        Sample {
            server: $server,
            body: include_bytes!(concat!("../../tests/data/listings/", $file)),
            content_type: $type,
            url: concat!("http://backups.example", $url),
            hidden: $hidden,
            shop: $shop,
        }
    };
}

/// The same folder as eight set-ups of five servers list it.
fn samples() -> Vec<Sample> {
    let minute = jiff::civil::time(3, 12, 0, 0);
    let second = jiff::civil::time(3, 12, 45, 0);
    let html = "text/html;charset=UTF-8";
    let mut samples = vec![
        sample!("apache", "apache_debian.html", "", "/debian/backups/", true, Some((1536, false, minute))),
        sample!("apache", "apache_plain.html", "", "/plain/backups/", true, None),
        sample!("apache", "apache_pre.html", "", "/pre/backups/", true, Some((1536, false, minute))),
        sample!("apache", "apache_table.html", "", "/table/backups/", true, Some((1536, false, minute))),
        sample!("nginx", "nginx_html.html", "text/html", "/html/backups/", false, Some((1536, true, minute))),
        sample!("nginx", "nginx_json.json", "application/json", "/json/", false, Some((1536, true, second))),
        sample!("lighttpd", "lighttpd.html", "text/html", "/backups/", false, Some((1536, false, second))),
        sample!("caddy", "caddy.html", "text/html", "/backups/", true, Some((1536, true, second))),
        sample!("python", "python_http_server.html", "text/html", "/backups/", true, None),
    ];
    for sample in &mut samples {
        if sample.content_type.is_empty() {
            sample.content_type = html;
        }
    }
    samples
}

#[test]
fn every_server_gives_the_same_files() {
    for sample in samples() {
        let listing = parse(sample.body, Some(sample.content_type), &url(sample.url)).unwrap();
        let mut expected = vec![
            "100%#1?x;y+z.2026-11-21.dump",
            "a b&c.2026-11-21.dump",
            "a_very_long_customer_database_name_for_the_american_region.2026-11-21.dump",
            "a_very_long_customer_database_name_for_the_european_region.2026-11-21.dump",
            "café.2026-11-21.dump",
            "colon:name.2026-11-21.dump",
            "huge.2026-11-21.dump",
            "old.2019-01-02.dump",
            "quote\"'<b>.2026-11-21.dump",
            "shop-eu.2026-11-21.dump",
            "shop.2026-11-20.dump",
            "shop.2026-11-21.dump",
            "shop.2026-11-21.dump.sha256",
            "shop.2026-11-22.dump.part",
            "shop.eu.2026-11-21.dump",
            "shop_eu.2026-11-21.dump",
            "zero.2026-11-21.dump",
        ];
        if sample.hidden {
            expected.insert(0, ".hidden.dump");
        }
        assert_eq!(names(&listing), expected, "{} {}", sample.server, sample.url);
        assert_eq!(listing.next, None);
    }
}

#[test]
fn sizes_and_times_are_taken_as_the_page_has_them() {
    for sample in samples() {
        let listing = parse(sample.body, Some(sample.content_type), &url(sample.url)).unwrap();
        let shop = file(&listing, "shop.2026-11-20.dump");
        let told = shop.size_hint.zip(shop.modified).map(|(size, at)| (size, shop.exact, at.time()));
        assert_eq!(told, sample.shop, "{} {}", sample.server, sample.url);
        assert!(shop.modified.is_none_or(|at| at.date() == date(2026, 11, 20)));
        let zero = file(&listing, "zero.2026-11-21.dump");
        assert_eq!(zero.size_hint, sample.shop.map(|_| 0), "{} {}", sample.server, sample.url);
    }
}

#[test]
fn a_url_leads_back_to_its_name() {
    for sample in samples() {
        let listing = parse(sample.body, Some(sample.content_type), &url(sample.url)).unwrap();
        for listed in &listing.files {
            assert_eq!(file_name(&listed.url).as_ref(), Some(&listed.name));
            assert_eq!(listed.url.path().matches('/').count(), url(sample.url).path().matches('/').count());
            assert_eq!((listed.url.query(), listed.url.fragment()), (None, None));
        }
    }
}

const S3: &[u8] =
    include_bytes!("../../tests/data/listings/s3_moto_list-type_2_prefix_nightly__delimiter__.xml");

#[test]
fn an_object_store_lists_what_is_below_its_prefix() {
    let page = url("http://s3.example/pgbackups?list-type=2&prefix=nightly/&delimiter=/");
    let listing = parse(S3, Some("application/xml"), &page).unwrap();
    assert_eq!(
        names(&listing),
        [
            "a b&c.2026-11-21.dump",
            "café.2026-11-21.dump",
            "plus+name.2026-11-21.dump",
            "quote\"'<b>.2026-11-21.dump",
            "shop.2026-11-20.dump",
            "shop.2026-11-21.dump",
            "shop_eu.2026-11-21.dump",
            "zero.2026-11-21.dump",
        ]
    );
    let plus = file(&listing, "plus+name.2026-11-21.dump");
    assert_eq!(plus.url.as_str(), "http://s3.example/pgbackups/nightly/plus%2Bname.2026-11-21.dump");
    assert_eq!((plus.size_hint, plus.exact), (Some(11), true));
    assert_eq!(plus.modified, Some(date(2026, 11, 22).at(7, 11, 20, 0)));
}

#[test]
fn a_truncated_bucket_names_its_next_page() {
    let body = b"<?xml version=\"1.0\"?>\n<ListBucketResult><IsTruncated>true</IsTruncated><Prefix/>\
        <NextContinuationToken>1/a+b=&amp;c</NextContinuationToken>\
        <Contents><Key>shop.2026-11-20.dump</Key></Contents></ListBucketResult>";
    let page = url("https://me:secret@b.s3.example/?list-type=2&continuation-token=old&prefix=");
    let mut listing = parse(body, None, &page).unwrap();
    let next = "https://me:secret@b.s3.example/?list-type=2&prefix=&continuation-token=1%2Fa%2Bb%3D%26c";
    assert_eq!(listing.next.as_ref().map(Url::as_str), Some(next));
    assert_eq!(listing.files[0].url.as_str(), "https://me:secret@b.s3.example/shop.2026-11-20.dump");

    let last = "<ListBucketResult><EncodingType>url</EncodingType><Prefix></Prefix>\
        <Contents><Key>shop.2026-11-20.dump</Key><Size>7</Size></Contents>\
        <Contents><Key>a+b%2Bc.2026-11-20.dump</Key></Contents></ListBucketResult>";
    listing.append(parse(last.as_bytes(), None, &page).unwrap());
    assert_eq!(names(&listing), ["a b+c.2026-11-20.dump", "shop.2026-11-20.dump"]);
    assert_eq!(listing.files[1].size_hint, None);
    assert_eq!(listing.next, None);
}

#[test]
fn an_object_stores_own_encoding_is_undone_once() {
    let body = "<ListBucketResult><EncodingType>url</EncodingType><Prefix>my%2Fnight+ly%2Fsh</Prefix>\
        <Contents><Key>my%2Fnight+ly%2Fshop%2525.2026-11-20.dump</Key></Contents>\
        <Contents><Key>my%2Fnight+ly%2Fsub%2Fshop</Key></Contents>\
        <Contents><Key>my%2Fnight+ly%2F</Key></Contents></ListBucketResult>";
    let listing = parse(body.as_bytes(), None, &url("http://s3.example/bucket")).unwrap();
    assert_eq!(names(&listing), ["shop%25.2026-11-20.dump"]);
    let path = "/bucket/my/night%20ly/shop%2525.2026-11-20.dump";
    assert_eq!(listing.files[0].url.path(), path);
}

fn refused(body: &str, content_type: Option<&str>, page: &str) -> String {
    parse(body.as_bytes(), content_type, &url(page)).unwrap_err().to_string()
}

#[test]
fn what_is_no_listing_is_refused_with_its_name() {
    let page = "http://me:secret@backups.example/shop/";
    assert_eq!(
        refused("PGDMP", Some("application/octet-stream"), page),
        "http://backups.example/shop/ is not a listing of a folder (application/octet-stream)"
    );
    assert_eq!(
        refused("hello", None, page),
        "http://backups.example/shop/ is not a listing of a folder (of no declared type)"
    );
    assert_eq!(
        refused("{\"error\": 1}", None, page),
        "the listing http://backups.example/shop/ cannot be read as JSON"
    );
    assert_eq!(
        refused("<ListBucketResult><Contents>", None, page),
        "the listing http://backups.example/shop/ cannot be read as XML"
    );
    assert_eq!(
        refused("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", None, page),
        "the listing http://backups.example/shop/ is cut off and names no next page"
    );
    assert_eq!(
        refused("<Error><Code>NoSuchBucket</Code><Message>It is gone.</Message></Error>", None, page),
        "the object store refused to list http://backups.example/shop/: NoSuchBucket: It is gone"
    );
}

#[test]
fn only_an_error_body_is_a_storage_error() {
    let body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><RequestId>1</RequestId></Error>";
    assert_eq!(StorageError::parse(body).map(|error| error.to_string()).as_deref(), Some("AccessDenied"));
    assert_eq!(StorageError::parse(b"<html><Error></html>"), None);
    assert_eq!(StorageError::parse(S3), None);
}

#[test]
fn links_that_lead_elsewhere_are_no_files() {
    let body = "<a name=top>top</a><a href='../x'>up</a><a href=/other/y>other</a><a href='sub/z'>below</a>\
        <a href='http://elsewhere.example/b/w'>host</a><a href='https://h.example/b/w'>scheme</a>\
        <a href='mailto:me@h.example'>mail</a><a href='javascript:v()'>script</a><a href='?C=N'>sort</a>\
        <a href='#x'>here</a><a href='%2e%2e'>dots</a><a href='a%2Fb'>slash</a><a href='a%00b'>nul</a>\
        <a href='.'>dot</a><!-- <a href=comment>c</a> --><script>'<a href=script>s</a>'</script>\
        <a href=' ok1 '>1</a><A HREF=/b/ok2>2</A><a href='//h.example/b/ok3#x'>3<a href='./ok4'>4</a>\
        <a href=ok1>again</a><a href='http://h.example:80/b/ok5' href=second>5</a>\
        <a href='ok%366?versionId=1'>6</a>";
    let listing = parse(body.as_bytes(), Some("text/html"), &url("http://h.example/b/?x=1")).unwrap();
    assert_eq!(names(&listing), ["ok1", "ok2", "ok3", "ok4", "ok5", "ok66"]);
    assert_eq!(file(&listing, "ok66").url.as_str(), "http://h.example/b/ok%366?versionId=1");
    assert_eq!(file(&listing, "ok3").url.as_str(), "http://h.example/b/ok3");
}

#[test]
fn names_that_are_not_utf8_are_read_as_latin1() {
    let body = b"<a href=\"caf\xe9.txt\">raw</a> <a href=\"th%e9\">encoded</a>";
    let listing = parse(body, Some("text/html; charset=ISO-8859-1"), &url("http://h/")).unwrap();
    assert_eq!(names(&listing), ["café.txt", "thé"]);
    assert_eq!(listing.files[1].url.as_str(), "http://h/th%e9");
}

#[test]
fn caddys_json_is_read_and_an_empty_folder_is_empty() {
    let page = url("http://me:secret@h/b/");
    let body = r#"[{"name":"sub/","size":4096,"url":"./sub/","mod_time":"2026-11-22T07:08:44Z","is_dir":true},
        {"name":"a\u0020b","size":7,"url":"./a%20b","mod_time":"2026-11-21T05:15:00.25Z","is_dir":false},
        {"name":"..","size":-1}]"#;
    let listing = parse(body.as_bytes(), Some("application/json; charset=utf-8"), &page).unwrap();
    assert_eq!(names(&listing), ["a b"]);
    assert_eq!(listing.files[0].url.as_str(), "http://me:secret@h/b/a%20b");
    assert_eq!(listing.files[0].size_hint, Some(7));
    for empty in ["null\n", "[]", "\u{feff}[ ]"] {
        assert_eq!(parse(empty.as_bytes(), Some("application/json"), &page).unwrap(), Listing::default());
    }
    assert_eq!(parse(b"", Some("text/html"), &page).unwrap(), Listing::default());
}

#[test]
fn sizes_are_powers_of_1024_and_never_overflow() {
    let cases = [
        ("5000", Some((5000, true))),
        ("4.9K", Some((5017, false))),
        ("1.5T", Some((1_649_267_441_664, false))),
        ("1536G", Some((1_649_267_441_664, false))),
        ("12MiB", Some((12 << 20, false))),
        ("10B", Some((10, false))),
        ("99999999999E", Some((u64::MAX, false))),
        ("99999999999999999999", None),
        ("1.2.3K", None),
        ("-", None),
        ("5Q", None),
        ("", None),
    ];
    for (word, expected) in cases {
        assert_eq!(size(word), expected, "{word}");
    }
}

fn nginx() -> Listing {
    let body = include_bytes!("../../tests/data/listings/nginx_html.html");
    parse(body, Some("text/html"), &url("http://backups.example/html/backups/")).unwrap()
}

#[test]
fn dumps_are_those_of_exactly_this_database() {
    let dumps = |dbname: &str| -> Vec<String> {
        dumps(&nginx(), dbname).into_iter().map(|backup| backup.name).collect()
    };
    assert_eq!(dumps("shop"), ["shop.2026-11-20.dump", "shop.2026-11-21.dump"]);
    assert_eq!(dumps("shop_eu"), ["shop_eu.2026-11-21.dump"]);
    assert_eq!(dumps("shop.eu"), ["shop.eu.2026-11-21.dump"]);
    assert_eq!(dumps(EU), [format!("{EU}.2026-11-21.dump")]);
    assert_eq!(dumps("100%#1?x;y+z"), ["100%#1?x;y+z.2026-11-21.dump"]);
    assert_eq!(dumps("eu"), [""; 0]);
    assert_eq!(dumps(""), [""; 0]);
}

#[test]
fn only_a_whole_and_real_date_counts() {
    assert_eq!(DumpName::date_of("shop", "shop.2026-11-21.dump"), Some(date(2026, 11, 21)));
    for name in [
        "shop.2026-02-30.dump",
        "shop.2026-2-3.dump",
        "shop.20261121.dump",
        "shop.+026-11-21.dump",
        "shop.2026-11-21T00.dump",
        "shop.2026-11-21.dump.part",
        "shop.2026-11-21",
        "shop.dump",
        "xshop.2026-11-21.dump",
    ] {
        assert_eq!(DumpName::date_of("shop", name), None, "{name}");
    }
}

#[test]
fn a_sum_beside_a_dump_is_found() {
    let dumps = dumps(&nginx(), "shop");
    assert_eq!(dumps[0].sha256, None);
    let sum = dumps[1].sha256.as_ref().unwrap();
    assert_eq!(sum.as_str(), "http://backups.example/html/backups/shop.2026-11-21.dump.sha256");
}

#[test]
fn the_dump_of_the_date_is_chosen_and_no_other() {
    let dumps = dumps(&nginx(), "shop");
    let chosen = |wanted| choose(&dumps, wanted).map(|backup| backup.date).map_err(|none| none.to_string());
    assert_eq!(chosen(DateChoice::Latest), Ok(date(2026, 11, 21)));
    assert_eq!(chosen(DateChoice::Oldest), Ok(date(2026, 11, 20)));
    assert_eq!(chosen(DateChoice::Exact(date(2026, 11, 20))), Ok(date(2026, 11, 20)));
    assert_eq!(
        chosen(DateChoice::Exact(date(2026, 11, 23))),
        Err("no backup of 2026-11-23: the nearest of 2 is 2026-11-21".into())
    );
    assert_eq!(
        choose(&[], DateChoice::Latest).unwrap_err().to_string(),
        "no backup: the listing has none of this database"
    );
    let gap = [dumps[0].clone(), Backup { date: date(2026, 11, 25), ..dumps[1].clone() }];
    let none = choose(&gap, DateChoice::Exact(date(2026, 11, 22))).unwrap_err();
    assert_eq!(none.to_string(), "no backup of 2026-11-22: the nearest of 2 are 2026-11-20 and 2026-11-25");
    assert_eq!(none.hint(), "choose one that is there: 2026-11-20, or latest");
}

#[test]
fn a_sum_is_read_in_each_form() {
    let name = "shop.2026-11-21.dump";
    let hex = "00ff".repeat(16);
    let sum = [[0x00, 0xff]; 16].concat();
    for text in [
        format!("{hex}\n"),
        format!("  {}\r\n", hex.to_uppercase()),
        format!("{hex}  {name}\n"),
        format!("{hex} *{name}\n"),
        format!("{hex}  /srv/backups/{name}\n"),
        format!("SHA256 ({name}) = {hex}\n"),
        format!("SHA256(./{name})= {hex}\n"),
        format!("# sums\n{}  other\n{hex}  {name}\n", "11".repeat(32)),
    ] {
        assert_eq!(parse_sha256(text.as_bytes(), name).unwrap(), *sum, "{text}");
    }
    for text in [
        String::new(),
        format!("{hex}  other.dump\n"),
        format!("SHA256 (other.dump) = {hex}\n"),
        format!("{hex}\n{hex}\n"),
        format!("{}  {name}\n", &hex[1..]),
        format!("é{}  {name}\n", &hex[2..]),
        "<html>not found</html>".into(),
    ] {
        assert_eq!(parse_sha256(text.as_bytes(), name), Err(NoSum { name: name.into() }), "{text}");
    }
}

#[test]
fn a_shown_url_has_no_password() {
    let shown = |text| without_password(&url(text));
    assert_eq!(shown("https://me:secret@h.example:8443/a?b#c"), "https://h.example:8443/a?b#c");
    assert_eq!(shown("http://me@h.example/"), "http://h.example/");
    assert_eq!(shown("http://:secret@h.example/"), "http://h.example/");
    assert_eq!(shown("http://h.example/a@b"), "http://h.example/a@b");
}

#[test]
fn a_page_of_too_many_files_is_refused() {
    let page = url("http://h/b/");
    for body in [
        "<a href=1><a href=2><a href=3>",
        r#"[{"name":"1"},{"name":"2"},{"name":"3"}]"#,
        "<ListBucketResult><Contents><Key>1</Key></Contents><Contents><Key>2</Key></Contents>\
            <Contents><Key>3</Key></Contents></ListBucketResult>",
    ] {
        assert_eq!(parse_within(3, body.as_bytes(), None, &page).unwrap().files.len(), 3);
        let refused = parse_within(2, body.as_bytes(), None, &page).unwrap_err();
        assert_eq!(refused.to_string(), "the listing http://h/b/ names more than 2 files");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&body, Some("text/html"), &url("http://h/b/"));
        let _ = parse_sha256(&body, "b");
    }

    #[test]
    fn damaged_pages_are_read_or_refused(sample in 0_usize..9, at in any::<usize>(), byte in any::<u8>()) {
        let sample = &samples()[sample];
        let mut body = sample.body.to_vec();
        let at = at % body.len();
        body[at] = byte;
        let _ = parse(&body, Some(sample.content_type), &url(sample.url));
        body.truncate(at);
        let _ = parse(&body, Some(sample.content_type), &url(sample.url));
    }

    #[test]
    fn any_name_in_json_gives_a_url_that_leads_back(name in "[^/\0]{1,20}") {
        let body = serde_json::to_vec(&serde_json::json!([{ "name": name }])).unwrap();
        let listing = parse(&body, Some("application/json"), &url("http://h/b/")).unwrap();
        for listed in &listing.files {
            prop_assert_eq!(&listed.name, &name);
            prop_assert_eq!(file_name(&listed.url), Some(name.clone()));
            prop_assert!(listed.url.path().starts_with("/b/"));
        }
        prop_assert!(listing.files.len() == 1 || name == "." || name == "..");
    }
}
