//! Whether nothing is in flight anywhere.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use serde::Serialize;
use thiserror::Error;

use crate::catalog::{self, Backlog, CatalogError, PartitionStatus};
use crate::client::kafka::{self, KafkaError};
use crate::client::postgres;
use crate::config::{Connectors, Settings};
use crate::error::ErrorKind;
use crate::source::assignment::OffsetTag;
use crate::types::TopicPartition;

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// What is still in flight. All zero and nothing halted: settled.
#[derive(Debug, Clone, Serialize)]
pub struct InFlight {
    /// Messages that no commit covers yet.
    pub messages_unread: i64,
    /// Topic partitions that an operator has moved and no process has taken up.
    pub resets_waiting: usize,
    pub backlog: Backlog,
    pub partitions: Vec<PartitionStatus>,
}

impl InFlight {
    pub fn is_settled(&self) -> bool {
        self.messages_unread == 0
            && self.resets_waiting == 0
            && self.partitions.iter().all(|partition| partition.halted_reason.is_none())
            && self.backlog == Backlog::default()
    }
}

#[derive(Debug, Error)]
pub enum SettledError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("a blocking task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl SettledError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kafka(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Task(_) => ErrorKind::Halt,
        }
    }
}

/// What the catalog alone knows to be in flight: cheaper than [`in_flight`], and enough to say that something is.
pub async fn backlog(pool: &deadpool_postgres::Pool) -> Result<Backlog, SettledError> {
    let client = postgres::get(pool).await.map_err(CatalogError::Connect)?;
    Ok(catalog::backlog(&client).await?)
}

/// Looks at Kafka first and at the catalog second, so that what moves meanwhile is seen at least once. The outbox moves
/// the other way, for it may announce objects on a topic that is read: what it may have sent meanwhile counts as unsent.
pub async fn in_flight(
    settings: &Settings,
    connectors: &Connectors,
    pool: &deadpool_postgres::Pool,
) -> Result<InFlight, SettledError> {
    let client = postgres::get(pool).await.map_err(CatalogError::Connect)?;
    let outbox = catalog::outbox_progress(&client).await?;
    let kafka_settings = settings.kafka.clone();
    let topics = connectors.topics();
    let logs = tokio::task::spawn_blocking(move || logs_of(&kafka_settings, &topics)).await??;
    let partitions = catalog::partitions(&client, &settings.kafka.group).await?;
    let catalog_id = catalog::catalog_id(&client).await?;
    let known = |topic_partition: &TopicPartition| {
        partitions.iter().any(|partition| {
            partition.topic == topic_partition.topic.as_ref() && partition.topic_partition == topic_partition.number
        })
    };
    let resets_waiting =
        logs.iter().filter(|(topic_partition, log)| known(topic_partition) && log.is_foreign(catalog_id)).count();
    let positions: HashMap<(&str, i32), Option<i64>> = partitions
        .iter()
        .map(|partition| ((partition.topic.as_str(), partition.topic_partition), partition.next_offset))
        .collect();
    let messages_unread = logs
        .iter()
        .map(|(topic_partition, log)| {
            let position = positions.get(&(topic_partition.topic.as_ref(), topic_partition.number)).copied().flatten();
            (log.end - position.unwrap_or(log.first)).max(0)
        })
        .sum();
    let mut backlog = catalog::backlog(&client).await?;
    let sent = catalog::outbox_progress(&client).await?.sent_since(outbox);
    backlog.outbox_pending = backlog.outbox_pending.max(sent);
    Ok(InFlight { messages_unread, resets_waiting, backlog, partitions })
}

struct Log {
    first: i64,
    end: i64,
    /// Of the group's committed offset.
    metadata: Option<Vec<u8>>,
}

impl Log {
    /// Whether the group's offset bears another mark than this catalog's.
    fn is_foreign(&self, catalog_id: uuid::Uuid) -> bool {
        let Some(metadata) = &self.metadata else { return false };
        OffsetTag::parse(metadata).is_none_or(|tag| tag.catalog_id != catalog_id)
    }
}

fn logs_of(
    settings: &crate::config::KafkaSettings,
    topics: &[String],
) -> Result<Vec<(TopicPartition, Log)>, KafkaError> {
    let inspector = kafka::inspector(settings)?;
    let mut topic_partitions = Vec::new();
    for topic in topics {
        let count = kafka::partition_count(inspector.client(), settings, topic, KAFKA_TIMEOUT)?;
        topic_partitions.extend((0..count).map(|number| TopicPartition::new(topic.as_str(), number)));
    }
    let committed = kafka::committed(inspector.client(), &topic_partitions, KAFKA_TIMEOUT)?;
    let mut logs = Vec::new();
    for topic_partition in topic_partitions {
        let (first, end) = kafka::watermarks(inspector.client(), &topic_partition, KAFKA_TIMEOUT)?;
        let metadata = committed.get(&topic_partition).map(|offset| offset.metadata.clone());
        logs.push((topic_partition, Log { first, end, metadata }));
    }
    Ok(logs)
}
