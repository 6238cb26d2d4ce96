//! The report at a terminal: the answer in words first ([`verdict`]), then where the time went, by phase, peer, stack,
//! goroutine and fd, then how far it can be trusted and what it cost.

pub(super) mod checkup;
mod footer;
pub(super) mod inspection;
mod page;
mod table;
mod verdict;

use std::io::{self, Write};

use self::page::{Page, Tone};
use super::{Options, name, unit};
use crate::model::{group::Dimension, profile::Profile};

/// Rows of the tables of the whole report.
const PEERS: usize = 8;
const STACKS: usize = 8;
const GOROUTINES: usize = 5;
const FDS: usize = 5;
/// Rows of the one table of `--group-by`.
const GROUPS: usize = 40;

/// Writes the report.
pub(super) fn render(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page::new(options);
    header(&mut page, profile);
    let totals = profile.totals(options.include_idle);
    let verdict = verdict::of(profile, options, &totals);
    page.paragraph("", &verdict.headline, Tone::Strong);
    for remark in &verdict.remarks {
        page.paragraph("- ", remark, Tone::Plain);
    }
    if totals.sums.count() > 0 {
        table::phases(&mut page, profile, &totals);
        match options.group_by {
            Some(Dimension::Phase) => {}
            Some(dimension) => table::groups(&mut page, profile, options, dimension, GROUPS),
            None => {
                table::groups(&mut page, profile, options, Dimension::Peer, PEERS);
                table::groups(&mut page, profile, options, Dimension::Stack, STACKS);
                table::groups(&mut page, profile, options, Dimension::Goroutine, GOROUTINES);
                table::groups(&mut page, profile, options, Dimension::Fd, FDS);
            }
        }
        table::open(&mut page, profile, options, &totals);
    }
    footer::write(&mut page, profile, options, &totals);
    out.write_all(page.text().as_bytes())
}

/// Pids in the first line; the JSON has all.
const SHOWN_PIDS: usize = 6;

/// What was recorded.
fn header(page: &mut Page, profile: &Profile) {
    let metadata = &profile.metadata;
    let mut parts = vec![name::targets(profile)];
    if let [target] = metadata.targets.as_slice() {
        let inside =
            target.namespace_pid.map_or_else(String::new, |pid| format!(" ({pid} in its container)"));
        parts.push(format!("pid {}{inside}", target.pid));
        parts.push(unit::clean(&target.go_version).into_owned());
    } else if !metadata.targets.is_empty() {
        let pids: Vec<String> =
            metadata.targets.iter().take(SHOWN_PIDS).map(|target| target.pid.to_string()).collect();
        let more = if metadata.targets.len() > SHOWN_PIDS { ", …" } else { "" };
        parts.push(format!("pids {}{more}", pids.join(", ")));
    }
    parts.extend(metadata.host.as_deref().map(|host| unit::clean(host).into_owned()));
    let started = unit::wall_time(metadata.started, false);
    parts.push(format!("{} from {started}", unit::Time(metadata.duration_ns)));
    page.paragraph("", &parts.join(" · "), Tone::Dim);
    page.blank();
}
