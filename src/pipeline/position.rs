//! Taking over a topic partition: fence first, read second, decide, set the position.

use std::time::Duration;

use uuid::Uuid;

use super::context::TransformContext;
use crate::catalog::{self, CatalogError, PartitionKey, Position, SourcePartitionId};
use crate::client::kafka::{self, GroupOffset, KafkaError};
use crate::client::postgres;
use crate::commit::{CommitError, CommitOutcome, commit_skipped};
use crate::config::KafkaSettings;
use crate::error::ErrorKind;
use crate::source::assignment::{Committed, Decision, HaltReason, Identity, Observed, OffsetTag, decide};
use crate::types::{Fence, OffsetRange, TopicPartition};

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// A topic partition that this process may commit for.
#[derive(Debug, Clone)]
pub struct Ownership {
    pub key: PartitionKey,
    pub partition: SourcePartitionId,
    pub fence: Fence,
    pub catalog_id: Uuid,
}

#[derive(Debug)]
pub enum TakeOver {
    /// Read on from this offset, which is the catalog's position.
    From {
        ownership: Ownership,
        offset: i64,
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
    let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
    let partition = catalog::install_fence(&client, &key, fence, &context.process).await?;
    crate::telemetry::fail_point!("take_over.fence_installed", TakeOverError::Catalog);
    let log = observe_log(kafka, topic_partition).await?;
    let tag = log.committed.as_ref().and_then(|committed| OffsetTag::parse(&committed.metadata));
    let position = catalog::read_position(&client, partition, tag.as_ref().map(|tag| tag.fence)).await?;
    let identity = identify(kafka, topic_partition, &position, log.first).await?;
    let ownership = Ownership { key, partition, fence, catalog_id: position.catalog_id };
    let committed = match (&log.committed, tag) {
        (None, _) => Committed::None,
        (Some(found), Some(tag)) if tag.catalog_id == position.catalog_id => {
            Committed::Ours { offset: found.offset, fence_known: position.fence_known }
        }
        (Some(found), _) => Committed::Foreign { offset: found.offset },
    };
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
    match decision {
        Decision::Halt(reason) => Ok(TakeOver::Halted { ownership, reason }),
        Decision::Start { at } => start(context, ownership, &position, at).await,
        Decision::Skip { range } => skip(context, ownership, &position, range).await,
    }
}

async fn start(
    context: &TransformContext,
    ownership: Ownership,
    position: &Position,
    at: i64,
) -> Result<TakeOver, TakeOverError> {
    if position.next_offset.is_none() {
        let client = postgres::get(&context.catalog).await.map_err(CatalogError::Connect)?;
        if !catalog::set_first_position(&client, ownership.partition, ownership.fence, at).await? {
            return Ok(TakeOver::Fenced);
        }
    }
    Ok(TakeOver::From { ownership, offset: at })
}

async fn skip(
    context: &TransformContext,
    ownership: Ownership,
    position: &Position,
    range: OffsetRange,
) -> Result<TakeOver, TakeOverError> {
    let outcome =
        commit_skipped(&context.catalog, ownership.partition, ownership.fence, position.next_offset, range).await?;
    if outcome != CommitOutcome::Committed {
        return Ok(TakeOver::Fenced);
    }
    let topic = &ownership.key.topic_partition.topic;
    crate::telemetry::metrics().offsets.with_label_values(&[topic.as_ref(), "skipped"]).inc_by(range.count());
    tracing::warn!(component = "source", topic_partition = %ownership.key.topic_partition, offsets = %range, "an operator moved the group forward: the range is skipped");
    Ok(TakeOver::From { ownership, offset: range.next() })
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
async fn identify(
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
