//! How far the report can be trusted, how it was made, what it cost.

use super::{
    super::{
        Options,
        unit::{Bytes, Count, OfCore, Share, Time, clean},
    },
    page::{Page, Tone, solid},
};
use crate::model::{
    bypass::{Bypass, BypassFd, BypassKind},
    profile::{Budget, Cost, Plan, Profile},
    sums::Totals,
    wait::KernelReadySource,
};

/// Writes the lines below the tables.
pub(super) fn write(page: &mut Page, profile: &Profile, options: &Options, totals: &Totals) {
    page.blank();
    let idle = &profile.idle.totals.sums;
    if idle.count() > 0 && !options.include_idle {
        let text = format!(
            "{} idle waits (accept loops, keep-alive connections between requests); --idle shows them.",
            Count(idle.count())
        );
        page.paragraph("Left out  ", &text, Tone::Plain);
    }
    if totals.idle_beginnings > 0 && !options.include_idle {
        let text = format!(
            "and {} at the beginning of {} waits, before anything was asked of the peer.",
            Time(totals.idle_beginnings_ns),
            Count(totals.idle_beginnings)
        );
        page.paragraph("          ", &text, Tone::Plain);
    }
    quality(page, profile, totals);
    bypasses(page, profile);
    hooks(page, &profile.plan);
    cost(page, &profile.cost, profile.metadata.duration_ns);
    if let Some(told) = &profile.cost.budget {
        budget(page, told, profile.quality.not_followed);
    }
}

fn quality(page: &mut Page, profile: &Profile, totals: &Totals) {
    let quality = &profile.quality;
    let causes = |table: &std::collections::BTreeMap<String, u64>| {
        let parts: Vec<_> =
            table.iter().map(|(cause, count)| format!("{} {}", solid(Count(*count)), clean(cause))).collect();
        parts.join(", ")
    };
    let mut text = format!("{} waits seen", Count(quality.seen));
    text.push_str(", ");
    text.push_str(&match causes(&quality.lost) {
        none if none.is_empty() => "nothing lost".to_owned(),
        lost => format!("LOST: {lost}"),
    });
    text.push_str(", ");
    text.push_str(&match causes(&quality.unmatched) {
        none if none.is_empty() => "nothing unmatched".to_owned(),
        unmatched => format!("unmatched: {unmatched}"),
    });
    text.push_str(&format!(
        ". Open when the recording began: {}, when it ended: {}.",
        Count(quality.started_before),
        Count(quality.open)
    ));
    if quality.added_in_kernel > 0 {
        text.push_str(&format!(
            " {} were added up in the kernel: which goroutines and fds those were is not known.",
            solid(Count(quality.added_in_kernel))
        ));
    }
    let tone = if quality.lost_total() > 0 { Tone::Warning } else { Tone::Plain };
    page.paragraph("Quality   ", &text, tone);

    let unknown = [
        ("kernel-ready", quality.kernel_ready_unknown),
        ("poll", quality.poll_unknown),
        ("stack", quality.stack_unknown),
        ("root of the stack", quality.stack_truncated),
        ("socket", quality.endpoint_unknown),
        ("park", quality.park_unknown),
    ];
    let mut parts: Vec<_> = unknown
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} of {}", solid(Count(*count))))
        .collect();
    if quality.clamped > 0 {
        parts.push(format!("order of {} clocks", solid(Count(quality.clamped))));
    }
    let unknown = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
    page.paragraph("          ", &format!("Not known: {unknown}.{}", sources(totals)), Tone::Plain);
}

/// What is waited for where nothing is seen.
fn bypasses(page: &mut Page, profile: &Profile) {
    /// Fds that are named; the JSON has more.
    const NAMED: usize = 3;
    let mut label = "Bypasses  ";
    for Bypass { pid, kind, count, fds, modules, blocked_ns, longest_ns } in &profile.quality.bypasses {
        let mut named: Vec<String> = fds
            .iter()
            .take(NAMED)
            .map(|BypassFd { fd, peer }| match peer {
                Some(peer) => format!("fd {fd} to {}", clean(peer)),
                None => format!("fd {fd}"),
            })
            .collect();
        if fds.len() > NAMED {
            named.push("…".to_owned());
        }
        let (one, several, why) = match kind {
            BypassKind::BlockingSocket => (
                "blocking socket",
                "blocking sockets",
                "who waits on one blocks a thread, and is not seen here",
            ),
            BypassKind::OwnEpoll => (
                "epoll instance besides Go's netpoller",
                "epoll instances besides Go's netpoller",
                "an event loop of its own, whose waits are not seen here",
            ),
            BypassKind::CResolver => (
                "call of the C library's resolver",
                "calls of the C library's resolver",
                "each blocks a thread, and is no wait here; GODEBUG=netdns=go chooses Go's own",
            ),
        };
        let what = if *count == 1 { one } else { several };
        if !modules.is_empty() {
            named.push(format!("the program has {}", clean(&modules.join(", "))));
        }
        if let (Some(blocked_ns), Some(longest_ns)) = (blocked_ns, longest_ns) {
            named.push(format!("{} in all, {} at most", solid(Time(*blocked_ns)), solid(Time(*longest_ns))));
        }
        let of = if profile.metadata.targets.len() > 1 { format!(" of pid {pid}") } else { String::new() };
        let text = format!("{} {what}{of} ({}): {why}.", Count(*count), named.join(", "));
        page.paragraph(label, &text, Tone::Warning);
        label = "          ";
    }
}

/// How the moment of readiness is known.
fn sources(totals: &Totals) -> String {
    let all: u64 = totals.kernel_ready_sources.values().sum();
    let mut sources: Vec<_> = totals
        .kernel_ready_sources
        .iter()
        .filter(|(source, count)| *source != KernelReadySource::None && **count > 0)
        .collect();
    sources.sort_by_key(|(source, count)| (std::cmp::Reverse(**count), *source));
    let part = |(source, count): &(KernelReadySource, &u64)| {
        let estimate = match source {
            KernelReadySource::WriteEstimate | KernelReadySource::PollerWakeup => " (an estimate)",
            _ => "",
        };
        format!("{source}\u{a0}{}{estimate}", solid(Share(**count, all)))
    };
    let parts: Vec<_> = sources.iter().map(part).collect();
    if parts.is_empty() { String::new() } else { format!(" Kernel-ready known by {}.", parts.join(", ")) }
}

fn hooks(page: &mut Page, plan: &Plan) {
    let clocks: Vec<_> = plan
        .clocks
        .iter()
        .map(|clock| format!("{} by {}", clean(&clock.clock), clean(&clock.hook)))
        .collect();
    if !plan.name.is_empty() {
        page.paragraph("Hooks     ", &format!("{}: {}.", clean(&plan.name), clocks.join(", ")), Tone::Dim);
    }
    for clock in &plan.clocks {
        if let Some(lost) = &clock.lost {
            let text =
                format!("Not seen by {}: {} ({}).", clean(&clock.clock), clean(lost), clean(&clock.why));
            page.paragraph("          ", &text, Tone::Dim);
        }
    }
}

fn cost(page: &mut Page, cost: &Cost, duration_ns: u64) {
    let mut parts = Vec::new();
    if let Some(ns) = cost.cpu_ns {
        parts.push(format!("{} of CPU ({} of one)", solid(Time(ns)), solid(Share(ns, duration_ns))));
    }
    if let (Some(ns), Some(count)) = (cost.bpf_run_ns, cost.bpf_run_count) {
        let each = ns.checked_div(count).unwrap_or(0);
        let part = format!(
            "{} in its eBPF programs ({} of one; {} runs, {} each",
            solid(Time(ns)),
            solid(Share(ns, duration_ns)),
            Count(count),
            solid(Time(each))
        );
        let measured = if cost.bpf_measured_ns < duration_ns / 100 * 99 {
            format!("; measured for {} of it)", solid(Time(cost.bpf_measured_ns)))
        } else {
            ")".to_owned()
        };
        parts.push(part + &measured);
    }
    if let Some(bytes) = cost.peak_resident_bytes {
        parts.push(format!("{} of memory at most", solid(Bytes(bytes))));
    }
    parts.push(format!("{} records", Count(cost.ring_records)));
    page.paragraph("Own cost  ", &format!("{}.", parts.join(", ")), Tone::Dim);
}

/// What it was allowed to cost. Where not all waits were followed, every number above is an estimate.
fn budget(page: &mut Page, Budget { most_ppm, last_ppm, changes }: &Budget, not_followed: u64) {
    let most = solid(OfCore(*most_ppm));
    let last = last_ppm.map_or("it was too short to be measured".to_owned(), |ppm| {
        format!("it cost {} when it was last measured", solid(OfCore(ppm)))
    });
    let text = if changes.is_empty() {
        format!("at most {most} of one core: {last}, and all waits were followed.")
    } else {
        let fewest = changes.iter().map(|change| change.busy_one_in).max().unwrap_or(1);
        let mut done = Vec::new();
        if changes.iter().any(|change| change.adds_up) {
            done.push("waits were added up in the kernel, without a record of each".to_owned());
        }
        done.push(if fewest > 1 {
            format!(
                "about {} waits were not followed, of those on busy fds up to {} of {}; others, chosen by chance, stand for them, so all counts and times are estimates. On fds that are seldom waited on all were followed",
                Count(not_followed),
                Count(u64::from(fewest) - 1),
                Count(fewest.into())
            )
        } else {
            "all were followed".to_owned()
        });
        format!("at most {most} of one core: {last}. To get there {}.", done.join("; "))
    };
    page.paragraph("Budget    ", &text, if changes.is_empty() { Tone::Dim } else { Tone::Warning });
}
