//! What was once written can be read for ever: the exact bytes of one event of every type and version.
//!
//! A golden file is made once, when its line is added to the registry: `UPDATE_GOLDEN=1 cargo test -p journal --test
//! golden` writes those that are missing, and never touches one that is there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod material;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use journal::codec;
use journal::codec::payload::REGISTRY;
use journal::event::{
    Actor, Effect, Envelope, Event, Failure, Hash, OnFailure, PlannedStep, Process, RollbackCause, RunId,
    RunStarted, StopCause, Verdict,
};
use material::{detail, process};
use uuid::Uuid;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn failure() -> Failure {
    Failure::new("cannot fetch 'http://backup/shop.dump'")
        .because("connection reset — after 5 MB")
        .hint("look at the server")
        .code(6)
}

fn run_started() -> RunStarted {
    let step = |name: &str, effect| PlannedStep {
        name: name.to_owned(),
        kind: "database-create".to_owned(),
        version: 3,
        parameters: detail("encoding", "UTF8"),
        effect,
        rests_on: vec![0],
        redo_with: vec![1, 2],
    };
    RunStarted {
        version: "0.1.0".to_owned(),
        command: "restore".to_owned(),
        arguments: vec!["shop".to_owned(), "20261121".to_owned()],
        section: Some("shop".to_owned()),
        database: Some("shop_20261121".to_owned()),
        target: None,
        read_only: false,
        on_failure: OnFailure::Keep,
        retry_limit_ms: 300_000,
        settings: detail("tables", vec!["größe", "weight"]),
        plan: vec![
            step("preflight", Effect::None),
            step("create", Effect::Undoable),
            step("drop", Effect::Final),
        ],
        process: process(),
    }
}

/// One event of each kind, with something in every field.
fn representative(kind: &str) -> Option<Event> {
    let event = match kind {
        "run_started" => Event::RunStarted(Box::new(run_started())),
        "run_continued" => Event::RunContinued { version: "0.2.0".to_owned(), process: process() },
        "step_started" => {
            Event::StepStarted { step: 3, attempt: 2, intent: detail("url", "http://backup/shop.dump") }
        }
        "step_succeeded" => {
            Event::StepSucceeded { step: 3, outcome: detail("bytes", 5_000_000_000_u64), observed: true }
        }
        "step_skipped" => Event::StepSkipped { step: 4, reason: "nothing to do".to_owned() },
        "step_failed" => Event::StepFailed { step: 3, attempt: 1, error: failure(), retry_in_ms: Some(250) },
        "step_unknown" => Event::StepUnknown { step: 9, error: failure() },
        "steps_reset" => Event::StepsReset { steps: vec![6, 7], reason: "half a table".to_owned() },
        "step_resolved" => {
            Event::StepResolved { step: 9, verdict: Verdict::Undone, reason: "looked at it".to_owned() }
        }
        "part_done" => {
            Event::PartDone { step: 6, part: "public.orders".to_owned(), detail: detail("rows", 12) }
        }
        "child_started" => Event::ChildStarted {
            step: 6,
            process: Process { pid: u32::MAX, start_time: u64::MAX, boot_id: String::new() },
            program: "pg_restore".to_owned(),
        },
        "child_ended" => Event::ChildEnded { step: 6, pid: 4711, ending: "exit status: 1".to_owned() },
        "undo_started" => Event::UndoStarted { step: 1, attempt: 1 },
        "undo_succeeded" => {
            Event::UndoSucceeded { step: 1, outcome: detail("found", serde_json::Value::Null) }
        }
        "undo_failed" => Event::UndoFailed { step: 1, attempt: 3, error: failure(), retry_in_ms: None },
        "rollback_started" => {
            Event::RollbackStarted { cause: RollbackCause::Request, reason: "asked for".to_owned() }
        }
        "run_succeeded" => Event::RunSucceeded,
        "run_failed" => Event::RunFailed { error: failure() },
        "run_stopped" => Event::RunStopped { cause: StopCause::Signal(15), error: Some(failure()) },
        "run_rolled_back" => Event::RunRolledBack,
        "run_stuck" => Event::RunStuck { error: failure() },
        "run_abandoned" => Event::RunAbandoned { reason: "the server is gone".to_owned() },
        "journal_rebuilt" => Event::JournalRebuilt {
            set_aside: "/var/lib/pg_staging/sled.damaged.20261121T101112Z".to_owned(),
            reason: "it panicked".to_owned(),
            runs: 12,
            events: 345,
        },
        _ => return None,
    };
    Some(event)
}

fn envelope(event: Event) -> Envelope {
    Envelope {
        run: RunId(Uuid::from_u128(0x0193_4d5e_6f70_7182_93a4_b5c6_d7e8_f901)),
        n: 41,
        id: Uuid::from_u128(0x0193_4d5e_6f71_7000_8000_0000_0000_0001),
        at: Timestamp::from_microsecond(1_732_147_200_123_456).unwrap(),
        epoch: 2,
        actor: Actor { user: "postgres".to_owned(), host: "db1.example.org".to_owned(), pid: 4711 },
        prev: Hash::of(b"the event before"),
        event,
    }
}

fn is_newest(version: u16, kind: &str) -> bool {
    let versions = REGISTRY.iter().filter(|line| line.2 == kind).map(|line| line.1);
    versions.max() == Some(version)
}

#[test]
fn every_line_of_the_registry_reads_and_writes_its_golden_file() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (type_id, version, kind, skippable) in REGISTRY {
        let path = folder().join(format!("{type_id:03}.v{version}.{kind}.bin"));
        let event =
            representative(kind).unwrap_or_else(|| panic!("no representative event of kind '{kind}'"));
        let expected = envelope(event);
        if update && !path.exists() && is_newest(version, kind) {
            fs::write(&path, codec::encode(&expected).unwrap()).unwrap();
        }
        let golden = fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; UPDATE_GOLDEN=1 writes what is missing", path.display())
        });
        let header = codec::header(&golden).unwrap();
        assert_eq!(
            (header.type_id, header.type_version, header.skippable),
            (type_id, version, skippable),
            "{kind}"
        );
        assert_eq!(codec::decode(&golden), Ok(expected.clone()), "{kind}");
        if is_newest(version, kind) {
            assert_eq!(codec::encode(&expected).as_deref(), Ok(&*golden), "{kind}");
        }
    }
}

#[test]
fn every_golden_file_belongs_to_a_line_of_the_registry() {
    let known: Vec<String> = REGISTRY
        .iter()
        .map(|(type_id, version, kind, _)| format!("{type_id:03}.v{version}.{kind}.bin"))
        .collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "'{name}' is of a type that was removed from the registry");
    }
}

#[test]
fn numbers_in_the_registry_are_given_once() {
    for (index, line) in REGISTRY.iter().enumerate() {
        for other in REGISTRY.iter().skip(index + 1) {
            assert_ne!((line.0, line.1), (other.0, other.1));
            assert_ne!((line.2, line.1), (other.2, other.1));
            assert_eq!(line.0 == other.0, line.2 == other.2, "a type has one kind");
        }
    }
}
