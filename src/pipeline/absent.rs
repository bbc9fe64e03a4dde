//! Offsets at the end of the log that hold no message: transaction markers, aborted or compacted messages.
//!
//! They are never delivered, so a group that has read everything would still seem to lag. When a
//! topic partition is idle, the end of the log is read first and the messages second: where none comes
//! before that end, all offsets up to it are absent.

use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use tokio::time::Instant;

use crate::client::kafka::{self, KafkaError};
use crate::config::KafkaSettings;
use crate::error::chain;
use crate::types::TopicPartition;

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct AbsentTail {
    settings: KafkaSettings,
    topic_partition: TopicPartition,
    idle_wait: Duration,
    idle_since: Instant,
}

impl AbsentTail {
    pub(super) fn new(settings: KafkaSettings, topic_partition: TopicPartition, idle_wait: Duration) -> Self {
        Self { settings, topic_partition, idle_wait, idle_since: Instant::now() }
    }

    pub(super) fn message_seen(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Returns the end of the log where nothing but absent offsets lies between `position` and it.
    /// Waits for ever otherwise. Safe to drop and call again.
    pub(super) async fn wait(&mut self, position: i64) -> i64 {
        loop {
            tokio::time::sleep_until(self.idle_since + self.idle_wait).await;
            self.idle_since = Instant::now();
            match self.look(position).await {
                Ok(Some(end)) => return end,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(component = "source", topic_partition = %self.topic_partition, error = %chain(&error), "could not look at the end of the log");
                }
            }
        }
    }

    async fn look(&self, position: i64) -> Result<Option<i64>, KafkaError> {
        let (settings, topic_partition) = (self.settings.clone(), self.topic_partition.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let inspector = kafka::inspector(&settings)?;
            let (_, end) = kafka::watermarks(inspector.client(), &topic_partition, KAFKA_TIMEOUT)?;
            if end <= position {
                return Ok(None);
            }
            let next = kafka::first_message_from(&settings, &topic_partition, position, KAFKA_TIMEOUT)?;
            Ok(next.is_none_or(|message| message.offset >= end).then_some(end))
        });
        looked.await.unwrap_or(Ok(None))
    }
}
