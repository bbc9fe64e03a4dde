//! Rows of an object whose files lie in `_pending/` before the micro-batch is built that will name them.
//!
//! # Crash consistency
//! Until a commit names them the files are nobody's. Those of a chunk that is recorded ([`super::chunk_log`]) stay for
//! whoever goes on with the object, unless it is given up ([`PendingFiles::discard`]). Others are deleted by who drops
//! them, and what a crash leaves behind of them is harmless in `_pending/`.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::chunk_log::ChunkLog;
use super::context::TransformContext;
use super::row_books::{RowBooks, Upload};
use crate::catalog::CatalogError;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::{S3Client, S3Error};
use crate::config::Connector;
use crate::error::chain;
use crate::types::MicroBatchId;

/// PUTs of one micro-batch at a time.
const UPLOADS_IN_FLIGHT: usize = 8;

/// All that is left of an object's rows.
#[derive(Debug)]
pub struct StagedRows {
    /// The micro-batch that their files are of.
    pub(super) id: MicroBatchId,
    pub(super) connector: Arc<Connector>,
    pub(super) books: RowBooks,
    pub(super) files: PendingFiles,
}

/// Files in `_pending/`. Deletes them when it is dropped, unless a commit may have named them or they are recorded.
#[derive(Debug)]
pub struct PendingFiles {
    lake: S3Client,
    bucket: String,
    /// Neither recorded nor about to be.
    keys: Vec<String>,
    may_be_named: bool,
    /// Where some are recorded.
    log: Option<ChunkLog>,
    is_discarded: bool,
}

impl PendingFiles {
    pub(super) fn new(context: &TransformContext) -> Self {
        let (lake, bucket) = (context.lake.clone(), context.lake_bucket.clone());
        Self { lake, bucket, keys: Vec::new(), may_be_named: false, log: None, is_discarded: false }
    }

    /// To be called before they are put: a PUT that is dropped may have happened.
    pub(super) fn expect(&mut self, uploads: &[Upload]) {
        self.keys.extend(uploads.iter().map(|upload| upload.key.clone()));
    }

    /// Before they are recorded: where the answer to COMMIT is lost, a successor may have them, whatever the catalog says
    /// when it is asked again. What is not recorded after all stays in `_pending/`, harmless.
    pub(super) fn let_go(&mut self, log: &ChunkLog) {
        self.log.get_or_insert_with(|| log.clone());
        self.keys.clear();
    }

    /// Those of another owner, which are in the catalog.
    pub(super) fn recorded(context: &TransformContext, log: &ChunkLog) -> Self {
        let mut files = Self::new(context);
        files.log = Some(log.clone());
        files
    }

    /// The object is given up: nobody goes on with it. When it returns, it can be begun anew.
    pub(super) async fn discard(mut self, retries: &RetryPolicy) -> Result<(), CatalogError> {
        match self.log.take() {
            Some(log) => log.forget(retries).await,
            None => Ok(()),
        }
    }

    /// The same, where its owner will not begin it anew.
    pub(super) fn discard_later(mut self) {
        self.is_discarded = true;
    }

    /// `true` before a commit names them, and `false` again where it is known to have failed.
    pub(super) fn set_named(&mut self, may_be_named: bool) {
        self.may_be_named = may_be_named;
    }
}

impl Drop for PendingFiles {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        // without a runtime the process ends, and leaves them as a crash does
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let log = self.log.take().filter(|_| self.is_discarded);
        if self.may_be_named || keys.is_empty() && log.is_none() {
            return;
        }
        let (lake, bucket) = (self.lake.clone(), self.bucket.clone());
        runtime.spawn(async move {
            if let Some(log) = log {
                log.forget_now_or_later().await;
            }
            let names: Vec<&str> = keys.iter().map(String::as_str).collect();
            if let Err(error) = lake.delete_all(&bucket, &names).await {
                tracing::debug!(component = "s3", count = keys.len(), error = %chain(&error), "unused files stay in _pending");
            }
        });
    }
}

/// Puts files into the lake, several at a time.
pub(super) async fn put_files(
    context: &TransformContext,
    retries: &RetryPolicy,
    uploads: &[Upload],
) -> Result<(), S3Error> {
    let put = |upload: &'_ Upload| {
        let (key, bytes, sha256) = (upload.key.clone(), upload.bytes.clone(), upload.sha256);
        async move {
            retry(retries, "s3", S3Error::kind, || {
                context.lake.put(&context.lake_bucket, &key, bytes.clone(), Some(sha256), false)
            })
            .await
            .map(|_| crate::telemetry::fail_point!("batch.one_put"))
        }
    };
    stream::iter(uploads.iter().map(put)).buffer_unordered(UPLOADS_IN_FLIGHT).try_collect::<Vec<()>>().await.map(|_| ())
}
