//! The machines that executables are built for.

use clap::ValueEnum;

/// A machine, with its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// Go's amd64
    #[value(name = "x86_64")]
    X86_64,
    /// Go's arm64
    #[value(name = "aarch64")]
    Aarch64,
}

impl Machine {
    /// Rust's name of it, and the C library's.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Its name in file names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name of it, and Go's.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The one that this program runs on.
    pub(crate) const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    pub(crate) fn is_host(self) -> bool {
        self == Self::host()
    }

    /// The Debian packages that link programs for it on another machine; on the same, Rust's own needs do.
    pub(crate) fn linker_packages(self) -> &'static [&'static str] {
        match self {
            _ if self.is_host() => &[],
            Self::X86_64 => &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Aarch64 => &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }

    /// The linker of those packages, and the variable that tells cargo of it; `None` on the same machine.
    pub(crate) fn linker(self) -> Option<(&'static str, &'static str)> {
        match self {
            _ if self.is_host() => None,
            Self::X86_64 => Some(("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "x86_64-linux-gnu-gcc")),
            Self::Aarch64 => Some(("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")),
        }
    }
}
