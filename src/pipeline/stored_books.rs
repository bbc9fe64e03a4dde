//! The books of a chunk as the catalog keeps them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::context::TransformContext;
use super::row_books::{Letters, RowBooks};
use crate::catalog::{DeadLetterSample, FileRecord};
use crate::commit::{Ledgers, Totals};
use crate::config::{Connector, seen_from_json};
use crate::decode::ResumePoint;
use crate::transform::Tallies;
use crate::types::{FileKind, RejectReason, RowOutcome};

/// A chunk, and where the next one begins.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChunkState {
    pub(super) point: ResumePoint,
    /// By which the decoder goes on.
    pub(super) schema: StoredSchema,
    pub(super) books: StoredBooks,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredSchema {
    connector: String,
    revision: String,
    fields: serde_json::Value,
}

/// Lists of what the books count: connector, what, how often.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredBooks {
    rows_in: Vec<(String, String, u64)>,
    rows_out: Vec<(String, String, u64)>,
    row_in_count: u64,
    row_out_count: u64,
    dead_letter_count: u64,
    counted: Vec<(String, Tallies, DateTime<Utc>)>,
    schemas: Vec<StoredSchema>,
    letters: Vec<(String, String, u64)>,
    samples: Vec<StoredSample>,
    files: Vec<StoredFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSample {
    connector: String,
    reason: String,
    detail: String,
    message_offset: i64,
    record: Option<i32>,
    row: Option<i64>,
    bucket: Option<String>,
    key: Option<String>,
    version: Option<String>,
    /// Base64.
    sample: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredFile {
    file_id: Uuid,
    kind: String,
    dataset: String,
    connector: String,
    connector_revision: String,
    schema_revision: String,
    table_partition: String,
    pending_key: String,
    published_key: String,
    row_count: i64,
    size_bytes: i64,
    /// Base64.
    sha256: String,
    event_time_min: Option<DateTime<Utc>>,
    event_time_max: Option<DateTime<Utc>>,
}

impl StoredSchema {
    pub(super) fn of(connector: &Connector) -> Self {
        Self {
            connector: connector.name.clone(),
            revision: connector.schema_revision.clone(),
            fields: connector.fields_to_json(),
        }
    }
}

/// A connector as far as its data had changed it; `None` where it is another one today.
pub(super) fn revived(context: &TransformContext, schema: &StoredSchema) -> Option<Arc<Connector>> {
    grown(context.connectors.by_name(&schema.connector)?, schema)
}

fn grown(declared: &Arc<Connector>, schema: &StoredSchema) -> Option<Arc<Connector>> {
    if declared.schema_revision == schema.revision {
        return Some(Arc::clone(declared));
    }
    // rows that SQL made are written by its columns
    if declared.dataset().schema_revision == schema.revision {
        return Some(Arc::clone(declared.dataset()));
    }
    let grown = declared.evolved(&seen_from_json(&schema.fields));
    (grown.schema_revision == schema.revision).then(|| Arc::new(grown))
}

impl StoredBooks {
    /// Of a chunk: it has rows, and neither offsets nor objects.
    pub(super) fn of(books: &RowBooks) -> Self {
        let counted = |(connector, (tallies, at)): (&String, &(Tallies, DateTime<Utc>))| {
            (connector.clone(), tallies.clone(), *at)
        };
        let letters = books.letters.counts.iter();
        Self {
            rows_in: books
                .ledgers
                .rows()
                .map(|(name, what, n)| (name.to_owned(), what.as_str().to_owned(), n))
                .collect(),
            rows_out: books
                .ledgers
                .rows_out_by_connector()
                .map(|(name, to, n)| (name.to_owned(), to.to_owned(), n))
                .collect(),
            row_in_count: books.totals.rows_in,
            row_out_count: books.totals.rows_out,
            dead_letter_count: books.totals.dead_letters,
            counted: books.counted.iter().map(counted).collect(),
            schemas: books.schemas.iter().map(|connector| StoredSchema::of(connector)).collect(),
            letters: letters.map(|((name, reason), count)| (name.clone(), (*reason).to_owned(), *count)).collect(),
            samples: books.letters.samples.iter().map(StoredSample::of).collect(),
            files: books.files.iter().map(StoredFile::of).collect(),
        }
    }

    pub(super) fn revive(self, context: &TransformContext) -> Option<RowBooks> {
        self.revive_by(|schema| revived(context, schema))
    }

    fn revive_by(self, connector: impl Fn(&StoredSchema) -> Option<Arc<Connector>>) -> Option<RowBooks> {
        let mut ledgers = Ledgers::default();
        for (name, outcome, count) in self.rows_in {
            ledgers.rows_in(&name, RowOutcome::ALL.iter().copied().find(|known| known.as_str() == outcome)?, count);
        }
        for (name, dataset, count) in self.rows_out {
            ledgers.rows_out(&name, &dataset, count);
        }
        let reason = |text: &str| RejectReason::parse(text).map(RejectReason::as_str);
        let counts = self.letters.into_iter().map(|(name, text, count)| Some(((name, reason(&text)?), count)));
        Some(RowBooks {
            ledgers,
            totals: Totals {
                objects: 0,
                rows_in: self.row_in_count,
                rows_out: self.row_out_count,
                dead_letters: self.dead_letter_count,
            },
            counted: self.counted.into_iter().map(|(name, tallies, at)| (name, (tallies, at))).collect(),
            schemas: self.schemas.iter().map(connector).collect::<Option<_>>()?,
            letters: Letters {
                counts: counts.collect::<Option<_>>()?,
                samples: self.samples.into_iter().map(StoredSample::revive).collect::<Option<_>>()?,
            },
            failed_overrides: Vec::new(),
            files: self.files.into_iter().map(StoredFile::revive).collect::<Option<_>>()?,
        })
    }
}

impl StoredSample {
    fn of(sample: &DeadLetterSample) -> Self {
        let DeadLetterSample { connector, reason, detail, message_offset, record, row, bucket, key, version, sample } =
            sample.clone();
        let sample = aws_smithy_types::base64::encode(sample);
        Self { connector, reason: reason.to_owned(), detail, message_offset, record, row, bucket, key, version, sample }
    }

    fn revive(self) -> Option<DeadLetterSample> {
        let Self { connector, reason, detail, message_offset, record, row, bucket, key, version, sample } = self;
        let reason = RejectReason::parse(&reason)?.as_str();
        let sample = aws_smithy_types::base64::decode(sample).ok()?;
        Some(DeadLetterSample { connector, reason, detail, message_offset, record, row, bucket, key, version, sample })
    }
}

impl StoredFile {
    fn of(file: &FileRecord) -> Self {
        let file = file.clone();
        Self {
            file_id: file.file_id,
            kind: file.kind.to_owned(),
            dataset: file.dataset,
            connector: file.connector,
            connector_revision: file.connector_revision,
            schema_revision: file.schema_revision,
            table_partition: file.table_partition,
            pending_key: file.pending_key,
            published_key: file.published_key,
            row_count: file.row_count,
            size_bytes: file.size_bytes,
            sha256: aws_smithy_types::base64::encode(file.sha256),
            event_time_min: file.event_time_min,
            event_time_max: file.event_time_max,
        }
    }

    fn revive(self) -> Option<FileRecord> {
        let kind = [FileKind::Data, FileKind::DeadLetter].into_iter().find(|kind| kind.as_str() == self.kind)?;
        Some(FileRecord {
            file_id: self.file_id,
            kind: kind.as_str(),
            dataset: self.dataset,
            connector: self.connector,
            connector_revision: self.connector_revision,
            schema_revision: self.schema_revision,
            table_partition: self.table_partition,
            pending_key: self.pending_key,
            published_key: self.published_key,
            row_count: self.row_count,
            size_bytes: self.size_bytes,
            sha256: aws_smithy_types::base64::decode(self.sha256).ok()?,
            event_time_min: self.event_time_min,
            event_time_max: self.event_time_max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DeadLetter;

    #[test]
    fn books_come_back_as_they_were() {
        let mut books = RowBooks::default();
        books.ledgers.rows_in("orders", RowOutcome::Passed, 40);
        books.ledgers.rows_in("orders", RowOutcome::Rejected, 2);
        books.ledgers.rows_out("orders", "orders", 40);
        books.totals = Totals { objects: 0, rows_in: 42, rows_out: 40, dead_letters: 2 };
        books.counted.insert("orders".to_owned(), (Tallies::default(), DateTime::UNIX_EPOCH));
        for row in 0..2 {
            books.letters.push(&DeadLetter {
                connector: "orders".to_owned(),
                reason: RejectReason::InvalidUtf8,
                detail: "no UTF-8".to_owned(),
                message_offset: 7,
                record: Some(0),
                row: Some(row),
                byte_offset: Some(3),
                object: None,
                object_version: Some("v".to_owned()),
                bytes: bytes::Bytes::from_static(b"\xff\x00"),
            });
        }
        books.files.push(FileRecord {
            file_id: Uuid::from_u128(5),
            kind: "dead_letter",
            dataset: "orders".to_owned(),
            connector: "orders".to_owned(),
            connector_revision: "a".to_owned(),
            schema_revision: "b".to_owned(),
            table_partition: "date=2026-01-01".to_owned(),
            pending_key: "_pending/x".to_owned(),
            published_key: "dead-letters/x".to_owned(),
            row_count: 2,
            size_bytes: 99,
            sha256: vec![1, 2, 255],
            event_time_min: None,
            event_time_max: Some(DateTime::UNIX_EPOCH),
        });
        let text = serde_json::to_string(&StoredBooks::of(&books)).expect("plain data");
        let stored: StoredBooks = serde_json::from_str(&text).expect("its own text");
        let back = stored.revive_by(|_| None).expect("all of it is known");
        assert_eq!(format!("{back:?}"), format!("{books:?}"));
    }
}
