//! Claims, as they are asked about before an object is read. The commit alone decides (CLAIM-1).

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::CatalogError;
use crate::types::{MicroBatchId, ObjectLocation};

/// Which of these versions of an object are claimed by a live micro-batch of the group, other than `replaced`?
#[derive(Debug, Clone)]
pub struct ClaimQuestion {
    pub location: ObjectLocation,
    pub versions: Vec<String>,
    pub replaced: Option<MicroBatchId>,
}

/// The claimed versions for each question, in their order.
pub async fn claimed(
    client: &impl GenericClient,
    cluster_id: &str,
    consumer_group: &str,
    questions: &[ClaimQuestion],
) -> Result<Vec<HashSet<String>>, CatalogError> {
    let (mut numbers, mut replaced): (Vec<i32>, Vec<Option<Uuid>>) = (Vec::new(), Vec::new());
    let (mut buckets, mut keys, mut versions): (Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
    for (number, question) in questions.iter().enumerate() {
        for version in &question.versions {
            numbers.push(number as i32);
            buckets.push(&question.location.bucket);
            keys.push(&question.location.key);
            versions.push(version);
            replaced.push(question.replaced.map(|id| id.0));
        }
    }
    let rows = client
        .query(
            include_str!("sql/select_claimed.sql"),
            &[&cluster_id, &consumer_group, &numbers, &buckets, &keys, &versions, &replaced],
        )
        .await
        .map_err(CatalogError::query("look up the claims of objects"))?;
    let mut claimed = vec![HashSet::new(); questions.len()];
    for row in rows {
        claimed[row.get::<_, i32>(0) as usize].insert(row.get(1));
    }
    Ok(claimed)
}
