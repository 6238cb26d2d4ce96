//! What the recording cost, and what it was allowed to.

use serde::Serialize;

use crate::model::profile::{Budget, BudgetChange, Cost};

#[derive(Serialize)]
pub(super) struct CostJson {
    cpu_ns: Option<u64>,
    bpf_run_ns: Option<u64>,
    bpf_run_count: Option<u64>,
    peak_resident_bytes: Option<u64>,
    ring_records: u64,
    bpf_measured_ns: u64,
    budget: Option<BudgetJson>,
}

/// Shares of one core, in millionths.
#[derive(Serialize)]
struct BudgetJson {
    most_ppm: u64,
    last_ppm: Option<u64>,
    changes: Vec<BudgetChangeJson>,
}

#[derive(Serialize)]
struct BudgetChangeJson {
    after_ns: u64,
    cost_ppm: u64,
    busy_one_in: u32,
    adds_up: bool,
}

impl From<&Budget> for BudgetJson {
    fn from(Budget { most_ppm, last_ppm, changes }: &Budget) -> Self {
        let change = |&BudgetChange { after_ns, cost_ppm, busy_one_in, adds_up }: &BudgetChange| {
            BudgetChangeJson { after_ns, cost_ppm, busy_one_in, adds_up }
        };
        Self { most_ppm: *most_ppm, last_ppm: *last_ppm, changes: changes.iter().map(change).collect() }
    }
}

impl From<&Cost> for CostJson {
    fn from(cost: &Cost) -> Self {
        let Cost {
            cpu_ns,
            bpf_run_ns,
            bpf_run_count,
            bpf_measured_ns,
            peak_resident_bytes,
            ring_records,
            budget,
        } = cost;
        Self {
            cpu_ns: *cpu_ns,
            bpf_run_ns: *bpf_run_ns,
            bpf_run_count: *bpf_run_count,
            peak_resident_bytes: *peak_resident_bytes,
            ring_records: *ring_records,
            bpf_measured_ns: *bpf_measured_ns,
            budget: budget.as_ref().map(BudgetJson::from),
        }
    }
}
