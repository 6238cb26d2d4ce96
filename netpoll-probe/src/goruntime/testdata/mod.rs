//! Code of real programs, for tests: a comment, the function's address and that of the one it calls, its bytes.

use super::code::FunctionCode;
use crate::gobin::Machine;

/// The code in a file of this folder, and the address of the function that its calls are looked for.
pub(super) fn load(file: &str) -> (FunctionCode, u64) {
    let mut lines = file.lines();
    let machine = if lines.next().unwrap().contains("linux/arm64") { Machine::Arm64 } else { Machine::Amd64 };
    let (start, called) = lines.next().unwrap().split_once(' ').unwrap();
    let digits: String = lines.collect();
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    let address = |text| u64::from_str_radix(text, 16).unwrap();
    (FunctionCode::new("f", machine, address(start), 0x400, bytes.collect()), address(called))
}
