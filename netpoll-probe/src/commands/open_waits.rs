//! Waits that were open before the programs were there, from a snapshot of the goroutines.

use std::collections::{HashMap, HashSet};

use netpoll_probe_common::{
    record::{FileRecord, flag},
    slot::{FileFacts, PollDescSlot, WaitSlot},
};
use zerocopy::FromZeros as _;

use super::{go_target::GoTarget, own::now_ns};
use crate::{bpf::session::Session, error::Failure, snapshot::goroutine::PollMode};

/// Gives goroutines that were parked before the programs were there their slots, and their sockets to the tracepoints.
/// `files` are the target's open ones a moment ago.
pub(super) fn put(
    session: &mut Session,
    target: &GoTarget<'_>,
    files: Vec<FileRecord>,
) -> Result<(), Failure> {
    let waiting = target.waiting().unwrap_or_default();
    let files = unchanged(files, session.files()?);
    let start_ns = now_ns();
    let files: HashMap<i32, &FileRecord> = files.iter().map(|file| (file.file.fd, file)).collect();
    let mut slots: HashMap<u64, PollDescSlot> = HashMap::new();
    for goroutine in &waiting {
        let Some(poll) = &goroutine.poll else { continue };
        let file = files.get(&poll.fd);
        let tag = target.tag(poll.fdseq);
        let slot = slots.entry(poll.poll_desc).or_insert_with(PollDescSlot::new_zeroed);
        if let Some(file) = file {
            slot.file = file.file;
            slot.file.tag = tag;
        }
        let wait = WaitSlot {
            start_ns,
            g: goroutine.g,
            goid: goroutine.goid,
            tag,
            fd: poll.fd,
            flags: flag::STARTED_BEFORE,
            sent_bytes: file.map_or(0, |file| file.sent_bytes),
            socket_state: file.map_or(0, |file| file.socket_state),
            ..WaitSlot::default()
        };
        match poll.mode {
            PollMode::Read => slot.read = wait,
            PollMode::Write => slot.write = wait,
        }
    }
    let mut given = HashSet::new();
    for (pd, slot) in &slots {
        if session.put_slot(*pd, slot)? {
            given.insert(*pd);
        }
    }
    for (pd, slot) in slots.iter().filter(|(pd, slot)| given.contains(*pd) && slot.file.sk != 0) {
        session.index_socket(slot.file.sk, *pd)?;
    }
    Ok(())
}

/// The files that were open under their number both before and after something else was looked at.
fn unchanged(before: Vec<FileRecord>, after: Vec<FileRecord>) -> Vec<FileRecord> {
    let before: HashMap<i32, FileFacts> = before.into_iter().map(|file| (file.file.fd, file.file)).collect();
    let same = |file: &FileRecord| {
        before.get(&file.file.fd).is_some_and(|was| (was.inode, was.sk) == (file.file.inode, file.file.sk))
    };
    after.into_iter().filter(same).collect()
}
