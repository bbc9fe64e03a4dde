//! Rows → Parquet files, complete in memory, with the keys under which they lie before and after publication.
//!
//! # Contract
//! Each row stands in exactly one file, in the table partition that its values say; rows of a file are in the
//! order (offset, record, row). Nothing is written anywhere here.

mod dead_letters;
mod hive;
mod parquet_file;

pub use dead_letters::encode_dead_letters;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::TimestampMillisecondType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use parquet::errors::ParquetError;
use thiserror::Error;
use uuid::Uuid;

use crate::config::{Connector, PartitionBy, ROW_COLUMN, UTC};
use crate::error::ErrorKind;
use crate::types::{FileKind, MicroBatchId, Origin, OriginRows, StagedFile, TablePartition, TopicPartition};

#[derive(Debug, Error)]
pub enum StageError {
    #[error("column `{column}` is not in the rows")]
    ColumnMissing { column: String },
    #[error("could not arrange the rows")]
    Arrange(#[source] ArrowError),
    #[error("could not write Parquet")]
    Parquet(#[source] ParquetError),
}

impl StageError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Halt
    }
}

/// Where a file lies before its micro-batch is published.
pub fn pending_key(id: MicroBatchId, file_id: Uuid) -> String {
    format!("_pending/{id}/{file_id}.parquet")
}

/// Where readers find it: unique to the attempt, written once.
pub fn published_key(id: MicroBatchId, file: &StagedFile) -> String {
    let (prefix, dataset, partition) = (file.kind.prefix(), &file.dataset, &file.table_partition);
    format!("{prefix}/{dataset}/{partition}/{id}-{}.parquet", file.file_id)
}

/// Encodes the rows of one connector in one micro-batch. `rows` come in offset order. CPU work.
pub fn encode(
    connector: &Connector,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    rows: &[OriginRows],
) -> Result<Vec<StagedFile>, StageError> {
    let mut batches = Vec::new();
    // rows of each table partition as (batch, row), in the order in which they come
    let mut places: BTreeMap<TablePartition, Vec<(usize, usize)>> = BTreeMap::new();
    for origin_rows in rows {
        for batch in origin_rows.batches.iter().filter(|batch| batch.num_rows() > 0) {
            for (row, partition) in table_partitions(connector, batch)?.into_iter().enumerate() {
                places.entry(partition).or_default().push((batches.len(), row));
            }
            batches.push(with_lineage(connector, topic_partition, id, &origin_rows.origin, batch)?);
        }
    }
    let parts: Vec<&RecordBatch> = batches.iter().collect();
    let mut files = Vec::new();
    for (partition, indices) in places {
        let rows = interleave_record_batch(&parts, &indices).map_err(StageError::Arrange)?;
        for piece in parquet_file::encode_rolling(&rows, connector.staging.file_size_bytes_target)? {
            files.push(staged(connector, &partition, &rows.slice(piece.first, piece.row_count), piece.bytes)?);
        }
    }
    Ok(files)
}

fn staged(
    connector: &Connector,
    partition: &TablePartition,
    rows: &RecordBatch,
    bytes: bytes::Bytes,
) -> Result<StagedFile, StageError> {
    let times = event_times(connector, rows)?;
    let time = |value: Option<i64>| value.and_then(DateTime::<Utc>::from_timestamp_millis);
    Ok(StagedFile {
        file_id: Uuid::new_v4(),
        kind: FileKind::Data,
        dataset: connector.staging.dataset.clone(),
        connector: connector.name.clone(),
        connector_revision: connector.revision.clone(),
        schema_revision: connector.schema_revision.clone(),
        table_partition: partition.clone(),
        row_count: rows.num_rows() as u64,
        event_time_min: time(arrow::compute::min(times)),
        event_time_max: time(arrow::compute::max(times)),
        bytes,
    })
}

fn event_times<'a>(connector: &Connector, rows: &'a RecordBatch) -> Result<&'a TimestampMillisecondArray, StageError> {
    let name = &connector.staging.time;
    rows.column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>())
        .ok_or_else(|| StageError::ColumnMissing { column: name.clone() })
}

/// The table partition of each row.
fn table_partitions(connector: &Connector, rows: &RecordBatch) -> Result<Vec<TablePartition>, StageError> {
    let times = event_times(connector, rows)?;
    let mut columns = Vec::new();
    for level in &connector.staging.by {
        if let PartitionBy::Column(name) = level {
            let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            columns.push(column.ok_or_else(|| StageError::ColumnMissing { column: name.clone() })?);
        }
    }
    let partition = |row: usize| {
        let mut path = hive::level("type", Some(&connector.staging.type_name));
        let mut next_column = columns.iter();
        let time = DateTime::<Utc>::from_timestamp_millis(times.value(row)).unwrap_or_default();
        for level in &connector.staging.by {
            path.push('/');
            match level {
                PartitionBy::Column(name) => {
                    let column = next_column.next();
                    let value = column.filter(|column| column.is_valid(row)).map(|column| column.value(row));
                    path.push_str(&hive::level(name, value));
                }
                PartitionBy::Date => path.push_str(&time.format("date=%Y-%m-%d").to_string()),
                PartitionBy::Hour => path.push_str(&time.format("hour=%H").to_string()),
            }
        }
        TablePartition(path)
    };
    // neighbours mostly share their table partition: format each distinct (values, hour) once
    let mut known: std::collections::HashMap<(i64, Vec<Option<&str>>), TablePartition> =
        std::collections::HashMap::new();
    Ok((0..rows.num_rows())
        .map(|row| {
            let values = columns.iter().map(|column| column.is_valid(row).then(|| column.value(row))).collect();
            let hour = times.value(row).div_euclid(3_600_000);
            known.entry((hour, values)).or_insert_with(|| partition(row)).clone()
        })
        .collect())
}

/// Decoded rows with the lineage columns of the lake.
fn with_lineage(
    connector: &Connector,
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    origin: &Origin,
    rows: &RecordBatch,
) -> Result<RecordBatch, StageError> {
    let count = rows.num_rows();
    let numbers = rows
        .column_by_name(ROW_COLUMN)
        .cloned()
        .ok_or_else(|| StageError::ColumnMissing { column: ROW_COLUMN.into() })?;
    // `_row` is the last of the decoded columns
    let mut columns: Vec<ArrayRef> = rows.columns()[..rows.num_columns() - 1].to_vec();
    let topic_partition = topic_partition.to_string();
    let batch = id.to_string();
    let time = TimestampMillisecondArray::from_value(origin.time.timestamp_millis(), count).with_timezone(UTC);
    columns.extend([
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&topic_partition, count))) as ArrayRef,
        Arc::new(Int64Array::from_value(origin.message_offset, count)),
        Arc::new(Int32Array::from_value(origin.record, count)),
        numbers,
        Arc::new(time),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&batch, count))),
    ]);
    let batch = RecordBatch::try_new(connector.lake_schema(), columns).map_err(StageError::Arrange)?;
    in_row_order(batch)
}

/// Rows of one origin are in the order of their numbers already, unless a step reordered them.
fn in_row_order(batch: RecordBatch) -> Result<RecordBatch, StageError> {
    let numbers =
        batch.column_by_name(ROW_COLUMN).and_then(|column| column.as_primitive_opt::<arrow::datatypes::Int64Type>());
    let Some(numbers) = numbers else { return Ok(batch) };
    if numbers.values().is_sorted() {
        return Ok(batch);
    }
    let mut order: Vec<u64> = (0..batch.num_rows() as u64).collect();
    order.sort_by_key(|row| numbers.value(*row as usize));
    take_record_batch(&batch, &UInt64Array::from(order)).map_err(StageError::Arrange)
}
