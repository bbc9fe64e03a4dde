//! Many loaders at once, lost connections, partitions in the making.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::load::LoadOutcome;

use super::fixtures::{Warehouse, live, load_with_retries, transaction, user, uuid};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_loaders_make_new_days_once() {
    let warehouse = Arc::new(Warehouse::new().await);
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let warehouse = Arc::clone(&warehouse);
            tokio::spawn(async move {
                // Each with a memory of its own, as processes have.
                let loader =
                    sluice::load::Loader::new(warehouse.pool.clone(), &warehouse.connectors).await.expect("fits");
                let rows: Vec<Value> = (0..20)
                    .map(|day| {
                        let mut row = transaction(task * 100 + day, "1.00", None);
                        row["occurred_at"] = json!(format!("2026-10-{:02}T23:59:59.999Z", day + 1));
                        row
                    })
                    .collect();
                let batch = warehouse.batch(task as i64, "2026-11-23T10:00:00Z", &[("transactions", &rows)]);
                load_with_retries(&loader, &batch).await.expect("loads")
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), 1, "needed another try");
    }
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "160");
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'warehouse.fact_transactions'::regclass";
    assert_eq!(warehouse.value(partitions).await, "20");
    let day = "SELECT count(*) FROM warehouse.fact_transactions_p20261007";
    assert_eq!(warehouse.value(day).await, "8");
}

#[tokio::test]
async fn members_of_a_warehouse_that_was_restored_are_looked_up_anew() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    // their keys are known now
    warehouse.load_rows(2, "transactions", &[transaction(2, "1.00", None)]).await;
    let restored = "DELETE FROM warehouse.fact_transactions; DELETE FROM warehouse.load_state;
                    UPDATE warehouse.dim_users SET user_id = 'somebody else' WHERE user_id = 'u-1'";
    warehouse.execute(restored).await.expect("as a backup from before, and what other loaders did since");
    let batch = warehouse.batch(3, "2026-11-23T10:00:00Z", &[("transactions", &[transaction(3, "1.00", None)])]);
    assert_eq!(load_with_retries(&warehouse.loader, &batch).await.expect("loads"), 2);
    let user = "SELECT u.user_id FROM warehouse.fact_transactions JOIN warehouse.dim_users u USING (user_key)";
    assert_eq!(warehouse.value(user).await, "u-1");
}

#[tokio::test]
async fn a_partition_that_was_taken_away_is_made_again() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    warehouse.execute("DROP TABLE warehouse.fact_transactions_p20261123").await.expect("it was there");
    let rows = [transaction(2, "1.00", None)];
    let batch = warehouse.batch(2, "2026-11-23T10:00:00Z", &[("transactions", &rows)]);
    assert_eq!(load_with_retries(&warehouse.loader, &batch).await.expect("loads"), 2);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loaders_of_the_same_keys_do_not_deadlock_and_agree() {
    const TASKS: u64 = 6;
    const ROUNDS: u64 = 5;
    let warehouse = Arc::new(Warehouse::new().await);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let warehouse = Arc::clone(&warehouse);
            tokio::spawn(async move {
                let mut tries = 0;
                for round in 0..ROUNDS {
                    let version = round * TASKS + task;
                    let (facts, members) = contested_rows(version, task % 2 == 0);
                    let parts: [(&str, &[Value]); 2] = [("transactions", &facts), ("users", &members)];
                    let batch = warehouse.batch(version as i64, "2026-11-23T10:00:00Z", &parts);
                    tries += load_with_retries(&warehouse.loader, &batch).await.expect("loads");
                }
                tries
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(u64::from(task.await.expect("no panic")), ROUNDS, "a load needed another try");
    }
    let newest = TASKS * ROUNDS - 1;
    let amounts = "SELECT DISTINCT amount FROM warehouse.fact_transactions";
    assert_eq!(warehouse.value(amounts).await, format!("{newest}.00"));
    let names = "SELECT DISTINCT name FROM warehouse.dim_users WHERE NOT inferred AND user_key > 0";
    assert_eq!(warehouse.value(names).await, format!("version {newest}"));
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "200");
}

/// 200 facts naming 50 users, of whom 25 come along, in either direction.
fn contested_rows(version: u64, backwards: bool) -> (Vec<Value>, Vec<Value>) {
    let stamp = format!("2026-11-23T09:{:02}:{:02}Z", version / 60, version % 60);
    let fact = |number: u64| {
        let mut row = transaction(number, &format!("{version}.00"), Some(&stamp));
        row["user_id"] = json!(format!("u-{}", number % 50));
        row["product_id"] = json!(format!("p-{}", (number + version) % 70));
        row
    };
    let mut facts: Vec<Value> = (0..200).map(fact).collect();
    let mut members: Vec<Value> =
        (0..25).map(|number| user(&format!("u-{number}"), &format!("version {version}"), &stamp)).collect();
    if backwards {
        facts.reverse();
        members.reverse();
    }
    (facts, members)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_loaders_of_one_micro_batch_one_loads_it() {
    let warehouse = Arc::new(Warehouse::new().await);
    let rows: Vec<Value> = (0..500).map(|number| transaction(number, "1.00", None)).collect();
    let batch = Arc::new(warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &rows)]));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (warehouse, batch) = (Arc::clone(&warehouse), Arc::clone(&batch));
            tokio::spawn(async move { warehouse.loader.load(&batch, live).await.expect("loads") })
        })
        .collect();
    let mut loaded = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            LoadOutcome::Loaded(_) => loaded += 1,
            other => assert_eq!(other, LoadOutcome::AlreadyLoaded),
        }
    }
    assert_eq!(loaded, 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_nothing_and_the_next_try_loads() {
    let warehouse = Warehouse::new().await;
    let rows = [transaction(1, "1.00", None)];
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &rows)]);
    warehouse.cut_off(&batch).await;
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.load_state").await, "0");
    load_with_retries(&warehouse.loader, &batch).await.expect("loads");
    assert_eq!(warehouse.value("SELECT transaction_id FROM warehouse.fact_transactions").await, uuid(1));
}
