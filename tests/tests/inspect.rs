//! `inspect` on real executables of every kind, and on what is none: what it says, its exit code, and that it never fails.
//! As root, to see what it says without.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::{
    fixture::{self, GoProgram},
    live::{Options, Truth},
    probe::{
        self,
        exit::{GOOD, KERNEL, TARGET, USAGE},
    },
    process::{Finished, Follow, Process},
};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

fn run(command: &mut Command) -> Result<Finished> {
    let finished = Process::spawn(command, Follow::Stderr)?.finish(TIMEOUT)?;
    ensure!(!finished.stderr.contains("panicked"), "{finished:?}");
    Ok(finished)
}

fn inspect(path: &Path) -> Result<Finished> {
    run(Command::new(probe::executable()?).arg("inspect").arg(path))
}

/// What `--json` says, after the exit code was held against it.
fn json(path: &Path) -> Result<Value> {
    let finished = run(Command::new(probe::executable()?).args(["inspect", "--json"]).arg(path))?;
    let found: Value =
        serde_json::from_str(&finished.stdout).with_context(|| format!("no JSON: {finished:?}"))?;
    let code = if found["attach"]["works"] == true { GOOD } else { TARGET };
    ensure!(finished.status.code() == Some(code), "{finished:?}");
    ensure!(finished.stderr.is_empty(), "{finished:?}");
    Ok(found)
}

fn build(arguments: &[&str]) -> Result<PathBuf> {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    GoProgram { arguments, ..GoProgram::new("truth") }.build()
}

/// The two instructions that attach needs are found, and emulated.
#[track_caller]
fn assert_works(found: &Value) {
    assert_eq!(found["attach"]["works"], true, "{found:#}");
    let sites = found["sites"].as_array().map(Vec::as_slice).unwrap_or_default();
    let needed: Vec<_> = sites.iter().filter(|site| site["needed"] == true).collect();
    assert_eq!(needed.len(), 2, "{found:#}");
    for site in needed {
        let instruction = &site["instruction"]["found"];
        assert_eq!(instruction["function"], "internal/poll.runtime_pollWait", "{found:#}");
        assert!(instruction["emulated"].is_string() && instruction["file_offset"].as_u64() > Some(0));
    }
    let structs = found["offsets"]["found"]["structs"].as_array().map(Vec::len);
    assert_eq!(structs, Some(4), "{found:#}");
}

#[test]
fn a_default_build() {
    let program = build(&[]).unwrap();
    let found = json(&program).unwrap();
    assert_works(&found);
    assert_eq!(found["limits"], serde_json::json!([]));
    assert_eq!(found["executable"]["found"]["dwarf"], true);
    assert_eq!(found["executable"]["found"]["linker"], "internal");
    assert_eq!(found["build"]["cgo"], false);
    assert_eq!(found["offsets"]["found"]["source"], "the binary's DWARF");
    let version = Command::new("go").args(["env", "GOVERSION"]).output().unwrap().stdout;
    assert_eq!(found["build"]["go_version"], String::from_utf8_lossy(&version).trim());
    // The addresses are those of the symbol table.
    let symbols = Command::new("go").args(["tool", "nm"]).arg(&program).output().unwrap().stdout;
    let symbols = String::from_utf8_lossy(&symbols).into_owned();
    for global in found["globals"].as_array().unwrap() {
        let name = global["name"].as_str().unwrap();
        let line = symbols.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
        let address = u64::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
        assert_eq!(global["address"]["found"], address, "{name}");
    }
    let text = inspect(&program).unwrap();
    assert_eq!(text.status.code(), Some(GOOD));
    assert_eq!(text.stdout.lines().nth(2), Some("attach works on this."));
    assert!(!text.stdout.contains('\u{1b}'), "colors, and no terminal");
}

#[test]
fn stripped_and_position_independent() {
    for (arguments, pie) in [(&["-ldflags=-s -w"][..], false), (&["-buildmode=pie", "-ldflags=-s -w"], true)]
    {
        let found = json(&build(arguments).unwrap()).unwrap();
        assert_works(&found);
        let executable = &found["executable"]["found"];
        assert_eq!(
            (&executable["symbols"], &executable["dwarf"]),
            (&Value::Bool(false), &Value::Bool(false))
        );
        assert_eq!(executable["pie"], pie);
        assert!(
            found["offsets"]["found"]["source"].as_str().unwrap().starts_with("the table of known versions")
        );
        assert!(
            found["globals"].as_array().unwrap().iter().all(|global| global["address"]["found"].is_u64())
        );
    }
}

#[test]
fn flags_of_the_build() {
    let found = json(&build(&["-trimpath", "-tags=sometag"]).unwrap()).unwrap();
    assert_works(&found);
    assert_eq!(found["build"]["trimpath"], true);
    assert_eq!(found["build"]["race"], false);
    assert_eq!(found["build"]["tags"], "sometag");
    assert_eq!(found["build"]["pgo"], Value::Null);
    assert_eq!(found["build"]["compiler"], "gc");
}

#[test]
fn c_code_by_the_systems_linker() {
    let mut program = GoProgram { cgo: true, ..GoProgram::new("demo") };
    program.arguments = vec!["-ldflags=-linkmode=external".to_owned()];
    let found = json(&program.build().unwrap()).unwrap();
    assert_works(&found);
    assert_eq!(found["executable"]["found"]["linker"], "external");
    assert_eq!(found["executable"]["found"]["dynamic"], true);
    assert_eq!(found["build"]["cgo"], true);
    assert!(found["limits"][0].as_str().unwrap().contains("C code"));
}

/// By an empty profile, which is one (`cmd/internal/pgo`), and cheap to build with.
#[test]
fn optimized_by_a_profile() {
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty.pgo");
    fs::write(&profile, "").unwrap();
    let found = json(&build(&[&format!("-pgo={}", profile.display())]).unwrap()).unwrap();
    assert_works(&found);
    assert_eq!(found["build"]["pgo"], profile.display().to_string());
}

/// Code for another processor is read where the tool can, and whatever else is known is said.
#[test]
fn of_another_processor() {
    let files = tempfile::tempdir().unwrap();
    let program = files.path().join("truth");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/go/demo");
    let status = Command::new("go")
        .current_dir(folder)
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .envs([("GOARCH", "arm64"), ("CGO_ENABLED", "0"), ("GOWORK", "off"), ("GOFLAGS", "-buildvcs=false")])
        .status()
        .unwrap();
    assert!(status.success());
    let found = json(&program).unwrap();
    assert_eq!(found["executable"]["found"]["machine"], "arm64");
    assert!(found["tables"]["found"]["functions"].as_u64().unwrap() > 1000);
    assert!(found["offsets"]["found"]["source"].is_string(), "{found:#}");
    if found["attach"]["works"] == true {
        assert_works(&found);
        assert!(found["limits"].to_string().contains("arm64"));
    } else {
        assert!(found["attach"]["reason"].as_str().unwrap().contains("Arm64"), "{found:#}");
    }
}

/// The file of a running process, also when it was deleted.
#[test]
fn the_executable_of_a_process() {
    let files = tempfile::tempdir().unwrap();
    let program = files.path().join("truth");
    fs::copy(build(&[]).unwrap(), &program).unwrap();
    let truth = Truth::start(&Options::new(probe::executable().unwrap(), program.clone()), false).unwrap();
    fs::remove_file(&program).unwrap();
    let path = format!("/proc/{}/exe", truth.id());
    let found = json(Path::new(&path)).unwrap();
    assert_works(&found);
    assert_eq!(found["file"], path);
    // The tests themselves are no Go program, and linked by the system's linker.
    let found = json(Path::new(&format!("/proc/{}/exe", std::process::id()))).unwrap();
    assert!(found["attach"]["reason"].as_str().unwrap().contains("not a Go binary"), "{found:#}");
    assert_eq!(found["executable"]["found"]["linker"], "external");
}

#[test]
fn versions_that_are_not_supported() {
    let files = tempfile::tempdir().unwrap();
    let program = files.path().join("truth");
    let stripped = build(&["-ldflags=-s -w"]).unwrap();
    let version = fixture::with_minor(&stripped, "17", &program).unwrap();
    let found = json(&program).unwrap();
    assert_eq!(found["build"]["go_version"], version);
    assert!(found["attach"]["reason"].as_str().unwrap().contains(&version), "{found:#}");
    assert!(found["attach"]["hint"].as_str().unwrap().contains("1.18"));

    // Newer than known, and without DWARF: the sites are found all the same, the offsets must be asked of a process.
    let version = fixture::with_minor(&stripped, "99", &program).unwrap();
    let found = json(&program).unwrap();
    assert_eq!(found["attach"]["works"], true);
    assert!(found["offsets"]["not"].as_str().unwrap().contains(&version), "{found:#}");
    let limit = found["limits"][0].as_str().unwrap();
    assert!(limit.contains(&version) && limit.contains("confirms those of go1."), "{limit}");
    assert!(found["sites"][0]["instruction"]["found"].is_object(), "{found:#}");
}

#[test]
fn no_go_program() {
    let finished = inspect(Path::new("/bin/ls")).unwrap();
    assert_eq!(finished.status.code(), Some(TARGET), "{finished:?}");
    let verdict = finished.stdout.lines().nth(2).unwrap();
    assert!(verdict.starts_with("attach does not work on this: not a Go binary"), "{finished:?}");
    assert!(finished.stdout.contains("hint: ") && finished.stdout.contains("linked by the system's linker"));
    assert_eq!(json(Path::new("/bin/ls")).unwrap()["tables"]["found"], Value::Null);
}

#[test]
fn broken_files() {
    let files = tempfile::tempdir().unwrap();
    let whole = fs::read(build(&["-ldflags=-s -w"]).unwrap()).unwrap();
    let path = files.path().join("broken");
    for kept in [0, 1, 4, 20, 63, 64, 500, 4096, whole.len() / 2, whole.len() - 4096] {
        fs::write(&path, &whole[..kept]).unwrap();
        let found = json(&path).unwrap();
        assert_eq!(found["size_bytes"], kept);
        assert!(found["attach"]["works"] == true || found["attach"]["hint"].is_string(), "{found:#}");
    }
    // Junk in the middle of the tables.
    let mut junk = whole.clone();
    let middle = junk.len() / 2;
    junk[middle..middle + 300_000].fill(0xa5);
    fs::write(&path, &junk).unwrap();
    json(&path).unwrap();
    let text = files.path().join("text");
    fs::write(&text, "#!/bin/sh\nexec true\n").unwrap();
    assert!(json(&text).unwrap()["attach"]["reason"].as_str().unwrap().contains("not an ELF file"));
}

/// What cannot be read at all is an error with a hint, at once.
#[test]
fn what_is_no_file() {
    let files = tempfile::tempdir().unwrap();
    let fifo = files.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for path in [files.path(), Path::new("/dev/zero"), &fifo, Path::new("/no/such/file")] {
        let begun = Instant::now();
        let finished = inspect(path).unwrap();
        assert_eq!(finished.status.code(), Some(TARGET), "{finished:?}");
        assert_eq!(finished.stdout, "");
        assert_eq!(finished.stderr.lines().count(), 2, "{finished:?}");
        assert!(finished.stderr.contains("hint: ") && finished.stderr.contains(&*path.to_string_lossy()));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

/// As any user; what that user may not read is a matter of permission.
#[test]
fn without_root() {
    probe::require_root().unwrap();
    let files = tempfile::tempdir().unwrap();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let [tool, program, secret] = ["netpoll-probe", "truth", "secret"].map(|name| files.path().join(name));
    fs::copy(probe::executable().unwrap(), &tool).unwrap();
    fs::copy(build(&[]).unwrap(), &program).unwrap();
    fs::copy(build(&[]).unwrap(), &secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    let as_nobody = |path: &Path| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"];
        run(Command::new("setpriv").args(nobody).arg(&tool).arg("inspect").arg(path)).unwrap()
    };
    assert_eq!(as_nobody(&program).status.code(), Some(GOOD));
    let refused = as_nobody(&secret);
    assert_eq!(refused.status.code(), Some(KERNEL), "{refused:?}");
    assert!(refused.stderr.contains("sudo netpoll-probe inspect"));
}

#[test]
fn a_command_line_that_is_wrong() {
    for arguments in [&[][..], &["--json"], &["a", "b"], &["--json-schema", "a"]] {
        let finished =
            run(Command::new(probe::executable().unwrap()).arg("inspect").args(arguments)).unwrap();
        assert_eq!(finished.status.code(), Some(USAGE), "{finished:?}");
    }
    let schema = run(Command::new(probe::executable().unwrap()).args(["inspect", "--json-schema"])).unwrap();
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["$id"], "netpoll-probe/inspection/1");
}
