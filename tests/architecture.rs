//! The picture of `docs/architecture.md`, held against the code: who knows whom, which doors there are, and no room
//! without a noun. Each violation names its file and line.
//!
//! Paths are read from the `use` lines and from the code between them; `super` is followed. Comments, strings and the
//! modules of unit tests are left out.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Data in, data out. Everybody may know them, and they know nobody else.
const PURE: &[&str] = &["backup", "bouncer", "config", "contents", "database", "progress"];

/// Each room of the program, and what it may know besides the pure ones and itself.
const PROGRAM: &[(&str, &[&str])] = &[
    ("main", &["cli", "command", "console", "report"]),
    ("cli", &["command"]),
    ("console", &["cli", "command", "error", "report", "world"]),
    ("command", &["cli", "error", "plan", "report", "step", "world"]),
    ("plan", &["step"]),
    ("step", &["world"]),
    ("world", &[]),
    ("report", &["cli", "error", "plan", "step::Settings", "world::machine"]),
    ("error", &["world::Trouble"]),
    ("backup", &[]),
    ("bouncer", &[]),
    ("config", &[]),
    ("contents", &[]),
    ("database", &[]),
    ("progress", &[]),
];

/// The rooms of the program that know of runs and events.
const KNOW_THE_JOURNAL: &[&str] = &["command", "error", "plan", "report", "step"];

/// Each room of the journal, and what it may know besides itself.
const JOURNAL: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("event", &[]),
    ("codec", &["event"]),
    ("run", &["event"]),
    ("query", &["codec", "event", "run"]),
    ("step", &["engine::Recorder", "event", "run"]),
    ("exchange", &["codec", "event", "query", "store"]),
    ("store", &["clock", "codec", "event", "query", "run", "step::Progress"]),
    ("engine", &["clock", "codec", "event", "query", "run", "step", "store"]),
];

/// What touches the world or draws on a terminal, and the only files and folders that may.
const DOORS: &[(&str, &[&str])] = &[
    ("std::process::Command", &["src/world/process.rs"]),
    ("std::process::Stdio", &["src/world/process.rs"]),
    ("tokio::process", &["src/world/process.rs"]),
    (
        "tokio_postgres",
        &[
            "src/world/postgres.rs",
            "src/world/postgres/",
            "journal/src/store/postgres.rs",
            "journal/src/store/postgres/",
        ],
    ),
    ("reqwest", &["src/world/web.rs", "src/world/web/"]),
    ("rustls", &["src/world/web.rs", "src/world/web/", "src/world/postgres/"]),
    ("rustix", &["src/world/", "journal/src/store/", "journal/src/clock.rs"]),
    ("std::fs", &["src/world/", "journal/src/store/"]),
    ("std::net", &["src/world/"]),
    ("tokio::fs", &["src/world/", "journal/src/store/"]),
    ("tokio::net", &["src/world/"]),
    ("std::env", &["src/world/", "journal/src/store/files/rebuild.rs"]),
    ("ini", &["src/config/"]),
    ("libpgdump", &["src/contents/"]),
    ("clap", &["src/main.rs", "src/cli.rs", "src/command/", "src/console/"]),
    ("clap_complete", &["src/command/commands.rs"]),
    ("rustyline", &["src/console/editor.rs"]),
    ("comfy_table", &["src/report/"]),
    ("indicatif", &["src/report/"]),
    ("sled", &["journal/src/store/"]),
    ("bincode", &["journal/src/codec.rs", "journal/src/codec/", "journal/src/store/"]),
    ("uuid::Uuid::now_v7", &["journal/src/clock.rs"]),
    ("jiff::Timestamp::now", &["journal/src/clock.rs"]),
];

/// Where something is printed.
const PRINT: &[&str] = &["src/report/"];

/// The sources of both crates, read once.
static PROGRAM_CODE: LazyLock<Code> = LazyLock::new(|| Code::of("src"));
static JOURNAL_CODE: LazyLock<Code> = LazyLock::new(|| Code::of("journal/src"));

static USE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\s*(pub(\([a-z ]+\))?\s+)?use\s").unwrap());
static PATH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[A-Za-z_]\w*(::[A-Za-z_]\w*)+").unwrap());
static STRING: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""(\\.|[^"\\])*""#).unwrap());
static TOKEN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+|::|[{},*;]").unwrap());

#[test]
fn every_room_knows_only_whom_it_may() {
    let mut broken = PROGRAM_CODE.unknown_neighbours(PROGRAM, PURE);
    broken.extend(JOURNAL_CODE.unknown_neighbours(JOURNAL, &[]));
    assert_eq!(told(&broken), "");
}

#[test]
fn only_some_rooms_know_the_journal_and_it_knows_nothing_of_the_program() {
    let mut broken =
        PROGRAM_CODE.mentions_outside("journal", |source| KNOW_THE_JOURNAL.contains(&source.room()));
    broken.extend(JOURNAL_CODE.mentions_outside("pg_staging", |_| false));
    assert_eq!(told(&broken), "");
    let manifest = fs::read_to_string(root().join("journal/Cargo.toml")).unwrap();
    assert!(!manifest.contains("pg_staging"), "journal/Cargo.toml names pg_staging");
}

#[test]
fn each_door_to_the_world_is_in_one_place() {
    let mut broken = Vec::new();
    for (path, places) in DOORS {
        for code in [&*PROGRAM_CODE, &*JOURNAL_CODE] {
            broken.extend(code.mentions_outside(path, |source| source.is_in(places)));
        }
    }
    assert_eq!(told(&broken), "");
}

#[test]
fn printing_is_for_the_listeners() {
    let prints = Regex::new(r"\be?print(ln)?!|\bdbg!|\bio::std(out|err)\b|[^.\w]std(out|err)\(\)").unwrap();
    let mut broken = Vec::new();
    for code in [&*PROGRAM_CODE, &*JOURNAL_CODE] {
        for source in code.sources.iter().filter(|source| !source.is_in(PRINT)) {
            let found = source.lines.iter().filter(|line| prints.is_match(&line.text));
            broken.extend(found.map(|line| source.broken(line.number, "prints, which report/ is for")));
        }
    }
    assert_eq!(told(&broken), "");
}

#[test]
fn no_room_is_without_a_noun() {
    let vague = ["util", "utils", "helper", "helpers", "common", "misc", "shared", "stuff"];
    let mut found = Vec::new();
    for folder in ["src", "journal", "tests", "benches"] {
        walk(&root().join(folder), &mut |path| {
            let parts = path.strip_prefix(root()).unwrap().with_extension("");
            if parts.iter().any(|part| vague.iter().any(|name| part == *name)) {
                found.push(path.display().to_string());
            }
        });
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_violation_is_told_with_its_file_and_line() {
    let text = "//! Looks.\n// use crate::plan;\nuse std::fmt;\nuse crate::{\n    contents,\n    report::{self, json},\n};\n\
                const S: &str = \"crate::plan\";\nfn f() -> super::super::step::X {}\n\
                #[cfg(test)]\nmod tests {\n    use crate::command;\n}\n";
    let code = Code { sources: vec![Source::read("src/world/disk.rs", text)] };
    assert_eq!(
        told(&code.unknown_neighbours(PROGRAM, PURE)),
        "src/world/disk.rs:6: world knows report, and may know itself, the pure rooms\n\
         src/world/disk.rs:6: world knows report::json, and may know itself, the pure rooms\n\
         src/world/disk.rs:9: world knows step::X, and may know itself, the pure rooms\n"
    );
    let code =
        Code { sources: vec![Source::read("src/report/live.rs", "use crate::world::{machine, disk};\n")] };
    assert_eq!(
        told(&code.unknown_neighbours(PROGRAM, PURE)),
        "src/report/live.rs:1: report knows world::disk, and may know itself, the pure rooms, cli, error, plan, \
         step::Settings, world::machine\n"
    );
    let code = Code { sources: vec![Source::read("src/errand/mod.rs", "use crate::world;\n")] };
    assert_eq!(
        told(&code.unknown_neighbours(PROGRAM, PURE)),
        "src/errand/mod.rs:1: the room errand is not in the picture: give it a line in tests/architecture.rs\n"
    );
}

/// One thing that is not as the picture has it.
#[derive(Debug)]
struct Broken {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

fn told(broken: &[Broken]) -> String {
    broken.iter().map(|broken| format!("{broken}\n")).collect()
}

/// The sources of one crate.
struct Code {
    sources: Vec<Source>,
}

impl Code {
    /// All of them, below a folder of the repository.
    fn of(folder: &str) -> Code {
        let mut sources = Vec::new();
        walk(&root().join(folder), &mut |path| {
            let is_code = path.extension().is_some_and(|extension| extension == "rs");
            if is_code && path.file_name().is_some_and(|name| name != "tests.rs") {
                let file = path.strip_prefix(root()).unwrap();
                sources.push(Source::read(file, &fs::read_to_string(path).unwrap()));
            }
        });
        assert!(!sources.is_empty(), "no code in {folder}");
        Code { sources }
    }

    /// Where a room knows one that it may not, by `rules` and `pure`.
    fn unknown_neighbours(&self, rules: &[(&str, &[&str])], pure: &[&str]) -> Vec<Broken> {
        let mut broken = Vec::new();
        for source in self.sources.iter().filter(|source| source.room() != "lib") {
            let room = source.room();
            let Some((_, allowed)) = rules.iter().find(|(name, _)| *name == room) else {
                let what =
                    format!("the room {room} is not in the picture: give it a line in tests/architecture.rs");
                broken.push(source.broken(1, &what));
                continue;
            };
            for mention in source.mentions.iter().filter_map(Mention::of_this_crate) {
                let known = mention.path.split("::").next().unwrap();
                let is_room = rules.iter().any(|(name, _)| *name == known);
                let may = |path: &str| mention.is(path);
                if is_room
                    && known != room
                    && !pure.iter().any(|path| may(path))
                    && !allowed.iter().any(|path| may(path))
                {
                    let mut list = vec!["itself"];
                    if !pure.is_empty() {
                        list.push("the pure rooms");
                    }
                    list.extend(*allowed);
                    let what = format!("{room} knows {}, and may know {}", mention.path, list.join(", "));
                    broken.push(source.broken(mention.line, &what));
                }
            }
        }
        broken
    }

    /// Where `path` is mentioned in a file that `may` does not allow it.
    fn mentions_outside(&self, path: &str, may: impl Fn(&Source) -> bool) -> Vec<Broken> {
        let mut broken = Vec::new();
        for source in self.sources.iter().filter(|source| !may(source)) {
            for mention in source.mentions.iter().filter(|mention| mention.is(path)) {
                broken.push(source.broken(mention.line, &format!("{} has no place here", mention.path)));
            }
        }
        broken
    }
}

/// A line of code, without strings and comments.
struct Line {
    number: usize,
    text: String,
}

/// A path that is written somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mention {
    line: usize,
    path: String,
}

impl Mention {
    /// Whether it is that path, or something in it.
    fn is(&self, path: &str) -> bool {
        self.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }

    /// What is behind `crate::`, or for the program's `main.rs`, behind `pg_staging::`.
    fn of_this_crate(&self) -> Option<Mention> {
        let path = self.path.strip_prefix("crate::").or_else(|| self.path.strip_prefix("pg_staging::"))?;
        Some(Mention { line: self.line, path: path.to_owned() })
    }
}

/// One file.
struct Source {
    file: PathBuf,
    lines: Vec<Line>,
    mentions: Vec<Mention>,
}

impl Source {
    fn read(file: impl Into<PathBuf>, text: &str) -> Source {
        let file = file.into();
        let lines = code_lines(text);
        let module = module_of(&file);
        let mut mentions = Vec::new();
        let mut rest = lines.iter();
        while let Some(line) = rest.next() {
            if USE.is_match(&line.text) {
                let mut declared = vec![line];
                while !declared.last().unwrap().text.contains(';') {
                    declared.push(rest.next().expect("a use line has an end"));
                }
                mentions.extend(used(&declared));
            } else {
                let found = PATH.find_iter(&line.text);
                mentions.extend(found.map(|path| Mention { line: line.number, path: path.as_str().into() }));
            }
        }
        for mention in &mut mentions {
            mention.path = absolute(&mention.path, &module);
        }
        Source { file, lines, mentions }
    }

    /// `world` for `src/world/disk.rs`, `backup` for `src/backup.rs`.
    fn room(&self) -> &str {
        let parts: Vec<&str> = self.file.iter().map(|part| part.to_str().unwrap()).collect();
        let after = parts.iter().position(|part| *part == "src").unwrap() + 1;
        parts[after].trim_end_matches(".rs")
    }

    /// Whether it is one of these files, or in one of these folders, which end in `/`.
    fn is_in(&self, places: &[&str]) -> bool {
        let file = self.file.to_str().unwrap();
        places.iter().any(|place| if place.ends_with('/') { file.starts_with(place) } else { file == *place })
    }

    fn broken(&self, line: usize, what: &str) -> Broken {
        Broken { file: self.file.clone(), line, what: what.to_owned() }
    }
}

/// The code of a file, up to its unit tests.
fn code_lines(text: &str) -> Vec<Line> {
    let all: Vec<&str> = text.lines().collect();
    let tests = all.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    let code = &all[..tests.unwrap_or(all.len())];
    let clean = |(index, line): (usize, &&str)| {
        let text = STRING.replace_all(line, "\"\"");
        Line { number: index + 1, text: text.split("//").next().unwrap().to_owned() }
    };
    code.iter().enumerate().map(clean).collect()
}

/// What a `use` declaration names: `a::{b, c::{self, d}}` names `a::b`, `a::c` and `a::c::d`.
fn used(declared: &[&Line]) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut outer: Vec<Vec<String>> = Vec::new();
    let mut prefix: Vec<String> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut renamed = false;
    let mut begun = false;
    for line in declared {
        for found in TOKEN.find_iter(&line.text).map(|found| found.as_str()) {
            if !begun {
                begun = found == "use";
                continue;
            }
            match found {
                "::" => {}
                "{" => {
                    outer.push(prefix.clone());
                    prefix.append(&mut path);
                }
                "," | "}" | ";" => {
                    if !path.is_empty() {
                        let all: Vec<&str> = prefix.iter().chain(&path).map(String::as_str).collect();
                        mentions
                            .push(Mention { line: line.number, path: all.join("::").replace("::self", "") });
                    }
                    path.clear();
                    renamed = false;
                    if found == "}" {
                        prefix = outer.pop().expect("braces match");
                    }
                }
                "as" => renamed = true,
                _ if renamed => {}
                name => path.push(name.to_owned()),
            }
        }
    }
    mentions
}

/// `["crate", "world", "disk"]` for `src/world/disk.rs`.
fn module_of(file: &Path) -> Vec<String> {
    let file = file.with_extension("");
    let parts = file.iter().map(|part| part.to_str().unwrap().to_owned());
    let inside = parts.skip_while(|part| part != "src").skip(1);
    let inside = inside.filter(|part| !["mod", "lib", "main"].contains(&part.as_str()));
    std::iter::once("crate".to_owned()).chain(inside).collect()
}

/// The path as seen from the crate's root.
fn absolute(path: &str, module: &[String]) -> String {
    let mut base: Vec<&str> = module.iter().map(String::as_str).collect();
    let mut names: Vec<&str> = path.split("::").collect();
    if names[0] != "self" && names[0] != "super" {
        return path.to_owned();
    }
    while let Some(up) = names.first().filter(|name| ["self", "super"].contains(*name)) {
        if *up == "super" {
            base.pop();
        }
        names.remove(0);
    }
    base.into_iter().chain(names).collect::<Vec<_>>().join("::")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Calls `visit` for every file below a folder, in order of their names.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, visit);
            }
        } else {
            visit(&path);
        }
    }
}
