//! The ledgers are guarded twice: in the code (unit tests of `commit::ledger`) and by the database at COMMIT.

use deadpool_postgres::Pool;
use secrecy::SecretString;
use sluice::catalog::{PartitionKey, SourcePartitionId, install_fence, set_first_position};
use sluice::client::postgres;
use sluice::commit::{CommitError, CommitOutcome, Ledgers, Proposal, Totals, commit};
use sluice::config::PostgresSettings;
use sluice::types::{Fence, MicroBatchId, OffsetOutcome, OffsetRange, TopicPartition};

use crate::stack::World;

struct Owner {
    world: World,
    pool: Pool,
    key: PartitionKey,
    partition: SourcePartitionId,
    fence: Fence,
}

impl Owner {
    async fn new() -> Self {
        let world = World::new(1).await;
        let dsn = SecretString::from(world.env["SLUICE_CATALOG__DSN"].clone());
        let pool = postgres::pool(&PostgresSettings { dsn, pool_size_max: 4 }, "test").expect("a valid DSN");
        let key = PartitionKey {
            cluster_id: "cluster".into(),
            consumer_group: world.name.clone(),
            topic_partition: TopicPartition::new("topic", 0),
        };
        let fence = Fence::generate();
        let client = postgres::get(&pool).await.expect("the catalog answers");
        let partition = install_fence(&client, &key, fence, "test").await.expect("the catalog answers");
        assert!(set_first_position(&client, partition, fence, 0).await.expect("the catalog answers"));
        drop(client);
        Self { world, pool, key, partition, fence }
    }

    fn proposal(&self, first: i64, next: i64) -> Proposal {
        let mut ledgers = Ledgers::default();
        ledgers.offset(OffsetOutcome::Ignored, (next - first).unsigned_abs());
        Proposal {
            id: MicroBatchId::generate(),
            fence: self.fence,
            offsets: OffsetRange::new(first, next).expect("in order"),
            ledgers,
            totals: Totals::default(),
            files: Vec::new(),
            claims: Vec::new(),
            dead_letters: Vec::new(),
            parked: Vec::new(),
            last_message: None,
            oldest_message_at: None,
            outbox_topic: "staged".into(),
            replaces: Vec::new(),
            version_orders: Vec::new(),
            redrive: None,
        }
    }

    async fn commit(&self, proposal: &Proposal) -> Result<CommitOutcome, CommitError> {
        commit(&self.pool, &self.key, self.partition, proposal).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_commits_once_and_again_only_by_its_id() {
    let owner = Owner::new().await;
    let proposal = owner.proposal(0, 5);
    assert_eq!(owner.commit(&proposal).await.expect("balanced"), CommitOutcome::Committed);
    assert_eq!(
        owner.commit(&proposal).await.expect("looked up"),
        CommitOutcome::Committed,
        "outcome unknown: ask again"
    );
    assert_eq!(
        owner.commit(&owner.proposal(0, 5)).await.expect("no error"),
        CommitOutcome::Fenced,
        "the position moved on"
    );
    owner.world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_fence_cannot_commit() {
    let owner = Owner::new().await;
    let proposal = owner.proposal(0, 5);
    let client = postgres::get(&owner.pool).await.expect("the catalog answers");
    install_fence(&client, &owner.key, Fence::generate(), "newer").await.expect("the catalog answers");
    assert_eq!(owner.commit(&proposal).await.expect("no error"), CommitOutcome::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_count_broken_by_hand_is_refused_before_the_database_is_asked() {
    let owner = Owner::new().await;
    let mut proposal = owner.proposal(0, 5);
    proposal.ledgers.offset(OffsetOutcome::Decoded, 1);
    let refused = owner.commit(&proposal).await;
    assert!(matches!(refused, Err(CommitError::Unbalanced { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_books_that_do_not_balance_and_overlapping_batches() {
    let owner = Owner::new().await;
    assert_eq!(owner.commit(&owner.proposal(0, 5)).await.expect("balanced"), CommitOutcome::Committed);
    let catalog = owner.world.catalog().await;
    let broken = catalog.batch_execute("UPDATE catalog.outcome_count SET item_count = item_count + 1").await;
    let broken = broken.expect_err("the trigger refuses");
    assert_eq!(broken.as_db_error().and_then(|error| error.constraint()), Some("books_balance"));
    let overlapping = catalog
        .execute(
            "INSERT INTO catalog.micro_batch (micro_batch_id, source_partition_id, offsets, state, fence, object_count, row_in_count, row_out_count)
             VALUES (gen_random_uuid(), $1, int8range(4, 6), 'live', $2, 0, 0, 0)",
            &[&owner.partition.0, &owner.fence.0],
        )
        .await
        .expect_err("the exclusion constraint refuses");
    assert_eq!(overlapping.as_db_error().and_then(|error| error.constraint()), Some("one_live_batch_per_offset"));
}
