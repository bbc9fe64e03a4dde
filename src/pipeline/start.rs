//! What must be there before anything runs: reachable servers, topics, buckets, schemas.
//!
//! # Retries
//! Unreachable servers are retried until `limits.start_deadline`; then starting fails with one line that says
//! what to do. What a retry cannot mend (a missing topic, an old schema, refused credentials) fails at once
//! where it can be told apart.

use std::time::Duration;

use deadpool_postgres::Pool;
use rdkafka::consumer::Consumer as _;
use thiserror::Error;

use crate::catalog::{self, CatalogError, Database, SchemaMismatch, check_schema};
use crate::client::kafka::{self, KafkaError};
use crate::client::postgres::{self, PostgresError};
use crate::client::rate::RequestRate;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::{S3Client, S3Error};
use crate::config::{Connectors, KafkaSettings, Settings, SourceKind};
use crate::error::ErrorKind;
use crate::telemetry::{DEPENDENCIES, metrics};

const KAFKA_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum StartError {
    #[error("kafka")]
    Kafka(#[from] KafkaError),
    #[error("catalog (SLUICE_CATALOG__DSN)")]
    Catalog(#[source] PostgresError),
    #[error("catalog")]
    CatalogId(#[source] CatalogError),
    #[error("warehouse (SLUICE_WAREHOUSE__DSN)")]
    Warehouse(#[source] PostgresError),
    #[error("schema")]
    Schema(#[from] SchemaMismatch),
    #[error("raw store (SLUICE_S3__RAW__…)")]
    Raw(#[source] S3Error),
    #[error("lake (SLUICE_S3__LAKE__…)")]
    Lake(#[source] S3Error),
    #[error("a blocking task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl StartError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kafka(KafkaError::TopicMissing { .. }) | Self::Task(_) => ErrorKind::Halt,
            Self::Kafka(error) => error.kind(),
            Self::Catalog(error) | Self::Warehouse(error) => error.kind(),
            Self::Schema(error) => error.kind(),
            Self::CatalogId(error) => error.kind(),
            Self::Raw(error) | Self::Lake(error) => error.kind(),
        }
    }

    /// The `dependency` label of `sluice_dependency_up`.
    pub fn dependency(&self) -> &'static str {
        match self {
            Self::Kafka(_) | Self::Task(_) => "kafka",
            Self::Catalog(_) | Self::CatalogId(_) | Self::Schema(_) => "catalog",
            Self::Warehouse(_) => "warehouse",
            Self::Raw(_) => "s3_raw",
            Self::Lake(_) => "s3_lake",
        }
    }
}

/// Servers that answered.
pub struct Started {
    pub catalog: Pool,
    pub warehouse: Pool,
    pub cluster_id: String,
    /// Names the catalog for ever; a restored copy keeps it.
    pub catalog_id: uuid::Uuid,
}

/// Checks every server that the roles need, each until the deadline.
pub async fn connect(settings: &Settings, connectors: &Connectors) -> Result<Started, StartError> {
    let catalog = postgres::pool(&settings.catalog, "catalog").map_err(StartError::Catalog)?;
    let warehouse = postgres::pool(&settings.warehouse, "warehouse").map_err(StartError::Warehouse)?;
    let policy = RetryPolicy::until(settings.limits.start_deadline);
    let (cluster_id, catalog_id, (), ()) = tokio::try_join!(
        retry(&policy, "kafka", StartError::kind, || check_kafka(settings.kafka.clone(), connectors.topics())),
        retry(&policy, "catalog", StartError::kind, || async {
            check_catalog(&catalog).await?;
            read_catalog_id(&catalog).await
        }),
        retry(&policy, "warehouse", StartError::kind, || check_warehouse(&warehouse)),
        retry(&policy, "s3", StartError::kind, || check_buckets(settings, connectors)),
    )?;
    for dependency in DEPENDENCIES {
        metrics().dependency_up.with_label_values(&[*dependency]).set(1);
    }
    Ok(Started { catalog, warehouse, cluster_id, catalog_id })
}

/// The cluster's id; every topic of the connectors and the outbox's must exist.
pub async fn check_kafka(settings: KafkaSettings, mut topics: Vec<String>) -> Result<String, StartError> {
    topics.push(settings.staged_batches_topic.clone());
    let asked = tokio::task::spawn_blocking(move || -> Result<String, KafkaError> {
        let inspector = kafka::inspector(&settings)?;
        for topic in &topics {
            kafka::partition_count(inspector.client(), &settings, topic, KAFKA_TIMEOUT)?;
        }
        kafka::cluster_id(inspector.client(), &settings.brokers, KAFKA_TIMEOUT)
    });
    Ok(asked.await??)
}

pub async fn check_catalog(pool: &Pool) -> Result<(), StartError> {
    let client = postgres::get(pool).await.map_err(StartError::Catalog)?;
    Ok(check_schema(&**client, Database::Catalog).await?)
}

async fn read_catalog_id(pool: &Pool) -> Result<uuid::Uuid, StartError> {
    let client = postgres::get(pool).await.map_err(StartError::Catalog)?;
    catalog::catalog_id(&client).await.map_err(StartError::CatalogId)
}

pub async fn check_warehouse(pool: &Pool) -> Result<(), StartError> {
    let client = postgres::get(pool).await.map_err(StartError::Warehouse)?;
    Ok(check_schema(&**client, Database::Warehouse).await?)
}

pub async fn check_buckets(settings: &Settings, connectors: &Connectors) -> Result<(), StartError> {
    let buckets = Buckets::new(settings, connectors);
    buckets.check_raw().await?;
    buckets.check_lake().await
}

/// The buckets that must be there.
pub(super) struct Buckets {
    raw: S3Client,
    of_connectors: Vec<String>,
    lake: S3Client,
    lake_bucket: String,
}

impl Buckets {
    pub(super) fn new(settings: &Settings, connectors: &Connectors) -> Self {
        let objects = |kind: &SourceKind| match kind {
            SourceKind::Objects { bucket, .. } => Some(bucket.clone()),
            SourceKind::Records => None,
        };
        let mut of_connectors: Vec<String> =
            connectors.all.iter().filter_map(|connector| objects(&connector.source.kind)).collect();
        of_connectors.sort_unstable();
        of_connectors.dedup();
        Self {
            raw: S3Client::new("raw", &settings.s3.raw, RequestRate::new(None)),
            of_connectors,
            lake: S3Client::new("lake", &settings.s3.lake, RequestRate::new(None)),
            lake_bucket: settings.s3.lake_bucket.clone(),
        }
    }

    pub(super) async fn check_raw(&self) -> Result<(), StartError> {
        for bucket in &self.of_connectors {
            self.raw.check_bucket(bucket).await.map_err(StartError::Raw)?;
        }
        Ok(())
    }

    pub(super) async fn check_lake(&self) -> Result<(), StartError> {
        self.lake.check_bucket(&self.lake_bucket).await.map_err(StartError::Lake)
    }
}
