//! What was written by the first version opens in every later one.

use super::{Encrypted, Secret, WrappedKey};
use block::BlockSizes;
use block::testing::{self, Memory};
use std::sync::Arc;
use zeroize::Zeroizing;

const RECORD: &str = include_str!("frozen/key.json");
/// Four blocks: one of data, a hole, and two of data.
const CIPHER: &[u8] = include_bytes!("frozen/blocks");

fn plain() -> Vec<u8> {
    let mut plain: Vec<u8> = (0_u8..251).cycle().take(4 * 4096).collect();
    plain[4096..8192].fill(0);
    plain
}

#[test]
fn a_record_and_blocks_of_the_first_version_open() {
    let wrapped: WrappedKey = serde_json::from_str(RECORD).unwrap();
    let key = wrapped.unwrap(&Secret::new(Zeroizing::new(b"the first secret".to_vec())).unwrap()).unwrap();
    let mut memory = Memory::writable(CIPHER);
    memory.blocks = BlockSizes { minimum: 4096, preferred: 4096, maximum: 1 << 20 };
    let memory = Arc::new(memory);
    let device = Encrypted::new(memory.clone(), &key).unwrap();
    assert!(testing::read(&device, 0..4 * 4096).unwrap() == plain());
    // And what is written now is what was written then.
    testing::write(&device, 0, &plain()[..4096], false).unwrap();
    testing::write(&device, 8192, &plain()[8192..], false).unwrap();
    assert!(memory.bytes() == CIPHER);
    assert_eq!(format!("{}\n", serde_json::to_string(&wrapped).unwrap()), RECORD);
}
