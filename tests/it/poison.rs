//! A message that kills the process is found and set aside, and everything else is loaded.
//!
//! The process is killed by the fail point `object.decoding`, at objects whose keys hold a word.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sluice_loadtest::announce::{AnnouncedObject, Envelope, announce};
use sluice_loadtest::{ProducePlan, produce};

use crate::pipeline::plan;
use crate::replay::{count, reset, run_until_settled};
use crate::stack::{DEADLINE, Running, World, wait_for};

const EMITTED: &str = "SELECT count(*) FROM catalog.object_claim WHERE outcome = 'emitted'";

async fn world() -> World {
    let mut world = World::new(1).await;
    world.without_connector("direct-events");
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "8".into());
    world
}

/// Ten objects, in the ledger.
async fn ten_objects(world: &World, seed: u64) {
    let plan = ProducePlan {
        seed,
        rows: 500,
        rows_per_object: 50,
        key_prefix: format!("{}/{seed}", world.name),
        ..plan(world)
    };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
}

/// One user, in no ledger.
async fn user(world: &World, key: &str, id: &str) {
    let body = format!("{{\"user_id\":\"{id}\",\"updated_at\":\"2026-11-20T10:00:00Z\"}}\n");
    let (client, bucket) = (world.target("RAW").client(), world.raw_bucket.clone());
    let put = client.put_object().bucket(&bucket).key(key).body(body.into_bytes().into()).send().await;
    let etag = put.expect("the store answers").e_tag().expect("a PUT has one").trim_matches('"').to_owned();
    let object = AnnouncedObject { bucket, key: key.to_owned(), etag, size: 1, version_id: None };
    announce(&world.endpoints(), &world.notifications, &[object], Envelope::AwsS3).await.expect("Kafka answers");
}

fn fail_points(points: &str) -> HashMap<String, String> {
    [("FAILPOINTS".to_owned(), points.to_owned())].into()
}

/// Starts the process again whenever it dies, until nothing is in flight. Returns how often it died.
async fn restart_until_settled(world: &World, points: &str) -> (Running, u32) {
    let (mut running, mut deaths) = (world.run_with(&fail_points(points), &[]), 0);
    let deadline = Instant::now() + 3 * DEADLINE;
    let mut pause = tokio::time::interval(Duration::from_millis(300));
    loop {
        pause.tick().await;
        assert!(!world.logs().contains("halted"), "{}", world.logs());
        assert!(Instant::now() < deadline, "it died {deaths} times and is not settled: {}", world.logs());
        if running.ended().is_some() {
            deaths += 1;
            running = world.run_with(&fail_points(points), &[]);
        } else if world.sluice(&["settled"]).status.success() {
            return (running, deaths);
        }
    }
}

/// Everything is as it must be but for one object, of which a dead letter tells. Its user was loaded once, or never.
async fn assert_verified_but_for_the_poison(world: &World) {
    // a member that no row names any more stays, inferred: surrogate keys are for ever
    let member = "SELECT count(*) FROM warehouse.dim_users WHERE user_id = 'poisoned' AND NOT inferred";
    let row = world.warehouse().await.query_one(member, &[]).await.expect("the warehouse answers");
    assert_eq!(row.get::<_, i64>(0), 0, "its row is not there");
    let report = sluice_loadtest::verify(&world.endpoints(), &world.ledger()).await.expect("everything can be read");
    let all = report.findings.iter().map(|finding| finding.what.as_str());
    let found: Vec<&str> = all.filter(|what| *what != "Users member poisoned in the warehouse").collect();
    assert!(matches!(found[..], [one] if one.contains("dead letter killed_the_process")), "{}", report.display(30));
    world.assert_books_balance().await;
    let killed = "SELECT connector, key FROM catalog.dead_letter JOIN catalog.micro_batch USING (micro_batch_id)
                   WHERE reason = 'killed_the_process' AND state = 'live'";
    let letter = world.catalog().await.query_one(killed, &[]).await.expect("one of them");
    assert_eq!((letter.get::<_, &str>(0), letter.get::<_, &str>(1)), ("users", "users/the-poison.json"));
    let claimed =
        "SELECT count(*) FROM catalog.object_claim WHERE outcome = 'quarantined' AND key = 'users/the-poison.json'";
    assert_eq!(count(world, claimed).await, 1, "nobody needs to announce it again");
    assert_eq!(count(world, "SELECT count(*) FROM catalog.attempt").await, 0, "what is committed is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_kills_the_process_is_quarantined_and_all_others_are_loaded() {
    let world = world().await;
    ten_objects(&world, 1).await;
    user(&world, "users/the-poison.json", "poisoned").await;
    ten_objects(&world, 2).await;
    let (mut running, deaths) = restart_until_settled(&world, "object.decoding=return(abort@poison)").await;
    assert!((5..=8).contains(&deaths), "two ownerships or three, then three attempts: {deaths}");
    assert_verified_but_for_the_poison(&world).await;
    assert_eq!(count(&world, EMITTED).await, 20);
    ten_objects(&world, 3).await;
    world.settle();
    let redrive = ["dead-letters", "redrive", "--reason", "killed_the_process", "--wait", "60"];
    let redriven = world.sluice(&redrive);
    assert!(redriven.status.success(), "{}", String::from_utf8_lossy(&redriven.stderr));
    world.settle();
    assert!(running.ended().is_none(), "it stays up, and a re-drive does not try the poison again");
    let redriven = "SELECT count(*) FROM catalog.redrive WHERE outcome = 'done'";
    assert_eq!(count(&world, redriven).await, 1);
    assert_eq!(count(&world, EMITTED).await, 30);
    assert_verified_but_for_the_poison(&world).await;
    assert_eq!(running.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hunt_within_a_replay_commits_whole_micro_batches() {
    let world = world().await;
    ten_objects(&world, 1).await;
    user(&world, "users/the-poison.json", "poisoned").await;
    ten_objects(&world, 2).await;
    run_until_settled(&world).await;
    let ranges = "SELECT string_agg(offsets::text, ' ' ORDER BY offsets) FROM catalog.micro_batch WHERE state = 'live'";
    let of = async || world.catalog().await.query_one(ranges, &[]).await.expect("answers").get::<_, String>(0);
    let before = of().await;
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let (running, deaths) = restart_until_settled(&world, "object.decoding=return(abort@poison)").await;
    assert!(deaths >= 5, "{deaths}");
    assert_eq!(of().await, before, "each replaces one");
    assert_verified_but_for_the_poison(&world).await;
    assert_eq!(running.terminate(), Some(0));
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    assert_eq!(count(&world, EMITTED).await, 21, "a replay tries it again, and a mended binary reads it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_drained_or_frozen_by_others_accuses_no_message() {
    let world = world().await;
    user(&world, "users/slow.json", "slow").await;
    let slow = "object.decoding=return(linger:20000@slow)";
    let begun = "SELECT coalesce(max(attempt_count), 0)::bigint FROM catalog.attempt WHERE subject = 'position'";
    let at_work =
        |running: &Running| std::fs::read_to_string(&running.log).unwrap_or_default().contains("fail point reached");
    for killed in 1..=2 {
        let running = world.run_with(&fail_points(slow), &[]);
        wait_for("the object to be decoded", || async { at_work(&running) }).await;
        assert_eq!(count(&world, begun).await, killed);
        running.kill();
    }
    // alone from now on: a stop takes the attempt back, whether the process ends in time or not
    let mut drained = fail_points(slow);
    drained.insert("SLUICE_LIMITS__DRAIN_DEADLINE".into(), "2s".into());
    for _ in 0..2 {
        let running = world.run_with(&drained, &[]);
        wait_for("the object to be decoded", || async { at_work(&running) }).await;
        running.terminate();
        let blamed = "SELECT coalesce(sum(attempt_count), 0)::bigint FROM catalog.attempt WHERE subject = 'message'";
        assert_eq!(count(&world, blamed).await, 0);
    }
    run_until_settled(&world).await;
    assert_eq!(count(&world, EMITTED).await, 1);
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.attempt").await, 0);
}
