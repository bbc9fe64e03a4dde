//! One column of the open record batch: values that can be cut back to an earlier row, which Arrow's own
//! builders cannot. That is how a row that fails halfway leaves no trace.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::number;
use super::scan::{Number, Scanner, SyntaxError, Text, unescape, whole_number};
use super::timestamp;
use crate::config::{Connector, Field, FieldType, TimestampFormat, TypeChange, UTC};

/// Why a value does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// What stood there instead: `a string`.
    WrongType { found: &'static str },
    /// What would have fitted.
    InvalidValue { expected: &'static str },
}

pub(super) struct Column {
    pub(super) values: Values,
    /// The column may be widened: text takes the text of everything, JSON takes objects and arrays alone.
    widens: bool,
    pub(super) is_valid: Vec<bool>,
    null_count: usize,
}

pub(super) enum Values {
    Utf8(TextValues),
    Uuid(TextValues),
    Json(TextValues),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Boolean(Vec<bool>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Timestamp { values: Vec<i64>, takes_text: bool, takes_integers: bool },
}

impl Column {
    /// One for each column of a connector.
    pub(super) fn all(connector: &Connector) -> Vec<Self> {
        let column = |(index, field): (usize, &Field)| {
            let may_widen = connector.is_added(index) || connector.evolution.type_change == TypeChange::Evolve;
            // a declared JSON column takes everything; only one that data added may have to become text
            Self::new(field, may_widen && (field.data_type != FieldType::Json || connector.is_added(index)))
        };
        connector.fields.iter().enumerate().map(column).collect()
    }

    fn new(field: &Field, widens: bool) -> Self {
        let takes = |format| field.formats.contains(&format);
        let values = match field.data_type {
            FieldType::Utf8 => Values::Utf8(TextValues::new()),
            FieldType::Uuid => Values::Uuid(TextValues::new()),
            FieldType::Json => Values::Json(TextValues::new()),
            FieldType::Int32 => Values::Int32(Vec::new()),
            FieldType::Int64 => Values::Int64(Vec::new()),
            FieldType::Float64 => Values::Float64(Vec::new()),
            FieldType::Boolean => Values::Boolean(Vec::new()),
            FieldType::Decimal { precision, scale } => Values::Decimal { values: Vec::new(), precision, scale },
            FieldType::TimestampMs => Values::Timestamp {
                values: Vec::new(),
                takes_text: takes(TimestampFormat::Rfc3339),
                takes_integers: takes(TimestampFormat::EpochMs),
            },
        };
        Self { values, widens, is_valid: Vec::new(), null_count: 0 }
    }

    /// Of JSON text that the caller writes.
    pub(super) fn json() -> Self {
        Self { values: Values::Json(TextValues::new()), widens: false, is_valid: Vec::new(), null_count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.is_valid.len()
    }

    pub(super) fn last_is_null(&self) -> bool {
        self.is_valid.last() == Some(&false)
    }

    /// Takes the next value. On a misfit the value has been taken all the same, but nothing is kept of it.
    pub(super) fn read(
        &mut self,
        scanner: &mut Scanner<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Misfit>, SyntaxError> {
        let first = scanner.peek();
        if first == b'n' {
            scanner.value()?;
            self.push_null();
            return Ok(None);
        }
        let read = match (&mut self.values, first) {
            (Values::Json(_), first) if self.widens && !matches!(first, b'{' | b'[') => {
                scanner.value()?;
                Err(Misfit::WrongType { found: kind(first) })
            }
            (Values::Json(values), _) => {
                values.push(scanner.value()?);
                Ok(())
            }
            (Values::Utf8(values), b'"') => {
                values.push_text(scanner.string()?);
                Ok(())
            }
            (Values::Utf8(values), _) if self.widens => {
                values.push(&number::plain(scanner.value()?));
                Ok(())
            }
            (Values::Boolean(values), b't' | b'f') => {
                values.push(scanner.value()? == b"true");
                Ok(())
            }
            (_, b'-' | b'0'..=b'9') => {
                let number = scanner.number()?;
                self.push_number(number)
            }
            (_, b'"') => {
                let text = plain(scanner.string()?, scratch);
                self.push_string(text)
            }
            _ => {
                scanner.value()?;
                Err(Misfit::WrongType { found: kind(first) })
            }
        };
        if read.is_ok() {
            self.is_valid.push(true);
        }
        Ok(read.err())
    }

    pub(super) fn push_number(&mut self, number: Number<'_>) -> Result<(), Misfit> {
        const NOT_INTEGER: Misfit = Misfit::WrongType { found: "a number with point or exponent" };
        let raw = number.raw;
        let invalid = |expected| Misfit::InvalidValue { expected };
        match &mut self.values {
            Values::Int32(values) if number.is_integer => {
                let value = number::integer(raw).and_then(|value| i32::try_from(value).ok());
                values.push(value.ok_or(invalid("32 bits"))?);
            }
            Values::Int64(values) if number.is_integer => {
                values.push(number::integer(raw).ok_or(invalid("64 bits"))?);
            }
            Values::Timestamp { values, takes_integers: true, .. } if number.is_integer => {
                let value = number::integer(raw).and_then(timestamp::in_range);
                values.push(value.ok_or(invalid("milliseconds of the years 1970 to 2199"))?);
            }
            Values::Int32(_) | Values::Int64(_) if !number.is_integer => return Err(NOT_INTEGER),
            Values::Timestamp { takes_integers: true, .. } => return Err(NOT_INTEGER),
            Values::Float64(values) => values.push(number::float(raw).ok_or(invalid("a double"))?),
            Values::Decimal { values, precision, scale } => {
                values.push(number::decimal(raw, *precision, *scale).ok_or(invalid(DECIMAL))?);
            }
            _ => return Err(Misfit::WrongType { found: "a number" }),
        }
        Ok(())
    }

    pub(super) fn push_string(&mut self, text: &[u8]) -> Result<(), Misfit> {
        let invalid = |expected| Misfit::InvalidValue { expected };
        match &mut self.values {
            Values::Uuid(values) => {
                let uuid = uuid(text).ok_or(invalid("hexadecimal digits in groups of 8-4-4-4-12"))?;
                values.push(&uuid);
            }
            Values::Timestamp { values, takes_text: true, .. } => {
                let value = timestamp::rfc3339(text);
                values.push(value.ok_or(invalid("an RFC 3339 timestamp of the years 1970 to 2199"))?);
            }
            Values::Decimal { values, precision, scale } => {
                let value = whole_number(text).and_then(|number| number::decimal(number.raw, *precision, *scale));
                values.push(value.ok_or(invalid(DECIMAL))?);
            }
            _ => return Err(Misfit::WrongType { found: "a string" }),
        }
        Ok(())
    }

    pub(super) fn push_null(&mut self) {
        match &mut self.values {
            Values::Utf8(values) | Values::Uuid(values) | Values::Json(values) => values.push(b""),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.push(0),
            Values::Float64(values) => values.push(0.0),
            Values::Boolean(values) => values.push(false),
            Values::Decimal { values, .. } => values.push(0),
        }
        self.is_valid.push(false);
        self.null_count += 1;
    }

    /// For columns of [`Column::json`]: text that is JSON.
    pub(super) fn push_json(&mut self, text: &[u8]) {
        if let Values::Json(values) = &mut self.values {
            values.push(text);
            self.is_valid.push(true);
        }
    }

    /// Forgets every value behind the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        if self.is_valid.len() <= len {
            return;
        }
        self.null_count -= self.is_valid[len..].iter().filter(|is_valid| !**is_valid).count();
        self.is_valid.truncate(len);
        match &mut self.values {
            Values::Utf8(values) | Values::Uuid(values) | Values::Json(values) => values.truncate(len),
            Values::Int32(values) => values.truncate(len),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Boolean(values) => values.truncate(len),
            Values::Decimal { values, .. } => values.truncate(len),
        }
    }

    /// The values so far as an array; the column is empty afterwards.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let is_valid = handed_over(&mut self.is_valid);
        let nulls = (self.null_count > 0).then(|| NullBuffer::from(is_valid));
        self.null_count = 0;
        match &mut self.values {
            Values::Utf8(values) | Values::Uuid(values) | Values::Json(values) => values.finish(nulls),
            Values::Int32(values) => Arc::new(Int32Array::new(taken(values), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(taken(values), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(taken(values), nulls)),
            Values::Boolean(values) => Arc::new(BooleanArray::new(handed_over(values).into(), nulls)),
            Values::Decimal { values, precision, scale } => Arc::new(
                Decimal128Array::new(taken(values), nulls)
                    .with_precision_and_scale(*precision, *scale)
                    .expect("a validated connector has a precision of 1 to 38 and a scale within it"),
            ),
            Values::Timestamp { values, .. } => {
                Arc::new(TimestampMillisecondArray::new(taken(values), nulls).with_timezone(UTC))
            }
        }
    }
}

/// Values of a list that is cut to its size.
const SHRUNK_MIN: usize = 1024;

const DECIMAL: &str = "a number with no more digits before and behind its point";

/// Hands the values over without a copy.
fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(handed_over(values))
}

/// The values, and room for as many again and a few more: a list that is full by one value doubles, and is held so
/// until its micro-batch is committed.
fn handed_over<T>(values: &mut Vec<T>) -> Vec<T> {
    let expected = values.len() + values.len() / 8;
    let mut done = std::mem::replace(values, Vec::with_capacity(expected));
    // of a short list there is nothing to save
    if done.len() >= SHRUNK_MIN && done.capacity() - done.len() > done.len() / 4 {
        done.shrink_to_fit();
    }
    done
}

pub(super) struct TextValues {
    /// One more than values; below 2 GiB, see `RECORD_BYTES_MAX`.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl TextValues {
    fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.offsets.push(self.bytes.len() as i32);
    }

    fn push_text(&mut self, text: Text<'_>) {
        if text.has_escapes {
            unescape(text.raw, &mut self.bytes);
            self.offsets.push(self.bytes.len() as i32);
        } else {
            self.push(text.raw);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.bytes.truncate(self.offsets[len] as usize);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let offsets = OffsetBuffer::new(taken(&mut self.offsets));
        self.offsets.push(0);
        let array = StringArray::try_new(offsets, Buffer::from(handed_over(&mut self.bytes)), nulls);
        Arc::new(array.expect("records are UTF-8 and are cut at quotes and escapes only"))
    }
}

/// What a string means, in place where it has no escapes.
pub(super) fn plain<'a>(text: Text<'a>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if !text.has_escapes {
        return text.raw;
    }
    scratch.clear();
    unescape(text.raw, scratch);
    scratch
}

/// Lower case with hyphens. Without a branch for each byte, so that the compiler takes many at once.
pub(super) fn uuid(text: &[u8]) -> Option<[u8; 36]> {
    let mut uuid: [u8; 36] = text.try_into().ok()?;
    let (mut hyphens, mut digits) = (0_u8, 0_u8);
    for byte in &mut uuid {
        hyphens += u8::from(*byte == b'-');
        digits += u8::from(byte.wrapping_sub(b'0') < 10) + u8::from((*byte | 0x20).wrapping_sub(b'a') < 6);
        // digits and hyphens have that bit already
        *byte |= 0x20;
    }
    let are_placed = [8, 13, 18, 23].iter().all(|at| uuid[*at] == b'-');
    (are_placed && hyphens == 4 && digits == 32).then_some(uuid)
}

/// Of the value that begins with this byte.
fn kind(first: u8) -> &'static str {
    match first {
        b'"' => "a string",
        b'{' => "an object",
        b'[' => "an array",
        b't' | b'f' => "a boolean",
        _ => "a number",
    }
}
