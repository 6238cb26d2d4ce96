//! Records as the eBPF programs write them, of a server under load: always the same bytes for the same [`Load`].
//!
//! - Each wait is on one of `fds` pollDescs, by one of the goroutines that share it; so each fd sees several goroutines, as a
//!   connection of a pool does.
//! - Of the fds two are listeners, one in a hundred each is a pipe and a unix socket, three in ten are clients' connections with
//!   ports of their own, the others lead to 20 backends.
//! - Nine waits in ten end as ready, most others by their deadline. One in fifty is spurious, and its mark follows.
//! - Stacks are chains of `net` and `net/http`, of which a handler's has functions of the program; few are seen often, many seldom,
//!   and each leads to one backend. A third of the waits have pprof labels.
//! - Stacks, labels and names of unix sockets come before the first wait that names them, and once.
//!
//! What is new without end (a connection, a goroutine, a stack for each so many waits) is for tests of what stays bounded.
#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]
#![expect(clippy::cast_possible_truncation, reason = "numbers are made to fit")]

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Command,
    sync::Arc,
};

use netpoll_probe::gobin::GoBinary;
use netpoll_probe_common::{
    record::{
        FirstWaitRecord, Header, LabelsRecord, SpuriousRecord, StackRecord, UnixNameRecord, WaitRecord, flag,
        kind, outcome, poller, source,
    },
    slot::FileFacts,
};
use zerocopy::{FromZeros as _, Immutable, IntoBytes};

/// The process, in the initial PID namespace.
pub(crate) const TGID: u32 = 4242;
/// What is added to an address of the executable's file to give one of the process.
pub(crate) const BIAS: u64 = 0;
/// Backends that connections lead to.
const BACKENDS: u64 = 20;
/// Sets of labels.
const LABEL_SETS: u64 = 50;

/// Stacks, labels and names that the programs know to be handed over; as they, it forgets.
const REMEMBERED: usize = 1 << 14;

/// What the server does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Waits in a second.
    pub(crate) waits_per_s: u64,
    /// Open pollable fds.
    pub(crate) fds: u64,
    /// Goroutines.
    pub(crate) goroutines: u64,
    /// Distinct stacks, of which each backend has some.
    pub(crate) stacks: u64,
    /// Every so many waits a connection, a goroutine and a stack are new; 0: never.
    pub(crate) new_each: u64,
}

impl Load {
    /// A busy server.
    pub(crate) const SERVER: Self =
        Self { waits_per_s: 70_000, fds: 10_000, goroutines: 100_000, stacks: 200, new_each: 0 };
}

/// Makes the records of a [`Load`], wait by wait.
#[derive(Debug)]
pub(crate) struct Records {
    load: Load,
    /// Addresses of functions: those of chains by name, and some of all.
    chains: Vec<Vec<u64>>,
    filling: Vec<u64>,
    random: u64,
    now_ns: u64,
    waits: u64,
    known: HashSet<(u16, u64)>,
    /// The inodes that were told, by pollDesc.
    told: HashMap<u64, u64>,
}

/// Leaf first; `…` stands for functions of the program.
const CHAINS: [&[&str]; 5] = [
    // A server waits for the next request.
    &[
        "internal/poll.(*FD).Read",
        "net.(*conn).Read",
        "net/http.(*connReader).Read",
        "bufio.(*Reader).fill",
        "bufio.(*Reader).Peek",
        "net/http.(*conn).serve",
        "runtime.goexit",
    ],
    // A handler waits for a database.
    &[
        "internal/poll.(*FD).Read",
        "net.(*conn).Read",
        "bufio.(*Reader).Read",
        "…",
        "net/http.HandlerFunc.ServeHTTP",
        "net/http.serverHandler.ServeHTTP",
        "net/http.(*conn).serve",
        "runtime.goexit",
    ],
    // The transport's reader waits for an answer.
    &[
        "internal/poll.(*FD).Read",
        "net.(*conn).Read",
        "net/http.(*persistConn).Read",
        "bufio.(*Reader).fill",
        "bufio.(*Reader).Peek",
        "net/http.(*persistConn).readLoop",
        "runtime.goexit",
    ],
    // A handler writes its answer.
    &[
        "internal/poll.(*FD).Write",
        "net.(*conn).Write",
        "bufio.(*Writer).Flush",
        "…",
        "net/http.(*conn).serve",
        "runtime.goexit",
    ],
    // A listener.
    &[
        "internal/poll.(*FD).Accept",
        "net.(*netFD).accept",
        "net/http.(*Server).Serve",
        "main.main",
        "runtime.main",
    ],
];
const REQUEST: u64 = 0;
const HANDLER: u64 = 1;
const TRANSPORT: u64 = 2;
const ANSWER: u64 = 3;
const ACCEPT: u64 = 4;

/// Builds the demo's server, whose functions the stacks are of. Needs the go command.
#[must_use]
pub(crate) fn program() -> Arc<GoBinary> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop");
    let built = Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/go/demo"))
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&path)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .status()
        .unwrap();
    assert!(built.success(), "cannot build the Go program: {built}");
    // The open file stays when the folder goes.
    Arc::new(GoBinary::open(&path).unwrap())
}

impl Records {
    /// Of a server that runs `binary`.
    #[must_use]
    pub(crate) fn new(load: Load, binary: &GoBinary) -> Self {
        let module = binary.module_data();
        let text_bytes = module.max_pc - module.min_pc;
        let mut random = 1;
        let filling =
            std::iter::from_fn(|| binary.function_at(module.min_pc + next(&mut random) % text_bytes).ok())
                .take(500)
                .map(|function| u64::midpoint(function.entry_vaddr, function.end_vaddr))
                .collect();
        let wait = ["internal/poll.runtime_pollWait", "internal/poll.(*pollDesc).wait"];
        let address = |name: &&str| {
            let function = binary.function_by_name(name).unwrap();
            function.map_or(0, |function| u64::midpoint(function.entry_vaddr, function.end_vaddr))
        };
        let chains = CHAINS.map(|names| wait.iter().chain(names).map(address).collect()).to_vec();
        Self {
            load,
            chains,
            filling,
            random,
            now_ns: 1_000_000_000_000,
            waits: 0,
            known: HashSet::with_capacity(REMEMBERED),
            told: HashMap::new(),
        }
    }

    /// Appends the records of one wait.
    pub(crate) fn wait(&mut self, to: &mut Vec<u8>) {
        let new = self.waits.checked_div(self.load.new_each).unwrap_or(0);
        self.waits += 1;
        self.now_ns += 1_000_000_000 / self.load.waits_per_s;
        let number = self.random() % self.load.fds;
        let fd = 10 + number as i32;
        // The connection of an fd is a new one when its turn comes.
        let connection = number + (new + self.load.fds - 1 - number) / self.load.fds * self.load.fds;
        let goroutines_of_fd = self.load.goroutines.div_ceil(self.load.fds).max(1);
        let goid =
            100 + number + self.random() % goroutines_of_fd * self.load.fds + new * self.load.goroutines;
        // Outwards a handler waits, or a transport's reader; inwards the server reads a request, or writes an answer.
        let (outwards, inwards) = ([HANDLER, TRANSPORT], [REQUEST, ANSWER]);
        let one_of = |chains: [u64; 2], random: u64| chains[random as usize % 2];
        let random = self.random();
        let (mut file, mut socket_state, mut chain) = (file(connection, fd), 1, one_of(outwards, random));
        match number {
            0 | 1 => {
                (file.local_port, file.remote_port, socket_state, chain) =
                    (8080 + number as u16, 0, 10, ACCEPT);
            }
            _ if number % 100 == 2 => (file.mode, file.family) = (0o010_600, 0),
            _ if number % 100 == 3 => {
                (file.family, file.protocol) = (1, 0);
                self.unix_name(file.inode, to);
            }
            _ if number % 10 < 3 => {
                (file.local_port, file.remote_port) = (8080, (20_000 + connection % 40_000) as u16);
                file.remote_address[2..8].copy_from_slice(&connection.to_be_bytes()[2..8]);
                chain = one_of(inwards, random);
            }
            _ => {
                file.local_port = (20_000 + connection % 40_000) as u16;
                file.remote_address[..4].copy_from_slice(&[10, 0, 0, (connection % BACKENDS) as u8]);
                file.remote_port = 5432;
            }
        }
        let stack_hash = self.stack(chain, connection % BACKENDS, new, to);
        let labels_hash = if self.random().is_multiple_of(3) { self.labels(to) } else { 0 };
        let mode = if chain == ANSWER { b'w' } else { b'r' };
        let outcome = match self.random() % 100 {
            0..90 => outcome::READY,
            90..98 => outcome::TIMEOUT,
            98 => outcome::CLOSED,
            _ => outcome::ERROR,
        };
        let is_ready = outcome == outcome::READY;
        let end_ns = self.now_ns;
        let start_ns = end_ns - (1_000 << (self.random() % 14)) - self.random() % 1_000;
        let ready_ns = start_ns + (end_ns - start_ns) / 10 * 9;
        let poll_ns = u64::midpoint(ready_ns, end_ns);
        let pd = 0x7f00_0000_0000 + number * 0x118;
        let mut record = WaitRecord::new_zeroed();
        record.header = header::<WaitRecord>(kind::WAIT);
        (record.pd, record.goid) = (pd, goid);
        (record.start_ns, record.end_ns) = (start_ns, end_ns);
        (record.kernel_ready_ns, record.poll_ns) = if is_ready { (ready_ns, poll_ns) } else { (0, 0) };
        record.last_poll_ns = poll_ns;
        (record.stack_hash, record.labels_hash) = (stack_hash, labels_hash);
        (record.fd, record.tid, record.socket_state) = (fd, TGID + number as u32 % 8, socket_state);
        record.flags = if self.random().is_multiple_of(2) { flag::SENT_BEFORE } else { 0 };
        (record.mode, record.outcome, record.kernel_ready_source) = (mode, outcome, source::CALLBACK);
        record.poller = if self.random().is_multiple_of(4) { poller::NONBLOCKING } else { poller::BLOCKING };
        if self.told.insert(pd, file.inode) == Some(file.inode) {
            put(to, &record);
        } else {
            record.header = header::<FirstWaitRecord>(kind::FIRST_WAIT);
            put(to, &FirstWaitRecord { wait: record, file });
        }
        if is_ready && self.random().is_multiple_of(50) {
            let header = header::<SpuriousRecord>(kind::SPURIOUS);
            put(to, &SpuriousRecord { header, pd, goid, again_ns: end_ns + 2_000, mode: u64::from(mode) });
        }
    }

    /// Whether the programs would hand it over now.
    fn is_new(&mut self, kind: u16, hash: u64) -> bool {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert((kind, hash))
    }

    fn random(&mut self) -> u64 {
        next(&mut self.random)
    }

    /// The hash of a stack: one of those that lead to the backend; few are named often.
    fn stack(&mut self, chain: u64, backend: u64, new: u64, to: &mut Vec<u8>) -> u64 {
        let few = self.random() % (self.load.stacks / BACKENDS).max(1);
        let nearest = self.random() % (few + 1);
        let number = match chain {
            HANDLER | TRANSPORT => nearest * BACKENDS + backend,
            _ => nearest,
        };
        let mut random = (number + new * self.load.stacks) * CHAINS.len() as u64 + chain;
        let hash = next(&mut random) | 1;
        if self.is_new(kind::STACK, hash) {
            let mut record = StackRecord::new_zeroed();
            (record.header, record.hash) = (header::<StackRecord>(kind::STACK), hash);
            let mut pcs = Vec::new();
            for pc in &self.chains[chain as usize] {
                match pc {
                    0 => {
                        let filled = 4 + next(&mut random) % 12;
                        let one = |_| self.filling[next(&mut random) as usize % self.filling.len()];
                        pcs.extend((0..filled).map(one));
                    }
                    _ => pcs.push(*pc + number % 3),
                }
            }
            record.frames = pcs.len() as u64;
            for (to, pc) in record.pcs.iter_mut().zip(pcs) {
                *to = pc + BIAS;
            }
            put(to, &record);
        }
        hash
    }

    fn labels(&mut self, to: &mut Vec<u8>) -> u64 {
        let hash = 1 + self.random() % LABEL_SETS;
        if self.is_new(kind::LABELS, hash) {
            let mut record = LabelsRecord::new_zeroed();
            (record.header, record.hash) = (header::<LabelsRecord>(kind::LABELS), hash);
            for (label, (key, value)) in record.labels.iter_mut().zip([("tenant", format!("t{hash}"))]) {
                (label.key_length, label.value_length) = (key.len() as u32, value.len() as u32);
                label.key[..key.len()].copy_from_slice(key.as_bytes());
                label.value[..value.len()].copy_from_slice(value.as_bytes());
            }
            put(to, &record);
        }
        hash
    }

    fn unix_name(&mut self, inode: u64, to: &mut Vec<u8>) {
        if self.is_new(kind::UNIX_NAME, inode) {
            let mut record = UnixNameRecord::new_zeroed();
            (record.header, record.inode) = (header::<UnixNameRecord>(kind::UNIX_NAME), inode);
            let path = b"/run/db.sock";
            record.remote[..path.len()].copy_from_slice(path);
            record.remote_length = path.len() as u32;
            put(to, &record);
        }
    }
}

fn file(connection: u64, fd: i32) -> FileFacts {
    FileFacts {
        sk: 0xffff_8880_0000_0000 + connection * 0x1000,
        inode: 100_000 + connection,
        local_address: [10, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        mode: 0o140_777,
        family: 2,
        socket_type: 1,
        protocol: 6,
        tag: connection as u32,
        fd,
        known: 1,
        ..FileFacts::UNKNOWN
    }
}

fn header<T>(kind: u16) -> Header {
    Header { kind, bytes: size_of::<T>() as u16, tgid: TGID }
}

fn put(to: &mut Vec<u8>, record: &(impl IntoBytes + Immutable)) {
    to.extend_from_slice(record.as_bytes());
}

/// Steele, Lea and Flood's SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
