//! Offsets for a Go that the table does not have: those of its nearest releases, to be held against a process before use.
//!
//! A newer patch mostly has the offsets of the last known one, a release candidate those of the release or of the minor version before, a
//! vendor's or a development build those of what it was made from. Mostly is not always (`layout_table.rs` has three changes
//! within minor versions), so a [`Candidate`] is no [`Layout`]: `snapshot::confirm` makes one of it, by what it finds in memory.
#![forbid(unsafe_code)]

use super::{
    epoll_data::EpollData,
    layout::{Layout, LayoutError, LayoutSource, OLDEST, Row, unknown_version},
    layout_table::TABLE,
    offsets::Offsets,
    version::{GoVersion, Release, Stage},
};

/// Offsets that may be those of a binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    version: String,
    layout: Layout,
}

impl Candidate {
    /// The binary's Go version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The known release that the offsets are of.
    #[must_use]
    pub fn like(&self) -> Release {
        match self.layout.source {
            LayoutSource::Confirmed(like) | LayoutSource::Table(like) => like,
            LayoutSource::Dwarf => self.layout.release,
        }
    }

    /// The offsets, to hold them against a process.
    #[must_use]
    pub fn offsets(&self) -> &Offsets {
        &self.layout.offsets
    }

    /// How epoll events hold a pollDesc, by the binary's own code.
    #[must_use]
    pub fn epoll_data(&self) -> EpollData {
        self.layout.epoll_data
    }

    /// The layout, for `snapshot::confirm` alone, once a process has confirmed it.
    pub(crate) fn confirmed(self) -> Layout {
        self.layout
    }
}

/// The candidates for a version, the likeliest first. `unpacks` is how the binary's `netpoll` unpacks epoll events: nothing in memory tells,
/// so the code must.
///
/// # Errors
/// [`LayoutError::TooOld`]; [`LayoutError::UnknownVersion`] when the code does not tell how epoll events hold a pollDesc.
pub fn candidates(version: &GoVersion, unpacks: Option<EpollData>) -> Result<Vec<Candidate>, LayoutError> {
    let release = version.release();
    if release < OLDEST {
        return Err(LayoutError::TooOld { version: version.to_string() });
    }
    let mut candidates = Vec::new();
    for row in rows(release) {
        let like = Release::new(row.minor, row.last_patch);
        // Up to 1.20 netpoll unpacks nothing, and its code says nothing.
        let pointer = Release { minor: 21, stage: Stage::Devel };
        let epoll_data = match unpacks {
            Some(known) => known,
            None if release < pointer && like < pointer => EpollData::Pointer,
            None => return Err(unknown_version(version)),
        };
        candidates.push(Candidate {
            version: version.to_string(),
            layout: Layout {
                offsets: row.offsets,
                epoll_data,
                source: LayoutSource::Confirmed(like),
                release,
            },
        });
    }
    Ok(candidates)
}

/// Rows of the table in the order of how likely they are a release's.
fn rows(release: Release) -> Vec<&'static Row> {
    let same: Vec<&Row> = TABLE.iter().filter(|row| row.minor == release.minor).collect();
    let before = TABLE.iter().rev().find(|row| row.minor < release.minor);
    let mut rows = Vec::new();
    match release.stage {
        // The row that has the patch (an experiment or a vendor keeps it from being known), else that of the nearest patch.
        Stage::Patch(patch) => {
            let distance =
                |row: &&Row| row.first_patch.saturating_sub(patch).max(patch.saturating_sub(row.last_patch));
            let mut nearest = same.clone();
            nearest.sort_by_key(distance);
            rows.extend(nearest);
        }
        // A pre-release of a known minor version lies between the minor version before and its first release.
        Stage::Devel | Stage::Beta(_) | Stage::ReleaseCandidate(_) => rows.extend(same.first().copied()),
    }
    rows.extend(before);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED: EpollData = EpollData::Tagged { tag_bits: 24, align_bits: 9 };

    fn like(version: &str) -> Vec<String> {
        let candidates = candidates(&GoVersion::parse(version).unwrap(), Some(TAGGED)).unwrap();
        candidates.iter().map(|candidate| candidate.like().to_string()).collect()
    }

    #[test]
    fn offers_the_nearest_releases() {
        let newest = TABLE.last().unwrap();
        let newest = Release::new(newest.minor, newest.last_patch).to_string();
        for version in ["go1.99.8", "go1.99rc1", "devel go1.99-abc", "go1.99-devel_abc"] {
            assert_eq!(like(version), [newest.as_str()], "{version}");
        }
        // A patch that came after the table was made; within 1.24, offsets changed with 1.24.6.
        assert_eq!(like("go1.26.99"), ["go1.26.11", "go1.25.14"]);
        assert_eq!(like("go1.24.99"), ["go1.24.13", "go1.24.5", "go1.23.12"]);
        // Before the first release of a minor version.
        assert_eq!(like("go1.27rc1"), ["go1.27.4", "go1.26.11"]);
        assert_eq!(like("devel go1.24-abc"), ["go1.24.5", "go1.23.12"]);
        // Known but for a vendor or an experiment.
        assert_eq!(like("go1.24.2-1 X:systemcrypto")[0], "go1.24.5");
        assert_eq!(like("go1.26.8 X:staticlockranking")[0], "go1.26.11");
    }

    #[test]
    fn takes_epoll_data_from_the_code_alone() {
        let of = |version: &str, unpacks| candidates(&GoVersion::parse(version).unwrap(), unpacks);
        assert_eq!(of("go1.99.0", Some(TAGGED)).unwrap()[0].epoll_data(), TAGGED);
        assert!(matches!(of("go1.99.0", None), Err(LayoutError::UnknownVersion { .. })));
        assert_eq!(of("go1.20.99", None).unwrap()[0].epoll_data(), EpollData::Pointer);
        assert!(matches!(of("go1.17.1", Some(TAGGED)), Err(LayoutError::TooOld { .. })));
    }
}
