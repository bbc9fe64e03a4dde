//! Finding the message that kills the process, and setting it aside, so that what lies behind it flows.
//!
//! # Contract
//! Every ownership that finds messages ahead is counted at its position; one that ends with its process alive is
//! taken back, and a commit forgets the position. After `limits.attempts_max` of them something ahead is suspected
//! to kill the process, and the messages that such an ownership can have reached are read **one at a time**: each is
//! counted before it is decoded and encoded for trial, while nothing else is decoded or encoded in the process, and
//! forgotten afterwards. One whose count passes `limits.attempts_max` is not processed any more:
//! - announces it one object, that object is quarantined with its claim and its first MiB (`killed_the_process`);
//! - announces it several, or is it a record, or did setting aside kill the process as often again, it is a dead
//!   letter as a whole, and its offset is `rejected`.
//!
//! What is read is divided, what is committed is not: micro-batches are cut as ever, so that in a replay they cover
//! whole what they replace and innocent messages, which are many, cost two small statements each and no
//! commit of their own. Counts and verdicts are kept until a commit covers the message.
//!
//! # What counts
//! Only an attempt that began and is not known to have ended. A stop signal, a transient error and a lost topic
//! partition take it back, so a store that does not answer and a rolling restart accuse nobody. A frozen process
//! leaves one attempt behind; the next owner's success forgets it. What publishes and loads in the same process
//! is not held up by an attempt.
//!
//! # Cancellation
//! An attempt runs in a task of its own and always ends what it began; revocation drops only the one who waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::build::{SealedBatch, build};
use super::carry::Carried;
use super::checks::Histories;
use super::chunk_log::ChunkOwner;
use super::context::TransformContext;
use super::position::{Ownership, TakeOver};
use super::process::{Manner, ProcessError, ProcessedMessage, Reader, dead_message, process};
use super::replay::Replaced;
use crate::catalog::{self, CatalogError, OwnershipBegin};
use crate::client::kafka::Message;
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::types::{OffsetRange, RejectReason};

/// Counts an ownership that begins with messages ahead, and says how careful it must be.
pub(super) async fn begin_ownership(
    context: &TransformContext,
    mut taken: TakeOver,
    log_end: i64,
) -> Result<TakeOver, CatalogError> {
    let TakeOver::From { ownership, offset, covered, .. } = &mut taken else { return Ok(taken) };
    if *offset >= log_end {
        return Ok(taken);
    }
    // as far as an ownership can come before its first commit
    let cut = offset.saturating_add_unsigned(context.batch_limits.offsets_max);
    let cut = covered.first().map_or(cut, |range| cut.max(range.offsets.next()));
    let begin = OwnershipBegin {
        id: ownership.partition,
        fence: ownership.fence,
        position: *offset,
        stretch_end: cut.saturating_add_unsigned(context.messages_in_flight_max as u64).min(log_end),
        attempts_max: context.attempts_max,
        process: &context.process,
    };
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    ownership.careful_until = catalog::begin_ownership(&client, begin).await?;
    if let Some(until) = ownership.careful_until {
        tracing::warn!(component = "source", topic_partition = %ownership.key.topic_partition, position = *offset, until, "processes keep dying here: messages are read one at a time");
    }
    Ok(taken)
}

/// It ended with the process alive. What cannot be recorded makes the next owner more careful, nothing else.
pub(super) async fn end_ownership(context: &TransformContext, ownership: &Ownership, position: i64) {
    let ended = async {
        let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
        catalog::end_ownership(&client, ownership.partition, position, ownership.fence).await
    };
    if let Err(error) = ended.await {
        tracing::debug!(component = "catalog", topic_partition = %ownership.key.topic_partition, error = %crate::error::chain(&error), "could not record that an ownership has ended");
    }
}

/// What a message is tried with.
pub(super) struct Trial {
    pub(super) context: Arc<TransformContext>,
    pub(super) ownership: Ownership,
    pub(super) retries: RetryPolicy,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) replaced: Option<Arc<Replaced>>,
}

impl Trial {
    /// Processes the message alone, or sets it aside. Transient errors are waited out, with the attempt taken back.
    pub(super) async fn run(self, message: Message) -> Result<ProcessedMessage, ProcessError> {
        let trial =
            async move { retry(&self.retries, "source", ProcessError::kind, || self.attempt(message.clone())).await };
        tokio::spawn(trial).await.map_err(ProcessError::Task)?
    }

    async fn attempt(&self, message: Message) -> Result<ProcessedMessage, ProcessError> {
        let _alone = Arc::clone(&self.context.alone).write_owned().await;
        let (offset, attempt) = (message.offset, Uuid::new_v4());
        let count = self.begin(offset, attempt).await?;
        let verdict = Verdict::of(count, self.context.attempts_max);
        let work = self.work(message, verdict);
        tokio::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = signalled(self.stop.clone()) => {
                // from now on a death says nothing
                self.withdraw(offset, attempt).await?;
                return work.await;
            }
        };
        if result.is_ok() && verdict == Verdict::Try {
            self.pass(offset, attempt).await?;
        } else {
            self.withdraw(offset, attempt).await?;
        }
        result
    }

    async fn work(&self, message: Message, verdict: Verdict) -> Result<ProcessedMessage, ProcessError> {
        let memory = self.context.budget.take(message.size_bytes());
        let manner = match verdict {
            Verdict::Try => Manner::Alone,
            Verdict::SetAside => Manner::SetAside,
            Verdict::Drop => {
                let connector = self.context.connectors.for_records(&self.ownership.key.topic_partition.topic);
                return Ok(dead_message(message, connector, RejectReason::KilledTheProcess, KILLED.to_owned(), memory));
            }
        };
        if manner == Manner::SetAside {
            tracing::error!(component = "source", topic_partition = %self.ownership.key.topic_partition, offset = message.offset, "a message has killed the process time and again: it is set aside");
        }
        // one try: a transient error must take the attempt back before the wait
        let once = RetryPolicy::until(Duration::ZERO);
        let topic_partition = self.ownership.key.topic_partition.clone();
        let reader = Reader { topic_partition, chunks: Some(ChunkOwner::of(&self.ownership)) };
        let context = Arc::clone(&self.context);
        let processed = process(context, reader, message, memory, once, self.replaced.clone(), manner).await?;
        if manner == Manner::SetAside { Ok(processed) } else { self.encode(processed).await }
    }

    /// Encoding, too, must not be what kills the process. The files are thrown away.
    async fn encode(&self, processed: ProcessedMessage) -> Result<ProcessedMessage, ProcessError> {
        let offset = processed.message.offset;
        let Some(offsets) = OffsetRange::new(offset, offset + 1) else { return Ok(processed) };
        let mut sealed = SealedBatch {
            topic_partition: self.ownership.key.topic_partition.clone(),
            fence: self.ownership.fence,
            offsets,
            messages: vec![processed],
            replaced: None,
            log_first: offset,
            carried: Carried::default(),
            redrives: None,
        };
        let context = Arc::clone(&self.context);
        let back = tokio::task::spawn_blocking(move || {
            // an error shows again when the micro-batch is built, and is told there
            drop(build(&context, &sealed, &Histories::default(), &BTreeMap::new()));
            sealed.messages.pop()
        });
        Ok(back.await.map_err(ProcessError::Task)?.expect("the message that was put in"))
    }

    async fn begin(&self, offset: i64, attempt: Uuid) -> Result<u32, CatalogError> {
        let (partition, fence) = (self.ownership.partition, self.ownership.fence);
        let count = retry(&self.retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::begin_attempt(&client, partition, fence, offset, attempt, &self.context.process).await
        });
        // fenced: its commit will be refused, so nothing is lost where nothing is tried
        Ok(count.await?.unwrap_or(u32::MAX))
    }

    async fn withdraw(&self, offset: i64, attempt: Uuid) -> Result<(), CatalogError> {
        retry(&self.retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::withdraw_attempt(&client, self.ownership.partition, offset, attempt).await
        })
        .await
    }

    async fn pass(&self, offset: i64, attempt: Uuid) -> Result<(), CatalogError> {
        retry(&self.retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::pass_attempt(&client, self.ownership.partition, offset, attempt).await
        })
        .await
    }
}

async fn signalled(mut stop: watch::Receiver<bool>) {
    // the guard that `wait_for` returns must not live across another await
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The detail of the dead letter.
pub(super) const KILLED: &str = "the process died each time while it processed this alone";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Try,
    /// Without decoding it.
    SetAside,
    /// Without even looking what it says.
    Drop,
}

impl Verdict {
    /// `count`: attempts with this one.
    fn of(count: u32, attempts_max: u32) -> Self {
        if count <= attempts_max {
            Self::Try
        } else if count <= attempts_max.saturating_mul(2) {
            Self::SetAside
        } else {
            Self::Drop
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_tried_then_set_aside_then_dropped_unread() {
        let verdicts: Vec<Verdict> = (1..=7).map(|count| Verdict::of(count, 3)).collect();
        let (tried, rest) = verdicts.split_at(3);
        assert_eq!(tried, [Verdict::Try; 3]);
        assert_eq!(rest, [Verdict::SetAside, Verdict::SetAside, Verdict::SetAside, Verdict::Drop]);
    }
}
