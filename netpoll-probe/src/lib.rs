//! netpoll-probe: which goroutine waited on which fd and peer, how long, and why.
//!
//! The path of a wait, and of a reader through the folders:
//!
//! [`bpf`] loads the programs and hands out bytes → [`event`] decodes them → [`correlate`] makes a wait of each →
//! [`symbolize`] names its stack → [`model`] adds waits up → [`report`] renders them.
//!
//! Beside that path stand [`gobin`] (a Go executable read from its file), [`goruntime`] (what is known of Go's
//! runtime, as data), [`target`] (the running process), [`snapshot`] (its goroutines, read without stopping it) and [`diagnosis`] (what a binary or a
//! machine allows).
//! `cargo xtask layers` holds who may use what; `docs/architecture.md` has the table.

pub mod bpf;
pub mod cli;
pub mod commands;
pub mod correlate;
pub mod diagnosis;
pub mod error;
pub mod event;
pub mod exit;
pub mod gobin;
pub mod goruntime;
pub mod model;
pub mod report;
pub mod snapshot;
pub mod symbolize;
pub mod target;
