//! Schemas that grow, through the whole pipeline: recorded with the rows, known to the next process, loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::replay::{count, published, reset, run_until_settled};
use crate::stack::World;

/// Direct records of the producers of three versions: the second adds `score` (a number), the third makes it text.
fn record(number: u32) -> Value {
    let mut record = json!({
        "event_id": format!("00000000-0000-4000-8000-{number:012}"), "event_type": "view",
        "occurred_at": "2026-01-31T12:00:00Z", "source": "web", "user_id": "u1"
    });
    match number % 3 {
        0 => {}
        1 => record["score"] = json!(number),
        _ => record["score"] = json!(format!("s{number}")),
    }
    record
}

async fn send(world: &World, numbers: std::ops::Range<u32>) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for number in numbers {
        let payload = record(number).to_string();
        let message: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(&world.records).partition(0).payload(payload.as_bytes());
        producer.send(message, Duration::from_secs(10)).await.expect("the broker answers");
    }
}

/// `score` of each event that stands below `data/`, and the schema revisions of the files.
async fn scores(world: &World) -> (BTreeMap<u32, Option<String>>, BTreeSet<String>) {
    let (mut scores, mut revisions) = (BTreeMap::new(), BTreeSet::new());
    for (_, bytes) in published(world).await {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet");
        let metadata = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let revision = metadata.into_iter().find(|pair| pair.key == "sluice.schema_revision");
        revisions.insert(revision.and_then(|pair| pair.value).expect("files carry it"));
        for batch in reader.build().expect("Parquet") {
            let batch = batch.expect("whole");
            let ids = batch.column_by_name("event_id").expect("a column").as_string::<i32>();
            for (row, id) in ids.iter().flatten().enumerate() {
                let score = batch.column_by_name("score").map(AsArray::as_string::<i32>);
                let score = score.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned());
                let number = id[id.len() - 12..].parse().expect("digits");
                assert!(scores.insert(number, score).is_none(), "{number} stands twice");
            }
        }
    }
    (scores, revisions)
}

fn expected(numbers: std::ops::Range<u32>) -> BTreeMap<u32, Option<String>> {
    let score = |number| match &record(number)["score"] {
        Value::Null => None,
        score => Some(score.as_str().map_or_else(|| score.to_string(), str::to_owned)),
    };
    numbers.map(|number| (number, score(number))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grown_schema_is_committed_with_its_rows_known_to_the_next_process_and_the_same_in_a_replay() {
    let world = World::new(1).await;
    world.edit_connectors(|text| text.replace("new_field: ignore", "new_field: evolve"));
    send(&world, 0..30).await;
    run_until_settled(&world).await;
    let (found, first) = scores(&world).await;
    assert_eq!(found, expected(0..30));
    let recorded = "SELECT count(*) FROM catalog.schema_version v
                      JOIN catalog.file f ON f.connector = v.connector AND f.schema_revision = v.schema_revision
                     WHERE v.fields @> '[{\"name\": \"score\", \"type\": \"utf8\"}]'";
    assert!(count(&world, recorded).await > 0, "the schema of the files is in the catalog");

    // of the first version alone: only the catalog knows of the column
    for number in [30_u32, 33] {
        send(&world, number..number + 1).await;
    }
    run_until_settled(&world).await;
    let (found, again) = scores(&world).await;
    assert_eq!(found.len(), 32);
    assert_eq!(again, first, "the next process writes with the schema that is known");

    reset(&world, &world.records, &["--to-earliest"]).await;
    run_until_settled(&world).await;
    assert_eq!(scores(&world).await, (found, first), "a replay makes the same rows");
    world.assert_books_balance().await;
    let loaded = world.warehouse().await.query_one("SELECT count(*) FROM warehouse.fact_events", &[]).await;
    assert_eq!(loaded.expect("the warehouse answers").get::<_, i64>(0), 32, "columns that a table lacks are left out");
}
