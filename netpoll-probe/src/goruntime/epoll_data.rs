//! How the runtime puts a pollDesc into the data word of an epoll event.
//!
//! Up to Go 1.20 the word is the pointer (`netpoll_epoll.go`, `netpollopen`). From 1.21 it is a tagged pointer
//! (`tagptr_64bit.go`, `taggedPointerPack`): pointer and `pollDesc.fdseq` packed, so that an event of an earlier use of the
//! pollDesc is told apart. The widths changed with 1.25.0 (pollDescs aligned to 512 bytes) and with 1.25.4 (tag width).
//! DWARF does not have them, but `netpoll` unpacks with `sar` and `shl`, which [`EpollData::from_code`] reads.
#![forbid(unsafe_code)]

use iced_x86::{Mnemonic, OpKind};

use super::{
    version::Release,
    x86::{CodeError, FunctionCode},
};

/// How an epoll event's data word holds a pollDesc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpollData {
    /// The word is the pollDesc's address.
    Pointer,
    /// The address is `((word as i64) >> tag_bits) << align_bits`, and the low `tag_bits` are the low bits of `fdseq`.
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

    /// What the code of `runtime.netpoll` does: the first `sar r, N` that a `shl r, M` of the same register follows at once.
    /// `None`: there is no such pair (Go up to 1.20, or netpoll was inlined elsewhere).
    ///
    /// # Errors
    /// When the code cannot be disassembled.
    pub fn from_code(netpoll: &FunctionCode) -> Result<Option<Self>, CodeError> {
        let instructions = netpoll.instructions()?;
        let shift_by = |instruction: &iced_x86::Instruction| {
            (instruction.op1_kind() == OpKind::Immediate8).then(|| instruction.immediate8())
        };
        Ok(instructions.windows(2).find_map(|pair| {
            let [right, left] = pair else { return None };
            let unpacks = right.mnemonic() == Mnemonic::Sar
                && left.mnemonic() == Mnemonic::Shl
                && right.op0_register() == left.op0_register()
                && right.op0_register().size() == 8;
            let (tag_bits, align_bits) = (shift_by(right)?, shift_by(left)?);
            unpacks.then_some(Self::Tagged { tag_bits, align_bits })
        }))
    }

    /// The pollDesc's address. A stale or foreign word gives an address that is none: look it up before reading it.
    #[must_use]
    pub fn poll_desc(self, word: u64) -> u64 {
        match self {
            Self::Pointer => word,
            Self::Tagged { tag_bits, align_bits } => {
                // Arithmetic, as in `taggedPointer.pointer`: the address is sign-extended.
                let address = word.cast_signed().checked_shr(tag_bits.into()).unwrap_or(0);
                address.cast_unsigned().checked_shl(align_bits.into()).unwrap_or(0)
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
        let code = |bytes: &[u8]| FunctionCode::new("runtime.netpoll", 0x1000, 0x400, bytes.to_vec());
        // mov rsi,rdx; sar rsi,18h; shl rsi,9; ret
        let unpack = [0x48, 0x89, 0xd6, 0x48, 0xc1, 0xfe, 0x18, 0x48, 0xc1, 0xe6, 0x09, 0xc3];
        assert_eq!(EpollData::from_code(&code(&unpack)).unwrap(), Some(TAGGED[2]));
        // sar rsi,18h; shl rdi,9; ret
        let other_register = [0x48, 0xc1, 0xfe, 0x18, 0x48, 0xc1, 0xe7, 0x09, 0xc3];
        assert_eq!(EpollData::from_code(&code(&other_register)).unwrap(), None);
    }

    proptest! {
        #[test]
        fn unpacks_what_go_packs(word: u64, fdseq: u64, which in 0..3usize) {
            let EpollData::Tagged { tag_bits, align_bits } = TAGGED[which] else { unreachable!() };
            // A canonical address with the low bits zero, 48 bits sign-extended.
            let address = ((word.cast_signed() << 16 >> 16) >> align_bits << align_bits).cast_unsigned();
            // taggedPointerPack: uint64(ptr) << (64 - addrBits) | tag & (1<<tagBits - 1)
            let packed = (address << (tag_bits - align_bits)) | (fdseq & ((1 << tag_bits) - 1));
            prop_assert_eq!(TAGGED[which].poll_desc(packed), address);
            prop_assert_eq!(TAGGED[which].tag(packed), Some(fdseq & ((1 << tag_bits) - 1)));
        }
    }
}
