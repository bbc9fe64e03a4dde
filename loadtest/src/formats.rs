//! How rows are written as CSV and as Parquet.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder, StructArray,
    TimestampMillisecondBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::generate::{Compression, Dataset};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// JSON lines
    Json,
    /// With a header
    Csv,
    Parquet,
}

impl FileFormat {
    pub const ALL: &[Self] = &[Self::Json, Self::Csv, Self::Parquet];

    pub fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// The connector that reads a dataset in this format, and the folder of its objects: `transactions`,
    /// `transactions-csv`.
    pub fn connector(self, dataset: Dataset) -> String {
        match self {
            Self::Json => dataset.to_string(),
            Self::Csv | Self::Parquet => format!("{dataset}-{}", self.extension()),
        }
    }

    /// The dataset of such a connector.
    pub fn dataset(connector: &str) -> Option<Dataset> {
        Dataset::ALL
            .iter()
            .copied()
            .find(|dataset| Self::ALL.iter().any(|format| format.connector(*dataset) == connector))
    }
}

/// A field of a CSV record; null is empty.
pub(crate) fn push_csv(line: &mut String, value: Option<&Value>) {
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => push_csv_text(line, text),
        Some(value) => push_csv_text(line, &value.to_string()),
    }
}

fn push_csv_text(line: &mut String, text: &str) {
    if text.contains(['"', ',', '\n', '\r']) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

/// Rows of a row group.
const PARQUET_ROWS: usize = 8192;
/// What Parquet holds of an amount: decimal(12,2).
const PRECISION: u8 = 12;
const SCALE: i8 = 2;

/// One column on its way into a Parquet file.
enum Column {
    Text(StringBuilder),
    /// decimal(12,2)
    Amount(Decimal128Builder),
    Quantity(Int32Builder),
    /// Milliseconds, UTC.
    Time(TimestampMillisecondBuilder),
    /// `attributes`
    Attributes {
        channel: StringBuilder,
        gift: BooleanBuilder,
        is_valid: Vec<bool>,
    },
    /// `properties`
    Properties {
        page: StringBuilder,
        ms: Int64Builder,
        is_valid: Vec<bool>,
    },
}

fn attributes() -> Fields {
    Fields::from(vec![Field::new("channel", DataType::Utf8, true), Field::new("gift", DataType::Boolean, true)])
}

fn properties() -> Fields {
    Fields::from(vec![Field::new("page", DataType::Utf8, true), Field::new("ms", DataType::Int64, true)])
}

impl Column {
    /// `are_objects`: JSON objects become structs, not text.
    fn new(name: &str, are_objects: bool) -> Result<Self> {
        Ok(match name {
            "amount" | "price" => Self::Amount(Decimal128Builder::new().with_precision_and_scale(PRECISION, SCALE)?),
            "quantity" => Self::Quantity(Int32Builder::new()),
            "occurred_at" | "updated_at" => Self::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
            "attributes" if are_objects => {
                Self::Attributes { channel: StringBuilder::new(), gift: BooleanBuilder::new(), is_valid: Vec::new() }
            }
            "properties" if are_objects => {
                Self::Properties { page: StringBuilder::new(), ms: Int64Builder::new(), is_valid: Vec::new() }
            }
            _ => Self::Text(StringBuilder::new()),
        })
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::Amount(_) => DataType::Decimal128(PRECISION, SCALE),
            Self::Quantity(_) => DataType::Int32,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Attributes { .. } => DataType::Struct(attributes()),
            Self::Properties { .. } => DataType::Struct(properties()),
        }
    }

    /// A value of another type becomes null.
    fn push(&mut self, value: Option<&Value>) {
        let of = |name: &str| value.and_then(|value| value.get(name));
        match self {
            Self::Text(column) => match value {
                None | Some(Value::Null) => column.append_null(),
                Some(Value::String(text)) => column.append_value(text),
                Some(value) => column.append_value(value.to_string()),
            },
            Self::Amount(column) => {
                column.append_option(value.and_then(Value::as_f64).map(|amount| (amount * 100.0).round() as i128));
            }
            Self::Quantity(column) => column.append_option(value.and_then(Value::as_i64).map(|count| count as i32)),
            Self::Time(column) => {
                let time = value.and_then(Value::as_str).and_then(|text| DateTime::parse_from_rfc3339(text).ok());
                column.append_option(time.map(|time| time.timestamp_millis()));
            }
            Self::Attributes { channel, gift, is_valid } => {
                channel.append_option(of("channel").and_then(Value::as_str));
                gift.append_option(of("gift").and_then(Value::as_bool));
                is_valid.push(value.is_some_and(Value::is_object));
            }
            Self::Properties { page, ms, is_valid } => {
                page.append_option(of("page").and_then(Value::as_str));
                ms.append_option(of("ms").and_then(Value::as_i64));
                is_valid.push(value.is_some_and(Value::is_object));
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        let object = |fields, columns, is_valid: &mut Vec<bool>| {
            Arc::new(StructArray::new(fields, columns, Some(NullBuffer::from(std::mem::take(is_valid)))))
        };
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Amount(column) => Arc::new(column.finish()),
            Self::Quantity(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Attributes { channel, gift, is_valid } => {
                object(attributes(), vec![Arc::new(channel.finish()), Arc::new(gift.finish())], is_valid)
            }
            Self::Properties { page, ms, is_valid } => {
                object(properties(), vec![Arc::new(page.finish()), Arc::new(ms.finish())], is_valid)
            }
        }
    }
}

/// Rows on their way into a Parquet file.
pub(crate) struct ParquetRows<W: Write + Send> {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> ParquetRows<W> {
    /// `are_objects`: JSON objects become structs, not text. Compressed with gzip means not at all.
    pub(crate) fn new(out: W, names: &[&str], compression: Compression, are_objects: bool) -> Result<Self> {
        let columns = names.iter().map(|name| Column::new(name, are_objects)).collect::<Result<Vec<_>>>()?;
        let fields = names.iter().zip(&columns).map(|(name, column)| Field::new(*name, column.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let codec = match compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1)?),
            Compression::None | Compression::Gzip => Codec::UNCOMPRESSED,
        };
        let properties = WriterProperties::builder().set_compression(codec).build();
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
        Ok(Self { schema, columns, rows: 0, writer })
    }

    /// A row's values in the order of the columns. Amounts are numbers, times RFC 3339.
    pub(crate) fn push<'v>(&mut self, values: impl Iterator<Item = Option<&'v Value>>) -> Result<()> {
        for (value, column) in values.zip(&mut self.columns) {
            column.push(value);
        }
        self.rows += 1;
        if self.rows == PARQUET_ROWS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        Ok(())
    }

    /// Bytes of the pages before compression.
    pub(crate) fn finish(mut self) -> Result<u64> {
        if self.rows > 0 {
            self.write()?;
        }
        let metadata = self.writer.close()?;
        let page_bytes: i64 = metadata.row_groups().iter().map(RowGroupMetaData::total_byte_size).sum();
        u64::try_from(page_bytes).context("a Parquet file of negative size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_would_be_read_otherwise() {
        let mut line = String::new();
        for text in ["plain", "a,b", "say \"so\"", "two\nlines"] {
            push_csv(&mut line, Some(&Value::from(text)));
            line.push(';');
        }
        assert_eq!(line, "plain;\"a,b\";\"say \"\"so\"\"\";\"two\nlines\";");
    }

    #[test]
    fn a_connector_s_name_tells_its_dataset() {
        for dataset in Dataset::ALL {
            for format in FileFormat::ALL {
                assert_eq!(FileFormat::dataset(&format.connector(*dataset)), Some(*dataset));
            }
        }
        assert_eq!(FileFormat::dataset("transactions-xml"), None);
    }
}
