//! The console, on a real terminal: what somebody types, and sees.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use clap::CommandFactory as _;
use pg_staging::{cli::Cli, console};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    gate::{Gate, Waiting},
    stage::{Key, Scale, Site, SiteOptions, Stage, Terminal, fingerprint, source_database, wait_until},
    traces::{json, last_run},
};

const DAY: &str = "20261121";
const PROMPT: &str = "pg_staging> ";

fn site() -> Site<'static> {
    Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap()
}

/// A console on a terminal.
struct Console<'s> {
    site: &'s Site<'static>,
    terminal: Terminal,
}

impl<'s> Console<'s> {
    fn open(site: &'s Site<'static>, options: &[&str]) -> Console<'s> {
        Console::of(site, site.command(options))
    }

    /// With a terminal whose user has no configuration but what is named later.
    fn of(site: &'s Site<'static>, command: Command) -> Console<'s> {
        let terminal = Terminal::start(site.stage(), command).unwrap();
        let mut console = Console { site, terminal };
        console.shows(PROMPT);
        console
    }

    #[track_caller]
    fn shows(&mut self, text: &str) {
        self.terminal.wait_until_it_shows(text).unwrap();
    }

    /// Types a line, and waits until this is shown and the prompt is back.
    #[track_caller]
    fn answers(&mut self, line: &str, text: &str) {
        self.terminal.send_line(&line.replace("SECTION", &self.site.section())).unwrap();
        if !text.is_empty() {
            self.shows(&text.replace("SECTION", &self.site.section()));
        }
        self.shows(PROMPT);
    }

    /// Types a line as far as it goes, and presses TAB until this is shown; then gives the line up.
    #[track_caller]
    fn completes(&mut self, line: &str, text: &str) {
        self.terminal.send(&line.replace("SECTION", &self.site.section())).unwrap();
        self.terminal.press(Key::Tab).unwrap();
        self.shows(&text.replace("SECTION", &self.site.section()));
        self.terminal.press(Key::Interrupt).unwrap();
        self.shows(PROMPT);
    }

    /// Waits until the run stands at the gate.
    fn waits_at(&mut self, gate: &Gate) -> Waiting {
        let mut waiting = None;
        wait_until("the run to stand at the gate", std::time::Duration::from_secs(120), || {
            // A terminal that nobody reads holds up whoever writes to it.
            self.terminal.shown().unwrap();
            waiting = gate.reached();
            waiting.is_some()
        })
        .unwrap();
        waiting.unwrap()
    }

    /// Leaves with ^D.
    #[track_caller]
    fn left(mut self) -> String {
        self.terminal.press(Key::EndOfInput).unwrap();
        let (code, shown) = self.terminal.wait().unwrap();
        assert_eq!(code, 0, "{shown}");
        shown
    }
}

/// The newest run's id, as people see it.
fn shown_id(site: &Site<'_>) -> String {
    let history = site.run(&["history"]).unwrap().stdout;
    history.lines().nth(1).and_then(|line| line.split_whitespace().next()).unwrap().to_owned()
}

fn history(site: &Site<'_>) -> PathBuf {
    site.folder().join("home/.pg_staging_history")
}

#[test]
fn a_restore_is_run_and_seen_from_the_console() {
    let site = site();
    let mut console = Console::open(&site, &[]);
    console.answers(&format!("restore SECTION {DAY}"), &format!("points at {}", site.copy(DAY)));
    console.answers("history", "succeeded");
    console.answers("psql SECTION -- -c 'SELECT 40 + 2 AS answer'", "42");
    console.terminal.send_line(&format!("psql {}", site.section())).unwrap();
    console.shows(&format!("{}=# ", site.copy(DAY)));
    console.terminal.send_line("SELECT 6 * 7 AS answer;").unwrap();
    console.shows("42");
    console.terminal.send_line("\\q").unwrap();
    console.shows(PROMPT);
    let production = fingerprint(site.cluster(), &source_database(Scale::Small)).unwrap();
    assert_eq!(fingerprint(site.cluster(), &site.copy(DAY)).unwrap(), production);
    assert_eq!(site.active().unwrap(), Some(site.copy(DAY)));
    let shown = console.left();
    assert!(shown.contains(" ok   post_sql") || shown.contains("post_sql: there is no"), "{shown}");
}

#[test]
fn no_error_ends_the_console_and_every_way_out_ends_it_well() {
    let site = site();
    let mut console = Console::open(&site, &[]);
    console.answers("rolback", "a similar subcommand exists: 'rollback'");
    console.answers("switch", "required arguments were not provided");
    console.answers("switch shoop.dev", "no section [shoop.dev]");
    console.answers(&format!("switch SECTION {DAY}"), "there is no database");
    console.answers("switch 'SECTION", "the line ends inside a quotation");
    console.answers("config none.ini", "cannot read none.ini");
    console.answers("inspect 99999999", "there is no run '99999999'");
    console.answers("# nothing", "");
    console.answers("", "");
    console.left();
    for line in ["quit", "exit"] {
        let mut console = Console::open(&site, &[]);
        console.terminal.send_line(line).unwrap();
        assert_eq!(console.terminal.wait().unwrap().0, 0);
    }
}

#[test]
fn help_lists_the_commands_and_tells_of_one() {
    let site = site();
    let mut console = Console::open(&site, &[]);
    console.answers("help", "Read another file as the current configuration");
    console.answers("help drop", "Even if the alias points at it");
    console.answers("drop --help", "Even if the alias points at it");
    console.answers("commands", "main operation:");
    let shown = console.left();
    for command in Cli::command().get_subcommands() {
        assert!(shown.contains(&format!("\n  {} ", command.get_name())), "{shown}");
    }
}

#[test]
fn experimental_commands_are_for_the_shell_only() {
    let site = site();
    let mut console = Console::open(&site, &[]);
    for name in ["nodata", "catalog", "triggers"] {
        console.answers(
            &format!("pg_staging {name} SECTION"),
            &format!("run it from the shell: pg_staging {name} SECTION"),
        );
        console.answers(&format!("help {name}"), "Section of the configuration");
    }
    console.answers("help", "Read another file as the current configuration");
    let shown = console.left();
    assert!(!shown.contains("\n  nodata "), "{shown}");
}

#[test]
fn options_may_be_set_and_another_file_read_for_the_session() {
    let site = site();
    let ini = fs::read_to_string(site.ini_path()).unwrap();
    fs::write(site.folder().join("other.ini"), ini.replace(&site.section(), "other.dev")).unwrap();
    fs::write(site.folder().join("bad.ini"), "no section").unwrap();
    let mut console = Console::open(&site, &[]);
    console.answers("set SECTION pgbouncer_conf /nowhere.ini", "");
    console.answers(&format!("-n switch SECTION {DAY}"), "in /nowhere.ini, and reload");
    console.answers("set SECTION keep_bases many", "is not a whole number from 0");
    console.answers("get SECTION pgbouncer_conf", "set in this session");
    console.answers("get SECTION keep_bases", "built-in default");
    console.answers("config bad.ini", "bad.ini, line 1");
    console.answers(&format!("-n switch SECTION {DAY}"), "in /nowhere.ini, and reload");
    console.answers("config other.ini", "");
    console.answers(&format!("-n switch other.dev {DAY}"), "switch other.dev would make these steps");
    console.answers(&format!("-n switch SECTION {DAY}"), "no section [SECTION]");
    console.answers(
        &format!("-c {} -n switch SECTION {DAY}", site.ini_path().display()),
        "would make these steps",
    );
    console.answers(&format!("-n switch SECTION {DAY}"), "no section [SECTION]");
    console.answers("verbose", "verbose is on");
    console.answers(&format!("createdb other.dev {DAY}"), "run_succeeded");
    console.answers("verbose", "verbose is off");
    console.left();
    assert_eq!(fs::read_to_string(site.ini_path()).unwrap(), ini);
}

#[test]
fn there_need_be_no_configuration_to_begin_with() {
    let site = site();
    for first in [None, Some("none.ini")] {
        let mut command = Command::new(crate::stage::binary());
        let path = std::env::var_os("PATH").unwrap();
        command.env_clear().env("HOME", site.folder().join("home")).env("PATH", path).env("TZ", "UTC");
        command.current_dir(site.folder()).arg("--journal").arg(site.journal());
        if let Some(first) = first {
            command.args(["-c", first]);
        }
        let mut console = Console::of(&site, command);
        console.answers(
            "switch SECTION",
            if first.is_some() { "cannot read none.ini" } else { "there is no configuration file" },
        );
        console.answers("set SECTION keep_bases 1", "read one first: config <filename>");
        console.answers("!echo $((6 * 7))", "42");
        console.answers("config pg_staging.ini", "");
        console.answers(&format!("-n switch SECTION {DAY}"), "would make these steps");
        console.left();
    }
}

#[test]
fn tab_completes_commands_sections_dates_runs_options_values_and_files() {
    let site = site();
    assert_eq!(site.run(&["createdb", &site.section(), "20261118"]).unwrap().code, 0);
    let short = shown_id(&site);
    let mut console = Console::open(&site, &[]);
    console.completes("swi", "switch ");
    console.completes("switch sho", "switch SECTION ");
    console.completes("switch SECTION 20", &format!("{PROMPT}switch SECTION 20261118 "));
    console.completes("drop SECTION 2026-11-1", "2026-11-18 ");
    console.completes("restore SECTION 20", "20261121 ");
    console.completes("switch SECTION lat", "latest ");
    console.completes("inspect ", &short);
    console.completes(&format!("inspect {}", &short[..5]), &short);
    console.completes("rollback ", &format!("{short} "));
    console.completes("drop SECTION --fo", "--force ");
    console.completes("restore --dr", "--dry-run ");
    console.completes("history --status run", "running ");
    console.completes("history --status=interr", "--status=interrupted ");
    console.completes("history --command creat", "createdb ");
    console.completes("set SECTION keep_b", "keep_bases ");
    console.completes("set SECTION auto_switch F", "False ");
    console.completes("config pg_st", "pg_staging.ini ");
    console.completes("load SECTION tm", "tmp/");
    console.completes("help resto", "help restore ");
    console.completes("resolve x y --as app", "applied ");
    console.completes("pg_staging swi", "pg_staging switch ");
    // What is offered is what is there after the last command.
    console.answers("createdb SECTION 20261219", "(run ");
    console.completes("switch SECTION 202612", "20261219 ");
    console.left();
}

#[test]
fn servers_that_do_not_answer_hold_nobody_up() {
    let mut site = site();
    // Connections are taken, and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    site.set("postgres_port", &port).unwrap();
    site.set("backup_host", &format!("127.0.0.1:{port}")).unwrap();
    let mut console = Console::open(&site, &[]);
    console.completes("switch SECTION to", "today ");
    console.completes("restore SECTION ye", "yesterday ");
    console.left();
}

#[test]
fn what_was_typed_is_remembered_in_a_private_file_and_found_again() {
    let site = site();
    fs::write(history(&site), "#V2\nswitch older.dev 20010101\n").unwrap();
    fs::set_permissions(history(&site), fs::Permissions::from_mode(0o644)).unwrap();
    let mode = || fs::metadata(history(&site)).unwrap().permissions().mode() & 0o777;
    let mut console = Console::open(&site, &[]);
    assert_eq!(mode(), 0o600);
    console.answers("history --limit 3", "RUN");
    console.answers(" history --limit 4", "RUN");
    console.answers("set SECTION backup_host https://me:secret@example.com", "");
    console.answers("set SECTION backup_host me:secret@example.com", "");
    console.answers("pg_staging -q set SECTION Backup_Host me:secret@example.com", "");
    console.answers("history --journal postgres://me:secret@example.com/j?lease=0s", "no length of time");
    console.answers("set SECTION tmpdir /srv", "");
    // A crash loses nothing.
    let kept =
        format!("#V2\nswitch older.dev 20010101\nhistory --limit 3\nset {} tmpdir /srv\n", site.section());
    assert_eq!(fs::read_to_string(history(&site)).unwrap(), kept);
    console.terminal.signal(Signal::KILL).unwrap();
    assert_eq!(console.terminal.wait().unwrap().0, 137);

    let mut console = Console::open(&site, &[]);
    console.terminal.send("\x12older").unwrap();
    console.shows("switch older.dev 20010101");
    console.terminal.press(Key::Enter).unwrap();
    console.shows("no section [older.dev]");
    console.shows(PROMPT);
    console.terminal.press(Key::Up).unwrap();
    console.terminal.press(Key::Up).unwrap();
    console.shows("tmpdir /srv");
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows(PROMPT);
    console.left();
    assert_eq!(mode(), 0o600);

    fs::remove_file(history(&site)).unwrap();
    let mut console = Console::open(&site, &[]);
    console.answers("commands", "journal:");
    console.left();
    assert_eq!((fs::read_to_string(history(&site)).unwrap().as_str(), mode()), ("#V2\ncommands\n", 0o600));
}

#[test]
fn a_command_of_the_shell_has_the_terminal_and_its_failure_is_told() {
    let site = site();
    let mut console = Console::open(&site, &[]);
    console.answers("!echo $((40 + 2))", "42");
    console.answers("!exit 3", "exit status: 3");
    console.answers("!test -t 0 && test -t 1 && echo on a term''inal", "on a terminal");
    console.terminal.send_line("!echo begun; read answer; echo \"<$answer>\"").unwrap();
    // What is typed before it has the terminal is for the console.
    console.shows("\nbegun");
    console.terminal.send_line("typed").unwrap();
    console.shows("<typed>");
    console.shows(PROMPT);
    // ^C is for it, and the console stays.
    console.terminal.send_line("!echo begun; exec cat").unwrap();
    console.shows("\nbegun");
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows("signal: 2");
    console.shows(PROMPT);
    console.answers("history", "RUN");
    console.left();
}

#[test]
fn an_interrupt_gives_the_line_up_and_lines_typed_ahead_are_kept() {
    let site = site();
    let mut console = Console::open(&site, &[]);
    console.terminal.send("drop SECTION --for").unwrap();
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows(PROMPT);
    console.answers("history", "RUN");
    console.terminal.send("commands\rcommands\rverbose\r").unwrap();
    console.shows("journal:");
    console.shows("journal:");
    console.shows("verbose is on");
    // As a terminal pastes.
    console.terminal.send("\x1b[200~verbose\nverbose\n\x1b[201~\r").unwrap();
    console.shows("verbose is off");
    console.shows("verbose is on");
    console.shows(PROMPT);
    console.left();
}

#[test]
fn an_interrupted_restore_stops_at_a_safe_point_and_goes_on_in_the_same_console() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut console = Console::open(&site, &[]);
    console.terminal.send_line(&format!("restore {} {DAY}", site.section())).unwrap();
    let waiting = console.waits_at(&gate);
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows("stopping at the next safe point");
    drop(waiting);
    console.shows("stopped on request");
    console.shows("pg_staging continue");
    console.shows(PROMPT);
    let run = last_run(&site);
    assert_eq!(run["status"], "stopped");
    console.completes("continue ", &format!("continue {} ", shown_id(&site)));
    gate.remove(&site, "post", "wait.sql");
    console.answers("continue SECTION", &format!("points at {}", site.copy(DAY)));
    assert_eq!(last_run(&site)["status"], "succeeded");
    assert_eq!(last_run(&site)["id"], run["id"]);
    console.left();
}

#[test]
fn a_second_interrupt_stops_at_once() {
    let site = site();
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut console = Console::open(&site, &[]);
    console.terminal.send_line(&format!("restore {} {DAY}", site.section())).unwrap();
    let waiting = console.waits_at(&gate);
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows("stopping at the next safe point");
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows("stopped on request");
    console.shows(PROMPT);
    drop(waiting);
    assert_eq!(last_run(&site)["status"], "stopped");
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    console.answers(&format!("rollback {run}"), "undone");
    console.left();
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
}

#[test]
fn a_command_that_does_not_listen_is_left_and_the_console_stays() {
    let site = site();
    assert_eq!(site.run(&["createdb", &site.section(), DAY]).unwrap().code, 0);
    let mut console = Console::open(&site, &[]);
    // Whoever wants to look into the journal waits for this.
    let lock = File::options().write(true).open(site.journal().join("sled.lock")).unwrap();
    lock.lock().unwrap();
    console.terminal.send_line("history").unwrap();
    console.shows("history\r\n");
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows("stopped on request");
    console.shows(PROMPT);
    drop(lock);
    console.answers("history", "createdb");
    console.left();
}

#[test]
fn what_cannot_be_gone_back_on_is_asked_about_here_as_well() {
    let site = site();
    let section = site.section();
    assert_eq!(site.run(&["createdb", &section, DAY]).unwrap().code, 0);
    let run = last_run(&site)["id"].as_str().unwrap().to_owned();
    let mut console = Console::open(&site, &[]);
    let ask = |console: &mut Console<'_>| {
        console.terminal.send_line(&format!("rollback {run}")).unwrap();
        console.shows(&format!("Undo the finished createdb {section} {DAY}"));
        console.shows("[y/N] ");
    };
    ask(&mut console);
    console.answers("n", "nothing was done");
    ask(&mut console);
    console.terminal.press(Key::Interrupt).unwrap();
    console.shows("stopped on request");
    console.shows(PROMPT);
    ask(&mut console);
    console.terminal.press(Key::EndOfInput).unwrap();
    console.shows("nothing was done");
    console.shows(PROMPT);
    assert_eq!(site.copies().unwrap(), [site.copy(DAY)]);
    ask(&mut console);
    console.answers("y", "undone");
    assert_eq!(site.copies().unwrap(), Vec::<String>::new());
    console.left();
}

#[test]
fn a_signal_from_elsewhere_leaves_the_console_and_what_runs_in_it_in_order() {
    let site = site();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut console = Console::open(&site, &[]);
        console.answers("commands", "journal:");
        console.terminal.signal(signal).unwrap();
        assert_eq!(console.terminal.wait().unwrap().0, code);
    }
    assert_eq!(fs::read_to_string(history(&site)).unwrap(), "#V2\ncommands\n");
    let gate = Gate::new(&site, "post", "wait.sql", "");
    let mut console = Console::open(&site, &[]);
    console.terminal.send_line(&format!("restore {} {DAY}", site.section())).unwrap();
    let waiting = console.waits_at(&gate);
    console.terminal.signal(Signal::TERM).unwrap();
    let (code, shown) = console.terminal.wait().unwrap();
    drop(waiting);
    assert_eq!(code, 143, "{shown}");
    assert!(shown.contains("stopped on request"), "{shown}");
    let run = last_run(&site);
    assert_eq!(run["status"], "stopped");
    assert_eq!(site.run(&["rollback", run["id"].as_str().unwrap()]).unwrap().code, 0);
    assert_eq!(json(&site, &["history"])["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn the_terminal_is_left_as_it_was_found() {
    let site = site();
    let ours = site.command(&[]);
    let mut shell = Command::new("sh");
    shell.env_clear().envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(site.folder()).arg("-c");
    shell.arg("sh -c 'echo $$ >pid; exec \"$@\"' sh \"$@\"; echo \"ended with $?:\"; stty -a").arg("sh");
    let mut console = Console::of(&site, {
        shell.arg(ours.get_program()).args(ours.get_args());
        shell
    });
    // Not into a line that is typed when it comes.
    console.terminal.send("swit").unwrap();
    console.shows("swit");
    let pid = fs::read_to_string(site.folder().join("pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    console.shows("ended with 143:");
    console.shows(" icanon ");
    console.shows(" echo ");
}

#[test]
fn every_command_and_every_argument_that_can_be_is_completed() {
    let mut language = console::language();
    language.build();
    let names = |text: &str| -> Vec<String> {
        let wanted = console::wanted(&language, text, text.len());
        wanted.words.into_iter().map(|(word, _)| word).collect()
    };
    let offered = names("");
    for command in Cli::command().get_subcommands() {
        assert!(offered.contains(&command.get_name().to_owned()), "{} is not completed", command.get_name());
    }
    for own in ["config", "set", "verbose", "quit", "exit", "help"] {
        assert!(offered.contains(&own.to_owned()), "{own} is not completed");
    }
    // What only who types it knows.
    let free = ["arguments", "help", "setting", "step", "value"];
    for command in language.get_subcommands().filter(|command| command.get_name() != "help") {
        let mut line = command.get_name().to_owned();
        for operand in command.get_positionals() {
            line.push(' ');
            let wanted = console::wanted(&language, &line, line.len());
            let known = wanted.kind.is_some() || !wanted.words.is_empty();
            let id = operand.get_id().as_str();
            assert!(known || free.contains(&id), "{line}: {id} is not completed");
            line.push_str("some");
        }
        let flags = names(&format!("{} --", command.get_name()));
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(flags.contains(&format!("--{flag}")), "{}: --{flag}", command.get_name());
        }
    }
}

#[test]
fn the_word_at_the_cursor_is_found_between_quotes_and_after_options() {
    let mut language = console::language();
    language.build();
    for (text, start, typed, words) in [
        ("swi", 0, "swi", true),
        ("switch 'sh", 7, "sh", false),
        ("switch \"a b", 7, "a b", false),
        ("switch a\\ b", 7, "a b", false),
        ("-c x.ini sw", 9, "sw", true),
        ("--wait sw", 7, "sw", true),
        ("-nc x.ini sw", 10, "sw", true),
        ("history --status=ru", 17, "ru", true),
        ("history --status ru", 17, "ru", true),
        ("help sw", 5, "sw", true),
        ("!cat sw", 5, "sw", false),
    ] {
        let wanted = console::wanted(&language, text, text.len());
        assert_eq!((wanted.start, wanted.typed.as_str()), (start, typed), "{text}");
        assert_eq!(!wanted.words.is_empty(), words, "{text}: {wanted:?}");
    }
    // Only what is before the cursor counts.
    assert_eq!(console::wanted(&language, "swi rest", 3).typed, "swi");
    let wanted = console::wanted(&language, "switch shop.dev ", 16);
    assert_eq!(wanted.kind, Some(console::Kind::Copy("shop.dev".into())));
    let wanted = console::wanted(&language, "fetch shop.dev ", 15);
    assert_eq!(wanted.kind, Some(console::Kind::Backup("shop.dev".into())));
}
