//! SQL that joins a table beside the connector, as of the row's time, and a dimension of the warehouse, through the whole
//! pipeline: against a look at every pair in plain Rust.

use std::collections::BTreeMap;

use chrono::DateTime;

use crate::large::{announce, put};
use crate::replay::{count, reset};
use crate::stack::{Running, World, wait_for};

const CONNECTOR: &str = r#"name: sales
source: {topic: TOPIC, bucket: BUCKET, prefix: sales/}
schema:
  - {name: transaction_id, type: uuid, required: true}
  - {name: product_id, type: utf8, required: true}
  - {name: amount, type: int32, required: true}
  - {name: currency, type: utf8, required: true}
  - {name: occurred_at, type: timestamp_ms, required: true}
transform:
  sql: |
    SELECT s.transaction_id, 'nobody' AS user_id, s.product_id, CAST(s.amount * r.rate AS DECIMAL(12, 2)) AS amount, s.currency,
           coalesce(p.category, 'unknown') AS source, s.occurred_at, s.occurred_at AS updated_at
    FROM input s
    JOIN rates r ON r.code = s.currency AND s.occurred_at >= r.valid_from
                AND (r.valid_to IS NULL OR s.occurred_at < r.valid_to)
    LEFT JOIN products p ON p.product_id = s.product_id
  tables:
    rates: {file: rates.csv}
    products:
      dimension: products
      columns: [{name: product_id, type: utf8}, {name: category, type: utf8}]
      refresh: 1s
staging: {type: sale, time: occurred_at, by: [date]}
warehouse:
  fact: fact_transactions
  key: [transaction_id]
  newer_by: updated_at
  dimensions: {users: {key: user_id}, products: {key: product_id}}
"#;

/// Code, valid from and to (days of January), rate. Of the last currency two are valid on some days.
const RATES: &[(&str, u32, Option<u32>, i64)] = &[
    ("EUR", 1, Some(10), 2),
    ("EUR", 10, None, 3),
    ("USD", 5, Some(20), 5),
    ("GBP", 1, Some(12), 7),
    ("GBP", 11, None, 8),
];

fn day(day: u32) -> String {
    format!("2026-01-{day:02}T00:00:00Z")
}

fn rates_csv() -> String {
    let rows = RATES
        .iter()
        .map(|(code, from, to, rate)| format!("{code},{},{},{rate}\n", day(*from), to.map(day).unwrap_or_default()));
    ["code,valid_from,valid_to,rate\n".to_owned()].into_iter().chain(rows).collect()
}

fn write_connector(world: &World, connector: &str) {
    let text = connector.replace("TOPIC", &world.notifications).replace("BUCKET", &world.raw_bucket);
    let folder = world.folder.join("connectors");
    std::fs::write(folder.join("sales.yaml"), text).expect("the folder is ours");
    std::fs::write(folder.join("rates.csv"), rates_csv()).expect("the folder is ours");
}

#[derive(Debug, Clone, Copy)]
struct Sale {
    id: u32,
    product: u32,
    currency: &'static str,
    day: u32,
}

fn sales(first: u32) -> Vec<Sale> {
    let currency = |id: u32| ["EUR", "USD", "GBP", "CHF"][id as usize % 4];
    (first..first + 120).map(|id| Sale { id, product: id % 5, currency: currency(id), day: 1 + id % 28 }).collect()
}

impl Sale {
    fn line(self) -> String {
        let (id, at) = (uuid::Uuid::from_u128(u128::from(self.id)), day(self.day));
        format!(
            "{{\"transaction_id\":\"{id}\",\"product_id\":\"p{}\",\"amount\":{},\"currency\":\"{}\",\"occurred_at\":\"{at}\"}}\n",
            self.product, self.id, self.currency
        )
    }
}

/// By id: the amount in hundredths and the category.
type Facts = BTreeMap<u32, (i64, String)>;

/// What is loaded of sales, and how many of them are filtered and rejected.
fn expected(sales: &[Sale], categories: &BTreeMap<u32, &str>) -> (Facts, i64, i64) {
    let (mut facts, mut filtered, mut rejected) = (Facts::new(), 0, 0);
    for sale in sales {
        let valid: Vec<i64> = RATES
            .iter()
            .filter(|(code, from, to, _)| {
                *code == sale.currency && *from <= sale.day && to.is_none_or(|to| sale.day < to)
            })
            .map(|(.., rate)| *rate)
            .collect();
        match valid[..] {
            [] => filtered += 1,
            [rate] => {
                let category = categories.get(&sale.product).copied().unwrap_or("unknown");
                facts.insert(sale.id, (i64::from(sale.id) * rate * 100, category.to_owned()));
            }
            _ => rejected += 1,
        }
    }
    (facts, filtered, rejected)
}

async fn loaded(world: &World) -> Facts {
    let sql = "SELECT transaction_id, (amount * 100)::bigint, source FROM warehouse.fact_transactions";
    let rows = world.warehouse().await.query(sql, &[]).await.expect("the warehouse answers");
    let fact = |row: &tokio_postgres::Row| {
        let id: uuid::Uuid = row.get(0);
        (id.as_u128() as u32, (row.get(1), row.get(2)))
    };
    rows.iter().map(fact).collect()
}

async fn put_products(world: &World, key: &str, products: &[(u32, &str)]) {
    let line = |(product, category): &(u32, &str)| {
        // a later version of a member, by the object that it stands in
        let at =
            DateTime::from_timestamp(1_760_000_000 + i64::from(key.as_bytes()[9]), 0).expect("a time").to_rfc3339();
        format!(
            "{{\"product_id\":\"p{product}\",\"name\":\"n{product}\",\"category\":\"{category}\",\"updated_at\":\"{at}\"}}\n"
        )
    };
    let body: String = products.iter().map(line).collect();
    announce(world, &put(world, key, body.into_bytes()).await).await;
}

async fn put_sales(world: &World, key: &str, sales: &[Sale]) {
    let body: String = sales.iter().map(|sale| sale.line()).collect();
    announce(world, &put(world, key, body.into_bytes()).await).await;
}

/// What the process says of a table that is joined.
async fn gauge(running: &Running, name: &str) -> Option<i64> {
    let (_, metrics) = crate::dependencies::get(&running.telemetry()?, "/metrics").await?;
    let series = format!("{name}{{connector=\"sales\",table=\"products\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

async fn assert_loaded(world: &World, expected: &Facts) {
    let loaded = loaded(world).await;
    assert_eq!(&loaded, expected, "{}", world.logs());
}

/// Sums over live micro-batches.
async fn assert_outcomes(world: &World, filtered: i64, rejected: i64) {
    for (outcome, expected) in [("filtered", filtered), ("rejected", rejected)] {
        let sql = format!(
            "SELECT coalesce(sum(item_count), 0)::bigint FROM catalog.outcome_count JOIN catalog.micro_batch
             USING (micro_batch_id) WHERE state = 'live' AND ledger = 'rows_in' AND outcome = '{outcome}'"
        );
        assert_eq!(count(world, &sql).await, expected, "{outcome}");
    }
    let letters = "SELECT count(*) FROM catalog.dead_letter JOIN catalog.micro_batch USING (micro_batch_id)
                   WHERE state = 'live' AND reason <> 'sql_failed'";
    assert_eq!(count(world, letters).await, 0, "nothing is rejected for another reason");
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_joined_with_a_file_as_of_their_time_and_with_the_dimension_as_it_is() {
    let world = World::new(1).await;
    write_connector(&world, CONNECTOR);
    let running = world.run();
    put_products(&world, "products/1.json", &[(0, "toys"), (1, "books")]).await;
    world.settle();
    wait_for("the dimension to be seen", || async { gauge(&running, "sluice_table_rows").await == Some(2) }).await;
    let (first, second) = (sales(1), sales(1000));
    put_sales(&world, "sales/1.json", &first).await;
    world.settle();
    let before = BTreeMap::from([(0, "toys"), (1, "books")]);
    let (mut facts, filtered, rejected) = expected(&first, &before);
    assert!(filtered > 10 && rejected > 0 && facts.values().any(|(_, category)| category == "unknown"));
    assert_loaded(&world, &facts).await;
    assert_outcomes(&world, filtered, rejected).await;

    put_products(&world, "products/2.json", &[(1, "comics"), (2, "games")]).await;
    world.settle();
    // members that facts have named meanwhile are none of its rows
    wait_for("the change to be seen", || async { gauge(&running, "sluice_table_rows").await == Some(3) }).await;
    assert!(gauge(&running, "sluice_table_age_seconds").await.expect("it is shown") < 60);
    put_sales(&world, "sales/2.json", &second).await;
    world.settle();
    let after = BTreeMap::from([(0, "toys"), (1, "comics"), (2, "games")]);
    let (more, more_filtered, more_rejected) = expected(&second, &after);
    facts.extend(more.clone());
    assert_loaded(&world, &facts).await;
    assert_outcomes(&world, filtered + more_filtered, rejected + more_rejected).await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());

    // a replay joins with the dimension of its own day, and what it makes takes the place of what stood there
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let again = world.run();
    world.settle();
    assert_eq!(again.terminate(), Some(0), "{}", world.logs());
    let (mut replayed, ..) = expected(&first, &after);
    replayed.extend(more);
    assert_ne!(replayed, facts);
    assert_loaded(&world, &replayed).await;
    assert_outcomes(&world, filtered + more_filtered, rejected + more_rejected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dimension_that_does_not_fit_ends_the_start_and_says_why() {
    let world = World::new(1).await;
    write_connector(&world, &CONNECTOR.replace("p.category", "p.colour").replace("name: category", "name: colour"));
    let refused = world.sluice(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    let why = "table `products` of connector `sales` does not fit warehouse.dim_products: it has no column `colour`";
    assert!(said.contains(why), "{said}");

    // commands that look at rows join as the pipeline does
    write_connector(&world, CONNECTOR);
    let warehouse = world.warehouse().await;
    let members = "INSERT INTO warehouse.dim_products (product_id, name, category) VALUES ('p0', 'n', 'toys');
                   INSERT INTO warehouse.dim_products (product_id, inferred) VALUES ('p1', true)";
    warehouse.batch_execute(members).await.expect("the warehouse answers");
    let file = world.folder.join("sales.json");
    let wanted =
        [Sale { id: 8, product: 0, currency: "EUR", day: 3 }, Sale { id: 9, product: 1, currency: "EUR", day: 12 }];
    std::fs::write(&file, wanted.iter().map(|sale| sale.line()).collect::<String>()).expect("the folder is ours");
    let shown = world.sluice(&["preview", &file.display().to_string(), "--connector", "sales", "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&shown.stderr)));
    let rows = shown["stages"].as_array().and_then(|stages| stages.last()).expect("stages")["rows"].as_array();
    let rows = rows.expect("rows").iter().map(|row| row["source"].as_str().expect("text")).collect::<Vec<_>>();
    assert_eq!(rows, ["toys", "unknown"]);
    // no loader has written them, so they have no history
    let ours = "DELETE FROM warehouse.dim_products WHERE product_id IN ('p0', 'p1')";
    assert_eq!(warehouse.execute(ours, &[]).await.expect("the warehouse answers"), 2);
}
