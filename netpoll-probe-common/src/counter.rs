//! Counters of what the eBPF programs could not do. Every failure has one, and every report prints those that are
//! not zero.

/// One counter; its number is its index in the per-CPU array `COUNTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Waits lost: the ring buffer was full.
    RingFullWait,
    /// Stacks lost: the ring buffer was full (the next wait with that stack hands it over again).
    RingFullStack,
    /// Unix socket names lost: the ring buffer was full.
    RingFullUnixName,
    /// Spurious-wake marks lost: the ring buffer was full.
    RingFullSpurious,
    /// Waits lost: no memory or room for the pollDesc's slot.
    SlotsFull,
    /// Ends of a wait whose start was not seen.
    EndWithoutStart,
    /// Starts that found their pollDesc's slot still taken by a wait whose end was not seen.
    StartWithoutEnd,
    /// Starts or ends whose goroutine or pollDesc could not be read.
    ReadTarget,
    /// Ends whose outcome could not be read; they are lost.
    ReadOutcome,
    /// Stacks that could not be walked.
    StackWalk,
    /// Files of a wait that could not be read from the kernel.
    ReadFile,
    /// Event arrays of `epoll_pwait` that could not be read: their polls are unknown.
    ReadPollEvents,
    /// `epoll_pwait` calls that returned more events than Go's poller takes; the rest is unknown.
    PollEventsCut,
    /// Label sets lost: the ring buffer was full.
    RingFullLabels,
    /// Label sets that could not be read whole: more than eight labels, or preempted.
    ReadLabels,
    /// Epoll items that could not be read in `ep_poll_callback`.
    ReadEpollItem,
    /// Execs of a target that were not told: the ring buffer was full.
    RingFullExec,
    /// Calls of the C library's resolver that were not told: the ring buffer was full.
    RingFullResolve,
    /// Calls of the C library's resolver that could not be remembered.
    ResolvesFull,
    /// Ends of such calls whose start was not seen.
    ResolveWithoutStart,
    /// Connects that could not be remembered: their waits are lost.
    ConnectsFull,
    /// Goroutines that were found waiting for a collected event, and whose system call before had not been seen: waits that are lost.
    StartUnseen,
    /// PollDescs that could not be read when their event was collected, or when it was asked whether that was taken: who had been told
    /// EAGAIN is taken to have parked.
    ReadAtPoll,
}

impl Counter {
    /// All counters, in the order of their numbers.
    pub const ALL: [Self; 23] = [
        Self::RingFullWait,
        Self::RingFullStack,
        Self::RingFullUnixName,
        Self::RingFullSpurious,
        Self::SlotsFull,
        Self::EndWithoutStart,
        Self::StartWithoutEnd,
        Self::ReadTarget,
        Self::ReadOutcome,
        Self::StackWalk,
        Self::ReadFile,
        Self::ReadPollEvents,
        Self::PollEventsCut,
        Self::RingFullLabels,
        Self::ReadLabels,
        Self::ReadEpollItem,
        Self::RingFullExec,
        Self::RingFullResolve,
        Self::ResolvesFull,
        Self::ResolveWithoutStart,
        Self::ConnectsFull,
        Self::StartUnseen,
        Self::ReadAtPoll,
    ];

    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFullWait => "ring_full_wait",
            Self::RingFullStack => "ring_full_stack",
            Self::RingFullUnixName => "ring_full_unix_name",
            Self::RingFullSpurious => "ring_full_spurious",
            Self::SlotsFull => "slots_full",
            Self::EndWithoutStart => "end_without_start",
            Self::StartWithoutEnd => "start_without_end",
            Self::ReadTarget => "read_target",
            Self::ReadOutcome => "read_outcome",
            Self::StackWalk => "stack_walk",
            Self::ReadFile => "read_file",
            Self::ReadPollEvents => "read_poll_events",
            Self::PollEventsCut => "poll_events_cut",
            Self::RingFullLabels => "ring_full_labels",
            Self::ReadLabels => "read_labels",
            Self::ReadEpollItem => "read_epoll_item",
            Self::RingFullExec => "ring_full_exec",
            Self::RingFullResolve => "ring_full_resolve",
            Self::ResolvesFull => "resolves_full",
            Self::ResolveWithoutStart => "resolve_without_start",
            Self::ConnectsFull => "connects_full",
            Self::StartUnseen => "start_unseen",
            Self::ReadAtPoll => "read_at_poll",
        }
    }

    /// Whether a wait is missing from the report for each count (the others leave a part of a wait unknown).
    #[must_use]
    pub const fn loses_a_wait(self) -> bool {
        matches!(
            self,
            Self::RingFullWait
                | Self::SlotsFull
                | Self::ReadTarget
                | Self::ReadOutcome
                | Self::StartWithoutEnd
                | Self::ConnectsFull
                | Self::StartUnseen
        )
    }
}

const _: () = {
    let mut i = 0;
    while i < Counter::ALL.len() {
        assert!(Counter::ALL[i] as usize == i, "Counter::ALL is not in the order of the numbers");
        i += 1;
    }
};
