//! The loader on a real PostgreSQL: what the warehouse holds after any order, repetition and interference.

mod bulk;
mod checker;
mod fixtures;
mod guards;
mod histories;
mod hostile;
mod joined;
mod leases;
mod many_loaders;
mod moving;
mod replaced;
mod resolved;
mod rollups;
mod schemas;
mod sealing;
mod stress;
mod together;

use serde_json::json;
use sluice::load::{LoadOutcome, TableCounts};

use self::fixtures::{Warehouse, live, transaction, user, uuid};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[tokio::test]
async fn the_newer_fact_wins_in_any_order_of_arrival() {
    let warehouse = Warehouse::new().await;
    for (number, order) in ORDERS.iter().enumerate() {
        let number = number as u64;
        let versions = [
            transaction(number, "1.00", Some("2026-11-23T09:00:01Z")),
            transaction(number, "2.00", Some("2026-11-23T09:00:02Z")),
            transaction(number, "3.00", Some("2026-11-23T09:00:03Z")),
        ];
        for version in order {
            warehouse
                .load_rows((number * 3) as i64 + *version as i64, "transactions", &[versions[*version].clone()])
                .await;
        }
    }
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "6");
    assert_eq!(warehouse.value("SELECT DISTINCT amount FROM warehouse.fact_transactions").await, "3.00");
}

#[tokio::test]
async fn keys_that_are_held_after_loads_that_met_none_are_compared_all_the_same() {
    let warehouse = Warehouse::new().await;
    for number in 0..3 {
        let new = [transaction(number, "1.00", Some("2026-11-23T09:00:01Z"))];
        warehouse.load_rows(number as i64, "transactions", &new).await;
    }
    let newer = transaction(1, "2.00", Some("2026-11-23T09:00:02Z"));
    let older = transaction(2, "0.50", Some("2026-11-23T09:00:00Z"));
    let mixed = warehouse.load_rows(3, "transactions", &[transaction(7, "1.00", None), newer, older]).await;
    assert_eq!(mixed, TableCounts { inserted: 1, updated: 1, unchanged_or_older: 1, ..TableCounts::default() });
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions_shadow").await, "2");
    checker::check(&warehouse).await;
}

#[tokio::test]
async fn the_newer_member_wins_in_any_order_of_arrival() {
    let warehouse = Warehouse::new().await;
    for (number, order) in ORDERS.iter().enumerate() {
        for version in order {
            let row =
                user(&format!("u-{number}"), &format!("name {version}"), &format!("2026-11-23T09:00:0{version}Z"));
            warehouse.load_rows(number as i64 * 3 + *version as i64, "users", &[row]).await;
        }
    }
    assert_eq!(warehouse.value("SELECT DISTINCT name FROM warehouse.dim_users WHERE user_key > 0").await, "name 2");
}

#[tokio::test]
async fn without_newer_by_the_object_decides_and_within_it_the_row() {
    let warehouse = Warehouse::new().await;
    let event = |name: &str| json!({"event_id": uuid(1), "user_id": "u-1", "event_type": name, "occurred_at": "2026-11-23T09:00:00Z"});
    let newer = warehouse.batch(1, "2026-11-23T10:00:02Z", &[("events", &[event("view"), event("click")])]);
    let older = warehouse.batch(2, "2026-11-23T10:00:01Z", &[("events", &[event("search")])]);
    warehouse.load(&newer).await;
    warehouse.load(&older).await;
    assert_eq!(warehouse.value("SELECT event_type FROM warehouse.fact_events").await, "click");
}

#[tokio::test]
async fn a_null_newer_by_means_the_time_of_the_object() {
    let warehouse = Warehouse::new().await;
    let silent = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &[transaction(1, "1.00", None)])]);
    warehouse.load(&silent).await;
    warehouse.load_rows(2, "transactions", &[transaction(1, "2.00", Some("2026-11-23T09:59:59Z"))]).await;
    assert_eq!(warehouse.value("SELECT amount FROM warehouse.fact_transactions").await, "1.00");
    warehouse.load_rows(3, "transactions", &[transaction(1, "3.00", Some("2026-11-23T10:00:01Z"))]).await;
    assert_eq!(warehouse.value("SELECT amount FROM warehouse.fact_transactions").await, "3.00");
}

#[tokio::test]
async fn duplicates_leave_one_row_and_are_counted() {
    let warehouse = Warehouse::new().await;
    let row = transaction(1, "1.00", Some("2026-11-23T09:00:01Z"));
    let first = warehouse.load_rows(1, "transactions", &[row.clone(), row.clone(), transaction(2, "1.00", None)]).await;
    assert_eq!(first, TableCounts { inserted: 2, updated: 0, unchanged_or_older: 1, ..TableCounts::default() });
    let newer = transaction(1, "2.00", Some("2026-11-23T09:00:02Z"));
    let second = warehouse.load_rows(2, "transactions", &[row, newer, transaction(3, "1.00", None)]).await;
    assert_eq!(second, TableCounts { inserted: 1, updated: 1, unchanged_or_older: 1, ..TableCounts::default() });
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "3");
}

#[tokio::test]
async fn every_type_arrives_as_it_was() {
    let warehouse = Warehouse::new().await;
    let mut row = transaction(1, "9999999999.99", Some("2026-11-23T09:00:01.123Z"));
    row["attributes"] = json!(r#"{"b": [1, 2.50], "a": "ü"}"#);
    row["occurred_at"] = json!("2199-12-31T23:59:59.999Z");
    let mut negative = transaction(2, "-0.01", None);
    negative["occurred_at"] = json!("1970-01-01T00:00:00Z");
    warehouse.load_rows(1, "transactions", &[row, negative]).await;
    let text = "SELECT concat_ws('|', transaction_id, occurred_at, amount, currency, quantity, updated_at, attributes, \
                _source, _offset, _record, _row, _newer_at, _object_time, _object_hash) \
                FROM warehouse.fact_transactions ORDER BY transaction_id";
    let rows = warehouse.column(text).await;
    assert_eq!(
        rows[0].as_deref(),
        Some(
            "00000000-0000-4000-8000-000000000001|2199-12-31 23:59:59.999+00|9999999999.99|EUR|1|\
             2026-11-23 09:00:01.123+00|{\"a\": \"ü\", \"b\": [1, 2.50]}|1|1|0|0|2026-11-23 09:00:01.123+00|\
             2026-11-23 10:00:00+00|1"
        )
    );
    assert!(rows[1].as_deref().expect("text").contains("|1970-01-01 00:00:00+00|-0.01|"), "{rows:?}");
}

#[tokio::test]
async fn a_member_is_inferred_and_completed_whatever_its_time() {
    let warehouse = Warehouse::new().await;
    let batch = warehouse.batch(
        1,
        "2026-11-23T10:00:00Z",
        &[("transactions", &[transaction(1, "1.00", None), transaction(2, "1.00", None)])],
    );
    let counts = warehouse.load(&batch).await;
    assert_eq!(counts.tables["dim_users"], TableCounts { inferred: 1, ..TableCounts::default() });
    let key = "SELECT user_key FROM warehouse.dim_users WHERE user_id = 'u-1' AND inferred";
    let inferred = warehouse.value(key).await;

    let completed = warehouse.load_rows(2, "users", &[user("u-1", "Ann", "1999-01-01T00:00:00Z")]).await;
    assert_eq!(completed, TableCounts { updated: 1, ..TableCounts::default() });
    let key = "SELECT user_key FROM warehouse.dim_users WHERE user_id = 'u-1' AND NOT inferred AND name = 'Ann'";
    assert_eq!(warehouse.value(key).await, inferred);
    assert_eq!(warehouse.value("SELECT DISTINCT user_key FROM warehouse.fact_transactions").await, inferred);
}

#[tokio::test]
async fn a_member_of_the_same_micro_batch_is_not_inferred() {
    let warehouse = Warehouse::new().await;
    let rows = (&[transaction(1, "1.00", None)], &[user("u-1", "Ann", "2026-11-23T00:00:00Z")]);
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", rows.0), ("users", rows.1)]);
    let counts = warehouse.load(&batch).await;
    assert_eq!(counts.tables["dim_users"], TableCounts { inserted: 1, ..TableCounts::default() });
    let joined = "SELECT name FROM warehouse.fact_transactions JOIN warehouse.dim_users USING (user_key)";
    assert_eq!(warehouse.value(joined).await, "Ann");
}

#[tokio::test]
async fn a_fact_that_names_nobody_points_at_the_unknown_member_which_no_row_renames() {
    let warehouse = Warehouse::new().await;
    let mut nobody = transaction(1, "1.00", None);
    nobody["user_id"] = json!("");
    nobody["product_id"] = json!(null);
    warehouse.load_rows(1, "transactions", &[nobody]).await;
    let counts = warehouse.load_rows(2, "users", &[user("", "Mallory", "2099-01-01T00:00:00Z")]).await;
    assert_eq!(counts, TableCounts { unchanged_or_older: 1, ..TableCounts::default() });
    let joined = "SELECT concat(user_key, product_key, u.name) FROM warehouse.fact_transactions JOIN warehouse.dim_users u USING (user_key)";
    assert_eq!(warehouse.value(joined).await, "00unknown");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.dim_users").await, "1");
}

#[tokio::test]
async fn two_connectors_may_fill_one_fact() {
    let warehouse = Warehouse::new().await;
    let event =
        |number: u64| json!({"event_id": uuid(number), "event_type": "view", "occurred_at": "2026-11-23T09:00:00Z"});
    let rows = (&[event(1), event(2)], &[event(2), event(3)]);
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("events", rows.0), ("direct-events", rows.1)]);
    let counts = warehouse.load(&batch).await;
    assert_eq!(counts.tables["fact_events"].inserted, 3);
    assert_eq!(counts.tables["fact_events"].updated + counts.tables["fact_events"].unchanged_or_older, 1);
}

#[tokio::test]
async fn the_same_micro_batch_is_loaded_once() {
    let warehouse = Warehouse::new().await;
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &[transaction(1, "1.00", None)])]);
    warehouse.load(&batch).await;
    assert_eq!(warehouse.loader.load(&batch, live).await.expect("answers"), LoadOutcome::AlreadyLoaded);
    let state = "SELECT concat_ws('|', source_partition_id, offsets, row_count) FROM warehouse.load_state";
    assert_eq!(warehouse.value(state).await, "1|[1,2)|1");
}

#[tokio::test]
async fn a_micro_batch_that_is_not_live_writes_nothing() {
    let warehouse = Warehouse::new().await;
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &[transaction(1, "1.00", None)])]);
    let outcome = warehouse.loader.load(&batch, async || Ok(None)).await.expect("answers");
    assert_eq!(outcome, LoadOutcome::NotLive);
    for table in ["fact_transactions", "load_state", "dim_users WHERE user_key > 0"] {
        assert_eq!(warehouse.value(&format!("SELECT count(*) FROM warehouse.{table}")).await, "0", "{table}");
    }
}

#[tokio::test]
async fn a_micro_batch_without_rows_is_loaded_too() {
    let warehouse = Warehouse::new().await;
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[]);
    assert_eq!(warehouse.load(&batch).await.tables.len(), 0);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.load_state").await, "1");
}
