//! What people and gauges ask of the catalog.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use serde::Serialize;

use super::CatalogError;

/// Work that is committed and not yet everywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Files of live micro-batches that listing readers do not see yet.
    pub files_pending: i64,
    /// Files of dead micro-batches that they may still see.
    pub files_to_hide: i64,
    /// Files of live micro-batches whose masks have changed.
    pub files_to_rewrite: i64,
    pub outbox_pending: i64,
    pub batches_unloaded: i64,
    /// Topic partitions in the middle of a replay.
    pub replays_running: i64,
    /// Re-drives asked for and not finished.
    pub redrives_open: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    pub topic: String,
    pub topic_partition: i32,
    pub cluster_id: String,
    pub next_offset: Option<i64>,
    pub halted_reason: Option<String>,
    pub batch_count: i64,
    pub last_commit: Option<DateTime<Utc>>,
}

/// Sum of one outcome over a group's micro-batches.
#[derive(Debug, Clone, Serialize)]
pub struct OutcomeSum {
    pub ledger: String,
    pub connector: String,
    pub outcome: String,
    pub count: i64,
}

/// Rows that a connector has staged.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    pub connector: String,
    pub row_count: i64,
    /// Since the first of them.
    pub seconds: f64,
}

/// Of so many seconds back, by connector.
pub async fn arrivals(client: &impl GenericClient, seconds: f64) -> Result<Vec<Arrival>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_arrivals.sql"), &[&seconds])
        .await
        .map_err(CatalogError::query("count the rows that come"))?;
    let arrival = |row: &tokio_postgres::Row| Arrival {
        connector: row.get("connector"),
        row_count: row.get("row_count"),
        seconds: row.get("seconds"),
    };
    Ok(rows.iter().map(arrival).collect())
}

pub async fn backlog(client: &impl GenericClient) -> Result<Backlog, CatalogError> {
    let row = client
        .query_one(include_str!("sql/select_backlog.sql"), &[])
        .await
        .map_err(CatalogError::query("read the backlog"))?;
    Ok(Backlog {
        files_pending: row.get("files_pending"),
        files_to_hide: row.get("files_to_hide"),
        files_to_rewrite: row.get("files_to_rewrite"),
        outbox_pending: row.get("outbox_pending"),
        batches_unloaded: row.get("batches_unloaded"),
        replays_running: row.get("replays_running"),
        redrives_open: row.get("redrives_open"),
    })
}

pub async fn partitions(client: &impl GenericClient, group: &str) -> Result<Vec<PartitionStatus>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_partitions.sql"), &[&group])
        .await
        .map_err(CatalogError::query("list the topic partitions"))?;
    let status = |row: &tokio_postgres::Row| PartitionStatus {
        topic: row.get("topic"),
        topic_partition: row.get("topic_partition"),
        cluster_id: row.get("cluster_id"),
        next_offset: row.get("next_offset"),
        halted_reason: row.get("halted_reason"),
        batch_count: row.get("batch_count"),
        last_commit: row.get("last_commit"),
    };
    Ok(rows.iter().map(status).collect())
}

pub async fn outcome_sums(client: &impl GenericClient, group: &str) -> Result<Vec<OutcomeSum>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_outcomes.sql"), &[&group])
        .await
        .map_err(CatalogError::query("sum the ledgers"))?;
    let sum = |row: &tokio_postgres::Row| OutcomeSum {
        ledger: row.get(0),
        connector: row.get(1),
        outcome: row.get(2),
        count: row.get(3),
    };
    Ok(rows.iter().map(sum).collect())
}

/// Micro-batches whose ledgers do not add up (BOOK-1), of the last `seconds`, or of all time.
pub async fn unbalanced_count(client: &impl GenericClient, seconds: Option<f64>) -> Result<i64, CatalogError> {
    let row = client
        .query_one(include_str!("sql/select_unbalanced.sql"), &[&seconds])
        .await
        .map_err(CatalogError::query("check that the books balance"))?;
    Ok(row.get(0))
}
