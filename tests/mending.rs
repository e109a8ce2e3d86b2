//! Runs that cannot help themselves, and the operator's word on them.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    gate::Gate,
    stage::{Site, SiteOptions, Stage},
    traces::{error, is_refused, json as ask, last_run, plain, says, succeeds},
};

/// The short id of the newest run.
fn newest_run(site: &Site<'_>) -> (String, String) {
    let history = site.run(&["history", "--json", "--limit", "1"]).unwrap();
    let json: Value = serde_json::from_str(&history.stdout).unwrap();
    let run = &json["runs"][0];
    (run["id"].as_str().unwrap().to_owned(), run["status"].as_str().unwrap().to_owned())
}

#[test]
fn a_run_whose_undo_cannot_be_done_is_stuck_until_the_operator_says_what_became_of_it() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.set("retry_limit", "0s").unwrap();
    site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    site.set("on_failure", "keep").unwrap();
    let before = site.bouncer().ini_bytes().unwrap();
    assert_eq!(site.run(&["restore", &site.section(), "20261121"]).unwrap().code, 3);
    let (run, status) = newest_run(&site);
    assert_eq!(status, "stopped");

    site.bouncer_mut().stop().unwrap();
    let stuck = site.run(&["rollback", &run]).unwrap();
    assert_eq!(stuck.code, 4, "{stuck:#?}");
    assert!(stuck.stderr.contains("could not undo: bouncer_add"), "{stuck:#?}");
    assert!(stuck.stderr.contains("pg_staging inspect"), "{stuck:#?}");
    assert_eq!(newest_run(&site).1, "stuck");

    // The operator takes the entry out by hand, and says so.
    site.bouncer().write_ini(&before).unwrap();
    site.bouncer_mut().start_again().unwrap();
    let resolved = site
        .run(&["resolve", &run, "bouncer_add", "--as", "undone", "--reason", "took it out by hand"])
        .unwrap();
    assert_eq!(resolved.code, 0, "{resolved:#?}");
    let rolled_back = site.run(&["rollback", &run]).unwrap();
    assert_eq!(rolled_back.code, 0, "{rolled_back:#?}");
    assert_eq!(newest_run(&site).1, "rolled_back");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    assert_eq!(site.bouncer().ini_bytes().unwrap(), before);
    assert!(fs::read_dir(site.tmpdir()).unwrap().next().is_none());
}

#[test]
fn an_abandoned_run_keeps_what_it_left_and_needs_a_yes() {
    let mut site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    site.add_sql("post", "01.sql", "SELECT 1/0").unwrap();
    site.set("on_failure", "keep").unwrap();
    assert_eq!(site.run(&["restore", &site.section(), "20261121"]).unwrap().code, 3);
    let (run, _) = newest_run(&site);

    let refused = site.run(&["abandon", &run, "--reason", "no use any more"]).unwrap();
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.stderr.contains("add --yes"), "{refused:#?}");
    assert_eq!(newest_run(&site).1, "stopped");

    let abandoned = site.run(&["abandon", &run, "--reason", "no use any more", "--yes"]).unwrap();
    assert_eq!(abandoned.code, 0, "{abandoned:#?}");
    assert_eq!(newest_run(&site).1, "abandoned");
    assert_eq!(site.copies().unwrap(), vec![site.copy("20261121")]);
    assert_eq!(site.run(&["continue", &run]).unwrap().code, 1);
}

/// The status of each run that changed something, oldest first.
fn statuses(site: &Site<'_>) -> Vec<String> {
    let answer = ask(site, &["history"]);
    let runs = answer["runs"].as_array().unwrap().iter().rev();
    runs.map(|run| run["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn all_runs_that_wait_are_continued_oldest_first_and_a_busy_one_is_skipped() {
    let options =
        SiteOptions { dates: vec!["2026-11-20".into(), "2026-11-21".into()], ..SiteOptions::default() };
    let mut site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    let section = site.section();
    let outcome = succeeds(&site, &["continue", "--all"]);
    assert_eq!(outcome.stdout, "no run waits to be continued\n");
    site.set("on_failure", "keep").unwrap();
    // The second one would find that the first has moved the alias meanwhile.
    site.set("auto_switch", "False").unwrap();
    let mistake = site.add_sql("pre", "01.sql", "SELECT 1/0").unwrap();
    for day in ["20261120", "20261121"] {
        assert_eq!(site.run(&["restore", &section, day]).unwrap().code, 3);
    }
    assert_eq!(statuses(&site), ["stopped", "stopped"]);
    // What fails again does not keep the next one from being tried.
    let outcome = site.run(&["continue", "--all"]).unwrap();
    assert_eq!(outcome.code, 3, "{outcome}");
    let tried: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("taken up again")).collect();
    assert_eq!(tried.len(), 2, "{outcome}");
    assert!(tried[0].contains("20261120") && tried[1].contains("20261121"), "{outcome}");
    let plan = succeeds(&site, &["continue", "--all", "-n"]);
    assert_eq!(plan.stdout.matches("would make these steps").count(), 2, "{plan}");
    fs::remove_file(mistake).unwrap();

    // A run at work holds the target.
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let first = ask(&site, &["history"])["runs"][1]["id"].as_str().unwrap().to_owned();
    let mut at_work = site.spawn(&["continue", &first]).unwrap();
    let waiting = gate.wait(&mut at_work);
    let outcome = site.run(&["continue", "--all"]).unwrap();
    assert_eq!(outcome.code, 5, "{outcome}");
    assert!(
        outcome.stderr.contains("restore") && outcome.stderr.contains("was not continued: busy"),
        "{outcome}"
    );
    gate.remove(&site, "post", "wait.sql");
    assert_eq!(at_work.kill().unwrap().code, 137);
    drop(waiting);
    assert_eq!(statuses(&site), ["interrupted", "stopped"]);

    let outcome = succeeds(&site, &["continue", "--all"]);
    let told: Vec<String> = plain(&site, &outcome.stdout).lines().map(str::to_owned).collect();
    assert_eq!(
        told,
        [
            "restore shop.dev: shop_20261120 (run <run>, <seconds> s)",
            "restore shop.dev: shop_20261121 (run <run>, <seconds> s)",
        ]
    );
    assert_eq!(statuses(&site), ["succeeded", "succeeded"]);
}

/// Runs the program on a terminal (script(1) gives it one), and types this.
pub fn on_a_terminal(site: &Site<'_>, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
    let program = site.command(arguments);
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &shlex::try_join(words).unwrap(), "/dev/null"]);
    script.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.current_dir(site.folder()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = script.spawn().unwrap();
    running.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn what_cannot_be_gone_back_on_is_asked_for_on_a_terminal_and_an_unfinished_run_is_undone_without_a_question()
{
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    succeeds(&site, &["createdb", &site.section(), "20261121"]);
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    let outcome = site.run(&["rollback", &id]).unwrap();
    assert_eq!(outcome.code, 2, "{outcome}");
    says(
        &error(&site, &outcome),
        "there is nobody to ask: Undo the finished createdb shop.dev 20261121 (run <run>)? \
         Then the copy goes.\n\
         hint: add --yes if this is meant",
    );
    let (code, said) = on_a_terminal(&site, &["rollback", &id], "n\n");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("[y/N]") && said.contains("nothing was done"), "{said}");
    assert_eq!(statuses(&site), ["succeeded"]);
    let (code, said) = on_a_terminal(&site, &["rollback", &id], "y\n");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(statuses(&site), ["rolled_back"]);

    site.add_sql("pre", "01.sql", "SELECT 1/0").unwrap();
    let mut site = site;
    site.set("on_failure", "keep").unwrap();
    assert_eq!(site.run(&["restore", &site.section(), "20261121"]).unwrap().code, 3);
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    // With -n nothing is asked and nothing done.
    let plan = succeeds(&site, &["abandon", &id, "--reason", "no use", "-n"]);
    assert!(plan.stdout.contains("would be abandoned"), "{plan}");
    let plan = succeeds(&site, &["resolve", &id, "switch", "--as", "absent", "--reason", "seen", "-n"]);
    assert!(plan.stdout.contains("switch would be resolved"), "{plan}");
    is_refused(
        &site,
        &["resolve", &id, "no_step", "--as", "absent", "--reason", "seen", "-n"],
        6,
        "run <run> has no step 'no_step'\nhint: pg_staging inspect <run> shows its steps",
    );
    assert_eq!(statuses(&site), ["rolled_back", "stopped"]);
    succeeds(&site, &["rollback", &id]);
    assert_eq!(statuses(&site), ["rolled_back", "rolled_back"]);
}
