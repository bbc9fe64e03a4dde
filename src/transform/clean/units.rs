//! Quantities → numbers of one unit, exactly.
//!
//! A quantity is an optional sign, digits with an optional point and more digits, optional white space, a unit;
//! white space around it does not count. Never rounded: what the column cannot hold digit by digit is refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type};
use arrow::error::ArrowError;

use super::Applied;
use crate::config::{FieldType, Unit, arrow_type};

#[derive(Debug)]
pub(super) struct UnitParser {
    unit: Unit,
    data_type: DataType,
    /// Digits behind the point of the column.
    scale: u32,
    /// The greatest number of the column, in units of its last digit.
    max: i128,
}

impl UnitParser {
    /// `data_type`: int32, int64 or a decimal.
    pub(super) fn new(unit: Unit, data_type: FieldType) -> Self {
        let (scale, max) = match data_type {
            FieldType::Decimal { precision, scale } => {
                (u32::from(scale.unsigned_abs()), 10_i128.pow(u32::from(precision)) - 1)
            }
            FieldType::Int32 => (0, i128::from(i32::MAX)),
            _ => (0, i128::from(i64::MAX)),
        };
        Self { unit, data_type: arrow_type(data_type), scale, max }
    }

    pub(super) fn misfit(&self) -> String {
        format!("no quantity that is a number of `{}` which the column can hold exactly", self.unit.symbol)
    }

    /// `column` with the numbers of `texts`; where these are null it stays as it is.
    pub(super) fn apply(&self, texts: &StringArray, column: &ArrayRef) -> Result<Applied, ArrowError> {
        if texts.null_count() == texts.len() {
            return Ok(Applied::NOTHING);
        }
        let mut numbers = Self::numbers(column)?;
        let mut changed = 0;
        let mut failed = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            let Some(text) = text else { continue };
            match self.number(text) {
                Some(number) => {
                    changed += u64::from(numbers[row] != Some(number));
                    numbers[row] = Some(number);
                }
                None => failed.push(row),
            }
        }
        let column = if changed > 0 { Some(self.column(numbers)) } else { None };
        Ok(Applied { column, changed, failed })
    }

    fn numbers(column: &ArrayRef) -> Result<Vec<Option<i128>>, ArrowError> {
        match column.data_type() {
            DataType::Int32 => Ok(column.as_primitive::<Int32Type>().iter().map(|n| n.map(i128::from)).collect()),
            DataType::Int64 => Ok(column.as_primitive::<Int64Type>().iter().map(|n| n.map(i128::from)).collect()),
            DataType::Decimal128(..) => Ok(column.as_primitive::<Decimal128Type>().iter().collect()),
            other => Err(ArrowError::CastError(format!("{other} holds no quantity"))),
        }
    }

    fn column(&self, numbers: Vec<Option<i128>>) -> ArrayRef {
        // `number` lets nothing through that would be cut here
        match self.data_type {
            DataType::Int32 => Arc::new(numbers.into_iter().map(|n| n.map(|n| n as i32)).collect::<Int32Array>()),
            DataType::Int64 => Arc::new(numbers.into_iter().map(|n| n.map(|n| n as i64)).collect::<Int64Array>()),
            ref decimal => {
                let numbers = numbers.into_iter().collect::<Decimal128Array>();
                Arc::new(numbers.with_data_type(decimal.clone()))
            }
        }
    }

    /// In units of the column's last digit.
    fn number(&self, text: &str) -> Option<i128> {
        let text = text.trim();
        let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'))?;
        let (number, symbol) = (&text[..end], text[end..].trim_start());
        let (factor, divisor) = Unit::of(symbol)?.ratio(self.unit)?;
        let (is_negative, digits) = match number.as_bytes().first()? {
            b'-' => (true, &number[1..]),
            b'+' => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = u32::try_from(fraction.len()).ok()?;
        // mantissa / 10^places × factor / divisor, × 10^scale: no more zeros than are needed
        let up = 10_i128.checked_pow(self.scale.saturating_sub(places))?;
        let down = 10_i128.checked_pow(places.saturating_sub(self.scale))?.checked_mul(divisor)?;
        let product = mantissa.checked_mul(factor)?.checked_mul(up)?;
        let number = if is_negative { -(product / down) } else { product / down };
        (product % down == 0 && (-self.max..=self.max).contains(&number)).then_some(number)
    }
}
