//! The windows that a topic partition's rows are deduped within.
//!
//! # Contract
//! Before micro-batch `[first, next)` a connector's window knows the rows of its live micro-batches below `first`, and no
//! others: it is read from the lake where it was not kept up to date by the micro-batch before, as after an owner has died,
//! a replay, a re-drive, or an object of several chunks. So a replay with the old cuts makes the rows that it made. Rows count as committed: those that a
//! mask hides are known, too.
//! # Retries
//! Transient errors, and files that are missing or damaged, are retried until the owner stops: without them rows would pass twice.
//! Nothing is committed meanwhile, and the log says which file it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::Mutex;

use super::build::SealedBatch;
use super::context::TransformContext;
use super::lake_files::{LakeFileError, read_columns};
use super::position::Ownership;
use super::process::ProcessedMessage;
use crate::catalog::{self, CatalogError};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::Connector;
use crate::error::ErrorKind;
use crate::telemetry::metrics;
use crate::transform::{Seen, TransformError, Window, seen};

#[derive(Debug, Error)]
pub enum WindowError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    File(#[from] LakeFileError),
    #[error(transparent)]
    Rows(#[from] TransformError),
}

impl WindowError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(source) => source.kind(),
            Self::File(source) => source.kind(),
            Self::Rows(source) => source.kind(),
        }
    }
}

/// Of one owner.
#[derive(Default)]
pub(super) struct Windows {
    kept: Mutex<Kept>,
}

/// By connector, as of the offset.
#[derive(Default)]
struct Kept {
    at: i64,
    windows: Arc<BTreeMap<String, Window>>,
}

impl Windows {
    /// As of the beginning of a micro-batch, for each of its connectors that has one.
    pub(super) async fn before(
        &self,
        context: &Arc<TransformContext>,
        ownership: &Ownership,
        retries: &RetryPolicy,
        sealed: &SealedBatch,
    ) -> Result<Arc<BTreeMap<String, Window>>, WindowError> {
        let mut kept = self.kept.lock().await;
        let first = sealed.offsets.first();
        if kept.at != first {
            *kept = Kept { at: first, windows: Arc::default() };
        }
        let read = sealed.messages.iter().flat_map(ProcessedMessage::connectors);
        let carried = sealed.carried.rows.iter().map(|(connector, _)| connector);
        for connector in read.chain(carried).map(|connector| connector.dataset()) {
            if connector.dedupe_window().is_none() || kept.windows.contains_key(&connector.name) {
                continue;
            }
            let started = Instant::now();
            let window =
                retry(retries, "catalog", WindowError::kind, || rebuilt(context, ownership, connector, first)).await?;
            let labels = [connector.name.as_str()];
            metrics().dedupe_rebuild_seconds.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
            Arc::make_mut(&mut kept.windows).insert(connector.name.clone(), window);
        }
        Ok(Arc::clone(&kept.windows))
    }

    /// The micro-batch that was asked for last is true. Rows that are staged are not at hand any more: they are read when
    /// they are needed.
    pub(super) async fn committed(&self, sealed: &SealedBatch, seen: BTreeMap<String, Vec<Seen>>) {
        let mut kept = self.kept.lock().await;
        let staged = sealed.messages.iter().flat_map(ProcessedMessage::staged);
        let staged: BTreeSet<&str> = staged.map(|staged| staged.connector.name.as_str()).collect();
        kept.at = sealed.offsets.next();
        // what is carried over may be of several connectors
        if sealed.carried.staged.is_some() {
            kept.windows = Arc::default();
        }
        if kept.windows.is_empty() {
            return;
        }
        let topic_partition = &sealed.topic_partition;
        let number = topic_partition.number.to_string();
        let windows = Arc::make_mut(&mut kept.windows);
        windows.retain(|name, _| !staged.contains(name.as_str()));
        for (name, seen) in seen {
            if let Some(window) = windows.get_mut(&name) {
                window.extend(seen);
                let labels = [name.as_str(), topic_partition.topic.as_ref(), number.as_str()];
                metrics().dedupe_keys.with_label_values(&labels).set(window.key_count() as i64);
            }
        }
    }

    /// What lies below the position is another than it was.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = Kept::default();
    }
}

async fn rebuilt(
    context: &TransformContext,
    ownership: &Ownership,
    connector: &Connector,
    before: i64,
) -> Result<Window, WindowError> {
    let Some(settings) = connector.dedupe_window() else { unreachable!("asked for connectors that have one") };
    let files = {
        let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
        catalog::window_files(&client, ownership.partition, &connector.name, before, settings.window_ms).await?
    };
    let newer_by = connector.warehouse.as_ref().and_then(|warehouse| warehouse.newer_by.clone());
    let mut wanted = settings.columns.clone();
    wanted.extend(newer_by);
    wanted.push(connector.staging.time.clone());
    let mut window = Window::new(settings);
    for file in &files {
        let batches = read_columns(&context.lake, &context.lake_bucket, file, wanted.clone()).await?;
        window.extend(seen(connector, batches.iter())?);
    }
    if !files.is_empty() {
        let (topic_partition, connector) = (&ownership.key.topic_partition, connector.name.as_str());
        tracing::info!(component = "commit", %topic_partition, connector, files = files.len(), keys = window.key_count(), "the keys of a window are read from the lake");
    }
    Ok(window)
}
