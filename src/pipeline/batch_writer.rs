//! From a sealed batch to a committed one: build, upload, commit; again where a claim was lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::build::{BuildError, Built, SealedBatch, build};
use super::carry::{CarryError, carry};
use super::checks::Histories;
use super::chunk_log::ChunkOwner;
use super::context::TransformContext;
use super::parking::{Breakers, park, stop};
use super::position::Ownership;
use super::process::{Manner, ProcessError, ProcessedMessage, Reader, process_again};
use super::staged::put_files;
use super::windows::{WindowError, Windows};
use crate::catalog::{self, CatalogError};
use crate::client::postgres;
use crate::client::retry::{RetryPolicy, retry};
use crate::client::s3::S3Error;
use crate::commit::{CommitError, CommitOutcome, Proposal, commit, commit_passed_over};
use crate::config::Check;
use crate::error::ErrorKind;
use crate::source::object_reader::ReadError;
use crate::telemetry::metrics;
use crate::transform::{CheckOutcome, Window};
use crate::types::{MicroBatchId, ObjectOutcome, OffsetOutcome};

pub(super) enum Written {
    Committed(MicroBatchId),
    /// In a replay or a re-drive: the old micro-batch cannot be rebuilt and stays as it is, for this reason.
    PassedOver(String),
    Fenced,
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("a building task failed")]
    Task(#[source] tokio::task::JoinError),
    #[error("could not put a file into the lake")]
    Upload(#[source] S3Error),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("could not read an object again")]
    Again(#[source] ProcessError),
    #[error("could not carry rows over")]
    Carry(#[from] CarryError),
    #[error("could not read back what a window of dedupe holds")]
    Window(#[from] WindowError),
    #[error("could not ask the catalog")]
    Catalog(#[from] CatalogError),
}

impl WriteError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Build(_) | Self::Task(_) => ErrorKind::Halt,
            Self::Upload(source) => source.kind(),
            Self::Commit(source) => source.kind(),
            Self::Again(source) => source.kind(),
            Self::Carry(source) => source.kind(),
            Self::Window(source) => source.kind(),
            Self::Catalog(source) => source.kind(),
        }
    }
}

pub(super) struct BatchWriter<'a> {
    pub(super) context: &'a Arc<TransformContext>,
    pub(super) ownership: &'a Ownership,
    pub(super) retries: RetryPolicy,
    pub(super) breakers: Mutex<Breakers>,
    pub(super) windows: Windows,
}

impl<'a> BatchWriter<'a> {
    pub(super) fn new(context: &'a Arc<TransformContext>, ownership: &'a Ownership, retries: RetryPolicy) -> Self {
        Self { context, ownership, retries, breakers: Mutex::default(), windows: Windows::default() }
    }

    /// Ends with the batch committed, or with the news that it is somebody else's.
    pub(super) async fn write(&self, mut sealed: SealedBatch) -> Result<Written, WriteError> {
        loop {
            let tallies = park(self.context, &self.retries, &self.breakers, &mut sealed).await?;
            if let Some(replaced) = &sealed.replaced {
                if let Some(connector) = self.parked_records() {
                    return self.pass_over(&sealed, &connector, "it is parked: resume it first").await;
                }
                let (topic_partition, messages) = (&sealed.topic_partition, &sealed.messages);
                let carried =
                    carry(self.context, topic_partition, &self.retries, replaced, messages, sealed.log_first).await;
                sealed.carried = match carried {
                    Err(CarryError::CannotRebuild { connector, problem }) => {
                        return self.pass_over(&sealed, &connector, &problem).await;
                    }
                    carried => carried?,
                };
            }
            crate::telemetry::fail_point!("batch.objects_read");
            let started = Instant::now();
            let histories = self.histories(&sealed).await?;
            let windows = self.windows.before(self.context, self.ownership, &self.retries, &sealed).await?;
            let (mut built, back) = self.build(sealed, histories, windows).await?;
            sealed = back;
            if !built.stops.is_empty() {
                for (connector, reason) in &built.stops {
                    stop(self.context, &self.retries, &self.breakers, connector, reason).await?;
                }
                continue;
            }
            put_files(self.context, &self.retries, &built.uploads).await.map_err(WriteError::Upload)?;
            crate::telemetry::fail_point!("batch.all_put");
            observe("stage", started);
            let started = Instant::now();
            set_named(&mut sealed, &built.proposal);
            let outcome = self.commit(&mut built.proposal).await?;
            let proposal = &built.proposal;
            observe("commit", started);
            let topic = &self.ownership.key.topic_partition.topic;
            let result = metrics().micro_batches.clone();
            match outcome {
                CommitOutcome::Committed => {
                    result.with_label_values(&[topic.as_ref(), "committed"]).inc();
                    self.count(&built);
                    let id = proposal.id;
                    self.breakers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .committed(&tallies, &self.context.connectors);
                    self.windows.committed(&sealed, std::mem::take(&mut built.seen)).await;
                    return Ok(Written::Committed(id));
                }
                CommitOutcome::Fenced => {
                    result.with_label_values(&[topic.as_ref(), "fenced"]).inc();
                    metrics().commit_fenced.with_label_values(&[topic.as_ref()]).inc();
                    tracing::warn!(component = "commit", topic_partition = %self.ownership.key.topic_partition, offsets = %proposal.offsets, "commit refused: a newer owner exists");
                    self.discard(&built).await;
                    sealed.staged_mut().for_each(|staged| staged.files.set_named(false));
                    return Ok(Written::Fenced);
                }
                CommitOutcome::Unordered(_) => unreachable!("`commit` of this writer answers it"),
                CommitOutcome::Claimed(lost) => {
                    result.with_label_values(&[topic.as_ref(), "rebuilt"]).inc();
                    tracing::info!(component = "commit", topic_partition = %self.ownership.key.topic_partition, offsets = %proposal.offsets, count = lost.len(), "objects are claimed by another micro-batch, building again");
                    self.discard(&built).await;
                    sealed.staged_mut().for_each(|staged| staged.files.set_named(false));
                    self.read_again(&mut sealed, &lost).await?;
                }
            }
        }
    }

    /// Commits, and asks the store for the order of versions where the commit asks for it.
    async fn commit(&self, proposal: &mut Proposal) -> Result<CommitOutcome, WriteError> {
        loop {
            let outcome = retry(&self.retries, "catalog", CommitError::kind, || {
                commit(&self.context.catalog, &self.ownership.key, self.ownership.partition, proposal)
            })
            .await?;
            let CommitOutcome::Unordered(locations) = outcome else { return Ok(outcome) };
            for location in locations {
                let versions =
                    retry(&self.retries, "s3", ReadError::kind, || self.context.objects.versions(&location)).await;
                let versions = versions.map_err(|error| WriteError::Again(error.into()))?;
                proposal.version_orders.retain(|(known, _)| *known != location);
                proposal.version_orders.push((location, versions));
            }
        }
    }

    /// The connector of a topic of direct records, where it is parked: its rows would become dead letters.
    fn parked_records(&self) -> Option<String> {
        let connector = self.context.connectors.for_records(&self.ownership.key.topic_partition.topic)?;
        self.context.parked.contains(&connector.name).then(|| connector.name.clone())
    }

    async fn read_again(&self, sealed: &mut SealedBatch, lost: &HashSet<(i64, i32)>) -> Result<(), WriteError> {
        let replaced = sealed.replaced.as_deref();
        let chunks = Some(ChunkOwner::of(self.ownership)).filter(|_| replaced.is_none());
        let reader = Reader { topic_partition: sealed.topic_partition.clone(), chunks };
        for processed in &mut sealed.messages {
            let offset = processed.message.offset;
            if lost.iter().any(|(lost_offset, _)| *lost_offset == offset) {
                process_again(self.context, &reader, processed, lost, &self.retries, replaced)
                    .await
                    .map_err(WriteError::Again)?;
            }
        }
        Ok(())
    }

    async fn pass_over(&self, sealed: &SealedBatch, connector: &str, problem: &str) -> Result<Written, WriteError> {
        let topic_partition = &self.ownership.key.topic_partition;
        let refused = format!("rows of connector `{connector}` cannot be made again: {problem}");
        if sealed.redrives.is_some() {
            return Ok(Written::PassedOver(refused));
        }
        metrics().replay_refused.with_label_values(&[topic_partition.topic.as_ref()]).inc();
        tracing::error!(component = "commit", %topic_partition, offsets = %sealed.offsets, connector, problem, "what replaces a micro-batch cannot be built: the old micro-batch stays as it is");
        let outcome = retry(&self.retries, "catalog", CommitError::kind, || {
            commit_passed_over(&self.context.catalog, self.ownership.partition, sealed.fence, sealed.offsets)
        })
        .await?;
        Ok(if outcome == CommitOutcome::Committed { Written::PassedOver(refused) } else { Written::Fenced })
    }

    /// What earlier micro-batches say of expectations that are measured by them.
    async fn histories(&self, sealed: &SealedBatch) -> Result<Histories, WriteError> {
        let mut wanted: BTreeMap<(String, String), u32> = BTreeMap::new();
        for connector in sealed.messages.iter().flat_map(ProcessedMessage::connectors) {
            for expectation in &connector.expectations {
                if let Check::RowCount { last, .. } = expectation.check {
                    wanted.insert((connector.name.clone(), expectation.name.clone()), last);
                }
            }
        }
        let mut histories = Histories::new();
        for ((connector, expectation), last) in wanted {
            let history = retry(&self.retries, "catalog", CatalogError::kind, || async {
                let client = postgres::get(&self.context.catalog).await.map_err(CatalogError::Connect)?;
                let (partition, before) = (self.ownership.partition, sealed.offsets.first());
                catalog::expectation_history(&client, partition, before, &connector, &expectation, last).await
            });
            let history = history.await?;
            histories.insert((connector, expectation), history);
        }
        Ok(histories)
    }

    async fn build(
        &self,
        sealed: SealedBatch,
        histories: Histories,
        windows: Arc<BTreeMap<String, Window>>,
    ) -> Result<(Built, SealedBatch), WriteError> {
        let context = Arc::clone(self.context);
        let turn = context.cpu_turn(Manner::Together).await;
        let built = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            build(&context, &sealed, &histories, &windows).map(|built| (built, sealed))
        });
        Ok(built.await.map_err(WriteError::Task)??)
    }

    /// Files that no commit will name. What cannot be deleted now is an orphan, harmless in `_pending/`.
    async fn discard(&self, built: &Built) {
        for upload in &built.uploads {
            if let Err(error) = self.context.lake.delete(&self.context.lake_bucket, &upload.key).await {
                tracing::debug!(component = "s3", key = upload.key, error = %crate::error::chain(&error), "an unused file stays in _pending");
            }
        }
    }

    fn count(&self, built: &Built) {
        let proposal: &Proposal = &built.proposal;
        let topic = self.ownership.key.topic_partition.topic.as_ref();
        let (mut log_expired, mut raw_expired) = (0, 0);
        for (outcome, count) in proposal.ledgers.offsets() {
            log_expired += if outcome == OffsetOutcome::Carried { count } else { 0 };
            metrics().offsets.with_label_values(&[topic, outcome.as_str()]).inc_by(count);
        }
        for (connector, outcome, count) in proposal.ledgers.objects() {
            raw_expired += if outcome == ObjectOutcome::Carried { count } else { 0 };
            metrics().objects.with_label_values(&[connector, outcome.as_str()]).inc_by(count);
        }
        metrics().replay_carried.with_label_values(&["log_expired"]).inc_by(log_expired);
        metrics().replay_carried.with_label_values(&["raw_expired"]).inc_by(raw_expired);
        for (connector, outcome, count) in proposal.ledgers.rows() {
            metrics().rows_in.with_label_values(&[connector, outcome.as_str()]).inc_by(count);
        }
        for (dataset, count) in proposal.ledgers.datasets() {
            metrics().rows_out.with_label_values(&[dataset]).inc_by(count);
        }
        for result in &proposal.expectations {
            let labels = [result.connector.as_str(), result.name.as_str()];
            metrics().expectation_results.with_label_values(&[labels[0], labels[1], result.outcome]).inc();
            if result.outcome != CheckOutcome::Passed.as_str() {
                metrics().expectation_failures.with_label_values(&labels).inc_by(result.rows_failed.unsigned_abs());
            }
        }
        for ((connector, reason), count) in &built.dead_letter_counts {
            metrics().dead_letters.with_label_values(&[connector.as_str(), reason]).inc_by(*count);
        }
        for file in &proposal.files {
            metrics().staged_bytes.with_label_values(&[&file.dataset]).inc_by(file.size_bytes.unsigned_abs());
        }
    }
}

/// From now on the files that the proposal names may be the catalog's.
fn set_named(sealed: &mut SealedBatch, proposal: &Proposal) {
    let named: HashSet<&str> = proposal.files.iter().map(|file| file.pending_key.as_str()).collect();
    for staged in sealed.staged_mut() {
        // an object that is announced twice leaves one of the two unnamed
        let is_named = staged.books.files.iter().any(|file| named.contains(file.pending_key.as_str()));
        staged.files.set_named(is_named);
    }
}

fn observe(stage: &str, started: Instant) {
    metrics().micro_batch_seconds.with_label_values(&[stage]).observe(started.elapsed().as_secs_f64());
}
