//! Facts whose event time changes: one row a key, in the partition of the newest one's time.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::client::postgres;
use sluice::config::{Connectors, WarehouseTable};
use sluice::error::ErrorKind;
use sluice::load::{Loader, TableCounts, other_times};

use super::checker::check;
use super::fixtures::{Warehouse, connectors, live, replacing, transaction};
use super::many_loaders::{Numbers, many_loaders};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";

/// What happened on `day` of November, as it was known at `hour`.
fn row(number: u64, day: u32, hour: u32) -> Value {
    let mut row = transaction(number, &format!("{hour}.00"), Some(&format!("2026-11-27T{hour:02}:00:00Z")));
    row["occurred_at"] = json!(format!("2026-11-{day:02}T09:00:00Z"));
    row
}

/// The shipped connectors; of transactions the time changes.
fn moving() -> Connectors {
    let mut connectors = connectors();
    let fact = WarehouseTable::Fact("fact_transactions".to_owned());
    for connector in &mut connectors.all {
        if let Some(warehouse) =
            Arc::make_mut(connector).warehouse.as_mut().filter(|warehouse| warehouse.target == fact)
        {
            warehouse.time_changes = true;
        }
    }
    connectors
}

impl Warehouse {
    /// Days, each with the hour at which it was known.
    async fn days(&self) -> Vec<String> {
        check(self).await;
        let sql =
            "SELECT concat(to_char(occurred_at, 'DD'), ':', amount::int) FROM warehouse.fact_transactions ORDER BY 1";
        self.column(sql).await.into_iter().flatten().collect()
    }

    async fn make_again(&self, offset: i64, rows: &[Value]) -> TableCounts {
        let part: (&str, &[Value]) = ("transactions", rows);
        let parts = if rows.is_empty() { &[][..] } else { std::slice::from_ref(&part) };
        let counts = self.load(&replacing(self.batch(offset, SEEN_AT, parts))).await;
        counts.tables.get("fact_transactions").copied().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_row_moves_with_its_time_in_any_order_of_arrival() {
    let warehouse = Warehouse::with(moving()).await;
    let first = warehouse.load_rows(1, "transactions", &[row(1, 20, 1), row(2, 20, 1)]).await;
    assert_eq!(first, TableCounts { inserted: 2, ..TableCounts::default() });
    let moved = warehouse.load_rows(2, "transactions", &[row(1, 22, 3)]).await;
    assert_eq!(moved, TableCounts { updated: 1, ..TableCounts::default() });
    assert_eq!(warehouse.days().await, ["20:1", "22:3"]);
    let older = warehouse.load_rows(3, "transactions", &[row(1, 21, 2)]).await;
    assert_eq!(older, TableCounts { unchanged_or_older: 1, ..TableCounts::default() });
    assert_eq!(warehouse.days().await, ["20:1", "22:3"]);
    warehouse.load_rows(4, "transactions", &[row(1, 20, 4), row(1, 19, 5), row(2, 18, 2)]).await;
    assert_eq!(warehouse.days().await, ["18:2", "19:5"], "of one micro-batch too the newest counts");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions_shadow").await, "5");
    assert_eq!(warehouse.value("SELECT sum(row_count) FROM warehouse.rollup_revenue_hourly").await, "2");
}

#[tokio::test]
async fn a_replay_moves_rows_and_what_is_taken_back_returns_to_its_own_time() {
    let warehouse = Warehouse::with(moving()).await;
    warehouse.load_rows(1, "transactions", &[row(1, 20, 1)]).await;
    warehouse.load_rows(2, "transactions", &[row(1, 22, 3), row(2, 22, 3)]).await;
    let again = warehouse.make_again(2, &[row(1, 22, 3), row(2, 22, 3)]).await;
    assert_eq!((again.inserted, again.updated, again.retracted), (0, 0, 0), "the very same");
    let moved = warehouse.make_again(2, &[row(1, 22, 3), row(2, 23, 3)]).await;
    assert_eq!((moved.inserted, moved.retracted), (1, 1));
    assert_eq!(warehouse.days().await, ["22:3", "23:3"]);
    let back = warehouse.make_again(2, &[row(2, 23, 3)]).await;
    assert_eq!((back.retracted, back.promoted), (2, 1), "the other one has another place in its object now");
    assert_eq!(warehouse.days().await, ["20:1", "23:3"]);
    warehouse.make_again(1, &[]).await;
    warehouse.make_again(2, &[]).await;
    assert_eq!(warehouse.days().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_would_return_to_a_day_that_was_taken_out_stays_in_the_shadow() {
    let warehouse = Warehouse::with(moving()).await;
    warehouse.load_rows(1, "transactions", &[row(1, 19, 1)]).await;
    warehouse.load_rows(2, "transactions", &[row(1, 20, 2)]).await;
    warehouse.load_rows(3, "transactions", &[row(1, 22, 3)]).await;
    let detach = "ALTER TABLE warehouse.fact_transactions DETACH PARTITION warehouse.fact_transactions_p20261120";
    warehouse.execute(detach).await.expect("detaches");
    let back = warehouse.make_again(3, &[]).await;
    assert_eq!((back.retracted, back.promoted), (1, 1));
    let sql = "SELECT concat(to_char(occurred_at, 'DD'), ':', amount::int) FROM warehouse.fact_transactions";
    assert_eq!(warehouse.value(sql).await, "19:1", "the newest whose day is there");
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions_shadow").await, "1");
}

#[tokio::test]
async fn of_a_fact_of_many_days_those_around_are_looked_at_for_other_times() {
    let warehouse = Warehouse::new().await;
    let on = |number: u64, day: chrono::NaiveDate| {
        let mut row = row(number, 1, 1);
        row["occurred_at"] = json!(format!("{day}T09:00:00Z"));
        row
    };
    let first: chrono::NaiveDate = "2026-10-01".parse().expect("a date");
    let days: Vec<Value> = first.iter_days().take(40).zip(1..).map(|(day, number)| on(number, day)).collect();
    assert_eq!(warehouse.load_rows(1, "transactions", &days).await.inserted, 40);
    let day = |number: u64| first + chrono::Days::new(number);
    assert_eq!(warehouse.load_rows(2, "transactions", &[on(20, day(22))]).await.other_time, 1, "three days later");
    assert_eq!(
        warehouse.load_rows(3, "transactions", &[on(1, day(39))]).await.other_time,
        0,
        "beyond what is looked at"
    );
}

/// Keys that many loads share; every other load replaces an earlier one, or takes all of it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_loaders_keep_one_row_a_key() {
    let warehouse = Arc::new(Warehouse::with(moving()).await);
    many_loaders(&warehouse, 4, |numbers, _, _| {
        let made =
            |numbers: &mut Numbers| row(numbers.below(25), numbers.below(4) as u32 + 19, numbers.below(20) as u32 + 1);
        let count = numbers.below(12);
        vec![("transactions", (0..count).map(|_| made(numbers)).collect())]
    })
    .await;
    assert!(warehouse.days().await.len() > 10);
}

#[tokio::test]
async fn without_it_a_key_with_another_time_is_counted_and_has_two_rows() {
    let warehouse = Warehouse::new().await;
    let first = warehouse.load_rows(1, "transactions", &[row(1, 20, 1), row(2, 20, 1)]).await;
    assert_eq!(first.other_time, 0);
    let counts = warehouse.load_rows(2, "transactions", &[row(1, 21, 2), row(2, 20, 2), row(3, 21, 1)]).await;
    assert_eq!(counts, TableCounts { inserted: 2, updated: 1, other_time: 1, ..TableCounts::default() });
    assert_eq!(warehouse.days().await, ["20:1", "20:2", "21:1", "21:2"]);
    let replayed = warehouse.make_again(2, &[row(1, 21, 2), row(2, 20, 2), row(3, 22, 1)]).await;
    assert_eq!(replayed.other_time, 0, "the row that it makes otherwise has no other one");
    assert_eq!(warehouse.make_again(1, &[row(1, 20, 1), row(3, 20, 1)]).await.other_time, 1);
    let client = postgres::get(&warehouse.pool).await.expect("connects");
    let told = other_times(&client).await.expect("answers");
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.fact.as_str(), told.key_count), ("fact_transactions", 2));
}

#[tokio::test]
async fn keys_that_were_doubled_get_one_row_when_their_time_is_said_to_change() {
    let warehouse = Warehouse::new().await;
    warehouse.load_rows(1, "transactions", &[row(1, 20, 1), row(2, 20, 1)]).await;
    warehouse.load_rows(2, "transactions", &[row(1, 22, 3), row(1, 21, 2)]).await;
    let new = Loader::new(warehouse.pool.clone(), &moving()).await.expect("fits");
    assert_eq!(warehouse.days().await, ["20:1", "22:3"]);
    assert_eq!(warehouse.value("SELECT count(*) FROM warehouse.fact_transactions_shadow").await, "2");

    // those that were started before must not double them again
    let batch = warehouse.batch(3, SEEN_AT, &[("transactions", &[row(2, 23, 5)])]);
    let refused = warehouse.loader.load(&batch, live).await.expect_err("it knows of no key map");
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    new.load(&batch, live).await.expect("loads");
    assert_eq!(warehouse.days().await, ["22:3", "23:5"]);
    let error = Loader::new(warehouse.pool.clone(), &connectors()).await.expect_err("times are kept");
    assert!(error.to_string().contains("time_changes"), "{error}");
}
