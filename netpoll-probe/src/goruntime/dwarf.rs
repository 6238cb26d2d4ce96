//! Offsets and constants of the runtime out of a binary's own DWARF.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::{
    binary::Error,
    constants::DWARF_CONSTANTS,
    layout::LayoutError,
    offsets::{G, M, Offsets, P, PollDesc},
};
use crate::gobin::{GoBinary, StructLayout};

/// The structs whose offsets are used.
const STRUCTS: [&str; 6] =
    ["runtime.g", "runtime.gobuf", "runtime.stack", "runtime.m", "runtime.p", "runtime.pollDesc"];

/// All offsets; `None` when the binary has no DWARF, or only that of C code.
///
/// # Errors
/// When the DWARF cannot be read, or describes `runtime.g` but not everything.
pub fn offsets(binary: &GoBinary) -> Result<Option<Offsets>, Error> {
    match binary.struct_layouts(&STRUCTS)? {
        Some(structs) if structs.contains_key("runtime.g") => Ok(Some(read(&Structs(structs))?)),
        _ => Ok(None),
    }
}

/// Fails unless the constants that are the same in all known versions are so in this binary.
///
/// # Errors
/// [`LayoutError::Constant`]; when the DWARF cannot be read.
pub fn check_constants(binary: &GoBinary) -> Result<(), Error> {
    let names: Vec<&str> = DWARF_CONSTANTS.iter().map(|(name, _)| *name).collect();
    let found = binary.constants(&names)?.unwrap_or_default();
    for (name, expected) in DWARF_CONSTANTS {
        let found = found.get(*name).copied();
        if found != Some(*expected) {
            return Err(LayoutError::Constant { name, found, expected: *expected }.into());
        }
    }
    Ok(())
}

fn read(structs: &Structs) -> Result<Offsets, LayoutError> {
    let g = |field| structs.offset("runtime.g", field);
    let m = |field| structs.offset("runtime.m", field);
    let p = |field| structs.offset("runtime.p", field);
    let poll_desc = |field| structs.offset("runtime.pollDesc", field);
    let sched = |field| Ok(g("sched")? + structs.offset("runtime.gobuf", field)?);
    let stack = |field| Ok(g("stack")? + structs.offset("runtime.stack", field)?);
    Ok(Offsets {
        g: G {
            size: structs.size("runtime.g")?,
            stack_lo: stack("lo")?,
            stack_hi: stack("hi")?,
            m: g("m")?,
            sched_sp: sched("sp")?,
            sched_pc: sched("pc")?,
            sched_bp: sched("bp")?,
            syscall_sp: g("syscallsp")?,
            syscall_pc: g("syscallpc")?,
            param: g("param")?,
            atomic_status: g("atomicstatus")?,
            goid: g("goid")?,
            wait_since: g("waitsince")?,
            wait_reason: g("waitreason")?,
            tracking_seq: g("trackingSeq")?,
            gopc: g("gopc")?,
            start_pc: g("startpc")?,
            labels: g("labels")?,
        },
        m: M {
            g0: m("g0")?,
            procid: m("procid")?,
            curg: m("curg")?,
            p: m("p")?,
            syscall_tick: m("syscalltick")?,
        },
        p: P {
            id: p("id")?,
            status: p("status")?,
            sched_tick: p("schedtick")?,
            syscall_tick: p("syscalltick")?,
            m: p("m")?,
        },
        poll_desc: PollDesc {
            size: structs.size("runtime.pollDesc")?,
            fd: poll_desc("fd")?,
            fdseq: poll_desc("fdseq").ok(),
            atomic_info: poll_desc("atomicInfo")?,
            rg: poll_desc("rg")?,
            wg: poll_desc("wg")?,
            rd: poll_desc("rd")?,
            wd: poll_desc("wd")?,
        },
    })
}

struct Structs(BTreeMap<String, StructLayout>);

impl Structs {
    fn size(&self, name: &str) -> Result<u32, LayoutError> {
        let size = self.0.get(name).and_then(|layout| u32::try_from(layout.size_bytes).ok());
        size.ok_or_else(|| LayoutError::NoField { field: name.to_owned() })
    }

    fn offset(&self, name: &str, field: &str) -> Result<u32, LayoutError> {
        let member = self.0.get(name).and_then(|layout| layout.members.get(field));
        let offset = member.and_then(|member| u32::try_from(member.offset_bytes).ok());
        // No struct of the runtime is near this size; a greater one would overflow sums.
        offset
            .filter(|offset| *offset < 1 << 24)
            .ok_or_else(|| LayoutError::NoField { field: format!("{name}.{field}") })
    }
}
