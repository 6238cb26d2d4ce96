//! The tables: numbers left, names right, so that a long name is what gets cut.

use super::{
    super::{
        Options, name,
        unit::{Count, Share, Time},
    },
    page::{Page, Tone, cut, solid},
};
use crate::model::{
    group::{Dimension, Group, GroupKey},
    profile::{Profile, StackKey},
    sums::{Sums, Totals},
    wait::{Phase, Role},
};

/// Narrower than this, a table leaves columns out.
const ROOMY: usize = 96;
/// A row of the whole report stands for at least one of this many parts of the time, or had timeouts.
const SMALL: u64 = 1000;
/// Rows of the open waits.
const OPEN: usize = 6;

/// A cell of a table: its text, its width, how it looks.
type Cell = (String, usize, Tone);

/// Where the time went.
pub(super) fn phases(page: &mut Page, profile: &Profile, totals: &Totals) {
    let roomy = page.width() >= ROOMY;
    page.title("Where the time went");
    // What the other columns leave.
    let bar_width = page.width().saturating_sub(if roomy { 84 } else { 66 }).clamp(10, 30);
    let total_ns = totals.sums.total_ns();
    let mut head = format!("  {:<8} {:<bar_width$} {:>9} {:>7}", "phase", "", "total", "share");
    if roomy {
        head.push_str(&format!(" {:>8} {:>8} {:>8}", "p50", "p99", "max"));
    } else {
        head.push_str(&format!(" {:>8}", "p99"));
    }
    page.line(&[(&head, Tone::Dim)]);
    for phase in Phase::ALL {
        let ns = totals.sums.phases.get_ns(phase);
        if phase == Phase::Unknown && ns == 0 {
            continue;
        }
        let lengths = &totals.phases[phase];
        let at = |per_mille| time_or_dash(lengths.quantile_ns(per_mille));
        let mut numbers = format!(" {:>9} {:>7}", Time(ns), Share(ns, total_ns));
        if roomy {
            numbers.push_str(&format!(" {:>8} {:>8} {:>8}", at(500), at(990), at(1000)));
        } else {
            numbers.push_str(&format!(" {:>8}", at(990)));
        }
        page.line(&[
            (&format!("  {phase:<8} "), Tone::Plain),
            (&bar(ns, total_ns, bar_width), tone(phase)),
            (&numbers, Tone::Plain),
            (&format!("  {}", name::meaning(phase)), Tone::Dim),
        ]);
    }
    // Little's law: the sum over a time is how many waited at once, on average.
    let duration_ns = profile.metadata.duration_ns;
    if duration_ns > 0 {
        let at_once = total_ns as f64 / duration_ns as f64;
        let text = format!(
            "{} is the sum over all goroutines: on average {at_once:.1} of them were waiting at any moment of the {}.",
            solid(Time(total_ns)),
            solid(Time(duration_ns))
        );
        page.paragraph("  ", &text, Tone::Dim);
    }
}

const fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Peer => Tone::Peer,
        Phase::Pickup => Tone::Pickup,
        Phase::Queue => Tone::Queue,
        Phase::Unknown => Tone::Dim,
    }
}

/// A bar in eighths of a column; what is not nothing is seen.
fn bar(part: u64, whole: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let whole = u128::from(whole.max(1));
    let eighths = (u128::from(part) * 8 * width as u128 + whole / 2) / whole;
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).clamp(usize::from(part > 0), 8 * width);
    let bar = "█".repeat(eighths / 8) + EIGHTHS.get(eighths % 8).unwrap_or(&"");
    format!("{bar:<width$}")
}

fn time_or_dash(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), |ns| Time(ns).to_string())
}

/// The biggest groups.
pub(super) fn groups(
    page: &mut Page,
    profile: &Profile,
    options: &Options,
    dimension: Dimension,
    rows: usize,
) {
    let groups = profile.group_by(dimension, options.include_idle);
    let total_ns: u64 = groups.iter().map(|group| group.sums.total_ns()).sum();
    let with_timeouts = groups.iter().any(|group| group.sums.timeouts > 0);
    // What a profile does not tell apart comes last, however big.
    let (other, told): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.key == GroupKey::Other);
    let worth_a_row = |group: &Group| {
        options.group_by.is_some() || group.sums.timeouts > 0 || group.sums.total_ns() >= total_ns / SMALL
    };
    let shown = told.iter().take(rows).take_while(|group| worth_a_row(group)).count();
    let (shown, rest) = told.split_at(shown);

    page.title(title(dimension));
    let head = ["waits", "total", "share", "p50", "p99", "max", "timeouts"].map(str::to_owned);
    row(page, head.map(|text| (text, Tone::Dim)), with_timeouts, (header(dimension), Tone::Dim));
    for group in shown {
        let (called, detail) = describe(profile, options, group);
        sums_row(page, &group.sums, total_ns, with_timeouts, (&called, Tone::Plain));
        if let Some(detail) = detail {
            let indent = 10;
            let detail = cut(&detail, page.width().saturating_sub(indent));
            page.line(&[(&" ".repeat(indent), Tone::Plain), (&detail, Tone::Dim)]);
        }
    }
    let mut remainder = Sums::default();
    for group in rest.iter().chain(&other) {
        remainder.merge(&group.sums);
    }
    if remainder.count() > 0 {
        let name = match rest.len() {
            _ if !other.is_empty() => "all others".to_owned(),
            1 => "1 other".to_owned(),
            more => format!("{} others", Count(more as u64)),
        };
        sums_row(page, &remainder, total_ns, with_timeouts, (&name, Tone::Dim));
    }
}

const fn title(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Peer => "Whom it waited for",
        Dimension::Stack => "Where in the code",
        Dimension::Function => "In which functions",
        Dimension::Goroutine => "Which goroutines",
        Dimension::Fd => "On which fds",
        Dimension::Role => "To do what",
        Dimension::Outcome => "How it ended",
        Dimension::Phase => "In which phase",
    }
}

/// What the names of a table are.
const fn header(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Peer => "peer",
        Dimension::Stack | Dimension::Function => "function",
        Dimension::Goroutine => "goroutine, its longest wait",
        Dimension::Fd => "fd, its peer, its longest wait",
        Dimension::Role => "role",
        Dimension::Outcome => "outcome",
        Dimension::Phase => "phase",
    }
}

fn sums_row(page: &mut Page, sums: &Sums, total_ns: u64, with_timeouts: bool, called: (&str, Tone)) {
    let at = |per_mille| time_or_dash(sums.duration.quantile_ns(per_mille));
    let timeouts = if sums.timeouts > 0 { Tone::Warning } else { Tone::Dim };
    let (_, tone) = called;
    let cells = [
        (Count(sums.count()).to_string(), tone),
        (Time(sums.total_ns()).to_string(), tone),
        (Share(sums.total_ns(), total_ns).to_string(), tone),
        (at(500), tone),
        (at(990), tone),
        (at(1000), tone),
        (Count(sums.timeouts).to_string(), timeouts),
    ];
    row(page, cells, with_timeouts, called);
}

/// Numbers right-aligned, then a name that gets the rest of the line.
fn row(page: &mut Page, cells: [(String, Tone); 7], with_timeouts: bool, called: (&str, Tone)) {
    let [waits, total, share, p50, p99, max, timeouts] = cells;
    let roomy = page.width() >= ROOMY;
    let wide = |(text, tone): (String, Tone), width: usize| (text, width, tone);
    let width = if roomy { 9 } else { 8 };
    let mut columns: Vec<Cell> = vec![wide(waits, 8), wide(total, 9), wide(share, 8)];
    if roomy {
        columns.push(wide(p50, width));
    }
    columns.extend([wide(p99, width), wide(max, width)]);
    if with_timeouts {
        columns.push(wide(timeouts, 9));
    }
    let used: usize = columns.iter().map(|(_, width, _)| width).sum();
    let mut pieces: Vec<(String, Tone)> =
        columns.into_iter().map(|(text, width, tone)| (format!("{text:>width$}"), tone)).collect();
    pieces.push(("  ".to_owned(), Tone::Plain));
    pieces.push((cut(called.0, page.width().saturating_sub(used + 2)), called.1));
    let pieces: Vec<(&str, Tone)> = pieces.iter().map(|(text, tone)| (text.as_str(), *tone)).collect();
    page.line(&pieces);
}

/// A group's name, and a line on it.
fn describe(profile: &Profile, options: &Options, group: &Group) -> (String, Option<String>) {
    let called = name::group(profile, &group.key);
    match &group.key {
        GroupKey::Peer(_) => (called, peer_detail(profile, options, group)),
        GroupKey::Stack(key) => (called, stack_detail(profile, *key, group)),
        // Of a goroutine or an fd, the longest wait tells most.
        GroupKey::Goroutine(_) | GroupKey::Fd { .. } => {
            let Some(longest) = &group.sums.longest else { return (called, None) };
            let doing = name::doing(profile, longest.stack);
            // The header says that they are goroutines and fds.
            let (_, called) = called.split_once(' ').unwrap_or(("", &called));
            match &group.key {
                GroupKey::Fd { .. } => (format!("{called}, {doing}"), None),
                _ => (format!("{called}, {} in {doing}", name::peer(profile, longest.peer)), None),
            }
        }
        _ => (called, None),
    }
}

/// The functions that waited for a peer, and how much of it was the runtime's own time.
fn peer_detail(profile: &Profile, options: &Options, group: &Group) -> Option<String> {
    let functions = profile.functions_of_peer(&group.key, options.include_idle);
    let total_ns = group.sums.total_ns();
    let mut parts: Vec<String> = functions
        .iter()
        .take(2)
        .map(|(function, ns)| match function {
            _ if functions.len() == 1 => name::group(profile, function),
            _ => format!("{} {}", name::group(profile, function), Share(*ns, total_ns)),
        })
        .collect();
    if functions.len() > 2 {
        parts.push(format!("{} more", functions.len() - 2));
    }
    let phases = &group.sums.phases;
    let runtime = Share(phases.pickup_ns.saturating_add(phases.queue_ns), total_ns);
    let runtime = match runtime.percent() {
        10.0.. => format!("; {runtime} of it pickup and queue"),
        _ => String::new(),
    };
    (!parts.is_empty()).then(|| format!("in {}{runtime}", parts.join(", ")))
}

/// What the function called, what called it, and the peer of its longest wait.
fn stack_detail(profile: &Profile, key: StackKey, group: &Group) -> Option<String> {
    let stack = profile.stack(key)?;
    let (called, caller) = name::neighbours(stack, &profile.modules());
    let peer = group.sums.longest.as_ref().map(|longest| name::peer(profile, longest.peer));
    let parts = [
        peer,
        called.map(|called| format!("calls {called}")),
        caller.map(|caller| format!("called by {caller}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// Who still waits.
pub(super) fn open(page: &mut Page, profile: &Profile, options: &Options, totals: &Totals) {
    let count = totals.sums.open;
    if count == 0 {
        return;
    }
    let mut open: Vec<_> = profile.classes(options.include_idle).flat_map(|waits| &waits.open).collect();
    open.sort_by_key(|open| (std::cmp::Reverse(open.duration_ns), open.pid, open.goid, open.fd));
    page.title("Still waiting at the end");
    for wait in open.iter().take(OPEN) {
        let age = if wait.started_before {
            format!(">{}", Time(wait.duration_ns))
        } else {
            Time(wait.duration_ns).to_string()
        };
        let role = match wait.role {
            Role::Accept => "accept",
            Role::Connect => "connect to",
            Role::Read => "read from",
            Role::Write => "write to",
        };
        let peer = name::peer(profile, wait.peer);
        let doing = name::doing(profile, wait.stack);
        let text = format!("  goroutine {} to {role} {peer}, fd {}, in {doing}", wait.goid, wait.fd);
        let text = cut(&text, page.width().saturating_sub(11));
        page.line(&[(&format!("{age:>11}"), Tone::Plain), (&text, Tone::Plain)]);
    }
    let more = count.saturating_sub(open.len().min(OPEN) as u64);
    if more > 0 {
        page.line(&[(&format!("{:>11}  and {} more", "", Count(more)), Tone::Dim)]);
    }
    if open.iter().take(OPEN).any(|wait| wait.started_before) {
        page.line(&[("  >: since before the recording began, for how long is not known.", Tone::Dim)]);
    }
}
