//! Waits that were open before the programs were there, and those that still are at the end, from snapshots of the goroutines.

use std::collections::HashMap;

use netpoll_probe_common::{
    record::{FileRecord, flag},
    slot::{FileFacts, PollDescSlot, WaitSlot, of_slot_key, slot_key},
};
use zerocopy::FromZeros as _;

use super::{attached::Attached, go_process::GoProcess, member::Member, own::now_ns, records::Until};
use crate::{
    bpf::session::Session,
    correlate::{Correlator, Sent, bypass},
    error::Failure,
    model::{bypass::Bypass, stack::StackTable, wait::Wait},
    snapshot::goroutine::{Goroutine, PollMode, StackState},
    symbolize::leaf_first,
};

/// Gives goroutines that were parked before the programs were there their slots, and their sockets to the tracepoints.
/// `files` are the process's open ones a moment ago.
pub(super) fn put(
    session: &mut Session,
    process: &GoProcess,
    correlator: &mut Correlator,
    by_syscalls: bool,
    files: Vec<FileRecord>,
) -> Result<(), Failure> {
    let target = process.id();
    let waiting = process.waiting().unwrap_or_default();
    let files = unchanged(files, session.files_of(target)?);
    let start_ns = now_ns();
    let files: HashMap<i32, &FileRecord> = files.iter().map(|file| (file.file.fd, file)).collect();
    let mut slots: HashMap<u64, PollDescSlot> = HashMap::new();
    for goroutine in &waiting {
        let Some(poll) = &goroutine.poll else { continue };
        if let StackState::Walked(stack) = &goroutine.stack {
            // The first one as if the goroutine stood in the call that it is in.
            let pcs = stack.frames.iter().skip(poll.frame).enumerate();
            let pcs = pcs.map(|(depth, frame)| frame.pc - u64::from(depth == 0 && !frame.is_exact));
            correlator.open_stack(poll.poll_desc, goroutine.goid, pcs.collect());
        }
        let file = files.get(&poll.fd);
        let tag = process.program().tag(poll.fdseq);
        let of = if by_syscalls { u64::from(poll.fd.cast_unsigned()) } else { poll.poll_desc };
        let slot = slots.entry(slot_key(of, target.index)).or_insert_with(PollDescSlot::new_zeroed);
        slot.pd = poll.poll_desc;
        if let Some(file) = file {
            slot.file = file.file;
            slot.file.tag = tag;
        }
        slot.file.fd = poll.fd;
        let wait = WaitSlot {
            start_ns,
            g: goroutine.g,
            goid: goroutine.goid,
            tag,
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
    let given = session.put_slots(&slots)?;
    for (key, slot) in slots.iter().filter(|(key, slot)| given.contains(*key) && slot.file.sk != 0) {
        session.index_socket(slot.file.sk, *key)?;
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

/// The waits of all members that were open at `end_ns`, with stacks from a snapshot. `slots` are all that there were then.
/// A slot that is still taken although its goroutine is not parked there is no wait: the goroutine turned away before it
/// parked.
pub(super) fn at_end(
    attached: &mut Attached,
    slots: &[(u64, PollDescSlot)],
    end_ns: u64,
    stacks: &mut StackTable,
    bypasses: &mut Vec<Bypass>,
) -> Result<Vec<(Wait, Sent)>, Failure> {
    let waiting: HashMap<u32, Vec<Goroutine>> = attached
        .members()
        .filter_map(|member| Some((member.process.id().index, member.process.waiting()?)))
        .collect();
    let by_syscalls = attached.plan.follows_syscalls();
    // Waits that ended meanwhile bring the stacks that they had.
    attached.drain(Until::End, None);
    let (members, session, symbolizer) = attached.parts();
    let all_files = session.files()?;
    let files: HashMap<(u32, i32), FileRecord> =
        all_files.iter().map(|file| ((file.tgid, file.file.fd), *file)).collect();
    let later: HashMap<u64, PollDescSlot> = session.slots()?.into_iter().collect();
    let mut members: HashMap<u32, &mut Member> =
        members.values_mut().map(|member| (member.process.id().index, member)).collect();
    for member in members.values_mut() {
        bypasses.extend(past_the_netpoller(member, &all_files));
    }
    for (key, start_ns) in session.resolving()? {
        if let Some(member) = members.get_mut(&of_slot_key(key).1) {
            member.correlator.resolve(start_ns, end_ns);
        }
    }
    let parked: HashMap<(u32, u64, u64), &Goroutine> = waiting
        .iter()
        .flat_map(|(index, goroutines)| goroutines.iter().map(move |goroutine| (*index, goroutine)))
        .filter_map(|(index, g)| Some(((index, g.poll.as_ref()?.poll_desc, g.g), g)))
        .collect();
    let mut open = Vec::new();
    for (key, slot) in slots {
        let (_, index) = of_slot_key(*key);
        let Some(Member { process, correlator }) = members.get_mut(&index) else { continue };
        let after = later.get(key).copied().unwrap_or_else(PollDescSlot::new_zeroed);
        let mut slot = *slot;
        for (wait, after) in [(&mut slot.read, &after.read), (&mut slot.write, &after.write)] {
            if wait.goid == 0 {
                // It could not be read when the wait began.
                wait.goid = parked.get(&(index, slot.pd, wait.g)).map_or(0, |goroutine| goroutine.goid);
            }
            // An event was collected that was not for it, so its goroutine had not parked.
            if by_syscalls && wait.poll_ns == 0 && wait.last_poll_ns > wait.start_ns {
                wait.start_ns = 0;
            }
            let still_taken = wait.start_ns != 0 && wait.start_ns == after.start_ns;
            if still_taken && waiting.contains_key(&index) && !parked.contains_key(&(index, slot.pd, wait.g))
            {
                wait.start_ns = 0;
                // By system calls it is known only now that it did not park.
                if !by_syscalls {
                    correlator.turned_away();
                }
            }
        }
        for (taken, mut wait) in correlator.open(&slot, end_ns) {
            let bias = process.load_bias();
            if let Some(pcs) = correlator.stack_of(taken.stack_hash) {
                wait.stack = Some(symbolizer.stack(taken.stack_hash, bias, &pcs, stacks));
            } else if let Some(Goroutine { stack: StackState::Walked(stack), poll: Some(poll), .. }) =
                parked.get(&(index, slot.pd, taken.g))
            {
                let pcs = stack.frames.iter().skip(poll.frame).map(|frame| (frame.pc, frame.is_exact));
                wait.stack = Some(symbolizer.walked(bias, pcs, stacks));
            } else if let Some(pcs) = correlator.late_stack(slot.pd, taken.goid, wait.clocks.start_ns) {
                wait.stack = Some(symbolizer.walked(bias, leaf_first(&pcs), stacks));
            }
            let sent = Sent::of_open(&taken, files.get(&(process.id().tgid, wait.fd)));
            open.push((wait, sent));
        }
    }
    Ok(open)
}

/// How a process waits past the netpoller.
fn past_the_netpoller(member: &mut Member, files: &[FileRecord]) -> impl Iterator<Item = Bypass> {
    let Member { process, correlator } = member;
    let (pid, tgid) = (process.pid(), process.id().tgid);
    let own: Vec<FileRecord> = files.iter().filter(|file| file.tgid == tgid).copied().collect();
    let epolls: Vec<i32> = bypass::anonymous(&own).filter(|fd| process.is_epoll(*fd)).collect();
    let modules = process.program().modules();
    let blocking = bypass::blocking_sockets(pid, &own, |file| correlator.endpoint_of(file));
    blocking.into_iter().chain(bypass::own_epolls(pid, &epolls, process.epoll_fd(), modules))
}
