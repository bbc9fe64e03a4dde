//! Taking over a topic partition: fence first, read second, decide, set the position.

use std::time::Duration;

use uuid::Uuid;

use super::careful;
use super::context::TransformContext;
use super::parking;
use crate::catalog::{self, CatalogError, CoveredRange, PartitionKey, Position, SourcePartitionId};
use crate::client::kafka::{self, GroupOffset, KafkaError};
use crate::client::postgres;
use crate::commit::{CommitError, CommitOutcome, commit_skipped};
use crate::config::KafkaSettings;
use crate::error::ErrorKind;
use crate::source::assignment::{Committed, Decision, HaltReason, Identity, Observed, OffsetTag, decide};
use crate::telemetry::metrics;
use crate::types::{Fence, OffsetRange, TopicPartition};

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// A topic partition that this process may commit for.
#[derive(Debug, Clone)]
pub struct Ownership {
    pub key: PartitionKey,
    pub partition: SourcePartitionId,
    pub fence: Fence,
    pub catalog_id: Uuid,
    /// Messages before it are read one at a time.
    pub careful_until: Option<i64>,
}

impl Ownership {
    pub fn must_be_careful(&self, offset: i64) -> bool {
        self.careful_until.is_some_and(|until| offset < until)
    }
}

#[derive(Debug)]
pub enum TakeOver {
    /// Read on from this offset, which is the catalog's position.
    From {
        ownership: Ownership,
        offset: i64,
        /// The first message in the log; before it everything is carried over.
        log_first: i64,
        /// What is committed from there on: empty but in a replay.
        covered: Vec<CoveredRange>,
        /// The group's offset is an operator's: it must be acknowledged before anything is committed, or a crash
        /// would take it for a new order.
        must_acknowledge: bool,
    },
    Halted {
        ownership: Ownership,
        reason: HaltReason,
    },
    /// Another owner came while we were reading.
    Fenced,
}

#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("a blocking task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl TakeOverError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kafka(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Commit(error) => error.kind(),
            Self::Task(_) => ErrorKind::Halt,
        }
    }
}

/// Installs a new fence, observes, decides. Idempotent: a repetition installs another fence.
pub async fn take_over(
    context: &TransformContext,
    kafka: &KafkaSettings,
    topic_partition: &TopicPartition,
) -> Result<TakeOver, TakeOverError> {
    let key = PartitionKey {
        cluster_id: context.cluster_id.clone(),
        consumer_group: context.consumer_group.clone(),
        topic_partition: topic_partition.clone(),
    };
    let fence = Fence::generate();
    // before this one holds a connection: many take over at once
    parking::refresh(context).await?;
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    let partition = catalog::install_fence(&client, &key, fence, &context.process).await?;
    crate::telemetry::fail_point!("take_over.fence_installed", TakeOverError::Catalog);
    let log = observe_log(kafka, topic_partition).await?;
    let tag = log.committed.as_ref().and_then(|committed| OffsetTag::parse(&committed.metadata));
    let position = catalog::read_position(&client, partition, tag.as_ref().map(|tag| tag.fence)).await?;
    let identity = identify(kafka, topic_partition, &position, log.first).await?;
    let ownership = Ownership { key, partition, fence, catalog_id: position.catalog_id, careful_until: None };
    let offset = log.committed.as_ref().map(|committed| committed.offset);
    let committed = Committed::of(offset, tag.as_ref(), position.catalog_id, position.fence_known);
    let decision = decide(&Observed {
        next_offset: position.next_offset,
        end: position.end,
        committed,
        log_first: log.first,
        log_end: log.end,
        identity,
        other_cluster: position.other_cluster,
    });
    tracing::info!(component = "source", %topic_partition, ?decision, ?committed, log_first = log.first, log_end = log.end, "topic partition assigned");
    drop(client);
    let taken = match decision {
        Decision::Halt(reason) => TakeOver::Halted { ownership, reason },
        Decision::Start { at } => start(context, ownership, &position, at, log.first).await?,
        Decision::Skip { range } => skip(context, ownership, &position, range, log.first).await?,
        Decision::Replay { requested, until } => replay(context, ownership, requested, until, log.first).await?,
        Decision::Cancel { at } => cancel(context, ownership, at, log.first).await?,
    };
    Ok(careful::begin_ownership(context, taken, log.end).await?)
}

async fn start(
    context: &TransformContext,
    ownership: Ownership,
    position: &Position,
    at: i64,
    log_first: i64,
) -> Result<TakeOver, TakeOverError> {
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    if position.next_offset.is_none()
        && !catalog::set_first_position(&client, ownership.partition, ownership.fence, at).await?
    {
        return Ok(TakeOver::Fenced);
    }
    let is_replay = position.end.is_some_and(|end| at < end);
    let covered = if is_replay { catalog::covered(&client, ownership.partition, at).await? } else { Vec::new() };
    Ok(TakeOver::From { ownership, offset: at, log_first, covered, must_acknowledge: false })
}

/// Accepted in the catalog first: whatever happens afterwards, the next owner goes on with it.
async fn replay(
    context: &TransformContext,
    ownership: Ownership,
    requested: i64,
    until: i64,
    log_first: i64,
) -> Result<TakeOver, TakeOverError> {
    let mut client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    let transaction = client.transaction().await.map_err(CatalogError::query("begin accepting a replay"))?;
    let (partition, fence) = (ownership.partition, ownership.fence);
    let Some(start) = catalog::accept_replay(&transaction, partition, fence, requested, until).await? else {
        return Ok(TakeOver::Fenced);
    };
    transaction.commit().await.map_err(CatalogError::query("commit the start of a replay"))?;
    let topic_partition = &ownership.key.topic_partition;
    metrics().replays.with_label_values(&[topic_partition.topic.as_ref()]).inc();
    tracing::warn!(component = "source", %topic_partition, requested, start, until, "an operator moved the group back: replaying");
    let covered = catalog::covered(&client, partition, start).await?;
    Ok(TakeOver::From { ownership, offset: start, log_first, covered, must_acknowledge: true })
}

async fn cancel(
    context: &TransformContext,
    ownership: Ownership,
    at: i64,
    log_first: i64,
) -> Result<TakeOver, TakeOverError> {
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    if !catalog::cancel_replay(&client, ownership.partition, ownership.fence, at).await? {
        return Ok(TakeOver::Fenced);
    }
    tracing::warn!(component = "source", topic_partition = %ownership.key.topic_partition, at, "an operator moved the group to the end: the rest of the replay is cancelled");
    Ok(TakeOver::From { ownership, offset: at, log_first, covered: Vec::new(), must_acknowledge: true })
}

async fn skip(
    context: &TransformContext,
    ownership: Ownership,
    position: &Position,
    range: OffsetRange,
    log_first: i64,
) -> Result<TakeOver, TakeOverError> {
    let outcome =
        commit_skipped(&context.catalog, ownership.partition, ownership.fence, position.next_offset, range).await?;
    if outcome != CommitOutcome::Committed {
        return Ok(TakeOver::Fenced);
    }
    let topic = &ownership.key.topic_partition.topic;
    metrics().offsets.with_label_values(&[topic.as_ref(), "skipped"]).inc_by(range.count());
    tracing::warn!(component = "source", topic_partition = %ownership.key.topic_partition, offsets = %range, "an operator moved the group forward: the range is skipped");
    let offset = range.next();
    Ok(TakeOver::From { ownership, offset, log_first, covered: Vec::new(), must_acknowledge: true })
}

struct Log {
    committed: Option<GroupOffset>,
    first: i64,
    end: i64,
}

async fn observe_log(settings: &KafkaSettings, topic_partition: &TopicPartition) -> Result<Log, TakeOverError> {
    use rdkafka::consumer::Consumer as _;
    let (settings, topic_partition) = (settings.clone(), topic_partition.clone());
    let observed = tokio::task::spawn_blocking(move || -> Result<Log, KafkaError> {
        let inspector = kafka::inspector(&settings)?;
        let committed = kafka::committed(inspector.client(), std::slice::from_ref(&topic_partition), KAFKA_TIMEOUT)?;
        let (first, end) = kafka::watermarks(inspector.client(), &topic_partition, KAFKA_TIMEOUT)?;
        Ok(Log { committed: committed.get(&topic_partition).cloned(), first, end })
    });
    Ok(observed.await??)
}

/// Compares the last message that the catalog knows with what lies there now.
pub(super) async fn identify(
    settings: &KafkaSettings,
    topic_partition: &TopicPartition,
    position: &Position,
    log_first: i64,
) -> Result<Identity, TakeOverError> {
    let Some((offset, timestamp_ms, sha256)) = position.last_message.clone() else { return Ok(Identity::Unknown) };
    if offset < log_first {
        return Ok(Identity::Unknown);
    }
    let (settings, topic_partition) = (settings.clone(), topic_partition.clone());
    let found = tokio::task::spawn_blocking(move || {
        kafka::first_message_from(&settings, &topic_partition, offset, KAFKA_TIMEOUT)
    })
    .await??;
    Ok(match found {
        Some(message) if message.offset == offset => {
            if message.timestamp_ms == timestamp_ms && message.sha256().as_slice() == sha256 {
                Identity::Same
            } else {
                Identity::Differs
            }
        }
        // compacted away
        _ => Identity::Unknown,
    })
}
