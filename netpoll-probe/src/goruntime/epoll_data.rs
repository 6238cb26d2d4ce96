//! How the runtime puts a pollDesc into the data word of an epoll event.
//!
//! Up to Go 1.20 the word is the pointer (`netpoll_epoll.go`, `netpollopen`). From 1.21 it is a tagged pointer
//! (`tagptr_64bit.go`, `taggedPointerPack`): pointer and `pollDesc.fdseq` packed, so that an event of an earlier use of the
//! pollDesc is told apart. The widths changed with 1.25.0 (pollDescs aligned to 512 bytes) and with 1.25.4 (tag width).
//! DWARF does not have them, but `netpoll` unpacks with two shifts, which [`EpollData::from_code`] reads. The one to the right
//! extends the sign on amd64 only (`taggedPointer.pointer`), where the bits above an address repeat its highest; on arm64 they are zero.
#![forbid(unsafe_code)]

use super::{
    code::{CodeError, Effect, FunctionCode, Shift},
    version::Release,
};
use crate::gobin::Machine;

/// How an epoll event's data word holds a pollDesc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpollData {
    /// The word is the pollDesc's address.
    Pointer,
    /// The address is `(word >> tag_bits) << align_bits`, and the low `tag_bits` are the low bits of `fdseq`.
    Tagged {
        /// Bits of the tag.
        tag_bits: u8,
        /// Low bits of the address that are not stored, because they are zero.
        align_bits: u8,
    },
}

impl EpollData {
    /// The form that a release uses, for Go 1.18 and newer.
    #[must_use]
    pub fn of_release(release: Release) -> Self {
        if release < Release::new(21, 0) {
            Self::Pointer
        } else if release < Release::new(25, 0) {
            Self::Tagged { tag_bits: 19, align_bits: 3 }
        } else if release < Release::new(25, 4) {
            Self::Tagged { tag_bits: 25, align_bits: 9 }
        } else {
            Self::Tagged { tag_bits: 24, align_bits: 9 }
        }
    }

    /// What the code of `runtime.netpoll` does: the first shift to the right that a shift of its result to the left follows at once.
    /// `None`: there is no such pair (Go up to 1.20, or netpoll was inlined elsewhere).
    ///
    /// # Errors
    /// When the code cannot be disassembled.
    pub fn from_code(netpoll: &FunctionCode) -> Result<Option<Self>, CodeError> {
        let instructions = netpoll.instructions()?;
        let right = right_shift(netpoll.machine());
        Ok(instructions.windows(2).find_map(|pair| match (pair.first()?.effect, pair.last()?.effect) {
            (
                Effect::Shift { shift, to: unpacked, bits: tag_bits, .. },
                Effect::Shift { shift: Shift::Left, from, bits: align_bits, .. },
            ) if shift == right && from == unpacked => Some(Self::Tagged { tag_bits, align_bits }),
            _ => None,
        }))
    }

    /// The pollDesc's address. A stale or foreign word gives an address that is none: look it up before reading it.
    #[must_use]
    pub fn poll_desc(self, machine: Machine, word: u64) -> u64 {
        match self {
            Self::Pointer => word,
            Self::Tagged { tag_bits, align_bits } => {
                let address = match right_shift(machine) {
                    Shift::RightSigned => {
                        word.cast_signed().checked_shr(tag_bits.into()).map(i64::cast_unsigned)
                    }
                    Shift::Right | Shift::Left => word.checked_shr(tag_bits.into()),
                };
                address.and_then(|address| address.checked_shl(align_bits.into())).unwrap_or(0)
            }
        }
    }

    /// The low bits of `pollDesc.fdseq` at the time of registration; `None` before Go 1.21.
    #[must_use]
    pub fn tag(self, word: u64) -> Option<u64> {
        match self {
            Self::Pointer => None,
            Self::Tagged { tag_bits, .. } => Some(word & !u64::MAX.checked_shl(tag_bits.into()).unwrap_or(0)),
        }
    }
}

/// How `taggedPointer.pointer` shifts to the right.
const fn right_shift(machine: Machine) -> Shift {
    match machine {
        Machine::Amd64 => Shift::RightSigned,
        Machine::Arm64 => Shift::Right,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAGGED: [EpollData; 3] = [
        EpollData::Tagged { tag_bits: 19, align_bits: 3 },
        EpollData::Tagged { tag_bits: 25, align_bits: 9 },
        EpollData::Tagged { tag_bits: 24, align_bits: 9 },
    ];

    #[test]
    fn follows_the_versions() {
        let of = |minor, patch| EpollData::of_release(Release::new(minor, patch));
        assert_eq!(of(18, 4), EpollData::Pointer);
        assert_eq!(of(20, 14), EpollData::Pointer);
        assert_eq!((of(21, 0), of(24, 13)), (TAGGED[0], TAGGED[0]));
        assert_eq!((of(25, 0), of(25, 3)), (TAGGED[1], TAGGED[1]));
        assert_eq!((of(25, 4), of(26, 0), of(27, 4)), (TAGGED[2], TAGGED[2], TAGGED[2]));
    }

    #[test]
    fn reads_the_shifts() {
        let read = |machine, bytes: &[u8]| {
            let code = FunctionCode::new("runtime.netpoll", machine, 0x1000, 0x400, bytes.to_vec());
            EpollData::from_code(&code).unwrap()
        };
        // mov rsi,rdx; sar rsi,18h; shl rsi,9; ret
        let unpack = [0x48, 0x89, 0xd6, 0x48, 0xc1, 0xfe, 0x18, 0x48, 0xc1, 0xe6, 0x09, 0xc3];
        assert_eq!(read(Machine::Amd64, &unpack), Some(TAGGED[2]));
        // sar rsi,18h; shl rdi,9; ret
        assert_eq!(read(Machine::Amd64, &[0x48, 0xc1, 0xfe, 0x18, 0x48, 0xc1, 0xe7, 0x09, 0xc3]), None);
        // shr rsi,18h; shl rsi,9; ret
        assert_eq!(read(Machine::Amd64, &[0x48, 0xc1, 0xee, 0x18, 0x48, 0xc1, 0xe6, 0x09, 0xc3]), None);
        // lsr x7, x6, #24; lsl x7, x7, #9
        let unpack = [0xc7, 0xfc, 0x58, 0xd3, 0xe7, 0xd8, 0x77, 0xd3];
        assert_eq!(read(Machine::Arm64, &unpack), Some(TAGGED[2]));
        // asr x7, x6, #24; lsl x7, x7, #9
        assert_eq!(read(Machine::Arm64, &[0xc7, 0xfc, 0x58, 0x93, 0xe7, 0xd8, 0x77, 0xd3]), None);
    }

    proptest! {
        #[test]
        fn unpacks_what_go_packs(word: u64, fdseq: u64, which in 0..3usize) {
            let EpollData::Tagged { tag_bits, align_bits } = TAGGED[which] else { unreachable!() };
            // An address of 48 bits with the low ones zero; amd64 repeats its highest in those above.
            let arm64 = word << 16 >> 16 >> align_bits << align_bits;
            let amd64 = (arm64.cast_signed() << 16 >> 16).cast_unsigned();
            for (machine, address) in [(Machine::Arm64, arm64), (Machine::Amd64, amd64)] {
                // taggedPointerPack: uint64(ptr) << (64 - addrBits) | tag & (1<<tagBits - 1)
                let packed = (address << (tag_bits - align_bits)) | (fdseq & ((1 << tag_bits) - 1));
                prop_assert_eq!(TAGGED[which].poll_desc(machine, packed), address);
                prop_assert_eq!(TAGGED[which].tag(packed), Some(fdseq & ((1 << tag_bits) - 1)));
            }
        }
    }
}
