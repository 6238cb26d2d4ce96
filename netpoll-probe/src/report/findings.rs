//! The findings of `inspect` and `doctor`, for people and for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Options,
    schema::{CHECKUP_NAME, INSPECTION_NAME},
    text,
};
use crate::model::{checkup::Checkup, inspection::Inspection};

/// Findings with what tells their form and origin. Fields are never renamed, only added.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: &'static str,
    tool_version: &'static str,
    #[serde(flatten)]
    findings: &'a T,
}

/// Writes what a binary allows, for people.
///
/// # Errors
/// Those of `out`.
pub fn inspection_text(inspection: &Inspection, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    text::inspection::render(inspection, options, out)
}

/// Writes what a binary allows, for programs: `schema/inspection.json` says what is in it.
///
/// # Errors
/// Those of `out`.
pub fn inspection_json(inspection: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    json(INSPECTION_NAME, inspection, out)
}

/// Writes what a machine allows, for people.
///
/// # Errors
/// Those of `out`.
pub fn checkup_text(checkup: &Checkup, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    text::checkup::render(checkup, options, out)
}

/// Writes what a machine allows, for programs: `schema/checkup.json` says what is in it.
///
/// # Errors
/// Those of `out`.
pub fn checkup_json(checkup: &Checkup, out: &mut dyn Write) -> io::Result<()> {
    json(CHECKUP_NAME, checkup, out)
}

fn json<T: Serialize>(schema: &'static str, findings: &T, out: &mut dyn Write) -> io::Result<()> {
    let document = Document { schema, tool_version: env!("CARGO_PKG_VERSION"), findings };
    serde_json::to_writer(&mut *out, &document)?;
    writeln!(out)
}
