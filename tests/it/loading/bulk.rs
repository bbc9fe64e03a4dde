//! Days of which many rows come at once, before they have a partition.

use std::sync::Arc;

use chrono::NaiveDate;
use serde_json::{Value, json};
use sluice::catalog::{CatalogError, LiveBatch};
use sluice::client::postgres;
use sluice::load::{BatchToLoad, LoadOutcome, Loader, TableCounts};
use sluice::types::{MicroBatchId, OffsetRange};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::checker;
use super::fixtures::{Warehouse, connectors, live, load_with_retries, time, transaction, user};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";
/// More than the loader makes a table of its own for.
const MANY: u64 = 20_500;

async fn all_live(_: MicroBatchId) -> Result<Option<LiveBatch>, CatalogError> {
    Ok(Some(LiveBatch::default()))
}

fn on(day: &str, number: u64, amount: &str, updated_at: Option<&str>) -> Value {
    let mut row = transaction(number, amount, updated_at);
    row["occurred_at"] = json!(format!("{day}T{:02}:00:00Z", number % 24));
    row["user_id"] = json!(format!("u-{}", number % 700));
    row
}

/// The older versions of `again` many rows, and then the newer ones, in micro-batches of one source.
fn two_versions(warehouse: &Warehouse, day: &str, again: u64) -> [BatchToLoad; 2] {
    let older: Vec<Value> = (0..MANY).map(|number| on(day, number, "1.00", Some("2026-11-20T00:00:00Z"))).collect();
    let newer: Vec<Value> = (0..again).map(|number| on(day, number, "2.00", Some("2026-11-21T00:00:00Z"))).collect();
    [(1, older), (2, newer)].map(|(offset, rows)| warehouse.batch(offset, SEEN_AT, &[("transactions", &rows)]))
}

async fn load_all(
    warehouse: &Warehouse,
    batches: &[BatchToLoad],
    awaited: Option<Vec<(NaiveDate, NaiveDate)>>,
) -> TableCounts {
    let mut prepared = warehouse.loader.prepare(batches).await.expect("prepares");
    if let Some(awaited) = awaited {
        prepared = prepared.awaiting(awaited);
    }
    match warehouse.loader.load_prepared(batches, &prepared, all_live).await.expect("loads") {
        Some(LoadOutcome::Loaded(counts)) => counts.tables["fact_transactions"],
        other => panic!("not loaded: {other:?}"),
    }
}

/// Indexes, constraints and columns of a partition, as the server spells them.
async fn structure(warehouse: &Warehouse, partition: &str) -> Vec<Option<String>> {
    let sql = format!(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'warehouse' AND tablename = '{partition}'
         UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) || convalidated FROM pg_constraint
                    WHERE conrelid = 'warehouse.{partition}'::regclass
         UNION ALL SELECT attname || ' ' || atttypid::regtype || attnotnull FROM pg_attribute
                    WHERE attrelid = 'warehouse.{partition}'::regclass AND attnum > 0
         UNION ALL SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'warehouse.{partition}'::regclass
         UNION ALL SELECT fact || day || state FROM warehouse.table_partition WHERE name = '{partition}' ORDER BY 1"
    );
    warehouse.column(&sql).await
}

#[tokio::test]
async fn a_day_that_is_over_and_comes_whole_is_made_as_sealing_makes_it() {
    let warehouse = Warehouse::new().await;
    let batches = two_versions(&warehouse, "2026-11-20", 300);
    let counts = load_all(&warehouse, &batches, Some(Vec::new())).await;
    assert_eq!(counts, TableCounts { inserted: MANY, unchanged_or_older: 300, ..TableCounts::default() });
    let sums =
        "SELECT count(*) || ' ' || sum(amount) || ' ' || count(DISTINCT user_key) FROM warehouse.fact_transactions";
    assert_eq!(warehouse.value(sums).await, format!("{MANY} {}.00 700", MANY + 300));
    let losers = "SELECT count(*) || ' ' || max(amount) FROM warehouse.fact_transactions_shadow";
    assert_eq!(warehouse.value(losers).await, "300 1.00");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.load_state").await, "2");
    assert_eq!(
        warehouse.value("SELECT state FROM warehouse.table_partition").await,
        "sealing",
        "its statistics are missing"
    );
    assert!(warehouse.loader.seal_next(time("2026-11-22T00:00:00Z")).await.expect("seals"));
    let estimate = "SELECT reltuples FROM pg_class WHERE oid = 'warehouse.fact_transactions_p20261120'::regclass";
    assert_eq!(warehouse.value(estimate).await, MANY.to_string(), "its statistics are fresh");
    checker::check(&warehouse).await;

    let other = Warehouse::new().await;
    let one = [on("2026-11-20", 1, "1.00", None)];
    other.load_rows(1, "transactions", &one).await;
    assert!(other.loader.seal_next(time("2026-11-22T00:00:00Z")).await.expect("seals"));
    let partition = "fact_transactions_p20261120";
    assert_eq!(structure(&warehouse, partition).await, structure(&other, partition).await);
}

#[tokio::test]
async fn a_day_of_which_more_rows_wait_becomes_a_hot_partition_and_takes_them() {
    let warehouse = Warehouse::new().await;
    let [older, newer] = two_versions(&warehouse, "2026-11-20", 300);
    let day: NaiveDate = "2026-11-20".parse().expect("a date");
    load_all(&warehouse, std::slice::from_ref(&older), Some(vec![(day, day)])).await;
    let partition = "fact_transactions_p20261120";
    let other = Warehouse::new().await;
    other.load_rows(1, "transactions", &[on("2026-11-20", 1, "1.00", None)]).await;
    assert_eq!(structure(&warehouse, partition).await, structure(&other, partition).await);

    let counts = load_all(&warehouse, std::slice::from_ref(&newer), None).await;
    assert_eq!(counts, TableCounts { updated: 300, ..TableCounts::default() });
    assert!(warehouse.loader.seal_next(time("2026-11-22T00:00:00Z")).await.expect("seals"));
    let state = "SELECT state FROM warehouse.table_partition";
    assert_eq!(warehouse.value(state).await, "sealed");
    checker::check(&warehouse).await;
}

#[tokio::test]
async fn masked_rows_stay_out_of_a_day_that_comes_whole() {
    let warehouse = Warehouse::new().await;
    let rows = |first: u64, count: u64| -> Vec<Value> {
        (first..first + count).map(|number| on("2026-11-20", number, "1.00", None)).collect()
    };
    let mut batch = warehouse.batch(1, SEEN_AT, &[("transactions", &rows(0, MANY))]);
    let hidden = warehouse.batch(2, SEEN_AT, &[("transactions", &rows(MANY, 5))]);
    batch.offsets = OffsetRange::new(1, 3).expect("in order");
    batch.origins.extend(hidden.origins);
    batch.parts[0].batches.extend(hidden.parts[0].batches.iter().cloned());
    let masked = async || Ok(Some(LiveBatch { mask_rev: 1, masked: [(2, 0)].into() }));
    let outcome = warehouse.loader.load(&batch, masked).await.expect("loads");
    assert!(matches!(outcome, LoadOutcome::Loaded(_)), "{outcome:?}");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, MANY.to_string());
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions WHERE _offset = 2").await, "0");
}

/// A load of 2026-11-20 that has locked the day and waits for the catalog's answer.
struct Paused {
    go_on: Arc<Semaphore>,
    load: JoinHandle<LoadOutcome>,
}

impl Paused {
    async fn begin(warehouse: &Arc<Warehouse>) -> Self {
        let (reached, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (warehouse, reaching, going_on) = (Arc::clone(warehouse), Arc::clone(&reached), Arc::clone(&go_on));
        let load = tokio::spawn(async move {
            let rows: Vec<Value> = (0..MANY).map(|number| on("2026-11-20", number, "1.00", None)).collect();
            let batch = warehouse.batch(1, SEEN_AT, &[("transactions", &rows)]);
            let pausing = || async {
                reaching.add_permits(1);
                let _ = going_on.acquire().await.expect("never closed");
                live().await
            };
            warehouse.loader.load(&batch, pausing).await.expect("nobody is in its way")
        });
        let _ = reached.acquire().await.expect("never closed");
        Self { go_on, load }
    }

    async fn end(self) {
        self.go_on.add_permits(1);
        assert!(matches!(self.load.await.expect("no panic"), LoadOutcome::Loaded(_)));
    }
}

/// Advisory locks that somebody waits for.
const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Another process comes with a row of a day that is being made whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_day_that_is_being_made_whole_is_made_by_nobody_else() {
    let warehouse = Arc::new(Warehouse::new().await);
    let whole = Paused::begin(&warehouse).await;
    let piece = {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move {
            let loader = Loader::new(warehouse.pool.clone(), &warehouse.connectors).await.expect("fits");
            let batch = warehouse.batch(2, SEEN_AT, &[("transactions", &[on("2026-11-20", MANY, "1.00", None)])]);
            loader.load(&batch, live).await.expect("loads")
        })
    };
    while warehouse.value(WAITING).await == "0" {
        assert!(!piece.is_finished(), "it waits for nothing");
        tokio::task::yield_now().await;
    }
    whole.end().await;
    assert!(matches!(piece.await.expect("no panic"), LoadOutcome::Loaded(_)));
    let count = "SELECT count(*) FROM warehouse.fact_transactions_p20261120";
    assert_eq!(warehouse.value(count).await, (MANY + 1).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loads_of_other_days_go_on_beside_a_day_that_is_being_made_whole() {
    let warehouse = Arc::new(Warehouse::new().await);
    // nobody waits for a member, which one load alone makes
    let rows: Vec<Value> = (0..700).map(|number| on("2026-11-19", number, "1.00", None)).collect();
    warehouse.load_rows(0, "transactions", &rows).await;
    let paused = Paused::begin(&warehouse).await;
    let rows: Vec<Value> = (0..MANY).map(|number| on("2026-11-21", number, "1.00", None)).collect();
    let whole = warehouse.batch(2, SEEN_AT, &[("transactions", &rows)]);
    let counts = load_all(&warehouse, &[whole], Some(Vec::new())).await;
    assert_eq!(counts.inserted, MANY, "another day is made whole");
    let checked = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated
                      AND conrelid = 'warehouse.fact_transactions_p20261121'::regclass";
    assert_eq!(warehouse.value(checked).await, "2", "its foreign keys are checked meanwhile");
    for (offset, day) in [(3, "2026-11-19"), (4, "2026-11-22")] {
        let rows: Vec<Value> = (0..700).map(|number| on(day, number + 9_000, "1.00", None)).collect();
        assert_eq!(warehouse.load_rows(offset, "transactions", &rows).await.inserted, 700, "rows of {day}");
    }
    paused.end().await;
    checker::check(&warehouse).await;
}

#[tokio::test]
async fn foreign_keys_that_cannot_be_added_behind_the_load_are_left_to_sealing() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(0, "users", &[user("u-1", "Ann", SEEN_AT)]).await;
    let mut client = postgres::get(&warehouse.pool).await.expect("connects");
    let other = client.transaction().await.expect("begins");
    other.batch_execute("LOCK TABLE warehouse.dim_products IN SHARE MODE").await.expect("may do so");
    // the unknown member is there, and no other is made
    let rows: Vec<Value> = (0..MANY)
        .map(|number| {
            let mut row = on("2026-11-20", number, "1.00", None);
            row["user_id"] = json!("u-1");
            row["product_id"] = json!("");
            row
        })
        .collect();
    let batch = warehouse.batch(1, SEEN_AT, &[("transactions", &rows)]);
    assert_eq!(load_all(&warehouse, &[batch], Some(Vec::new())).await.inserted, MANY);
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'
                   AND conrelid = 'warehouse.fact_transactions_p20261120'::regclass";
    assert_eq!(warehouse.value(keys).await, "0");
    other.rollback().await.expect("ends");
    drop(client);
    assert!(warehouse.loader.seal_next(time("2026-11-22T00:00:00Z")).await.expect("seals"));
    assert_eq!(warehouse.value(&format!("{keys} AND convalidated")).await, "2");
    assert_eq!(warehouse.value("SELECT state FROM warehouse.table_partition").await, "sealed");
    checker::check(&warehouse).await;
}

/// Two loaders of one fact make members that it points at, while each makes a day whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fact_that_declares_its_foreign_keys_gets_days_made_whole_at_once() {
    let warehouse = Arc::new(Warehouse::new().await);
    let declare = "ALTER TABLE warehouse.fact_transactions
                       ADD CONSTRAINT of_users FOREIGN KEY (user_key) REFERENCES warehouse.dim_users (user_key),
                       ADD CONSTRAINT of_products FOREIGN KEY (product_key) REFERENCES warehouse.dim_products (product_key)";
    warehouse.execute(declare).await.expect("may do so");
    let tasks = ["2026-11-20", "2026-11-21", "2026-11-22"].into_iter().enumerate().map(|(task, day)| {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move {
            let rows: Vec<Value> = (0..MANY)
                .map(|number| {
                    let mut row = on(day, number, "1.00", None);
                    row["user_id"] = json!(format!("u-{}", (number + task as u64 * 300) % 900));
                    row
                })
                .collect();
            let mut batch = warehouse.batch(1, SEEN_AT, &[("transactions", &rows)]);
            batch.source_partition_id = task as i64 + 1;
            load_with_retries(&warehouse.loader, &batch).await.expect("loads")
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.expect("no panic"), 1, "needed another try");
    }
    let checked = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND conparentid <> 0
                      AND conrelid::regclass::text LIKE '%fact_transactions_p%'";
    assert_eq!(warehouse.value(checked).await, "6");
    checker::check(&warehouse).await;
}

/// The load has read which rollups there are, and is held up before its commit, when one more is made from the fact's rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rollup_is_not_made_while_a_day_is_being_made_whole() {
    let mut none = connectors();
    for connector in &mut none.all {
        if connector.name == "transactions" {
            Arc::make_mut(connector).warehouse.as_mut().expect("loaded").rollups.clear();
        }
    }
    let warehouse = Arc::new(Warehouse::with(none).await);
    let [older, newer] = two_versions(&warehouse, "2026-11-20", 300);
    let mut client = postgres::get(&warehouse.pool).await.expect("connects");
    let other = client.transaction().await.expect("begins");
    other.batch_execute("LOCK TABLE warehouse.fact_transactions_shadow IN SHARE MODE").await.expect("may do so");
    let whole = {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move { load_all(&warehouse, &[older, newer], None).await })
    };
    let held_up = "SELECT count(*) FROM pg_locks WHERE NOT granted
                      AND relation = 'warehouse.fact_transactions_shadow'::regclass";
    while warehouse.value(held_up).await == "0" {
        assert!(!whole.is_finished(), "it waits for nothing");
        tokio::task::yield_now().await;
    }
    let making = {
        let warehouse = Arc::clone(&warehouse);
        tokio::spawn(async move { Loader::new(warehouse.pool.clone(), &connectors()).await })
    };
    while warehouse.value(WAITING).await == "0" && !making.is_finished() {
        tokio::task::yield_now().await;
    }
    other.rollback().await.expect("ends");
    whole.await.expect("no panic");
    making.await.expect("no panic").expect("fits");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.rollup").await, "1");
    checker::check(&warehouse).await;
}

#[tokio::test]
async fn a_whole_day_whose_load_breaks_off_leaves_nothing_and_comes_with_the_next_try() {
    let warehouse = Warehouse::new().await;
    let rows: Vec<Value> = (0..MANY).map(|number| on("2026-11-20", number, "1.00", None)).collect();
    let batch = warehouse.batch(1, SEEN_AT, &[("transactions", &rows)]);
    warehouse.cut_off(&batch).await;
    let partitions = "SELECT count(*) FROM warehouse.table_partition";
    assert_eq!(warehouse.value(partitions).await, "0");
    // one more, where the pool has not noticed yet that the connection is gone
    load_with_retries(&warehouse.loader, &batch).await.expect("loads");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions").await, MANY.to_string());
}

/// Each with a memory of its own, as processes have; some bring whole days, others a few rows of them, and most of them days
/// that others bring too, in another order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn loaders_that_bring_the_same_days_whole_and_in_pieces_agree() {
    const DAYS: [&str; 3] = ["2026-11-20", "2026-11-21", "2026-11-22"];
    let warehouse = Arc::new(Warehouse::new().await);
    let tasks: Vec<_> = (0..6_u64)
        .map(|task| {
            let warehouse = Arc::clone(&warehouse);
            tokio::spawn(async move {
                let loader = Loader::new(warehouse.pool.clone(), &warehouse.connectors).await.expect("fits");
                let stamp = format!("2026-11-20T00:00:{task:02}Z");
                let count = if task % 3 == 0 { MANY } else { 10 };
                let days = [task, task + 1].map(|day| DAYS[(day % 3) as usize]);
                let rows: Vec<Value> = (0..count)
                    .flat_map(|number| days.map(|day| on(day, number, &format!("{task}.00"), Some(&stamp))))
                    .collect();
                let batch = warehouse.batch(task as i64, SEEN_AT, &[("transactions", &rows)]);
                load_with_retries(&loader, &batch).await.expect("loads")
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), 1, "needed another try");
    }
    // of each day the newest of those who bring it: 0 and 3 bring it whole
    let expected = |whole: &[u64], pieces: &[u64]| {
        let newest = |number: u64| whole.iter().chain(pieces.iter().filter(|_| number < 10)).max().copied();
        (0..MANY).filter_map(newest).fold(std::collections::BTreeMap::<u64, u64>::new(), |mut sums, task| {
            *sums.entry(task).or_default() += 1;
            sums
        })
    };
    for (day, whole, pieces) in
        [(0, [0, 3].as_slice(), [2, 5].as_slice()), (1, &[0, 3], &[1, 4]), (2, &[], &[1, 2, 4, 5])]
    {
        let expected: Vec<String> =
            expected(whole, pieces).into_iter().map(|(task, count)| format!("{task}.00 {count}")).collect();
        let amounts = format!(
            "SELECT amount || ' ' || count(*) FROM warehouse.fact_transactions
              WHERE (occurred_at AT TIME ZONE 'UTC')::date = '{}' GROUP BY amount ORDER BY amount",
            DAYS[day]
        );
        let found: Vec<String> = warehouse.column(&amounts).await.into_iter().flatten().collect();
        assert_eq!(found, expected, "{}", DAYS[day]);
    }
    checker::check(&warehouse).await;
}

#[tokio::test]
async fn somebodys_trigger_sees_every_row_of_a_day_that_comes_whole() {
    let warehouse = Warehouse::new().await;
    let trigger = "CREATE TABLE warehouse.seen (amount numeric);
                   CREATE FUNCTION warehouse.see() RETURNS trigger LANGUAGE plpgsql AS
                       $$ BEGIN INSERT INTO warehouse.seen VALUES (NEW.amount); RETURN NEW; END $$;
                   CREATE TRIGGER see AFTER INSERT ON warehouse.fact_transactions
                       FOR EACH ROW EXECUTE FUNCTION warehouse.see()";
    warehouse.execute(trigger).await.expect("may do so");
    let rows: Vec<Value> = (0..MANY).map(|number| on("2026-11-20", number, "1.00", None)).collect();
    warehouse.load_rows(1, "transactions", &rows).await;
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.seen").await, MANY.to_string());
}
