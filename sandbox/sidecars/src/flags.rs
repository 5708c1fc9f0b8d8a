//! Arguments as Go programs take them: times such as `--timeout=1m30s`. What is true or false is `--flag` or `--flag=true`, by the attributes of each.

use std::path::PathBuf;
use std::time::Duration;

/// How to get to the driver.
#[derive(Debug, Clone)]
pub(crate) struct ToDriver {
    /// The socket of the driver.
    pub(crate) csi_address: PathBuf,
    /// The longest that a call may take.
    pub(crate) timeout: Duration,
}

/// A time as Go writes it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 60s or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += match &rest[digits..unit] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "60", "s", "1d", "1m30", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
