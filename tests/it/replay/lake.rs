//! The warehouse held against the Parquet files: every published row stands in it once, as the winner of its key or in the
//! shadow, with what ranks it, and nothing else does. Winners are told from losers by [`crate::checker`].

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_loadtest::FileFormat;

use super::compare::published;
use super::lake_histories::check_lake_histories;
use crate::stack::World;

/// Folder below `data/`, the table, and the column that ranks its rows.
const DATASETS: [(&str, &str, Option<&str>); 5] = [
    ("transactions", "fact_transactions", Some("updated_at")),
    ("events", "fact_events", None),
    ("direct-events", "fact_events", None),
    ("users", "dim_users", Some("updated_at")),
    ("products", "dim_products", Some("updated_at")),
];

/// A row by its lineage: topic partition, offset, record and number; then milliseconds of what ranks it and of its object.
type Row = (String, i64, i32, i64, i64, i64);

/// Of each table its rows, and how often each stands there.
type Rows = BTreeMap<(&'static str, Row), u64>;

/// With nothing in flight.
pub(crate) async fn check_lake(world: &World) {
    let (lake, warehouse) = (lake_rows(world).await, warehouse_rows(world).await);
    assert!(!lake.is_empty(), "there is nothing");
    let missing = |one: &Rows, other: &Rows| -> Vec<String> {
        let rows = one.iter().filter(|(row, count)| other.get(*row) != Some(count));
        rows.map(|(row, count)| format!("{count} × {row:?}")).collect()
    };
    let (not_loaded, not_published) = (missing(&lake, &warehouse), missing(&warehouse, &lake));
    assert!(
        not_loaded.is_empty() && not_published.is_empty(),
        "{} rows of the lake are not in the warehouse so, {} the other way round\n  {}\n---\n  {}",
        not_loaded.len(),
        not_published.len(),
        not_loaded[..not_loaded.len().min(5)].join("\n  "),
        not_published[..not_published.len().min(5)].join("\n  ")
    );
    check_lake_histories(world).await;
}

async fn lake_rows(world: &World) -> Rows {
    let mut rows = Rows::new();
    for (key, bytes) in published(world).await {
        let dataset = key.split('/').nth(1).expect("below data/");
        // those read from other formats fill the same tables
        let dataset = FileFormat::dataset(dataset).map_or(dataset.to_owned(), |dataset| dataset.to_string());
        let Some((_, table, newer_by)) = DATASETS.into_iter().find(|(name, ..)| *name == dataset) else { continue };
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("Parquet");
        for batch in reader {
            let batch = batch.expect("whole");
            for row in 0..batch.num_rows() {
                *rows.entry((table, lake_row(&batch, row, newer_by))).or_insert(0) += 1;
            }
        }
    }
    rows
}

fn lake_row(batch: &RecordBatch, row: usize, newer_by: Option<&str>) -> Row {
    let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    let int64 = |name: &str| column(name).as_primitive::<Int64Type>().value(row);
    let time = |name: &str| {
        let times = column(name).as_primitive::<TimestampMillisecondType>();
        times.is_valid(row).then(|| times.value(row))
    };
    let object_time = time("_origin_time").expect("every row has one");
    let topic_partition = column("_topic_partition").as_string::<i32>().value(row).to_owned();
    let record = column("_record").as_primitive::<Int32Type>().value(row);
    let newer_at = newer_by.and_then(time).unwrap_or(object_time);
    (topic_partition, int64("_offset"), record, int64("_row"), newer_at, object_time)
}

async fn warehouse_rows(world: &World) -> Rows {
    let catalog = world.catalog().await;
    let sql = "SELECT source_partition_id, topic, topic_partition FROM catalog.source_partition";
    let sources = catalog.query(sql, &[]);
    let sources: BTreeMap<i64, String> = sources
        .await
        .expect("the catalog answers")
        .iter()
        .map(|row| (row.get(0), format!("{}/{}", row.get::<_, String>(1), row.get::<_, i32>(2))))
        .collect();
    let client = world.warehouse().await;
    let mut rows = Rows::new();
    for table in ["fact_transactions", "fact_events", "dim_users", "dim_products"] {
        let held = if table.starts_with("dim_") { "NOT inferred AND _source IS NOT NULL" } else { "true" };
        let columns = "_source, _offset, _record, _row, (extract(epoch FROM _newer_at) * 1000)::bigint, \
                       (extract(epoch FROM _object_time) * 1000)::bigint";
        let sql = format!(
            "SELECT {columns} FROM warehouse.{table} WHERE {held} UNION ALL SELECT {columns} FROM warehouse.{table}_shadow"
        );
        for row in client.query(&sql, &[]).await.expect("the warehouse answers") {
            let source = sources.get(&row.get::<_, i64>(0)).expect("a source of the catalog").clone();
            let row = (source, row.get(1), row.get(2), row.get(3), row.get(4), row.get(5));
            *rows.entry((table, row)).or_insert(0) += 1;
        }
    }
    rows
}
