//! Our own connections, and those of the programs that we start, get in as libpq does: passwords, services, TLS. What psql
//! makes of the same surroundings is held against what we make of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{
    stage::{Cluster, FAR, Outcome, Site, SiteOptions, Stage, StageOptions},
    traces::{error, json as ask, last_run, plain, succeeds},
};

const DAY: &str = "20261121";
/// Of `guarded`, with everything that a password file takes for something else.
pub const PASSWORD: &str = r"a:b\c d'#";
/// The same, as a password file has it.
const ESCAPED: &str = r"a\:b\\c d'#";

/// A stage of our own, where some roles do not get in as they like: `guarded` must give its password, `sealed` must come
/// with TLS, `certified` must show a certificate.
pub struct Guarded {
    /// Its PostgreSQL speaks TLS, as 127.0.0.1 and localhost.
    pub stage: Stage,
    /// Who signed its certificate.
    pub authority: PathBuf,
    /// Who signed nothing.
    pub stranger: PathBuf,
    /// What `certified` shows.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
}

/// The stage, started once.
pub fn guarded() -> &'static Guarded {
    static GUARDED: OnceLock<Guarded> = OnceLock::new();
    GUARDED.get_or_init(|| {
        let stage = Stage::start(&StageOptions::default()).unwrap();
        let folder = stage.scratch().new_folder("certificates").unwrap();
        let data = stage.cluster().data_dir();
        let authority = an_authority("the authority");
        let server = signed(&authority, "server", &["127.0.0.1", "localhost"]);
        let ours = signed(&authority, "certified", &[]);
        let write = |path: PathBuf, mode: u32, text: &str| {
            stage.scratch().write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        write(data.join("server.crt"), 0o600, &server.0);
        write(data.join("server.key"), 0o600, &server.1);
        write(data.join("authority.crt"), 0o600, &authority.pem());
        let rules = "host all guarded all scram-sha-256\nlocal all guarded scram-sha-256\n\
                     hostssl all sealed all trust\nhost all sealed all reject\n\
                     hostssl all certified all cert\nhost all certified all reject\n";
        let hba = data.join("pg_hba.conf");
        let usual = fs::read_to_string(&hba).unwrap();
        write(hba, 0o600, &format!("{rules}{usual}"));
        let sql = format!(
            "CREATE ROLE guarded SUPERUSER LOGIN PASSWORD '{}';
             CREATE ROLE sealed SUPERUSER LOGIN; CREATE ROLE certified SUPERUSER LOGIN;
             ALTER SYSTEM SET ssl = on; ALTER SYSTEM SET ssl_ca_file = 'authority.crt';",
            PASSWORD.replace('\'', "''")
        );
        stage.cluster().psql("postgres", &sql).unwrap();
        stage.cluster().restart().unwrap();
        Guarded {
            authority: write(folder.join("authority.crt"), 0o644, &authority.pem()),
            stranger: write(folder.join("stranger.crt"), 0o644, &an_authority("a stranger").pem()),
            certificate: write(folder.join("ours.crt"), 0o644, &ours.0),
            // Read by us, who may be another account than the servers'.
            key: {
                let path = folder.join("ours.key");
                fs::write(&path, &ours.1).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                path
            },
            stage,
        }
    })
}

fn an_authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key.
fn signed(authority: &CertifiedIssuer<'_, KeyPair>, name: &str, hosts: &[&str]) -> (String, String) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A site of the guarded stage whose `dbuser` is that role. Its pgbouncer lets the role in by its password only, when it has
/// one.
fn site_of(role: &str) -> Site<'static> {
    let mut site = Site::new(&guarded().stage, &SiteOptions::default()).unwrap();
    let folder = site.bouncer().folder().to_owned();
    let scratch = site.stage().scratch();
    let users = fs::read_to_string(folder.join("userlist.txt")).unwrap();
    let more = format!("\"guarded\" \"{PASSWORD}\"\n\"sealed\" \"\"\n\"certified\" \"\"\n");
    scratch.write(&folder.join("userlist.txt"), users + &more).unwrap();
    // Its socket is for the script that reloads it.
    let rules =
        "local all all trust\nhost all guarded 0.0.0.0/0 scram-sha-256\nhost all all 0.0.0.0/0 trust\n";
    scratch.write(&folder.join("hba.conf"), rules).unwrap();
    let ini = String::from_utf8(site.bouncer().ini_bytes().unwrap()).unwrap();
    let hba = format!("auth_type = hba\nauth_hba_file = {}", folder.join("hba.conf").display());
    let ini = ini.replace("auth_type = trust", &hba);
    let ini = ini.replace("admin_users = postgres", "admin_users = postgres, guarded, sealed, certified");
    site.bouncer().write_ini(ini).unwrap();
    site.bouncer_mut().stop().unwrap();
    site.bouncer_mut().start_again().unwrap();
    site.set("dbuser", role).unwrap();
    site
}

/// A file below the site's home folder.
fn write(site: &Site<'_>, name: &str, mode: u32, text: &str) -> PathBuf {
    let path = site.folder().join("home").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// Whether we get into PostgreSQL, and what was said; psql must come to the same.
#[track_caller]
fn gets_in(site: &Site<'_>, host: &str, role: &str) -> Outcome {
    let outcome = site.run(&["dbsizes", &site.section()]).unwrap();
    let cluster: &Cluster = site.cluster();
    let command = site.command(&[]);
    let mut psql = std::process::Command::new(cluster.bin().join("psql"));
    psql.env_clear().current_dir(site.folder()).stdin(std::process::Stdio::null());
    for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        psql.env(name, value);
    }
    let (port, user) = (cluster.port().to_string(), role);
    psql.args(["-w", "-h", host, "-p", &port, "-U", user, "-d", "postgres", "-c", "SELECT 1"]);
    let theirs = psql.output().unwrap();
    let said = String::from_utf8_lossy(&theirs.stderr).into_owned();
    assert_eq!(outcome.code == 0, theirs.status.success(), "{outcome}--- psql\n{said}");
    outcome
}

/// A whole restore, its programs included, and the terminal's psql.
#[track_caller]
fn restores(site: &Site<'_>) {
    site.add_sql("pre", "a.sql", "SELECT 1;").unwrap();
    let outcome = succeeds(site, &["restore", &site.section(), DAY]);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)), "{outcome}");
    let shown = succeeds(site, &["psql", &site.section(), "--", "-Atwc", "SELECT current_user"]);
    assert_eq!(shown.stdout, "guarded\n");
    assert_nowhere_in_the_journal(&site.journal());
}

/// No secret is in any file of the journal.
#[track_caller]
fn assert_nowhere_in_the_journal(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            assert_nowhere_in_the_journal(&entry.path());
        } else {
            let bytes = fs::read(entry.path()).unwrap();
            let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
            assert!(!found, "{}", entry.path().display());
        }
    }
}

#[test]
fn with_the_password_in_the_password_file_a_restore_gets_in_everywhere() {
    let site = site_of("guarded");
    write(&site, ".pgpass", 0o600, &format!("*:*:*:postgres:no\n*:*:*:guarded:{ESCAPED}\n"));
    restores(&site);
}

#[test]
fn with_the_password_in_a_service_a_restore_gets_in_everywhere() {
    let mut site = site_of("guarded");
    // What would lead elsewhere does not count: the configuration says where.
    let elsewhere =
        "host=192.0.2.1\nhostaddr=192.0.2.1\nport=1\nuser=nobody\ndbname=nothing\napplication_name=theirs\n";
    write(&site, ".pg_service.conf", 0o644, &format!("[staging]\n{elsewhere}password={PASSWORD}\n"));
    site.set_env("PGSERVICE", "staging");
    site.set_env("PGPASSWORD", "wrong");
    site.set_env("PGHOSTADDR", "192.0.2.1");
    restores(&site);
}

#[test]
fn a_password_comes_from_each_place_that_libpq_looks_at() {
    let mut site = site_of("guarded");
    let line = format!("127.0.0.1:{}:postgres:guarded:{ESCAPED}\n", site.cluster().port());
    let file = write(&site, "elsewhere/pass", 0o600, &line);
    site.set_env("PGPASSFILE", &file.display().to_string());
    assert_eq!(gets_in(&site, "127.0.0.1", "guarded").code, 0);
    site.set_env("PGPASSFILE", "/nonexistent");
    assert_eq!(gets_in(&site, "127.0.0.1", "guarded").code, 1);
    site.set_env("PGPASSWORD", PASSWORD);
    assert_eq!(gets_in(&site, "127.0.0.1", "guarded").code, 0);
    site.set_env("PGPASSWORD", "");
    site.set_env("PGSERVICE", "staging");
    assert_eq!(gets_in(&site, "127.0.0.1", "guarded").code, 1);
    write(&site, "etc/pg_service.conf", 0o644, &format!("[staging]\npassfile={}\n", file.display()));
    site.set_env("PGSYSCONFDIR", &site.folder().join("home/etc").display().to_string());
    assert_eq!(gets_in(&site, "127.0.0.1", "guarded").code, 0);
}

#[test]
fn through_a_socket_the_password_of_localhost_does_not_count_unless_it_is_the_default_one() {
    let mut site = site_of("guarded");
    let socket = site.cluster().socket_dir().display().to_string();
    site.set("host", &socket).unwrap();
    write(&site, ".pgpass", 0o600, &format!("localhost:*:*:*:{ESCAPED}\n"));
    assert_eq!(gets_in(&site, &socket, "guarded").code, 1);
    write(&site, ".pgpass", 0o600, &format!("{socket}:*:*:*:{ESCAPED}\n"));
    assert_eq!(gets_in(&site, &socket, "guarded").code, 0);
    // TLS is not spoken there, whatever is asked for.
    site.set_env("PGSSLMODE", "require");
    assert_eq!(gets_in(&site, &socket, "guarded").code, 0);
}

#[test]
fn a_wrong_password_is_told_with_the_place_it_comes_from() {
    let mut site = site_of("guarded");
    write(&site, ".pgpass", 0o600, "# ours\n*:*:*:guarded:hunter2\n");
    let outcome = gets_in(&site, "127.0.0.1", "guarded");
    let told = error(&site, &outcome);
    assert!(told.contains("password authentication failed for user \"guarded\" [28P01]"), "{told}");
    let outcome = site.run(&["createdb", &site.section(), DAY]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = error(&site, &outcome);
    let hint = "hint: the password comes from <site>/home/.pgpass, line 2: correct it there";
    assert!(told.ends_with(hint), "{told}");
    let outcome = site.run(&["pgbouncer", &site.section()]).unwrap();
    assert!(error(&site, &outcome).ends_with(hint), "{outcome}");
    site.set_env("PGPASSWORD", "tulip");
    let outcome = site.run(&["createdb", &site.section(), DAY]).unwrap();
    let told = error(&site, &outcome);
    assert!(told.ends_with("hint: the password comes from PGPASSWORD: correct it there"), "{told}");
    // Not something that passes: it is not tried again.
    assert_eq!(last_run(&site)["status"], "failed");
    let shown = succeeds(&site, &["inspect", last_run(&site)["id"].as_str().unwrap(), "--events"]);
    for secret in ["hunter2", "tulip"] {
        assert!(!outcome.to_string().contains(secret) && !shown.to_string().contains(secret));
    }
}

#[test]
fn without_a_password_the_error_says_where_to_put_it_and_which_file_was_refused() {
    let site = site_of("guarded");
    let outcome = site.run(&["createdb", &site.section(), DAY]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = error(&site, &outcome);
    assert!(told.contains("the server asks for a password, and there is none"), "{told}");
    let hint =
        "hint: put it into ~/.pgpass (host:port:database:user:password, chmod 600), or into PGPASSWORD";
    assert!(told.ends_with(hint), "{told}");

    write(&site, ".pgpass", 0o644, &format!("*:*:*:guarded:{ESCAPED}\n"));
    let outcome = gets_in(&site, "127.0.0.1", "guarded");
    assert_eq!(outcome.code, 1, "{outcome}");
    let file = "<site>/home/.pgpass";
    let why = format!("password file {file} has group or world access, and was not read (chmod 600 {file})");
    let said = plain(&site, &outcome.stderr);
    assert_eq!(said.matches(&format!("warning: {why}")).count(), 1, "{said}");
    assert!(error(&site, &outcome).contains(&format!("and there is none; {why}")), "{outcome}");
}

#[test]
fn a_service_that_is_not_there_or_cannot_be_read_is_told() {
    let mut site = site_of("guarded");
    site.set_env("PGSERVICE", "staging");
    let told = error(&site, &gets_in(&site, "127.0.0.1", "guarded"));
    assert!(told.contains("there is no definition of service 'staging'"), "{told}");
    write(&site, ".pg_service.conf", 0o644, "[staging]\npassword = blanks\n");
    let told = error(&site, &gets_in(&site, "127.0.0.1", "guarded"));
    let cause = "cannot use service 'staging' of <site>/home/.pg_service.conf: line 2 is not a parameter of a connection";
    assert!(told.contains(cause), "{told}");
}

#[test]
fn tls_is_spoken_when_it_is_offered_and_never_left_out_when_it_is_asked_for() {
    let mut site = site_of("sealed");
    assert_eq!(gets_in(&site, "127.0.0.1", "sealed").code, 0);
    site.set_env("PGSSLMODE", "disable");
    let outcome = gets_in(&site, "127.0.0.1", "sealed");
    assert!(outcome.stderr.contains("no encryption"), "{outcome}");
    for mode in ["allow", "prefer", "require"] {
        site.set_env("PGSSLMODE", mode);
        assert_eq!(gets_in(&site, "127.0.0.1", "sealed").code, 0, "{mode}");
    }
    site.set_env("PGSSLMODE", "");
    write(&site, ".pg_service.conf", 0o644, "[staging]\nsslmode=disable\n");
    site.set_env("PGSERVICE", "staging");
    assert_eq!(gets_in(&site, "127.0.0.1", "sealed").code, 1);
    // This pgbouncer speaks no TLS.
    site.set_env("PGSERVICE", "");
    assert_eq!(ask(&site, &["pgbouncer", &site.section()])["pgbouncer"], serde_json::json!([]));
    site.set_env("PGSSLMODE", "require");
    let logins = || site.bouncer().log().matches("login attempt: db=pgbouncer user=sealed").count();
    let before = logins();
    assert_ne!(before, 0);
    let outcome = site.run(&["pgbouncer", &site.section()]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert_eq!(logins(), before);
    let told = error(&site, &outcome);
    assert!(told.contains("server does not support TLS"), "{told}");
    site.set_env("PGSSLMODE", "sometimes");
    let told = error(&site, &gets_in(&site, "127.0.0.1", "sealed"));
    assert!(told.contains("sslmode cannot be 'sometimes'"), "{told}");
}

#[test]
fn a_server_is_verified_by_the_authority_and_by_its_name() {
    let mut site = site_of("sealed");
    let known = fs::read_to_string(&guarded().authority).unwrap();
    for (mode, host, authority, code) in [
        ("verify-ca", "127.0.0.1", None, 1),
        ("verify-full", "127.0.0.1", None, 1),
        ("verify-ca", "127.0.0.1", Some(&guarded().authority), 0),
        ("verify-full", "127.0.0.1", Some(&guarded().authority), 0),
        ("verify-ca", FAR, Some(&guarded().authority), 0),
        ("verify-full", FAR, Some(&guarded().authority), 1),
        ("verify-ca", "127.0.0.1", Some(&guarded().stranger), 1),
        ("verify-full", "127.0.0.1", Some(&guarded().stranger), 1),
        // With a file of authorities there, this is as good as verify-ca.
        ("require", "127.0.0.1", Some(&guarded().stranger), 1),
        ("require", FAR, Some(&guarded().authority), 0),
    ] {
        site.set("host", host).unwrap();
        site.set_env("PGSSLMODE", mode);
        let file = authority.map_or_else(String::new, |path| path.display().to_string());
        site.set_env("PGSSLROOTCERT", &file);
        let outcome = gets_in(&site, host, "sealed");
        assert_eq!(outcome.code, code, "{mode} {host} {file}: {outcome}");
    }
    // The usual place of the file.
    write(&site, ".postgresql/root.crt", 0o644, &known);
    site.set_env("PGSSLROOTCERT", "");
    site.set_env("PGSSLMODE", "verify-full");
    site.set("host", "127.0.0.1").unwrap();
    assert_eq!(gets_in(&site, "127.0.0.1", "sealed").code, 0);
    site.set("host", FAR).unwrap();
    let told = error(&site, &gets_in(&site, FAR, "sealed"));
    assert!(
        told.contains("invalid peer certificate: certificate not valid for name \"127.0.0.2\""),
        "{told}"
    );
    assert!(told.contains("hint: look at sslmode and sslrootcert"), "{told}");
}

#[test]
fn our_own_certificate_is_shown_to_a_server_that_wants_one() {
    let mut site = site_of("certified");
    assert_eq!(gets_in(&site, "127.0.0.1", "certified").code, 1);
    site.set_env("PGSSLCERT", &guarded().certificate.display().to_string());
    let told = error(&site, &gets_in(&site, "127.0.0.1", "certified"));
    assert!(told.contains("and no key for it"), "{told}");
    site.set_env("PGSSLKEY", &guarded().key.display().to_string());
    assert_eq!(gets_in(&site, "127.0.0.1", "certified").code, 0);
    site.set_env("PGSSLMODE", "verify-full");
    site.set_env("PGSSLROOTCERT", &guarded().authority.display().to_string());
    assert_eq!(gets_in(&site, "127.0.0.1", "certified").code, 0);
}

#[test]
fn options_reach_the_server_and_a_limit_of_time_is_kept() {
    let mut site = site_of("guarded");
    site.set_env("PGPASSWORD", PASSWORD);
    succeeds(&site, &["createdb", &site.section(), DAY]);
    site.set_env("PGOPTIONS", "-c work_mem=3MB");
    assert_eq!(succeeds(&site, &["show", &site.section(), DAY, "work_mem"]).stdout, "3MB\n");
    site.set_env("PGOPTIONS", "");
    // A server that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    site.set("postgres_port", &port).unwrap();
    site.set("pgbouncer_port", &port).unwrap();
    site.set_env("PGCONNECT_TIMEOUT", "1");
    let outcome = site.run(&["dbsizes", &site.section()]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("no answer within 2 s"), "{outcome}");
}
