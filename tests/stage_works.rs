//! The stage holds what it promises: its servers are real and answer, its data are the same each time, its rude server is
//! rude as planned, and nothing is left of it, however its owner ends.
#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "the stage and its tests start processes")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::stage::{
    Asked, Bouncer, BouncerOptions, Conduct, Destination, FAR, Key, LOCAL, Plan, PoolMode, RudeServer, Scale,
    Serving, Site, SiteOptions, Stage, StageError, StageOptions, Terminal, dump, fingerprint, production,
    schema_fingerprint, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_answers_and_restarts_on_its_port() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let cluster = stage.cluster();
    assert_eq!(cluster.psql("postgres", "SELECT 1, 'a'; SELECT 2").unwrap(), "1|a\n2\n");
    let error = cluster.psql("postgres", "SELECT 1; SELECT nonsense").unwrap_err();
    assert!(error.to_string().contains("column \"nonsense\" does not exist"), "{error}");
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("postgres", "SHOW port").unwrap(), format!("{}\n", cluster.port()));
    cluster.stop().unwrap();
    assert!(cluster.psql("postgres", "SELECT 1").is_err());
}

#[test]
fn the_servers_do_not_run_as_root() {
    let stage = Stage::shared().unwrap();
    let postmaster = fs::metadata(format!("/proc/{}", stage.cluster().pid().unwrap())).unwrap();
    assert_ne!(postmaster.uid(), 0);
    assert_eq!(postmaster.uid(), fs::metadata(stage.scratch().path()).unwrap().uid());
}

#[test]
fn a_pgbouncer_shows_what_its_ini_says_and_comes_back_on_its_port() {
    let stage = Stage::shared().unwrap();
    let options = BouncerOptions {
        pool_mode: PoolMode::Session,
        aliases: vec![("shop".into(), "postgres".into())],
        ..BouncerOptions::default()
    };
    let mut bouncer = Bouncer::start(stage, &options).unwrap();
    let port = stage.cluster().port();
    let there = |dbname: &str| Destination { host: LOCAL.into(), port, dbname: dbname.into() };
    let expected = BTreeMap::from([
        ("legacy_reports".to_owned(), there("template1")),
        ("old-reports.2019".to_owned(), there("template1")),
        ("postgres".to_owned(), there("postgres")),
        ("shop".to_owned(), there("postgres")),
    ]);
    assert_eq!(bouncer.show_databases().unwrap(), expected);
    assert_eq!(bouncer.psql("shop", "SELECT current_database() AS name").unwrap(), "name\npostgres\n");
    assert!(bouncer.admin("SHOW CONFIG").unwrap().contains("pool_mode\tsession\t"));
    bouncer.stop().unwrap();
    assert!(bouncer.show_databases().is_err());
    bouncer.start_again().unwrap();
    assert_eq!(bouncer.show_databases().unwrap(), expected);
}

#[test]
fn nginx_lists_a_folder_and_serves_ranges_of_its_files() {
    let stage = Stage::shared().unwrap();
    let nginx = stage.nginx().unwrap();
    let folder = nginx.folder("listed").unwrap();
    fs::write(folder.join("shop.2026-11-21.dump"), "0123456789").unwrap();
    let page = ask(nginx.port(), "GET", "/listed/", "");
    assert!(page.body.contains(r#"<a href="shop.2026-11-21.dump">"#), "{page:?}");
    let part = ask(nginx.port(), "GET", "/listed/shop.2026-11-21.dump", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.body.as_str()), (206, "234"));
    let request = "GET /listed/shop.2026-11-21.dump 206 3 \"bytes=2-4\"".to_owned();
    wait_until("nginx to log the request", LIMIT, || nginx.requests().unwrap().contains(&request)).unwrap();
}

#[test]
fn ssh_and_scp_reach_the_login_folder_on_both_addresses() {
    let stage = Stage::shared().unwrap();
    let sshd = stage.sshd().unwrap();
    for host in [LOCAL, FAR] {
        let output = sshd.ssh(host).arg("pwd; echo $HOME; id -un; exit 7").output().unwrap();
        let folder = sshd.login_folder();
        let expected = format!("{0}\n{0}\n{1}\n", folder.display(), sshd.user());
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
        assert_eq!(output.status.code(), Some(7));
        let name = format!("from-{host}");
        sshd.scp(Path::new("Cargo.toml"), host, &name).unwrap();
        assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read("Cargo.toml").unwrap());
    }
}

#[test]
fn production_data_are_the_same_each_time_and_after_a_restore() {
    let stage = Stage::shared().unwrap();
    let cluster = stage.cluster();
    production(cluster, "once", Scale::Small).unwrap();
    production(cluster, "twice", Scale::Small).unwrap();
    let shared = stage.production_database(Scale::Small).unwrap();
    let (data, schema) =
        (fingerprint(cluster, "once").unwrap(), schema_fingerprint(cluster, "once").unwrap());
    assert_eq!(fingerprint(cluster, "twice").unwrap(), data);
    assert_eq!(fingerprint(cluster, &shared).unwrap(), data);
    assert_eq!(schema_fingerprint(cluster, "twice").unwrap(), schema);
    assert_eq!(data["large objects"].rows, 12);
    assert_eq!(data["public.customer"].rows, 500);

    let file = stage.scratch().path().join("once.dump");
    dump(cluster, "once", &file).unwrap();
    cluster.psql("postgres", "CREATE DATABASE restored TEMPLATE template0").unwrap();
    let restored = cluster.client("pg_restore").args(["-d", "restored"]).arg(&file).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(fingerprint(cluster, "restored").unwrap(), data);
    assert_eq!(schema_fingerprint(cluster, "restored").unwrap(), schema);

    cluster.psql("restored", "UPDATE public.note SET body = 'other' WHERE id = 7").unwrap();
    let changed = fingerprint(cluster, "restored").unwrap();
    let differing: Vec<_> = data.keys().filter(|name| data[*name] != changed[*name]).collect();
    assert_eq!(differing, ["public.note"]);
}

#[test]
fn a_rude_server_without_a_plan_behaves() {
    let served = Served::new("0123456789");
    let whole = served.get("");
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
    let tag = whole.header("etag").to_owned();
    let date = whole.header("last-modified").to_owned();
    assert!(date.ends_with(" GMT"), "{date}");
    let cases = [
        ("Range: bytes=2-4\r\n".to_owned(), 206, "234"),
        ("Range: bytes=-2\r\n".to_owned(), 206, "89"),
        ("Range: bytes=10-\r\n".to_owned(), 416, ""),
        (format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n"), 206, "234"),
        (format!("Range: bytes=2-4\r\nIf-Range: {date}\r\n"), 206, "234"),
        ("Range: bytes=2-4\r\nIf-Range: \"other\"\r\n".to_owned(), 200, "0123456789"),
    ];
    for (headers, status, body) in cases {
        let answer = served.get(&headers);
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{headers}");
    }
    let head = served.ask("HEAD", "");
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, "10", ""));
    assert_eq!(served.get("Range: bytes=2-4\r\n").header("content-range"), "bytes 2-4/10");
    assert!(ask(served.server.port(), "GET", "/", "").body.contains(r#"<a href="a%20b.dump">a b.dump</a>"#));
    assert_eq!(ask(served.server.port(), "GET", "/../etc/passwd", "").status, 404);
    let requests = served.server.requests_for(Served::PATH);
    assert_eq!(requests.len(), 9);
    assert_eq!(
        (requests[1].header("range"), requests[1].status, requests[1].sent),
        (Some("bytes=2-4"), 206, 3)
    );
    assert_eq!(served.server.bytes_sent(Served::PATH), 10 + 3 + 2 + 3 + 3 + 10 + 3);
}

#[test]
fn a_rude_server_is_rude_as_planned() {
    let fail = |status, retry_after| Conduct::Fail { status, retry_after };
    let of_range = "Range: bytes=2-4\r\n";
    let content =
        |tag: Option<&str>| Conduct::Content { bytes: b"abcdefghij".to_vec(), tag: tag.map(str::to_owned) };
    // What is planned, the headers of the requests, and for each request the status and the body.
    type Case<'a> = (Vec<Plan>, &'a str, Vec<(u16, &'a str)>);
    let cases: Vec<Case<'_>> = vec![
        (vec![fail(404, None).into()], "", vec![(404, "404\n")]),
        (
            vec![Plan::new(fail(503, Some(0))).times(2)],
            "",
            vec![(503, "503\n"), (503, "503\n"), (200, "0123456789")],
        ),
        (vec![Plan::new(fail(405, None)).on(Asked::Head)], "", vec![(200, "0123456789")]),
        (vec![Conduct::Html("<html>".into()).into()], "", vec![(200, "<html>")]),
        (vec![Conduct::Redirect("/b".into()).into()], "", vec![(302, "")]),
        (vec![Conduct::IgnoreRange.into()], of_range, vec![(200, "0123456789")]),
        (vec![content(None).into()], of_range, vec![(206, "cde")]),
        (vec![Plan::new(content(None)).after(1)], "", vec![(200, "0123456789"), (200, "abcdefghij")]),
        (vec![content(None).into(), Conduct::IgnoreRange.into()], of_range, vec![(200, "abcdefghij")]),
        (vec![Conduct::IgnoreIfRange.into()], "Range: bytes=2-4\r\nIf-Range: \"x\"\r\n", vec![(206, "234")]),
        (vec![Conduct::CloseAfter(4).into()], "", vec![(200, "0123"), (200, "0123")]),
        (vec![Plan::new(Conduct::CloseAfter(1)).times(1)], of_range, vec![(206, "2"), (206, "234")]),
        (vec![Conduct::Chunked.into()], "", vec![(200, "a\r\n0123456789\r\n0\r\n\r\n")]),
        (vec![Conduct::ClaimLength(50).into()], "", vec![(200, "0123456789")]),
        (vec![Conduct::Slow(1000).into()], "", vec![(200, "0123456789")]),
    ];
    for (plans, headers, expected) in cases {
        let served = Served::new("0123456789");
        let told = format!("{plans:?}");
        for plan in plans {
            served.server.plan(Served::PATH, plan);
        }
        let answers: Vec<_> = expected.iter().map(|_| served.get(headers)).collect();
        let answers: Vec<_> = answers.iter().map(|answer| (answer.status, answer.body.as_str())).collect();
        assert_eq!(answers, expected, "{told}");
        served.server.behave(Served::PATH);
        assert_eq!(served.get("").body, "0123456789", "{told}");
    }
}

#[test]
fn a_rude_server_lies_about_validators_and_lengths_as_planned() {
    let served = Served::new("0123456789");
    let tag = served.get("").header("etag").to_owned();
    served.server.plan(Served::PATH, Plan::new(Conduct::NewTag).times(2));
    let (one, two) = (served.get(""), served.get(""));
    assert_ne!(one.header("etag"), two.header("etag"));
    assert_eq!(served.get("").header("etag"), tag);
    served.server.plan(Served::PATH, Plan::new(Conduct::NoValidator).times(1));
    let without = served.get("");
    assert_eq!((without.header("etag"), without.header("last-modified")), ("", ""));
    served.server.plan(Served::PATH, Plan::new(Conduct::ClaimLength(50)).times(1));
    assert_eq!(served.get("").header("content-length"), "50");
    served.server.plan(Served::PATH, Plan::new(Conduct::Fail { status: 429, retry_after: Some(3) }).times(1));
    assert_eq!(served.get("").header("retry-after"), "3");
}

#[test]
fn a_stalled_answer_goes_on_when_released() {
    let served = Served::new("0123456789");
    served.server.plan(Served::PATH, Conduct::StallAfter(4));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| served.get(""));
        served.server.wait_until_stalled(Served::PATH, LIMIT).unwrap();
        assert_eq!(served.server.bytes_sent(Served::PATH), 4);
        served.server.release(Served::PATH);
        assert_eq!(asked.join().unwrap().body, "0123456789");
    });
    // And one that nobody releases does not outlive its server.
    let port = served.server.port();
    let asked = std::thread::spawn(move || ask(port, "GET", "/a%20b.dump", ""));
    served.server.wait_until_stalled(Served::PATH, LIMIT).unwrap();
    drop(served);
    assert_eq!(asked.join().unwrap().body, "0123");
}

#[test]
fn a_site_runs_the_program_in_a_clean_environment() {
    let stage = Stage::shared().unwrap();
    let mut site = Site::new(stage, &SiteOptions::default()).unwrap();
    site.set("keep_bases", "3").unwrap();
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    assert!(ini.contains(&format!("\n[{}]\n", site.section())), "{ini}");
    assert!(ini.contains("\nkeep_bases = 3\n"), "{ini}");
    assert!(ini.contains(&format!("\npostgres_port = {}\n", stage.cluster().port())), "{ini}");
    let outcome = site.run(&["--version"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.starts_with("pg_staging ") && outcome.stderr.is_empty(), "{outcome}");
    assert_eq!((site.copies().unwrap(), site.active().unwrap()), (vec![], None));
    let listed = ask(stage.nginx().unwrap().port(), "GET", &format!("/{}/", site.dbname()), "");
    assert!(listed.body.contains(&site.backup_name("2026-11-21")), "{listed:?}");
    let command = site.command(&[]);
    let mut names: Vec<_> = command.get_envs().filter_map(|(name, value)| value.and(name.to_str())).collect();
    names.retain(|name| *name != "LLVM_PROFILE_FILE");
    assert_eq!(names, ["HOME", "LC_ALL", "PATH", "TZ"]);
}

#[test]
fn a_site_takes_its_copies_away() {
    let stage = Stage::shared().unwrap();
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let site = Site::new(stage, &options).unwrap();
    let copy = site.copy("2026-11-21");
    stage.cluster().psql("postgres", &format!("CREATE DATABASE {copy}")).unwrap();
    assert_eq!(site.copies().unwrap(), [copy.as_str()]);
    site.write_file(&site.backup_name("2026-11-20"), "no dump").unwrap();
    site.write_file(&site.backup_name("2026-11-20"), "no dump either").unwrap();
    let path = format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21"));
    let head = ask(site.rude().unwrap().port(), "HEAD", &path, "");
    assert_eq!(head.header("content-length"), fs::metadata(site.dump()).unwrap().len().to_string());
    drop(site);
    assert!(!stage.cluster().databases().unwrap().contains(&copy));
}

#[test]
fn a_site_over_ssh_has_the_client_script_in_the_login_folder() {
    let stage = Stage::shared().unwrap();
    let site = Site::new(stage, &SiteOptions { over_ssh: true, ..SiteOptions::default() }).unwrap();
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    assert!(
        ini.contains("\nhost = 127.0.0.2\n") && ini.contains("\nssh_options = -F /dev/null -o Port="),
        "{ini}"
    );
    let found = site.sshd().unwrap().ssh(FAR).arg("test -x ./staging-client.sh").status().unwrap();
    assert!(found.success());
}

#[test]
fn a_program_can_be_signalled_killed_and_watched() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let start = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(site.folder());
        site.spawn_command(&mut command).unwrap()
    };
    let mut program = start("echo begun; exec sleep 1000");
    program.wait_until_it_says("begun").unwrap();
    program.signal(Signal::TERM).unwrap();
    assert_eq!(program.wait().unwrap().to_string(), "code 143\n--- stdout\nbegun\n--- stderr\n");
    assert_eq!(start("exec sleep 1000").kill().unwrap().code, 137);
    let mut program = start("echo other >&2; exit 3");
    let error = program.wait_until_it_says("begun").unwrap_err();
    assert!(error.to_string().contains("should have said \"begun\""), "{error}");
    assert!(program.signal(Signal::TERM).is_err());
    assert_eq!(program.wait().unwrap().code, 3);
}

#[test]
fn a_dropped_stage_ends_who_still_stands_in_its_folder() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]).current_dir(stage.scratch().path());
    let orphan = String::from_utf8(shell.output().unwrap().stdout).unwrap().trim().parse().unwrap();
    assert_eq!(processes()[&orphan].name, "sleep");
    drop(stage);
    assert!(!processes().contains_key(&orphan));
}

#[test]
fn two_stages_live_side_by_side_and_nothing_is_left_after_drop() {
    let one = Stage::start(&StageOptions::default()).unwrap();
    let two = Stage::start(&StageOptions::default()).unwrap();
    assert_ne!(one.cluster().port(), two.cluster().port());
    let bouncer = Bouncer::start(&one, &BouncerOptions::default()).unwrap();
    bouncer.signal(Signal::STOP).unwrap();
    let folders = [one.scratch().path().to_path_buf(), two.scratch().path().to_path_buf()];
    let pids = [one.cluster().pid().unwrap(), two.cluster().pid().unwrap(), bouncer.pid().unwrap()];
    drop((bouncer, one, two));
    for folder in folders {
        assert!(!folder.exists(), "{}", folder.display());
    }
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
    }
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() {
    let us = std::env::current_exe().unwrap();
    let mut owner = Command::new(us)
        .args(["--exact", "--nocapture", &format!("{}::an_owner_waits_to_be_killed", module_path_in_tests())])
        .env(OWNER, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let folder =
        lines.by_ref().find_map(|line| line.unwrap().strip_prefix(READY).map(PathBuf::from)).unwrap();
    // One of each kind: four servers, what somebody runs over ssh, and the guardian.
    let kinds = ["postgres", "pgbouncer", "nginx", "sshd", "sleep", "sh"];
    let mut started = BTreeMap::new();
    wait_until("every server to be there", LIMIT, || {
        started = descendants(owner.id());
        kinds.iter().all(|kind| started.values().any(|process| process.name == *kind))
    })
    .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("everything to be gone", LIMIT, || {
        let now = processes();
        !folder.exists()
            && started
                .iter()
                .all(|(pid, process)| now.get(pid).is_none_or(|other| other.born != process.born))
    })
    .unwrap();
}

const OWNER: &str = "STAGE_OWNER_WAITS_TO_BE_KILLED";
const READY: &str = "the stage is ready in ";

/// The process that `nothing_is_left_when_the_owner_is_killed` kills; by itself it does nothing.
#[test]
fn an_owner_waits_to_be_killed() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let bouncer = Bouncer::start(&stage, &BouncerOptions::default()).unwrap();
    bouncer.signal(Signal::STOP).unwrap();
    stage.nginx().unwrap();
    let sshd = stage.sshd().unwrap();
    let mut session = sshd
        .ssh(FAR)
        .arg("echo begun; exec sleep 1000")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = String::new();
    BufReader::new(session.stdout.take().unwrap()).read_line(&mut begun).unwrap();
    println!("\n{READY}{}", stage.scratch().path().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    session.kill().unwrap();
    session.wait().unwrap();
}

#[test]
fn errors_name_the_thing() {
    let stage = Stage::shared().unwrap();
    let site = Site::new(stage, &SiteOptions::default()).unwrap();
    assert_eq!(site.rude().unwrap_err().to_string(), "this site is served by nginx");
    assert!(matches!(site.sshd(), Err(StageError::Unfit(_))));
}

/// The path of this module below the root of the test program.
fn module_path_in_tests() -> &'static str {
    module_path!().split_once("::").unwrap().1
}

/// A file on a rude server.
struct Served {
    server: RudeServer,
    _folder: tempfile::TempDir,
}

impl Served {
    const PATH: &str = "/a b.dump";

    fn new(content: &str) -> Served {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a b.dump"), content).unwrap();
        Served { server: RudeServer::start(folder.path()).unwrap(), _folder: folder }
    }

    fn get(&self, headers: &str) -> Answer {
        self.ask("GET", headers)
    }

    fn ask(&self, method: &str, headers: &str) -> Answer {
        ask(self.server.port(), method, "/a%20b.dump", headers)
    }
}

/// An answer as it came, its body undecoded.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The value of a header, or nothing.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }
}

/// One request on a connection of its own.
fn ask(port: u16, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect((LOCAL, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: stage\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[derive(Debug)]
struct Process {
    name: String,
    parent: u32,
    born: u64,
}

/// Every process that is not a zombie, from `/proc/<pid>/stat`.
fn processes() -> BTreeMap<u32, Process> {
    let folders = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = folders.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, numbers) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let numbers: Vec<&str> = numbers.split(' ').collect();
        let process = Process {
            name: name.to_owned(),
            parent: numbers[1].parse().ok()?,
            born: numbers[19].parse().ok()?,
        };
        (numbers[0] != "Z").then_some((pid, process))
    })
    .collect()
}

/// The processes that descend from that one.
fn descendants(ancestor: u32) -> BTreeMap<u32, Process> {
    let mut others = processes();
    let mut found = BTreeMap::new();
    loop {
        let children: Vec<u32> = others
            .iter()
            .filter(|(_, process)| process.parent == ancestor || found.contains_key(&process.parent))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children.into_iter().filter_map(|pid| Some((pid, others.remove(&pid)?))));
    }
}

#[test]
fn a_program_on_a_terminal_is_read_typed_to_and_reached_by_control_keys() {
    let stage = Stage::shared().unwrap();
    // Who runs the tests in the background may have the signals ignored.
    let mut shell = Command::new("env");
    shell.args([
        "--default-signal=INT,QUIT",
        "sh",
        "-c",
        "trap : INT; test -t 0 && test -t 1 && test -t 2 && printf 'a \\033[31mterm\\033[0minal\\n'; \
         sed -u 's/.*/<&>/'; echo interrupted; cat; stty size; exit 3",
    ]);
    let mut terminal = Terminal::start(stage, shell).unwrap();
    terminal.wait_until_it_shows("a terminal").unwrap();
    assert_eq!(terminal.foreground().unwrap(), terminal.pid());
    for line in ["first", "second"] {
        terminal.send_line(line).unwrap();
        terminal.wait_until_it_shows(&format!("<{line}>")).unwrap();
    }
    // It ends what has just answered, and not the shell.
    terminal.press(Key::Interrupt).unwrap();
    terminal.wait_until_it_shows("interrupted").unwrap();
    terminal.press(Key::EndOfInput).unwrap();
    let error = terminal.wait_until_it_shows("never said").unwrap_err();
    assert!(error.to_string().contains("never said") && error.to_string().contains("<second>"), "{error}");
    let (code, shown) = terminal.wait().unwrap();
    assert_eq!(code, 3);
    assert!(shown.ends_with("50 200\r\n"), "{shown:?}");
}
