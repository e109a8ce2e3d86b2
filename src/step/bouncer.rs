//! Changes of pgbouncer.ini: an entry for a new copy, an entry taken out, an alias pointed elsewhere.
//!
//! Every change is computed from the file as it is and names that file's hash, and staging-client.sh refuses it when
//! the file has changed since (compare and swap). Done is what both the file and pgbouncer itself say is done, since
//! a crash can come between the two.

use async_trait::async_trait;
use journal::event::{Detail, Failure};
use journal::step::{Context, Intent, Observed, Step};
use serde::{Deserialize, Serialize};

use super::create_database::comment_of;
use super::preflight::Alias;
use super::{Settings, announced, read, recorded, write};
use crate::bouncer::{BouncerError, Destination, Entry, PgbouncerIni};
use crate::world::disk;
use crate::world::far::is_this_machine;

/// Adds an entry for the copy.
pub struct Add {
    /// Which copy, and where.
    pub settings: Settings,
}

/// Takes the copy's entry out, or the alias that leads to the copy.
pub struct Remove {
    /// Which copy, and where.
    pub settings: Settings,
    /// Which of the two.
    pub given: Removed,
}

/// Parameters of [`Remove`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Removed {
    /// The alias goes if it leads to the copy; otherwise the copy's own entry goes.
    #[serde(default)]
    pub alias: bool,
    /// Nothing goes while another entry leads to the copy.
    #[serde(default)]
    pub unless_in_use: bool,
}

/// Points the alias at the copy.
pub struct Switch {
    /// Which copy, and where.
    pub settings: Settings,
    /// Whether at all.
    pub given: Given,
}

/// Parameters of [`Switch`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Given {
    /// `auto_switch`, or true where switching is what was asked for.
    pub wanted: bool,
}

/// Recorded around each call of staging-client.sh.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Install {
    /// Which call of this step it is, counted from 1.
    number: u64,
    /// The tag of its upload.
    tag: String,
    /// Whether its end was not seen yet.
    open: bool,
}

/// What all three announce: which name leads where before and after, and the file that this is based on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    name: String,
    before: Option<Alias>,
    after: Option<Alias>,
    /// Names of the entry's other keywords, where it is taken out. Their values may be secret: see [`other_keywords`].
    #[serde(default)]
    more: Vec<String>,
    /// SHA-256 of the pgbouncer.ini that the change is made to.
    base: String,
}

/// Which databases a name leads to before and after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointed {
    /// The name.
    pub(crate) name: String,
    /// Where it led.
    pub(crate) before: Option<String>,
    /// Where it leads once the change is made.
    pub(crate) after: Option<String>,
}

/// What a step of this kind announced.
pub(crate) fn pointed(intent: &Detail) -> Result<Pointed, Failure> {
    let Change { name, before, after, .. } = read(intent)?;
    let database = |alias: Option<Alias>| alias.and_then(|alias| alias.dbname);
    Ok(Pointed { name, before: database(before), after: database(after) })
}

/// All keywords of an entry that is taken out, so that it can be put back as it was. They may hold a password, so they
/// are kept in the run's own folder, and not in the journal.
fn other_keywords(settings: &Settings, at: &Context<'_>) -> std::path::PathBuf {
    settings.workspace(at.run()).join(format!("{}.json", plain_name(at)))
}

/// The step's name, of which a run may have several such, in letters and digits.
fn plain_name(at: &Context<'_>) -> String {
    at.step().chars().filter(char::is_ascii_alphanumeric).collect()
}

impl From<&Alias> for Destination {
    fn from(alias: &Alias) -> Self {
        Destination { dbname: alias.dbname.clone(), host: alias.host.clone(), port: alias.port }
    }
}

/// Where the entry `name` leads, when there is one.
pub(super) fn destination(ini: &PgbouncerIni, name: &str) -> Option<Alias> {
    let entry = ini.entry(name)?;
    let text = |keyword: &str| entry.get(keyword).map(std::borrow::Cow::into_owned);
    let port = text("port").and_then(|port| port.parse().ok());
    Some(Alias { dbname: text("dbname"), host: text("host"), port })
}

/// The keywords of an entry beside those that say where it leads.
fn names_of_other_keywords(ini: &PgbouncerIni, name: &str) -> Vec<String> {
    let keywords = ini.entry(name).map(Entry::keywords).unwrap_or_default();
    let others = keywords.iter().map(crate::bouncer::Keyword::name);
    others.filter(|name| !["dbname", "host", "port"].contains(name)).map(str::to_owned).collect()
}

/// Whether pgbouncer may serve names that the file itself does not have.
fn serves_any_name(ini: &PgbouncerIni) -> bool {
    ini.has_fallback() || !ini.includes().is_empty()
}

/// pgbouncer.ini, as pgbouncer would read it.
pub(super) fn parse(bytes: Vec<u8>, settings: &Settings) -> Result<PgbouncerIni, Failure> {
    PgbouncerIni::parse(bytes).map_err(|error| failed(&error, settings))
}

fn failed(error: &BouncerError, settings: &Settings) -> Failure {
    Failure::new(format!("{} on {} cannot be edited", settings.pgbouncer_conf, settings.host))
        .because(error)
        .hint(error.hint())
}

impl Settings {
    async fn ini(&self, at: &Context<'_>) -> Result<PgbouncerIni, Failure> {
        disk::make_private_folder(&self.workspace(at.run()))?;
        parse(self.far(at.run()).read_ini().await?, self)
    }

    /// Where the entry of a copy leads. pgbouncer is on the same host as PostgreSQL; an alias that reaches it by a
    /// unix socket or by a loopback name shows the way that works there, and so does the maintenance database.
    fn copy(&self, ini: &PgbouncerIni) -> Alias {
        let host = match [&self.dbname, &self.maintdb].into_iter().find_map(|name| destination(ini, name)) {
            Some(Alias { host: None, .. }) => None,
            Some(Alias { host: Some(host), .. }) if is_this_machine(&host) => Some(host),
            _ => Some(self.host.clone()),
        };
        Alias { dbname: Some(self.database.clone()), host, port: Some(self.postgres_port) }
    }

    /// The last call of staging-client.sh by this step.
    async fn last_install(&self, at: &Context<'_>) -> Result<Option<Install>, Failure> {
        recorded(at, "install").await.map(|part| read(&part)).transpose()
    }

    /// Has staging-client.sh install `upload`, under a name that is this call's alone.
    async fn call_script(&self, at: &Context<'_>, upload: &[u8]) -> Result<(), Failure> {
        let number = self.last_install(at).await?.map_or(1, |last| last.number + 1);
        let tag = format!("{}{}{number}", at.run().0.simple(), plain_name(at));
        let open = Install { number, tag, open: true };
        at.part_done("install", write(&open)).await?;
        let far = self.far(at.run());
        let installed = far.install_ini(upload, &open.tag).await;
        // A script that could not be run has not taken its upload away. Where that cannot be done now either, the call
        // stays open, and whoever comes next does it.
        if installed.is_ok() || far.discard_upload(&open.tag).await.is_ok() {
            at.part_done("install", write(&Install { open: false, ..open })).await?;
        }
        Ok(installed?)
    }

    /// Makes sure that a call of an earlier process is over. When we are killed, a script on a far host goes on, and so
    /// does what a script on this one has started. Its upload is taken back, and then its lock is waited for, by having
    /// the file installed as it is: a script that has not got the lock by then sees that its upload is gone.
    async fn outlive_last_call(&self, at: &Context<'_>) -> Result<(), Failure> {
        let Some(last) = self.last_install(at).await?.filter(|last| last.open) else { return Ok(()) };
        self.far(at.run()).discard_upload(&last.tag).await?;
        let upload = self.ini(at).await?.upload(&self.pgbouncer_conf, &self.dbuser);
        let called = self.call_script(at, &upload.map_err(|error| failed(&error, self))?).await;
        if called.is_err() {
            at.part_done("install", write(&Install { number: last.number + 1, ..last })).await?;
        }
        called
    }

    /// Makes the file say `after` of `name`, from the file as `ini` has it, and has pgbouncer read it.
    async fn install(&self, at: &Context<'_>, mut ini: PgbouncerIni, change: &Change) -> Result<(), Failure> {
        let edited = match (&change.after, ini.entry(&change.name).is_some()) {
            (Some(after), true) => ini.repoint(&change.name, &Destination::from(after)),
            (Some(_), false) if !change.more.is_empty() => {
                let kept: Vec<(String, String)> =
                    serde_json::from_slice(&disk::read(&other_keywords(self, at))?)
                        .map_err(|error| Failure::new("what the entry had cannot be read").because(error))?;
                let kept: Vec<(&str, &str)> =
                    kept.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                ini.add(&change.name, &kept)
            }
            (Some(after), false) => ini.add_to(&change.name, &Destination::from(after)),
            (None, true) => ini.remove(&change.name),
            (None, false) => Ok(()),
        };
        let any_name = serves_any_name(&ini);
        let upload = edited.and_then(|()| ini.upload(&self.pgbouncer_conf, &self.dbuser));
        let upload = upload.map_err(|error| failed(&error, self))?;
        self.call_script(at, &upload).await?;
        self.confirm(change, any_name).await
    }

    fn keep_keywords(&self, at: &Context<'_>, ini: &PgbouncerIni, name: &str) -> Result<(), Failure> {
        let keywords = ini.entry(name).map(Entry::keywords).unwrap_or_default();
        let kept: Vec<(&str, String)> =
            keywords.iter().map(|kept| (kept.name(), kept.value().into_owned())).collect();
        let text = serde_json::to_vec(&kept).map_err(|error| Failure::new(error.to_string()))?;
        Ok(disk::write_whole(&other_keywords(self, at), &text)?)
    }

    /// The entries, other than the copy's own, that lead to the copy; such a copy is in use.
    pub(super) async fn who_points_at_the_copy(&self, at: &Context<'_>) -> Result<Vec<String>, Failure> {
        let ini = self.ini(at).await;
        // This is asked on the way back as well, when nobody comes after it to remove the folder.
        disk::remove_folder_if_empty(&self.workspace(at.run()))?;
        Ok(self.who_points_there(&ini?))
    }

    /// Why a copy does not go that an entry leads to.
    pub(super) fn is_in_use(&self, alias: &str) -> Failure {
        Failure::new(format!("{} is in use: {alias} points at it", self.database))
            .hint(format!("point {alias} at another copy, or drop it with --force"))
    }

    /// What [`who_points_at_the_copy`](Self::who_points_at_the_copy) says, by this pgbouncer.ini.
    pub(super) fn who_points_there(&self, ini: &PgbouncerIni) -> Vec<String> {
        let leads_there = |entry: &&Entry| {
            entry.alias() != self.database
                && entry.database() == self.database.as_str()
                && entry.port().unwrap_or(5432) == self.postgres_port
        };
        let entries = ini.entries().iter().chain(ini.fallback());
        entries.filter(leads_there).map(|entry| entry.alias().to_owned()).collect()
    }

    /// pgbouncer itself must say what the file says.
    async fn confirm(&self, change: &Change, any_name: bool) -> Result<(), Failure> {
        if self.is_live(&change.name, change.after.as_ref(), any_name).await? {
            return Ok(());
        }
        Err(Failure::new(format!("pgbouncer did not take the change of {}", change.name)).hint(format!(
            "look at SHOW DATABASES and at pgbouncer's log: psql -h {} -p {} -U {} pgbouncer",
            self.host, self.pgbouncer_port, self.dbuser
        )))
    }

    /// Whether pgbouncer serves `name` as `wanted`, or not at all. Where a `*` entry serves `any_name`, a client that
    /// comes back makes a name reappear that the file has not any more, and the file alone counts.
    async fn is_live(&self, name: &str, wanted: Option<&Alias>, any_name: bool) -> Result<bool, Failure> {
        let shown = self.console().database(name).await?;
        Ok(match (wanted, shown) {
            (None, shown) => shown.is_none() || any_name,
            (Some(wanted), Some(shown)) => {
                wanted.dbname.as_deref().is_none_or(|dbname| dbname == shown.database)
                    && wanted.port.is_none_or(|port| port.to_string() == shown.port)
                    && wanted.host.as_deref().is_none_or(|host| host == shown.host)
            }
            _ => false,
        })
    }

    async fn intend(&self, at: &Context<'_>, name: &str, wanted: Wanted) -> Result<Intent, Failure> {
        let ini = self.ini(at).await?;
        let now = destination(&ini, name);
        let after = match wanted {
            Wanted::Copy => Some(self.copy(&ini)),
            Wanted::Nothing => None,
        };
        // A second attempt may find its own change there; where things stood before the first is what undo needs.
        let before = match announced(at).await {
            Some(intent) => read::<Change>(&intent)?.before,
            None => now.clone(),
        };
        let any_name = serves_any_name(&ini);
        if now == after && before == after && self.is_live(name, after.as_ref(), any_name).await? {
            let state = match &after {
                Some(after) => format!("points at {} already", after.dbname.as_deref().unwrap_or_default()),
                None => "has no entry".to_owned(),
            };
            return Ok(Intent::Skip(format!("{name} {state}")));
        }
        let base = ini.base_sha256_hex().to_owned();
        let more = match wanted {
            Wanted::Copy => Vec::new(),
            Wanted::Nothing => names_of_other_keywords(&ini, name),
        };
        Ok(Intent::Do(write(&Change { name: name.to_owned(), before, after, more, base })))
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        let change: Change = read(intent)?;
        self.outlive_last_call(at).await?;
        let ini = self.ini(at).await?;
        let now = destination(&ini, &change.name);
        if now == change.after {
            let live = self.is_live(&change.name, change.after.as_ref(), serves_any_name(&ini)).await?;
            return Ok(if live { Observed::Done(intent.clone()) } else { Observed::Absent });
        }
        if now == change.before {
            return Ok(Observed::Absent);
        }
        Ok(Observed::Unknown(
            Failure::new(format!(
                "{} in {} is not what this run left there",
                change.name, self.pgbouncer_conf
            ))
            .code(4)
            .because(format!("it leads to {}", words(now.as_ref())))
            .hint(format!(
                "make it lead to {}, then continue the run, or roll it back",
                words(change.before.as_ref())
            )),
        ))
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        let ini = self.ini(at).await?;
        if ini.base_sha256_hex() != change.base {
            return Err(Failure::new(format!(
                "{} was changed by somebody else meanwhile",
                self.pgbouncer_conf
            ))
            .hint("try again")
            .transient(true));
        }
        if change.after.is_none() && !change.more.is_empty() {
            self.keep_keywords(at, &ini, &change.name)?;
        }
        self.install(at, ini, &change).await?;
        Ok(intent.clone())
    }

    /// Back to what was before, if it is still as this run left it; what somebody else made of it stays.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let undone = self.point_back(at, intent).await;
        // When this is tried again later, nobody comes after it to remove the folder.
        disk::remove_folder_if_empty(&self.workspace(at.run()))?;
        undone
    }

    async fn point_back(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        self.outlive_last_call(at).await?;
        let ini = self.ini(at).await?;
        let now = destination(&ini, &change.name);
        let back = Change { before: change.after.clone(), after: change.before.clone(), ..change.clone() };
        if now == change.after && now != change.before {
            self.install(at, ini, &back).await?;
            return Ok(write(
                &serde_json::json!({ "name": change.name, "back_to": words(change.before.as_ref()) }),
            ));
        }
        let any_name = serves_any_name(&ini);
        if now == change.before && !self.is_live(&change.name, now.as_ref(), any_name).await? {
            self.install(at, ini, &back).await?;
        }
        Ok(write(&serde_json::json!({ "name": change.name, "left_as_it_is": words(now.as_ref()) })))
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Copy,
    Nothing,
}

fn words(destination: Option<&Alias>) -> String {
    let Some(Alias { dbname, host, port }) = destination else { return "nothing".to_owned() };
    let place = host.iter().cloned().chain(port.map(|port| port.to_string())).collect::<Vec<_>>().join(":");
    let dbname = dbname.clone().unwrap_or_default();
    if place.is_empty() { dbname } else { format!("{dbname} on {place}") }
}

#[async_trait]
impl Step for Add {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        self.settings.intend(at, &self.settings.database, Wanted::Copy).await
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        self.settings.observe(at, intent).await
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.settings.act(at, intent).await
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.settings.undo(at, intent).await
    }
}

impl Remove {
    fn name(&self) -> &str {
        if self.given.alias { &self.settings.dbname } else { &self.settings.database }
    }

    /// Whether the alias leads to the copy, or did before this run took it out.
    async fn is_to_go(&self, at: &Context<'_>) -> Result<bool, Failure> {
        if !self.given.alias || announced(at).await.is_some() {
            return Ok(true);
        }
        let alias = destination(&self.settings.ini(at).await?, &self.settings.dbname);
        Ok(alias.is_some_and(|alias| alias.dbname.as_ref() == Some(&self.settings.database)))
    }
}

#[async_trait]
impl Step for Remove {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        if !self.is_to_go(at).await? {
            let Settings { dbname, database, .. } = &self.settings;
            return Ok(Intent::Skip(format!("{dbname} does not point at {database}")));
        }
        if self.given.unless_in_use
            && let Some(alias) = self.settings.who_points_at_the_copy(at).await?.first()
        {
            return Err(self.settings.is_in_use(alias));
        }
        self.settings.intend(at, self.name(), Wanted::Nothing).await
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        self.settings.observe(at, intent).await
    }

    /// New clients are turned away before the entry goes, so that nobody is let in half-way.
    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.settings.console().disable(self.name()).await?;
        self.settings.act(at, intent).await
    }

    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let undone = self.settings.undo(at, intent).await?;
        self.settings.console().enable(self.name()).await?;
        Ok(undone)
    }
}

impl Switch {
    /// The alias must still be where preflight saw it, or where this run has put it already.
    async fn nobody_moved_it(&self, at: &Context<'_>) -> Result<(), Failure> {
        let Settings { dbname, database, .. } = &self.settings;
        let seen = super::outcome::<super::preflight::Outcome>(at, "preflight").await?.alias;
        let ini = self.settings.ini(at).await?;
        let now = destination(&ini, dbname);
        if now == seen || now == Some(self.settings.copy(&ini)) {
            return Ok(());
        }
        Err(Failure::new(format!("{dbname} was pointed elsewhere by somebody else meanwhile"))
            .because(format!("it led to {}, and leads to {} now", words(seen.as_ref()), words(now.as_ref())))
            .hint(format!("it stays there; start again if it is to point at {database} all the same")))
    }
}

#[async_trait]
impl Step for Switch {
    async fn intend(&self, at: &Context<'_>) -> Result<Intent, Failure> {
        if !self.given.wanted {
            return Ok(Intent::Skip("auto_switch is off".to_owned()));
        }
        self.nobody_moved_it(at).await?;
        self.settings.intend(at, &self.settings.dbname, Wanted::Copy).await
    }

    async fn observe(&self, at: &Context<'_>, intent: &Detail) -> Result<Observed, Failure> {
        self.settings.observe(at, intent).await
    }

    async fn act(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        self.settings.act(at, intent).await
    }

    /// The copy that the alias pointed at before may be gone by now; then it stays where it is.
    async fn undo(&self, at: &Context<'_>, intent: &Detail) -> Result<Detail, Failure> {
        let change: Change = read(intent)?;
        self.settings.outlive_last_call(at).await?;
        let still_ours = destination(&self.settings.ini(at).await?, &change.name) == change.after;
        let before = change.before.and_then(|before| before.dbname);
        if let Some(before) = before.filter(|_| still_ours) {
            let server = super::server(at, &self.settings).await?;
            let session = server.connect(&self.settings.maintdb, "pg_staging").await?;
            if comment_of(&session, &before).await?.is_none() {
                let Settings { section, dbname, database, .. } = &self.settings;
                return Err(Failure::new(format!("{dbname} cannot go back to {before}: that database is gone"))
                    .hint(format!("point {dbname} at a copy other than {database} first (pg_staging switch {section} <date>)")));
            }
        }
        self.settings.undo(at, intent).await
    }
}
