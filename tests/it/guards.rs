//! One attack for each guard of the commit: it fails where the guard stands, and succeeds, which the test notices,
//! where it is taken away (`src/telemetry/guards.rs`). Those of the loader and of replays stand beside their tests.

mod mutants;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sluice::catalog::{
    self, BatchRecord, Database, FileRecord, OutcomeRecord, install_fence, lease_hideable_files, lease_pending_files,
    mark_published, migrate,
};
use sluice::client::postgres;
use sluice::commit::{CommitError, CommitOutcome, Proposal, Totals};
use sluice::config::PostgresSettings;
use sluice::source::assignment::{Committed, Decision, Identity, Observed, OffsetTag, decide};
use sluice::types::{
    Fence, MicroBatchId, ObjectClaim, ObjectLocation, ObjectOutcome, ObjectVersion, OffsetOutcome, OffsetRange,
    Overwrite, RowOutcome,
};

use crate::database::fresh_database;
use crate::owner::Owner;

/// The constraints that `SLUICE_WITHOUT_GUARD` names, with what drops them.
const CONSTRAINTS: &[(&str, &str)] = &[
    ("exclusion", "ALTER TABLE catalog.micro_batch DROP CONSTRAINT one_live_batch_per_offset"),
    (
        "trigger",
        "DROP TRIGGER books_balance ON catalog.micro_batch; DROP TRIGGER books_balance ON catalog.outcome_count",
    ),
];

impl Owner {
    /// With a catalog of its own.
    async fn new() -> Self {
        let dsn = fresh_database().await;
        let pool = postgres::pool(&PostgresSettings { dsn: dsn.into(), pool_size_max: 4 }, "test");
        let pool = pool.expect("a valid DSN");
        migrate(&pool, Database::Catalog).await.expect("migrates");
        let client = postgres::get(&pool).await.expect("the catalog answers");
        let taken = std::env::var("SLUICE_WITHOUT_GUARD").unwrap_or_default();
        for (_, drop) in CONSTRAINTS.iter().filter(|(name, _)| taken.split(',').any(|taken| taken == *name)) {
            client.batch_execute(drop).await.expect("it was there");
        }
        Self::of(pool, 0).await
    }

    /// Somebody else takes the topic partition over; returns the new owner.
    async fn succeeded(&self) -> Self {
        let fence = Fence::generate();
        let client = postgres::get(&self.pool).await.expect("the catalog answers");
        let partition = install_fence(&client, &self.key, fence, "newer").await.expect("the catalog answers");
        Self { pool: self.pool.clone(), key: self.key.clone(), partition, fence }
    }

    /// An operator moves the group back to 0.
    async fn moved_back(&self, until: i64) {
        let client = postgres::get(&self.pool).await.expect("the catalog answers");
        let start = catalog::accept_replay(&client, self.partition, self.fence, 0, until).await;
        assert_eq!(start.expect("the catalog answers"), Some(0));
    }

    async fn committed(&self, proposal: Proposal) -> MicroBatchId {
        assert_eq!(self.commit(&proposal).await.expect("commits"), CommitOutcome::Committed);
        proposal.id
    }

    /// The bare bones of a commit, without what looks for micro-batches to replace. `false`: refused.
    async fn cover(&self, first: i64, next: i64) -> bool {
        let offsets = OffsetRange::new(first, next).expect("in order");
        let mut client = postgres::get(&self.pool).await.expect("the catalog answers");
        let transaction = client.transaction().await.expect("the catalog answers");
        let swapped = catalog::compare_and_swap(&transaction, self.partition, self.fence, offsets, None).await;
        if !swapped.expect("the catalog answers") {
            return false;
        }
        let batch = self.record(offsets);
        match catalog::insert_micro_batch(&transaction, &batch).await {
            Err(error) if error.is_exclusion_violation() => return false,
            inserted => inserted.expect("the catalog answers"),
        }
        let ignored = ignored(offsets.count() as i64);
        catalog::insert_outcome_counts(&transaction, batch.id, &[ignored]).await.expect("the catalog answers");
        transaction.commit().await.is_ok()
    }

    fn record(&self, offsets: OffsetRange) -> BatchRecord {
        BatchRecord {
            id: MicroBatchId::generate(),
            source_partition_id: self.partition,
            offsets,
            skipped: false,
            fence: self.fence,
            object_count: 0,
            row_in_count: 0,
            row_out_count: 0,
            oldest_message_at: None,
            needs_load: false,
        }
    }

    /// One number.
    async fn count(&self, sql: &str) -> i64 {
        let client = postgres::get(&self.pool).await.expect("the catalog answers");
        client.query_one(sql, &[]).await.expect("valid SQL").get(0)
    }

    /// Pairs of live micro-batches that cover one offset.
    async fn doubled(&self) -> i64 {
        let sql = "SELECT count(*) FROM catalog.micro_batch a JOIN catalog.micro_batch b USING (source_partition_id)
                    WHERE a.micro_batch_id < b.micro_batch_id AND a.state = 'live' AND b.state = 'live' AND a.offsets && b.offsets";
        self.count(sql).await
    }
}

fn ignored(count: i64) -> OutcomeRecord {
    OutcomeRecord { ledger: "offsets", connector: String::new(), outcome: "ignored".into(), count }
}

fn epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(0, 0).expect("in range")
}

/// A micro-batch of one offset that read one object.
fn claiming(mut proposal: Proposal) -> Proposal {
    let version = ObjectVersion {
        location: ObjectLocation { bucket: "raw".into(), key: "key".into() },
        version: "version".into(),
        etag: "etag".into(),
        last_modified: epoch(),
        size_bytes: 1,
    };
    proposal.ledgers.object("transactions", ObjectOutcome::Emitted);
    proposal.totals.objects = 1;
    proposal.claims = vec![ObjectClaim {
        version,
        message_offset: 0,
        record: 0,
        connector: "transactions".into(),
        quarantined: false,
        announced_at: epoch(),
        overwrite: Overwrite::Append,
    }];
    proposal
}

/// A micro-batch with one file of one row.
fn with_a_file(mut proposal: Proposal) -> Proposal {
    proposal.needs_load = true;
    proposal.ledgers.rows_in("transactions", RowOutcome::Passed, 1);
    proposal.ledgers.rows_out("transactions", "transactions", 1);
    proposal.totals = Totals { rows_in: 1, rows_out: 1, ..proposal.totals };
    let file_id = uuid::Uuid::new_v4();
    proposal.files = vec![FileRecord {
        file_id,
        kind: "data",
        dataset: "transactions".into(),
        connector: "transactions".into(),
        connector_revision: "1".into(),
        schema_revision: "1".into(),
        table_partition: "type=transaction".into(),
        pending_key: format!("_pending/{file_id}"),
        published_key: format!("data/{file_id}"),
        row_count: 1,
        size_bytes: 1,
        sha256: vec![0; 32],
        event_time_min: None,
        event_time_max: None,
    }];
    proposal
}

#[tokio::test]
async fn an_older_owner_is_refused_even_where_nobody_has_moved_the_position() {
    let owner = Owner::new().await;
    let newer = owner.succeeded().await;
    assert_eq!(owner.commit(&owner.proposal(0, 5)).await.expect("no error"), CommitOutcome::Fenced);
    newer.committed(newer.proposal(0, 5)).await;
}

#[tokio::test]
async fn a_commit_that_does_not_begin_at_the_position_is_refused_whatever_it_replaces() {
    let owner = Owner::new().await;
    let first = owner.committed(owner.proposal(0, 5)).await;
    owner.committed(owner.proposal(5, 10)).await;
    let again = Proposal { replaces: vec![first], ..owner.proposal(0, 5) };
    assert_eq!(owner.commit(&again).await.expect("no error"), CommitOutcome::Fenced);
    assert_eq!(owner.count("SELECT next_offset FROM catalog.source_partition").await, 10);
}

#[tokio::test]
async fn the_catalog_refuses_a_second_live_micro_batch_over_an_offset() {
    let owner = Owner::new().await;
    owner.committed(owner.proposal(0, 5)).await;
    let client = postgres::get(&owner.pool).await.expect("the catalog answers");
    client.batch_execute("BEGIN").await.expect("the catalog answers");
    let second = owner.record(OffsetRange::new(4, 6).expect("in order"));
    let refused = catalog::insert_micro_batch(&client, &second).await.expect_err("the constraint refuses");
    assert!(refused.is_exclusion_violation(), "{refused:?}");
}

#[tokio::test]
async fn a_zombie_over_offsets_that_are_read_again_doubles_none() {
    let owner = Owner::new().await;
    owner.committed(owner.proposal(0, 5)).await;
    let newer = owner.succeeded().await;
    newer.moved_back(5).await;
    assert!(!owner.cover(0, 5).await, "its fence is old, and the offsets are covered");
    assert_eq!(newer.doubled().await, 0);
}

#[tokio::test]
async fn an_owner_that_covers_offsets_again_doubles_none() {
    let owner = Owner::new().await;
    owner.committed(owner.proposal(0, 5)).await;
    assert!(!owner.cover(0, 5).await, "the position has moved on, and the offsets are covered");
    assert_eq!(owner.doubled().await, 0);
}

#[tokio::test]
async fn a_micro_batch_cut_inside_the_one_it_replaces_is_refused() {
    let owner = Owner::new().await;
    let whole = owner.committed(owner.proposal(0, 10)).await;
    owner.moved_back(10).await;
    for (next, replaces) in [(3, vec![whole]), (10, vec![])] {
        let refused = owner.commit(&Proposal { replaces, ..owner.proposal(0, next) }).await;
        assert!(matches!(refused, Err(CommitError::Replaces { .. })), "{refused:?}");
    }
    owner.committed(Proposal { replaces: vec![whole], ..owner.proposal(0, 10) }).await;
}

#[tokio::test]
async fn an_object_version_that_another_micro_batch_holds_is_not_consumed_again() {
    let owner = Owner::new().await;
    let other = Owner::of(owner.pool.clone(), 1).await;
    owner.committed(claiming(owner.proposal(0, 1))).await;
    let twice = other.commit(&claiming(other.proposal(0, 1))).await.expect("no error");
    assert_eq!(twice, CommitOutcome::Claimed(HashSet::from([(0, 0)])));
    let emitted = "SELECT sum(item_count)::bigint FROM catalog.outcome_count WHERE outcome = 'emitted'";
    assert_eq!(owner.count(emitted).await, 1);
}

#[tokio::test]
async fn ledgers_that_do_not_add_up_are_refused_before_the_catalog_is_asked() {
    let owner = Owner::new().await;
    let mut broken = owner.proposal(0, 5);
    broken.ledgers.offset(OffsetOutcome::Decoded, 1);
    let refused = owner.commit(&broken).await;
    assert!(matches!(refused, Err(CommitError::Unbalanced { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_catalog_refuses_at_commit_what_does_not_add_up() {
    let owner = Owner::new().await;
    let mut client = postgres::get(&owner.pool).await.expect("the catalog answers");
    let transaction = client.transaction().await.expect("the catalog answers");
    let batch = owner.record(OffsetRange::new(0, 5).expect("in order"));
    catalog::insert_micro_batch(&transaction, &batch).await.expect("nothing looks yet");
    catalog::insert_outcome_counts(&transaction, batch.id, &[ignored(4)]).await.expect("nothing looks yet");
    let refused = transaction.commit().await.expect_err("four are not five");
    assert_eq!(refused.as_db_error().and_then(|error| error.constraint()), Some("books_balance"));
}

#[tokio::test]
async fn books_that_do_not_balance_never_become_true() {
    let owner = Owner::new().await;
    let mut broken = owner.proposal(0, 5);
    broken.ledgers.offset(OffsetOutcome::Decoded, 1);
    assert!(owner.commit(&broken).await.is_err());
    assert_eq!(owner.count("SELECT count(*) FROM catalog.books WHERE NOT balanced").await, 0);
    assert_eq!(owner.count("SELECT next_offset FROM catalog.source_partition").await, 0);
}

#[tokio::test]
async fn a_replaced_file_stays_until_what_replaces_it_is_published() {
    let owner = Owner::new().await;
    let client = postgres::get(&owner.pool).await.expect("the catalog answers");
    let publish = async || {
        for file in lease_pending_files(&client, 10, 30.0).await.expect("the catalog answers") {
            assert!(mark_published(&client, &file).await.expect("the catalog answers"));
        }
    };
    let old = owner.committed(with_a_file(owner.proposal(0, 5))).await;
    publish().await;
    owner.moved_back(5).await;
    owner.committed(Proposal { replaces: vec![old], ..with_a_file(owner.proposal(0, 5)) }).await;
    let hideable = async || lease_hideable_files(&client, 10, 0.0).await.expect("the catalog answers").len();
    assert_eq!(hideable().await, 0, "a listing reader would find neither the old nor the new rows");
    publish().await;
    assert_eq!(hideable().await, 1);
}

#[test]
fn an_offset_without_our_own_tag_is_an_operators_order() {
    let (ours, theirs) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    let tag = |catalog_id| OffsetTag { catalog_id, fence: uuid::Uuid::nil(), batch: uuid::Uuid::nil() };
    let decision = |tag: Option<OffsetTag>| {
        decide(&Observed {
            next_offset: Some(50),
            end: Some(50),
            committed: Committed::of(Some(10), tag.as_ref(), ours, true),
            log_first: 0,
            log_end: 80,
            identity: Identity::Same,
            other_cluster: false,
        })
    };
    assert_eq!(decision(Some(tag(ours))), Decision::Start { at: 50 });
    let replay = Decision::Replay { requested: 10, until: 50 };
    assert_eq!(decision(None), replay, "Kafka's own tool writes none");
    assert_eq!(decision(Some(tag(theirs))), replay);
}
