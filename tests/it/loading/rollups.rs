//! Rollups after every kind of load, each compared with a recomputation.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::catalog::LiveBatch;
use sluice::client::postgres;
use sluice::config::{Connectors, Rollup, RollupAggregate, RollupGrain};
use sluice::load::{BatchToLoad, LoadOutcome, Loader, rollup_states};

use super::checker::check;
use super::fixtures::{Warehouse, connectors, live, load_with_retries, replacing, transaction, user, uuid};
use super::many_loaders::{Numbers, many_loaders};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";
const CELLS: &str = "SELECT concat_ws(' ', to_char(hour AT TIME ZONE 'UTC', 'DDHH24'), coalesce(currency, '-'), coalesce(source, '-'), \
                     revenue, largest, pieces, buyers, row_count) FROM warehouse.rollup_revenue_hourly ORDER BY 1";

fn at(number: u64, amount: &str, second: u32) -> Value {
    transaction(number, amount, Some(&format!("2026-11-23T09:00:{second:02}Z")))
}

fn with(mut row: Value, column: &str, value: &Value) -> Value {
    row[column] = value.clone();
    row
}

/// The shipped connectors, with these rollups of transactions alone.
fn declaring(rollups: &[Rollup]) -> Connectors {
    let mut connectors = connectors();
    for connector in &mut connectors.all {
        let connector = Arc::make_mut(connector);
        if connector.name == "transactions" {
            connector.warehouse.as_mut().expect("loaded").rollups = rollups.to_vec();
        }
    }
    connectors
}

fn rollup(name: &str, grain: RollupGrain, group: &[&str], aggregates: &[(&str, &str, &str, &str)]) -> Rollup {
    let aggregate = |(name, sql, declared, column): &(&str, &str, &str, &str)| RollupAggregate {
        name: (*name).to_owned(),
        sql: (*sql).to_owned(),
        declared: (*declared).to_owned(),
        columns: vec![(*column).to_owned()],
    };
    Rollup {
        name: name.to_owned(),
        grain,
        group: group.iter().map(|column| (*column).to_owned()).collect(),
        aggregates: aggregates.iter().map(aggregate).collect(),
    }
}

impl Warehouse {
    async fn cells(&self) -> Vec<String> {
        check(self).await;
        self.column(CELLS).await.into_iter().flatten().collect()
    }

    async fn replay(&self, offset: i64, rows: &[Value]) {
        let part: (&str, &[Value]) = ("transactions", rows);
        let parts = if rows.is_empty() { &[][..] } else { std::slice::from_ref(&part) };
        self.load(&replacing(self.batch(offset, SEEN_AT, parts))).await;
    }
}

#[tokio::test]
async fn rows_that_come_late_count_in_their_own_hour() {
    let warehouse = Warehouse::new().await;
    let other = with(at(2, "2.50", 0), "user_id", &json!("u-2"));
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 0), other]).await;
    let late = with(at(3, "4.00", 0), "occurred_at", &json!("2026-11-20T23:59:59.999Z"));
    warehouse.load_rows(2, "transactions", &[late]).await;
    assert_eq!(warehouse.cells().await, ["2023 EUR web 4.00 4.00 1 1 1", "2309 EUR web 3.50 2.50 2 2 2"]);
    let first = with(at(4, "8.00", 0), "occurred_at", &json!("2026-11-23T10:00:00Z"));
    warehouse.load_rows(3, "transactions", &[first]).await;
    assert_eq!(warehouse.cells().await.len(), 3, "an hour begins with its first millisecond");
}

#[tokio::test]
async fn a_newer_row_that_changes_its_group_leaves_the_old_one() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 1), at(2, "2.00", 1)]).await;
    warehouse.load_rows(2, "transactions", &[with(at(1, "1.00", 2), "currency", &json!("USD"))]).await;
    assert_eq!(warehouse.cells().await, ["2309 EUR web 2.00 2.00 1 1 1", "2309 USD web 1.00 1.00 1 1 1"]);
    warehouse.load_rows(3, "transactions", &[with(at(2, "2.00", 2), "currency", &json!("USD"))]).await;
    assert_eq!(warehouse.cells().await, ["2309 USD web 3.00 2.00 2 1 2"], "a cell without rows goes");
    warehouse.load_rows(4, "transactions", &[at(1, "9.00", 1)]).await;
    assert_eq!(warehouse.cells().await, ["2309 USD web 3.00 2.00 2 1 2"], "an older row changes nothing");
}

#[tokio::test]
async fn a_replay_corrects_what_it_changes_removes_and_brings_back() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[with(at(1, "1.00", 1), "currency", &json!("USD"))]).await;
    warehouse.load_rows(2, "transactions", &[at(1, "2.00", 2), at(2, "4.00", 2)]).await;
    assert_eq!(warehouse.cells().await, ["2309 EUR web 6.00 4.00 2 1 2"]);
    warehouse.replay(2, &[at(1, "3.00", 2), with(at(2, "4.00", 2), "currency", &json!("GBP"))]).await;
    assert_eq!(warehouse.cells().await, ["2309 EUR web 3.00 3.00 1 1 1", "2309 GBP web 4.00 4.00 1 1 1"]);
    warehouse.replay(2, &[with(at(2, "4.00", 2), "occurred_at", &json!("2026-11-22T09:00:00Z"))]).await;
    assert_eq!(
        warehouse.cells().await,
        ["2209 EUR web 4.00 4.00 1 1 1", "2309 USD web 1.00 1.00 1 1 1"],
        "the one it had outranked is back"
    );
    warehouse.replay(1, &[]).await;
    warehouse.replay(2, &[]).await;
    assert_eq!(warehouse.cells().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_replay_in_which_nothing_changes_writes_no_cell() {
    let warehouse = Warehouse::new().await;
    let rows = [at(1, "1.00", 1), at(2, "2.00", 1)];
    warehouse.load_rows(1, "transactions", &rows).await;
    let places = "SELECT string_agg(concat(ctid, xmin), ' ') FROM warehouse.rollup_revenue_hourly";
    let before = warehouse.value(places).await;
    warehouse.replay(1, &rows).await;
    warehouse.load_rows(2, "transactions", &[at(1, "0.50", 0)]).await;
    assert_eq!(warehouse.value(places).await, before, "an older row was loaded besides");
    assert_eq!(warehouse.cells().await, ["2309 EUR web 3.00 2.00 2 1 2"]);
}

#[tokio::test]
async fn masked_rows_do_not_count_and_count_again_when_the_mask_goes() {
    let warehouse = Warehouse::new().await;
    let batch = warehouse.batch(1, SEEN_AT, &[("transactions", &[at(1, "1.00", 1)])]);
    warehouse.load_rows(2, "transactions", &[at(2, "2.00", 1)]).await;
    warehouse.load(&batch).await;
    let masked = BatchToLoad {
        replaces: true,
        mask_rev: 1,
        ..warehouse.batch(1, SEEN_AT, &[("transactions", &[at(1, "1.00", 1)])])
    };
    let masking = async || Ok(Some(LiveBatch { mask_rev: 1, masked: [(1, 0)].into_iter().collect() }));
    let outcome = warehouse.loader.load(&masked, masking).await.expect("loads");
    assert!(matches!(outcome, LoadOutcome::Loaded(_)), "{outcome:?}");
    assert_eq!(warehouse.cells().await, ["2309 EUR web 2.00 2.00 1 1 1"]);
    warehouse.replay(1, &[at(1, "1.00", 1)]).await;
    assert_eq!(warehouse.cells().await, ["2309 EUR web 3.00 2.00 2 1 2"]);
}

#[tokio::test]
async fn nulls_empty_and_long_texts_are_groups_of_their_own() {
    let warehouse = Warehouse::new().await;
    let long = "ü".repeat(3_000);
    let sources = [json!(null), json!(""), json!(null), json!(long), json!(format!("{long}x")), json!("a'b\\")];
    let rows = |second: u32, amount: &str| -> Vec<Value> {
        let row = |(number, source)| with(at(number as u64, amount, second), "source", source);
        sources.iter().enumerate().map(row).collect()
    };
    warehouse.load_rows(1, "transactions", &rows(1, "1.00")).await;
    warehouse.load_rows(2, "transactions", &rows(2, "2.00")).await;
    let cells = warehouse.cells().await;
    assert_eq!(cells.len(), 4, "{cells:?}");
    let lengths = "SELECT string_agg(concat(coalesce(length(source), -1), ':', row_count), ' ' ORDER BY 1) FROM warehouse.rollup_revenue_hourly";
    let mut found: Vec<String> = warehouse.value(lengths).await.split(' ').map(str::to_owned).collect();
    found.sort();
    assert_eq!(found, ["-1:2", "0:1", "4:1", "64:2"]);
    warehouse.replay(2, &[]).await;
    assert_eq!(warehouse.cells().await.len(), 4);
}

/// Each has written its row and waits for the cell. Whoever comes second must compute from the rows of the first too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_loads_that_wait_for_one_cell_both_count() {
    let warehouse = Arc::new(Warehouse::new().await);
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 0)]).await;
    let mut client = postgres::get(&warehouse.pool).await.expect("connects");
    let holder = client.transaction().await.expect("begins");
    let held = holder.query("SELECT FROM warehouse.rollup_revenue_hourly FOR UPDATE", &[]).await.expect("locks");
    assert_eq!(held.len(), 1);
    // of different shards, or one would wait for the other before it writes
    let loads: Vec<_> = [2, 3]
        .map(|number| {
            let warehouse = Arc::clone(&warehouse);
            let batch = warehouse.batch(number, SEEN_AT, &[("transactions", &[at(number as u64, "1.00", 0)])]);
            tokio::spawn(async move { load_with_retries(&warehouse.loader, &batch).await.expect("loads") })
        })
        .into();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let advisory = format!("{waiting} AND wait_event = 'advisory'");
    while warehouse.value(waiting).await != "2" {
        assert!(!loads.iter().any(tokio::task::JoinHandle::is_finished), "one waits for nothing");
        assert_eq!(warehouse.value(&advisory).await, "0", "the keys are of one shard");
        tokio::task::yield_now().await;
    }
    holder.commit().await.expect("lets go");
    for load in loads {
        assert_eq!(load.await.expect("no panic"), 1, "a load needed another try");
    }
    assert_eq!(warehouse.cells().await, ["2309 EUR web 3.00 1.00 3 1 3"]);
}

/// Hours, groups and keys that many loads share; every other load replaces an earlier one, or takes all of it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_loaders_keep_the_cells_that_they_share() {
    let connectors = declaring(&[
        rollup(
            "by_hour",
            RollupGrain::Hour,
            &["currency"],
            &[("revenue", "sum(f.\"amount\")", "sum(amount)", "amount")],
        ),
        rollup(
            "by_product",
            RollupGrain::Day,
            &["product_key", "quantity"],
            &[("n", "count(f.\"user_key\")", "count(user_key)", "user_key")],
        ),
    ]);
    let warehouse = Arc::new(Warehouse::with(connectors).await);
    many_loaders(&warehouse, 5, |numbers, _, _| {
        let count = numbers.below(12);
        let made = |numbers: &mut Numbers| {
            let amount = format!("{}.00", numbers.below(50) + 1);
            let mut row = at(numbers.below(30), &amount, numbers.below(60) as u32);
            row["currency"] = [json!("EUR"), json!("USD"), json!(null)][numbers.below(3) as usize].clone();
            row["quantity"] = [json!(1), json!(2), json!(null)][numbers.below(3) as usize].clone();
            row["product_id"] = json!(format!("p-{}", numbers.below(6)));
            let hour = json!(format!("2026-11-2{}T{:02}:00:00Z", numbers.below(2) + 2, numbers.below(3) + 8));
            with(row, "occurred_at", &hour)
        };
        vec![("transactions", (0..count).map(|_| made(numbers)).collect())]
    })
    .await;
    check(&warehouse).await;
    let states = rollup_states(&postgres::get(&warehouse.pool).await.expect("connects")).await.expect("compares");
    assert_eq!(
        states.iter().map(|state| state.name.as_str()).collect::<Vec<_>>(),
        ["rollup_by_hour", "rollup_by_product"]
    );
    assert!(states.iter().all(|state| state.difference_count == 0 && state.cell_count > 1), "{states:?}");
}

#[tokio::test]
async fn members_that_a_load_makes_are_groups() {
    let by_product =
        rollup("by_product", RollupGrain::Day, &["product_key"], &[("n", "count(*)", "count(*)", "amount")]);
    let warehouse = Warehouse::with(declaring(&[by_product])).await;
    let rows: Vec<Value> =
        (0..6).map(|number| with(at(number, "1.00", 0), "product_id", &json!(format!("p-{}", number % 3)))).collect();
    warehouse.load_rows(1, "transactions", &rows).await;
    check(&warehouse).await;
    let named = "SELECT string_agg(concat(product_id, ':', n), ' ' ORDER BY product_id) \
                 FROM warehouse.rollup_by_product JOIN warehouse.dim_products USING (product_key)";
    assert_eq!(warehouse.value(named).await, "p-0:2 p-1:2 p-2:2");
}

#[tokio::test]
async fn a_rollup_that_is_new_or_declared_otherwise_is_made_from_all_rows() {
    let warehouse = Warehouse::with(declaring(&[])).await;
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 0), at(2, "4.00", 0)]).await;
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.rollup").await, "0");
    let total = [("total", "sum(f.\"amount\")", "sum(amount)", "amount")];
    let declared = rollup("daily", RollupGrain::Day, &[], &total);
    let new = Loader::new(warehouse.pool.clone(), &declaring(std::slice::from_ref(&declared))).await.expect("fits");
    assert_eq!(warehouse.value("SELECT concat(total, '|', row_count) FROM warehouse.rollup_daily").await, "5.00|2");
    let built = warehouse.value("SELECT built_at FROM warehouse.rollup").await;

    // processes that were started before, and know nothing of it, keep it too
    warehouse.load_rows(2, "transactions", &[at(1, "2.00", 1), at(3, "8.00", 0)]).await;
    warehouse.replay(1, &[]).await;
    new.load(&warehouse.batch(3, SEEN_AT, &[("transactions", &[at(4, "16.00", 0)])]), live).await.expect("loads");
    check(&warehouse).await;
    assert_eq!(warehouse.value("SELECT concat(total, '|', row_count) FROM warehouse.rollup_daily").await, "26.00|3");

    Loader::new(warehouse.pool.clone(), &declaring(std::slice::from_ref(&declared))).await.expect("fits");
    assert_eq!(warehouse.value("SELECT built_at FROM warehouse.rollup").await, built, "it was there");
    let largest =
        rollup("daily", RollupGrain::Hour, &["source"], &[("largest", "max(f.\"amount\")", "max(amount)", "amount")]);
    Loader::new(warehouse.pool.clone(), &declaring(&[largest])).await.expect("fits");
    assert_eq!(warehouse.value("SELECT concat(source, largest) FROM warehouse.rollup_daily").await, "web16.00");
    warehouse.load_rows(4, "transactions", &[at(5, "32.00", 0)]).await;
    check(&warehouse).await;

    let lacking =
        rollup("lacking", RollupGrain::Day, &[], &[("n", "count(f.\"user_id\")", "count(user_id)", "user_id")]);
    let error = Loader::new(warehouse.pool.clone(), &declaring(&[lacking])).await.expect_err("the fact has keys");
    let told = "lacks column `user_id`, which rollup `lacking` takes";
    assert!(error.to_string().contains(told), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_together_make_a_rollup_once() {
    let warehouse = Arc::new(Warehouse::with(declaring(&[])).await);
    warehouse.load_rows(1, "transactions", &[at(1, "1.00", 0)]).await;
    let starting: Vec<_> = (0..6_i64)
        .map(|number| {
            let warehouse = Arc::clone(&warehouse);
            tokio::spawn(async move {
                let loader = Loader::new(warehouse.pool.clone(), &connectors()).await.expect("fits");
                let rows = [at(number as u64 + 2, "1.00", 0)];
                let batch = warehouse.batch(
                    number + 2,
                    SEEN_AT,
                    &[("transactions", &rows), ("users", &[user("u-1", "Ann", SEEN_AT)])],
                );
                load_with_retries(&loader, &batch).await.expect("loads");
            })
        })
        .collect();
    for start in starting {
        start.await.expect("no panic");
    }
    assert_eq!(warehouse.cells().await, ["2309 EUR web 7.00 1.00 7 1 7"]);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.rollup").await, "1");
    assert_eq!(
        warehouse
            .value(&format!("SELECT count(*) FROM warehouse.fact_transactions WHERE transaction_id = '{}'", uuid(7)))
            .await,
        "1"
    );
}
