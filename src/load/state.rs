//! What the warehouse says that it has loaded, for people and for reloads.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;

use super::LoadError;
use crate::catalog::LoadedBatch;
use crate::types::{MicroBatchId, OffsetRange};

/// Loaded over a range of offsets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LoadedSum {
    pub micro_batch_count: i64,
    pub row_count: i64,
}

/// When each micro-batch was loaded.
pub async fn loaded_at(
    client: &impl GenericClient,
) -> Result<HashMap<MicroBatchId, DateTime<Utc>>, tokio_postgres::Error> {
    let rows = client.query(include_str!("sql/select_loaded_at.sql"), &[]).await?;
    Ok(rows.iter().map(|row| (MicroBatchId(row.get(0)), row.get(1))).collect())
}

pub async fn loaded_over(
    client: &impl GenericClient,
    source_partition_id: i64,
    offsets: OffsetRange,
) -> Result<LoadedSum, LoadError> {
    let row = client
        .query_one(include_str!("sql/sum_loaded_over.sql"), &[&source_partition_id, &offsets.first(), &offsets.next()])
        .await
        .map_err(LoadError::query("sum what is loaded"))?;
    Ok(LoadedSum { micro_batch_count: row.get("micro_batch_count"), row_count: row.get("row_count") })
}

/// The next load of each of them compares what is here with what it brings, and mends the difference.
pub async fn mark_stale(client: &impl GenericClient, batches: &[LoadedBatch]) -> Result<(), LoadError> {
    let ids: Vec<uuid::Uuid> = batches.iter().map(|batch| batch.id.0).collect();
    let numbers = |of: fn(&LoadedBatch) -> i64| batches.iter().map(of).collect::<Vec<_>>();
    client
        .execute(
            include_str!("sql/mark_stale.sql"),
            &[
                &ids,
                &numbers(|batch| batch.source_partition_id.0),
                &numbers(|batch| batch.offsets.first()),
                &numbers(|batch| batch.offsets.next()),
            ],
        )
        .await
        .map_err(LoadError::query("mark micro-batches to be loaded again"))?;
    Ok(())
}
