//! The load role: finds committed micro-batches that the warehouse lacks, reads their files, loads them.
//!
//! Where several wait, the warehouse is slower than the intake: they are joined into one transaction, up to [`JOINED`]
//! and to what memory is meant for.
//! What cannot be joined is loaded one by one.
//!
//! # Retries
//! Every step is idempotent: the lease and `loaded_at` in the catalog are hints, `load_state` in the
//! warehouse is written with the rows. Whatever fails is taken up again when its lease runs out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use thiserror::Error;

use super::lake_files::{LakeFileError, read_rows};
use super::resolver::{Resolver, ResolverError};
use crate::catalog::{self, CatalogError, JoinLimits, LeasedBatch, LiveBatch};
use crate::client::postgres;
use crate::client::s3::S3Client;
use crate::config::{Connector, Connectors, OFFSET_COLUMN, ORIGIN_TIME_COLUMN, SourceKind};
use crate::error::{ErrorKind, chain};
use crate::load::{BatchToLoad, LoadError, LoadOutcome, LoadPart, Loader};
use crate::telemetry::metrics;
use crate::types::MicroBatchId;

/// Renewed while the work lasts; so long nobody takes up what a worker that died has left.
const LEASE_SECONDS: f64 = 30.0;

/// What is loaded in one transaction, at most. Rows take a few hundred bytes of memory each on their way, in two forms.
pub const JOINED: JoinLimits =
    JoinLimits { batch_count_max: 64, row_count_max: 250_000, size_bytes_max: 32 * 1024 * 1024 };

/// Rows of those loaded together, in memory.
const JOINED_MEMORY_BYTES_MAX: usize = 256 << 20;

/// Partitions are sealed while no more micro-batches than that wait to be loaded.
const UNLOADED_MAX: i64 = 8;

#[derive(Debug, Error)]
pub enum LoadWorkerError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    File(#[from] LakeFileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Resolve(#[from] ResolverError),
}

impl LoadWorkerError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::Load(error) => error.kind(),
            Self::Resolve(error) => error.kind(),
        }
    }
}

pub struct LoadWorker {
    pub catalog: Pool,
    pub lake: S3Client,
    pub lake_bucket: String,
    pub connectors: Connectors,
    pub loader: Loader,
    pub resolver: Resolver,
}

impl LoadWorker {
    /// Loads the oldest micro-batches that nobody is loading. `false`: there is none.
    pub async fn load_next(&self) -> Result<bool, LoadWorkerError> {
        let leased = {
            let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            catalog::lease_unloaded_batches(&client, LEASE_SECONDS, JOINED).await?
        };
        if leased.is_empty() {
            return Ok(false);
        }
        let ids: Vec<MicroBatchId> = leased.iter().map(|leased| leased.id).collect();
        holding_lease(&self.catalog, &ids, LEASE_SECONDS, self.load_leased(&leased)).await?;
        Ok(true)
    }

    /// Seals a partition whose day is over, unless many micro-batches wait: a backfill's late rows would be checked one by one.
    /// `false`: there is none.
    pub async fn seal_next(&self) -> Result<bool, LoadWorkerError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let waiting = catalog::backlog(&client).await?.batches_unloaded;
        drop(client);
        Ok(waiting <= UNLOADED_MAX && self.loader.seal_next(Utc::now()).await?)
    }

    /// All in one transaction, or one by one: then one that cannot be loaded keeps none of the others.
    async fn load_leased(&self, leased: &[LeasedBatch]) -> Result<(), LoadWorkerError> {
        let mut alone = leased;
        if leased.len() > 1 {
            match self.load_joined(leased).await {
                Ok(count) => alone = &leased[count..],
                Err(error) => {
                    let (error, micro_batch_count) = (chain(&error), leased.len());
                    tracing::warn!(component = "load", micro_batch_count, error, "not loaded together, trying each");
                }
            }
        }
        let mut failed = None;
        for leased in alone {
            if let Err(error) = self.load_one(leased).await
                && let Some(error) = failed.replace(error)
            {
                tracing::warn!(component = "load", error = chain(&error), "micro-batch not loaded");
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The first of them, as many as memory is meant for. Returns how many; 0, and nothing written: one by one.
    async fn load_joined(&self, leased: &[LeasedBatch]) -> Result<usize, LoadWorkerError> {
        let started = Instant::now();
        let (mut batches, mut memory_bytes) = (Vec::with_capacity(leased.len()), 0);
        for leased in leased {
            let batch = self.read(leased).await?;
            memory_bytes += batch.memory_bytes();
            // of files that shrank much their size says little
            if memory_bytes > JOINED_MEMORY_BYTES_MAX && !batches.is_empty() {
                break;
            }
            batches.push(batch);
        }
        let leased = &leased[..batches.len()];
        if leased.len() < 2 {
            return Ok(0);
        }
        let ids: Vec<MicroBatchId> = leased.iter().map(|leased| leased.id).collect();
        let awaited = {
            let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
            catalog::awaited_days(&client, &ids).await?
        };
        let prepared = self.loader.prepare(&batches).await?.awaiting(awaited);
        let Some(outcome) = self.loader.load_prepared(&batches, &prepared, |id| self.still_live(id)).await? else {
            return Ok(0);
        };
        for leased in leased {
            self.note(leased, &outcome, started).await?;
        }
        Ok(leased.len())
    }

    async fn load_one(&self, leased: &LeasedBatch) -> Result<(), LoadWorkerError> {
        let started = Instant::now();
        let batch = self.read(leased).await?;
        let outcome = self.loader.load(&batch, || self.still_live(leased.id)).await?;
        self.note(leased, &outcome, started).await
    }

    async fn still_live(&self, id: MicroBatchId) -> Result<Option<LiveBatch>, CatalogError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        catalog::live_batch(&client, id).await
    }

    /// In the catalog, the metrics and the log.
    async fn note(&self, leased: &LeasedBatch, outcome: &LoadOutcome, started: Instant) -> Result<(), LoadWorkerError> {
        crate::telemetry::fail_point!("load.committed", LoadWorkerError::Catalog);
        let result = match outcome {
            LoadOutcome::Loaded(_) => "loaded",
            LoadOutcome::AlreadyLoaded => "already_loaded",
            LoadOutcome::NotLive => "not_live",
        };
        metrics().batches_loaded.with_label_values(&[result]).inc();
        if let (LoadOutcome::Loaded(_), Some(oldest)) = (outcome, leased.oldest_message_at) {
            let seconds = (chrono::Utc::now() - oldest).num_milliseconds().max(0) as f64 / 1000.0;
            metrics().notification_to_row_seconds.with_label_values::<&str>(&[]).observe(seconds);
        }
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        catalog::mark_loaded(&client, leased.id, leased.mask_rev).await?;
        tracing::debug!(component = "load", micro_batch = %leased.id, result, elapsed_ms = started.elapsed().as_millis() as u64, "micro-batch loaded");
        Ok(())
    }

    async fn read(&self, leased: &LeasedBatch) -> Result<BatchToLoad, LoadWorkerError> {
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        let files = catalog::batch_files(&client, leased.id).await?;
        let mut origins = catalog::batch_origins(&client, leased.id).await?;
        drop(client);
        let mut parts: HashMap<String, LoadPart> = HashMap::new();
        for file in files.into_iter().filter(|file| file.kind == "data") {
            let Some(connector) = self
                .connectors
                .by_name(&file.connector)
                .map(Connector::dataset)
                .filter(|found| found.warehouse.is_some())
            else {
                continue;
            };
            let batches = read_rows(&self.lake, &self.lake_bucket, &file).await?;
            let batches = self.loader.wanted(&file.connector, batches).await?;
            let part = parts.entry(file.connector.clone()).or_insert_with(|| LoadPart {
                connector: Arc::clone(connector),
                batches: Vec::new(),
                proposals: Vec::new(),
            });
            part.batches.extend(batches);
        }
        add_direct_origins(leased, &parts, &mut origins);
        let mut parts: Vec<LoadPart> = parts.into_values().collect();
        for part in &mut parts {
            self.resolver.prepare(part).await?;
        }
        Ok(BatchToLoad {
            micro_batch_id: leased.id,
            source_partition_id: leased.source_partition_id.0,
            offsets: leased.offsets,
            origins,
            parts,
            replaces: leased.replaces,
            mask_rev: leased.mask_rev,
        })
    }
}

/// Does the work, renewing the lease three times before it runs out. A renewal that fails is tried again at the next turn: the
/// lease is a hint, and a second loader does no harm.
pub async fn holding_lease<T>(
    catalog: &Pool,
    ids: &[MicroBatchId],
    lease_seconds: f64,
    work: impl Future<Output = T>,
) -> T {
    let turn = Duration::from_secs_f64(lease_seconds / 3.0);
    let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + turn, turn);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = turns.tick() => {
                let renewed = match postgres::get(catalog).await.map_err(CatalogError::Connect) {
                    Ok(client) => catalog::renew_load_lease(&client, ids, lease_seconds).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = renewed {
                    let micro_batch = ids.first().map(MicroBatchId::to_string);
                    tracing::warn!(component = "load", micro_batch, error = %error, "could not renew a lease");
                }
            }
        }
    }
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
