//! What the program leaves for others to see, made comparable: the traces of a run in the world around a site, what it
//! said, and what its journal tells.

use std::{collections::BTreeMap, fs, path::Path};

use regex::Regex;
use serde_json::Value;

use crate::stage::{Destination, Outcome, Site};

/// Everything around a site that a run may change, but the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// `pgbouncer.ini`.
    pub ini: String,
    /// What pgbouncer itself serves.
    pub aliases: BTreeMap<String, Destination>,
    /// The copies, and databases on their way to become one.
    pub databases: Vec<String>,
    /// The names in tmpdir, and in the folders there.
    pub tmpdir: Vec<String>,
    /// Files on their way to be installed, in the login folder of a site that is reached over ssh.
    pub uploads: Vec<String>,
}

impl Traces {
    /// As things stand now. PostgreSQL and pgbouncer must be up.
    pub fn of(site: &Site<'_>) -> Traces {
        let runs = runs_of(site);
        let ours = |name: &String| runs.iter().any(|run| name.contains(run.as_str()));
        let mut databases = site.cluster().databases().unwrap();
        databases.retain(|name| name.starts_with(&format!("{}_", site.dbname())) || ours(name));
        let mut uploads = site.sshd().map(|sshd| names_in(&sshd.login_folder())).unwrap_or_default();
        uploads.retain(ours);
        Traces {
            ini: ini(site),
            aliases: site.bouncer().show_databases().unwrap(),
            databases,
            tmpdir: names_below(&site.tmpdir()),
            uploads,
        }
    }
}

/// `pgbouncer.ini` as text.
pub fn ini(site: &Site<'_>) -> String {
    String::from_utf8(site.bouncer().ini_bytes().unwrap()).unwrap()
}

/// The ids of the runs in a site's journal, without hyphens.
fn runs_of(site: &Site<'_>) -> Vec<String> {
    let files = names_in(&site.journal().join("runs"));
    files.iter().filter_map(|name| name.strip_suffix(".log")).map(|id| id.replace('-', "")).collect()
}

/// The names in a folder, sorted; none when there is no such folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The names in a folder, and in the folders in it, as paths from there.
fn names_below(folder: &Path) -> Vec<String> {
    let below = |name: String| {
        let inside = names_in(&folder.join(&name));
        let inside: Vec<String> = inside.iter().map(|file| format!("{name}/{file}")).collect();
        std::iter::once(name).chain(inside)
    };
    names_in(folder).into_iter().flat_map(below).collect()
}

/// What was said, without what differs from one run of the tests to the next: ids, ports, folders, times, and the
/// number in the name of the site's database.
pub fn plain(site: &Site<'_>, said: &str) -> String {
    let stage = site.stage().scratch().path().display().to_string();
    let bin = site.cluster().bin().display().to_string();
    let rules = [
        (r"<stage>/(\w+)-\d+", "<$1>"),
        (r"\b[0-9a-f]{64}\b", "<sha256>"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<run>"),
        (r"[0-9a-f]{12}7[0-9a-f]{19}", "<run>"),
        (r"\b(run|continue|rollback|inspect|resolve|abandon|createdb|switch) [0-9a-f]{8}\b", "$1 <run>"),
        (r"shop\d+", "shop"),
        (r"(127\.0\.0\.\d):\d+", "$1:<port>"),
        (r"(\bport|\bPort|-p)([ =])\d{4,5}\b", "$1$2<port>"),
        (r"-F /dev/null( -o \S+)+", "<options>"),
        (r"\w+@127", "<user>@127"),
        (r"\.ini \d{5}\b", ".ini <port>"),
        (r"\d+\.\d s\b", "<seconds> s"),
        (r#""[0-9a-f]+-[0-9a-f]+""#, "<etag>"),
        (r"process \d+", "process <pid>"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>"),
    ];
    let known = said.replace(&stage, "<stage>").replace(&bin, "<bin>");
    rules.iter().fold(known, |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, *with).into_owned()
    })
}

/// The error that the program ended with, [`plain`]: its message, cause and hint, each on lines of their own.
pub fn error(site: &Site<'_>, outcome: &Outcome) -> String {
    let said = format!("\n{}", plain(site, &outcome.stderr));
    let error = said.split_once("\nerror: ").map(|(_, error)| error).unwrap_or_default();
    error.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// What one of the commands that show something prints as JSON.
pub fn json(site: &Site<'_>, arguments: &[&str]) -> Value {
    let outcome = site.run(&[arguments, &["--json"]].concat()).unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// The newest run, as `history` tells.
pub fn last_run(site: &Site<'_>) -> Value {
    json(site, &["history", "--limit", "1"])["runs"][0].clone()
}

/// The newest run with its steps and events, as `inspect` tells.
pub fn inspected(site: &Site<'_>) -> Value {
    let id = last_run(site)["id"].as_str().unwrap().to_owned();
    json(site, &["inspect", &id])
}

/// One step of an inspected run.
pub fn step<'a>(inspected: &'a Value, name: &str) -> &'a Value {
    let steps = inspected["steps"].as_array().unwrap();
    steps.iter().find(|step| step["name"] == name).unwrap()
}

/// What was said is that, word for word.
#[track_caller]
pub fn says(found: &str, expected: &str) {
    assert_eq!(found, expected);
}

/// A run that must fail: with this exit code, in these words, and without a trace but in the journal, which says `failed`.
#[track_caller]
pub fn fails(site: &Site<'_>, arguments: &[&str], code: i32, said: &str) {
    let before = Traces::of(site);
    let outcome = site.run(arguments).unwrap();
    let steps = inspected(site)["steps"].clone();
    let announced = |step: &Value| step["name"] != "preflight" && !step["detail"]["intent"].is_null();
    let how = match steps.as_array().unwrap().iter().any(announced) {
        true => "failed, and what it had done is undone",
        false => "failed before it changed anything",
    };
    let head = format!("{} shop.dev {how} (run <run>): ", arguments[0]);
    says(error(site, &outcome).strip_prefix(&head).unwrap_or(&outcome.to_string()), said);
    assert_eq!(outcome.code, code, "{outcome}");
    assert_eq!(Traces::of(site), before, "{outcome}");
    assert_eq!(last_run(site)["status"], "failed", "{outcome}");
}

/// A command that must be refused before any run begins: with this exit code, in these words, without a trace.
#[track_caller]
pub fn is_refused(site: &Site<'_>, arguments: &[&str], code: i32, said: &str) {
    let before = (Traces::of(site), runs_of(site));
    let outcome = site.run(arguments).unwrap();
    says(&error(site, &outcome), said);
    assert_eq!(outcome.code, code, "{outcome}");
    assert_eq!((Traces::of(site), runs_of(site)), before, "{outcome}");
}

/// A command that must end well.
#[track_caller]
pub fn succeeds(site: &Site<'_>, arguments: &[&str]) -> Outcome {
    let outcome = site.run(arguments).unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    outcome
}
