//! Seeded objects for a world, a few at a time, while things break.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_loadtest::announce::topic_end;
use sluice_loadtest::{Dataset, FileFormat, ProducePlan, Target, produce};
use tokio::sync::RwLock;

use crate::stack::{World, wait_for};

const OBJECTS: u64 = 16;
const ROWS_PER_OBJECT: u64 = 30;

pub(crate) struct Load<'a> {
    world: &'a World,
    seed: u64,
    runs: AtomicU64,
    /// A producer that fails halfway would leave objects that the ledger does not name: none works
    /// while a server that it needs is restarted.
    servers: RwLock<()>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(world: &'a World, seed: u64) -> Self {
        Self { world, seed, runs: AtomicU64::new(0), servers: RwLock::new(()) }
    }

    pub(crate) fn objects(&self) -> u64 {
        self.runs.load(Ordering::Relaxed) * OBJECTS
    }

    /// Puts a few objects and announces them.
    pub(crate) async fn produce(&self) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let plan = ProducePlan {
            seed: self.seed.wrapping_mul(1_000_003).wrapping_add(run),
            rows: OBJECTS * ROWS_PER_OBJECT,
            rows_per_object: ROWS_PER_OBJECT as usize,
            datasets: vec![Dataset::Users, Dataset::Transactions, Dataset::Events, Dataset::Products],
            bucket: self.world.raw_bucket.clone(),
            key_prefix: format!("{}/{run}", self.world.name),
            target: Target::S3 { announced_on: self.world.notifications.clone() },
            announce_wait: Duration::ZERO,
            announce_twice: run.is_multiple_of(4),
            formats: FileFormat::ALL.to_vec(),
            sql_of: vec![Dataset::Transactions],
            dirty_share: 0.02,
            late_share: 0.0,
            hours: 1,
            ..ProducePlan::default()
        };
        let _servers = self.servers.read().await;
        produce(&self.world.endpoints(), &plan, &self.world.ledger()).await.expect("the servers answer");
    }

    /// Restarts a server of the stack.
    pub(crate) async fn restart(&self, server: &'static str) {
        let _servers = self.servers.write().await;
        let stack = self.world.stack;
        tokio::task::spawn_blocking(move || stack.restart(server)).await.expect("the server starts again");
        // Kafka listens before it leads its topic partitions
        wait_for("the topic to have leaders", || async {
            topic_end(&self.world.endpoints(), &self.world.notifications).await.is_ok()
        })
        .await;
    }
}
