//! `make bench-job`: how fast a replay is, beside reading the same messages for the first time, in one run.

use std::time::{Duration, Instant};

use sluice_loadtest::Dataset;

use super::{produce_onto, reset};
use crate::pipeline::plan;
use crate::stack::{World, wait_for};

const ROWS: u64 = 400_000;
const TOPIC_PARTITIONS: [i32; 2] = [0, 1];

/// From the start of a process that finds everything waiting.
struct Speed {
    /// Until every message is committed.
    committed: Duration,
    /// Until files are published, or hidden, and everything is loaded, too.
    settled: Duration,
    cpu: Duration,
}

impl Speed {
    async fn measure(world: &World) -> Self {
        let started = Instant::now();
        let running = world.run();
        let catalog = world.catalog().await;
        let end = (ROWS / 1_000 / TOPIC_PARTITIONS.len() as u64) as i64;
        wait_for("every message to be committed", || async {
            let sql = "SELECT count(*) FROM catalog.source_partition WHERE topic = $1 AND next_offset = $2 AND replay_until IS NULL
                          AND EXISTS (SELECT FROM catalog.micro_batch b WHERE b.source_partition_id = source_partition.source_partition_id
                                         AND b.committed_at > clock_timestamp() - make_interval(secs => $3))";
            let since = started.elapsed().as_secs_f64();
            let row = catalog.query_one(sql, &[&world.notifications, &end, &since]).await.expect("the catalog answers");
            row.get::<_, i64>(0) == TOPIC_PARTITIONS.len() as i64
        })
        .await;
        let committed = started.elapsed();
        world.settle();
        let settled = started.elapsed();
        let cpu = running.cpu();
        assert_eq!(running.terminate(), Some(0), "{}", world.logs());
        Self { committed, settled, cpu }
    }

    fn line(&self, what: &str) -> String {
        let rate = |time: Duration| ROWS as f64 / time.as_secs_f64();
        format!(
            "{what:<8} {:>9.1} s {:>9.0} rows/s {:>9.1} s {:>9.0} rows/s {:>9.1} s",
            self.committed.as_secs_f64(),
            rate(self.committed),
            self.settled.as_secs_f64(),
            rate(self.settled),
            self.cpu.as_secs_f64()
        )
    }
}

#[ignore = "`make bench-job`"]
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_beside_the_first_reading() {
    let world = World::new(TOPIC_PARTITIONS.len() as i32).await;
    world.without_connector("direct-events");
    let plan = sluice_loadtest::ProducePlan {
        rows: ROWS,
        rows_per_object: 1_000,
        hours: 6,
        dirty_share: 0.01,
        key_prefix: world.name.clone(),
        datasets: vec![Dataset::Transactions, Dataset::Events, Dataset::Users, Dataset::Products],
        ..plan(&world)
    };
    produce_onto(&world, plan, &TOPIC_PARTITIONS).await;
    let live = Speed::measure(&world).await;
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let replay = Speed::measure(&world).await;
    world.assert_verified().await;
    println!("{ROWS} rows    committed                      settled                      CPU");
    println!("{}\n{}", live.line("live"), replay.line("replay"));
    let ratio = |of: fn(&Speed) -> Duration| of(&live).as_secs_f64() / of(&replay).as_secs_f64();
    println!(
        "replay is {:.2} × as fast as live to the commit, {:.2} × until settled, with {:.2} × the CPU",
        ratio(|speed| speed.committed),
        ratio(|speed| speed.settled),
        1.0 / ratio(|speed| speed.cpu)
    );
}
