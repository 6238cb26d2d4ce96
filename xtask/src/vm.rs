//! `cargo xtask vm`: the live tests on other kernels, in virtual machines.
//!
//! The machine is emulated (qemu's TCG), since it has to boot unmodified kernels wherever CI runs, also inside another
//! virtual machine. It has nothing but busybox and static executables: no modules, no disk, no network but loopback.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::{debian, golang, machine::Machine, probe, process::CommandExt as _, workspace};

/// The checks of a kernel take one to two minutes on an idle host; a kernel that hangs is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(900);

/// What runs in the machine: `live-check` holds the probe's records against a program that knows its own waits, with each
/// way to know when the kernel made an fd ready, and the two sets of hooks against each other; and what is added up in the kernel
/// against the records of the same waits.
const CHECKS: [&str; 6] = [
    "--hooks syscalls --kernel-ready fentry",
    "--hooks pollwait --kernel-ready kprobe",
    "--hooks syscalls --kernel-ready tracepoints",
    "--hooks both",
    "--hooks syscalls --aggregate",
    "--hooks pollwait --aggregate",
];

/// The machine executes 250 million instructions a second, a tenth of a real one, so the load is lighter, and the clocks
/// that are read on both sides of a hook lie further apart.
const SLOWER: &str = "--patience 10 --intensity 0.1 --many 50 --error-p50-us 100 --error-p99-us 20000 \
    --kernel-ready-p50-us 200";

/// Run the live tests on other kernels, in virtual machines.
///
/// Takes Debian's kernels with apt-get, builds static executables of the probe, its live checks and the Go program that
/// knows its own waits, and boots each kernel with them under qemu. Needs no KVM. The console goes to
/// target/vm/KERNEL/console.log. Without --kernel: those for amd64.
#[derive(Debug, clap::Args)]
pub(crate) struct Vm {
    /// Only this kernel (repeatable)
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<Kernel>,
}

/// A series of kernels that Debian 12 packages. Those for arm64 are run only when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's own
    #[value(name = "6.1")]
    V6_1,
    /// In Debian 12's security archive
    #[value(name = "6.12")]
    V6_12,
    /// Debian 12's own, for arm64
    #[value(name = "arm64-6.1")]
    Arm64V6_1,
    /// In Debian 12's security archive, for arm64
    #[value(name = "arm64-6.12")]
    Arm64V6_12,
}

impl Kernel {
    const fn version(self) -> &'static str {
        match self {
            Self::V6_1 | Self::Arm64V6_1 => "6.1",
            Self::V6_12 | Self::Arm64V6_12 => "6.12",
        }
    }

    /// What it is called here.
    const fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Arm64V6_1 => "arm64-6.1",
            Self::Arm64V6_12 => "arm64-6.12",
        }
    }

    const fn machine(self) -> Machine {
        match self {
            Self::V6_1 | Self::V6_12 => Machine::X86_64,
            Self::Arm64V6_1 | Self::Arm64V6_12 => Machine::Aarch64,
        }
    }

    /// Fentry on arm64 came with Linux 6.4 (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS).
    fn checks(self) -> impl Iterator<Item = &'static str> {
        CHECKS.into_iter().filter(move |check| self != Self::Arm64V6_1 || !check.ends_with("fentry"))
    }

    /// How many CPUs: 6.1 hangs in starting the second one when time is counted in instructions (qemu 7.2).
    const fn cpus(self) -> &'static str {
        match self {
            Self::V6_1 => "1",
            Self::V6_12 | Self::Arm64V6_1 | Self::Arm64V6_12 => "2",
        }
    }

    /// The package that depends on the newest image of the series.
    const fn package(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
            Self::Arm64V6_1 => "linux-image-cloud-arm64",
            Self::Arm64V6_12 => "linux-image-6.12-cloud-arm64",
        }
    }
}

/// How many checks passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Passed.
    pub(crate) passed: usize,
    /// Failed.
    pub(crate) failed: usize,
}

impl Vm {
    /// Runs them; fails when a check does.
    pub(crate) fn run(&self) -> Result<()> {
        let all = [Kernel::V6_1, Kernel::V6_12];
        let count = run(if self.kernel.is_empty() { &all } else { &self.kernel })?;
        println!("{} passed, {} failed", count.passed, count.failed);
        ensure!(count.failed == 0, "{} checks failed in virtual machines", count.failed);
        Ok(())
    }
}

/// Boots each kernel and counts its checks.
pub(crate) fn run(kernels: &[Kernel]) -> Result<Count> {
    debian::install(&["busybox-static", "cpio"])?;
    let folder = workspace::target()?.join("vm");
    let mut total = Count::default();
    for &kernel in kernels {
        debian::install(&[match kernel.machine() {
            Machine::X86_64 => "qemu-system-x86",
            Machine::Aarch64 => "qemu-system-arm",
        }])?;
        let folder = folder.join(kernel.name());
        let initramfs = initramfs(kernel, &folder)?;
        let count = boot(kernel, &folder, &initramfs)?;
        println!("kernel {}: {} checks passed, {} failed", kernel.name(), count.passed, count.failed);
        total.passed += count.passed;
        total.failed += count.failed;
    }
    Ok(total)
}

/// Debian's packages for the kernel's machine.
fn archive(machine: Machine, folder: &Path) -> Result<debian::Archive> {
    if machine.is_host() {
        debian::Archive::own()
    } else {
        debian::Archive::of(machine.debian(), &folder.join("apt"))
    }
}

/// The shell and its tools for the machine: the installed ones, or fetched the first time.
fn busybox(machine: Machine, folder: &Path) -> Result<PathBuf> {
    if machine.is_host() {
        return Ok(PathBuf::from("/usr/bin/busybox"));
    }
    let busybox = folder.join("busybox");
    if !busybox.exists() {
        let extracted = archive(machine, folder)?.extract("busybox-static", folder)?;
        fs::rename(extracted.join("bin/busybox"), &busybox).context("busybox-static has no bin/busybox")?;
        fs::remove_dir_all(&extracted)?;
    }
    Ok(busybox)
}

/// Packs the file system of a kernel's machine.
fn initramfs(kernel: Kernel, folder: &Path) -> Result<PathBuf> {
    let machine = kernel.machine();
    let truth = folder.join("truth");
    golang::build(&workspace::root().join("tests/fixtures/go/truth"), &truth, machine, &[])?;
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for directory in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let checks: String = kernel
        .checks()
        .map(|check| format!("/live-check /netpoll-probe /truth {check} {SLOWER}\n"))
        .collect();
    fs::write(root.join("checks"), checks)?;
    for (from, to, mode) in [
        (busybox(machine, folder)?, "bin/busybox", 0o755),
        (workspace::root().join("xtask/vm/init"), "init", 0o755),
        (truth, "truth", 0o755),
        (probe::build_static(machine, "netpoll-probe", "netpoll-probe")?, "netpoll-probe", 0o755),
        (probe::build_static(machine, "netpoll-probe-tests", "live-check")?, "live-check", 0o755),
    ] {
        let to = root.join(to);
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    }

    let archive = folder.join("initramfs.cpio");
    let names = Command::new("find").arg(".").current_dir(&root).stdout_text()?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(File::create(&archive).with_context(|| format!("cannot write {}", archive.display()))?)
        .spawn()
        .context("cannot run cpio")?;
    if let Some(mut stdin) = cpio.stdin.take() {
        stdin.write_all(names.as_bytes())?;
    }
    ensure!(cpio.wait()?.success(), "cpio failed");
    Ok(archive)
}

/// The kernel's image, fetched the first time.
fn image(kernel: Kernel, folder: &Path) -> Result<PathBuf> {
    let image = folder.join("vmlinuz");
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(folder)?;
    let archive = archive(kernel.machine(), folder)?;
    let meta = kernel.package();
    let package = archive.depends(meta)?;
    ensure!(
        package.starts_with(&format!("linux-image-{}.", kernel.version())),
        "{meta} is {package} here, and not {}: this needs Debian 12",
        kernel.version()
    );
    let extracted = archive.extract(&package, folder)?;
    for entry in fs::read_dir(extracted.join("boot")).with_context(|| format!("{package} has no /boot"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")) {
            fs::rename(&path, &image)?;
        }
    }
    fs::remove_dir_all(&extracted)?;
    ensure!(image.exists(), "{package} has no vmlinuz");
    Ok(image)
}

/// Boots one kernel, shows and keeps its console, and counts the checks by what it says of them.
fn boot(kernel: Kernel, folder: &Path, initramfs: &Path) -> Result<Count> {
    let image = image(kernel, folder)?;
    let log_path = folder.join("console.log");
    let mut log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let begun = Instant::now();
    let (hardware, console): (&[&str], _) = match kernel.machine() {
        Machine::X86_64 => (&["qemu-system-x86_64", "-cpu", "max"], "ttyS0"),
        // `max` has pointer authentication, whose cipher takes half the time to emulate.
        Machine::Aarch64 => (&["qemu-system-aarch64", "-machine", "virt", "-cpu", "neoverse-n1"], "ttyAMA0"),
    };
    let mut qemu = Command::new("timeout")
        .args(["--kill-after=5", &PATIENCE.as_secs().to_string()])
        .args(hardware)
        .args(["-accel", "tcg,thread=single", "-smp", kernel.cpus(), "-m", "1536"])
        .args(["-icount", "shift=2,sleep=off"])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
        .args(["-append", &format!("console={console} quiet panic=-1")])
        .arg("-kernel")
        .arg(&image)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu")?;
    let mut console = Console::new(kernel.checks().count());
    if let Some(stdout) = qemu.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read the console")?;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            writeln!(log, "{line}")?;
            println!("{:>4} | {line}", kernel.name());
            console.read(line);
        }
    }
    let status = qemu.wait()?;
    println!("kernel {}: {:.0} s", kernel.name(), begun.elapsed().as_secs_f64());
    if !console.done {
        bail!(
            "kernel {} did not come to the end of its checks ({status}): see {}",
            kernel.name(),
            log_path.display()
        );
    }
    Ok(console.count)
}

/// What the console says, as `xtask/vm/init` writes it.
#[derive(Debug)]
struct Console {
    /// How many checks there are.
    checks: usize,
    count: Count,
    /// All of them ended, and then the machine.
    done: bool,
}

impl Console {
    fn new(checks: usize) -> Self {
        Self { checks, count: Count::default(), done: false }
    }

    fn read(&mut self, line: &str) {
        if let Some(ended) = line.strip_prefix("VM ended ") {
            if ended.starts_with("0 ") {
                self.count.passed += 1;
            } else {
                self.count.failed += 1;
            }
        }
        // A machine in which not every check ran, or which died in one, has passed nothing.
        self.done |= line.starts_with("VM done ") && self.count.passed + self.count.failed == self.checks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Console {
        let mut console = Console::new(2);
        for line in lines {
            console.read(line);
        }
        console
    }

    #[test]
    fn counts_checks_by_exit_code() {
        let console =
            read(&["VM begins a", "ok", "VM ended 0 a", "VM begins b", "VM ended 1 b", "VM done after 9 s"]);
        assert_eq!(console.count, Count { passed: 1, failed: 1 });
        assert!(console.done);
    }

    #[test]
    fn is_not_done_when_the_kernel_died() {
        assert!(!read(&["VM begins a", "VM ended 0 a", "VM begins b", "Kernel panic"]).done);
        assert!(!read(&["VM ended 0 a", "VM done after 1 s"]).done);
    }
}
