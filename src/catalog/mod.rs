//! The catalog: what is true, in PostgreSQL. One function a statement; none of them commits, so that
//! the caller decides what stands in one transaction.
//!
//! # Ordering
//! Lock order: `source_partition`, slots of object keys, claims sorted by (bucket, key, version), new schemas by
//! connector, parked connectors, micro-batches whose masks change by id, overrides by id, requests for re-drives.
//! Statements state their locks at the top of their `.sql` file.
//! # Retries
//! Errors of the connection are [`crate::error::ErrorKind::Transient`]. Every write is either guarded by the
//! fence or idempotent.

mod attempts;
mod claims;
mod expectations;
mod files;
mod lake;
mod letters;
mod loads;
mod masks;
mod micro_batch;
mod migrate;
mod object_chunks;
mod outbox;
mod parking;
mod position;
mod redrive;
mod replay;
mod replay_scope;
mod schemas;
mod status;
mod window_files;

pub use attempts::{OwnershipBegin, begin_attempt, begin_ownership, end_ownership, pass_attempt, withdraw_attempt};
pub use claims::{ClaimQuestion, claimed};
pub use expectations::{
    ExpectationFailures, ExpectationRecord, expectation_failures, expectation_history, insert_expectation_results,
};
pub use files::{LeasedFile, lease_hideable_files, lease_pending_files, mark_hidden, mark_published, unpublished_keys};
pub use lake::{LakeFile, MaskedRecord, lake_files};
pub use letters::{
    LetterCount, LetterFile, LetterFilter, LetterOwner, LetterSummary, SAMPLES_MAX, letter_batches, letter_counts,
    letter_files, letter_offsets, letter_owner, letters,
};
pub use loads::{
    BatchFile, JoinLimits, LeasedBatch, announced, awaited_days, batch_files, batch_origins, lease_unloaded_batches,
    mark_loaded, renew_load_lease,
};
pub use masks::{
    LiveBatch, MaskableFile, Rewritten, TouchedKeys, lease_maskable_files, live_batch, lock_object_keys,
    mark_rewritten, order_versions, published_key, set_masks, unordered_keys,
};
pub use micro_batch::{
    BatchRecord, DeadLetterSample, FileRecord, OutcomeRecord, committed_by, compare_and_swap, insert_claims,
    insert_dead_letters, insert_files, insert_micro_batch, insert_outbox, insert_outcome_counts, lock_source_partition,
};
pub use migrate::{Database, MigrateError, MigrationReport, SchemaMismatch, check_schema, migrate};
pub use object_chunks::{ChunkedObject, ObjectChunk, delete_object_chunks, insert_object_chunk, object_chunks};
pub use outbox::{OutboxEntry, OutboxProgress, mark_sent, outbox_progress, unsent};
pub use parking::{ParkedConnector, insert_parked_objects, park_connector, parked_connectors, resume_connector};
pub use position::{
    PartitionKey, Position, SourcePartitionId, catalog_id, install_fence, read_position, record_halt,
    set_first_position,
};
pub use redrive::{
    Correction, OpenRedrive, Override, RedriveEnd, RedriveStatus, TRIES_MAX, correction, count_tries, finish_redrives,
    open_redrives, overrides_of, redrives, request_redrives, set_override, start_redrives, withdraw_redrives,
};
pub use replay::{
    CoveredRange, ReplayProgress, ReplayStatus, accept_replay, cancel_replay, claims_of, covered, finish_replay,
    newer_is_claimed, pass_over, replays, supersede,
};
pub use replay_scope::{
    ClaimedObject, CommitSpeed, LoadedBatch, ReloadFilter, ReplayScope, commit_speed, find_partition, forget_loaded,
    loaded_batches, replay_objects, replay_scope,
};
pub use schemas::{SchemaVersion, insert_schema_versions, schema_versions};
pub use status::{
    Arrival, Backlog, OutcomeSum, PartitionStatus, arrivals, backlog, outcome_sums, partitions, unbalanced_count,
};
pub use window_files::window_files;

use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::client::postgres::PostgresError;
use crate::error::ErrorKind;

#[derive(Debug, Error)]
pub enum CatalogError {
    #[error("could not reach the catalog")]
    Connect(#[source] PostgresError),
    #[error("could not {operation}")]
    Query { operation: &'static str, source: tokio_postgres::Error },
}

impl CatalogError {
    pub(crate) fn query(operation: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Query { operation, source }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(source) => source.kind(),
            Self::Query { source, .. } => crate::client::postgres::kind_of(source),
        }
    }

    /// The name of the constraint that refused a statement.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Query { source, .. } => source.as_db_error().and_then(tokio_postgres::error::DbError::constraint),
            Self::Connect(_) => None,
        }
    }

    /// The exclusion constraint OFF-1 spoke: a bug.
    pub fn is_exclusion_violation(&self) -> bool {
        matches!(self, Self::Query { source, .. } if source.code() == Some(&SqlState::EXCLUSION_VIOLATION))
    }
}
