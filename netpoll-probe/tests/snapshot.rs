//! Snapshots of a running Go program, held against what the program says of itself.
//!
//! Needs a `go` in PATH. `GOTOOLCHAIN` and `NETPOLL_PROBE_TEST_GO_FLAGS` choose another Go or another kind of build; the default is the `go` there,
//! as it is.
#![expect(clippy::unwrap_used, reason = "helpers of tests are not in test functions")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use netpoll_probe::{
    gobin::GoBinary,
    goruntime::{
        binary::GoRuntime,
        constants::GStatus,
        dwarf,
        globals::Global,
        layout::{self, LayoutSource},
    },
    snapshot::{
        frames::BinaryFrames,
        goroutine::{PollMode, Snapshot, StackState},
        scan::{Source, Wanted},
        unwind::{FrameWord, WalkEnd},
    },
    target::process::Process,
};

/// The Go program, killed when the test ends.
struct Program {
    child: Child,
    /// What it says of its goroutines: fd, mode, kind, whether there is a deadline; by goid.
    said: BTreeMap<u64, (i32, PollMode, String, bool)>,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the Go program; `flags` are separated by semicolons.
fn build(executable: &Path, flags: &str) {
    let built = Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goroutines"))
        .args(["build", "-buildvcs=false", "-o"])
        .arg(executable)
        .args(flags.split(';').filter(|flag| !flag.is_empty()))
        .arg(".")
        .env("CGO_ENABLED", "0")
        .status()
        .unwrap();
    assert!(built.success(), "cannot build the Go program: {built}");
}

impl Program {
    fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let executable = folder.path().join("goroutines");
        let flags = std::env::var("NETPOLL_PROBE_TEST_GO_FLAGS").unwrap_or_default();
        build(&executable, &flags);
        let mut child = Command::new(&executable)
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BTreeMap::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let fields: Vec<&str> = line.split(' ').collect();
            let [goid, fd, mode, kind, deadline] = fields[..] else {
                assert_eq!(line, "ready");
                break;
            };
            let mode = if mode == "read" { PollMode::Read } else { PollMode::Write };
            said.insert(
                goid.parse().unwrap(),
                (fd.parse().unwrap(), mode, kind.to_owned(), deadline == "true"),
            );
        }
        assert_eq!(said.len(), count + 40);
        Self { child, said, _folder: folder }
    }
}

/// Everything that a snapshot of a process needs, for the time of `use_source`.
fn with_snapshots<T>(
    program: &Program,
    use_it: impl FnOnce(&GoBinary, u64, &dyn Fn(Wanted) -> Snapshot) -> T,
) -> T {
    let process = Process::open(program.child.id()).unwrap();
    let file = process.executable().try_clone().unwrap();
    let binary = Arc::new(GoBinary::from_file(file, "goroutines").unwrap());
    let runtime = GoRuntime::of(&binary).unwrap();
    let layout = runtime.layout().unwrap();
    let frames = BinaryFrames::new(Arc::clone(&binary), &runtime);
    let memory = process.memory();
    let load_bias = process.load_bias(binary.elf().entry_vaddr).unwrap();
    let source = Source {
        memory: &memory,
        frames: &frames,
        layout: &layout,
        load_bias,
        allgs: runtime.global(Global::Allgs).unwrap(),
        poll_desc: FrameWord {
            function: runtime.poll_wait().unwrap().entry_vaddr,
            from_cfa_bytes: runtime.poll_wait_sites().unwrap().pd_from_cfa_bytes,
        },
    };
    use_it(&binary, load_bias, &|wanted| source.snapshot(wanted).unwrap())
}

/// A snapshot in which every goroutine that said that it will wait does so.
fn settled(program: &Program, take: &dyn Fn(Wanted) -> Snapshot) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let snapshot = take(Wanted::IoWaits);
        if snapshot.goroutines.iter().filter(|goroutine| goroutine.poll.is_some()).count()
            >= program.said.len()
        {
            return snapshot;
        }
        assert!(Instant::now() < deadline, "still not all wait: {:?}", snapshot.counts);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn dwarf_and_table_agree() {
    let folder = tempfile::tempdir().unwrap();
    let executable = folder.path().join("goroutines");
    build(&executable, "");
    let binary = GoBinary::open(&executable).unwrap();
    let runtime = GoRuntime::of(&binary).unwrap();
    let offsets = dwarf::offsets(&binary).unwrap().expect("the build has DWARF");
    assert_eq!(layout::from_table(runtime.version()).unwrap(), offsets);
    dwarf::check_constants(&binary).unwrap();
    assert_eq!(runtime.layout().unwrap().source, LayoutSource::Dwarf);

    build(&executable, "-ldflags=-s -w");
    let binary = GoBinary::open(&executable).unwrap();
    let runtime = GoRuntime::of(&binary).unwrap();
    assert_eq!(dwarf::offsets(&binary).unwrap(), None);
    let by_version = runtime.layout().unwrap();
    assert_eq!(
        (by_version.source, by_version.offsets),
        (LayoutSource::Table(runtime.version().release()), offsets)
    );
}

#[test]
fn finds_exactly_what_the_program_waits_for() {
    let program = Program::start(200);
    with_snapshots(&program, |binary, load_bias, take| {
        let waits = settled(&program, take);
        assert_eq!((waits.counts.moving, waits.counts.unconfirmed, waits.counts.unreadable), (0, 0, 0));
        assert_eq!(waits.counts.incomplete_stacks, 0);
        let mut found = BTreeMap::new();
        for goroutine in &waits.goroutines {
            let poll = goroutine.poll.unwrap();
            assert_eq!((goroutine.status, goroutine.wait_reason), (GStatus::Waiting, Some(2)));
            found.insert(goroutine.goid, (poll.fd, poll.mode, poll.deadline_ns.is_some()));
            let StackState::Walked(stack) = &goroutine.stack else { panic!("{goroutine:?}") };
            assert_eq!(stack.end, WalkEnd::Complete);
            let names: Vec<String> = stack
                .frames
                .iter()
                .flat_map(|frame| binary.symbolize(frame.lookup_pc() - load_bias).unwrap())
                .map(|location| location.func)
                .collect();
            // The program's own part, from the wait on: read, deeper 21 times, the function given to `go`.
            assert_eq!(names.iter().filter(|name| *name == "main.deeper").count(), 21, "{names:?}");
            assert!(names.contains(&"main.park.func1".to_owned()), "{names:?}");
            assert_eq!(names.last().map(String::as_str), Some("runtime.goexit"));
            let at_poll_wait = stack.frames[poll.frame].lookup_pc() - load_bias;
            assert_eq!(binary.function_at(at_poll_wait).unwrap().name, "internal/poll.runtime_pollWait");
        }
        let said: BTreeMap<_, _> = program
            .said
            .iter()
            .map(|(goid, (fd, mode, _, deadline))| (*goid, (*fd, *mode, *deadline)))
            .collect();
        assert_eq!(found, said);
    });
}

#[test]
fn lists_goroutines_in_other_states() {
    let program = Program::start(3);
    with_snapshots(&program, |binary, load_bias, take| {
        settled(&program, take);
        let all = take(Wanted::All);
        let functions: Vec<(GStatus, String)> = all
            .goroutines
            .iter()
            .map(|goroutine| {
                let start = binary.function_at(goroutine.start_pc - load_bias).unwrap().name;
                (goroutine.status, start)
            })
            .collect();
        let count = |name: &str, status| {
            functions.iter().filter(|found| found.1 == name && found.0 == status).count()
        };
        // main.main reads stdin; the first three goroutines that it began by itself are parked elsewhere.
        assert_eq!(count("runtime.main", GStatus::Syscall), 1, "{functions:?}");
        for parked in ["main.main.func5", "main.main.func6", "main.main.func7"] {
            assert_eq!(count(parked, GStatus::Waiting), 1, "{functions:?}");
        }
        let io_waits = all.goroutines.iter().filter(|goroutine| goroutine.poll.is_some()).count();
        assert_eq!(io_waits, program.said.len());
        // Every stack with a saved pc is whole, whatever the goroutine does.
        assert_eq!(all.counts.incomplete_stacks, 0);
        let walked = all
            .goroutines
            .iter()
            .filter(|goroutine| matches!(goroutine.stack, StackState::Walked(_)))
            .count();
        assert!(walked + 3 >= all.goroutines.len(), "{:?}", all.counts);
    });
}
