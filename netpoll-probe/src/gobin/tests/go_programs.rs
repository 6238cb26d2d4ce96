//! Real programs, built by the installed Go, asked what their own runtime says: `runtime.CallersFrames`, `unsafe.Offsetof`, and
//! the linker's symbol table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
};

use object::{LittleEndian, elf, read::elf::FileHeader as _, read::elf::Sym as _};

use super::super::{GoBinary, Location, NoSymbol, Section};

/// How the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    Default,
    Stripped,
    Pie,
    StrippedPie,
    /// With DWARF sections that are not compressed.
    PlainDwarf,
}

impl Build {
    const ALL: [Self; 5] = [Self::Default, Self::Stripped, Self::Pie, Self::StrippedPie, Self::PlainDwarf];

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Stripped => &["-ldflags=-s -w"],
            Self::Pie => &["-buildmode=pie"],
            Self::StrippedPie => &["-buildmode=pie", "-ldflags=-s -w"],
            Self::PlainDwarf => &["-ldflags=-compressdwarf=false"],
        }
    }
}

/// A built program. Its folder lives as long as the test process.
pub(super) struct Program {
    pub(super) path: PathBuf,
    _folder: tempfile::TempDir,
}

/// The program, built once per kind of build.
pub(super) fn program(build: Build) -> &'static Program {
    static PROGRAMS: [LazyLock<Program>; 5] = [
        LazyLock::new(|| go_build(Build::Default)),
        LazyLock::new(|| go_build(Build::Stripped)),
        LazyLock::new(|| go_build(Build::Pie)),
        LazyLock::new(|| go_build(Build::StrippedPie)),
        LazyLock::new(|| go_build(Build::PlainDwarf)),
    ];
    &PROGRAMS[Build::ALL.iter().position(|known| *known == build).unwrap()]
}

fn go_build(build: Build) -> Program {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("go.mod"), "module example.com/fixture\n\ngo 1.18\n").unwrap();
    std::fs::write(folder.path().join("main.go"), include_str!("program.go.txt")).unwrap();
    let path = folder.path().join("program");
    let output = Command::new("go")
        .args(["build", "-buildvcs=false", "-trimpath", "-o"])
        .arg(&path)
        .args(build.args())
        .arg(".")
        .current_dir(folder.path())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .output()
        .expect("these tests need the go command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Program { path, _folder: folder }
}

fn open(build: Build) -> GoBinary {
    GoBinary::open(&program(build).path).unwrap()
}

/// Runs the program with its `main.main` as linked and lines of addresses; returns its lines.
fn run(build: Build, binary: &GoBinary, pcs: &[u64]) -> Vec<String> {
    let main = binary.function_by_name("main.main").unwrap().unwrap().entry_vaddr;
    let mut child = Command::new(&program(build).path)
        .arg(main.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = pcs.iter().fold(String::new(), |mut lines, pc| {
        writeln!(lines, "{pc}").unwrap();
        lines
    });
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Addresses all over the text: in each function the first, the second and pseudo-random others. The last byte of a function
/// is left out, as its return address belongs to the next one.
fn addresses(binary: &GoBinary) -> Vec<u64> {
    let module = binary.module_data();
    let mut pcs = Vec::new();
    let mut at = module.min_pc;
    let mut random = 1u64;
    while at < module.max_pc {
        let function = binary.function_at(at).unwrap();
        assert!(function.entry_vaddr == at && function.end_vaddr > at);
        let room = function.end_vaddr - at - 1;
        pcs.extend([0, 1].into_iter().filter(|inside| *inside < room).map(|inside| at + inside));
        for _ in 0..(room / 64).min(12) {
            // Knuth's MMIX generator: any spread will do, the same in each run.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pcs.push(at + (random >> 33) % room);
        }
        at = function.end_vaddr;
    }
    pcs
}

/// The frames as the runtime gives them: wrappers below an ordinary function are left out.
fn as_callers_frames(locations: Vec<Location>) -> Vec<String> {
    let calls_wrapper_visibly =
        |func: &str| ["runtime.gopanic", "runtime.sigpanic", "runtime.panicwrap"].contains(&func);
    let leaf = locations.first().map(|location| location.func.clone()).unwrap_or_default();
    locations
        .into_iter()
        .enumerate()
        .filter(|(index, location)| *index == 0 || !location.wrapper || calls_wrapper_visibly(&leaf))
        .map(|(_, location)| {
            let file = if location.file.is_empty() { "?" } else { &location.file };
            format!("{}|{file}|{}", location.func, location.line)
        })
        .collect()
}

fn frames_with_first_name(binary: &GoBinary, line: &str) -> String {
    let first = || binary.function_at(binary.module_data().min_pc).unwrap().name;
    let frames =
        line.split(';').map(|frame| if frame.starts_with('|') { first() + frame } else { frame.to_owned() });
    frames.collect::<Vec<_>>().join(";")
}

#[test]
fn symbolizes_as_the_runtime_does() {
    for build in Build::ALL {
        let binary = open(build);
        let pcs = addresses(&binary);
        let lines = run(build, &binary, &pcs);
        assert_eq!(lines.len(), pcs.len() + 1, "one line per address and one of layouts");
        let (mut inlined, mut generic) = (0, 0);
        // Older ones (1.21 does not, 1.24 does) expand only what they got from runtime.Callers: the leaf is compared then.
        let expands = binary.build_info().unwrap().go_minor().unwrap() >= 24;
        for (pc, line) in pcs.iter().zip(lines.iter().skip(1)) {
            let frames = as_callers_frames(binary.symbolize(*pc).unwrap());
            // The runtime takes offset 0 of the name table for "no name", though the first function's name is there.
            let line = frames_with_first_name(&binary, line);
            if expands {
                assert_eq!(frames.join(";"), line, "{build:?} at {pc:#x}");
            } else {
                assert_eq!(frames[0], line, "{build:?} at {pc:#x}");
            }
            inlined += usize::from(frames.len() > 1);
            generic += usize::from(line.contains("main.Generic[...]"));
        }
        assert!(pcs.len() > 5000 && inlined > 500 && generic > 0, "{} {inlined} {generic}", pcs.len());
    }
}

/// `.symtab`: address → names of functions.
fn symbols(build: Build) -> BTreeMap<u64, Vec<String>> {
    let file = std::fs::read(&program(build).path).unwrap();
    let header = elf::FileHeader64::<LittleEndian>::parse(&*file).unwrap();
    let sections = header.sections(LittleEndian, &*file).unwrap();
    let table = sections.symbols(LittleEndian, &*file, elf::SHT_SYMTAB).unwrap();
    let mut symbols: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for symbol in table.iter().filter(|symbol| symbol.st_type() == elf::STT_FUNC) {
        let name = symbol.name(LittleEndian, table.strings()).unwrap();
        let name = String::from_utf8_lossy(name).into_owned();
        symbols.entry(symbol.st_value(LittleEndian)).or_default().push(name);
    }
    symbols
}

#[test]
fn knows_the_functions_of_the_symbol_table() {
    for build in [Build::Default, Build::Pie] {
        let binary = open(build);
        let symbols = symbols(build);
        let mut names = Vec::new();
        for (vaddr, aliases) in &symbols {
            let function = match binary.function_at(*vaddr) {
                Ok(function) => function,
                Err(NoSymbol::NotInText) => continue,
                Err(error) => panic!("{aliases:?}: {error}"),
            };
            assert_eq!(function.entry_vaddr, *vaddr, "{aliases:?}");
            let known = aliases.iter().any(|alias| {
                // The linker writes a middle dot of a name as a dot into .symtab.
                let plain = alias.strip_suffix(".abi0").unwrap_or(alias);
                plain == function.name.replace('·', ".") || plain.contains('[')
            });
            assert!(known, "{aliases:?} is called {}", function.name);
            names.push((function.name, *vaddr));
        }
        assert_eq!(names.len() as u64, binary.function_count(), "every function has a symbol");

        let wanted: Vec<&str> =
            names.iter().map(|(name, _)| name.as_str()).filter(|name| !name.contains('[')).collect();
        let found = binary.functions_by_names(&wanted).unwrap();
        for (name, vaddr) in names.iter().filter(|(name, _)| !name.contains('[')) {
            assert!(found[name].iter().any(|function| function.entry_vaddr == *vaddr), "{name}");
        }
    }
}

#[test]
fn reads_what_the_go_command_recorded() {
    for build in Build::ALL {
        let binary = open(build);
        let info = binary.build_info().unwrap();
        let version = Command::new("go").args(["env", "GOVERSION"]).output().unwrap().stdout;
        assert_eq!(binary.go_version(), Some(String::from_utf8(version).unwrap().trim()));
        assert_eq!(info.module_path.as_deref(), Some("example.com/fixture"));
        assert_eq!(info.setting("CGO_ENABLED"), Some("0"));
        assert_eq!(info.setting("-compiler"), Some("gc"));
        let pie = matches!(build, Build::Pie | Build::StrippedPie);
        assert_eq!(info.setting("-buildmode") == Some("pie"), pie);
        assert_eq!(binary.elf().pie, pie);
        assert!(binary.elf().go_build_id.as_ref().is_some_and(|id| id.contains('/')));
        assert!(binary.knows_inlining());
        let poll_wait = binary.function_by_name("internal/poll.runtime_pollWait").unwrap().unwrap();
        let code = binary.read_vaddr(poll_wait.entry_vaddr, 64).unwrap();
        let at = usize::try_from(binary.file_offset(poll_wait.entry_vaddr).unwrap()).unwrap();
        assert_eq!(code, std::fs::read(&program(build).path).unwrap()[at..at + 64]);
        let goexit = binary.function_by_name("runtime.goexit").unwrap().unwrap();
        assert!(goexit.flags.is_top_frame() && goexit.flags.is_assembly());
        assert!(binary.function_by_name("runtime.systemstack").unwrap().unwrap().flags.writes_sp());
    }
}

#[test]
fn inlined_calls_are_found_again_at_their_addresses() {
    let binary = open(Build::Stripped);
    let instances = binary.inlined_instances(&["runtime.netpollunblock", "main.small", "main.main"]).unwrap();
    let of = |name: &str| instances.iter().filter(|instance| instance.name == name).collect::<Vec<_>>();
    // Inlined into all its callers in all versions, twice here: once for reading, once for writing.
    assert!(
        of("runtime.netpollunblock")
            .iter()
            .filter(|instance| instance.into == "runtime.netpollready")
            .count()
            >= 1
    );
    assert_eq!(of("main.main").len(), 0);
    assert!(of("main.small").iter().any(|instance| instance.into == "main.Generic[...]"));
    for instance in &instances {
        for range in &instance.pcs {
            let locations = binary.symbolize(range.start_vaddr).unwrap();
            assert_eq!(locations[0].func, instance.name);
            assert_eq!(locations.last().unwrap().func, instance.into);
        }
    }
}

/// What a walk over the program's addresses meets, the search through the inline trees must find.
#[test]
fn every_inlined_call_is_found() {
    let binary = open(Build::StrippedPie);
    let text = binary.module_data().min_pc..binary.module_data().max_pc;
    let mut met: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pc in text.step_by(128) {
        let Ok(frames) = binary.symbolize(pc) else { continue };
        let Some((outer, inlined)) = frames.split_last() else { continue };
        for frame in inlined.iter().filter(|frame| !frame.func.contains('[')) {
            met.entry(frame.func.clone()).or_default().insert(outer.func.clone());
        }
    }
    assert!(met.len() > 100, "{}", met.len());
    let names: Vec<&str> = met.keys().map(String::as_str).collect();
    let all = binary.inlined_instances(&names).unwrap();
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for instance in &all {
        found.entry(&instance.name).or_default().insert(&instance.into);
    }
    for (name, into) in &met {
        let missed: Vec<_> =
            into.iter().filter(|into| !found[name.as_str()].contains(into.as_str())).collect();
        assert!(missed.is_empty(), "{name} in {missed:?}");
    }
    // One by one, so that a few trees only are decoded.
    for name in names.iter().step_by(40) {
        let alone = binary.inlined_instances(&[name]).unwrap();
        assert_eq!(alone.len(), all.iter().filter(|instance| instance.name == *name).count(), "{name}");
    }
}

#[test]
fn struct_layouts_are_those_of_the_compiler() {
    for build in [Build::Default, Build::Pie, Build::PlainDwarf] {
        let binary = open(build);
        let names = ["main.Layout", "internal/poll.FD", "runtime.g", "runtime.pollDesc", "no.such"];
        let layouts = binary.struct_layouts(&names).unwrap().unwrap();
        assert_eq!(layouts.len(), 4);
        let main = &layouts["main.Layout"];
        let mut said = format!("{}", main.size_bytes);
        for member in ["Flag", "Count", "Next", "Fn", "Name", "In", "Map", "Array", "Any"] {
            let member = main.members[member];
            write!(said, " {}:{}", member.offset_bytes, member.size_bytes.unwrap()).unwrap();
        }
        assert_eq!(said, run(build, &binary, &[])[0]);

        // From the DWARF of binaries of the last patch release of each version, read with another tool.
        let minor = binary.build_info().unwrap().go_minor().unwrap();
        let (goid, wait_reason, poll_desc_bytes, rg) = match minor {
            18..=20 => (152, 176, 240, 24),
            21 | 22 => (152, 176, 248, 32),
            23 | 24 => (160, 184, 280, 32),
            25..=27 => (152, 176, 296, 32),
            other => panic!("Go 1.{other} is installed: add its offsets of runtime.g and runtime.pollDesc"),
        };
        let g = &layouts["runtime.g"].members;
        assert_eq!((g["goid"].offset_bytes, g["goid"].size_bytes), (goid, Some(8)));
        assert_eq!((g["waitreason"].offset_bytes, g["waitreason"].size_bytes), (wait_reason, Some(1)));
        assert_eq!(g["m"].size_bytes, Some(8));
        let poll_desc = &layouts["runtime.pollDesc"];
        assert_eq!((poll_desc.size_bytes, poll_desc.members["rg"].offset_bytes), (poll_desc_bytes, rg));

        let constants = binary.constants(&["runtime.waitReasonIOWait", "runtime.pdWait"]).unwrap().unwrap();
        assert_eq!(constants["runtime.waitReasonIOWait"], 2);
        assert_eq!(constants.get("runtime.pdWait"), Some(&2));
    }
    for build in [Build::Stripped, Build::StrippedPie] {
        assert_eq!(open(build).struct_layouts(&["runtime.g"]).unwrap(), None);
        assert_eq!(open(build).constants(&["runtime.pdWait"]).unwrap(), None);
    }
}

/// Go 1.18 compresses DWARF into sections of other names: the plain program made over into that form.
#[test]
fn reads_the_old_form_of_compressed_sections() {
    let plain = std::fs::read(&program(Build::PlainDwarf).path).unwrap();
    let elf = open(Build::PlainDwarf).elf().clone();
    let size = |n: u64| usize::try_from(n).unwrap();
    let contents =
        |section: &Section| plain[size(section.file_offset)..][..size(section.size_bytes)].to_vec();
    let index_of = |name: &str| elf.sections.iter().position(|section| section.name == name).unwrap();
    let headers = size(u64::from_le_bytes(plain[40..48].try_into().unwrap()));
    let mut file = plain.clone();
    // Puts new contents at the end of the file and lets the section header point there.
    let move_to_end = |file: &mut Vec<u8>, index: usize, contents: &[u8]| {
        let header = headers + index * 64;
        let offset = file.len() as u64;
        file[header + 24..header + 32].copy_from_slice(&offset.to_le_bytes());
        file[header + 32..header + 40].copy_from_slice(&(contents.len() as u64).to_le_bytes());
        file.extend(contents);
    };
    let mut names = contents(elf.section(".shstrtab").unwrap());
    for (name, old_name) in [(".debug_info", ".zdebug_info"), (".debug_abbrev", ".zdebug_abbrev")] {
        let index = index_of(name);
        let section = &elf.sections[index];
        let mut compressed = b"ZLIB".to_vec();
        compressed.extend(section.size_bytes.to_be_bytes());
        let mut encoder = flate2::write::ZlibEncoder::new(compressed, flate2::Compression::fast());
        encoder.write_all(&contents(section)).unwrap();
        move_to_end(&mut file, index, &encoder.finish().unwrap());
        let name_at = u32::try_from(names.len()).unwrap();
        names.extend(old_name.bytes().chain([0]));
        file[headers + index * 64..][..4].copy_from_slice(&name_at.to_le_bytes());
    }
    move_to_end(&mut file, index_of(".shstrtab"), &names);

    let old = GoBinary::from_reader(Box::new(file), "old form").unwrap();
    assert!(old.elf().section(".zdebug_info").is_some() && old.elf().section(".debug_info").is_none());
    let names = ["runtime.g", "runtime.pollDesc", "main.Layout"];
    let layouts = old.struct_layouts(&names).unwrap().unwrap();
    assert_eq!(layouts.len(), 3);
    assert_eq!(layouts, open(Build::PlainDwarf).struct_layouts(&names).unwrap().unwrap());
}
