//! Where a program calls the C library's resolver, whose waits the netpoller does not see.
//!
//! `net` asks it when cgo is linked in and the system's configuration wants it (`net/conf.go`), by functions that cmd/cgo writes: each
//! calls `runtime.cgocall` once and looks at errno after it. They are ABI0, begin with a load of g, and are never inlined. Checked on
//! the newest patch of Go 1.18 to 1.27 for amd64, also as PIE.
#![forbid(unsafe_code)]

use super::{
    code::FunctionCode,
    sites::{Site, SiteError, first_emulated, only_call, refuse_jumps_over, site, unexpected},
};

/// The calls that wait for a server: of names, of addresses (`net/cgo_unix.go`), and of aliases from Go 1.20 on
/// (`net/cgo_unix_cgo_res.go`).
pub const CALLS: [&str; 3] = ["net._C2func_getaddrinfo", "net._C2func_getnameinfo", "net._C2func_res_search"];
/// Runs C code on the thread's system stack (`runtime/cgocall.go`).
pub const CGOCALL: &str = "runtime.cgocall";

/// After the call only g is needed.
const NO_ARGUMENTS: usize = 0;

/// The two sites around one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSites {
    /// The call of `runtime.cgocall`: g in its register.
    pub start: Site,
    /// The first emulated instruction after it: likewise.
    pub end: Site,
}

/// The sites in one of [`CALLS`]. `cgocall` is the address of `runtime.cgocall`.
///
/// # Errors
/// When the code is not as expected.
pub fn sites(code: &FunctionCode, cgocall: u64) -> Result<ResolverSites, SiteError> {
    let instructions = code.instructions()?;
    let expected = ["call of runtime.cgocall", "one call of runtime.cgocall only"];
    let (index, call) = only_call(code, &instructions, cgocall, expected)?;
    let emulated = call.emulated.ok_or_else(|| unexpected(code, call, "a call that is emulated"))?;
    refuse_jumps_over(code, &instructions, call.address, call)?;
    let after = instructions.get(index + 1..).unwrap_or_default();
    let end = first_emulated(code, &instructions, after, NO_ARGUMENTS)?;
    Ok(ResolverSites { start: site(code, call, emulated), end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goruntime::{
        code::{Emulated, Flow, Instruction},
        testdata::load,
    };

    const GETADDRINFO_1_18_PIE: &str = include_str!("testdata/getaddrinfo-go1.18.10-pie.hex");
    const GETADDRINFO_1_26: &str = include_str!("testdata/getaddrinfo-go1.26.8.hex");

    fn sites_of(file: &str) -> Result<ResolverSites, SiteError> {
        let (code, cgocall) = load(file);
        sites(&code, cgocall)
    }

    #[test]
    fn finds_the_call_and_the_jump_after_it() {
        for (file, call, jump) in [(GETADDRINFO_1_18_PIE, 85, 92), (GETADDRINFO_1_26, 75, 82)] {
            let ResolverSites { start, end } = sites_of(file).unwrap();
            assert_eq!((start.offset, start.emulated), (call, Emulated::Call));
            assert_eq!((end.offset, end.emulated), (jump, Emulated::ConditionalJump));
        }
    }

    #[test]
    fn refuses_other_code() {
        let (code, cgocall) = load(GETADDRINFO_1_26);
        let missing = sites(&code, cgocall + 1).unwrap_err().to_string();
        assert_eq!(missing, "f has no call of runtime.cgocall");
        // runtime.cgoUse is called once for each argument.
        let instructions = code.instructions().unwrap();
        let call_of = |instruction: &Instruction| match instruction.flow {
            Flow::Call { target } => Some(target),
            _ => None,
        };
        let mut targets: Vec<u64> = instructions.iter().filter_map(call_of).collect();
        targets.sort_unstable();
        let cgo_use = targets.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0];
        let twice = sites(&code, cgo_use).unwrap_err().to_string();
        assert!(twice.contains("one call of runtime.cgocall only"), "{twice}");
        // Nothing but a return after the call.
        let call = instructions.iter().find(|instruction| call_of(instruction) == Some(cgocall)).unwrap();
        let mut bytes =
            code.bytes_at(code.start(), usize::try_from(call.end() - code.start()).unwrap()).to_vec();
        bytes.push(0xc3);
        let cut = FunctionCode::new("f", code.machine(), code.start(), 0x400, bytes);
        assert!(sites(&cut, cgocall).unwrap_err().to_string().contains("before any jump"));
    }
}
