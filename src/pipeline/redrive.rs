//! Re-drives: the owner of a topic partition runs a live micro-batch again because somebody asked for it.
//!
//! # Contract
//! The messages of its offsets are read again, beside the group's own reading, and processed as in a replay; what comes
//! of them replaces the micro-batch in one commit, under the owner's fence, and the position stays where it is.
//! The request is answered in that commit: whatever crashes, it is carried out once.
//! # Ordering
//! Between two micro-batches, and never while a replay runs: that reads the same overrides anyway.
//! # Retries
//! Transient errors are retried for a while; then the topic partition goes on and the request waits for the next look.
//! What the same input would do again fails the request and not the topic partition, which can live without it.
//! # Cancellation
//! Dropping it loses nothing; the next owner begins anew.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use thiserror::Error;

use super::batch_writer::{BatchWriter, WriteError, Written};
use super::build::SealedBatch;
use super::carry::Carried;
use super::context::TransformContext;
use super::open_batch::OpenBatch;
use super::position::Ownership;
use super::process::{Manner, ProcessError, Reader, process};
use super::replay::Replaced;
use crate::catalog::{self, CatalogError, OpenRedrive, RedriveEnd};
use crate::client::kafka::{self, KafkaError, Message};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::config::KafkaSettings;
use crate::error::{ErrorKind, chain};
use crate::telemetry::metrics;
use crate::types::{MicroBatchId, OffsetRange, RejectReason};

/// How long a transient error may hold the topic partition back.
const RETRY_DEADLINE: Duration = Duration::from_mins(2);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
/// Begun so often without an end, a request is given up: it may be what kills the process.
const STARTS_MAX: i32 = 5;

/// Whether there is something to run again.
#[derive(Default)]
pub(super) struct Redrives {
    pub(super) is_asked: bool,
}

impl Redrives {
    pub(super) async fn look(&mut self, context: &TransformContext, ownership: &Ownership, open: &OpenBatch) {
        if open.is_bound() {
            return;
        }
        let looked = async {
            let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::open_redrives(&client, ownership.partition).await
        };
        match looked.await {
            Ok(found) => self.is_asked = !found.is_empty(),
            Err(error) => {
                tracing::debug!(component = "catalog", error = %chain(&error), "could not look for re-drives");
            }
        }
    }
}

#[derive(Debug, Error)]
enum RedriveError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("a blocking task failed")]
    Task(#[from] tokio::task::JoinError),
    #[error("could not read a message again")]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl RedriveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Catalog(error) => error.kind(),
            Self::Kafka(error) => error.kind(),
            Self::Task(_) => ErrorKind::Halt,
            Self::Process(error) => error.kind(),
            Self::Write(error) => error.kind(),
        }
    }
}

/// Requests for what is one micro-batch now: they are answered together.
struct Asked {
    live: Option<(MicroBatchId, OffsetRange)>,
    requests: Vec<i64>,
    start_count: i32,
}

fn grouped(open: Vec<OpenRedrive>) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::new();
    for request in open {
        match asked.iter_mut().find(|asked| asked.live == request.live) {
            Some(asked) => {
                asked.requests.push(request.id);
                asked.start_count = asked.start_count.max(request.start_count);
            }
            None => {
                asked.push(Asked { live: request.live, requests: vec![request.id], start_count: request.start_count })
            }
        }
    }
    asked
}

/// The owner, running micro-batches again.
pub(super) struct Redriver<'a> {
    context: &'a Arc<TransformContext>,
    kafka: &'a KafkaSettings,
    writer: BatchWriter<'a>,
}

impl<'a> Redriver<'a> {
    pub(super) fn new(
        context: &'a Arc<TransformContext>,
        kafka: &'a KafkaSettings,
        ownership: &'a Ownership,
        retries: RetryPolicy,
    ) -> Self {
        let retries = RetryPolicy { deadline: Some(RETRY_DEADLINE), ..retries };
        Self { context, kafka, writer: BatchWriter::new(context, ownership, retries) }
    }

    /// Takes up what is asked for. `false`: a newer owner exists.
    pub(super) async fn run(&self) -> bool {
        match self.run_all().await {
            Ok(is_owner) => is_owner,
            Err(error) => {
                metrics().errors.with_label_values(&["redrive", error.kind().as_str()]).inc();
                tracing::warn!(component = "redrive", topic_partition = %self.writer.ownership.key.topic_partition, error = %chain(&error), "could not run a micro-batch again, trying again later");
                true
            }
        }
    }

    async fn run_all(&self) -> Result<bool, RedriveError> {
        let partition = self.writer.ownership.partition;
        let open = {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::open_redrives(&client, partition).await?
        };
        for asked in grouped(open) {
            let end = match asked.live {
                None => RedriveEnd::Gone,
                Some(_) if asked.start_count >= STARTS_MAX => {
                    RedriveEnd::Failed(format!("begun {STARTS_MAX} times without an end: see the log of `sluice run`"))
                }
                Some((id, offsets)) => match self.redrive(id, offsets, &asked.requests).await {
                    Ok(Written::Committed(by)) => RedriveEnd::Done(by),
                    Ok(Written::PassedOver(problem)) => RedriveEnd::Refused(problem),
                    Ok(Written::Fenced) => return Ok(false),
                    Err(error) if error.kind() == ErrorKind::Transient => {
                        let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
                        catalog::withdraw_redrives(&client, &asked.requests).await?;
                        return Err(error);
                    }
                    Err(error) => RedriveEnd::Failed(chain(&error)),
                },
            };
            self.finish(&asked, &end).await?;
        }
        Ok(true)
    }

    async fn finish(&self, asked: &Asked, end: &RedriveEnd) -> Result<(), CatalogError> {
        let topic_partition = &self.writer.ownership.key.topic_partition;
        let outcome = end.as_str();
        metrics().redrives.with_label_values(&[topic_partition.topic.as_ref(), outcome]).inc();
        let batch = asked.live.map(|(id, _)| id.to_string()).unwrap_or_default();
        match end {
            RedriveEnd::Done(by) => {
                // the commit has answered the request
                tracing::info!(component = "redrive", %topic_partition, batch, replaced_by = %by, "micro-batch was run again");
                return Ok(());
            }
            RedriveEnd::Gone => {
                tracing::warn!(component = "redrive", %topic_partition, "no live micro-batch is left to run again");
            }
            RedriveEnd::Refused(problem) | RedriveEnd::Failed(problem) => {
                tracing::error!(component = "redrive", %topic_partition, batch, outcome, problem, "micro-batch could not be run again and stays as it is");
            }
        }
        retry(&self.writer.retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::finish_redrives(&client, &asked.requests, end).await
        })
        .await
    }

    /// From the offsets of a live micro-batch to the one that takes its place.
    async fn redrive(&self, id: MicroBatchId, offsets: OffsetRange, requests: &[i64]) -> Result<Written, RedriveError> {
        let ownership = self.writer.ownership;
        let retries = &self.writer.retries;
        retry(retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::start_redrives(&client, requests).await
        })
        .await?;
        // after the requests are marked: who corrects something from now on must ask again
        let replaced = Arc::new(Replaced::load(&self.context.catalog, retries, id, offsets).await?);
        let (log_first, messages) = retry(retries, "source", RedriveError::kind, || self.read(offsets)).await?;
        let killers = retry(retries, "catalog", CatalogError::kind, || async {
            let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
            catalog::letter_offsets(&client, id, RejectReason::KilledTheProcess).await
        })
        .await?;
        // waits for room while it holds nothing; then it takes what it needs, because it cannot end without
        let estimate =
            messages.iter().map(|message| self.context.memory_estimate(&ownership.key.topic_partition, message)).sum();
        drop(self.context.budget.reserve(estimate).await);
        let processed = stream::iter(messages)
            .map(|message| {
                let memory =
                    self.context.budget.take(self.context.memory_estimate(&ownership.key.topic_partition, &message));
                let reader = Reader { topic_partition: ownership.key.topic_partition.clone(), chunks: None };
                let replaced = Some(Arc::clone(&replaced));
                let context = Arc::clone(self.context);
                // only a replay tries it anew: there attempts are counted
                let manner = if killers.contains(&message.offset) { Manner::SetAside } else { Manner::Together };
                process(context, reader, message, memory, retries.clone(), replaced, manner)
            })
            .buffered(self.context.messages_in_flight_max)
            .try_collect()
            .await?;
        let sealed = SealedBatch {
            topic_partition: ownership.key.topic_partition.clone(),
            fence: ownership.fence,
            offsets,
            messages: processed,
            replaced: Some(replaced),
            log_first,
            carried: Carried::default(),
            redrives: Some(requests.to_vec()),
        };
        Ok(self.writer.write(sealed).await?)
    }

    async fn read(&self, offsets: OffsetRange) -> Result<(i64, Vec<Message>), RedriveError> {
        let settings = self.kafka.clone();
        let topic_partition = self.writer.ownership.key.topic_partition.clone();
        let read = tokio::task::spawn_blocking(move || {
            kafka::messages_in(&settings, &topic_partition, offsets, KAFKA_TIMEOUT)
        });
        Ok(read.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_one_micro_batch_are_answered_together() {
        let offsets = OffsetRange::new(0, 5).expect("in order");
        let (one, other) = (Some((MicroBatchId::generate(), offsets)), Some((MicroBatchId::generate(), offsets)));
        let open = [(1, one, 0), (2, other, 1), (3, one, 2), (4, None, 0)];
        let open = open.map(|(id, live, start_count)| OpenRedrive { id, start_count, live });
        let asked: Vec<(Vec<i64>, i32)> =
            grouped(open.to_vec()).into_iter().map(|asked| (asked.requests, asked.start_count)).collect();
        assert_eq!(asked, [(vec![1, 3], 2), (vec![2], 1), (vec![4], 0)]);
    }
}
