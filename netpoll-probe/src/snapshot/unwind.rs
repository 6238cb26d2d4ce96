//! Walks a parked goroutine's stack with the frame sizes of pclntab, as the runtime's own traceback does
//! (`runtime/traceback.go`, `unwinder.resolveInternal` and `next`).
#![forbid(unsafe_code)]

use crate::target::memory::u64_at;

/// Walks end here; more frames than any report shows.
pub const MAX_FRAMES: usize = 1024;

/// What is known of the frame that a pc stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// The function's first instruction, as the linker gave it.
    pub function: u64,
    /// The frame's size at this pc (pclntab's pcsp).
    pub size_bytes: u32,
    /// The return address was in a register and is saved at the frame's low end (arm64); else the call pushed it, and it lies
    /// above the frame (amd64).
    pub saves_link: bool,
    /// The outermost function of a stack (`abi.FuncFlagTopFrame`): `goexit`, `mcall`, ….
    pub is_top: bool,
    /// It writes the stack pointer in ways that pclntab does not describe (`abi.FuncFlagSPWrite`); not set for
    /// `runtime.cgocallback`, whose flag the runtime ignores as well.
    pub writes_sp: bool,
    /// It was entered by a signal: the pc of its caller is the interrupted instruction, not a return address (`sigpanic`,
    /// `asyncPreempt`, `debugCallV2`).
    pub is_trap: bool,
}

/// Frame sizes of a binary.
pub trait FrameTable {
    /// The frame at a pc, as the linker gave it; `None` when no Go function is there.
    fn frame(&self, pc: u64) -> Option<FrameLayout>;
}

/// One frame of a goroutine's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// A run-time address.
    pub pc: u64,
    /// `pc` is the instruction itself; otherwise it is a return address, and the call stands before it.
    pub is_exact: bool,
}

impl Frame {
    /// The address to look up function, line and inlined frames at.
    #[must_use]
    pub fn lookup_pc(self) -> u64 {
        if self.is_exact { self.pc } else { self.pc.saturating_sub(1) }
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkEnd {
    /// At the goroutine's first function.
    Complete,
    /// At [`MAX_FRAMES`], or at the end of the part of the stack that was read.
    Truncated,
    /// At a pc that is in no Go function, or a frame that cannot be walked through.
    Broken,
}

/// A goroutine's stack, leaf first, inlined frames not yet expanded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GoStack {
    /// The frames, leaf first.
    pub frames: Vec<Frame>,
    /// How the walk ended.
    pub end: WalkEnd,
}

/// A stack as it lies in memory, from the saved stack pointer on.
#[derive(Clone, Copy, Debug)]
pub struct StackBytes<'a> {
    /// The saved stack pointer, the address of `bytes`.
    pub sp: u64,
    /// What was read, upwards from there.
    pub bytes: &'a [u8],
    /// `bytes` reach to the end of the stack.
    pub is_whole: bool,
}

impl StackBytes<'_> {
    /// The word at an address.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        u64_at(self.bytes, usize::try_from(address.checked_sub(self.sp)?).ok()?)
    }
}

/// A walked stack, and the argument of the function that was looked for.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The stack.
    pub stack: GoStack,
    /// The frame of that function (its index), and the word that was looked for.
    pub found: Option<(usize, u64)>,
}

/// Bytes that a trap puts on the stack before its function is entered where calls push nothing, with the interrupted function's
/// return address in the first word (`runtime/signal_arm64.go`, `preparePanic` and `pushCall`).
const TRAP_BYTES: u64 = 16;

/// A word in the frame of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameWord {
    /// The function's first instruction, as the linker gave it.
    pub function: u64,
    /// The word's distance from the CFA (the stack pointer before the function was called); the first argument's home is at 0 on amd64, at
    /// 8 on arm64.
    pub from_cfa_bytes: i64,
}

/// Walks from `pc` (a run-time address) and the stack pointer of `stack`, and picks up a word on the way.
#[must_use]
pub fn walk(
    frames: &impl FrameTable,
    load_bias: u64,
    pc: u64,
    stack: StackBytes<'_>,
    look_for: FrameWord,
) -> Walk {
    let mut walked = Vec::new();
    let mut found = None;
    let (mut pc, mut sp) = (pc, stack.sp);
    let mut below_trap = false;
    // The return address of a function that was interrupted before it saved it.
    let mut link = None;
    let end = loop {
        if walked.len() == MAX_FRAMES {
            break WalkEnd::Truncated;
        }
        let Some(linked_pc) = pc.checked_sub(load_bias) else { break WalkEnd::Broken };
        let Some(layout) = frames.frame(linked_pc) else { break WalkEnd::Broken };
        walked.push(Frame { pc, is_exact: below_trap || linked_pc == layout.function });
        if layout.is_top {
            break WalkEnd::Complete;
        }
        if layout.writes_sp && walked.len() > 1 {
            break WalkEnd::Broken;
        }
        let pushed_bytes = if layout.saves_link { 0 } else { 8 };
        let frame_end = sp.checked_add(u64::from(layout.size_bytes));
        let Some((frame_end, cfa)) = frame_end.and_then(|end| Some((end, end.checked_add(pushed_bytes)?)))
        else {
            break WalkEnd::Broken;
        };
        if found.is_none() && layout.function == look_for.function {
            let word = cfa.checked_add_signed(look_for.from_cfa_bytes).and_then(|at| stack.word(at));
            found = word.map(|word| (walked.len() - 1, word));
        }
        let saved = match (layout.saves_link, layout.size_bytes, link.take()) {
            (true, 0, None) => break WalkEnd::Broken,
            (true, 0, Some(link)) => Some(link),
            (true, ..) => stack.word(sp),
            (false, ..) => stack.word(frame_end),
        };
        let Some(caller) = saved else {
            break if stack.is_whole { WalkEnd::Broken } else { WalkEnd::Truncated };
        };
        below_trap = layout.is_trap;
        (pc, sp) = (caller, cfa);
        if layout.saves_link && layout.is_trap {
            link = stack.word(sp);
            sp = sp.saturating_add(TRAP_BYTES);
        }
    };
    Walk { stack: GoStack { frames: walked, end }, found }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BIAS: u64 = 0x5000_0000;
    const SP: u64 = 0xc000_1000;

    /// The same functions where calls push nothing: frames of 16 * n bytes; the 4th saves nothing.
    struct Linked;

    impl FrameTable for Linked {
        fn frame(&self, pc: u64) -> Option<FrameLayout> {
            let layout = Functions.frame(pc)?;
            let size_bytes = if layout.function == 0x400 { 0 } else { layout.size_bytes * 2 };
            Some(FrameLayout { size_bytes, saves_link: true, ..layout })
        }
    }

    /// Functions of 0x100 bytes: the n-th begins at n * 0x100. Its frame is 8 * n bytes; 1 is the outermost, 2 a
    /// trap, 3 writes the stack pointer.
    struct Functions;

    impl FrameTable for Functions {
        fn frame(&self, pc: u64) -> Option<FrameLayout> {
            let function = pc / 0x100;
            (1..16).contains(&function).then(|| FrameLayout {
                function: function * 0x100,
                size_bytes: u32::try_from(function).unwrap() * 8,
                saves_link: false,
                is_top: function == 1,
                is_trap: function == 2,
                writes_sp: function == 3,
            })
        }
    }

    /// The stack of calls of these pcs, leaf first, after the leaf's own pc; each frame's words are 0xf0 + its function.
    fn stack_of(pcs: &[u64]) -> Vec<u8> {
        let mut words = Vec::new();
        for (callee, caller) in pcs.iter().zip(&pcs[1..]) {
            words
                .extend(std::iter::repeat_n(0xf0 + callee / 0x100, usize::try_from(callee / 0x100).unwrap()));
            words.push(caller + BIAS);
        }
        words.push(0xabcd);
        words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect()
    }

    const NOTHING: FrameWord = FrameWord { function: 0, from_cfa_bytes: 0 };

    fn walk_of(pcs: &[u64], bytes: &[u8], look_for: FrameWord) -> Walk {
        walk(&Functions, BIAS, pcs[0] + BIAS, StackBytes { sp: SP, bytes, is_whole: true }, look_for)
    }

    #[test]
    fn walks_to_the_outermost_function() {
        let pcs = [0x510, 0x620, 0x400, 0x777, 0x101];
        let walk = walk_of(&pcs, &stack_of(&pcs), FrameWord { function: 0x600, from_cfa_bytes: 0 });
        assert_eq!(walk.stack.end, WalkEnd::Complete);
        let frames: Vec<(u64, bool)> =
            walk.stack.frames.iter().map(|frame| (frame.pc - BIAS, frame.is_exact)).collect();
        // 0x400 is a function's first instruction: there is no call before it in the same function.
        assert_eq!(frames, [(0x510, false), (0x620, false), (0x400, true), (0x777, false), (0x101, false)]);
        // Above the return address of the second frame lies the first word of the third.
        assert_eq!(walk.found, Some((1, 0xf4)));
        assert_eq!(walk.stack.frames[0].lookup_pc(), BIAS + 0x50f);
        // Below the return address of the second lies its own last word.
        let local = FrameWord { function: 0x600, from_cfa_bytes: -16 };
        assert_eq!(walk_of(&pcs, &stack_of(&pcs), local).found, Some((1, 0xf6)));
    }

    #[test]
    fn takes_the_pc_below_a_trap_as_it_is() {
        let pcs = [0x510, 0x220, 0x610, 0x720, 0x101];
        let walk = walk_of(&pcs, &stack_of(&pcs), NOTHING);
        let exact: Vec<bool> = walk.stack.frames.iter().map(|frame| frame.is_exact).collect();
        assert_eq!(exact, [false, false, true, false, false]);
    }

    #[test]
    fn walks_where_calls_push_nothing() {
        // Each frame begins with its return address; the third is a trap, which saved the fourth's and the word after.
        let frame = |caller: u64, words: usize| {
            [caller + BIAS].into_iter().chain((1..words as u64).map(|word| 0xf0 + word)).collect::<Vec<_>>()
        };
        let words =
            [frame(0x620, 10), frame(0x220, 12), frame(0x410, 4), frame(0x720, 2), frame(0x101, 14)].concat();
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend([0xaa; 16]);
        let look_for = FrameWord { function: 0x500, from_cfa_bytes: 8 };
        let stack = StackBytes { sp: SP, bytes: &bytes, is_whole: true };
        let walked = walk(&Linked, BIAS, 0x510 + BIAS, stack, look_for);
        let pcs: Vec<u64> = walked.stack.frames.iter().map(|frame| frame.pc - BIAS).collect();
        assert_eq!(pcs, [0x510, 0x620, 0x220, 0x410, 0x720, 0x101]);
        assert_eq!(walked.stack.end, WalkEnd::Complete);
        // The home of the first's argument: above the caller's return address.
        assert_eq!(walked.found, Some((0, 0xf1)));
        // A function without a frame has no caller unless it was interrupted.
        let walked = walk(&Linked, BIAS, 0x410 + BIAS, stack, look_for);
        assert_eq!(walked.stack.end, WalkEnd::Broken);
    }

    #[test]
    fn says_how_it_ended() {
        let end = |pcs: &[u64], cut: usize, is_whole| {
            let bytes = stack_of(pcs);
            let stack = StackBytes { sp: SP, bytes: &bytes[..bytes.len() - cut], is_whole };
            walk(&Functions, BIAS, pcs[0] + BIAS, stack, NOTHING).stack.end
        };
        assert_eq!(end(&[0x510, 0x9900], 0, true), WalkEnd::Broken);
        assert_eq!(end(&[0x510, 0x101], 16, true), WalkEnd::Broken);
        assert_eq!(end(&[0x510, 0x101], 16, false), WalkEnd::Truncated);
        // A function that writes the stack pointer can be walked only as the leaf.
        assert_eq!(end(&[0x310, 0x520, 0x101], 0, true), WalkEnd::Complete);
        assert_eq!(end(&[0x510, 0x320, 0x101], 0, true), WalkEnd::Broken);
        let deep = vec![0x410; MAX_FRAMES + 1];
        assert_eq!(end(&deep, 0, true), WalkEnd::Truncated);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, sp: u64, pc: u64, load_bias: u64, is_whole: bool, from_cfa_bytes: i64) {
            let walked = walk(&Functions, load_bias, pc, StackBytes { sp, bytes: &bytes, is_whole }, FrameWord { function: 0x500, from_cfa_bytes });
            prop_assert!(walked.stack.frames.len() <= MAX_FRAMES);
            let _ = walk(&Linked, load_bias, pc, StackBytes { sp, bytes: &bytes, is_whole }, NOTHING);
        }
    }
}
