//! Where probes go in a binary, found by disassembly.
//!
//! Rules, and why (checked on builds of Go 1.18.10, 1.21.13, 1.24.13, 1.26.8 and 1.27.4: default, stripped, stripped PIE, not optimized):
//! - Only instructions that the kernel emulates ([`Emulated`]): a single-stepped one costs 15 times as much.
//! - Never a function's entry when it has a stack check: after the stack has grown the prologue jumps back to the entry, and a
//!   probe there fires twice. Never an address that anything jumps back over, for the same reason.
//! - The start of a wait is the first emulated instruction after the stack check of `internal/poll.runtime_pollWait`, with
//!   its arguments still in registers: RAX pd, RBX mode, R14 g (ABIInternal, cmd/compile/abi-internal.md).
//! - Its end is the conditional jump after the call of `runtime.netpollblock` there: AL 1 = ready, R14 g, and pd where the
//!   function keeps it: its argument's home, the word at CFA+0 (unoptimized builds up to 1.21: a local variable).
//!
//! `internal/poll.runtime_pollWait` cannot be inlined: `internal/poll` declares it without a body, and the runtime pushes the body by
//! linkname. `netpollblock` and `netpollready` can be (profile-guided builds do it), so they are the second opinion only.
//! Code that is not as expected is refused with its address; a wrong probe site would count wrong waits.
#![forbid(unsafe_code)]

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::x86::{CodeError, Emulated, FunctionCode, Writes, text};

/// The function in which goroutines wait.
pub const POLL_WAIT: &str = "internal/poll.runtime_pollWait";
/// Parks a goroutine in the poller (`runtime/netpoll.go`).
pub const NETPOLLBLOCK: &str = "runtime.netpollblock";
/// Makes the goroutines of a pollDesc runnable (`runtime/netpoll.go`).
pub const NETPOLLREADY: &str = "runtime.netpollready";

/// ABIInternal on amd64: pd and mode of `runtime_pollWait` and `netpollblock`, and the current g.
const POLL_WAIT_ARGUMENTS: [Register; 3] = [Register::RAX, Register::RBX, Register::R14];
/// `netpollblock(pd, mode, waitio)` and g.
const NETPOLLBLOCK_ARGUMENTS: [Register; 4] = [Register::RAX, Register::RBX, Register::RCX, Register::R14];
/// `netpollready(toRun, pd, mode)` and g.
const NETPOLLREADY_ARGUMENTS: [Register; 4] = [Register::RAX, Register::RBX, Register::RCX, Register::R14];

/// The frame of `runtime_pollWait` is a few words; a greater number is damage.
const MAX_FRAME_BYTES: u64 = 1 << 16;

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
    /// The instruction in Intel syntax, for people.
    pub text: String,
    /// How the kernel emulates it.
    pub emulated: Emulated,
}

/// The two sites in `internal/poll.runtime_pollWait`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollWaitSites {
    /// Start of a wait: RAX pd, RBX mode (`'r'` or `'w'`), R14 g.
    pub start: Site,
    /// End of a park: AL 1 = ready, R14 g.
    pub end: Site,
    /// At `end`, the word at RSP plus this is pd.
    pub end_pd_from_sp_bytes: u32,
    /// The same word's distance from the CFA (the stack pointer before the call of the function): 0, the argument's home, or
    /// negative in builds without optimization, where it may be a local variable.
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
/// gives, for an address in the function, the distance from the stack pointer to the return address (pclntab's pcsp).
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
    let start = first_emulated(code, &instructions, body, &POLL_WAIT_ARGUMENTS)?;

    let mut calls = body.iter().enumerate().filter(|(_, instruction)| {
        instruction.is_call_near() && instruction.near_branch_target() == netpollblock
    });
    let missing =
        || SiteError::Missing { function: code.name().to_owned(), expected: "call of runtime.netpollblock" };
    let (call_index, call) = calls.next().ok_or_else(missing)?;
    if let Some((_, second)) = calls.next() {
        return Err(unexpected(code, second, "one call of runtime.netpollblock only"));
    }
    let end_instruction = branch_on_result(code, body.get(call_index + 1..).unwrap_or_default())?;
    refuse_jumps_over(code, &instructions, call.next_ip(), end_instruction)?;
    let end = site(code, end_instruction, Emulated::ConditionalJump);

    let frame_size_bytes = frame_size_bytes(end.address);
    let before_call = body.get(..call_index).unwrap_or_default();
    let slot =
        frame_size_bytes.and_then(|frame| Some((poll_desc_slot(before_call, body, frame)?, frame + 8)));
    match slot {
        Some((slot, cfa)) => Ok(PollWaitSites {
            start,
            end,
            end_pd_from_sp_bytes: slot,
            pd_from_cfa_bytes: i64::from(slot) - cfa,
        }),
        None => Err(SiteError::PollDescHome {
            function: code.name().to_owned(),
            address: end.address,
            frame_size_bytes,
        }),
    }
}

/// The site at the start of `runtime.netpollblock`: RAX pd, RBX mode, R14 g.
///
/// # Errors
/// When the code is not as expected.
pub fn netpollblock(code: &FunctionCode) -> Result<Site, SiteError> {
    let instructions = code.instructions()?;
    let body = body_after_stack_check(code, &instructions)?;
    first_emulated(code, &instructions, body, &NETPOLLBLOCK_ARGUMENTS)
}

/// The site at the start of `runtime.netpollready`: RBX pd, RCX mode (`'r'`, `'w'` or their sum). It has no stack check unless it
/// was compiled without optimization.
///
/// # Errors
/// When the code is not as expected.
pub fn netpollready(code: &FunctionCode) -> Result<Site, SiteError> {
    let instructions = code.instructions()?;
    let body = match instructions.first() {
        Some(first) if is_stack_check(first) => body_after_stack_check(code, &instructions)?,
        _ => &instructions,
    };
    first_emulated(code, &instructions, body, &NETPOLLREADY_ARGUMENTS)
}

/// `cmp rsp, [r14+0x10]` (`g.stackguard0`, cmd/internal/obj/x86/obj6.go `stacksplit`), or its form for large frames, which
/// begins with `lea r12, [rsp-N]`.
fn is_stack_check(first: &Instruction) -> bool {
    let compares_guard = first.mnemonic() == Mnemonic::Cmp
        && matches!(first.op0_register(), Register::RSP | Register::R12)
        && first.op1_kind() == OpKind::Memory
        && first.memory_base() == Register::R14;
    let large_frame = first.mnemonic() == Mnemonic::Lea
        && first.op0_register() == Register::R12
        && first.memory_base() == Register::RSP;
    compares_guard || large_frame
}

/// What lies between the stack check and the code that grows the stack, at the function's end. The check is
/// `cmp rsp, [r14+0x10]; jbe`, with `lea r12, [rsp-N]` before it when the frame is large.
fn body_after_stack_check<'a>(
    code: &FunctionCode,
    instructions: &'a [Instruction],
) -> Result<&'a [Instruction], SiteError> {
    let mut check = instructions.iter().enumerate().skip_while(|(_, instruction)| {
        is_stack_check(instruction) && instruction.mnemonic() == Mnemonic::Lea
    });
    let missing = || SiteError::Missing { function: code.name().to_owned(), expected: "stack check" };
    let (_, compare) = check.next().ok_or_else(missing)?;
    if !is_stack_check(compare) {
        return Err(unexpected(code, compare, "the stack check"));
    }
    let (index, branch) = check.next().ok_or_else(missing)?;
    let grow = instructions.binary_search_by_key(&branch.near_branch_target(), Instruction::ip);
    match (branch.mnemonic(), grow) {
        (Mnemonic::Jbe, Ok(grow)) if grow > index => {
            Ok(instructions.get(index + 1..grow).unwrap_or_default())
        }
        _ => Err(unexpected(code, branch, "jbe to the growing of the stack")),
    }
}

/// The first emulated instruction of `body` that runs exactly once a call, with `arguments` not yet overwritten.
fn first_emulated(
    code: &FunctionCode,
    all: &[Instruction],
    body: &[Instruction],
    arguments: &[Register],
) -> Result<Site, SiteError> {
    let mut writes = Writes::new();
    for instruction in body {
        let bytes = code.bytes_at(instruction.ip(), instruction.len());
        if let Some(emulated) = Emulated::of(instruction, bytes) {
            let from = body.first().map_or(code.start(), Instruction::ip);
            refuse_jumps_over(code, all, from, instruction)?;
            return Ok(site(code, instruction, emulated));
        }
        if instruction.flow_control() != FlowControl::Next {
            return Err(unexpected(code, instruction, "an emulated instruction before any jump"));
        }
        if writes.any_of(instruction, arguments) {
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
fn refuse_jumps_over(
    code: &FunctionCode,
    all: &[Instruction],
    from: u64,
    to: &Instruction,
) -> Result<(), SiteError> {
    let jumps_in = all.iter().find(|instruction| {
        matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        ) && matches!(instruction.op0_kind(), OpKind::NearBranch64)
            && instruction.near_branch_target() >= from
            && instruction.near_branch_target() <= to.ip()
    });
    match jumps_in {
        Some(jump) => Err(unexpected(code, jump, "no jump onto or over a probe site")),
        None => Ok(()),
    }
}

/// The conditional jump that tests a call's result: `test al, al; jne`, with nops and copies of AL to the stack before it.
fn branch_on_result<'a>(
    code: &FunctionCode,
    after_call: &'a [Instruction],
) -> Result<&'a Instruction, SiteError> {
    let mut tested = false;
    for instruction in after_call {
        match instruction.mnemonic() {
            Mnemonic::Nop => {}
            Mnemonic::Jne | Mnemonic::Je if tested => return Ok(instruction),
            Mnemonic::Test
                if instruction.op0_register() == Register::AL
                    && instruction.op1_register() == Register::AL =>
            {
                tested = true;
            }
            Mnemonic::Mov
                if instruction.op0_kind() == OpKind::Memory
                    && instruction.memory_base() == Register::RSP
                    && instruction.op1_register() == Register::AL => {}
            _ => return Err(unexpected(code, instruction, "a test of netpollblock's result and a jump")),
        }
    }
    Err(SiteError::Missing {
        function: code.name().to_owned(),
        expected: "jump after the call of runtime.netpollblock",
    })
}

/// Where pd is kept: the one slot of the frame that RAX, unchanged since the start of the body, is stored to before the call, and
/// that nothing else of the body is stored to; its distance from RSP. A frame has room for variables, then the saved frame
/// pointer, the return address (at the frame's size), and the homes of the arguments, of which pd is the first.
fn poll_desc_slot(before_call: &[Instruction], body: &[Instruction], frame_size_bytes: i64) -> Option<u32> {
    let slot_stored = |instruction: &Instruction| {
        let on_stack = instruction.op0_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RSP
            && instruction.memory_index() == Register::None;
        on_stack.then(|| instruction.memory_displacement64())
    };
    let stores_pd = |instruction: &Instruction| {
        instruction.mnemonic() == Mnemonic::Mov && instruction.op1_register() == Register::RAX
    };
    let frame_size_bytes = u64::try_from(frame_size_bytes).ok().filter(|size| *size <= MAX_FRAME_BYTES)?;
    let in_frame = |slot: u64| slot == frame_size_bytes + 8 || slot.saturating_add(16) <= frame_size_bytes;
    let mut writes = Writes::new();
    let mut slots: Vec<u64> = before_call
        .iter()
        .take_while(|instruction| !writes.any_of(instruction, &[Register::RAX]))
        .filter(|instruction| stores_pd(instruction))
        .filter_map(slot_stored)
        .collect();
    slots.dedup();
    let [slot] = slots[..] else { return None };
    // Reads such as `mov rax, [rsp+slot]` have memory as their second operand and are not counted.
    let only_pd = body.iter().filter(|instruction| slot_stored(instruction) == Some(slot)).all(stores_pd);
    (in_frame(slot) && only_pd).then(|| u32::try_from(slot).ok()).flatten()
}

fn site(code: &FunctionCode, instruction: &Instruction, emulated: Emulated) -> Site {
    let offset = instruction.ip().saturating_sub(code.start());
    Site {
        function: code.name().to_owned(),
        address: instruction.ip(),
        offset,
        file_offset: code.file_offset().saturating_add(offset),
        bytes: code.bytes_at(instruction.ip(), instruction.len()).to_vec(),
        text: text(instruction),
        emulated,
    }
}

fn unexpected(code: &FunctionCode, instruction: &Instruction, expected: &'static str) -> SiteError {
    SiteError::Unexpected {
        function: code.name().to_owned(),
        address: instruction.ip(),
        found: text(instruction),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLL_WAIT_1_18: &str = include_str!("testdata/runtime_pollWait-go1.18.10.hex");
    const POLL_WAIT_1_26: &str = include_str!("testdata/runtime_pollWait-go1.26.8.hex");
    const POLL_WAIT_1_26_UNOPTIMIZED: &str = include_str!("testdata/runtime_pollWait-go1.26.8-noopt.hex");
    const POLL_WAIT_1_21_UNOPTIMIZED: &str = include_str!("testdata/runtime_pollWait-go1.21.13-noopt.hex");
    const NETPOLLBLOCK_1_18: &str = include_str!("testdata/netpollblock-go1.18.10.hex");
    const NETPOLLBLOCK_1_26: &str = include_str!("testdata/netpollblock-go1.26.8.hex");
    const NETPOLLREADY_1_18: &str = include_str!("testdata/netpollready-go1.18.10.hex");
    const NETPOLLREADY_1_26: &str = include_str!("testdata/netpollready-go1.26.8.hex");

    /// The code of a testdata file, and the address of `runtime.netpollblock` there.
    fn load(file: &str) -> (FunctionCode, u64) {
        let mut lines = file.lines().skip(1);
        let (start, netpollblock) = lines.next().unwrap().split_once(' ').unwrap();
        let digits: String = lines.collect();
        let bytes =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        (FunctionCode::new("f", address(start), 0x400, bytes.collect()), address(netpollblock))
    }

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
        poll_wait(&FunctionCode::new("f", code.start(), 0x400, bytes), netpollblock, |_| Some(0x18))
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
            file in prop::sample::select(vec![POLL_WAIT_1_18, POLL_WAIT_1_26, NETPOLLBLOCK_1_26, NETPOLLREADY_1_18]),
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
            let code = FunctionCode::new("f", start, 0x400, bytes);
            let _ = netpollblock(&code);
            let _ = netpollready(&code);
            if let Ok(sites) = poll_wait(&code, target, |_| Some(frame)) {
                prop_assert_eq!(i64::from(sites.end_pd_from_sp_bytes), frame + 8 + sites.pd_from_cfa_bytes);
                prop_assert!(sites.start.address < sites.end.address);
            }
        }
    }
}
