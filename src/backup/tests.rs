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
        sample!(
            "nginx",
            "nginx_html.html",
            "text/html",
            "/html/backups/",
            false,
            Some((1536, false, minute))
        ),
        sample!("nginx", "nginx_json.json", "application/json", "/json/", false, Some((1536, true, second))),
        sample!("lighttpd", "lighttpd.html", "text/html", "/backups/", false, Some((1536, false, second))),
        sample!("caddy", "caddy.html", "text/html", "/backups/", true, Some((1536, false, second))),
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
    assert_eq!(listing.files[1].size_hint, Some(7));
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

/// Name, size and time of each file, as a page has them.
fn told(body: &str, content_type: Option<&str>, page: &str) -> Vec<(String, Option<u64>, String)> {
    let listing = parse(body.as_bytes(), content_type, &url(page)).unwrap();
    let at = |file: &ListedFile| file.modified.map(|at| at.to_string()).unwrap_or_default();
    listing.files.iter().map(|file| (file.name.clone(), file.size_hint, at(file))).collect()
}

fn line(name: &str, size: u64, at: &str) -> (String, Option<u64>, String) {
    (name.to_owned(), Some(size), at.to_owned())
}

#[test]
fn iis_tells_time_and_size_before_the_link() {
    let page = |rows: [&str; 3]| {
        let rows: String = rows
            .iter()
            .zip(["a.dump", "b.dump", "sub/"])
            .map(|(lead, name)| format!("{lead} <A HREF=\"/b/{name}\">{name}</A><br>"))
            .collect();
        format!(
            "<html><head><title>h - /b/</title></head><body><H1>h - /b/</H1><hr>\r\n\r\n\
             <pre><A HREF=\"/\">[To Parent Directory]</A><br><br>{rows}</pre><hr></body></html>"
        )
    };
    let of = |rows| told(&page(rows), Some("text/html; charset=UTF-8"), "http://h/b/");
    let expected = [line("a.dump", 1536, "2026-11-20T03:12:00"), line("b.dump", 12, "2026-11-21T12:05:00")];
    for rows in [
        [
            "11/20/2026  3:12 AM         1536",
            "11/21/2026 12:05 PM           12",
            "11/21/2026  1:00 AM   &lt;dir&gt;",
        ],
        ["20/11/2026    03:12         1536", "21/11/2026    12:05   12", "21/11/2026  01:00   &lt;dir&gt;"],
        ["20.11.2026    03:12         1536", "21.11.2026    12:05   12", "21.11.2026  01:00   &lt;dir&gt;"],
        ["2026-11-20    03:12         1536", "2026-11-21    12:05   12", "2026-11-21  01:00   &lt;dir&gt;"],
        [
            "Friday, November 20, 2026  3:12 AM  1536",
            "Saturday, November 21, 2026  12:05 PM  12",
            "Saturday, November 21, 2026  1:00 AM  &lt;dir&gt;",
        ],
    ] {
        assert_eq!(of(rows), expected, "{rows:?}");
    }
    // The seventh of June or the sixth of July: nobody can tell.
    let unsure = of(["06/07/2026 03:12 1536", "06/06/2026 03:12 12", ""]);
    assert_eq!(
        unsure,
        [("a.dump".to_owned(), Some(1536), String::new()), line("b.dump", 12, "2026-06-06T03:12:00")]
    );
}

#[test]
fn links_are_resolved_against_the_base_that_the_page_names() {
    let names_of = |base: &str, page: &str| {
        let body = format!("<head>{base}<base href='/other/'></head><a href=x.dump>x</a><a href='y%2edump'>");
        let listing = parse(body.as_bytes(), Some("text/html"), &url(page)).unwrap();
        listing.files.iter().map(|file| file.url.to_string()).collect::<Vec<_>>()
    };
    let there = |folder: &str| vec![format!("{folder}x.dump"), format!("{folder}y%2edump")];
    let page = "http://me:secret@h/b/index?x=1";
    assert_eq!(names_of("<base href='/c/'>", page), there("http://me:secret@h/c/"));
    assert_eq!(names_of("<BASE HREF=d/>", page), there("http://me:secret@h/b/d/"));
    assert_eq!(names_of("<base target=_top>", page), there("http://me:secret@h/other/"));
    // The user is for the page's own server.
    assert_eq!(names_of("<base href='//cdn/c/'>", page), there("http://cdn/c/"));
    // Nobody is led from https to http.
    assert_eq!(names_of("<base href='http://cdn/c/'>", "https://h/b/"), there("https://h/b/"));
}

#[test]
fn a_second_link_to_a_file_tells_what_the_first_does_not() {
    let body = "<pre><a href=\"x.dump\"><img src=i></a> <a href=\"x.dump\">x.dump</a> 2026-11-20 03:12  1.5K\n</pre>";
    assert_eq!(told(body, Some("text/html"), "http://h/b/"), [line("x.dump", 1536, "2026-11-20T03:12:00")]);
}

#[test]
fn names_differ_by_their_case_and_html_is_known_by_its_look() {
    let body = "<!-- made by hand -->\n<!DOCTYPE HTML>\n<HTML><BODY><UL>\
        <LI><A HREF=shop&#46;2026-11-21.dump>a</A><LI><A HREF='Shop.2026-11-21.dump#top'>b</A>\
        <LI><A HREF='shop.2026-11-21.dump?raw=1'>again</A></UL>";
    let page = url("http://h/b/");
    for content_type in [None, Some("text/plain"), Some("application/octet-stream")] {
        let listing = parse(body.as_bytes(), content_type, &page).unwrap();
        assert_eq!(names(&listing), ["Shop.2026-11-21.dump", "shop.2026-11-21.dump"]);
        assert_eq!(dumps(&listing, "shop").len(), 1);
        assert_eq!(dumps(&listing, "Shop").len(), 1);
    }
}

#[test]
fn lists_in_json_may_tell_numbers_and_paths_in_other_ways() {
    let body = r#"[{"name":"a.dump","type":"file","size":"7","mtime":1795216365},
        {"name":"b.dump","is_dir":0,"size":8,"mtime":"2026-11-20T23:12:45Z"},
        {"name":"/b/c.dump","size":9,"mod_time":"2026-11-20T23:12:45.123Z"},
        {"name":"http://h/b/d%20e.dump","size":10},
        {"name":"f%20g.dump","size":11,"url":"./f%2520g.dump","mtime":null},
        {"name":"/elsewhere/h.dump","size":12},{"name":"sub","is_dir":1},{"name":"pipe","type":"other"}]"#;
    let found = told(body, Some("text/plain"), "http://h/b/");
    let seen: Vec<(&str, Option<u64>)> = found.iter().map(|(name, size, _)| (name.as_str(), *size)).collect();
    assert_eq!(
        seen,
        [
            ("a.dump", Some(7)),
            ("b.dump", Some(8)),
            ("c.dump", Some(9)),
            ("d e.dump", Some(10)),
            ("f%20g.dump", Some(11))
        ]
    );
    assert!(found[..2].iter().all(|(_, _, at)| at.starts_with("2026-11-2")), "{found:?}");
}

#[test]
fn nginx_lists_in_xml_as_well() {
    let body = "<?xml version=\"1.0\"?>\n<list>\n<directory mtime=\"2026-11-22T07:08:44Z\">archive dir</directory>\n\
        <file mtime=\"2026-11-20T03:12:45Z\" size=\"1536\">shop.2026-11-20.dump</file>\n\
        <other mtime=\"2026-11-20T03:12:45Z\">pipe</other>\n\
        <file mtime=\"2026-11-21T03:12:45Z\" size=\"7\">a b&amp;c.dump</file>\n</list>\n";
    assert_eq!(
        told(body, Some("text/xml"), "http://h/b/"),
        [
            line("a b&c.dump", 7, "2026-11-21T03:12:45"),
            line("shop.2026-11-20.dump", 1536, "2026-11-20T03:12:45")
        ]
    );
}

/// Where a bucket's page says that it goes on.
fn next(body: &str, page: &str) -> String {
    parse(body.as_bytes(), None, &url(page)).unwrap().next.map(|next| next.to_string()).unwrap_or_default()
}

#[test]
fn a_bucket_listed_in_the_old_way_goes_on_behind_its_marker() {
    let with = |inside: &str| {
        format!(
            "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>\
             <Name>b</Name><Prefix>n/</Prefix><Marker></Marker>{inside}<IsTruncated>true</IsTruncated>\
             <Contents><Key>n/a+b.dump</Key><Size>1</Size></Contents>\
             <CommonPrefixes><Prefix>n/sub/</Prefix></CommonPrefixes>\
             <Contents><Key>n/c.dump</Key><Size></Size></Contents></ListBucketResult>"
        )
    };
    let page = "https://storage.example/b/?prefix=n/&marker=old";
    assert_eq!(next(&with(""), page), "https://storage.example/b/?prefix=n/&marker=n%2Fsub%2F");
    let told_so = with("<NextMarker>n/a+b.dump</NextMarker>");
    assert_eq!(next(&told_so, page), "https://storage.example/b/?prefix=n/&marker=n%2Fa%2Bb.dump");
    let encoded = with("<EncodingType>url</EncodingType><NextMarker>n%2Fa+b.dump</NextMarker>");
    assert_eq!(next(&encoded, page), "https://storage.example/b/?prefix=n/&marker=n%2Fa%20b.dump");
    // A store that does not know list-type answers in the old way as well.
    let newer = "https://storage.example/b/?prefix=n/&list-type=2";
    assert_eq!(
        next(&told_so, newer),
        "https://storage.example/b/?prefix=n/&list-type=2&marker=n%2Fa%2Bb.dump"
    );
    let listing = parse(with("").as_bytes(), None, &url(page)).unwrap();
    assert_eq!(names(&listing), ["a+b.dump", "c.dump"]);
    assert_eq!(listing.files[0].url.as_str(), "https://storage.example/b/n/a%2Bb.dump");
}

#[test]
fn a_folder_that_the_path_names_already_is_not_entered_twice() {
    let body = "<ListBucketResult><Prefix>n/</Prefix><IsTruncated>False</IsTruncated>\
        <Contents><Key>n/a.dump</Key></Contents></ListBucketResult>";
    let at = |page: &str| parse(body.as_bytes(), None, &url(page)).unwrap().files[0].url.path().to_owned();
    assert_eq!(at("https://gateway.example/b/n/"), "/b/n/a.dump");
    assert_eq!(at("https://n.example/?prefix=n/"), "/n/a.dump");
    assert_eq!(at("https://s3.example/n/?prefix=n/"), "/n/n/a.dump");
}

#[test]
fn what_may_be_a_key_is_neither_shown_nor_stored() {
    let signed = url("https://me:pw@h/b/?list-type=2&prefix=n/&X-Amz-Signature=abc&sig=d%3De&f");
    let shown = "https://h/b/?list-type=2&prefix=n/&X-Amz-Signature=***&sig=***&***";
    assert_eq!(without_password(&signed), shown);
    assert_eq!(to_store(&signed), "https://h/b/");
    assert_eq!(to_store(&url("https://me:pw@h/b/?prefix=n/#x")), "https://h/b/?prefix=n/");
    assert_eq!(to_store(&url("https://h/x.dump?versionId=7")), "https://h/x.dump?versionId=7");
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
        ("5000", Some(5000)),
        ("4.9K", Some(5017)),
        ("1.5T", Some(1_649_267_441_664)),
        ("1536G", Some(1_649_267_441_664)),
        ("12MiB", Some(12 << 20)),
        ("10B", Some(10)),
        ("99999999999E", Some(u64::MAX)),
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
    let chosen =
        |wanted| choose(&dumps, "shop", wanted).map(|backup| backup.date).map_err(|none| none.to_string());
    assert_eq!(chosen(DateChoice::Latest), Ok(date(2026, 11, 21)));
    assert_eq!(chosen(DateChoice::Oldest), Ok(date(2026, 11, 20)));
    assert_eq!(chosen(DateChoice::Exact(date(2026, 11, 20))), Ok(date(2026, 11, 20)));
    assert_eq!(
        chosen(DateChoice::Exact(date(2026, 11, 23))),
        Err("no backup of 2026-11-23: the nearest of 2 is 2026-11-21".into())
    );
    assert_eq!(
        choose(&[], "shop", DateChoice::Latest).unwrap_err().to_string(),
        "no backup: the listing has none of this database"
    );
    let gap = [dumps[0].clone(), Backup { date: date(2026, 11, 25), ..dumps[1].clone() }];
    let none = choose(&gap, "shop", DateChoice::Exact(date(2026, 11, 22))).unwrap_err();
    assert_eq!(none.to_string(), "no backup of 2026-11-22: the nearest of 2 are 2026-11-20 and 2026-11-25");
    assert_eq!(none.hint(), "the newest of 2 backups: 2026-11-25, 2026-11-20");
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
    assert_eq!(shown("https://me:secret@h.example:8443/a?b#c"), "https://h.example:8443/a?***#c");
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
