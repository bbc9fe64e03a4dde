//! Exact numbers from their text.

/// Whether a JSON number is written without fraction and exponent.
pub(super) fn is_integer_literal(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The unscaled value of a decimal: `12.5` with scale 2 is 1250. Exponents are allowed.
/// Never rounds: digits behind the scale must be zeros.
pub(super) fn decimal_from_text(text: &str, precision: u8, scale: i8) -> Result<i128, &'static str> {
    const NOT_A_NUMBER: &str = "is no decimal number";
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().map_err(|_| NOT_A_NUMBER)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction_given = mantissa.contains('.');
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || (fraction_given && fraction.is_empty()) || !digits_only(whole) || !digits_only(fraction) {
        return Err(NOT_A_NUMBER);
    }
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    // digits × 10^(exponent − fraction length), wanted as an integer × 10^(−scale)
    let shift = i64::from(exponent) - fraction.len() as i64 + i64::from(scale);
    let (kept, zeros) = if shift < 0 {
        let cut = digits.len().saturating_sub(usize::try_from(-shift).unwrap_or(usize::MAX));
        if digits[cut..].iter().any(|digit| *digit != 0) {
            return Err("has too many digits behind the point");
        }
        (&digits[..cut], 0)
    } else {
        (&digits[..], usize::try_from(shift).unwrap_or(usize::MAX))
    };
    let leading = kept.iter().take_while(|digit| **digit == 0).count();
    let significant = &kept[leading..];
    if significant.is_empty() {
        return Ok(0);
    }
    if significant.len().saturating_add(zeros) > usize::from(precision) {
        return Err("has too many digits");
    }
    let value = significant.iter().fold(0i128, |value, digit| value * 10 + i128::from(*digit));
    let value = (0..zeros).fold(value, |value, _| value * 10);
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, expected) in [
            ("12.5", Ok(1250)),
            ("-0.01", Ok(-1)),
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("1e2", Ok(10_000)),
            ("1.50E-1", Ok(15)),
            ("100.000", Ok(10_000)),
            ("0.001", Err("has too many digits behind the point")),
            ("9999999999.99", Ok(999_999_999_999)),
            ("10000000000", Err("has too many digits")),
            ("1e400", Err("has too many digits")),
            ("0e999999", Ok(0)),
            ("1e-400", Err("has too many digits behind the point")),
            ("", Err("is no decimal number")),
            (".5", Err("is no decimal number")),
            ("5.", Err("is no decimal number")),
            ("1,5", Err("is no decimal number")),
            ("NaN", Err("is no decimal number")),
        ] {
            assert_eq!(decimal_from_text(text, 12, 2), expected, "{text}");
        }
    }
}
