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
use crate::types::TopicPartition;

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// What is still in flight. All zero and nothing halted: settled.
#[derive(Debug, Clone, Serialize)]
pub struct InFlight {
    /// Messages that no commit covers yet.
    pub messages_unread: i64,
    pub backlog: Backlog,
    pub partitions: Vec<PartitionStatus>,
}

impl InFlight {
    pub fn is_settled(&self) -> bool {
        self.messages_unread == 0
            && self.backlog == Backlog { files_pending: 0, outbox_pending: 0, batches_unloaded: 0 }
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

/// Looks at Kafka first and at the catalog second, so that what moves meanwhile is seen at least once.
pub async fn in_flight(
    settings: &Settings,
    connectors: &Connectors,
    pool: &deadpool_postgres::Pool,
) -> Result<InFlight, SettledError> {
    let kafka_settings = settings.kafka.clone();
    let topics = connectors.topics();
    let logs = tokio::task::spawn_blocking(move || logs_of(&kafka_settings, &topics)).await??;
    let client = postgres::get(pool).await.map_err(CatalogError::Connect)?;
    let partitions = catalog::partitions(&client, &settings.kafka.group).await?;
    let positions: HashMap<(&str, i32), Option<i64>> = partitions
        .iter()
        .map(|partition| ((partition.topic.as_str(), partition.topic_partition), partition.next_offset))
        .collect();
    let messages_unread = logs
        .iter()
        .map(|(topic_partition, (first, end))| {
            let position = positions.get(&(topic_partition.topic.as_ref(), topic_partition.number)).copied().flatten();
            (end - position.unwrap_or(*first)).max(0)
        })
        .sum();
    Ok(InFlight { messages_unread, backlog: catalog::backlog(&client).await?, partitions })
}

fn logs_of(
    settings: &crate::config::KafkaSettings,
    topics: &[String],
) -> Result<Vec<(TopicPartition, (i64, i64))>, KafkaError> {
    let inspector = kafka::inspector(settings)?;
    let mut logs = Vec::new();
    for topic in topics {
        let count = kafka::partition_count(inspector.client(), settings, topic, KAFKA_TIMEOUT)?;
        for number in 0..count {
            let topic_partition = TopicPartition::new(topic.as_str(), number);
            let ends = kafka::watermarks(inspector.client(), &topic_partition, KAFKA_TIMEOUT)?;
            logs.push((topic_partition, ends));
        }
    }
    Ok(logs)
}
