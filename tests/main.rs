//! All tests that need real servers: one binary, so that they share one stage.
#![allow(unreachable_pub, reason = "`pub` says what a module offers to the others")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests say what went wrong by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for the world")]

mod chance;
mod gate;
mod run_file;
mod stage;
mod traces;

mod about;
mod architecture;
mod asking;
mod audit;
mod backup_server;
mod client_services;
mod commands;
mod console;
mod contents;
mod contents_of_dumps;
mod dumping;
mod failures;
mod far;
mod filtering;
mod follow;
mod formats;
mod init;
mod journal_on_postgres;
mod journal_upkeep;
mod killed;
mod kinds;
mod large;
mod listings;
mod live;
mod manual;
mod mending;
mod newer;
mod nightly;
mod operations;
mod pooling;
mod progress;
mod promises;
mod proof;
mod protecting;
mod psql;
mod purging;
mod readme;
mod restore;
mod restore_by_parts;
mod scripts;
mod secrets;
mod services;
mod stage_works;
mod staging_client;
mod upkeep;
mod versions;
