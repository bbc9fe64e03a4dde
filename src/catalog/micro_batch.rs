//! The statements of the one transaction that makes a micro-batch true. Called by `commit` alone.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{CatalogError, PartitionKey, SourcePartitionId};
use crate::telemetry::guarded_sql;
use crate::types::{Fence, MicroBatchId, ObjectClaim, OffsetRange};

/// The row of `catalog.micro_batch`.
#[derive(Debug, Clone)]
pub struct BatchRecord {
    pub id: MicroBatchId,
    pub source_partition_id: SourcePartitionId,
    pub offsets: OffsetRange,
    pub skipped: bool,
    pub fence: Fence,
    pub object_count: i64,
    pub row_in_count: i64,
    pub row_out_count: i64,
    pub oldest_message_at: Option<DateTime<Utc>>,
    /// Whether the warehouse must hear of it.
    pub needs_load: bool,
}

/// One line of the ledgers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRecord {
    pub ledger: &'static str,
    /// Empty for offsets.
    pub connector: String,
    pub outcome: String,
    pub count: i64,
}

/// A file in `_pending/` that the micro-batch brings.
#[derive(Debug, Clone)]
pub struct FileRecord {
    pub file_id: Uuid,
    pub kind: &'static str,
    pub dataset: String,
    pub connector: String,
    pub connector_revision: String,
    pub schema_revision: String,
    pub table_partition: String,
    pub pending_key: String,
    pub published_key: String,
    pub row_count: i64,
    pub size_bytes: i64,
    pub sha256: Vec<u8>,
    pub event_time_min: Option<DateTime<Utc>>,
    pub event_time_max: Option<DateTime<Utc>>,
}

/// A sample of the dead letters; `sample` holds at most 4,096 bytes.
#[derive(Debug, Clone)]
pub struct DeadLetterSample {
    pub connector: String,
    pub reason: &'static str,
    pub detail: String,
    pub message_offset: i64,
    pub record: Option<i32>,
    pub row: Option<i64>,
    pub bucket: Option<String>,
    pub key: Option<String>,
    pub version: Option<String>,
    pub sample: Vec<u8>,
}

/// Locks the topic partition's row and returns its fence and position.
pub async fn lock_source_partition(
    client: &impl GenericClient,
    id: SourcePartitionId,
) -> Result<(Fence, Option<i64>), CatalogError> {
    let row = client
        .query_one(include_str!("sql/lock_source_partition.sql"), &[&id.0])
        .await
        .map_err(CatalogError::query("lock a topic partition"))?;
    Ok((Fence(row.get(0)), row.get(1)))
}

/// Who committed the micro-batch, if it is there: the answer where the outcome of a COMMIT is unknown.
pub async fn committed_by(client: &impl GenericClient, id: MicroBatchId) -> Result<Option<Fence>, CatalogError> {
    let row = client
        .query_opt("SELECT fence FROM catalog.micro_batch WHERE micro_batch_id = $1", &[&id.0])
        .await
        .map_err(CatalogError::query("look up a micro-batch"))?;
    Ok(row.map(|row| Fence(row.get(0))))
}

/// Moves the position from the range's first to its next offset, if the fence is still ours.
/// `last_message`: offset, timestamp (ms), SHA-256 of the last message covered, if there was one.
pub async fn compare_and_swap(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    offsets: OffsetRange,
    last_message: Option<(i64, i64, [u8; 32])>,
) -> Result<bool, CatalogError> {
    let (offset, timestamp_ms, sha256) = match &last_message {
        Some((offset, timestamp_ms, sha256)) => (Some(*offset), Some(*timestamp_ms), Some(sha256.as_slice())),
        None => (None, None, None),
    };
    let sql = include_str!("sql/compare_and_swap.sql");
    let sql = guarded_sql!("fence", sql, "AND fence = $2", "AND $2::uuid IS NOT NULL");
    let sql = guarded_sql!("swap", sql, "AND next_offset IS NOT DISTINCT FROM $3", "AND $3::bigint IS NOT NULL");
    let changed = client
        .execute(sql, &[&id.0, &fence.0, &offsets.first(), &offsets.next(), &offset, &timestamp_ms, &sha256])
        .await
        .map_err(CatalogError::query("move the position of a topic partition"))?;
    Ok(changed == 1)
}

pub async fn insert_micro_batch(client: &impl GenericClient, record: &BatchRecord) -> Result<(), CatalogError> {
    let state = if record.skipped { "skipped" } else { "live" };
    client
        .execute(
            include_str!("sql/insert_micro_batch.sql"),
            &[
                &record.id.0,
                &record.source_partition_id.0,
                &record.offsets.first(),
                &record.offsets.next(),
                &state,
                &record.fence.0,
                &record.object_count,
                &record.row_in_count,
                &record.row_out_count,
                &record.oldest_message_at,
                &record.needs_load,
            ],
        )
        .await
        .map_err(CatalogError::query("insert a micro-batch"))?;
    Ok(())
}

pub async fn insert_outcome_counts(
    client: &impl GenericClient,
    id: MicroBatchId,
    outcomes: &[OutcomeRecord],
) -> Result<(), CatalogError> {
    let ledgers: Vec<&str> = outcomes.iter().map(|outcome| outcome.ledger).collect();
    let connectors: Vec<&str> = outcomes.iter().map(|outcome| outcome.connector.as_str()).collect();
    let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.outcome.as_str()).collect();
    let counts: Vec<i64> = outcomes.iter().map(|outcome| outcome.count).collect();
    client
        .execute(include_str!("sql/insert_outcome_counts.sql"), &[&id.0, &ledgers, &connectors, &names, &counts])
        .await
        .map_err(CatalogError::query("insert the ledgers of a micro-batch"))?;
    Ok(())
}

/// Inserts the claims, sorted, and returns the (offset, record) pairs that went in: the others are
/// claimed by another micro-batch.
pub async fn insert_claims(
    client: &impl GenericClient,
    key: &PartitionKey,
    id: MicroBatchId,
    claims: &[&ObjectClaim],
) -> Result<HashSet<(i64, i32)>, CatalogError> {
    let mut sorted = claims.to_vec();
    sorted.sort_by(|a, b| (&a.version.location, &a.version.version).cmp(&(&b.version.location, &b.version.version)));
    let column = |text: fn(&ObjectClaim) -> &str| sorted.iter().map(|claim| text(claim)).collect::<Vec<_>>();
    let outcome = |claim: &&&ObjectClaim| if claim.quarantined { "quarantined" } else { "emitted" };
    let rows = client
        .query(
            include_str!("sql/insert_claims.sql"),
            &[
                &key.cluster_id,
                &key.consumer_group,
                &id.0,
                &column(|claim| &claim.version.location.bucket),
                &column(|claim| &claim.version.location.key),
                &column(|claim| &claim.version.version),
                &sorted.iter().map(|claim| claim.message_offset).collect::<Vec<_>>(),
                &sorted.iter().map(|claim| claim.record).collect::<Vec<_>>(),
                &column(|claim| &claim.connector),
                &sorted.iter().map(|claim| outcome(&claim)).collect::<Vec<_>>(),
                &column(|claim| &claim.version.etag),
                &sorted.iter().map(|claim| claim.version.last_modified).collect::<Vec<_>>(),
                &sorted.iter().map(|claim| claim.version.size_bytes as i64).collect::<Vec<_>>(),
                &sorted.iter().map(|claim| claim.announced_at).collect::<Vec<_>>(),
                &column(|claim| claim.overwrite.as_str()),
            ],
        )
        .await
        .map_err(CatalogError::query("claim the objects of a micro-batch"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub async fn insert_files(
    client: &impl GenericClient,
    id: MicroBatchId,
    files: &[FileRecord],
) -> Result<(), CatalogError> {
    let column = |text: fn(&FileRecord) -> &str| files.iter().map(text).collect::<Vec<_>>();
    client
        .execute(
            include_str!("sql/insert_files.sql"),
            &[
                &id.0,
                &files.iter().map(|file| file.file_id).collect::<Vec<_>>(),
                &column(|file| file.kind),
                &column(|file| &file.dataset),
                &column(|file| &file.connector),
                &column(|file| &file.connector_revision),
                &column(|file| &file.schema_revision),
                &column(|file| &file.table_partition),
                &column(|file| &file.pending_key),
                &column(|file| &file.published_key),
                &files.iter().map(|file| file.row_count).collect::<Vec<_>>(),
                &files.iter().map(|file| file.size_bytes).collect::<Vec<_>>(),
                &files.iter().map(|file| file.sha256.as_slice()).collect::<Vec<_>>(),
                &files.iter().map(|file| file.event_time_min).collect::<Vec<_>>(),
                &files.iter().map(|file| file.event_time_max).collect::<Vec<_>>(),
            ],
        )
        .await
        .map_err(CatalogError::query("insert the files of a micro-batch"))?;
    Ok(())
}

pub async fn insert_dead_letters(
    client: &impl GenericClient,
    id: MicroBatchId,
    samples: &[DeadLetterSample],
) -> Result<(), CatalogError> {
    let optional = |text: fn(&DeadLetterSample) -> Option<&str>| samples.iter().map(text).collect::<Vec<_>>();
    client
        .execute(
            include_str!("sql/insert_dead_letters.sql"),
            &[
                &id.0,
                &samples.iter().map(|letter| letter.connector.as_str()).collect::<Vec<_>>(),
                &samples.iter().map(|letter| letter.reason).collect::<Vec<_>>(),
                &samples.iter().map(|letter| letter.detail.as_str()).collect::<Vec<_>>(),
                &samples.iter().map(|letter| letter.message_offset).collect::<Vec<_>>(),
                &samples.iter().map(|letter| letter.record).collect::<Vec<_>>(),
                &samples.iter().map(|letter| letter.row).collect::<Vec<_>>(),
                &optional(|letter| letter.bucket.as_deref()),
                &optional(|letter| letter.key.as_deref()),
                &optional(|letter| letter.version.as_deref()),
                &samples.iter().map(|letter| letter.sample.as_slice()).collect::<Vec<_>>(),
            ],
        )
        .await
        .map_err(CatalogError::query("insert the dead letter samples of a micro-batch"))?;
    Ok(())
}

/// The manifest for downstream consumers, sent by `publish` after the commit.
pub async fn insert_outbox(
    client: &impl GenericClient,
    id: MicroBatchId,
    topic: &str,
    message_key: &str,
    payload: &serde_json::Value,
) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/insert_outbox.sql"), &[&id.0, &topic, &message_key, payload])
        .await
        .map_err(CatalogError::query("insert a manifest"))?;
    Ok(())
}
