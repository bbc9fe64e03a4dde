//! A reload: the warehouse compares what it has loaded with the lake, and mends the difference. No message is read.
//!
//! # Ordering
//! A page of micro-batches is marked stale in the warehouse first; then the catalog forgets that they are loaded, and
//! loaders take them up. The other way round a loader would find them loaded and say so, and the order would be lost.
//! # Crash consistency
//! A crash between the two leaves rows marked stale that nobody takes up, which changes no row and hides none: readers
//! do not look at the mark, and whoever orders the reload again marks them again.

use deadpool_postgres::Pool;
use serde::Serialize;
use thiserror::Error;

use crate::catalog::{self, CatalogError, LoadedBatch, ReloadFilter};
use crate::client::postgres::{self, PostgresError};
use crate::error::ErrorKind;
use crate::load::{self, LoadError};
use crate::types::MicroBatchId;

const PAGE: i64 = 1000;

/// What will be loaded again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    pub micro_batch_count: u64,
    pub row_count: i64,
}

#[derive(Debug, Error)]
pub enum ReloadError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("could not reach the warehouse")]
    Warehouse(#[source] PostgresError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ReloadError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::Warehouse(error) => error.kind(),
            Self::Load(error) => error.kind(),
        }
    }
}

/// Orders it for the live micro-batches of a group that are loaded; those that are not will be loaded anyway.
/// May be repeated.
pub async fn reload(
    catalog: &Pool,
    warehouse: &Pool,
    group: &str,
    filter: &ReloadFilter,
) -> Result<Reloaded, ReloadError> {
    let mut done = Reloaded::default();
    let mut after: Option<MicroBatchId> = None;
    loop {
        let client = postgres::get(catalog).await.map_err(CatalogError::Connect)?;
        let page = catalog::loaded_batches(&client, group, filter, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(done) };
        after = Some(last.id);
        let in_warehouse = postgres::get(warehouse).await.map_err(ReloadError::Warehouse)?;
        load::mark_stale(&in_warehouse, &page).await?;
        drop(in_warehouse);
        let ids: Vec<MicroBatchId> = page.iter().map(|batch: &LoadedBatch| batch.id).collect();
        catalog::forget_loaded(&client, &ids).await?;
        done.micro_batch_count += page.len() as u64;
        done.row_count += page.iter().map(|batch| batch.row_out_count).sum::<i64>();
    }
}
