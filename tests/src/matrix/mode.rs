//! Ways to build a Go program.

/// A way to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As `go build` does.
    Default,
    /// Without symbols and DWARF.
    Stripped,
    /// Position-independent.
    Pie,
    /// Position-independent, without symbols and DWARF.
    PieStripped,
    /// Without paths of the machine.
    Trimpath,
    /// With C code, linked by Go's linker.
    CgoInternal,
    /// With C code, linked by the system's linker.
    ExternalLink,
    /// Position-independent, linked by the system's linker, without symbols and DWARF.
    ExternalPieStripped,
    /// With the C library in it, linked by the system's linker.
    StaticExternal,
    /// Guided by a profile.
    Pgo,
    /// Guided by a profile, without symbols and DWARF.
    PgoStripped,
    /// With the race detector.
    Race,
    /// For CPUs from 2013 on.
    Amd64V3,
}

impl Mode {
    /// All of them; those that share what the compiler made are neighbours.
    pub const ALL: [Self; 13] = [
        Self::Default,
        Self::Stripped,
        Self::CgoInternal,
        Self::ExternalLink,
        Self::StaticExternal,
        Self::Pie,
        Self::PieStripped,
        Self::ExternalPieStripped,
        Self::Trimpath,
        Self::Pgo,
        Self::PgoStripped,
        Self::Race,
        Self::Amd64V3,
    ];

    /// What it is called on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Stripped => "stripped",
            Self::Pie => "pie",
            Self::PieStripped => "pie-stripped",
            Self::Trimpath => "trimpath",
            Self::CgoInternal => "cgo-internal",
            Self::ExternalLink => "external",
            Self::ExternalPieStripped => "external-pie-stripped",
            Self::StaticExternal => "static-external",
            Self::Pgo => "pgo",
            Self::PgoStripped => "pgo-stripped",
            Self::Race => "race",
            Self::Amd64V3 => "amd64-v3",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The arguments of `go build`, but for the profile.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Pgo | Self::Amd64V3 => &[],
            Self::Stripped | Self::PgoStripped => &["-ldflags=-s -w"],
            Self::Pie => &["-buildmode=pie"],
            Self::PieStripped => &["-buildmode=pie", "-ldflags=-s -w"],
            Self::Trimpath => &["-trimpath"],
            Self::CgoInternal => &["-ldflags=-linkmode=internal"],
            Self::ExternalLink => &["-ldflags=-linkmode=external"],
            Self::ExternalPieStripped => &["-buildmode=pie", "-ldflags=-linkmode=external -s -w"],
            // Without -tags=netgo,osusergo, with which nothing needs runtime/cgo any more: what Go 1.18 then links dies at its start.
            Self::StaticExternal => &["-ldflags=-linkmode=external -extldflags=-static"],
            Self::Race => &["-race"],
        }
    }

    /// The environment of `go build`, for people.
    #[must_use]
    pub fn environment(self) -> &'static str {
        match self {
            Self::Amd64V3 => "CGO_ENABLED=0 GOAMD64=v3",
            _ if self.needs_c() => "CGO_ENABLED=1",
            _ => "CGO_ENABLED=0",
        }
    }

    /// Whether it is guided by a profile.
    #[must_use]
    pub fn needs_profile(self) -> bool {
        matches!(self, Self::Pgo | Self::PgoStripped)
    }

    /// Whether C code is linked in.
    pub(super) fn needs_c(self) -> bool {
        matches!(
            self,
            Self::CgoInternal
                | Self::ExternalLink
                | Self::ExternalPieStripped
                | Self::StaticExternal
                | Self::Race
        )
    }
}
