//! Who loads a micro-batch, on the catalog.

use deadpool_postgres::Object;
use sluice::catalog::{Database, JoinLimits, LeasedBatch, lease_unloaded_batches, migrate};
use sluice::client::postgres;
use sluice::commit::CommitOutcome;
use sluice::pipeline::holding_lease;

use super::fixtures::pool;
use crate::database::fresh_database;
use crate::owner::Owner;

const LEASE_SECONDS: f64 = 0.6;

async fn lease_one(client: &Object) -> Option<LeasedBatch> {
    let limits = JoinLimits { batch_count_max: 1, row_count_max: 1, size_bytes_max: 1 };
    lease_unloaded_batches(client, LEASE_SECONDS, limits).await.expect("asks").pop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_takes_longer_than_its_lease_is_not_taken_up_by_another_until_it_dies() {
    let pool = pool(&fresh_database().await);
    migrate(&pool, Database::Catalog).await.expect("migrates");
    let owner = Owner::of(pool.clone(), 0).await;
    let mut proposal = owner.proposal(0, 5);
    proposal.needs_load = true;
    assert_eq!(owner.commit(&proposal).await.expect("balanced"), CommitOutcome::Committed);

    let other = postgres::get(&pool).await.expect("connects");
    let leased = lease_one(&other).await.expect("one waits");
    assert_eq!(leased.id, proposal.id);
    let began = other.query_one("SELECT clock_timestamp()", &[]).await.expect("asks");
    let began: chrono::DateTime<chrono::Utc> = began.get(0);
    let work = async {
        // three times as long as the lease, by the clock that decides
        let is_over = "SELECT clock_timestamp() > $1::timestamptz + 3 * $2::float8 * interval '1 second'";
        while !other.query_one(is_over, &[&began, &LEASE_SECONDS]).await.expect("asks").get::<_, bool>(0) {
            assert!(lease_one(&other).await.is_none(), "it is being loaded");
        }
    };
    holding_lease(&pool, &[leased.id], LEASE_SECONDS, work).await;

    // nobody renews it any more: it is found within a lease
    let found = async {
        loop {
            if let Some(found) = lease_one(&other).await {
                break found;
            }
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), found).await.expect("its lease runs out");
    assert_eq!(found.id, leased.id);
}

#[tokio::test]
async fn the_oldest_are_leased_together_as_long_as_they_fit_and_one_that_replaces_comes_alone() {
    let pool = pool(&fresh_database().await);
    migrate(&pool, Database::Catalog).await.expect("migrates");
    let owner = Owner::of(pool.clone(), 0).await;
    let mut ids = Vec::new();
    for first in 0..6 {
        let mut proposal = owner.proposal(first, first + 1);
        proposal.needs_load = true;
        assert_eq!(owner.commit(&proposal).await.expect("balanced"), CommitOutcome::Committed);
        ids.push(proposal.id);
    }
    let client = postgres::get(&pool).await.expect("connects");
    // one row each, and the fourth replaces the sixth
    let sql = "UPDATE catalog.micro_batch SET row_out_count = 1;
               UPDATE catalog.micro_batch SET committed_at = now() + lower(offsets) * interval '1 second'";
    client.batch_execute(sql).await.expect("is an update");
    let sql = "UPDATE catalog.micro_batch SET superseded_by = $1, state = 'dead' WHERE micro_batch_id = $2";
    client.execute(sql, &[&ids[3].0, &ids[5].0]).await.expect("is an update");

    let lease = async |batch_count_max, row_count_max| {
        let limits = JoinLimits { batch_count_max, row_count_max, size_bytes_max: 1 };
        let leased = lease_unloaded_batches(&client, 600.0, limits).await.expect("asks");
        leased.into_iter().map(|leased| (leased.id, leased.replaces)).collect::<Vec<_>>()
    };
    assert_eq!(lease(10, 0).await, [(ids[0], false)], "the first whatever its size");
    assert_eq!(lease(10, 10).await, [(ids[1], false), (ids[2], false)], "up to the one that replaces");
    assert_eq!(lease(10, 10).await, [(ids[3], true)], "alone");
    assert_eq!(lease(10, 10).await, [(ids[4], false)]);
    assert!(lease(10, 10).await.is_empty());
}
