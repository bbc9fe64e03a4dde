//! Micro-batches that replace others: what goes, what comes back, what stays untouched.

use serde_json::{Value, json};
use sluice::catalog::LiveBatch;
use sluice::client::postgres;
use sluice::load::{BatchToLoad, LoadOutcome, TableCounts};
use sluice::types::OffsetRange;

use super::fixtures::{Warehouse, live, replacing, transaction, user, uuid};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";

/// Where each amount of a fact stands: in the table, or in its shadow.
async fn amounts(warehouse: &Warehouse) -> (Vec<String>, Vec<String>) {
    let of = async |table: &str| {
        let sql = format!("SELECT amount::text FROM warehouse.{table} ORDER BY amount");
        warehouse.column(&sql).await.into_iter().flatten().collect::<Vec<_>>()
    };
    (of("fact_transactions").await, of("fact_transactions_shadow").await)
}

fn at(number: u64, amount: &str, second: u32) -> Value {
    transaction(number, amount, Some(&format!("2026-11-23T09:00:{second:02}Z")))
}

#[tokio::test]
async fn a_row_that_is_not_made_again_goes_and_the_one_it_outranked_comes_back() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 1)]).await;
    warehouse.load_rows(2, "transactions", &[at(1, "2.00", 2)]).await;
    let newest = warehouse.batch(3, SEEN_AT, &[("transactions", &[at(1, "3.00", 3), at(2, "9.00", 3)])]);
    warehouse.load(&newest).await;
    assert_eq!(amounts(&warehouse).await, (vec!["3.00".into(), "9.00".into()], vec!["1.00".into(), "2.00".into()]));

    let without = replacing(warehouse.batch(3, SEEN_AT, &[("transactions", &[at(2, "9.00", 3)])]));
    // the same row has another number now: it is another row
    let counts = warehouse.load(&without).await.tables["fact_transactions"];
    assert_eq!((counts.retracted, counts.promoted), (2, 1));
    assert_eq!(amounts(&warehouse).await, (vec!["2.00".into(), "9.00".into()], vec!["1.00".into()]));

    let nothing = replacing(warehouse.batch(3, SEEN_AT, &[]));
    warehouse.load(&nothing).await;
    assert_eq!(amounts(&warehouse).await, (vec!["2.00".into()], vec!["1.00".into()]));
    let state = "SELECT count(*) FROM warehouse.load_state";
    assert_eq!(warehouse.value(state).await, "3", "one for each range");
}

#[tokio::test]
async fn what_another_loader_has_loaded_meanwhile_with_other_masks_is_replaced() {
    let warehouse = Warehouse::new().await;
    let batch = warehouse.batch(1, SEEN_AT, &[("transactions", &[at(1, "1.00", 1)])]);
    warehouse.load(&batch).await;
    let hidden = "CREATE TABLE public.kept AS TABLE warehouse.load_state; DELETE FROM warehouse.load_state";
    warehouse.execute(hidden).await.expect("as if the other had not committed yet");
    // asked when this one has looked what is loaded: by now the other has
    let masking = async || {
        let client = postgres::get(&warehouse.pool).await.expect("connects");
        let shown = "INSERT INTO warehouse.load_state TABLE public.kept ON CONFLICT DO NOTHING";
        client.batch_execute(shown).await.expect("it is as it was");
        Ok(Some(LiveBatch { mask_rev: 1, masked: [(1, 0)].into_iter().collect() }))
    };
    let masked = BatchToLoad { mask_rev: 1, ..batch };
    let outcome = warehouse.loader.load(&masked, masking).await.expect("loads");
    assert!(matches!(outcome, LoadOutcome::Loaded(_)), "{outcome:?}");
    assert_eq!(amounts(&warehouse).await, (vec![], vec![]), "the masked row is gone, and stands in no shadow");
}

#[tokio::test]
async fn losers_of_replaced_micro_batches_leave_the_shadow_too() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 1)]).await;
    warehouse.load_rows(2, "transactions", &[at(1, "2.00", 2)]).await;
    let gone = replacing(warehouse.batch(1, SEEN_AT, &[]));
    let counts = warehouse.load(&gone).await.tables["fact_transactions"];
    assert_eq!((counts.retracted, counts.promoted), (0, 0), "it stood in the shadow");
    assert_eq!(amounts(&warehouse).await, (vec!["2.00".into()], vec![]));
}

#[tokio::test]
async fn the_same_rows_made_again_touch_nothing() {
    let warehouse = Warehouse::new().await;
    let rows = [at(1, "1.00", 1), at(2, "2.00", 2), at(2, "2.50", 1)];
    let users = [user("u-1", "Ann", "2026-11-23T09:00:00Z"), user("u-1", "Anna", "2026-11-23T09:00:01Z")];
    let parts: [(&str, &[Value]); 2] = [("transactions", &rows), ("users", &users)];
    warehouse.load(&warehouse.batch(1, SEEN_AT, &parts)).await;
    let places =
        "SELECT string_agg(concat(tableoid, ctid, xmin), ' ' ORDER BY transaction_id) FROM warehouse.fact_transactions";
    let members = "SELECT string_agg(concat(ctid, xmin), ' ' ORDER BY user_key) FROM warehouse.dim_users";
    let before = (warehouse.value(places).await, warehouse.value(members).await);
    let counts = warehouse.load(&replacing(warehouse.batch(1, SEEN_AT, &parts))).await;
    let untouched = |rows| TableCounts { unchanged_or_older: rows, ..TableCounts::default() };
    assert_eq!(counts.tables["fact_transactions"], untouched(3));
    assert_eq!(counts.tables["dim_users"], untouched(2));
    assert_eq!((warehouse.value(places).await, warehouse.value(members).await), before, "not a row was written");
}

#[tokio::test]
async fn a_row_that_went_missing_comes_back_with_a_replay_that_makes_the_same() {
    let warehouse = Warehouse::new().await;
    let rows = [at(1, "1.00", 1), at(2, "2.00", 2), at(2, "2.50", 1)];
    for lost in ["fact_transactions WHERE amount = 1", "fact_transactions_shadow"] {
        let parts: [(&str, &[Value]); 1] = [("transactions", &rows)];
        warehouse.load(&replacing(warehouse.batch(1, SEEN_AT, &parts))).await;
        warehouse.execute(&format!("DELETE FROM warehouse.{lost}")).await.expect("may do so");
        warehouse.load(&replacing(warehouse.batch(1, SEEN_AT, &parts))).await;
        assert_eq!(amounts(&warehouse).await, (vec!["1.00".into(), "2.00".into()], vec!["2.50".into()]), "{lost}");
    }
}

#[tokio::test]
async fn what_a_version_without_digests_loaded_is_compared_row_by_row() {
    let warehouse = Warehouse::new().await;
    let rows = [at(1, "1.00", 1), at(2, "2.00", 2)];
    warehouse.load_rows(1, "transactions", &rows).await;
    let older = "UPDATE warehouse.load_state SET digest = NULL;
                 UPDATE warehouse.fact_transactions SET amount = 9 WHERE amount = 1";
    warehouse.execute(older).await.expect("may do so");
    warehouse.load(&replacing(warehouse.batch(1, SEEN_AT, &[("transactions", &rows)]))).await;
    assert_eq!(amounts(&warehouse).await.0, ["1.00", "2.00"]);
}

#[tokio::test]
async fn a_row_made_differently_is_replaced_and_may_lose_its_place() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 5)]).await;
    warehouse.load(&warehouse.batch(2, SEEN_AT, &[("transactions", &[at(1, "2.00", 9)])])).await;
    let older_now = replacing(warehouse.batch(2, SEEN_AT, &[("transactions", &[at(1, "2.00", 3)])]));
    warehouse.load(&older_now).await;
    assert_eq!(amounts(&warehouse).await, (vec!["1.00".into()], vec!["2.00".into()]));
    let moved = {
        let mut row = at(1, "2.00", 9);
        row["occurred_at"] = json!("2026-11-24T00:00:00Z");
        row
    };
    warehouse.load(&replacing(warehouse.batch(2, SEEN_AT, &[("transactions", &[moved])]))).await;
    assert_eq!(amounts(&warehouse).await, (vec!["1.00".into(), "2.00".into()], vec![]), "another time, another fact");
}

#[tokio::test]
async fn a_member_falls_back_to_its_older_row_and_then_to_an_inferred_one() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    let key = warehouse.value("SELECT user_key FROM warehouse.dim_users WHERE user_id = 'u-1'").await;
    warehouse.load_rows(2, "users", &[user("u-1", "Ann", "2026-11-23T09:00:01Z")]).await;
    warehouse.load_rows(3, "users", &[user("u-1", "Anna", "2026-11-23T09:00:02Z")]).await;
    let member = "SELECT concat_ws('|', user_key, inferred, coalesce(name, '-'), coalesce(_offset::text, '-')) FROM warehouse.dim_users WHERE user_id = 'u-1'";
    assert_eq!(warehouse.value(member).await, format!("{key}|f|Anna|3"));
    warehouse.load(&replacing(warehouse.batch(3, SEEN_AT, &[]))).await;
    assert_eq!(warehouse.value(member).await, format!("{key}|f|Ann|2"));
    warehouse.load(&replacing(warehouse.batch(2, SEEN_AT, &[]))).await;
    assert_eq!(warehouse.value(member).await, format!("{key}|t|-|-"));
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "1");
}

#[tokio::test]
async fn rows_of_a_commit_that_the_catalog_lost_are_retracted_though_nothing_says_so() {
    let warehouse = Warehouse::new().await;
    let mut lost = warehouse.batch(5, SEEN_AT, &[("transactions", &[at(1, "1.00", 1), at(2, "2.00", 1)])]);
    lost.offsets = OffsetRange::new(5, 9).expect("in order");
    warehouse.load(&lost).await;
    // the restored catalog cuts elsewhere and knows nothing to replace
    let mut again = warehouse.batch(5, SEEN_AT, &[("transactions", &[at(2, "2.00", 1)])]);
    again.offsets = OffsetRange::new(5, 7).expect("in order");
    warehouse.load(&again).await;
    assert_eq!(amounts(&warehouse).await, (vec!["2.00".into()], vec![]));
    let mut rest = warehouse.batch(7, SEEN_AT, &[]);
    rest.offsets = OffsetRange::new(7, 12).expect("in order");
    warehouse.load(&rest).await;
    assert_eq!(amounts(&warehouse).await, (vec!["2.00".into()], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replaced_micro_batch_and_its_successor_loaded_at_once_end_in_the_successor() {
    use std::sync::atomic::{AtomicBool, Ordering};
    for _ in 0..8 {
        let warehouse = std::sync::Arc::new(Warehouse::new().await);
        let rows: Vec<Value> = (0..300).map(|number| at(number, "1.00", 1)).collect();
        let old = warehouse.batch(1, SEEN_AT, &[("transactions", &rows)]);
        let kept: Vec<Value> = rows.iter().step_by(2).cloned().collect();
        let new = replacing(warehouse.batch(1, SEEN_AT, &[("transactions", &kept)]));
        // the catalog as the old one's loader sees it: dead as soon as its successor is committed
        let is_replaced = std::sync::Arc::new(AtomicBool::new(false));
        let (one, seen) = (std::sync::Arc::clone(&warehouse), std::sync::Arc::clone(&is_replaced));
        let loading = tokio::spawn(async move {
            one.loader
                .load(&old, || async { Ok((!seen.load(Ordering::SeqCst)).then(LiveBatch::default)) })
                .await
                .expect("loads")
        });
        tokio::task::yield_now().await;
        is_replaced.store(true, Ordering::SeqCst);
        assert!(matches!(warehouse.loader.load(&new, live).await.expect("loads"), LoadOutcome::Loaded(_)));
        loading.await.expect("no panic");
        assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, "150");
        assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions_shadow").await, "0");
        let first = format!("SELECT count(*) FROM warehouse.fact_transactions WHERE transaction_id = '{}'", uuid(0));
        assert_eq!(warehouse.value(&first).await, "1");
    }
}
