//! RFC 3339 timestamps, and the range that every timestamp must lie in.

/// 1970-01-01T00:00:00Z to 2200-01-01T00:00:00Z, half-open, in milliseconds: what is outside is a mistake of
/// its producer, and would make a table partition of its own.
const RANGE_MS: std::ops::Range<i64> = 0..7_258_118_400_000;

/// Milliseconds since 1970; `None` outside the range.
pub(super) fn in_range(epoch_ms: i64) -> Option<i64> {
    RANGE_MS.contains(&epoch_ms).then_some(epoch_ms)
}

/// `2026-11-23T18:43:11.123456+01:00` in milliseconds since 1970, digits beyond them cut off. The `T` may
/// be small or a blank, the `Z` small; a leap second is the second after it. `None` for anything else, and
/// outside the range.
pub(super) fn rfc3339(text: &[u8]) -> Option<i64> {
    let (fixed, mut rest) = text.split_first_chunk::<19>()?;
    let separators = [fixed[4], fixed[7], fixed[13], fixed[16]];
    if separators != *b"--::" || !matches!(fixed[10], b'T' | b't' | b' ') {
        return None;
    }
    let year = i64::from(two(fixed, 0)? * 100 + two(fixed, 2)?);
    let (month, day) = (two(fixed, 5)?, two(fixed, 8)?);
    let (hour, minute, second) = (two(fixed, 11)?, two(fixed, 14)?, two(fixed, 17)?);
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut milliseconds = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return None;
        }
        let digits = fraction[..count].iter().map(|digit| digit - b'0');
        for digit in digits.chain([0, 0]).take(3) {
            milliseconds = milliseconds * 10 + i64::from(digit);
        }
        rest = &fraction[count..];
    }
    let offset_minutes = offset_minutes(rest)?;
    let minutes = days_since_1970(year, month, day) * 1440 + i64::from(hour * 60 + minute) - offset_minutes;
    in_range((minutes * 60 + i64::from(second)) * 1000 + milliseconds)
}

fn offset_minutes(text: &[u8]) -> Option<i64> {
    let sign = match text {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    if text.len() != 6 || text[3] != b':' {
        return None;
    }
    let (hours, minutes) = (two(text, 1)?, two(text, 4)?);
    (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 60 + minutes))
}

fn two(text: &[u8], at: usize) -> Option<u32> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens * 10 + ones))
}

fn days_of(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of the proleptic Gregorian calendar. Years are counted from March, so that the leap day is their last.
/// Source: Howard Hinnant, chrono-compatible low-level date algorithms, `days_from_civil`.
fn days_since_1970(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_instant() {
        let instant = 1_795_459_391_123;
        for text in [
            "2026-11-23T18:43:11.123Z",
            "2026-11-23t18:43:11.123z",
            "2026-11-23 18:43:11.123Z",
            "2026-11-23T18:43:11.123999999999Z",
            "2026-11-23T19:43:11.123+01:00",
            "2026-11-23T13:13:11.123-05:30",
            "2026-11-23T18:43:11.123-00:00",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), Some(instant), "{text}");
        }
        assert_eq!(rfc3339(b"2026-11-23T18:43:11Z"), Some(instant - 123));
        assert_eq!(rfc3339(b"2026-11-23T18:43:11.1Z"), Some(instant - 23));
        assert_eq!(rfc3339(b"2016-12-31T23:59:60.5Z"), Some(1_483_228_800_500));
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T18:43:11",
            "2026-11-23T18:43Z",
            "2026-11-23T18:43:11.Z",
            "2026-13-23T18:43:11Z",
            "2026-00-23T18:43:11Z",
            "2026-02-29T18:43:11Z",
            "2100-02-29T00:00:00Z",
            "2026-11-31T18:43:11Z",
            "2026-11-00T18:43:11Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T18:60:11Z",
            "2026-11-23T18:43:61Z",
            "2026-11-23T18:43:11+1:00",
            "2026-11-23T18:43:11+0100",
            "2026-11-23T18:43:11+24:00",
            "2026-11-23T18:43:11+01:60",
            "2026-11-23T18:43:11Z ",
            " 2026-11-23T18:43:11Z",
            "2026-11-23T18:43:11,5Z",
            "+2026-11-23T18:43:11Z",
            "2026/11/23T18:43:11Z",
            "20261123T184311Z",
            "1795459391123",
            "２026-11-23T18:43:11Z",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_range_is_checked_in_utc() {
        assert_eq!(rfc3339(b"1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339(b"1969-12-31T23:59:59.999Z"), None);
        assert_eq!(rfc3339(b"1970-01-01T00:30:00+01:00"), None);
        assert_eq!(rfc3339(b"2199-12-31T23:59:59.999Z"), Some(RANGE_MS.end - 1));
        assert_eq!(rfc3339(b"2200-01-01T00:00:00Z"), None);
        assert_eq!(rfc3339(b"2200-01-01T00:30:00+01:00"), Some(RANGE_MS.end - 1_800_000));
        assert_eq!(in_range(-1), None);
        assert_eq!(in_range(i64::MAX), None);
    }

    /// What chrono makes of it, within the range.
    fn by_chrono(text: &str) -> Option<i64> {
        let parsed = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        Some(parsed.timestamp_millis()).filter(|_| (1970..2200).contains(&parsed.year()))
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(
            text in "(19[67][0-9]|20[0-9]{2}|2[12]00|2199)-(0[0-9]|1[0-3])-([0-3][0-9])[Tt ]([01][0-9]|2[0-4]):[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?([Zz]|[+-][0-2][0-9]:[0-6][0-9])"
        ) {
            prop_assert_eq!(rfc3339(text.as_bytes()), by_chrono(&text));
        }

        #[test]
        fn an_instant_survives_being_written(epoch_ms in RANGE_MS) {
            let text = DateTime::from_timestamp_millis(epoch_ms).unwrap().to_rfc3339();
            prop_assert_eq!(rfc3339(text.as_bytes()), Some(epoch_ms));
        }
    }
}
