//! Event-sourced runs of steps.
//!
//! A *run* is one execution of a command: an ordered list of *steps* (the plan), each of which can be observed, done
//! and undone. What happens to a run is a chain of *events*, facts in the past tense, appended to a [`store`] before
//! and after every effect on the world. Where a run stands is never stored: it is [folded](run::Run) from its events,
//! and one [loop](engine::Engine) starts, continues and undoes runs from whatever it finds there.
//!
//! This crate knows nothing of databases to restore, terminals or configuration files: the steps are given to it as
//! [`step::Step`] objects, and what it stores of them are JSON objects that it does not look into.

pub mod clock;
pub mod codec;
pub mod engine;
pub mod event;
pub mod exchange;
pub mod query;
pub mod run;
pub mod step;
pub mod store;
