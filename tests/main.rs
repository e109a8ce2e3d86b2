//! All tests that need real servers: one binary, so that they share one stage.

mod stage;

mod contents;
mod killed;
mod restore;
mod stage_works;
mod staging_client;
