//! `/proc/PID/maps`, proc(5).
#![forbid(unsafe_code)]

use std::ops::Range;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub addresses: Range<u64>,
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It can be executed.
    pub execute: bool,
    /// The file offset of its first byte.
    pub file_offset: u64,
    /// The file's device, major and minor number; zero for anonymous memory.
    pub device: (u32, u32),
    /// The file's inode; zero for anonymous memory.
    pub inode: u64,
    /// The file's path or a name in brackets (`[stack]`); empty for anonymous memory. A newline in it is escaped as
    /// `\012`, and a deleted file's ends in ` (deleted)`.
    pub path: String,
}

/// Parses the whole file.
///
/// # Errors
/// The first line that is not of the documented form.
pub fn parse(text: &str) -> Result<Vec<Mapping>, String> {
    text.lines().map(|line| parse_line(line).ok_or_else(|| line.to_owned())).collect()
}

/// One line: `start-end perms offset major:minor inode   path`, all numbers but the inode in hexadecimal.
fn parse_line(line: &str) -> Option<Mapping> {
    let (start_end, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    let (file_offset, rest) = rest.split_once(' ')?;
    let (device, rest) = rest.split_once(' ')?;
    let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
    let (start, end) = start_end.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
    if start > end {
        return None;
    }
    let [read, write, execute, _shared] = *permissions.as_bytes() else { return None };
    Some(Mapping {
        addresses: start..end,
        read: read == b'r',
        write: write == b'w',
        execute: execute == b'x',
        file_offset: hexadecimal(file_offset)?,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        path: path.trim_start().to_owned(),
    })
}

fn hexadecimal(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_a_file_mapping_and_an_anonymous_one() {
        let text = "00400000-00480000 r-xp 00001000 fe:1a 1234                      /srv/my app (deleted)\n\
                    c000000000-c004000000 rw-p 00000000 00:00 0 \n";
        let maps = parse(text).unwrap();
        assert_eq!(
            maps,
            [
                Mapping {
                    addresses: 0x40_0000..0x48_0000,
                    read: true,
                    write: false,
                    execute: true,
                    file_offset: 0x1000,
                    device: (0xfe, 0x1a),
                    inode: 1234,
                    path: "/srv/my app (deleted)".into(),
                },
                Mapping {
                    addresses: 0xc0_0000_0000..0xc0_0400_0000,
                    read: true,
                    write: true,
                    execute: false,
                    file_offset: 0,
                    device: (0, 0),
                    inode: 0,
                    path: String::new(),
                },
            ]
        );
    }

    #[test]
    fn refuses_what_is_no_mapping() {
        for line in
            ["", "x", "1-2", "2-1 r-xp 0 0:0 0", "1-2 r-x 0 0:0 0", "1-2 r-xp 0 00 0", "1-2 r-xp 0 0:0 a"]
        {
            assert_eq!(parse(&format!("{line}\n")), Err(line.to_owned()));
        }
    }

    #[test]
    fn reads_its_own() {
        let maps = parse(&std::fs::read_to_string("/proc/self/maps").unwrap()).unwrap();
        let here = reads_its_own as *const () as u64;
        assert!(maps.iter().any(|map| map.addresses.contains(&here) && map.execute && map.inode != 0));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-f :rwxp/\\n-]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn gives_back_what_was_written(start: u32, length: u32, offset: u32, inode: u64, path in "(/[a-z (]{0,20}[a-z])?") {
            let (start, end) = (u64::from(start), u64::from(start) + u64::from(length));
            let line = format!("{start:08x}-{end:08x} r--s {offset:08x} 08:10 {inode}                      {path}\n");
            let maps = parse(&line).unwrap();
            prop_assert_eq!(maps.len(), 1);
            prop_assert_eq!(&maps[0].addresses, &(start..end));
            prop_assert_eq!(maps[0].file_offset, u64::from(offset));
            prop_assert_eq!(maps[0].device, (8, 16));
            prop_assert_eq!(maps[0].inode, inode);
            prop_assert_eq!(&maps[0].path, &path);
        }
    }
}
