//! The README tells the truth: its configuration loads, its commands are those there are, its links lead somewhere.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use pg_staging::cli::Cli;
use pg_staging::config::{Config, DefaultValue, OPTIONS};
use regex::Regex;

use crate::stage::{Conduct, Outcome, Serving, Site, SiteOptions, Stage};
use crate::traces::plain;

const README: &str = include_str!("../README.md");

/// The content of the fenced blocks that begin with ```` ```<language> ````.
fn blocks(language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        let Some(is) = line.strip_prefix("```") else { continue };
        let block: String =
            lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        if is == language {
            found.push(block);
        }
    }
    found
}

/// The rows of the table under that heading, cell by cell.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, after) = README.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let rows =
        after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

#[test]
fn the_configuration_in_the_readme_loads_and_shows_every_option() {
    let ini = blocks("ini").concat();
    let config = Config::parse(Path::new("README.md"), ini.as_bytes()).unwrap();
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, Vec::<String>::new());
    let sections: Vec<&str> = config.sections().collect();
    assert_eq!(sections, ["shop.dev", "crm.dev"]);
    for section in sections {
        let target = config.target(section, Some(Path::new("/root"))).unwrap();
        assert_eq!(format!("{}.dev", target.dbname), section);
    }
    let shown = |name: &str| {
        ini.lines().any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
        })
    };
    let missing: Vec<&str> = OPTIONS.iter().map(|option| option.name).filter(|name| !shown(name)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "options that the README does not show");
}

#[test]
fn the_defaults_in_the_readme_are_the_programs() {
    let ini = blocks("ini").concat();
    for line in ini.lines().filter_map(|line| line.strip_prefix("# ")) {
        let (name, value) = line.split_once('=').unwrap();
        let option = pg_staging::config::option(name.trim()).unwrap();
        let DefaultValue::Value(default) = option.default else { panic!("{line}: there is no default") };
        assert_eq!(default, value.trim(), "{line}");
    }
}

#[test]
fn the_commands_in_the_readme_are_those_there_are() {
    let told: Vec<Vec<String>> = table("Commands");
    let rows = |command: &clap::Command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        vec![format!("`{}`", command.get_name()), about]
    };
    let there: Vec<Vec<String>> = Cli::command().get_subcommands().map(rows).collect();
    assert_eq!(told, there);
}

#[test]
fn every_command_line_in_the_readme_can_be_typed() {
    let blocks = blocks("");
    let typed = blocks.iter().flat_map(|block| block.lines()).filter_map(|line| {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        line.starts_with("pg_staging ").then_some(line)
    });
    let mut count = 0;
    for line in typed {
        // A comment ends the words; `&` and `>` are the shell's.
        let words = shlex::split(line).unwrap_or_else(|| panic!("quoting: {line}"));
        let words = words.into_iter().take_while(|word| word != "&" && word != ">");
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert!(count > 10, "{count} command lines were found");
}

#[test]
fn the_files_that_the_readme_names_are_there() {
    let links = README.split("](").skip(1).filter_map(|after| after.split_once(')')).map(|(link, _)| link);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<&str> = links.filter(|link| !root.join(link).exists()).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn the_make_targets_in_the_readme_are_there() {
    let makefile = include_str!("../Makefile");
    for target in ["demo", "test"] {
        assert!(README.contains(&format!("\nmake {target}\n")));
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
}

/// The session of the README, typed again; what it shows differs in times, ids and paths only.
#[test]
fn the_session_in_the_readme_is_what_the_program_prints() {
    let options = SiteOptions {
        dates: vec!["2026-11-20".into(), "2026-11-21".into()],
        serving: Serving::Rude,
        ..SiteOptions::default()
    };
    let site = Site::new(Stage::shared().unwrap(), &options).unwrap();
    let section = site.section();
    site.add_sql("post", "10-masking.sql", "SELECT 1").unwrap();
    let mut printed = String::new();
    let mut typed = |arguments: &[&str]| printed.push_str(&typed(&site, arguments));

    typed(&["restore", &section, "20261120"]);
    killed_half_way(&site);
    typed(&["history"]);
    let history = site.run(&["history"]).unwrap().stdout;
    let run = history.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap().to_owned();
    typed(&["inspect", &run]);
    typed(&["continue", &section]);
    typed(&["rollback", &run, "--yes"]);

    let session = blocks("").into_iter().skip_while(|block| !block.starts_with("$ pg_staging restore"));
    let told: Vec<String> = session.map(|block| alike(&site, &block)).collect();
    let (first, then) = told.split_first().unwrap();
    let (second, last) = then.split_first().unwrap();
    // What the killed restore said is the program's as well, but `kill` and the number of bytes are not.
    let (_, after_the_kill) = second.split_once("$ kill").unwrap();
    let (_, second) = after_the_kill.split_once('\n').unwrap();
    assert_eq!(alike(&site, &printed), [&[first.clone(), second.to_owned()], last].concat().concat());
}

/// What was typed, and what the program said.
fn typed(site: &Site<'_>, arguments: &[&str]) -> String {
    let Outcome { code, stdout, stderr } = site.run(arguments).unwrap();
    assert_eq!(code, 0, "{stderr}");
    format!("$ pg_staging {}\n{stderr}{stdout}", arguments.join(" "))
}

/// A restore of the second day, killed when no more comes than the first half of the dump.
fn killed_half_way(site: &Site<'_>) {
    let (rude, dump) =
        (site.rude().unwrap(), format!("/{}/{}", site.dbname(), site.backup_name("2026-11-21")));
    let half = std::fs::metadata(site.dump()).unwrap().len() / 2;
    rude.plan(&dump, Conduct::StallAt(half));
    let mut program = site.spawn(&["restore", &site.section(), "20261121"]).unwrap();
    rude.wait_until_stalled(&dump, Duration::from_secs(60)).unwrap();
    program.wait_until_it_says("catalog").unwrap();
    program.kill().unwrap();
    rude.behave(&dump);
}

/// A text without what differs from one session to the next.
pub fn alike(site: &Site<'_>, text: &str) -> String {
    let rules = [
        (r"<site>/sql", "/etc/pg_staging/sql"),
        (r"<site>/journal", "/var/lib/pg_staging"),
        (r"damaged\.\d{8}T\d{6}Z", "damaged.<when>"),
        (r"(?m)^ ?[0-9a-f]{8}\b", "<run>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<when>"),
        (r"\S+@\S+", "<who>"),
        (r"(?m)^run +[0-9a-f]{8} ", "run <run> "),
        // Progress is told at a human pace, so a quick machine tells less of it.
        (r"(?m)^ +\w+: \d+ of \d+ files\n", ""),
        (r"[ ]+", " "),
    ];
    rules.iter().fold(plain(site, text), |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, *with).into_owned()
    })
}
