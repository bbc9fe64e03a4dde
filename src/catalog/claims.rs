//! Claims, as they are asked about before an object is read. The commit alone decides (CLAIM-1).

use std::collections::HashSet;

use deadpool_postgres::GenericClient;

use super::CatalogError;
use crate::types::{MicroBatchId, ObjectLocation};

/// Which of these versions of an object are claimed by a live micro-batch of the group, other than `replaced`.
pub async fn claimed(
    client: &impl GenericClient,
    cluster_id: &str,
    consumer_group: &str,
    location: &ObjectLocation,
    versions: &[String],
    replaced: Option<MicroBatchId>,
) -> Result<HashSet<String>, CatalogError> {
    let rows = client
        .query(
            include_str!("sql/select_claimed.sql"),
            &[&cluster_id, &consumer_group, &location.bucket, &location.key, &versions, &replaced.map(|id| id.0)],
        )
        .await
        .map_err(CatalogError::query("look up the claims of an object"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
