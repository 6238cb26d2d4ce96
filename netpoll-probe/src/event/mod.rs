//! Bytes of the ring → typed records. Pure, so a recorded stream of bytes replays.
#![forbid(unsafe_code)]

pub mod order;

use netpoll_probe_common::record::{
    ExecRecord, FirstWaitRecord, Header, LabelsRecord, ResolveRecord, SpuriousRecord, StackRecord,
    UnixNameRecord, WaitRecord, kind,
};
use thiserror::Error;
use zerocopy::FromBytes;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A wait ended.
    Wait(WaitRecord),
    /// The same, and its file, which was not told before.
    FirstWait(Box<FirstWaitRecord>),
    /// The addresses of a stack that waits will name.
    Stack(Box<StackRecord>),
    /// The names of a unix socket.
    UnixName(Box<UnixNameRecord>),
    /// The pprof labels that waits will name.
    Labels(Box<LabelsRecord>),
    /// The last wait of a goroutine was spurious.
    Spurious(SpuriousRecord),
    /// The process runs another program.
    Exec(ExecRecord),
    /// A call of the C library's resolver ended.
    Resolve(ResolveRecord),
}

impl Event {
    /// When it was, CLOCK_MONOTONIC ns; `None`: its time does not matter.
    #[must_use]
    pub fn at_ns(&self) -> Option<u64> {
        match self {
            Self::Wait(record) => Some(record.end_ns),
            Self::FirstWait(record) => Some(record.wait.end_ns),
            Self::Spurious(record) => Some(record.again_ns),
            Self::Exec(record) => Some(record.at_ns),
            Self::Stack(_) | Self::UnixName(_) | Self::Labels(_) | Self::Resolve(_) => None,
        }
    }

    /// The process, in the initial PID namespace.
    #[must_use]
    pub fn tgid(&self) -> u32 {
        match self {
            Self::Wait(record) => record.header.tgid,
            Self::FirstWait(record) => record.wait.header.tgid,
            Self::Stack(record) => record.header.tgid,
            Self::UnixName(record) => record.header.tgid,
            Self::Labels(record) => record.header.tgid,
            Self::Spurious(record) => record.header.tgid,
            Self::Exec(record) => record.header.tgid,
            Self::Resolve(record) => record.header.tgid,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than a header, or than the record's kind has.
    #[error("a record of kind {kind} with {bytes} bytes")]
    Size {
        /// The kind, 0 when even that is missing.
        kind: u16,
        /// How many bytes there were.
        bytes: usize,
    },
    /// A kind that this version does not know.
    #[error("a record of unknown kind {kind}")]
    Kind {
        /// The kind.
        kind: u16,
    },
}

/// Decodes one record.
///
/// # Errors
/// When the bytes are too few or of an unknown kind.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let header: Header = read(bytes).ok_or(DecodeError::Size { kind: 0, bytes: bytes.len() })?;
    let wrong_size = || DecodeError::Size { kind: header.kind, bytes: bytes.len() };
    match header.kind {
        kind::WAIT => read(bytes).map(Event::Wait).ok_or_else(wrong_size),
        kind::FIRST_WAIT => {
            read(bytes).map(|record| Event::FirstWait(Box::new(record))).ok_or_else(wrong_size)
        }
        kind::STACK => read(bytes).map(|record| Event::Stack(Box::new(record))).ok_or_else(wrong_size),
        kind::UNIX_NAME => read(bytes).map(|record| Event::UnixName(Box::new(record))).ok_or_else(wrong_size),
        kind::LABELS => read(bytes).map(|record| Event::Labels(Box::new(record))).ok_or_else(wrong_size),
        kind::SPURIOUS => read(bytes).map(Event::Spurious).ok_or_else(wrong_size),
        kind::EXEC => read(bytes).map(Event::Exec).ok_or_else(wrong_size),
        kind::RESOLVE => read(bytes).map(Event::Resolve).ok_or_else(wrong_size),
        kind => Err(DecodeError::Kind { kind }),
    }
}

/// The ring pads records, so more bytes than the record has are fine.
fn read<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).map(|(record, _)| record).ok()
}

/// Splits a recorded stream into its records, by the length in each header. Stops at the first that does not fit.
pub fn split(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (header, _) = Header::read_from_prefix(stream).ok()?;
        let length = (header.bytes as usize).max(size_of::<Header>());
        let (record, rest) = stream.split_at_checked(length)?;
        stream = rest;
        Some(record)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn spurious() -> SpuriousRecord {
        let header = Header { kind: kind::SPURIOUS, bytes: 40, tgid: 7 };
        SpuriousRecord { header, pd: 1, goid: 2, again_ns: 3, mode: u64::from(b'r') }
    }

    #[test]
    fn a_stream_of_two_records_replays() {
        let mut stream = spurious().as_bytes().to_vec();
        stream.extend_from_slice(spurious().as_bytes());
        let events: Vec<_> = split(&stream).map(decode).collect();
        assert_eq!(events, [Ok(Event::Spurious(spurious())), Ok(Event::Spurious(spurious()))]);
    }

    #[test]
    fn cut_and_unknown_records_are_named() {
        let record = spurious();
        let bytes = record.as_bytes();
        assert_eq!(decode(&bytes[..20]).unwrap_err(), DecodeError::Size { kind: kind::SPURIOUS, bytes: 20 });
        assert_eq!(decode(&bytes[..3]).unwrap_err(), DecodeError::Size { kind: 0, bytes: 3 });
        let unknown = Header { kind: 99, bytes: 8, tgid: 7 };
        assert_eq!(decode(unknown.as_bytes()).unwrap_err().to_string(), "a record of unknown kind 99");
    }

    #[test]
    fn a_first_wait_has_its_file() {
        let mut record = FirstWaitRecord::new_zeroed();
        (record.wait.header.kind, record.file.inode) = (kind::FIRST_WAIT, 7);
        let bytes = record.as_bytes();
        assert_eq!(decode(bytes), Ok(Event::FirstWait(Box::new(record))));
        let wait_only = &bytes[..size_of::<WaitRecord>()];
        let bytes = wait_only.len();
        assert_eq!(decode(wait_only), Err(DecodeError::Size { kind: kind::FIRST_WAIT, bytes }));
    }

    proptest! {
        #[test]
        fn any_bytes_end_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            for record in split(&bytes) {
                let _ = decode(record);
            }
        }
    }
}
