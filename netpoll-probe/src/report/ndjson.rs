//! One line for each wait, while they come. `schema/wait.json` says what is in it.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::Arc,
};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::model::{
    stack::{Frame, StackId, StackTable},
    wait::{Address, Direction, KernelReadySource, Kind, Mode, Outcome, Poller, Role, Wait},
};

/// Whole lines are handed on when this many bytes have come together.
const BATCH_BYTES: usize = 64 << 10;
/// Stacks are kept as JSON up to this many bytes.
const STACKS_BYTES: usize = 8 << 20;

/// Writes one line for each wait. It hands on whole lines only, in batches: [`Self::flush`] at the end.
#[derive(Debug)]
pub struct NdjsonWriter<W> {
    out: W,
    batch: Vec<u8>,
    stacks: HashMap<StackId, Box<RawValue>>,
    stacks_bytes: usize,
}

/// The fields, in the order that they are written in. Never rename one; add at the end.
#[derive(Serialize)]
struct Record<'wait> {
    goid: u64,
    fd: i32,
    mode: Mode,
    outcome: Outcome,
    spurious: bool,
    start_ns: u64,
    kernel_ready_ns: Option<u64>,
    kernel_ready_source: KernelReadySource,
    poll_ns: Option<u64>,
    end_ns: u64,
    peer_ns: Option<u64>,
    pickup_ns: Option<u64>,
    queue_ns: Option<u64>,
    unknown_ns: u64,
    poller: Poller,
    idle: bool,
    kind: Kind,
    role: Role,
    local: Option<&'wait Address>,
    remote: Option<&'wait Address>,
    tid: u32,
    stack: StackField<'wait>,
    #[serde(serialize_with = "as_object")]
    labels: &'wait [(Arc<str>, Arc<str>)],
    pid: u32,
    started_before: bool,
    idle_ns: u64,
    kernel_ready_after_ns: Option<u64>,
    direction: Direction,
    stack_truncated: bool,
    stands_for: u32,
}

/// A stack that is not known has no frames.
enum StackField<'wait> {
    Unknown,
    Known(&'wait RawValue),
}

impl Serialize for StackField<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => [(); 0].serialize(serializer),
            Self::Known(json) => json.serialize(serializer),
        }
    }
}

fn as_object<S: Serializer>(labels: &&[(Arc<str>, Arc<str>)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(labels.len()))?;
    for (key, value) in *labels {
        object.serialize_entry(key, value)?;
    }
    object.end()
}

impl<W: Write> NdjsonWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            batch: Vec::with_capacity(BATCH_BYTES + (BATCH_BYTES >> 2)),
            stacks: HashMap::new(),
            stacks_bytes: 0,
        }
    }

    /// Writes one wait, whose stack is one of `stacks`: always the same table for one writer.
    ///
    /// # Errors
    /// Those of the underlying writer, after which the output may end within a line.
    pub fn write(&mut self, wait: &Wait, stacks: &StackTable) -> io::Result<()> {
        let phases = wait.phases();
        let known = wait.stack.and_then(|id| Some((id, stacks.get(id)?)));
        let once;
        let stack = match known {
            None => StackField::Unknown,
            Some((id, stack)) => {
                if !self.stacks.contains_key(&id) && self.stacks_bytes < STACKS_BYTES {
                    let json = frames_json(&stack.frames)?;
                    self.stacks_bytes += json.get().len();
                    self.stacks.insert(id, json);
                }
                match self.stacks.get(&id) {
                    Some(json) => StackField::Known(json),
                    None => {
                        once = frames_json(&stack.frames)?;
                        StackField::Known(&once)
                    }
                }
            }
        };
        let record = Record {
            goid: wait.goid,
            fd: wait.fd,
            mode: wait.mode,
            outcome: wait.outcome,
            spurious: wait.spurious,
            start_ns: wait.clocks.start_ns,
            kernel_ready_ns: wait.clocks.kernel_ready_ns,
            kernel_ready_source: wait.clocks.kernel_ready_source,
            poll_ns: wait.clocks.poll_ns,
            end_ns: wait.clocks.end_ns,
            peer_ns: phases.peer_ns,
            pickup_ns: phases.pickup_ns,
            queue_ns: phases.queue_ns,
            unknown_ns: phases.unknown_ns,
            poller: wait.poller,
            idle: wait.idle,
            kind: wait.endpoint.kind,
            role: wait.role,
            local: wait.endpoint.local.as_ref(),
            remote: wait.endpoint.remote.as_ref(),
            tid: wait.tid,
            stack,
            labels: wait.labels.as_deref().unwrap_or_default(),
            pid: wait.pid,
            started_before: wait.started_before,
            idle_ns: wait.idle_ns,
            kernel_ready_after_ns: wait.clocks.kernel_ready_after_ns,
            direction: wait.endpoint.direction,
            stack_truncated: known.is_some_and(|(_, stack)| stack.truncated),
            stands_for: wait.stands_for,
        };
        serde_json::to_writer(&mut self.batch, &record)?;
        self.batch.push(b'\n');
        if self.batch.len() >= BATCH_BYTES { self.hand_on() } else { Ok(()) }
    }

    /// Hands on every line that was written.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.out.flush()
    }

    /// The underlying writer. What was not flushed is dropped.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn hand_on(&mut self) -> io::Result<()> {
        self.out.write_all(&self.batch)?;
        self.batch.clear();
        Ok(())
    }
}

fn frames_json(frames: &[Frame]) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{stack, wait};

    #[test]
    fn hands_on_whole_lines_only() {
        struct Batches(Vec<Vec<u8>>);
        impl Write for Batches {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = NdjsonWriter::new(Batches(Vec::new()));
        for start_ns in 0..1000 {
            writer.write(&wait(start_ns, start_ns + 5), &StackTable::default()).unwrap();
        }
        writer.flush().unwrap();
        let batches = writer.into_inner().0;
        assert!(batches.len() > 2);
        assert!(batches.iter().all(|batch| batch.ends_with(b"\n")));
        assert_eq!(batches.concat().split(|byte| *byte == b'\n').count(), 1001);
    }

    #[test]
    fn stacks_beyond_the_cache_are_written_as_well() {
        let mut stacks = StackTable::default();
        let id = stacks.intern(stack(&["main.main /src/main.go:12"]));
        let wait = Wait { stack: Some(id), ..wait(0, 5) };
        let mut full = NdjsonWriter { stacks_bytes: STACKS_BYTES, ..NdjsonWriter::new(Vec::new()) };
        let mut fresh = NdjsonWriter::new(Vec::new());
        for writer in [&mut full, &mut fresh] {
            writer.write(&wait, &stacks).unwrap();
            writer.flush().unwrap();
        }
        assert!(full.stacks.is_empty());
        assert_eq!(full.out, fresh.out);
    }

    #[test]
    fn a_closed_pipe_is_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = NdjsonWriter::new(Closed);
        writer.write(&wait(0, 1), &StackTable::default()).unwrap();
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
