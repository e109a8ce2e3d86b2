//! What the program says about itself: its commands, and the scripts by which shells complete what is typed.

use std::process::Command;

use clap::CommandFactory as _;
use pg_staging::{
    cli::{Cli, Group},
    console,
};
use serde_json::Value;

use crate::stage::{Site, SiteOptions, Stage, binary};

/// Without a home, a configuration or a journal that could be read.
fn alone(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary());
    command.env_clear().env("PG_STAGING_CONFIG", "/nowhere/pg_staging.ini").args(arguments);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_command_belongs_to_a_group() {
    let mut program = Cli::command();
    program.build();
    let without = |command: &&clap::Command| command.get_name() != "help" && Group::of(command).is_none();
    let found: Vec<&str> = program.get_subcommands().filter(without).map(clap::Command::get_name).collect();
    assert_eq!(found, Vec::<&str>::new(), "give each a display_order in src/cli.rs");
    let mut session = console::language();
    session.build();
    let of = |name: &str| session.find_subcommand(name).and_then(Group::of);
    for name in ["config", "set", "verbose", "quit"] {
        assert_eq!(of(name), Some(Group::Session), "{name}");
    }
}

#[test]
fn commands_are_listed_by_group_each_with_what_it_does() {
    let (code, text) = alone(&["commands"]);
    assert_eq!(code, 0);
    let (code, told) = alone(&["commands", "--json"]);
    assert_eq!(code, 0);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["schema"], 1);
    let listed = told["commands"].as_array().unwrap();
    let mut groups: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(':')).collect();
    let known: Vec<&str> = Group::ALL.iter().map(|group| group.name()).collect();
    assert!(groups.iter().all(|group| known.contains(group)), "{text}");
    groups.dedup();
    assert_eq!(groups.first(), Some(&"main operation"));
    let program = Cli::command();
    assert_eq!(listed.len(), program.get_subcommands().count());
    for command in program.get_subcommands() {
        let (name, about) = (command.get_name(), command.get_about().unwrap().to_string());
        let row = listed.iter().find(|row| row["command"] == name).unwrap();
        assert_eq!(
            (&row["about"], &row["group"]),
            (&about.clone().into(), &Group::of(command).unwrap().name().into())
        );
        let line = |line: &&str| line.starts_with(&format!("  {name} ")) && line.ends_with(&about);
        assert_eq!(text.lines().filter(line).count(), 1, "{name}: {text}");
    }
    let restore = listed.iter().find(|row| row["command"] == "restore").unwrap();
    assert_eq!(
        (&restore["arguments"], &restore["group"]),
        (&"<dbname> [date]".into(), &"main operation".into())
    );
}

/// The program's words for completing, as bash itself finds them.
fn bash(line: &[&str]) -> Vec<String> {
    let words = line.iter().map(|word| shlex::try_quote(word).unwrap()).collect::<Vec<_>>().join(" ");
    let script = format!(
        "source <(\"$PROGRAM\" completions bash)\n\
         complete -p pg_staging >&2\n\
         COMP_WORDS=({words}); COMP_CWORD=$(({} - 1)); COMP_LINE=\"${{COMP_WORDS[*]}}\"; COMP_POINT=${{#COMP_LINE}}\n\
         _pg_staging pg_staging \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        line.len(),
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .env("PROGRAM", binary())
        .env("PG_STAGING_CONFIG", "/nowhere/pg_staging.ini")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("-F _pg_staging pg_staging"), "{said}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    assert_eq!(bash(&["pg_staging", "swi"]), ["switch"]);
    assert_eq!(bash(&["pg_staging", "drop", "--fo"]), ["--force"]);
    assert_eq!(bash(&["pg_staging", "history", "--status", "run"]), ["running"]);
    let offered = bash(&["pg_staging", ""]);
    for command in Cli::command().get_subcommands() {
        assert!(offered.contains(&command.get_name().to_owned()), "{}: {offered:?}", command.get_name());
    }
}

#[test]
fn the_scripts_for_other_shells_are_ones_that_those_read() {
    for shell in ["zsh", "fish"] {
        let (code, script) = alone(&["completions", shell]);
        assert_eq!(code, 0);
        for command in Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("completions");
        std::fs::write(&path, script).unwrap();
        // Where the shell is there, it says itself.
        if let Ok(output) = Command::new(shell).arg("-n").arg(&path).output() {
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let refused = site.run(&["completions", "tcsh"]).unwrap();
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("[possible values: bash, zsh, fish]"), "{refused}");
}
