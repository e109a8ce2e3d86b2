//! A dump in plain SQL, which psql runs while it comes.
//!
//! It is one transaction, which ends with the copy's mark, and only when all of the dump came and was whole. So it is in
//! the copy once or not at all, whatever is killed when.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use journal::event::Failure;
use journal::step::Context;

use super::feed::{Fault, give};
use super::{Loaded, Parts, Plan};
use crate::contents::{Script, ScriptError, psql_restricts};
use crate::step::backends;
use crate::step::board::{Board, Slot};
use crate::step::catalog::Selected;
use crate::step::create_database::{Mark, comment_of, require_ours};
use crate::step::lookout::{Lookout, Sessions};
use crate::step::sql::psql;
use crate::step::{
    application_name, asked_to_stop, end_leftovers, last_words, server, shortened, until_ended,
};
use crate::world::archive::{self, ArchiveError, Form};
use crate::world::clients;
use crate::world::postgres::{Server, identifier, literal};
use crate::world::process::{Ended, Input};
use crate::world::source::Source;
use crate::world::unpack::Unpacked;

/// What psql does before all else. A server from 17 on may have a limit of its own for transactions. It is on one line with
/// the beginning of the dump, so that psql counts lines as the dump has them.
const BEGIN: &str = "SET standard_conforming_strings = on; \
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'; \
    BEGIN; ";

/// The same, with a lock before it where psql has one (`\restrict`): then no command of psql's own runs, whatever a setting
/// that SQL makes has psql take for a string. The key is nobody's to know.
fn beginning(psql_version: Option<&str>) -> String {
    if !psql_version.is_some_and(psql_restricts) {
        return BEGIN.to_owned();
    }
    // Each of them is random by itself.
    let key = [(); 2].map(|()| format!("{:016x}", RandomState::new().hash_one(()))).concat();
    format!("\\restrict {key} \\\\ {BEGIN}")
}

/// What comes, in messages.
const ALL: &str = "all of the dump";

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
        let patience = Duration::from_millis(self.patience.stall_after_ms);
        let board = Board::of_script(at.step(), source.length(), patience);
        let name = application_name(at);
        let (maintdb, application_name) = (self.settings().maintdb.as_str(), name.as_str());
        let sessions = Some(Sessions { server: &server, maintdb, application_name });
        let run = self.run_psql(at, &server, &source, script, &board);
        let (ended, left_out) = Lookout { at, board: &board, sessions }.during(run).await?;
        if ended.status.success() && is_done().await? {
            (loaded.bytes, loaded.tolerated) = (board.came(), shortened(left_out));
            return Ok(loaded);
        }
        Err(failed(at, database, &ended))
    }

    /// Gives what came of psql, and what was left out. It has committed when it ended well, and not unless all of the dump
    /// came.
    async fn run_psql(
        &self,
        at: &Context<'_>,
        server: &Server,
        source: &Source,
        script: Script,
        board: &Board,
    ) -> Result<(Ended, Vec<String>), Failure> {
        let Form::Sql(packing) = archive::form_of(source).await? else {
            return Err(Failure::new(format!("{} is not plain SQL any more", source.name()))
                .hint("roll the run back and start a new one"));
        };
        let end = format!(
            "\n;\nRESET SESSION AUTHORIZATION;\nRESET ROLE;\nCOMMENT ON DATABASE {} IS {};\nCOMMIT;\n",
            identifier(&self.settings().database),
            literal(&Mark::reached(at.run(), at.step()))
        );
        let begin = beginning(clients::version(&self.settings().psql()).await.as_deref());
        let slot = board.begin(ALL, vec![0], source.length());
        let session = backends::name_of(&application_name(at), slot.number());
        let program = psql(self.settings(), server, &session)
            .args(["--output=/dev/null", "--file=-"])
            .env("PGCLIENTENCODING", "UTF8");
        let (running, mut input) = program.start_fed()?;
        let identity = running.identity()?;
        let mut reading = Unpacked::new(source.name(), source.whole(0), packing);
        let mut left_out = Vec::new();
        let (told, place) = (&mut left_out, &slot);
        let feed = async move {
            let fed = async {
                give(&mut input, begin.as_bytes()).await?;
                *told = feed(&mut input, script, &mut reading, place).await?;
                give(&mut input, end.as_bytes()).await
            };
            match fed.await {
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
        Ok((ended, left_out))
    }
}

/// What psql made of it.
fn failed(at: &Context<'_>, database: &str, ended: &Ended) -> Failure {
    let said = ended.errors();
    // Status 2: the connection to the server went bad (psql(1), Exit Status).
    Failure::new(format!("psql into {database} failed ({})", ended.ending()))
        .because(first_error(&said).unwrap_or_else(|| last_words(&said)))
        .transient(ended.status.code() == Some(2))
        .hint(format!(
            "in plain SQL every error counts; roles that are missing are made by pg_staging init; see pg_staging inspect {}",
            at.run().short()
        ))
}

/// The first error that psql speaks of, with the line of the dump that it is in; where that is the end of rows, with the
/// place in them.
fn first_error(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.contains("ERROR:") && !line.contains("FATAL:"));
    let first = lines.next()?;
    let first = first.strip_prefix("psql:<stdin>:").map_or(first.to_owned(), |rest| format!("line {rest}"));
    let rows = lines.find_map(|line| line.strip_prefix("CONTEXT:")?.trim().strip_prefix("COPY "));
    // Behind the colon is what the row has there.
    Some(match rows.and_then(|rows| rows.split(':').next()) {
        Some(place) => format!("{first} (in the rows of {place})"),
        None => first,
    })
}

/// Feeds psql with what the dump holds; gives what is left out.
async fn feed(
    input: &mut Input,
    mut script: Script,
    reading: &mut Unpacked<'_>,
    slot: &Slot<'_>,
) -> Result<Vec<String>, Fault> {
    let name = reading.name().to_owned();
    let unfit = |error: ScriptError| {
        let hint = error.hint();
        Failure::from(ArchiveError::damaged(&name, error)).hint(hint)
    };
    let mut out = Vec::new();
    let mut told = 0;
    while let Some(chunk) = slot.awaited(reading.chunk()).await? {
        slot.came(reading.came() - told);
        told = reading.came();
        script.take(&chunk, &mut out).map_err(unfit)?;
        give(input, &out).await?;
        out.clear();
    }
    slot.came(reading.came() - told);
    let left_out = script.end(&mut out).map_err(unfit)?;
    give(input, &out).await?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::first_error;

    #[test]
    fn an_error_is_told_with_its_place() {
        let said = "psql:<stdin>:3: NOTICE:  something\npsql:<stdin>:7: ERROR:  division by zero\n";
        assert_eq!(first_error(said).unwrap(), "line 7: ERROR:  division by zero");
        let said = "psql:<stdin>:9: ERROR:  value too long\nCONTEXT:  COPY t, line 2, column a: \"abc\"\n";
        assert_eq!(
            first_error(said).unwrap(),
            "line 9: ERROR:  value too long (in the rows of t, line 2, column a)"
        );
        assert_eq!(first_error("psql: could not connect\n"), None);
    }
}
