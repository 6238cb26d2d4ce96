//! Whether this kernel takes function hooks, which only trying tells: the smallest program there is, at the entry of a
//! function that the kernel has for this.
//!
//! Ours, because aya's `is_program_supported` parses the kernel's whole BTF once more to find that function's id.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use zerocopy::{Immutable, IntoBytes};

use super::kernel_btf::{KernelBtf, Kind};

/// It does nothing, and runs in tests of the kernel only (`net/bpf/test_run.c`).
const FUNCTION: &str = "bpf_fentry_test1";

// Commands and types of `include/uapi/linux/bpf.h`.
const BPF_PROG_LOAD: i32 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i32 = 17;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_FENTRY: u32 = 24;

/// `r0 = 0; exit`, as `struct bpf_insn`s.
static RETURN_ZERO: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Loads and attaches a program, and takes it away again. `None`: this kernel does not have the function.
///
/// # Errors
/// What the kernel says to it.
pub(super) fn attempt(btf: &KernelBtf) -> Option<io::Result<()>> {
    let function = u32::try_from(btf.id_of(Kind::Function, FUNCTION)?).ok()?;
    Some(load(function).and_then(|program| attach(&program)).map(drop))
}

fn load(function: u32) -> io::Result<OwnedFd> {
    /// Of `union bpf_attr`, what [`BPF_PROG_LOAD`] takes.
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Load {
        program_type: u32,
        instructions: u32,
        instructions_address: u64,
        license_address: u64,
        no_log_version_flags_name_interface: [u32; 11],
        expected_attach_type: u32,
        no_btf: [u32; 9],
        attach_btf_id: u32,
    }
    let load = Load {
        program_type: BPF_PROG_TYPE_TRACING,
        instructions: 2,
        instructions_address: RETURN_ZERO.as_ptr().addr() as u64,
        license_address: c"GPL".as_ptr().addr() as u64,
        no_log_version_flags_name_interface: [0; 11],
        expected_attach_type: BPF_TRACE_FENTRY,
        no_btf: [0; 9],
        attach_btf_id: function,
    };
    // SAFETY: the two addresses are of statics, of as many instructions and of a string that ends in a zero.
    unsafe { bpf(BPF_PROG_LOAD, &load) }
}

fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    /// Of `union bpf_attr`, what [`BPF_RAW_TRACEPOINT_OPEN`] takes, which attaches these programs too.
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Open {
        no_name: u64,
        program: i32,
        unused: u32,
    }
    // SAFETY: it has no addresses.
    unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &Open { no_name: 0, program: program.as_raw_fd(), unused: 0 }) }
}

/// bpf(2), of a command that gives a descriptor.
///
/// # Safety
/// Addresses in `attributes` are of memory that the command may read.
unsafe fn bpf<T: IntoBytes + Immutable>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    let bytes = attributes.as_bytes();
    // SAFETY: the kernel reads so many bytes, and what they point to is the caller's promise.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, bytes.as_ptr(), bytes.len()) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made it for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
