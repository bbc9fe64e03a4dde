//! Replays over what is no longer there, or not there yet.

use std::collections::HashMap;

use sluice_loadtest::{Dataset, ProducePlan};

use super::compare::{EndState, published};
use super::{count, positions, produce_onto, reset, run_until_settled};
use crate::pipeline::plan;
use crate::stack::{World, wait_for};

async fn world() -> World {
    let mut world = World::new(1).await;
    world.without_connector("direct-events");
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "8".into());
    world
}

fn small(world: &World, seed: u64) -> ProducePlan {
    ProducePlan {
        seed,
        rows: 1_000,
        rows_per_object: 50,
        dirty_share: 0.05,
        duplicate_share: 0.1,
        key_prefix: format!("{}/{seed}", world.name),
        ..plan(world)
    }
}

/// Dead letters that stand, with the bytes that are kept.
async fn dead_letters(world: &World) -> i64 {
    let sql = "SELECT coalesce(sum(row_count), 0)::bigint FROM lake.files WHERE kind = 'dead_letter'";
    count(world, sql).await
}

async fn delete_raw(world: &World, every: usize) -> usize {
    let client = world.target("RAW").client();
    let listed = client.list_objects_v2().bucket(&world.raw_bucket).send().await.expect("the store answers");
    let keys: Vec<String> = listed.contents().iter().filter_map(|object| object.key().map(ToOwned::to_owned)).collect();
    let gone: Vec<&String> = keys.iter().step_by(every).collect();
    for key in &gone {
        client.delete_object().bucket(&world.raw_bucket).key(*key).send().await.expect("deleted");
    }
    gone.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_raw_objects_that_are_gone_are_carried_over() {
    let world = world().await;
    produce_onto(&world, small(&world, 1), &[0]).await;
    run_until_settled(&world).await;
    let (before, letters) = (EndState::checked(&world).await, dead_letters(&world).await);
    let gone = delete_raw(&world, 3).await as i64;
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    EndState::checked(&world).await.assert_equals(&before, "a third of the raw objects is gone");
    assert_eq!(dead_letters(&world).await, letters);
    let carried = "SELECT coalesce(sum(item_count), 0)::bigint FROM catalog.outcome_count JOIN catalog.micro_batch USING (micro_batch_id)
                    WHERE state = 'live' AND ledger = 'objects' AND outcome = 'carried'";
    assert_eq!(count(&world, carried).await, gone);
    world.assert_books_balance().await;
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_messages_that_are_gone_are_carried_over_and_the_rest_is_read_again() {
    let world = world().await;
    produce_onto(&world, small(&world, 1), &[0]).await;
    run_until_settled(&world).await;
    let (before, letters) = (EndState::checked(&world).await, dead_letters(&world).await);
    // in the middle of the second micro-batch of eight offsets
    let file = world.folder.join("delete.json");
    let topic = &world.notifications;
    let what = format!("{{\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":11}}],\"version\":1}}");
    std::fs::write(&file, what).expect("the folder is ours");
    world.stack.kafka(&["delete-records", "--offset-json-file", &file.display().to_string()]);
    reset(&world, topic, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    EndState::checked(&world).await.assert_equals(&before, "the log begins in the middle of a micro-batch");
    assert_eq!(dead_letters(&world).await, letters);
    let carried =
        "SELECT sum(item_count)::bigint FROM catalog.outcome_count JOIN catalog.micro_batch USING (micro_batch_id)
                    WHERE state = 'live' AND ledger = 'offsets' AND outcome = 'carried'";
    assert_eq!(count(&world, carried).await, 3, "8, 9 and 10");
    world.assert_books_balance().await;
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rebuilt_stays_as_it_is() {
    let world = world().await;
    produce_onto(&world, small(&world, 1), &[0]).await;
    run_until_settled(&world).await;
    let before = EndState::checked(&world).await;
    delete_raw(&world, 1).await;
    world.edit_connectors(|text| {
        text.replace("schema:\n", "schema:\n  - {name: brand_new, type: utf8, required: true}\n")
    });
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    EndState::checked(&world).await.assert_equals(&before, "nothing can be rebuilt");
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'").await, 0);
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.replay WHERE ended_as = 'finished'").await, 1);
    assert!(world.logs().contains("the old micro-batch stays as it is"), "{}", world.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_and_loader_may_be_behind_on_what_is_replaced() {
    let world = world().await;
    produce_onto(&world, small(&world, 1), &[0]).await;
    let transform = world.run_with(&HashMap::new(), &["--role", "transform"]);
    let read = "SELECT coalesce(max(next_offset), 0) FROM catalog.source_partition";
    wait_for("everything to be committed", || async { count(&world, read).await == 20 }).await;
    assert_eq!(transform.terminate(), Some(0));
    assert!(published(&world).await.is_empty());
    reset(&world, &world.notifications, &["--to-offset", "9"]).await;
    run_until_settled(&world).await;
    world.assert_verified().await;
    world.assert_books_balance().await;
    assert!(count(&world, "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'").await > 0);
    let dead = "SELECT count(*) FROM catalog.file JOIN catalog.micro_batch b USING (micro_batch_id) WHERE b.state = 'dead' AND catalog.file.state <> 'hidden'";
    assert_eq!(count(&world, dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_to_the_latest_in_the_middle_of_a_replay_ends_it() {
    let mut world = world().await;
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "1".into());
    produce_onto(&world, ProducePlan { rows: 3_000, rows_per_object: 30, ..small(&world, 1) }, &[0]).await;
    run_until_settled(&world).await;
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let running = world.run();
    let progress = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'";
    wait_for("the middle of the replay", || async { count(&world, progress).await > 2 }).await;
    running.kill();
    let end = 100;
    let reached = positions(&world).await[0];
    assert!(reached < end, "the replay was over before it was killed");
    reset(&world, &world.notifications, &["--to-latest"]).await;
    let replaced = count(&world, progress).await;
    run_until_settled(&world).await;
    assert_eq!(count(&world, progress).await, replaced, "what was not reached stays");
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.replay WHERE ended_as = 'cancelled'").await, 1);
    assert_eq!(positions(&world).await, [end]);
    world.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_restored_from_a_backup_reads_again_what_it_does_not_know() {
    let world = world().await;
    produce_onto(&world, small(&world, 1), &[0]).await;
    run_until_settled(&world).await;
    let dump = world.dump_catalog();
    produce_onto(&world, ProducePlan { datasets: vec![Dataset::Events], ..small(&world, 2) }, &[0]).await;
    run_until_settled(&world).await;
    let before = EndState::checked(&world).await;
    world.restore_catalog(&dump).await;
    // sweeps first, at its start: files that this catalog does not know
    run_until_settled(&world).await;
    world.assert_books_balance().await;
    EndState::checked(&world).await.assert_equals(&before, "the catalog was restored");
}
