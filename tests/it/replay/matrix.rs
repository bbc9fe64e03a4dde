//! Replays of every kind, over transforms that changed meanwhile, disturbed in the middle: the end state is that of a
//! fresh run over the same input.

use std::collections::HashMap;

use futures::stream::{self, StreamExt};
use sluice_loadtest::{Dataset, FileFormat};

use super::compare::EndState;
use super::lake::check_lake;
use super::{positions, produce_onto, reset, run_until_settled};
use crate::pipeline::plan;
use crate::stack::{World, wait_for};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    ToEarliest,
    MidBatch,
    OnePartition,
    ByDuration,
    ForwardThenBackward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transform {
    Same,
    DropsRows,
    ChangesKeys,
    MovesRows,
    ChangesSql,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Crash,
    SecondReset,
}

const TOPIC_PARTITIONS: i32 = 2;

/// One cell of the matrix, with worlds of its own.
struct Cell {
    world: World,
    /// A fresh run over the same input. What is not replayed it reads with the old transform, the rest with the new.
    fresh: World,
    reset: Reset,
    transform: Transform,
    disturbance: Disturbance,
}

impl Cell {
    async fn new(reset: Reset, transform: Transform, disturbance: Disturbance) -> Self {
        let mut world = World::new(TOPIC_PARTITIONS).await;
        world.without_connector("direct-events");
        world.with_sql();
        world.with_formats();
        // small micro-batches, so that the middle of a replay is long
        world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "4".into());
        let fresh = World::twin(&world).await;
        Self { world, fresh, reset, transform, disturbance }
    }

    /// Rows that come twice, so that some outrank others in the warehouse, also across objects.
    async fn produce(&self, seed: u64, topic_partitions: &[i32]) {
        let plan = sluice_loadtest::ProducePlan {
            seed,
            rows: 1_600,
            hours: 1,
            rows_per_object: 40,
            duplicate_share: 0.2,
            formats: FileFormat::ALL.to_vec(),
            sql_of: vec![Dataset::Transactions],
            dirty_share: 0.02,
            key_prefix: format!("{}/{seed}", self.world.name),
            datasets: vec![Dataset::Transactions, Dataset::Events, Dataset::Users, Dataset::Products],
            ..plan(&self.world)
        };
        produce_onto(&self.world, plan, topic_partitions).await;
    }

    fn name(&self) -> String {
        name(self.reset, self.transform, self.disturbance)
    }

    async fn run(self) {
        let (first, second): (&[i32], &[i32]) = match self.reset {
            Reset::OnePartition => (&[0], &[1]),
            _ => (&[0, 1], &[0, 1]),
        };
        self.produce(1, first).await;
        if self.reset == Reset::ForwardThenBackward {
            reset(&self.world, &self.world.notifications, &["--to-offset", "5"]).await;
        }
        run_until_settled(&self.world).await;
        if matches!(self.reset, Reset::OnePartition | Reset::MidBatch) {
            run_until_settled(&self.fresh).await;
        }
        let middle = positions(&self.world).await;
        self.produce(2, second).await;
        run_until_settled(&self.world).await;
        let before = EndState::checked(&self.world).await;
        self.change_transform();
        self.order_replay(&middle).await;
        self.disturb(&middle).await;
        run_until_settled(&self.world).await;
        let after = EndState::checked(&self.world).await;
        if self.transform != Transform::Same {
            assert_ne!(before, after, "the replay changed nothing");
        }
        self.world.assert_books_balance().await;
        check_lake(&self.world).await;
        run_until_settled(&self.fresh).await;
        after.assert_equals(&EndState::checked(&self.fresh).await, &self.name());
    }

    async fn order_replay(&self, middle: &[i64]) {
        let topic = &self.world.notifications;
        match self.reset {
            Reset::ToEarliest | Reset::ForwardThenBackward => reset(&self.world, topic, &["--to-earliest"]).await,
            // one behind the start of a micro-batch: the replay begins where that one begins
            Reset::MidBatch => {
                for (number, offset) in middle.iter().enumerate() {
                    let offset = (offset + 1).to_string();
                    reset(&self.world, &format!("{topic}:{number}"), &["--to-offset", &offset]).await;
                }
            }
            Reset::OnePartition => reset(&self.world, &format!("{topic}:1"), &["--to-earliest"]).await,
            Reset::ByDuration => reset(&self.world, topic, &["--by-duration", "PT1H"]).await,
        }
    }

    /// In the middle of the replay, which is waited for and made long enough to be met.
    async fn disturb(&self, middle: &[i64]) {
        let lingers = HashMap::from([("FAILPOINTS".to_owned(), "batch.objects_read=return(linger:1500)".to_owned())]);
        let running = self.world.run_with(&lingers, &[]);
        let catalog = self.world.catalog().await;
        wait_for("the middle of the replay", || async {
            let sql = "SELECT EXISTS (SELECT FROM catalog.source_partition p JOIN catalog.replay r USING (source_partition_id)
                        WHERE r.ended_at IS NULL AND p.next_offset > r.start_offset)";
            catalog.query_one(sql, &[]).await.expect("the catalog answers").get::<_, bool>(0)
        })
        .await;
        match self.disturbance {
            Disturbance::Crash => running.kill(),
            Disturbance::SecondReset => {
                assert_eq!(running.terminate(), Some(0), "{}", self.world.logs());
                self.order_replay(middle).await;
            }
        }
    }

    fn change_transform(&self) {
        let transform = self.transform;
        let change = |text: String| match transform {
            Transform::Same => text,
            Transform::DropsRows => text.replace(
                "expectations:\n",
                "expectations:\n  - {name: only_web, expr: \"source <> 'web'\", on_fail: drop}\n",
            ),
            Transform::ChangesKeys => text.replace("clean:\n", "clean:\n  - uppercase: KEYS\n").replace(
                "KEYS",
                if text.contains("name: users") {
                    "user_id"
                } else if text.contains("name: products") {
                    "product_id"
                } else {
                    "[user_id, product_id]"
                },
            ),
            Transform::MovesRows => text.replace("by: [source, date, hour]", "by: [source, date]"),
            // other values, and rows that are left out
            Transform::ChangesSql => text
                .replace("upper(currency)", "lower(currency)")
                .replace("<> 'heartbeat'", "NOT IN ('heartbeat', 'view')"),
        };
        self.world.edit_connectors(change);
        self.fresh.edit_connectors(change);
    }
}

fn name(reset: Reset, transform: Transform, disturbance: Disturbance) -> String {
    format!("{reset:?} × {transform:?} × {disturbance:?}")
}

macro_rules! cells {
    ($($name:ident: $reset:ident, $transform:ident, $disturbance:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            Cell::new(Reset::$reset, Transform::$transform, Disturbance::$disturbance).await.run().await;
        })+
    };
}

// values of every two kinds meet
cells! {
    earliest_same_crash: ToEarliest, Same, Crash;
    earliest_drops_rows_second_reset: ToEarliest, DropsRows, SecondReset;
    earliest_changes_keys_crash: ToEarliest, ChangesKeys, Crash;
    earliest_moves_rows_second_reset: ToEarliest, MovesRows, SecondReset;
    mid_batch_same_second_reset: MidBatch, Same, SecondReset;
    mid_batch_changes_keys_crash: MidBatch, ChangesKeys, Crash;
    one_partition_drops_rows_crash: OnePartition, DropsRows, Crash;
    one_partition_moves_rows_second_reset: OnePartition, MovesRows, SecondReset;
    by_duration_changes_keys_second_reset: ByDuration, ChangesKeys, SecondReset;
    by_duration_moves_rows_crash: ByDuration, MovesRows, Crash;
    forward_then_backward_drops_rows_crash: ForwardThenBackward, DropsRows, Crash;
    earliest_changes_sql_crash: ToEarliest, ChangesSql, Crash;
    mid_batch_changes_sql_second_reset: MidBatch, ChangesSql, SecondReset;
    forward_then_backward_same_second_reset: ForwardThenBackward, Same, SecondReset;
}

/// Cells at a time: most of their time is waiting.
const CELLS_AT_ONCE: usize = 4;

/// `make chaos`. `CHAOS_CELL` repeats those whose name contains it: `MidBatch × Same`.
#[ignore = "for `make chaos`: takes about 20 minutes on two cores"]
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_cell() {
    use Disturbance::{Crash, SecondReset};
    use Reset::{ByDuration, ForwardThenBackward, MidBatch, OnePartition, ToEarliest};
    use Transform::{ChangesKeys, ChangesSql, DropsRows, MovesRows, Same};
    let mut cells = Vec::new();
    for reset in [ToEarliest, MidBatch, OnePartition, ByDuration, ForwardThenBackward] {
        for transform in [Same, DropsRows, ChangesKeys, MovesRows, ChangesSql] {
            cells.extend([Crash, SecondReset].map(|disturbance| (reset, transform, disturbance)));
        }
    }
    let wanted = std::env::var("CHAOS_CELL").unwrap_or_default();
    cells.retain(|(reset, transform, disturbance)| name(*reset, *transform, *disturbance).contains(&wanted));
    let count = cells.len();
    assert!(count > 0, "no cell is called `{wanted}`");
    let run = |(reset, transform, disturbance)| async move {
        let cell = Cell::new(reset, transform, disturbance).await;
        let name = cell.name();
        // a task of its own: one that fails leaves the others alone
        let passed = tokio::spawn(cell.run()).await.is_ok();
        println!("{} {name}", if passed { "equal    " } else { "DIFFERENT" });
        passed
    };
    let passed: Vec<bool> = stream::iter(cells).map(run).buffer_unordered(CELLS_AT_ONCE).collect().await;
    assert_eq!((passed.len(), passed.iter().filter(|passed| **passed).count()), (count, count));
}
