//! The one transaction.

use std::collections::HashSet;

use deadpool_postgres::Pool;
use thiserror::Error;

use super::{LedgerError, Ledgers, Totals};
use crate::catalog::{
    self, BatchRecord, CatalogError, CoveredRange, DeadLetterSample, ExpectationRecord, FileRecord, PartitionKey,
    SchemaVersion, SourcePartitionId,
};
use crate::client::postgres;
use crate::error::ErrorKind;
use crate::telemetry::guarded;
use crate::types::{Fence, MicroBatchId, ObjectClaim, ObjectLocation, OffsetOutcome, OffsetRange, ParkedObject};

/// A micro-batch ready to become true: its files lie in `_pending/`.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub id: MicroBatchId,
    pub fence: Fence,
    pub offsets: OffsetRange,
    pub ledgers: Ledgers,
    pub totals: Totals,
    pub files: Vec<FileRecord>,
    /// Rows for the warehouse are among them.
    pub needs_load: bool,
    pub claims: Vec<ObjectClaim>,
    pub dead_letters: Vec<DeadLetterSample>,
    /// What expectations came to.
    pub expectations: Vec<ExpectationRecord>,
    /// Objects of parked connectors.
    pub parked: Vec<ParkedObject>,
    /// What data made of the schemas of connectors that have rows here.
    pub schemas: Vec<SchemaVersion>,
    /// Offset, timestamp (ms), SHA-256 of the last message covered.
    pub last_message: Option<(i64, i64, [u8; 32])>,
    pub oldest_message_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Topic of the manifest.
    pub outbox_topic: String,
    /// Micro-batches that it was made to replace: those that are live over its offsets.
    pub replaces: Vec<MicroBatchId>,
    /// Versions of objects, the oldest first, of which the commit has asked ([`CommitOutcome::Unordered`]).
    pub version_orders: Vec<(ObjectLocation, Vec<String>)>,
    /// It runs what is committed again on request, and the position stays where it is.
    pub redrive: Option<Redrive>,
}

/// What a re-drive settles besides its micro-batch.
#[derive(Debug, Clone, Default)]
pub struct Redrive {
    /// The requests that it answers.
    pub requests: Vec<i64>,
    /// Overrides that did not help, each with the reason.
    pub failed_overrides: Vec<(i64, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    Committed,
    /// Another owner has taken the topic partition over: drop the micro-batch.
    Fenced,
    /// These (offset, record) pairs are claimed by another micro-batch: nothing was written; rebuild.
    Claimed(HashSet<(i64, i32)>),
    /// Several versions of these objects are claimed, and which is newer only the store knows: nothing was written;
    /// ask it and propose again.
    Unordered(Vec<ObjectLocation>),
}

#[derive(Debug, Error)]
pub enum CommitError {
    #[error("the books of micro-batch {id} do not balance, nothing was committed")]
    Unbalanced { id: MicroBatchId, source: LedgerError },
    #[error(
        "micro-batch {id} over {offsets} was made to replace {expected:?}, but {found:?} is live there, nothing was committed"
    )]
    Replaces { id: MicroBatchId, offsets: OffsetRange, expected: Vec<MicroBatchId>, found: Vec<CoveredRange> },
    #[error("could not commit micro-batch {id}")]
    Catalog { id: MicroBatchId, source: CatalogError },
}

impl CommitError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unbalanced { .. } | Self::Replaces { .. } => ErrorKind::Halt,
            Self::Catalog { source, .. } => source.kind(),
        }
    }
}

/// Makes a micro-batch true. Safe to call again with the same proposal after any error.
pub async fn commit(
    pool: &Pool,
    key: &PartitionKey,
    partition: SourcePartitionId,
    proposal: &Proposal,
) -> Result<CommitOutcome, CommitError> {
    let id = proposal.id;
    let balance = proposal.ledgers.assert_balance(proposal.offsets, proposal.totals);
    if guarded!("books") {
        balance.map_err(|source| CommitError::Unbalanced { id, source })?;
    }
    let catalog = |source| CommitError::Catalog { id, source };
    let mut client = postgres::get(pool).await.map_err(|source| catalog(CatalogError::Connect(source)))?;
    let transaction =
        client.transaction().await.map_err(CatalogError::query("begin the commit transaction")).map_err(catalog)?;
    let (owner, _) = catalog::lock_source_partition(&transaction, partition).await.map_err(catalog)?;
    if let Some(by) = catalog::committed_by(&transaction, id).await.map_err(catalog)? {
        // chunks of a large object keep the id of their micro-batch when another owner goes on with them
        return Ok(if by == proposal.fence { CommitOutcome::Committed } else { CommitOutcome::Fenced });
    }
    let swapped = if proposal.redrive.is_some() {
        owner == proposal.fence
    } else {
        let Proposal { fence, offsets, last_message, .. } = *proposal;
        catalog::compare_and_swap(&transaction, partition, fence, offsets, last_message).await.map_err(catalog)?
    };
    if !swapped {
        return Ok(CommitOutcome::Fenced);
    }
    crate::telemetry::fail_point!("commit.swapped", catalog);
    let touched =
        catalog::lock_object_keys(&transaction, &proposal.claims, &proposal.replaces).await.map_err(catalog)?;
    let dead = catalog::supersede(&transaction, partition, proposal.offsets, id).await.map_err(catalog)?;
    assert_replaces(proposal, &dead)?;
    for rest in
        dead.iter().filter(|(range, _)| range.skipped).flat_map(|(range, _)| range.offsets.minus(proposal.offsets))
    {
        insert_skipped(&transaction, partition, proposal.fence, rest).await.map_err(catalog)?;
    }
    let needs_load = proposal.needs_load || dead.iter().any(|(_, needs_load)| *needs_load);
    if let Some(claimed) = write(&transaction, key, partition, proposal, needs_load).await.map_err(catalog)? {
        return Ok(CommitOutcome::Claimed(claimed));
    }
    if !proposal.claims.is_empty() || !dead.is_empty() {
        for (location, versions) in &proposal.version_orders {
            catalog::order_versions(&transaction, key, location, versions).await.map_err(catalog)?;
        }
        let unordered = catalog::unordered_keys(&transaction, key, &touched).await.map_err(catalog)?;
        if !unordered.is_empty() {
            return Ok(CommitOutcome::Unordered(unordered));
        }
        catalog::set_masks(&transaction, key, touched).await.map_err(catalog)?;
    }
    if let Some(redrive) = &proposal.redrive {
        catalog::count_tries(&transaction, &redrive.failed_overrides).await.map_err(catalog)?;
        let end = catalog::RedriveEnd::Done(id);
        catalog::finish_redrives(&transaction, &redrive.requests, &end).await.map_err(catalog)?;
    } else if !dead.is_empty() {
        catalog::finish_replay(&transaction, partition, proposal.offsets.next()).await.map_err(catalog)?;
    }
    crate::telemetry::fail_point!("commit.before_commit", catalog);
    transaction.commit().await.map_err(CatalogError::query("commit the micro-batch")).map_err(catalog)?;
    crate::telemetry::fail_point!("commit.committed", catalog);
    Ok(CommitOutcome::Committed)
}

/// A micro-batch covers whole the ones it was made to replace, and no others (REPLAY-1).
fn assert_replaces(proposal: &Proposal, dead: &[(CoveredRange, bool)]) -> Result<(), CommitError> {
    let live: Vec<&CoveredRange> = dead.iter().map(|(range, _)| range).filter(|range| !range.skipped).collect();
    let is_whole = live.iter().all(|range| range.offsets.minus(proposal.offsets).is_empty());
    let expected: HashSet<MicroBatchId> = proposal.replaces.iter().copied().collect();
    if !guarded!("whole") || is_whole && expected == live.iter().map(|range| range.id).collect() {
        return Ok(());
    }
    Err(CommitError::Replaces {
        id: proposal.id,
        offsets: proposal.offsets,
        expected: proposal.replaces.clone(),
        found: live.into_iter().cloned().collect(),
    })
}

/// Writes everything the micro-batch consists of. `Some`: the claims that another micro-batch holds.
async fn write(
    transaction: &deadpool_postgres::Transaction<'_>,
    key: &PartitionKey,
    partition: SourcePartitionId,
    proposal: &Proposal,
    needs_load: bool,
) -> Result<Option<HashSet<(i64, i32)>>, CatalogError> {
    let id = proposal.id;
    catalog::insert_micro_batch(transaction, &record(partition, proposal, needs_load)).await?;
    if !proposal.claims.is_empty() {
        let claims: Vec<&ObjectClaim> = proposal.claims.iter().collect();
        let inserted = catalog::insert_claims(transaction, key, id, &claims).await?;
        let wanted: HashSet<(i64, i32)> =
            proposal.claims.iter().map(|claim| (claim.message_offset, claim.record)).collect();
        if guarded!("claim") && inserted.len() < wanted.len() {
            return Ok(Some(wanted.difference(&inserted).copied().collect()));
        }
    }
    catalog::insert_outcome_counts(transaction, id, &proposal.ledgers.records()).await?;
    if !proposal.files.is_empty() {
        catalog::insert_files(transaction, id, &proposal.files).await?;
        let message_key = format!("{}", key.topic_partition);
        for manifest in manifests(key, proposal) {
            catalog::insert_outbox(transaction, id, &proposal.outbox_topic, &message_key, &manifest).await?;
        }
    }
    if !proposal.schemas.is_empty() {
        catalog::insert_schema_versions(transaction, id, &proposal.schemas).await?;
    }
    if !proposal.dead_letters.is_empty() {
        catalog::insert_dead_letters(transaction, id, &proposal.dead_letters).await?;
    }
    if !proposal.expectations.is_empty() {
        catalog::insert_expectation_results(transaction, id, &proposal.expectations).await?;
    }
    if !proposal.parked.is_empty() {
        catalog::insert_parked_objects(transaction, key, id, &proposal.parked).await?;
    }
    Ok(None)
}

fn record(partition: SourcePartitionId, proposal: &Proposal, needs_load: bool) -> BatchRecord {
    BatchRecord {
        id: proposal.id,
        source_partition_id: partition,
        offsets: proposal.offsets,
        skipped: false,
        fence: proposal.fence,
        object_count: proposal.totals.objects as i64,
        row_in_count: proposal.totals.rows_in as i64,
        row_out_count: proposal.totals.rows_out as i64,
        oldest_message_at: proposal.oldest_message_at,
        needs_load,
    }
}

/// Files named by one manifest: half a kilobyte each, where a broker takes one megabyte by default.
/// Source: Apache Kafka documentation, `message.max.bytes`, read 2026-11.
const MANIFEST_FILES_MAX: usize = 1_000;

/// What downstream consumers are told, once or more, in the order of commits of a topic partition: one manifest, or
/// several parts where there are many files.
fn manifests(key: &PartitionKey, proposal: &Proposal) -> Vec<serde_json::Value> {
    let parts = proposal.files.chunks(MANIFEST_FILES_MAX);
    let count = parts.len();
    parts.enumerate().map(|(index, files)| manifest(key, proposal, files, index + 1, count)).collect()
}

fn manifest(
    key: &PartitionKey,
    proposal: &Proposal,
    files: &[FileRecord],
    part: usize,
    part_count: usize,
) -> serde_json::Value {
    let files: Vec<serde_json::Value> = files
        .iter()
        .map(|file| {
            serde_json::json!({
                "kind": file.kind,
                "dataset": file.dataset,
                "key": file.published_key,
                "rows": file.row_count,
                "bytes": file.size_bytes,
                "connector": file.connector,
                "connector_revision": file.connector_revision,
                "schema_revision": file.schema_revision,
            })
        })
        .collect();
    serde_json::json!({
        "version": 1,
        "micro_batch_id": proposal.id.0,
        "cluster_id": key.cluster_id,
        "consumer_group": key.consumer_group,
        "topic": key.topic_partition.topic.as_ref(),
        "topic_partition": key.topic_partition.number,
        "first_offset": proposal.offsets.first(),
        "next_offset": proposal.offsets.next(),
        "replaces": proposal.replaces.iter().map(|id| id.0).collect::<Vec<_>>(),
        "part": part,
        "part_count": part_count,
        "files": files,
    })
}

/// Records that an operator moved the group past a range, which begins where everything committed ends. Cancels a
/// replay under way: `position` may lie before the range.
pub async fn commit_skipped(
    pool: &Pool,
    partition: SourcePartitionId,
    fence: Fence,
    position: Option<i64>,
    range: OffsetRange,
) -> Result<CommitOutcome, CommitError> {
    let catalog = |source| CommitError::Catalog { id: MicroBatchId(uuid::Uuid::nil()), source };
    let mut client = postgres::get(pool).await.map_err(|source| catalog(CatalogError::Connect(source)))?;
    let transaction =
        client.transaction().await.map_err(CatalogError::query("begin the commit transaction")).map_err(catalog)?;
    let (owner, next_offset) = catalog::lock_source_partition(&transaction, partition).await.map_err(catalog)?;
    if owner != fence || next_offset != position {
        return Ok(CommitOutcome::Fenced);
    }
    match position {
        None => {
            catalog::set_first_position(&transaction, partition, fence, range.first()).await.map_err(catalog)?;
        }
        Some(position) if position < range.first() => {
            catalog::cancel_replay(&transaction, partition, fence, range.first()).await.map_err(catalog)?;
        }
        Some(_) => {}
    }
    if !catalog::compare_and_swap(&transaction, partition, fence, range, None).await.map_err(catalog)? {
        return Ok(CommitOutcome::Fenced);
    }
    insert_skipped(&transaction, partition, fence, range).await.map_err(catalog)?;
    transaction.commit().await.map_err(CatalogError::query("commit the skipped range")).map_err(catalog)?;
    Ok(CommitOutcome::Committed)
}

async fn insert_skipped(
    transaction: &deadpool_postgres::Transaction<'_>,
    partition: SourcePartitionId,
    fence: Fence,
    range: OffsetRange,
) -> Result<(), CatalogError> {
    let id = MicroBatchId::generate();
    let mut ledgers = Ledgers::default();
    ledgers.offset(OffsetOutcome::Skipped, range.count());
    let batch = BatchRecord {
        id,
        source_partition_id: partition,
        offsets: range,
        skipped: true,
        fence,
        object_count: 0,
        row_in_count: 0,
        row_out_count: 0,
        oldest_message_at: None,
        needs_load: false,
    };
    catalog::insert_micro_batch(transaction, &batch).await?;
    catalog::insert_outcome_counts(transaction, id, &ledgers.records()).await
}

/// In a replay: leaves what is committed over `offsets` as it is, and moves on.
pub async fn commit_passed_over(
    pool: &Pool,
    partition: SourcePartitionId,
    fence: Fence,
    offsets: OffsetRange,
) -> Result<CommitOutcome, CommitError> {
    let catalog = |source| CommitError::Catalog { id: MicroBatchId(uuid::Uuid::nil()), source };
    let mut client = postgres::get(pool).await.map_err(|source| catalog(CatalogError::Connect(source)))?;
    let transaction = client.transaction().await.map_err(CatalogError::query("begin passing over")).map_err(catalog)?;
    let (owner, next_offset) = catalog::lock_source_partition(&transaction, partition).await.map_err(catalog)?;
    if owner == fence && next_offset == Some(offsets.next()) {
        // the outcome of the first attempt was unknown: it went in
        return Ok(CommitOutcome::Committed);
    }
    if !catalog::pass_over(&transaction, partition, fence, offsets).await.map_err(catalog)? {
        return Ok(CommitOutcome::Fenced);
    }
    catalog::finish_replay(&transaction, partition, offsets.next()).await.map_err(catalog)?;
    transaction.commit().await.map_err(CatalogError::query("commit passing over")).map_err(catalog)?;
    Ok(CommitOutcome::Committed)
}
