//! One executable, with the eBPF programs attached to its processes.

use std::{
    io,
    path::Path,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use foldhash::HashMap;
use netpoll_probe_common::{counter::Counter, sampling::Sampling, slot::of_slot_key};

use super::{
    adder::Adder,
    cells::Cells,
    go_process::GoProcess,
    go_program::{GoProgram, Identity},
    member::{self, Member},
    open_waits,
    privileges::Privileges,
    records::{Records, Until},
};
use crate::{
    bpf::{
        plan::Plan,
        session::{self, Session, SessionError, TargetId},
        support,
    },
    correlate::Correlator,
    error::Failure,
    event::Event,
    model::quality::Quality,
    symbolize::Symbolizer,
    target::{error::Error as TargetError, process::Process},
};

/// What attaching itself makes the programs count.
const OF_ATTACHING: [Counter; 2] = [Counter::EndWithoutStart, Counter::StartUnseen];

/// The programs, and the processes that they are attached to.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) identity: Identity,
    pub(super) program: Rc<GoProgram>,
    pub(super) plan: Plan,
    pub(super) session: Session,
    pub(super) symbolizer: Symbolizer,
    pub(super) cells: Cells,
    /// What it was told to follow; `None`: all.
    pub(super) sampling: Option<Sampling>,
    records: Records,
    /// By thread group.
    members: HashMap<u32, Member>,
    /// Processes that will run this executable, by thread group.
    expected: HashMap<u32, Expected>,
    next_index: u32,
    /// The programs' counters when the recording began: what happened while attaching is no loss.
    baseline: HashMap<&'static str, u64>,
    /// Records of processes that are no members (any more).
    strangers: u64,
}

/// A process that has not become this program yet. Its first waits may be read before it is known to have.
#[derive(Debug)]
struct Expected {
    id: TargetId,
    process: Process,
    correlator: Correlator,
}

/// A process runs another program now.
#[derive(Debug)]
pub(super) enum Exec {
    /// One that was expected to begin has.
    Begun {
        /// Its thread group.
        tgid: u32,
    },
    /// A member has.
    Changed {
        /// Its thread group.
        tgid: u32,
        /// When, CLOCK_MONOTONIC ns.
        at_ns: u64,
        /// The probes are still in place, if it runs the same executable.
        probes_stay: bool,
        /// What was known of the waits in the program before.
        before: Box<Correlator>,
    },
}

impl Attached {
    /// Takes over loaded programs, with room for so many cells. No process is a member yet.
    pub(super) fn new(
        identity: Identity,
        program: Rc<GoProgram>,
        plan: Plan,
        mut session: Session,
        room: u32,
    ) -> Result<Self, Failure> {
        let records = Records::of(&mut session)?;
        let symbolizer = Symbolizer::new(Arc::clone(&program.binary));
        Ok(Self {
            identity,
            program,
            plan,
            session,
            symbolizer,
            cells: Cells::new(room),
            sampling: None,
            records,
            members: HashMap::default(),
            expected: HashMap::default(),
            next_index: 0,
            baseline: HashMap::default(),
            strangers: 0,
        })
    }

    /// Attaches to a process of this executable, and finds the waits that were open before.
    ///
    /// # Errors
    /// When it has exited, or the kernel refuses; then nothing is left in it.
    pub(super) fn join(
        &mut self,
        process: Process,
        privileges: &mut Privileges,
    ) -> Result<&GoProcess, Failure> {
        let pid = process.pid();
        let id = self.id_for(pid)?;
        let process = GoProcess::new(process, Rc::clone(&self.program), id)?;
        let before = self.of_attaching()?;
        privileges
            .place(|| self.session.add(id, pid, &session::executable_of(pid)))
            .map_err(|error| not_attached(error, &process))?;
        self.next_index += 1;
        let mut correlator = member::correlator(&self.plan, pid);
        let files = self.session.files_of(id)?;
        for file in &files {
            correlator.open_file(&file.file, file.socket_state);
        }
        let epoll_fd = process.epoll_fd();
        if let Some(epoll) = files.iter().find(|file| Some(file.file.fd) == epoll_fd) {
            self.session.set_eventpoll(id, epoll.private_data)?;
        }
        let by_syscalls = self.plan.follows_syscalls();
        open_waits::put(&mut self.session, &process, &mut correlator, by_syscalls, files)?;
        self.forgive(before)?;
        let member = self.members.entry(id.tgid).insert_entry(Member { process, correlator });
        Ok(&member.into_mut().process)
    }

    /// Attaches to a process that will run this executable, `program`, and does not yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn expect(
        &mut self,
        pid: u32,
        program: &Path,
        privileges: &mut Privileges,
    ) -> Result<(), Failure> {
        let id = self.id_for(pid)?;
        privileges.place(|| self.session.add(id, pid, program))?;
        self.next_index += 1;
        let process = Process::open(pid)?;
        let correlator = member::correlator(&self.plan, pid);
        self.expected.insert(id.tgid, Expected { id, process, correlator });
        Ok(())
    }

    /// A process that was expected runs this executable now.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn begun(&mut self, tgid: u32) -> Result<Option<&GoProcess>, Failure> {
        let Some(Expected { id, process, correlator }) = self.expected.remove(&tgid) else { return Ok(None) };
        // Opened again, it has the program for its executable.
        let process = GoProcess::new(Process::open(process.pid())?, Rc::clone(&self.program), id)?;
        let member = self.members.entry(tgid).insert_entry(Member { process, correlator });
        Ok(Some(&member.into_mut().process))
    }

    /// What happened while attaching is no loss: waits whose slots were not put yet. Of the first process it is all that was counted, of a
    /// later one these only, since the others' losses count.
    fn forgive(&mut self, before: [u64; 2]) -> Result<(), Failure> {
        if self.members.is_empty() {
            self.baseline = self
                .session
                .counters()?
                .into_iter()
                .map(|(counter, count)| (counter.name(), count))
                .collect();
        } else {
            for ((counter, before), now) in OF_ATTACHING.into_iter().zip(before).zip(self.of_attaching()?) {
                *self.baseline.entry(counter.name()).or_default() += now.saturating_sub(before);
            }
        }
        Ok(())
    }

    fn of_attaching(&mut self) -> Result<[u64; 2], Failure> {
        let counters = self.session.counters()?;
        let count =
            |wanted| counters.iter().find(|(counter, _)| *counter == wanted).map_or(0, |(_, count)| *count);
        Ok(OF_ATTACHING.map(count))
    }

    /// How the programs will know a process. Outside of the initial PID namespace only they know its id there.
    fn id_for(&mut self, pid: u32) -> Result<TargetId, Failure> {
        let index = self.next_index;
        if support::in_initial_pid_namespace() {
            return Ok(TargetId { tgid: pid, index });
        }
        let tasks = self.session.tasks()?;
        let task = tasks.iter().find(|task| task.namespace_pid == pid).ok_or(TargetError::Exited { pid })?;
        Ok(TargetId { tgid: task.tgid, index })
    }

    /// The processes.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// How many processes have not become this program yet, and still may.
    pub(super) fn expected(&self) -> usize {
        self.expected.values().filter(|expected| !expected.process.has_exited()).count()
    }

    /// What people call a member.
    pub(super) fn name_of(&self, tgid: u32) -> Option<String> {
        self.members.get(&tgid).map(|member| member.process.name())
    }

    /// A member's id in this tool's PID namespace.
    pub(super) fn pid_of(&self, tgid: u32) -> Option<u32> {
        self.members.get(&tgid).map(|member| member.process.pid())
    }

    /// Whether a process runs the very file that a member ran.
    pub(super) fn runs_in(&self, tgid: u32, process: &Process) -> bool {
        let known = self.members.get(&tgid).and_then(|member| member.process.executable_file());
        known.is_some() && known == process.executable_file()
    }

    /// A member runs the same executable again, elsewhere in its memory.
    ///
    /// # Errors
    /// When it has ended, or the kernel refuses.
    pub(super) fn again(&mut self, tgid: u32, process: Process, probes_stay: bool) -> Result<(), Failure> {
        let Some(member) = self.members.get_mut(&tgid) else { return Ok(()) };
        let (id, pid) = (member.process.id(), process.pid());
        if !probes_stay {
            self.session.renew(id, pid, &session::executable_of(pid))?;
        }
        member.process = GoProcess::new(process, Rc::clone(&self.program), id)?;
        Ok(())
    }

    /// Whether the programs say that much is waiting.
    pub(super) fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.records.poll_readable(context)
    }

    /// Reads what was recorded, and hands on waits meanwhile where they need not be held back. Returns the members that have run another
    /// program meanwhile, in the order of time; records after that are those of the new program.
    pub(super) fn drain(&mut self, until: Until, mut to: Option<&mut Adder>) -> Vec<Exec> {
        let mut execs = Vec::new();
        let Self { members, expected, strangers, records, plan, symbolizer, cells, .. } = self;
        records.read(until, |event| {
            let Ok(event) = event else {
                *strangers += 1;
                return;
            };
            let tgid = event.tgid();
            match (members.get_mut(&tgid), expected.get_mut(&tgid), event) {
                (Some(member), _, Event::Exec(record)) => {
                    let new = member::correlator(plan, member.process.pid());
                    let before = Box::new(std::mem::replace(&mut member.correlator, new));
                    let probes_stay = record.by_first_thread == 1;
                    execs.push(Exec::Changed { tgid, at_ns: record.at_ns, probes_stay, before });
                }
                (Some(member), _, event) => {
                    member.correlator.push(event);
                    if let Some(to) = to.as_deref_mut().filter(|_| member.correlator.is_full()) {
                        member.take_ready(symbolizer, cells, to);
                    }
                }
                (None, Some(_), Event::Exec(_)) => execs.push(Exec::Begun { tgid }),
                (None, Some(expected), event) => expected.correlator.push(event),
                (None, None, _) => *strangers += 1,
            }
        });
        execs
    }

    /// Hands on the waits that need not be held back any longer, or all.
    pub(super) fn take(&mut self, all: bool, to: &mut Adder) {
        let Self { members, symbolizer, cells, .. } = self;
        for member in members.values_mut() {
            if all {
                member.take_all(symbolizer, cells, to);
            } else {
                member.take_ready(symbolizer, cells, to);
            }
        }
    }

    /// Hands on the waits of a process that ran another program since.
    pub(super) fn take_before(&mut self, tgid: u32, before: &mut Correlator, to: &mut Adder) {
        let Some(member) = self.members.get(&tgid) else { return };
        let bias = member.process.load_bias();
        let Self { symbolizer, cells, .. } = self;
        before.take_all().for_each(|mut correlated| to.name(&mut correlated, symbolizer, bias, cells));
    }

    /// Forgets what was in a process's memory before it ran another program at `at_ns`.
    pub(super) fn forget_memory(&mut self, tgid: u32, at_ns: u64) -> Result<(), Failure> {
        let Some(member) = self.members.get(&tgid) else { return Ok(()) };
        let index = member.process.id().index;
        for (key, slot) in self.session.slots()? {
            let is_new = slot.read.start_ns.max(slot.write.start_ns) >= at_ns;
            if of_slot_key(key).1 == index && !is_new {
                self.session.remove_slot(key)?;
            }
        }
        Ok(())
    }

    /// Takes a process out. Returns it, with what is known of its recording.
    pub(super) fn leave(&mut self, tgid: u32) -> Result<Option<Member>, Failure> {
        let Some(member) = self.members.remove(&tgid) else { return Ok(None) };
        self.session.remove(member.process.id())?;
        Ok(Some(member))
    }

    /// The members, with the programs and the symbols.
    pub(super) fn parts(&mut self) -> (&mut HashMap<u32, Member>, &mut Session, &mut Symbolizer) {
        (&mut self.members, &mut self.session, &mut self.symbolizer)
    }

    /// What could not be known: of all members, and by the programs.
    pub(super) fn quality(&mut self) -> Result<Quality, Failure> {
        let counters: Vec<(Counter, u64)> = self
            .session
            .counters()?
            .into_iter()
            .map(|(counter, count)| {
                let before = self.baseline.get(counter.name()).copied().unwrap_or(0);
                (counter, count.saturating_sub(before))
            })
            .collect();
        let mut quality = Correlator::new(0).quality(&counters);
        for member in self.members.values() {
            quality.merge(&member.correlator.quality(&[]));
        }
        if self.strangers > 0 {
            *quality.unmatched.entry("no_process".to_owned()).or_default() += self.strangers;
        }
        Ok(quality)
    }

    /// The recording ended at `end_ns`: records of later ends are of waits that were open then, and not counted twice.
    pub(super) fn end_at(&mut self, end_ns: u64) {
        for member in self.members.values_mut() {
            member.correlator.end_at(end_ns);
        }
    }

    /// How many records there were.
    pub(super) fn record_count(&self) -> u64 {
        self.records.count()
    }
}

/// For a process that ends meanwhile the kernel has many errors, and a pidfd tells a moment after its files in `/proc` went.
fn not_attached(error: SessionError, process: &GoProcess) -> Failure {
    use std::{thread, time::Duration};

    const LOOKS: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..LOOKS {
        if process.has_exited() {
            return TargetError::Exited { pid: process.pid() }.into();
        }
        thread::sleep(PAUSE);
    }
    error.into()
}
