//! SQL between cleaning and staging, through the whole pipeline: rows, dead letters and books against what plain Rust
//! makes of the same lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMillisecondType};
use serde_json::Value;

use crate::large::{announce, put, read, run, wait_until_published, world_of_small_chunks};
use crate::replay::{count, reset};
use crate::stack::{World, wait_for};

const CONNECTOR: &str = r#"name: readings
source: {topic: TOPIC, bucket: BUCKET, prefix: readings/}
schema:
  - {name: id, type: int64, required: true}
  - {name: total, type: int64, required: true}
  - {name: parts, type: int32}
  - {name: label, type: utf8}
  - {name: at, type: timestamp_ms, required: true}
clean: [{trim: label}]
transform: {sql: readings.sql}
expectations: [{name: not_huge, expr: "share IS NULL OR share < 100000", on_fail: reject}]
staging: {type: reading, time: at, by: [date]}
"#;

const SQL: &str = "SELECT at, CAST(label AS INT) AS number, total / parts AS share, id
FROM input
WHERE id % 10 <> 3
";

fn write_connector(world: &World) {
    let text = CONNECTOR.replace("TOPIC", &world.notifications).replace("BUCKET", &world.raw_bucket);
    let folder = world.folder.join("connectors");
    std::fs::write(folder.join("readings.yaml"), text).expect("the folder is ours");
    std::fs::write(folder.join("readings.sql"), SQL).expect("the folder is ours");
}

/// Rows that pass, that SQL leaves out, and that it fails on: by a division by zero, by a cast; some are no JSON.
fn line(id: u64) -> String {
    let padding = "x".repeat(300);
    let parts = match id % 700 {
        13 => "0".to_owned(),
        17 => "null".to_owned(),
        part => (part + 1).to_string(),
    };
    let total = if id % 900 == 5 { "100000000".to_owned() } else { (id * 3).to_string() };
    let label = if id % 1100 == 1 { "n/a".to_owned() } else { format!(" {} ", id % 97) };
    let (day, broken) = (1 + id / 20_000, if id % 1300 == 999 { "," } else { "" });
    format!(
        r#"{{"id":{id},"total":{total},"parts":{parts},"label":"{label}","at":"2026-01-{day:02}T00:00:00Z","pad":"{padding}"{broken}}}"#
    )
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// `at`, `number`, `share`, `id`
    Passed(i64, i32, Option<i64>, i64),
    Filtered,
    Rejected(&'static str),
}

/// By `serde_json` and plain arithmetic.
fn fate(line: &str) -> Fate {
    let Ok(row) = serde_json::from_str::<Value>(line) else { return Fate::Rejected("malformed_json") };
    let (id, total) = (row["id"].as_i64().expect("written so"), row["total"].as_i64().expect("written so"));
    if id % 10 == 3 {
        return Fate::Filtered;
    }
    let Ok(number) = row["label"].as_str().expect("written so").trim().parse() else {
        return Fate::Rejected("sql_failed");
    };
    let share = match row["parts"].as_i64() {
        Some(0) => return Fate::Rejected("sql_failed"),
        parts => parts.map(|parts| total / parts),
    };
    if share.is_some_and(|share| share >= 100_000) {
        return Fate::Rejected("expectation_failed");
    }
    let at = row["at"].as_str().expect("written so");
    let at = chrono::DateTime::parse_from_rfc3339(at).expect("written so").timestamp_millis();
    Fate::Passed(at, number, share, id)
}

/// Of every row: offset and number.
type Rows<V> = BTreeMap<(i64, i64), V>;

fn places(batch: &RecordBatch) -> Vec<(i64, i64)> {
    let column =
        |name: &str| batch.column_by_name(name).expect("lineage").as_primitive::<Int64Type>().values().to_vec();
    column("_offset").into_iter().zip(column("_row")).collect()
}

async fn staged(world: &World) -> Rows<Fate> {
    let mut rows = Rows::new();
    for batch in read(world, "data/", &["at", "number", "share", "id", "_offset", "_row"]).await {
        let column = |name: &str| std::sync::Arc::clone(batch.column_by_name(name).expect("a column"));
        let (at, number, share, id) = (column("at"), column("number"), column("share"), column("id"));
        let (at, number) = (at.as_primitive::<TimestampMillisecondType>(), number.as_primitive::<Int32Type>());
        let (share, id) = (share.as_primitive::<Int64Type>(), id.as_primitive::<Int64Type>());
        for (row, place) in places(&batch).into_iter().enumerate() {
            let share = share.is_valid(row).then(|| share.value(row));
            let fate = Fate::Passed(at.value(row), number.value(row), share, id.value(row));
            assert!(rows.insert(place, fate).is_none(), "{place:?} stands twice");
        }
    }
    rows
}

/// Reason and bytes.
async fn dead_letters(world: &World) -> Rows<(String, String)> {
    let mut letters = Rows::new();
    for batch in read(world, "dead-letters/", &["reason", "bytes", "_offset", "_row"]).await {
        let reasons = batch.column_by_name("reason").expect("a column").as_string::<i32>();
        let bytes = batch.column_by_name("bytes").expect("a column").as_binary::<i32>();
        for (row, place) in places(&batch).into_iter().enumerate() {
            let text = String::from_utf8(bytes.value(row).to_vec()).expect("text");
            assert!(letters.insert(place, (reasons.value(row).to_owned(), text)).is_none(), "{place:?} stands twice");
        }
    }
    letters
}

/// What was put, by offset.
async fn assert_rows(world: &World, objects: &[Vec<String>]) {
    let (mut passed, mut rejected) = (Rows::new(), Rows::new());
    for (offset, lines) in objects.iter().enumerate() {
        for (row, line) in lines.iter().enumerate() {
            let place = (offset as i64, row as i64);
            match fate(line) {
                Fate::Filtered => {}
                Fate::Rejected(reason) => _ = rejected.insert(place, (reason.to_owned(), line.clone())),
                fate @ Fate::Passed(..) => _ = passed.insert(place, fate),
            }
        }
    }
    assert!(rejected.values().filter(|(reason, _)| reason == "sql_failed").count() > 20, "there is something to find");
    assert!(staged(world).await == passed, "the lake holds other rows");
    assert_eq!(dead_letters(world).await, rejected);
    let live = |outcome: &str| {
        format!(
            "SELECT coalesce(sum(item_count), 0)::bigint FROM catalog.outcome_count JOIN catalog.micro_batch
             USING (micro_batch_id) WHERE state = 'live' AND ledger = 'rows_in' AND outcome = '{outcome}'"
        )
    };
    let all = objects.iter().map(Vec::len).sum::<usize>();
    let filtered = all - passed.len() - rejected.len();
    for (outcome, expected) in [("passed", passed.len()), ("rejected", rejected.len()), ("filtered", filtered)] {
        assert_eq!(count(world, &live(outcome)).await, expected as i64, "{outcome}");
    }
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_makes_the_rows_of_small_and_of_large_objects_and_a_replay_makes_them_again() {
    let world = world_of_small_chunks().await;
    write_connector(&world);
    // the second is more than one chunk
    let objects: Vec<Vec<String>> =
        [0..900, 900..60_000, 60_000..60_900].map(|ids| ids.map(line).collect()).into_iter().collect();
    for (offset, lines) in objects.iter().enumerate() {
        let body = lines.iter().fold(String::new(), |mut body, line| {
            writeln!(body, "{line}").expect("memory takes it");
            body
        });
        announce(&world, &put(&world, &format!("readings/{offset}.json"), body.into_bytes()).await).await;
    }
    // killed amidst the large one: its chunks are taken up by the next owner
    let killed = run(&world, &[]);
    wait_for("a chunk", || async { count(&world, "SELECT count(*) FROM catalog.object_chunk").await >= 1 }).await;
    killed.kill();
    let running = run(&world, &[]);
    wait_until_published(&world, 3).await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    assert_rows(&world, &objects).await;

    let before = count(&world, "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'").await;
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let again = run(&world, &[]);
    let replaced = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'";
    wait_for("the replay", || async { count(&world, replaced).await > before + 1 }).await;
    wait_until_published(&world, 3).await;
    assert_eq!(again.terminate(), Some(0), "{}", world.logs());
    assert_rows(&world, &objects).await;
}
