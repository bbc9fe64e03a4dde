use std::fmt;
use std::sync::Arc;

/// A partition of a Kafka topic. Never called just "partition": a [`super::TablePartition`] is another thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    /// Number of the partition within the topic, from 0.
    pub number: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, number: i32) -> Self {
        Self { topic: topic.into(), number }
    }
}

impl fmt::Display for TopicPartition {
    /// `topic/3`, the spelling of the lineage column `_topic_partition`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}
