//! Rows → Parquet files, complete and in memory; uploading them is the caller's.
//!
//! # Contract
//! Synchronous CPU work; call it on a blocking thread. Every row of the input is in exactly one file, and a
//! file holds rows of one connector, one micro-batch and one table partition. Files are written once and
//! their names are never used again: the micro-batch and the file have ids of their own.
//!
//! | file | published as | before publication |
//! |---|---|---|
//! | rows | `data/<dataset>/type=…/…/<micro_batch_id>-<file_id>.parquet` | `_pending/<micro_batch_id>/<file_id>.parquet` |
//! | dead letters | `dead-letters/<connector>/date=…/<micro_batch_id>-<file_id>.parquet` | likewise |
//!
//! # Encoding
//! Of each file by its first rows, column by column: dictionaries, differences or plain, and zstd where it pays. The
//! same rows make the same file, but for its ids.
//!
//! # Ordering
//! Within a table partition rows are in the order of offset, record and row, across its files too.
//! Files come in the order of their table partitions.

mod dead_letters;
mod encoding;
mod hive;
mod parquet_file;
mod scatter;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::compute::interleave;
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use uuid::Uuid;

use crate::config::{Connector, UTC};
use crate::error::ErrorKind;
use crate::types::{FileKind, MicroBatchId, OriginRows, StagedFile, TopicPartition};

pub use dead_letters::encode_dead_letters;
pub use parquet_file::encode_again;

use parquet_file::{FileSeries, Label};
use scatter::{Layout, PartitionRows, Source, scatter};

/// Rows handed to the encoder at once.
const CHUNK_ROWS_MAX: usize = 8192;

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("connector `{connector}` has no column `{column}` to stage by")]
    UnknownColumn { connector: String, column: String },
    #[error("a row of connector `{connector}` has no event time: column `{column}` is null")]
    NoEventTime { connector: String, column: String },
    #[error("could not arrange the rows of connector `{connector}`")]
    Arrange { connector: String, source: ArrowError },
    #[error("could not encode a Parquet file of connector `{connector}`")]
    Encode { connector: String, source: ParquetError },
}

impl StageError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownColumn { .. } => ErrorKind::Invalid,
            Self::NoEventTime { .. } | Self::Arrange { .. } | Self::Encode { .. } => ErrorKind::Halt,
        }
    }
}

/// Where a file lies until its micro-batch is published.
pub fn pending_key(id: MicroBatchId, file_id: Uuid) -> String {
    format!("_pending/{id}/{file_id}.parquet")
}

/// Where readers find it.
pub fn published_key(id: MicroBatchId, file: &StagedFile) -> String {
    let StagedFile { kind, dataset, table_partition, file_id, .. } = file;
    format!("{}/{dataset}/{table_partition}/{id}-{file_id}.parquet", kind.prefix())
}

/// Encodes the rows of one connector in one micro-batch. `rows` may be in any order and may be empty.
pub fn encode(
    connector: &Connector,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    rows: &[OriginRows],
) -> Result<Vec<StagedFile>, StageError> {
    let mut origins: Vec<&OriginRows> = rows.iter().collect();
    origins.sort_by_key(|rows| (rows.origin.message_offset, rows.origin.record));
    let sources: Vec<Source<'_>> = origins
        .iter()
        .flat_map(|rows| rows.batches.iter().map(|batch| Source { origin: &rows.origin, batch }))
        .collect();
    let layout = Layout::new(connector)?;
    let encoder = Encoder {
        connector,
        schema: connector.lake_schema(),
        topic_partition: topic_partition.to_string(),
        batch_id: id.to_string(),
        sources: &sources,
        time_column: layout.time_column,
    };
    let mut files = Vec::new();
    for partition in scatter(connector, &layout, &sources)? {
        files.extend(encoder.partition(&partition)?);
    }
    Ok(files)
}

struct Encoder<'a> {
    connector: &'a Connector,
    /// [`Connector::lake_schema`]
    schema: SchemaRef,
    topic_partition: String,
    batch_id: String,
    sources: &'a [Source<'a>],
    time_column: usize,
}

impl Encoder<'_> {
    fn partition(&self, partition: &PartitionRows) -> Result<Vec<StagedFile>, StageError> {
        let label = Label {
            kind: FileKind::Data,
            dataset: self.connector.staging.dataset.clone(),
            connector: self.connector.name.clone(),
            connector_revision: self.connector.revision.clone(),
            schema_revision: self.connector.schema_revision.clone(),
            table_partition: partition.path.clone(),
            file_size_bytes_target: self.connector.staging.file_size_bytes_target,
        };
        let encode_failed = |source| StageError::Encode { connector: self.connector.name.clone(), source };
        let mut files = FileSeries::new(label, Arc::clone(&self.schema));
        let mut rows = &partition.rows[..];
        while !rows.is_empty() {
            let (chunk, taken) = self.chunk(partition, rows)?;
            let times = chunk.column(self.time_column).as_primitive::<TimestampMillisecondType>();
            let range = arrow::compute::min(times).zip(arrow::compute::max(times));
            files.write(&chunk, range).map_err(encode_failed)?;
            rows = &rows[taken..];
        }
        files.finish().map_err(encode_failed)
    }

    /// The next rows in the lake's schema, and how many they are.
    fn chunk(&self, partition: &PartitionRows, rows: &[(u32, u32)]) -> Result<(RecordBatch, usize), StageError> {
        let mut taken = rows.len().min(CHUNK_ROWS_MAX);
        loop {
            match self.gather(partition, &rows[..taken]) {
                // Texts of 2 GiB together: fewer of them.
                Err(ArrowError::OffsetOverflowError(_)) if taken > 1 => taken /= 2,
                Err(source) => return Err(StageError::Arrange { connector: self.connector.name.clone(), source }),
                Ok(batch) => return Ok((batch, taken)),
            }
        }
    }

    fn gather(&self, partition: &PartitionRows, rows: &[(u32, u32)]) -> Result<RecordBatch, ArrowError> {
        let source = |batch: u32| &self.sources[partition.sources[batch as usize] as usize];
        let (first_batch, first_row) = rows[0];
        let is_run = rows.iter().zip(first_row..).all(|((batch, row), next)| *batch == first_batch && *row == next);
        let column_count = source(first_batch).batch.num_columns();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        if is_run {
            let run = source(first_batch).batch.slice(first_row as usize, rows.len());
            columns.extend_from_slice(run.columns());
        } else {
            // Only the batches that these rows come from: there may be thousands.
            let (from, to) = (first_batch, rows.last().map_or(first_batch, |(batch, _)| *batch));
            let indices: Vec<(usize, usize)> =
                rows.iter().map(|(batch, row)| ((batch - from) as usize, *row as usize)).collect();
            for column in 0..column_count {
                let arrays: Vec<&dyn Array> =
                    (from..=to).map(|batch| source(batch).batch.column(column).as_ref()).collect();
                columns.push(interleave(&arrays, &indices)?);
            }
        }
        // `_row` is the last of the decoded columns; in the lake it stands among the lineage.
        let row_numbers = columns.pop().ok_or_else(|| ArrowError::SchemaError("rows without columns".to_owned()))?;
        let origin = |(batch, _): &(u32, u32)| source(*batch).origin;
        columns.push(repeated(&self.topic_partition, rows.len()));
        columns.push(Arc::new(rows.iter().map(|row| origin(row).message_offset).collect::<Int64Array>()));
        columns.push(Arc::new(rows.iter().map(|row| origin(row).record).collect::<Int32Array>()));
        columns.push(row_numbers);
        let times = rows.iter().map(|row| origin(row).time.timestamp_millis());
        columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone(UTC)));
        columns.push(repeated(&self.batch_id, rows.len()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn repeated(text: &str, count: usize) -> ArrayRef {
    Arc::new(StringArray::new_repeated(text, count))
}
