//! The files of the lake as committed, for exact readers.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::CatalogError;

/// A file of a live micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeFile {
    pub file_id: Uuid,
    /// Rows of the dataset, not dead letters.
    pub is_data: bool,
    pub dataset: String,
    /// Files of one dataset and one revision have the same columns.
    pub schema_revision: String,
    /// Where it lies right now, and where it will.
    pub key: String,
    pub published_key: String,
    /// Visible ones.
    pub row_count: i64,
    /// As committed.
    pub size_bytes: u64,
    /// Without rows that were masked: then it has another size by now.
    pub is_rewritten: bool,
    pub event_times: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// A record whose rows some file still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedRecord {
    pub micro_batch_id: String,
    pub offset: i64,
    pub record: i32,
}

/// Every file of a group's live micro-batches, and what must be left out of them. Both belong together where the client
/// is in a transaction of repeatable reads.
pub async fn lake_files(
    client: &impl GenericClient,
    group: &str,
) -> Result<(Vec<LakeFile>, Vec<MaskedRecord>), CatalogError> {
    let rows = client.query(include_str!("sql/select_lake_files.sql"), &[&group]).await;
    let rows = rows.map_err(CatalogError::query("look up the lake's files"))?;
    let file = |row: &tokio_postgres::Row| LakeFile {
        file_id: row.get("file_id"),
        is_data: row.get::<_, &str>("kind") == "data",
        dataset: row.get("dataset"),
        schema_revision: row.get("schema_revision"),
        key: row.get("key"),
        published_key: row.get("published_key"),
        row_count: row.get("row_count"),
        size_bytes: row.get::<_, i64>("size_bytes").unsigned_abs(),
        is_rewritten: row.get("is_rewritten"),
        event_times: row.get::<_, Option<_>>("event_time_min").zip(row.get("event_time_max")),
    };
    let files = rows.iter().map(file).collect();
    let rows = client.query(include_str!("sql/select_masked_rows.sql"), &[&group]).await;
    let rows = rows.map_err(CatalogError::query("look up masked rows"))?;
    let masked = |row: &tokio_postgres::Row| MaskedRecord {
        micro_batch_id: row.get(0),
        offset: row.get("_offset"),
        record: row.get("_record"),
    };
    Ok((files, rows.iter().map(masked).collect()))
}
