//! `psql` hands the terminal over, and gets it back.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::{
    stage::{Key, Site, SiteOptions, Stage, Terminal, wait_until},
    traces::{Traces, error, json as ask, plain, says, succeeds},
};

const DAY: &str = "20261121";

/// A site with an active copy.
fn site() -> Site<'static> {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    succeeds(&site, &["createdb", &site.section(), DAY]);
    succeeds(&site, &["switch", &site.section(), DAY]);
    site
}

fn last_question(site: &Site<'_>) -> Value {
    ask(site, &["history", "--all", "--limit", "1"])["runs"][0].clone()
}

/// psql on a terminal, at its first prompt.
fn at_its_prompt(site: &Site<'_>) -> Terminal {
    let mut terminal = Terminal::start(site.stage(), site.command(&["psql", &site.section()])).unwrap();
    terminal.wait_until_it_shows(&prompt(site)).unwrap();
    terminal
}

fn prompt(site: &Site<'_>) -> String {
    format!("{}=# ", site.copy(DAY))
}

#[test]
fn on_a_terminal_psql_is_in_the_copy_and_its_end_is_ours() {
    let site = site();
    let mut terminal = at_its_prompt(&site);
    // Recorded before it began.
    let run = last_question(&site);
    assert_eq!((&run["command"], &run["status"]), (&json!("psql"), &json!("running")));
    terminal.send_line("SELECT current_database(), current_user, 6 * 7 AS answer \\gx").unwrap();
    terminal.wait_until_it_shows(&format!("current_database | {}", site.copy(DAY))).unwrap();
    terminal.wait_until_it_shows("current_user     | postgres").unwrap();
    terminal.wait_until_it_shows("42").unwrap();
    terminal.wait_until_it_shows(&prompt(&site)).unwrap();
    // By way of pgbouncer.
    let clients = site.bouncer().admin("SHOW CLIENTS").unwrap();
    assert!(clients.lines().any(|line| line.contains(&site.copy(DAY))), "{clients}");
    terminal.send_line("\\q").unwrap();
    let (code, shown) = terminal.wait().unwrap();
    assert_eq!(code, 0, "{shown}");
    assert_eq!(last_question(&site)["status"], "succeeded");
    assert_eq!(last_question(&site)["arguments"], json!([site.section()]));
}

#[test]
fn control_c_ends_the_query_and_not_us() {
    let site = site();
    let mut terminal = at_its_prompt(&site);
    for _ in 0..3 {
        terminal.send_line("SELECT pg_sleep(600);").unwrap();
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ '^SELECT pg_sleep.600' AND datname = ";
        let asleep = format!("{asleep}'{}'", site.copy(DAY));
        wait_until("psql to be asleep", Duration::from_secs(60), || {
            site.cluster().psql("postgres", &asleep).unwrap() == "1\n"
        })
        .unwrap();
        terminal.press(Key::Interrupt).unwrap();
        terminal.wait_until_it_shows("canceling statement due to user request").unwrap();
        terminal.wait_until_it_shows(&prompt(&site)).unwrap();
    }
    // At the prompt as well.
    terminal.send("SELECT nonsense").unwrap();
    terminal.press(Key::Interrupt).unwrap();
    terminal.wait_until_it_shows(&prompt(&site)).unwrap();
    assert_eq!(last_question(&site)["status"], "running");
    terminal.press(Key::EndOfInput).unwrap();
    let (code, shown) = terminal.wait().unwrap();
    assert_eq!(code, 0, "{shown}");
    assert!(!shown.contains("stopping at the next safe point"), "{shown}");
    assert_eq!(last_question(&site)["status"], "succeeded");
}

#[test]
fn a_query_that_control_c_ends_is_the_end_of_a_psql_that_has_no_more_to_do() {
    let site = site();
    let arguments =
        ["psql", &site.section(), "--", "-c", "SELECT 'as' || 'leep'", "-c", "SELECT pg_sleep(600)"];
    let mut terminal = Terminal::start(site.stage(), site.command(&arguments)).unwrap();
    terminal.wait_until_it_shows("asleep").unwrap();
    terminal.press(Key::Interrupt).unwrap();
    let (code, shown) = terminal.wait().unwrap();
    assert!(code == 1 || code == 130, "{code}: {shown}");
    assert_eq!(last_question(&site)["status"], "failed");
}

/// A shell on a terminal, with this script and the program's command line as its first argument.
fn shell(site: &Site<'_>, script: &str) -> Terminal {
    let program = site.command(&["psql", &site.section()]);
    let mut shell = Command::new("sh");
    shell.env_clear().current_dir(site.folder());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());
    Terminal::start(site.stage(), shell).unwrap()
}

/// The process id of the psql that is at its prompt.
fn psql_of(site: &Site<'_>, terminal: &mut Terminal) -> u32 {
    terminal.send_line("\\! echo below: $PPID.").unwrap();
    // First as it was typed, then as it was said.
    terminal.wait_until_it_shows("below: $").unwrap();
    terminal.wait_until_it_shows("below: ").unwrap();
    terminal.wait_until_it_shows(&prompt(site)).unwrap();
    let shown = terminal.shown().unwrap();
    shown.rsplit_once("below: ").unwrap().1.split_once('.').unwrap().0.parse().unwrap()
}

#[test]
fn a_shell_has_its_terminal_back_also_when_psql_was_killed() {
    let site = site();
    let script = r#""$@"; echo "first ended: $?"; "$@"; echo "second ended: $?"; read -r line; echo "<$line>"; stty -a"#;
    let mut terminal = shell(&site, script);
    terminal.wait_until_it_shows(&prompt(&site)).unwrap();
    terminal.send_line("\\q").unwrap();
    terminal.wait_until_it_shows("first ended: 0").unwrap();

    terminal.wait_until_it_shows(&prompt(&site)).unwrap();
    // It waits for a line, and has set the terminal up for that.
    let psql = psql_of(&site, &mut terminal);
    let pid = Pid::from_raw(psql.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    terminal.wait_until_it_shows("error: psql ended with signal: 9 (SIGKILL)").unwrap();
    terminal.wait_until_it_shows("second ended: 1").unwrap();
    assert_eq!(terminal.foreground().unwrap(), terminal.pid());
    terminal.send_line("ours again").unwrap();
    terminal.wait_until_it_shows("<ours again>").unwrap();
    let (_, shown) = terminal.wait().unwrap();
    let modes = shown.rsplit_once("<ours again>").unwrap().1;
    for mode in ["icanon", "echo", "isig"] {
        assert!(modes.split_whitespace().any(|word| word == mode), "{modes}");
    }
}

#[test]
fn a_shell_stops_and_continues_us_and_psql_together() {
    let site = site();
    let script = r#"set -m; "$@"; echo "stopped: $?"; read -r line; fg %1 > /dev/null; echo "ended: $?""#;
    let mut terminal = shell(&site, script);
    terminal.wait_until_it_shows(&prompt(&site)).unwrap();
    assert_ne!(terminal.foreground().unwrap(), terminal.pid());
    terminal.press(Key::Suspend).unwrap();
    terminal.wait_until_it_shows("stopped: ").unwrap();
    assert_eq!(terminal.foreground().unwrap(), terminal.pid());
    assert_eq!(last_question(&site)["status"], "running");
    terminal.send_line("go on").unwrap();
    terminal.send_line("SELECT 6 * 7 AS answer \\gx").unwrap();
    terminal.wait_until_it_shows("answer | 42").unwrap();
    terminal.send_line("\\q").unwrap();
    terminal.wait_until_it_shows("ended: 0").unwrap();
    assert_eq!(terminal.wait().unwrap().0, 0);
    assert_eq!(last_question(&site)["status"], "succeeded");
}

#[test]
fn sigterm_ends_psql_and_then_us() {
    let site = site();
    let mut terminal = at_its_prompt(&site);
    let psql = psql_of(&site, &mut terminal);
    terminal.signal(Signal::TERM).unwrap();
    let (code, shown) = terminal.wait().unwrap();
    assert_eq!(code, 143, "{shown}");
    assert!(!fs::exists(format!("/proc/{psql}")).unwrap());
    let run = last_question(&site);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!(143)));
}

#[test]
fn psql_ends_with_us_when_we_are_killed() {
    let site = site();
    let mut terminal = at_its_prompt(&site);
    terminal.signal(Signal::KILL).unwrap();
    let clients = || site.bouncer().admin("SHOW CLIENTS").unwrap();
    wait_until("psql to end", Duration::from_secs(60), || {
        !clients().lines().any(|line| line.contains(&site.copy(DAY)))
    })
    .unwrap();
    terminal.shown().unwrap();
    assert_eq!(terminal.wait().unwrap().0, 137);
    assert_eq!(last_question(&site)["status"], "interrupted");
}

#[test]
fn without_a_terminal_psql_reads_standard_input_and_its_status_is_mapped() {
    let site = site();
    let section = site.section();
    let piped = |arguments: &[&str], input: &str| {
        let mut command = site.command(arguments);
        let path = site.folder().join("input.sql");
        fs::write(&path, input).unwrap();
        command.stdin(Stdio::from(fs::File::open(&path).unwrap()));
        site.spawn_command(&mut command).unwrap().wait().unwrap()
    };
    let outcome = piped(&["psql", &section, "--", "-At"], "SELECT current_database();\nSELECT 1;\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, format!("{}\n1\n", site.copy(DAY)).as_str()));
    assert_eq!(outcome.stderr, "");
    // An error in a script that goes on is psql's to tell.
    let outcome = piped(&["psql", &section], "SELECT nonsense;\n");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("column \"nonsense\" does not exist"), "{outcome}");

    let outcome = piped(&["psql", &section, "--", "-v", "ON_ERROR_STOP=1"], "SELECT nonsense;\n");
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = "psql ended with exit status: 3\ncause: an error in a script, with ON_ERROR_STOP set";
    says(&error(&site, &outcome), told);
    let run = last_question(&site);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!(1)));
    let outcome = piped(&["psql", &section, "--", "-f", "/nonexistent"], "");
    says(&error(&site, &outcome), "psql ended with exit status: 1\ncause: a fatal error of its own");
    // A copy that pgbouncer has no entry for.
    site.cluster().psql("postgres", &format!("CREATE DATABASE {}", site.copy("20261130"))).unwrap();
    let outcome = piped(&["psql", &section, "20261130"], "");
    assert_eq!(outcome.code, 1, "{outcome}");
    let told = error(&site, &outcome);
    says(&told, "psql ended with exit status: 2\ncause: the connection could not be made, or went bad");
}

#[test]
fn psql_takes_a_date_and_says_what_is_missing() {
    let mut site = site();
    let section = site.section();
    succeeds(&site, &["createdb", &section, "20261120"]);
    let asked = ["--", "-Atc", "SELECT current_database()"];
    for date in ["20261120", "oldest"] {
        let outcome = succeeds(&site, &[&["psql", &section, date], &asked[..]].concat());
        assert_eq!(outcome.stdout, format!("{}\n", site.copy("20261120")));
    }
    let outcome = site.run(&["psql", &section, "20261231"]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    says(
        &error(&site, &outcome),
        "there is no database shop_20261231 on 127.0.0.1\n\
         hint: pg_staging databases shop.dev lists those there are",
    );
    // `-n` shows what would be run.
    let before = Traces::of(&site);
    let outcome = succeeds(&site, &["-n", "psql", &section, "--", "-c", "CREATE TABLE t ()"]);
    says(
        &plain(&site, &outcome.stdout),
        "would run <bin>/psql '--dbname=host=127.0.0.1 hostaddr='\\'''\\'' port=<port> user=postgres dbname=shop_20261121' \
         -c 'CREATE TABLE t ()'\n",
    );
    assert_eq!(Traces::of(&site), before);

    site.set("pg_restore", "/nonexistent/pg_restore").unwrap();
    let outcome = site.run(&["psql", &section]).unwrap();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(error(&site, &outcome).starts_with("cannot run /nonexistent/psql\ncause: "), "{outcome}");
}
