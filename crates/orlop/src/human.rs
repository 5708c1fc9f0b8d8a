//! Sizes, times and counts as people read them, and the arguments that people write for them.

use std::num::NonZeroU64;
use std::time::Duration;

use jiff::Timestamp;

/// Bytes in the largest binary unit that leaves at least one: `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// The same for what may not be known.
pub(crate) fn maybe_bytes(size: Option<u64>) -> String {
    size.map_or_else(dash, bytes)
}

/// A count that may not be known.
pub(crate) fn maybe<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(dash, |v| v.to_string())
}

/// What stands for nothing in a table.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

/// Time since an instant in one or two units, as `kubectl` shows ages: `5m`, `3h12m`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{minutes}m"),
        7200..36000 => format!("{hours}h{}m", minutes % 60),
        36000..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// How long something took: `0.4 s`, `3 min 05 s`.
pub(crate) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        hours => format!("{hours} h {:02} min", seconds / 60 % 60),
    }
}

/// An instant with its zone.
pub(crate) fn instant(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Reads `90s`, `10m`, `1h30m`; for arguments.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time, such as 90s, 10m or 1h30m");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// Reads `4096`, `512MiB`, `1 GiB`, and `10Gi` as Kubernetes writes it; for arguments.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 10] = [
        ("", 0),
        ("B", 0),
        ("KiB", 10),
        ("MiB", 20),
        ("GiB", 30),
        ("TiB", 40),
        ("Ki", 10),
        ("Mi", 20),
        ("Gi", 30),
        ("Ti", 40),
    ];
    let wrong = || format!("{text:?} is not a number of bytes, such as 4096, 512MiB or 1GiB");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = text[digits.len()..].trim();
    let (_, shift) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// The same for bytes a second, of which there must be some.
pub(crate) fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_bytes(text)?)
        .ok_or_else(|| "nothing would ever be done; leave the option out for no limit".to_owned())
}

/// Reads `key=value`; for arguments.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_the_largest_unit_that_leaves_one() {
        for (size, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), expected, "{size}");
        }
    }

    #[test]
    fn ages_are_as_kubectl_shows_them() {
        let now = Timestamp::from_second(10_000_000).expect("an instant");
        for (seconds, expected) in
            [(-5, "0s"), (5, "5s"), (119, "119s"), (120, "2m"), (7260, "2h1m"), (40_000, "11h"), (200_000, "2d")]
        {
            let since = Timestamp::from_second(10_000_000 - seconds).expect("an instant");
            assert_eq!(age(since, now), expected, "{seconds}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, seconds, shown) in
            [("90s", 90, "1 min 30 s"), ("10m", 600, "10 min 00 s"), ("1h30m", 5400, "1 h 30 min")]
        {
            let duration = parse_duration(text).expect("a duration");
            assert_eq!(duration.as_secs(), seconds, "{text}");
            assert_eq!(took(duration), shown);
        }
        for text in ["", "10", "-5s", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in
            [("0", 0), ("4096", 4096), ("7B", 7), ("512MiB", 512 << 20), ("1 GiB", 1 << 30), ("2tib", 2 << 40)]
        {
            assert_eq!(parse_bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "5 MB", "99999999TiB", "18446744073709551616"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_have_two_sides() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        for text in ["", "a", "=b", "a="] {
            assert!(parse_pair(text).is_err(), "{text}");
        }
    }
}
