//! Struct layouts of the runtime of one binary.
//!
//! From the binary's own DWARF when it has it, otherwise from the committed table by the full version, because offsets change
//! within minor versions. Never part from one and part from the other.
#![forbid(unsafe_code)]

use super::{
    epoll_data::EpollData,
    layout_table::{NEUTRAL_EXPERIMENTS, TABLE},
    offsets::Offsets,
    version::{GoVersion, Release, Stage},
};

/// The oldest Go that is supported: its register ABI and pollDesc are those that the probes rely on.
pub const OLDEST: Release = Release::new(18, 0);

/// A range of releases with equal offsets. Both ends were built, and every release between them lies between two built ones
/// that are equal.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The minor version.
    pub minor: u16,
    /// The first patch.
    pub first_patch: u16,
    /// The last patch.
    pub last_patch: u16,
    /// The offsets.
    pub offsets: Offsets,
}

/// Where a layout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutSource {
    /// The binary's DWARF.
    Dwarf,
    /// The committed table, by this release.
    Table(Release),
    /// The committed table, by this other release, each offset confirmed by the process's memory (`snapshot::confirm`).
    Confirmed(Release),
}

/// The layouts of one binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offsets in the runtime's structs.
    pub offsets: Offsets,
    /// How epoll events hold a pollDesc.
    pub epoll_data: EpollData,
    /// Where the offsets come from.
    pub source: LayoutSource,
    /// The binary's release.
    pub release: Release,
}

/// Why a binary's layouts are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Older than [`OLDEST`].
    #[error("{version} is older than {OLDEST}")]
    TooOld {
        /// The binary's version.
        version: String,
    },
    /// The binary has no DWARF, and the table does not have its version.
    #[error("the binary has no DWARF, and the layout of {version} is not known (known of go1.{minor}: {known})", minor = release.minor)]
    UnknownVersion {
        /// The binary's version.
        version: String,
        /// Its number.
        release: Release,
        /// The known releases of the same minor version.
        known: String,
    },
    /// The binary has no DWARF, and its experiments may have changed the layout.
    #[error("the binary has no DWARF, and the layout of {version} with experiment {experiment} is not known")]
    UnknownExperiment {
        /// The binary's version.
        version: String,
        /// The experiment.
        experiment: String,
    },
    /// The DWARF lacks a struct or field.
    #[error("the binary's DWARF has no {field}")]
    NoField {
        /// `struct.field`.
        field: String,
    },
    /// The binary's DWARF has another value of a constant that is the same in all known versions, or none.
    #[error("{name} is {found:?} in the binary's DWARF, expected {expected}")]
    Constant {
        /// Its name.
        name: &'static str,
        /// Its value there.
        found: Option<i64>,
        /// Its value in the known versions.
        expected: i64,
    },
    /// The shifts in `netpoll`'s code are not those of the version.
    #[error("runtime.netpoll unpacks {found:?}, but {version} is known for {expected:?}")]
    EpollData {
        /// The binary's version.
        version: String,
        /// What the code does.
        found: EpollData,
        /// What the version does.
        expected: EpollData,
    },
}

impl LayoutError {
    /// Whether nothing is known of this Go, so that the memory of a process may tell.
    #[must_use]
    pub fn is_unknown_go(&self) -> bool {
        matches!(self, Self::UnknownVersion { .. } | Self::UnknownExperiment { .. })
    }
}

/// Whether anything is known of this minor version. Of a newer one, constants and epoll events have to be looked at in the binary.
#[must_use]
pub fn is_known_minor(release: Release) -> bool {
    TABLE.iter().any(|row| row.minor == release.minor)
}

/// Puts together a binary's layouts. `dwarf` are the offsets out of its DWARF, if it has any; `unpacks` is how its `netpoll`
/// unpacks epoll events, if its code tells.
///
/// # Errors
/// When something is not known, or code and version contradict each other.
pub fn of(
    version: &GoVersion,
    dwarf: Option<Offsets>,
    unpacks: Option<EpollData>,
) -> Result<Layout, LayoutError> {
    let release = version.release();
    if release < OLDEST {
        return Err(LayoutError::TooOld { version: version.to_string() });
    }
    let (offsets, source) = match dwarf {
        Some(offsets) => (offsets, LayoutSource::Dwarf),
        None => (from_table(version)?, LayoutSource::Table(release)),
    };
    // What a pre-release does is not known; it may be that of the release before it.
    let by_version = (is_known_minor(release) && matches!(release.stage, Stage::Patch(_)))
        .then(|| EpollData::of_release(release));
    let epoll_data = match (unpacks, by_version) {
        (Some(found), Some(expected)) if found != expected => {
            return Err(LayoutError::EpollData { version: version.to_string(), found, expected });
        }
        (Some(known), _) | (None, Some(known)) => known,
        (None, None) => return Err(unknown_version(version)),
    };
    Ok(Layout { offsets, epoll_data, source, release })
}

/// The offsets of a version in the committed table.
///
/// # Errors
/// [`LayoutError::TooOld`], [`LayoutError::UnknownVersion`], [`LayoutError::UnknownExperiment`].
pub fn from_table(version: &GoVersion) -> Result<Offsets, LayoutError> {
    let release = version.release();
    if release < OLDEST {
        return Err(LayoutError::TooOld { version: version.to_string() });
    }
    if let Some(experiment) =
        version.experiments().iter().find(|experiment| !NEUTRAL_EXPERIMENTS.contains(&experiment.as_str()))
    {
        return Err(LayoutError::UnknownExperiment {
            version: version.to_string(),
            experiment: experiment.clone(),
        });
    }
    let row = TABLE.iter().find(|row| {
        row.minor == release.minor
            && matches!(release.stage, Stage::Patch(patch) if (row.first_patch..=row.last_patch).contains(&patch))
    });
    row.map(|row| row.offsets).ok_or_else(|| unknown_version(version))
}

/// The error that says which releases of the minor version are known.
pub(super) fn unknown_version(version: &GoVersion) -> LayoutError {
    let release = version.release();
    LayoutError::UnknownVersion {
        version: version.to_string(),
        release,
        known: known_releases(release.minor),
    }
}

/// The releases of a minor version that the table has, for people.
fn known_releases(minor: u16) -> String {
    let ranges: Vec<String> = TABLE
        .iter()
        .filter(|row| row.minor == minor)
        .map(|row| {
            format!("{} to {}", Release::new(minor, row.first_patch), Release::new(minor, row.last_patch))
        })
        .collect();
    if ranges.is_empty() { "none".to_owned() } else { ranges.join(", ") }
}

#[cfg(test)]
mod tests {
    use netpoll_probe_common::config::Config;

    use super::*;

    fn offsets(version: &str) -> Result<Offsets, LayoutError> {
        from_table(&GoVersion::parse(version).unwrap())
    }

    #[test]
    fn follows_changes_inside_a_minor_version() {
        // `runtime.timer` grew within 1.23, and with it the pollDesc.
        assert_eq!(offsets("go1.23.0").unwrap().poll_desc.rd, 152);
        assert_eq!(offsets("go1.23.12").unwrap().poll_desc.rd, 160);
        // `m.allpSnapshot` came within 1.24.
        assert_eq!(offsets("go1.24.0").unwrap().m.syscall_tick, 740);
        assert_eq!(offsets("go1.24.13").unwrap().m.syscall_tick, 764);
    }

    #[test]
    fn refuses_what_was_not_built() {
        assert!(matches!(offsets("go1.17.13"), Err(LayoutError::TooOld { .. })));
        for version in ["go1.27rc1", "go1.99.0", "devel go1.27-abc", "go1.26.9999"] {
            assert!(matches!(offsets(version), Err(LayoutError::UnknownVersion { .. })), "{version}");
        }
        let error = offsets("go1.99.1").unwrap_err().to_string();
        assert_eq!(
            error,
            "the binary has no DWARF, and the layout of go1.99.1 is not known (known of go1.99: none)"
        );
        assert!(matches!(
            offsets("go1.26.8 X:staticlockranking"),
            Err(LayoutError::UnknownExperiment { .. })
        ));
    }

    #[test]
    fn never_mixes_sources() {
        let of = |version: &str, dwarf, unpacks| of(&GoVersion::parse(version).unwrap(), dwarf, unpacks);
        let other = offsets("go1.18.10").unwrap();
        let found = EpollData::Tagged { tag_bits: 24, align_bits: 9 };

        let from_dwarf = of("go1.26.8", Some(other), Some(found)).unwrap();
        assert_eq!((from_dwarf.offsets, from_dwarf.source), (other, LayoutSource::Dwarf));
        let by_version = of("go1.26.8", None, None).unwrap();
        assert_eq!(by_version.offsets, offsets("go1.26.8").unwrap());
        assert_eq!(
            (by_version.source, by_version.epoll_data),
            (LayoutSource::Table(Release::new(26, 8)), found)
        );
        // Code and version contradict each other.
        assert!(matches!(of("go1.24.13", None, Some(found)), Err(LayoutError::EpollData { .. })));
        assert!(matches!(of("go1.20.14", None, Some(found)), Err(LayoutError::EpollData { .. })));
        // A version that nothing is known of: its own DWARF and code must tell everything.
        assert_eq!(of("go1.99.0", Some(other), Some(found)).unwrap().epoll_data, found);
        assert!(matches!(of("go1.99.0", Some(other), None), Err(LayoutError::UnknownVersion { .. })));
        assert!(matches!(of("go1.99.0", None, Some(found)), Err(LayoutError::UnknownVersion { .. })));
        assert!(matches!(of("go1.27rc1", Some(other), None), Err(LayoutError::UnknownVersion { .. })));
        assert!(matches!(of("go1.17.1", Some(other), None), Err(LayoutError::TooOld { .. })));
    }

    /// Of every release, the fields that the programs read together lie in what they read.
    #[test]
    fn the_table_is_within_reach_of_the_programs() {
        for row in TABLE {
            let Offsets { g, m, poll_desc, .. } = row.offsets;
            let config = Config {
                g_goid: g.goid,
                g_labels: g.labels,
                m_g0: m.g0,
                m_p: m.p,
                pd_fd: poll_desc.fd,
                pd_fdseq: poll_desc.fdseq.unwrap_or(0),
                pd_atomic_info: poll_desc.atomic_info,
                pd_rg: poll_desc.rg,
                pd_wg: poll_desc.wg,
                ..Config::default()
            };
            assert_eq!(config.beyond_reach(), None, "go1.{}.{}", row.minor, row.first_patch);
        }
    }

    #[test]
    fn the_table_is_in_order_and_its_fields_are_apart() {
        assert!(TABLE.is_sorted_by(|a, b| (a.minor, a.last_patch) < (b.minor, b.first_patch)));
        for row in TABLE {
            assert!(row.first_patch <= row.last_patch);
            let (g, poll_desc) = (row.offsets.g, row.offsets.poll_desc);
            let mut words = [
                g.stack_lo,
                g.stack_hi,
                g.m,
                g.sched_sp,
                g.sched_pc,
                g.sched_bp,
                g.syscall_sp,
                g.syscall_pc,
                g.param,
                g.goid,
                g.wait_since,
                g.gopc,
                g.start_pc,
                g.labels,
            ];
            words.sort_unstable();
            assert!(words.is_sorted_by(|a, b| a + 8 <= *b) && words.iter().all(|word| word + 8 <= g.size));
            let mut words = [poll_desc.fd, poll_desc.rg, poll_desc.wg, poll_desc.rd, poll_desc.wd];
            words.sort_unstable();
            assert!(
                words.is_sorted_by(|a, b| a + 8 <= *b) && words.iter().all(|word| word + 8 <= poll_desc.size)
            );
        }
    }
}
