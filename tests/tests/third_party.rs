//! Servers that others wrote, judged from outside: by a backend that is slow by a known time, and by clients that know when
//! they sent what. Some are as Debian built them (go1.19, cgo, linked by the system's linker; `cargo xtask test` installs
//! them), one is the newest release, built from the module proxy as its authors build it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use netpoll_probe_tests::{
    fixture, live,
    probe::{self, Recorded, Recording},
    process::{Follow, Process, monotonic_ns},
    record::{Mode, Outcome, Record},
};

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long each load runs.
const LOAD: Duration = Duration::from_secs(3);
const CLIENTS: usize = 4;

/// A loopback address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until a server listens.
fn wait_until_up(address: SocketAddr) -> Result<()> {
    let until = Instant::now() + TIMEOUT;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < until, "nobody listens on {address}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Records `pid` while `load` runs.
fn record<T>(pid: u32, load: impl FnOnce() -> Result<T>) -> Result<(Recorded, T)> {
    let recording = Recording::start(&probe::executable()?, pid, &[], TIMEOUT)?;
    let truth = load()?;
    Ok((recording.stop(TIMEOUT)?, truth))
}

/// What must hold of the summary of every one of these.
fn nothing_lost(recorded: &Recorded) {
    let quality = &recorded.summary["quality"];
    assert_eq!(quality["lost"], serde_json::json!({}), "{quality}");
    assert_eq!(quality["stack_unknown"], 0, "{quality}");
    assert_eq!(quality["endpoint_unknown"], 0, "{quality}");
    let version = recorded.summary["targets"][0]["go_version"].as_str().unwrap_or_default();
    assert!(version.starts_with("go1."), "{version}");
}

fn is_under(record: &Record, function: &str) -> bool {
    record.stack.iter().any(|frame| frame.func == function)
}

/// One request and its answer of two bytes.
fn get(stream: &mut TcpStream) -> Result<()> {
    write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\n\r\n", stream.peer_addr()?)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes)?;
        ensure!(count > 0, "the proxy hung up");
        answer.extend_from_slice(&bytes[..count]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A backend that answers each request after `delay`, for as long as the process lives.
fn backend(delay: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, delay));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, delay: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            thread::sleep(delay);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    }
    Ok(())
}

/// Requests over connections that stay open. Gives how many were answered, and from where the clients spoke.
fn http_load(proxy: SocketAddr) -> Result<(usize, Vec<String>)> {
    let clients: Vec<JoinHandle<Result<(usize, String)>>> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(proxy)?;
                stream.set_nodelay(true)?;
                let until = Instant::now() + LOAD;
                let mut answered = 0;
                while Instant::now() < until {
                    get(&mut stream)?;
                    answered += 1;
                    thread::sleep(Duration::from_millis(10));
                }
                Ok((answered, stream.local_addr()?.to_string()))
            })
        })
        .collect();
    let mut answered = 0;
    let mut addresses = Vec::new();
    for client in clients {
        let (count, address) = client.join().ok().context("a client panicked")??;
        answered += count;
        addresses.push(address);
    }
    Ok((answered, addresses))
}

/// A reverse proxy before a slow backend: the backend made it wait, and for as long as it is slow.
#[test]
fn caddy_waits_for_its_backend() {
    const DELAY: Duration = Duration::from_millis(20);
    let _turn = live::turn();
    probe::require_root().unwrap();
    let home = tempfile::tempdir().unwrap();
    let backend = backend(DELAY).unwrap();
    let proxy = free_address().unwrap();
    let config = home.path().join("Caddyfile");
    // Off: what would listen elsewhere, and put a root certificate into the trust store of this machine.
    let text = format!(
        "{{\n admin off\n auto_https off\n}}\n\
         http://{proxy} {{\n bind {}\n reverse_proxy {backend}\n}}\n",
        proxy.ip()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config).env("HOME", home.path());
    let caddy = Process::spawn(&mut command, Follow::Stderr).unwrap();
    wait_until_up(proxy).unwrap();

    let (recorded, (answered, clients)) = record(caddy.id(), || http_load(proxy)).unwrap();
    nothing_lost(&recorded);

    // Each request makes the reader of the connection to the backend wait once, for the delay and little more.
    let answers: Vec<&Record> = recorded
        .records
        .iter()
        .filter(|record| record.remote.as_deref() == Some(&backend.to_string()))
        .filter(|record| is_under(record, "net/http.(*persistConn).readLoop"))
        .filter(|record| record.outcome == Outcome::Ready && record.mode == Mode::Read)
        .collect();
    assert!(
        answers.len().abs_diff(answered) <= CLIENTS,
        "{} waits for {answered} answers of the backend",
        answers.len()
    );
    let delay_ns = u64::try_from(DELAY.as_nanos()).unwrap();
    let busy = |record: &&Record| record.duration_ns() - record.idle_ns;
    // What TCP tells of the time of sending is right to a jiffy, which is 10 ms at most (CONFIG_HZ=100).
    let right = answers.iter().filter(|record| (delay_ns - 10_000_000..3 * delay_ns).contains(&busy(record)));
    let right = right.count();
    assert!(right * 100 >= answers.len() * 95, "{right} of {} are as long as the delay", answers.len());

    // Between requests the connections of its clients are idle.
    let of_clients: Vec<&Record> = recorded
        .records
        .iter()
        .filter(|record| record.remote.as_ref().is_some_and(|remote| clients.contains(remote)))
        .filter(|record| record.mode == Mode::Read && record.outcome == Outcome::Ready)
        .collect();
    assert!(of_clients.len() + CLIENTS >= answered, "{} of {answered}", of_clients.len());
    let idle = of_clients.iter().filter(|record| record.idle).count();
    assert!(idle * 100 >= of_clients.len() * 95, "{idle} of {} are idle", of_clients.len());

    // What a user types, and the sentence that he reads first.
    let files = tempfile::tempdir().unwrap();
    let names = ["w.ndjson", "w.svg", "w.json"].map(|name| files.path().join(name));
    let mut command = Command::new(probe::executable().unwrap());
    command.args(["attach", "--pid", &caddy.id().to_string(), "-d", "2s"]);
    for name in &names {
        command.arg("-o").arg(name);
    }
    let attach = Process::spawn(&mut command, Follow::Stderr).unwrap();
    http_load(proxy).unwrap();
    let finished = attach.finish(TIMEOUT).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    assert!(finished.stdout.contains(&format!("{backend} made caddy wait: ")), "{}", finished.stdout);
    for name in &names {
        assert!(fs::metadata(name).unwrap().len() > 1000, "{}", name.display());
    }
}

/// The moments around a message to the server and its answer, CLOCK_MONOTONIC ns.
struct Exchange {
    client: String,
    before_ns: u64,
    after_ns: u64,
}

/// Clients that send PING now and then, and note when.
fn nats_load(server: SocketAddr) -> Result<Vec<Exchange>> {
    let clients: Vec<JoinHandle<Result<Vec<Exchange>>>> = (0..CLIENTS)
        .map(|index| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(server)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                let client = stream.local_addr()?.to_string();
                let mut lines = BufReader::new(stream.try_clone()?).lines();
                lines.next().context("the server hung up")??;
                // Answered, so that the next message finds the server waiting for it.
                stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
                while lines.next().context("the server hung up")??.trim() != "PONG" {}
                let until = Instant::now() + LOAD;
                let mut exchanges = Vec::new();
                while Instant::now() < until {
                    thread::sleep(Duration::from_millis(5 + 2 * index as u64));
                    let before_ns = monotonic_ns();
                    stream.write_all(b"PING\r\n")?;
                    while lines.next().context("the server hung up")??.trim() != "PONG" {}
                    exchanges.push(Exchange { client: client.clone(), before_ns, after_ns: monotonic_ns() });
                }
                Ok(exchanges)
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().ok().context("a client panicked")??);
    }
    Ok(all)
}

/// A message broker: each message of a client ends a wait for that client, at that time. `package` is that of the server.
fn waits_for_its_clients(program: &Path, package: &str) {
    let _turn = live::turn();
    probe::require_root().unwrap();
    let address = free_address().unwrap();
    let mut command = Command::new(program);
    command.args(["--addr", &address.ip().to_string(), "--port", &address.port().to_string()]);
    let server = Process::spawn(&mut command, Follow::Stderr).unwrap();
    wait_until_up(address).unwrap();

    let (recorded, exchanges) = record(server.id(), || nats_load(address)).unwrap();
    nothing_lost(&recorded);

    let mut found = 0;
    for exchange in &exchanges {
        let within = exchange.before_ns..=exchange.after_ns;
        let wait = recorded.records.iter().find(|record| {
            record.remote.as_ref() == Some(&exchange.client)
                && record.mode == Mode::Read
                && within.contains(&record.end_ns)
        });
        let Some(wait) = wait else { continue };
        found += 1;
        assert_eq!(wait.outcome, Outcome::Ready);
        assert_eq!(wait.local.as_deref(), Some(&*address.to_string()));
        assert!(is_under(wait, &format!("{package}.(*client).readLoop")), "{wait:?}");
        assert!(wait.kernel_ready_ns.is_none_or(|ready_ns| within.contains(&ready_ns)), "{wait:?}");
    }
    assert!(exchanges.len() > 500, "{} messages", exchanges.len());
    // A message that comes before the server waits again needs no wait.
    assert!(found * 1000 >= exchanges.len() * 999, "{found} of {} messages", exchanges.len());
}

#[test]
fn nats_server_waits_for_its_clients() {
    waits_for_its_clients(Path::new("nats-server"), "github.com/nats-io/nats-server/server");
}

/// The newest release of nats-server, with the flags of its own release builds (`.goreleaser.yml`: no cgo, `-trimpath`, and
/// `-w`, without DWARF).
fn newest_nats_server() -> Result<PathBuf> {
    let module = "github.com/nats-io/nats-server/v2@latest";
    let download = Command::new("go").args(["mod", "download", "-json", module]).current_dir("/").output()?;
    let downloaded: serde_json::Value = serde_json::from_slice(&download.stdout)?;
    let folder =
        downloaded["Dir"].as_str().with_context(|| format!("cannot download {module}: {downloaded}"))?;
    let output = fixture::target_dir().join("go-fixtures/nats-server-newest");
    let built = Command::new("go")
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .args(["build", "-trimpath", "-ldflags=-w", "-o"])
        .arg(&output)
        .arg(".")
        .output()?;
    ensure!(built.status.success(), "cannot build {module}: {}", String::from_utf8_lossy(&built.stderr));
    Ok(output)
}

#[test]
fn the_newest_nats_server_waits_for_its_clients() {
    let program = newest_nats_server().unwrap();
    waits_for_its_clients(&program, "github.com/nats-io/nats-server/v2/server");
}
