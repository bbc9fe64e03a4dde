//! Corrected bytes of dead letters, and requests to run micro-batches again.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{CatalogError, SourcePartitionId};
use crate::types::{LetterPlace, MicroBatchId, OffsetRange};

/// Re-drives after which an override that did not help is refused.
pub const TRIES_MAX: i32 = 3;

/// Bytes that take the place of what was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub id: i64,
    pub place: LetterPlace,
    pub bytes: Vec<u8>,
}

/// Who corrected a dead letter, and how often it did not help.
#[derive(Debug, Clone)]
pub struct Correction {
    pub bytes: Vec<u8>,
    pub edited_at: DateTime<Utc>,
    pub edited_by: String,
    pub try_count: i32,
    /// Why it was a dead letter again.
    pub fault: Option<String>,
}

impl Correction {
    pub fn is_exhausted(&self) -> bool {
        self.try_count >= TRIES_MAX
    }
}

/// The overrides within a micro-batch's offsets.
pub async fn overrides_of(client: &impl GenericClient, id: MicroBatchId) -> Result<Vec<Override>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_overrides.sql"), &[&id.0])
        .await
        .map_err(CatalogError::query("list the corrected dead letters of a micro-batch"))?;
    let found = |row: &tokio_postgres::Row| Override {
        id: row.get("override_id"),
        place: LetterPlace {
            message_offset: row.get("message_offset"),
            record: row.get("record"),
            row: row.get("row_number"),
        },
        bytes: row.get("bytes"),
    };
    Ok(rows.iter().map(found).collect())
}

/// How a dead letter was corrected, if it was.
pub async fn correction(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    place: LetterPlace,
) -> Result<Option<Correction>, CatalogError> {
    let row = client
        .query_opt(
            include_str!("sql/select_override.sql"),
            &[&partition.0, &place.message_offset, &place.record, &place.row],
        )
        .await
        .map_err(CatalogError::query("look up how a dead letter was corrected"))?;
    Ok(row.map(|row| Correction {
        bytes: row.get("bytes"),
        edited_at: row.get("edited_at"),
        edited_by: row.get("edited_by"),
        try_count: row.get("try_count"),
        fault: row.get("fault"),
    }))
}

/// Stores corrected bytes in the place of those stored before.
pub async fn set_override(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    place: LetterPlace,
    bytes: &[u8],
    by: &str,
) -> Result<(), CatalogError> {
    client
        .execute(
            include_str!("sql/upsert_override.sql"),
            &[&partition.0, &place.message_offset, &place.record, &place.row, &bytes, &by],
        )
        .await
        .map_err(CatalogError::query("store a corrected dead letter"))?;
    Ok(())
}

/// Counts a try of each override that did not help, with the reason.
pub async fn count_tries(client: &impl GenericClient, failed: &[(i64, String)]) -> Result<(), CatalogError> {
    let (ids, faults): (Vec<i64>, Vec<&str>) = failed.iter().map(|(id, fault)| (*id, fault.as_str())).unzip();
    client
        .execute(include_str!("sql/count_tries.sql"), &[&ids, &faults])
        .await
        .map_err(CatalogError::query("count the tries of corrected dead letters"))?;
    Ok(())
}

/// Asks for micro-batches to be run again; those that are waited for already are left out. Returns how many are new.
pub async fn request_redrives(
    client: &impl GenericClient,
    request: Uuid,
    batches: &[MicroBatchId],
    by: &str,
) -> Result<u64, CatalogError> {
    let ids: Vec<Uuid> = batches.iter().map(|id| id.0).collect();
    client
        .execute(include_str!("sql/insert_redrives.sql"), &[&request, &ids, &by])
        .await
        .map_err(CatalogError::query("ask for re-drives"))
}

/// A request that is not finished.
#[derive(Debug, Clone)]
pub struct OpenRedrive {
    pub id: i64,
    /// How often an owner has begun with it.
    pub start_count: i32,
    /// What is live now in the place of the micro-batch that was asked for.
    pub live: Option<(MicroBatchId, OffsetRange)>,
}

/// In the order in which they were asked for.
pub async fn open_redrives(
    client: &impl GenericClient,
    partition: SourcePartitionId,
) -> Result<Vec<OpenRedrive>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_open_redrives.sql"), &[&partition.0])
        .await
        .map_err(CatalogError::query("look for re-drives"))?;
    let open = |row: &tokio_postgres::Row| {
        let batch: Option<Uuid> = row.get("micro_batch_id");
        let first: Option<i64> = row.get("first");
        let offsets = first.zip(row.get("next")).and_then(|(first, next)| OffsetRange::new(first, next));
        OpenRedrive {
            id: row.get("redrive_id"),
            start_count: row.get("start_count"),
            live: batch.map(MicroBatchId).zip(offsets),
        }
    };
    Ok(rows.iter().map(open).collect())
}

pub async fn start_redrives(client: &impl GenericClient, ids: &[i64]) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/start_redrives.sql"), &[&ids])
        .await
        .map_err(CatalogError::query("begin a re-drive"))?;
    Ok(())
}

/// The owner could not go on, for reasons of its own: that says nothing about the request.
pub async fn withdraw_redrives(client: &impl GenericClient, ids: &[i64]) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/withdraw_redrives.sql"), &[&ids])
        .await
        .map_err(CatalogError::query("take the begin of a re-drive back"))?;
    Ok(())
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveEnd {
    Done(MicroBatchId),
    /// No live micro-batch is left in its place.
    Gone,
    /// Raw data is gone and the old rows do not fit: it stays as it is.
    Refused(String),
    Failed(String),
}

impl RedriveEnd {
    /// The spelling of the catalog and of the metrics' `outcome` label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Gone => "gone",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }
}

pub async fn finish_redrives(client: &impl GenericClient, ids: &[i64], end: &RedriveEnd) -> Result<(), CatalogError> {
    let (detail, by) = match end {
        RedriveEnd::Done(id) => (None, Some(id.0)),
        RedriveEnd::Gone => (None, None),
        RedriveEnd::Refused(detail) | RedriveEnd::Failed(detail) => (Some(detail.as_str()), None),
    };
    client
        .execute(include_str!("sql/finish_redrives.sql"), &[&ids, &end.as_str(), &detail, &by])
        .await
        .map_err(CatalogError::query("finish a re-drive"))?;
    Ok(())
}

/// What became of the newest request for a micro-batch.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RedriveStatus {
    pub micro_batch_id: Uuid,
    /// `waiting`, `running` or `finished`.
    pub state: String,
    pub outcome: Option<String>,
    pub detail: Option<String>,
}

pub async fn redrives(
    client: &impl GenericClient,
    batches: &[MicroBatchId],
) -> Result<Vec<RedriveStatus>, CatalogError> {
    let ids: Vec<Uuid> = batches.iter().map(|id| id.0).collect();
    let rows = client
        .query(include_str!("sql/select_redrives.sql"), &[&ids])
        .await
        .map_err(CatalogError::query("look at re-drives"))?;
    let status = |row: &tokio_postgres::Row| RedriveStatus {
        micro_batch_id: row.get("micro_batch_id"),
        state: row.get("state"),
        outcome: row.get("outcome"),
        detail: row.get("detail"),
    };
    Ok(rows.iter().map(status).collect())
}
