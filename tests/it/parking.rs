//! A connector that fails is parked, the others of its topic go on, and `resume` brings back what waited.

use std::time::Duration;

use serde_json::Value;
use sluice_loadtest::{Dataset, ProducePlan, Target, produce};

use crate::pipeline::plan;
use crate::replay::{count, reset, run_until_settled};
use crate::stack::{World, wait_for};

const LIVE: &str = "SELECT coalesce(sum(item_count), 0)::bigint FROM catalog.outcome_count
    JOIN catalog.micro_batch USING (micro_batch_id) WHERE state = 'live'";

async fn put(world: &World, seed: u64, dataset: Dataset, dirty_share: f64) {
    let plan = ProducePlan {
        seed,
        rows: 1_000,
        rows_per_object: 50,
        datasets: vec![dataset],
        dirty_share,
        key_prefix: format!("{}/{seed}", world.name),
        announce_wait: Duration::ZERO,
        ..plan(world)
    };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
}

fn edit(world: &World, connector: &str, from: &str, to: &str) {
    let path = world.folder.join("connectors").join(format!("{connector}.yaml"));
    let text = std::fs::read_to_string(&path).expect("it was written");
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replacen(from, to, 1)).expect("the folder is ours");
}

fn sluice(world: &World, args: &[&str]) -> String {
    let output = world.sluice(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why the connector is parked and how many objects wait, or null.
fn parked(world: &World, connector: &str) -> Value {
    let listed: Value =
        serde_json::from_str(&sluice(world, &["connectors", "list", "--output", "json"])).expect("JSON");
    let status: Value = serde_json::from_str(&sluice(world, &["status", "--output", "json"])).expect("JSON");
    let all = listed["connectors"].as_array().expect("a list");
    let found = all.iter().find(|listed| listed["connector"] == connector).expect("listed")["parked"].clone();
    let shown = status["parked"].as_array().expect("a list").iter().any(|shown| shown["connector"] == connector);
    assert_eq!(shown, !found.is_null(), "status shows it as well");
    found
}

async fn objects(world: &World, connector: &str, outcome: &str) -> i64 {
    count(world, &format!("{LIVE} AND ledger = 'objects' AND connector = '{connector}' AND outcome = '{outcome}'"))
        .await
}

async fn world() -> World {
    let mut world = World::new(2).await;
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "8".into());
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_whose_breaker_trips_is_parked_and_its_neighbour_goes_on() {
    let world = world().await;
    let breaker = "breaker: {dead_letter_share_max: 0.2, rows_min: 200}\n\nstaging:\n";
    edit(&world, "transactions", "staging:\n", breaker);
    put(&world, 1, Dataset::Transactions, 0.6).await;
    put(&world, 2, Dataset::Events, 0.01).await;
    run_until_settled(&world).await;
    let why = parked(&world, "transactions");
    assert!(why["reason"].as_str().expect("a text").contains("rows are dead letters"), "{why}");
    let waiting = why["objects"].as_i64().expect("a number");
    assert!(waiting >= 12, "most of the twenty came after the trip, or with it: {why}");
    assert_eq!(objects(&world, "transactions", "parked").await, waiting);
    assert_eq!(objects(&world, "transactions", "emitted").await, 20 - waiting);
    assert_eq!(objects(&world, "events", "emitted").await, 20);
    assert!(parked(&world, "events").is_null());
    let table = sluice(&world, &["status"]);
    assert!(table.contains("parked: transactions since"), "{table}");
    world.assert_books_balance().await;

    edit(&world, "transactions", breaker, "staging:\n");
    assert_eq!(
        sluice(&world, &["connectors", "resume", "transactions"]),
        format!("transactions is resumed: {waiting} objects are announced again\n")
    );
    assert_eq!(world.sluice(&["connectors", "resume", "transactions"]).status.code(), Some(1), "it is not parked");
    run_until_settled(&world).await;
    assert_eq!(objects(&world, "transactions", "emitted").await, 20);
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.parked_object").await, 0);
    world.assert_verified().await;
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_must_never_come_stops_its_connector_before_anything_of_it_is_committed() {
    let world = world().await;
    let rule = "expectations:\n  - {name: never, expr: \"user_id = 'nobody'\", on_fail: fail}\n";
    let users = std::fs::read_to_string(world.folder.join("connectors/users.yaml")).expect("it was written");
    let (from, rule) = if users.contains("expectations:\n") { ("expectations:\n", rule) } else { ("staging:\n", rule) };
    let to = if from == "staging:\n" { format!("{rule}\nstaging:\n") } else { rule.to_owned() };
    edit(&world, "users", from, &to);
    put(&world, 1, Dataset::Users, 0.01).await;
    put(&world, 2, Dataset::Products, 0.01).await;
    run_until_settled(&world).await;
    assert_eq!(parked(&world, "users")["reason"], "expectation `never` failed");
    assert_eq!(objects(&world, "users", "parked").await, 20);
    assert_eq!(objects(&world, "products", "emitted").await, 20);
    assert_eq!(count(&world, &format!("{LIVE} AND ledger = 'rows_in' AND connector = 'users'")).await, 0);
    edit(&world, "users", &to, from);
    sluice(&world, &["connectors", "resume", "users"]);
    run_until_settled(&world).await;
    world.assert_verified().await;
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_parks_and_resumes_while_processes_run() {
    let world = world().await;
    let running = world.run();
    put(&world, 1, Dataset::Events, 0.01).await;
    world.settle();
    sluice(&world, &["connectors", "park", "events", "--reason", "the source is being mended"]);
    assert_eq!(world.sluice(&["connectors", "park", "evnts", "--reason", "x"]).status.code(), Some(1));
    let mut seed = 1;
    wait_for("the process to hear of it", || {
        seed += 1;
        let (world, seed) = (&world, seed);
        async move {
            put(world, seed, Dataset::Events, 0.01).await;
            world.settle();
            objects(world, "events", "parked").await > 0
        }
    })
    .await;
    // it has not heard of the end either: what it parks meanwhile is announced by its own commit
    sluice(&world, &["connectors", "resume", "events"]);
    put(&world, 1_000, Dataset::Events, 0.01).await;
    world.settle();
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.parked_object").await, 0);
    world.assert_verified().await;
    // a replay while it is parked leaves its rows as they stand
    assert_eq!(running.terminate(), Some(0));
    sluice(&world, &["connectors", "park", "events", "--reason", "again"]);
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    assert!(objects(&world, "events", "carried").await >= 20);
    world.assert_verified().await;
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_records_of_a_parked_connector_are_kept_and_a_replay_reads_them() {
    let world = world().await;
    sluice(&world, &["connectors", "park", "direct-events", "--reason", "not yet"]);
    let plan = ProducePlan { rows: 200, target: Target::Topic(world.records.clone()), ..plan(&world) };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    run_until_settled(&world).await;
    assert_eq!(world.outcomes("offsets").await, [("rejected".to_owned(), 200)].into());
    let kept =
        "SELECT sum(row_count)::bigint FROM lake.files WHERE kind = 'dead_letter' AND connector = 'direct-events'";
    assert_eq!(count(&world, kept).await, 200);
    assert_eq!(
        sluice(&world, &["connectors", "resume", "direct-events"]),
        "direct-events is resumed: 0 objects are announced again\n"
    );
    reset(&world, &world.records, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    world.assert_verified().await;
    // what stands is not given up for dead letters
    sluice(&world, &["connectors", "park", "direct-events", "--reason", "again"]);
    reset(&world, &world.records, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    world.assert_verified().await;
    world.assert_books_balance().await;
}
