//! Pending → visible, and the outbox.
//!
//! # Contract
//! A file of a live micro-batch is copied on the server from `_pending/` to its published key, the copy is
//! verified, the catalog marks it published, the pending copy is deleted: in this order, so that no reader of
//! `data/` sees a file before its micro-batch is live (FILE-1), and no file is ever without a complete copy.
//! Files of dead micro-batches are hidden (both copies deleted) when everything that replaces them is published
//! (FILE-2): for a moment listing readers find old and new rows, never neither. Readers of `lake.files` see the one
//! or the other.
//! # Retries
//! A lease, not a lock, keeps workers apart; publishing a file twice writes the same bytes to the
//! same key. Whatever fails is taken up again when its lease runs out.
//! # Crash consistency
//! A crash between any two steps leaves at most a second copy; the next worker finishes.

mod outbox;
mod sweep;

pub use outbox::send_outbox;

use std::sync::Arc;

use deadpool_postgres::Pool;
use futures::stream::{self, StreamExt};
use thiserror::Error;

use crate::catalog::{self, CatalogError, LeasedFile};
use crate::client::postgres;
use crate::client::s3::{Pin, S3Client, S3Error};
use crate::error::{ErrorKind, chain};
use crate::telemetry::metrics;

/// Long enough for one copy by a slow store; a crashed worker's files wait this long.
const LEASE_SECONDS: f64 = 30.0;
const FILES_PER_ROUND: i64 = 64;
const HIDDEN_PER_ROUND: i64 = 500;
const COPIES_IN_FLIGHT: usize = 8;
/// Copies that are marked by one statement, whose pending copies are deleted by one request.
const MARKED_AT_ONCE: usize = 16;

#[derive(Debug, Error)]
pub enum PublishError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("could not copy a pending file to its published key")]
    Copy(#[source] S3Error),
    #[error("could not verify the published copy")]
    Verify(#[source] S3Error),
    #[error("the published copy `{key}` has {found} bytes instead of {expected}")]
    Differs { key: String, found: u64, expected: u64 },
    #[error("could not delete a copy")]
    Delete(#[source] S3Error),
    #[error("could not list the lake")]
    List(#[source] S3Error),
    #[error(transparent)]
    Kafka(#[from] crate::client::kafka::KafkaError),
}

impl PublishError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::Copy(error) | Self::Verify(error) | Self::Delete(error) | Self::List(error) => error.kind(),
            Self::Differs { .. } => ErrorKind::Transient,
            Self::Kafka(error) => error.kind(),
        }
    }
}

/// What publishing needs.
#[derive(Clone)]
pub struct Publisher {
    pub catalog: Pool,
    pub lake: S3Client,
    pub lake_bucket: String,
}

impl Publisher {
    /// Publishes one round of pending files, then hides one round of replaced ones; returns how many were taken up.
    /// 0: nothing to do.
    pub async fn publish_round(self: &Arc<Self>) -> Result<usize, PublishError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let to_publish = catalog::lease_pending_files(&client, FILES_PER_ROUND, LEASE_SECONDS).await?;
        drop(client);
        let count = to_publish.len();
        stream::iter(to_publish)
            .map(|file| async move {
                let copied = self.copy(&file).await;
                (file, copied)
            })
            .buffer_unordered(COPIES_IN_FLIGHT)
            .chunks(MARKED_AT_ONCE)
            .for_each_concurrent(2, |files| self.publish(files))
            .await;
        Ok(count + self.hide_round().await?)
    }

    /// The pending copies first: without them no frozen publisher can make the published ones again.
    async fn hide_round(&self) -> Result<usize, PublishError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let files = catalog::lease_hideable_files(&client, HIDDEN_PER_ROUND, LEASE_SECONDS).await?;
        drop(client);
        if files.is_empty() {
            return Ok(0);
        }
        for key_of in [|file: &LeasedFile| file.pending_key.clone(), |file: &LeasedFile| file.published_key.clone()] {
            let keys: Vec<String> = files.iter().map(key_of).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.lake.delete_all(&self.lake_bucket, &keys).await.map_err(PublishError::Delete)?;
        }
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        catalog::mark_hidden(&client, &files.iter().map(|file| file.file_id).collect::<Vec<_>>()).await?;
        for file in &files {
            metrics().files_hidden.with_label_values(&[&file.kind]).inc();
        }
        Ok(files.len())
    }

    /// Copies a file and verifies the copy.
    async fn copy(&self, file: &LeasedFile) -> Result<(), PublishError> {
        match self.lake.copy(&self.lake_bucket, &file.pending_key, &file.published_key, None).await {
            Ok(_) => {}
            // another worker was here before: the verification below decides
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(PublishError::Copy(error)),
        }
        let head = self
            .lake
            .head(&self.lake_bucket, &file.published_key, Pin::default())
            .await
            .map_err(PublishError::Verify)?;
        if head.size_bytes != file.size_bytes.unsigned_abs() {
            return Err(PublishError::Differs {
                key: file.published_key.clone(),
                found: head.size_bytes,
                expected: file.size_bytes.unsigned_abs(),
            });
        }
        Ok(())
    }

    /// Goes on with those that are copied, all at once: a statement or a request for each would cost more than its copy.
    async fn publish(&self, files: Vec<(LeasedFile, Result<(), PublishError>)>) {
        let mut copied = Vec::with_capacity(files.len());
        for (file, result) in files {
            match result {
                Ok(()) => copied.push(file),
                Err(error) => note(&file, &error),
            }
        }
        match self.publish_copied(&copied).await {
            Ok(()) => copied.iter().for_each(|file| metrics().files_published.with_label_values(&[&file.kind]).inc()),
            Err(error) => copied.iter().for_each(|file| note(file, &error)),
        }
    }

    async fn publish_copied(&self, files: &[LeasedFile]) -> Result<(), PublishError> {
        if files.is_empty() {
            return Ok(());
        }
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        crate::telemetry::fail_point!("publish.copied", PublishError::Catalog);
        let published = catalog::mark_published(&client, files).await?;
        drop(client);
        let (published, replaced): (Vec<&LeasedFile>, Vec<&LeasedFile>) =
            files.iter().partition(|file| published.contains(&file.file_id));
        if !replaced.is_empty() {
            // replaced while we copied, perhaps long ago: these copies may be ones that hiding has not seen
            tracing::info!(component = "publish", count = replaced.len(), "micro-batches were replaced meanwhile");
            self.delete_all(replaced.iter().map(|file| file.published_key.as_str())).await?;
        }
        crate::telemetry::fail_point!("publish.marked", PublishError::Catalog);
        self.delete_all(published.iter().map(|file| file.pending_key.as_str())).await
    }

    async fn delete_all(&self, keys: impl Iterator<Item = &str>) -> Result<(), PublishError> {
        let keys: Vec<&str> = keys.collect();
        self.lake.delete_all(&self.lake_bucket, &keys).await.map_err(PublishError::Delete)
    }
}

fn note(file: &LeasedFile, error: &PublishError) {
    metrics().errors.with_label_values(&["publish", error.kind().as_str()]).inc();
    tracing::warn!(component = "publish", key = file.published_key, error = %chain(error), "file stays pending, taken up again when its lease ends");
}
