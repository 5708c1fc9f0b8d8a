//! The kernel's table of mounts.

use std::path::PathBuf;

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The number of the device that it shows.
    pub device: (u32, u32),
    /// Which part of that file system it shows.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// Nobody can write there.
    pub read_only: bool,
    /// The file system.
    pub fs: String,
    /// The whole file system cannot be written, wherever it is shown.
    pub is_frozen: bool,
}

/// Reads the table; nothing if a line cannot be understood, for then nothing that is concluded from it holds.
pub(super) fn parse(table: &str) -> Option<Vec<Mount>> {
    table.lines().map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ').skip(2);
    let (major, minor) = words.next()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, at) = (unescape(words.next()?), unescape(words.next()?));
    let has_ro = |options: &str| options.split(',').any(|option| option == "ro");
    let read_only = has_ro(words.next()?);
    let mut words = after.split(' ');
    let fs = words.next()?.to_owned();
    let is_frozen = words.nth(1).is_some_and(has_ro);
    Some(Mount { device, root, at, read_only, fs, is_frozen })
}

/// The kernel writes blanks, tabs, ends of lines and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.filter(|_| bytes[at] == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    std::ffi::OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_the_kernel_writes_it() {
        let table = "36 35 7:3 / /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/loop3 ro,errors=continue\n\
                     37 35 0:5 /loop4 /pods/x ro - devtmpfs udev rw\n";
        let mount = |device, root: &str, at: &str, read_only, fs: &str, is_frozen| Mount {
            device,
            root: root.into(),
            at: at.into(),
            read_only,
            fs: fs.into(),
            is_frozen,
        };
        let expected = vec![
            mount((7, 3), "/", "/mnt/a b", false, "ext4", true),
            mount((0, 5), "/loop4", "/pods/x", true, "devtmpfs", false),
        ];
        assert_eq!(parse(table), Some(expected));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(unescape("a\\\\134"), PathBuf::from("a\\\\"));
    }

    #[test]
    fn the_table_of_this_process_can_be_read() {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(parse(&table).unwrap().iter().any(|mount| mount.at.as_os_str() == "/"));
    }
}
