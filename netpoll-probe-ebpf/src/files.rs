//! The target's open files, once at attach: for waits that were open before, and the netpoller's `eventpoll`.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::seq_file,
    helpers::{bpf_ktime_get_ns, generated::bpf_seq_write},
};
use netpoll_probe_common::{record::FileRecord, slot::FileFacts};

use crate::{config::config, file, read, target};

/// `struct bpf_iter_meta`, `include/linux/bpf.h`.
#[repr(C)]
pub struct IteratorMeta {
    seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

impl IteratorMeta {
    /// Where the iterator writes.
    #[inline(always)]
    pub fn seq(&self) -> *mut seq_file {
        self.seq
    }
}

/// The context of `iter/task_file`, `kernel/bpf/task_iter.c`, `struct bpf_iter__task_file`.
#[repr(C)]
pub struct TaskFile {
    meta: *const IteratorMeta,
    task: *const u8,
    fd: u32,
    padding: u32,
    file: *const u8,
}

/// One file of one task.
#[inline(always)]
pub fn entry(ctx: *const TaskFile) {
    // SAFETY: the kernel passes this struct; task and file are BTF pointers, null at the end.
    let (task, open_file) = unsafe { ((*ctx).task, (*ctx).file) };
    if task.is_null() || open_file.is_null() {
        return;
    }
    // SAFETY: a BTF pointer that is not null; the offset is the kernel's own.
    let tgid = unsafe { task.add(config!(task_tgid) as usize).cast::<u32>().read() };
    let Some(index) = target::index_of(tgid) else { return };
    // SAFETY: as above.
    let (fd, seq) = unsafe { ((*ctx).fd, (*(*ctx).meta).seq()) };
    let address = open_file as u64;
    let mut record = FileRecord {
        private_data: read::kernel(address + config!(file_private_data)).unwrap_or(0),
        file: FileFacts { fd: fd as i32, ..FileFacts::UNKNOWN },
        sent_bytes: 0,
        sent_ns: 0,
        socket_state: 0,
        tgid,
        flags: read::kernel(address + config!(file_flags)).unwrap_or(0),
        reserved: 0,
    };
    if file::fill(&mut record.file, address, tgid, index).is_some() {
        record.file.known = 1;
        let state = file::state(&record.file);
        record.socket_state = u32::from(state);
        record.sent_bytes = file::sent_bytes(&record.file, state);
        if record.sent_bytes != 0 {
            // SAFETY: the helper has no preconditions.
            record.sent_ns = file::last_sent_ns(&record.file, unsafe { bpf_ktime_get_ns() });
        }
    }
    // SAFETY: the record is initialised and has no padding.
    unsafe {
        bpf_seq_write(seq, (&raw const record).cast::<c_void>().cast_mut(), size_of::<FileRecord>() as u32);
    }
}
