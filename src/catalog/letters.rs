//! Dead letters as the catalog knows them: samples, and where the files lie that hold them all.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;

use super::{BatchFile, CatalogError, SourcePartitionId};
use crate::types::{LetterId, LetterPlace, MicroBatchId, RejectReason, TopicPartition};

/// Samples that the catalog keeps of each micro-batch, connector and reason.
pub const SAMPLES_MAX: usize = 10;

/// Which dead letters of a group are meant; `None`: all.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    pub connector: Option<String>,
    pub reason: Option<String>,
    /// Committed then or later.
    pub since: Option<DateTime<Utc>>,
}

/// A dead letter without its bytes.
#[derive(Debug, Clone)]
pub struct LetterSummary {
    pub id: LetterId,
    pub topic_partition: TopicPartition,
    /// Empty where the message could not be understood.
    pub connector: String,
    pub reason: String,
    pub detail: String,
    pub bucket: Option<String>,
    pub key: Option<String>,
    pub version: Option<String>,
    pub committed_at: DateTime<Utc>,
    /// Re-drives after which its override did not help; `None`: it has none, or that was not asked.
    pub try_count: Option<i32>,
}

/// Offsets of a micro-batch's samples with this reason.
pub async fn letter_offsets(
    client: &impl GenericClient,
    id: MicroBatchId,
    reason: RejectReason,
) -> Result<HashSet<i64>, CatalogError> {
    let sql = "SELECT message_offset FROM catalog.dead_letter WHERE micro_batch_id = $1 AND reason = $2";
    let rows = client
        .query(sql, &[&id.0, &reason.as_str()])
        .await
        .map_err(CatalogError::query("look for dead letters of a reason"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The newest samples.
pub async fn letters(
    client: &impl GenericClient,
    group: &str,
    filter: &LetterFilter,
    count: i64,
) -> Result<Vec<LetterSummary>, CatalogError> {
    let LetterFilter { connector, reason, since } = filter;
    let rows = client
        .query(include_str!("sql/select_letters.sql"), &[&group, connector, reason, since, &count])
        .await
        .map_err(CatalogError::query("list dead letters"))?;
    let letter = |row: &tokio_postgres::Row| LetterSummary {
        id: LetterId {
            batch: MicroBatchId(row.get("micro_batch_id")),
            place: LetterPlace {
                message_offset: row.get("message_offset"),
                record: row.get("record"),
                row: row.get("row_number"),
            },
        },
        topic_partition: TopicPartition::new(row.get::<_, String>("topic"), row.get("topic_partition")),
        connector: row.get("connector"),
        reason: row.get("reason"),
        detail: row.get("detail"),
        bucket: row.get("bucket"),
        key: row.get("key"),
        version: row.get("version"),
        committed_at: row.get("committed_at"),
        try_count: row.get("try_count"),
    };
    Ok(rows.iter().map(letter).collect())
}

/// How many dead letters there are of a connector and a reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LetterCount {
    pub connector: String,
    pub reason: String,
    pub count: i64,
    /// There may be more: only samples were counted.
    pub is_least: bool,
}

/// Counts samples.
pub async fn letter_counts(
    client: &impl GenericClient,
    group: &str,
    filter: &LetterFilter,
) -> Result<Vec<LetterCount>, CatalogError> {
    let LetterFilter { connector, reason, since } = filter;
    let rows = client
        .query(include_str!("sql/select_letter_counts.sql"), &[&group, connector, reason, since, &(SAMPLES_MAX as i64)])
        .await
        .map_err(CatalogError::query("count dead letters"))?;
    let count = |row: &tokio_postgres::Row| LetterCount {
        connector: row.get("connector"),
        reason: row.get("reason"),
        count: row.get("sample_count"),
        is_least: row.get("is_least"),
    };
    Ok(rows.iter().map(count).collect())
}

/// A file of dead letters, with what its rows do not say.
#[derive(Debug, Clone)]
pub struct LetterFile {
    pub file: BatchFile,
    pub batch: MicroBatchId,
    pub topic_partition: TopicPartition,
    pub committed_at: DateTime<Utc>,
}

/// Files that hold such dead letters (of any reason), newest first.
pub async fn letter_files(
    client: &impl GenericClient,
    group: &str,
    filter: &LetterFilter,
) -> Result<Vec<LetterFile>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_letter_files.sql"), &[&group, &filter.connector, &filter.since])
        .await
        .map_err(CatalogError::query("list files of dead letters"))?;
    let file = |row: &tokio_postgres::Row| LetterFile {
        file: BatchFile::of(row),
        batch: MicroBatchId(row.get("micro_batch_id")),
        topic_partition: TopicPartition::new(row.get::<_, String>("topic"), row.get("topic_partition")),
        committed_at: row.get("committed_at"),
    };
    Ok(rows.iter().map(file).collect())
}

/// Live micro-batches that have such dead letters, and whether each of their samples has an override that was tried
/// `tries_max` times.
pub async fn letter_batches(
    client: &impl GenericClient,
    group: &str,
    filter: &LetterFilter,
    tries_max: i32,
) -> Result<Vec<(MicroBatchId, bool)>, CatalogError> {
    let LetterFilter { connector, reason, since } = filter;
    let rows = client
        .query(include_str!("sql/select_letter_batches.sql"), &[&group, connector, reason, since, &tries_max])
        .await
        .map_err(CatalogError::query("list micro-batches with dead letters"))?;
    Ok(rows.iter().map(|row| (MicroBatchId(row.get("micro_batch_id")), row.get("is_exhausted"))).collect())
}

/// The live micro-batch that a dead letter belongs to.
#[derive(Debug, Clone)]
pub struct LetterOwner {
    pub batch: MicroBatchId,
    pub partition: SourcePartitionId,
    pub topic_partition: TopicPartition,
    pub committed_at: DateTime<Utc>,
}

/// Follows a micro-batch that was replaced to the one that is live now. `None`: the group has none.
pub async fn letter_owner(
    client: &impl GenericClient,
    group: &str,
    batch: MicroBatchId,
) -> Result<Option<LetterOwner>, CatalogError> {
    let row = client
        .query_opt(include_str!("sql/select_letter_owner.sql"), &[&group, &batch.0])
        .await
        .map_err(CatalogError::query("look up the micro-batch of a dead letter"))?;
    Ok(row.map(|row| LetterOwner {
        batch: MicroBatchId(row.get("micro_batch_id")),
        partition: SourcePartitionId(row.get("source_partition_id")),
        topic_partition: TopicPartition::new(row.get::<_, String>("topic"), row.get("topic_partition")),
        committed_at: row.get("committed_at"),
    }))
}
