//! The chunks of a large object that are put, as the catalog keeps them for whoever goes on with it.
//!
//! # Contract
//! Of an object that is read by parts (JSON lines, more than a chunk as stored) every chunk but the last is recorded when
//! its files are complete, under the owner's fence and with its topic partition's row locked. A later owner adopts them
//! where the object version, the connector's revision and the size of chunks are the same, and reads on behind them: from
//! there on where the object is not compressed, else from the last gzip member or zstd frame that began before. Recorded files are deleted by nobody but who has deleted their row first, under the
//! fence: so an owner that wakes late takes nothing from its successor.
//! Kept for messages that announce one object, at their first reading: a replay begins anew.
//! Rows before the position are swept by the next owner, and by the next large object.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;

use super::context::TransformContext;
use super::evolution::CurrentSchema;
use super::position::Ownership;
use super::row_books::RowBooks;
use super::stored_books::{ChunkState, revived};
use crate::catalog::{self, CatalogError, ChunkedObject, ObjectChunk, SourcePartitionId};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::S3Client;
use crate::config::Connector;
use crate::decode::ResumePoint;
use crate::error::chain;
use crate::types::{Fence, MicroBatchId, ObjectVersion};

/// Who may record chunks.
#[derive(Debug, Clone, Copy)]
pub struct ChunkOwner {
    partition: SourcePartitionId,
    fence: Fence,
}

impl ChunkOwner {
    pub(super) fn of(ownership: &Ownership) -> Self {
        Self { partition: ownership.partition, fence: ownership.fence }
    }
}

/// Of one message.
#[derive(Debug, Clone)]
pub struct ChunkLog {
    catalog: Pool,
    lake: S3Client,
    lake_bucket: String,
    owner: ChunkOwner,
    message_offset: Option<i64>,
}

/// Chunks that somebody else has put.
pub(super) struct Adopted {
    pub(super) id: MicroBatchId,
    pub(super) count: i32,
    pub(super) books: RowBooks,
    /// Behind them, and by which schema.
    pub(super) point: ResumePoint,
    pub(super) schema: CurrentSchema,
}

impl ChunkLog {
    pub(super) fn new(context: &TransformContext, owner: ChunkOwner, message_offset: Option<i64>) -> Self {
        let (lake, lake_bucket) = (context.lake.clone(), context.lake_bucket.clone());
        Self { catalog: context.catalog.clone(), lake, lake_bucket, owner, message_offset }
    }

    /// Records a chunk. `false`: there is another owner by now.
    pub(super) async fn record(&self, retries: &RetryPolicy, chunk: &ObjectChunk) -> Result<bool, CatalogError> {
        let Some(message_offset) = self.message_offset else { return Ok(false) };
        retry(retries, "catalog", CatalogError::kind, || async {
            let mut client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            let transaction = client.transaction().await.map_err(CatalogError::query("begin to record a chunk"))?;
            let (fence, _) = catalog::lock_source_partition(&transaction, self.owner.partition).await?;
            if fence != self.owner.fence {
                return Ok(false);
            }
            catalog::insert_object_chunk(&transaction, self.owner.partition, message_offset, chunk).await?;
            transaction.commit().await.map_err(CatalogError::query("commit a chunk"))?;
            crate::telemetry::fail_point!("chunk.recorded", std::convert::identity);
            Ok(true)
        })
        .await
    }

    /// The chunks of this object that are there; others of the message are forgotten, and so are those before it.
    pub(super) async fn adopt(
        &self,
        context: &TransformContext,
        retries: &RetryPolicy,
        object: &ChunkedObject,
    ) -> Result<Option<Adopted>, CatalogError> {
        let Some(message_offset) = self.message_offset else { return Ok(None) };
        let found = retry(retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            catalog::object_chunks(&client, self.owner.partition, message_offset).await
        })
        .await?;
        let adopted = adopted(context, object, found);
        if adopted.is_none() {
            // or what is recorded next would stand among them
            self.forget(retries).await?;
        }
        Ok(adopted)
    }

    /// Deletes its chunks and those before the position, rows first. Files that cannot be deleted stay, harmless.
    pub(super) async fn forget(&self, retries: &RetryPolicy) -> Result<(), CatalogError> {
        let keys = retry(retries, "catalog", CatalogError::kind, || async {
            let mut client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            let transaction = client.transaction().await.map_err(CatalogError::query("begin to forget chunks"))?;
            let (fence, position) = catalog::lock_source_partition(&transaction, self.owner.partition).await?;
            if fence != self.owner.fence {
                return Ok(Vec::new());
            }
            let (partition, offset) = (self.owner.partition, self.message_offset);
            let keys = catalog::delete_object_chunks(&transaction, partition, offset, position).await?;
            transaction.commit().await.map_err(CatalogError::query("commit that chunks are forgotten"))?;
            Ok::<_, CatalogError>(keys)
        })
        .await?;
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        if let Err(error) = self.lake.delete_all(&self.lake_bucket, &names).await {
            tracing::debug!(component = "s3", count = keys.len(), error = %chain(&error), "unused files stay in _pending");
        }
        Ok(())
    }

    /// The same, where it may as well be done by somebody else later.
    pub(super) async fn forget_now_or_later(&self) {
        if let Err(error) = self.forget(&RetryPolicy::until(Duration::ZERO)).await {
            tracing::debug!(component = "catalog", error = %chain(&error), "could not forget chunks of an object");
        }
    }
}

/// `None` where they are not all of this object, or cannot be read.
fn adopted(context: &TransformContext, object: &ChunkedObject, found: Vec<ObjectChunk>) -> Option<Adopted> {
    let id = found.first()?.id;
    let (mut books, mut last) = (RowBooks::default(), None);
    let count = i32::try_from(found.len()).ok()?;
    for (number, chunk) in (0..).zip(found) {
        if chunk.number != number || chunk.id != id || chunk.object != *object {
            return None;
        }
        let state: ChunkState = serde_json::from_value(chunk.state).ok()?;
        books.append(state.books.revive(context)?);
        last = Some((state.point, state.schema));
    }
    let (point, schema) = last?;
    let connector = revived(context, &schema)?;
    let known = context.schemas.current(&object.connector);
    let schema = context.schemas.learn(&known, connector).ok()?;
    Some(Adopted { id, count, books, point, schema })
}

/// What chunks of an object must agree in.
pub(super) fn chunked_object(
    context: &TransformContext,
    connector: &Arc<Connector>,
    of: &ObjectVersion,
) -> ChunkedObject {
    ChunkedObject {
        bucket: of.location.bucket.clone(),
        key: of.location.key.clone(),
        version: of.version.clone(),
        connector: connector.name.clone(),
        connector_revision: connector.revision.clone(),
        chunk_bytes: i64::try_from(context.chunk_bytes).unwrap_or(i64::MAX),
    }
}
