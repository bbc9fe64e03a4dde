//! stub
use crate::config::*;
use crate::error::ErrorKind;
use crate::types::*;
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
pub struct LoadPart {
    pub connector: Arc<Connector>,
    pub batches: Vec<RecordBatch>,
}
pub struct BatchToLoad {
    pub micro_batch_id: MicroBatchId,
    pub source_partition_id: i64,
    pub offsets: OffsetRange,
    pub origins: HashMap<(i64, i32), (DateTime<Utc>, i64)>,
    pub parts: Vec<LoadPart>,
}
pub struct Loader;
pub struct LoadCounts;
pub enum LoadOutcome {
    Loaded(LoadCounts),
    AlreadyLoaded,
    NotLive,
}
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("x")]
    X,
}
impl LoadError {
    pub fn kind(&self) -> ErrorKind {
        loop {}
    }
}
impl Loader {
    pub async fn new(_p: Pool, _c: &Connectors) -> Result<Self, LoadError> {
        loop {}
    }
    pub async fn load<E: std::error::Error + Send + Sync + 'static, F: Future<Output = Result<bool, E>>>(
        &self,
        _b: &BatchToLoad,
        _s: impl FnOnce() -> F,
    ) -> Result<LoadOutcome, LoadError> {
        loop {}
    }
}
