//! A tiny ELF file with just the tables of a Go program, made by hand, so that every layout can be tested without its Go
//! version and every byte of it can be broken.

/// Where text and data are linked.
pub(crate) const TEXT: u64 = 0x40_1000;
const DATA: u64 = 0x50_0000;
const DATA_FILE_OFFSET: usize = 0x1000;
/// Offsets in the data segment.
const BUILDINFO_AT: usize = 0x10;
const GOFUNC_AT: usize = 0x400;
const PCLNTAB_AT: usize = 0x800;
const MODULE_AT: usize = 0x1000;
const DYNAMIC_AT: usize = 0x1400;
const RELA_AT: usize = 0x1480;
const DATA_BYTES: usize = 0x2000;

/// What the file is made like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixture {
    /// Written into the build information; `None` leaves it out.
    pub(crate) go_version: Option<&'static str>,
    /// The magic of pclntab, which decides its layout.
    pub(crate) magic: u32,
    /// Where `gofunc` is in moduledata.
    pub(crate) gofunc_offset: usize,
    /// Position independent, with addresses in relocations and zeros in their places.
    pub(crate) relocated: bool,
    /// The machine number: 62 is x86-64, 183 aarch64.
    pub(crate) machine: u16,
}

impl Fixture {
    pub(crate) const GO_1_26: Self = Self {
        go_version: Some("go1.26.8"),
        magic: 0xffff_fff1,
        gofunc_offset: 320,
        relocated: false,
        machine: 62,
    };
    pub(crate) const GO_1_18: Self =
        Self { go_version: Some("go1.18.10"), magic: 0xffff_fff0, gofunc_offset: 304, ..Self::GO_1_26 };

    pub(crate) fn build(self) -> Vec<u8> {
        let mut file = vec![0; DATA_FILE_OFFSET + DATA_BYTES];
        let quantum = if self.machine == 183 { 4 } else { 1 };
        self.headers(&mut file);
        let mut data = vec![0; DATA_BYTES];
        if let Some(version) = self.go_version {
            put(&mut data, BUILDINFO_AT, b"\xff Go buildinf:\x08\x02");
            let mut strings = vec![u8::try_from(version.len()).unwrap()];
            strings.extend_from_slice(version.as_bytes());
            let module = b"0123456789abcdefpath\tfixture\nbuild\tCGO_ENABLED=0\nfedcba9876543210";
            strings.push(u8::try_from(module.len()).unwrap());
            strings.extend_from_slice(module);
            put(&mut data, BUILDINFO_AT + 32, &strings);
        }
        let tables = self.tables(quantum);
        put(&mut data, PCLNTAB_AT, &tables.pclntab);
        put(&mut data, GOFUNC_AT, &tables.inline_tree);
        self.module(&mut data, &tables);
        put(&mut file, DATA_FILE_OFFSET, &data);
        file
    }

    fn headers(self, file: &mut [u8]) {
        put(file, 0, b"\x7fELF\x02\x01\x01");
        put(file, 16, &u16::to_le_bytes(if self.relocated { 3 } else { 2 }));
        put(file, 18, &self.machine.to_le_bytes());
        put64(file, 24, TEXT); // e_entry
        put64(file, 32, 64); // e_phoff
        put(file, 54, &56u16.to_le_bytes());
        put(file, 56, &4u16.to_le_bytes());
        let dynamic = (2, 6, DATA_FILE_OFFSET + DYNAMIC_AT, DATA + DYNAMIC_AT as u64, 0x40);
        let segments = [
            (1u32, 5u32, 0usize, TEXT - 0x1000, 0x1000usize),
            (1, 6, DATA_FILE_OFFSET, DATA, DATA_BYTES),
            (7, 4, DATA_FILE_OFFSET, DATA, 8),
            dynamic,
        ];
        for (index, (kind, flags, offset, vaddr, size)) in segments.into_iter().enumerate() {
            // Without relocations the dynamic segment is left out by an unused type.
            let kind = if kind == 2 && !self.relocated { 0 } else { kind };
            let at = 64 + index * 56;
            put(file, at, &kind.to_le_bytes());
            put(file, at + 4, &flags.to_le_bytes());
            put64(file, at + 8, offset as u64);
            put64(file, at + 16, vaddr);
            put64(file, at + 32, size as u64);
            put64(file, at + 40, if kind == 7 { 16 } else { size as u64 });
            put64(file, at + 48, if kind == 7 { 8 } else { 0x1000 });
        }
    }

    fn tables(self, quantum: u64) -> Tables {
        let old = self.magic == 0xffff_fff0;
        let mut names = Table::default();
        let [main, caller, callee, inner, generic] =
            ["main.main", "runtime.caller", "runtime.callee", "runtime.inner", "main.F[go.shape.int]"]
                .map(|name| names.string(name));
        let mut files = Table::default();
        let [a, b] = ["/src/a.go", "/src/b.go"].map(|name| files.string(name));
        let cutab: Vec<u8> = [a, b, u32::MAX].into_iter().flat_map(u32::to_le_bytes).collect();

        let mut pctab = Table(vec![0]);
        let mut values = |ranges: &[(i32, u64)]| {
            let at = pctab.offset();
            pctab.0.extend(pc_values(ranges, quantum));
            at
        };
        let file_a = values(&[(0, 0x100)]);
        let line_main = values(&[(7, 0x100)]);
        let line_inlined = values(&[(10, 0x10), (20, 0x10), (30, 0x10), (21, 0x10), (12, 0xc0)]);
        let file_inlined = values(&[(0, 0x10), (1, 0x30), (0, 0xc0)]);
        let index = values(&[(-1, 0x10), (0, 0x10), (1, 0x10), (0, 0x10), (-1, 0xc0)]);
        let file_gone = values(&[(2, 0x100)]);
        let sp = values(&[(0, 8), (64, 0xf8)]);

        // callee inlined into caller at its line 10, inner into callee at callee's line 20
        let inlined = |name: u32, parent_pc: i32, id: u8| -> Vec<u8> {
            let mut entry = vec![0; if old { 20 } else { 16 }];
            put(&mut entry, if old { 2 } else { 0 }, &[id]);
            put(&mut entry, if old { 12 } else { 4 }, &name.to_le_bytes());
            put(&mut entry, if old { 16 } else { 8 }, &parent_pc.to_le_bytes());
            entry
        };
        let inline_tree =
            [inlined(callee, 0x08, 0), inlined(inner, 0x14, if old { 21 } else { 23 })].concat();

        let functions = [
            (0x000u32, main, [sp, file_a, line_main], None, 1),
            (0x100, caller, [sp, file_inlined, line_inlined], Some(index), 0),
            (0x200, generic, [0, file_gone, line_main], None, 0),
        ];
        let functab_bytes = functions.len() * 8 + 4;
        let (mut functab, mut records) = (Vec::new(), Vec::new());
        for (entry, name, [sp, file, line], index, flags) in functions {
            functab.extend(entry.to_le_bytes());
            functab.extend(u32::try_from(functab_bytes + records.len()).unwrap().to_le_bytes());
            let mut record = vec![0; if old { 40 } else { 44 }];
            put(&mut record, 0, &entry.to_le_bytes());
            put(&mut record, 4, &name.to_le_bytes());
            put(&mut record, 16, &sp.to_le_bytes());
            put(&mut record, 20, &file.to_le_bytes());
            put(&mut record, 24, &line.to_le_bytes());
            let end = record.len();
            put(&mut record, end - 3, &[flags]);
            if let Some(index) = index {
                put(&mut record, 28, &3u32.to_le_bytes());
                put(&mut record, end - 1, &[4]);
                for word in [0, 0, index, u32::MAX, u32::MAX, u32::MAX, 0] {
                    record.extend(u32::to_le_bytes(word));
                }
            }
            records.extend(record);
        }
        functab.extend(0x300u32.to_le_bytes());

        let mut pclntab = vec![0; 72];
        let mut offsets = Vec::new();
        for table in [names.0, cutab, files.0, pctab.0, [functab, records].concat()] {
            offsets.push(pclntab.len() as u64);
            pclntab.extend(table);
        }
        put(&mut pclntab, 0, &self.magic.to_le_bytes());
        put(&mut pclntab, 6, &[u8::try_from(quantum).unwrap(), 8]);
        put64(&mut pclntab, 8, 3);
        put64(&mut pclntab, 16, 2);
        for (index, offset) in offsets.iter().enumerate() {
            put64(&mut pclntab, 32 + index * 8, *offset);
        }
        Tables { pclntab, inline_tree, funcname: offsets[0], functab: offsets[4] }
    }

    fn module(self, data: &mut [u8], tables: &Tables) {
        let pclntab = DATA + PCLNTAB_AT as u64;
        let mut words = vec![
            (0, pclntab),
            (8, pclntab + tables.funcname),
            (128, pclntab + tables.functab),
            (160, TEXT),
            (168, TEXT + 0x300),
            (176, TEXT),
            (184, TEXT + 0x300),
            (208, DATA),
            (216, DATA + DATA_BYTES as u64),
            (self.gofunc_offset, DATA + GOFUNC_AT as u64),
        ];
        put64(data, MODULE_AT + 136, 4);
        if !self.relocated {
            for (at, value) in words {
                put64(data, MODULE_AT + at, value);
            }
            return;
        }
        words.insert(0, (0x200, pclntab)); // another pointer to pclntab that is not moduledata
        for (index, (tag, value)) in
            [(7, DATA + RELA_AT as u64), (8, words.len() as u64 * 24), (0, 0)].into_iter().enumerate()
        {
            put64(data, DYNAMIC_AT + index * 16, tag);
            put64(data, DYNAMIC_AT + index * 16 + 8, value);
        }
        for (index, (at, value)) in words.into_iter().enumerate() {
            let entry = RELA_AT + index * 24;
            put64(data, entry, DATA + (MODULE_AT + at) as u64);
            put64(data, entry + 8, if self.machine == 183 { 1027 } else { 8 });
            put64(data, entry + 16, value);
        }
    }
}

struct Tables {
    pclntab: Vec<u8>,
    inline_tree: Vec<u8>,
    funcname: u64,
    functab: u64,
}

#[derive(Default)]
struct Table(Vec<u8>);

impl Table {
    fn offset(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn string(&mut self, text: &str) -> u32 {
        let at = self.offset();
        self.0.extend(text.as_bytes());
        self.0.push(0);
        at
    }
}

/// A pc-value table of (value, bytes it holds for).
fn pc_values(ranges: &[(i32, u64)], quantum: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = -1;
    for (value, length) in ranges {
        let delta = i64::from(value - last);
        varint(&mut out, u64::try_from(if delta < 0 { -2 * delta - 1 } else { 2 * delta }).unwrap());
        varint(&mut out, length / quantum);
        last = *value;
    }
    out.push(0);
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put64(to: &mut [u8], at: usize, value: u64) {
    put(to, at, &value.to_le_bytes());
}
