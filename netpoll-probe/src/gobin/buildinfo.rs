//! The build information that the go command embeds: Go version, module, settings such as `-ldflags`, `-pgo`, `CGO_ENABLED`.
//!
//! The blob starts with a 32-byte header (magic, pointer size, flags); since Go 1.18 flag 2 is set and two strings with a
//! varint length follow: version and module information. Source: `debug/buildinfo/buildinfo.go` (readRawBuildInfo) and
//! `runtime/debug/mod.go` (ParseBuildInfo) of Go 1.26. It survives `-s -w` and `strip`.

use std::ops::ControlFlow;

use super::{
    bytes::{u8_at, u64_at, uvarint},
    elf::Elf,
    error::Error,
    source::{FileRange, Source},
};

/// `debug/buildinfo/buildinfo.go: buildInfoMagic`.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// `buildInfoAlign` and `buildInfoHeaderSize` there.
const ALIGN_BYTES: usize = 16;
const HEADER_BYTES: usize = 32;
/// Longest version string accepted; real ones have 6 to 60 bytes.
const MAX_VERSION_BYTES: u64 = 1024;
/// Longest module information accepted; a program with 1000 dependencies has about 100 KiB.
const MAX_MODULE_BYTES: u64 = 4 << 20;
/// The first minor version whose tables this crate reads.
const MIN_GO_MINOR: u32 = 18;

/// What the go command wrote into the binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// The toolchain as it names itself: `go1.26.8`, `go1.27rc1`, `devel go1.28-af1b2c3`, `go1.24.3 X:nocoverageredesign`.
    pub go_version: String,
    /// The import path of the main package, if recorded.
    pub package_path: Option<String>,
    /// The main module's path, if recorded.
    pub module_path: Option<String>,
    /// The main module's version, such as `(devel)` or `v1.2.3`.
    pub module_version: Option<String>,
    /// The modules that it was built with: path and version.
    pub dependencies: Vec<(String, String)>,
    /// The settings in the file's order: `-buildmode`, `-compiler`, `-ldflags`, `-pgo`, `CGO_ENABLED`, `GOAMD64`, …
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// The value of a setting, such as `-pgo` or `CGO_ENABLED`.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The number after `go1.`: 26 for `go1.26.8`. `None` for a version string without one, such as `unknown`.
    #[must_use]
    pub fn go_minor(&self) -> Option<u32> {
        go_minor(&self.go_version)
    }

    /// Finds and decodes the blob; `Ok(None)` when there is none.
    pub(super) fn read(source: &Source, elf: &Elf) -> Result<Option<Self>, Error> {
        let section = elf.section(".go.buildinfo").and_then(super::elf::Section::file_range);
        // Without section names: the linker puts it into the data segment; later linkers may use a read-only one.
        let mut segments: Vec<_> = elf.segments.iter().filter(|segment| !segment.executable).collect();
        segments.sort_by_key(|segment| !segment.writable);
        let ranges = section.into_iter().chain(segments.into_iter().map(super::elf::Segment::file_range));
        for range in ranges {
            if let Some(found) = search(source, elf, range)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Tries every aligned occurrence of the magic in `range`, since a program that reads build info holds it as a constant too.
fn search(source: &Source, elf: &Elf, range: FileRange) -> Result<Option<BuildInfo>, Error> {
    let found = source.scan(range, HEADER_BYTES, |at, window| {
        // The alignment is that of the address, which equals that of the offset as segments are page aligned.
        let first = usize::try_from(at.next_multiple_of(ALIGN_BYTES as u64) - at).unwrap_or(0);
        for start in (first..window.len()).step_by(ALIGN_BYTES) {
            let Some(candidate) = window.get(start..) else { break };
            if candidate.starts_with(MAGIC) {
                match decode(source, elf, at + start as u64, range.end) {
                    Ok(None) => {}
                    Ok(Some(info)) => return ControlFlow::Break(Ok(info)),
                    Err(error) => return ControlFlow::Break(Err(error)),
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    found.transpose()
}

/// Decodes a blob; `Ok(None)` when these bytes are no blob after all.
fn decode(source: &Source, elf: &Elf, offset: u64, end: u64) -> Result<Option<BuildInfo>, Error> {
    let Ok(header) = source.read_array::<HEADER_BYTES>(offset) else { return Ok(None) };
    let (Some(8), Some(flags)) = (u8_at(&header, 14), u8_at(&header, 15)) else {
        // Since 1.18 the pointer size is still written, though nothing uses it.
        return Ok(None);
    };
    let info = if flags & 2 != 0 {
        let Some((version, after)) = string(source, offset + HEADER_BYTES as u64, end, MAX_VERSION_BYTES)
        else {
            return Ok(None);
        };
        let module =
            string(source, after, end, MAX_MODULE_BYTES).map(|(module, _)| module).unwrap_or_default();
        parse(&version, &module)
    } else {
        let Some(version) = u64_at(&header, 16).and_then(|vaddr| pointed_string(source, elf, vaddr)) else {
            return Ok(None);
        };
        return Err(Error::UnsupportedGoVersion { found: version });
    };
    match info.go_minor() {
        Some(minor) if minor < MIN_GO_MINOR => Err(Error::UnsupportedGoVersion { found: info.go_version }),
        _ => Ok(Some(info)),
    }
}

/// A string with a varint length at `offset`, and the offset after it.
fn string(source: &Source, offset: u64, end: u64, max_bytes: u64) -> Option<(Vec<u8>, u64)> {
    let head_len = usize::try_from(end.min(source.size_bytes()).checked_sub(offset)?.min(10)).ok()?;
    let head = source.read_vec(offset, head_len).ok()?;
    let (len, taken) = uvarint(&head)?;
    if len > max_bytes {
        return None;
    }
    let start = offset.checked_add(taken as u64)?;
    let text = source.read_vec(start, usize::try_from(len).ok()?).ok()?;
    Some((text, start.checked_add(len)?))
}

/// The version string of Go < 1.18, reached through two pointers; only wanted for the error message.
fn pointed_string(source: &Source, elf: &Elf, vaddr: u64) -> Option<String> {
    let header: [u8; 16] = source.read_array(elf.file_offset(vaddr)?).ok()?;
    let (data, len) = (u64_at(&header, 0)?, u64_at(&header, 8)?);
    if len > MAX_VERSION_BYTES {
        return None;
    }
    let text = source.read_vec(elf.file_offset(data)?, usize::try_from(len).ok()?).ok()?;
    let text = String::from_utf8(text).ok()?;
    text.contains("go1").then_some(text)
}

/// The number after `go1.`.
fn go_minor(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("go1.")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| rest.get(..end).unwrap_or(rest));
    digits.parse().ok()
}

fn parse(version: &[u8], module: &[u8]) -> BuildInfo {
    let mut info =
        BuildInfo { go_version: String::from_utf8_lossy(version).into_owned(), ..BuildInfo::default() };
    // Framed by two 16-byte sentinels: cmd/go/internal/modload/build.go infoStart, infoEnd.
    let framed = module.len() >= 33 && module.get(module.len() - 17) == Some(&b'\n');
    let text = if framed { module.get(16..module.len() - 16) } else { None };
    let text = String::from_utf8_lossy(text.unwrap_or_default());
    for line in text.lines() {
        let Some((kind, rest)) = line.split_once('\t') else { continue };
        match kind {
            "path" => info.package_path = Some(rest.to_owned()),
            "mod" => {
                let mut columns = rest.split('\t');
                info.module_path = columns.next().map(str::to_owned);
                info.module_version = columns.next().map(str::to_owned);
            }
            "dep" => {
                if let Some((path, version)) = rest.split_once('\t') {
                    let version = version.split('\t').next().unwrap_or_default();
                    info.dependencies.push((path.to_owned(), version.to_owned()));
                }
            }
            "build" => info.settings.extend(setting(rest)),
            _ => {}
        }
    }
    info
}

/// `key=value`, either of which may be a quoted Go string.
fn setting(line: &str) -> Option<(String, String)> {
    let (key, rest) = match line.chars().next()? {
        '"' | '`' => unquote(line)?,
        _ => {
            let equals = line.find('=')?;
            (line.get(..equals)?.to_owned(), line.get(equals..)?)
        }
    };
    let raw = rest.strip_prefix('=')?;
    let value = match raw.chars().next() {
        Some('"' | '`') => unquote(raw)?.0,
        _ => raw.to_owned(),
    };
    Some((key, value))
}

/// The Go string literal that `text` starts with, and what follows it. Escapes as `strconv.Quote` writes them.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    let mut out = Vec::new();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((String::from_utf8_lossy(&out).into_owned(), text.get(at + 1..)?));
        }
        if c != '\\' || quote == '`' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let (_, escape) = chars.next()?;
        let mut hex = |digits: usize| {
            let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
            u32::from_str_radix(&text, 16).ok()
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            'x' => out.push(u8::try_from(hex(2)?).ok()?),
            'u' | 'U' => {
                let c = char::from_u32(hex(if escape == 'u' { 4 } else { 8 })?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_of_every_shape_of_version() {
        for (version, minor) in [
            ("go1.18", Some(18)),
            ("go1.26.8", Some(26)),
            ("go1.27rc1", Some(27)),
            ("devel go1.28-af1b2c3 Mon Jan 1", Some(28)),
            ("go1.24.3 X:nodwarf5", Some(24)),
            ("unknown", None),
            ("go1.", None),
        ] {
            assert_eq!(go_minor(version), minor, "{version}");
        }
    }

    #[test]
    fn module_information_as_the_go_command_writes_it() {
        let mut module = b"0123456789abcdef".to_vec();
        module.extend_from_slice(
            b"path\texample.com/cmd/x\nmod\texample.com\t(devel)\t\ndep\ta.b/c\tv1.0.0\th1:x=\n\
              build\t-ldflags=\"-s -w -X main.v=\\\"1\\\"\"\nbuild\tCGO_ENABLED=0\nbuild\t\"odd key\"=`raw\\n`\nbuild\tDefaultGODEBUG=\n",
        );
        module.extend_from_slice(b"fedcba9876543210");
        let info = parse(b"go1.26.8", &module);
        assert_eq!(info.package_path.as_deref(), Some("example.com/cmd/x"));
        assert_eq!(info.module_path.as_deref(), Some("example.com"));
        assert_eq!(info.module_version.as_deref(), Some("(devel)"));
        assert_eq!(info.dependencies, [("a.b/c".to_owned(), "v1.0.0".to_owned())]);
        assert_eq!(info.setting("-ldflags"), Some("-s -w -X main.v=\"1\""));
        assert_eq!(info.setting("CGO_ENABLED"), Some("0"));
        assert_eq!(info.setting("odd key"), Some("raw\\n"));
        assert_eq!(info.setting("DefaultGODEBUG"), Some(""));
        assert_eq!(info.setting("-pgo"), None);
    }

    #[test]
    fn quoted_strings() {
        assert_eq!(unquote(r#""a\x41\u00e9\n"rest"#), Some(("aA\u{e9}\n".to_owned(), "rest")));
        assert_eq!(unquote(r#""no end"#), None);
        assert_eq!(unquote(r#""\x4"#), None);
    }
}
