//! Dead letters as Parquet: what, why, from where, and the bytes as they stood.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::StageError;
use super::parquet_file::encode_rolling;
use crate::config::{BATCH_COLUMN, OFFSET_COLUMN, RECORD_COLUMN, ROW_COLUMN, TOPIC_PARTITION_COLUMN};
use crate::types::{DeadLetter, FileKind, MicroBatchId, StagedFile, TablePartition, TopicPartition};

/// Dataset of messages that no connector could be told for.
const UNPARSED: &str = "_unparsed";
/// Files are cut near this size.
const FILE_SIZE_BYTES_TARGET: u64 = 128 << 20;

/// Encodes the dead letters of a micro-batch, one file a connector and day of the messages' time.
/// `revision_of` gives a connector's revision and its schema's.
pub fn encode_dead_letters(
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    letters: &[(DeadLetter, DateTime<Utc>)],
    revision_of: impl Fn(&str) -> (String, String),
) -> Result<Vec<StagedFile>, StageError> {
    let mut groups: BTreeMap<(&str, String), Vec<&DeadLetter>> = BTreeMap::new();
    for (letter, time) in letters {
        let day = time.format("date=%Y-%m-%d").to_string();
        groups.entry((&letter.connector, day)).or_default().push(letter);
    }
    let mut files = Vec::new();
    for ((connector, day), letters) in groups {
        let rows = rows(topic_partition, id, &letters)?;
        let (connector_revision, schema_revision) = revision_of(connector);
        for piece in encode_rolling(&rows, FILE_SIZE_BYTES_TARGET)? {
            files.push(StagedFile {
                file_id: Uuid::new_v4(),
                kind: FileKind::DeadLetter,
                dataset: if connector.is_empty() { UNPARSED.to_owned() } else { connector.to_owned() },
                connector: connector.to_owned(),
                connector_revision: connector_revision.clone(),
                schema_revision: schema_revision.clone(),
                table_partition: TablePartition(day.clone()),
                row_count: piece.row_count as u64,
                event_time_min: None,
                event_time_max: None,
                bytes: piece.bytes,
            });
        }
    }
    Ok(files)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("connector", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
        Field::new("bucket", DataType::Utf8, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("version", DataType::Utf8, true),
        Field::new("byte_offset", DataType::Int64, true),
        Field::new("bytes", DataType::Binary, false),
        Field::new(TOPIC_PARTITION_COLUMN, DataType::Utf8, false),
        Field::new(OFFSET_COLUMN, DataType::Int64, false),
        Field::new(RECORD_COLUMN, DataType::Int32, true),
        Field::new(ROW_COLUMN, DataType::Int64, true),
        Field::new(BATCH_COLUMN, DataType::Utf8, false),
    ]))
}

fn rows(
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    letters: &[&DeadLetter],
) -> Result<RecordBatch, StageError> {
    let text = |value: fn(&DeadLetter) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| value(letter))))
    };
    let optional = |value: fn(&DeadLetter) -> Option<&str>| -> ArrayRef {
        Arc::new(letters.iter().map(|letter| value(letter)).collect::<StringArray>())
    };
    let repeated = |value: String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, letters.len())))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|letter| &letter.connector),
        text(|letter| letter.reason.as_str()),
        text(|letter| &letter.detail),
        optional(|letter| letter.object.as_ref().map(|object| object.bucket.as_str())),
        optional(|letter| letter.object.as_ref().map(|object| object.key.as_str())),
        optional(|letter| letter.object_version.as_deref()),
        Arc::new(letters.iter().map(|letter| letter.byte_offset.map(|offset| offset as i64)).collect::<Int64Array>()),
        Arc::new(BinaryArray::from_iter_values(letters.iter().map(|letter| &letter.bytes))),
        repeated(topic_partition.to_string()),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.message_offset))),
        Arc::new(letters.iter().map(|letter| letter.record).collect::<Int32Array>()),
        Arc::new(letters.iter().map(|letter| letter.row).collect::<Int64Array>()),
        repeated(id.to_string()),
    ];
    RecordBatch::try_new(schema(), columns).map_err(StageError::Arrange)
}
