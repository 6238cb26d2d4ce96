//! Struct members of the running kernel, from its BTF (`Documentation/bpf/btf.rst`).
//!
//! Ours, because rustc emits no CO-RE relocations, aya's own BTF type keeps members to itself, and the crate that
//! would serve is LGPL, which a static binary of ours cannot be.

use std::{collections::HashMap, fs, path::Path};

use thiserror::Error;

/// Where the kernel shows its BTF.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// `sizeof(struct btf_type)`, `include/uapi/linux/btf.h`; so are the sizes and kinds below.
const TYPE_BYTES: usize = 12;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FORWARD: u32 = 7;
/// Anonymous structs inside anonymous unions: the kernel nests them a few levels deep.
const NESTING: usize = 8;

/// Kinds of what is looked up by name (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A type's second name; each BTF tracepoint has one.
    Typedef = 8,
    /// A function.
    Function = 12,
}

/// What is wrong with the kernel's BTF.
#[derive(Debug, Error)]
pub enum BtfError {
    /// It could not be read.
    #[error("cannot read {PATH}: {0}")]
    Read(#[from] std::io::Error),
    /// It is not BTF, or cut short.
    #[error("not BTF: {what} at byte {offset:#x}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// Where.
        offset: usize,
    },
    /// The struct or its member does not exist in this kernel.
    #[error("this kernel's BTF has no {name}.{member}")]
    Missing {
        /// The struct.
        name: String,
        /// The member.
        member: String,
    },
}

/// The kernel's types, by the structs that were asked for.
#[derive(Debug)]
pub struct KernelBtf {
    data: Vec<u8>,
    /// Offset in `data` of each type's record; the index is the type's id.
    types: Vec<usize>,
    strings: usize,
    structs: HashMap<String, usize>,
}

impl KernelBtf {
    /// Reads the running kernel's.
    ///
    /// # Errors
    /// When there is none, or it is not BTF.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::parse(fs::read(Path::new(PATH))?)
    }

    /// Parses raw BTF.
    ///
    /// # Errors
    /// When it is not BTF, or cut short.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let malformed = |what, offset| BtfError::Malformed { what, offset };
        if u16_at(&data, 0) != Some(MAGIC) {
            return Err(malformed("the magic 0xeb9f", 0));
        }
        let field = |offset| u32_at(&data, offset).map(|v| v as usize).ok_or(malformed("a header", offset));
        let (header, types_at, types_bytes, strings_at) = (field(4)?, field(8)?, field(12)?, field(16)?);
        let mut at = header.saturating_add(types_at);
        let end = at.saturating_add(types_bytes);
        let strings = header.saturating_add(strings_at);
        let mut types = vec![0];
        while at < end {
            let info = u32_at(&data, at.saturating_add(4)).ok_or(malformed("a type", at))?;
            types.push(at);
            at += TYPE_BYTES + tail_bytes(info).ok_or(malformed("a known kind of type", at))?;
        }
        let mut this = Self { data, types, strings, structs: HashMap::new() };
        this.structs = this.index();
        Ok(this)
    }

    /// Byte offset of `member` in `struct name`, also when it stands in an anonymous struct or union in it.
    ///
    /// # Errors
    /// When the kernel has no such struct or member.
    pub fn offset_of(&self, name: &str, member: &str) -> Result<u32, BtfError> {
        self.structs
            .get(name)
            .and_then(|at| self.member_bits(*at, member, NESTING))
            .map(|bits| bits / 8)
            .ok_or_else(|| BtfError::Missing { name: name.to_owned(), member: member.to_owned() })
    }

    /// Bytes of `struct name`.
    ///
    /// # Errors
    /// When the kernel has no such struct.
    pub fn size_of(&self, name: &str) -> Result<u32, BtfError> {
        self.structs
            .get(name)
            .and_then(|at| u32_at(&self.data, at + 8))
            .ok_or_else(|| BtfError::Missing { name: name.to_owned(), member: "size".to_owned() })
    }

    /// Whether the kernel has a function or type of this kind and name.
    #[must_use]
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.id_of(kind, name).is_some()
    }

    /// Its type id; the first one's, when several have the name.
    #[must_use]
    pub fn id_of(&self, wanted: Kind, name: &str) -> Option<usize> {
        let is_wanted = |at: &usize| {
            u32_at(&self.data, at + 4).map(kind) == Some(wanted as u32)
                && u32_at(&self.data, *at).is_some_and(|offset| self.string(offset) == name.as_bytes())
        };
        Some(1 + self.types.iter().skip(1).position(is_wanted)?)
    }

    /// BTF in which only these have a name, each under its id in the kernel: what a loader needs that looks up ids by
    /// name, without its parsing the rest. What this kernel lacks is left out.
    #[must_use]
    pub fn only(&self, wanted: &[(Kind, String)]) -> Vec<u8> {
        /// `struct btf_header`, `include/uapi/linux/btf.h`
        const HEADER_BYTES: u32 = 24;
        let ids: Vec<Option<usize>> = wanted.iter().map(|(kind, name)| self.id_of(*kind, name)).collect();
        // Those after the last one that is wanted are not missed.
        let mut entries = vec![[0, KIND_FORWARD << 24, 0]; ids.iter().flatten().copied().max().unwrap_or(0)];
        let mut strings = vec![0];
        for ((kind, name), id) in wanted.iter().zip(ids) {
            let Some(entry) = id.and_then(|id| entries.get_mut(id - 1)) else { continue };
            *entry = [u32_of(strings.len()), (*kind as u32) << 24, 0];
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let types_bytes = u32_of(entries.len() * TYPE_BYTES);
        let mut data = Vec::with_capacity(HEADER_BYTES as usize + types_bytes as usize + strings.len());
        data.extend(MAGIC.to_le_bytes());
        data.extend([1, 0]);
        for field in [HEADER_BYTES, 0, types_bytes, types_bytes, u32_of(strings.len())] {
            data.extend(field.to_le_bytes());
        }
        data.extend(entries.iter().flatten().flat_map(|word| word.to_le_bytes()));
        data.extend(strings);
        data
    }

    /// Complete structs by name. Forward declarations are another kind; of duplicates the first one counts.
    fn index(&self) -> HashMap<String, usize> {
        let mut structs = HashMap::new();
        for at in self.types.iter().skip(1) {
            let Some(info) = u32_at(&self.data, at + 4) else { continue };
            if kind(info) != KIND_STRUCT || members(info) == 0 {
                continue;
            }
            let name = u32_at(&self.data, *at).map(|offset| self.string(offset)).unwrap_or_default();
            if let Ok(name) = std::str::from_utf8(name)
                && !name.is_empty()
            {
                structs.entry(name.to_owned()).or_insert(*at);
            }
        }
        structs
    }

    fn string(&self, offset: u32) -> &[u8] {
        let bytes = self.data.get(self.strings.saturating_add(offset as usize)..).unwrap_or_default();
        bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn member_bits(&self, at: usize, member: &str, nesting: usize) -> Option<u32> {
        let info = u32_at(&self.data, at + 4)?;
        let bitfields = info >> 31 == 1;
        for i in 0..members(info) {
            let entry = at + TYPE_BYTES + TYPE_BYTES * i;
            let raw = u32_at(&self.data, entry + 8)?;
            let bits = if bitfields { raw & 0x00ff_ffff } else { raw };
            let name = self.string(u32_at(&self.data, entry)?);
            if name == member.as_bytes() {
                return Some(bits);
            }
            if name.is_empty() && nesting > 0 {
                let inner = *self.types.get(u32_at(&self.data, entry + 4)? as usize)?;
                let inner_kind = kind(u32_at(&self.data, inner + 4)?);
                if (inner_kind == KIND_STRUCT || inner_kind == KIND_UNION)
                    && let Some(inner_bits) = self.member_bits(inner, member, nesting - 1)
                {
                    return bits.checked_add(inner_bits);
                }
            }
        }
        None
    }
}

/// `BTF_INFO_KIND`
const fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// `BTF_INFO_VLEN`
const fn members(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes that follow the `struct btf_type`, by kind.
fn tail_bytes(info: u32) -> Option<usize> {
    let n = members(info);
    Some(match kind(info) {
        1 | 14 | 17 => 4,          // INT, VAR, DECL_TAG
        3 => 12,                   // ARRAY
        4 | 5 | 15 | 19 => 12 * n, // STRUCT, UNION, DATASEC, ENUM64
        6 | 13 => 8 * n,           // ENUM, FUNC_PROTO
        2 | 7..=12 | 16 | 18 => 0, // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        _ => return None,
    })
}

/// Sizes here come from a file of megabytes.
fn u32_of(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    let bytes = data.get(offset..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    let bytes = data.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn running_kernel_knows_its_own_structs() {
        let btf = KernelBtf::of_running_kernel().unwrap();
        // `struct sock_common` begins so in every kernel; skc_dport stands in an anonymous struct in a union.
        assert_eq!(btf.offset_of("sock_common", "skc_daddr").unwrap(), 0);
        assert_eq!(btf.offset_of("sock_common", "skc_dport").unwrap(), 12);
        assert_eq!(btf.offset_of("eppoll_entry", "base").unwrap(), 8);
        let error = btf.offset_of("sock_common", "no_such_member").unwrap_err().to_string();
        assert_eq!(error, "this kernel's BTF has no sock_common.no_such_member");
    }

    #[test]
    fn what_is_taken_out_keeps_its_id() {
        let btf = KernelBtf::of_running_kernel().unwrap();
        let wanted = [
            (Kind::Typedef, "btf_trace_sched_waking".to_owned()),
            (Kind::Function, "no_such_function".to_owned()),
            (Kind::Function, "bpf_iter_task_file".to_owned()),
        ];
        let only = KernelBtf::parse(btf.only(&wanted)).unwrap();
        for (kind, name) in &wanted {
            assert_eq!(only.id_of(*kind, name), btf.id_of(*kind, name), "{name}");
        }
        assert!(
            btf.has(Kind::Typedef, "btf_trace_sched_waking") && !only.has(Kind::Function, "ep_poll_callback")
        );
    }

    proptest! {
        #[test]
        fn broken_btf_is_an_error_or_parses_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut data = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
            data.extend(bytes);
            if let Ok(btf) = KernelBtf::parse(data) {
                let _ = btf.offset_of("a", "b");
                let only = btf.only(&[(Kind::Function, "a".to_owned())]);
                prop_assert_eq!(KernelBtf::parse(only).unwrap().has(Kind::Function, "a"), btf.has(Kind::Function, "a"));
            }
        }
    }
}
