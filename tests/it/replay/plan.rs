//! `sluice replay plan` tells what Kafka's own tool will set off, and `sluice replay status` follows it.

use std::process::Output;

use serde_json::Value;
use sluice_loadtest::{Dataset, ProducePlan};

use super::{count, positions, produce_onto, run_until_settled};
use crate::pipeline::plan;
use crate::stack::{World, wait_for};

/// Micro-batches of up to four offsets, and 40 announcements.
async fn world() -> World {
    let mut world = World::new(1).await;
    world.without_connector("direct-events");
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "4".into());
    produce(&world, 1).await;
    run_until_settled(&world).await;
    assert_eq!(positions(&world).await, [40]);
    world
}

async fn produce(world: &World, seed: u64) {
    let plan = ProducePlan {
        seed,
        rows: 1_200,
        rows_per_object: 30,
        datasets: vec![Dataset::Transactions, Dataset::Events],
        key_prefix: format!("{}/{seed}", world.name),
        ..plan(world)
    };
    produce_onto(world, plan, &[0]).await;
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The plan of the notification topic, with its only topic partition.
fn planned(world: &World, to: &[&str]) -> (Value, Value) {
    let args = ["replay", "plan", "--topic", &world.notifications, "--output", "json"];
    let output = world.sluice(&args.iter().chain(to).copied().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let partition = plan["partitions"][0].clone();
    (plan, partition)
}

fn status(world: &World) -> Value {
    let output = world.sluice(&["replay", "status", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["replays"].clone()
}

/// Runs what the plan says, as soon as nobody is in the group.
async fn order(world: &World, plan: &Value) {
    let command = plan["command"].as_str().expect("text");
    assert!(command.starts_with("kafka-consumer-groups.sh --bootstrap-server "), "{command}");
    let args: Vec<&str> = ["groups"].into_iter().chain(command.split(' ').skip(3)).collect();
    wait_for("the group to be empty and moved", || async {
        let output = world.stack.kafka_output(&args);
        output.status.success() && !said(&output).contains("Error")
    })
    .await;
}

/// Every other raw object; returns how many of those announced at or behind `offset`.
async fn delete_raw(world: &World, offset: i64) -> i64 {
    let client = world.target("RAW").client();
    let sql = "SELECT key, message_offset FROM catalog.object_claim ORDER BY message_offset";
    let claims = world.catalog().await.query(sql, &[]).await.expect("the catalog answers");
    let mut deleted = 0;
    for claim in claims.iter().step_by(2) {
        client.delete_object().bucket(&world.raw_bucket).key(claim.get::<_, &str>(0)).send().await.expect("deleted");
        deleted += i64::from(claim.get::<_, i64>(1) >= offset);
    }
    deleted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_names_what_the_replay_that_it_tells_to_order_then_replaces() {
    let world = world().await;
    assert_eq!(status(&world), Value::Array(Vec::new()));
    let aligned = count(&world, "SELECT lower(offsets) FROM catalog.micro_batch WHERE offsets @> 9::bigint").await;
    let deleted = delete_raw(&world, aligned).await;
    let (plan, partition) = planned(&world, &["--to-offset", "9"]);
    assert_eq!(partition["action"], "replay");
    assert_eq!(partition["requested_offset"], 9);
    assert_eq!((&partition["start_offset"], &partition["until_offset"]), (&aligned.into(), &40.into()));
    assert_eq!(partition["objects_missing"], deleted);
    assert_eq!(partition["messages_gone"], 0);
    let live = format!("SELECT VALUE FROM catalog.micro_batch WHERE lower(offsets) >= {aligned}");
    let sum = |value: &'static str| {
        let (world, live) = (&world, &live);
        async move { Value::from(count(world, &live.replace("VALUE", value)).await) }
    };
    let scope = &partition["scope"];
    assert_eq!(scope["micro_batch_count"], sum("count(*)").await);
    assert_eq!(scope["row_in_count"], sum("sum(row_in_count)::bigint").await);
    assert_eq!(scope["row_out_count"], sum("sum(row_out_count)::bigint").await);
    assert_eq!(scope["object_count"], 40 - aligned);
    assert_eq!(
        scope["object_bytes"],
        count(
            &world,
            &format!("SELECT sum(size_bytes)::bigint FROM catalog.object_claim WHERE message_offset >= {aligned}")
        )
        .await
    );
    let files = format!(
        "SELECT VALUE FROM catalog.file JOIN catalog.micro_batch USING (micro_batch_id) WHERE lower(offsets) >= {aligned}"
    );
    assert_eq!(scope["file_count"], count(&world, &files.replace("VALUE", "count(*)")).await);
    assert_eq!(scope["file_bytes"], count(&world, &files.replace("VALUE", "sum(size_bytes)::bigint")).await);
    assert_eq!(partition["loaded"]["row_count"], scope["row_out_count"], "all of it is loaded");
    let speed = &plan["speed"];
    let rows_per_s = speed["row_count"].as_f64().expect("a number") / speed["seconds"].as_f64().expect("a number");
    let seconds = plan["estimated_seconds"].as_f64().expect("a number");
    assert!((seconds * rows_per_s - plan["rows_in"].as_f64().expect("a number")).abs() < 0.1, "{plan}");

    order(&world, &plan).await;
    let running = world.run();
    let replaced = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'";
    wait_for("the middle of the replay", || async { count(&world, replaced).await > 0 }).await;
    running.kill();
    let middle = status(&world)[0].clone();
    if middle["state"] == "running" {
        let percent = middle["percent"].as_f64().expect("a number");
        assert!(percent > 0.0 && percent < 100.0, "{middle}");
        assert!(middle["seconds_left"].as_f64().expect("a number") > 0.0, "{middle}");
        assert_eq!(middle["replaced_count"], count(&world, replaced).await);
    }
    run_until_settled(&world).await;
    let ended = status(&world)[0].clone();
    assert_eq!((&ended["state"], &ended["percent"]), (&"finished".into(), &100.0.into()), "{ended}");
    assert_eq!(ended["replaced_count"], scope["micro_batch_count"], "as it was planned");
    assert_eq!((&ended["start_offset"], &ended["until_offset"]), (&aligned.into(), &40.into()));
    assert_eq!(world.outcomes("objects").await.get("carried"), Some(&deleted));
    let table = world.sluice(&["replay", "status"]);
    assert!(said(&table).contains("100.0 %"), "{}", said(&table));
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_move_a_group_is_planned_as_the_tool_takes_it_and_nothing_is_changed() {
    let world = world().await;
    let before = count(&world, "SELECT count(*) FROM catalog.fence").await;
    let told = |to: &[&str]| {
        let (_, partition) = planned(&world, &[to, &["--skip-raw-check"]].concat());
        assert_eq!(partition["objects_missing"], Value::Null);
        let number = |name: &str| partition[name].as_i64().expect("a number");
        (partition["action"].as_str().expect("text").to_owned(), number("requested_offset"), number("until_offset"))
    };
    assert_eq!(told(&["--to-earliest"]), ("replay".into(), 0, 40));
    assert_eq!(told(&["--shift-by", "-5"]), ("replay".into(), 35, 40));
    assert_eq!(told(&["--shift-by", "-500"]), ("replay".into(), 0, 40), "the log begins there");
    assert_eq!(told(&["--by-duration", "PT1H"]), ("replay".into(), 0, 40));
    assert_eq!(told(&["--to-datetime", "2026-01-01T00:00:00.000"]), ("replay".into(), 0, 40));
    assert_eq!(told(&["--to-datetime", "2199-01-01T00:00:00+01:00"]), ("nothing".into(), 40, 40));
    assert_eq!(told(&["--to-offset", "90"]), ("nothing".into(), 40, 40), "the log ends there");
    produce(&world, 2).await;
    assert_eq!(told(&["--to-offset", "55", "--partition", "0"]), ("skip".into(), 55, 55));
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.fence").await, before, "nobody took anything over");
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.replay").await, 0);

    let refused = |args: &[&str]| {
        let output = world.sluice(&[&["replay", "plan", "--to-earliest"], args].concat());
        (output.status.code(), said(&output))
    };
    let (code, told) = refused(&["--topic", "nowhere"]);
    assert!(code == Some(2) && told.contains("no connector reads topic `nowhere`"), "{told}");
    let (code, told) = refused(&["--topic", &world.notifications, "--partition", "7"]);
    assert!(code == Some(2) && told.contains("has 1 partitions"), "{told}");
    let output = world.sluice(&["replay", "plan", "--topic", &world.notifications, "--to-earliest"]);
    let table = said(&output);
    for part in ["micro-batches replaced", "raw objects missing", "estimated time: ", "--to-earliest --execute"] {
        assert!(table.contains(part), "{table}");
    }
}
