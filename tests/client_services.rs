//! What `staging-client.sh service …` promises: two services, three actions, and nobody but root says how.
//!
//! `/etc` is replaced, for the script alone, by a copy in which the test is the administrator. Callers come through sudo,
//! or so `SUDO_UID` says. `service` and `systemctl` are the machine's own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::{Command, Stdio},
};

use crate::stage::{CLIENT_SCRIPT, Etc, Stage};

/// What is not a service, an action, or a number of words that the script takes.
const USAGE: &str = "staging-client: usage: staging-client.sh <pgbouncer.xxxx.ini> <port>\n\
                     staging-client: or: staging-client.sh service <start|stop|status> <pgbouncer|postgresql>\n";

/// The host's administrator.
struct Host {
    etc: Etc,
}

impl Host {
    fn new() -> Option<Host> {
        let etc = Etc::new(Stage::shared().unwrap()).unwrap();
        if etc.is_none() {
            eprintln!("not tested: this account may not mount a file system");
        }
        etc.map(|etc| Host { etc })
    }

    fn conf(&self, text: &str) {
        self.etc.write("pg_staging/client.conf", text, 0o644).unwrap();
    }

    /// A program for `service_command`, which is named in client.conf.
    fn program(&self, text: &str) {
        self.etc.write("pg_staging/services", format!("#!/bin/sh\n{text}\n"), 0o755).unwrap();
        self.conf("service_command=/etc/pg_staging/services\n");
    }

    fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.etc.command(CLIENT_SCRIPT);
        command.arg("service").args(arguments).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("SUDO_UID", "1");
        command
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.etc.folder().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn set_owner(&self, name: &str, uid: u32) {
        chown(self.etc.folder().join(name), Some(uid), None).unwrap();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn said(mut command: Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn done(stdout: &str) -> Said {
    Said { code: Some(0), stdout: format!("pg_staging: {stdout}\n"), stderr: String::new() }
}

fn refused(code: i32, message: &str) -> Said {
    Said { code: Some(code), stdout: String::new(), stderr: format!("staging-client: {message}\n") }
}

#[test]
fn words_that_are_none_of_the_few_are_refused() {
    let script = |arguments: &[&str]| {
        let mut command = Command::new(CLIENT_SCRIPT);
        command.arg("service").args(arguments);
        said(command)
    };
    for arguments in [&[][..], &["start"], &["start", "pgbouncer", "now"]] {
        let usage = Said { code: Some(2), stdout: String::new(), stderr: USAGE.to_owned() };
        assert_eq!(script(arguments), usage, "{arguments:?}");
    }
    let action = "the action must be start, stop or status";
    for hostile in ["", "reload", "START", "start stop", "start;id", "$(id)", "-s", "*", "sta\nrt"] {
        assert_eq!(script(&[hostile, "pgbouncer"]), refused(2, action), "{hostile:?}");
    }
    let service = "the service must be pgbouncer or postgresql";
    for hostile in [
        "",
        "ssh",
        "postgres",
        "pgbouncer2",
        "pgbouncer postgresql",
        "pgbouncer;id",
        "../pgbouncer",
        "--",
        "*",
    ] {
        assert_eq!(script(&["status", hostile]), refused(2, service), "{hostile:?}");
    }
}

#[test]
fn a_program_of_the_administrators_gets_action_and_name_and_nothing_of_the_callers() {
    let Some(host) = Host::new() else { return };
    let told = host.etc.folder().join("told");
    host.program("{ printf '%s,' \"$@\"; echo; env; id -u; pwd; cat; } >/etc/told");
    let run = |action: &str, service: &str| {
        let mut command = host.command(&[action, service]);
        command.env("PGPORT", "1").env("LD_DEBUG_OUTPUT", "/x").env("SECRET", "hidden").env("IFS", "a");
        (said(command), fs::read_to_string(&told).unwrap())
    };
    let rest = |told: &str| -> Vec<String> {
        let mut lines: Vec<String> = told.lines().skip(1).map(str::to_owned).collect();
        lines.retain(|line| {
            !line.starts_with("_=") && !line.starts_with("PWD=") && !line.starts_with("SHLVL=")
        });
        lines.sort();
        lines
    };
    let (said, told) = run("start", "pgbouncer");
    assert_eq!((said, told.lines().next()), (done("pgbouncer start done"), Some("start,pgbouncer,")));
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin";
    assert_eq!(rest(&told), ["/", "0", "LC_ALL=C", path]);
    host.conf("# names\npostgresql_service=postgresql@15-main\nservice_command=/etc/pg_staging/services\n");
    let (said, told) = run("stop", "postgresql");
    assert_eq!((said, told.lines().next()), (done("postgresql stop done"), Some("stop,postgresql@15-main,")));
}

#[test]
fn how_the_program_ends_tells_whether_a_service_runs_or_what_failed() {
    let Some(host) = Host::new() else { return };
    for (code, state) in [(0, "running"), (1, "stopped"), (2, "stopped"), (3, "stopped")] {
        host.program(&format!("exit {code}"));
        assert_eq!(host.run(&["status", "pgbouncer"]), done(&format!("pgbouncer is {state}")));
    }
    host.program("echo 'it is \u{1b}[31mbroken'; echo 'says who' >&2; exit 4");
    let broken = |what: &str| {
        refused(
            1,
            &format!("{what} (exit code 4)\nstaging-client: it is [31mbroken\nstaging-client: says who"),
        )
    };
    assert_eq!(host.run(&["status", "pgbouncer"]), broken("it cannot be told whether pgbouncer runs"));
    assert_eq!(host.run(&["start", "pgbouncer"]), broken("pgbouncer could not start"));
    assert_eq!(host.run(&["stop", "postgresql"]), broken("postgresql could not stop"));
}

#[test]
fn what_is_started_may_keep_its_output_open() {
    let Some(host) = Host::new() else { return };
    host.program("sleep 600 &\necho $! >/etc/pid");
    assert_eq!(host.run(&["start", "pgbouncer"]), done("pgbouncer start done"));
    let pid = fs::read_to_string(host.etc.folder().join("pid")).unwrap();
    let ended = Command::new("kill").arg(pid.trim()).status().unwrap();
    assert!(ended.success());
}

#[test]
fn a_client_conf_that_others_can_change_is_not_followed() {
    let Some(host) = Host::new() else { return };
    host.program("exit 0");
    assert_eq!(host.run(&["status", "pgbouncer"]), done("pgbouncer is running"));
    let fault =
        refused(2, "/etc/pg_staging/client.conf can be changed by others than root, and is not followed");
    let conf = "pg_staging/client.conf";
    for mode in [0o666, 0o664, 0o646] {
        host.set_mode(conf, mode);
        assert_eq!(host.run(&["start", "pgbouncer"]), fault, "{mode:o}");
    }
    host.set_mode(conf, 0o644);
    host.set_owner(conf, 1);
    assert_eq!(host.run(&["start", "pgbouncer"]), fault);
    host.set_owner(conf, 0);
    host.set_mode("pg_staging", 0o777);
    assert_eq!(host.run(&["start", "pgbouncer"]), fault);
    host.set_mode("pg_staging", 0o755);
    let path = host.etc.folder().join(conf);
    fs::rename(&path, path.with_extension("real")).unwrap();
    symlink("client.real", &path).unwrap();
    assert_eq!(host.run(&["start", "pgbouncer"]), fault);
    fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert_eq!(host.run(&["start", "pgbouncer"]), fault);
}

#[test]
fn as_root_only_a_program_is_run_that_root_alone_can_change() {
    let Some(host) = Host::new() else { return };
    host.program("exit 0");
    let fault = |path: &str| {
        let message = "or a folder above it, can be changed by others than root, or is a link";
        refused(2, &format!("/etc/pg_staging/client.conf: {path}, {message}"))
    };
    let usual = "/etc/pg_staging/services";
    host.set_mode("pg_staging/services", 0o777);
    assert_eq!(host.run(&["start", "pgbouncer"]), fault(usual));
    host.set_mode("pg_staging/services", 0o755);
    host.set_owner("pg_staging/services", 1);
    assert_eq!(host.run(&["start", "pgbouncer"]), fault(usual));
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("services");
    fs::write(&elsewhere, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o755)).unwrap();
    let elsewhere = elsewhere.display().to_string();
    host.conf(&format!("service_command={elsewhere}\n"));
    assert_eq!(host.run(&["start", "pgbouncer"]), fault(&elsewhere));
    symlink("/usr/bin/true", host.etc.folder().join("link")).unwrap();
    host.conf("service_command=/etc/link\n");
    assert_eq!(host.run(&["start", "pgbouncer"]), fault("/etc/link"));
    host.conf("service_command=/usr/bin/true\n");
    assert_eq!(host.run(&["start", "pgbouncer"]), done("pgbouncer start done"));
}

#[test]
fn a_client_conf_that_names_nothing_that_could_be_run_is_refused() {
    let Some(host) = Host::new() else { return };
    let cases = [
        ("service_command=services", "service_command is not an absolute path"),
        ("service_command=/none", "there is no program /none"),
        ("service_command=/etc", "there is no program /etc"),
        ("service_command=/etc/passwd", "there is no program /etc/passwd"),
        ("pgbouncer_service=-x", "'-x' is not the name of a service"),
        ("pgbouncer_service=a b", "'a b' is not the name of a service"),
        ("pgbouncer_service=a;id", "'a;id' is not the name of a service"),
        ("pgbouncer_service=../x", "'../x' is not the name of a service"),
    ];
    for (line, fault) in cases {
        host.conf(&format!("{line}\n"));
        let message = format!("/etc/pg_staging/client.conf: {fault}");
        assert_eq!(host.run(&["start", "pgbouncer"]), refused(2, &message), "{line}");
    }
}

#[test]
fn without_systemd_the_hosts_init_script_is_run_by_service() {
    if Path::new("/run/systemd/system").exists() {
        eprintln!("not tested: systemd runs here");
        return;
    }
    let Some(host) = Host::new() else { return };
    host.etc
        .write(
            "init.d/pgbouncer",
            "#!/bin/sh\necho \"$1\" >>/etc/asked\n[ \"$1\" != status ] || exit 3\n",
            0o755,
        )
        .unwrap();
    host.etc.write("init.d/pooler-2", "#!/bin/sh\necho \"2 $1\" >>/etc/asked\n", 0o755).unwrap();
    assert_eq!(host.run(&["start", "pgbouncer"]), done("pgbouncer start done"));
    assert_eq!(host.run(&["status", "pgbouncer"]), done("pgbouncer is stopped"));
    assert_eq!(host.run(&["stop", "pgbouncer"]), done("pgbouncer stop done"));
    host.conf("pgbouncer_service=pooler-2\n");
    assert_eq!(host.run(&["status", "pgbouncer"]), done("pgbouncer is running"));
    let asked = fs::read_to_string(host.etc.folder().join("asked")).unwrap();
    assert_eq!(asked, "start\nstatus\nstop\n2 status\n");
    host.conf("pgbouncer_service=nobody\n");
    for action in ["start", "stop", "status"] {
        let fault = refused(1, "there is no service nobody on this host");
        assert_eq!(host.run(&[action, "pgbouncer"]), fault);
    }
}

#[test]
fn where_systemd_runs_systemctl_is_asked() {
    let Some(host) = Host::new() else { return };
    // What tells sd_booted(3) that systemd runs; there is none, so that systemctl says that it finds nobody to ask.
    let booted = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec \"$@\"";
    for (action, what) in
        [("start", "pgbouncer could not start"), ("status", "it cannot be told whether pgbouncer runs")]
    {
        let mut command = host.etc.command("sh");
        command.args(["-c", booted, "sh", CLIENT_SCRIPT, "service", action, "pgbouncer"]);
        let said = said(command);
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
        assert!(said.stderr.starts_with(&format!("staging-client: {what} (exit code ")), "{said:?}");
        assert!(said.stderr.contains("systemd") || said.stderr.contains("bus"), "{said:?}");
    }
}
