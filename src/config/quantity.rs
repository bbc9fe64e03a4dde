//! Sizes and durations as people write them: `64MiB`, `25s`. An error says what to write.

use std::time::Duration;

/// Bytes. Units count in powers of 1024 with an `i`, of 1000 without, as IEC 80000-13 has them.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write a number of bytes or a size such as `64MiB`, `1GiB` or `500MB`".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number and a unit, such as `64MiB`".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is more than 64 bits of bytes".to_owned())
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("write a duration with its unit, such as `500ms`, `25s`, `5m`, `12h` or `7d`".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number and a unit, such as `25s`".to_owned())?;
    let milliseconds = number.checked_mul(factor_ms).filter(|milliseconds| i64::try_from(*milliseconds).is_ok());
    milliseconds.map(Duration::from_millis).ok_or_else(|| "that is more than 64 bits of milliseconds".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_carry_units() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("500 MB"), Ok(500_000_000));
        assert_eq!(parse_size("17"), Ok(17));
        assert!(parse_size("64M").is_err());
        assert!(parse_size("99999999999GiB").is_err());
        assert_eq!(parse_duration("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(parse_duration("25").is_err());
        assert!(parse_duration("s").is_err());
    }
}
