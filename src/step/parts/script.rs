//! A dump in plain SQL, which psql runs while it comes.
//!
//! It is one transaction, which ends with the copy's mark, and only when all of the dump came and was whole. So it is in
//! the copy once or not at all, whatever is killed when.

use journal::event::Failure;
use journal::step::Context;

use super::feed::{Fault, give};
use super::{Loaded, Parts, Plan};
use crate::contents::Script;
use crate::step::catalog::Selected;
use crate::step::create_database::{Mark, comment_of, require_ours};
use crate::step::sql::psql;
use crate::step::{application_name, asked_to_stop, end_leftovers, server, shortened, until_ended};
use crate::world::archive::{self, ArchiveError, Form};
use crate::world::postgres::{identifier, literal};
use crate::world::process::{Ended, Input};
use crate::world::source::Source;
use crate::world::unpack::Unpacked;

/// What psql does before all else. A server from 17 on may have a limit of its own for transactions.
const BEGIN: &str = "SET standard_conforming_strings = on;\n\
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout';\n\
    BEGIN;\n";

impl Parts {
    async fn source(&self, at: &Context<'_>, selected: &Selected) -> Result<Source, Failure> {
        if let Some(dump) = &selected.dump {
            return Ok(Source::local(dump.clone())?);
        }
        let backup = crate::step::backup(at).await?;
        let url = backup.url(&self.secrets)?;
        let meta = backup.meta(&url);
        Ok(Source::remote(self.secrets.web()?, url, meta))
    }

    /// What is announced.
    pub(super) async fn script(&self, at: &Context<'_>, selected: &Selected) -> Result<Plan, Failure> {
        let bytes = self.source(at, selected).await?.length().unwrap_or_default();
        Ok(Plan { parts: 1, entries: 0, bytes, jobs: 1, application_name: application_name(at) })
    }

    /// Runs it.
    pub(super) async fn run_script(&self, at: &Context<'_>, selected: &Selected) -> Result<Loaded, Failure> {
        let database = &self.settings().database;
        let server = server(at, self.settings()).await?;
        // A commit of an attempt that failed may still be on its way.
        end_leftovers(at, &server, &self.settings().maintdb).await?;
        let session = server.connect(&self.settings().maintdb, &application_name(at)).await?;
        require_ours(&session, database, at.run()).await?;
        let reached = Mark::reached(at.run(), at.step());
        let is_done = async || -> Result<bool, Failure> {
            Ok(comment_of(&session, database).await?.is_some_and(|comment| comment == reached))
        };
        let mut loaded = Loaded { entries: 0, kept: 0, bytes: 0, tolerated: Vec::new() };
        if is_done().await? {
            return Ok(loaded);
        }
        let roles = session.rows("SELECT rolname FROM pg_catalog.pg_roles").await?;
        let script = Script::new(roles.into_iter().flatten().flatten().collect());
        let source = self.source(at, selected).await?;
        let Form::Sql(packing) = archive::form_of(&source).await? else {
            return Err(Failure::new(format!("{} is not plain SQL any more", source.name()))
                .hint("roll the run back and start a new one"));
        };
        let end = format!(
            "\n;\nRESET SESSION AUTHORIZATION;\nRESET ROLE;\nCOMMENT ON DATABASE {} IS {};\nCOMMIT;\n",
            identifier(database),
            literal(&reached)
        );
        let program = psql(self.settings(), &server, at)
            .args(["--output=/dev/null", "--file=-"])
            .env("PGCLIENTENCODING", "UTF8");
        let (running, mut input) = program.start_fed()?;
        let identity = running.identity()?;
        let total = source.length();
        let mut reading = Unpacked::new(source.name(), source.whole(0), packing);
        let (bytes, tolerated) = (&mut loaded.bytes, &mut loaded.tolerated);
        let feed = async move {
            let fed = feed(at, &mut input, script, &mut reading, total).await;
            *bytes = reading.came();
            match fed {
                Ok(left_out) => *tolerated = shortened(left_out),
                Err(Fault::Closed) => return Ok(()),
                Err(Fault::Failed(failure)) => return Err(failure),
            }
            match give(&mut input, end.as_bytes()).await {
                Ok(()) | Err(Fault::Closed) => Ok(()),
                Err(Fault::Failed(failure)) => Err(failure),
            }
        };
        let finish = async { running.finish(|_| true).await.map_err(Failure::from) };
        let stopped = async {
            asked_to_stop(at).await;
            Err(Failure { stopped: true, ..Failure::new("stopped within the dump's transaction") })
        };
        // When the feed fails, psql is ended before it can commit.
        let ends = async {
            tokio::select! {
                ended = async { tokio::try_join!(feed, finish).map(|((), ended)| ended) } => ended,
                stopped = stopped => stopped,
            }
        };
        let ended = until_ended(at, &program, identity, ends).await?;
        if ended.status.success() && is_done().await? {
            return Ok(loaded);
        }
        Err(failed(at, database, &ended))
    }
}

/// What psql made of it.
fn failed(at: &Context<'_>, database: &str, ended: &Ended) -> Failure {
    let said = ended.errors();
    let first = said.lines().find(|line| line.contains("ERROR:") || line.contains("FATAL:"));
    // Status 2: the connection to the server went bad (psql(1), Exit Status).
    Failure::new(format!("psql into {database} failed ({})", ended.ending()))
        .because(first.map_or_else(|| crate::step::last_words(&said), str::to_owned))
        .transient(ended.status.code() == Some(2))
        .hint(format!(
            "in plain SQL every error counts; roles that are missing are made by pg_staging init; see pg_staging inspect {}",
            at.run().short()
        ))
}

/// Feeds psql with what the dump holds; gives what is left out. The end is not written: it is for who knows that all is
/// well.
async fn feed(
    at: &Context<'_>,
    input: &mut Input,
    mut script: Script,
    reading: &mut Unpacked<'_>,
    total: Option<u64>,
) -> Result<Vec<String>, Fault> {
    give(input, BEGIN.as_bytes()).await?;
    let name = reading.name().to_owned();
    let unfit = |error: crate::contents::ScriptError| {
        let hint = error.hint();
        Failure::from(ArchiveError::damaged(&name, error)).hint(hint)
    };
    let mut out = Vec::new();
    while let Some(chunk) = reading.chunk().await? {
        script.take(&chunk, &mut out).map_err(unfit)?;
        give(input, &out).await?;
        out.clear();
        at.progress(reading.came(), total, "bytes");
    }
    let left_out = script.end(&mut out).map_err(unfit)?;
    give(input, &out).await?;
    Ok(left_out)
}
