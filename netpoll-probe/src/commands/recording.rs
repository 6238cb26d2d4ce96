//! The recording itself: from attached programs to a finished sum of waits.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use netpoll_probe_common::{counter::Counter, record::FileRecord, slot::PollDescSlot};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use zerocopy::FromZeros as _;

use super::{
    go_target::GoTarget,
    open_waits,
    outputs::Outputs,
    own::{cpu_ns, now_ns, peak_resident_bytes},
    tell,
};
use crate::{
    bpf::{
        reader::AsyncRing,
        session::{RunTime, Session},
    },
    cli::attach::AttachArgs,
    correlate::{Correlated, Correlator, Sent, classify},
    error::Failure,
    event,
    exit::Exit,
    model::{builder::ProfileBuilder, profile::Target, quality::Quality, wait::Wait},
    snapshot::goroutine::{Goroutine, StackState},
    symbolize::Symbolizer,
};

/// How often the ring is looked at; the programs wake us only when much is waiting.
const TICK: Duration = Duration::from_millis(20);
/// How many ticks pass between two progress lines.
const PROGRESS_TICKS: u32 = 10;
/// `sleep_until` wants a time even when its branch is off.
const FAR_AWAY: Duration = Duration::from_secs(86_400);

/// Which waits are left out, and what is idle besides what always is.
#[derive(Debug)]
pub(super) struct Filter {
    min_ns: u64,
    max_ns: u64,
    idle_functions: Vec<String>,
}

impl Filter {
    pub(super) fn new(min: Option<Duration>, max: Option<Duration>, idle_functions: Vec<String>) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { min_ns: min.map_or(0, ns), max_ns: max.map_or(u64::MAX, ns), idle_functions }
    }

    fn passes(&self, wait: &Wait) -> bool {
        (self.min_ns..=self.max_ns).contains(&wait.clocks.duration_ns())
    }
}

/// What a recording leaves behind.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) builder: ProfileBuilder,
    pub(super) quality: Quality,
    pub(super) outputs: Outputs,
    pub(super) target: Target,
    pub(super) started_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) ring_records: u64,
    pub(super) run_time: RunTime,
    pub(super) cpu_ns: Option<u64>,
    pub(super) peak_resident_bytes: Option<u64>,
    /// An output failed meanwhile; the others are finished all the same.
    pub(super) failure: Option<Failure>,
}

/// A recording that runs.
#[derive(Debug)]
pub(super) struct Recording<'b> {
    session: Session,
    ring: AsyncRing,
    target: GoTarget<'b>,
    correlator: Correlator,
    symbolizer: Symbolizer<'b>,
    builder: ProfileBuilder,
    outputs: Outputs,
    filter: Filter,
    /// The programs' counters when the recording began: what happened while attaching is no loss.
    baseline: HashMap<&'static str, u64>,
    started_ns: u64,
    ring_records: u64,
    failure: Option<Failure>,
}

impl<'b> Recording<'b> {
    /// Takes over attached programs: finds the waits that were open before, then says that it records.
    pub(super) fn begin(
        mut session: Session,
        target: GoTarget<'b>,
        outputs: Outputs,
        filter: Filter,
    ) -> Result<Self, Failure> {
        let ring = session.take_ring()?.into_async().map_err(event_loop)?;
        let mut correlator = Correlator::new(target.pid());
        let files = session.files()?;
        for file in &files {
            correlator.open_file(&file.file, file.socket_state);
        }
        let epoll_fd = target.epoll_fd();
        if let Some(epoll) = files.iter().find(|file| Some(file.file.fd) == epoll_fd) {
            session.set_eventpoll(epoll.private_data)?;
        }
        open_waits::put(&mut session, &target, files)?;
        let baseline =
            session.counters()?.into_iter().map(|(counter, count)| (counter.name(), count)).collect();
        let symbolizer = target.symbolizer();
        tell(&format!("recording {}, {}; Ctrl-C ends it", target.name(), target.go_version()));
        Ok(Self {
            session,
            ring,
            target,
            correlator,
            symbolizer,
            builder: ProfileBuilder::default(),
            outputs,
            filter,
            baseline,
            started_ns: now_ns(),
            ring_records: 0,
            failure: None,
        })
    }

    /// Records until told to stop, then adds what is still open.
    pub(super) async fn run(mut self, args: &AttachArgs) -> Result<Recorded, Failure> {
        let why = self.until_stopped(args).await?;
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        if let Some(why) = why {
            tell(why);
        }
        self.finish()
    }

    /// Returns why it stopped, when that is worth a line.
    async fn until_stopped(&mut self, args: &AttachArgs) -> Result<Option<&'static str>, Failure> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(event_loop)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(event_loop)?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = args.duration.and_then(|duration| Instant::now().checked_add(duration));
        let mut log = if args.verbose > 1 { Some(self.session.take_log()?) } else { None };
        let progress = io::stderr().is_terminal();
        let mut ticks = 0u32;
        loop {
            tokio::select! {
                readable = self.ring.readable() => readable.map_err(event_loop)?,
                _ = tick.tick() => ticks = ticks.wrapping_add(1),
                _ = interrupt.recv() => return Ok(None),
                _ = terminate.recv() => return Ok(None),
                () = sleep_until(end.unwrap_or_else(|| Instant::now() + FAR_AWAY)), if end.is_some() => return Ok(None),
            }
            self.drain();
            if let Some(log) = &mut log {
                log.flush();
            }
            if self.target.has_exited() {
                return Ok(Some("the process has exited; this is what was recorded"));
            }
            if self.outputs.nobody_reads() {
                return Ok(None);
            }
            if progress && ticks.is_multiple_of(PROGRESS_TICKS) {
                self.draw_progress();
            }
        }
    }

    /// Reads the ring, and passes on every wait that is complete.
    fn drain(&mut self) {
        let Self { ring, correlator, .. } = self;
        let records = ring.drain(|bytes| match event::decode(bytes) {
            Ok(event) => correlator.push(event),
            Err(_) => correlator.undecodable(),
        });
        self.ring_records += records as u64;
        let ready: Vec<Correlated> = self.correlator.take_ready().collect();
        self.pass_on(ready);
        let flushed = self.outputs.flush();
        self.note(flushed);
    }

    fn pass_on(&mut self, waits: impl IntoIterator<Item = Correlated>) {
        for Correlated { mut wait, stack_hash, pcs, sent } in waits {
            if let Some(pcs) = pcs {
                wait.stack = Some(self.symbolizer.stack(stack_hash, &pcs, self.builder.stacks_mut()));
            }
            self.add(wait, sent);
        }
    }

    /// A wait with its stack: classified, filtered, added, written.
    fn add(&mut self, mut wait: Wait, sent: Sent) {
        let stack = wait.stack.and_then(|id| self.builder.stacks().get(id));
        self.correlator.count_stack(stack.map(AsRef::as_ref));
        if let Some(stack) = stack {
            wait.role = classify::role(&wait, stack);
            wait.idle = classify::idle(&wait, stack, &self.filter.idle_functions);
            classify::split_idle(&mut wait, sent, stack);
        }
        if !self.filter.passes(&wait) {
            return;
        }
        self.builder.add(&wait);
        let written = self.outputs.wait(&wait, self.builder.stacks());
        self.note(written);
    }

    /// An output that failed is told at once, and ends the command as failed when it is done.
    fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            tell(&failure.to_string());
            self.failure.get_or_insert(failure);
        }
    }

    fn draw_progress(&self) {
        let (waits, idle) = self.builder.counts();
        let seconds = Duration::from_nanos(now_ns().saturating_sub(self.started_ns)).as_secs_f64();
        let _ =
            write!(io::stderr(), "\r\x1b[K{seconds:.1} s, {waits} waits, {idle} idle ones; Ctrl-C ends it");
    }

    fn finish(mut self) -> Result<Recorded, Failure> {
        let end_ns = now_ns();
        self.correlator.end_at(end_ns);
        let exited = self.target.has_exited();
        let slots = self.session.slots()?;
        self.drain();
        let held: Vec<Correlated> = self.correlator.take_all().collect();
        self.pass_on(held);
        if !exited {
            self.add_open(&slots, end_ns)?;
        }
        let counters: Vec<(Counter, u64)> = self
            .session
            .counters()?
            .into_iter()
            .map(|(counter, count)| {
                let before = self.baseline.get(counter.name()).copied().unwrap_or(0);
                (counter, count.saturating_sub(before))
            })
            .collect();
        let quality = self.correlator.quality(&counters);
        let run_time = self.session.run_time();
        let flushed = self.outputs.flush();
        self.note(flushed);
        let Self { session, target, builder, outputs, started_ns, ring_records, failure, .. } = self;
        // Detached before anything is rendered: the target must not pay for that.
        drop(session);
        Ok(Recorded {
            builder,
            quality,
            outputs,
            target: target.describe(),
            started_ns,
            duration_ns: end_ns.saturating_sub(started_ns),
            ring_records,
            run_time,
            cpu_ns: cpu_ns(),
            peak_resident_bytes: peak_resident_bytes(),
            failure,
        })
    }

    /// The waits that were open at `end_ns`, with stacks from a snapshot. A slot that is still taken although its
    /// goroutine is not parked there is no wait: the goroutine turned away before it parked.
    fn add_open(&mut self, slots: &[(u64, PollDescSlot)], end_ns: u64) -> Result<(), Failure> {
        let waiting = self.target.waiting();
        self.drain();
        let files: HashMap<i32, FileRecord> =
            self.session.files()?.into_iter().map(|file| (file.file.fd, file)).collect();
        let later: HashMap<u64, PollDescSlot> = self.session.slots()?.into_iter().collect();
        let parked: Option<HashMap<(u64, u64), &Goroutine>> = waiting.as_ref().map(|waiting| {
            waiting.iter().filter_map(|g| Some(((g.poll.as_ref()?.poll_desc, g.g), g))).collect()
        });
        let parked_at = |pd: u64, g: u64| parked.as_ref().map(|parked| parked.get(&(pd, g)).copied());
        for (pd, slot) in slots {
            let after = later.get(pd).copied().unwrap_or_else(PollDescSlot::new_zeroed);
            let mut slot = *slot;
            for (wait, after) in [(&mut slot.read, &after.read), (&mut slot.write, &after.write)] {
                let still_taken = wait.start_ns != 0 && wait.start_ns == after.start_ns;
                if still_taken && parked_at(*pd, wait.g) == Some(None) {
                    wait.start_ns = 0;
                    self.correlator.turned_away();
                }
            }
            for (taken, mut wait) in self.correlator.open(&slot, end_ns) {
                let g = taken.g;
                if let Some(Some(Goroutine { stack: StackState::Walked(stack), poll: Some(poll), .. })) =
                    parked_at(*pd, g)
                {
                    let pcs = stack.frames.iter().skip(poll.frame).map(|frame| (frame.pc, frame.is_exact));
                    wait.stack = Some(self.symbolizer.walked(pcs, self.builder.stacks_mut()));
                } else if let Some(pcs) = self.correlator.late_stack(*pd, g, wait.clocks.start_ns) {
                    let pcs = pcs.iter().enumerate().map(|(depth, pc)| (*pc, depth == 0));
                    wait.stack = Some(self.symbolizer.walked(pcs, self.builder.stacks_mut()));
                }
                self.add(wait, Sent::of_open(&taken, files.get(&taken.fd)));
            }
        }
        Ok(())
    }
}

fn event_loop(error: io::Error) -> Failure {
    let cause = anyhow::Error::from(error).context("cannot wait for events");
    Failure::new(Exit::Failed, cause, "are there file descriptors left? ulimit -n")
}
