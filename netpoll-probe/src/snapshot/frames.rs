//! Frame sizes out of a binary's pclntab.
#![forbid(unsafe_code)]

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use super::unwind::{FrameLayout, FrameTable};
use crate::{
    gobin::{GoBinary, Machine},
    goruntime::binary::GoRuntime,
};

/// Distinct pcs kept; the goroutines of a program stand at a few hundred.
const MAX_CACHED: usize = 1 << 16;

/// Frame sizes of a binary, each looked up once.
#[derive(Debug)]
pub struct BinaryFrames {
    binary: Arc<GoBinary>,
    traps: Vec<u64>,
    cgocallback: Option<u64>,
    cache: RefCell<HashMap<u64, Option<FrameLayout>>>,
}

impl BinaryFrames {
    /// Frame sizes of a binary, and what its runtime says of special functions.
    #[must_use]
    pub fn new(binary: Arc<GoBinary>, runtime: &GoRuntime<'_>) -> Self {
        Self {
            binary,
            traps: runtime.traps().collect(),
            cgocallback: runtime.cgocallback(),
            cache: RefCell::default(),
        }
    }

    fn look_up(&self, pc: u64) -> Option<FrameLayout> {
        let function = self.binary.function_at(pc).ok()?;
        let size_bytes = self.binary.sp_delta_bytes(pc).ok().flatten()?;
        Some(FrameLayout {
            function: function.entry_vaddr,
            size_bytes: u32::try_from(size_bytes).ok()?,
            saves_link: self.binary.machine() == Machine::Arm64,
            is_top: function.flags.is_top_frame(),
            writes_sp: function.flags.writes_sp() && self.cgocallback != Some(function.entry_vaddr),
            is_trap: self.traps.contains(&function.entry_vaddr),
        })
    }
}

impl FrameTable for BinaryFrames {
    fn frame(&self, pc: u64) -> Option<FrameLayout> {
        if let Some(known) = self.cache.borrow().get(&pc) {
            return *known;
        }
        let layout = self.look_up(pc);
        let mut cache = self.cache.borrow_mut();
        if cache.len() < MAX_CACHED {
            cache.insert(pc, layout);
        }
        layout
    }
}
