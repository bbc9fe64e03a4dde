//! What a replay would touch, asked before an operator orders it; and what a reload marks.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use futures::{Stream, TryStreamExt};
use serde::Serialize;

use super::{CatalogError, PartitionKey, SourcePartitionId};
use crate::types::{MicroBatchId, ObjectLocation, OffsetRange, TopicPartition};

/// Sums over what is committed from the start of a replay on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReplayScope {
    /// The requested offset, or where the live micro-batch that contains it begins.
    pub start_offset: i64,
    pub micro_batch_count: i64,
    pub skipped_range_count: i64,
    /// Offsets of them that would be filled.
    pub skipped_offset_count: i64,
    pub object_count: i64,
    pub object_bytes: i64,
    pub row_in_count: i64,
    pub row_out_count: i64,
    pub file_count: i64,
    pub file_bytes: i64,
}

/// How fast a group has committed lately.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CommitSpeed {
    pub micro_batch_count: i64,
    pub row_count: i64,
    /// Between their commits, idleness left out.
    pub seconds: f64,
    pub newest_at: DateTime<Utc>,
}

impl CommitSpeed {
    pub fn rows_per_s(&self) -> f64 {
        self.row_count as f64 / self.seconds
    }
}

/// A claimed object version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedObject {
    pub location: ObjectLocation,
    pub version: String,
    /// Without quotes.
    pub etag: String,
}

/// Which micro-batches are to be loaded again.
#[derive(Debug, Clone, Default)]
pub struct ReloadFilter {
    pub topic: Option<String>,
    pub topic_partition: Option<i32>,
    /// Committed at or after it.
    pub since: Option<DateTime<Utc>>,
}

/// A live micro-batch that a loader has marked loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadedBatch {
    pub id: MicroBatchId,
    pub source_partition_id: SourcePartitionId,
    pub offsets: OffsetRange,
    pub row_out_count: i64,
}

/// `None` where nothing of the topic partition was ever taken over.
pub async fn find_partition(
    client: &impl GenericClient,
    key: &PartitionKey,
) -> Result<Option<SourcePartitionId>, CatalogError> {
    let TopicPartition { topic, number } = &key.topic_partition;
    let row = client
        .query_opt(
            include_str!("sql/select_source_partition.sql"),
            &[&key.cluster_id, &key.consumer_group, &topic.as_ref(), number],
        )
        .await
        .map_err(CatalogError::query("look up a topic partition"))?;
    Ok(row.map(|row| SourcePartitionId(row.get(0))))
}

pub async fn replay_scope(
    client: &impl GenericClient,
    id: SourcePartitionId,
    requested: i64,
) -> Result<ReplayScope, CatalogError> {
    let row = client
        .query_one(include_str!("sql/select_replay_scope.sql"), &[&id.0, &requested])
        .await
        .map_err(CatalogError::query("sum what a replay would replace"))?;
    Ok(ReplayScope {
        start_offset: row.get("start_offset"),
        micro_batch_count: row.get("micro_batch_count"),
        skipped_range_count: row.get("skipped_range_count"),
        skipped_offset_count: row.get("skipped_offset_count"),
        object_count: row.get("object_count"),
        object_bytes: row.get("object_bytes"),
        row_in_count: row.get("row_in_count"),
        row_out_count: row.get("row_out_count"),
        file_count: row.get("file_count"),
        file_bytes: row.get("file_bytes"),
    })
}

/// The objects that a replay from `start` on would read again, as they come: there may be millions.
pub async fn replay_objects(
    client: &impl GenericClient,
    id: SourcePartitionId,
    start: i64,
) -> Result<impl Stream<Item = Result<ClaimedObject, CatalogError>>, CatalogError> {
    let failed = || CatalogError::query("list the objects that a replay would read");
    let rows = client.query_raw(include_str!("sql/select_replay_objects.sql"), [id.0, start]).await.map_err(failed())?;
    let object = |row: tokio_postgres::Row| ClaimedObject {
        location: ObjectLocation { bucket: row.get(0), key: row.get(1) },
        version: row.get(2),
        etag: row.get(3),
    };
    Ok(rows.map_ok(object).map_err(failed()))
}

/// Over the newest `micro_batches` of a group that had rows. `None` where fewer than two say anything.
pub async fn commit_speed(
    client: &impl GenericClient,
    group: &str,
    micro_batches: i64,
    pause_max_s: f64,
) -> Result<Option<CommitSpeed>, CatalogError> {
    let row = client
        .query_one(include_str!("sql/select_commit_speed.sql"), &[&group, &micro_batches, &pause_max_s])
        .await
        .map_err(CatalogError::query("measure the speed of the last commits"))?;
    let (row_count, seconds): (i64, f64) = (row.get("row_count"), row.get("seconds"));
    let newest_at: Option<DateTime<Utc>> = row.get("newest_at");
    Ok(newest_at.filter(|_| row_count > 0 && seconds > 0.0).map(|newest_at| CommitSpeed {
        micro_batch_count: row.get("micro_batch_count"),
        row_count,
        seconds,
        newest_at,
    }))
}

/// Up to `count` of them behind `after`, in the order of their ids.
pub async fn loaded_batches(
    client: &impl GenericClient,
    group: &str,
    filter: &ReloadFilter,
    after: Option<MicroBatchId>,
    count: i64,
) -> Result<Vec<LoadedBatch>, CatalogError> {
    let rows = client
        .query(
            include_str!("sql/select_loaded_batches.sql"),
            &[&group, &filter.topic, &filter.topic_partition, &filter.since, &after.map(|id| id.0), &count],
        )
        .await
        .map_err(CatalogError::query("list the micro-batches that are loaded"))?;
    let batch = |row: &tokio_postgres::Row| {
        Some(LoadedBatch {
            id: MicroBatchId(row.get("micro_batch_id")),
            source_partition_id: SourcePartitionId(row.get("source_partition_id")),
            offsets: OffsetRange::new(row.get("first"), row.get("next"))?,
            row_out_count: row.get("row_out_count"),
        })
    };
    Ok(rows.iter().filter_map(batch).collect())
}

/// Lets loaders take micro-batches up again.
pub async fn forget_loaded(client: &impl GenericClient, ids: &[MicroBatchId]) -> Result<(), CatalogError> {
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
    client
        .execute(include_str!("sql/forget_loaded.sql"), &[&ids])
        .await
        .map_err(CatalogError::query("forget that micro-batches are loaded"))?;
    Ok(())
}
