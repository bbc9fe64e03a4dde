//! One JSON value into one column's type, from its own text: nothing goes through a binary float on its way to
//! an exact type.

use chrono::{DateTime, Datelike};

use super::Reject;
use super::number::{decimal_from_text, is_integer_literal};
use super::row::type_name;
use crate::config::{Field, FieldType, TimestampFormat};
use crate::types::RejectReason;

/// A value of a column. Which kind follows from the column's type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Int32(i32),
    Int64(i64),
    Float64(f64),
    Boolean(bool),
    /// Unscaled.
    Decimal(i128),
    TimestampMs(i64),
}

/// Years that a timestamp may have; what lies outside is a unit mistaken or a typing error.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2199;

/// Reads a JSON value (its text, valid JSON without white space around it). `Ok(None)`: null.
pub(super) fn read(field: &Field, raw: &str) -> Result<Option<Value>, Reject> {
    if raw == "null" {
        return Ok(None);
    }
    let value = match field.data_type {
        FieldType::Utf8 => Value::Text(string(field, raw)?),
        FieldType::Json => Value::Text(raw.to_owned()),
        FieldType::Boolean => match raw {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => return Err(wrong_type(field, raw)),
        },
        FieldType::Int32 => Value::Int32(integer(field, raw)?),
        FieldType::Int64 => Value::Int64(integer(field, raw)?),
        FieldType::Float64 => Value::Float64(float(field, raw)?),
        FieldType::Decimal { precision, scale } => Value::Decimal(decimal(field, raw, precision, scale)?),
        FieldType::TimestampMs => Value::TimestampMs(timestamp(field, raw)?),
        FieldType::Uuid => Value::Text(uuid(field, raw)?),
    };
    Ok(Some(value))
}

fn is_string(raw: &str) -> bool {
    raw.starts_with('"')
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn wrong_type(field: &Field, raw: &str) -> Reject {
    let found = match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "true or false",
        _ => "a number",
    };
    Reject::new(RejectReason::WrongType, format!("`{}` must be {}, found {found}", field.name, type_name(field)))
}

fn invalid(field: &Field, what: &str) -> Reject {
    Reject::new(RejectReason::InvalidValue, format!("`{}` {what}", field.name))
}

fn string(field: &Field, raw: &str) -> Result<String, Reject> {
    if !is_string(raw) {
        return Err(wrong_type(field, raw));
    }
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    // only a lone surrogate escape can fail here: it is valid JSON, but no Unicode text
    serde_json::from_str(raw).map_err(|_| invalid(field, "has an escape that is no Unicode character"))
}

fn integer<T: std::str::FromStr>(field: &Field, raw: &str) -> Result<T, Reject> {
    if !is_integer_literal(raw) {
        return Err(wrong_type(field, raw));
    }
    raw.parse().map_err(|_| invalid(field, "is out of range"))
}

fn float(field: &Field, raw: &str) -> Result<f64, Reject> {
    if !is_number(raw) {
        return Err(wrong_type(field, raw));
    }
    match raw.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(invalid(field, "is out of range")),
    }
}

fn decimal(field: &Field, raw: &str, precision: u8, scale: i8) -> Result<i128, Reject> {
    let text = if is_string(raw) { string(field, raw)? } else { raw.to_owned() };
    if !is_string(raw) && !is_number(raw) {
        return Err(wrong_type(field, raw));
    }
    decimal_from_text(&text, precision, scale)
        .map_err(|what| invalid(field, &format!("{what}; the column is decimal({precision},{scale})")))
}

fn timestamp(field: &Field, raw: &str) -> Result<i64, Reject> {
    let accepts = |format| field.formats.contains(&format);
    let time = if is_string(raw) {
        if !accepts(TimestampFormat::Rfc3339) {
            return Err(wrong_type(field, raw));
        }
        let text = string(field, raw)?;
        DateTime::parse_from_rfc3339(&text).map_err(|_| invalid(field, "is no RFC 3339 timestamp"))?.to_utc()
    } else {
        if !is_number(raw) || !accepts(TimestampFormat::EpochMs) || !is_integer_literal(raw) {
            return Err(wrong_type(field, raw));
        }
        let milliseconds = raw.parse().map_err(|_| invalid(field, "is out of range"))?;
        DateTime::from_timestamp_millis(milliseconds).ok_or_else(|| invalid(field, "is out of range"))?
    };
    if !YEARS.contains(&time.year()) {
        return Err(invalid(field, "lies outside the years 1970 to 2199"));
    }
    Ok(time.timestamp_millis())
}

fn uuid(field: &Field, raw: &str) -> Result<String, Reject> {
    let text = string(field, raw)?;
    let hyphenated = text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if hyphenated { Ok(text.to_ascii_lowercase()) } else { Err(invalid(field, "is no UUID (8-4-4-4-12 hex digits)")) }
}
