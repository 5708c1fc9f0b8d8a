//! Randomness that can be repeated.

/// The randomness of one request under one rule: a pure function of seed, rule and count, so that requests that come in
/// another order have the same fates.
#[derive(Clone, Copy)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64, rule: u64, count: u64) -> Self {
        Self(mix(mix(mix(seed) ^ rule) ^ count))
    }

    /// A number from 0 up to, but not including, 1.
    #[expect(clippy::cast_precision_loss, reason = "the upper 53 bits are what a double holds exactly")]
    pub(super) fn unit(self) -> f64 {
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn index(self, length: usize) -> usize {
        let index = mix(self.0) % (length as u64).max(1);
        usize::try_from(index).unwrap_or_default()
    }
}

/// The finaliser of SplitMix64 after one step: every bit of the input moves half of the output's.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
