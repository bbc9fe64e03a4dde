//! The type of a value by its bytes alone: the narrowest column that takes it.

use super::column::uuid;
use super::number;
use super::scan::whole_number;
use super::timestamp;
use crate::config::{DECIMAL_DIGITS_MAX, FieldType};

/// Of a value as it stands. Strings are text whatever they hold: of a text that became a timestamp its spelling
/// could not be had back. `None` for null and for numbers beyond the range of a double.
pub(super) fn value_type(value: &[u8]) -> Option<FieldType> {
    match value.first()? {
        b'n' => None,
        b't' | b'f' => Some(FieldType::Boolean),
        b'"' => Some(FieldType::Utf8),
        b'{' | b'[' => Some(FieldType::Json),
        _ => number_type(value),
    }
}

/// What a string holds: an instant, an identifier, or text.
pub(super) fn text_type(text: &[u8]) -> FieldType {
    if timestamp::rfc3339(text).is_some() {
        FieldType::TimestampMs
    } else if uuid(text).is_some() {
        FieldType::Uuid
    } else {
        FieldType::Utf8
    }
}

fn number_type(raw: &[u8]) -> Option<FieldType> {
    let number = whole_number(raw)?;
    if number.is_integer
        && let Some(value) = number::integer(raw)
    {
        return Some(if i32::try_from(value).is_ok() { FieldType::Int32 } else { FieldType::Int64 });
    }
    match number::digits(raw) {
        Some((whole, scale)) if whole + scale <= u32::from(DECIMAL_DIGITS_MAX) => {
            Some(FieldType::Decimal { precision: (whole + scale) as u8, scale: scale as i8 })
        }
        _ => number::float(raw).map(|_| FieldType::Float64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_has_the_narrowest_type_that_takes_it() {
        let decimal = |precision, scale| Some(FieldType::Decimal { precision, scale });
        for (value, expected) in [
            ("null", None),
            ("true", Some(FieldType::Boolean)),
            ("\"2026-01-01T00:00:00Z\"", Some(FieldType::Utf8)),
            ("[1]", Some(FieldType::Json)),
            ("2147483647", Some(FieldType::Int32)),
            ("2147483648", Some(FieldType::Int64)),
            ("9223372036854775808", decimal(19, 0)),
            ("1.50", decimal(3, 2)),
            ("0.001", decimal(4, 3)),
            ("1e3", decimal(4, 0)),
            ("125e-3", decimal(4, 3)),
            ("1e40", Some(FieldType::Float64)),
            ("0.00000000000000000000000000000000000000001", Some(FieldType::Float64)),
            ("1e400", None),
        ] {
            assert_eq!(value_type(value.as_bytes()), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_s_type_takes_it(whole in 0_i64.., fraction in "[0-9]{1,12}", exponent in -12_i32..12) {
            let raw = format!("{whole}.{fraction}e{exponent}");
            if let Some(FieldType::Decimal { precision, scale }) = value_type(raw.as_bytes()) {
                prop_assert!(number::decimal(raw.as_bytes(), precision, scale).is_some(), "{raw} in ({precision},{scale})");
            }
        }
    }
}
