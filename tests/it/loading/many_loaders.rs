//! Loaders that run beside each other over one warehouse, with what they load made up as they go.

use std::sync::Arc;

use serde_json::Value;

use super::fixtures::{Warehouse, load_with_retries, replacing};

const ROUNDS: u64 = 12;
const SEEN_AT: &str = "2026-11-23T09:00:05Z";

/// Rows of some connectors.
pub(super) type Parts = Vec<(&'static str, Vec<Value>)>;

/// Whole numbers below a bound, the same in every run.
pub(super) struct Numbers(u64);

impl Numbers {
    /// Donald Knuth's MMIX generator.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Each loader has a source of its own, and loads twelve times what `parts` makes for it and the round: every other load
/// replaces an earlier one, or takes all of it back where there are no rows. None may need another try.
pub(super) async fn many_loaders(
    warehouse: &Arc<Warehouse>,
    loader_count: u64,
    parts: impl Fn(&mut Numbers, u64, u64) -> Parts + Copy + Send + Sync + 'static,
) {
    let loaders: Vec<_> = (0..loader_count)
        .map(|loader| {
            let warehouse = Arc::clone(warehouse);
            tokio::spawn(async move {
                let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(loader + 1));
                let mut tries = 0;
                for round in 0..ROUNDS {
                    let made = parts(&mut numbers, loader, round);
                    let parts: Vec<(&str, &[Value])> = made
                        .iter()
                        .filter(|(_, rows)| !rows.is_empty())
                        .map(|(name, rows)| (*name, &rows[..]))
                        .collect();
                    let is_new = round % 2 == 0;
                    let offset = if is_new { round } else { numbers.below(round) & !1 };
                    let mut batch = warehouse.batch((loader * 100 + offset) as i64, SEEN_AT, &parts);
                    batch.source_partition_id = loader as i64 + 1;
                    let batch = if is_new { batch } else { replacing(batch) };
                    tries += u64::from(load_with_retries(&warehouse.loader, &batch).await.expect("loads"));
                }
                tries
            })
        })
        .collect();
    for loader in loaders {
        assert_eq!(loader.await.expect("no panic"), ROUNDS, "a load needed another try");
    }
}
