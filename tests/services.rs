//! `start`, `stop`, `restart` and `status`: real services of a host, started and stopped by the client script.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    gate::Gate,
    stage::{CLIENT_SCRIPT, Etc, Site, SiteOptions, Sshd, Stage, StageOptions},
    traces::{error, inspected, json as ask, last_run, plain, says, step, succeeds},
};

const DAY: &str = "20261121";

/// A host whose administrator has the servers of a site started and stopped by a program of his own. Dropping it stops
/// what that program started.
struct Host {
    etc: Etc,
    log: PathBuf,
    services: &'static [&'static str],
}

impl Host {
    /// Gives the site such a host; `None` where files cannot be shown to programs, which takes root.
    fn of(site: &mut Site<'_>) -> Option<Host> {
        Host::with(site, &["stage-bouncer"])
    }

    /// The same, with those of its services that are the site's alone.
    fn with(site: &mut Site<'_>, services: &'static [&'static str]) -> Option<Host> {
        let Some(etc) = Etc::new(site.stage()).unwrap() else {
            eprintln!("not tested: this account may not mount a file system");
            return None;
        };
        let log = site.folder().join("asked");
        let cluster = site.cluster();
        let program = include_str!("stage/services.sh")
            .replace("@LOG@", &log.display().to_string())
            .replace("@ACCOUNT@", &site.stage().scratch().account().name)
            .replace("@BOUNCER@", &site.bouncer().folder().display().to_string())
            .replace("@BIN@", &cluster.bin().display().to_string())
            .replace("@DATA@", &cluster.data_dir().display().to_string())
            .replace("@PORT@", &cluster.port().to_string());
        etc.write("pg_staging/services", program, 0o755).unwrap();
        let conf = "# of this host\npgbouncer_service=stage-bouncer\npostgresql_service=stage@postgres\n\
                    service_command=/etc/pg_staging/services\n";
        etc.write("pg_staging/client.conf", conf, 0o644).unwrap();
        let script = site.folder().join("client.sh");
        etc.write_wrapper(&script, CLIENT_SCRIPT.as_ref()).unwrap();
        site.set("client_script", &script.display().to_string()).unwrap();
        site.set("retry_limit", "1s").unwrap();
        // As a service, pgbouncer runs in the background.
        let folder = site.bouncer().folder().display().to_string();
        let mut ini = String::from_utf8(site.bouncer().ini_bytes().unwrap()).unwrap();
        ini += &format!("\npidfile = {folder}/pgbouncer.pid\nlogfile = {folder}/service.log\n");
        site.bouncer().write_ini(ini).unwrap();
        site.bouncer_mut().stop().unwrap();
        Some(Host { etc, log, services })
    }

    /// What the program was asked to change.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| !line.starts_with("status")).map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for service in self.services {
            let stopped = self.etc.command("/etc/pg_staging/services").args(["stop", service]).output();
            println!("{service}: {stopped:?}");
        }
    }
}

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// What `status` says: in which state the service is, and whether it answers.
#[track_caller]
fn is(site: &Site<'_>, service: &str, state: &str, answers: bool) {
    let outcome = site.run(&["status", service, &site.section(), "--json"]).unwrap();
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let host = plain(site, told["status"][0]["host"].as_str().unwrap());
    let row = json!({ "service": service, "host": host, "state": state, "answers": answers });
    assert_eq!(told, json!({ "schema": 1, "status": [row] }), "{outcome}");
    assert_eq!(outcome.code, i32::from(state != "running"), "{outcome}");
}

#[test]
fn pgbouncer_is_started_stopped_and_restarted_and_what_is_so_already_is_told() {
    let mut site = site();
    let Some(host) = Host::of(&mut site) else { return };
    let section = site.section();
    is(&site, "pgbouncer", "stopped", false);
    let outcome = site.run(&["status", "pgbouncer", &section]).unwrap();
    says(&outcome.stdout, " SERVICE    HOST       STATE    ANSWERS\n pgbouncer  127.0.0.1  stopped  no\n");

    let planned = succeeds(&site, &["-n", "start", "pgbouncer", &section]);
    says(
        &plain(&site, &planned.stdout),
        "start shop.dev would make these steps on 127.0.0.1:\n  1  start            start pgbouncer on 127.0.0.1, and wait until it answers\n",
    );
    assert_eq!(host.asked(), Vec::<String>::new());
    let outcome = succeeds(&site, &["start", "pgbouncer", &section]);
    says(
        &plain(&site, &outcome.stdout),
        "start shop.dev: pgbouncer runs on 127.0.0.1 (run <run>, <seconds> s)\n",
    );
    is(&site, "pgbouncer", "running", true);
    let run = last_run(&site);
    assert_eq!((&run["command"], &run["database"]), (&json!("start"), &Value::Null));
    assert_eq!(run["arguments"], json!(["pgbouncer", section]));
    let outcome = succeeds(&site, &["start", "pgbouncer", &section]);
    assert!(outcome.stderr.contains("start: pgbouncer runs on 127.0.0.1 already"), "{outcome}");
    assert_eq!(host.asked(), ["start stage-bouncer"]);

    let pid = || fs::read_to_string(site.bouncer().folder().join("pgbouncer.pid")).unwrap();
    let before = pid();
    succeeds(&site, &["restart", "pgbouncer", &section]);
    is(&site, "pgbouncer", "running", true);
    assert_ne!(pid(), before);

    let planned = succeeds(&site, &["-n", "restart", "pgbouncer", &section]);
    says(
        &plain(&site, &planned.stdout),
        "restart shop.dev would make these steps on 127.0.0.1:\n  1  stop             stop pgbouncer on 127.0.0.1, and wait until it is silent\n  2  start            start pgbouncer on 127.0.0.1, and wait until it answers\n",
    );
    let outcome = succeeds(&site, &["stop", "pgbouncer", &section]);
    says(
        &plain(&site, &outcome.stdout),
        "stop shop.dev: pgbouncer on 127.0.0.1 is stopped (run <run>, <seconds> s)\n",
    );
    is(&site, "pgbouncer", "stopped", false);
    let outcome = succeeds(&site, &["stop", "pgbouncer", &section]);
    assert!(outcome.stderr.contains("stop: pgbouncer on 127.0.0.1 is stopped already"), "{outcome}");
    // One that is stopped is started by restart.
    succeeds(&site, &["restart", "pgbouncer", &section]);
    is(&site, "pgbouncer", "running", true);
    assert_eq!(
        host.asked().join(", "),
        "start stage-bouncer, stop stage-bouncer, start stage-bouncer, stop stage-bouncer, start stage-bouncer"
    );

    // Questions are in the journal, among those that change nothing.
    let all = ask(&site, &["history", "--all", "--command", "status", "--limit", "1"]);
    assert_eq!(all["runs"][0]["arguments"], json!(["pgbouncer", section]));
}

#[test]
fn postgresql_is_started_stopped_and_restarted_and_runs_are_rolled_back() {
    let stage = Stage::start(&StageOptions::default()).unwrap();
    let mut site = Site::new(&stage, &SiteOptions::default()).unwrap();
    let Some(host) = Host::with(&mut site, &["stage-bouncer", "stage@postgres"]) else { return };
    site.bouncer_mut().start_again().unwrap();
    let section = site.section();
    is(&site, "postgresql", "running", true);
    succeeds(&site, &["stop", "postgresql", &section]);
    is(&site, "postgresql", "stopped", false);
    let stop = last_run(&site)["id"].as_str().unwrap().to_owned();
    succeeds(&site, &["rollback", &stop, "--yes"]);
    is(&site, "postgresql", "running", true);
    assert_eq!(host.asked(), ["stop stage@postgres", "start stage@postgres"]);

    let started = "SELECT pg_postmaster_start_time()";
    let before = site.cluster().psql("postgres", started).unwrap();
    succeeds(&site, &["restart", "postgresql", &section]);
    assert_ne!(site.cluster().psql("postgres", started).unwrap(), before);

    // A run on this target is not cut off.
    let gate = Gate::new(&site, "pre", "wait.sql", "");
    let mut program = site.spawn(&["restore", &section, DAY]).unwrap();
    let waiting = gate.wait(&mut program);
    for command in ["stop", "restart"] {
        for service in ["postgresql", "pgbouncer"] {
            let outcome = site.run(&[command, service, &section]).unwrap();
            assert_eq!(outcome.code, 5, "{outcome}");
        }
    }
    is(&site, "postgresql", "running", true);
    drop(waiting);
    assert_eq!(program.wait().unwrap().code, 0);
    drop(site);
}

#[test]
fn what_fails_is_told_in_the_words_of_the_host_and_undone() {
    let mut site = site();
    let Some(host) = Host::of(&mut site) else { return };
    let section = site.section();
    // It would be started, and end at once.
    let ini = site.bouncer().ini_bytes().unwrap();
    site.bouncer().write_ini("[databases]\nnonsense\n").unwrap();
    let outcome = site.run(&["start", "pgbouncer", &section]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = error(&site, &outcome);
    assert!(
        told.starts_with(
            "start shop.dev failed, and what it had done is undone (run <run>): pgbouncer on 127.0.0.1: start failed\n\
             cause: staging-client: stage-bouncer could not start (exit code 1)\nstaging-client: "
        ),
        "{told}"
    );
    assert!(told.contains("\nhint: see why on that host, or run it by hand: "), "{told}");
    site.bouncer().write_ini(ini).unwrap();

    // It runs, and is not the one that is meant.
    let port = site.bouncer().port().to_string();
    site.set("pgbouncer_port", "1").unwrap();
    let outcome = site.run(&["start", "pgbouncer", &section, "--limit", "1s"]).unwrap();
    let said = regex::Regex::new(r"(?s)cause: .*\nhint").unwrap();
    says(
        &said.replace(&error(&site, &outcome), "cause: …\nhint"),
        "start shop.dev failed, and what it had done is undone (run <run>): pgbouncer on 127.0.0.1 was started, and does not answer within 1 s\n\
         cause: …\n\
         hint: look at its log there, or wait for longer with --limit; if another service is meant, name it in /etc/pg_staging/client.conf there: pgbouncer_service=NAME",
    );
    assert_eq!(host.asked().last().unwrap(), "stop stage-bouncer");
    is(&site, "pgbouncer", "stopped", false);
    site.set("on_failure", "keep").unwrap();
    let outcome = site.run(&["start", "pgbouncer", &section, "--limit", "1s"]).unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    is(&site, "pgbouncer", "running", false);
    let status = site.run(&["status", "pgbouncer", &section]).unwrap();
    assert!(status.stderr.contains("warning: pgbouncer on 127.0.0.1 runs and does not answer"), "{status}");
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    succeeds(&site, &["rollback", &run]);
    is(&site, "pgbouncer", "stopped", false);

    // It answers, and is not the one that is meant.
    site.set("pgbouncer_port", &port).unwrap();
    site.bouncer_mut().start_again().unwrap();
    fs::remove_file(site.bouncer().folder().join("pgbouncer.pid")).unwrap();
    let outcome = site.run(&["stop", "pgbouncer", &section]).unwrap();
    says(
        &error(&site, &outcome),
        "stop shop.dev failed before it changed anything (run <run>): pgbouncer on 127.0.0.1 answers, and 127.0.0.1 says that it does not run\n\
         hint: name the service that is meant in /etc/pg_staging/client.conf there: pgbouncer_service=NAME",
    );
    assert_eq!(outcome.code, 1);
}

#[test]
fn a_restart_killed_between_its_steps_goes_on_or_back_and_the_service_runs() {
    let mut site = site();
    let Some(host) = Host::of(&mut site) else { return };
    let section = site.section();
    succeeds(&site, &["start", "pgbouncer", &section]);
    for then in ["continue", "rollback"] {
        // Stopped, and the start waits in front of the program that would do it.
        let program = host.etc.folder().join("pg_staging/services");
        let text = fs::read_to_string(&program).unwrap();
        let gate = site.folder().join("gate");
        fs::write(&gate, "").unwrap();
        let shut = format!(
            "#!/bin/sh\n[ \"$1\" != start ] || while [ -e '{}' ]; do sleep 0.05; done\n",
            gate.display()
        );
        fs::write(&program, text.replacen("#!/bin/sh\n", &shut, 1)).unwrap();
        let mut command = site.spawn(&["restart", "pgbouncer", &section]).unwrap();
        command.wait_until_it_says(" ok   stop").unwrap();
        crate::stage::wait_until("the step to begin", std::time::Duration::from_secs(60), || {
            step(&inspected(&site), "start")["status"] == "running"
        })
        .unwrap();
        command.kill().unwrap();
        fs::remove_file(&gate).unwrap();
        fs::write(&program, text).unwrap();
        let run = last_run(&site);
        assert_eq!(run["status"], "interrupted", "{run}");
        succeeds(&site, &[then, run["id"].as_str().unwrap()]);
        is(&site, "pgbouncer", "running", true);
    }
}

#[test]
fn words_that_are_no_service_are_refused_before_anybody_is_asked() {
    let site = site();
    let section = site.section();
    for command in ["start", "stop", "restart", "status"] {
        for arguments in [
            vec![command],
            vec![command, &section],
            vec![command, "nginx", &section],
            vec![command, "pgbouncer"],
        ] {
            let outcome = site.run(&arguments).unwrap();
            assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{arguments:?}: {outcome}");
        }
        let outcome = site.run(&[command, "pgbouncer", "nobody.dev"]).unwrap();
        assert_eq!(outcome.code, 6, "{outcome}");
    }
    let outcome = site.run(&["start", "pgbouncer", &section, "--limit", "0s"]).unwrap();
    assert_eq!(outcome.code, 2, "{outcome}");
}

#[test]
fn an_older_client_script_and_one_that_is_missing_are_told() {
    let mut site = site();
    let script = site.folder().join("old.sh");
    fs::write(&script, "#!/bin/sh\necho 'staging-client: usage: staging-client.sh <pgbouncer.xxxx.ini> <port>' >&2\nexit 2\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    site.set("client_script", &script.display().to_string()).unwrap();
    let outcome = site.run(&["status", "pgbouncer", &site.section()]).unwrap();
    says(
        &error(&site, &outcome),
        "staging-client.sh on 127.0.0.1 refuses: service status pgbouncer\n\
         cause: staging-client: usage: staging-client.sh <pgbouncer.xxxx.ini> <port>\n\
         hint: mend what it names there; an older one has to be replaced by the one that came with this version",
    );
    assert_eq!(outcome.code, 1);
    site.set("client_script", "none.sh").unwrap();
    let outcome = site.run(&["start", "pgbouncer", &site.section()]).unwrap();
    assert!(error(&site, &outcome).contains("there is no program <site>/home/none.sh"), "{outcome}");
    assert_eq!(outcome.code, 1);
}

#[test]
fn over_ssh_and_with_sudo_the_host_decides_what_is_started() {
    let mut site =
        Site::new(Stage::shared().unwrap(), &SiteOptions { over_ssh: true, ..SiteOptions::default() })
            .unwrap();
    let Some(host) = Host::of(&mut site) else { return };
    // Written by root there, and in the site's folder, which is ours.
    fs::write(&host.log, "").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = folder.path().join("staging-client.sh");
    fs::copy(CLIENT_SCRIPT, &script).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let sshd = Sshd::start_with_sudo(site.stage(), &script, Some(&host.etc)).unwrap();
    site.set("ssh_options", &sshd.ssh_options().join(" ")).unwrap();
    site.set("client_script", &script.display().to_string()).unwrap();
    site.set("use_sudo", "True").unwrap();
    let section = site.section();
    is(&site, "pgbouncer", "stopped", false);
    succeeds(&site, &["start", "pgbouncer", &section]);
    is(&site, "pgbouncer", "running", true);
    succeeds(&site, &["stop", "pgbouncer", &section]);
    is(&site, "pgbouncer", "stopped", false);
    assert_eq!(host.asked(), ["start stage-bouncer", "stop stage-bouncer"]);
}
