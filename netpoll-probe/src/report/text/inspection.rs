//! What a binary allows: whether attach works first, then what that rests on.

use std::{
    fmt::Display,
    io::{self, Write},
};

use super::{
    super::{
        Options,
        unit::{Bytes, Count, clean},
    },
    page::{Page, Tone, solid},
};
use crate::model::inspection::{
    Build, Executable, Finding, Inspection, Instruction, Offsets, Place, Site, Tables,
};

/// Columns of the names of facts.
const LABEL: usize = 18;

/// Writes the findings.
pub(in super::super) fn render(
    inspection: &Inspection,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut page = Page::new(options);
    let build = &inspection.build;
    let executable = inspection.executable.found();
    let mut parts = vec![clean(&inspection.file).into_owned(), Bytes(inspection.size_bytes).to_string()];
    parts.extend(build.go_version.as_deref().map(|version| clean(version).into_owned()));
    parts.extend(executable.map(|executable| executable.machine.to_owned()));
    page.paragraph("", &parts.join(" · "), Tone::Dim);
    page.blank();
    verdict(&mut page, inspection);

    if let Some(executable) = executable {
        page.title("Build");
        how_built(&mut page, executable, build);
    }
    if let Some(tables) = inspection.tables.found() {
        page.title("Go's own tables");
        go_tables(&mut page, tables);
        page.title("Probe sites");
        for site in &inspection.sites {
            probe_site(&mut page, site);
        }
        page.title("Offsets in the runtime's structs");
        match &inspection.offsets {
            Finding::Found(offsets) => struct_offsets(&mut page, offsets),
            Finding::Not(reason) => not(&mut page, "all", reason),
        }
        page.title("Variables of the runtime");
        for global in &inspection.globals {
            match &global.address {
                Finding::Found(address) => fact(&mut page, global.name, format_args!("at {address:#x}")),
                Finding::Not(reason) => not(&mut page, global.name, reason),
            }
        }
    }
    out.write_all(page.text().as_bytes())
}

fn verdict(page: &mut Page, inspection: &Inspection) {
    match &inspection.attach.reason {
        None => page.paragraph("", "attach works on this.", Tone::Strong),
        Some(reason) => {
            let text = format!("attach does not work on this: {}.", clean(reason));
            page.paragraph("", &text, Tone::Warning);
        }
    }
    if let Some(hint) = &inspection.attach.hint {
        page.paragraph("  hint: ", &clean(hint), Tone::Plain);
    }
    for limit in &inspection.limits {
        page.paragraph("- ", &format!("{}.", clean(limit)), Tone::Plain);
    }
}

/// One fact on a line, or on several where it is long.
fn fact(page: &mut Page, name: &str, value: impl Display) {
    page.paragraph(&format!("  {name:<LABEL$}"), &clean(&value.to_string()), Tone::Plain);
}

fn not(page: &mut Page, name: &str, reason: &str) {
    page.paragraph(&format!("  {name:<LABEL$}"), &format!("not: {}", clean(reason)), Tone::Warning);
}

fn how_built(page: &mut Page, executable: &Executable, build: &Build) {
    if let Some(version) = &build.go_version {
        let mut text = version.clone();
        if let Some(compiler) = build.compiler.as_deref().filter(|compiler| *compiler != "gc") {
            text.push_str(&format!(", compiler {compiler}"));
        }
        if let Some(vendor) = &build.vendor {
            text.push_str(&format!(", of a vendor or commit: {vendor}"));
        }
        if !build.experiments.is_empty() {
            text.push_str(&format!(", GOEXPERIMENT={}", build.experiments.join(",")));
        }
        fact(page, "Go", text);
    } else {
        fact(page, "Go", "not recorded");
    }
    fact(page, "mode", mode(executable, build));
    fact(page, "stripped", stripped(executable));
    fact(page, "C code", c_code(build));
    let flags = flags(executable.machine, build);
    if !flags.is_empty() {
        fact(page, "flags", flags.join(" "));
    }
    let pgo = match (&build.pgo, &build.compiler) {
        (Some(profile), _) => format!("yes, by {profile}"),
        (None, Some(_)) => "no".to_owned(),
        (None, None) => "not recorded".to_owned(),
    };
    fact(page, "PGO", pgo);
    if let Some(package) = &build.package {
        fact(page, "main package", package);
    }
    if let Some(module) = &build.module {
        fact(page, "module", format_args!("{module} {}", build.module_version.as_deref().unwrap_or("")));
    }
    if let Some(revision) = &build.revision {
        let mut text = format!("{} {}", revision.system.as_deref().unwrap_or(""), revision.id);
        if let Some(time) = &revision.time {
            text.push_str(&format!(" of {time}"));
        }
        if revision.modified == Some(true) {
            text.push_str(", changed since");
        }
        fact(page, "revision", text.trim_start());
    }
    for (name, id) in [("Go build id", &executable.go_build_id), ("GNU build id", &executable.gnu_build_id)] {
        if let Some(id) = id {
            fact(page, name, id);
        }
    }
}

fn mode(executable: &Executable, build: &Build) -> String {
    let mode = match (&build.mode, executable.pie) {
        (Some(mode), _) => mode.clone(),
        (None, true) => "pie".to_owned(),
        (None, false) => "exe".to_owned(),
    };
    let dynamic = if executable.dynamic { "dynamic" } else { "static" };
    let linker = match executable.linker {
        Some("external") => "linked by the system's linker",
        Some(_) => "linked by Go's own linker",
        None => "linker unknown",
    };
    format!("{mode}, {dynamic}, {linker}")
}

fn stripped(executable: &Executable) -> String {
    let what = match (executable.symbols, executable.dwarf) {
        (true, true) => "no",
        (true, false) => "of DWARF; it has symbols",
        (false, true) => "of symbols; it has DWARF",
        (false, false) => "yes: no symbols, no DWARF",
    };
    if executable.section_headers { what.to_owned() } else { format!("{what}, no section headers") }
}

fn c_code(build: &Build) -> &'static str {
    match (build.cgo, build.cgo_enabled) {
        (Some(true), _) => "linked in (cgo)",
        (Some(false), Some(true)) => "none, although cgo was enabled",
        (Some(false), _) => "none",
        (None, Some(true)) => "possible: cgo was enabled",
        (None, Some(false)) => "none: cgo was not enabled",
        (None, None) => "not recorded",
    }
}

fn flags(machine: &str, build: &Build) -> Vec<String> {
    let mut flags = Vec::new();
    let level_name = format!("GO{}", machine.to_uppercase());
    for (name, set) in [("-race", build.race), ("-trimpath", build.trimpath)] {
        if set == Some(true) {
            flags.push(name.to_owned());
        }
    }
    flags.extend(build.sanitizer.map(|what| format!("-{}san", what.get(..1).unwrap_or_default())));
    flags.extend(build.tags.as_ref().map(|tags| format!("-tags={tags}")));
    flags.extend(build.ldflags.as_ref().map(|flags| format!("-ldflags={flags:?}")));
    flags.extend(build.processor_level.as_ref().map(|level| format!("{level_name}={level}")));
    flags.extend(build.fips.as_ref().filter(|fips| *fips != "off").map(|fips| format!("GOFIPS140={fips}")));
    flags
}

fn go_tables(page: &mut Page, tables: &Tables) {
    let place = |place: &Place| match &place.section {
        Some(section) => format!("at {:#x}, in {section}", place.address),
        None => format!("at {:#x}", place.address),
    };
    let functions = format!("{}, {} functions", place(&tables.pclntab), solid(Count(tables.functions)));
    fact(page, "pclntab", functions.replace('\u{a0}', " "));
    fact(page, "moduledata", format_args!("{}, text at {:#x}", place(&tables.moduledata), tables.text));
    let inlining = if tables.inlining { "found" } else { "not found" };
    fact(page, "inlined calls", inlining);
}

fn probe_site(page: &mut Page, site: &Site) {
    let purpose = site.purpose.split(',').next().unwrap_or(site.purpose);
    match &site.instruction {
        Finding::Found(found) => fact(page, purpose, instruction(found)),
        Finding::Not(reason) => not(page, purpose, reason),
    }
}

fn instruction(found: &Instruction) -> String {
    let cost = match found.emulated {
        Some(how) => format!("emulated as {how}"),
        None => "single-stepped".to_owned(),
    };
    format!(
        "{}+{}: {}, {cost}, at {:#x} in the file",
        found.function, found.offset, found.text, found.file_offset
    )
}

fn struct_offsets(page: &mut Page, offsets: &Offsets) {
    fact(page, "source", &offsets.source);
    for described in &offsets.structs {
        let members: Vec<String> = described
            .members
            .iter()
            .map(|member| solid(format_args!("{} {}", member.name, member.offset)))
            .collect();
        let size = described.size.map_or_else(String::new, |size| format!("{size} bytes: "));
        let name = described.name;
        page.paragraph(&format!("  {name:<LABEL$}"), &format!("{size}{}", members.join(", ")), Tone::Plain);
    }
    fact(page, "epoll events", format_args!("hold {}", offsets.epoll_data));
}
