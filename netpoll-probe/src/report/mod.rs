//! Renders what the model knows. Nothing here knows where it came from, and nothing opens a file: a renderer writes
//! to what it is given, and hands every error of that back as it is (a closed pipe, too).
//!
//! [`Format`] names the formats. All but one render a finished [`Profile`]; [`NdjsonWriter`] writes waits while they
//! come. The formats that scripts read have a JSON Schema ([`schema`]).
#![forbid(unsafe_code)]

pub mod findings;
mod folded;
mod json;
mod name;
mod ndjson;
#[cfg(test)]
mod sample;
pub mod schema;
mod svg;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_findings;
mod text;
pub mod unit;

use std::{
    io::{self, Write},
    path::Path,
    str::FromStr,
};

pub use ndjson::NdjsonWriter;

use crate::model::{group::Dimension, profile::Profile};

/// A format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For people at a terminal.
    Text,
    /// The summary, for programs.
    Json,
    /// One line for each wait, written while they come.
    Ndjson,
    /// A flame graph.
    Svg,
    /// Folded stacks, for other tools that draw flame graphs.
    Folded,
}

/// Renders a profile.
pub type Renderer = fn(&Profile, &Options, &mut dyn Write) -> io::Result<()>;

/// What a report shows, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Text: one table, of these groups, instead of several. SVG and folded: the first frame is the group.
    /// JSON has all groups anyway.
    pub group_by: Option<Dimension>,
    /// Counts the waits for work as well (accept loops, keep-alive reads between requests).
    pub include_idle: bool,
    /// Text: with colors.
    pub color: bool,
    /// Text: columns of the terminal.
    pub width: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { group_by: None, include_idle: false, color: false, width: 100 }
    }
}

/// A name that is no format's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The name on the command line.
    #[error("no format is called \"{name}\"; there are {}", names(""))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The extension of an output file.
    #[error("no format has the extension of {path}; there are {}", names("."))]
    Extension {
        /// The file.
        path: String,
    },
}

/// The names of all formats, each with a prefix.
fn names(prefix: &str) -> String {
    Format::ALL.map(|format| format!("{prefix}{}", format.extension())).join(" ")
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Text, Self::Json, Self::Ndjson, Self::Svg, Self::Folded];

    /// Its file extension; on the command line also its name.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Svg => "svg",
            Self::Folded => "folded",
        }
    }

    /// The format that a file's extension asks for.
    ///
    /// # Errors
    /// When it is no format's.
    pub fn of_path(path: &Path) -> Result<Self, FormatError> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension
            .and_then(|extension| extension.parse().ok())
            .ok_or_else(|| FormatError::Extension { path: path.display().to_string() })
    }

    /// How it renders a profile; `None` for [`Format::Ndjson`], of which a profile does not know the single waits:
    /// [`NdjsonWriter`] writes it.
    #[must_use]
    pub fn renderer(self) -> Option<Renderer> {
        match self {
            Self::Text => Some(text::render),
            Self::Json => Some(json::render),
            Self::Ndjson => None,
            Self::Svg => Some(svg::render),
            Self::Folded => Some(folded::render),
        }
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|format| format.extension().eq_ignore_ascii_case(name))
            .ok_or_else(|| FormatError::Unknown { name: name.to_owned() })
    }
}
