//! Histories of dimensions after every kind of load, each compared with a recomputation.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::catalog::LiveBatch;
use sluice::client::postgres;
use sluice::config::Connectors;
use sluice::load::{BatchToLoad, LoadOutcome, Loader, history_states};

use super::checker::check;
use super::fixtures::{Warehouse, connectors, live, load_with_retries, replacing, transaction, uuid};
use super::many_loaders::{Numbers, many_loaders};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";

/// At `hour` of the day.
fn at(hour: u32) -> String {
    format!("2026-11-23T{hour:02}:00:00Z")
}

fn product(id: &str, price: &str, hour: u32) -> Value {
    json!({"product_id": id, "name": format!("{id} at {hour}"), "category": "tea", "price": price, "currency": "EUR",
           "source": "shop", "updated_at": at(hour)})
}

fn with(mut row: Value, column: &str, value: Value) -> Value {
    row[column] = value;
    row
}

/// The shipped connectors, with the history of these columns of products.
fn tracking(columns: &[&str]) -> Connectors {
    let mut connectors = connectors();
    for connector in &mut connectors.all {
        let connector = Arc::make_mut(connector);
        if connector.name == "products" {
            let tracked = columns.iter().map(|column| (*column).to_owned()).collect();
            connector.warehouse.as_mut().expect("loaded").history = tracked;
        }
    }
    connectors
}

impl Warehouse {
    async fn tracking(columns: &[&str]) -> Self {
        Self::with(tracking(columns)).await
    }

    /// Prices of a product, each with its hours.
    async fn prices(&self, id: &str) -> Vec<String> {
        check(self).await;
        let hour =
            |time: &str| format!("CASE WHEN isfinite({time}) THEN to_char({time} AT TIME ZONE 'UTC', 'HH24') END");
        let sql = format!(
            "SELECT concat({}, '-', {}, ' ', coalesce(price::text, 'null')) FROM warehouse.dim_products_history \
             WHERE product_id = '{id}' ORDER BY valid_from",
            hour("valid_from"),
            hour("valid_to")
        );
        self.column(&sql).await.into_iter().flatten().collect()
    }

    async fn again(&self, offset: i64, rows: &[Value]) {
        let part: (&str, &[Value]) = ("products", rows);
        let parts = if rows.is_empty() { &[][..] } else { std::slice::from_ref(&part) };
        self.load(&replacing(self.batch(offset, SEEN_AT, parts))).await;
    }
}

#[tokio::test]
async fn a_late_row_splits_an_interval_and_equal_neighbours_are_one() {
    let warehouse = Warehouse::tracking(&["price"]).await;
    warehouse.load_rows(1, "products", &[product("p", "1.00", 4)]).await;
    assert_eq!(warehouse.prices("p").await, ["- 1.00"], "the first answers for what was before it");
    warehouse.load_rows(2, "products", &[product("p", "2.00", 8)]).await;
    assert_eq!(warehouse.prices("p").await, ["-08 1.00", "08- 2.00"]);
    warehouse.load_rows(3, "products", &[product("p", "3.00", 6)]).await;
    assert_eq!(warehouse.prices("p").await, ["-06 1.00", "06-08 3.00", "08- 2.00"], "it came late");
    warehouse.load_rows(4, "products", &[with(product("p", "2.00", 9), "brand", json!("new"))]).await;
    assert_eq!(warehouse.prices("p").await.len(), 3, "what is not tracked makes no interval");
    assert_eq!(warehouse.value("SELECT brand FROM warehouse.dim_products WHERE product_id = 'p'").await, "new");
    warehouse.load_rows(5, "products", &[product("p", "1.00", 6), product("p", "9.00", 2)]).await;
    let joined = ["-04 9.00", "04-08 1.00", "08- 2.00"];
    assert_eq!(
        warehouse.prices("p").await,
        joined,
        "of one time the newer object counts, and the first is not the first any more"
    );
}

#[tokio::test]
async fn a_replay_with_other_rows_replaces_and_one_without_them_falls_back() {
    let warehouse = Warehouse::tracking(&["category", "price"]).await;
    warehouse.load_rows(1, "products", &[product("p", "1.00", 4), product("q", "5.00", 4)]).await;
    warehouse.load_rows(2, "products", &[product("p", "2.00", 6)]).await;
    warehouse.load_rows(3, "products", &[product("p", "3.00", 8)]).await;
    warehouse.again(2, &[product("p", "2.50", 7)]).await;
    assert_eq!(warehouse.prices("p").await, ["-07 1.00", "07-08 2.50", "08- 3.00"], "changed bytes, another time");
    warehouse.again(2, &[]).await;
    assert_eq!(warehouse.prices("p").await, ["-08 1.00", "08- 3.00"], "a loser was taken back");
    warehouse.again(3, &[]).await;
    assert_eq!(warehouse.prices("p").await, ["- 1.00"], "the winner was taken back");
    warehouse.again(1, &[product("q", "5.00", 4)]).await;
    assert_eq!(warehouse.prices("p").await, ["- null"], "an inferred member has a whole interval");
    assert_eq!(warehouse.prices("q").await, ["- 5.00"]);
    warehouse.again(3, &[product("p", "3.00", 8)]).await;
    assert_eq!(warehouse.prices("p").await, ["- 3.00"]);
}

#[tokio::test]
async fn a_replay_in_which_nothing_changes_writes_no_interval() {
    let warehouse = Warehouse::tracking(&["price"]).await;
    let rows = [product("p", "1.00", 4), product("q", "1.00", 4)];
    warehouse.load_rows(1, "products", &rows).await;
    warehouse.load_rows(2, "products", &[product("p", "2.00", 6)]).await;
    let places = "SELECT string_agg(concat(ctid, xmin), ' ' ORDER BY product_key, valid_from) FROM warehouse.dim_products_history";
    let before = warehouse.value(places).await;
    warehouse.again(1, &rows).await;
    assert_eq!(warehouse.value(places).await, before, "the very same rows");
    warehouse
        .load_rows(3, "products", &[product("p", "1.00", 5), with(product("q", "1.00", 7), "brand", json!("x"))])
        .await;
    assert_eq!(warehouse.value(places).await, before, "rows that change no interval");
    warehouse.again(1, &[rows[0].clone(), product("q", "7.00", 4)]).await;
    assert_eq!(warehouse.prices("q").await, ["-07 7.00", "07- 1.00"]);
    assert_eq!(warehouse.prices("p").await, ["-06 1.00", "06- 2.00"]);
}

#[tokio::test]
async fn masked_versions_are_none_and_come_back_when_the_mask_goes() {
    let warehouse = Warehouse::tracking(&["price"]).await;
    warehouse.load_rows(1, "products", &[product("p", "1.00", 4)]).await;
    warehouse.load_rows(2, "products", &[product("p", "2.00", 6)]).await;
    let masked = BatchToLoad {
        replaces: true,
        mask_rev: 1,
        ..warehouse.batch(2, SEEN_AT, &[("products", &[product("p", "2.00", 6)])])
    };
    let masking = async || Ok(Some(LiveBatch { mask_rev: 1, masked: [(2, 0)].into_iter().collect() }));
    let outcome = warehouse.loader.load(&masked, masking).await.expect("loads");
    assert!(matches!(outcome, LoadOutcome::Loaded(_)), "{outcome:?}");
    assert_eq!(warehouse.prices("p").await, ["- 1.00"]);
    warehouse.again(2, &[product("p", "2.00", 6)]).await;
    assert_eq!(warehouse.prices("p").await, ["-06 1.00", "06- 2.00"]);
}

#[tokio::test]
async fn the_view_gives_the_price_at_the_event_time() {
    let warehouse = Warehouse::tracking(&["category", "price"]).await;
    let bought = |number: u64, id: Value, hour: u32| {
        let row = with(transaction(number, "1.00", None), "product_id", id);
        with(row, "occurred_at", json!(at(hour)))
    };
    let facts = [(1, 2), (2, 5), (3, 6), (4, 7), (5, 9)].map(|(number, hour)| bought(number, json!("p"), hour));
    warehouse.load_rows(1, "transactions", &facts).await;
    warehouse.load_rows(2, "transactions", &[bought(6, json!(null), 5), bought(7, json!("nobody"), 5)]).await;
    let seen = "SELECT string_agg(coalesce(product_price::text, '-'), ' ' ORDER BY transaction_id) FROM warehouse.transactions_as_of";
    assert_eq!(warehouse.value(seen).await, "- - - - - - -", "facts came before their dimension");
    warehouse.load_rows(3, "products", &[product("p", "1.00", 4)]).await;
    warehouse.load_rows(4, "products", &[product("p", "2.00", 6)]).await;
    assert_eq!(warehouse.value(seen).await, "1.00 1.00 2.00 2.00 2.00 - -", "an interval begins with its first moment");
    warehouse.load_rows(5, "products", &[product("p", "3.00", 8)]).await;
    assert_eq!(warehouse.value(seen).await, "1.00 1.00 2.00 2.00 3.00 - -");
    let named =
        "SELECT string_agg(coalesce(product_id, '-'), ' ' ORDER BY transaction_id) FROM warehouse.transactions_as_of";
    assert_eq!(warehouse.value(named).await, "p p p p p - nobody");
    let merge = "UPDATE warehouse.dim_products SET merged_into = (SELECT product_key FROM warehouse.dim_products WHERE product_id = 'p') \
                 WHERE product_id = 'nobody'";
    warehouse.execute(merge).await.expect("there is such a member");
    assert_eq!(warehouse.value(seen).await, "1.00 1.00 2.00 2.00 3.00 - 1.00", "what the key means today");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.events_as_of").await, "0", "every fact has its view");
    check(&warehouse).await;
}

/// Each has written its version and waits. Whoever comes second must compute from the version of the first too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_loads_of_one_member_both_stand_in_its_history() {
    let warehouse = Arc::new(Warehouse::tracking(&["price"]).await);
    warehouse.load_rows(1, "products", &[product("p", "5.00", 5)]).await;
    let mut client = postgres::get(&warehouse.pool).await.expect("connects");
    let holder = client.transaction().await.expect("begins");
    let sql = "SELECT FROM warehouse.dim_products_history WHERE product_id = 'p' FOR UPDATE";
    assert_eq!(holder.query(sql, &[]).await.expect("locks").len(), 1);
    // a newer one takes the member's row, and an older one goes to the shadow: they do not wait for each other there
    let loads: Vec<_> = [(2, "9.00", 9), (3, "1.00", 1)]
        .map(|(offset, price, hour)| {
            let warehouse = Arc::clone(&warehouse);
            let batch = warehouse.batch(offset, SEEN_AT, &[("products", &[product("p", price, hour)])]);
            tokio::spawn(async move { load_with_retries(&warehouse.loader, &batch).await.expect("loads") })
        })
        .into();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while warehouse.value(waiting).await != "2" {
        assert!(!loads.iter().any(tokio::task::JoinHandle::is_finished), "one waits for nothing");
        tokio::task::yield_now().await;
    }
    holder.commit().await.expect("lets go");
    for load in loads {
        assert_eq!(load.await.expect("no panic"), 1, "a load needed another try");
    }
    assert_eq!(warehouse.prices("p").await, ["-05 1.00", "05-09 5.00", "09- 9.00"]);
}

/// Members that many loads share; every other load replaces an earlier one, or takes all of it back; facts infer members meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_loaders_keep_the_histories_that_they_share() {
    let warehouse = Arc::new(Warehouse::tracking(&["category", "price"]).await);
    many_loaders(&warehouse, 4, |numbers, loader, round| {
        let count = numbers.below(8);
        let version = |numbers: &mut Numbers| {
            let (id, price) = (format!("p-{}", numbers.below(7)), format!("{}.00", numbers.below(3)));
            let row = product(&id, &price, numbers.below(12) as u32);
            with(row, "category", [json!("tea"), json!(null)][numbers.below(2) as usize].clone())
        };
        let versions = (0..count).map(|_| version(numbers)).collect();
        let count = numbers.below(4); // often none, so that a replacing load takes all of them back
        let fact = |numbers: &mut Numbers| {
            let row = transaction(loader << 32 | round << 8 | numbers.below(99), "1.00", None);
            let row = with(row, "product_id", json!(format!("p-{}", numbers.below(12))));
            with(row, "occurred_at", json!(at(numbers.below(12) as u32)))
        };
        vec![("products", versions), ("transactions", (0..count).map(|_| fact(numbers)).collect())]
    })
    .await;
    check(&warehouse).await;
    let states = history_states(&postgres::get(&warehouse.pool).await.expect("connects")).await.expect("compares");
    let [state] = &states[..] else { panic!("{states:?}") };
    assert_eq!((state.name.as_str(), state.difference_count), ("dim_products_history", 0));
    assert!(state.changed_member_count > 3 && state.interval_count > 12, "{state:?}");
}

#[tokio::test]
async fn a_history_that_is_new_or_tracks_other_columns_is_made_from_all_versions() {
    let warehouse = Warehouse::tracking(&[]).await;
    warehouse.load_rows(1, "products", &[product("p", "1.00", 4)]).await;
    warehouse.load_rows(2, "products", &[product("p", "2.00", 6), product("q", "1.00", 6)]).await;
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.dimension_history").await, "0");
    let new = Loader::new(warehouse.pool.clone(), &tracking(&["price"])).await.expect("fits");
    assert_eq!(warehouse.prices("p").await, ["-06 1.00", "06- 2.00"]);
    let built = warehouse.value("SELECT built_at FROM warehouse.dimension_history").await;

    // processes that were started before, and know nothing of it, keep it too
    warehouse.load_rows(3, "products", &[product("p", "3.00", 8)]).await;
    let fact = with(transaction(1, "1.00", None), "product_id", json!("r"));
    warehouse.load_rows(4, "transactions", &[fact]).await;
    new.load(&warehouse.batch(5, SEEN_AT, &[("products", &[product("p", "4.00", 9)])]), live).await.expect("loads");
    assert_eq!(warehouse.prices("p").await, ["-06 1.00", "06-08 2.00", "08-09 3.00", "09- 4.00"]);
    assert_eq!(warehouse.prices("r").await, ["- null"]);

    Loader::new(warehouse.pool.clone(), &tracking(&["price"])).await.expect("fits");
    assert_eq!(warehouse.value("SELECT built_at FROM warehouse.dimension_history").await, built, "it was there");
    Loader::new(warehouse.pool.clone(), &tracking(&["category"])).await.expect("fits");
    let tracked = "SELECT string_agg(concat(product_id, ':', product_category), ' ') FROM warehouse.transactions_as_of";
    assert_eq!(warehouse.value(tracked).await, "r:");
    assert_eq!(
        warehouse.value("SELECT count(*) FROM warehouse.dim_products_history WHERE product_id = 'p'").await,
        "1"
    );
    check(&warehouse).await;

    let error = Loader::new(warehouse.pool.clone(), &tracking(&["colour"])).await.expect_err("there is no such column");
    let told = "lacks column `colour`, of which the history is to be kept";
    assert!(error.to_string().contains(told), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_together_make_a_history_once() {
    let warehouse = Arc::new(Warehouse::tracking(&[]).await);
    warehouse.load_rows(1, "products", &[product("p", "1.00", 4)]).await;
    let starting: Vec<_> = (0..6_u32)
        .map(|number| {
            let warehouse = Arc::clone(&warehouse);
            tokio::spawn(async move {
                let loader = Loader::new(warehouse.pool.clone(), &tracking(&["price"])).await.expect("fits");
                let rows = [product("p", &format!("{number}.50",), number + 5)];
                let batch = warehouse.batch(i64::from(number) + 2, SEEN_AT, &[("products", &rows)]);
                load_with_retries(&loader, &batch).await.expect("loads");
            })
        })
        .collect();
    for start in starting {
        start.await.expect("no panic");
    }
    assert_eq!(warehouse.prices("p").await.len(), 7);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.dimension_history").await, "1");
}

#[tokio::test]
async fn a_member_that_its_source_deletes_stays_and_says_so() {
    let mut connectors = tracking(&["deleted", "price"]);
    for connector in connectors.all.iter_mut().filter(|connector| connector.name == "products") {
        let connector = Arc::make_mut(connector);
        let mut flag = connector.fields.iter().find(|field| field.name == "brand").expect("shipped").clone();
        (flag.name, flag.data_type) = ("deleted".to_owned(), sluice::config::FieldType::Boolean);
        connector.fields.push(flag);
    }
    let warehouse = Warehouse::with(connectors).await;
    let fact = with(transaction(1, "1.00", None), "product_id", json!("p"));
    warehouse.load_rows(1, "products", &[product("p", "1.00", 4)]).await;
    warehouse.load_rows(2, "transactions", &[with(fact, "occurred_at", json!(at(5)))]).await;
    warehouse.load_rows(3, "products", &[with(product("p", "1.00", 6), "deleted", json!(true))]).await;
    assert_eq!(warehouse.prices("p").await, ["-06 1.00", "06- 1.00"]);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.products").await, "0");
    assert_eq!(warehouse.value("SELECT product_id FROM warehouse.transactions").await, "p");
    assert_eq!(
        warehouse.value("SELECT coalesce(product_deleted, false) FROM warehouse.transactions_as_of").await,
        "false"
    );
    warehouse.again(3, &[]).await;
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.products").await, "1", "the deletion was taken back");
    assert_eq!(
        warehouse
            .value(&format!("SELECT count(*) FROM warehouse.fact_transactions WHERE transaction_id = '{}'", uuid(1)))
            .await,
        "1"
    );
}
