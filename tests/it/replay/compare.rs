//! What a world ended in, without what differs from run to run: lineage and surrogate keys.

use std::collections::BTreeMap;

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::checker::check;
use crate::stack::World;

/// How often each row stands there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EndState(BTreeMap<String, u64>);

impl EndState {
    /// What a listing reader finds below `data/`, and what the warehouse holds.
    pub(super) async fn of(world: &World) -> Self {
        let mut state = Self::default();
        state.lake(world).await;
        state.warehouse(world).await;
        assert!(!state.0.is_empty(), "there is nothing");
        state
    }

    /// Of a warehouse that is as it must be.
    pub(super) async fn checked(world: &World) -> Self {
        check(&world.warehouse().await).await;
        Self::of(world).await
    }

    fn add(&mut self, row: String) {
        *self.0.entry(row).or_insert(0) += 1;
    }

    async fn lake(&mut self, world: &World) {
        for (key, bytes) in published(world).await {
            let folder = key.rsplit_once('/').expect("below data/").0.to_owned();
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("Parquet");
            for batch in reader {
                let mut text = Vec::new();
                let mut writer = LineDelimitedWriter::new(&mut text);
                writer.write(&batch.expect("whole")).expect("JSON");
                writer.finish().expect("JSON");
                for line in String::from_utf8(text).expect("UTF-8").lines() {
                    let mut row: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
                    row.retain(|name, _| !name.starts_with('_') || name == "_rescued");
                    self.add(format!("{folder} {}", Value::Object(row)));
                }
            }
        }
    }

    async fn warehouse(&mut self, world: &World) {
        const FACT: &str = "SELECT (to_jsonb(f) - '{user_key,product_key,_source,_offset,_record,_row,_object_time,_object_hash}'::text[]
                   || jsonb_build_object('user', u.user_id, 'product', p.product_id))::text
              FROM warehouse.TABLE f JOIN warehouse.dim_users u USING (user_key) JOIN warehouse.dim_products p USING (product_key)";
        // a member that no row names any more stays, inferred: surrogate keys are for ever
        const DIMENSION: &str = "SELECT (to_jsonb(d) - '{user_key,product_key,_source,_offset,_record,_row,_object_time,_object_hash}'::text[])::text
              FROM warehouse.TABLE d WHERE NOT inferred";
        let client = world.warehouse().await;
        let rows = client.query("SELECT r::text FROM warehouse.rollup_revenue_hourly r", &[]).await;
        for row in rows.expect("the warehouse answers") {
            self.add(format!("rollup_revenue_hourly {}", row.get::<_, String>(0)));
        }
        let intervals = "SELECT (to_jsonb(h) - '{product_key,_source,_offset,_record,_row,_object_time,_object_hash}'::text[])::text \
                         FROM warehouse.dim_products_history h JOIN warehouse.dim_products d USING (product_key) WHERE NOT d.inferred";
        for row in client.query(intervals, &[]).await.expect("the warehouse answers") {
            self.add(format!("dim_products_history {}", row.get::<_, String>(0)));
        }
        for (table, sql) in
            [("fact_transactions", FACT), ("fact_events", FACT), ("dim_users", DIMENSION), ("dim_products", DIMENSION)]
        {
            let rows = client.query(&sql.replace("TABLE", table), &[]).await.expect("the warehouse answers");
            for row in rows {
                self.add(format!("{table} {}", row.get::<_, String>(0)));
            }
        }
    }

    /// Equal, or a panic that names the first rows that differ.
    pub(super) fn assert_equals(&self, fresh: &Self, what: &str) {
        let differing = |one: &Self, other: &Self| -> Vec<String> {
            let differs = one.0.iter().filter(|(row, count)| other.0.get(*row) != Some(count));
            differs.map(|(row, count)| format!("{count} × {row}")).collect()
        };
        let (too_many, missing) = (differing(self, fresh), differing(fresh, self));
        assert!(
            too_many.is_empty() && missing.is_empty(),
            "{what}: {} rows should not be there so, {} should\n  {}\n---\n  {}",
            too_many.len(),
            missing.len(),
            too_many.iter().take(5).cloned().collect::<Vec<_>>().join("\n  "),
            missing.iter().take(5).cloned().collect::<Vec<_>>().join("\n  ")
        );
    }
}

/// Keys and bytes of what lies below `data/`.
pub(crate) async fn published(world: &World) -> Vec<(String, Bytes)> {
    let endpoints = world.endpoints();
    let client = endpoints.lake.client();
    let mut pages = client.list_objects_v2().bucket(&endpoints.lake_bucket).prefix("data/").into_paginator().send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        for object in page.expect("the lake answers").contents() {
            let key = object.key().expect("objects have keys").to_owned();
            let body = client.get_object().bucket(&endpoints.lake_bucket).key(&key).send().await.expect("listed").body;
            found.push((key, body.collect().await.expect("whole").into_bytes()));
        }
    }
    found
}
