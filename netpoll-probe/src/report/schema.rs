//! JSON Schemas of the formats that scripts read. Within a version a field is never renamed or removed, only added.

/// What `schema` says in every summary.
pub const SUMMARY_NAME: &str = "netpoll-probe/summary/1";

/// The schema of the summary (`.json`).
pub const SUMMARY: &str = include_str!("schema/summary.json");

/// The schema of one line of `.ndjson`.
pub const WAIT: &str = include_str!("schema/wait.json");

/// What `schema` says in every inspection.
pub const INSPECTION_NAME: &str = "netpoll-probe/inspection/1";

/// The schema of `inspect --json`.
pub const INSPECTION: &str = include_str!("schema/inspection.json");

/// What `schema` says in every checkup.
pub const CHECKUP_NAME: &str = "netpoll-probe/checkup/1";

/// The schema of `doctor --json`.
pub const CHECKUP: &str = include_str!("schema/checkup.json");
