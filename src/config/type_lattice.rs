//! Types ordered by what they take: `join` is the narrowest type that takes the values of both.
//!
//! ```text
//!            utf8
//!   ┌─────┬───┴────┬───────┬─────┐
//! boolean │    timestamp  uuid  json
//!      float64
//!         │
//!   decimal(p,s)       more digits in front of the point or behind it
//!         │
//!       int64
//!         │
//!       int32
//! ```
//!
//! `join` is commutative, associative and idempotent: whatever the order in which values are seen, one type
//! comes out. Decimals grow on both sides of their point; what would need more than 38 digits is a double.

use std::collections::BTreeMap;

use super::FieldType;

/// Digits that Arrow's Decimal128 holds. Source: Arrow columnar format, decimal128.
pub const DECIMAL_DIGITS_MAX: u8 = 38;

/// Types by the name of their field.
pub type SeenTypes = BTreeMap<String, FieldType>;

impl FieldType {
    /// The narrowest type that takes the values of both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if self == other {
            return self;
        }
        match (self.number(), other.number()) {
            (Some(one), Some(two)) => one.max(two).field_type(),
            _ => Self::Utf8,
        }
    }

    fn number(self) -> Option<NumberType> {
        let exact = |whole, scale| Some(NumberType { is_double: false, needs_decimal: false, whole, scale });
        match self {
            Self::Int32 => exact(INT32_DIGITS, 0),
            Self::Int64 => exact(INT64_DIGITS, 0),
            Self::Decimal { precision, scale } => Some(NumberType {
                is_double: false,
                needs_decimal: true,
                whole: i16::from(precision) - i16::from(scale),
                scale: i16::from(scale),
            }),
            Self::Float64 => Some(NumberType { is_double: true, needs_decimal: true, whole: 0, scale: 0 }),
            _ => None,
        }
    }
}

/// Digits that the greatest value has.
const INT32_DIGITS: i16 = 10;
const INT64_DIGITS: i16 = 19;

/// Each part grows by itself, so that the order of joins has no say.
#[derive(Debug, Clone, Copy)]
struct NumberType {
    is_double: bool,
    needs_decimal: bool,
    /// Digits before the point.
    whole: i16,
    /// Digits behind it.
    scale: i16,
}

impl NumberType {
    fn max(self, other: Self) -> Self {
        Self {
            is_double: self.is_double || other.is_double,
            needs_decimal: self.needs_decimal || other.needs_decimal,
            whole: self.whole.max(other.whole),
            scale: self.scale.max(other.scale),
        }
    }

    fn field_type(self) -> FieldType {
        let digits = self.whole + self.scale;
        if self.is_double || digits > i16::from(DECIMAL_DIGITS_MAX) {
            FieldType::Float64
        } else if self.needs_decimal {
            FieldType::Decimal { precision: digits as u8, scale: self.scale as i8 }
        } else if self.whole > INT32_DIGITS {
            FieldType::Int64
        } else {
            FieldType::Int32
        }
    }
}

/// Adds a value's type to those seen.
pub fn see(seen: &mut SeenTypes, name: &str, data_type: FieldType) {
    match seen.get_mut(name) {
        Some(known) => *known = known.join(data_type),
        None => {
            seen.insert(name.to_owned(), data_type);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_type() -> impl Strategy<Value = FieldType> {
        let decimal = (1_u8..=38).prop_flat_map(|precision| {
            (0..=precision as i8).prop_map(move |scale| FieldType::Decimal { precision, scale })
        });
        prop_oneof![
            Just(FieldType::Utf8),
            Just(FieldType::Int32),
            Just(FieldType::Int64),
            Just(FieldType::Float64),
            Just(FieldType::Boolean),
            Just(FieldType::TimestampMs),
            Just(FieldType::Uuid),
            Just(FieldType::Json),
            decimal.clone(),
            decimal,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn join_is_commutative_associative_and_idempotent(a in any_type(), b in any_type(), c in any_type()) {
            prop_assert_eq!(a.join(a), a);
            prop_assert_eq!(a.join(b), b.join(a));
            prop_assert_eq!(a.join(b).join(c), a.join(b.join(c)));
            prop_assert_eq!(a.join(b).join(a), a.join(b), "what is joined already changes nothing");
        }

        #[test]
        fn a_joined_decimal_has_room_for_the_digits_of_both(a in any_type(), b in any_type()) {
            if let (FieldType::Decimal { precision: p, scale: s }, FieldType::Decimal { precision, scale }) = (a, a.join(b)) {
                prop_assert!(scale >= s && precision as i8 - scale >= p as i8 - s);
                prop_assert!(precision <= DECIMAL_DIGITS_MAX);
            }
        }
    }

    #[test]
    fn numbers_widen_along_one_chain_and_everything_else_becomes_text() {
        let decimal = |precision, scale| FieldType::Decimal { precision, scale };
        assert_eq!(FieldType::Int32.join(FieldType::Int64), FieldType::Int64);
        assert_eq!(FieldType::Int32.join(decimal(3, 2)), decimal(12, 2));
        assert_eq!(FieldType::Int64.join(decimal(25, 2)), decimal(25, 2));
        assert_eq!(decimal(38, 0).join(decimal(2, 2)), FieldType::Float64);
        assert_eq!(FieldType::Float64.join(FieldType::Int64), FieldType::Float64);
        assert_eq!(FieldType::Int32.join(FieldType::Utf8), FieldType::Utf8);
        assert_eq!(FieldType::Boolean.join(FieldType::Int32), FieldType::Utf8);
        assert_eq!(FieldType::Json.join(FieldType::Uuid), FieldType::Utf8);
    }
}
