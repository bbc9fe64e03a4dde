//! Who loads a micro-batch, on the catalog.

use sluice::catalog::{Database, lease_unloaded_batch, migrate};
use sluice::client::postgres;
use sluice::commit::CommitOutcome;
use sluice::pipeline::holding_lease;

use super::fixtures::pool;
use crate::database::fresh_database;
use crate::owner::Owner;

const LEASE_SECONDS: f64 = 0.6;

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_takes_longer_than_its_lease_is_not_taken_up_by_another_until_it_dies() {
    let pool = pool(&fresh_database().await);
    migrate(&pool, Database::Catalog).await.expect("migrates");
    let owner = Owner::of(pool.clone(), 0).await;
    let mut proposal = owner.proposal(0, 5);
    proposal.needs_load = true;
    assert_eq!(owner.commit(&proposal).await.expect("balanced"), CommitOutcome::Committed);

    let other = postgres::get(&pool).await.expect("connects");
    let leased = lease_unloaded_batch(&other, LEASE_SECONDS).await.expect("asks").expect("one waits");
    assert_eq!(leased.id, proposal.id);
    let began = other.query_one("SELECT clock_timestamp()", &[]).await.expect("asks");
    let began: chrono::DateTime<chrono::Utc> = began.get(0);
    let work = async {
        // three times as long as the lease, by the clock that decides
        let is_over = "SELECT clock_timestamp() > $1::timestamptz + 3 * $2::float8 * interval '1 second'";
        while !other.query_one(is_over, &[&began, &LEASE_SECONDS]).await.expect("asks").get::<_, bool>(0) {
            assert!(lease_unloaded_batch(&other, LEASE_SECONDS).await.expect("asks").is_none(), "it is being loaded");
        }
    };
    holding_lease(&pool, leased.id, LEASE_SECONDS, work).await;

    // nobody renews it any more: it is found within a lease
    let found = async {
        loop {
            if let Some(found) = lease_unloaded_batch(&other, LEASE_SECONDS).await.expect("asks") {
                break found;
            }
        }
    };
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), found).await.expect("its lease runs out");
    assert_eq!(found.id, leased.id);
}
