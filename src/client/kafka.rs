//! Kafka as the stages use it: configuration that keeps the guarantee, and the questions that
//! rdkafka's safe interface cannot ask.
//!
//! All functions that take a `timeout` block for up to that long: call them on a blocking thread.
//! Committed metadata is read raw, since rdkafka's accessor panics where it is not UTF-8, and any
//! tool may have written it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError as RdKafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureProducer;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::KafkaSettings;
use crate::error::ErrorKind;
use crate::types::{OffsetRange, TopicPartition};

#[derive(Debug, Error)]
pub enum KafkaError {
    #[error("could not create the Kafka client: check kafka.brokers and kafka.properties")]
    Create(#[source] RdKafkaError),
    #[error("could not read the metadata of the Kafka cluster at {brokers}: check that it is reachable")]
    Metadata { brokers: String, source: RdKafkaError },
    #[error("the Kafka cluster at {brokers} does not tell its id")]
    NoClusterId { brokers: String },
    #[error("topic `{topic}` does not exist: create it with `sluice topics apply`")]
    TopicMissing { topic: String },
    #[error("could not read the committed offsets of the group")]
    Committed(#[source] RdKafkaError),
    #[error("could not read the first and last offsets of {topic_partition}")]
    Watermarks { topic_partition: TopicPartition, source: RdKafkaError },
    #[error("could not look up offsets by time")]
    Times(#[source] RdKafkaError),
    #[error("could not read {topic_partition} from offset {offset}")]
    Probe { topic_partition: TopicPartition, offset: i64, source: RdKafkaError },
    #[error("could not subscribe")]
    Subscribe(#[source] RdKafkaError),
    #[error("could not start reading {topic_partition}")]
    Assign { topic_partition: TopicPartition, source: RdKafkaError },
    #[error("could not commit the offset of {topic_partition}")]
    Commit { topic_partition: TopicPartition, source: RdKafkaError },
    #[error("could not send to topic `{topic}`")]
    Send { topic: String, source: RdKafkaError },
}

impl KafkaError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Create(_) => ErrorKind::Invalid,
            _ => ErrorKind::Transient,
        }
    }
}

/// What librdkafka must be told so that offsets come from the catalog alone.
pub(super) fn base_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &settings.brokers).set("client.id", "sluice");
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Configuration of the group's consumer. `properties` come first: what the guarantee needs overrides them
/// (and was refused when the settings were read).
pub fn consumer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = base_config(settings);
    config
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed");
    for (key, value) in [("queued.min.messages", "1000"), ("queued.max.messages.kbytes", "8192")] {
        if !settings.properties.contains_key(key) {
            config.set(key, value);
        }
    }
    config
}

/// A consumer that asks questions and joins no group.
pub fn inspector(settings: &KafkaSettings) -> Result<BaseConsumer, KafkaError> {
    consumer_config(settings).create().map_err(KafkaError::Create)
}

pub fn producer(settings: &KafkaSettings) -> Result<FutureProducer, KafkaError> {
    let mut config = base_config(settings);
    config.set("enable.idempotence", "true").set("message.timeout.ms", "30000");
    config.create().map_err(KafkaError::Create)
}

/// A message of a topic partition, owned.
#[derive(Debug, Clone)]
pub struct Message {
    pub offset: i64,
    /// The broker's or producer's time, milliseconds since 1970; 0 where the message has none.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub payload: Option<Bytes>,
}

impl Message {
    pub fn from_borrowed(message: &rdkafka::message::BorrowedMessage<'_>) -> Self {
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(Bytes::copy_from_slice),
            payload: message.payload().map(Bytes::copy_from_slice),
        }
    }

    /// Tells two messages at one offset apart: SHA-256 over key and payload, each behind its length.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.key, &self.payload] {
            let bytes = part.as_deref().unwrap_or_default();
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }

    pub fn size_bytes(&self) -> u64 {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        let payload = self.payload.as_ref().map_or(0, Bytes::len);
        (key + payload) as u64
    }
}

/// What the group has committed for a topic partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    pub offset: i64,
    pub metadata: Vec<u8>,
}

/// Id of the cluster behind `brokers`.
pub fn cluster_id<C: ClientContext>(
    client: &Client<C>,
    brokers: &str,
    timeout: Duration,
) -> Result<String, KafkaError> {
    client.fetch_cluster_id(timeout).ok_or_else(|| KafkaError::NoClusterId { brokers: brokers.to_owned() })
}

/// Number of partitions of a topic.
pub fn partition_count<C: ClientContext>(
    client: &Client<C>,
    settings: &KafkaSettings,
    topic: &str,
    timeout: Duration,
) -> Result<i32, KafkaError> {
    let metadata = client
        .fetch_metadata(Some(topic), timeout)
        .map_err(|source| KafkaError::Metadata { brokers: settings.brokers.clone(), source })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found {
        Some(found) if found.error().is_none() && !found.partitions().is_empty() => Ok(found.partitions().len() as i32),
        _ => Err(KafkaError::TopicMissing { topic: topic.to_owned() }),
    }
}

/// First offset still in the log, and the first not yet readable (the last stable offset, since the
/// clients of [`consumer_config`] read committed transactions only).
pub fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic_partition: &TopicPartition,
    timeout: Duration,
) -> Result<(i64, i64), KafkaError> {
    client
        .fetch_watermarks(&topic_partition.topic, topic_partition.number, timeout)
        .map_err(|source| KafkaError::Watermarks { topic_partition: topic_partition.clone(), source })
}

/// The first offset whose message is not older than the time; topic partitions without such a message are left out.
pub fn offsets_for_time(
    inspector: &BaseConsumer,
    topic_partitions: &[TopicPartition],
    timestamp_ms: i64,
    timeout: Duration,
) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
    let mut wanted = TopicPartitionList::new();
    for topic_partition in topic_partitions {
        wanted
            .add_partition_offset(&topic_partition.topic, topic_partition.number, Offset::Offset(timestamp_ms))
            .map_err(KafkaError::Times)?;
    }
    let found = inspector.offsets_for_times(wanted, timeout).map_err(KafkaError::Times)?;
    let offset_of = |topic_partition: &TopicPartition| {
        let element = found.find_partition(&topic_partition.topic, topic_partition.number)?;
        match (element.error(), element.offset()) {
            (Err(error), _) => Some(Err(KafkaError::Times(error))),
            (Ok(()), Offset::Offset(offset)) => Some(Ok((topic_partition.clone(), offset))),
            // the broker has no message that young
            (Ok(()), _) => None,
        }
    };
    topic_partitions.iter().filter_map(offset_of).collect()
}

/// The group's committed offsets with their raw metadata; topic partitions without one are left out.
#[expect(unsafe_code, reason = "rdkafka's accessor for metadata panics where it is not UTF-8")]
pub fn committed<C: ClientContext>(
    client: &Client<C>,
    topic_partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<HashMap<TopicPartition, GroupOffset>, KafkaError> {
    let mut wanted = TopicPartitionList::new();
    for topic_partition in topic_partitions {
        wanted.add_partition(&topic_partition.topic, topic_partition.number);
    }
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: both pointers are live for the whole call; librdkafka fills the list in place.
    let code = unsafe { rdkafka::bindings::rd_kafka_committed(client.native_ptr(), wanted.ptr(), timeout_ms) };
    let code = RDKafkaErrorCode::from(code);
    if code != RDKafkaErrorCode::NoError {
        return Err(KafkaError::Committed(RdKafkaError::OffsetFetch(code)));
    }
    let mut found = HashMap::new();
    for (index, topic_partition) in topic_partitions.iter().enumerate() {
        // SAFETY: librdkafka keeps the order and the number of elements; `metadata` points at
        // `metadata_size` bytes that the list owns, or is null.
        let (offset, error, metadata) = unsafe {
            let element = &*(*wanted.ptr()).elems.add(index);
            let metadata = if element.metadata.is_null() {
                Vec::new()
            } else {
                std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
            };
            (element.offset, RDKafkaErrorCode::from(element.err), metadata)
        };
        if error != RDKafkaErrorCode::NoError {
            return Err(KafkaError::Committed(RdKafkaError::OffsetFetch(error)));
        }
        if offset >= 0 {
            found.insert(topic_partition.clone(), GroupOffset { offset, metadata });
        }
    }
    Ok(found)
}

/// The last known end of the log, from the newest fetch: no request is made.
#[expect(unsafe_code, reason = "rdkafka has no safe call for the cached watermarks")]
pub fn cached_high_watermark<C: ClientContext>(client: &Client<C>, topic_partition: &TopicPartition) -> Option<i64> {
    let topic = std::ffi::CString::new(topic_partition.topic.as_bytes()).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the client is alive, the topic is a C string, both numbers are written before the return.
    let code = unsafe {
        rdkafka::bindings::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            topic_partition.number,
            &raw mut low,
            &raw mut high,
        )
    };
    (RDKafkaErrorCode::from(code) == RDKafkaErrorCode::NoError && high >= 0).then_some(high)
}

/// The first message at or behind `offset`, or `None` where the log ends before one comes.
///
/// Offsets without a message (compacted, transaction markers, aborted) are passed over, so the
/// answer may lie behind `offset`. Blocks for up to `timeout`.
pub fn first_message_from(
    settings: &KafkaSettings,
    topic_partition: &TopicPartition,
    offset: i64,
    timeout: Duration,
) -> Result<Option<Message>, KafkaError> {
    let probe = |source| KafkaError::Probe { topic_partition: topic_partition.clone(), offset, source };
    let mut config = consumer_config(settings);
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer<DefaultConsumerContext> = config.create().map_err(KafkaError::Create)?;
    let mut wanted = TopicPartitionList::new();
    wanted
        .add_partition_offset(&topic_partition.topic, topic_partition.number, Offset::Offset(offset))
        .map_err(probe)?;
    consumer.assign(&wanted).map_err(probe)?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => return Ok(Some(Message::from_borrowed(&message))),
            Some(Err(RdKafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) if is_fatal(&error) => return Err(probe(error)),
            Some(Err(_)) | None => {}
        }
    }
    Err(probe(RdKafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)))
}

/// The messages of a range that lies before the end of the log, and the first offset that is still there: messages
/// before it are gone, or go while this reads, and are left out. Blocks while messages come, then for up to `timeout`.
pub fn messages_in(
    settings: &KafkaSettings,
    topic_partition: &TopicPartition,
    range: OffsetRange,
    timeout: Duration,
) -> Result<(i64, Vec<Message>), KafkaError> {
    let probe = |source| KafkaError::Probe { topic_partition: topic_partition.clone(), offset: range.first(), source };
    let mut config = consumer_config(settings);
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer<DefaultConsumerContext> = config.create().map_err(KafkaError::Create)?;
    let (log_first, _) = watermarks(consumer.client(), topic_partition, timeout)?;
    let mut messages = Vec::new();
    if log_first < range.next() {
        let start = Offset::Offset(range.first().max(log_first));
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(&topic_partition.topic, topic_partition.number, start).map_err(probe)?;
        consumer.assign(&wanted).map_err(probe)?;
        let mut deadline = Instant::now() + timeout;
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if message.offset() >= range.next() => break,
                Some(Ok(message)) => {
                    deadline = Instant::now() + timeout;
                    messages.push(Message::from_borrowed(&message));
                    if message.offset() + 1 == range.next() {
                        break;
                    }
                }
                Some(Err(RdKafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) if is_fatal(&error) => return Err(probe(error)),
                Some(Err(_)) | None if Instant::now() >= deadline => {
                    return Err(probe(RdKafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
    let (log_first, _) = watermarks(consumer.client(), topic_partition, timeout)?;
    messages.retain(|message| message.offset >= log_first);
    Ok((log_first, messages))
}

fn is_fatal(error: &RdKafkaError) -> bool {
    matches!(error, RdKafkaError::MessageConsumptionFatal(_))
}
