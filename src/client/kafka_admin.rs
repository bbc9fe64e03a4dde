//! Topics as the cluster has them: reading and changing through the admin API.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError as RdKafkaError, RDKafkaErrorCode};
use thiserror::Error;

use super::kafka;
use crate::config::{KafkaSettings, TopicSpec};
use crate::error::ErrorKind;

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum KafkaAdminError {
    #[error("could not create the Kafka admin client: check kafka.brokers and kafka.properties")]
    Create(#[source] RdKafkaError),
    #[error("could not read the topics of the Kafka cluster at {brokers}: check that it is reachable")]
    Metadata { brokers: String, source: RdKafkaError },
    #[error("could not {operation} topic `{topic}`")]
    Change { operation: &'static str, topic: String, source: RdKafkaError },
}

impl KafkaAdminError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Create(_) => ErrorKind::Invalid,
            Self::Metadata { .. } => ErrorKind::Transient,
            Self::Change { .. } => ErrorKind::Halt,
        }
    }
}

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualTopic {
    pub partitions: i32,
    pub replication_factor: i32,
    /// Every setting with its value, defaults included.
    pub config: BTreeMap<String, String>,
    /// The settings that were set for this topic.
    pub overridden: Vec<String>,
}

pub struct KafkaAdmin {
    client: AdminClient<DefaultClientContext>,
    brokers: String,
}

impl KafkaAdmin {
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaAdminError> {
        let client = kafka::base_config(settings).create().map_err(KafkaAdminError::Create)?;
        Ok(Self { client, brokers: settings.brokers.clone() })
    }

    /// The topic, or `None` where there is none. Blocks for the metadata: a few milliseconds, at most ten seconds.
    pub async fn describe(&self, topic: &str) -> Result<Option<ActualTopic>, KafkaAdminError> {
        let metadata_failed = |source| KafkaAdminError::Metadata { brokers: self.brokers.clone(), source };
        let metadata = self.client.inner().fetch_metadata(Some(topic), TIMEOUT).map_err(metadata_failed)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none())
        else {
            return Ok(None);
        };
        if found.partitions().is_empty() {
            return Ok(None);
        }
        let failed = |source| KafkaAdminError::Change { operation: "describe", topic: topic.to_owned(), source };
        let described =
            self.client.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await.map_err(failed)?;
        let mut actual = ActualTopic {
            partitions: found.partitions().len() as i32,
            replication_factor: found.partitions().iter().map(|one| one.replicas().len() as i32).min().unwrap_or(0),
            config: BTreeMap::new(),
            overridden: Vec::new(),
        };
        for resource in described {
            let resource = resource.map_err(|code| failed(RdKafkaError::AdminOp(code)))?;
            for entry in resource.entries {
                if matches!(entry.source, rdkafka::admin::ConfigSource::DynamicTopic) {
                    actual.overridden.push(entry.name.clone());
                }
                actual.config.insert(entry.name, entry.value.unwrap_or_default());
            }
        }
        Ok(Some(actual))
    }

    pub async fn create(&self, spec: &TopicSpec) -> Result<(), KafkaAdminError> {
        let replication = TopicReplication::Fixed(i32::from(spec.replication_factor));
        let mut topic = NewTopic::new(&spec.name, spec.partitions, replication);
        for (name, value) in &spec.config {
            topic = topic.set(name, value);
        }
        let created = self.client.create_topics([&topic], &options()).await;
        match outcome(created, "create", &spec.name) {
            // another `apply` was faster
            Err(KafkaAdminError::Change {
                source: RdKafkaError::AdminOp(RDKafkaErrorCode::TopicAlreadyExists),
                ..
            }) => Ok(()),
            other => other,
        }
    }

    pub async fn raise_partitions(&self, topic: &str, count: i32) -> Result<(), KafkaAdminError> {
        let wanted = NewPartitions::new(topic, usize::try_from(count).unwrap_or(0));
        outcome(self.client.create_partitions([&wanted], &options()).await, "add partitions to", topic)
    }

    /// Sets these settings; the API replaces all of a topic's own settings, so those that stay are given too.
    pub async fn set_config(&self, topic: &str, config: &BTreeMap<String, String>) -> Result<(), KafkaAdminError> {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in config {
            change = change.set(name, value);
        }
        let failed =
            |source| KafkaAdminError::Change { operation: "change the settings of", topic: topic.to_owned(), source };
        let changed = self.client.alter_configs([&change], &options()).await.map_err(failed)?;
        for result in changed {
            result.map_err(|(_, code)| failed(RdKafkaError::AdminOp(code)))?;
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn outcome(
    results: Result<Vec<Result<String, (String, RDKafkaErrorCode)>>, RdKafkaError>,
    operation: &'static str,
    topic: &str,
) -> Result<(), KafkaAdminError> {
    let failed = |source| KafkaAdminError::Change { operation, topic: topic.to_owned(), source };
    for result in results.map_err(failed)? {
        result.map_err(|(_, code)| failed(RdKafkaError::AdminOp(code)))?;
    }
    Ok(())
}
