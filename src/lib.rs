//! `pg_staging` keeps PostgreSQL staging environments fed from production backups.
//!
//! The rooms, and who may enter which, are described in `docs/architecture.md`.

pub mod backup;
pub mod bouncer;
pub mod cli;
pub mod command;
pub mod config;
pub mod console;
pub mod contents;
pub mod database;
pub mod error;
pub mod plan;
pub mod progress;
pub mod report;
pub mod step;
pub mod world;
