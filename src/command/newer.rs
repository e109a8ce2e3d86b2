//! `restore --if-newer`: whether there is anything to restore. pgbouncer tells which copy is behind the alias, that copy's
//! mark which run made it, and the journal what that run made it from.

use jiff::civil::Date;
use journal::event::RunId;
use journal::run::{Run, Status};
use journal::store::{Store, StoreError};
use tokio::sync::OnceCell;

use super::{App, backups, runs, secrets};
use crate::config::Target;
use crate::database::DatedName;
use crate::error::Error;
use crate::report::NotNewer;
use crate::step::create_database::{comment_of, run_that_made};
use crate::step::preflight::{Backup, Outcome, Preflight, Wanted};
use crate::step::{Settings, read};

/// The backup that a restore would take.
pub(super) struct Candidate<'a> {
    app: &'a App,
    target: &'a Target,
    settings: &'a Settings,
    date: Date,
    /// Its URL, without user and password.
    url: &'a str,
    /// What the server says of it, asked once: what is behind the alias may be looked at often.
    found: OnceCell<Backup>,
}

impl<'a> Candidate<'a> {
    /// The backup of that date, from which the copy of `settings` would be made.
    pub(super) fn new(
        app: &'a App,
        target: &'a Target,
        settings: &'a Settings,
        date: Date,
        url: &'a str,
    ) -> Candidate<'a> {
        Candidate { app, target, settings, date, url, found: OnceCell::new() }
    }

    /// Why there is nothing to restore: a newer copy is live, or the one that a finished run made of this backup.
    /// `None` when the backup is newer than what is live, or nobody knows what that was made of.
    pub(super) async fn not_newer(&self, store: &dyn Store) -> Result<Option<NotNewer>, Error> {
        let Some((copy, date)) = self.live().await? else { return Ok(None) };
        let told = |run: Option<&Run>, changed| NotNewer {
            section: self.target.section.clone(),
            alias: self.target.auto_switch.then(|| self.target.dbname.clone()),
            copy: copy.clone(),
            backup: self.date,
            run: run.map(|run| run.id),
            changed,
        };
        if date != self.date {
            return Ok((date > self.date).then(|| told(None, false)));
        }
        let Some(run) = self.maker(store, &copy).await? else { return Ok(None) };
        let Some(taken) = backup_of(&run)?.filter(|_| run.status == Status::Succeeded) else {
            return Ok(None);
        };
        let found = self.found.get_or_try_init(|| self.ask()).await?;
        Ok((taken.url == found.url).then(|| told(Some(&run), !is_same(&taken, found))))
    }

    /// The copy that counts, with its date: the one behind the alias, or where a restore leaves the alias alone, the
    /// newest.
    async fn live(&self) -> Result<Option<(String, Date)>, Error> {
        let base = &self.target.dbname;
        if !self.target.auto_switch {
            let newest = self.app.copies(self.target).await?.into_iter().max();
            let named = newest.map(|date| Ok::<_, Error>((DatedName::new(base, date)?.to_string(), date)));
            return named.transpose();
        }
        let port = self.target.postgres_port.to_string();
        let alias = self.settings.console().database(base).await?.filter(|alias| alias.port == port);
        Ok(alias.and_then(|alias| {
            let date = DatedName::date_of(base, &alias.database)?;
            Some((alias.database, date))
        }))
    }

    /// The run that made the copy, by its mark, when the journal has it.
    async fn maker(&self, store: &dyn Store, copy: &str) -> Result<Option<Run>, Error> {
        let session = self.app.maintenance(self.target).await?;
        let comment = comment_of(&session, copy).await?;
        let Some(id): Option<RunId> = comment.as_deref().and_then(run_that_made) else { return Ok(None) };
        match store.read(id).await {
            Ok(events) => Ok(Some(runs::understood(id, &events)?)),
            Err(StoreError::NoSuchRun(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self) -> Result<Backup, Error> {
        let preflight = Preflight {
            settings: self.settings.clone(),
            secrets: secrets(self.target),
            wanted: Wanted { listed_at: Some(backups::folder(self.target)), ..Wanted::default() },
        };
        Ok(preflight.look_at_backup(self.url).await?)
    }
}

/// The backup that a run fetched.
pub(super) fn backup_of(run: &Run) -> Result<Option<Backup>, Error> {
    let outcome = run.step("preflight").and_then(|(_, step)| step.outcome.as_ref());
    Ok(outcome.map(read::<Outcome>).transpose()?.and_then(|outcome| outcome.backup))
}

/// Whether two answers of the server are about the same bytes.
fn is_same(one: &Backup, other: &Backup) -> bool {
    let version = |backup: &Backup| (backup.bytes, backup.etag.clone(), backup.last_modified_text.clone());
    version(one) == version(other)
}
