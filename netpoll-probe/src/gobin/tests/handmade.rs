//! Both layouts of pclntab, both architectures, relocated words, and each reason for refusing a file.

use super::{
    super::{Error, GoBinary, Machine, NoSymbol, PcRange},
    fixture::{Fixture, TEXT},
};

fn open(fixture: Fixture) -> GoBinary {
    GoBinary::from_reader(Box::new(fixture.build()), "fixture").unwrap()
}

fn refusal(file: Vec<u8>) -> Error {
    GoBinary::from_reader(Box::new(file), "fixture").unwrap_err()
}

/// Leaf first: function, file, line, inlined.
fn frames(binary: &GoBinary, pc: u64) -> Vec<(String, String, u32, bool)> {
    let locations = binary.symbolize(pc).unwrap();
    locations.into_iter().map(|l| (l.func, l.file, l.line, l.inlined)).collect()
}

fn frame(func: &str, file: &str, line: u32, inlined: bool) -> (String, String, u32, bool) {
    (func.to_owned(), file.to_owned(), line, inlined)
}

fn every_layout() -> Vec<Fixture> {
    let newest = Fixture { go_version: Some("go1.27.4"), gofunc_offset: 344, ..Fixture::GO_1_26 };
    let arm64 = |fixture| Fixture { machine: 183, ..fixture };
    let relocated = |fixture| Fixture { relocated: true, ..fixture };
    let all = [Fixture::GO_1_18, Fixture::GO_1_26, newest];
    let mut layouts: Vec<_> =
        all.into_iter().flat_map(|f| [f, arm64(f), relocated(f), relocated(arm64(f))]).collect();
    layouts.push(Fixture { go_version: None, ..newest });
    layouts.push(Fixture { go_version: Some("unknown"), ..Fixture::GO_1_26 });
    layouts
}

#[test]
fn symbolizes_in_every_layout() {
    for fixture in every_layout() {
        let binary = open(fixture);
        assert!(binary.knows_inlining(), "{fixture:?}");
        assert_eq!(frames(&binary, TEXT + 0x20), [frame("main.main", "/src/a.go", 7, false)]);
        assert_eq!(frames(&binary, TEXT + 0x104), [frame("runtime.caller", "/src/a.go", 10, false)]);
        assert_eq!(
            frames(&binary, TEXT + 0x114),
            [frame("runtime.callee", "/src/b.go", 20, true), frame("runtime.caller", "/src/a.go", 10, false)]
        );
        assert_eq!(
            frames(&binary, TEXT + 0x12c),
            [
                frame("runtime.inner", "/src/b.go", 30, true),
                frame("runtime.callee", "/src/b.go", 20, true),
                frame("runtime.caller", "/src/a.go", 10, false)
            ]
        );
        assert_eq!(frames(&binary, TEXT + 0x1ff), [frame("runtime.caller", "/src/a.go", 12, false)]);
        // Its file was dropped from the table: unknown, not guessed.
        assert_eq!(frames(&binary, TEXT + 0x200), [frame("main.F[...]", "", 0, false)]);
        assert_eq!(binary.symbolize(TEXT + 0x300), Err(NoSymbol::NotInText));
        assert_eq!(binary.symbolize(TEXT - 1), Err(NoSymbol::NotInText));
        assert_eq!(binary.symbolize(u64::MAX), Err(NoSymbol::NotInText));
    }
}

#[test]
fn wrappers_are_told_when_the_version_is_known() {
    let wrappers = |fixture| -> Vec<bool> {
        open(fixture).symbolize(TEXT + 0x12c).unwrap().into_iter().map(|location| location.wrapper).collect()
    };
    assert_eq!(wrappers(Fixture::GO_1_26), [true, false, false]);
    assert_eq!(wrappers(Fixture::GO_1_18), [true, false, false]);
    assert_eq!(wrappers(Fixture { go_version: None, ..Fixture::GO_1_26 }), [false, false, false]);
}

#[test]
fn finds_functions_by_name_and_address() {
    for fixture in every_layout() {
        let binary = open(fixture);
        let found =
            binary.functions_by_names(&["runtime.caller", "main.main", "no.such", "runtime.inner"]).unwrap();
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            ["main.main", "runtime.caller"],
            "inner was inlined only"
        );
        let caller = &found["runtime.caller"][0];
        assert_eq!((caller.entry_vaddr, caller.end_vaddr), (TEXT + 0x100, TEXT + 0x200));
        let main = binary.function_at(TEXT + 0xff).unwrap();
        assert_eq!((main.name.as_str(), main.entry_vaddr), ("main.main", TEXT));
        assert!(main.flags.is_top_frame() && !main.flags.writes_sp() && !caller.flags.is_top_frame());
        let last = binary.function_by_name("main.F[go.shape.int]").unwrap().unwrap();
        assert_eq!((last.name.as_str(), last.end_vaddr), ("main.F[...]", TEXT + 0x300));
        assert_eq!(binary.sp_delta_bytes(TEXT + 4), Ok(Some(0)));
        assert_eq!(binary.sp_delta_bytes(TEXT + 8), Ok(Some(64)));
        assert_eq!(binary.sp_delta_bytes(TEXT + 0x208), Ok(None));
    }
}

#[test]
fn tells_where_a_function_was_inlined() {
    for fixture in every_layout() {
        let instances = open(fixture).inlined_instances(&["runtime.callee", "main.main"]).unwrap();
        assert_eq!(instances.len(), 1, "{fixture:?}");
        assert_eq!(instances[0].into, "runtime.caller");
        assert_eq!(instances[0].into_entry_vaddr, TEXT + 0x100);
        let range = |start, end| PcRange { start_vaddr: TEXT + start, end_vaddr: TEXT + end };
        assert_eq!(instances[0].pcs, [range(0x110, 0x120), range(0x130, 0x140)]);
    }
}

#[test]
fn reads_headers_and_build_information() {
    let binary = open(Fixture { machine: 183, relocated: true, ..Fixture::GO_1_26 });
    assert_eq!((binary.machine(), binary.elf().pie), (Machine::Arm64, true));
    assert_eq!(binary.go_version(), Some("go1.26.8"));
    let info = binary.build_info().unwrap();
    assert_eq!(info.package_path.as_deref(), Some("fixture"));
    assert_eq!(info.setting("CGO_ENABLED"), Some("0"));
    let tls = binary.elf().tls.unwrap();
    assert_eq!((tls.memory_size_bytes, tls.align_bytes), (16, 8));
    let lowest = binary.elf().lowest_segment().unwrap();
    assert_eq!((lowest.vaddr, lowest.file_offset), (TEXT - 0x1000, 0));
    assert_eq!(binary.file_offset(0x50_0010), Some(0x1010));
    assert_eq!(binary.file_offset(0x50_2000), None);
    assert_eq!(binary.read_vaddr(0x50_0012, 3).unwrap(), b"Go ");
    assert!(matches!(binary.read_vaddr(0x50_1fff, 2), Err(Error::NotInFile { .. })));
    assert!(matches!(binary.read_vaddr(0x50_0000, usize::MAX), Err(Error::NotInFile { .. })));
    assert_eq!(binary.struct_layouts(&["runtime.g"]).unwrap(), None, "no DWARF");
}

#[test]
fn says_why_a_file_is_refused() {
    assert!(matches!(refusal(Vec::new()), Error::NotElf { .. }));
    assert!(matches!(refusal(b"#!/bin/sh\n".to_vec()), Error::NotElf { .. }));
    assert!(matches!(refusal(b"\x7fELF".to_vec()), Error::Truncated { .. }));

    let unsupported = |at: usize, value: u8| {
        let mut file = Fixture::GO_1_26.build();
        file[at] = value;
        match refusal(file) {
            Error::UnsupportedElf { found } => found,
            other => panic!("{other}"),
        }
    };
    assert_eq!(unsupported(4, 1), "32-bit");
    assert_eq!(unsupported(5, 2), "big-endian");
    assert_eq!(unsupported(16, 4), "a core dump");
    assert_eq!(unsupported(18, 40), "machine number 40");

    let mut stripped_of_tables = Fixture::GO_1_26.build();
    stripped_of_tables[0x1800] = 0;
    let error = refusal(stripped_of_tables).to_string();
    assert_eq!(
        error,
        "not a Go binary: x86-64 static executable, without section headers, build information of go1.26.8, no pclntab"
    );

    let old = |version| refusal(Fixture { go_version: Some(version), ..Fixture::GO_1_18 }.build());
    assert!(matches!(old("go1.17.13"), Error::UnsupportedGoVersion { found } if found == "go1.17.13"));

    let mut without_module = Fixture::GO_1_26.build();
    without_module[0x2000] ^= 1;
    assert!(matches!(refusal(without_module), Error::Broken { .. }));
}

#[test]
fn a_gofunc_that_does_not_fit_leaves_inlining_unknown() {
    let mut file = Fixture::GO_1_26.build();
    file[0x2000 + 320] += 4; // moduledata.gofunc, shifted
    let binary = GoBinary::from_reader(Box::new(file), "fixture").unwrap();
    assert!(!binary.knows_inlining());
    assert_eq!(frames(&binary, TEXT + 0x114), [frame("runtime.caller", "/src/b.go", 20, false)]);
}
