//! Which processes.

use std::path::PathBuf;

use clap::Args;

/// The processes that a command is about. One of these is needed.
#[derive(Clone, Debug, Args)]
#[group(id = "targets", required = true, multiple = true)]
pub struct TargetArgs {
    /// The process to attach to (repeatable); with --cgroup or --container also its id in there
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,

    /// All Go processes of this name, as ps -o comm shows it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pid", "cgroup", "container"])]
    pub comm: Option<String>,

    /// All Go processes in this control group and those below it, also those that come later
    #[arg(long, value_name = "PATH", conflicts_with = "container")]
    pub cgroup: Option<PathBuf>,

    /// All Go processes of this container (docker, podman, containerd, CRI-O; the beginning of its id will do), also those
    /// that come later
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
}
