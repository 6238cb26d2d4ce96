//! A flame graph: width is time waited, the last frames are the phases.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::{
    self, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap},
};

use super::{
    Options, folded,
    name::{self, short},
    unit::{Time, clean},
};
use crate::model::{
    function::{Origin, origin},
    profile::Profile,
    wait::Phase,
};

/// Writes the flame graph.
pub(super) fn render(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let stacks = folded::stacks(profile, options, &|frame| short(&frame.func));
    let total_ns: u64 = stacks.values().sum();
    let title = title(profile, options, total_ns);
    if total_ns == 0 {
        return render_empty(&title, out);
    }
    let mut palette = palette(profile, &stacks);
    let mut graph = flamegraph::Options::default();
    graph.title = title;
    graph.subtitle = Some(subtitle());
    graph.name_type = "Frame:".to_owned();
    (graph.count_name, graph.factor) = match total_ns {
        0..10_000_000 => ("ns".to_owned(), 1.0),
        10_000_000..10_000_000_000 => ("µs".to_owned(), 1e-3),
        10_000_000_000.. => ("ms".to_owned(), 1e-6),
    };
    graph.palette_map = Some(&mut palette);
    graph.bgcolors = Some(BackgroundColor::Flat(Color { r: 250, g: 250, b: 250 }));
    graph.text_truncate_direction = TextTruncateDirection::Right;
    let lines: Vec<String> = stacks.iter().map(|(stack, ns)| format!("{stack} {ns}")).collect();
    flamegraph::from_lines(&mut graph, lines.iter().map(String::as_str), BufWriter::new(out))
}

/// What it shows: whose waits, how much, of what.
fn title(profile: &Profile, options: &Options, total_ns: u64) -> String {
    let by = options.group_by.map(|dimension| format!(", by {}", dimension.name())).unwrap_or_default();
    let idle = if options.include_idle { ", idle waits included" } else { "" };
    format!(
        "Network waits of {}: {} over all goroutines in {}{by}{idle}",
        name::targets(profile),
        Time(total_ns),
        Time(profile.metadata.duration_ns)
    )
}

/// A legend that fits 1,200 pixels.
fn subtitle() -> String {
    "Width: time waited. Tips: [peer] nothing had come, [pickup] it had and nobody polled, [queue] no P ran it. \
     Code: yellow own, green libraries, grey Go"
        .to_owned()
}

/// Strong colors for the phases, pale ones for the code: the program's own yellow, libraries green, Go's grey.
fn palette<'stack>(
    profile: &Profile,
    stacks: impl IntoIterator<Item = (&'stack String, &'stack u64)>,
) -> PaletteMap {
    let mut palette = PaletteMap::default();
    for phase in Phase::ALL {
        let color = match phase {
            Phase::Peer => Color { r: 91, g: 155, b: 213 },
            Phase::Pickup => Color { r: 245, g: 158, b: 50 },
            Phase::Queue => Color { r: 222, g: 80, b: 66 },
            Phase::Unknown => Color { r: 165, g: 165, b: 165 },
        };
        palette.insert(format!("[{phase}]"), color);
    }
    let modules = profile.modules();
    for stack in profile.stacks.iter() {
        for frame in &stack.frames {
            let name = folded::frame(&short(&frame.func));
            if palette.get(&name).is_none() {
                let (r, g, b) = match origin(&frame.func, &modules) {
                    Origin::Program => (250, 214, 120),
                    Origin::Library => (178, 215, 168),
                    Origin::Standard => (214, 219, 226),
                    Origin::Unknown => (230, 230, 230),
                };
                let color = vary(&name, Color { r, g, b });
                palette.insert(name, color);
            }
        }
    }
    // What is left are groups, and the root.
    for (stack, _) in stacks {
        for name in stack.split(';').chain([""]) {
            if palette.get(name).is_none() {
                palette.insert(name, vary(name, Color { r: 206, g: 190, b: 226 }));
            }
        }
    }
    palette
}

/// A little darker by name, so that neighbours differ, and the same in every run.
fn vary(name: &str, color: Color) -> Color {
    let darker = name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)) % 16;
    let less = |part: u8| part.saturating_sub(darker);
    Color { r: less(color.r), g: less(color.g), b: less(color.b) }
}

/// inferno has no picture of nothing.
fn render_empty(title: &str, out: &mut dyn Write) -> io::Result<()> {
    let title = clean(title).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(
        out,
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="80" viewBox="0 0 1200 80" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#fafafa"/>
<g font-family="monospace" text-anchor="middle"><text x="50%" y="30" font-size="17">{title}</text>
<text x="50%" y="56" font-size="12">There was nothing to draw: no goroutine waited in the network poller, or only idle ones.</text></g>
</svg>"##
    )
}
