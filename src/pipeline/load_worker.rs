//! The load role: finds committed micro-batches that the warehouse lacks, reads their files, loads them.
//!
//! # Retries
//! Every step is idempotent: the lease and `loaded_at` in the catalog are hints, `load_state` in the
//! warehouse is written with the rows. Whatever fails is taken up again when its lease runs out.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::catalog::{self, BatchFile, CatalogError, LeasedBatch};
use crate::client::postgres;
use crate::client::s3::{Pin, S3Client, S3Error};
use crate::config::{Connectors, OFFSET_COLUMN, ORIGIN_TIME_COLUMN, SourceKind};
use crate::error::ErrorKind;
use crate::load::{BatchToLoad, LoadError, LoadOutcome, LoadPart, Loader};
use crate::telemetry::metrics;

/// A batch that takes longer is loaded by two workers, one of which finds it loaded already.
const LEASE_SECONDS: f64 = 30.0;

#[derive(Debug, Error)]
pub enum LoadWorkerError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("could not read a file of the lake")]
    Read(#[source] S3Error),
    #[error("the lake's file `{key}` does not have the bytes that were committed")]
    Corrupt { key: String },
    #[error("the lake's file `{key}` is no readable Parquet")]
    Decode { key: String, source: parquet::errors::ParquetError },
    #[error("the lake's file `{key}` has rows that cannot be read")]
    Rows { key: String, source: arrow::error::ArrowError },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("a decoding task failed")]
    Task(#[source] tokio::task::JoinError),
}

impl LoadWorkerError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::Read(error) if error.is_missing() => ErrorKind::Transient,
            Self::Read(error) => error.kind(),
            Self::Corrupt { .. } => ErrorKind::Transient,
            Self::Decode { .. } | Self::Rows { .. } | Self::Task(_) => ErrorKind::Halt,
            Self::Load(error) => error.kind(),
        }
    }
}

pub struct LoadWorker {
    pub catalog: Pool,
    pub lake: S3Client,
    pub lake_bucket: String,
    pub connectors: Connectors,
    pub loader: Loader,
}

impl LoadWorker {
    /// Loads the oldest micro-batch that nobody is loading. `false`: there is none.
    pub async fn load_next(&self) -> Result<bool, LoadWorkerError> {
        let leased = {
            let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            catalog::lease_unloaded_batch(&client, LEASE_SECONDS).await?
        };
        let Some(leased) = leased else { return Ok(false) };
        let started = std::time::Instant::now();
        let batch = self.read(&leased).await?;
        let outcome = self
            .loader
            .load(&batch, || async {
                let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
                catalog::is_live(&client, leased.id).await
            })
            .await?;
        crate::telemetry::fail_point!("load.committed", LoadWorkerError::Catalog);
        let result = match outcome {
            LoadOutcome::Loaded(_) => "loaded",
            LoadOutcome::AlreadyLoaded => "already_loaded",
            LoadOutcome::NotLive => "not_live",
        };
        metrics().batches_loaded.with_label_values(&[result]).inc();
        if let (LoadOutcome::Loaded(_), Some(oldest)) = (&outcome, leased.oldest_message_at) {
            let seconds = (chrono::Utc::now() - oldest).num_milliseconds().max(0) as f64 / 1000.0;
            metrics().notification_to_row_seconds.with_label_values::<&str>(&[]).observe(seconds);
        }
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        catalog::mark_loaded(&client, leased.id).await?;
        tracing::debug!(component = "load", micro_batch = %leased.id, result, elapsed_ms = started.elapsed().as_millis() as u64, "micro-batch loaded");
        Ok(true)
    }

    async fn read(&self, leased: &LeasedBatch) -> Result<BatchToLoad, LoadWorkerError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let files = catalog::batch_files(&client, leased.id).await?;
        let mut origins = catalog::batch_origins(&client, leased.id).await?;
        drop(client);
        let mut parts: HashMap<String, LoadPart> = HashMap::new();
        for file in files {
            let Some(connector) = self.connectors.by_name(&file.connector).filter(|found| found.warehouse.is_some())
            else {
                continue;
            };
            let batches = self.read_file(&file).await?;
            let part = parts
                .entry(file.connector.clone())
                .or_insert_with(|| LoadPart { connector: Arc::clone(connector), batches: Vec::new() });
            part.batches.extend(batches);
        }
        add_direct_origins(leased, &parts, &mut origins);
        Ok(BatchToLoad {
            micro_batch_id: leased.id,
            source_partition_id: leased.source_partition_id.0,
            offsets: leased.offsets,
            origins,
            parts: parts.into_values().collect(),
        })
    }

    /// From where the catalog says it lies; the publisher may have moved it meanwhile.
    async fn read_file(&self, file: &BatchFile) -> Result<Vec<RecordBatch>, LoadWorkerError> {
        let keys = if file.published {
            [&file.published_key, &file.pending_key]
        } else {
            [&file.pending_key, &file.published_key]
        };
        let bytes = match self.get(keys[0]).await {
            Err(LoadWorkerError::Read(error)) if error.is_missing() => self.get(keys[1]).await?,
            read => read?,
        };
        if Sha256::digest(&bytes).as_slice() != file.sha256 {
            return Err(LoadWorkerError::Corrupt { key: file.published_key.clone() });
        }
        let key = file.published_key.clone();
        tokio::task::spawn_blocking(move || decode(&key, bytes)).await.map_err(LoadWorkerError::Task)?
    }

    async fn get(&self, key: &str) -> Result<Bytes, LoadWorkerError> {
        let object = self.lake.open(&self.lake_bucket, key, Pin::default()).await.map_err(LoadWorkerError::Read)?;
        object.read_all().await.map_err(LoadWorkerError::Read)
    }
}

fn decode(key: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, LoadWorkerError> {
    let failed = |source| LoadWorkerError::Decode { key: key.to_owned(), source };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?.build().map_err(failed)?;
    reader.collect::<Result<_, _>>().map_err(|source| LoadWorkerError::Rows { key: key.to_owned(), source })
}

/// Rows of direct records have no object: their message's time stands in the lake, their order is the offset.
fn add_direct_origins(
    leased: &LeasedBatch,
    parts: &HashMap<String, LoadPart>,
    origins: &mut HashMap<(i64, i32), (DateTime<Utc>, i64)>,
) {
    for part in parts.values().filter(|part| part.connector.source.kind == SourceKind::Records) {
        for batch in &part.batches {
            let times = batch
                .column_by_name(ORIGIN_TIME_COLUMN)
                .map(arrow::array::AsArray::as_primitive::<TimestampMillisecondType>);
            let offsets = batch.column_by_name(OFFSET_COLUMN).map(arrow::array::AsArray::as_primitive::<Int64Type>);
            let (Some(times), Some(offsets)) = (times, offsets) else { continue };
            for (time, offset) in times.values().iter().zip(offsets.values()) {
                debug_assert!(leased.offsets.contains(*offset), "a file holds rows of its own batch only");
                origins.insert((*offset, 0), (DateTime::from_timestamp_millis(*time).unwrap_or_default(), *offset));
            }
        }
    }
}
