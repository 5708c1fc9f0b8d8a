//! CRC-32C, the checksum of everything in a pool.

use crate::units::BLOCK;

/// The checksum of some bytes.
pub(crate) fn of(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The checksum of a structure whose own checksum is in the four bytes at `at`: as if these were zeros.
pub(crate) fn of_all_but(bytes: &[u8], at: usize) -> u32 {
    let sum = crc32c::crc32c(&bytes[..at]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    crc32c::crc32c_append(sum, &bytes[at + 4..])
}

/// The checksum of each block.
pub(crate) fn of_blocks(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(BLOCK).map(of).collect()
}
