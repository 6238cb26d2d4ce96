//! One entry for fuzzers and property tests: everything that can be asked of a binary, asked of arbitrary bytes.

use super::{binary::GoBinary, error::Error};

/// Reads `file` as a Go binary and asks all there is to ask, ignoring the answers. Called with broken files by the property
/// tests and by `tests/fuzz`: it must return, soon, without a panic.
///
/// # Errors
/// The reason why `file` could not be opened as a Go binary.
pub fn read_everything(file: Vec<u8>) -> Result<(), Error> {
    let binary = GoBinary::from_reader(Box::new(file), "fuzz")?;
    let names = ["internal/poll.runtime_pollWait", "runtime.gopark", "runtime.main", "main.main"];
    let functions = binary.functions_by_names(&names).unwrap_or_default();
    let module = binary.module_data();
    let text = module.min_pc..module.max_pc;
    let spread = (text.end.saturating_sub(text.start) / 64).max(1);
    let step = usize::try_from(spread).unwrap_or(usize::MAX);
    let starts = functions.values().flatten().flat_map(|function| [function.entry_vaddr, function.end_vaddr]);
    for pc in starts.chain(text.step_by(step).take(64)) {
        // The answers do not matter here, only that they come.
        let _: Result<_, _> = binary.symbolize(pc);
        let _: Result<_, _> = binary.function_at(pc);
        let _: Result<_, _> = binary.sp_delta_bytes(pc);
        let _: Result<_, _> = binary.read_vaddr(pc, 64);
    }
    let _: Result<_, _> = binary.inlined_instances(&names);
    let _: Result<_, _> = binary.struct_layouts(&["runtime.g", "runtime.m"]);
    let _: Result<_, _> = binary.constants(&["runtime.waitReasonIOWait"]);
    Ok(())
}
