//! `init`: production's roles come to the target, and their verifiers nowhere else.

use std::{process::Stdio, time::Duration};

use serde_json::Value;

use crate::{
    stage::{Site, SiteOptions, Stage, wait_until},
    traces::{error, fails, is_refused, last_run, plain, says, succeeds},
    upkeep::is_in_files,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A site whose production has an owner, an application and a group, named after the site; they go with it.
struct Production {
    site: Site<'static>,
}

impl Drop for Production {
    fn drop(&mut self) {
        if self.site.cluster().pid().is_some() {
            self.drop_roles();
        }
    }
}

impl Production {
    fn new() -> Production {
        let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
        let path = format!("/{}/globals.sql", site.dbname());
        site.set("dumpall_url", &path).unwrap();
        let production = Production { site };
        let (app, odd, group) = production.names();
        let sql = format!(
            "CREATE ROLE {group};\n\
             CREATE ROLE {app} LOGIN PASSWORD 'secret of {app}' CONNECTION LIMIT 7 IN ROLE {group};\n\
             CREATE ROLE \"{odd}\" PASSWORD 'secret of odd' VALID UNTIL '2030-01-01';\n\
             ALTER ROLE {app} SET search_path TO sales, public;\n\
             COMMENT ON ROLE {app} IS 'it; reads';"
        );
        production.site.cluster().psql("postgres", &sql).unwrap();
        production
    }

    /// A role that logs in, one whose name needs quotes, and a group.
    fn names(&self) -> (String, String, String) {
        let name = self.site.dbname();
        (format!("{name}_app"), format!("{name}_Odd; role"), format!("{name}_group"))
    }

    fn drop_roles(&self) {
        let (app, odd, group) = self.names();
        for role in [app, odd, group] {
            self.site.cluster().psql("postgres", &format!("DROP ROLE IF EXISTS \"{role}\"")).unwrap();
        }
    }

    /// What `pg_dumpall -g` writes, of which only what is about this site's roles is kept: others use the server.
    fn dumped(&self) -> String {
        let output =
            self.site.cluster().client("pg_dumpall").args(["-g", "-l", "postgres"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let all = String::from_utf8(output.stdout).unwrap();
        let name = format!("{}_", self.site.dbname());
        let about = ["CREATE ROLE", "ALTER ROLE", "COMMENT ON ROLE", "GRANT", "CREATE TABLESPACE"];
        let is_ours =
            |line: &&str| !about.iter().any(|start| line.starts_with(start)) || line.contains(&name);
        all.lines().filter(is_ours).map(|line| format!("{line}\n")).collect()
    }

    fn serve(&self, globals: &str) {
        self.site.write_file("globals.sql", globals).unwrap();
    }

    /// All that the server knows of the roles, verifiers included.
    fn roles(&self) -> String {
        let sql = format!(
            "SELECT rolname, rolcanlogin, rolconnlimit, rolpassword, rolvaliduntil, \
                    (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0), \
                    shobj_description(a.oid, 'pg_authid'), \
                    (SELECT string_agg(roleid::regrole::text, ' ') FROM pg_auth_members WHERE member = a.oid) \
             FROM pg_authid a WHERE rolname LIKE '{}\\_%' ORDER BY 1",
            self.site.dbname()
        );
        self.site.cluster().psql("postgres", &sql).unwrap()
    }

    /// No verifier is anywhere that outlives the run: journal, output, log of the program, files, the server's log.
    #[track_caller]
    fn nothing_is_told(&self) {
        assert!(!is_in_files(self.site.folder(), "SCRAM-SHA-256$"));
        let log = self.site.cluster().log();
        let told =
            log.lines().any(|line| line.contains("SCRAM-SHA-256$") && line.contains(self.site.dbname()));
        assert!(!told, "the server's log tells a verifier");
    }
}

#[test]
fn init_makes_the_roles_of_production_and_can_be_run_again() {
    let production = Production::new();
    let (site, (app, odd, group)) = (&production.site, production.names());
    let globals = production.dumped();
    assert!(globals.matches("SCRAM-SHA-256$").count() == 2, "{globals}");
    production.serve(&globals);
    let before = production.roles();
    production.drop_roles();

    let planned = succeeds(site, &["-n", "init", &site.section()]);
    says(
        &plain(site, &planned.stdout),
        "init shop.dev would make these steps on 127.0.0.1:\n\
         \x20 1  preflight        look at PostgreSQL on 127.0.0.1, http://127.0.0.1:<port>/shop/globals.sql\n\
         \x20 2  globals          read the file; it must be one that pg_dumpall -g writes\n\
         \x20 3  roles            make the roles that it has on 127.0.0.1, and all about them; this cannot be undone\n\
         \x20 4  tablespaces      make its tablespaces, and all about them; this cannot be undone\n",
    );
    assert_eq!(production.roles(), "");
    let outcome = succeeds(site, &["-d", "-v", "init", &site.section()]);
    says(
        &plain(site, &outcome.stdout),
        "init shop.dev: roles made: 3, tablespaces made: 0 (run <run>, <seconds> s)\n",
    );
    assert_eq!(production.roles(), before);

    // Another time, one of them is missing, and another has an attribute that production's has not.
    let change = format!("DROP ROLE \"{odd}\"; ALTER ROLE {app} CONNECTION LIMIT 9 PASSWORD 'other';");
    site.cluster().psql("postgres", &change).unwrap();
    let outcome = succeeds(site, &["init", &site.section()]);
    let said = outcome.stdout.lines().collect::<Vec<_>>();
    assert_eq!(said[..2], [format!("role {app} exists already"), format!("role {group} exists already")]);
    assert!(said[2].starts_with(&format!("init {}: roles made: 1, ", site.section())), "{outcome}");
    assert_eq!(production.roles(), before);
    let outcome = succeeds(site, &["--json", "init", &site.section()]);
    let ended: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(ended["run"]["database"], Value::Null);
    assert_eq!(ended["steps"][2]["detail"]["outcome"]["existing"], 3);
    assert!(!outcome.stdout.contains("SCRAM"), "{outcome}");
    production.nothing_is_told();
    let rolled_back = site.run(&["rollback", last_run(site)["id"].as_str().unwrap(), "--yes"]).unwrap();
    says(
        &error(site, &rolled_back),
        "run <run> is succeeded: its step 'roles' took effect and cannot be taken back",
    );
}

#[test]
fn init_needs_no_pgbouncer_and_does_not_show_what_is_secret_in_the_url() {
    let mut production = Production::new();
    production.serve(&production.dumped());
    let (port, name) = (production.site.stage().nginx().unwrap().port(), production.site.dbname());
    let url = format!("http://user:hushhush@127.0.0.1:{port}/{name}/globals.sql?signature=hushhush");
    production.site.set("dumpall_url", &url).unwrap();
    production.site.bouncer_mut().stop().unwrap();
    let outcome = succeeds(&production.site, &["-d", "init", &production.site.section()]);
    assert_eq!(outcome.stdout.matches(" exists already\n").count(), 3, "{outcome}");
    assert!(!format!("{outcome}").contains("hushhush"), "{outcome}");
    production.site.remove_file("globals.sql").unwrap();
    let outcome = production.site.run(&["-d", "init", &production.site.section()]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    assert!(!format!("{outcome}").contains("hushhush"), "{outcome}");
    assert!(!is_in_files(&production.site.journal(), "hushhush"));
}

#[test]
fn a_statement_that_fails_is_named_and_not_shown_and_none_of_them_took_effect() {
    let production = Production::new();
    let (site, (app, _, group)) = (&production.site, production.names());
    let globals = production.dumped();
    let before = production.roles();
    let change = format!("ALTER ROLE {app} CONNECTION LIMIT 9;");
    site.cluster().psql("postgres", &change).unwrap();
    let changed = production.roles();
    assert_ne!(changed, before);
    let line = |start: &str| globals.lines().find(|line| line.starts_with(start)).unwrap();
    let number = |text: &str| text.lines().count() + 1;
    let alter = line(&format!("ALTER ROLE {app} WITH"));
    let (_, password) = alter.split_once("PASSWORD ").unwrap();
    let more = "mend what it needs on the target, or leave the statement out of the file, and init again";
    for (bad, what, why) in [
        (
            format!("GRANT {group} TO nobody_of_that_name;"),
            format!("GRANT {group}"),
            "role \"nobody_of_that_name\" does not exist [42704]".to_owned(),
        ),
        // The server quotes what it does not understand: here that is the verifier.
        (
            format!("ALTER ROLE {app} WITH {password}"),
            format!("ALTER ROLE {app}"),
            "syntax error at or near \"'…'\" [42601]".to_owned(),
        ),
    ] {
        let globals = format!("{globals}{bad}\n");
        production.serve(&globals);
        let outcome = site.run(&["-d", "init", &site.section()]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome}");
        let expected = format!(
            "init shop.dev failed, and what it had done is undone (run <run>): {what} (line {} of http://127.0.0.1:<port>/shop/globals.sql) failed\n\
             cause: {why}\n\
             hint: {more}",
            number(globals.trim_end()) - 1
        );
        assert!(error(site, &outcome).starts_with(&plain(site, &expected)), "{outcome}\n{expected}");
        assert_eq!(production.roles(), changed);
        production.nothing_is_told();
    }
}

#[test]
fn what_is_not_made_by_pg_dumpall_g_is_refused_before_anything_is_done() {
    let mut production = Production::new();
    let globals = production.dumped();
    let section = production.site.section();
    production.drop_roles();
    let all = production.site.cluster().client("pg_dumpall").args(["-s", "-l", "postgres"]).output().unwrap();
    assert!(all.status.success());
    let all = String::from_utf8(all.stdout).unwrap();
    let connect = all.lines().position(|line| line.starts_with("\\connect")).unwrap();
    // The roles of others are left out here as well.
    let rest = all.lines().skip(connect).map(|line| format!("{line}\n")).collect::<String>();
    let lines = globals.lines().count();
    for (script, what) in [
        (format!("{globals}{rest}"), format!("line {} has \\connect, which leads to a database", lines + 1)),
        (format!("DROP ROLE postgres;\n{globals}"), "line 1 has DROP ROLE".to_owned()),
        ("<html>Not found</html>".to_owned(), "line 1 has something that is no SQL".to_owned()),
        (
            "CREATE ROLE x;\nALTER ROLE x PASSWORD 'SCRAM-SHA-256$".to_owned(),
            "it ends within a statement, in line 2".to_owned(),
        ),
    ] {
        production.serve(&script);
        let outcome = production.site.run(&["init", &section]).unwrap();
        assert_eq!(outcome.code, 1, "{outcome}");
        says(
            &error(&production.site, &outcome),
            &format!(
                "init shop.dev failed before it changed anything (run <run>): http://127.0.0.1:<port>/shop/globals.sql is not what pg_dumpall -g writes: {what}\n\
                 hint: make it with pg_dumpall -g, which dumps roles and tablespaces only, and without --clean"
            ),
        );
        assert_eq!(production.roles(), "");
        production.nothing_is_told();
    }
    production.site.remove_file("globals.sql").unwrap();
    fails(
        &production.site,
        &["init", &section],
        6,
        "http://127.0.0.1:<port>/shop/globals.sql does not exist\n\
         hint: check dumpall_url",
    );
    production.site.unset("dumpall_url").unwrap();
    is_refused(
        &production.site,
        &["init", &section],
        2,
        "dumpall_url is not configured for [shop.dev]\n\
         hint: add `dumpall_url = /path/of/globals.sql` to [shop.dev] or [DEFAULT]",
    );
}

#[test]
fn an_init_that_is_killed_is_done_once_more_or_leaves_nothing() {
    let production = Production::new();
    let (site, (app, ..)) = (&production.site, production.names());
    production.serve(&production.dumped());
    let before = production.roles();
    production.drop_roles();
    for continued in [false, true] {
        // A role of that name that nobody sees yet: whoever makes another waits for what becomes of it.
        let sql = format!("BEGIN; CREATE ROLE {app}; SELECT pg_sleep(600);");
        let mut client = site.cluster().client("psql");
        let mut client =
            client.args(["-Xq", "-d", "postgres", "-c", &sql]).stderr(Stdio::null()).spawn().unwrap();
        let made = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'BEGIN; CREATE ROLE {app}%' AND wait_event = 'PgSleep'"
        );
        wait_until("the role to be made", LIMIT, || site.cluster().psql("postgres", &made).unwrap() == "1\n")
            .unwrap();
        let program = site.spawn(&["init", &site.section()]).unwrap();
        let waits = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE ROLE {app}%' AND wait_event_type = 'Lock'"
        );
        wait_until("init to wait", LIMIT, || site.cluster().psql("postgres", &waits).unwrap() == "1\n")
            .unwrap();
        program.kill().unwrap();
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'BEGIN; CREATE ROLE {app}%'"
        );
        let run = last_run(site)["id"].as_str().unwrap().to_owned();
        if continued {
            site.cluster().psql("postgres", &end).unwrap();
            let outcome = succeeds(site, &["continue", &run]);
            assert!(outcome.stdout.contains("roles made: 3,"), "{outcome}");
            assert_eq!(production.roles(), before);
        } else {
            succeeds(site, &["rollback", &run]);
            assert_eq!(last_run(site)["status"], "rolled_back");
            site.cluster().psql("postgres", &end).unwrap();
            assert_eq!(production.roles(), "");
        }
        client.wait().unwrap();
        production.nothing_is_told();
    }
}

#[test]
fn tablespaces_are_made_after_their_owners_and_one_that_cannot_be_made_stops_the_run() {
    let production = Production::new();
    let (site, (app, ..)) = (&production.site, production.names());
    let name = format!("{}_fast", site.dbname());
    let place = site.folder().join("tablespace");
    let globals = format!(
        "{}CREATE TABLESPACE {name} OWNER {app} LOCATION '{}';\nCOMMENT ON TABLESPACE {name} IS 'fast';\n",
        production.dumped(),
        place.display()
    );
    production.serve(&globals);
    production.drop_roles();
    let outcome = site.run(&["init", &site.section()]).unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    let said = error(site, &outcome);
    assert!(said.contains(&plain(site, &format!("CREATE TABLESPACE {name} (line "))), "{said}");
    assert!(said.contains("cause: directory \"…\" does not exist [58P01]"), "{said}");

    std::fs::create_dir(&place).unwrap();
    site.stage().scratch().account().own(&place).unwrap();
    let outcome = succeeds(site, &["continue", &site.section()]);
    assert!(outcome.stdout.contains("roles made: 3, tablespaces made: 1 "), "{outcome}");
    let sql = format!(
        "SELECT pg_get_userbyid(spcowner), shobj_description(oid, 'pg_tablespace') FROM pg_tablespace WHERE spcname = '{name}'"
    );
    assert_eq!(site.cluster().psql("postgres", &sql).unwrap(), format!("{app}|fast\n"));
    let outcome = succeeds(site, &["init", &site.section()]);
    assert!(outcome.stdout.contains(&format!("tablespace {name} exists already\n")), "{outcome}");
    site.cluster().psql("postgres", &format!("DROP TABLESPACE {name}")).unwrap();
}
