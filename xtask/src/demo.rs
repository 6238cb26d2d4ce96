//! `cargo xtask demo`: the probe on a realistic Go service, from nothing.

use std::{
    fs,
    process::Command,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netpoll_probe_tests::process::{Follow, Process};

use crate::{golang, machine::Machine, probe, process::CommandExt as _, workspace};

/// How long the service may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// The load runs at its full rate before the probe attaches.
const SETTLE: Duration = Duration::from_secs(2);

/// Attach to a bundled Go service under load, and report what it waited for.
///
/// Builds the probe and tests/fixtures/go/demo: an HTTP service whose handlers wait for a slow database and for an
/// upstream with timeouts, with idle keep-alive connections beside. Records it, prints the report, and writes a flame
/// graph, the summary and each wait to target/demo. Needs root and Go. Ctrl-C ends the recording early.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// How long to record, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

impl Demo {
    /// Builds, records, says where the files are; the service ends with it, whatever happens.
    pub(crate) fn run(&self) -> Result<()> {
        probe::require_root("the demo")?;
        eprintln!("building the probe and the service");
        let executable = probe::build_release()?;
        let folder = workspace::target()?.join("demo");
        let service = folder.join("shop");
        golang::build(&workspace::root().join("tests/fixtures/go/demo"), &service, Machine::host(), &[])?;

        // Ctrl-C is for the probe, which ends early and reports; we stay to end the service.
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)))
            .context("cannot handle SIGINT")?;
        let duration = format!("{}s", self.seconds + 60);
        let mut shop =
            Process::spawn(Command::new(&service).args(["demo", "-duration", &duration]), Follow::Stdout)?;
        let line = shop.wait_for_line("READY serve ", PATIENCE)?;
        let pid = line
            .split(' ')
            .find_map(|word| word.strip_prefix("pid="))
            .with_context(|| format!("the service did not say its pid: {line}"))?;
        thread::sleep(SETTLE);

        let outputs = ["waits.svg", "waits.json", "waits.ndjson"].map(|name| folder.join(name));
        let mut attach = Command::new(&executable);
        attach.args(["attach", "--pid", pid, "--duration", &format!("{}s", self.seconds)]);
        for output in &outputs {
            attach.arg("--output").arg(output);
        }
        eprintln!("$ netpoll-probe attach --pid {pid} --duration {}s", self.seconds);
        attach.run()?;

        let [graph, summary, waits] = &outputs;
        println!();
        for (what, path) in [("flame graph", graph), ("summary", summary), ("each wait", waits)] {
            let size = fs::metadata(path).with_context(|| format!("no {}", path.display()))?.len();
            ensure!(size > 0, "{} is empty", path.display());
            println!("{what:<12} {}", path.display());
        }
        Ok(())
    }
}
