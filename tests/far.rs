//! A target on another host: everything that reads or changes pgbouncer.ini goes by ssh and scp.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use crate::{
    stage::{CLIENT_SCRIPT, FAR, LOCAL, Scale, Site, SiteOptions, Sshd, Stage, fingerprint, source_database},
    traces::{Traces, fails, names_in, succeeds},
};

const DAY: &str = "20261121";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions { over_ssh: true, ..SiteOptions::default() }).unwrap()
}

#[test]
fn restore_switch_drop_and_rollback_work_over_ssh_and_leave_no_file_there() {
    let site = site();
    let section = site.section();
    let before = Traces::of(&site);
    succeeds(&site, &["createdb", &section, "20261120"]);
    succeeds(&site, &["restore", &section, DAY]);
    let production = fingerprint(site.cluster(), &source_database(Scale::Small)).unwrap();
    assert_eq!(fingerprint(site.cluster(), &site.copy(DAY)).unwrap(), production);
    let there = Traces::of(&site);
    let copy = site.copy(DAY);
    // As seen from there, PostgreSQL is where the maintenance database's entry says.
    let alias = &there.aliases[site.dbname()];
    assert_eq!((alias.host.as_str(), alias.dbname.as_str()), (LOCAL, copy.as_str()));
    assert_eq!((there.uploads, there.tmpdir), (vec![], vec![]));
    assert_eq!(
        site.bouncer().psql(site.dbname(), "SELECT count(*) AS customers FROM public.customer").unwrap(),
        "customers\n500\n"
    );

    succeeds(&site, &["switch", &section, "20261120"]);
    assert_eq!(site.active().unwrap(), Some(site.copy("20261120")));
    succeeds(&site, &["drop", &section, DAY]);
    succeeds(&site, &["drop", &section, "20261120", "--force"]);
    let after = Traces::of(&site);
    assert_eq!((after.databases, after.uploads), (before.databases, before.uploads));
    // A forced drop of the active copy takes the alias along.
    assert_eq!(after.aliases.keys().filter(|name| name.starts_with(site.dbname())).count(), 0);
    // What sshd saw: nobody but the one account, and no shell but for the commands.
    let log = site.sshd().unwrap().log();
    assert!(!log.contains("Invalid user"), "{log}");
}

#[test]
fn a_port_and_a_user_as_ssh_spells_them_work_for_scp_too() {
    let mut site = site();
    let sshd = site.sshd().unwrap();
    let (port, user) = (sshd.port(), sshd.user().to_owned());
    let options = sshd.ssh_options().join(" ");
    let without = options.replace(&format!("-o Port={port} "), "").replace(&format!("-o User={user} "), "");
    assert!(!without.contains("Port=") && !without.contains("User="), "{without}");
    for spelled in [format!("-p {port} -l {user}"), format!("-p{port} -l{user}")] {
        site.set("ssh_options", &format!("{spelled} {without}")).unwrap();
        let before = Traces::of(&site);
        succeeds(&site, &["createdb", &site.section(), DAY]);
        assert!(Traces::of(&site).aliases.contains_key(&site.copy(DAY)));
        succeeds(&site, &["drop", &site.section(), DAY]);
        assert_eq!(Traces::of(&site), before);
    }
}

#[test]
fn the_client_script_may_lie_elsewhere() {
    let mut site = site();
    let folder = site.stage().scratch().new_folder("opt").unwrap();
    let script = folder.join("client_2.sh");
    let ran = folder.join("ran");
    // The project's own folder may be closed to the far account; the login folder has a copy.
    let text = format!("#!/bin/sh\necho \"$1 $2\" >>'{}'\nexec ./staging-client.sh \"$@\"\n", ran.display());
    site.stage().scratch().write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    site.set("client_script", &script.display().to_string()).unwrap();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    let ran = fs::read_to_string(ran).unwrap();
    let words: Vec<&str> = ran.split_whitespace().collect();
    assert!(words[0].starts_with("pgbouncer.") && words[0].ends_with(".ini"), "{ran}");
    assert_eq!(words[1..], [site.bouncer().port().to_string()]);
}

/// Whether this process may show others files of its own.
fn may_unshare() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs tmpfs /etc/sudoers.d"]);
    unshare.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[test]
fn with_use_sudo_the_script_runs_as_root() {
    if !may_unshare() {
        eprintln!("not tested: this account may not mount a file system");
        return;
    }
    let mut site = site();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = folder.path().join("staging-client.sh");
    fs::copy(CLIENT_SCRIPT, &script).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let sshd = Sshd::start_with_sudo(site.stage(), &script, None).unwrap();
    let told = sshd.ssh(FAR).arg("sudo -n -l").output().unwrap();
    assert!(told.status.success(), "{told:?}");
    site.set("ssh_options", &sshd.ssh_options().join(" ")).unwrap();
    site.set("client_script", &script.display().to_string()).unwrap();
    site.set("use_sudo", "True").unwrap();
    let before = Traces::of(&site);
    let owner = |site: &Site<'_>| fs::metadata(site.bouncer().ini_path()).unwrap().uid();
    let owned_by = owner(&site);
    succeeds(&site, &["createdb", &site.section(), DAY]);
    assert!(Traces::of(&site).aliases.contains_key(&site.copy(DAY)));
    assert_eq!(owner(&site), owned_by);
    succeeds(&site, &["drop", &site.section(), DAY]);
    assert_eq!(Traces::of(&site), before);
    assert_eq!(names_in(&sshd.login_folder()), Vec::<String>::new());
}

#[test]
fn a_sudo_that_refuses_fails_the_run_without_a_trace() {
    let mut site = site();
    site.set("use_sudo", "True").unwrap();
    let may = site.sshd().unwrap().ssh(FAR).arg("sudo -n true").output().unwrap();
    if may.status.success() {
        eprintln!("not tested: {} may use sudo for everything", site.sshd().unwrap().user());
        return;
    }
    fails(
        &site,
        &["createdb", &site.section(), DAY],
        1,
        "staging-client.sh failed on 127.0.0.2 (exit status: 1)\n\
         cause: sudo: a password is required\n\
         hint: run it by hand: ssh -o BatchMode=yes <options> -- 127.0.0.2 sudo -n ./staging-client.sh pgbouncer.<run>bounceradd1.ini <port>",
    );
}

#[test]
fn on_this_machine_root_needs_no_sudo_and_others_are_refused_without_a_trace() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.set("use_sudo", "True").unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("not tested: only root is known to need no sudo");
        return;
    }
    succeeds(&site, &["createdb", &site.section(), DAY]);
    assert!(Traces::of(&site).aliases.contains_key(&site.copy(DAY)));
}
