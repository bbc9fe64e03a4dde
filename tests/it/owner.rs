//! The owner of a topic partition, who commits what a test makes up, without any server but the catalog's.

use deadpool_postgres::Pool;
use sluice::catalog::{PartitionKey, SourcePartitionId, install_fence, set_first_position};
use sluice::client::postgres;
use sluice::commit::{CommitError, CommitOutcome, Ledgers, Proposal, Totals, commit};
use sluice::types::{Fence, MicroBatchId, OffsetOutcome, OffsetRange, TopicPartition};

/// Of topic partition `number`, which begins at offset 0.
pub(crate) struct Owner {
    pub(crate) pool: Pool,
    pub(crate) key: PartitionKey,
    pub(crate) partition: SourcePartitionId,
    pub(crate) fence: Fence,
}

impl Owner {
    pub(crate) async fn of(pool: Pool, number: i32) -> Self {
        let key = PartitionKey {
            cluster_id: "cluster".into(),
            consumer_group: "group".into(),
            topic_partition: TopicPartition::new("topic", number),
        };
        let fence = Fence::generate();
        let client = postgres::get(&pool).await.expect("the catalog answers");
        let partition = install_fence(&client, &key, fence, "test").await.expect("the catalog answers");
        assert!(set_first_position(&client, partition, fence, 0).await.expect("the catalog answers"));
        Self { pool, key, partition, fence }
    }

    /// Of messages that say nothing.
    pub(crate) fn proposal(&self, first: i64, next: i64) -> Proposal {
        let mut ledgers = Ledgers::default();
        ledgers.offset(OffsetOutcome::Ignored, (next - first).unsigned_abs());
        Proposal {
            id: MicroBatchId::generate(),
            fence: self.fence,
            offsets: OffsetRange::new(first, next).expect("in order"),
            ledgers,
            totals: Totals::default(),
            files: Vec::new(),
            needs_load: false,
            claims: Vec::new(),
            dead_letters: Vec::new(),
            last_message: None,
            oldest_message_at: None,
            outbox_topic: "staged".into(),
            replaces: Vec::new(),
            version_orders: Vec::new(),
            redrive: None,
            parked: Vec::new(),
            expectations: Vec::new(),
            schemas: Vec::new(),
        }
    }

    pub(crate) async fn commit(&self, proposal: &Proposal) -> Result<CommitOutcome, CommitError> {
        commit(&self.pool, &self.key, self.partition, proposal).await
    }
}
