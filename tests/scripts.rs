//! Commands on standard input, one a line.

use std::{
    fs,
    io::{PipeWriter, Write as _, pipe},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    gate::Gate,
    stage::{Outcome, Program, Site, SiteOptions, Stage},
    traces::{Traces, error, json, last_run, plain},
};

const DAY: &str = "20261121";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// The program with these options, and a pipe to write its script into.
fn begun(site: &Site<'_>, options: &[&str]) -> (Program, PipeWriter) {
    let (theirs, ours) = pipe().unwrap();
    let program = site.spawn_command(site.command(options).stdin(theirs)).unwrap();
    (program, ours)
}

/// What comes of a script, in which `SECTION` stands for the site's section.
fn script(site: &Site<'_>, options: &[&str], text: &str) -> Outcome {
    let (program, mut lines) = begun(site, options);
    lines.write_all(text.replace("SECTION", &site.section()).as_bytes()).unwrap();
    drop(lines);
    program.wait().unwrap()
}

/// The names of the commands in the journal, oldest first.
fn done(site: &Site<'_>) -> Vec<String> {
    let runs = json(site, &["history", "--limit", "100"])["runs"].as_array().unwrap().clone();
    runs.iter().rev().map(|run| run["command"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lines_are_commands_with_quotes_comments_and_nothing_on_them() {
    let site = site();
    let text = "# makes a copy\n\n  createdb SECTION 20261120 # today's comes later\n\
                pg_staging createdb 'SECTION' \"2026-11-21\"\n   \n\
                switch SECTION 20261120#not\n";
    let outcome = script(&site, &[], text);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("`20261120#not` is not a date"), "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy("20261120"), site.copy("20261121")]);
    let outcome = script(&site, &[], "switch SECTION latest\ndrop SECTION \\2026112\\0");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy("20261121")]);
    assert_eq!(site.active().unwrap(), Some(site.copy("20261121")));
}

#[test]
fn the_first_failure_ends_a_script_with_its_code_and_its_line() {
    let site = site();
    let outcome = script(
        &site,
        &[],
        "createdb SECTION 20261120\n\ncreatedb SECTION 20261120\nswitch SECTION 20261120\n",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    let said = error(&site, &outcome);
    let last = said.lines().last().unwrap();
    assert_eq!(last, "stopped at line 3: createdb shop.dev 20261120", "{outcome}");
    assert_eq!(done(&site), ["createdb", "createdb"]);
    for (text, code, said) in [
        ("switch SECTION 20010101\nquit\n", 6, "stopped at line 1: switch shop.dev 20010101"),
        ("# one\nswitch shoop.dev\nhistory\n", 6, "stopped at line 2: switch shoop.dev"),
        ("switch 'SECTION\nhistory\n", 2, "stopped at line 1: switch 'shop.dev"),
        ("history\nhistory \\", 2, "stopped at line 2: history \\"),
        ("histry\n", 2, "stopped at line 1: histry"),
        ("switch\n", 2, "stopped at line 1: switch"),
        (
            "inspect 1 --journal postgres://u:secret@h/j?lease=0s\n",
            2,
            "stopped at line 1: inspect 1 --journal postgres://***@h/j?***",
        ),
    ] {
        let outcome = script(&site, &[], text);
        assert_eq!(outcome.code, code, "{outcome}");
        assert_eq!(plain(&site, &outcome.stderr).lines().last().unwrap(), said, "{outcome}");
    }
    let outcome = script(&site, &[], "rolback\n");
    assert!(outcome.stderr.contains("a similar subcommand exists: 'rollback'"), "{outcome}");
    let outcome = script(&site, &[], "switch 'SECTION\n");
    assert!(outcome.stderr.starts_with("error: the line ends inside a quotation"), "{outcome}");
}

#[test]
fn an_import_does_not_take_the_rest_of_the_script_for_an_export() {
    let site = site();
    let outcome = script(&site, &[], "journal import\njournal path\n");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{outcome}");
    assert!(outcome.stderr.contains("which holds the script"), "{outcome}");
    assert!(!site.journal().exists());
}

#[test]
fn an_empty_script_and_one_that_quits_end_well() {
    let site = site();
    for text in ["", "\n# nothing\n", "quit\nhistry\n", "exit\nhistry\n"] {
        let outcome = script(&site, &[], text);
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (0, "", ""), "{text}");
    }
    assert_eq!(site.run(&[]).unwrap().code, 0);
}

#[test]
fn a_line_is_carried_out_before_the_next_one_is_there() {
    let site = site();
    let (mut program, mut lines) = begun(&site, &[]);
    writeln!(lines, "createdb {} {DAY}", site.section()).unwrap();
    program.wait_until_it_says("(run ").unwrap();
    program.wait_until_it_says(&format!("createdb {}: {}", site.section(), site.copy(DAY))).unwrap();
    writeln!(lines, "drop {} {DAY}", site.section()).unwrap();
    program.wait_until_it_says("is gone").unwrap();
    assert!(program.is_running().unwrap());
    drop(lines);
    assert_eq!(program.wait().unwrap().code, 0);
}

#[test]
fn options_of_the_program_hold_for_all_lines_and_those_of_a_line_for_it() {
    let site = site();
    let before = Traces::of(&site);
    let outcome = script(&site, &["-n", "--json"], "createdb SECTION 20261120\nfetch SECTION 20261121\n");
    assert_eq!(outcome.code, 0, "{outcome}");
    let plans: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let commands: Vec<&Value> = plans.iter().map(|plan| &plan["plan"]["command"]).collect();
    assert_eq!(commands, ["createdb", "fetch"]);
    assert_eq!(Traces::of(&site), before);

    let outcome =
        script(&site, &["-q"], "-n createdb SECTION 20261120\ncreatedb SECTION 20261121\nhistory --json\n");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(site.copies().unwrap(), [site.copy("20261121")]);
    assert_eq!(outcome.stderr, "");
    let history: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(history["runs"].as_array().unwrap().len(), 1, "{outcome}");
    assert!(outcome.stdout.starts_with("createdb "), "{outcome}");

    // An error of a line is JSON where the result would be.
    let outcome = script(&site, &["--json"], "switch shoop.dev\n");
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((outcome.code, &told["error"]["code"]), (6, &Value::from(6)));
}

#[test]
fn another_configuration_holds_for_a_line_or_from_there_on() {
    let site = site();
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    fs::write(site.folder().join("other.ini"), ini.replace(&site.section(), "other.dev")).unwrap();
    let text = "-c other.ini createdb other.dev 20261119\ncreatedb SECTION 20261120\nconfig other.ini\n\
                createdb other.dev 20261121\ncreatedb SECTION 20261122\n";
    let outcome = script(&site, &[], text);
    assert_eq!(outcome.code, 6, "{outcome}");
    let made = ["20261119", "20261120", "20261121"].map(|day| site.copy(day));
    assert_eq!(site.copies().unwrap(), made, "{outcome}");
    assert!(outcome.stderr.contains("hint: the sections are other.dev"), "{outcome}");
    // A file that cannot be read changes nothing, and ends the script.
    let outcome = script(&site, &[], "config none.ini\nhistory\n");
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.starts_with("error: cannot read none.ini"), "{outcome}");
}

#[test]
fn what_is_set_holds_for_the_lines_that_follow_and_no_longer() {
    let site = site();
    let ini = fs::read(site.ini_path()).unwrap();
    let text = "set SECTION auto_switch False\nrestore SECTION 20261121\nset SECTION Keep_Bases 7\n\
                get SECTION keep_bases\n";
    let outcome = script(&site, &[], text);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.ends_with("\n7\n"), "{outcome}");
    assert!(outcome.stderr.contains("set in this session"), "{outcome}");
    assert_eq!((site.copies().unwrap(), site.active().unwrap()), (vec![site.copy(DAY)], None));
    assert_eq!(fs::read(site.ini_path()).unwrap(), ini);
    for (line, code, said) in [
        (
            "set SECTION keep_bases many",
            2,
            "option keep_bases (set in this session): `many` is not a whole number from 0",
        ),
        ("set SECTION journal %(x", 2, "does not follow the rules for `%`"),
        ("set shoop.dev keep_bases 1", 6, "no section [shoop.dev]"),
        ("set SECTION tmpdri /tmp", 0, "tmpdri is not an option of pg_staging"),
        ("set SECTION ssh_options '-o BatchMode=yes'", 0, ""),
    ] {
        let outcome = script(&site, &[], line);
        assert_eq!(outcome.code, code, "{line}: {outcome}");
        assert!(outcome.stderr.contains(said), "{line}: {outcome}");
    }
    let mut command = site.command(&[]);
    let (theirs, mut ours) = pipe().unwrap();
    command.env("PG_STAGING_CONFIG", "").stdin(theirs);
    writeln!(ours, "set {} keep_bases 1", site.section()).unwrap();
    drop(ours);
    assert_eq!(site.spawn_command(&mut command).unwrap().wait().unwrap().code, 0);
}

#[test]
fn programs_that_a_line_starts_do_not_read_the_script() {
    let site = site();
    site.add_sql("post", "reads.sql", "\\! cat > eaten\n").unwrap();
    let text =
        format!("restore SECTION {DAY}\npsql SECTION\npsql SECTION -- -Atc 'SELECT 40 + 2'\nhistory\n");
    let outcome = script(&site, &[], &text);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.contains("\n42\n"), "{outcome}");
    assert!(outcome.stdout.contains("succeeded"), "{outcome}");
    assert_eq!(fs::read(site.folder().join("eaten")).unwrap(), b"");
}

#[test]
fn a_signal_stops_the_command_at_work_and_with_it_the_script() {
    let site = site();
    let section = site.section();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (mut program, mut lines) = begun(&site, &[]);
        write!(lines, "restore {section} {DAY}\ncreatedb {section} 20261119\n").unwrap();
        let waiting = gate.wait(&mut program);
        program.signal(signal).unwrap();
        if signal == Signal::INT {
            program.wait_until_it_says("stopping at the next safe point").unwrap();
        }
        drop(waiting);
        let outcome = program.wait().unwrap();
        assert_eq!(outcome.code, code, "{outcome}");
        let said = plain(&site, &outcome.stderr);
        assert!(said.contains(&format!("stopped at line 1: restore shop.dev {DAY}")), "{outcome}");
        let run = last_run(&site);
        assert_eq!((&run["command"], &run["status"]), (&"restore".into(), &"stopped".into()));
        assert_eq!(site.run(&["rollback", run["id"].as_str().unwrap()]).unwrap().code, 0);
        assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    }
    // Between two lines there is nothing to stop but the script.
    let (mut program, mut lines) = begun(&site, &[]);
    writeln!(lines, "history").unwrap();
    program.wait_until_it_says("RUN").unwrap();
    program.signal(Signal::TERM).unwrap();
    assert_eq!(program.wait().unwrap().code, 143);
}
