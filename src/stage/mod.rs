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
//! Within a table partition rows are in the order of offset, record and row, across its files too; by `staging.sort_by`
//! in the order of its columns first, within each file.
//! Files come in the order of their table partitions.

mod dead_letters;
mod encoding;
mod gather;
mod hive;
mod long_texts;
mod parquet_file;
mod scatter;
mod sorted;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat;
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use uuid::Uuid;

use crate::config::Connector;
use crate::error::ErrorKind;
use crate::types::{FileKind, MicroBatchId, Origin, OriginRows, StagedFile, TablePartition, TopicPartition};

pub use dead_letters::encode_dead_letters;
pub use parquet_file::{FileLayout, encode_again};

use gather::{Source, is_gathered, lineage, sources};
use long_texts::LongTexts;
use parquet_file::{FileSeries, Label};
use scatter::{Layout, PartitionRows, Run, scatter};

/// Rows handed to the encoder at once.
const CHUNK_ROWS_MAX: usize = 8192;
/// Likewise of one text column, but for a run that alone has more: offsets have 32 bits.
const CHUNK_TEXT_BYTES_MAX: usize = 1 << 30;

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
    encode_owned(connector, topic_partition, id, rows.to_vec())
}

/// The same, in less memory where the rows are nobody else's.
pub fn encode_owned(
    connector: &Connector,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    rows: Vec<OriginRows>,
) -> Result<Vec<StagedFile>, StageError> {
    let layout = Layout::new(connector)?;
    let (origins, batches) = in_order(rows);
    let long_texts = LongTexts::of(connector, batches.iter().flatten());
    let encoder = Encoder::new(connector, topic_partition, id, layout.time_column, &long_texts);
    encoder.files(connector, &layout, sources(&origins, batches).map(|source| long_texts.of_source(source?)))
}

/// The same rows with their long texts as views (Utf8View), so that picking some of them copies no long text. For what stands
/// between reading and [`encode_owned`], which takes either. Columns that rows are deduped or partitioned by stay as they are, and
/// so do rows of small objects, which are put together first.
pub fn with_views(connector: &Connector, rows: Vec<OriginRows>) -> Result<Vec<OriginRows>, ArrowError> {
    let is_gathered = is_gathered(rows.iter().flat_map(|rows| &rows.batches));
    if is_gathered { Ok(rows) } else { long_texts::viewed(connector, rows) }
}

struct OpenPartition {
    series: FileSeries,
    /// What is yet to be sorted.
    unsorted: Vec<RecordBatch>,
}

/// Origins in the order of offset and record, and the record batches of each.
fn in_order(mut rows: Vec<OriginRows>) -> (Vec<Origin>, Vec<Vec<RecordBatch>>) {
    rows.sort_by_key(|rows| (rows.origin.message_offset, rows.origin.record));
    rows.into_iter().map(|OriginRows { origin, batches }| (origin, batches)).unzip()
}

/// Runs → rows of the lake → files.
struct Encoder {
    label: Label,
    /// [`Connector::lake_schema`], with views of long texts.
    schema: SchemaRef,
    topic_partition: String,
    batch_id: String,
    time_column: usize,
    /// Columns of the lake's schema; rows are sorted by them where there are any.
    sort_by: Vec<usize>,
}

impl Encoder {
    fn new(
        connector: &Connector,
        topic_partition: &TopicPartition,
        id: MicroBatchId,
        time_column: usize,
        long_texts: &LongTexts,
    ) -> Self {
        let label = Label {
            kind: FileKind::Data,
            dataset: connector.staging.dataset.clone(),
            connector: connector.name.clone(),
            connector_revision: connector.revision.clone(),
            schema_revision: connector.schema_revision.clone(),
            table_partition: TablePartition(String::new()),
            file_size_bytes_target: connector.staging.file_size_bytes_target,
            layout: FileLayout::of(&connector.staging),
        };
        let (topic_partition, batch_id) = (topic_partition.to_string(), id.to_string());
        let schema = long_texts.schema(&connector.lake_schema());
        let sort_by = sorted::columns(&schema, &connector.staging.sort_by);
        Self { label, schema, topic_partition, batch_id, time_column, sort_by }
    }

    fn files<'a>(
        &self,
        connector: &Connector,
        layout: &Layout<'_>,
        sources: impl Iterator<Item = Result<Source<'a>, ArrowError>>,
    ) -> Result<Vec<StagedFile>, StageError> {
        let mut files = Vec::new();
        // each partition's files are closed before the next one's are opened
        for PartitionRows { path, runs } in scatter(connector, layout, sources)? {
            let mut open = self.open(&path);
            self.add(&mut open, &runs)?;
            files.extend(self.finish(open)?);
        }
        Ok(files)
    }

    fn open(&self, path: &TablePartition) -> OpenPartition {
        let label = Label { table_partition: path.clone(), ..self.label.clone() };
        OpenPartition { series: FileSeries::new(label, Arc::clone(&self.schema)), unsorted: Vec::new() }
    }

    fn finish(&self, mut open: OpenPartition) -> Result<Vec<StagedFile>, StageError> {
        let rows = sorted::sorted(&self.schema, &self.sort_by, &open.unsorted, CHUNK_TEXT_BYTES_MAX);
        for part in rows {
            let part = part.map_err(|source| self.arrange_failed(source))?;
            for start in (0..part.num_rows()).step_by(CHUNK_ROWS_MAX) {
                let chunk = part.slice(start, CHUNK_ROWS_MAX.min(part.num_rows() - start));
                self.write(&mut open.series, &chunk)?;
            }
            // what follows is in an order of its own
            open.series.roll().map_err(|source| self.encode_failed(source))?;
        }
        open.series.finish().map_err(|source| self.encode_failed(source))
    }

    fn arrange_failed(&self, source: ArrowError) -> StageError {
        StageError::Arrange { connector: self.label.connector.clone(), source }
    }

    fn encode_failed(&self, source: ParquetError) -> StageError {
        StageError::Encode { connector: self.label.connector.clone(), source }
    }

    fn add(&self, open: &mut OpenPartition, runs: &[Run<'_>]) -> Result<(), StageError> {
        let mut chunk: Vec<Source<'_>> = Vec::new();
        let (mut row_count, mut text_bytes) = (0, 0);
        for run in runs {
            let mut start = 0;
            while start < run.len {
                let part = run.rows(start, (CHUNK_ROWS_MAX - row_count).min(run.len - start));
                let rows = &part.rows;
                let bytes = sorted::longest_text_bytes(rows);
                if row_count > 0 && text_bytes + bytes > CHUNK_TEXT_BYTES_MAX {
                    self.add_chunk(open, &std::mem::take(&mut chunk))?;
                    (row_count, text_bytes) = (0, 0);
                    continue;
                }
                start += rows.num_rows();
                row_count += rows.num_rows();
                text_bytes += bytes;
                chunk.push(part);
                if row_count == CHUNK_ROWS_MAX {
                    self.add_chunk(open, &std::mem::take(&mut chunk))?;
                    (row_count, text_bytes) = (0, 0);
                }
            }
        }
        if chunk.is_empty() { Ok(()) } else { self.add_chunk(open, &chunk) }
    }

    fn add_chunk(&self, open: &mut OpenPartition, runs: &[Source<'_>]) -> Result<(), StageError> {
        let chunk = self.joined(runs).map_err(|source| self.arrange_failed(source))?;
        if self.sort_by.is_empty() {
            return self.write(&mut open.series, &chunk);
        }
        open.unsorted.push(chunk);
        Ok(())
    }

    fn write(&self, series: &mut FileSeries, chunk: &RecordBatch) -> Result<(), StageError> {
        let times = chunk.column(self.time_column).as_primitive::<TimestampMillisecondType>();
        let range = arrow::compute::min(times).zip(arrow::compute::max(times));
        series.write(chunk, range).map_err(|source| self.encode_failed(source))
    }

    /// At least one run, in the lake's schema.
    fn joined(&self, runs: &[Source<'_>]) -> Result<RecordBatch, ArrowError> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        match runs {
            [only] => columns.extend_from_slice(only.rows.columns()),
            _ => {
                for column in 0..runs[0].rows.num_columns() {
                    let arrays: Vec<&dyn Array> = runs.iter().map(|run| run.rows.column(column).as_ref()).collect();
                    columns.push(concat(&arrays)?);
                }
            }
        }
        let row_count = runs.iter().map(|run| run.rows.num_rows()).sum();
        let [offsets, records, times] = if runs[0].origin.is_some() {
            lineage(runs.iter().filter_map(|run| Some((run.origin?, run.rows.num_rows()))))
        } else {
            let given = columns.split_off(columns.len().saturating_sub(3));
            given.try_into().map_err(|_| ArrowError::SchemaError("rows without lineage".to_owned()))?
        };
        // `_row` is the last of the decoded columns; in the lake it stands among the lineage.
        let row_numbers = columns.pop().ok_or_else(|| ArrowError::SchemaError("rows without columns".to_owned()))?;
        columns.push(repeated(&self.topic_partition, row_count));
        columns.push(offsets);
        columns.push(records);
        columns.push(row_numbers);
        columns.push(times);
        columns.push(repeated(&self.batch_id, row_count));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn repeated(text: &str, count: usize) -> ArrayRef {
    Arc::new(StringArray::new_repeated(text, count))
}
