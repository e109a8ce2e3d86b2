//! `backups`, and how the program gets in at the server that has them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stage::{Asked, Conduct, FAR, LOCAL, Plan, Request, Serving, Site, SiteOptions, Stage, TlsDoor},
    traces::{error, json as ask, names_in, plain, says, succeeds},
};

const LIMIT: Duration = Duration::from_secs(60);

/// A site with a server of its own that has backups of these days.
fn site(dates: &[&str]) -> Site<'static> {
    let dates = dates.iter().map(|date| (*date).to_owned()).collect();
    let options = SiteOptions { dates, serving: Serving::Rude, ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    site.set("retry_limit", "1s").unwrap();
    site
}

/// The path of something in the folder of the backups.
fn path(site: &Site<'_>, name: &str) -> String {
    format!("/{}/{name}", site.dbname())
}

/// The backups that are listed.
fn backups(site: &Site<'_>, arguments: &[&str]) -> Vec<Value> {
    let answer = ask(site, &[&["backups", &site.section()], arguments].concat());
    assert_eq!(answer["schema"], 1);
    answer["backups"].as_array().unwrap().clone()
}

fn dates(backups: &[Value]) -> Vec<&str> {
    backups.iter().map(|backup| backup["date"].as_str().unwrap()).collect()
}

/// It ends with this code and these words.
#[track_caller]
fn ends(site: &Site<'_>, arguments: &[&str], code: i32, said: &str) {
    let outcome = site.run(arguments).unwrap();
    says(&error(site, &outcome), said);
    assert_eq!(outcome.code, code, "{outcome}");
}

/// The values of Authorization in the requests so far, in their order, and none where there was none.
fn shown(site: &Site<'_>) -> Vec<Option<String>> {
    let of = |request: &Request| request.header("authorization").map(str::to_owned);
    site.rude().unwrap().requests().iter().map(of).collect()
}

/// Every file below a folder has been looked through for a word.
fn is_written_below(folder: &Path, word: &str) -> bool {
    let found = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(word.len()).any(|window| window == word.as_bytes())
    };
    names_in(folder).iter().map(|name| folder.join(name)).any(|path| match path.is_dir() {
        true => is_written_below(&path, word),
        false => found(&path),
    })
}

#[test]
fn backups_are_those_of_this_database_newest_first_with_the_servers_own_sizes_and_times() {
    let site = site(&["2026-11-19", "2026-11-21"]);
    site.write_file(&site.backup_name("2026-11-20"), "x".repeat(20_000)).unwrap();
    site.write_file(&format!("{}.sha256", site.backup_name("2026-11-20")), "no sum").unwrap();
    for name in ["_eu.2026-11-22.dump", ".2026-11-22.dump.part", ".2026-11-22.dump.gz", ".2026-02-30.dump"] {
        site.write_file(&format!("{}{name}", site.dbname()), "another").unwrap();
    }
    site.write_file(&site.backup_name("2026-11-22").to_uppercase(), "another").unwrap();
    let found = backups(&site, &[]);
    assert_eq!(dates(&found), ["2026-11-21", "2026-11-20", "2026-11-19"]);
    let length = fs::metadata(site.dump()).unwrap().len();
    let told: Vec<(&str, u64, bool, bool)> = found
        .iter()
        .map(|backup| {
            (
                backup["name"].as_str().unwrap(),
                backup["bytes"].as_u64().unwrap(),
                backup["exact"].as_bool().unwrap(),
                backup["sha256"].as_bool().unwrap(),
            )
        })
        .collect();
    let names: Vec<String> = dates(&found).iter().map(|date| site.backup_name(date)).collect();
    assert_eq!(
        told,
        [
            (&*names[0], length, true, false),
            (&*names[1], 20_000, true, true),
            (&*names[2], length, true, false)
        ]
    );
    let modified = regex::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$").unwrap();
    assert!(found.iter().all(|backup| modified.is_match(backup["modified"].as_str().unwrap())), "{found:?}");

    let text = succeeds(&site, &["backups", &site.section()]).stdout;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["DATE", "NAME", "SIZE", "MODIFIED"]);
    assert_eq!(lines[2][..4], ["2026-11-20", &names[1], "20", "kB"]);
    // It is a run that changed nothing.
    let runs = ask(&site, &["history", "--all", "--limit", "1"]);
    assert_eq!(
        (&runs["runs"][0]["command"], &runs["runs"][0]["status"]),
        (&json!("backups"), &json!("succeeded"))
    );
    assert_eq!(ask(&site, &["history"])["runs"], json!([]));
}

#[test]
fn one_backup_is_shown_by_its_date_or_by_a_word_and_a_missing_one_is_missed() {
    let site = site(&["2026-11-17", "2026-11-19", "2026-11-21"]);
    for (typed, date) in [
        ("20261119", "2026-11-19"),
        ("2026-11-17", "2026-11-17"),
        ("latest", "2026-11-21"),
        ("oldest", "2026-11-17"),
    ] {
        assert_eq!(dates(&backups(&site, &[typed])), [date], "{typed}");
    }
    assert_eq!(dates(&backups(&site, &["remote"])).len(), 3);
    let section = site.section();
    ends(
        &site,
        &["backups", &section, "20261118"],
        6,
        "no backup of 2026-11-18: the nearest of 3 are 2026-11-17 and 2026-11-19\n\
         hint: the newest of 3 backups: 2026-11-21, 2026-11-19, 2026-11-17",
    );
    assert_eq!(site.run(&["backups", &section, "today"]).unwrap().code, 6);
    assert_eq!(site.run(&["backups", &section, "tomorrow"]).unwrap().code, 2);
    assert_eq!(site.run(&["backups", "none.dev"]).unwrap().code, 6);
    for date in ["2026-11-17", "2026-11-19", "2026-11-21"] {
        site.remove_file(&site.backup_name(date)).unwrap();
    }
    let outcome = succeeds(&site, &["backups", &section]);
    says(
        &plain(&site, &outcome.stderr),
        "warning: the server lists no dump of shop at all: check backup_base_url and dbname\n",
    );
    ends(
        &site,
        &["backups", &section, "latest"],
        6,
        "no backup: the listing has none of this database\n\
         hint: the server lists no dump of shop at all: check backup_base_url and dbname",
    );
}

#[test]
fn local_backups_are_the_dumps_in_tmpdir() {
    let site = site(&["2026-11-21"]);
    let section = site.section();
    assert_eq!(backups(&site, &["local"]), Vec::<Value>::new());
    succeeds(&site, &["fetch", &section, "20261121"]);
    fs::write(site.tmpdir().join(site.backup_name("2026-11-22")), "12345").unwrap();
    fs::write(site.tmpdir().join(format!("{}_eu.2026-11-22.dump", site.dbname())), "x").unwrap();
    site.rude().unwrap().forget_requests();
    let found = backups(&site, &["local"]);
    assert_eq!(dates(&found), ["2026-11-22", "2026-11-21"]);
    assert_eq!(found[0]["bytes"], 5);
    assert_eq!(found[1]["bytes"], fs::metadata(site.dump()).unwrap().len());
    assert_eq!(site.rude().unwrap().requests().len(), 0);
}

#[test]
fn a_listing_that_tells_exactly_is_believed_and_one_that_does_not_is_shown_when_nothing_better_is_to_be_had()
{
    let site = site(&["2026-11-21"]);
    let name = site.backup_name("2026-11-21");
    let listed = format!(
        r#"[{{"name":"{name}","type":"file","mtime":"Sat, 21 Nov 2026 03:12:46 GMT","size":4711}},{{"name":"sub","type":"directory"}}]"#
    );
    let rude = site.rude().unwrap();
    rude.plan(&path(&site, ""), Conduct::Page { kind: "application/json", body: listed });
    let found = backups(&site, &[]);
    assert_eq!(
        found,
        [json!({"date": "2026-11-21", "name": name, "bytes": 4711, "exact": true,
            "modified": "2026-11-21T03:12:46.000Z", "sha256": false})]
    );
    assert_eq!(rude.requests().len(), 1);

    rude.behave(&path(&site, ""));
    let row = format!("<pre><a href=\"{name}\">{name}</a>  2026-11-21 03:12  1.5K\n</pre>");
    rude.plan(&path(&site, ""), Conduct::Page { kind: "text/html;charset=UTF-8", body: row });
    rude.plan(&path(&site, &name), Conduct::Fail { status: 404, retry_after: None });
    let outcome = succeeds(&site, &["backups", &site.section(), "--json"]);
    let found: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        found["backups"],
        json!([{"date": "2026-11-21", "name": name, "bytes": 1536, "exact": false,
            "modified": "2026-11-21 03:12", "sha256": false}])
    );
    let said = plain(&site, &outcome.stderr);
    assert!(
        said.starts_with("warning: some sizes and times are as the listing has them, rounded: "),
        "{said}"
    );
}

/// A bucket's page: these keys, and what says how it goes on.
fn bucket(keys: &[String], more: &str) -> Conduct {
    let keys: String = keys
        .iter()
        .map(|key| format!("<Contents><Key>{key}</Key><LastModified>2026-11-22T07:11:20.000Z</LastModified><Size>9</Size></Contents>"))
        .collect();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>b</Name><Prefix>nightly/</Prefix>{more}{keys}</ListBucketResult>"
    );
    Conduct::Page { kind: "application/xml", body }
}

#[test]
fn a_bucket_is_listed_to_its_last_page_and_its_dumps_are_fetched_from_where_they_are() {
    let mut site = site(&[]);
    let key = |date: &str| format!("nightly/{}", site.backup_name(date));
    let rude = site.rude().unwrap();
    let folder = site.backups().parent().unwrap().join("bucket/nightly");
    fs::create_dir_all(&folder).unwrap();
    for date in ["2026-11-19", "2026-11-20", "2026-11-21"] {
        fs::copy(site.dump(), folder.join(site.backup_name(date))).unwrap();
    }
    let page = "/bucket/?list-type=2&prefix=nightly/";
    let truncated =
        "<IsTruncated>true</IsTruncated><NextContinuationToken>1/a+b=&amp;c</NextContinuationToken>";
    rude.plan(page, bucket(&[key("2026-11-19"), "nightly/other.2026-11-23.dump".into()], truncated));
    let truncated = "<IsTruncated>true</IsTruncated><NextContinuationToken>é</NextContinuationToken>";
    rude.plan(
        &format!("{page}&continuation-token=1%2Fa%2Bb%3D%26c"),
        bucket(&[key("2026-11-20"), "nightly/sub/x".into()], truncated),
    );
    let last = "<IsTruncated>false</IsTruncated>";
    rude.plan(&format!("{page}&continuation-token=%C3%A9"), bucket(&[key("2026-11-21")], last));
    let url = format!("http://{LOCAL}:{}{page}", rude.port());
    site.set("backup_base_url", &url).unwrap();

    let found = backups(&site, &[]);
    assert_eq!(dates(&found), ["2026-11-21", "2026-11-20", "2026-11-19"]);
    assert!(found.iter().all(|backup| backup["bytes"] == 9 && backup["exact"] == true), "{found:?}");
    let section = site.section();
    // By a word, which takes the listing, and by a date, for which the folder has no such file.
    succeeds(&site, &["fetch", &section, "latest"]);
    succeeds(&site, &["fetch", &section, "20261120"]);
    assert_eq!(names_in(&site.tmpdir()), [site.backup_name("2026-11-20"), site.backup_name("2026-11-21")]);
    let outcome = site.run(&["fetch", &section, "20261118"]).unwrap();
    assert_eq!(outcome.code, 6);
    assert!(
        outcome.stderr.contains("the newest of 3 backups: 2026-11-21, 2026-11-20, 2026-11-19"),
        "{outcome}"
    );
}

#[test]
fn a_bucket_that_refuses_or_never_ends_is_told_of() {
    let site = site(&[]);
    let rude = site.rude().unwrap();
    let body =
        "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>It is gone.</Message></Error>";
    rude.plan(
        &path(&site, ""),
        Plan::new(Conduct::Page { kind: "application/xml", body: body.to_owned() }).times(1),
    );
    ends(
        &site,
        &["backups", &site.section()],
        1,
        "the object store refused to list http://127.0.0.1:<port>/shop/: NoSuchBucket: It is gone\n\
         hint: check the bucket's name in backup_base_url, and that it may be listed from here",
    );
    let again = "<IsTruncated>true</IsTruncated><NextMarker>x</NextMarker>";
    rude.plan(&path(&site, ""), bucket(&[], again));
    ends(
        &site,
        &["backups", &site.section()],
        1,
        "the listing goes on without end at http://127.0.0.1:<port>/shop/?marker=x\n\
         hint: check the query in backup_base_url, and the server's answer to it",
    );
}

const BASIC_ANN: &str = "Basic YW5uOm9uZQ==";

#[test]
fn the_url_the_token_and_netrc_let_in_in_this_order_and_leave_no_trace() {
    let mut site = site(&["2026-11-21"]);
    let section = site.section();
    let port = site.rude().unwrap().port();
    ends_locked(&site, "Bearer t0ken");
    // netrc, at home and where NETRC says.
    let netrc = site.folder().join("home/.netrc");
    fs::write(
        &netrc,
        "machine example.com login x password y\nmachine 127.0.0.1\n  login ann password \"one\"\n",
    )
    .unwrap();
    assert_eq!(let_in(&site, BASIC_ANN), ["2026-11-21"]);
    let elsewhere = site.folder().join("netrc");
    fs::write(&elsewhere, "default login bob password s3cret").unwrap();
    site.set_env("NETRC", &elsewhere.display().to_string());
    assert_eq!(let_in(&site, "Basic Ym9iOnMzY3JldA=="), ["2026-11-21"]);
    // A token wins over netrc.
    let token = site.folder().join("token");
    fs::write(&token, " t0ken\n\n").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    site.set("backup_token_file", &token.display().to_string()).unwrap();
    assert_eq!(let_in(&site, "Bearer t0ken"), ["2026-11-21"]);
    assert_eq!(succeeds(&site, &["backups", &section]).stderr, "");
    fs::set_permissions(&token, Permissions::from_mode(0o644)).unwrap();
    let outcome = succeeds(&site, &["-d", "backups", &section]);
    let said = plain(&site, &outcome.stderr);
    assert!(
        said.contains("warning: others can read the token in <site>/token: chmod 600 <site>/token"),
        "{said}"
    );
    // A whole restore's worth of requests gets in with it.
    succeeds(&site, &["fetch", &section, "20261121"]);
    // The URL wins over both.
    site.set("backup_host", &format!("http://ann:one@{LOCAL}:{port}")).unwrap();
    assert_eq!(let_in(&site, BASIC_ANN), ["2026-11-21"]);
    succeeds(&site, &["catalog", &section, "20261121"]);

    let all = ask(&site, &["history", "--all"]);
    for run in all["runs"].as_array().unwrap() {
        let told = succeeds(&site, &["inspect", run["id"].as_str().unwrap(), "--events", "--json"]);
        for secret in ["t0ken", "s3cret", "ann:one", "YW5u"] {
            assert!(!told.stdout.contains(secret) && !told.stderr.contains(secret), "{secret} in {told}");
        }
    }
    for secret in ["t0ken", "s3cret", ":one@", "YW5u"] {
        for folder in [site.journal(), site.folder().join("runs"), site.tmpdir()] {
            assert!(!is_written_below(&folder, secret), "{secret} is in a file below {}", folder.display());
        }
    }
}

/// Without that key the server says no, and the program what could be done.
#[track_caller]
fn ends_locked(site: &Site<'_>, key: &str) {
    site.rude().unwrap().plan(&path(site, ""), Conduct::Locked(key.to_owned()));
    ends(
        site,
        &["backups", &site.section()],
        1,
        "http://127.0.0.1:<port>/shop/ was answered with 401 Unauthorized\n\
         hint: give user and password in the URL of backup_host or in ~/.netrc, or a token in backup_token_file",
    );
}

/// The dates that are listed to those who have that key, for the listing and for each dump.
fn let_in(site: &Site<'_>, key: &str) -> Vec<String> {
    let rude = site.rude().unwrap();
    for place in [path(site, ""), path(site, &site.backup_name("2026-11-21"))] {
        rude.behave(&place);
        rude.plan(&place, Conduct::Locked(key.to_owned()));
    }
    rude.forget_requests();
    let found = backups(site, &[]);
    assert!(found.iter().all(|backup| backup["exact"] == true), "{found:?}");
    assert!(shown(site).iter().all(|shown| shown.as_deref() == Some(key)), "{:?}", shown(site));
    dates(&found).into_iter().map(str::to_owned).collect()
}

#[test]
fn what_lets_in_at_the_backup_server_is_not_shown_to_another() {
    let mut site = site(&["2026-11-21"]);
    let section = site.section();
    let token = site.folder().join("token");
    fs::write(&token, "t0ken").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    site.set("backup_token_file", &token.display().to_string()).unwrap();
    let rude = site.rude().unwrap();
    // The same server under another name is another server.
    let away = |name: &str| Conduct::Redirect(format!("http://{FAR}:{}{}", rude.port(), path(&site, name)));
    let at_home = |redirect: Conduct| Plan::new(redirect).times(1);
    let name = site.backup_name("2026-11-21");
    rude.plan(&path(&site, ""), at_home(away("")));
    assert_eq!(dates(&backups(&site, &[])), ["2026-11-21"]);
    rude.plan(&path(&site, &name), at_home(away(&name)));
    succeeds(&site, &["fetch", &section, "20261121"]);
    let requests = rude.requests();
    for request in &requests {
        let is_home = request.header("host").unwrap().starts_with(LOCAL);
        let expected = is_home.then_some("Bearer t0ken");
        assert_eq!(request.header("authorization"), expected, "{request:?}");
    }
    let far = |request: &&Request| request.header("host").unwrap().starts_with(FAR);
    assert!(requests.iter().filter(far).count() >= 3, "{requests:?}");
}

#[test]
fn a_token_that_cannot_be_used_is_told_of_and_a_run_that_goes_on_takes_the_new_one() {
    let mut site = site(&["2026-11-21"]);
    let section = site.section();
    let token = site.folder().join("token");
    site.set("backup_token_file", &token.display().to_string()).unwrap();
    let refused = |cause: &str| {
        format!(
            "cannot use the token in <site>/token\ncause: {cause}\n\
             hint: let backup_token_file name a file that you can read and that holds the token, and nothing else"
        )
    };
    ends(&site, &["backups", &section], 1, &refused("No such file or directory (os error 2)"));
    let write = |text: &str| {
        fs::write(&token, text).unwrap();
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    };
    write(" \n");
    ends(&site, &["backups", &section], 1, &refused("it is empty"));
    write("one two");
    ends(&site, &["backups", &section], 1, &refused("it holds more than one word of ASCII"));

    write("old");
    let rude = site.rude().unwrap();
    let dump = path(&site, &site.backup_name("2026-11-21"));
    rude.plan(&dump, Conduct::Locked("Bearer old".to_owned()));
    rude.plan(&dump, Plan::new(Conduct::StallAfter(10_000)).on(Asked::Get));
    let program = site.spawn(&["fetch", &section, "20261121"]).unwrap();
    rude.wait_until_stalled(&dump, LIMIT).unwrap();
    assert_eq!(program.kill().unwrap().code, 137);
    rude.behave(&dump);
    rude.plan(&dump, Conduct::Locked("Bearer new".to_owned()));
    write("new");
    succeeds(&site, &["continue", &section]);
    let file = site.tmpdir().join(site.backup_name("2026-11-21"));
    assert!(fs::read(file).unwrap() == fs::read(site.dump()).unwrap(), "the dump differs");
}

#[test]
fn keys_in_the_query_of_the_folder_are_used_and_neither_shown_nor_kept() {
    let mut site = site(&["2026-11-21"]);
    let section = site.section();
    let rude = site.rude().unwrap();
    let page = format!("{}?prefix=&sig=s1gned", path(&site, ""));
    site.set("backup_base_url", &format!("http://{LOCAL}:{}{page}", rude.port())).unwrap();
    assert_eq!(dates(&backups(&site, &[])), ["2026-11-21"]);
    let outcome = site.run(&["fetch", &section, "20261120"]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    assert!(outcome.stderr.contains("the newest of 1 backups: 2026-11-21"), "{outcome}");
    let rude = site.rude().unwrap();
    let listed = rude.requests_for(&path(&site, ""));
    assert!(
        listed.len() >= 2 && listed.iter().all(|request| request.query == "prefix=&sig=s1gned"),
        "{listed:?}"
    );
    rude.plan(&path(&site, ""), Conduct::Fail { status: 500, retry_after: None });
    ends(
        &site,
        &["backups", &section],
        1,
        "http://127.0.0.1:<port>/shop/?prefix=&sig=*** was answered with 500 Internal Server Error\n\
         hint: look at the backup server's log; start again when it is well",
    );
    assert!(!is_written_below(&site.journal(), "s1gned"));
}

#[test]
fn https_is_trusted_by_the_authority_that_ca_file_names() {
    let mut site = site(&["2026-11-21"]);
    let section = site.section();
    let door = TlsDoor::open(site.stage(), site.rude().unwrap().port()).unwrap();
    site.set("backup_host", &format!("https://{LOCAL}:{}", door.port())).unwrap();
    let outcome = site.run(&["backups", &section]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let said = error(&site, &outcome);
    assert!(said.contains("let ca_file name the certificate of the authority"), "{said}");
    site.set("ca_file", &door.authority()).unwrap();
    assert_eq!(dates(&backups(&site, &[])), ["2026-11-21"]);
    succeeds(&site, &["fetch", &section, "latest"]);
    let file = site.tmpdir().join(site.backup_name("2026-11-21"));
    assert!(fs::read(file).unwrap() == fs::read(site.dump()).unwrap(), "the dump differs");
    site.set("ca_file", &site.ini_path().display().to_string()).unwrap();
    let outcome = site.run(&["backups", &section]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    says(
        &error(&site, &outcome),
        "cannot read certificates from <site>/pg_staging.ini\n\
         cause: there is no certificate in it\n\
         hint: name a readable file of certificates in PEM form",
    );
}
