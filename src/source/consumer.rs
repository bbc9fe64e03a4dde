//! The group's consumer: one thread polls, every topic partition has a queue of its own.
//!
//! # Contract
//! - The poll thread never waits for anything but Kafka. A rebalance callback only notes what was
//!   assigned and answers librdkafka with an empty `incremental_assign`; the owner of the topic
//!   partition installs its fence, decides the position and then calls [`GroupConsumer::start`],
//!   which gives the offset inside `incremental_assign`. librdkafka never picks a position by itself
//!   (`auto.offset.reset=error`).
//! - Ordering: messages of one topic partition come in offset order, each once per [`GroupConsumer::start`].
//! - Backpressure: a queue that holds more than [`QUEUE_BYTES_HIGH`] or [`QUEUE_MESSAGES_HIGH`] pauses its topic
//!   partition at the broker's side until half of it is consumed.
//! - Cancellation: a revoked topic partition's queue ends; what its owner has not committed belongs to the next owner.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as RdKafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::client::kafka::{self, KafkaError, Message};
use crate::config::KafkaSettings;
use crate::telemetry::metrics;
use crate::types::TopicPartition;

/// A queue above either of these is paused.
pub const QUEUE_BYTES_HIGH: u64 = 4 * 1024 * 1024;
pub const QUEUE_MESSAGES_HIGH: u64 = 4_000;
/// How long one poll waits; also how late a shutdown may be noticed.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// What the group decided.
#[derive(Debug)]
pub enum GroupEvent {
    Assigned(Vec<Assignment>),
    Revoked(Vec<TopicPartition>),
    /// The client cannot go on; the text is librdkafka's.
    Fatal(String),
}

/// A topic partition that this process now owns. The generation tells a later assignment of the same
/// topic partition from this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub topic_partition: TopicPartition,
    pub generation: u64,
}

struct Slot {
    generation: u64,
    /// Set while librdkafka fetches it.
    queue: Option<Queue>,
}

/// The poll thread's end of a queue. Only it holds the sender: when it is dropped, the queue ends.
#[derive(Clone)]
struct Queue {
    sender: mpsc::UnboundedSender<Message>,
    state: Arc<QueueState>,
}

#[derive(Default)]
struct QueueState {
    bytes: AtomicU64,
    messages: AtomicU64,
    paused: AtomicBool,
}

impl QueueState {
    /// Half consumed.
    fn is_low(&self) -> bool {
        self.bytes.load(Ordering::Acquire) <= QUEUE_BYTES_HIGH / 2
            && self.messages.load(Ordering::Acquire) <= QUEUE_MESSAGES_HIGH / 2
    }
}

/// The owner's end of a topic partition's queue.
pub struct MessageQueue {
    receiver: mpsc::UnboundedReceiver<Message>,
    state: Arc<QueueState>,
    consumer: GroupConsumer,
    topic_partition: TopicPartition,
}

struct Shared {
    slots: Mutex<HashMap<TopicPartition, Slot>>,
    events: mpsc::UnboundedSender<GroupEvent>,
    generations: AtomicU64,
    stopping: AtomicBool,
}

struct Context {
    shared: Arc<Shared>,
}

/// A handle on the group's consumer; clones share it.
#[derive(Clone)]
pub struct GroupConsumer {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, HashMap<TopicPartition, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(&self, list: &TopicPartitionList) {
        let mut slots = self.slots();
        let assignments = list
            .elements()
            .iter()
            .map(|element| {
                let topic_partition = TopicPartition::new(element.topic(), element.partition());
                let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
                slots.insert(topic_partition.clone(), Slot { generation, queue: None });
                Assignment { topic_partition, generation }
            })
            .collect();
        drop(slots);
        // a closed channel means the process is going down: nothing to tell
        let _ = self.events.send(GroupEvent::Assigned(assignments));
    }

    /// Forgets the topic partitions and returns those that librdkafka was fetching.
    fn revoked(&self, list: &TopicPartitionList) -> TopicPartitionList {
        let mut fetching = TopicPartitionList::new();
        let mut gone = Vec::new();
        let mut slots = self.slots();
        for element in list.elements() {
            let topic_partition = TopicPartition::new(element.topic(), element.partition());
            if slots.remove(&topic_partition).is_some_and(|slot| slot.queue.is_some()) {
                fetching.add_partition(&topic_partition.topic, topic_partition.number);
            }
            gone.push(topic_partition);
        }
        drop(slots);
        let _ = self.events.send(GroupEvent::Revoked(gone));
        fetching
    }
}

impl ClientContext for Context {
    fn error(&self, error: RdKafkaError, reason: &str) {
        metrics().errors.with_label_values(&["source", "transient"]).inc();
        tracing::warn!(component = "source", error = %error, reason, "kafka client reports an error");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let answer = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            metrics().rebalances.with_label_values(&["assign"]).inc();
            self.shared.assigned(list);
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            let event = if consumer.assignment_lost() { "lost" } else { "revoke" };
            metrics().rebalances.with_label_values(&[event]).inc();
            let fetching = self.shared.revoked(list);
            consumer.incremental_unassign(&fetching)
        };
        if let Err(error) = answer {
            tracing::error!(component = "source", error = %error, "rebalance could not be answered");
            let _ = self.shared.events.send(GroupEvent::Fatal(error.to_string()));
        }
    }

    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, _offsets: &TopicPartitionList) {
        // advisory: the catalog holds the truth, and the next commit carries it again
        if let Err(error) = result {
            metrics().errors.with_label_values(&["source", "transient"]).inc();
            tracing::warn!(component = "source", error = %error, "offset commit was refused");
        }
    }
}

impl GroupConsumer {
    /// Joins the group and starts the poll thread, which ends after [`GroupConsumer::stop`].
    pub fn join(
        settings: &KafkaSettings,
        topics: &[String],
    ) -> Result<(Self, mpsc::UnboundedReceiver<GroupEvent>, std::thread::JoinHandle<()>), KafkaError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            slots: Mutex::new(HashMap::new()),
            events,
            generations: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let consumer: BaseConsumer<Context> = kafka::consumer_config(settings)
            .create_with_context(Context { shared: Arc::clone(&shared) })
            .map_err(KafkaError::Create)?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(KafkaError::Subscribe)?;
        let this = Self { consumer: Arc::new(consumer), shared };
        let polling = this.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || polling.poll_until_stopped())
            .map_err(|error| KafkaError::Subscribe(RdKafkaError::ClientCreation(error.to_string())))?;
        Ok((this, receiver, thread))
    }

    fn poll_until_stopped(&self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            match self.consumer.poll(POLL_WAIT) {
                None => {}
                Some(Ok(message)) => self.deliver(&message),
                Some(Err(RdKafkaError::MessageConsumptionFatal(code))) => {
                    let _ = self.shared.events.send(GroupEvent::Fatal(code.to_string()));
                    return;
                }
                Some(Err(error)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
                        self.end_queues();
                    }
                    metrics().errors.with_label_values(&["source", "transient"]).inc();
                    tracing::warn!(component = "source", error = %error, "poll reports an error");
                }
            }
        }
        // leave the group, so that the others need not wait for the session to time out
        self.consumer.unsubscribe();
        for _ in 0..20 {
            if self.shared.slots().is_empty() {
                break;
            }
            let _ = self.consumer.poll(POLL_WAIT);
        }
    }

    /// Messages that somebody waits for were deleted, and librdkafka has stopped reading without saying where: every
    /// owner takes its topic partition over again and finds out.
    fn end_queues(&self) {
        let mut list = TopicPartitionList::new();
        for (topic_partition, slot) in self.shared.slots().iter_mut() {
            if slot.queue.take().is_some() {
                list.add_partition(&topic_partition.topic, topic_partition.number);
            }
        }
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::error!(component = "source", error = %error, "could not stop reading");
            let _ = self.shared.events.send(GroupEvent::Fatal(error.to_string()));
        }
    }

    fn deliver(&self, message: &rdkafka::message::BorrowedMessage<'_>) {
        let topic_partition = TopicPartition::new(message.topic(), message.partition());
        let slots = self.shared.slots();
        // a message of a topic partition that was taken away meanwhile belongs to its next owner
        let Some(Queue { sender, state }) = slots.get(&topic_partition).and_then(|slot| slot.queue.clone()) else {
            return;
        };
        drop(slots);
        metrics().kafka_messages.with_label_values(&[message.topic()]).inc();
        let message = Message::from_borrowed(message);
        let bytes = state.bytes.fetch_add(message.size_bytes(), Ordering::AcqRel) + message.size_bytes();
        let messages = state.messages.fetch_add(1, Ordering::AcqRel) + 1;
        let _ = sender.send(message);
        if bytes > QUEUE_BYTES_HIGH || messages > QUEUE_MESSAGES_HIGH {
            self.set_paused(&topic_partition, &state, true);
            // its owner may have emptied it meanwhile, and would not look again
            if state.is_low() {
                self.set_paused(&topic_partition, &state, false);
            }
        }
    }

    fn set_paused(&self, topic_partition: &TopicPartition, state: &QueueState, paused: bool) {
        if state.paused.swap(paused, Ordering::AcqRel) == paused {
            return;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic_partition.topic, topic_partition.number);
        let result = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = result {
            tracing::warn!(component = "source", %topic_partition, paused, error = %error, "could not pause or resume");
        }
    }

    /// Starts reading an assigned topic partition at `offset`. `None` where it was revoked meanwhile.
    pub fn start(&self, assignment: &Assignment, offset: i64) -> Result<Option<MessageQueue>, KafkaError> {
        let topic_partition = &assignment.topic_partition;
        let failed = |source| KafkaError::Assign { topic_partition: topic_partition.clone(), source };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic_partition.topic, topic_partition.number, Offset::Offset(offset))
            .map_err(failed)?;
        // held over the call, so that a revocation comes either before (and is seen) or after (and unassigns)
        let mut slots = self.shared.slots();
        let Some(slot) = slots.get_mut(topic_partition).filter(|slot| slot.generation == assignment.generation) else {
            return Ok(None);
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(QueueState::default());
        self.consumer.incremental_assign(&list).map_err(failed)?;
        // librdkafka remembers a pause from before it was taken away, and the new queue knows nothing of it
        self.consumer.resume(&list).map_err(failed)?;
        slot.queue = Some(Queue { sender, state: Arc::clone(&state) });
        drop(slots);
        let topic_partition = topic_partition.clone();
        Ok(Some(MessageQueue { receiver, state, consumer: self.clone(), topic_partition }))
    }

    /// Stops reading a topic partition that stays assigned (its owner was fenced, or halted).
    /// Returns whether it is still assigned.
    pub fn pause_reading(&self, assignment: &Assignment) -> Result<bool, KafkaError> {
        let topic_partition = &assignment.topic_partition;
        let mut slots = self.shared.slots();
        let Some(slot) = slots.get_mut(topic_partition).filter(|slot| slot.generation == assignment.generation) else {
            return Ok(false);
        };
        if slot.queue.take().is_some() {
            let mut list = TopicPartitionList::new();
            list.add_partition(&topic_partition.topic, topic_partition.number);
            self.consumer
                .incremental_unassign(&list)
                .map_err(|source| KafkaError::Assign { topic_partition: topic_partition.clone(), source })?;
        }
        Ok(true)
    }

    /// Commits an offset with its tag, without waiting: a copy of what the catalog says, for Kafka's tools
    /// and the lag metric.
    pub fn commit_tagged(&self, topic_partition: &TopicPartition, offset: i64, tag: &str) -> Result<(), KafkaError> {
        self.commit(topic_partition, offset, tag, CommitMode::Async)
    }

    /// The same, until the broker has it. Blocks.
    pub fn commit_tagged_and_wait(
        &self,
        topic_partition: &TopicPartition,
        offset: i64,
        tag: &str,
    ) -> Result<(), KafkaError> {
        self.commit(topic_partition, offset, tag, CommitMode::Sync)
    }

    fn commit(
        &self,
        topic_partition: &TopicPartition,
        offset: i64,
        tag: &str,
        mode: CommitMode,
    ) -> Result<(), KafkaError> {
        let failed = |source| KafkaError::Commit { topic_partition: topic_partition.clone(), source };
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&topic_partition.topic, topic_partition.number);
        element.set_offset(Offset::Offset(offset)).map_err(failed)?;
        element.set_metadata(tag);
        self.consumer.commit(&list, mode).map_err(failed)
    }

    /// The last known end of the log.
    pub fn high_watermark(&self, topic_partition: &TopicPartition) -> Option<i64> {
        kafka::cached_high_watermark(self.consumer.client(), topic_partition)
    }

    /// Leaves the group; the poll thread ends within a few seconds.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }
}

impl MessageQueue {
    /// The next message; `None` after the topic partition was revoked, or where what comes next was deleted. Safe to drop and call again.
    pub async fn recv(&mut self) -> Option<Message> {
        let message = self.receiver.recv().await?;
        self.state.bytes.fetch_sub(message.size_bytes(), Ordering::AcqRel);
        self.state.messages.fetch_sub(1, Ordering::AcqRel);
        if self.state.is_low() {
            self.consumer.set_paused(&self.topic_partition, &self.state, false);
        }
        Some(message)
    }
}
