//! What expectations come to stands in the catalog and in `sluice status`, and one of a micro-batch parks its connector.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_loadtest::{Dataset, ProducePlan, produce};

use crate::pipeline::plan;
use crate::replay::{count, reset, run_until_settled};
use crate::stack::World;

async fn put(world: &World, seed: u64, rows: u64) {
    let plan = ProducePlan {
        seed,
        rows,
        rows_per_object: 50,
        datasets: vec![Dataset::Users],
        dirty_share: 0.0,
        key_prefix: format!("{}/{seed}", world.name),
        announce_wait: Duration::ZERO,
        ..plan(world)
    };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
}

/// Gives the connector of users these expectations besides its own.
fn expect(world: &World, expectations: &str) {
    let path = world.folder.join("connectors/users.yaml");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let text = if text.contains("\nexpectations:\n") {
        text.replacen("\nexpectations:\n", &format!("\nexpectations:\n{expectations}"), 1)
    } else {
        text.replacen("\nstaging:\n", &format!("\nexpectations:\n{expectations}\nstaging:\n"), 1)
    };
    std::fs::write(&path, text).expect("the folder is ours");
}

fn status(world: &World, format: &str) -> String {
    let output = world.sluice(&["status", "--output", format]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const LIVE: &str = "FROM catalog.expectation_result JOIN catalog.micro_batch USING (micro_batch_id)
    WHERE state = 'live' AND connector = 'users'";

async fn world() -> World {
    let mut world = World::new(1).await;
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "4".into());
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn results_stand_in_the_catalog_and_failures_in_the_status_and_a_replay_comes_to_the_same() {
    let world = world().await;
    let expectations = r#"  - {name: nobody, expr: "user_id = 'nobody'", on_fail: warn, stage: after_decode}
  - {name: all_there, null_share: {column: user_id, max: 0}, on_fail: warn}
  - {name: unique_ids, unique: user_id, on_fail: warn}
  - {name: volume, row_count: {last: 1, min: 0.9, max: 1.1}, on_fail: warn, stage: after_decode}
"#;
    expect(&world, expectations);
    put(&world, 1, 600).await;
    run_until_settled(&world).await;
    let rows = count(&world, &format!("SELECT sum(rows_checked)::bigint {LIVE} AND name = 'nobody'")).await;
    let rows_in = "SELECT sum(item_count)::bigint FROM catalog.outcome_count JOIN catalog.micro_batch
        USING (micro_batch_id) WHERE state = 'live' AND ledger = 'rows_in' AND connector = 'users'";
    assert_eq!(rows, count(&world, rows_in).await, "each row is asked once");
    let failed = format!("SELECT sum(rows_failed)::bigint {LIVE} AND name = 'nobody' AND outcome = 'warned'");
    assert_eq!(count(&world, &failed).await, rows);
    let shares = format!("SELECT count(*) {LIVE} AND name = 'all_there' AND value = 0 AND outcome = 'passed'");
    assert!(count(&world, &shares).await > 1);
    // every micro-batch but the first of the topic partition has one to be measured by
    let batches = count(&world, &format!("SELECT count(*) {LIVE} AND name = 'volume'")).await;
    let measured = count(&world, &format!("SELECT count(*) {LIVE} AND name = 'volume' AND value IS NOT NULL")).await;
    assert_eq!(measured, batches - 1);

    let shown: Value = serde_json::from_str(&status(&world, "json")).expect("JSON");
    let failures = shown["expectations"].as_array().expect("a list");
    let nobody = failures.iter().find(|failure| failure["name"] == "nobody").expect("it failed");
    assert_eq!(nobody["rows_failed"], json!(rows));
    assert_eq!((&nobody["stage"], &nobody["outcome"]), (&json!("after_decode"), &json!("warned")));
    assert!(failures.iter().all(|failure| failure["name"] != "all_there"), "what passed is not shown");
    let table = status(&world, "table");
    assert!(table.contains("nobody") && table.contains("expectation, last 24 h"), "{table}");

    let all =
        format!("SELECT count(DISTINCT (lower(offsets), name, rows_checked, rows_failed, value, outcome)) {LIVE}");
    let before = count(&world, &all).await;
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    assert_eq!(count(&world, &all).await, before);
    let both = "SELECT count(DISTINCT (lower(offsets), name, rows_checked, rows_failed, value, outcome))
        FROM catalog.expectation_result JOIN catalog.micro_batch USING (micro_batch_id)";
    assert_eq!(count(&world, both).await, before, "the replay came to nothing else");
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_micro_batch_that_fails_parks_its_connector_with_nothing_of_it_committed() {
    let world = world().await;
    expect(&world, "  - {name: stale, freshness: {max: 1ms}, on_fail: warn}\n");
    expect(&world, "  - {name: nobody_twice, unique: source, on_fail: fail}\n");
    put(&world, 1, 300).await;
    run_until_settled(&world).await;
    let shown: Value = serde_json::from_str(&status(&world, "json")).expect("JSON");
    let reason = shown["parked"][0]["reason"].as_str().expect("it is parked");
    assert!(reason.starts_with("expectation `nobody_twice` failed in "), "{reason}");
    assert_eq!(count(&world, &format!("SELECT count(*) {LIVE}")).await, 0);
    let emitted = "SELECT count(*) FROM catalog.object_claim WHERE connector = 'users'";
    assert_eq!(count(&world, emitted).await, 0);
    world.assert_books_balance().await;

    let path = world.folder.join("connectors/users.yaml");
    let text = std::fs::read_to_string(&path).expect("it was written");
    std::fs::write(&path, text.replace("unique: source, on_fail: fail", "unique: source, on_fail: warn"))
        .expect("the folder is ours");
    let resumed = world.sluice(&["connectors", "resume", "users"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    run_until_settled(&world).await;
    assert!(
        count(&world, &format!("SELECT count(*) {LIVE} AND name = 'nobody_twice' AND outcome = 'warned'")).await > 0
    );
    world.assert_verified().await;
    world.assert_books_balance().await;
}
