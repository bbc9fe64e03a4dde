//! Dead letters as files: the truth about what was rejected, with every original byte.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use chrono::{DateTime, Utc};

use super::hive::push_level;
use super::parquet_file::{FileLayout, FileSeries, Label};
use super::{CHUNK_ROWS_MAX, StageError, repeated};
use crate::config::{BATCH_COLUMN, OFFSET_COLUMN, RECORD_COLUMN, ROW_COLUMN, TOPIC_PARTITION_COLUMN};
use crate::types::{DeadLetter, FileKind, MicroBatchId, StagedFile, TablePartition, TopicPartition};

/// Dataset of what belongs to no connector.
const UNPARSED: &str = "_unparsed";
const FILE_SIZE_BYTES_TARGET: u64 = 128 << 20;
/// Binary columns have 32-bit offsets; this is far from their end.
const CHUNK_BYTES_MAX: usize = 64 << 20;
/// Of one letter, which is in a chunk of its own then: quarantined objects are as large as the limits allow, and
/// `limits.object_bytes_max` may be beyond those offsets. The object itself stays in the raw bucket.
const LETTER_BYTES_MAX: usize = 1 << 30;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let required = |name: &str, data_type| Field::new(name, data_type, false);
    let optional = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        required("connector", DataType::Utf8),
        required("reason", DataType::Utf8),
        required("detail", DataType::Utf8),
        optional("bucket", DataType::Utf8),
        optional("key", DataType::Utf8),
        optional("version", DataType::Utf8),
        optional("byte_offset", DataType::Int64),
        required("bytes", DataType::Binary),
        required(TOPIC_PARTITION_COLUMN, DataType::Utf8),
        required(OFFSET_COLUMN, DataType::Int64),
        optional(RECORD_COLUMN, DataType::Int32),
        optional(ROW_COLUMN, DataType::Int64),
        required(BATCH_COLUMN, DataType::Utf8),
    ]))
});

/// Encodes the dead letters of one micro-batch, each with the time of its message, which decides its date
/// (UTC). Letters keep their order within a file. `revision_of`: revision and schema revision of a connector.
pub fn encode_dead_letters(
    topic_partition: &TopicPartition,
    id: MicroBatchId,
    letters: &[(DeadLetter, DateTime<Utc>)],
    revision_of: impl Fn(&str) -> (String, String),
) -> Result<Vec<StagedFile>, StageError> {
    let mut groups: BTreeMap<_, Vec<&DeadLetter>> = BTreeMap::new();
    for (letter, time) in letters {
        groups.entry((letter.connector.as_str(), time.date_naive())).or_default().push(letter);
    }
    let lineage = Lineage { topic_partition: topic_partition.to_string(), batch_id: id.to_string() };
    let mut files = Vec::new();
    for ((connector, date), letters) in groups {
        let (connector_revision, schema_revision) = revision_of(connector);
        let mut path = String::new();
        push_level(&mut path, "date", Some(&date.format("%Y-%m-%d").to_string()));
        let label = Label {
            kind: FileKind::DeadLetter,
            dataset: if connector.is_empty() { UNPARSED.to_owned() } else { connector.to_owned() },
            connector: connector.to_owned(),
            connector_revision,
            schema_revision,
            table_partition: TablePartition(path),
            file_size_bytes_target: FILE_SIZE_BYTES_TARGET,
            layout: FileLayout::default(),
        };
        let encode_failed = |source| StageError::Encode { connector: connector.to_owned(), source };
        let arrange_failed = |source| StageError::Arrange { connector: connector.to_owned(), source };
        let mut series = FileSeries::new(label, Arc::clone(&SCHEMA));
        let mut rest = &letters[..];
        while !rest.is_empty() {
            let (chunk, next) = rest.split_at(chunk_length(rest));
            let batch = lineage.batch(chunk).map_err(arrange_failed)?;
            series.write(&batch, None).map_err(encode_failed)?;
            rest = next;
        }
        files.extend(series.finish().map_err(encode_failed)?);
    }
    Ok(files)
}

/// What is kept of a letter's bytes, and its detail, which says so where that is not all.
fn kept(letter: &DeadLetter, bytes_max: usize) -> (&[u8], Cow<'_, str>) {
    let detail = letter.detail.as_str();
    match letter.bytes.get(..bytes_max) {
        Some(head) if head.len() < letter.bytes.len() => {
            (head, format!("{detail} (the first {bytes_max} of {} bytes are kept)", letter.bytes.len()).into())
        }
        _ => (&letter.bytes, detail.into()),
    }
}

/// At least one.
fn chunk_length(letters: &[&DeadLetter]) -> usize {
    let mut bytes = 0;
    let fits = letters.iter().take(CHUNK_ROWS_MAX).take_while(|letter| {
        bytes += letter.bytes.len() + letter.detail.len();
        bytes <= CHUNK_BYTES_MAX
    });
    fits.count().max(1)
}

struct Lineage {
    topic_partition: String,
    batch_id: String,
}

impl Lineage {
    fn batch(&self, letters: &[&DeadLetter]) -> Result<RecordBatch, ArrowError> {
        fn texts<'a>(letters: &[&'a DeadLetter], text: impl Fn(&'a DeadLetter) -> Option<&'a str>) -> ArrayRef {
            Arc::new(letters.iter().map(|letter| text(letter)).collect::<StringArray>())
        }
        let byte_offsets: Int64Array = letters.iter().map(|letter| letter.byte_offset.map(u64::cast_signed)).collect();
        let (bytes, details): (Vec<&[u8]>, Vec<Cow<'_, str>>) =
            letters.iter().map(|letter| kept(letter, LETTER_BYTES_MAX)).unzip();
        let offsets: Int64Array = letters.iter().map(|letter| letter.message_offset).collect();
        let records: Int32Array = letters.iter().map(|letter| letter.record).collect();
        let rows: Int64Array = letters.iter().map(|letter| letter.row).collect();
        RecordBatch::try_new(
            Arc::clone(&SCHEMA),
            vec![
                texts(letters, |letter| Some(&letter.connector)),
                texts(letters, |letter| Some(letter.reason.as_str())),
                Arc::new(details.iter().map(Some).collect::<StringArray>()),
                texts(letters, |letter| letter.object.as_ref().map(|object| object.bucket.as_str())),
                texts(letters, |letter| letter.object.as_ref().map(|object| object.key.as_str())),
                texts(letters, |letter| letter.object_version.as_deref()),
                Arc::new(byte_offsets),
                Arc::new(BinaryArray::from(bytes)),
                repeated(&self.topic_partition, letters.len()),
                Arc::new(offsets),
                Arc::new(records),
                Arc::new(rows),
                repeated(&self.batch_id, letters.len()),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::RejectReason;

    #[test]
    fn a_letter_beyond_what_a_column_holds_is_cut_and_says_so() {
        let letter = DeadLetter {
            connector: "orders".to_owned(),
            reason: RejectReason::CorruptCompression,
            detail: "broken gzip stream".to_owned(),
            message_offset: 1,
            record: Some(0),
            row: None,
            byte_offset: None,
            object: None,
            object_version: None,
            bytes: Bytes::from_static(b"0123456789"),
        };
        assert_eq!(kept(&letter, 11), (&b"0123456789"[..], "broken gzip stream".into()));
        assert_eq!(kept(&letter, 10), (&b"0123456789"[..], "broken gzip stream".into()));
        let cut = "broken gzip stream (the first 9 of 10 bytes are kept)";
        assert_eq!(kept(&letter, 9), (&b"012345678"[..], cut.into()));
    }
}
