//! How large a volume is to be.

use crate::proto::CapacityRange;
use tonic::Status;

/// Volumes are made of whole blocks of this size.
const BLOCK: u64 = 4096;
/// The size of a volume of which nobody said how large it should be: it is thin, so it costs nothing.
const DEFAULT: u64 = 1 << 30;
/// The largest volume that a map can hold.
const MOST: u64 = 1 << 50;

/// What was asked for, in bytes: at least, and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    least: u64,
    most: Option<u64>,
    is_said: bool,
}

impl Wanted {
    /// Out of a request.
    pub(crate) fn new(range: Option<&CapacityRange>) -> Result<Self, Status> {
        let Some(range) = range else { return Ok(Self { least: 0, most: None, is_said: false }) };
        let number = |field: &str, bytes: i64| {
            let what =
                || Status::invalid_argument(format!("capacity_range.{field} is {bytes}, and must not be negative"));
            u64::try_from(bytes).map_err(|_| what())
        };
        let least = number("required_bytes", range.required_bytes)?;
        let most = number("limit_bytes", range.limit_bytes)?;
        let most = (most != 0).then_some(most);
        if most.is_some_and(|most| most < least) {
            let what = format!("capacity_range wants at least {least} bytes and at most {}", range.limit_bytes);
            return Err(Status::invalid_argument(what));
        }
        Ok(Self { least, most, is_said: least != 0 || most.is_some() })
    }

    /// The size of a volume that must have at least so many bytes, by what is in it.
    pub(crate) fn size(self, floor: u64, reason: &str) -> Result<u64, Status> {
        let default = if self.is_said || floor > 0 { 0 } else { DEFAULT };
        let bytes = self.least.max(floor).max(default).max(BLOCK).checked_next_multiple_of(BLOCK);
        let bytes = bytes.filter(|bytes| *bytes <= MOST).ok_or_else(|| {
            Status::out_of_range(format!(
                "{} bytes are wanted, and {MOST} are the most that a volume can have",
                self.least
            ))
        })?;
        self.fits(bytes, reason)?;
        Ok(bytes)
    }

    /// Refuses a size that is not what was asked for.
    pub(crate) fn fits(self, bytes: u64, reason: &str) -> Result<(), Status> {
        match self.most {
            Some(most) if most < bytes => {
                let what = format!("capacity_range allows {most} bytes at most, and {bytes} are needed{reason}");
                Err(Status::out_of_range(what))
            }
            _ if bytes < self.least => {
                Err(Status::out_of_range(format!("it has {bytes} bytes, and {} are required", self.least)))
            }
            _ => Ok(()),
        }
    }

    /// Somebody said how large it should be.
    pub(crate) fn is_said(self) -> bool {
        self.is_said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(required_bytes: i64, limit_bytes: i64) -> Result<Wanted, Status> {
        Wanted::new(Some(&CapacityRange { required_bytes, limit_bytes }))
    }

    fn size(required: i64, limit: i64, floor: u64) -> Result<u64, tonic::Code> {
        wanted(required, limit).and_then(|wanted| wanted.size(floor, "")).map_err(|e| e.code())
    }

    #[test]
    fn a_size_is_whole_blocks_within_the_range() {
        use tonic::Code::{InvalidArgument, OutOfRange};
        assert_eq!(Wanted::new(None).unwrap().size(0, "").unwrap(), DEFAULT);
        for (required, limit, floor, expected) in [
            (1, 0, 0, Ok(4096)),
            (4097, 8192, 0, Ok(8192)),
            (4097, 8191, 0, Err(OutOfRange)),
            (0, 1 << 20, 0, Ok(4096)),
            (4096, 0, 1 << 20, Ok(1 << 20)),
            (4096, 8192, 1 << 20, Err(OutOfRange)),
            (-1, 0, 0, Err(InvalidArgument)),
            (0, -1, 0, Err(InvalidArgument)),
            (2, 1, 0, Err(InvalidArgument)),
            (i64::MAX, 0, 0, Err(OutOfRange)),
        ] {
            assert_eq!(size(required, limit, floor), expected, "{required} {limit} {floor}");
        }
    }
}
