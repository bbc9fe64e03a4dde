//! `sluice replay reload`: a warehouse that was damaged by hand is compared with the lake and mended.

use std::collections::HashMap;

use sluice_loadtest::{Dataset, ProducePlan, verify};

use super::compare::EndState;
use super::{count, produce_onto, run_until_settled};
use crate::pipeline::plan;
use crate::stack::World;

const DAMAGE: &str = "
    CREATE TEMPORARY TABLE taken AS SELECT * FROM warehouse.fact_transactions ORDER BY transaction_id LIMIT 4;
    -- deleted, changed, foreign with the lineage of a micro-batch; a member renamed
    DELETE FROM warehouse.fact_transactions WHERE transaction_id IN (SELECT transaction_id FROM taken OFFSET 0 LIMIT 1);
    UPDATE warehouse.fact_transactions SET amount = amount + 1
     WHERE transaction_id IN (SELECT transaction_id FROM taken OFFSET 1 LIMIT 1);
    UPDATE taken SET transaction_id = gen_random_uuid(), _row = _row + 1000000;
    INSERT INTO warehouse.fact_transactions SELECT * FROM taken LIMIT 1;
    INSERT INTO warehouse.fact_transactions_shadow SELECT * FROM taken OFFSET 1 LIMIT 1;
    UPDATE warehouse.dim_users SET name = 'Mallory' WHERE user_key = (SELECT min(user_key) FROM warehouse.dim_users WHERE NOT inferred AND user_key > 0);
    DELETE FROM warehouse.load_state WHERE micro_batch_id = (SELECT min(micro_batch_id::text)::uuid FROM warehouse.load_state)";

async fn world() -> World {
    let mut world = World::new(2).await;
    world.without_connector("direct-events");
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "4".into());
    let plan = ProducePlan {
        rows: 1_200,
        rows_per_object: 40,
        duplicate_share: 0.1,
        datasets: vec![Dataset::Transactions, Dataset::Users],
        ..plan(&world)
    };
    produce_onto(&world, plan, &[0, 1]).await;
    run_until_settled(&world).await;
    world
}

async fn findings(world: &World) -> usize {
    verify(&world.endpoints(), &world.ledger()).await.expect("everything can be read").findings.len()
}

async fn shadow(world: &World) -> i64 {
    let row = world.warehouse().await.query_one("SELECT count(*) FROM warehouse.fact_transactions_shadow", &[]).await;
    row.expect("the warehouse answers").get(0)
}

/// What the command says.
fn reload(world: &World, args: &[&str]) -> String {
    let output = world.sluice(&[&["replay", "reload"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn load_until_settled(world: &World) {
    let running = world.run_with(&HashMap::new(), &["--role", "load"]);
    world.settle();
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_warehouse_is_mended_and_an_order_that_crashed_halfway_is_harmless() {
    let world = world().await;
    let (before, losers) = (EndState::of(&world).await, shadow(&world).await);
    let batches = count(&world, "SELECT count(*) FROM catalog.micro_batch WHERE needs_load").await;
    world.warehouse().await.batch_execute(DAMAGE).await.expect("the warehouse answers");
    let damaged = EndState::of(&world).await;
    assert_ne!(damaged, before);
    assert!(findings(&world).await >= 3);

    // as a crash between the two steps leaves it: nothing is in flight, readers see what they saw
    let stale = "UPDATE warehouse.load_state SET stale = true";
    world.warehouse().await.batch_execute(stale).await.expect("the warehouse answers");
    load_until_settled(&world).await;
    assert_eq!(EndState::of(&world).await, damaged);

    assert!(reload(&world, &["--since", "2199-01-01T00:00:00"]).starts_with("0 micro-batches with 0 rows"));
    assert!(reload(&world, &["--topic", &world.records]).starts_with("0 micro-batches"));
    assert!(reload(&world, &[]).starts_with(&format!("{batches} micro-batches with ")));
    assert_eq!(world.sluice(&["settled"]).status.code(), Some(1), "it waits for a loader");
    load_until_settled(&world).await;
    EndState::checked(&world).await.assert_equals(&before, "reloaded");
    assert_eq!(shadow(&world).await, losers);
    world.assert_verified().await;
    let state = "SELECT count(*) FILTER (WHERE stale), count(*) FROM warehouse.load_state";
    let row = world.warehouse().await.query_one(state, &[]).await.expect("the warehouse answers");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, batches));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_one_topic_partition_leaves_the_others_alone() {
    let world = world().await;
    let half = "SELECT count(*) FROM catalog.micro_batch JOIN catalog.source_partition USING (source_partition_id)
                 WHERE needs_load AND topic_partition = 1";
    let half = count(&world, half).await;
    let said =
        reload(&world, &["--topic", &world.notifications, "--partition", "1", "--since", "2020-01-01T00:00:00Z"]);
    assert!(said.starts_with(&format!("{half} micro-batches with ")), "{said}");
    let others = "SELECT count(*) FROM catalog.micro_batch JOIN catalog.source_partition USING (source_partition_id)
                   WHERE loaded_at IS NULL AND needs_load AND topic_partition <> 1";
    assert_eq!(count(&world, others).await, 0);
    load_until_settled(&world).await;
    world.assert_verified().await;
}
