//! One Parquet file in memory.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::StageError;
use crate::config::{OFFSET_COLUMN, ROW_COLUMN};

/// Rows between two looks at the size of a file.
const ROWS_PER_WRITE: usize = 8_192;

/// A file and the rows it holds.
pub(super) struct Piece {
    pub(super) first: usize,
    pub(super) row_count: usize,
    pub(super) bytes: Bytes,
}

/// Writes the rows into as many files as their target size asks for, at least one. `size_bytes_target` is a
/// target, not a bound: a file ends with the write that passes it.
pub(super) fn encode_rolling(rows: &RecordBatch, size_bytes_target: u64) -> Result<Vec<Piece>, StageError> {
    let mut pieces = Vec::new();
    let mut first = 0;
    while first < rows.num_rows() {
        let mut writer =
            ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties())).map_err(StageError::Parquet)?;
        let mut next = first;
        while next < rows.num_rows()
            && ((writer.bytes_written() + writer.in_progress_size()) as u64) < size_bytes_target.max(1)
        {
            let count = ROWS_PER_WRITE.min(rows.num_rows() - next);
            writer.write(&rows.slice(next, count)).map_err(StageError::Parquet)?;
            next += count;
        }
        let bytes = writer.into_inner().map_err(StageError::Parquet)?;
        pieces.push(Piece { first, row_count: next - first, bytes: bytes.into() });
        first = next;
    }
    Ok(pieces)
}

fn properties() -> WriterProperties {
    // counters: a dictionary of distinct values only costs
    let counter = |builder: parquet::file::properties::WriterPropertiesBuilder, name: &str| {
        let path = ColumnPath::from(name);
        builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
    };
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(format!("sluice {}", env!("CARGO_PKG_VERSION")));
    counter(counter(builder, ROW_COLUMN), OFFSET_COLUMN).build()
}
