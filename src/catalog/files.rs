//! Files on their way from `_pending/` to where readers look.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::CatalogError;
use crate::telemetry::guarded_sql;

/// A pending file that this worker may publish until its lease runs out.
#[derive(Debug, Clone)]
pub struct LeasedFile {
    pub file_id: Uuid,
    /// `data` or `dead_letter`.
    pub kind: String,
    pub pending_key: String,
    pub published_key: String,
    pub size_bytes: i64,
    pub sha256: Vec<u8>,
}

/// Up to `count` pending files of live micro-batches that nobody else is publishing.
pub async fn lease_pending_files(
    client: &impl GenericClient,
    count: i64,
    lease_seconds: f64,
) -> Result<Vec<LeasedFile>, CatalogError> {
    let rows = client
        .query(include_str!("sql/lease_pending_files.sql"), &[&count, &lease_seconds])
        .await
        .map_err(CatalogError::query("lease pending files"))?;
    Ok(rows.iter().map(leased_file).collect())
}

/// Up to `count` files of dead micro-batches whose successors are published, that nobody else is hiding.
pub async fn lease_hideable_files(
    client: &impl GenericClient,
    count: i64,
    lease_seconds: f64,
) -> Result<Vec<LeasedFile>, CatalogError> {
    let sql = include_str!("sql/lease_hideable_files.sql");
    let sql = guarded_sql!("publish_before_hide", sql, "AND lf.state = 'pending'", "AND false");
    let rows =
        client.query(sql, &[&count, &lease_seconds]).await.map_err(CatalogError::query("lease files to hide"))?;
    Ok(rows.iter().map(leased_file).collect())
}

fn leased_file(row: &tokio_postgres::Row) -> LeasedFile {
    LeasedFile {
        file_id: row.get("file_id"),
        kind: row.get("kind"),
        pending_key: row.get("pending_key"),
        published_key: row.get("published_key"),
        size_bytes: row.get("size_bytes"),
        sha256: row.get("sha256"),
    }
}

pub async fn mark_hidden(client: &impl GenericClient, file_ids: &[Uuid]) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/mark_hidden.sql"), &[&file_ids])
        .await
        .map_err(CatalogError::query("mark files hidden"))?;
    Ok(())
}

/// Those that are published now. Of the others the micro-batch was replaced, or the file rewritten, meanwhile: their
/// copies must go again.
pub async fn mark_published(client: &impl GenericClient, files: &[LeasedFile]) -> Result<HashSet<Uuid>, CatalogError> {
    let ids: Vec<Uuid> = files.iter().map(|file| file.file_id).collect();
    let keys: Vec<&str> = files.iter().map(|file| file.published_key.as_str()).collect();
    let rows = client
        .query(include_str!("sql/mark_published.sql"), &[&ids, &keys])
        .await
        .map_err(CatalogError::query("mark files published"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Those of the keys under which the catalog publishes nothing.
pub async fn unpublished_keys(client: &impl GenericClient, keys: &[String]) -> Result<Vec<String>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_unpublished_keys.sql"), &[&keys])
        .await
        .map_err(CatalogError::query("compare a listing with what is published"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
