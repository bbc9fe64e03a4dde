//! What the workers of a process share, built once at start.

use std::sync::Arc;

use deadpool_postgres::Pool;

use super::budget::MemoryBudget;
use super::claims::CatalogClaims;
use super::decode_rows::{decode_limits, held_whole};
use super::evolution::EvolvedSchemas;
use super::parking::Parked;
use super::process::{announced_memory, memory_estimate};
use crate::catalog::{self, CatalogError};
use crate::client::kafka::Message;
use crate::client::postgres;
use crate::client::rate::RequestRate;
use crate::client::s3::S3Client;
use crate::commit::BatchLimits;
use crate::config::{Connector, Connectors, KeyEncoding, Limits, Settings};
use crate::decode::{DecodeLimits, is_read_whole};
use crate::source::notification::ObjectEvent;
use crate::source::object_reader::ObjectReader;
use crate::transform::TransformError;
use crate::types::TopicPartition;

/// Everything the transform role needs besides Kafka.
pub struct TransformContext {
    pub connectors: Connectors,
    /// How rows are read, and what their data made of it.
    pub(super) schemas: EvolvedSchemas,
    pub objects: ObjectReader<CatalogClaims>,
    pub lake: S3Client,
    pub lake_bucket: String,
    /// One store holds raw and lake: our own writes are announced to us as well.
    pub lake_is_raw_store: bool,
    pub catalog: Pool,
    pub budget: MemoryBudget,
    pub batch_limits: BatchLimits,
    /// Of records and rows; of objects: [`TransformContext::limits_of`].
    pub decode_limits: DecodeLimits,
    limits: Limits,
    /// `limits.chunk_bytes`
    pub chunk_bytes: u64,
    /// Connectors that are stopped.
    pub parked: Parked,
    /// Held for reading while rows are decoded or encoded, for writing while a message is tried alone.
    pub alone: Arc<tokio::sync::RwLock<()>>,
    /// `limits.attempts_max`
    pub attempts_max: u32,
    /// Messages of one topic partition that are processed at once.
    pub messages_in_flight_max: usize,
    pub cluster_id: String,
    pub consumer_group: String,
    pub outbox_topic: String,
    /// Names this process in the history of fences.
    pub process: String,
}

impl TransformContext {
    /// Plans every connector's expectations.
    pub fn new(
        settings: &Settings,
        connectors: Connectors,
        catalog: Pool,
        cluster_id: String,
        catalog_id: uuid::Uuid,
    ) -> Result<Self, TransformError> {
        let schemas = EvolvedSchemas::new(&connectors.all)?;
        let rate = RequestRate::new(settings.limits.s3_requests_per_s);
        let raw = S3Client::new("raw", &settings.s3.raw, rate.clone());
        let claims = CatalogClaims::new(catalog.clone(), cluster_id.clone(), settings.kafka.group.clone());
        let limits = &settings.limits;
        Ok(Self {
            connectors,
            schemas,
            objects: ObjectReader::new(raw, claims, limits),
            lake: S3Client::new("lake", &settings.s3.lake, rate).owned_by(catalog_id),
            lake_bucket: settings.s3.lake_bucket.clone(),
            lake_is_raw_store: settings.s3.lake.endpoint == settings.s3.raw.endpoint,
            catalog,
            budget: MemoryBudget::new(limits.memory_bytes_max),
            batch_limits: BatchLimits::new(limits),
            decode_limits: DecodeLimits::new(limits),
            limits: limits.clone(),
            chunk_bytes: limits.chunk_bytes,
            parked: Parked::default(),
            alone: Arc::default(),
            attempts_max: limits.attempts_max,
            messages_in_flight_max: limits.objects_in_flight_max.max(1),
            cluster_id,
            consumer_group: settings.kafka.group.clone(),
            outbox_topic: settings.kafka.staged_batches_topic.clone(),
            process: process_name(),
        })
    }

    /// Limits of an object that is held in memory with its rows.
    pub(super) fn limits_held_whole(&self) -> DecodeLimits {
        held_whole(&self.limits)
    }

    /// Limits of a connector's objects.
    pub(super) fn limits_of(&self, connector: &Connector) -> DecodeLimits {
        decode_limits(&self.limits, connector)
    }

    /// How much of an object of the connector is held at once.
    pub(super) fn chunk_bytes_of(&self, connector: &Connector) -> u64 {
        if is_read_whole(&connector.source.format) { u64::MAX } else { self.chunk_bytes }
    }

    /// What the memory budget is asked for before a message is processed: bytes.
    pub(super) fn memory_estimate(&self, topic_partition: &TopicPartition, message: &Message) -> u64 {
        memory_estimate(message, |event| {
            let chunk_bytes =
                self.connector_for(topic_partition, event).map(|connector| self.chunk_bytes_of(&connector));
            announced_memory(event, chunk_bytes.unwrap_or(self.chunk_bytes))
        })
    }

    /// Reads what the catalog knows of schemas that data made of connectors. To be called before rows are read.
    pub(super) async fn read_schemas(&self) -> Result<(), CatalogError> {
        let evolving: Vec<(&str, &str)> = self
            .connectors
            .all
            .iter()
            .filter(|connector| connector.evolves())
            .map(|connector| (connector.name.as_str(), connector.schema_revision.as_str()))
            .collect();
        if evolving.is_empty() {
            return Ok(());
        }
        let client = postgres::get(&self.catalog).await.map_err(CatalogError::Connect)?;
        for (connector, fields) in catalog::schema_versions(&client, &evolving).await? {
            if let Err(error) = self.schemas.remember(&connector, &fields) {
                tracing::error!(component = "decode", connector = %connector, error = %crate::error::chain(&error), "a schema in the catalog does not fit the connector, it is left out");
            }
        }
        Ok(())
    }

    /// The connector that wants an object under any spelling of its key, tried in order.
    pub fn connector_for(&self, topic_partition: &TopicPartition, event: &ObjectEvent) -> Option<Arc<Connector>> {
        if event.bucket == self.lake_bucket && self.lake_is_raw_store {
            return None;
        }
        let keys = event.key_candidates(KeyEncoding::Auto);
        keys.iter().find_map(|key| self.connectors.for_object(&topic_partition.topic, &event.bucket, key).cloned())
    }
}

/// Host and process id: `pod-7/1234`.
fn process_name() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned());
    format!("{host}/{}", std::process::id())
}
