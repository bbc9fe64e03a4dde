//! Chunks of large objects that are put and that no micro-batch names yet.
//!
//! Called in a transaction that holds the topic partition's row ([`super::lock_source_partition`]) under the caller's fence,
//! but for reading.

use deadpool_postgres::GenericClient;
use serde_json::Value;

use super::{CatalogError, SourcePartitionId};
use crate::types::MicroBatchId;

/// What a chunk is a chunk of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedObject {
    pub bucket: String,
    pub key: String,
    pub version: String,
    pub connector: String,
    pub connector_revision: String,
    pub chunk_bytes: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ObjectChunk {
    /// From 0.
    pub number: i32,
    /// The micro-batch that its files are of.
    pub id: MicroBatchId,
    pub object: ChunkedObject,
    pub pending_keys: Vec<String>,
    /// The caller's own.
    pub state: Value,
}

pub async fn insert_object_chunk(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    message_offset: i64,
    chunk: &ObjectChunk,
) -> Result<(), CatalogError> {
    let ObjectChunk { number, id, object, pending_keys, state } = chunk;
    client
        .execute(
            include_str!("sql/insert_object_chunk.sql"),
            &[
                &partition.0,
                &message_offset,
                number,
                &id.0,
                &object.bucket,
                &object.key,
                &object.version,
                &object.connector,
                &object.connector_revision,
                &object.chunk_bytes,
                pending_keys,
                state,
            ],
        )
        .await
        .map_err(CatalogError::query("record a chunk of an object"))?;
    Ok(())
}

/// Those of a message, in their order.
pub async fn object_chunks(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    message_offset: i64,
) -> Result<Vec<ObjectChunk>, CatalogError> {
    let rows = client
        .query(include_str!("sql/select_object_chunks.sql"), &[&partition.0, &message_offset])
        .await
        .map_err(CatalogError::query("read the chunks of an object"))?;
    let chunk = |row: &tokio_postgres::Row| ObjectChunk {
        number: row.get("number"),
        id: MicroBatchId(row.get("micro_batch_id")),
        object: ChunkedObject {
            bucket: row.get("bucket"),
            key: row.get("key"),
            version: row.get("version"),
            connector: row.get("connector"),
            connector_revision: row.get("connector_revision"),
            chunk_bytes: row.get("chunk_bytes"),
        },
        pending_keys: row.get("pending_keys"),
        state: row.get("state"),
    };
    Ok(rows.iter().map(chunk).collect())
}

/// Forgets the chunks of a message, and all before the position; returns the files that no micro-batch has named.
pub async fn delete_object_chunks(
    client: &impl GenericClient,
    partition: SourcePartitionId,
    message_offset: Option<i64>,
    position: Option<i64>,
) -> Result<Vec<String>, CatalogError> {
    let rows = client
        .query(include_str!("sql/delete_object_chunks.sql"), &[&partition.0, &message_offset, &position])
        .await
        .map_err(CatalogError::query("forget the chunks of an object"))?;
    let unnamed = rows.iter().filter(|row| !row.get::<_, bool>("is_named"));
    Ok(unnamed.flat_map(|row| row.get::<_, Vec<String>>("pending_keys")).collect())
}
