//! Fences and positions of topic partitions.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::CatalogError;
use crate::types::{Fence, TopicPartition};

/// Names a topic partition for ever: cluster, group, topic, number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionKey {
    pub cluster_id: String,
    pub consumer_group: String,
    pub topic_partition: TopicPartition,
}

/// `catalog.source_partition.source_partition_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourcePartitionId(pub i64);

/// What the catalog knows of a topic partition.
#[derive(Debug, Clone)]
pub struct Position {
    pub next_offset: Option<i64>,
    /// End of the last live or skipped range.
    pub end: Option<i64>,
    /// Offset, timestamp (ms since 1970) and SHA-256 of the last message that a commit covered.
    pub last_message: Option<(i64, i64, Vec<u8>)>,
    /// Whether the fence asked about stands in this topic partition's history.
    pub fence_known: bool,
    pub other_cluster: bool,
    pub catalog_id: Uuid,
}

/// Shuts out every older owner (FENCE-1). `process` names the new one for people.
pub async fn install_fence(
    client: &impl GenericClient,
    key: &PartitionKey,
    fence: Fence,
    process: &str,
) -> Result<SourcePartitionId, CatalogError> {
    let TopicPartition { topic, number } = &key.topic_partition;
    let row = client
        .query_one(
            include_str!("sql/install_fence.sql"),
            &[&key.cluster_id, &key.consumer_group, &topic.as_ref(), number, &fence.0, &process],
        )
        .await
        .map_err(CatalogError::query("install a fence"))?;
    Ok(SourcePartitionId(row.get(0)))
}

/// Reads after the fence is installed; `tag_fence` is the fence that the committed offset's tag names.
pub async fn read_position(
    client: &impl GenericClient,
    id: SourcePartitionId,
    tag_fence: Option<Uuid>,
) -> Result<Position, CatalogError> {
    let row = client
        .query_one(include_str!("sql/read_position.sql"), &[&id.0, &tag_fence])
        .await
        .map_err(CatalogError::query("read the position of a topic partition"))?;
    let last_offset: Option<i64> = row.get("last_message_offset");
    Ok(Position {
        next_offset: row.get("next_offset"),
        end: row.get("end_offset"),
        last_message: last_offset
            .map(|offset| (offset, row.get("last_message_timestamp_ms"), row.get("last_message_sha256"))),
        fence_known: row.get("fence_known"),
        other_cluster: row.get("other_cluster"),
        catalog_id: row.get("catalog_id"),
    })
}

/// Sets the first position of a topic partition. `false`: fenced, or it has one already.
pub async fn set_first_position(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    offset: i64,
) -> Result<bool, CatalogError> {
    let changed = client
        .execute(include_str!("sql/set_first_position.sql"), &[&id.0, &fence.0, &offset])
        .await
        .map_err(CatalogError::query("set the first position of a topic partition"))?;
    Ok(changed == 1)
}

/// Notes for people why a topic partition stands still.
pub async fn record_halt(
    client: &impl GenericClient,
    id: SourcePartitionId,
    fence: Fence,
    reason: &str,
) -> Result<(), CatalogError> {
    client
        .execute(include_str!("sql/record_halt.sql"), &[&id.0, &fence.0, &reason])
        .await
        .map_err(CatalogError::query("record why a topic partition is halted"))?;
    Ok(())
}

/// The catalog's own id, as tags name it.
pub async fn catalog_id(client: &impl GenericClient) -> Result<Uuid, CatalogError> {
    let row = client
        .query_one("SELECT catalog_id FROM catalog.schema_info", &[])
        .await
        .map_err(CatalogError::query("read the catalog's id"))?;
    Ok(row.get(0))
}
