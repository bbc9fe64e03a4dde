//! A migrated warehouse, micro-batches made from JSON, and short ways to ask.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use chrono::{DateTime, Utc};
use deadpool_postgres::Pool;
use serde_json::{Value, json};
use sluice::catalog::{CatalogError, Database, LiveBatch, migrate};
use sluice::client::postgres;
use sluice::config::{Connector, Connectors, PostgresSettings, load_connectors};
use sluice::error::ErrorKind;
use sluice::load::{BatchToLoad, LoadCounts, LoadError, LoadOutcome, LoadPart, Loader, TableCounts};
use sluice::types::{MicroBatchId, OffsetRange};

use crate::database::fresh_database;

pub(super) struct Warehouse {
    pub(super) pool: Pool,
    pub(super) connectors: Connectors,
    pub(super) loader: Arc<Loader>,
}

impl Warehouse {
    pub(super) async fn new() -> Self {
        Self::with(connectors()).await
    }

    pub(super) async fn with(connectors: Connectors) -> Self {
        Self::made(&fresh_database().await, connectors).await
    }

    /// In an empty database.
    pub(super) async fn on(dsn: &str) -> Self {
        Self::made(dsn, connectors()).await
    }

    async fn made(dsn: &str, connectors: Connectors) -> Self {
        let pool = pool(dsn);
        migrate(&pool, Database::Warehouse).await.expect("migrates");
        let loader = Arc::new(Loader::new(pool.clone(), &connectors).await.expect("the schema fits"));
        Self { pool, connectors, loader }
    }

    /// A micro-batch of one message at `offset`, whose object is as old as `object_time` says.
    pub(super) fn batch(&self, offset: i64, object_time: &str, parts: &[(&str, &[Value])]) -> BatchToLoad {
        let part = |(name, rows): &(&str, &[Value])| {
            let connector = Arc::clone(self.connectors.by_name(name).expect("shipped"));
            let batches = vec![lake_rows(&connector, offset, object_time, rows)];
            LoadPart { connector, batches, proposals: Vec::new() }
        };
        BatchToLoad {
            micro_batch_id: MicroBatchId::generate(),
            source_partition_id: 1,
            offsets: OffsetRange::new(offset, offset + 1).expect("in order"),
            origins: HashMap::from([((offset, 0), (time(object_time), offset))]),
            parts: parts.iter().map(part).collect(),
            replaces: false,
            mask_rev: 0,
        }
    }

    pub(super) async fn load(&self, batch: &BatchToLoad) -> LoadCounts {
        match self.loader.load(batch, live).await.expect("loads") {
            LoadOutcome::Loaded(counts) => counts,
            other => panic!("not loaded: {other:?}"),
        }
    }

    pub(super) async fn load_rows(&self, offset: i64, connector: &str, rows: &[Value]) -> TableCounts {
        let batch = self.batch(offset, "2026-11-23T10:00:00Z", &[(connector, rows)]);
        let table = match &batch.parts[0].connector.warehouse.as_ref().expect("loaded").target {
            sluice::config::WarehouseTable::Fact(name) | sluice::config::WarehouseTable::Dimension(name) => {
                name.clone()
            }
        };
        self.load(&batch).await.tables[&table]
    }

    /// Loads a micro-batch whose connection is cut while it asks the catalog.
    pub(super) async fn cut_off(&self, batch: &BatchToLoad) {
        let cut = async || {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND state = 'idle in transaction'";
            self.execute(sql).await.expect("may do so");
            live().await
        };
        let error = self.loader.load(batch, cut).await.expect_err("its connection is gone");
        assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
    }

    /// First column of all rows, as text.
    pub(super) async fn column(&self, sql: &str) -> Vec<Option<String>> {
        let client = postgres::get(&self.pool).await.expect("connects");
        let rows = client.query(&format!("SELECT v::text FROM ({sql}) AS q (v)"), &[]).await.expect("valid SQL");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The one value.
    pub(super) async fn value(&self, sql: &str) -> String {
        let column = self.column(sql).await;
        assert_eq!(column.len(), 1, "{sql}");
        column[0].clone().unwrap_or_else(|| "null".to_owned())
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        postgres::get(&self.pool).await.expect("connects").batch_execute(sql).await
    }
}

/// The answer of a catalog that calls every micro-batch live.
pub(super) async fn live() -> Result<Option<LiveBatch>, CatalogError> {
    Ok(Some(LiveBatch::default()))
}

/// Loads, and after a transient error again, a few times. Returns the number of tries.
pub(super) async fn load_with_retries(loader: &Loader, batch: &BatchToLoad) -> Result<u32, LoadError> {
    const TRIES_MAX: u32 = 3;
    let mut tries = 1;
    loop {
        match loader.load(batch, live).await {
            Ok(_) => return Ok(tries),
            Err(error) if error.kind() == ErrorKind::Transient && tries < TRIES_MAX => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The same rows, as of a replay.
pub(super) fn replacing(mut batch: BatchToLoad) -> BatchToLoad {
    batch.micro_batch_id = MicroBatchId::generate();
    batch.replaces = true;
    batch
}

pub(super) fn pool(dsn: &str) -> Pool {
    postgres::pool(&PostgresSettings { dsn: dsn.to_owned().into(), pool_size_max: 16 }, "test").expect("a valid DSN")
}

pub(super) fn connectors() -> Connectors {
    load_connectors(&Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors")).expect("the shipped ones are valid")
}

pub(super) fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("RFC 3339")
}

pub(super) fn uuid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

pub(super) fn transaction(number: u64, amount: &str, updated_at: Option<&str>) -> Value {
    json!({"transaction_id": uuid(number), "user_id": "u-1", "product_id": "p-1", "amount": amount, "currency": "EUR",
           "quantity": 1, "source": "web", "occurred_at": "2026-11-23T09:00:00Z", "updated_at": updated_at})
}

pub(super) fn user(id: &str, name: &str, updated_at: &str) -> Value {
    json!({"user_id": id, "name": name, "email": "a@b.example", "source": "crm", "updated_at": updated_at})
}

/// As the lake's Parquet holds them: one file, one message.
fn lake_rows(connector: &Connector, offset: i64, object_time: &str, rows: &[Value]) -> RecordBatch {
    let mut decoder = ReaderBuilder::new(connector.lake_schema()).build_decoder().expect("a schema of plain types");
    let rows: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let mut row = row.clone();
            let lineage = json!({"_topic_partition": "raw-notifications/0", "_offset": offset, "_record": 0,
                                 "_row": number, "_origin_time": object_time, "_batch": "b"});
            row.as_object_mut().expect("an object").extend(lineage.as_object().expect("an object").clone());
            row
        })
        .collect();
    decoder.serialize(&rows).expect("fits the schema");
    decoder.flush().expect("fits the schema").expect("there are rows")
}
