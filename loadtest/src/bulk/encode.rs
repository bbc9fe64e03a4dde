//! Rows → files: JSON lines, CSV with a header, Parquet.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Result, ensure};

use crate::formats::{FileFormat, ParquetRows, push_csv};
use crate::generate::{BulkRow, Compression, Dataset, Dirt};

pub(super) fn supported(format: FileFormat, compression: Compression) -> Result<()> {
    ensure!(
        format != FileFormat::Parquet || compression != Compression::Gzip,
        "Parquet files are written with zstd pages or without compression, not with gzip"
    );
    Ok(())
}

pub(super) enum Encoder {
    Json(Counted),
    Csv(Counted),
    Parquet(Box<ParquetRows<File>>),
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
            FileFormat::Parquet => Self::Parquet(Box::new(ParquetRows::new(file, column_names(), compression, false)?)),
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
            Self::Parquet(rows) => {
                // Typed columns cannot hold the wrong type, and pages no broken row: such a row lacks its key instead.
                let lacks_key = matches!(row.dirt, Some(Dirt::MalformedJson | Dirt::WrongType | Dirt::InvalidValue));
                let values =
                    row.fields().map(|(name, value)| value.filter(|_| !(lacks_key && name == "transaction_id")));
                rows.push(values)?;
            }
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
        push_csv(&mut line, value);
    }
    line.push('\n');
    line
}
