//! What the next server must know of a device; it lies with the keeper.

/// The first byte: another layout has another number.
const VERSION: u8 = 1;

/// A device that is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// The number of the loop device.
    pub(crate) device: u32,
    /// The longest request that was agreed on with the kernel.
    pub(crate) longest: u32,
}

impl State {
    pub(crate) fn encode(self) -> Vec<u8> {
        [&[VERSION][..], &self.device.to_le_bytes(), &self.longest.to_le_bytes()].concat()
    }

    /// Nothing if it is of another version, or nonsense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (device, longest) = rest.split_at_checked(4)?;
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_le_bytes);
        let state = Self { device: number(device)?, longest: number(longest)? };
        (*version == VERSION && (4096..=1 << 20).contains(&state.longest)).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_nothing_else_is_one() {
        let state = State { device: 7, longest: 1 << 20 };
        assert_eq!(state.encode(), [1, 7, 0, 0, 0, 0, 0, 16, 0]);
        assert_eq!(State::decode(&state.encode()), Some(state));
        for wrong in [
            &[][..],
            &[2, 7, 0, 0, 0, 0, 0, 16, 0],
            &[1, 7, 0, 0, 0, 0, 0, 16],
            &[1; 10],
            &[1, 7, 0, 0, 0, 255, 255, 255, 255],
        ] {
            assert_eq!(State::decode(wrong), None, "{wrong:?}");
        }
    }
}
