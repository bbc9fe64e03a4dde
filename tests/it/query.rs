//! `sluice query`: what it finds is what was committed, wherever it lies and whatever is hidden.

use std::collections::HashMap;

use sluice_loadtest::observe::observe;
use sluice_loadtest::{Dataset, produce};

use crate::masks::{announce as announce_on, written_twice};
use crate::pipeline::plan;
use crate::reader;
use crate::replay::{count, reset, run_until_settled};
use crate::stack::{World, wait_for};

/// Values of the first column.
fn query(world: &World, sql: &str) -> Vec<String> {
    let output = world.sluice(&["query", sql, "--output", "csv", "--limit", "0"]);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().skip(1).map(ToOwned::to_owned).collect()
}

fn number(world: &World, sql: &str) -> i64 {
    query(world, sql)[0].parse().expect("a number")
}

/// Commits what was announced, and does no more.
async fn run_transform(world: &World, messages: i64) {
    let running = world.run_with(&HashMap::new(), &["--role", "transform"]);
    let sql = format!(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM catalog.source_partition WHERE topic = '{}'",
        world.notifications
    );
    wait_for("everything to be committed", || async { count(world, &sql).await == messages }).await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}

const ROWS: &str = "SELECT (SELECT count(*) FROM transactions) + (SELECT count(*) FROM events)
                         + (SELECT count(*) FROM users) + (SELECT count(*) FROM products)";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_finds_the_committed_rows_before_and_after_they_are_published_and_while_they_are_replaced() {
    let world = World::new(2).await;
    let plan = sluice_loadtest::ProducePlan { rows: 3_000, rows_per_object: 100, ..plan(&world) };
    let report = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    let messages = report.objects as i64;
    run_transform(&world, messages).await;
    assert_eq!(count(&world, "SELECT count(*) FROM lake.files WHERE state = 'published'").await, 0);
    let before = number(&world, ROWS);
    let letters = number(&world, "SELECT count(*) FROM dead_letters");

    run_until_settled(&world).await;
    let observed = observe(&world.endpoints()).await.expect("the lake answers");
    assert_eq!(before, observed.lake.len() as i64);
    assert_eq!(letters, observed.dead_letters.len() as i64);
    assert_eq!(number(&world, ROWS), before);
    let users = observed.lake.iter().filter(|row| row.dataset == Dataset::Users).count() as i64;
    assert_eq!(number(&world, "SELECT count(*) FROM users"), users);
    let sums = reader::transactions(&world.endpoints());
    let newest = "SELECT count(*), sum(amount) FROM (SELECT DISTINCT ON (transaction_id, occurred_at) amount
                    FROM transactions ORDER BY transaction_id, occurred_at, updated_at DESC)";
    assert_eq!(query(&world, newest), [format!("{},{}", sums.newest_rows, sums.newest_amount)]);

    // replaced in the catalog, while readers of listings still find the old files
    world.edit_connectors(|text| {
        text.replace(
            "expectations:\n",
            "expectations:\n  - {name: only_web, expr: \"source = 'web'\", on_fail: drop}\n",
        )
    });
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let running = world.run_with(&HashMap::new(), &["--role", "transform"]);
    let left = "SELECT count(*) FROM catalog.replay WHERE ended_at IS NOT NULL";
    wait_for("the replay", || async { count(&world, left).await == 2 }).await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    let replaced = number(&world, ROWS);
    assert_eq!(observe(&world.endpoints()).await.expect("the lake answers").lake.len() as i64, before);
    run_until_settled(&world).await;
    let observed = observe(&world.endpoints()).await.expect("the lake answers");
    assert!(observed.lake.iter().all(|row| row.file.contains("source=web/")));
    assert_eq!(replaced, observed.lake.len() as i64);
    assert_eq!(number(&world, ROWS), replaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_row_is_not_found_though_its_file_still_holds_it() {
    let (world, [older, newer, neighbour]) = written_twice().await;
    announce_on(&world, 0, &[&older, &neighbour]).await;
    run_transform(&world, 2).await;
    let events = "SELECT event_id FROM events";
    let ids = |rows: Vec<String>| {
        let mut ids: Vec<u32> = rows.iter().map(|id| id[id.len() - 12..].parse().expect("digits")).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(query(&world, events)), [1, 2, 7]);
    announce_on(&world, 1, &[&newer]).await;
    run_transform(&world, 3).await;
    assert_eq!(count(&world, "SELECT count(*) FROM lake.files WHERE has_masks").await, 1, "{}", world.logs());
    assert_eq!(ids(query(&world, events)), [2, 3, 4, 7]);
    run_until_settled(&world).await;
    assert_eq!(ids(query(&world, events)), [2, 3, 4, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_older_schema_are_read_with_those_of_a_newer_one() {
    let world = World::new(1).await;
    let produce_seed = async |seed| {
        let plan = plan(&world);
        let key_prefix = format!("{}/{seed}", plan.key_prefix);
        let plan = sluice_loadtest::ProducePlan {
            seed,
            rows: 600,
            rows_per_object: 200,
            datasets: vec![Dataset::Transactions],
            key_prefix,
            ..plan
        };
        produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    };
    // the warehouse's columns stay as they are
    world.edit_connectors(|text| text.split("\nwarehouse:").next().unwrap_or_default().to_owned() + "\n");
    produce_seed(1).await;
    run_until_settled(&world).await;
    let old = number(&world, "SELECT sum(quantity) FROM transactions");
    let rows = number(&world, "SELECT count(*) FROM transactions");
    world.edit_connectors(|text| {
        text.replace("{name: quantity, type: int32}", "{name: quantity, type: int64}").replace(
            "{name: attributes, type: json}",
            "{name: attributes, type: json}\n  - {name: channel, type: utf8, path: $.attributes.channel}",
        )
    });
    // the whole of `attributes` and a value in it
    produce_seed(2).await;
    run_until_settled(&world).await;
    let news = "SELECT count(*) FROM transactions WHERE channel IS NOT NULL";
    assert!(number(&world, news) > 0);
    assert_eq!(
        number(&world, "SELECT count(*) FROM transactions WHERE channel IS NULL AND quantity IS NOT NULL"),
        rows
    );
    let new = "SELECT sum(quantity) FROM transactions WHERE channel IS NOT NULL";
    assert_eq!(number(&world, "SELECT sum(quantity) FROM transactions"), old + number(&world, new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_cannot_run_says_why_and_tables_are_listed() {
    let world = World::new(1).await;
    let listed = world.sluice(&["query"]);
    assert_eq!(listed.status.code(), Some(0), "{}", String::from_utf8_lossy(&listed.stderr));
    let plan = sluice_loadtest::ProducePlan {
        rows: 300,
        rows_per_object: 100,
        datasets: vec![Dataset::Users, Dataset::Events],
        ..plan(&world)
    };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    run_until_settled(&world).await;
    let listed = world.sluice(&["query", "--output", "csv"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let users = number(&world, "SELECT count(*) FROM users");
    assert!(listed.lines().any(|line| line.starts_with(&format!("users,{users},"))), "{listed}");
    for (sql, expected) in [
        ("SELECT * FROM nothing", "the lake has: dead_letters, events, users"),
        ("SELECT nothing FROM users", "nothing"),
        ("SELEC 1", "SELEC"),
        ("DROP TABLE users", "DDL not supported"),
        ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc'", "DDL not supported"),
        ("COPY users TO '/tmp/x.csv'", "DML not supported"),
        ("SELECT * FROM '/etc/passwd'", "not found"),
    ] {
        let output = world.sluice(&["query", sql]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{sql}: {said}");
        assert!(said.contains(expected), "{sql}: {said}");
    }
    let cut = world.sluice(&["query", "SELECT user_id FROM users", "--limit", "2", "--output", "json"]);
    assert_eq!(String::from_utf8_lossy(&cut.stdout).lines().count(), 2);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("only the first 2 rows"));
}
