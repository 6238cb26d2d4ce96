//! What builds the eBPF programs: Debian's `rustc-web`, whose package `rust-web-src` has the library's sources for
//! `-Z build-std`, and bpf-linker, built against the libLLVM that this compiler brings along.
//!
//! Neither takes the place of the user's Rust: `/usr/bin/rustc` is used through `RUSTC` only, and bpf-linker lies in the
//! target folder. A compiler and linker of one LLVM, from packages with a version, give the same bytes everywhere.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{debian, process::CommandExt as _, workspace};

/// Debian's compiler.
const RUSTC: &str = "/usr/bin/rustc";
/// The first bpf-linker that knows LLVM 21 to 23; the bytes of the object depend on it, so it is pinned.
const BPF_LINKER_VERSION: &str = "0.13.0";

/// An installed toolchain.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// The compiler.
    pub(super) rustc: PathBuf,
    /// The linker.
    pub(super) bpf_linker: PathBuf,
    /// Where the library's sources lie: by the sysroot, and with symbolic links followed.
    pub(super) library_sources: [PathBuf; 2],
    /// Name and version of each package, as the lock keeps them.
    pub(super) versions: Vec<(String, String)>,
}

impl Toolchain {
    /// Installs what is missing and says what there is.
    pub(super) fn install() -> Result<Self> {
        debian::install(&["rustc-web", "rust-web-src"])?;
        let major = llvm_major()?;
        let tools = workspace::target()?.join("ebpf/tools");
        let bpf_linker = tools.join("bin/bpf-linker");
        let built = fs::read_to_string(tools.join("llvm/version")).is_ok_and(|built| built == major);
        if !built || linker_version(&bpf_linker).is_none_or(|version| version != BPF_LINKER_VERSION) {
            install_linker(&tools, &major)?;
        }

        let sysroot = PathBuf::from(Command::new(RUSTC).args(["--print", "sysroot"]).stdout_text()?.trim());
        let library = sysroot.join("lib/rustlib/src/rust");
        let followed = fs::canonicalize(&library)
            .with_context(|| format!("cannot find the library's sources in {}", library.display()))?;

        let mut versions = Vec::new();
        for package in ["rustc-web", "rust-web-src", &format!("libllvm{major}")] {
            let version = debian::version(package)?.with_context(|| format!("{package} is not installed"))?;
            versions.push((package.to_owned(), version));
        }
        versions.push(("bpf-linker".to_owned(), BPF_LINKER_VERSION.to_owned()));
        Ok(Self { rustc: PathBuf::from(RUSTC), bpf_linker, library_sources: [library, followed], versions })
    }
}

/// The major version of the compiler's LLVM, such as `22`.
fn llvm_major() -> Result<String> {
    let text = Command::new(RUSTC).arg("-vV").stdout_text()?;
    text.lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .map(str::to_owned)
        .with_context(|| format!("{RUSTC} -vV names no LLVM version"))
}

/// The version that a bpf-linker says it has; `None` when it does not run, say because its libLLVM is gone.
fn linker_version(path: &Path) -> Option<String> {
    let text = Command::new(path).arg("--version").stdout_text().ok()?;
    text.trim().strip_prefix("bpf-linker ").map(str::to_owned)
}

/// Builds bpf-linker. It needs no LLVM headers, only a `lib/libLLVM.so` under `LLVM_PREFIX`: a link to the libLLVM of
/// Debian's compiler stands in for the 700 MB of llvm-22-dev.
fn install_linker(tools: &Path, major: &str) -> Result<()> {
    let prefix = tools.join("llvm");
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib"))?;
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link)?;
    }
    let library = find_libllvm(major)?;
    symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;

    let build = tools.join("build");
    eprintln!("installing bpf-linker {BPF_LINKER_VERSION} against {} (a minute)", library.display());
    Command::new(workspace::cargo())
        .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{major}")])
        .arg("--root")
        .arg(tools)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", &prefix)
        // Half the time and a twentieth of the size; the object's bytes are the same.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .run()?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    fs::write(prefix.join("version"), major)?;
    Ok(())
}

/// `libLLVM.so.MAJOR.MINOR`, as the dynamic linker knows it.
fn find_libllvm(major: &str) -> Result<PathBuf> {
    let start = format!("libLLVM.so.{major}.");
    let text = Command::new("/sbin/ldconfig").arg("-p").stdout_text()?;
    text.lines()
        .filter_map(|line| line.split_once(" => "))
        .find(|(name, _)| name.trim_start().starts_with(&start))
        .map(|(_, path)| PathBuf::from(path.trim()))
        .with_context(|| format!("no {start}* among the libraries that ldconfig knows"))
}
