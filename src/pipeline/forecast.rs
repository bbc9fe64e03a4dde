//! What a replay would do, before an operator orders it with Kafka's own tool: nothing is changed here.
//!
//! # Contract
//! Where a topic partition would start is decided by [`decide`], which decides it in earnest too, from the offset that
//! Kafka's tool would set. Between the forecast and the reset a running group moves on: it is exact for a stopped one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use deadpool_postgres::Pool;
use futures::TryStreamExt;
use rdkafka::consumer::Consumer as _;
use serde::Serialize;
use thiserror::Error;

use super::position::{TakeOverError, identify};
use crate::catalog::{self, CatalogError, ClaimedObject, CommitSpeed, PartitionKey, ReplayScope, SourcePartitionId};
use crate::client::kafka::{self, KafkaError};
use crate::client::postgres::{self, PostgresError};
use crate::client::rate::RequestRate;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::{Pin, S3Client, S3Error};
use crate::config::{KafkaSettings, Settings};
use crate::error::ErrorKind;
use crate::load::{self, LoadError, LoadedSum};
use crate::source::assignment::{Committed, Decision, Identity, Observed, decide};
use crate::types::{OffsetRange, TopicPartition};

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
const HEADS_IN_FLIGHT: usize = 32;
/// A store that does not answer for so long ends the forecast.
const RAW_DEADLINE: Duration = Duration::from_secs(30);
/// The speed is that of the newest micro-batches, pauses left out that are longer than the usual ones.
const SPEED_MICRO_BATCHES: i64 = 200;
const SPEED_PAUSE_MAX_S: f64 = 30.0;

/// Where an operator wants the group to stand, as Kafka's tool takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    Earliest,
    Offset(i64),
    /// From the group's committed offset.
    ShiftBy(i64),
    /// The first message that is not older.
    Time(DateTime<Utc>),
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct ForecastRequest {
    pub topic: String,
    /// `None`: all of the topic's.
    pub topic_partition: Option<i32>,
    pub to: ResetTo,
    /// Whether the store is asked about each raw object.
    pub check_raw: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForecastAction {
    Replay,
    /// Offsets that nothing covers would be left out.
    Skip,
    /// A replay under way would be ended.
    Cancel,
    /// The position stays.
    Nothing,
    Halt,
}

/// One topic partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionForecast {
    pub topic_partition: i32,
    pub action: ForecastAction,
    /// Why it would halt.
    pub reason: Option<String>,
    /// What Kafka's tool would set.
    pub requested_offset: i64,
    /// The first offset that is read again, or skipped.
    pub start_offset: i64,
    /// The first one behind it.
    pub until_offset: i64,
    /// Of a replay; zeros otherwise.
    pub scope: ReplayScope,
    /// What the warehouse has loaded over these offsets.
    pub loaded: LoadedSum,
    /// Offsets whose messages the log no longer has: their rows are carried over.
    pub messages_gone: i64,
    /// `None`: not looked at. Their rows are carried over too.
    pub objects_missing: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    pub group: String,
    pub topic: String,
    pub partitions: Vec<PartitionForecast>,
    pub rows_in: i64,
    /// `None`: the group has committed too little to tell.
    pub speed: Option<CommitSpeed>,
    pub estimated_seconds: Option<f64>,
    /// Orders what was forecast.
    pub command: String,
}

#[derive(Debug, Error)]
pub enum ForecastError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("could not reach the warehouse")]
    Warehouse(#[source] PostgresError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("could not ask whether a raw object is still there")]
    Raw(#[source] S3Error),
    #[error("could not compare the log with the catalog")]
    Identify(#[from] TakeOverError),
    #[error("topic `{topic}` has {count} partitions, numbered from 0")]
    NoSuchPartition { topic: String, count: i32 },
    #[error("the group has committed no offset of {0}: there is nothing to shift")]
    NothingCommitted(TopicPartition),
    #[error("a blocking task failed")]
    Task(#[from] tokio::task::JoinError),
}

impl ForecastError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kafka(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Warehouse(error) => error.kind(),
            Self::Load(error) => error.kind(),
            Self::Raw(error) => error.kind(),
            Self::Identify(error) => error.kind(),
            Self::NoSuchPartition { .. } | Self::NothingCommitted(_) => ErrorKind::Invalid,
            Self::Task(_) => ErrorKind::Halt,
        }
    }
}

/// What Kafka knows of a topic partition, and where its tool would put the group.
struct Log {
    topic_partition: TopicPartition,
    first: i64,
    end: i64,
    requested: i64,
}

/// Asks Kafka, the catalog, the warehouse and the raw store. `looked_at`: told how many raw objects were.
pub async fn forecast(
    settings: &Settings,
    request: &ForecastRequest,
    mut looked_at: impl FnMut(u64),
) -> Result<Forecast, ForecastError> {
    let pool = postgres::pool(&settings.catalog, "replay").map_err(CatalogError::Connect)?;
    let warehouse = postgres::pool(&settings.warehouse, "replay").map_err(ForecastError::Warehouse)?;
    let (kafka_settings, asked) = (settings.kafka.clone(), request.clone());
    let (cluster_id, logs) = tokio::task::spawn_blocking(move || read_logs(&kafka_settings, &asked)).await??;
    let raw = Arc::new(S3Client::new("raw", &settings.s3.raw, RequestRate::new(settings.limits.s3_requests_per_s)));
    let group = &settings.kafka.group;
    let mut partitions = Vec::with_capacity(logs.len());
    for log in &logs {
        let key = PartitionKey {
            cluster_id: cluster_id.clone(),
            consumer_group: group.clone(),
            topic_partition: log.topic_partition.clone(),
        };
        let client = postgres::get(&pool).await.map_err(CatalogError::Connect)?;
        let id = catalog::find_partition(&client, &key).await?;
        drop(client);
        let mut found = observe(settings, &pool, id, log).await?;
        if let (Some(id), ForecastAction::Replay) = (id, found.action) {
            look_closer(&pool, &warehouse, id, log, &mut found).await?;
            if request.check_raw {
                found.objects_missing =
                    Some(missing_objects(&pool, &raw, id, found.start_offset, &mut looked_at).await?);
            }
        }
        partitions.push(found);
    }
    let client = postgres::get(&pool).await.map_err(CatalogError::Connect)?;
    let speed = catalog::commit_speed(&client, group, SPEED_MICRO_BATCHES, SPEED_PAUSE_MAX_S).await?;
    let rows_in = partitions.iter().map(|partition| partition.scope.row_in_count).sum::<i64>();
    Ok(Forecast {
        group: group.clone(),
        topic: request.topic.clone(),
        rows_in,
        estimated_seconds: speed.map(|speed| rows_in as f64 / speed.rows_per_s()),
        speed,
        command: command(&settings.kafka, request),
        partitions,
    })
}

/// What would be decided about a topic partition whose group stands where the tool would put it.
async fn observe(
    settings: &Settings,
    pool: &Pool,
    id: Option<SourcePartitionId>,
    log: &Log,
) -> Result<PartitionForecast, ForecastError> {
    let mut found = PartitionForecast {
        topic_partition: log.topic_partition.number,
        action: ForecastAction::Nothing,
        reason: None,
        requested_offset: log.requested,
        start_offset: log.requested,
        until_offset: log.requested,
        scope: ReplayScope::default(),
        loaded: LoadedSum::default(),
        messages_gone: 0,
        objects_missing: None,
    };
    let mut observed = Observed {
        next_offset: None,
        end: None,
        committed: Committed::Foreign { offset: log.requested },
        log_first: log.first,
        log_end: log.end,
        identity: Identity::Unknown,
        other_cluster: false,
    };
    if let Some(id) = id {
        let client = postgres::get(pool).await.map_err(CatalogError::Connect)?;
        let position = catalog::read_position(&client, id, None).await?;
        drop(client);
        observed.identity = identify(&settings.kafka, &log.topic_partition, &position, log.first).await?;
        observed.next_offset = position.next_offset;
        observed.end = position.end;
        observed.other_cluster = position.other_cluster;
    }
    match decide(&observed) {
        Decision::Start { at } => (found.start_offset, found.until_offset) = (at, at),
        Decision::Cancel { at } => {
            found.action = ForecastAction::Cancel;
            (found.start_offset, found.until_offset) = (at, at);
        }
        Decision::Skip { range } => {
            found.action = ForecastAction::Skip;
            (found.start_offset, found.until_offset) = (range.first(), range.next());
        }
        Decision::Replay { requested, until } => {
            found.action = ForecastAction::Replay;
            (found.start_offset, found.until_offset) = (requested, until);
        }
        Decision::Halt(reason) => {
            found.action = ForecastAction::Halt;
            found.reason = Some(reason.to_string());
        }
    }
    Ok(found)
}

/// Sums of a replay.
async fn look_closer(
    pool: &Pool,
    warehouse: &Pool,
    id: SourcePartitionId,
    log: &Log,
    found: &mut PartitionForecast,
) -> Result<(), ForecastError> {
    let client = postgres::get(pool).await.map_err(CatalogError::Connect)?;
    found.scope = catalog::replay_scope(&client, id, found.requested_offset).await?;
    found.start_offset = found.scope.start_offset;
    found.messages_gone = (log.first.min(found.until_offset) - found.start_offset).max(0);
    let client = postgres::get(warehouse).await.map_err(ForecastError::Warehouse)?;
    if let Some(offsets) = OffsetRange::new(found.start_offset, found.until_offset) {
        found.loaded = load::loaded_over(&client, id.0, offsets).await?;
    }
    Ok(())
}

/// How many of the object versions that would be read again are gone.
async fn missing_objects(
    pool: &Pool,
    raw: &Arc<S3Client>,
    id: SourcePartitionId,
    start: i64,
    looked_at: &mut impl FnMut(u64),
) -> Result<u64, ForecastError> {
    let client = postgres::get(pool).await.map_err(CatalogError::Connect)?;
    let objects = catalog::replay_objects(&client, id, start).await?.map_err(ForecastError::Catalog);
    let asked = objects.map_ok(|object| {
        let raw = Arc::clone(raw);
        async move { is_missing(&raw, &object).await.map_err(ForecastError::Raw) }
    });
    let mut answers = std::pin::pin!(asked.try_buffer_unordered(HEADS_IN_FLIGHT));
    let (mut count, mut missing) = (0, 0);
    while let Some(is_missing) = answers.try_next().await? {
        count += 1;
        missing += u64::from(is_missing);
        looked_at(count);
    }
    Ok(missing)
}

async fn is_missing(raw: &S3Client, object: &ClaimedObject) -> Result<bool, S3Error> {
    // where the bucket keeps no versions, the claim names the version by ETag and time
    let is_unversioned = object.version.strip_prefix(&object.etag).is_some_and(|rest| rest.starts_with('@'));
    let pin = if is_unversioned {
        Pin { version_id: None, etag: Some(&object.etag) }
    } else {
        Pin { version_id: Some(&object.version), etag: None }
    };
    let (bucket, key) = (&object.location.bucket, &object.location.key);
    match retry(&RetryPolicy::until(RAW_DEADLINE), "s3", S3Error::kind, || raw.head(bucket, key, pin)).await {
        Ok(_) => Ok(false),
        Err(error) if error.is_missing() || error.is_precondition_failed() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Blocks.
fn read_logs(settings: &KafkaSettings, request: &ForecastRequest) -> Result<(String, Vec<Log>), ForecastError> {
    let inspector = kafka::inspector(settings)?;
    let client = inspector.client();
    let cluster_id = kafka::cluster_id(client, &settings.brokers, KAFKA_TIMEOUT)?;
    let count = kafka::partition_count(client, settings, &request.topic, KAFKA_TIMEOUT)?;
    let numbers = match request.topic_partition {
        None => 0..count,
        Some(number) if (0..count).contains(&number) => number..number + 1,
        Some(_) => return Err(ForecastError::NoSuchPartition { topic: request.topic.clone(), count }),
    };
    let topic_partitions: Vec<TopicPartition> =
        numbers.map(|number| TopicPartition::new(request.topic.as_str(), number)).collect();
    let committed = kafka::committed(client, &topic_partitions, KAFKA_TIMEOUT)?;
    let by_time = match request.to {
        ResetTo::Time(time) => {
            kafka::offsets_for_time(&inspector, &topic_partitions, time.timestamp_millis(), KAFKA_TIMEOUT)?
        }
        _ => std::collections::HashMap::new(),
    };
    let mut logs = Vec::with_capacity(topic_partitions.len());
    for topic_partition in topic_partitions {
        let (first, end) = kafka::watermarks(client, &topic_partition, KAFKA_TIMEOUT)?;
        let wanted = match request.to {
            ResetTo::Earliest => first,
            ResetTo::Offset(offset) => offset,
            ResetTo::ShiftBy(by) => match committed.get(&topic_partition) {
                Some(committed) => committed.offset.saturating_add(by),
                None => return Err(ForecastError::NothingCommitted(topic_partition)),
            },
            // no message is that young: the tool goes to the end
            ResetTo::Time(_) => by_time.get(&topic_partition).copied().unwrap_or(end),
        };
        // Kafka's tool keeps within the log. Source: Apache Kafka 4.3, OffsetsUtils.checkOffsetsRange, read 2026-11
        logs.push(Log { topic_partition, first, end, requested: wanted.clamp(first, end) });
    }
    Ok((cluster_id, logs))
}

/// What orders it. A time stands there as it was resolved, so that the order is the one that was forecast.
fn command(settings: &KafkaSettings, request: &ForecastRequest) -> String {
    let topic = match request.topic_partition {
        Some(number) => format!("{}:{number}", request.topic),
        None => request.topic.clone(),
    };
    let to = match request.to {
        ResetTo::Earliest => "--to-earliest".to_owned(),
        ResetTo::Offset(offset) => format!("--to-offset {offset}"),
        ResetTo::ShiftBy(by) => format!("--shift-by {by}"),
        ResetTo::Time(time) => {
            format!("--to-datetime {}", time.to_rfc3339_opts(SecondsFormat::Millis, true).trim_end_matches('Z'))
        }
    };
    format!(
        "kafka-consumer-groups.sh --bootstrap-server {} --group {} --topic {} --reset-offsets {to} --execute",
        quoted(&settings.brokers),
        quoted(&settings.group),
        quoted(&topic)
    )
}

/// For a shell, where it is no plain word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:,/".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        assert_eq!(quoted("raw-notifications:3"), "raw-notifications:3");
        assert_eq!(quoted("it's mine"), r"'it'\''s mine'");
        assert_eq!(quoted(""), "''");
    }
}
