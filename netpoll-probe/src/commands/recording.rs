//! The recording itself: from attached programs to a finished sum of waits.

use std::{
    future::poll_fn,
    io::{self, IsTerminal as _, Write as _},
    task::Poll,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    adder::Adder,
    attached::Attached,
    attacher::Attacher,
    budget::Budget,
    filter::Filter,
    launch::Launched,
    member::Member,
    meter::BpfCost,
    open_waits,
    outputs::Outputs,
    overhead::{self, Overhead},
    own::{cpu_ns, now_ns, peak_resident_bytes},
    privileges::Privileges,
    record::{self, Start},
    records::Until,
    selection::Selection,
    tally::Tally,
    tell,
};
use crate::{
    bpf::links::Closing,
    error::Failure,
    exit::Exit,
    model::{
        builder::ProfileBuilder,
        profile::{Budget as Told, Plan, Target},
        quality::Quality,
    },
};

/// How often the ring is looked at; the programs wake us only when much is waiting.
const TICK: Duration = Duration::from_millis(20);
/// How many ticks pass between two progress lines, and between two looks for new processes.
const SELDOM_TICKS: u32 = 10;
/// `sleep_until` wants a time even when its branch is off.
const FAR_AWAY: Duration = Duration::from_secs(86_400);

/// What a recording leaves behind.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) builder: ProfileBuilder,
    pub(super) quality: Quality,
    pub(super) outputs: Outputs,
    pub(super) targets: Vec<Target>,
    pub(super) plan: Plan,
    pub(super) started_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) ring_records: u64,
    pub(super) bpf_cost: Option<BpfCost>,
    pub(super) budget: Option<Told>,
    pub(super) cpu_ns: Option<u64>,
    pub(super) peak_resident_bytes: Option<u64>,
    /// An output failed meanwhile; the others are finished all the same.
    pub(super) failure: Option<Failure>,
    /// The probes, on their way out of the targets.
    pub(super) closing: Closing,
}

/// A recording that runs.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) attacher: Attacher,
    pub(super) selection: Selection,
    pub(super) privileges: Privileges,
    /// What `run` started; dropped, it ends.
    pub(super) launched: Option<Launched>,
    /// One for each executable.
    pub(super) attached: Vec<Attached>,
    /// Of the processes that were attached to, whether or not they still run.
    pub(super) targets: Vec<Target>,
    pub(super) adder: Adder,
    pub(super) overhead: Overhead,
    /// 0 until all are attached to.
    pub(super) started_ns: u64,
}

impl Recording {
    /// Attaches to the processes that are selected, finds the waits that were open before, and says that it records.
    pub(super) fn begin(
        attacher: Attacher,
        start: Start,
        outputs: Outputs,
        filter: Filter,
        overhead: Overhead,
    ) -> Result<Self, Failure> {
        let (selection, launched) = match start {
            Start::Selected(selection) => (selection, None),
            Start::Launched(launched) => (Selection::launched(launched.pid()), Some(launched)),
        };
        let mut this = Self {
            attacher,
            selection,
            privileges: Privileges::default(),
            launched,
            attached: Vec::new(),
            targets: Vec::new(),
            adder: Adder::new(Tally::new(filter), outputs),
            overhead,
            started_ns: 0,
        };
        if this.launched.is_some() {
            this.expect_launched()?;
        } else {
            this.join_new()?;
        }
        if this.attached.is_empty() && !this.selection.grows() {
            return Err(this.selection.nothing_found());
        }
        this.adder.outputs.begin()?;
        this.attacher.rest();
        this.privileges.drop_others();
        tell(&this.begins());
        this.started_ns = now_ns();
        let run_time = overhead::run_time(&this.attached);
        this.overhead.meter.begin(this.started_ns, run_time);
        if let Some(launched) = &this.launched {
            launched.go_on()?;
        }
        Ok(this)
    }

    /// The line that says what is recorded.
    fn begins(&self) -> String {
        let processes: Vec<&Member> = self.attached.iter().flat_map(Attached::members).collect();
        let what = match processes.as_slice() {
            [] => format!("{}", self.selection),
            [one] => format!("{}, {}", one.process.name(), one.process.program().go_version()),
            [first, rest @ ..] => format!("{} and {} more", first.process.name(), rest.len()),
        };
        format!("recording {what}; Ctrl-C ends it")
    }

    /// Records until told to stop, then adds what is still open.
    pub(super) async fn run(mut self, duration: Option<Duration>) -> Result<Recorded, Failure> {
        let why = self.until_stopped(duration).await?;
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        if let Some(why) = why {
            tell(why);
        }
        let launched = self.launched.take();
        let recorded = self.finish();
        drop(launched);
        recorded
    }

    /// Returns why it stopped, when that is worth a line.
    async fn until_stopped(&mut self, duration: Option<Duration>) -> Result<Option<&'static str>, Failure> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(event_loop)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(event_loop)?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = duration.and_then(|duration| Instant::now().checked_add(duration));
        let mut log = match self.attached.first_mut().filter(|_| self.attacher.logs()) {
            Some(attached) => Some(attached.session.take_log()?),
            None => None,
        };
        let progress = io::stderr().is_terminal();
        let mut ticks = 0u32;
        loop {
            let mut is_seldom = false;
            tokio::select! {
                readable = readable(&mut self.attached) => readable.map_err(event_loop)?,
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    is_seldom = ticks.is_multiple_of(SELDOM_TICKS);
                }
                _ = interrupt.recv() => return Ok(None),
                _ = terminate.recv() => return Ok(None),
                () = sleep_until(end.unwrap_or_else(|| Instant::now() + FAR_AWAY)), if end.is_some() => return Ok(None),
            }
            self.drain()?;
            self.look_at_cost()?;
            if let Some(log) = &mut log {
                log.flush();
            }
            if self.part_with_ended()? {
                return Ok(Some("the process has exited; this is what was recorded"));
            }
            if self.adder.outputs.nobody_reads() {
                return Ok(None);
            }
            if is_seldom {
                if self.selection.grows() {
                    self.join_new()?;
                    self.attacher.rest();
                }
                if progress {
                    self.draw_progress()?;
                }
            }
        }
    }

    /// Reads the rings, and passes on every wait that is complete.
    fn drain(&mut self) -> Result<(), Failure> {
        for at in 0..self.attached.len() {
            let Some(attached) = self.attached.get_mut(at) else { continue };
            let execs = attached.drain(Until::Now, Some(&mut self.adder));
            attached.take(false, &mut self.adder);
            attached.open_cells()?;
            for exec in execs {
                self.exec(at, exec)?;
            }
        }
        self.adder.flush();
        Ok(())
    }

    fn draw_progress(&mut self) -> Result<(), Failure> {
        let (mut waits, mut idle) = self.adder.tally.builder.counts();
        for attached in &mut self.attached {
            let in_kernel = attached.counts_in_kernel()?;
            (waits, idle) = (waits + in_kernel.0, idle + in_kernel.1);
        }
        let seconds = Duration::from_nanos(now_ns().saturating_sub(self.started_ns)).as_secs_f64();
        let _ =
            write!(io::stderr(), "\r\x1b[K{seconds:.1} s, {waits} waits, {idle} idle ones; Ctrl-C ends it");
        Ok(())
    }

    fn finish(mut self) -> Result<Recorded, Failure> {
        for attached in &mut self.attached {
            attached.stop_adding_up()?;
        }
        let end_ns = now_ns();
        let (mut ring_records, mut closing) = (0, Closing::default());
        let run_time = overhead::run_time(&self.attached);
        for at in 0..self.attached.len() {
            let Some(attached) = self.attached.get_mut(at) else { continue };
            attached.end_at(end_ns);
            let slots = attached.session.slots()?;
            // Who runs another program now is not asked any more.
            attached.drain(Until::End, Some(&mut self.adder));
            attached.take(true, &mut self.adder);
            let open = {
                let Tally { builder, quality, .. } = &mut self.adder.tally;
                open_waits::at_end(attached, &slots, end_ns, builder.stacks_mut(), &mut quality.bypasses)?
            };
            attached.take_cells(&mut self.adder.tally)?;
            self.adder.tally.quality.merge(&attached.quality()?);
            // Not before the slots and the goroutines were read, which agree for as long as the programs are there; and before
            // anything is rendered, which the target must not pay for.
            attached.session.detach(&mut closing);
            ring_records += attached.record_count();
            for (mut wait, sent) in open {
                self.adder.add(&mut wait, sent);
            }
        }
        self.adder.flush();
        let plan = record::plans(&self.attached);
        let Self { targets, adder, started_ns, overhead: Overhead { meter, budget, .. }, .. } = self;
        let Adder { tally: Tally { builder, quality, .. }, outputs, failure } = adder;
        Ok(Recorded {
            builder,
            quality,
            outputs,
            targets,
            plan,
            started_ns,
            duration_ns: end_ns.saturating_sub(started_ns),
            ring_records,
            bpf_cost: meter.finish(end_ns, run_time),
            budget: budget.map(Budget::finish),
            cpu_ns: cpu_ns(),
            peak_resident_bytes: peak_resident_bytes(),
            failure,
            closing,
        })
    }
}

/// Waits until the programs of one of them say that much is waiting.
async fn readable(attached: &mut [Attached]) -> io::Result<()> {
    poll_fn(|context| {
        let ready = attached.iter_mut().find_map(|attached| match attached.poll_readable(context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

pub(super) fn event_loop(error: io::Error) -> Failure {
    let cause = anyhow::Error::from(error).context("cannot wait for events");
    Failure::new(Exit::Failed, cause, "are there file descriptors left? ulimit -n")
}
