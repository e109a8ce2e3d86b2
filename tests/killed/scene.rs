//! A site that is brought back to where it began after each crash, and what must be true of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::stage::{Fingerprint, Outcome, Program, Request, Site, SiteOptions, Stage, fingerprint};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// All of the world that a run can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct World {
    /// Where the alias leads.
    pub(super) active: Option<String>,
    /// Whom pgbouncer serves, and whereto.
    aliases: Vec<(String, String)>,
    /// The bytes of pgbouncer.ini.
    ini: String,
    /// The files beside it that are not documented to stay.
    beside: Vec<String>,
    /// What is in tmpdir.
    tmpdir: Vec<String>,
    /// The copies: owner, settings, and the comment without the run's id.
    copies: BTreeMap<String, [String; 3]>,
    /// What is in the copy that the run makes.
    content: Option<Fingerprint>,
}

/// A site, a command on it, and the world before and after.
pub(super) struct Scene<'s> {
    pub(super) site: Site<'s>,
    /// The copy that the command works on.
    pub(super) copy: String,
    /// The command.
    pub(super) command: Vec<String>,
    pub(super) before: World,
    /// Whether what the command does within its copy is undone by making that copy anew.
    pub(super) anew: bool,
    /// Whether the dump never comes here as a file.
    pub(super) by_parts: bool,
    journal: PathBuf,
    known: Option<String>,
}

/// A run as `history` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) status: String,
}

impl<'s> Scene<'s> {
    /// A site, prepared by `prepare`, on which `command` (section and date follow by themselves) is to be run.
    pub(super) fn new(
        options: &SiteOptions,
        command: &str,
        date: &str,
        prepare: impl FnOnce(&mut Site<'s>),
    ) -> Scene<'s> {
        let mut site = Site::new(Stage::shared().unwrap(), options).unwrap();
        prepare(&mut site);
        let command = vec![command.to_owned(), site.section(), date.to_owned()];
        let copy = site.copy(date);
        let journal = site.folder().join("journal.before");
        if site.journal().exists() {
            copy_folder(&site.journal(), &journal);
        } else {
            fs::create_dir(&journal).unwrap();
        }
        let known = newest(&site).map(|run| run.id);
        let before = World::of(&site, &copy);
        Scene { site, copy, command, before, anew: false, by_parts: false, journal, known }
    }

    /// The command's words.
    pub(super) fn words(&self) -> Vec<&str> {
        self.command.iter().map(String::as_str).collect()
    }

    /// The world as it is.
    pub(super) fn now(&self) -> World {
        World::of(&self.site, &self.copy)
    }

    /// Everything as it was at first, whatever became of it.
    pub(super) fn reset(&self) {
        let cluster = self.site.cluster();
        for copy in self.site.copies().unwrap() {
            if !self.before.copies.contains_key(&copy) || (self.anew && copy == self.copy) {
                cluster.psql("postgres", &format!("DROP DATABASE \"{copy}\" WITH (FORCE)")).unwrap();
            }
        }
        for (copy, [_, _, comment]) in &self.before.copies {
            if !self.site.copies().unwrap().contains(copy) {
                let sql = format!(
                    "CREATE DATABASE \"{copy}\" TEMPLATE template0 OWNER staging_owner;\
                     COMMENT ON DATABASE \"{copy}\" IS '{comment}';"
                );
                cluster.psql("postgres", &sql).unwrap();
            }
        }
        self.site.bouncer().write_ini(&self.before.ini).unwrap();
        self.site.bouncer().admin("RELOAD").unwrap();
        for name in names_in(self.site.bouncer().folder()) {
            if name.contains(".pg_staging.") {
                fs::remove_file(self.site.bouncer().folder().join(name)).unwrap();
            }
        }
        fs::remove_dir_all(self.site.tmpdir()).unwrap();
        fs::create_dir(self.site.tmpdir()).unwrap();
        fs::remove_dir_all(self.site.journal()).ok();
        copy_folder(&self.journal, &self.site.journal());
        if let Ok(rude) = self.site.rude() {
            rude.behave(&self.dump_path());
            rude.forget_requests();
        }
    }

    /// The old versions of pgbouncer.ini that the client script has kept since the last reset.
    pub(super) fn versions(&self) -> Vec<String> {
        let is_version = |name: &String| name.starts_with("pgbouncer.ini.pg_staging.2");
        names_in(self.site.bouncer().folder()).into_iter().filter(is_version).collect()
    }

    /// The path of the dump on the server.
    pub(super) fn dump_path(&self) -> String {
        let date = self.command.last().unwrap();
        let date = format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
        format!("/{}/{}", self.site.dbname(), self.site.backup_name(&date))
    }

    /// The run that the command began, if it got so far.
    pub(super) fn run(&self) -> Option<Shown> {
        newest(&self.site).filter(|run| self.known.as_ref() != Some(&run.id))
    }

    /// Where a step of the run stands; `inspect` must say the same of the run as `history`.
    pub(super) fn step_status(&self, run: &Shown, step: &str) -> String {
        let outcome = self.pg_staging(&["--json", "inspect", &run.id]);
        assert_eq!(outcome.code, 0, "{outcome}");
        let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(answer["run"]["status"], run.status.as_str());
        let steps = answer["steps"].as_array().unwrap();
        let found = steps.iter().find(|found| found["name"] == step);
        found.map(|found| found["status"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Runs the program on the site's journal, which nothing but the section names.
    pub(super) fn pg_staging(&self, arguments: &[&str]) -> Outcome {
        self.spawn(arguments).wait().unwrap()
    }

    /// Starts the program on the site's journal.
    pub(super) fn spawn(&self, arguments: &[&str]) -> Program {
        let journal = self.site.journal().display().to_string();
        self.site.spawn(&[&["--journal", &journal], arguments].concat()).unwrap()
    }

    /// The requests of the dump's bytes so far.
    pub(super) fn downloads(&self) -> Vec<Request> {
        let Ok(rude) = self.site.rude() else { return Vec::new() };
        rude.requests_for(&self.dump_path()).into_iter().filter(|request| request.method == "GET").collect()
    }

    /// How much of the dump is here, in the run's own folder or in tmpdir itself.
    pub(super) fn fetched(&self) -> u64 {
        self.dumps().iter().map(|path| fs::metadata(path).unwrap().len()).max().unwrap_or_default()
    }

    /// The file that grows while the dump is fetched.
    pub(super) fn part(&self) -> PathBuf {
        self.dumps().into_iter().find(|path| path.to_string_lossy().ends_with(".part")).unwrap()
    }

    fn dumps(&self) -> Vec<PathBuf> {
        let tmpdir = self.site.tmpdir();
        let folders = names_in(&tmpdir).into_iter().map(|name| tmpdir.join(name)).chain([tmpdir.clone()]);
        let files =
            folders.flat_map(|folder| names_in(&folder).into_iter().map(move |name| folder.join(name)));
        let is_dump = |path: &PathBuf| {
            let name = path.to_string_lossy();
            name.ends_with(".dump") || name.ends_with(".dump.part")
        };
        files.filter(is_dump).collect()
    }

    /// What a run may leave outside of tmpdir and pgbouncer's folder: databases under its own name, connections,
    /// private folders of the client script.
    pub(super) fn leftovers(&self, run: &str) -> Vec<String> {
        let simple = run.replace('-', "");
        let sql = format!(
            "SELECT 'database ' || datname FROM pg_database WHERE datname = 'pg_staging_{simple}' UNION ALL \
             SELECT 'connection ' || application_name || ': ' || coalesce(query, '') FROM pg_stat_activity \
             WHERE application_name LIKE 'pg\\_staging:{run}:%'"
        );
        let answer = self.site.cluster().psql("postgres", &sql).unwrap();
        let mut left: Vec<String> = answer.lines().map(str::to_owned).collect();
        let conf = format!("conf={} ", self.site.bouncer().ini_path().display());
        for name in names_in(Path::new("/tmp")) {
            let upload = Path::new("/tmp").join(&name).join("upload");
            let ours = || fs::read(&upload).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&conf));
            if name.starts_with("pg_staging_client.") && ours() {
                left.push(name);
            }
        }
        left
    }
}

impl World {
    fn of(site: &Site<'_>, copy: &str) -> World {
        let cluster = site.cluster();
        let sql = format!(
            "SELECT datname, pg_get_userbyid(datdba), coalesce(array_to_string(setconfig, ' '), ''), \
                    coalesce(shobj_description(d.oid, 'pg_database'), '') \
             FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid \
             WHERE datname LIKE '{}\\_%' ORDER BY 1",
            site.dbname()
        );
        let mut copies = BTreeMap::new();
        for line in cluster.psql("postgres", &sql).unwrap().lines() {
            let fields: Vec<&str> = line.splitn(4, '|').collect();
            let [name, owner, settings, comment] = fields[..] else { panic!("{line}") };
            copies.insert(name.into(), [owner.into(), settings.into(), without_run(comment)]);
        }
        let content = copies.contains_key(copy).then(|| fingerprint(cluster, copy).unwrap());
        let shown = site.bouncer().show_databases().unwrap();
        let stays = |name: &String| {
            name.ends_with(".pg_staging.lock") || name.starts_with("pgbouncer.ini.pg_staging.2")
        };
        World {
            active: shown.get(site.dbname()).map(|destination| destination.dbname.clone()),
            aliases: shown
                .into_iter()
                .map(|(alias, to)| (alias, format!("{}:{}/{}", to.host, to.port, to.dbname)))
                .collect(),
            ini: String::from_utf8(site.bouncer().ini_bytes().unwrap()).unwrap(),
            beside: names_in(site.bouncer().folder()).into_iter().filter(|name| !stays(name)).collect(),
            tmpdir: names_in(&site.tmpdir()),
            copies,
            content,
        }
    }
}

impl World {
    /// The world must be this one now.
    pub(super) fn is_now(&self, scene: &Scene<'_>, when: &str) {
        let now = scene.now();
        let World { active, aliases, ini, beside, tmpdir, copies, content } = self;
        assert_eq!((&now.active, &now.aliases), (active, aliases), "{when}: where pgbouncer leads");
        assert_eq!(&now.ini, ini, "{when}: pgbouncer.ini");
        assert_eq!(&now.beside, beside, "{when}: beside pgbouncer.ini");
        assert_eq!(&now.tmpdir, tmpdir, "{when}: tmpdir");
        assert_eq!(&now.copies, copies, "{when}: copies");
        if &now.content != content {
            let (now, wanted) = (now.content.unwrap_or_default(), content.clone().unwrap_or_default());
            let differs = |name: &&String| now.get(*name) != wanted.get(*name);
            let names: Vec<&String> = now.keys().chain(wanted.keys()).filter(differs).collect();
            panic!("{when}: the copy has other content: {names:?}");
        }
    }
}

/// A mark names its run; which one that is differs from run to run.
fn without_run(text: &str) -> String {
    match text.find("pg_staging run ").and_then(|at| text.get(at + 15..at + 51)) {
        Some(id) => text.replace(id, "<run>"),
        None => text.to_owned(),
    }
}

/// The newest run of the site's section.
fn newest(site: &Site<'_>) -> Option<Shown> {
    let outcome = site.run(&["history", &site.section(), "--limit", "1", "--json"]).unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
    let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let run = answer["runs"].get(0)?;
    let text = |name: &str| run[name].as_str().unwrap().to_owned();
    Some(Shown { id: text("id"), status: text("status") })
}

/// The names in a folder, in order; none when there is no such folder.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
}
