//! How a binary was built: from its headers, and from what the go command recorded.

use crate::{
    gobin::{BuildInfo, Elf, Machine},
    goruntime::version::GoVersion,
    model::inspection::{Build, Executable, Revision},
};

/// What the system's linker leaves in every executable and Go's own in none: its compiler's unwinding tables (checked on
/// builds of Go 1.26 with and without `-linkmode=external`, static and dynamic).
const SYSTEM_LINKER_SECTION: &str = ".eh_frame";

/// Go's name of a processor (GOARCH).
#[must_use]
pub const fn machine_name(machine: Machine) -> &'static str {
    match machine {
        Machine::Amd64 => "amd64",
        Machine::Arm64 => "arm64",
    }
}

/// The headers.
#[must_use]
pub fn executable(elf: &Elf) -> Executable {
    let has = |names: &[&str]| names.iter().any(|name| elf.section(name).is_some());
    let section_headers = !elf.sections.is_empty();
    Executable {
        machine: machine_name(elf.machine),
        pie: elf.pie,
        dynamic: elf.has_interpreter,
        symbols: has(&[".symtab"]),
        // Go 1.18 compresses into sections of a name of its own.
        dwarf: has(&[".debug_info", ".zdebug_info"]),
        section_headers,
        linker: section_headers.then(|| if has(&[SYSTEM_LINKER_SECTION]) { "external" } else { "internal" }),
        gnu_build_id: elf.gnu_build_id.as_deref().map(hexadecimal),
        go_build_id: elf.go_build_id.clone(),
    }
}

/// What the go command recorded.
#[must_use]
pub fn recorded(info: &BuildInfo) -> Build {
    let setting = |key: &str| info.setting(key).map(str::to_owned);
    let flag = |key: &str| info.setting(key).map(|value| value == "true");
    let version = GoVersion::parse(&info.go_version).ok();
    let mut experiments: Vec<String> =
        version.as_ref().map(|version| version.experiments().to_vec()).unwrap_or_default();
    for experiment in info.setting("GOEXPERIMENT").unwrap_or_default().split(',') {
        if !experiment.is_empty() && !experiments.iter().any(|known| known == experiment) {
            experiments.push(experiment.to_owned());
        }
    }
    // The go command leaves out what is not set; of flags that it knows, that is a no.
    let flags_are_recorded = info.setting("-compiler").is_some();
    let off = |value: Option<bool>| value.or(flags_are_recorded.then_some(false));
    let on = |key: &str| info.setting(key) == Some("true");
    Build {
        go_version: Some(info.go_version.clone()),
        vendor: version.and_then(|version| version.vendor().map(str::to_owned)),
        experiments,
        package: info.package_path.clone(),
        module: info.module_path.clone(),
        module_version: info.module_version.clone(),
        mode: setting("-buildmode"),
        compiler: setting("-compiler"),
        cgo_enabled: info.setting("CGO_ENABLED").map(|value| value == "1"),
        cgo: None,
        race: off(flag("-race")),
        sanitizer: if on("-msan") { Some("memory") } else { on("-asan").then_some("address") },
        trimpath: off(flag("-trimpath")),
        pgo: setting("-pgo"),
        processor_level: setting("GOAMD64").or_else(|| setting("GOARM64")),
        fips: setting("GOFIPS140"),
        ldflags: setting("-ldflags"),
        tags: setting("-tags"),
        revision: setting("vcs.revision").map(|id| Revision {
            system: setting("vcs"),
            id,
            time: setting("vcs.time"),
            modified: flag("vcs.modified"),
        }),
    }
}

/// Bytes as digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
