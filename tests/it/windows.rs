//! Dedupe within a window across objects, owners and replays: what is in the lake against what plain Rust makes of the lines.

use std::collections::HashMap;
use std::fmt::Write as _;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use crate::large::{announce, put, read, run, wait_until_published, world_of_small_chunks};
use crate::replay::{count, reset};
use crate::stack::{World, wait_for};

const CONNECTOR: &str = r#"name: readings
source: {topic: TOPIC, bucket: BUCKET, prefix: readings/, overwrite: append}
schema:
  - {name: id, type: int64, required: true}
  - {name: at, type: timestamp_ms, formats: [epoch_ms], required: true}
clean: [{dedupe: {by: id, window: 1h}}]
staging: {type: reading, time: at, by: [date]}
"#;

const HOUR_MS: i64 = 3_600_000;

/// Id and event time of each row.
type Object = Vec<(i64, i64)>;

async fn send(world: &World, number: usize, rows: &Object) {
    let pad = "x".repeat(200);
    let body = rows.iter().fold(String::new(), |mut body, (id, at)| {
        writeln!(body, r#"{{"id":{id},"at":{at},"pad":"{pad}"}}"#).expect("memory takes it");
        body
    });
    announce(world, &put(world, &format!("readings/{number}.json"), body.into_bytes()).await).await;
}

/// Where each object is a micro-batch of its own: offset and id of what passes, sorted.
fn expected(objects: &[Object]) -> Vec<(i64, i64)> {
    let mut passed: HashMap<i64, Vec<i64>> = HashMap::new();
    let (mut latest, mut all) = (i64::MIN, Vec::new());
    for (offset, rows) in objects.iter().enumerate() {
        let mut of_object: HashMap<i64, i64> = HashMap::new();
        for (id, at) in rows {
            let is_held = passed.get(id).is_some_and(|times| times.iter().any(|time| *time >= latest - HOUR_MS));
            if !is_held {
                // the last of an object is its newest
                of_object.insert(*id, *at);
            }
        }
        for (id, at) in of_object {
            passed.entry(id).or_default().push(at);
            latest = latest.max(at);
            all.push((offset as i64, id));
        }
    }
    all.sort_unstable();
    all
}

async fn staged(world: &World) -> Vec<(i64, i64)> {
    let mut rows = Vec::new();
    for batch in read(world, "data/", &["_offset", "id"]).await {
        let column = |name: &str| batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().values();
        rows.extend(column("_offset").iter().copied().zip(column("id").iter().copied()));
    }
    rows.sort_unstable();
    rows
}

async fn assert_rows(world: &World, objects: &[Object]) {
    let expected = expected(objects);
    assert!(staged(world).await == expected, "the lake holds other rows");
    let live = |outcome: &str| {
        format!(
            "SELECT coalesce(sum(item_count), 0)::bigint FROM catalog.outcome_count JOIN catalog.micro_batch
             USING (micro_batch_id) WHERE state = 'live' AND ledger = 'rows_in' AND outcome = '{outcome}'"
        )
    };
    let duplicates = objects.iter().map(Vec::len).sum::<usize>() - expected.len();
    assert_eq!(count(world, &live("passed")).await, expected.len() as i64);
    assert_eq!(count(world, &live("duplicate")).await, duplicates as i64);
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_passes_once_whoever_reads_it_and_a_replay_passes_the_same_rows() {
    let world = world_of_small_chunks().await;
    let text = CONNECTOR.replace("TOPIC", &world.notifications).replace("BUCKET", &world.raw_bucket);
    std::fs::write(world.folder.join("connectors/readings.yaml"), text).expect("the folder is ours");
    let start = 1_800_000_000_000;
    let rows = |ids: std::ops::Range<i64>, at: i64| ids.map(|id| (id, start + at)).collect::<Object>();
    let mut large = rows(1000..9000, 1000);
    // more than a chunk behind the first of them
    large.extend(rows(1000..1100, 2000));
    let objects = vec![
        rows(0..100, 0),
        // half of them are known
        rows(50..150, 1000),
        large,
        // known from the object of several chunks, from those before it, and new
        [rows(1050..1060, 3000), rows(0..10, 3000), rows(200..210, 3000)].concat(),
        rows(300..310, 2 * HOUR_MS),
        // the others are forgotten
        [rows(0..20, 2 * HOUR_MS), rows(305..315, 2 * HOUR_MS)].concat(),
    ];
    // each by another owner, which knows nothing
    let next = |offset: usize| {
        format!("SELECT coalesce(max(next_offset), 0) FROM catalog.source_partition WHERE next_offset > {offset}")
    };
    for (number, rows) in objects.iter().enumerate() {
        send(&world, number, rows).await;
        let owner = run(&world, &[]);
        wait_for("a commit", || async { count(&world, &next(number)).await > 0 }).await;
        owner.kill();
    }
    let running = run(&world, &[]);
    wait_until_published(&world, objects.len() as i64).await;
    running.kill();
    assert_rows(&world, &objects).await;

    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let again = run(&world, &[]);
    let replaced = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead'";
    wait_for("the replay", || async { count(&world, replaced).await >= objects.len() as i64 }).await;
    wait_until_published(&world, objects.len() as i64).await;
    assert_eq!(again.terminate(), Some(0), "{}", world.logs());
    assert_rows(&world, &objects).await;
}
