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
use super::careful::{self, Trial};
use super::carry::Carried;
use super::chunk_log::{ChunkLog, ChunkOwner};
use super::context::TransformContext;
use super::open_batch::OpenBatch;
use super::position::{Ownership, TakeOver, TakeOverError, take_over};
use super::process::{Manner, ProcessError, ProcessedMessage, Reader, process};
use super::redrive::{Redriver, Redrives};
use super::replay::ReplayPlan;
use crate::catalog;
use crate::client::kafka::Message;
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::KafkaSettings;
use crate::error::chain;
use crate::source::assignment::{HaltReason, OffsetTag};
use crate::source::consumer::{Assignment, GroupConsumer, MessageQueue};
use crate::telemetry::{guarded, metrics};
use crate::types::{OffsetRange, TopicPartition};

/// After this long without a message the end of the log is looked at for offsets without messages.
const IDLE_WAIT: Duration = Duration::from_secs(2);

/// How often the advisory offset is committed again: Kafka refuses commits during a rebalance, and an idle topic
/// partition has no next one that would carry it. Requests for re-drives are looked for as often.
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
    /// Reading was stopped below: revoked, perhaps, or what comes next was deleted.
    Interrupted,
    Halted(HaltReason),
}

/// Messages on their way, joined in offset order.
struct InFlight {
    tasks: VecDeque<JoinHandle<Result<ProcessedMessage, ProcessError>>>,
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
                Ok(Ended::Interrupted) => {
                    tracing::info!(component = "source", topic_partition = %self.topic_partition(), "reading was interrupted, taking over again");
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
        tokio::select! {
            read = retry(&retries, "catalog", catalog::CatalogError::kind, || self.context.read_schemas()) => read?,
            () = signalled(&mut revoked) => return Ok(Ended::Revoked),
        }
        let (ownership, offset, log_first, covered, must_acknowledge) = match taken {
            TakeOver::Fenced => return Ok(Ended::Fenced),
            TakeOver::Halted { ownership, reason } => {
                self.record_halt(&ownership, &reason).await;
                return Ok(Ended::Halted(reason));
            }
            TakeOver::From { ownership, offset, log_first, covered, must_acknowledge } => {
                (ownership, offset, log_first, covered, must_acknowledge)
            }
        };
        let plan = Arc::new(ReplayPlan::new(covered, log_first));
        // what the owners before have left of objects that are committed or passed over
        ChunkLog::new(&self.context, ChunkOwner::of(&ownership), None).forget_now_or_later().await;
        let ended = self.own(&ownership, offset, plan, must_acknowledge).await;
        careful::end_ownership(&self.context, &ownership, offset).await;
        ended
    }

    async fn own(
        &self,
        ownership: &Ownership,
        offset: i64,
        plan: Arc<ReplayPlan>,
        must_acknowledge: bool,
    ) -> Result<Ended, TakeOverError> {
        let start = offset.max(plan.log_first);
        let Some(queue) = self.consumer.start(&self.assignment, start)? else { return Ok(Ended::Revoked) };
        if must_acknowledge {
            if guarded!("acknowledge") {
                self.acknowledge(ownership, offset).await?;
            }
        } else {
            self.commit_offset(ownership, offset, uuid::Uuid::nil());
        }
        let ended = self.read(ownership, offset, queue, plan).await;
        if let Ended::Halted(reason) = &ended {
            self.record_halt(ownership, reason).await;
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

    /// Puts our tag on an operator's offset, and waits until Kafka has it: only then is the order carried out, so
    /// that a crash afterwards goes on with it and does not take it for another.
    async fn acknowledge(&self, ownership: &Ownership, offset: i64) -> Result<(), TakeOverError> {
        let tag = OffsetTag { catalog_id: ownership.catalog_id, fence: ownership.fence.0, batch: uuid::Uuid::nil() };
        let retries = self.retries();
        let acknowledged = retry(&retries, "source", TakeOverError::kind, || async {
            let (consumer, tag) = (self.consumer.clone(), tag.to_string());
            let topic_partition = self.topic_partition().clone();
            let commit = move || consumer.commit_tagged_and_wait(&topic_partition, offset, &tag);
            Ok(tokio::task::spawn_blocking(commit).await??)
        });
        acknowledged.await
    }

    /// The advisory copy of the catalog's position.
    fn commit_offset(&self, ownership: &Ownership, offset: i64, batch: uuid::Uuid) {
        crate::telemetry::fail_point!("offset.before_commit");
        let tag = OffsetTag { catalog_id: ownership.catalog_id, fence: ownership.fence.0, batch };
        if let Err(error) = self.consumer.commit_tagged(self.topic_partition(), offset, &tag.to_string()) {
            tracing::warn!(component = "source", topic_partition = %self.topic_partition(), error = %chain(&error), "offset commit failed, the next one carries it");
        }
    }

    async fn read(&self, ownership: &Ownership, offset: i64, mut queue: MessageQueue, plan: Arc<ReplayPlan>) -> Ended {
        let writer = BatchWriter::new(&self.context, ownership, self.retries());
        let limits = &self.context.batch_limits;
        let mut open = OpenBatch::at(offset, uuid::Uuid::nil(), plan.bound(offset));
        let mut held: Option<ProcessedMessage> = None; // behind the open micro-batch, which is complete then
        let (mut expected, mut in_flight) = (offset, InFlight { tasks: VecDeque::new() });
        let mut admitted: Option<(Message, u64)> = None;
        let (mut stop, mut revoked) = (self.stop.clone(), self.revoked.clone());
        let mut recommit = tokio::time::interval_at(Instant::now() + RECOMMIT_WAIT, RECOMMIT_WAIT);
        let mut tail = AbsentTail::new(self.kafka.clone(), self.topic_partition().clone(), IDLE_WAIT);
        let (mut redrives, mut last_read) = (Redrives::default(), None);
        loop {
            let draining = *stop.borrow();
            if draining && in_flight.tasks.is_empty() && held.is_none() {
                return self.drained(&writer, &plan, open).await;
            }
            let waits = in_flight.tasks.is_empty() && admitted.is_none() && held.is_none();
            let is_free = waits && !draining && open.messages.is_empty();
            if let Some(ended) = self.redrive(&writer, &mut redrives, is_free).await {
                return ended;
            }
            let has_room = admitted.is_none() && in_flight.tasks.len() < self.in_flight_max(ownership, expected);
            let may_read = !draining && !redrives.is_asked && has_room;
            let idle = waits && !draining && (open.messages.is_empty() || open.must_grow());
            let may_join = !in_flight.tasks.is_empty() && held.is_none() && !open.is_full(limits);
            let due = open.due(limits, last_read.filter(|_| self.is_behind(expected)));
            let must_go_on = open.must_grow() && in_flight.tasks.is_empty();
            let may_close = admitted.is_some() && in_flight.tasks.is_empty() && open.may_close();
            tokio::select! {
                biased;
                () = signalled(&mut revoked) => return Ended::Revoked,
                () = signalled(&mut stop), if !draining => {}
                _ = recommit.tick() => self.recommit(ownership, &open, &mut redrives).await,
                done = in_flight.next(), if may_join => match done {
                    Ok(processed) => held = open.push(processed),
                    Err(_) if *self.revoked.borrow() => return Ended::Revoked,
                    Err(error) => return Ended::Halted(HaltReason::InvariantViolated(chain(&error))),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some(ended) = self.cut(&writer, &plan, &mut open).await {
                        return ended;
                    }
                    held = held.take().and_then(|processed| open.push(processed));
                }
                memory = self.admit(admitted.as_ref(), must_go_on), if admitted.is_some() => {
                    let taken = admitted.take().map(|(message, _)| self.spawn(ownership, message, memory, &plan));
                    in_flight.tasks.extend(taken);
                }
                () = std::future::ready(()), if may_close => open.close(),
                message = queue.recv(), if may_read => match message {
                    None if *revoked.borrow() => return Ended::Revoked,
                    None => return Ended::Interrupted,
                    // one that is covered already can only come from before this start
                    Some(message) if message.offset < expected => {}
                    Some(message) => {
                        (expected, last_read) = (message.offset + 1, Some(Instant::now()));
                        tail.message_seen();
                        let estimate = self.estimate(ownership, &message);
                        admitted = Some((message, estimate));
                    }
                },
                end = tail.wait(open.next()), if idle => {
                    // where it must grow further, the end of the log is looked at again
                    open.extend_to(end);
                    open.close();
                }
            }
        }
    }

    async fn recommit(&self, ownership: &Ownership, open: &OpenBatch, redrives: &mut Redrives) {
        self.commit_offset(ownership, open.first, open.after);
        redrives.look(&self.context, ownership, open).await;
    }

    /// Runs micro-batches again that were asked for, where it is free to. `Some`: this ownership is over.
    async fn redrive(&self, writer: &BatchWriter<'_>, redrives: &mut Redrives, is_free: bool) -> Option<Ended> {
        if !is_free || !redrives.is_asked {
            return None;
        }
        let (mut stop, mut revoked) = (self.stop.clone(), self.revoked.clone());
        let redriver = Redriver::new(&self.context, &self.kafka, writer.ownership, self.retries());
        writer.windows.forget().await;
        let is_owner = tokio::select! {
            is_owner = redriver.run() => is_owner,
            () = signalled(&mut revoked) => return Some(Ended::Revoked),
            // it may take longer than a drain; the next owner begins anew
            () = signalled(&mut stop) => return Some(Ended::Stopped),
        };
        redrives.is_asked = false;
        self.committed.notify_waiters();
        (!is_owner).then_some(Ended::Fenced)
    }

    /// Memory for a message. Where a micro-batch must be whole and nothing else can give memory back, it is taken
    /// beyond the budget: the micro-batch fitted once.
    async fn admit(&self, admitted: Option<&(Message, u64)>, must_go_on: bool) -> MemoryShare {
        let bytes = admitted.map_or(0, |(_, bytes)| *bytes);
        if must_go_on { self.context.budget.take(bytes) } else { self.context.budget.reserve(bytes).await }
    }

    /// One that may kill the process is not looked at before it is tried.
    fn estimate(&self, ownership: &Ownership, message: &Message) -> u64 {
        let is_suspect = ownership.must_be_careful(message.offset);
        if is_suspect { message.size_bytes() } else { self.context.memory_estimate(self.topic_partition(), message) }
    }

    /// Whether the log is known to hold more than was read.
    fn is_behind(&self, expected: i64) -> bool {
        self.consumer.high_watermark(self.topic_partition()).is_some_and(|end| end > expected)
    }

    fn in_flight_max(&self, ownership: &Ownership, expected: i64) -> usize {
        if ownership.must_be_careful(expected) { 1 } else { self.context.messages_in_flight_max }
    }

    fn spawn(
        &self,
        ownership: &Ownership,
        message: Message,
        memory: MemoryShare,
        plan: &Arc<ReplayPlan>,
    ) -> JoinHandle<Result<ProcessedMessage, ProcessError>> {
        let (context, plan, retries) = (Arc::clone(&self.context), Arc::clone(plan), self.retries());
        let topic_partition = self.topic_partition().clone();
        let reader = Reader { topic_partition, chunks: Some(ChunkOwner::of(ownership)) };
        let careful = ownership.must_be_careful(message.offset).then(|| (ownership.clone(), self.stop.clone()));
        tokio::spawn(async move {
            let replaced = plan.replaced(&context.catalog, &retries, message.offset).await?;
            let Some((ownership, stop)) = careful else {
                return process(context, reader, message, memory, retries, replaced, Manner::Together).await;
            };
            Trial { context, ownership, retries, stop, replaced }.run(message).await
        })
    }

    async fn drained(&self, writer: &BatchWriter<'_>, plan: &ReplayPlan, mut open: OpenBatch) -> Ended {
        if open.messages.is_empty() || open.must_grow() {
            return Ended::Stopped;
        }
        self.cut(writer, plan, &mut open).await.unwrap_or(Ended::Stopped)
    }

    /// Commits the open micro-batch and opens the next. `Some`: this ownership is over.
    async fn cut(&self, writer: &BatchWriter<'_>, plan: &ReplayPlan, open: &mut OpenBatch) -> Option<Ended> {
        let next = open.next();
        let replaces = open.replaces();
        let full = std::mem::replace(open, OpenBatch::at(next, open.after, plan.bound(next)));
        let offsets = OffsetRange::new(full.first, next)?;
        let replaced = match plan.replaced(&self.context.catalog, &writer.retries, full.first).await {
            Ok(replaced) => replaced,
            Err(_) if *self.revoked.borrow() => return Some(Ended::Revoked),
            Err(error) => return Some(Ended::Halted(HaltReason::InvariantViolated(chain(&error)))),
        };
        let sealed = SealedBatch {
            topic_partition: self.topic_partition().clone(),
            fence: writer.ownership.fence,
            offsets,
            messages: full.messages,
            replaced,
            log_first: plan.log_first,
            carried: Carried::default(),
            redrives: None,
        };
        match writer.write(sealed).await {
            Ok(Written::Fenced) => Some(Ended::Fenced),
            Ok(written) => {
                if let Written::Committed(id) = written {
                    open.after = id.0;
                }
                if let Some(id) = replaces {
                    plan.forget(id);
                }
                self.commit_offset(writer.ownership, next, open.after);
                self.note_lag(next);
                self.committed.notify_waiters();
                None
            }
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
