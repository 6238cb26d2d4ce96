//! Broken files: whatever is flipped or cut, the reader returns, soon, and without a panic.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    super::{Elf, Error, GoBinary, ReadAt, read_everything, source::Source},
    fixture::Fixture,
    go_programs::{Build, program},
};

/// For one broken file in an unoptimised build on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn reads_soon(file: Vec<u8>) -> Result<(), TestCaseError> {
    let start = Instant::now();
    // Both answers are good ones.
    let _: Result<(), Error> = read_everything(file);
    prop_assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    Ok(())
}

/// What is done to a file: bytes set at places, 8-byte numbers set at places, and an end cut off.
#[derive(Clone, Debug)]
struct Damage {
    bytes: Vec<(prop::sample::Index, u8)>,
    words: Vec<(prop::sample::Index, u64)>,
    cut: Option<prop::sample::Index>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![
        any::<u64>(),
        Just(u64::MAX),
        Just(0),
        Just(1 << 63),
        (0u64..0x3000),
        (0x50_0000u64..0x50_2000),
        Just(u64::from(u32::MAX)),
    ];
    (
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        prop::collection::vec((any::<prop::sample::Index>(), word), 0..4),
        prop::option::weighted(0.1, any::<prop::sample::Index>()),
    )
        .prop_map(|(bytes, words, cut)| Damage { bytes, words, cut })
}

impl Damage {
    /// Does the damage within `ranges` of the file.
    fn apply(&self, file: &mut Vec<u8>, ranges: &[std::ops::Range<usize>]) {
        let total: usize = ranges.iter().map(ExactSizeIterator::len).sum();
        let place = |index: &prop::sample::Index| {
            let mut at = index.index(total);
            for range in ranges {
                if at < range.len() {
                    return range.start + at;
                }
                at -= range.len();
            }
            unreachable!("index within the sum of the lengths");
        };
        for (index, byte) in &self.bytes {
            file[place(index)] = *byte;
        }
        for (index, word) in &self.words {
            let at = place(index) & !7;
            if let Some(to) = file.get_mut(at..at + 8) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
        if let Some(index) = &self.cut {
            file.truncate(index.index(file.len()));
        }
    }
}

/// Where the tables of the handmade file are: headers, build information, inline tree, pclntab, moduledata, relocations.
const HANDMADE: [std::ops::Range<usize>; 5] =
    [0..0x120, 0x1000..0x1070, 0x1400..0x1440, 0x1800..0x1a00, 0x2000..0x2600];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn of_the_handmade_file(damage in damage(), old in any::<bool>(), relocated in any::<bool>()) {
        let fixture = if old { Fixture::GO_1_18 } else { Fixture::GO_1_26 };
        let mut file = Fixture { relocated, ..fixture }.build();
        damage.apply(&mut file, &HANDMADE);
        reads_soon(file)?;
    }

    #[test]
    fn of_no_file_at_all(mut file in prop::collection::vec(any::<u8>(), 0..512), elf in any::<bool>()) {
        if elf && file.len() >= 20 {
            file[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
        }
        reads_soon(file)?;
    }
}

/// A real program and the ranges of its headers and tables.
struct Real {
    file: Vec<u8>,
    ranges: Vec<std::ops::Range<usize>>,
}

static REAL: LazyLock<Real> = LazyLock::new(|| {
    let path = &program(Build::Default).path;
    let file = std::fs::read(path).unwrap();
    let elf = Elf::read(&Source::new(Box::new(file.clone())).unwrap()).unwrap();
    let section = |name: &str| {
        let section = elf.section(name).unwrap();
        let start = usize::try_from(section.file_offset).unwrap();
        start..start + usize::try_from(section.size_bytes).unwrap()
    };
    let pclntab = section(".gopclntab");
    let names = [".go.buildinfo", ".debug_info", ".debug_abbrev"].map(section);
    // The header twice over and over, since most of pclntab is tables where damage is seldom met.
    let header = pclntab.start..pclntab.start + 72;
    let ranges = [0..0x400, header.clone(), header, pclntab].into_iter().chain(names).collect();
    Real { file, ranges }
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn of_a_real_program(damage in damage(), only in any::<prop::sample::Index>()) {
        let mut file = REAL.file.clone();
        let range = REAL.ranges[only.index(REAL.ranges.len())].clone();
        damage.apply(&mut file, &[range]);
        reads_soon(file)?;
    }
}

/// A file that is cut after it was opened: its size was right once.
struct Cut {
    file: Vec<u8>,
    promised: u64,
}

impl ReadAt for Cut {
    fn size(&self) -> std::io::Result<u64> {
        Ok(self.promised)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.file.read_at(buf, offset)
    }
}

#[test]
fn a_file_cut_while_it_is_read_is_an_error() {
    let file = Fixture::GO_1_26.build();
    let promised = file.len() as u64;
    for kept in [0, 3, 63, 64, 0x100, 0x1000, 0x1810, 0x1900, 0x2010] {
        let file = file[..kept].to_vec();
        let error = GoBinary::from_reader(Box::new(Cut { file, promised }), "cut").unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{kept}: {error}");
    }
}
