//! Micro-batches that are loaded in one transaction: the tables are as if each had come alone.

use serde_json::{Value, json};
use sluice::catalog::{CatalogError, LiveBatch};
use sluice::load::{BatchToLoad, LoadOutcome};
use sluice::types::MicroBatchId;

use super::checker;
use super::fixtures::{Warehouse, transaction, user};

const SEEN_AT: &str = "2026-11-23T10:00:00Z";

async fn all_live(_: MicroBatchId) -> Result<Option<LiveBatch>, CatalogError> {
    Ok(Some(LiveBatch::default()))
}

/// Few keys, so that most rows meet others of their key, in their own micro-batch and in others; members come late.
fn contested(warehouse: &Warehouse, offset: i64, source: i64) -> BatchToLoad {
    let noise = |row: u64| (offset.unsigned_abs() * 31 + row).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let fact = |row: u64| {
        let stamp = format!("2026-11-23T09:00:{:02}Z", noise(row) % 40);
        let mut fact = transaction(noise(row) % 17, &format!("{offset}.{row:02}"), Some(&stamp));
        fact["user_id"] = json!(format!("u-{}", noise(row) % 5));
        fact["occurred_at"] = json!(format!("2026-11-2{}T09:00:00Z", noise(row) % 17 % 3));
        fact
    };
    let facts: Vec<Value> = (0..20).map(fact).collect();
    let member = user(&format!("u-{}", offset % 5), &format!("name {offset}"), SEEN_AT);
    let mut batch = warehouse.batch(offset, SEEN_AT, &[("transactions", &facts), ("users", &[member])]);
    batch.source_partition_id = source;
    batch
}

/// Everything that loading decides; keys of members are given in the order of arrival.
async fn content(warehouse: &Warehouse) -> Vec<Vec<Option<String>>> {
    let mut found = Vec::new();
    for table in ["fact_transactions", "fact_transactions_shadow"] {
        let rows = format!(
            "SELECT (to_jsonb(t) - 'user_key' - 'product_key')::text || u.user_id || p.product_id FROM warehouse.{table} t \
             JOIN warehouse.dim_users u USING (user_key) JOIN warehouse.dim_products p USING (product_key) ORDER BY 1"
        );
        found.push(warehouse.column(&rows).await);
    }
    for table in ["dim_users", "dim_users_shadow", "dim_products"] {
        let rows =
            format!("SELECT (to_jsonb(t) - 'user_key' - 'product_key')::text FROM warehouse.{table} t ORDER BY 1");
        found.push(warehouse.column(&rows).await);
    }
    let loaded =
        "SELECT source_partition_id || ' ' || offsets || ' ' || row_count FROM warehouse.load_state ORDER BY 1";
    found.push(warehouse.column(loaded).await);
    found
}

async fn join(warehouse: &Warehouse, batches: &[BatchToLoad]) -> Option<LoadOutcome> {
    let prepared = warehouse.loader.prepare(batches).await.expect("prepares");
    warehouse.loader.load_prepared(batches, &prepared, all_live).await.expect("loads")
}

#[tokio::test]
async fn joined_micro_batches_end_in_the_same_tables_as_single_ones() {
    let (single, joined) = (Warehouse::new().await, Warehouse::new().await);
    let batches = |warehouse: &Warehouse| -> Vec<BatchToLoad> {
        (0..12).map(|offset| contested(warehouse, offset, 1 + offset % 3)).collect()
    };
    for batch in batches(&single) {
        single.load(&batch).await;
    }
    // a first group into an empty table, then two over its rows, the last of one
    let batches = batches(&joined);
    for group in [&batches[..5], &batches[5..11], &batches[11..]] {
        let outcome = join(&joined, group).await;
        let Some(LoadOutcome::Loaded(counts)) = outcome else { panic!("not loaded: {outcome:?}") };
        let fact = counts.tables["fact_transactions"];
        assert_eq!(fact.inserted + fact.updated + fact.unchanged_or_older, 20 * group.len() as u64);
    }
    assert_eq!(content(&joined).await, content(&single).await);
    checker::check(&joined).await;
}

#[tokio::test]
async fn nothing_is_joined_with_a_micro_batch_that_needs_more_than_its_rows() {
    let warehouse = Warehouse::new().await;
    let loaded = contested(&warehouse, 1, 1);
    warehouse.load(&loaded).await;
    let before = content(&warehouse).await;
    let fresh = contested(&warehouse, 2, 1);

    let replacing = BatchToLoad { replaces: true, ..contested(&warehouse, 3, 1) };
    let over_a_loaded_one = contested(&warehouse, 1, 1);
    for other in [loaded, replacing, over_a_loaded_one] {
        assert_eq!(join(&warehouse, &[fresh.clone(), other]).await, None);
    }
    let pair = [fresh.clone(), contested(&warehouse, 4, 1)];
    let (fresh_id, prepared) = (fresh.micro_batch_id, warehouse.loader.prepare(&pair).await.expect("prepares"));
    let one_is_dead = |id| async move { Ok((id == fresh_id).then(LiveBatch::default)) };
    assert_eq!(warehouse.loader.load_prepared(&pair, &prepared, one_is_dead).await.expect("answers"), None);
    let one_is_masked = |id| async move {
        let masked = if id == fresh_id { Vec::new() } else { vec![(4, 0)] };
        Ok(Some(LiveBatch { mask_rev: 1, masked: masked.into_iter().collect() }))
    };
    assert_eq!(warehouse.loader.load_prepared(&pair, &prepared, one_is_masked).await.expect("answers"), None);
    assert_eq!(content(&warehouse).await, before, "nothing was written");
}
