//! Go versions, as `runtime.Version()` and the build info give them.
//!
//! Forms (cmd/dist/buildtool, cmd/link/internal/ld `buildVersion`, internal/gover of Go 1.27):
//! `go1.26.8`, `go1.26` (the first release up to 1.20, the language since), `go1.27rc1`, `devel go1.28-0a1b2c3 DATE`,
//! `go1.28-devel_0a1b2c3 DATE`, and after a release a vendor's suffix (`go1.22.5-foo`, `go1.24.6 (Red Hat 1.24.6-1)`) and the
//! experiments that differ from the default (`go1.26.8 X:nocoverageredesign`, `go1.26.8-X:…`).
#![forbid(unsafe_code)]

use std::fmt;

/// How far a minor version had come, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Built from the development branch.
    Devel,
    /// `go1.21beta1`.
    Beta(u16),
    /// `go1.27rc1`.
    ReleaseCandidate(u16),
    /// A release; 0 is the first one.
    Patch(u16),
}

/// The number of a Go version; the major version is always 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// 26 of `go1.26.8`.
    pub minor: u16,
    /// 8 of `go1.26.8`.
    pub stage: Stage,
}

impl Release {
    /// A release by its numbers.
    #[must_use]
    pub const fn new(minor: u16, patch: u16) -> Self {
        Self { minor, stage: Stage::Patch(patch) }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.minor;
        match self.stage {
            Stage::Devel => write!(f, "devel go1.{minor}"),
            Stage::Beta(number) => write!(f, "go1.{minor}beta{number}"),
            Stage::ReleaseCandidate(number) => write!(f, "go1.{minor}rc{number}"),
            // The first release has a patch number since 1.21 (go.dev/doc/toolchain).
            Stage::Patch(0) if minor < 21 => write!(f, "go1.{minor}"),
            Stage::Patch(patch) => write!(f, "go1.{minor}.{patch}"),
        }
    }
}

/// A Go version with everything that may follow its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoVersion {
    text: String,
    release: Release,
    vendor: Option<String>,
    experiments: Vec<String>,
}

/// The text is no Go version, or of a development tree that does not say of which version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a Go version")]
pub struct ParseVersionError {
    /// What was to be parsed.
    pub text: String,
}

impl GoVersion {
    /// Parses a version.
    ///
    /// # Errors
    /// When no `go1.N` is at the start, or after `devel`.
    pub fn parse(text: &str) -> Result<Self, ParseVersionError> {
        Self::parse_parts(text).ok_or_else(|| ParseVersionError { text: text.to_owned() })
    }

    /// The number.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// What a vendor added to the number, such as `foo` of `go1.22.5-foo`; the commit and date of a development build.
    #[must_use]
    pub fn vendor(&self) -> Option<&str> {
        self.vendor.as_deref()
    }

    /// The experiments (GOEXPERIMENT) that the toolchain was built with and that are not the default.
    #[must_use]
    pub fn experiments(&self) -> &[String] {
        &self.experiments
    }

    fn parse_parts(text: &str) -> Option<Self> {
        let (devel, rest) = match text.strip_prefix("devel ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let rest = rest.strip_prefix("go1.")?;
        let (minor, rest) = number(rest)?;
        let (stage, rest) = if let Some(rest) = rest.strip_prefix('.') {
            let (patch, rest) = number(rest)?;
            (Stage::Patch(patch), rest)
        } else if let Some(rest) = rest.strip_prefix("rc") {
            let (candidate, rest) = number(rest)?;
            (Stage::ReleaseCandidate(candidate), rest)
        } else if let Some(rest) = rest.strip_prefix("beta") {
            let (beta, rest) = number(rest)?;
            (Stage::Beta(beta), rest)
        } else {
            (Stage::Patch(0), rest)
        };
        if !rest.is_empty() && !rest.starts_with(['-', '+', ' ']) {
            return None;
        }
        let devel = devel || rest.starts_with("-devel");
        let (vendor, experiments) = match rest.split_once("X:") {
            Some((vendor, experiments)) if vendor.ends_with([' ', '-']) => (vendor, experiments),
            _ => (rest, ""),
        };
        let vendor = vendor.trim_matches([' ', '-']);
        Some(Self {
            text: text.to_owned(),
            release: Release { minor, stage: if devel { Stage::Devel } else { stage } },
            vendor: (!vendor.is_empty()).then(|| vendor.to_owned()),
            experiments: experiments
                .split([',', ' '])
                .filter(|experiment| !experiment.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// The number that `text` begins with, and what follows.
fn number(text: &str) -> Option<(u16, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> (Release, Option<String>, Vec<String>) {
        let version = GoVersion::parse(text).unwrap();
        assert_eq!(version.to_string(), text);
        (version.release(), version.vendor().map(str::to_owned), version.experiments().to_vec())
    }

    #[test]
    fn reads_releases() {
        assert_eq!(parse("go1.26.8"), (Release::new(26, 8), None, vec![]));
        assert_eq!(parse("go1.18"), (Release::new(18, 0), None, vec![]));
        assert_eq!(parse("go1.27rc1").0, Release { minor: 27, stage: Stage::ReleaseCandidate(1) });
        assert_eq!(parse("go1.21beta2").0, Release { minor: 21, stage: Stage::Beta(2) });
    }

    #[test]
    fn reads_development_builds() {
        let devel = Release { minor: 28, stage: Stage::Devel };
        assert_eq!(parse("devel go1.28-0a1b2c3 Thu Feb 5 10:00:00 2026 +0000").0, devel);
        assert_eq!(parse("go1.28-devel_0a1b2c3 Thu Feb 5 10:00:00 2026 +0000").0, devel);
        let (release, _, experiments) =
            parse("devel go1.28-0a1b2c3 Thu Feb 5 10:00:00 2026 +0000 X:rangefunc");
        assert_eq!((release, experiments), (devel, vec!["rangefunc".to_owned()]));
    }

    #[test]
    fn reads_suffixes() {
        assert_eq!(parse("go1.22.5-foo"), (Release::new(22, 5), Some("foo".into()), vec![]));
        assert_eq!(parse("go1.24.4-1-fips").1, Some("1-fips".into()));
        assert_eq!(parse("go1.24.6 (Red Hat 1.24.6-1.el10)").1, Some("(Red Hat 1.24.6-1.el10)".into()));
        let experiments = vec!["nocoverageredesign".to_owned(), "boringcrypto".to_owned()];
        for text in
            ["go1.26.8 X:nocoverageredesign,boringcrypto", "go1.26.8-X:nocoverageredesign,boringcrypto"]
        {
            assert_eq!(parse(text), (Release::new(26, 8), None, experiments.clone()));
        }
        let (_, vendor, experiments) = parse("go1.24.2-1 X:systemcrypto");
        assert_eq!((vendor, experiments), (Some("1".into()), vec!["systemcrypto".into()]));
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in [
            "",
            "go",
            "go1",
            "go1.",
            "go2.1",
            "go1.x",
            "go1.2x",
            "go1.26.",
            "go1.26.8x",
            "go1.99999999",
            "devel +abc",
            "1.26.8",
        ] {
            assert_eq!(GoVersion::parse(text), Err(ParseVersionError { text: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn orders_by_time() {
        let texts = [
            "go1.9",
            "go1.20",
            "devel go1.21-a",
            "go1.21beta1",
            "go1.21rc2",
            "go1.21.0",
            "go1.21.13",
            "go1.22.0",
        ];
        let releases: Vec<_> = texts.iter().map(|text| parse(text).0).collect();
        assert!(releases.is_sorted_by(|a, b| a < b));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(devel )?(go1\\.)?[0-9]{0,6}\\PC{0,20}") {
            let _ = GoVersion::parse(&text);
        }

        #[test]
        fn reads_back_what_it_shows(minor in 18u16.., patch: u16) {
            let release = Release::new(minor, patch);
            prop_assert_eq!(GoVersion::parse(&release.to_string()).unwrap().release(), release);
        }
    }
}
