//! SQL over the lake, by DataFusion.
//!
//! # Contract
//! A query sees one state of the catalog: the rows of all micro-batches that were live when it began, wherever their files
//! lie, each row once, none that is masked. What is committed, replaced or published meanwhile makes no difference;
//! where a replaced file is deleted before it was read, the query begins anew over the new state, a few times.
//! Every dataset is a table, hyphens as underscores, and `dead_letters` is one. A table has the columns of all its
//! files: one that a file lacks is null there, and where files disagree on a type it is the narrowest that takes both.
//! Statements read only. Answers are held in memory, up to as many rows as were asked for.

mod store;
mod tables;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use deadpool_postgres::Pool;
use futures::StreamExt;
use thiserror::Error;
use tokio_postgres::IsolationLevel;

use self::store::{LakeStore, is_replaced};
pub use self::tables::{TableSummary, summaries};
use crate::catalog::{self, CatalogError, LakeFile, MaskedRecord};
use crate::client::postgres;
use crate::client::s3::S3Client;

/// Beginnings of one query.
const ATTEMPTS_MAX: u32 = 5;

#[derive(Debug, Error)]
pub enum QueryError {
    #[error("could not read the catalog")]
    Catalog(#[source] CatalogError),
    /// Its text says where in the statement.
    #[error("{message}")]
    Sql { message: String, source: Box<DataFusionError> },
    #[error("could not read the lake")]
    Read(#[source] Box<DataFusionError>),
    #[error(
        "files were replaced faster than they could be read, {ATTEMPTS_MAX} times: try again when the replay is over"
    )]
    Replaced,
}

/// The lake of one group.
#[derive(Debug, Clone)]
pub struct Lake {
    pub catalog: Pool,
    pub group: String,
    pub store: S3Client,
    pub bucket: String,
    /// What sorting, grouping and joining may hold before they spill to disk.
    pub memory_bytes_max: usize,
}

/// What a query came to.
#[derive(Debug)]
pub struct Answer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// There were more rows than asked for.
    pub is_cut: bool,
}

impl Lake {
    /// Runs one statement. `rows_max`: of the answer; `None`: all.
    pub async fn query(&self, sql: &str, rows_max: Option<usize>) -> Result<Answer, QueryError> {
        for _ in 0..ATTEMPTS_MAX {
            let (files, masked) = self.files().await?;
            match self.attempt(sql, rows_max, files, &masked).await {
                Err(QueryError::Read(error)) if is_replaced(&error) => {}
                done => return done,
            }
        }
        Err(QueryError::Replaced)
    }

    /// One state of the catalog.
    pub async fn files(&self) -> Result<(Vec<LakeFile>, Vec<MaskedRecord>), QueryError> {
        let of_catalog = QueryError::Catalog;
        let mut client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect).map_err(of_catalog)?;
        let reading = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let reading = reading.start().await.map_err(CatalogError::query("begin to read")).map_err(of_catalog)?;
        catalog::lake_files(&reading, &self.group).await.map_err(of_catalog)
    }

    async fn attempt(
        &self,
        sql: &str,
        rows_max: Option<usize>,
        files: Vec<LakeFile>,
        masked: &[MaskedRecord],
    ) -> Result<Answer, QueryError> {
        let names: Vec<String> = summaries(&files).into_iter().map(|table| table.name).collect();
        let failed = |error: DataFusionError| failure(error, &names);
        let context = self.context().map_err(failed)?;
        let store = LakeStore::new(self.store.clone(), &self.bucket, &files).await;
        let store = Arc::new(store.map_err(|error| failed(error.into()))?);
        tables::register(&context, &store, files, masked).await.map_err(failed)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(sql, options).await.map_err(failed)?;
        let schema = Arc::clone(frame.schema().inner());
        let mut stream = frame.execute_stream().await.map_err(failed)?;
        let (mut batches, mut left, mut is_cut) = (Vec::new(), rows_max.unwrap_or(usize::MAX), false);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(failed)?;
            if batch.num_rows() > left {
                is_cut = true;
                batches.push(batch.slice(0, left));
                break;
            }
            left -= batch.num_rows();
            batches.push(batch);
        }
        Ok(Answer { schema, batches, is_cut })
    }

    fn context(&self) -> Result<SessionContext, DataFusionError> {
        let mut config = SessionConfig::new().with_information_schema(true);
        config.options_mut().execution.parquet.pushdown_filters = true;
        // dates and times without a zone are UTC, as everything in the lake is
        config.options_mut().execution.time_zone = Some("+00:00".to_owned());
        let pool = Arc::new(FairSpillPool::new(self.memory_bytes_max));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        Ok(SessionContext::new_with_config_rt(config, runtime))
    }
}

/// Whether the statement or the lake is to blame.
fn failure(error: DataFusionError, tables: &[String]) -> QueryError {
    let root = error.find_root();
    match root {
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => {
            QueryError::Read(Box::new(error))
        }
        _ if is_replaced(&error) => QueryError::Read(Box::new(error)),
        _ => {
            let mut message = error.strip_backtrace();
            if message.contains("table '") && message.contains("not found") {
                message = format!("{message}; the lake has: {}", tables.join(", "));
            }
            QueryError::Sql { message, source: Box::new(error) }
        }
    }
}
