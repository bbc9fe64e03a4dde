//! A value of an Arrow array → its JSON text, as the decoder of JSON takes it.
//!
//! # Contract
//! | Parquet | JSON |
//! |---|---|
//! | whole numbers, signed or not | the number |
//! | decimals | the number, without zeros behind its last digit: a smaller scale takes what it holds exactly |
//! | floats | the shortest number that reads back as the same; NaN and infinities as strings |
//! | timestamps of any unit, with or without a zone (then UTC) | RFC 3339 in UTC; for columns that take `epoch_ms` alone, milliseconds |
//! | dates | `YYYY-MM-DD`; for timestamp columns midnight, UTC |
//! | text | a string |
//! | binary | a string; what is no UTF-8 is kept byte by byte for utf8 columns (a reject), else `\x` and hexadecimal digits |
//! | 16 bytes of the type UUID or for a uuid column | the UUID |
//! | structures and maps; lists | objects; arrays |
//! | times, intervals and others | a string |

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat};

/// Who takes a column's values, where its spelling depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Anything,
    /// A utf8 column: binary stays as it is.
    Text,
    /// Timestamps by RFC 3339.
    Instant,
    /// Timestamps by `epoch_ms` alone.
    EpochMs,
    Uuid,
}

/// Text of one row; nothing is added once it is longer than `len_max`.
pub(super) struct RowText {
    pub(super) bytes: Vec<u8>,
    pub(super) len_max: usize,
}

/// Writes the value of a row.
pub(super) type Cell = Box<dyn Fn(usize, &mut RowText) + Send>;

/// The column's cells; null wherever a value is null.
pub(super) fn cells(array: &ArrayRef, taker: For) -> Cell {
    let write = values(array, taker);
    let Some(nulls) = array.logical_nulls() else { return write };
    Box::new(move |row, text| if nulls.is_null(row) { text.push(b"null") } else { write(row, text) })
}

impl RowText {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = (self.len_max + 1).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn is_full(&self) -> bool {
        self.bytes.len() > self.len_max
    }

    fn display(&mut self, value: std::fmt::Arguments<'_>) {
        let _ = self.bytes.write_fmt(value);
    }

    /// UTF-8 or not: only what JSON does not take in a string is escaped.
    pub(super) fn string(&mut self, value: &[u8]) {
        self.push(b"\"");
        let mut from = 0;
        for (at, byte) in value.iter().enumerate() {
            let is_control = *byte < 0x20;
            if !is_control && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.push(&value[from..at]);
            if self.is_full() {
                return;
            }
            from = at + 1;
            match byte {
                b'\n' => self.push(b"\\n"),
                b'\r' => self.push(b"\\r"),
                b'\t' => self.push(b"\\t"),
                _ if is_control => self.display(format_args!("\\u{byte:04x}")),
                _ => self.push(&[b'\\', *byte]),
            }
        }
        self.push(&value[from..]);
        self.push(b"\"");
    }

    fn binary(&mut self, value: &[u8], taker: For) {
        match (taker, <[u8; 16]>::try_from(value)) {
            (For::Uuid, Ok(bytes)) => self.display(format_args!("\"{}\"", uuid::Uuid::from_bytes(bytes))),
            (For::Text, _) => self.string(value),
            _ if simdutf8::basic::from_utf8(value).is_ok() => self.string(value),
            _ => {
                self.push(b"\"\\\\x");
                for byte in value.iter().take(self.len_max + 1) {
                    self.display(format_args!("{byte:02x}"));
                }
                self.push(b"\"");
            }
        }
    }

    fn float(&mut self, is_finite: bool, value: std::fmt::Arguments<'_>) {
        if is_finite { self.display(value) } else { self.display(format_args!("\"{value}\"")) }
    }
}

fn values(array: &ArrayRef, taker: For) -> Cell {
    match array.data_type() {
        DataType::Null => Box::new(|_, text| text.push(b"null")),
        DataType::Boolean => {
            let array = array.as_boolean().clone();
            Box::new(move |row, text| text.push(if array.value(row) { b"true" } else { b"false" }))
        }
        DataType::Int8 => whole::<Int8Type>(array),
        DataType::Int16 => whole::<Int16Type>(array),
        DataType::Int32 => whole::<Int32Type>(array),
        DataType::Int64 => whole::<Int64Type>(array),
        DataType::UInt8 => whole::<UInt8Type>(array),
        DataType::UInt16 => whole::<UInt16Type>(array),
        DataType::UInt32 => whole::<UInt32Type>(array),
        DataType::UInt64 => whole::<UInt64Type>(array),
        DataType::Float16 => {
            let array = array.as_primitive::<Float16Type>().clone();
            Box::new(move |row, text| {
                let value = array.value(row).to_f32();
                text.float(value.is_finite(), format_args!("{value:?}"));
            })
        }
        DataType::Float32 => {
            let array = array.as_primitive::<Float32Type>().clone();
            Box::new(move |row, text| text.float(array.value(row).is_finite(), format_args!("{:?}", array.value(row))))
        }
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>().clone();
            Box::new(move |row, text| text.float(array.value(row).is_finite(), format_args!("{:?}", array.value(row))))
        }
        DataType::Decimal32(..) => decimal::<Decimal32Type>(array),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(array),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(array),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(array),
        DataType::Timestamp(unit, _) => instants(array, *unit, taker),
        DataType::Date32 => {
            let array = array.as_primitive::<Date32Type>().clone();
            Box::new(move |row, text| date(i64::from(array.value(row)) * 86_400_000, taker, text))
        }
        DataType::Date64 => {
            let array = array.as_primitive::<Date64Type>().clone();
            Box::new(move |row, text| date(array.value(row), taker, text))
        }
        _ => text_or_nested(array, taker),
    }
}

fn text_or_nested(array: &ArrayRef, taker: For) -> Cell {
    match array.data_type() {
        DataType::Utf8View => {
            let array = array.as_string_view().clone();
            Box::new(move |row, text| text.string(array.value(row).as_bytes()))
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>().clone();
            Box::new(move |row, text| text.string(array.value(row).as_bytes()))
        }
        DataType::BinaryView => {
            let array = array.as_binary_view().clone();
            Box::new(move |row, text| text.binary(array.value(row), taker))
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>().clone();
            Box::new(move |row, text| text.binary(array.value(row), taker))
        }
        DataType::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary().clone();
            Box::new(move |row, text| text.binary(array.value(row), taker))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let names = fields.iter().map(|field| field.name().as_str());
            object(names.zip(columns).map(|(name, column)| (name, cells(column, For::Anything))))
        }
        DataType::List(_) => {
            let array = array.as_list::<i32>().clone();
            let items = cells(array.values(), For::Anything);
            Box::new(move |row, text| {
                let offsets = array.value_offsets();
                items_of(offsets[row] as usize..offsets[row + 1] as usize, &items, text);
            })
        }
        DataType::Map(..) => map(array),
        _ => other(array),
    }
}

fn items_of(range: std::ops::Range<usize>, items: &Cell, text: &mut RowText) {
    text.push(b"[");
    for index in range.clone() {
        if text.is_full() {
            return;
        }
        if index > range.start {
            text.push(b",");
        }
        items(index, text);
    }
    text.push(b"]");
}

/// Cells of a whole object with these fields.
pub(super) fn object<'a>(fields: impl Iterator<Item = (&'a str, Cell)>) -> Cell {
    let mut named = Vec::new();
    for (index, (name, cell)) in fields.enumerate() {
        let mut key = RowText { bytes: vec![if index == 0 { b'{' } else { b',' }], len_max: usize::MAX - 1 };
        key.string(name.as_bytes());
        key.push(b":");
        named.push((key.bytes, cell));
    }
    Box::new(move |row, text| {
        for (key, cell) in &named {
            text.push(key);
            cell(row, text);
        }
        text.push(if named.is_empty() { b"{}" } else { b"}" });
    })
}

/// Keys that are no text are the text of their value.
fn map(array: &ArrayRef) -> Cell {
    let array = array.as_map().clone();
    let (keys, values) = (cells(array.keys(), For::Anything), cells(array.values(), For::Anything));
    Box::new(move |row, text| {
        let offsets = array.value_offsets();
        let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
        text.push(b"{");
        for index in from..to {
            if text.is_full() {
                return;
            }
            if index > from {
                text.push(b",");
            }
            let start = text.bytes.len();
            keys(index, text);
            if text.bytes.get(start) != Some(&b'"') {
                let key = text.bytes.split_off(start);
                text.string(&key);
            }
            text.push(b":");
            values(index, text);
        }
        text.push(b"}");
    })
}

fn whole<T: ArrowPrimitiveType>(array: &ArrayRef) -> Cell
where
    T::Native: std::fmt::Display,
{
    let array = array.as_primitive::<T>().clone();
    Box::new(move |row, text| text.display(format_args!("{}", array.value(row))))
}

fn decimal<T: DecimalType + ArrowPrimitiveType>(array: &ArrayRef) -> Cell {
    let array = array.as_primitive::<T>().clone();
    Box::new(move |row, text| {
        let value = array.value_as_string(row);
        let has_point = value.contains('.');
        let shortest = if has_point { value.trim_end_matches('0').trim_end_matches('.') } else { &value };
        text.push(shortest.as_bytes());
    })
}

fn instants(array: &ArrayRef, unit: TimeUnit, taker: For) -> Cell {
    let array = arrow::compute::cast(array, &DataType::Int64).unwrap_or_else(|_| Arc::clone(array));
    let array = array.as_primitive::<Int64Type>().clone();
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    Box::new(move |row, text| {
        let value = array.value(row);
        let nanos = (value.rem_euclid(per_second) * (1_000_000_000 / per_second)) as u32;
        instant(value.div_euclid(per_second), nanos, value, taker, text);
    })
}

fn date(millis: i64, taker: For, text: &mut RowText) {
    let seconds = millis.div_euclid(1_000);
    match (taker, DateTime::from_timestamp(seconds, 0)) {
        (For::Instant | For::EpochMs, _) => instant(seconds, 0, millis, taker, text),
        (_, Some(at)) => text.display(format_args!("\"{}\"", at.format("%Y-%m-%d"))),
        (_, None) => text.display(format_args!("\"{millis}\"")),
    }
}

/// `raw`, in quotes, where it is no instant of any calendar.
fn instant(seconds: i64, nanos: u32, raw: i64, taker: For, text: &mut RowText) {
    match DateTime::from_timestamp(seconds, nanos) {
        Some(at) if taker == For::EpochMs => text.display(format_args!("{}", at.timestamp_millis())),
        Some(at) => text.display(format_args!("\"{}\"", at.to_rfc3339_opts(SecondsFormat::AutoSi, true))),
        None => text.display(format_args!("\"{raw}\"")),
    }
}

fn other(array: &ArrayRef) -> Cell {
    let array = Arc::clone(array);
    Box::new(move |row, text| {
        let options = FormatOptions::new();
        let shown = ArrayFormatter::try_new(&array, &options).map(|format| format.value(row).to_string());
        text.string(shown.unwrap_or_default().as_bytes());
    })
}
