//! Texts → the rows of a [`super::JoinTable`], of typed columns.
//!
//! A text is read as a `default` of a connector is: exactly, or not at all. Timestamps are RFC 3339 or milliseconds since
//! 1970. Null is null in every column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMillisecondArray,
};
use arrow::datatypes::SchemaRef;
use chrono::DateTime;

use super::check_columns::{parse_value, type_name};
use super::{Field, FieldType, UTC};

/// What a table may hold: every process has all of it in memory, and looks through it for every block of rows.
pub const TABLE_BYTES_MAX: usize = 64 << 20;
/// An offset and a bit of a value, however short its text.
const VALUE_BYTES: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableRowsError {
    #[error("a value of column `{column}` is no {type_name}: expected {expected}")]
    Misfit { column: String, type_name: String, expected: String },
    #[error("it has more than {} MiB", TABLE_BYTES_MAX >> 20)]
    TooLarge,
}

/// Rows as they come.
#[derive(Debug)]
pub struct TableRows {
    fields: Vec<Field>,
    texts: Vec<StringBuilder>,
    row_count: usize,
    size_bytes: usize,
}

impl TableRows {
    pub fn new(fields: &[Field]) -> Self {
        let texts = fields.iter().map(|_| StringBuilder::new()).collect();
        Self { fields: fields.to_vec(), texts, row_count: 0, size_bytes: 0 }
    }

    /// A value for each column. After an error nothing more can be made of the rows.
    pub fn push<'a>(&mut self, values: impl Iterator<Item = Option<&'a str>>) -> Result<(), TableRowsError> {
        for ((field, column), value) in self.fields.iter().zip(&mut self.texts).zip(values) {
            if let Some(text) = value {
                parse_value(field, text).map_err(|expected| TableRowsError::Misfit {
                    column: field.name.clone(),
                    type_name: type_name(field.data_type),
                    expected,
                })?;
            }
            column.append_option(value);
            self.size_bytes += VALUE_BYTES + value.map_or(0, str::len);
        }
        self.row_count += 1;
        if self.size_bytes > TABLE_BYTES_MAX { Err(TableRowsError::TooLarge) } else { Ok(()) }
    }

    /// `schema`: of the table with these columns.
    pub fn finish(mut self, schema: SchemaRef) -> RecordBatch {
        let columns = self.fields.iter().zip(&mut self.texts);
        let columns = columns.map(|(field, texts)| typed(field.data_type, &texts.finish())).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.row_count));
        RecordBatch::try_new_with_options(schema, columns, &options)
            .expect("columns are built by the types that the schema is made of, and every one may be null")
    }
}

/// Every text fits: it was held against the type when it came.
fn typed(data_type: FieldType, texts: &StringArray) -> ArrayRef {
    match data_type {
        FieldType::Utf8 | FieldType::Json => Arc::new(texts.clone()),
        FieldType::Uuid => {
            Arc::new(texts.iter().map(|text| text.map(str::to_ascii_lowercase)).collect::<StringArray>())
        }
        FieldType::Int32 => Arc::new(parsed::<i32>(texts).collect::<Int32Array>()),
        FieldType::Int64 => Arc::new(parsed::<i64>(texts).collect::<Int64Array>()),
        FieldType::Float64 => Arc::new(parsed::<f64>(texts).collect::<Float64Array>()),
        FieldType::Boolean => Arc::new(parsed::<bool>(texts).collect::<BooleanArray>()),
        FieldType::Decimal { precision, scale } => {
            let values = texts.iter().map(|text| text.and_then(|text| decimal(text, scale)));
            let array = values.collect::<Decimal128Array>().with_precision_and_scale(precision, scale);
            Arc::new(array.expect("a connector's precision and scale fit together"))
        }
        FieldType::TimestampMs => {
            let values = texts.iter().map(|text| text.and_then(timestamp_ms));
            Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone(UTC))
        }
    }
}

fn parsed<T: std::str::FromStr>(texts: &StringArray) -> impl Iterator<Item = Option<T>> {
    texts.iter().map(|text| text.and_then(|text| text.parse().ok()))
}

/// `12.5` with scale 2 is 1250.
fn decimal(text: &str, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let zeros = usize::from(scale.unsigned_abs()).checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().ok()
}

fn timestamp_ms(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis()))
}
