//! Which process has which id in the PID namespace of this tool: eBPF knows only those of the initial one.

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use netpoll_probe_common::{limit::PID_NAMESPACES, record::TaskRecord};

use crate::{config::config, files::IteratorMeta, read};

/// The context of `iter/task`, `kernel/bpf/task_iter.c`, `struct bpf_iter__task`.
#[repr(C)]
pub struct Task {
    meta: *const IteratorMeta,
    task: *const u8,
}

/// One task.
#[inline(always)]
pub fn entry(ctx: *const Task) {
    // SAFETY: the kernel passes this struct; the task is a BTF pointer, null at the end.
    let task = unsafe { (*ctx).task };
    if task.is_null() {
        return;
    }
    // SAFETY: a BTF pointer that is not null; the offsets are the kernel's own.
    let (tgid, pid) = unsafe {
        (
            task.add(config!(task_tgid) as usize).cast::<u32>().read(),
            task.add(config!(task_pid) as usize).cast::<u32>().read(),
        )
    };
    if tgid != pid {
        return;
    }
    let Some(namespace_pid) = in_own_namespace(task as u64) else { return };
    let record = TaskRecord { tgid, namespace_pid };
    // SAFETY: the kernel passes this struct; the record is initialised and has no padding.
    unsafe {
        let seq: *mut seq_file = (*(*ctx).meta).seq();
        bpf_seq_write(seq, (&raw const record).cast::<c_void>().cast_mut(), size_of::<TaskRecord>() as u32);
    }
}

/// `pid_nr_ns`, `kernel/pid.c`: a `struct pid` has a number for each namespace down to its own.
#[inline(always)]
fn in_own_namespace(task: u64) -> Option<u32> {
    let pid: u64 = read::kernel(task + config!(task_thread_pid))?;
    let level: u32 = read::kernel(pid + config!(pid_level))?;
    let mut at = 0;
    while at < PID_NAMESPACES {
        if at > level {
            break;
        }
        let number = pid + config!(pid_numbers) + u64::from(at) * config!(upid_bytes);
        let namespace: u64 = read::kernel(number + config!(upid_namespace))?;
        let inode: u32 = read::kernel(namespace + config!(pid_namespace_inode))?;
        if u64::from(inode) == config!(pid_namespace) {
            return read::kernel(number);
        }
        at += 1;
    }
    None
}
