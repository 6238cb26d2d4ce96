//! Where things lie.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process::CommandExt as _;

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    // xtask is only ever run from the tree that it was built in.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target folder for this workspace, whatever moved it (`CARGO_TARGET_DIR`, a configuration file).
pub(crate) fn target() -> Result<PathBuf> {
    let text = Command::new(cargo())
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .stdout_text()?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cannot read cargo's metadata")?;
    let path = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    Ok(PathBuf::from(path.context("cargo's metadata has no target_directory")?))
}

/// The cargo that runs us.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Cargo's home: the registry's sources lie under it.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}
