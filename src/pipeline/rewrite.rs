//! Rewrites published files without the rows that are masked, and with them again when their masks die.
//!
//! # Contract
//! The file as it was committed is kept at a pending key of its own, which no reader lists, from the first rewriting on;
//! every copy is made from it. A new copy has a key of its own and is complete before the catalog names it; then the old copy
//! goes. A file without a visible row is published nowhere.
//! # Retries
//! A lease keeps workers apart; doing it twice makes the same copy. What cannot be done now is taken up again.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use deadpool_postgres::Pool;
use thiserror::Error;

use super::lake_files::{CommittedFile, LakeFileError, read_file};
use crate::catalog::{self, CatalogError, LiveBatch, MaskableFile, Rewritten};
use crate::client::postgres;
use crate::client::s3::{S3Client, S3Error};
use crate::config::{OFFSET_COLUMN, RECORD_COLUMN};
use crate::error::{ErrorKind, chain};
use crate::stage;
use crate::telemetry::metrics;

const LEASE_SECONDS: f64 = 30.0;
const FILES_PER_ROUND: i64 = 16;

#[derive(Debug, Error)]
pub enum RewriteError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    File(#[from] LakeFileError),
    #[error("could not filter a file of the lake")]
    Filter(#[source] arrow::error::ArrowError),
    #[error("could not encode a file of the lake")]
    Encode(#[source] parquet::errors::ParquetError),
    #[error("could not write to the lake")]
    Write(#[source] S3Error),
    #[error("a task failed")]
    Task(#[source] tokio::task::JoinError),
}

impl RewriteError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::Write(error) => error.kind(),
            Self::Filter(_) | Self::Encode(_) | Self::Task(_) => ErrorKind::Halt,
        }
    }
}

/// What rewriting needs.
#[derive(Clone)]
pub struct Rewriter {
    pub catalog: Pool,
    pub lake: S3Client,
    pub lake_bucket: String,
}

impl Rewriter {
    /// Rewrites one round of files; returns how many were taken up.
    pub async fn rewrite_round(&self) -> Result<usize, RewriteError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let files = catalog::lease_maskable_files(&client, FILES_PER_ROUND, LEASE_SECONDS).await?;
        drop(client);
        for file in &files {
            if let Err(error) = self.rewrite(file).await {
                metrics().errors.with_label_values(&["publish", error.kind().as_str()]).inc();
                tracing::warn!(component = "publish", key = file.file.published_key, error = %chain(&error), "masked rows stay visible, taken up again when the lease ends");
            }
        }
        Ok(files.len())
    }

    async fn rewrite(&self, file: &MaskableFile) -> Result<(), RewriteError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let Some(live) = catalog::live_batch(&client, file.micro_batch_id).await? else { return Ok(()) };
        drop(client);
        // what was rejected stays, whatever became of its object
        let CommittedFile { batches, layout } = match file.file.kind.as_str() {
            "data" => read_file(&self.lake, &self.lake_bucket, &file.file).await?,
            _ => CommittedFile::default(),
        };
        let LiveBatch { mask_rev, masked } = live;
        let (kept, dropped) = visible(batches, &masked).map_err(RewriteError::Filter)?;
        if dropped == 0 && !file.file.is_rewritten {
            let (published_key, state) =
                (file.file.published_key.clone(), if file.state == "published" { "published" } else { "pending" });
            return self
                .mark(
                    file,
                    Rewritten {
                        mask_rev,
                        published_key,
                        original_key: file.file.pending_key.clone(),
                        state,
                        visible_row_count: None,
                    },
                )
                .await
                .map(|_| ());
        }
        let original_key = self.keep_original(file).await?;
        let row_count: usize = kept.iter().map(RecordBatch::num_rows).sum();
        let published_key = rewritten_key(file, mask_rev);
        let state = if row_count == 0 { "masked" } else { "published" };
        if row_count > 0 {
            let label = (file.file.connector.clone(), file.connector_revision.clone(), file.schema_revision.clone());
            let encode = move || stage::encode_again(&label.0, &label.1, &label.2, &layout, &kept);
            let bytes =
                tokio::task::spawn_blocking(encode).await.map_err(RewriteError::Task)?.map_err(RewriteError::Encode)?;
            let put = self.lake.put(&self.lake_bucket, &published_key, bytes, None, false);
            put.await.map_err(RewriteError::Write)?;
        }
        let visible_row_count = Some(row_count as i64);
        let marked = self
            .mark(
                file,
                Rewritten { mask_rev, published_key: published_key.clone(), original_key, state, visible_row_count },
            )
            .await?;
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let now = catalog::published_key(&client, file.file.file_id).await?;
        drop(client);
        // ours where another was faster with newer masks; the one before where we were not
        for key in [&published_key, &file.file.published_key] {
            if now.as_ref() != Some(key) && (marked || *key == published_key) {
                self.lake.delete(&self.lake_bucket, key).await.map_err(RewriteError::Write)?;
            }
        }
        if marked && !file.file.is_rewritten {
            // the original has a key of its own now
            self.lake.delete(&self.lake_bucket, &file.file.pending_key).await.map_err(RewriteError::Write)?;
        }
        metrics().files_rewritten.with_label_values::<&str>(&[]).inc();
        Ok(())
    }

    /// Before the first rewriting the file as it was committed gets a key of its own, which no publisher that may
    /// still be at work deletes. Returns that key.
    async fn keep_original(&self, file: &MaskableFile) -> Result<String, RewriteError> {
        if file.file.is_rewritten {
            return Ok(file.file.pending_key.clone());
        }
        let original_key = format!("_pending/{}/{}-kept.parquet", file.micro_batch_id, file.file.file_id);
        let (pending, published) = (&file.file.pending_key, &file.file.published_key);
        let from = if file.state == "published" { [published, pending] } else { [pending, published] };
        match self.lake.copy(&self.lake_bucket, from[0], &original_key, None).await {
            Err(error) if error.is_missing() => {
                self.lake.copy(&self.lake_bucket, from[1], &original_key, None).await.map_err(RewriteError::Write)?;
            }
            copied => _ = copied.map_err(RewriteError::Write)?,
        }
        Ok(original_key)
    }

    async fn mark(&self, file: &MaskableFile, rewritten: Rewritten) -> Result<bool, RewriteError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        Ok(catalog::mark_rewritten(&client, file.file.file_id, &rewritten).await?)
    }
}

/// The rows that are not masked, and how many are.
fn visible(
    batches: Vec<RecordBatch>,
    masked: &HashSet<(i64, i32)>,
) -> Result<(Vec<RecordBatch>, usize), arrow::error::ArrowError> {
    let mut dropped = 0;
    let mut kept = Vec::with_capacity(batches.len());
    for batch in batches {
        let lacks = |name: &str| arrow::error::ArrowError::SchemaError(format!("no column `{name}`"));
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacks(name));
        let offsets = column(OFFSET_COLUMN)?.as_primitive::<Int64Type>().values();
        let records = column(RECORD_COLUMN)?.as_primitive::<Int32Type>().values();
        let stays: BooleanArray =
            offsets.iter().zip(records).map(|place| Some(!masked.contains(&(*place.0, *place.1)))).collect();
        dropped += stays.false_count();
        let batch = filter_record_batch(&batch, &stays)?;
        if batch.num_rows() > 0 {
            kept.push(batch);
        }
    }
    Ok((kept, dropped))
}

/// `…/<micro-batch>-<file>-m3.parquet`
fn rewritten_key(file: &MaskableFile, mask_rev: i32) -> String {
    let stem = format!("{}-{}", file.micro_batch_id, file.file.file_id);
    let folder = file.file.published_key.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{stem}-m{mask_rev}.parquet")
}
