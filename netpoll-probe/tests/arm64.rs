//! What the probe finds out of real arm64 programs: probe sites, layouts, globals. None of them is run.
//!
//! Needs a `go` in PATH, which fetches the other versions. `NETPOLL_PROBE_TEST_ARM64=all` builds with every version of the table,
//! and in more ways: 53 programs, six minutes, and 13 toolchains of 70 MB. Else the oldest and the newest are built.
#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use netpoll_probe::{
    gobin::{GoBinary, Machine},
    goruntime::{
        binary::GoRuntime,
        epoll_data::EpollData,
        globals::Global,
        layout::{self, LayoutSource},
        sites::Site,
    },
};
use object::{Object as _, ObjectSymbol as _};

/// What is in a program of one version, by offsets from the starts of functions; read with another disassembler (binutils).
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    version: &'static str,
    /// `runtime_pollWait`: the first branch, and the jump on netpollblock's result.
    start: u64,
    end: u64,
    /// The first branch of `netpollblock`, and of `netpollready`.
    block: u64,
    ready: u64,
    /// Tag and alignment bits of the data words of epoll events.
    epoll_data: Option<(u8, u8)>,
}

const fn row(
    version: &'static str,
    [start, end]: [u64; 2],
    [block, ready]: [u64; 2],
    epoll_data: Option<(u8, u8)>,
) -> Expected {
    Expected { version, start, end, block, ready, epoll_data }
}

/// The newest patch of every minor version.
const VERSIONS: [Expected; 10] = [
    row("go1.18.10", [44, 164], [40, 4], None),
    row("go1.19.13", [40, 160], [36, 4], None),
    row("go1.20.14", [40, 160], [36, 4], None),
    row("go1.21.13", [40, 160], [36, 4], Some((19, 3))),
    row("go1.22.12", [40, 160], [36, 20], Some((19, 3))),
    row("go1.23.12", [40, 160], [36, 20], Some((19, 3))),
    row("go1.24.13", [40, 160], [36, 20], Some((19, 3))),
    row("go1.25.14", [40, 160], [36, 20], Some((24, 9))),
    row("go1.26.11", [40, 160], [36, 20], Some((24, 9))),
    row("go1.27.4", [40, 160], [36, 20], Some((24, 9))),
];

/// Arguments of `go build`.
const STRIPPED: &str = "-ldflags=-s -w";
const PIE: &str = "-buildmode=pie";
const NOT_OPTIMIZED: &str = "-gcflags=all=-N -l";

fn build(folder: &Path, version: &str, arguments: &[&str]) -> PathBuf {
    let path = folder.join(version);
    let output = Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network"))
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&path)
        .args(arguments)
        .arg(".")
        .envs([("GOTOOLCHAIN", version), ("GOOS", "linux"), ("GOARCH", "arm64")])
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
    path
}

/// The address of a global in the symbol table.
fn symbol(file: &object::File<'_>, name: &str) -> Option<u64> {
    file.symbols().find(|symbol| symbol.name() == Ok(name)).map(|symbol| symbol.address())
}

/// What is found must be what is expected, in a program built with these arguments.
fn check(folder: &Path, expected: &Expected, arguments: &[&str]) {
    let path = build(folder, expected.version, arguments);
    let what = format!("{} {arguments:?}", expected.version);
    let binary = GoBinary::open(&path).unwrap();
    assert_eq!(binary.machine(), Machine::Arm64);
    let runtime = GoRuntime::of(&binary).unwrap();
    assert_eq!(runtime.version().to_string(), expected.version);

    let poll_wait = runtime.poll_wait_sites().unwrap();
    let found = Expected {
        version: expected.version,
        start: poll_wait.start.offset,
        end: poll_wait.end.offset,
        block: runtime.netpollblock_site().unwrap().offset,
        ready: runtime.netpollready_site().unwrap().offset,
        epoll_data: match runtime.layout().unwrap().epoll_data {
            EpollData::Tagged { tag_bits, align_bits } => Some((tag_bits, align_bits)),
            EpollData::Pointer => None,
        },
    };
    assert_eq!(found, *expected, "{what}");
    // Frames of 48 bytes, and above them the caller's word for its return address.
    assert_eq!((poll_wait.end_pd_from_sp_bytes, poll_wait.pd_from_cfa_bytes), (56, 8), "{what}");
    is_in_file(&path, &poll_wait.start, "tbz w");
    is_in_file(&path, &poll_wait.end, "tbnz w0, #0x0");
    check_data(&path, &runtime, &what);
}

/// The file has the site's instruction where the site says.
fn is_in_file(path: &Path, site: &Site, text: &str) {
    let file = std::fs::read(path).unwrap();
    let at = usize::try_from(site.file_offset).unwrap();
    assert_eq!(file[at..at + 4], site.bytes);
    assert!(site.text.starts_with(text), "{}", site.text);
}

/// Layouts are those of the table, and globals those of the symbol table; without either, they are found all the same.
fn check_data(path: &Path, runtime: &GoRuntime<'_>, what: &str) {
    let layout = runtime.layout().unwrap();
    let contents = std::fs::read(path).unwrap();
    let file = object::File::parse(&*contents).unwrap();
    let has_symbols = file.symbol_table().is_some();
    assert_eq!(matches!(layout.source, LayoutSource::Dwarf), has_symbols, "{what}");
    assert_eq!(layout.offsets, layout::from_table(runtime.version()).unwrap(), "{what}");
    for global in Global::ALL {
        let found = runtime.global(global).unwrap();
        if has_symbols {
            assert_eq!(Some(found), symbol(&file, global.name()), "{what}: {}", global.name());
        }
    }
    assert!(runtime.traps().count() >= 2, "{what}");
}

#[test]
fn finds_its_way_in_arm64_programs() {
    let folder = tempfile::tempdir().unwrap();
    let all = std::env::var("NETPOLL_PROBE_TEST_ARM64").is_ok_and(|versions| versions == "all");
    let oldest_and_newest = [VERSIONS.first(), VERSIONS.last()];
    for expected in VERSIONS.iter().filter(|row| all || oldest_and_newest.contains(&Some(*row))) {
        check(folder.path(), expected, &[]);
        check(folder.path(), expected, &[STRIPPED]);
        if all {
            check(folder.path(), expected, &[PIE]);
            check(folder.path(), expected, &[PIE, STRIPPED]);
        }
    }
    if all {
        for version in ["go1.18.4", "go1.25.0", "go1.25.3"] {
            finds_sites(folder.path(), version, &[]);
        }
        for expected in &VERSIONS {
            finds_sites(folder.path(), expected.version, &[NOT_OPTIMIZED]);
        }
    }
}

/// Where offsets are others: sites, layouts and globals are found.
fn finds_sites(folder: &Path, version: &str, arguments: &[&str]) {
    let path = build(folder, version, arguments);
    let binary = GoBinary::open(&path).unwrap();
    let runtime = GoRuntime::of(&binary).unwrap();
    let what = format!("{version} {arguments:?}");
    let sites = runtime.poll_wait_sites();
    assert!(sites.is_ok(), "{what}: {sites:?}");
    let sites = sites.unwrap();
    is_in_file(&path, &sites.end, if version == "go1.18.4" { "cbnz x0" } else { "tbnz w0, #0x0" });
    for site in [runtime.netpollblock_site(), runtime.netpollready_site()] {
        assert!(site.is_ok(), "{what}: {site:?}");
    }
    check_data(&path, &runtime, &what);
}
