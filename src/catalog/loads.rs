//! Micro-batches on their way into the warehouse. `loaded_at` is a hint; `load_state` there decides.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{CatalogError, SourcePartitionId};
use crate::types::{MicroBatchId, ObjectLocation, ObjectVersion, OffsetRange, TopicPartition};

/// A live micro-batch whose rows the warehouse may lack.
#[derive(Debug, Clone)]
pub struct LeasedBatch {
    pub id: MicroBatchId,
    pub source_partition_id: SourcePartitionId,
    pub topic_partition: TopicPartition,
    pub offsets: OffsetRange,
    pub oldest_message_at: Option<DateTime<Utc>>,
    /// Whether it replaces another micro-batch, which may be loaded.
    pub replaces: bool,
    pub mask_rev: i32,
}

/// A file of a micro-batch: at `published_key`, or still at `pending_key`.
#[derive(Debug, Clone)]
pub struct BatchFile {
    pub file_id: Uuid,
    /// `data` or `dead_letter`.
    pub kind: String,
    pub connector: String,
    pub table_partition: String,
    pub pending_key: String,
    pub published_key: String,
    pub published: bool,
    /// The published copy lacks masked rows; the file as committed is at the pending key.
    pub is_rewritten: bool,
    pub size_bytes: i64,
    /// Of the file as committed.
    pub sha256: Vec<u8>,
}

impl BatchFile {
    pub(super) fn of(row: &tokio_postgres::Row) -> Self {
        Self {
            file_id: row.get("file_id"),
            kind: row.get("kind"),
            connector: row.get("connector"),
            table_partition: row.get("table_partition"),
            pending_key: row.get("pending_key"),
            published_key: row.get("published_key"),
            published: row.get::<_, &str>("state") == "published",
            is_rewritten: row.get("is_rewritten"),
            size_bytes: row.get("size_bytes"),
            sha256: row.get("sha256"),
        }
    }
}

/// How much may be loaded together; the first micro-batch is leased whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinLimits {
    pub batch_count_max: i64,
    pub row_count_max: i64,
    /// Of their files, as they stand in the lake.
    pub size_bytes_max: i64,
}

/// The oldest such micro-batches that nobody else is loading, oldest first: one, or several of which none replaces another.
pub async fn lease_unloaded_batches(
    client: &impl GenericClient,
    lease_seconds: f64,
    limits: JoinLimits,
) -> Result<Vec<LeasedBatch>, CatalogError> {
    let JoinLimits { batch_count_max, row_count_max, size_bytes_max } = limits;
    let rows = client
        .query(
            include_str!("sql/lease_unloaded_batches.sql"),
            &[&lease_seconds, &batch_count_max, &row_count_max, &size_bytes_max],
        )
        .await
        .map_err(CatalogError::query("lease micro-batches to load"))?;
    let leased = |row: &tokio_postgres::Row| {
        Some(LeasedBatch {
            id: MicroBatchId(row.get("micro_batch_id")),
            source_partition_id: SourcePartitionId(row.get("source_partition_id")),
            topic_partition: TopicPartition::new(row.get::<_, String>("topic"), row.get("topic_partition")),
            offsets: OffsetRange::new(row.get("first"), row.get("next"))?,
            oldest_message_at: row.get("oldest_message_at"),
            replaces: row.get("replaces"),
            mask_rev: row.get("mask_rev"),
        })
    };
    Ok(rows.iter().filter_map(leased).collect())
}

/// First and last day of the files whose rows wait to be loaded, those of some micro-batches left out.
pub async fn awaited_days(
    client: &impl GenericClient,
    without: &[MicroBatchId],
) -> Result<Vec<(NaiveDate, NaiveDate)>, CatalogError> {
    let without: Vec<Uuid> = without.iter().map(|id| id.0).collect();
    let rows = client
        .query(include_str!("sql/select_awaited_days.sql"), &[&without])
        .await
        .map_err(CatalogError::query("list the days of rows to load"))?;
    Ok(rows.iter().map(|row| (row.get("first"), row.get("last"))).collect())
}

/// Whoever works longer than its lease says so meanwhile, so that nobody else does the same work.
pub async fn renew_load_lease(
    client: &impl GenericClient,
    ids: &[MicroBatchId],
    lease_seconds: f64,
) -> Result<(), CatalogError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    client
        .execute(include_str!("sql/renew_load_lease.sql"), &[&ids, &lease_seconds])
        .await
        .map_err(CatalogError::query("renew the lease of micro-batches to load"))?;
    Ok(())
}

pub async fn batch_files(client: &impl GenericClient, id: MicroBatchId) -> Result<Vec<BatchFile>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_batch_files.sql"), &[&id.0])
        .await
        .map_err(CatalogError::query("list the files of a micro-batch"))?;
    Ok(rows.iter().map(BatchFile::of).collect())
}

/// Time and order hash of each (offset, record) of a micro-batch that read an object.
pub async fn batch_origins(
    client: &impl GenericClient,
    id: MicroBatchId,
) -> Result<HashMap<(i64, i32), (DateTime<Utc>, i64)>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_batch_claims.sql"), &[&id.0])
        .await
        .map_err(CatalogError::query("list the objects of a micro-batch"))?;
    let origin = |row: &tokio_postgres::Row| {
        let version = ObjectVersion {
            location: ObjectLocation { bucket: row.get("bucket"), key: row.get("key") },
            version: row.get("version"),
            etag: row.get("etag"),
            last_modified: row.get("last_modified"),
            size_bytes: row.get::<_, i64>("size_bytes").unsigned_abs(),
        };
        let place = (row.get::<_, i64>("message_offset"), row.get::<_, i32>("record"));
        (place, (version.last_modified, version.order_hash()))
    };
    Ok(rows.iter().map(origin).collect())
}

/// Unless its masks have changed since: then it is to be loaded again.
pub async fn mark_loaded(client: &impl GenericClient, id: MicroBatchId, mask_rev: i32) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/mark_loaded.sql"), &[&id.0, &mask_rev])
        .await
        .map_err(CatalogError::query("mark a micro-batch loaded"))?;
    Ok(())
}

/// When each object that was emitted was announced, with its micro-batch.
pub async fn announced(client: &impl GenericClient) -> Result<Vec<(MicroBatchId, DateTime<Utc>)>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_announced.sql"), &[])
        .await
        .map_err(CatalogError::query("list when objects were announced"))?;
    Ok(rows.iter().map(|row| (MicroBatchId(row.get(0)), row.get(1))).collect())
}
