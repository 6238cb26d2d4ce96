//! What a machine allows, and a process on it: a list of facts, each good or not, each with what mends it.

use serde::Serialize;

/// How a fact bears on attaching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// It is as it should be, or does not matter here.
    Good,
    /// Attach works, and something is lost or dearer.
    Warning,
    /// Attach does not work.
    Problem,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub grade: Grade,
    /// What was found, in words.
    pub found: String,
    /// The command that mends it, or what to ask for; null when there is nothing to mend.
    pub mend: Option<String>,
}

impl Check {
    /// A fact that is as it should be.
    pub fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, grade: Grade::Good, found: found.into(), mend: None }
    }

    /// A fact that costs something.
    pub fn warning(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, grade: Grade::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    /// A fact that attach fails at.
    pub fn problem(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, grade: Grade::Problem, found: found.into(), mend: Some(mend.into()) }
    }
}

/// What attach would do here, and what stands in its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkup {
    /// Attach works.
    pub works: bool,
    /// Whose fault it is when it does not.
    pub blame: Option<Blame>,
    /// The machine.
    pub machine: Vec<Check>,
    /// The process that was asked about.
    pub target: Option<TargetCheckup>,
    /// The hooks that attach would choose; null when there is no way.
    pub plan: Option<Plan>,
}

/// Where the first problem lies, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// A permission, or the kernel.
    Machine,
    /// The process is not a Go program that is supported.
    Target,
}

/// The process that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetCheckup {
    /// Its pid.
    pub pid: u32,
    /// What was found.
    pub checks: Vec<Check>,
}

/// The hooks that attach would choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Why this one.
    pub why: String,
    /// By clock, in the order of time.
    pub clocks: Vec<PlanClock>,
}

/// How one clock is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanClock {
    /// Its name.
    pub clock: String,
    /// The hooks.
    pub hooks: Vec<String>,
    /// Why these.
    pub why: String,
    /// What is not known with them.
    pub lost: Option<String>,
    /// What they are expected to cost.
    pub cost: Cost,
}

/// What a clock's hooks are expected to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// From, nanoseconds.
    pub least_ns: u32,
    /// To, nanoseconds.
    pub most_ns: u32,
    /// How often.
    pub per: &'static str,
    /// Every process of the machine pays it, not only the target.
    pub machine_wide: bool,
}
