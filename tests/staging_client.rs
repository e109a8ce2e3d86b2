//! What `staging-client.sh` promises, on a real pgbouncer: an upload is installed and seen, or everything is as it was.
//!
//! Each test starts its own pgbouncer on a free port of the loopback, as an unprivileged user when the tests run as root,
//! and ends it by its process id. Run as root, the tests also play a caller who came through sudo: `SUDO_UID` is
//! all that tells the script so. They need pgbouncer and psql; no PostgreSQL server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, and that is how it says so"
)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pg_staging::bouncer::{Destination, PgbouncerIni};
use tempfile::TempDir;

const DATABASES: &str = "\
;; what clients see
shop = dbname=shop_20261120 host=127.0.0.1 port=5432
shop_20261120 = dbname=shop_20261120 host=127.0.0.1 port=5432
";

const UPLOAD: &str = "pgbouncer.ab12.ini";

/// A host with a pgbouncer that reads `conf/pgbouncer.ini`, and a folder that uploads go to.
struct Site {
    folder: TempDir,
    pgbouncer: Option<Child>,
    port: u16,
    /// Where pgbouncer listens: an address, or the folder of its Unix socket.
    host: String,
    /// Who runs pgbouncer and owns its files.
    owner: Option<User>,
}

/// What the script said.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl Site {
    fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// `host` is an address of this machine, or `socket` for a Unix socket alone. A free port may be taken by another
    /// test before pgbouncer binds it; then another one is tried.
    fn start_at(host: &str) -> Self {
        let owner = privileged().then(|| user("nobody"));
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut site = Self { folder, pgbouncer: None, port: 0, host: host.to_owned(), owner };
        if host == "socket" {
            site.host = site.path("log").to_str().unwrap().to_owned();
        }
        for name in ["conf", "home", "log"] {
            fs::create_dir(site.path(name)).unwrap();
        }
        site.give(&site.path("conf"), owner);
        site.give(&site.path("log"), owner);
        for _ in 0..5 {
            site.port = free_port();
            site.write_ini();
            if site.launch(owner) {
                return site;
            }
        }
        panic!("pgbouncer does not start");
    }

    fn launch(&mut self, user: Option<User>) -> bool {
        let mut command = Command::new(pgbouncer());
        command.arg("-q").arg(self.conf()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        self.pgbouncer = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let ended = self.pgbouncer.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
            if ended {
                return false;
            }
            if self.listens() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("pgbouncer does not listen on port {}", self.port);
    }

    fn listens(&self) -> bool {
        if self.host.starts_with('/') {
            let socket = Path::new(&self.host).join(format!(".s.PGSQL.{}", self.port));
            return UnixStream::connect(socket).is_ok();
        }
        TcpStream::connect((self.host.as_str(), self.port)).is_ok()
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.pgbouncer.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn conf(&self) -> PathBuf {
        self.path("conf/pgbouncer.ini")
    }

    fn upload_path(&self) -> PathBuf {
        self.path("home").join(UPLOAD)
    }

    fn give(&self, path: &Path, user: Option<User>) {
        if let Some(user) = user {
            chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }

    fn write_ini(&self) {
        let host = self.host.as_str();
        let (address, folder) = if host.starts_with('/') { ("", host) } else { (host, "") };
        let text = format!(
            "[databases]\n{DATABASES}\n;; the rest\n[pgbouncer]\nlisten_addr = {address}\nlisten_port = {}\n\
             unix_socket_dir = {folder}\nauth_type = any\nadmin_users = admin\nlogfile = {}\n",
            self.port,
            self.path("log/pgbouncer.log").display()
        );
        fs::write(self.conf(), text).unwrap();
        fs::set_permissions(self.conf(), Permissions::from_mode(0o640)).unwrap();
        self.give(&self.conf(), self.owner);
    }

    fn ini(&self) -> PgbouncerIni {
        PgbouncerIni::parse(self.text()).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.conf()).unwrap()
    }

    /// Uploads this text as the successor of the present file.
    fn upload_text(&self, text: &str) {
        let upload = self.ini().upload(self.conf().to_str().unwrap(), "admin").unwrap();
        let header = upload.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        fs::write(self.upload_path(), [header, text.as_bytes()].concat()).unwrap();
    }

    fn upload(&self, edit: impl FnOnce(&mut PgbouncerIni)) -> PgbouncerIni {
        let mut ini = self.ini();
        edit(&mut ini);
        fs::write(self.upload_path(), ini.upload(self.conf().to_str().unwrap(), "admin").unwrap()).unwrap();
        ini
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(script());
        command.args(arguments).current_dir(self.path("home")).env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    fn run(&self) -> Said {
        said(self.command(&[UPLOAD, &self.port.to_string()]))
    }

    /// As if `caller` had come through sudo, and owned the uploads.
    fn run_for(&self, caller: User) -> Said {
        self.give(&self.path("home"), Some(caller));
        self.give(&self.upload_path(), Some(caller));
        let mut command = self.command(&[UPLOAD, &self.port.to_string()]);
        command.env("SUDO_UID", caller.uid.to_string());
        said(command)
    }

    fn installed(&self, ini: &PgbouncerIni) -> Said {
        let stdout = format!("pg_staging: installed {} sha256={}\n", self.conf().display(), ini.sha256_hex());
        Said { code: Some(0), stdout, stderr: String::new() }
    }

    /// What pgbouncer says of an alias: database, host, port.
    fn shown(&self, alias: &str) -> Option<String> {
        let mut command = Command::new(psql());
        command.args(["-X", "-w", "-A", "-t", "-U", "admin", "-d", "pgbouncer"]);
        command.args(["-h", &self.host, "-p", &self.port.to_string(), "-c", "SHOW DATABASES"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let rows = String::from_utf8(output.stdout).unwrap();
        rows.lines().map(|row| row.split('|').collect::<Vec<_>>()).find_map(|row| {
            (row.first() == Some(&alias)).then(|| format!("{} {} {}", row[3], row[1], row[2]))
        })
    }

    /// The files beside pgbouncer.ini that keep its old versions, the oldest first.
    fn versions(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.path("conf")).unwrap().map(|entry| entry.unwrap().path());
        let mut versions: Vec<PathBuf> =
            names.filter(|path| path.to_str().unwrap().contains(".pg_staging.2")).collect();
        versions.sort();
        versions
    }

    /// Nothing was changed, and the upload is gone.
    fn assert_untouched(&self, before: &str) {
        assert_eq!(self.text(), before);
        assert!(!self.upload_path().exists());
        assert_eq!(self.shown("shop").as_deref(), Some("shop_20261120 127.0.0.1 5432"));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

fn said(mut command: Command) -> Said {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    Said {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

fn refused(code: i32, message: &str) -> Said {
    Said { code: Some(code), stdout: String::new(), stderr: format!("staging-client: {message}\n") }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("staging-client.sh")
}

fn pgbouncer() -> &'static str {
    if Path::new("/usr/sbin/pgbouncer").exists() { "/usr/sbin/pgbouncer" } else { "pgbouncer" }
}

fn psql() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found = versions.map(|version| version.unwrap().path().join("bin/psql")).find(|psql| psql.exists());
    found.unwrap_or_else(|| PathBuf::from("psql"))
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn privileged() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn user(name: &str) -> User {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line[0] == name);
    let fields = fields.unwrap_or_else(|| panic!("there is no user {name}"));
    User { uid: fields[2].parse().unwrap(), gid: fields[3].parse().unwrap() }
}

fn wait_until(what: &str, mut true_yet: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !true_yet() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn to_21(ini: &mut PgbouncerIni) {
    ini.add("shop_20261121", &[("dbname", "shop_20261121"), ("host", "127.0.0.1"), ("port", "5432")])
        .unwrap();
    ini.repoint("shop", &Destination::new("shop_20261121", "127.0.0.1", 5432)).unwrap();
}

#[test]
fn an_upload_is_installed_and_pgbouncer_shows_it() {
    let site = Site::start();
    let before = site.text();
    let ini = site.upload(to_21);

    assert_eq!(site.run(), site.installed(&ini));
    assert_eq!(site.text().as_bytes(), ini.to_bytes());
    assert_eq!(site.shown("shop").as_deref(), Some("shop_20261121 127.0.0.1 5432"));
    assert_eq!(site.shown("shop_20261121").as_deref(), Some("shop_20261121 127.0.0.1 5432"));
    assert!(!site.upload_path().exists());
    let versions = site.versions();
    assert_eq!(versions.len(), 1);
    assert_eq!(fs::read_to_string(&versions[0]).unwrap(), before);
}

#[test]
fn pgbouncer_is_reached_on_its_socket_and_over_ipv6_as_well() {
    let ipv6 = TcpListener::bind(("::1", 0)).is_ok();
    for host in ["socket", "::1"].into_iter().take(1 + usize::from(ipv6)) {
        let site = Site::start_at(host);
        let ini = site.upload(to_21);
        assert_eq!(site.run(), site.installed(&ini), "{host}");
        assert_eq!(site.shown("shop").as_deref(), Some("shop_20261121 127.0.0.1 5432"));
    }
}

#[test]
fn owner_and_mode_stay() {
    let site = Site::start();
    site.upload(to_21);
    let before = fs::metadata(site.conf()).unwrap();
    assert_eq!(site.run().code, Some(0));
    let after = fs::metadata(site.conf()).unwrap();
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}

#[test]
fn an_entry_that_is_taken_out_is_gone_from_pgbouncer() {
    let site = Site::start();
    let ini = site.upload(|ini| ini.remove("shop_20261120").unwrap());
    let upload = fs::read(site.upload_path()).unwrap();
    assert_eq!(site.run(), site.installed(&ini));
    assert_eq!(site.shown("shop_20261120"), None);
    fs::write(site.upload_path(), &upload).unwrap();
    assert_eq!(site.run(), site.installed(&ini));
}

#[test]
fn quoted_names_crlf_and_foreign_bytes_arrive_unchanged() {
    let site = Site::start();
    let crlf = site.text().replace('\n', "\r\n");
    fs::write(site.conf(), [b"# caf\xe9\r\n", crlf.as_bytes()].concat()).unwrap();
    let bytes = fs::read(site.conf()).unwrap();
    let mut ini = PgbouncerIni::parse(bytes).unwrap();
    ini.repoint("shop", &Destination::new("it's a \"shop\"", "127.0.0.1", 5433)).unwrap();
    fs::write(site.upload_path(), ini.upload(site.conf().to_str().unwrap(), "admin").unwrap()).unwrap();

    assert_eq!(site.run(), site.installed(&ini));
    assert_eq!(fs::read(site.conf()).unwrap(), ini.to_bytes());
    assert_eq!(site.shown("shop").as_deref(), Some("it's a \"shop\" 127.0.0.1 5433"));
}

#[test]
fn a_file_that_somebody_else_changed_is_left_alone() {
    let site = Site::start();
    let ini = site.upload(to_21);
    let changed = format!("{};; by hand\n", site.text());
    fs::write(site.conf(), &changed).unwrap();
    let (conf, now, base) = (site.conf(), site.ini().sha256_hex(), ini.base_sha256_hex().to_owned());
    let message = format!(
        "{} has changed since it was read: its sha256 is {now}, and the new file is based on {base}",
        conf.display()
    );
    assert_eq!(site.run(), refused(3, &message));
    site.assert_untouched(&changed);
}

#[test]
fn the_same_upload_again_is_confirmed_and_installs_nothing() {
    let site = Site::start();
    let ini = site.upload(to_21);
    let upload = fs::read(site.upload_path()).unwrap();
    for _ in 0..3 {
        fs::write(site.upload_path(), &upload).unwrap();
        assert_eq!(site.run(), site.installed(&ini));
    }
    assert_eq!(site.versions().len(), 1);
}

#[test]
fn a_retry_after_a_kill_puts_back_what_pgbouncer_refuses() {
    let site = Site::start();
    let old = site.text();
    let bad = old.replace("shop = dbname=shop_20261120", "shop = nonsense=1 dbname=shop_20261121");
    site.upload_text(&bad);
    fs::rename(site.conf(), site.path("conf/pgbouncer.ini.pg_staging.20261121T101112Z.00")).unwrap();
    fs::write(site.conf(), &bad).unwrap();
    fs::set_permissions(site.conf(), Permissions::from_mode(0o640)).unwrap();
    site.give(&site.conf(), site.owner);

    assert_eq!(site.run().code, Some(4));
    site.assert_untouched(&old);
}

#[test]
fn what_pgbouncer_does_not_take_is_put_back() {
    let site = Site::start();
    let old = site.text();
    let inode = fs::metadata(site.conf()).unwrap().ino();
    site.upload_text(&old.replace("shop = dbname=shop_20261120", "shop = nonsense=1 dbname=shop_20261121"));
    let said = site.run();
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(
        said.stderr.ends_with(&format!("staging-client: {} is the old one again\n", site.conf().display()))
    );
    site.assert_untouched(&old);
    assert_eq!(fs::metadata(site.conf()).unwrap().ino(), inode);
    assert_eq!(site.versions(), Vec::<PathBuf>::new());
}

#[test]
fn what_somebody_else_writes_while_pgbouncer_is_asked_is_not_put_back_over() {
    let site = Site::start();
    let old = site.text();
    let bad = old.replace("shop = dbname=shop_20261120", "shop = nonsense=1 dbname=shop_20261121");
    site.upload_text(&bad);
    let mut command = site.command(&[UPLOAD, &site.port.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the new file", || site.text() == bad);
    let by_hand = format!("; mended by hand\n{old}");
    fs::write(site.conf(), &by_hand).unwrap();

    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("somebody else has changed"), "{stderr}");
    assert_eq!(site.text(), by_hand);
}

#[test]
fn a_file_that_could_not_be_confirmed_is_refused_before_it_is_installed() {
    let site = Site::start();
    let old = site.text();
    let entry = "shop = dbname=shop_20261120 host=127.0.0.1 port=5432";
    let other = "only entries of [databases] may change, and the new file has something else: ";
    let cases: &[(&str, String, i32, &str)] = &[
        ("no value", old.replace(entry, "shop"), 4, "line 3 cannot be read by pgbouncer: a name without ="),
        (
            "comment at the end",
            old.replace(entry, &format!("{entry} ; mine")),
            4,
            "line 3 cannot be read by pgbouncer: a key without value",
        ),
        (
            "open quote",
            old.replace(entry, "shop = dbname='shop"),
            4,
            "line 3 cannot be read by pgbouncer: a quote that is not closed",
        ),
        (
            "another keyword, same target",
            old.replace(entry, &format!("{entry} pool_mode=bogus")),
            2,
            "entry shop: a change beside dbname, host and port cannot be confirmed",
        ),
        (
            "another section",
            old.replace("auth_type = any", "auth_type = trust"),
            2,
            &format!("{other}auth_type = trust"),
        ),
        ("a new header", old.replace(";; the rest", " \u{b}[users]\nx = "), 2, &format!("{other}[users]")),
        (
            "an include",
            old.replace(";; the rest", "%include /etc/passwd"),
            2,
            &format!("{other}%include /etc/passwd"),
        ),
        (
            "less",
            old.replace("admin_users = admin\n", ""),
            2,
            &format!("{other}logfile = {}", site.path("log/pgbouncer.log").display()),
        ),
        (
            "a fallback",
            old.replace(";; the rest", "* = host=10.0.0.1"),
            2,
            &format!("{other}* = host=10.0.0.1"),
        ),
        (
            "no databases",
            old.replace("[databases]", "[Databases]"),
            2,
            "the new file has no line [databases]",
        ),
        ("nothing", String::new(), 2, "the new file has no line [databases]"),
        ("a NUL", old.replace(";; the rest", "; \0"), 2, "pgbouncer.ab12.ini holds a NUL byte"),
    ];
    for (what, text, code, message) in cases {
        site.upload_text(text);
        assert_eq!(site.run(), refused(*code, message), "{what}");
        site.assert_untouched(&old);
    }
    assert_eq!(site.versions(), Vec::<PathBuf>::new());
}

#[test]
fn a_header_that_is_not_exactly_right_is_refused() {
    let site = Site::start();
    let old = site.text();
    let (base, conf) = (site.ini().sha256_hex(), site.conf().display().to_string());
    let wrong =
        "the first line of pgbouncer.ab12.ini is not: ; pg_staging 1 base=<sha256> conf=<path> user=<name>";
    let strange = |path: &str| format!("conf is not a path that is taken: {path}");
    let missing = format!("{conf}.not is not a regular file");
    let cases = [
        (String::new(), wrong.to_owned()),
        (format!("; pg_staging 2 base={base} conf={conf} user=admin"), wrong.to_owned()),
        (format!("; pg_staging 1 base={base} conf={conf} user=admin\r"), wrong.to_owned()),
        (format!("; pg_staging 1 base={base} conf={conf} user=admin "), wrong.to_owned()),
        (format!("; pg_staging 1 base={base}0 conf={conf} user=admin"), wrong.to_owned()),
        (format!("; pg_staging 1 base={} conf={conf} user=admin", base.to_uppercase()), wrong.to_owned()),
        (format!("; pg_staging 1 base={base} conf={conf} user=$(id)"), wrong.to_owned()),
        (format!("; pg_staging 1 base={base} conf={conf} user=-c"), wrong.to_owned()),
        (format!("; pg_staging 1 base={base} conf={conf};id user=admin"), strange(&format!("{conf};id"))),
        (
            format!("; pg_staging 1 base={base} conf=pgbouncer.ini user=admin"),
            "conf is not an absolute path".to_owned(),
        ),
        (
            format!("; pg_staging 1 base={base} conf=/etc/../{conf} user=admin"),
            strange(&format!("/etc/../{conf}")),
        ),
        (format!("; pg_staging 1 base={base} conf={conf}/ user=admin"), strange(&format!("{conf}/"))),
        (format!("; pg_staging 1 base={base} conf={conf}.not user=admin"), missing),
    ];
    for (header, message) in cases {
        fs::write(site.upload_path(), format!("{header}\n{old}")).unwrap();
        assert_eq!(site.run(), refused(2, &message), "{header}");
        site.assert_untouched(&old);
    }
}

#[test]
fn only_a_plain_file_of_the_right_name_is_taken() {
    let site = Site::start();
    let before = site.text();
    site.upload(to_21);
    let (home, port) = (site.path("home"), site.port.to_string());
    let name = "the file must be called pgbouncer.xxxx.ini, xxxx being letters and digits";
    let names = [
        "",
        "x",
        "../pgbouncer.ab12.ini",
        "./pgbouncer.ab12.ini",
        "pgbouncer..ini",
        "pgbouncer.ini",
        "pgbouncer.a b.ini",
        "pgbouncer.$(id).ini",
        "pgbouncer.a.b.ini",
        "pgbouncer.é.ini",
        "pgbouncer.ab12.ini\n",
        "pgbouncer.ab12.ini.x",
        "-pgbouncer.ab12.ini",
        "pgbouncer.*.ini",
        "xpgbouncer.ab12.ini",
        "pgbouncer.ab12xini",
    ];
    for hostile in names {
        assert_eq!(said(site.command(&[hostile, &port])), refused(2, name), "{hostile:?}");
    }
    let number = "the port must be a number from 1 to 65535";
    for hostile in ["", "0", "65536", "123456", "-1", "06432", "6432x", "6432 ", "$(id)", "6432\n"] {
        assert_eq!(said(site.command(&[UPLOAD, hostile])), refused(2, number), "{hostile:?}");
    }
    let usage = "usage: staging-client.sh <pgbouncer.xxxx.ini> <port>\n\
                 staging-client: or: staging-client.sh service <start|stop|status> <pgbouncer|postgresql>";
    for arguments in [&[][..], &[UPLOAD], &[UPLOAD, &port, "x"]] {
        assert_eq!(said(site.command(arguments)), refused(2, usage), "{arguments:?}");
    }

    symlink(UPLOAD, home.join("pgbouncer.link.ini")).unwrap();
    fs::create_dir(home.join("pgbouncer.folder.ini")).unwrap();
    let fifo = Command::new("mkfifo").arg(home.join("pgbouncer.fifo.ini")).status().unwrap();
    assert!(fifo.success());
    for (hostile, fault) in [
        ("pgbouncer.link.ini", "is not a regular file"),
        ("pgbouncer.folder.ini", "is not a regular file"),
        ("pgbouncer.fifo.ini", "is not a regular file"),
        ("pgbouncer.none.ini", "is not in this folder"),
    ] {
        let said = said(site.command(&[hostile, &port]));
        assert_eq!(said, refused(2, &format!("{hostile} {fault}")));
    }
    fs::hard_link(site.upload_path(), home.join("pgbouncer.hard.ini")).unwrap();
    let hard = said(site.command(&["pgbouncer.hard.ini", &port]));
    assert_eq!(hard, refused(2, "pgbouncer.hard.ini has another name somewhere: it must have one link only"));
    assert!(site.upload_path().exists());
    fs::remove_file(home.join("pgbouncer.hard.ini")).unwrap();

    let large = OpenOptions::new().append(true).open(site.upload_path()).unwrap();
    large.set_len(8 << 20).unwrap();
    assert_eq!(site.run(), refused(2, "pgbouncer.ab12.ini is larger than 8 MiB"));
    site.assert_untouched(&before);
}

#[test]
fn a_pgbouncer_that_is_down_leaves_all_as_it_was() {
    let mut site = Site::start();
    let before = site.text();
    site.upload(to_21);
    site.stop();
    let message = format!("nothing listens on port {}", site.port);
    assert_eq!(site.run(), refused(5, &message));
    assert_eq!(site.text(), before);
    assert!(!site.upload_path().exists());
    assert_eq!(site.versions(), Vec::<PathBuf>::new());
}

#[test]
fn what_answers_but_is_no_pgbouncer_leaves_all_as_it_was() {
    let mut site = Site::start();
    let before = site.text();
    site.upload(to_21);
    site.stop();
    let listener = TcpListener::bind(("127.0.0.1", site.port)).unwrap();
    let hangs_up = std::thread::spawn(move || drop(listener.accept()));
    let said = site.run();
    hangs_up.join().unwrap();
    assert_eq!(said.code, Some(5), "{said:?}");
    assert_eq!(site.text(), before);
}

#[test]
fn a_second_run_waits_for_the_first() {
    let site = Site::start();
    let ini = site.upload(to_21);
    let path = site.path("conf/pgbouncer.ini.pg_staging.lock");
    let lock = File::create(&path).unwrap();
    site.give(&path, site.owner);
    lock.lock().unwrap();
    let inode = format!(":{} ", lock.metadata().unwrap().ino());

    let mut command = site.command(&[UPLOAD, &site.port.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a wait for the lock", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.contains(&inode))
    });
    assert_eq!(site.ini().sha256_hex(), ini.base_sha256_hex());
    assert_eq!(site.shown("shop").as_deref(), Some("shop_20261120 127.0.0.1 5432"));
    lock.unlock().unwrap();
    let output = child.wait_with_output().unwrap();
    let expected = site.installed(&ini);
    assert_eq!((output.status.code(), output.stdout), (expected.code, expected.stdout.into_bytes()));
}

#[test]
fn of_two_at_the_same_time_one_wins_and_one_learns_that_the_file_changed() {
    let site = Site::start();
    let mut uploads = Vec::new();
    for (name, day) in [("pgbouncer.one.ini", "shop_1"), ("pgbouncer.two.ini", "shop_2")] {
        let ini = site.upload(|ini| ini.repoint("shop", &Destination::new(day, "127.0.0.1", 5432)).unwrap());
        fs::rename(site.upload_path(), site.path("home").join(name)).unwrap();
        let mut command = site.command(&[name, &site.port.to_string()]);
        uploads.push((command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(), ini));
    }
    let mut winners = Vec::new();
    for (mut child, ini) in uploads {
        match child.wait().unwrap().code() {
            Some(0) => winners.push(ini),
            code => assert_eq!(code, Some(3)),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(site.text().as_bytes(), winners[0].to_bytes());
}

#[test]
fn the_last_ten_versions_are_kept() {
    let site = Site::start();
    for day in 10..22 {
        let path = site.path(&format!("conf/pgbouncer.ini.pg_staging.202511{day}T101112Z.00"));
        fs::write(&path, day.to_string()).unwrap();
        site.give(&path, site.owner);
    }
    let before = site.text();
    site.upload(to_21);
    assert_eq!(site.run().code, Some(0));
    let kept: Vec<String> = site.versions().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let expected: Vec<String> = (13..22).map(|day: i32| day.to_string()).chain([before]).collect();
    assert_eq!(kept, expected);
}

/// The delays only spread the kills over the run; whatever they hit, the promise is the same.
#[test]
fn a_kill_at_any_moment_leaves_the_old_file_or_the_new_one_and_a_retry_ends_it() {
    let site = Site::start();
    let old = site.text();
    let mut killed = Vec::new();
    for round in 0..10 {
        fs::write(site.conf(), &old).unwrap();
        let ini = site.upload(to_21);
        let upload = fs::read(site.upload_path()).unwrap();
        let mut command = site.command(&[UPLOAD, &site.port.to_string()]);
        let heard = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = heard.spawn().unwrap();
        killed.push(format!("pg_staging_client.{}.", child.id()));
        std::thread::sleep(Duration::from_millis(30 * round));
        child.kill().unwrap();
        // A program that the script had just begun may still be taking the upload away: until it, too, has let go.
        child.wait_with_output().unwrap();

        let text = site.text();
        assert!(text == old || text.as_bytes() == ini.to_bytes(), "round {round}: {text}");
        fs::write(site.upload_path(), &upload).unwrap();
        assert_eq!(site.run(), site.installed(&ini), "round {round}");
        assert_eq!(site.shown("shop").as_deref(), Some("shop_20261121 127.0.0.1 5432"));
        assert!(!site.path("conf/pgbouncer.ini.pg_staging.new").exists());
    }
    let left: Vec<_> = fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let left_behind = |prefix: &String| left.iter().any(|name| name.to_string_lossy().starts_with(prefix));
    assert!(!killed.iter().any(left_behind), "{killed:?} {left:?}");
}

#[test]
fn the_environment_of_the_caller_has_no_effect() {
    let site = Site::start();
    let ini = site.upload(to_21);
    let mut command = site.command(&[UPLOAD, &site.port.to_string()]);
    command.env("PATH", "/nonexistent").env("IFS", "a").env("LC_ALL", "C.UTF-8");
    command
        .env("PGHOST", "192.0.2.1")
        .env("PGSERVICE", "none")
        .env("PGOPTIONS", "-c x=y")
        .env("TMPDIR", "/nonexistent");
    assert_eq!(said(command), site.installed(&ini));
}

#[test]
fn through_sudo_a_callers_upload_is_installed_as_the_owner_of_the_file() {
    if !privileged() {
        return;
    }
    let site = Site::start();
    let ini = site.upload(to_21);
    assert_eq!(site.run_for(user("daemon")), site.installed(&ini));
    let owner = site.owner.unwrap();
    for entry in fs::read_dir(site.path("conf")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().uid(), owner.uid);
    }
    assert_eq!(site.shown("shop").as_deref(), Some("shop_20261121 127.0.0.1 5432"));
}

#[test]
fn root_through_sudo_is_root() {
    if !privileged() {
        return;
    }
    let site = Site::start();
    let ini = site.upload(to_21);
    let mut command = Command::new("sudo");
    command.arg("-n").arg(script()).args([UPLOAD, &site.port.to_string()]).current_dir(site.path("home"));
    assert_eq!(said(command), site.installed(&ini));
}

#[test]
fn through_sudo_only_ones_own_upload_is_taken() {
    if !privileged() {
        return;
    }
    let site = Site::start();
    let before = site.text();
    site.upload(to_21);
    let mut command = site.command(&[UPLOAD, &site.port.to_string()]);
    command.env("SUDO_UID", user("daemon").uid.to_string());
    site.give(&site.path("home"), Some(user("daemon")));
    assert_eq!(said(command), refused(2, "pgbouncer.ab12.ini is not owned by the calling user"));
    assert_eq!(site.text(), before);
    assert!(site.upload_path().exists());
}

#[test]
fn through_sudo_the_word_of_a_listener_of_the_callers_own_opens_no_file() {
    if !privileged() {
        return;
    }
    let mut site = Site::start();
    let before = site.text();
    site.upload(to_21);
    // The caller's own pgbouncer truly reads the other user's file, and says so.
    site.stop();
    fs::remove_file(site.path("log/pgbouncer.log")).unwrap();
    fs::set_permissions(site.conf(), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(site.path("log"), Permissions::from_mode(0o777)).unwrap();
    assert!(site.launch(Some(user("daemon"))));
    let message = format!(
        "{} is not a file that this host lets you change: list it in /etc/pg_staging/client.conf",
        site.conf().display()
    );
    assert_eq!(site.run_for(user("daemon")), refused(2, &message));
    site.assert_untouched(&before);
}

#[test]
fn through_sudo_no_file_is_opened_by_a_link_or_for_root() {
    if !privileged() {
        return;
    }
    let site = Site::start();
    let before = site.text();
    let link = site.path("link");
    symlink(site.path("conf"), &link).unwrap();
    let secret = site.path("secret.ini");
    fs::write(&secret, &before).unwrap();
    for conf in [link.join("pgbouncer.ini"), secret, PathBuf::from("/etc/passwd"), PathBuf::from("/none")] {
        let mut ini = site.ini();
        to_21(&mut ini);
        fs::write(site.upload_path(), ini.upload(conf.to_str().unwrap(), "admin").unwrap()).unwrap();
        let message = format!(
            "{} is not a file that this host lets you change: list it in /etc/pg_staging/client.conf",
            conf.display()
        );
        assert_eq!(site.run_for(user("daemon")), refused(2, &message));
        site.assert_untouched(&before);
    }
}

/// Folders that only root can change, as Debian has them: `/etc` is replaced, for the script alone, by a copy in which
/// `place` is the folder of our pgbouncer.ini.
struct Host {
    site: Site,
    place: &'static str,
}

impl Host {
    fn start(place: &'static str) -> Self {
        let site = Site::start();
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(site.path("etc")).status().unwrap();
        assert!(copied.success());
        fs::create_dir_all(site.path("etc/pg_staging")).unwrap();
        chown(site.path("conf"), Some(0), Some(0)).unwrap();
        Self { site, place }
    }

    fn run_for(&self, caller: User) -> (Said, PgbouncerIni) {
        let site = &self.site;
        let mut ini = site.ini();
        to_21(&mut ini);
        let upload = ini.upload(&format!("{}/pgbouncer.ini", self.place), "admin").unwrap();
        fs::write(site.upload_path(), upload).unwrap();
        site.give(&site.path("home"), Some(caller));
        site.give(&site.upload_path(), Some(caller));
        let mount = "set -e; mount --bind \"$1/etc\" /etc; mkdir -p \"$2\"; mount --bind \"$1/conf\" \"$2\"; shift 2; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", mount, "sh"]).arg(site.folder.path()).arg(self.place);
        command.arg(script()).args([UPLOAD, &site.port.to_string()]);
        command.current_dir(site.path("home")).env("SUDO_UID", caller.uid.to_string());
        (said(command), ini)
    }

    fn installed(&self, ini: &PgbouncerIni) -> Said {
        let stdout =
            format!("pg_staging: installed {}/pgbouncer.ini sha256={}\n", self.place, ini.sha256_hex());
        Said { code: Some(0), stdout, stderr: String::new() }
    }

    fn refused(&self) -> Said {
        let place = self.place;
        let list = "list it in /etc/pg_staging/client.conf";
        refused(2, &format!("{place}/pgbouncer.ini is not a file that this host lets you change: {list}"))
    }

    /// Gives the ini to root; pgbouncer reads it all the same.
    fn give_ini_to_root(&self) {
        chown(self.site.conf(), Some(0), Some(self.site.owner.unwrap().gid)).unwrap();
    }

    fn list(&self, mode: u32) {
        let path = self.site.path("etc/pg_staging/client.conf");
        fs::write(&path, format!("# given away\npgbouncer_conf={}/pgbouncer.ini\n", self.place)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Whether folders may be mounted here: not without root, and not in every container.
fn mounts() -> bool {
    privileged()
        && said({
            let mut command = Command::new("unshare");
            command.args(["-m", "mount", "--bind", "/etc", "/mnt"]);
            command
        })
        .code
            == Some(0)
}

#[test]
fn through_sudo_debians_own_pgbouncer_ini_is_installed_in_a_folder_of_root() {
    if !mounts() {
        return;
    }
    let host = Host::start("/etc/pgbouncer");
    let owner = host.site.owner.unwrap();
    let (said, ini) = host.run_for(user("daemon"));
    assert_eq!(said, host.installed(&ini));
    let after = fs::metadata(host.site.conf()).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode() & 0o777), (owner.uid, owner.gid, 0o640));
    assert_eq!(host.site.shown("shop").as_deref(), Some("shop_20261121 127.0.0.1 5432"));
}

#[test]
fn through_sudo_root_writes_only_where_nobody_else_can() {
    if !mounts() {
        return;
    }
    let host = Host::start("/etc/pgbouncer");
    let before = host.site.text();
    host.give_ini_to_root();
    fs::set_permissions(host.site.path("conf"), Permissions::from_mode(0o777)).unwrap();
    let fault = "/etc/pgbouncer can be changed by others than root, and the owner of /etc/pgbouncer/pgbouncer.ini cannot write there";
    assert_eq!(host.run_for(user("daemon")).0, refused(1, fault));
    host.site.assert_untouched(&before);
    fs::set_permissions(host.site.path("conf"), Permissions::from_mode(0o755)).unwrap();
    let (said, ini) = host.run_for(user("daemon"));
    assert_eq!(said, host.installed(&ini));
}

#[test]
fn through_sudo_another_place_must_be_listed_by_root() {
    if !mounts() {
        return;
    }
    let host = Host::start("/etc/elsewhere");
    let before = host.site.text();
    host.give_ini_to_root();
    let caller = user("daemon");
    assert_eq!(host.run_for(caller).0, host.refused());
    host.list(0o666);
    assert_eq!(host.run_for(caller).0, host.refused());
    host.list(0o644);
    chown(host.site.path("etc/pg_staging/client.conf"), Some(caller.uid), None).unwrap();
    assert_eq!(host.run_for(caller).0, host.refused());
    host.site.assert_untouched(&before);
    chown(host.site.path("etc/pg_staging/client.conf"), Some(0), None).unwrap();
    let (said, ini) = host.run_for(caller);
    assert_eq!(said, host.installed(&ini));
}

/// What follows a section header, one case a line, with `\n`, `\t`, `\r` and `\v` for themselves.
const LINES: &str = r#"
shop =
shop=
shop = host=a
shop = host = a
shop =host='a'port=5
shop = host='a''b' port=5
shop = host='a'
shop = user=a password=b
shop = host=a\tport=5
\t shop\t=\thost=a \t
shop = host=a\r
shop = dbname=a=b
shop = dbname=''
shop = dbname=
shop = dbname='a
shop = dbname=a'b
shop = connect_query='select ''1'''
shop = =a
shop = host
shop = host a=b
shop = nonsense=1
shop = HOST=a
shop = port=0
shop = port=x
shop = port=5x
shop = port=-1
shop = port=70000
shop = pool_mode=Transaction
shop = pool_mode=none
shop = host=a ; b
shop = host=a # b=c
shop = \\n host=a
shop = host=a\n host = b
shop
shop host=a
my shop = host=a
shop: host=a
"shop" = host=a
sh*op.x-1_ = host=a
\vx = host=a
63characters63characters63characters63characters63characters123 = host=a
64characters64characters64characters64characters64characters1234 = host=a
= host=a
* = anything goes
* =
pgbouncer = host=a
é = host=a
; comment
  # comment
//
%include
%include \n
[users]
[users] ; x
[users] joe = pool_mode=session
[users]\njoe = pool_size
[users]\njoe = host=a
[users
[nonsense]
[ users ]
[users] [databases] a=
[pgbouncer]\npool_mode = none
[pgbouncer]\npool_mode = STATEMENT
[pgbouncer]\n= x
"#;

/// `pgbouncer -u NOBODY FILE` reads the file and then stops, because there is no such user: so it tells whether it
/// could read it, and starts nothing.
fn pgbouncer_reads(path: &Path) -> bool {
    let tried = Command::new(pgbouncer()).args(["-u", "no such user"]).arg(path).output().unwrap();
    let log = String::from_utf8(tried.stderr).unwrap();
    let read = log.contains("could not find user");
    assert_ne!(read, log.contains("cannot load config file"), "{log}");
    read
}

#[test]
fn the_editor_reads_what_pgbouncer_reads_and_refuses_what_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgbouncer.ini");
    for line in LINES.lines() {
        let line =
            line.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\\v", "\u{b}");
        for text in [
            format!("[databases]\n{line}\n[pgbouncer]\n"),
            format!("[pgbouncer]\n[databases]\n{line}"),
            format!("{line}\n[databases]\n[pgbouncer]\n"),
            format!("[databases]\n{line}\n"),
        ] {
            fs::write(&path, &text).unwrap();
            let parsed = PgbouncerIni::parse(text.as_bytes());
            assert_eq!(parsed.is_ok(), pgbouncer_reads(&path), "{text}\n{parsed:?}");
        }
    }
}
