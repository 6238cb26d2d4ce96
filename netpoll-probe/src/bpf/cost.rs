//! What hooks cost: the one place of these figures. They are expectations, to choose and to tell by; what a recording did
//! cost is in its report.
//!
//! Measured on Linux 6.18, a virtual machine of two cores, where a trap is dear, with prototypes of the programs: their run
//! time as the kernel counts it (`BPF_ENABLE_STATS`), and the trap of an emulated uprobe by itself.

use std::fmt;

/// What the hooks of one clock are expected to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedCost {
    /// From, nanoseconds.
    pub least_ns: u32,
    /// To, nanoseconds.
    pub most_ns: u32,
    /// How often.
    pub per: &'static str,
    /// Every process of the machine pays it, not only the target.
    pub machine_wide: bool,
}

impl ExpectedCost {
    const fn of_target(least_ns: u32, most_ns: u32, per: &'static str) -> Self {
        Self { least_ns, most_ns, per, machine_wide: false }
    }

    const fn of_machine(least_ns: u32, most_ns: u32, per: &'static str) -> Self {
        Self { least_ns, most_ns, per, machine_wide: true }
    }

    /// The uprobe at the start of a wait: a trap of 500 to 800 ns, and a program of 1,200 to 1,700 ns that walks the stack.
    pub const WAIT_START: Self = Self::of_target(1_700, 2_500, "wait");
    /// The uprobe at its end: the same trap, and a program of 700 to 850 ns that sends the record.
    pub const WAIT_END: Self = Self::of_target(1_200, 1_650, "wait");
    /// The tracepoint at the exit of system calls, where it begins or ends a wait.
    pub const SYSCALL_EXIT: Self = Self::of_machine(20, 600, "system call");
    /// The uprobe where waits are broken off: as that at their end, for deadlines and closes only.
    pub const BROKEN_OFF: Self = Self::of_target(1_200, 2_200, "wait that is broken off");
    /// The tracepoint at the exit of `epoll_pwait`, with some events to decode.
    pub const POLL_EXIT: Self = Self::of_machine(850, 1_050, "epoll_pwait");
    /// The uprobe in `netpollready`: the trap, and a program like that of a wait's end.
    pub const NETPOLLREADY: Self = Self::of_target(1_200, 1_650, "wakeup");
    /// fentry on `ep_poll_callback`: as much as the tracepoint `sk_data_ready`, by comparison on an emulated machine.
    pub const CALLBACK_FENTRY: Self = Self::of_machine(250, 500, "event of any fd in an epoll set");
    /// kprobe on it: 1.5 to 1.8 times fentry, by comparison on an emulated machine.
    pub const CALLBACK_KPROBE: Self = Self::of_machine(400, 900, "event of any fd in an epoll set");
    /// The tracepoints that stand in for it: from a socket that is not the target's to a thread that is woken.
    pub const STAND_INS: Self = Self::of_machine(250, 620, "segment received, and thread woken");
}

impl fmt::Display for ExpectedCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micro = |ns: u32| f64::from(ns) / 1e3;
        write!(f, "{:.1} to {:.1} µs for each {}", micro(self.least_ns), micro(self.most_ns), self.per)?;
        if self.machine_wide { write!(f, " of the machine") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_told_in_words() {
        assert_eq!(ExpectedCost::WAIT_START.to_string(), "1.7 to 2.5 µs for each wait");
        assert_eq!(ExpectedCost::POLL_EXIT.to_string(), "0.8 to 1.1 µs for each epoll_pwait of the machine");
    }
}
