//! The user's own checks: SQL files, each of which must find nothing.
//!
//! psql runs them, as it does all files of the user's, in sessions that may not write. What one finds is a message, and
//! so is kept in the journal: the first few lines of it.

use std::path::Path;

use journal::event::Failure;
use journal::step::Context;

use crate::step::sql::psql;
use crate::step::{Settings, application_name, run_child, server, write};
use crate::world::disk;

/// So many lines of what a file found are told.
const TOLD: usize = 5;
/// And so many characters of each.
const OF_A_LINE: usize = 200;

/// Runs the files of a folder in order of their names, and records each that found nothing; gives how many there are. A
/// failure when one finds something.
pub(super) async fn hold(
    at: &Context<'_>,
    settings: &Settings,
    folder: Option<&Path>,
) -> Result<u64, Failure> {
    let files = folder.map(|folder| disk::files_with_suffix(folder, ".sql")).transpose()?.unwrap_or_default();
    for file in &files {
        let sha256 = disk::sha256_of_file(file)?;
        holds(at, settings, file).await?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        at.part_done(&name, write(&serde_json::json!({ "sha256": sha256 }))).await?;
    }
    Ok(files.len() as u64)
}

async fn holds(at: &Context<'_>, settings: &Settings, file: &Path) -> Result<(), Failure> {
    let server = server(at, settings).await?;
    let program = psql(settings, &server, &application_name(at))
        .args(["--csv", "--tuples-only", "--set=VERBOSITY=terse"])
        .args(["--command", "SET default_transaction_read_only = on", "--file"])
        .arg(file);
    let ended = run_child(at, &program, |_| true).await?;
    let file = file.display();
    if !ended.status.success() {
        // Status 2: the connection to the server went bad (psql(1), Exit Status).
        return Err(Failure::new(format!("{file} failed"))
            .because(ended.errors().trim())
            .transient(ended.status.code() == Some(2))
            .hint(
                "correct the file, which may read and not write, then try again; the alias was not touched",
            ));
    }
    let found = String::from_utf8_lossy(&ended.stdout);
    let lines: Vec<&str> = found.lines().collect();
    if lines.is_empty() {
        return Ok(());
    }
    let told = lines.iter().take(TOLD).map(|line| line.chars().take(OF_A_LINE).collect::<String>());
    let mut told: Vec<String> = told.collect();
    if lines.len() > TOLD {
        told.push("…".to_owned());
    }
    Err(Failure::new(format!("{} is not what it should be: {file} found something", settings.database))
        .because(told.join("; "))
        .hint("the alias was not touched; look at what post SQL does, and at production"))
}
