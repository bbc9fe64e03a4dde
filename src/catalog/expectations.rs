//! What expectations came to. Written by the commit, read by what is measured by it and by people.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use serde::Serialize;

use super::{CatalogError, SourcePartitionId};
use crate::types::MicroBatchId;

/// One expectation in one micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectationRecord {
    pub connector: String,
    pub stage: &'static str,
    pub name: String,
    pub rows_checked: i64,
    pub rows_failed: i64,
    pub value: Option<f64>,
    pub outcome: &'static str,
}

/// Failures of one expectation in the live micro-batches that were committed lately.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpectationFailures {
    pub connector: String,
    pub stage: String,
    pub name: String,
    pub outcome: String,
    pub batch_count: i64,
    pub rows_failed: i64,
    pub last_at: DateTime<Utc>,
    /// Of the last of them, where something is measured.
    pub last_value: Option<f64>,
}

pub async fn insert_expectation_results(
    client: &impl GenericClient,
    id: MicroBatchId,
    results: &[ExpectationRecord],
) -> Result<(), CatalogError> {
    let column = |text: fn(&ExpectationRecord) -> &str| results.iter().map(text).collect::<Vec<_>>();
    client
        .execute(
            include_str!("sql/insert_expectation_results.sql"),
            &[
                &id.0,
                &column(|result| &result.connector),
                &column(|result| result.stage),
                &column(|result| &result.name),
                &results.iter().map(|result| result.rows_checked).collect::<Vec<_>>(),
                &results.iter().map(|result| result.rows_failed).collect::<Vec<_>>(),
                &results.iter().map(|result| result.value).collect::<Vec<_>>(),
                &column(|result| result.outcome),
            ],
        )
        .await
        .map_err(CatalogError::query("insert what the expectations of a micro-batch came to"))?;
    Ok(())
}

/// Rows that an expectation was asked of in its last micro-batches that end at or before an offset, the newest first.
pub async fn expectation_history(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    before: i64,
    connector: &str,
    expectation: &str,
    last: u32,
) -> Result<Vec<i64>, CatalogError> {
    let sql = include_str!("sql/select_expectation_history.sql");
    let rows = client
        .query(sql, &[&partition.0, &before, &connector, &expectation, &i64::from(last)])
        .await
        .map_err(CatalogError::query("read what an expectation came to"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Of a group, in the last `seconds`.
pub async fn expectation_failures(
    client: &impl GenericClient,
    group: &str,
    seconds: f64,
) -> Result<Vec<ExpectationFailures>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_expectation_failures.sql"), &[&group, &seconds])
        .await
        .map_err(CatalogError::query("list the expectations that failed"))?;
    let failures = |row: &tokio_postgres::Row| ExpectationFailures {
        connector: row.get("connector"),
        stage: row.get("stage"),
        name: row.get("name"),
        outcome: row.get("outcome"),
        batch_count: row.get("batch_count"),
        rows_failed: row.get("rows_failed"),
        last_at: row.get("last_at"),
        last_value: row.get("last_value"),
    };
    Ok(rows.iter().map(failures).collect())
}
