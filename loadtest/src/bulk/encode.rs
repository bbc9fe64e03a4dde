//! Rows → files: JSON lines, CSV with a header, Parquet.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::array::{
    ArrayRef, Decimal128Builder, Int32Builder, RecordBatch, StringBuilder, TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::generate::{BulkRow, Compression, Dataset, Dirt};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    Json,
    Csv,
    Parquet,
}

impl FileFormat {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

pub(super) fn supported(format: FileFormat, compression: Compression) -> Result<()> {
    ensure!(
        format != FileFormat::Parquet || compression != Compression::Gzip,
        "Parquet files are written with zstd pages or without compression, not with gzip"
    );
    Ok(())
}

const PARQUET_ROWS: usize = 8192;
/// What Parquet holds of a column: `amount` is decimal(12,2), times are milliseconds in UTC.
const PRECISION: u8 = 12;
const SCALE: i8 = 2;

pub(super) enum Encoder {
    Json(Counted),
    Csv(Counted),
    Parquet(Box<ParquetRows>),
}

impl Encoder {
    pub(super) fn create(path: &Path, format: FileFormat, compression: Compression) -> Result<Self> {
        let file = File::create(path)?;
        Ok(match format {
            FileFormat::Json => Self::Json(Counted::new(file, compression)?),
            FileFormat::Csv => {
                let mut out = Counted::new(file, compression)?;
                out.write_all(column_names().join(",").as_bytes())?;
                out.write_all(b"\n")?;
                Self::Csv(out)
            }
            FileFormat::Parquet => Self::Parquet(Box::new(ParquetRows::new(file, compression)?)),
        })
    }

    /// `line`: the row as a JSON line.
    pub(super) fn write(&mut self, row: &BulkRow, line: &[u8]) -> Result<()> {
        match self {
            Self::Json(out) => {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            }
            Self::Csv(out) => out.write_all(csv_line(row).as_bytes())?,
            Self::Parquet(rows) => rows.push(row)?,
        }
        Ok(())
    }

    /// Bytes before compression.
    pub(super) fn finish(self) -> Result<u64> {
        match self {
            Self::Json(out) | Self::Csv(out) => out.finish(),
            Self::Parquet(rows) => rows.finish(),
        }
    }
}

fn column_names() -> &'static [&'static str] {
    Dataset::Transactions.columns()
}

enum Stream {
    Plain(BufWriter<File>),
    Gzip(flate2::write::GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

/// Counts what is written before it is compressed.
pub(super) struct Counted {
    stream: Stream,
    bytes: u64,
}

impl Counted {
    fn new(file: File, compression: Compression) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, file);
        let stream = match compression {
            Compression::None => Stream::Plain(file),
            Compression::Gzip => Stream::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::fast())),
            Compression::Zstd => Stream::Zstd(zstd::Encoder::new(file, 1)?),
        };
        Ok(Self { stream, bytes: 0 })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        match &mut self.stream {
            Stream::Plain(out) => out.write_all(bytes),
            Stream::Gzip(out) => out.write_all(bytes),
            Stream::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> Result<u64> {
        match self.stream {
            Stream::Plain(mut out) => out.flush()?,
            Stream::Gzip(out) => out.finish()?.flush()?,
            Stream::Zstd(out) => out.finish()?.flush()?,
        }
        Ok(self.bytes)
    }
}

fn csv_line(row: &BulkRow) -> String {
    let mut line = String::with_capacity(512);
    // cut short: the header promises more fields
    let fields = if row.dirt == Some(Dirt::MalformedJson) { 2 } else { column_names().len() };
    for (index, (_, value)) in row.fields().take(fields).enumerate() {
        if index > 0 {
            line.push(',');
        }
        match value {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => push_csv(&mut line, text),
            Some(value) => push_csv(&mut line, &value.to_string()),
        }
    }
    line.push('\n');
    line
}

fn push_csv(line: &mut String, text: &str) {
    if text.contains(['"', ',', '\n', '\r']) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

/// One column on its way into a Parquet file.
enum Column {
    Text(StringBuilder),
    Amount(Decimal128Builder),
    Quantity(Int32Builder),
    Time(TimestampMillisecondBuilder),
}

impl Column {
    fn new(name: &str) -> Result<Self> {
        Ok(match name {
            "amount" => Self::Amount(Decimal128Builder::new().with_precision_and_scale(PRECISION, SCALE)?),
            "quantity" => Self::Quantity(Int32Builder::new()),
            "occurred_at" | "updated_at" => Self::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
            _ => Self::Text(StringBuilder::new()),
        })
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::Amount(_) => DataType::Decimal128(PRECISION, SCALE),
            Self::Quantity(_) => DataType::Int32,
            Self::Time(_) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        }
    }

    /// A value of another type becomes null.
    fn push(&mut self, value: Option<&Value>) {
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
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Amount(column) => Arc::new(column.finish()),
            Self::Quantity(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
        }
    }
}

pub(super) struct ParquetRows {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    writer: ArrowWriter<File>,
}

impl ParquetRows {
    fn new(file: File, compression: Compression) -> Result<Self> {
        let columns = column_names().iter().map(|name| Column::new(name)).collect::<Result<Vec<_>>>()?;
        let fields =
            column_names().iter().zip(&columns).map(|(name, column)| Field::new(*name, column.data_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let codec = match compression {
            Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1)?),
            Compression::None | Compression::Gzip => Codec::UNCOMPRESSED,
        };
        let properties = WriterProperties::builder().set_compression(codec).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        Ok(Self { schema, columns, rows: 0, writer })
    }

    fn push(&mut self, row: &BulkRow) -> Result<()> {
        // Typed columns cannot hold the wrong type, and pages no broken row: such a row lacks its key instead.
        let lacks_key = matches!(row.dirt, Some(Dirt::MalformedJson | Dirt::WrongType | Dirt::InvalidValue));
        for ((name, value), column) in row.fields().zip(&mut self.columns) {
            column.push(value.filter(|_| !(lacks_key && name == "transaction_id")));
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

    fn finish(mut self) -> Result<u64> {
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
            push_csv(&mut line, text);
            line.push(';');
        }
        assert_eq!(line, "plain;\"a,b\";\"say \"\"so\"\"\";\"two\nlines\";");
    }
}
