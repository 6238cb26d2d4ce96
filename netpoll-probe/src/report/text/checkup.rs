//! What a machine allows: whether attach works first, then every fact, each with what mends it, then the plan.

use std::io::{self, Write};

use super::{
    super::{Options, unit::clean},
    page::{Page, Tone},
};
use crate::model::checkup::{Blame, Check, Checkup, Cost, Grade, Plan};

/// Columns of the names of facts.
const LABEL: usize = 20;

/// Writes the findings.
pub(in super::super) fn render(checkup: &Checkup, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page::new(options);
    verdict(&mut page, checkup);
    page.title("This machine");
    for check in &checkup.machine {
        write_check(&mut page, check);
    }
    if let Some(target) = &checkup.target {
        page.title(&format!("Process {}", target.pid));
        for check in &target.checks {
            write_check(&mut page, check);
        }
    }
    if let Some(plan) = &checkup.plan {
        write_plan(&mut page, plan);
    }
    out.write_all(page.text().as_bytes())
}

fn verdict(page: &mut Page, checkup: &Checkup) {
    let checks = || checkup.machine.iter().chain(checkup.target.iter().flat_map(|target| &target.checks));
    let count = |grade: Grade| checks().filter(|check| check.grade == grade).count();
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let place = match &checkup.target {
        Some(target) => format!("on process {}", target.pid),
        None => "here".to_owned(),
    };
    match checkup.blame {
        None => {
            let but = match count(Grade::Warning) {
                0 => String::new(),
                warnings => format!(", with {}", plural(warnings, "warning")),
            };
            page.paragraph("", &format!("attach works {place}{but}."), Tone::Strong);
        }
        Some(blame) => {
            let whose = match blame {
                Blame::Machine => "of permissions or the kernel",
                Blame::Target => "with the process",
            };
            let problems = plural(count(Grade::Problem), "problem");
            page.paragraph("", &format!("attach does not work {place}: {problems}, {whose}."), Tone::Warning);
        }
    }
}

fn write_check(page: &mut Page, check: &Check) {
    let (mark, tone) = match check.grade {
        Grade::Good => ("good   ", Tone::Plain),
        Grade::Warning => ("warning", Tone::Pickup),
        Grade::Problem => ("PROBLEM", Tone::Warning),
    };
    page.paragraph(&format!("  {mark} {:<LABEL$}", check.name), &clean(&check.found), tone);
    if let Some(mend) = &check.mend {
        // Not wrapped: it is there to be copied.
        page.line(&[("          mend: ", Tone::Strong), (&clean(mend), Tone::Plain)]);
    }
}

fn write_plan(page: &mut Page, plan: &Plan) {
    page.title(&format!("What attach would do: plan {}", clean(&plan.name)));
    page.paragraph("  ", &clean(&plan.why), Tone::Plain);
    for clock in &plan.clocks {
        page.paragraph(&format!("  {:<13}", clock.clock), &clean(&clock.hooks.join(", ")), Tone::Plain);
        page.paragraph("               ", &format!("why: {}", clean(&clock.why)), Tone::Dim);
        if let Some(lost) = &clock.lost {
            page.paragraph("               ", &format!("lost: {}", clean(lost)), Tone::Pickup);
        }
        page.paragraph("               ", &format!("cost: {}", cost(&clock.cost)), Tone::Dim);
    }
    let own = plan.clocks.iter().filter(|clock| !clock.cost.machine_wide).map(|clock| &clock.cost);
    let (least, most) = own.fold((0, 0), |(least, most), cost| (least + cost.least_ns, most + cost.most_ns));
    let text =
        format!("together {} for each wait in the target, and what is the machine's.", range(least, most));
    page.paragraph("  expected     ", &text, Tone::Plain);
}

fn cost(cost: &Cost) -> String {
    let whose = if cost.machine_wide { ", whoever's it is" } else { "" };
    format!("{} for each {}{whose}", range(cost.least_ns, cost.most_ns), cost.per)
}

fn range(least_ns: u32, most_ns: u32) -> String {
    let micro = |ns: u32| f64::from(ns) / 1e3;
    format!("{:.1} to {:.1} µs", micro(least_ns), micro(most_ns))
}
