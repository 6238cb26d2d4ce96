//! The cells of the matrix of Go versions and ways to build that run in every CI run, as root; and that each of them is
//! what it is there for.

use netpoll_probe::{
    gobin::GoBinary,
    goruntime::{
        binary::GoRuntime,
        epoll_data::EpollData,
        layout::LayoutSource,
        version::{GoVersion, Release},
    },
};
use netpoll_probe_tests::{
    fixture::GoProgram,
    live,
    matrix::{self, EVERY_RUN, Outcome},
    probe,
};

/// What a binary makes the probe go through.
#[derive(Debug, PartialEq, Eq)]
struct Path {
    /// Offsets come from DWARF, not from the table.
    dwarf: bool,
    epoll_data: EpollData,
    /// The section that pclntab is in.
    pclntab: Option<&'static str>,
    /// There is a section `.go.module`.
    module_section: bool,
    pie: bool,
    /// The C library loads it.
    interpreter: bool,
    /// Functions of the netpoller are inlined.
    inlined: bool,
}

fn path_of(executable: &std::path::Path) -> anyhow::Result<Path> {
    let binary = GoBinary::open(executable)?;
    let runtime = GoRuntime::of(&binary)?;
    let layout = runtime.layout()?;
    let elf = binary.elf();
    let sections = [".gopclntab", ".data.rel.ro.gopclntab"];
    Ok(Path {
        dwarf: layout.source == LayoutSource::Dwarf,
        epoll_data: layout.epoll_data,
        pclntab: sections.into_iter().find(|name| elf.section(name).is_some()),
        module_section: elf.section(".go.module").is_some(),
        pie: elf.pie,
        interpreter: elf.has_interpreter,
        inlined: runtime.netpollready_site().is_err(),
    })
}

/// The paths of [`EVERY_RUN`], in its order.
fn expected() -> [Path; EVERY_RUN.len()] {
    let path = |(dwarf, version, pclntab, module_section), (pie, interpreter, inlined)| Path {
        dwarf,
        epoll_data: EpollData::of_release(version),
        pclntab,
        module_section,
        pie,
        interpreter,
        inlined,
    };
    let (section, relocated) = (Some(".gopclntab"), Some(".data.rel.ro.gopclntab"));
    [
        path((true, Release::new(18, 10), section, false), (false, false, false)),
        path((false, Release::new(19, 13), relocated, false), (true, true, false)),
        path((false, Release::new(20, 14), None, false), (true, true, false)),
        path((true, Release::new(21, 13), section, false), (false, false, false)),
        path((true, Release::new(24, 13), section, false), (false, true, false)),
        path((false, Release::new(25, 14), relocated, false), (true, true, false)),
        path((false, Release::new(26, 11), section, true), (false, false, true)),
        path((false, Release::new(27, 4), section, true), (true, true, false)),
    ]
}

#[test]
fn records_against_the_truth_on_every_code_path() {
    let _turn = live::turn();
    probe::require_root().unwrap();
    let probe = probe::executable().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile.pprof");
    matrix::profile(&GoProgram::new("truth").build().unwrap(), &profile).unwrap();
    let mut wrong = Vec::new();
    for ((cell, covers), expected) in EVERY_RUN.into_iter().zip(expected()) {
        let name = format!("{} {}", cell.version, cell.mode.name());
        println!("{name}: {covers}");
        match cell.run(&probe, None, Some(&profile)) {
            Ok(Outcome::Compared(compared)) => {
                println!(
                    "built in {:?}, run in {:?}, {:?}\n{}",
                    compared.build, compared.run, compared.netpollready, compared.verdict
                );
                if !compared.verdict.good() {
                    wrong.push(format!("{name}: {:?}", matrix::broken(&compared.verdict)));
                }
                match path_of(&compared.program) {
                    Ok(path) if path == expected => {}
                    other => wrong.push(format!("{name}: {other:?} and not {expected:?}")),
                }
            }
            Ok(Outcome::NotPossible(reason)) => wrong.push(format!("{name}: not possible: {reason}")),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table of offsets ends where the matrix does.
#[test]
fn knows_the_newest_patches() {
    for version in matrix::VERSIONS {
        let version = GoVersion::parse(version).unwrap();
        assert!(netpoll_probe::goruntime::layout::from_table(&version).is_ok(), "{version}");
    }
}
