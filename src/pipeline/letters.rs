//! Dead letters as their files hold them: each whole, with its original bytes.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use deadpool_postgres::Pool;
use thiserror::Error;

use super::lake_files::{LakeFileError, read_rows};
use crate::catalog::{self, CatalogError, LetterFilter, LetterOwner, LetterSummary};
use crate::client::postgres;
use crate::client::rate::RequestRate;
use crate::client::s3::S3Client;
use crate::config::{OFFSET_COLUMN, RECORD_COLUMN, ROW_COLUMN, Settings};
use crate::error::ErrorKind;
use crate::types::{DeadLetter, LetterId, LetterPlace, ObjectLocation, RejectReason};

#[derive(Debug, Error)]
pub enum LettersError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    File(#[from] LakeFileError),
    #[error("the dead letters in `{key}` cannot be read: {problem}")]
    Rows { key: String, problem: String },
}

impl LettersError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::Rows { .. } => ErrorKind::Halt,
        }
    }
}

/// The dead letters of one group.
pub struct Letters {
    catalog: Pool,
    lake: S3Client,
    lake_bucket: String,
    group: String,
}

impl Letters {
    pub fn new(settings: &Settings, catalog: Pool) -> Self {
        Self {
            catalog,
            lake: S3Client::new("lake", &settings.s3.lake, RequestRate::new(settings.limits.s3_requests_per_s)),
            lake_bucket: settings.s3.lake_bucket.clone(),
            group: settings.kafka.group.clone(),
        }
    }

    /// A dead letter, with the live micro-batch that it belongs to now. `None`: there is none at that place.
    pub async fn find(&self, id: LetterId) -> Result<Option<(LetterOwner, DeadLetter)>, LettersError> {
        let (owner, files) = {
            let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            let Some(owner) = catalog::letter_owner(&client, &self.group, id.batch).await? else { return Ok(None) };
            let files = catalog::batch_files(&client, owner.batch).await?;
            (owner, files)
        };
        for file in files.into_iter().filter(|file| file.kind == "dead_letter") {
            for rows in read_rows(&self.lake, &self.lake_bucket, &file).await? {
                let found = letters_in(&rows, |place| place == id.place)
                    .map_err(|problem| LettersError::Rows { key: file.published_key.clone(), problem })?;
                if let Some(letter) = found.into_iter().next() {
                    return Ok(Some((owner, letter)));
                }
            }
        }
        Ok(None)
    }

    /// Reads every file that may hold such dead letters, the newest first, until `visit` says that it is enough.
    pub async fn visit(
        &self,
        filter: &LetterFilter,
        mut visit: impl FnMut(LetterSummary) -> bool,
    ) -> Result<(), LettersError> {
        let files = {
            let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            catalog::letter_files(&client, &self.group, filter).await?
        };
        for found in files {
            for rows in read_rows(&self.lake, &self.lake_bucket, &found.file).await? {
                let letters = letters_in(&rows, |_| true)
                    .map_err(|problem| LettersError::Rows { key: found.file.published_key.clone(), problem })?;
                for letter in letters {
                    if filter.reason.as_deref().is_some_and(|reason| reason != letter.reason.as_str()) {
                        continue;
                    }
                    let (bucket, key) = letter.object.clone().map(|object| (object.bucket, object.key)).unzip();
                    let is_enough = visit(LetterSummary {
                        id: LetterId { batch: found.batch, place: letter.place() },
                        topic_partition: found.topic_partition.clone(),
                        connector: letter.connector,
                        reason: letter.reason.as_str().to_owned(),
                        detail: letter.detail,
                        bucket,
                        key,
                        version: letter.object_version,
                        committed_at: found.committed_at,
                        try_count: None,
                    });
                    if is_enough {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Those of a file's dead letters that are wanted. An error says what the file lacks.
pub(super) fn letters_in(
    rows: &RecordBatch,
    is_wanted: impl Fn(LetterPlace) -> bool,
) -> Result<Vec<DeadLetter>, String> {
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| format!("no column `{name}`"));
    let text = |array: &ArrayRef, row: usize| {
        let texts = array.as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let number = |array: &ArrayRef, row: usize| {
        let numbers = array.as_primitive::<Int64Type>();
        numbers.is_valid(row).then(|| numbers.value(row))
    };
    let [connectors, reasons, details, buckets, keys, versions] =
        ["connector", "reason", "detail", "bucket", "key", "version"].map(column);
    let (connectors, reasons, details) = (connectors?, reasons?, details?);
    let (buckets, keys, versions) = (buckets?, keys?, versions?);
    let (offsets, row_numbers, byte_offsets) = (column(OFFSET_COLUMN)?, column(ROW_COLUMN)?, column("byte_offset")?);
    let records = column(RECORD_COLUMN)?.as_primitive::<Int32Type>();
    let bytes = column("bytes")?.as_binary::<i32>();
    let mut letters = Vec::new();
    for row in 0..rows.num_rows() {
        let place = LetterPlace {
            message_offset: number(offsets, row).unwrap_or_default(),
            record: records.is_valid(row).then(|| records.value(row)),
            row: number(row_numbers, row),
        };
        if !is_wanted(place) {
            continue;
        }
        let reason = RejectReason::parse(&text(reasons, row).unwrap_or_default());
        letters.push(DeadLetter {
            connector: text(connectors, row).unwrap_or_default(),
            reason: reason.ok_or_else(|| "a dead letter has an unknown reason".to_owned())?,
            detail: text(details, row).unwrap_or_default(),
            message_offset: place.message_offset,
            record: place.record,
            row: place.row,
            byte_offset: number(byte_offsets, row).map(i64::cast_unsigned),
            object: text(buckets, row).zip(text(keys, row)).map(|(bucket, key)| ObjectLocation { bucket, key }),
            object_version: text(versions, row),
            bytes: Bytes::copy_from_slice(bytes.value(row)),
        });
    }
    Ok(letters)
}
