//! Files that a window of event time is rebuilt from.

use deadpool_postgres::GenericClient;

use super::{BatchFile, CatalogError, SourcePartitionId};
use crate::telemetry::guarded_sql;

/// Files of a connector's rows in live micro-batches of the topic partition below offset `before`, but for those that end
/// more than `window_ms` before the greatest event time of all.
pub async fn window_files(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    connector: &str,
    before: i64,
    window_ms: i64,
) -> Result<Vec<BatchFile>, CatalogError> {
    let sql = include_str!("sql/select_window_files.sql");
    let sql = guarded_sql!("rebuild_windows", sql, "f.kind = 'data'", "false");
    let rows = client
        .query(sql, &[&partition.0, &connector, &before, &(window_ms as f64)])
        .await
        .map_err(CatalogError::query("list the files of a window"))?;
    Ok(rows.iter().map(BatchFile::of).collect())
}
