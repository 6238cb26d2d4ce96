//! Harness of the tests: builds Go programs, runs the probe on them, and holds its records against what they know.
//!
//! Nothing here uses the probe's own code: records are read as any script would read them.
//!
//! | module | owns |
//! |---|---|
//! | `process` | a child process and what it prints; killed on drop |
//! | `fixture` | building Go programs with a chosen toolchain |
//! | `probe` | running the command line tool |
//! | `record` | its NDJSON records |
//! | `truth` | the log of the program that knows its own waits |
//! | `compare` | records against the truth |
//! | `kernel_ready` | the kernel-ready clock among them |
//! | `exectrace` | records against Go's execution trace |
//! | `agree` | records of two probes of one target against each other |
//! | `added` | what was added up in the kernel against the records of the same waits |
//! | `live` | runs that end in such a comparison |
//! | `matrix` | such runs of every Go version, built in every way |
//! | `check` | the verdicts |
#![forbid(unsafe_code)]

pub mod added;
pub mod agree;
pub mod check;
pub mod compare;
pub mod exectrace;
pub mod fixture;
pub mod kernel_ready;
pub mod live;
pub mod matrix;
pub mod probe;
pub mod process;
pub mod record;
pub mod truth;
