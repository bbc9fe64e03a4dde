//! Claims, as they are asked about before an object is read. The commit alone decides (CLAIM-1).

use std::collections::HashSet;

use deadpool_postgres::GenericClient;

use super::CatalogError;
use crate::types::ObjectLocation;

/// Which of these versions of an object are claimed by a live micro-batch of the group.
pub async fn claimed(
    client: &impl GenericClient,
    cluster_id: &str,
    consumer_group: &str,
    location: &ObjectLocation,
    versions: &[String],
) -> Result<HashSet<String>, CatalogError> {
    let rows = client
        .query(
            include_str!("sql/select_claimed.sql"),
            &[&cluster_id, &consumer_group, &location.bucket, &location.key, &versions],
        )
        .await
        .map_err(CatalogError::query("look up the claims of an object"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
