//! What a replay takes over from the micro-batch it replaces, because its source is gone: the rows of objects that
//! the raw bucket no longer has, and of messages that the log no longer has.
//!
//! # Contract
//! Rows and dead letters stand as they stood, with their lineage; nothing is cleaned or checked again, but for dead
//! letters that have been corrected, which become rows. What cannot
//! be brought into the connector's present schema is not guessed: the replay leaves that micro-batch as it is.
//! Rows that are more than a chunk are staged on the way, so that a large object is carried in bounded memory, too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use thiserror::Error;

use super::build::{BuildError, build_carried};
use super::context::TransformContext;
use super::evolution::widen_array;
use super::lake_files::{LakeFileError, read_rows};
use super::letters::letters_in;
use super::process::ProcessedMessage;
use super::replay::Replaced;
use super::row_books::RowBooks;
use super::staged::{PendingFiles, StagedRows, put_files};
use crate::catalog::{self, BatchFile, CatalogError};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::S3Error;
use crate::config::{Connector, OFFSET_COLUMN, ORIGIN_TIME_COLUMN, RECORD_COLUMN};
use crate::error::ErrorKind;
use crate::types::{DeadLetter, MicroBatchId, ObjectClaim, Origin, OriginRows, TopicPartition};

/// What is carried over into one micro-batch.
#[derive(Debug, Default)]
pub struct Carried {
    /// Claims of objects whose messages are gone. Those whose messages are there bring their own.
    pub claims: Vec<ObjectClaim>,
    pub rows: Vec<(Arc<Connector>, OriginRows)>,
    /// Each with the time that decides its date.
    pub dead_letters: Vec<(DeadLetter, DateTime<Utc>)>,
    /// The first of the rows, where they are more than a chunk.
    pub staged: Option<StagedRows>,
}

#[derive(Debug, Error)]
pub enum CarryError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    File(#[from] LakeFileError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("a building task failed")]
    Task(#[source] tokio::task::JoinError),
    #[error("could not put a file into the lake")]
    Upload(#[source] S3Error),
    /// The replay must leave the micro-batch as it is.
    #[error("rows of connector `{connector}` cannot be carried over: {problem}")]
    CannotRebuild { connector: String, problem: String },
}

impl CarryError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::Build(_) | Self::Task(_) => ErrorKind::Halt,
            Self::Upload(error) => error.kind(),
            Self::CannotRebuild { .. } => ErrorKind::Invalid,
        }
    }
}

/// A file, wherever it lies by now: it may have been rewritten since it was listed.
async fn read(
    context: &TransformContext,
    replaced: &Replaced,
    listed: &BatchFile,
) -> Result<Vec<RecordBatch>, CarryError> {
    let error = match read_rows(&context.lake, &context.lake_bucket, listed).await {
        Ok(batches) => return Ok(batches),
        Err(error) => error,
    };
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    let files = catalog::batch_files(&client, replaced.id).await?;
    match files.into_iter().find(|file| file.file_id == listed.file_id) {
        Some(file) => Ok(read_rows(&context.lake, &context.lake_bucket, &file).await?),
        None => Err(error.into()),
    }
}

/// Reads what must be carried over. `log_first`: messages before it are gone.
pub(super) async fn carry(
    context: &Arc<TransformContext>,
    topic_partition: &TopicPartition,
    retries: &RetryPolicy,
    replaced: &Replaced,
    messages: &[ProcessedMessage],
    log_first: i64,
) -> Result<Carried, CarryError> {
    let objects: HashSet<(i64, i32)> = messages
        .iter()
        .flat_map(|processed| processed.objects.iter().map(move |object| (processed.message.offset, object)))
        .filter(|(_, object)| object.carried)
        .map(|(offset, object)| (offset, object.record))
        .collect();
    let mut carried = Carried::default();
    if log_first <= replaced.offsets.first() && objects.is_empty() {
        return Ok(carried);
    }
    let wanted = Wanted { log_first, objects, replaced };
    carried.claims = replaced.claims.values().filter(|claim| claim.message_offset < log_first).cloned().collect();
    carried.claims.sort_by_key(|claim| (claim.message_offset, claim.record));
    let files = retry(retries, "catalog", CatalogError::kind, || async {
        let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
        catalog::batch_files(&client, replaced.id).await
    })
    .await?;
    let staging = Staging { context, topic_partition, retries, staged_as: replaced.staged_as };
    for file in files {
        staging.stage_if_many(&mut carried).await?;
        let batches = retry(retries, "s3", CarryError::kind, || read(context, replaced, &file)).await?;
        for batch in &batches {
            if file.kind == "data" {
                let connector = context.connectors.by_name(&file.connector).ok_or_else(|| {
                    let problem = "there is no such connector any more".to_owned();
                    CarryError::CannotRebuild { connector: file.connector.clone(), problem }
                })?;
                // with the columns that data added
                let connector = context.schemas.current(&connector.name).connector;
                let rows = wanted.rows(connector.dataset(), batch)?;
                carried.rows.extend(rows.into_iter().map(|rows| (Arc::clone(&connector), rows)));
            } else {
                for (mut letter, time) in wanted.dead_letters(&file, batch)? {
                    match replaced.overrides.correct_carried(context, &mut letter) {
                        None => carried.dead_letters.push((letter, time)),
                        Some(None) => {}
                        Some(Some((connector, row))) => {
                            // a direct record's own time is not among what a dead letter keeps: its day stands for it
                            let origin = wanted.origin(letter.message_offset, letter.record.unwrap_or_default(), time);
                            carried.rows.push((connector, OriginRows { origin, batches: vec![row] }));
                        }
                    }
                }
            }
        }
    }
    carried.dead_letters.sort_by_key(|(letter, _)| (letter.message_offset, letter.record, letter.row));
    Ok(carried)
}

struct Staging<'a> {
    context: &'a Arc<TransformContext>,
    topic_partition: &'a TopicPartition,
    retries: &'a RetryPolicy,
    staged_as: MicroBatchId,
}

impl Staging<'_> {
    /// Puts the rows that are there as files, and forgets them, where they have come to a chunk.
    async fn stage_if_many(&self, carried: &mut Carried) -> Result<(), CarryError> {
        let batches = carried.rows.iter().flat_map(|(_, rows)| &rows.batches);
        let held_bytes: usize = batches.map(RecordBatch::get_array_memory_size).sum();
        let Some((connector, _)) = carried.rows.first().filter(|_| held_bytes as u64 >= self.context.chunk_bytes)
        else {
            return Ok(());
        };
        let connector = Arc::clone(connector);
        let rows = std::mem::take(&mut carried.rows);
        let (context, topic_partition, id) = (Arc::clone(self.context), self.topic_partition.clone(), self.staged_as);
        let others = Arc::clone(&context.alone).read_owned().await;
        let build = move || {
            let _others = others;
            build_carried(&context, &topic_partition, id, rows)
        };
        let (books, uploads) = tokio::task::spawn_blocking(build).await.map_err(CarryError::Task)??;
        let staged = carried.staged.get_or_insert_with(|| StagedRows {
            id,
            connector,
            books: RowBooks::default(),
            files: PendingFiles::new(self.context),
        });
        staged.files.expect(&uploads);
        put_files(self.context, self.retries, &uploads).await.map_err(CarryError::Upload)?;
        staged.books.append(books);
        Ok(())
    }
}

struct Wanted<'a> {
    log_first: i64,
    objects: HashSet<(i64, i32)>,
    replaced: &'a Replaced,
}

impl Wanted<'_> {
    fn contains(&self, offset: i64, record: i32) -> bool {
        offset < self.log_first || self.objects.contains(&(offset, record))
    }

    fn rows(&self, connector: &Arc<Connector>, batch: &RecordBatch) -> Result<Vec<OriginRows>, CarryError> {
        let cannot = |problem: String| CarryError::CannotRebuild { connector: connector.name.clone(), problem };
        let offsets = required(batch, OFFSET_COLUMN).map_err(cannot)?.as_primitive::<Int64Type>();
        let records = required(batch, RECORD_COLUMN).map_err(cannot)?.as_primitive::<Int32Type>();
        let times = required(batch, ORIGIN_TIME_COLUMN).map_err(cannot)?.as_primitive::<TimestampMillisecondType>();
        let mut origins: BTreeMap<(i64, i32), i64> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let place = (offsets.value(row), records.value(row));
            if self.contains(place.0, place.1) {
                origins.insert(place, times.value(row));
            }
        }
        let mut found = Vec::with_capacity(origins.len());
        for ((offset, record), time) in origins {
            let mask: BooleanArray = (0..batch.num_rows())
                .map(|row| Some((offsets.value(row), records.value(row)) == (offset, record)))
                .collect();
            let rows = filter_record_batch(batch, &mask).map_err(|error| cannot(error.to_string()))?;
            let origin = self.origin(offset, record, DateTime::from_timestamp_millis(time).unwrap_or_default());
            found.push(OriginRows { origin, batches: vec![conform(connector, &rows).map_err(cannot)?] });
        }
        Ok(found)
    }

    fn dead_letters(
        &self,
        file: &BatchFile,
        batch: &RecordBatch,
    ) -> Result<Vec<(DeadLetter, DateTime<Utc>)>, CarryError> {
        let cannot = |problem: String| CarryError::CannotRebuild { connector: file.connector.clone(), problem };
        let time =
            date_of(&file.table_partition).ok_or_else(|| cannot(format!("no date in `{}`", file.table_partition)))?;
        let letters = letters_in(batch, |place| self.contains(place.message_offset, place.record.unwrap_or(-1)));
        Ok(letters.map_err(cannot)?.into_iter().map(|letter| (letter, time)).collect())
    }

    fn origin(&self, offset: i64, record: i32, time: DateTime<Utc>) -> Origin {
        let claim = self.replaced.claims.get(&(offset, record));
        Origin {
            message_offset: offset,
            record,
            time: claim.map_or(time, |claim| claim.version.last_modified),
            order_hash: claim.map_or(offset, |claim| claim.version.order_hash()),
        }
    }
}

fn required<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("the old file lacks column `{name}`"))
}

/// Rows of the lake as the connector's decoder would make them today.
fn conform(connector: &Connector, rows: &RecordBatch) -> Result<RecordBatch, String> {
    let schema = connector.decoded_schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| match rows.column_by_name(field.name()) {
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), rows.num_rows())),
            None => Err(format!("column `{}` is required now, and the old rows lack it", field.name())),
            Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
            Some(array) => {
                widen_array(array, field.data_type()).map_err(|error| format!("column `{}`: {error}", field.name()))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())
}

/// Midnight of `date=2026-11-23`.
fn date_of(table_partition: &str) -> Option<DateTime<Utc>> {
    let date = table_partition.split('/').find_map(|level| level.strip_prefix("date="))?;
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    Some(date.and_time(NaiveTime::MIN).and_utc())
}
