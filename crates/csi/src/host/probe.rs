//! What is on a device, by the first bytes that file systems write.
//!
//! It is asked only of a device that has data. Whatever is not known is [`Content::Other`], and is left alone.

use super::FileSystem;

/// How much is looked at.
const HEAD: usize = 4096;

/// What is on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file system that can be mounted, and how many bytes of the device it uses.
    Known(FileSystem, u64),
    /// Something else: what it is called, if somebody knows.
    Other(Option<String>),
}

/// What these are the first bytes of.
pub(super) fn probe(head: &[u8]) -> Content {
    if head.len() < HEAD {
        return Content::Other(None);
    }
    if head.starts_with(b"XFSB") {
        return xfs(head);
    }
    let ext = &head[1024..];
    if ext[56..58] == [0x53, 0xEF] { ext4(ext) } else { Content::Other(None) }
}

fn xfs(head: &[u8]) -> Content {
    let number = |range: std::ops::Range<usize>| head[range].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let (block, blocks) = (number(4..8), number(8..16));
    Content::Known(FileSystem::Xfs, block.saturating_mul(blocks))
}

/// A superblock of ext2, ext3 or ext4: the kernel mounts them all as ext4.
fn ext4(superblock: &[u8]) -> Content {
    /// Numbers of blocks have 64 bits.
    const WIDE: u64 = 0x80;
    let number = |at: usize| superblock[at..at + 4].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let high = if number(0x60) & WIDE == 0 { 0 } else { number(0x150) };
    let blocks = high << 32 | number(4);
    // 1 KiB, shifted; a greater shift than any that there is says that this is none.
    match u32::try_from(number(24)) {
        Ok(shift @ 0..=16) => Content::Known(FileSystem::Ext4, blocks.saturating_mul(1024 << shift)),
        _ => Content::Other(Some("a damaged ext2, ext3 or ext4".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_are_told_from_noise() {
        let mut head = vec![0; HEAD];
        assert_eq!(probe(&head), Content::Other(None));
        head[..4].copy_from_slice(b"XFSB");
        (head[6], head[15]) = (0x10, 100);
        assert_eq!(probe(&head), Content::Known(FileSystem::Xfs, 409_600));
        head[4..16].fill(0xFF);
        assert_eq!(probe(&head), Content::Known(FileSystem::Xfs, u64::MAX));
        let mut head = vec![0; HEAD];
        head[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        (head[1028], head[1048]) = (8, 2);
        assert_eq!(probe(&head), Content::Known(FileSystem::Ext4, 32_768));
        head[1048] = 40;
        assert!(matches!(probe(&head), Content::Other(Some(_))));
        assert_eq!(probe(&head[..100]), Content::Other(None));
    }
}
