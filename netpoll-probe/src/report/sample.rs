//! A fixed recording for tests: a shop whose handlers wait for a database and for a payment service that times out,
//! with idle keep-alives and an accept loop, and a few waits of every odd kind. The same in every run.

use std::{
    rc::Rc,
    time::{Duration, UNIX_EPOCH},
};

use crate::model::{
    builder::ProfileBuilder,
    bypass::{Bypass, BypassFd, BypassKind},
    profile::{Cost, Metadata, Plan, PlanClock, Profile, Target},
    quality::Quality,
    stack::{StackId, StackTable},
    testing::{stack, tcp, wait},
    wait::{
        Address, Clocks, Direction, Endpoint, KernelReadySource, Kind, Mode, Outcome, Poller, Role, Wait,
    },
};

/// When the recording began, CLOCK_MONOTONIC.
const BEGAN_NS: u64 = 1_000_000_000_000;
const MS: u64 = 1_000_000;
const US: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// The frames between any read and the park, leaf first.
const READ: [&str; 6] = [
    "internal/poll.runtime_pollWait /usr/local/go/src/runtime/netpoll.go:351",
    "internal/poll.(*pollDesc).wait /usr/local/go/src/internal/poll/fd_poll_runtime.go:84",
    "internal/poll.(*pollDesc).waitRead /usr/local/go/src/internal/poll/fd_poll_runtime.go:89",
    "internal/poll.(*FD).Read /usr/local/go/src/internal/poll/fd_unix.go:165",
    "net.(*netFD).Read /usr/local/go/src/net/fd_posix.go:55",
    "net.(*conn).Read /usr/local/go/src/net/net.go:196",
];

/// How the runtime treats waits that are ready.
#[derive(Clone, Copy)]
struct Runtime {
    pickup_ns: u64,
    queue_ns: u64,
    poller: Poller,
}

/// Waits with their stacks.
pub(super) struct Recording {
    pub(super) builder: ProfileBuilder,
    pub(super) waits: Vec<Wait>,
    random: u64,
    runtime: Runtime,
}

impl Recording {
    fn new(runtime: Runtime) -> Self {
        Self { builder: ProfileBuilder::default(), waits: Vec::new(), random: 42, runtime }
    }

    /// 0..1,000, from a linear congruential generator (Knuth's MMIX constants).
    fn per_mille(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 1000
    }

    /// From `least` with a tail to fifty times of it.
    fn tail(&mut self, least: u64) -> u64 {
        let x = self.per_mille();
        least + least * x / 700 + if x > 950 { least * (x - 950) } else { 0 }
    }

    fn stack(&mut self, frames: &[&[&str]]) -> StackId {
        self.builder.stacks_mut().intern(stack(&frames.concat()))
    }

    fn add(&mut self, wait: Wait) {
        self.builder.add(&wait);
        self.waits.push(wait);
    }

    /// A wait that ends as ready after the peer took `peer_ns`.
    fn ready(&mut self, start_ns: u64, peer_ns: u64, source: KernelReadySource) -> Wait {
        let Runtime { pickup_ns, queue_ns, poller } = self.runtime;
        let ready_ns = start_ns + peer_ns;
        let poll_ns = ready_ns + self.tail(pickup_ns);
        let end_ns = poll_ns + self.tail(queue_ns);
        Wait {
            poller,
            clocks: Clocks {
                start_ns,
                kernel_ready_ns: Some(ready_ns),
                kernel_ready_source: source,
                kernel_ready_after_ns: None,
                poll_ns: Some(poll_ns),
                end_ns,
            },
            ..wait(start_ns, end_ns)
        }
    }

    pub(super) fn finish(self, quality: Quality) -> Profile {
        self.builder.finish(metadata(), plan(), cost(), quality)
    }
}

/// A runtime with little to do.
const CALM: Runtime = Runtime { pickup_ns: 9 * US, queue_ns: 14 * US, poller: Poller::Blocking };

/// The shop.
pub(super) fn shop() -> Recording {
    let mut shop = Recording::new(CALM);
    database(
        &mut shop,
        1_204,
        &["shop/store.(*Store).User /src/shop/store/user.go:88", "main.(*server).user /src/shop/main.go:131"],
        22 * MS,
    );
    database(
        &mut shop,
        160,
        &["shop/store.(*Store).Cart /src/shop/store/cart.go:41", "main.(*server).cart /src/shop/main.go:156"],
        9 * MS,
    );
    payments(&mut shop);
    clients(&mut shop);
    idle(&mut shop);
    odd(&mut shop);
    shop
}

/// The shop, while something else keeps all Ps busy.
pub(super) fn starved_shop() -> Recording {
    let mut shop = Recording::new(Runtime { pickup_ns: 4 * MS, queue_ns: 900 * US, poller: Poller::Sysmon });
    database(
        &mut shop,
        900,
        &["shop/store.(*Store).User /src/shop/store/user.go:88", "main.(*server).user /src/shop/main.go:131"],
        600 * US,
    );
    idle(&mut shop);
    shop
}

/// The shop on a kernel that does not tell when a socket became ready.
pub(super) fn blind_shop() -> Recording {
    let mut shop = Recording::new(CALM);
    database(
        &mut shop,
        300,
        &["shop/store.(*Store).User /src/shop/store/user.go:88", "main.(*server).user /src/shop/main.go:131"],
        22 * MS,
    );
    let waits = std::mem::take(&mut shop.waits);
    let mut blind = Recording::new(CALM);
    blind.builder.stacks_mut().intern(shop.builder.stacks().iter().next().expect("a stack").clone());
    for wait in waits {
        let clocks = Clocks {
            kernel_ready_ns: None,
            kernel_ready_source: KernelReadySource::None,
            kernel_ready_after_ns: Some(wait.clocks.start_ns),
            ..wait.clocks
        };
        blind.add(Wait { clocks, ..wait });
    }
    blind
}

/// Nothing but an accept loop and keep-alives.
pub(super) fn resting_shop() -> Recording {
    let mut shop = Recording::new(CALM);
    idle(&mut shop);
    shop
}

/// No wait at all.
pub(super) fn silent_shop() -> Recording {
    Recording::new(CALM)
}

fn database(shop: &mut Recording, count: u64, callers: &[&str], least_ns: u64) {
    let stack = shop.stack(&[
        &READ,
        &["bufio.(*Reader).fill /usr/local/go/src/bufio/bufio.go:113"],
        &["io.ReadFull /usr/local/go/src/io/io.go:354"],
        &["github.com/lib/pq.(*conn).recvMessage /go/pkg/mod/github.com/lib/pq@v1.10.9/conn.go:1036"],
        &["github.com/lib/pq.(*conn).query /go/pkg/mod/github.com/lib/pq@v1.10.9/conn.go:906"],
        &["database/sql.(*DB).QueryContext /usr/local/go/src/database/sql/sql.go:1748"],
        callers,
        &["net/http.HandlerFunc.ServeHTTP /usr/local/go/src/net/http/server.go:2322"],
        &["net/http.(*conn).serve /usr/local/go/src/net/http/server.go:2073"],
        &["net/http.(*Server).Serve.gowrap3 /usr/local/go/src/net/http/server.go:3454"],
        &["runtime.goexit /usr/local/go/src/runtime/asm_amd64.s:1693"],
    ]);
    let database = tcp("10.0.0.1:43210", Some("10.0.0.5:5432"), Direction::Outbound);
    for number in 0..count {
        let start_ns = BEGAN_NS + number * 9_700 * MS / count;
        let peer_ns = shop.tail(least_ns);
        let source =
            if number % 40 == 0 { KernelReadySource::BeforePark } else { KernelReadySource::DataReady };
        let peer_ns = if source == KernelReadySource::BeforePark { 0 } else { peer_ns };
        let ready = shop.ready(start_ns, peer_ns, source);
        shop.add(Wait {
            goid: 100 + number % 37,
            tid: 4250,
            fd: 9 + i32::try_from(number % 4).expect("small"),
            endpoint: Rc::clone(&database),
            stack: Some(stack),
            spurious: number % 300 == 7,
            labels: (number == 0).then(|| [("route".into(), "/user/{id}".into())].into()),
            ..ready
        });
    }
}

/// A payment service that often does not answer within its 250 ms.
fn payments(shop: &mut Recording) {
    let callers: &[&str] = &[
        "shop/payment.(*Client).Charge /src/shop/payment/client.go:61",
        "main.(*server).checkout /src/shop/main.go:188",
        "net/http.HandlerFunc.ServeHTTP /usr/local/go/src/net/http/server.go:2322",
        "net/http.(*conn).serve /usr/local/go/src/net/http/server.go:2073",
    ];
    let read =
        shop.stack(&[&READ, &["crypto/tls.(*Conn).Read /usr/local/go/src/crypto/tls/conn.go:1371"], callers]);
    let connect = shop.stack(&[
        &READ[..2],
        &["internal/poll.(*FD).WaitWrite /usr/local/go/src/internal/poll/fd_poll_runtime.go:101"],
        &["net.(*netFD).connect /usr/local/go/src/net/fd_unix.go:139"],
        &["net.(*Dialer).DialContext /usr/local/go/src/net/dial.go:562"],
        callers,
    ]);
    let endpoint = tcp("10.0.0.1:51000", Some("10.0.0.9:443"), Direction::Outbound);
    for number in 0..64 {
        let start_ns = BEGAN_NS + number * 140 * MS;
        let goid = 900 + number;
        let peer_ns = shop.tail(2 * MS);
        let connecting = shop.ready(start_ns, peer_ns, KernelReadySource::StateChange);
        let start_ns = connecting.clocks.end_ns + 30 * US;
        let shared = Wait { goid, tid: 4251, fd: 17, endpoint: Rc::clone(&endpoint), ..wait(0, 0) };
        shop.add(Wait {
            mode: Mode::Write,
            role: Role::Connect,
            stack: Some(connect),
            clocks: connecting.clocks,
            poller: connecting.poller,
            ..shared.clone()
        });
        let answer = if number % 3 == 0 {
            Wait { outcome: Outcome::Timeout, ..wait(start_ns, start_ns + 250 * MS + number * 3 * US) }
        } else {
            let peer_ns = shop.tail(31 * MS).min(249 * MS);
            shop.ready(start_ns, peer_ns, KernelReadySource::DataReady)
        };
        shop.add(Wait {
            stack: Some(read),
            outcome: answer.outcome,
            clocks: answer.clocks,
            poller: answer.poller,
            ..shared
        });
    }
    // One that has no deadline, since before the recording.
    shop.add(Wait {
        goid: 44,
        tid: 0,
        fd: 23,
        outcome: Outcome::Open,
        started_before: true,
        endpoint,
        stack: Some(read),
        ..wait(BEGAN_NS, BEGAN_NS + 10 * SECOND)
    });
}

/// Slow senders of request bodies, slow takers of answers.
fn clients(shop: &mut Recording) {
    let upload = shop.stack(&[
        &READ,
        &["net/http.(*body).Read /usr/local/go/src/net/http/transfer.go:862"],
        &["io.Copy /usr/local/go/src/io/io.go:388"],
        &["main.(*server).upload /src/shop/main.go:210"],
        &["net/http.(*conn).serve /usr/local/go/src/net/http/server.go:2073"],
    ]);
    let answer = shop.stack(&[
        &READ[..2],
        &["internal/poll.(*FD).Write /usr/local/go/src/internal/poll/fd_unix.go:383"],
        &["net.(*conn).Write /usr/local/go/src/net/net.go:208"],
        &["main.(*server).export /src/shop/main.go:233"],
        &["net/http.(*conn).serve /usr/local/go/src/net/http/server.go:2073"],
    ]);
    for number in 0..40 {
        let client = format!("192.168.7.{}:{}", 10 + number % 5, 40_000 + number);
        let peer_ns = shop.tail(3 * MS);
        let ready = shop.ready(BEGAN_NS + number * 200 * MS, peer_ns, KernelReadySource::DataReady);
        let writes = number % 4 == 0;
        shop.add(Wait {
            goid: 300 + number,
            tid: 4252,
            fd: 60 + i32::try_from(number).expect("small"),
            mode: if writes { Mode::Write } else { Mode::Read },
            role: if writes { Role::Write } else { Role::Read },
            endpoint: tcp("10.0.0.1:8080", Some(&client), Direction::Inbound),
            stack: Some(if writes { answer } else { upload }),
            ..ready
        });
    }
}

/// An accept loop, and connections between two requests.
fn idle(shop: &mut Recording) {
    let accept = shop.stack(&[
        &READ[..3],
        &["internal/poll.(*FD).Accept /usr/local/go/src/internal/poll/fd_unix.go:613"],
        &["net.(*TCPListener).Accept /usr/local/go/src/net/tcpsock.go:380"],
        &["net/http.(*Server).Serve /usr/local/go/src/net/http/server.go:3424"],
        &["main.main /src/shop/main.go:77"],
        &["runtime.main /usr/local/go/src/runtime/proc.go:290"],
    ]);
    let keep_alive = shop.stack(&[
        &READ,
        &["net/http.(*connReader).Read /usr/local/go/src/net/http/server.go:798"],
        &["bufio.(*Reader).Peek /usr/local/go/src/bufio/bufio.go:148"],
        &["net/http.(*conn).serve /usr/local/go/src/net/http/server.go:2118"],
    ]);
    for number in 0..811 {
        let ready = shop.ready(BEGAN_NS + number * 11 * MS, 700 * MS, KernelReadySource::DataReady);
        shop.add(Wait {
            goid: 100 + number % 37,
            fd: 60 + i32::try_from(number % 37).expect("small"),
            idle: true,
            idle_ns: 0,
            endpoint: tcp("10.0.0.1:8080", Some("192.168.7.10:40001"), Direction::Inbound),
            stack: Some(keep_alive),
            ..ready
        });
    }
    shop.add(Wait {
        goid: 1,
        idle: true,
        outcome: Outcome::Open,
        started_before: true,
        role: Role::Accept,
        endpoint: tcp("0.0.0.0:8080", None, Direction::Unknown),
        stack: Some(accept),
        ..wait(BEGAN_NS, BEGAN_NS + 10 * SECOND)
    });
}

/// One of each that is seldom.
fn odd(shop: &mut Recording) {
    let log = shop.stack(&[
        &READ[..4],
        &["os.(*File).Read /usr/local/go/src/os/file.go:124"],
        &["main.followLog /src/shop/log.go:30"],
    ]);
    let cut_short = {
        let mut cut_short = stack(&[READ[0], READ[1], "main.(*tree).walk /src/shop/tree.go:9"]);
        cut_short.truncated = true;
        shop.builder.stacks_mut().intern(cut_short)
    };
    let nameless = shop.stack(&[&READ[..1], &["[unknown: not in pclntab]"]]);
    let file = |kind, local: Option<Address>, remote: Option<Address>, direction| {
        Rc::new(Endpoint { kind, local, remote, direction })
    };
    let path = |path: &str| Some(Address::Path(path.into()));
    let begin = BEGAN_NS + 5 * SECOND;

    let resolver = tcp("[fd00::1]:47001", Some("[fd00::53]:53"), Direction::Unknown);
    let resolver = Rc::new(Endpoint { kind: Kind::Udp, ..(*resolver).clone() });
    let asked = shop.ready(begin, 4 * MS, KernelReadySource::Callback);
    shop.add(Wait { goid: 901, fd: 30, endpoint: resolver, ..asked });

    let logged = shop.ready(begin, 12 * MS, KernelReadySource::PollerWakeup);
    let pipe = file(Kind::Pipe, None, None, Direction::Unknown);
    shop.add(Wait { goid: 20, fd: 5, endpoint: pipe, stack: Some(log), ..logged });

    let cached = shop.ready(begin, 2 * MS, KernelReadySource::DataReady);
    let cache = file(Kind::Unix, None, path("/run/cache.sock"), Direction::Outbound);
    shop.add(Wait { goid: 21, fd: 6, endpoint: cache, stack: Some(cut_short), ..cached });

    // A name that would steer a terminal, if it were let.
    let evil = file(Kind::Unix, None, path("/run/\u{1b}[31mevil\u{7};<sock>"), Direction::Outbound);
    let teased = shop.ready(begin, MS, KernelReadySource::DataReady);
    shop.add(Wait { goid: 22, fd: 7, endpoint: evil, stack: Some(nameless), ..teased });

    let unseen = Wait { goid: 23, fd: 8, poller: Poller::Unknown, ..wait(begin, begin + 3 * MS) };
    shop.add(unseen.clone());
    shop.add(Wait { outcome: Outcome::Closed, goid: 24, ..unseen.clone() });
    shop.add(Wait { outcome: Outcome::Error, goid: 25, ..unseen.clone() });
    shop.add(Wait { outcome: Outcome::Rearmed, goid: 26, ..unseen });
}

fn metadata() -> Metadata {
    Metadata {
        tool_version: "0.1.0".to_owned(),
        targets: vec![Target {
            pid: 4242,
            namespace_pid: Some(7),
            comm: "shop".to_owned(),
            executable: "/usr/local/bin/shop".to_owned(),
            go_version: "go1.26.8".to_owned(),
            module: Some("shop".to_owned()),
        }],
        host: Some("web-3".to_owned()),
        started: UNIX_EPOCH + Duration::from_secs(1_795_253_710),
        started_ns: BEGAN_NS,
        duration_ns: 10 * SECOND,
    }
}

fn plan() -> Plan {
    let clock = |clock: &str, hook: &str, why: &str, lost: Option<&str>| PlanClock {
        clock: clock.to_owned(),
        hook: hook.to_owned(),
        why: why.to_owned(),
        lost: lost.map(str::to_owned),
    };
    Plan {
        name: "pollwait".to_owned(),
        why: "runtime_pollWait cannot be inlined, so its counts hold in every build".to_owned(),
        clocks: vec![
            clock("start", "uprobe runtime_pollWait+0xe", "an emulated instruction", None),
            clock(
                "kernel_ready",
                "tracepoints sk_data_ready, inet_sock_set_state, tcp_receive_reset",
                "this kernel has no fentry and no kprobes",
                Some("the readiness of pipes and of closing unix peers"),
            ),
            clock("poll", "tracepoint sys_exit_epoll_pwait", "its event array names the pollDescs", None),
            clock("end", "uprobe runtime_pollWait+0x6b", "an emulated instruction", None),
        ],
    }
}

fn cost() -> Cost {
    Cost {
        cpu_ns: Some(61 * MS),
        bpf_run_ns: Some(14 * MS),
        bpf_run_count: Some(19_412),
        bpf_measured_ns: 200 * MS,
        peak_resident_bytes: Some(17_400_000),
        ring_records: 2_311,
        budget: None,
    }
}

/// What a correlator would have counted.
pub(super) fn quality(waits: &[Wait], stacks: &StackTable) -> Quality {
    let count = |test: &dyn Fn(&Wait) -> bool| waits.iter().filter(|wait| test(wait)).count() as u64;
    let ready = |wait: &Wait| wait.outcome == Outcome::Ready;
    let cut_short =
        |wait: &Wait| wait.stack.and_then(|id| stacks.get(id)).is_some_and(|stack| stack.truncated);
    Quality {
        seen: waits.len() as u64,
        started_before: count(&|wait| wait.started_before),
        open: count(&|wait| wait.outcome == Outcome::Open),
        kernel_ready_unknown: count(&|wait| ready(wait) && wait.clocks.kernel_ready_ns.is_none()),
        poll_unknown: count(&|wait| ready(wait) && wait.clocks.poll_ns.is_none()),
        stack_unknown: count(&|wait| wait.stack.is_none()),
        stack_truncated: count(&cut_short),
        endpoint_unknown: count(&|wait| wait.endpoint.kind == Kind::Unknown),
        bypasses: bypasses(),
        ..Quality::default()
    }
}

/// Two ways past the netpoller.
fn bypasses() -> Vec<Bypass> {
    let to = |fd: i32| BypassFd { fd, peer: Some(format!("10.0.0.9:{}", 5000 + fd)) };
    let sockets = Bypass::of(4242, BypassKind::BlockingSocket, (11..20).map(to));
    let epolls = Bypass::of(4242, BypassKind::OwnEpoll, [BypassFd { fd: 6, peer: None }]).map(|epolls| {
        let modules = vec!["github.com/panjf2000/gnet/v2 v2.9.1".to_owned()];
        Bypass { modules, ..epolls }
    });
    let mut resolver = Bypass::of_resolver(4242);
    for call_ns in [1_200_000, 804_000_000, 5_100_000] {
        resolver.add_call(call_ns);
    }
    sockets.into_iter().chain(epolls).chain([resolver]).collect()
}
