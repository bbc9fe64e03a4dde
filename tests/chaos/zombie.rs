//! FENCE-1: a process that slept through its own replacement.

use std::time::Duration;

use crate::alone;
use crate::fault::FREEZE;
use crate::load::Load;
use crate::process::Process;
use crate::stack::{DEADLINE, World, wait_for};

async fn count(world: &World, sql: &str, pid: u32) -> i64 {
    let row = world.catalog().await.query_one(sql, &[&pid.to_string()]).await.expect("the catalog answers");
    row.get(0)
}

/// Topic partitions that the process holds.
async fn owned(world: &World, pid: u32) -> i64 {
    let sql =
        "SELECT count(*) FROM catalog.source_partition JOIN catalog.fence USING (fence) WHERE process LIKE '%/' || $1";
    count(world, sql, pid).await
}

/// Micro-batches that it has committed.
async fn committed(world: &World, pid: u32) -> i64 {
    let sql = "SELECT count(*) FROM catalog.micro_batch JOIN catalog.fence USING (fence) WHERE process LIKE '%/' || $1";
    count(world, sql, pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_sleeps_between_put_and_commit_is_refused_when_it_wakes() {
    let _alone = alone().await;
    // one topic partition: the worker of another might be frozen with its row locked, and keep the heir waiting
    let world = World::new(1).await;
    world.without_connector("direct-events");
    world.with_sql();
    world.with_formats();
    let load = Load::new(&world, 7);
    let mut sleeper = Process::start(&world).await;
    // its files lie in `_pending/`, nothing is committed: it stops itself with SIGSTOP, there and nowhere else
    sleeper.arm("batch.all_put", "1*return(freeze)");
    load.produce().await;
    assert!(sleeper.until(DEADLINE, |process| process.is_frozen()).await, "{}", sleeper.log());
    assert_eq!(sleeper.reached("batch.all_put", "freeze"), 1);
    let before = committed(&world, sleeper.pid()).await;

    let heir = Process::start(&world).await;
    wait_for("the heir to take everything over", || async { owned(&world, heir.pid()).await == 1 }).await;
    for _ in 0..3 {
        let so_far = committed(&world, heir.pid()).await;
        load.produce().await;
        wait_for("the heir to commit", || async { committed(&world, heir.pid()).await > so_far }).await;
    }
    tokio::time::sleep(FREEZE.saturating_sub(Duration::from_secs(6))).await;
    assert!(sleeper.is_frozen(), "it slept all the while");

    sleeper.signal("CONT");
    let refused = sleeper.until(DEADLINE, |process| process.log().contains("commit refused: a newer owner exists"));
    assert!(refused.await, "{}", sleeper.log());
    assert!(sleeper.counter("sluice_commit_fenced_total") >= 1.0);
    assert_eq!(committed(&world, sleeper.pid()).await, before, "what it slept over is not its own");
    world.settle();
    world.assert_verified().await;
    world.assert_books_balance().await;
}
