//! Hot, sealing and sealed partitions.

use chrono::{DateTime, Utc};
use serde_json::json;
use sluice::client::postgres;
use sluice::load::{Loader, PartitionState, SealOutcome, partition_states};
use tokio_postgres::error::SqlState;

use super::checker::check;
use super::fixtures::{Warehouse, connectors, time, transaction, uuid};

const PARTITION: &str = "fact_transactions_p20261123";

fn over() -> DateTime<Utc> {
    time("2026-11-24T06:00:00Z")
}

impl Warehouse {
    async fn state(&self) -> PartitionState {
        let client = postgres::get(&self.pool).await.expect("connects");
        let states = partition_states(&client, None).await.expect("readable");
        states.into_iter().find(|state| state.name == PARTITION).expect("the partition is there")
    }

    async fn constraints(&self) -> Vec<String> {
        let sql = format!(
            "SELECT contype::text || CASE WHEN convalidated THEN '' ELSE '?' END FROM pg_constraint \
             WHERE conrelid = 'warehouse.{PARTITION}'::regclass ORDER BY 1"
        );
        self.column(&sql).await.into_iter().flatten().collect()
    }

    /// Access methods of the indexes.
    async fn indexes(&self) -> Vec<String> {
        let sql = format!(
            "SELECT a.amname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
             WHERE i.indrelid = 'warehouse.{PARTITION}'::regclass AND i.indisvalid ORDER BY 1"
        );
        self.column(&sql).await.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn a_hot_partition_has_its_unique_key_and_the_lineages_index_alone() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    assert_eq!(warehouse.constraints().await, ["p"]);
    // a rollup reads some of its hours
    assert_eq!(warehouse.indexes().await, ["brin", "brin", "btree"]);
    let state = warehouse.state().await;
    assert_eq!((state.state.as_str(), state.reason.as_str()), ("hot", "its day is not over"));
}

#[tokio::test]
async fn a_day_that_is_over_is_sealed_and_one_that_is_not_stays_hot() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    let early = over() - chrono::TimeDelta::milliseconds(1);
    assert!(!warehouse.loader.seal_next(early).await.expect("looks"));
    assert_eq!(warehouse.state().await.state, "hot");
    assert!(warehouse.loader.seal_next(over()).await.expect("seals"));
    assert!(!warehouse.loader.seal_next(over()).await.expect("looks"), "there is one partition");
    assert_eq!(warehouse.constraints().await, ["f", "f", "p"], "every one validated");
    assert_eq!(warehouse.indexes().await, ["brin", "brin", "btree", "btree", "btree"]);
    assert_eq!(warehouse.state().await.state, "sealed");
    let refused = warehouse.execute("DELETE FROM warehouse.dim_users WHERE user_id = 'u-1'").await;
    assert_eq!(refused.expect_err("facts point at it").code(), Some(&SqlState::FOREIGN_KEY_VIOLATION));
    let counted = format!("SELECT reltuples FROM pg_class WHERE oid = 'warehouse.{PARTITION}'::regclass");
    assert_eq!(warehouse.value(&counted).await, "1", "statistics are fresh");
}

#[tokio::test]
async fn late_rows_load_into_a_sealed_partition_new_and_newer_ones() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", Some("2026-11-23T09:00:01Z"))]).await;
    assert!(warehouse.loader.seal_next(over()).await.expect("seals"));
    let mut stranger = transaction(2, "2.00", None);
    stranger["user_id"] = json!("a user whom nobody knows yet");
    let newer = transaction(1, "9.00", Some("2026-11-23T09:00:02Z"));
    let late = warehouse.load_rows(2, "transactions", &[stranger, newer]).await;
    assert_eq!((late.inserted, late.updated), (1, 1));
    assert_eq!(warehouse.state().await.state, "sealed");
    check(&warehouse).await;
}

#[tokio::test]
async fn sealing_goes_on_where_it_broke_off() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    let left = format!(
        "CREATE INDEX {PARTITION}_user_key ON warehouse.{PARTITION} (user_key);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'warehouse.{PARTITION}_user_key'::regclass;
         ALTER TABLE warehouse.{PARTITION} ADD CONSTRAINT {PARTITION}_user_key_fkey
             FOREIGN KEY (user_key) REFERENCES warehouse.dim_users (user_key) NOT VALID;
         UPDATE warehouse.table_partition SET state = 'sealing'"
    );
    warehouse.execute(&left).await.expect("as a killed process leaves it");
    assert_eq!(warehouse.constraints().await, ["f?", "p"]);
    assert!(warehouse.loader.seal_next(over()).await.expect("seals"));
    assert_eq!(warehouse.constraints().await, ["f", "f", "p"]);
    assert_eq!(warehouse.indexes().await, ["brin", "brin", "btree", "btree", "btree"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_gives_way_to_a_load_that_holds_a_dimension_and_says_so() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    let mut holder = postgres::get(&warehouse.pool).await.expect("connects");
    let load = holder.transaction().await.expect("begins");
    load.batch_execute("UPDATE warehouse.dim_products SET brand = 'b' WHERE product_key > 0").await.expect("writes");
    assert!(!warehouse.loader.seal_next(over()).await.expect("gives up"));
    let state = warehouse.state().await;
    assert_eq!(
        (state.state.as_str(), state.reason.as_str()),
        ("sealing", "loads hold dim_products: it is tried again")
    );
    load.rollback().await.expect("rolls back");
    assert!(warehouse.loader.seal_next(over()).await.expect("seals"));
    assert_eq!(warehouse.state().await.state, "sealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_seals_days_that_are_not_over_up_to_the_one_it_names() {
    let warehouse = Warehouse::new().await;
    let mut later = transaction(2, "1.00", None);
    later["occurred_at"] = json!("2026-11-24T09:00:00Z");
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None), later]).await;
    let day = "2026-11-23".parse().expect("a date");
    let none = warehouse.loader.seal_through(Some("fact_events"), day).await.expect("looks");
    assert_eq!(none, [], "of the other fact");
    let mut holder = postgres::get(&warehouse.pool).await.expect("connects");
    let load = holder.transaction().await.expect("begins");
    load.batch_execute("UPDATE warehouse.dim_products SET brand = 'b' WHERE product_key > 0").await.expect("writes");
    let outcomes = warehouse.loader.seal_through(None, day).await.expect("tries");
    assert_eq!(outcomes, [(PARTITION.to_owned(), SealOutcome::LoadsAreInTheWay)]);
    load.rollback().await.expect("rolls back");
    let outcomes = warehouse.loader.seal_through(Some("fact_transactions"), day).await.expect("seals");
    assert_eq!(outcomes, [(PARTITION.to_owned(), SealOutcome::Sealed)]);
    let states =
        "SELECT string_agg(day || ' ' || state || ' ' || reason, ', ' ORDER BY day) FROM warehouse.table_partition";
    assert_eq!(warehouse.value(states).await, "2026-11-23 sealed it was ordered, 2026-11-24 hot its day is not over");
    assert_eq!(warehouse.constraints().await, ["f", "f", "p"]);
    assert_eq!(warehouse.loader.seal_through(None, day).await.expect("looks"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_seal_a_partition_once() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[transaction(1, "1.00", None)]).await;
    let other = Loader::new(warehouse.pool.clone(), &connectors()).await.expect("fits");
    let (one, two) = tokio::join!(warehouse.loader.seal_next(over()), other.seal_next(over()));
    let sealed = usize::from(one.expect("no error")) + usize::from(two.expect("no error"));
    assert!(sealed >= 1);
    assert_eq!(warehouse.constraints().await, ["f", "f", "p"]);
    assert_eq!(warehouse.indexes().await.len(), 5);
}

#[tokio::test]
async fn a_connector_may_ask_for_members_indexes_on_hot_partitions() {
    let warehouse = Warehouse::new().await;
    let mut asking = connectors();
    for connector in &mut asking.all {
        let mut own = (**connector).clone();
        if let Some(target) = &mut own.warehouse {
            target.index_hot = true;
        }
        *connector = std::sync::Arc::new(own);
    }
    let loader = Loader::new(warehouse.pool.clone(), &asking).await.expect("fits");
    let batch = warehouse.batch(1, "2026-11-23T10:00:00Z", &[("transactions", &[transaction(1, "1.00", None)])]);
    loader.load(&batch, super::fixtures::live).await.expect("loads");
    assert_eq!(warehouse.indexes().await, ["brin", "brin", "btree", "btree", "btree"]);
    assert!(loader.seal_next(over()).await.expect("seals"));
    assert_eq!(warehouse.indexes().await, ["brin", "brin", "btree", "btree", "btree"]);
}

#[tokio::test]
async fn a_fact_that_names_nobody_and_one_of_every_day_pass_the_checker_after_sealing() {
    let warehouse = Warehouse::new().await;
    let rows: Vec<_> = (0..12_u64)
        .map(|number| {
            let mut row = transaction(number, "1.00", None);
            row["occurred_at"] = json!(format!("2026-11-{:02}T23:59:59.999Z", number + 1));
            row["product_id"] = if number % 2 == 0 { json!(null) } else { json!(uuid(number)) };
            row
        })
        .collect();
    warehouse.load_rows(1, "transactions", &rows).await;
    let mut sealed = 0;
    while warehouse.loader.seal_next(time("2026-12-01T00:00:00Z")).await.expect("seals") {
        sealed += 1;
    }
    assert_eq!(sealed, 12);
    check(&warehouse).await;
}
