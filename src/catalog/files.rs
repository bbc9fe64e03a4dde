//! Files on their way from `_pending/` to where readers look.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::CatalogError;

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
    let file = |row: &tokio_postgres::Row| LeasedFile {
        file_id: row.get("file_id"),
        kind: row.get("kind"),
        pending_key: row.get("pending_key"),
        published_key: row.get("published_key"),
        size_bytes: row.get("size_bytes"),
        sha256: row.get("sha256"),
    };
    Ok(rows.iter().map(file).collect())
}

/// `false` where another worker was faster: as good.
pub async fn mark_published(client: &impl GenericClient, file_id: Uuid) -> Result<bool, CatalogError> {
    let changed = client
        .execute(include_str!("sql/mark_published.sql"), &[&file_id])
        .await
        .map_err(CatalogError::query("mark a file published"))?;
    Ok(changed == 1)
}
