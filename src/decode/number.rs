//! Numbers from their text, never by way of floating point where the type is exact.

use std::borrow::Cow;

use crate::types::plain_decimal;

/// A JSON integer; `None` where it does not fit.
pub(super) fn integer(raw: &[u8]) -> Option<i64> {
    let (is_negative, digits) = sign(raw);
    // Downwards, since there is one more negative number than positive ones.
    let negated =
        digits.iter().try_fold(0_i64, |value, digit| value.checked_mul(10)?.checked_sub(i64::from(digit - b'0')))?;
    if is_negative { Some(negated) } else { negated.checked_neg() }
}

/// A JSON number as the integer of a decimal(precision, scale); `None` where it has more digits behind the
/// point than `scale`, as written with its exponent applied (12.500 is three digits, so is 125e-3), or does not fit.
pub(super) fn decimal(raw: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (is_negative, rest) = sign(raw);
    if scale >= 0 && rest.len() <= SHORT && usize::from(precision) <= SHORT && !rest.iter().any(u8::is_ascii_alphabetic)
    {
        let value = i128::from(short_decimal(rest, precision, scale)?);
        return Some(if is_negative { -value } else { value });
    }
    let (digits, exponent) = match memchr::memchr2(b'e', b'E', rest) {
        Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let mut value = 0_i128;
    let mut behind_point: Option<i64> = None;
    for byte in digits {
        if *byte == b'.' {
            behind_point = Some(0);
            continue;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
        behind_point = behind_point.map(|count| count + 1);
    }
    let missing = i64::from(scale) - (behind_point.unwrap_or(0) - exponent);
    if missing < 0 {
        return None;
    }
    if value != 0 {
        let factor = 10_i128.checked_pow(u32::try_from(missing).ok()?)?;
        value = value.checked_mul(factor)?;
    }
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (value < limit).then_some(if is_negative { -value } else { value })
}

/// The same for digits with a point or without one, as most are, in 64 bits: a tenth of the time.
fn short_decimal(digits: &[u8], precision: u8, scale: i8) -> Option<u64> {
    let mut value = 0;
    let mut point = None;
    for (at, byte) in digits.iter().enumerate() {
        if *byte == b'.' {
            point = Some(at);
        } else {
            value = value * 10 + u64::from(byte - b'0');
        }
    }
    let behind_point = point.map_or(0, |at| digits.len() - at - 1);
    let missing = usize::try_from(scale).ok()?.checked_sub(behind_point)?;
    let value = if value == 0 { 0 } else { value.checked_mul(*POWERS.get(missing)?)? };
    (value < POWERS[usize::from(precision)]).then_some(value)
}

/// So many digits fit 64 bits with room to spare.
const SHORT: usize = 18;

const POWERS: [u64; SHORT + 1] = {
    let mut powers = [1; SHORT + 1];
    let mut at = 1;
    while at <= SHORT {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};
/// Digits before the point and behind it, as written with its exponent applied; `None` for more than make sense.
/// A zero in front of the point counts: Parquet's readers expect one.
pub(super) fn digits(raw: &[u8]) -> Option<(u32, u32)> {
    let (_, rest) = sign(raw);
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', rest) {
        Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa) {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &b""[..]),
    };
    let all = whole.iter().chain(fraction);
    let leading_zeros = all.take_while(|digit| **digit == b'0').count();
    let is_zero = leading_zeros == whole.len() + fraction.len();
    let scale = (fraction.len() as i64 - exponent).max(0);
    let before = if is_zero { 1 } else { (whole.len() as i64 - leading_zeros as i64 + exponent).max(1) };
    // their sum must not overflow
    let few = |count: i64| u32::try_from(count).ok().filter(|count| *count < 1 << 31);
    Some((few(before)?, few(scale)?))
}

/// The text of a value in a column that takes texts and numbers: a number without exponent and without zeros
/// behind its last digit, so that it is the same whether it was read as a number before or not.
pub(crate) fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    if !matches!(value.first(), Some(b'-' | b'0'..=b'9')) {
        return Cow::Borrowed(value);
    }
    let exact = digits(value).filter(|(whole, scale)| whole + scale <= 38).and_then(|(whole, scale)| {
        let number = decimal(value, (whole + scale) as u8, scale as i8)?;
        Some(plain_decimal(number, scale as i8).into_bytes())
    });
    exact.map_or(Cow::Borrowed(value), Cow::Owned)
}

/// A JSON number; `None` where it is beyond the range of a double.
pub(super) fn float(raw: &[u8]) -> Option<f64> {
    std::str::from_utf8(raw).ok()?.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// Cut at a size that no decimal reaches; `None` for more digits than make sense at all.
fn exponent(raw: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match raw.first() {
        Some(b'-') => (true, &raw[1..]),
        Some(b'+') => (false, &raw[1..]),
        _ => (false, raw),
    };
    let value = digits.iter().try_fold(0_i64, |value, digit| {
        value.checked_mul(10)?.checked_add(i64::from(digit - b'0')).filter(|value| *value < 1 << 32)
    })?;
    Some(if is_negative { -value } else { value })
}

fn sign(raw: &[u8]) -> (bool, &[u8]) {
    match raw.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, raw),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_reach_both_ends_of_their_range() {
        for (raw, value) in [("0", 0), ("-0", 0), ("7", 7), ("-9223372036854775808", i64::MIN)] {
            assert_eq!(integer(raw.as_bytes()), Some(value));
        }
        assert_eq!(integer(b"9223372036854775807"), Some(i64::MAX));
        for raw in ["9223372036854775808", "-9223372036854775809", "99999999999999999999999999"] {
            assert_eq!(integer(raw.as_bytes()), None, "{raw}");
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        for (raw, value) in [
            ("12.5", 1250),
            ("12.50", 1250),
            ("-0.01", -1),
            ("-0", 0),
            ("0.00", 0),
            ("1.25e1", 1250),
            ("125E-1", 1250),
            ("1e+2", 10_000),
            ("0e4000000000", 0),
            ("9999999999.99", 999_999_999_999),
            ("-9999999999.99", -999_999_999_999),
            // no double is this close
            ("0.29", 29),
        ] {
            assert_eq!(decimal(raw.as_bytes(), 12, 2), Some(value), "{raw}");
        }
        for raw in ["12.505", "12.500", "1e-3", "125e-3", "10000000000", "1e10", "1e400", "1e-400", "1e99999999999"] {
            assert_eq!(decimal(raw.as_bytes(), 12, 2), None, "{raw}");
        }
        let widest = "99999999999999999999999999999999999999";
        assert_eq!(decimal(widest.as_bytes(), 38, 0), Some(99_999_999_999_999_999_999_999_999_999_999_999_999));
        assert_eq!(decimal(format!("{widest}0").as_bytes(), 38, 0), None);
    }

    #[test]
    fn floats_are_finite() {
        assert_eq!(float(b"1e308"), Some(1e308));
        assert_eq!(float(b"1e400"), None);
        assert_eq!(float(b"1e-400"), Some(0.0));
        assert!(float(b"-0").is_some_and(|value| value == 0.0 && value.is_sign_negative()));
    }

    proptest! {
        #[test]
        fn a_decimal_survives_being_written(unscaled in -999_999_999_999_i128..=999_999_999_999) {
            let (sign, abs) = (if unscaled < 0 { "-" } else { "" }, unscaled.abs());
            let plain = format!("{sign}{}.{:02}", abs / 100, abs % 100);
            prop_assert_eq!(decimal(plain.as_bytes(), 12, 2), Some(unscaled));
            prop_assert_eq!(decimal(format!("{unscaled}e-2").as_bytes(), 12, 2), Some(unscaled));
        }

        #[test]
        fn integers_agree_with_the_standard_library(raw in "-?(0|[1-9][0-9]{0,21})") {
            prop_assert_eq!(integer(raw.as_bytes()), raw.parse::<i64>().ok());
        }
    }
}
