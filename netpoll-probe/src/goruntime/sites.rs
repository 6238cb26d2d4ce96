//! Where probes go in a binary, found by disassembly.
//!
//! Rules, and why (checked on builds of Go 1.18.10, 1.21.13, 1.24.13, 1.26.8 and 1.27.4 for amd64, and of the newest patch of 1.18 to
//! 1.27 for arm64: default, stripped, PIE, not optimized):
//! - Only instructions that the kernel emulates ([`Emulated`]): a single-stepped one costs 15 times as much on amd64, and a second
//!   exception on arm64.
//! - Never a function's entry when it has a stack check: after the stack has grown the prologue jumps back to the entry, and a
//!   probe there fires twice. Never an address that anything jumps back over, for the same reason.
//! - The start of a wait is the first emulated instruction after the stack check of `internal/poll.runtime_pollWait`, with
//!   its arguments still in registers ([`Abi`](super::code::Abi)): pd, mode, and g.
//! - Its end is the conditional jump after the call of `runtime.netpollblock` there: the result in a register, 1 = ready; g; and pd
//!   where the function keeps it: its argument's home (builds without optimization: perhaps a local variable).
//!
//! - Where waits are broken off is the first emulated instruction on the way from there when the result is false. It is met seldom, so
//!   it does without: a function that has none there is probed at start and end.
//!
//! `internal/poll.runtime_pollWait` cannot be inlined: `internal/poll` declares it without a body, and the runtime pushes the body by
//! linkname. `netpollblock` and `netpollready` can be (profile-guided builds do it), so they are the second opinion only.
//! Code that is not as expected is refused with its address; a wrong probe site would count wrong waits.
#![forbid(unsafe_code)]

use super::code::{
    CodeError, Condition, Effect, Emulated, FIRST_HOME_BYTES, Flow, FunctionCode, Instruction, Register,
};

/// The function in which goroutines wait.
pub const POLL_WAIT: &str = "internal/poll.runtime_pollWait";
/// Parks a goroutine in the poller (`runtime/netpoll.go`).
pub const NETPOLLBLOCK: &str = "runtime.netpollblock";
/// Makes the goroutines of a pollDesc runnable (`runtime/netpoll.go`).
pub const NETPOLLREADY: &str = "runtime.netpollready";

/// `runtime_pollWait(pd, mode)`: how many arguments must be intact at a site.
const POLL_WAIT_ARGUMENTS: usize = 2;
/// `netpollblock(pd, mode, waitio)`.
const NETPOLLBLOCK_ARGUMENTS: usize = 3;
/// `netpollready(toRun, pd, mode)`.
const NETPOLLREADY_ARGUMENTS: usize = 3;

/// The frame of `runtime_pollWait` is a few words; a greater number is damage.
const MAX_FRAME_BYTES: i64 = 1 << 16;

/// An instruction to put a uprobe on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The function it is in.
    pub function: String,
    /// Its address, as the linker gave it.
    pub address: u64,
    /// Bytes from the start of the function.
    pub offset: u64,
    /// Where it is in the file; uprobes are placed by this.
    pub file_offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The instruction in assembly, for people.
    pub text: String,
    /// How the kernel emulates it.
    pub emulated: Emulated,
}

/// The two sites in `internal/poll.runtime_pollWait`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollWaitSites {
    /// Start of a wait: pd, mode (`'r'` or `'w'`) and g in registers.
    pub start: Site,
    /// End of a park: the result, 1 = ready, and g in registers.
    pub end: Site,
    /// Where only waits pass that `netpollblock` ended with false (deadline, close), with g in its register; the stack pointer is that of
    /// `end`.
    pub broken_off: Result<Site, SiteError>,
    /// At `end`, the word at the stack pointer plus this is pd.
    pub end_pd_from_sp_bytes: u32,
    /// The same word's distance from the CFA (the stack pointer before the call of the function): that of the argument's home, 0 on
    /// amd64 and 8 on arm64, or negative in builds without optimization, where it may be a local variable.
    pub pd_from_cfa_bytes: i64,
}

/// Why there is no site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The code could not be disassembled.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// An instruction is not what every known compiler puts there.
    #[error("unexpected code at {address:#x} in {function}: {found}, expected {expected}")]
    Unexpected {
        /// The function.
        function: String,
        /// The instruction's address, as the linker gave it.
        address: u64,
        /// The instruction found.
        found: String,
        /// What was expected there.
        expected: &'static str,
    },
    /// An instruction that must be in the function is not.
    #[error("{function} has no {expected}")]
    Missing {
        /// The function.
        function: String,
        /// What was expected.
        expected: &'static str,
    },
    /// It is not clear where the function keeps pd.
    #[error("{function} does not keep pd in its frame at {address:#x}, of {frame_size_bytes:?} bytes")]
    PollDescHome {
        /// The function.
        function: String,
        /// The address of the end site.
        address: u64,
        /// The frame's size there by pclntab.
        frame_size_bytes: Option<i64>,
    },
}

/// The sites in `internal/poll.runtime_pollWait`. `netpollblock` is the address of `runtime.netpollblock`; `frame_size_bytes`
/// gives, for an address in the function, the frame's size there (pclntab's pcsp).
///
/// # Errors
/// When the code is not as expected.
pub fn poll_wait(
    code: &FunctionCode,
    netpollblock: u64,
    frame_size_bytes: impl Fn(u64) -> Option<i64>,
) -> Result<PollWaitSites, SiteError> {
    let instructions = code.instructions()?;
    let body = body_after_stack_check(code, &instructions)?;
    let start = first_emulated(code, &instructions, body, POLL_WAIT_ARGUMENTS)?;

    let expected = ["call of runtime.netpollblock", "one call of runtime.netpollblock only"];
    let (call_index, call) = only_call(code, body, netpollblock, expected)?;
    let end_instruction = branch_on_result(code, body.get(call_index + 1..).unwrap_or_default())?;
    refuse_jumps_over(code, &instructions, call.end(), end_instruction)?;
    let end = site(code, end_instruction, Emulated::ConditionalJump);
    let broken_off = on_false(code, &instructions, body, end_instruction);

    let frame_size_bytes = frame_size_bytes(end.address);
    let before_call = body.get(..call_index).unwrap_or_default();
    let slot = frame_size_bytes.and_then(|frame| poll_desc_slot(code, before_call, body, frame));
    match slot {
        Some((end_pd_from_sp_bytes, pd_from_cfa_bytes)) => {
            Ok(PollWaitSites { start, end, broken_off, end_pd_from_sp_bytes, pd_from_cfa_bytes })
        }
        None => Err(SiteError::PollDescHome {
            function: code.name().to_owned(),
            address: end.address,
            frame_size_bytes,
        }),
    }
}

/// The site at the start of `runtime.netpollblock`: pd, mode and g in registers.
///
/// # Errors
/// When the code is not as expected.
pub fn netpollblock(code: &FunctionCode) -> Result<Site, SiteError> {
    let instructions = code.instructions()?;
    let body = body_after_stack_check(code, &instructions)?;
    first_emulated(code, &instructions, body, NETPOLLBLOCK_ARGUMENTS)
}

/// The site at the start of `runtime.netpollready`: pd and mode (`'r'`, `'w'` or their sum) in the second and third argument's
/// registers. It has no stack check unless it was compiled without optimization.
///
/// # Errors
/// When the code is not as expected.
pub fn netpollready(code: &FunctionCode) -> Result<Site, SiteError> {
    let instructions = code.instructions()?;
    let body = match instructions.first() {
        Some(first) if begins_stack_check(code, first) => body_after_stack_check(code, &instructions)?,
        _ => &instructions,
    };
    first_emulated(code, &instructions, body, NETPOLLREADY_ARGUMENTS)
}

/// Whether a function's first instruction is that of a stack check.
fn begins_stack_check(code: &FunctionCode, first: &Instruction) -> bool {
    match first.effect {
        Effect::LoadsGuard => code.abi().loads_guard,
        Effect::TakesStackPointer | Effect::ComparesGuard => !code.abi().loads_guard,
        _ => false,
    }
}

/// What lies between the stack check and the code that grows the stack, at the function's end. The check loads the guard where the
/// machine cannot compare with memory, takes the stack pointer where it must be computed, compares, and jumps.
fn body_after_stack_check<'a>(
    code: &FunctionCode,
    instructions: &'a [Instruction],
) -> Result<&'a [Instruction], SiteError> {
    let missing = || SiteError::Missing { function: code.name().to_owned(), expected: "stack check" };
    let mut check = instructions.iter().enumerate().peekable();
    let mut next = |expected: &[Effect]| {
        check.next_if(|(_, instruction)| expected.contains(&instruction.effect)).is_some()
    };
    let loads = next(&[Effect::LoadsGuard]);
    next(&[Effect::TakesStackPointer]);
    let compares = next(&[Effect::ComparesGuard]);
    let (index, branch) = check.next().ok_or_else(missing)?;
    if loads != code.abi().loads_guard || !compares {
        return Err(unexpected(code, branch, "the stack check"));
    }
    match branch.flow {
        Flow::Jump { target, condition: Condition::AtMost } => {
            let grow = instructions.binary_search_by_key(&target, |instruction| instruction.address);
            grow.ok().filter(|grow| *grow > index).and_then(|grow| instructions.get(index + 1..grow))
        }
        _ => None,
    }
    .ok_or_else(|| unexpected(code, branch, "a jump to the growing of the stack"))
}

/// The one call of the function at `target`, and where it stands among the instructions; `expected` says of what there is none, and of
/// what there are several.
pub(super) fn only_call<'a>(
    code: &FunctionCode,
    instructions: &'a [Instruction],
    target: u64,
    [one, only]: [&'static str; 2],
) -> Result<(usize, &'a Instruction), SiteError> {
    let mut calls =
        instructions.iter().enumerate().filter(|(_, instruction)| instruction.flow == Flow::Call { target });
    let missing = || SiteError::Missing { function: code.name().to_owned(), expected: one };
    let call = calls.next().ok_or_else(missing)?;
    match calls.next() {
        Some((_, second)) => Err(unexpected(code, second, only)),
        None => Ok(call),
    }
}

/// The first emulated instruction of `body` that runs exactly once a call, with the first so many arguments and g not yet overwritten.
pub(super) fn first_emulated(
    code: &FunctionCode,
    all: &[Instruction],
    body: &[Instruction],
    arguments: usize,
) -> Result<Site, SiteError> {
    let abi = code.abi();
    let arguments = || abi.arguments.into_iter().take(arguments).chain([abi.g]);
    for instruction in body {
        if let Some(emulated) = instruction.emulated {
            let from = body.first().map_or(code.start(), |first| first.address);
            refuse_jumps_over(code, all, from, instruction)?;
            return Ok(site(code, instruction, emulated));
        }
        if instruction.flow != Flow::Next {
            return Err(unexpected(code, instruction, "an emulated instruction before any jump"));
        }
        if arguments().any(|argument| instruction.writes.contains(argument)) {
            return Err(unexpected(
                code,
                instruction,
                "an emulated instruction before an argument is overwritten",
            ));
        }
    }
    Err(SiteError::Missing { function: code.name().to_owned(), expected: "emulated instruction" })
}

/// Fails if a jump of the function lands between the address `from` and the instruction `to`, both included: then `to` would run
/// at other times too.
pub(super) fn refuse_jumps_over(
    code: &FunctionCode,
    all: &[Instruction],
    from: u64,
    to: &Instruction,
) -> Result<(), SiteError> {
    let range = from..=to.address;
    let jumps_in = all
        .iter()
        .find(|instruction| instruction.jump_target().is_some_and(|target| range.contains(&target)));
    match jumps_in {
        Some(jump) => Err(unexpected(code, jump, "no jump onto or over a probe site")),
        None => Ok(()),
    }
}

/// The conditional jump on a call's result, after a comparison of it where the jump does not compare by itself, with nops and
/// copies of the result to the stack before it.
fn branch_on_result<'a>(
    code: &FunctionCode,
    after_call: &'a [Instruction],
) -> Result<&'a Instruction, SiteError> {
    let [result, ..] = code.abi().arguments;
    let mut tested = false;
    for instruction in after_call {
        match (instruction.effect, instruction.flow) {
            (Effect::Nothing, _) => {}
            (Effect::TestsResult, _) => tested = true,
            (_, Flow::Jump { condition: Condition::Equal | Condition::NotEqual, .. }) if tested => {
                return Ok(instruction);
            }
            (_, Flow::Jump { condition: Condition::ResultFalse | Condition::ResultTrue, .. }) => {
                return Ok(instruction);
            }
            (Effect::Other, Flow::Next) if copies_to_stack(instruction, result) => {}
            _ => return Err(unexpected(code, instruction, "a test of netpollblock's result and a jump")),
        }
    }
    Err(SiteError::Missing {
        function: code.name().to_owned(),
        expected: "jump after the call of runtime.netpollblock",
    })
}

/// The first emulated instruction after `branch` where the result is false: the next ones, since the compiler lets the jump go when it is
/// true (`jne`, `tbnz`, `cbnz`).
fn on_false(
    code: &FunctionCode,
    all: &[Instruction],
    body: &[Instruction],
    branch: &Instruction,
) -> Result<Site, SiteError> {
    if !matches!(branch.flow, Flow::Jump { condition: Condition::NotEqual | Condition::ResultTrue, .. }) {
        return Err(unexpected(code, branch, "a jump when netpollblock returned true"));
    }
    let after = body.partition_point(|instruction| instruction.address <= branch.address);
    first_emulated(code, all, body.get(after..).unwrap_or_default(), 0)
}

/// Whether the low byte of `register` goes to the stack, and nothing else happens.
fn copies_to_stack(instruction: &Instruction, register: Register) -> bool {
    matches!(instruction.stores, [Some(store), None] if store.register == Some(register) && store.bytes == 1)
        && instruction.writes.is_empty()
}

/// Where pd is kept: the one slot of the frame that the first argument's register, unchanged since the start of the body, is stored
/// to before the call, and that nothing else of the body is stored to. Its distance from the stack pointer and from the CFA. Of the
/// words above the frame only the home of the first argument will do.
fn poll_desc_slot(
    code: &FunctionCode,
    before_call: &[Instruction],
    body: &[Instruction],
    frame_size_bytes: i64,
) -> Option<(u32, i64)> {
    /// Of the pointer.
    const BYTES: i64 = 8;
    let abi = code.abi();
    let [pd, ..] = abi.arguments;
    let frame = Some(frame_size_bytes).filter(|size| (0..=MAX_FRAME_BYTES).contains(size))?;
    let stores = |instructions: &[Instruction]| {
        instructions.iter().flat_map(|instruction| instruction.stores).flatten().collect::<Vec<_>>()
    };
    let unchanged = before_call.iter().take_while(|instruction| !instruction.writes.contains(pd)).count();
    let is_pd = |register, bytes: u16| register == Some(pd) && i64::from(bytes) == BYTES;
    let mut slots: Vec<i64> = stores(before_call.get(..unchanged)?)
        .iter()
        .filter(|store| is_pd(store.register, store.bytes))
        .map(|store| store.slot)
        .collect();
    slots.dedup();
    let [slot] = slots[..] else { return None };
    let variables = i64::from(abi.frame_low_bytes)..=frame - i64::from(abi.frame_high_bytes) - BYTES;
    let in_frame = slot == frame + FIRST_HOME_BYTES || variables.contains(&slot);
    let only_pd = stores(body)
        .iter()
        .filter(|store| store.slot < slot + BYTES && slot < store.slot.saturating_add(store.bytes.into()))
        .all(|store| store.slot == slot && is_pd(store.register, store.bytes));
    let cfa = frame + i64::from(abi.call_pushes_bytes);
    (in_frame && only_pd).then(|| Some((u32::try_from(slot).ok()?, slot - cfa))).flatten()
}

pub(super) fn site(code: &FunctionCode, instruction: &Instruction, emulated: Emulated) -> Site {
    let offset = instruction.address.saturating_sub(code.start());
    Site {
        function: code.name().to_owned(),
        address: instruction.address,
        offset,
        file_offset: code.file_offset().saturating_add(offset),
        bytes: code.bytes_at(instruction.address, instruction.length).to_vec(),
        text: code.text(instruction),
        emulated,
    }
}

pub(super) fn unexpected(
    code: &FunctionCode,
    instruction: &Instruction,
    expected: &'static str,
) -> SiteError {
    SiteError::Unexpected {
        function: code.name().to_owned(),
        address: instruction.address,
        found: code.text(instruction),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{gobin::Machine, goruntime::testdata::load};

    const POLL_WAIT_1_18: &str = include_str!("testdata/runtime_pollWait-go1.18.10.hex");
    const POLL_WAIT_1_26: &str = include_str!("testdata/runtime_pollWait-go1.26.8.hex");
    const POLL_WAIT_1_26_UNOPTIMIZED: &str = include_str!("testdata/runtime_pollWait-go1.26.8-noopt.hex");
    const POLL_WAIT_1_21_UNOPTIMIZED: &str = include_str!("testdata/runtime_pollWait-go1.21.13-noopt.hex");
    const NETPOLLBLOCK_1_18: &str = include_str!("testdata/netpollblock-go1.18.10.hex");
    const NETPOLLBLOCK_1_26: &str = include_str!("testdata/netpollblock-go1.26.8.hex");
    const NETPOLLREADY_1_18: &str = include_str!("testdata/netpollready-go1.18.10.hex");
    const NETPOLLREADY_1_26: &str = include_str!("testdata/netpollready-go1.26.8.hex");

    const ARM64_POLL_WAIT_1_18: &str = include_str!("testdata/runtime_pollWait-go1.18.10-arm64.hex");
    const ARM64_POLL_WAIT_1_26: &str = include_str!("testdata/runtime_pollWait-go1.26.11-arm64.hex");
    const ARM64_POLL_WAIT_1_21_UNOPTIMIZED: &str =
        include_str!("testdata/runtime_pollWait-go1.21.13-arm64-noopt.hex");
    const ARM64_POLL_WAIT_1_26_UNOPTIMIZED: &str =
        include_str!("testdata/runtime_pollWait-go1.26.11-arm64-noopt.hex");
    const ARM64_NETPOLLBLOCK_1_18: &str = include_str!("testdata/netpollblock-go1.18.10-arm64.hex");
    const ARM64_NETPOLLBLOCK_1_26: &str = include_str!("testdata/netpollblock-go1.26.11-arm64.hex");
    const ARM64_NETPOLLREADY_1_18: &str = include_str!("testdata/netpollready-go1.18.10-arm64.hex");
    const ARM64_NETPOLLREADY_1_26: &str = include_str!("testdata/netpollready-go1.26.11-arm64.hex");

    fn poll_wait_of(file: &str, frame: i64) -> Result<PollWaitSites, SiteError> {
        let (code, netpollblock) = load(file);
        poll_wait(&code, netpollblock, |_| Some(frame))
    }

    fn bytes_of(code: &FunctionCode) -> Vec<u8> {
        (0..).map_while(|offset| code.bytes_at(code.start() + offset, 1).first().copied()).collect()
    }

    /// The same with the bytes at `offset` replaced.
    fn patched(file: &str, offset: usize, patch: &[u8]) -> Result<PollWaitSites, SiteError> {
        let (code, netpollblock) = load(file);
        let mut bytes = bytes_of(&code);
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
        poll_wait(&FunctionCode::new("f", code.machine(), code.start(), 0x400, bytes), netpollblock, |_| {
            Some(0x18)
        })
    }

    fn summary(site: &Site) -> (u64, &str, Emulated) {
        (site.offset, site.text.split(' ').next().unwrap(), site.emulated)
    }

    #[test]
    fn finds_the_sites_of_poll_wait() {
        let sites = poll_wait_of(POLL_WAIT_1_18, 0x18).unwrap();
        assert_eq!(summary(&sites.start), (24, "nop", Emulated::Nop));
        assert_eq!(summary(&sites.end), (139, "jne", Emulated::ConditionalJump));
        assert_eq!(sites.end_pd_from_sp_bytes, 0x20);
        let sites = poll_wait_of(POLL_WAIT_1_26, 0x18).unwrap();
        assert_eq!(summary(&sites.start), (10, "push", Emulated::Push));
        assert_eq!(summary(&sites.end), (135, "jne", Emulated::ConditionalJump));
        assert_eq!((sites.start.bytes, sites.end.bytes), (vec![0x55], vec![0x75, 0x69]));
        assert_eq!(sites.end_pd_from_sp_bytes, 0x20);
        // Not optimized: a long nop stands between call and test.
        let sites = poll_wait_of(POLL_WAIT_1_26_UNOPTIMIZED, 0x18).unwrap();
        assert_eq!(summary(&sites.start), (6, "push", Emulated::Push));
        assert_eq!(summary(&sites.end), (0x42, "jne", Emulated::ConditionalJump));
        assert_eq!((sites.end_pd_from_sp_bytes, sites.pd_from_cfa_bytes), (0x20, 0));
        let sites = poll_wait_of(POLL_WAIT_1_21_UNOPTIMIZED, 0x20).unwrap();
        assert_eq!((sites.end_pd_from_sp_bytes, sites.pd_from_cfa_bytes), (0x10, -0x18));
    }

    #[test]
    fn finds_where_waits_are_broken_off() {
        let of = |file, frame| {
            let sites = poll_wait_of(file, frame).unwrap();
            sites.broken_off.map(|site| (site.offset - sites.end.offset, site.emulated))
        };
        assert_eq!(of(POLL_WAIT_1_18, 0x18), Ok((2, Emulated::Nop)));
        assert_eq!(of(POLL_WAIT_1_26, 0x18), Ok((2, Emulated::Nop)));
        // Not optimized: pd and mode are fetched, and netpollcheckerr is called.
        assert_eq!(of(POLL_WAIT_1_21_UNOPTIMIZED, 0x20), Ok((12, Emulated::Call)));
        assert_eq!(of(POLL_WAIT_1_26_UNOPTIMIZED, 0x18), Ok((12, Emulated::Call)));
        assert_eq!(of(ARM64_POLL_WAIT_1_18, 48), Ok((20, Emulated::ConditionalJump)));
        assert_eq!(of(ARM64_POLL_WAIT_1_26, 48), Ok((20, Emulated::ConditionalJump)));
        assert_eq!(of(ARM64_POLL_WAIT_1_26_UNOPTIMIZED, 32), Ok((12, Emulated::Call)));
        // je in place of jne: the result is true where it goes on.
        let other = patched(POLL_WAIT_1_26, 0x87, &[0x74]).unwrap();
        assert!(matches!(other.broken_off, Err(SiteError::Unexpected { .. })));
        // A jump onto the site: jmp at +22h to +89h.
        let other = patched(POLL_WAIT_1_26, 0x22, &[0xeb, 0x65]).unwrap();
        assert!(matches!(other.broken_off, Err(SiteError::Unexpected { .. })));
    }

    #[test]
    fn finds_the_sites_of_the_second_opinion() {
        assert_eq!(
            summary(&netpollblock(&load(NETPOLLBLOCK_1_18).0).unwrap()),
            (35, "jne", Emulated::ConditionalJump)
        );
        assert_eq!(summary(&netpollblock(&load(NETPOLLBLOCK_1_26).0).unwrap()), (10, "push", Emulated::Push));
        assert_eq!(
            summary(&netpollready(&load(NETPOLLREADY_1_18).0).unwrap()),
            (3, "je", Emulated::ConditionalJump)
        );
        assert_eq!(summary(&netpollready(&load(NETPOLLREADY_1_26).0).unwrap()), (0, "push", Emulated::Push));
    }

    #[test]
    fn finds_the_sites_on_arm64() {
        let sites = poll_wait_of(ARM64_POLL_WAIT_1_18, 48).unwrap();
        assert_eq!(summary(&sites.start), (44, "tbz", Emulated::ConditionalJump));
        assert_eq!(summary(&sites.end), (164, "tbnz", Emulated::ConditionalJump));
        assert_eq!((sites.end_pd_from_sp_bytes, sites.pd_from_cfa_bytes), (56, 8));
        let sites = poll_wait_of(ARM64_POLL_WAIT_1_26, 48).unwrap();
        assert_eq!(summary(&sites.start), (40, "tbz", Emulated::ConditionalJump));
        assert_eq!(summary(&sites.end), (160, "tbnz", Emulated::ConditionalJump));
        assert_eq!(sites.end.bytes.len(), 4);
        assert_eq!((sites.end_pd_from_sp_bytes, sites.pd_from_cfa_bytes), (56, 8));
        // Not optimized: netpollcheckerr is called, and pd may be kept in a variable.
        let sites = poll_wait_of(ARM64_POLL_WAIT_1_26_UNOPTIMIZED, 32).unwrap();
        assert_eq!(summary(&sites.start), (32, "bl", Emulated::Call));
        assert_eq!(summary(&sites.end), (72, "tbnz", Emulated::ConditionalJump));
        assert_eq!((sites.end_pd_from_sp_bytes, sites.pd_from_cfa_bytes), (40, 8));
        let sites = poll_wait_of(ARM64_POLL_WAIT_1_21_UNOPTIMIZED, 48).unwrap();
        assert_eq!((sites.end_pd_from_sp_bytes, sites.pd_from_cfa_bytes), (32, -16));

        let block = |file| netpollblock(&load(file).0).map(|site| (site.offset, site.emulated));
        assert_eq!(block(ARM64_NETPOLLBLOCK_1_18), Ok((40, Emulated::ConditionalJump)));
        assert_eq!(block(ARM64_NETPOLLBLOCK_1_26), Ok((36, Emulated::ConditionalJump)));
        let ready = |file| netpollready(&load(file).0).map(|site| (site.offset, site.emulated));
        assert_eq!(ready(ARM64_NETPOLLREADY_1_18), Ok((4, Emulated::ConditionalJump)));
        assert_eq!(ready(ARM64_NETPOLLREADY_1_26), Ok((20, Emulated::ConditionalJump)));
    }

    #[test]
    fn refuses_changed_code_on_arm64() {
        let (code, target) = load(ARM64_POLL_WAIT_1_26);
        let changed = |offset: usize, word: u32| {
            let mut bytes = code.bytes().to_vec();
            bytes[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
            poll_wait(&FunctionCode::new("f", Machine::Arm64, code.start(), 0x400, bytes), target, |_| {
                Some(48)
            })
        };
        let unexpected = |offset, word| match changed(offset, word) {
            Err(SiteError::Unexpected { address, .. }) => address - code.start(),
            other => panic!("{other:?}"),
        };
        // The stack check: ldr x16, [x27, #16]; cmp sp, x15; b.lo.
        assert_eq!(unexpected(0, 0xf940_0b70), 0);
        assert_eq!(unexpected(4, 0xeb2f_63ff), 4);
        assert_eq!(unexpected(8, 0x5400_08e3), 8);
        // In the body: mov x0, x2; mov x28, x2; ret; a jump back to its start.
        assert_eq!(unexpected(32, 0xaa02_03e0), 32);
        assert_eq!(unexpected(32, 0xaa02_03fc), 32);
        assert_eq!(unexpected(32, 0xd65f_03c0), 32);
        assert_eq!(unexpected(48, 0x17ff_fff7), 48);
        // After the call: tbnz w0, #1; tbnz w1, #0; b.eq without a comparison.
        for word in [0x3708_03a0, 0x3700_03a1, 0x5400_03a0] {
            assert_eq!(unexpected(160, word), 160);
        }
        // pd's home: str x2, [sp, #56]; another store to a part of it: str w2, [sp, #60].
        let home = code.bytes().chunks(4).position(|word| word == 0xf900_1fe0u32.to_le_bytes()).unwrap() * 4;
        assert!(matches!(changed(home, 0xf900_1fe2), Err(SiteError::PollDescHome { .. })));
        assert!(matches!(changed(home + 4, 0xb900_3fe2), Err(SiteError::PollDescHome { .. })));
        for frame in [40, 56, -8, i64::MAX] {
            let sites = poll_wait(&code, target, |_| Some(frame));
            assert!(matches!(sites, Err(SiteError::PollDescHome { .. })), "{frame}");
        }
    }

    #[test]
    fn refuses_a_frame_that_does_not_hold_pd() {
        for frame in [0x10, 0x20, -8, i64::MAX] {
            assert!(
                matches!(poll_wait_of(POLL_WAIT_1_26, frame), Err(SiteError::PollDescHome { .. })),
                "{frame}"
            );
        }
        let (code, netpollblock) = load(POLL_WAIT_1_26);
        assert!(matches!(poll_wait(&code, netpollblock, |_| None), Err(SiteError::PollDescHome { .. })));
        // mov [rsp+20h], rcx in place of rax.
        assert!(matches!(
            patched(POLL_WAIT_1_26, 0x65, &[0x48, 0x89, 0x4c]),
            Err(SiteError::PollDescHome { .. })
        ));
    }

    #[test]
    fn refuses_changed_code() {
        let unexpected = |offset, patch: &[u8]| match patched(POLL_WAIT_1_26, offset, patch) {
            Err(SiteError::Unexpected { address, .. }) => address - 0x48_0300,
            other => panic!("{other:?}"),
        };
        // The stack check: cmp rsp, [r13+10h]. Its branch: jb.
        assert_eq!(unexpected(0, &[0x49, 0x3b, 0x65]), 0);
        assert_eq!(unexpected(4, &[0x0f, 0x82]), 4);
        // The first instruction of the body: mov eax, ebx (with a nop behind it), ret.
        assert_eq!(unexpected(10, &[0x89, 0xd8, 0x90, 0x90]), 10);
        assert_eq!(unexpected(10, &[0xc3]), 10);
        // After the call: test cl, cl; jb.
        assert_eq!(unexpected(0x85, &[0x84, 0xc9]), 0x85);
        assert_eq!(unexpected(0x87, &[0x72]), 0x87);
        // A jump onto the end site: jmp at +22h to +87h.
        assert_eq!(unexpected(0x22, &[0xeb, 0x63]), 0x22);
        // A jump back to the body's start: jmp at +22h to +0ah.
        assert_eq!(unexpected(0x22, &[0xeb, 0xe6]), 0x22);
        // The call goes elsewhere.
        assert!(matches!(patched(POLL_WAIT_1_26, 0x81, &[0]), Err(SiteError::Missing { .. })));
    }

    proptest! {
        #[test]
        fn never_panics_on_other_code(
            file in prop::sample::select(vec![
                POLL_WAIT_1_18, POLL_WAIT_1_26, NETPOLLBLOCK_1_26, NETPOLLREADY_1_18,
                ARM64_POLL_WAIT_1_18, ARM64_POLL_WAIT_1_26, ARM64_NETPOLLBLOCK_1_26, ARM64_NETPOLLREADY_1_18,
            ]),
            cut in 0..400usize,
            changes in prop::collection::vec((0..400usize, any::<u8>()), 0..8),
            start in prop::sample::select(vec![0x48_0300, 0, u64::MAX - 16]),
            frame: i64,
        ) {
            let (code, target) = load(file);
            let mut bytes = bytes_of(&code);
            for (at, byte) in changes {
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            bytes.truncate(cut);
            let code = FunctionCode::new("f", code.machine(), start, 0x400, bytes);
            let _ = netpollblock(&code);
            let _ = netpollready(&code);
            if let Ok(sites) = poll_wait(&code, target, |_| Some(frame)) {
                let cfa = frame + i64::from(code.abi().call_pushes_bytes);
                prop_assert_eq!(i64::from(sites.end_pd_from_sp_bytes), cfa + sites.pd_from_cfa_bytes);
                prop_assert!(sites.start.address < sites.end.address);
            }
        }
    }
}
