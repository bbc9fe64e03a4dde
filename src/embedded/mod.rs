//! The demo's own servers: a broker, an object store and a database, none of which must be installed but
//! PostgreSQL's binaries. The pipeline runs against them exactly as in production.
//!
//! # Contract
//! Everything listens on loopback. What is stored stays in the folder after [`Embedded::stop`]; the broker's topics
//! are in memory and gone. For demonstration only: one broker, one disk, no replication.

mod broker;
mod postgres;
mod store;
mod store_backend;
mod store_files;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::ErrorKind;

pub use broker::Broker;
pub use postgres::PostgresCluster;
pub use store::{Notify, Store, StoreOptions};

#[derive(Debug, Error)]
pub enum EmbeddedError {
    #[error("could not start the embedded broker: {0}")]
    Broker(String),
    #[error("could not prepare {path}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("could not listen on loopback")]
    Listen(#[source] std::io::Error),
    #[error(
        "PostgreSQL's `initdb` was not found: install PostgreSQL (Debian, Ubuntu: `apt-get install postgresql`; \
         Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql`) or set SLUICE_PG_BIN to the folder \
         that holds it"
    )]
    PostgresMissing,
    #[error("`{program}` failed: {detail}")]
    Postgres { program: &'static str, detail: String },
    #[error("could not create database `{database}`")]
    Database { database: String, source: tokio_postgres::Error },
    #[error("a blocking task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl EmbeddedError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PostgresMissing => ErrorKind::Invalid,
            _ => ErrorKind::Halt,
        }
    }
}

/// Where the embedded servers are.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub kafka_brokers: String,
    pub s3_endpoint: String,
    pub s3_access_key_id: String,
    pub s3_secret_access_key: String,
    pub catalog_dsn: String,
    pub warehouse_dsn: String,
}

/// All three, running.
pub struct Embedded {
    broker: Broker,
    store: Store,
    postgres: PostgresCluster,
    access_key_id: String,
    secret_access_key: String,
}

/// Topics and their numbers of partitions, as `topics/` has them.
const TOPICS: &[(&str, i32)] =
    &[("raw-notifications", 8), ("direct-events", 8), ("staged-batches", 4), ("dead-letters", 4)];

impl Embedded {
    /// Starts the servers; what they keep lies in `folder`.
    pub async fn start(folder: &Path) -> Result<Self, EmbeddedError> {
        let broker = Broker::start(TOPICS).await?;
        let (access_key_id, secret_access_key) = ("sluice".to_owned(), uuid::Uuid::new_v4().simple().to_string());
        let store = Store::start(StoreOptions {
            root: folder.join("s3"),
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
            buckets: vec!["raw".into(), "lake".into()],
            notify: Some(Notify {
                bootstrap_servers: broker.bootstrap_servers().to_owned(),
                topic: "raw-notifications".into(),
                bucket: "raw".into(),
            }),
        })
        .await?;
        let postgres =
            PostgresCluster::start(&folder.join("postgres"), &["sluice_catalog", "sluice_warehouse"]).await?;
        Ok(Self { broker, store, postgres, access_key_id, secret_access_key })
    }

    pub fn addresses(&self) -> Addresses {
        Addresses {
            kafka_brokers: self.broker.bootstrap_servers().to_owned(),
            s3_endpoint: self.store.endpoint(),
            s3_access_key_id: self.access_key_id.clone(),
            s3_secret_access_key: self.secret_access_key.clone(),
            catalog_dsn: self.postgres.dsn("sluice_catalog"),
            warehouse_dsn: self.postgres.dsn("sluice_warehouse"),
        }
    }

    /// Stops the servers, the database last.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        self.store.stop().await;
        drop(self.broker);
        self.postgres.stop().await
    }
}
