/// A decimal's text without exponent and without zeros behind its last digit: 1250 with scale 2 is `12.5`.
pub fn plain_decimal(value: i128, scale: i8) -> String {
    let digits = value.unsigned_abs().to_string();
    let scale = usize::from(scale.unsigned_abs());
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{whole}{point}{fraction}", if value < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_s_text_has_no_exponent_and_no_zeros_to_spare() {
        for (value, scale, text) in
            [(1250, 2, "12.5"), (-5, 3, "-0.005"), (0, 4, "0"), (100, 0, "100"), (300, 2, "3"), (-7, 0, "-7")]
        {
            assert_eq!(plain_decimal(value, scale), text);
        }
        assert_eq!(plain_decimal(i128::MIN, 0), i128::MIN.to_string());
    }
}
