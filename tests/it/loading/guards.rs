//! One attack for each guard of the loader; `tests/it/guards/mutants.rs` takes them away.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::catalog::LiveBatch;
use sluice::load::{BatchToLoad, LoadOutcome};
use sluice::types::{MicroBatchId, OffsetRange};
use tokio::sync::Semaphore;

use super::fixtures::{Warehouse, live, transaction, uuid};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";

fn at(number: u64, amount: &str, second: u32) -> Value {
    transaction(number, amount, Some(&format!("2026-11-23T09:00:{second:02}Z")))
}

/// The same offset, made again.
fn again(warehouse: &Warehouse, offset: i64, rows: &[Value]) -> BatchToLoad {
    let part: (&str, &[Value]) = ("transactions", rows);
    let parts = if rows.is_empty() { &[][..] } else { std::slice::from_ref(&part) };
    BatchToLoad { replaces: true, ..warehouse.batch(offset, SEEN_AT, parts) }
}

async fn amounts(warehouse: &Warehouse) -> Vec<String> {
    let sql = "SELECT amount::text FROM warehouse.fact_transactions ORDER BY amount";
    warehouse.column(sql).await.into_iter().flatten().collect()
}

#[tokio::test]
async fn an_older_row_that_comes_later_changes_nothing() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "2.00", 2)]).await;
    warehouse.load_rows(2, "transactions", &[at(1, "1.00", 1)]).await;
    assert_eq!(amounts(&warehouse).await, ["2.00"]);
}

#[tokio::test]
async fn the_row_that_was_outranked_comes_back() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 1)]).await;
    warehouse.load_rows(2, "transactions", &[at(1, "2.00", 2)]).await;
    warehouse.load(&again(&warehouse, 2, &[])).await;
    assert_eq!(amounts(&warehouse).await, ["1.00"]);
}

#[tokio::test]
async fn a_row_that_is_not_made_again_goes() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 1), at(2, "2.00", 1)]).await;
    warehouse.load(&again(&warehouse, 1, &[at(1, "1.00", 1)])).await;
    assert_eq!(amounts(&warehouse).await, ["1.00"]);
}

#[tokio::test]
async fn a_micro_batch_that_died_before_its_load_writes_nothing() {
    let warehouse = Warehouse::new().await;
    let dead = warehouse.batch(1, SEEN_AT, &[("transactions", &[at(1, "1.00", 1)])]);
    let outcome = warehouse.loader.load(&dead, async || Ok(None)).await.expect("answers");
    assert_eq!(outcome, LoadOutcome::NotLive);
    assert!(amounts(&warehouse).await.is_empty());
}

/// One that the catalog lost is loading, under its locks, when another over the same offsets begins: it must find the
/// rows of the first, of which nothing tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_of_a_load_under_way_are_seen_by_the_load_that_follows() {
    let warehouse = Arc::new(Warehouse::new().await);
    let lost = again(&warehouse, 5, &[at(1, "1.00", 1), at(2, "2.00", 1)]);
    let mut follower = warehouse.batch(5, SEEN_AT, &[("transactions", &[at(2, "2.00", 1)])]);
    follower.micro_batch_id = MicroBatchId::generate();
    assert_eq!(Some(follower.offsets), OffsetRange::new(5, 6));
    let (reached, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let first = {
        let (warehouse, reached, go_on) = (Arc::clone(&warehouse), Arc::clone(&reached), Arc::clone(&go_on));
        tokio::spawn(async move {
            let pausing = || async {
                reached.add_permits(1);
                let _ = go_on.acquire().await.expect("never closed");
                Ok(Some(LiveBatch::default()))
            };
            warehouse.loader.load(&lost, pausing).await.expect("loads")
        })
    };
    let _ = reached.acquire().await.expect("never closed");
    let second = {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move { warehouse.loader.load(&follower, live).await.expect("loads") })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while warehouse.value(waiting).await == "0" {
        assert!(!second.is_finished(), "it waits for nothing");
        tokio::task::yield_now().await;
    }
    go_on.add_permits(1);
    assert!(matches!(first.await.expect("no panic"), LoadOutcome::Loaded(_)));
    assert!(matches!(second.await.expect("no panic"), LoadOutcome::Loaded(_)));
    assert_eq!(amounts(&warehouse).await, ["2.00"]);
    let kept = json!(warehouse.value("SELECT transaction_id FROM warehouse.fact_transactions").await);
    assert_eq!(kept, json!(uuid(2)));
}
