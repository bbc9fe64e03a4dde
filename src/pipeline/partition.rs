//! The owner of one topic partition: takes it over, reads, processes, commits, until it is taken away.
//!
//! # Ordering
//! Messages are processed concurrently and joined again in offset order; micro-batches of a topic
//! partition are committed one after the other.
//! # Retries
//! Transient errors are retried for ever. Fenced but still assigned: wait a random moment, take over again.
//! # Cancellation
//! Stopping (drain) commits what is open and accumulates no more; revocation drops what is open, for
//! the next owner reads it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::absent::AbsentTail;
use super::batch_writer::{BatchWriter, WriteError, Written};
use super::budget::MemoryShare;
use super::build::SealedBatch;
use super::context::TransformContext;
use super::position::{Ownership, TakeOver, TakeOverError, take_over};
use super::process::{ProcessError, ProcessedMessage, memory_estimate, process};
use crate::catalog;
use crate::client::kafka::Message;
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::commit::Fill;
use crate::config::KafkaSettings;
use crate::error::chain;
use crate::source::assignment::{HaltReason, OffsetTag};
use crate::source::consumer::{Assignment, GroupConsumer, MessageQueue};
use crate::telemetry::metrics;
use crate::types::{OffsetRange, TopicPartition};

/// After this long without a message the end of the log is looked at for offsets without messages.
const IDLE_WAIT: Duration = Duration::from_secs(2);

/// How often the advisory offset is committed again: Kafka refuses commits during a rebalance, and an idle topic
/// partition has no next one that would carry it.
const RECOMMIT_WAIT: Duration = Duration::from_secs(5);

/// What the owner needs.
pub struct PartitionWorker {
    pub context: Arc<TransformContext>,
    pub kafka: KafkaSettings,
    pub consumer: GroupConsumer,
    pub assignment: Assignment,
    /// True: drain and end.
    pub stop: watch::Receiver<bool>,
    /// True: the topic partition was taken away.
    pub revoked: watch::Receiver<bool>,
    /// Woken after every commit, so that publish and load need not wait for their interval.
    pub committed: Arc<tokio::sync::Notify>,
}

enum Ended {
    Stopped,
    Revoked,
    Fenced,
    Halted(HaltReason),
}

/// Messages on their way, joined in offset order.
struct InFlight {
    tasks: VecDeque<JoinHandle<Result<ProcessedMessage, ProcessError>>>,
}

/// The open micro-batch.
struct Open {
    first: i64,
    /// The micro-batch before it; nil where this ownership has committed none yet.
    after: uuid::Uuid,
    messages: Vec<ProcessedMessage>,
    fill: Fill,
    since: Option<Instant>,
}

impl PartitionWorker {
    fn topic_partition(&self) -> &TopicPartition {
        &self.assignment.topic_partition
    }

    /// Runs until the topic partition is taken away, halted, or the process drains.
    pub async fn run(self) {
        loop {
            match self.own_once().await {
                Ok(Ended::Stopped | Ended::Revoked) => return,
                Ok(Ended::Halted(reason)) => return self.halted(&reason),
                Ok(Ended::Fenced) => {
                    tracing::info!(component = "source", topic_partition = %self.topic_partition(), "fenced while assigned, taking over again");
                }
                Err(error) => {
                    metrics().errors.with_label_values(&["source", error.kind().as_str()]).inc();
                    tracing::error!(component = "source", topic_partition = %self.topic_partition(), error = %chain(&error), "could not take a topic partition over");
                }
            }
            match self.consumer.pause_reading(&self.assignment) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(component = "source", error = %chain(&error), "could not stop reading");
                }
            }
            if !self.wait_a_random_moment().await {
                return;
            }
        }
    }

    async fn wait_a_random_moment(&self) -> bool {
        let jitter = u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 10;
        let (mut stop, mut revoked) = (self.stop.clone(), self.revoked.clone());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500 + jitter)) => true,
            () = signalled(&mut stop) => false,
            () = signalled(&mut revoked) => false,
        }
    }

    fn halted(&self, reason: &HaltReason) {
        let number = self.topic_partition().number.to_string();
        metrics()
            .partitions_halted
            .with_label_values(&[self.topic_partition().topic.as_ref(), &number, reason.label()])
            .set(1);
        tracing::error!(component = "source", topic_partition = %self.topic_partition(), reason = reason.label(), "topic partition halted: {reason}");
        if let Err(error) = self.consumer.pause_reading(&self.assignment) {
            tracing::warn!(component = "source", error = %chain(&error), "could not stop reading");
        }
    }

    fn retries(&self) -> RetryPolicy {
        RetryPolicy::unless(self.revoked.clone())
    }

    /// One ownership: from the fence to its end.
    async fn own_once(&self) -> Result<Ended, TakeOverError> {
        let mut revoked = self.revoked.clone();
        let retries = self.retries();
        let taken = tokio::select! {
            taken = retry(&retries, "source", TakeOverError::kind, || take_over(&self.context, &self.kafka, self.topic_partition())) => taken?,
            () = signalled(&mut revoked) => return Ok(Ended::Revoked),
        };
        let (ownership, offset) = match taken {
            TakeOver::Fenced => return Ok(Ended::Fenced),
            TakeOver::Halted { ownership, reason } => {
                self.record_halt(&ownership, &reason).await;
                return Ok(Ended::Halted(reason));
            }
            TakeOver::From { ownership, offset } => (ownership, offset),
        };
        let Some(queue) = self.consumer.start(&self.assignment, offset)? else { return Ok(Ended::Revoked) };
        self.commit_offset(&ownership, offset, uuid::Uuid::nil());
        let ended = self.read(&ownership, offset, queue).await;
        if let Ended::Halted(reason) = &ended {
            self.record_halt(&ownership, reason).await;
        }
        Ok(ended)
    }

    async fn record_halt(&self, ownership: &Ownership, reason: &HaltReason) {
        let text = format!("{}: {reason}", reason.label());
        let retries = self.retries();
        let recorded = retry(&retries, "catalog", catalog::CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(catalog::CatalogError::Connect)?;
            catalog::record_halt(&client, ownership.partition, ownership.fence, &text).await
        });
        if let Err(error) = recorded.await {
            tracing::warn!(component = "catalog", error = %chain(&error), "could not record why a topic partition is halted");
        }
    }

    /// The advisory copy of the catalog's position.
    fn commit_offset(&self, ownership: &Ownership, offset: i64, batch: uuid::Uuid) {
        crate::telemetry::fail_point!("offset.before_commit");
        let tag = OffsetTag { catalog_id: ownership.catalog_id, fence: ownership.fence.0, batch };
        if let Err(error) = self.consumer.commit_tagged(self.topic_partition(), offset, &tag.to_string()) {
            tracing::warn!(component = "source", topic_partition = %self.topic_partition(), error = %chain(&error), "offset commit failed, the next one carries it");
        }
    }

    async fn read(&self, ownership: &Ownership, offset: i64, mut queue: MessageQueue) -> Ended {
        let writer = BatchWriter { context: &self.context, ownership, retries: self.retries() };
        let mut open = Open::at(offset);
        let mut expected = offset;
        let mut in_flight = InFlight { tasks: VecDeque::new() };
        let mut admitted: Option<(Message, u64)> = None;
        let (mut stop, mut revoked) = (self.stop.clone(), self.revoked.clone());
        let mut recommit = tokio::time::interval_at(Instant::now() + RECOMMIT_WAIT, RECOMMIT_WAIT);
        let mut tail = AbsentTail::new(self.kafka.clone(), self.topic_partition().clone(), IDLE_WAIT);
        loop {
            let draining = *stop.borrow();
            if draining && in_flight.tasks.is_empty() {
                return self.drained(&writer, open).await;
            }
            let may_read =
                !draining && admitted.is_none() && in_flight.tasks.len() < self.context.messages_in_flight_max;
            let idle = in_flight.tasks.is_empty() && open.messages.is_empty() && admitted.is_none();
            let due =
                if open.is_full(&self.context) { Instant::now() } else { open.due(self.context.batch_limits.age_max) };
            tokio::select! {
                biased;
                () = signalled(&mut revoked) => return Ended::Revoked,
                () = signalled(&mut stop), if !draining => {}
                _ = recommit.tick() => self.commit_offset(ownership, open.first, open.after),
                done = in_flight.next(), if !in_flight.tasks.is_empty() && !open.is_full(&self.context) => match done {
                    Ok(processed) => open.push(processed),
                    Err(_) if *self.revoked.borrow() => return Ended::Revoked,
                    Err(error) => return Ended::Halted(HaltReason::InvariantViolated(chain(&error))),
                },
                () = tokio::time::sleep_until(due), if open.is_full(&self.context) || open.since.is_some() => {
                    if let Some(ended) = self.cut(&writer, &mut open).await {
                        return ended;
                    }
                }
                memory = self.context.budget.reserve(admitted.as_ref().map_or(0, |(_, bytes)| *bytes)), if admitted.is_some() => {
                    if let Some((message, _)) = admitted.take() {
                        in_flight.tasks.push_back(self.spawn(message, memory));
                    }
                }
                message = queue.recv(), if may_read => match message {
                    None => return Ended::Revoked,
                    // one that is covered already can only come from before this start
                    Some(message) if message.offset < expected => {}
                    Some(message) => {
                        expected = message.offset + 1;
                        tail.message_seen();
                        let estimate = memory_estimate(&message);
                        admitted = Some((message, estimate));
                    }
                },
                end = tail.wait(open.first), if idle && !draining => {
                    open.extend_to(end);
                    if let Some(ended) = self.cut(&writer, &mut open).await {
                        return ended;
                    }
                }
            }
        }
    }

    fn spawn(&self, message: Message, memory: MemoryShare) -> JoinHandle<Result<ProcessedMessage, ProcessError>> {
        let context = Arc::clone(&self.context);
        tokio::spawn(process(context, self.topic_partition().clone(), message, memory, self.retries()))
    }

    async fn drained(&self, writer: &BatchWriter<'_>, mut open: Open) -> Ended {
        if open.messages.is_empty() {
            return Ended::Stopped;
        }
        self.cut(writer, &mut open).await.unwrap_or(Ended::Stopped)
    }

    /// Commits the open micro-batch and opens the next. `Some`: this ownership is over.
    async fn cut(&self, writer: &BatchWriter<'_>, open: &mut Open) -> Option<Ended> {
        let next = open.next();
        let full = std::mem::replace(open, Open::at(next));
        let offsets = OffsetRange::new(full.first, next)?;
        let sealed = SealedBatch {
            topic_partition: self.topic_partition().clone(),
            fence: writer.ownership.fence,
            offsets,
            messages: full.messages,
        };
        match writer.write(sealed).await {
            Ok(Written::Committed(id)) => {
                open.after = id.0;
                self.commit_offset(writer.ownership, next, id.0);
                self.note_lag(next);
                self.committed.notify_waiters();
                None
            }
            Ok(Written::Fenced) => Some(Ended::Fenced),
            Err(_) if *self.revoked.borrow() => Some(Ended::Revoked),
            Err(error) => Some(Ended::Halted(self.halt_reason(&error))),
        }
    }

    fn halt_reason(&self, error: &WriteError) -> HaltReason {
        metrics().errors.with_label_values(&["catalog", error.kind().as_str()]).inc();
        tracing::error!(component = "commit", topic_partition = %self.topic_partition(), error = %chain(error), "a micro-batch was refused");
        HaltReason::InvariantViolated(chain(error))
    }

    fn note_lag(&self, next: i64) {
        let topic_partition = self.topic_partition();
        if let Some(high) = self.consumer.high_watermark(topic_partition) {
            metrics()
                .kafka_lag
                .with_label_values(&[topic_partition.topic.as_ref(), &topic_partition.number.to_string()])
                .set((high - next).max(0));
        }
    }
}

/// Waits until the signal is given, or its sender is gone.
async fn signalled(signal: &mut watch::Receiver<bool>) {
    // the guard that `wait_for` returns must not live across another await
    let _ = signal.wait_for(|given| *given).await;
}

impl InFlight {
    /// The oldest message, when it is processed. Safe to drop: the task goes on.
    async fn next(&mut self) -> Result<ProcessedMessage, ProcessError> {
        let Some(task) = self.tasks.front_mut() else { return std::future::pending().await };
        let done = task.await;
        self.tasks.pop_front();
        done.map_err(ProcessError::Task)?
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Open {
    fn at(first: i64) -> Self {
        Self { first, after: uuid::Uuid::nil(), messages: Vec::new(), fill: Fill::default(), since: None }
    }

    /// The first offset it does not cover.
    fn next(&self) -> i64 {
        self.messages
            .last()
            .map_or(self.first, |last| last.message.offset + 1)
            .max(self.first + self.fill.offsets as i64)
    }

    fn push(&mut self, processed: ProcessedMessage) {
        self.fill.offsets = (processed.message.offset + 1 - self.first).unsigned_abs();
        for rows in processed.rows() {
            self.fill.rows += rows.row_count;
            self.fill.bytes += rows.unpacked_bytes;
        }
        self.since.get_or_insert_with(Instant::now);
        self.messages.push(processed);
    }

    /// Covers offsets that the log has no messages for.
    fn extend_to(&mut self, end: i64) {
        self.fill.offsets = (end - self.first).unsigned_abs();
    }

    fn is_full(&self, context: &TransformContext) -> bool {
        context.batch_limits.reached(self.fill)
    }

    /// When it must be cut whatever it holds.
    fn due(&self, age_max: Duration) -> Instant {
        match self.since {
            Some(since) => since + age_max,
            None => Instant::now(),
        }
    }
}
