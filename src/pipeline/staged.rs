//! Rows of an object whose files lie in `_pending/` before the micro-batch is built that will name them.
//!
//! # Crash consistency
//! Until a commit names them the files are nobody's: whoever drops them deletes them, and what a crash leaves behind is
//! harmless in `_pending/`.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::context::TransformContext;
use super::row_books::{RowBooks, Upload};
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

/// Files in `_pending/`. Deletes them when it is dropped, unless a commit may have named them.
#[derive(Debug)]
pub struct PendingFiles {
    lake: S3Client,
    bucket: String,
    keys: Vec<String>,
    may_be_named: bool,
}

impl PendingFiles {
    pub(super) fn new(context: &TransformContext) -> Self {
        let (lake, bucket) = (context.lake.clone(), context.lake_bucket.clone());
        Self { lake, bucket, keys: Vec::new(), may_be_named: false }
    }

    /// To be called before they are put: a PUT that is dropped may have happened.
    pub(super) fn expect(&mut self, uploads: &[Upload]) {
        self.keys.extend(uploads.iter().map(|upload| upload.key.clone()));
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
        if self.may_be_named || keys.is_empty() {
            return;
        }
        let (lake, bucket) = (self.lake.clone(), self.bucket.clone());
        runtime.spawn(async move {
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
