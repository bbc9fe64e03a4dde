//! Histories of dimensions held against the Parquet files: every interval is what the published rows of its member make. Rows of one time
//! and of objects of one time are ranked by the hash of their object's name, which no file tells: the warehouse is asked for it.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_loadtest::FileFormat;
use tokio_postgres::Client;

use super::compare::published;
use crate::histories::{Interval, Kept, Version, assert_same, intervals, kept};
use crate::stack::World;

/// What names a row: topic partition, offset, record, row.
type Lineage = (String, i64, i32, i64);

/// With nothing in flight.
pub(super) async fn check_lake_histories(world: &World) {
    let client = world.warehouse().await;
    let histories = kept(&client).await;
    assert!(!histories.is_empty(), "the shipped connectors track some columns");
    for history in histories {
        let hashes = hashes(world, &client, &history.dimension).await;
        let should = intervals(lake_versions(world, &history, &hashes).await);
        assert!(should.len() > 1, "there is nothing");
        let (stored, unsaid) = by_lake(history.stored(&client).await, &should);
        assert_same(&history.dimension, &stored, &should);
        // members that no row is about: inferred ones, and the unknown one
        let endless = |interval: &Interval| (interval.from, interval.to) == (None, None);
        assert!(unsaid.iter().all(endless), "{unsaid:#?}");
        let members = format!("SELECT count(DISTINCT {}) FROM warehouse.{}", history.natural_key, history.dimension);
        let members: i64 = client.query_one(&members, &[]).await.expect("the warehouse answers").get(0);
        let mut named: Vec<&str> = stored.iter().chain(&unsaid).map(|interval| interval.member.as_str()).collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len() as i64, members, "every member has an interval");
    }
}

/// Those of members that rows of the lake are about, and the others.
fn by_lake(stored: Vec<Interval>, should: &[Interval]) -> (Vec<Interval>, Vec<Interval>) {
    let known: std::collections::HashSet<&str> = should.iter().map(|interval| interval.member.as_str()).collect();
    stored.into_iter().partition(|interval| known.contains(interval.member.as_str()))
}

async fn hashes(world: &World, warehouse: &Client, dimension: &str) -> HashMap<Lineage, i64> {
    let sql = "SELECT source_partition_id, concat(topic, '/', topic_partition) FROM catalog.source_partition";
    let rows = world.catalog().await.query(sql, &[]).await.expect("the catalog answers");
    let sources: BTreeMap<i64, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let of = |table: &str| {
        format!("SELECT _source, _offset, _record, _row, _object_hash FROM warehouse.{table} WHERE _source IS NOT NULL")
    };
    let sql = format!("{} UNION ALL {}", of(dimension), of(&format!("{dimension}_shadow")));
    let rows = warehouse.query(&sql, &[]).await.expect("the warehouse answers");
    let lineage =
        |row: &tokio_postgres::Row| (sources[&row.get::<_, i64>(0)].clone(), row.get(1), row.get(2), row.get(3));
    rows.iter().map(|row| (lineage(row), row.get(4))).collect()
}

/// The rows of `dim_products` lie below `data/products` and in datasets of other formats.
async fn lake_versions(world: &World, history: &Kept, hashes: &HashMap<Lineage, i64>) -> Vec<Version> {
    let mut versions = Vec::new();
    for (key, bytes) in published(world).await {
        let dataset = key.split('/').nth(1).expect("below data/");
        let dataset = FileFormat::dataset(dataset).map_or(dataset.to_owned(), |dataset| dataset.to_string());
        if format!("dim_{dataset}") != history.dimension {
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("Parquet");
        for batch in reader {
            let batch = batch.expect("whole");
            versions.extend((0..batch.num_rows()).map(|row| version(&batch, row, history, hashes)));
        }
    }
    versions
}

fn version(batch: &RecordBatch, row: usize, history: &Kept, hashes: &HashMap<Lineage, i64>) -> Version {
    let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    let int64 = |name: &str| column(name).as_primitive::<Int64Type>().value(row);
    let micros = |name: &str| {
        let times = column(name).as_primitive::<TimestampMillisecondType>();
        times.is_valid(row).then(|| times.value(row) * 1000)
    };
    let text = |name: &String| {
        let array = column(name);
        let shown = ArrayFormatter::try_new(array, &FormatOptions::default()).expect("a plain type");
        array.is_valid(row).then(|| shown.value(row).to_string())
    };
    let topic_partition = column("_topic_partition").as_string::<i32>().value(row).to_owned();
    let record = column("_record").as_primitive::<Int32Type>().value(row);
    let lineage = (topic_partition, int64("_offset"), record, int64("_row"));
    let object_time = micros("_origin_time").expect("every row has one");
    Version {
        member: text(&history.natural_key).expect("it is required"),
        at: Some(micros("updated_at").unwrap_or(object_time)),
        rank: (object_time, *hashes.get(&lineage).expect("every row is loaded"), lineage.3),
        values: history.columns.iter().map(text).collect(),
    }
}
