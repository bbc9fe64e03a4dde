//! Objects that are more than a chunk: one offset each, in bounded memory, every row once.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sluice_loadtest::announce::{AnnouncedObject, Envelope};

use crate::replay::{count, reset};
use crate::stack::{Running, World, wait_for};

/// Of a multipart upload.
const PART_BYTES: usize = 32 << 20;
/// Rows of one hour.
const HOUR_ROWS: u64 = 700_000;

/// Every thousandth row is broken, and every 1,500th refused by an expectation.
fn line(row: u64, out: &mut Vec<u8>) {
    let padding = "x".repeat(330);
    if row % 1000 == 999 {
        writeln!(out, "broken {row} {padding}").expect("memory takes it");
        return;
    }
    let amount = if is_refused(row) { "-1".to_owned() } else { format!("{}.25", row % 1000) };
    let id = uuid::Uuid::from_u128(u128::from(row));
    let hour = row / HOUR_ROWS;
    writeln!(
        out,
        r#"{{"transaction_id":"{id}","user_id":"u1","amount":{amount},"occurred_at":"2026-01-31T{hour:02}:00:00Z","attributes":"{padding}"}}"#
    )
    .expect("memory takes it");
}

fn is_refused(row: u64) -> bool {
    row % 1500 == 7
}

fn is_broken(row: u64) -> bool {
    row % 1000 == 999
}

/// Rows from `first` on until there are so many bytes of them; returns the next row as well.
fn lines(first: u64, size_bytes: usize) -> (Vec<u8>, u64) {
    let (mut out, mut row) = (Vec::with_capacity(size_bytes + 1024), first);
    while out.len() < size_bytes {
        line(row, &mut out);
        row += 1;
    }
    (out, row)
}

/// Puts an object of so many bytes as it is made; returns it and its rows.
async fn put_large(world: &World, key: &str, size_bytes: usize) -> (AnnouncedObject, u64) {
    let (client, bucket) = (world.target("RAW").client(), world.raw_bucket.clone());
    let begun = client.create_multipart_upload().bucket(&bucket).key(key).send().await.expect("the store answers");
    let upload = begun.upload_id().expect("an upload has an id");
    let (mut parts, mut next, mut size) = (CompletedMultipartUpload::builder(), 0, 0);
    for number in 1..=size_bytes.div_ceil(PART_BYTES) {
        let (part, row) = lines(next, PART_BYTES);
        (next, size) = (row, size + part.len() as u64);
        let put = client.upload_part().bucket(&bucket).key(key).upload_id(upload).part_number(number as i32);
        let put = put.body(part.into()).send().await.expect("the store answers");
        parts = parts
            .parts(CompletedPart::builder().part_number(number as i32).set_e_tag(put.e_tag().map(Into::into)).build());
    }
    let done = client.complete_multipart_upload().bucket(&bucket).key(key).upload_id(upload);
    let done = done.multipart_upload(parts.build()).send().await.expect("the store answers");
    let etag = done.e_tag().expect("an object has one").trim_matches('"').to_owned();
    (AnnouncedObject { bucket, key: key.to_owned(), etag, size, version_id: None }, next)
}

pub(crate) async fn put(world: &World, key: &str, body: Vec<u8>) -> AnnouncedObject {
    let (client, bucket, size) = (world.target("RAW").client(), world.raw_bucket.clone(), body.len() as u64);
    let put = client.put_object().bucket(&bucket).key(key).body(body.into()).send().await.expect("the store answers");
    let etag = put.e_tag().expect("an object has one").trim_matches('"').to_owned();
    AnnouncedObject { bucket, key: key.to_owned(), etag, size, version_id: None }
}

pub(crate) async fn announce(world: &World, object: &AnnouncedObject) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    let message = Envelope::AwsS3.wrap(object);
    let record: FutureRecord<'_, [u8], str> = FutureRecord::to(&world.notifications).payload(&message);
    producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
}

/// Transform and publish alone.
pub(crate) fn run(world: &World, own: &[(&str, &str)]) -> Running {
    let own: HashMap<String, String> =
        own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    world.run_with(&own, &["--role", "transform", "--role", "publish"])
}

/// One block is a chunk.
pub(crate) async fn world_of_small_chunks() -> World {
    let mut world = World::new(1).await;
    world.env.insert("SLUICE_LIMITS__CHUNK_BYTES".into(), "1MiB".into());
    world
}

/// Waits until everything announced is committed and published.
pub(crate) async fn wait_until_published(world: &World, messages: i64) {
    let sql = format!(
        "SELECT (EXISTS (SELECT FROM catalog.source_partition WHERE topic = '{}' AND next_offset >= {messages})
             AND NOT EXISTS (SELECT FROM catalog.file JOIN catalog.micro_batch b USING (micro_batch_id)
                              WHERE b.state = 'live' AND file.state = 'pending')
             AND NOT EXISTS (SELECT FROM catalog.file JOIN catalog.micro_batch b USING (micro_batch_id)
                              WHERE b.state = 'dead' AND file.state = 'published'))::int::bigint",
        world.notifications
    );
    wait_for("everything to be published", || async { count(world, &sql).await == 1 }).await;
}

async fn keys(world: &World, prefix: &str) -> Vec<String> {
    let endpoints = world.endpoints();
    let client = endpoints.lake.client();
    let mut pages = client.list_objects_v2().bucket(&endpoints.lake_bucket).prefix(prefix).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.expect("the lake answers");
        keys.extend(page.contents().iter().filter_map(|object| object.key().map(ToOwned::to_owned)));
    }
    keys
}

/// What a listing reader finds below a prefix, a few columns of it.
pub(crate) async fn read(world: &World, prefix: &str, columns: &[&str]) -> Vec<RecordBatch> {
    let endpoints = world.endpoints();
    let client = endpoints.lake.client();
    let mut batches = Vec::new();
    for key in keys(world, prefix).await {
        let body = client.get_object().bucket(&endpoints.lake_bucket).key(&key).send().await.expect("listed").body;
        let bytes: Bytes = body.collect().await.expect("whole").into_bytes();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet");
        let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
        batches.extend(reader.with_projection(mask).build().expect("Parquet").map(|batch| batch.expect("whole")));
    }
    batches
}

fn numbers(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let values = |batch: &RecordBatch| {
        batch.column_by_name(column).expect("a column").as_primitive::<Int64Type>().values().to_vec()
    };
    batches.iter().flat_map(values).collect()
}

/// That an object's rows stand in the lake, each once: by the numbers that rows have and by a sum over what they say.
async fn assert_rows_once(world: &World, offset: i64, rows: u64) {
    let data = read(world, "data/", &["_row", "_offset", "amount"]).await;
    let letters = read(world, "dead-letters/", &["_row", "_offset"]).await;
    let of_object = |batches: &[RecordBatch]| -> Vec<i64> {
        let offsets = numbers(batches, "_offset");
        numbers(batches, "_row").into_iter().zip(offsets).filter(|(_, at)| *at == offset).map(|(row, _)| row).collect()
    };
    let sorted = |mut rows: Vec<i64>| {
        rows.sort_unstable();
        rows
    };
    let wanted = |keep: &dyn Fn(u64) -> bool| (0..rows).filter(|row| keep(*row)).map(|row| row as i64).collect();
    let passed: Vec<i64> = wanted(&|row| !is_broken(row) && !is_refused(row));
    let rejected: Vec<i64> = wanted(&|row| is_broken(row) || is_refused(row));
    assert!(sorted(of_object(&data)) == passed, "rows of {rows} are lost or doubled");
    assert!(sorted(of_object(&letters)) == rejected, "rejects of {rows} rows are lost or doubled");
    let amount = |batch: &RecordBatch| {
        let offsets = batch.column_by_name("_offset").expect("lineage").as_primitive::<Int64Type>();
        let amounts = batch.column_by_name("amount").expect("a column").as_primitive::<Decimal128Type>();
        let here = offsets.iter().zip(amounts).filter(|(at, _)| *at == Some(offset));
        here.map(|(_, amount)| amount.expect("required")).sum::<i128>()
    };
    let expected: i128 = passed.iter().map(|row| i128::from(row % 1000) * 100 + 25).sum();
    assert_eq!(data.iter().map(amount).sum::<i128>(), expected);
}

fn peak_mib(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.expect("Linux counts it").parse::<u64>().expect("a number") >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_in_one_object_takes_bounded_memory_and_is_there_once_though_its_reader_was_killed() {
    let world = World::new(1).await;
    let (object, rows) = put_large(&world, "transactions/gibibyte.json", 1 << 30).await;
    assert!(object.size >= 1 << 30);
    announce(&world, &object).await;
    let mut peak = 0;
    for chunks in [3, 7] {
        let killed = run(&world, &[]);
        let recorded = "SELECT count(*) FROM catalog.object_chunk";
        wait_for("a few chunks", || async { count(&world, recorded).await >= chunks }).await;
        peak = peak.max(peak_mib(&killed));
        killed.kill();
        assert_eq!(count(&world, "SELECT count(*) FROM catalog.object_claim").await, 0, "it was killed amidst");
    }

    // a member that does not poll for so long is thrown out of its group
    let last = run(&world, &[("SLUICE_KAFKA__PROPERTIES__MAX_POLL_INTERVAL_MS", "6000")]);
    wait_until_published(&world, 1).await;
    peak = peak.max(peak_mib(&last));
    println!("peak resident size {peak} MiB");
    assert!(peak <= 512, "{peak} MiB for an object of 1 GiB");
    let address = last.telemetry().expect("it serves");
    let (_, metrics) = crate::dependencies::get(&address, "/metrics").await.expect("it serves");
    let lost = |line: &&str| line.contains("event=\"lost\"") || line.contains("event=\"revoke\"");
    let rebalances = metrics.lines().filter(|line| line.starts_with("sluice_rebalances_total"));
    assert!(
        !rebalances.clone().any(|line| lost(&line) && !line.ends_with(" 0")),
        "{:?}",
        rebalances.collect::<Vec<_>>()
    );
    let log = std::fs::read_to_string(&last.log).expect("it logs");
    assert_eq!(last.terminate(), Some(0), "{}", world.logs());
    let went_on = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|line| line["fields"]["stored_offset"].as_u64().or_else(|| line["stored_offset"].as_u64()));
    assert!(went_on.is_some_and(|offset| offset >= 7 * (64 << 20)), "it did not begin anew: {log}");
    // files of the chunk that was being put when a process was killed
    let left_behind = keys(&world, "_pending/").await;
    assert!(left_behind.len() <= 2 * 4, "{left_behind:?}");

    assert_rows_once(&world, 0, rows).await;
    world.assert_books_balance().await;
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.micro_batch").await, 1);
    assert_eq!(count(&world, "SELECT row_in_count FROM catalog.micro_batch").await, rows as i64);
    assert!(count(&world, "SELECT count(*) FROM catalog.file").await >= 16, "a file for each chunk");
}

fn signal(running: &Running, name: &str) {
    let sent = std::process::Command::new("kill").args([name, &running.pid().to_string()]).status();
    assert!(sent.expect("kill is there").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_freezes_amidst_a_large_object_takes_nothing_from_its_successor_when_it_wakes() {
    let world = world_of_small_chunks().await;
    let (object, rows) = put_large(&world, "transactions/frozen.json", 192 << 20).await;
    announce(&world, &object).await;
    let frozen = run(&world, &[]);
    let recorded = "SELECT count(*) FROM catalog.object_chunk";
    wait_for("a few chunks", || async { count(&world, recorded).await >= 3 }).await;
    signal(&frozen, "-STOP");
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.object_claim").await, 0, "it froze amidst");

    let second = run(&world, &[]);
    let left = count(&world, recorded).await;
    wait_for("its successor to go on", || async { count(&world, recorded).await > left }).await;
    signal(&frozen, "-CONT");
    wait_until_published(&world, 1).await;
    assert_eq!(frozen.terminate(), Some(0), "{}", world.logs());
    assert_eq!(second.terminate(), Some(0), "{}", world.logs());
    assert_rows_once(&world, 0, rows).await;
    world.assert_books_balance().await;
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.micro_batch WHERE state = 'live'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_whose_commit_its_owner_never_heard_of_belongs_to_the_next_one() {
    let world = world_of_small_chunks().await;
    let (object, rows) = put_large(&world, "transactions/unheard.json", 48 << 20).await;
    announce(&world, &object).await;
    let first = run(&world, &[("FAILPOINTS", "chunk.recorded=return(error)")]);
    let recorded = "SELECT count(*) FROM catalog.object_chunk";
    wait_for("a chunk", || async { count(&world, recorded).await == 1 }).await;
    signal(&first, "-STOP");

    // the answer is lost once: asked again, the catalog has it already. Then the first wakes, and gives the object up
    let points = "chunk.recorded=1*return(error);batch.all_put=1*return(linger:15000)";
    let second = run(&world, &[("FAILPOINTS", points)]);
    wait_for("its successor to have put all files", || async {
        std::fs::read_to_string(&second.log).is_ok_and(|log| log.contains("\"point\":\"batch.all_put\""))
    })
    .await;
    signal(&first, "-CONT");
    wait_until_published(&world, 1).await;
    let log = std::fs::read_to_string(&second.log).expect("it logs");
    assert!(log.contains("chunks of an object are there"), "it began anew");
    for running in [first, second] {
        assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    }
    assert_rows_once(&world, 0, rows).await;
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_among_small_ones_is_a_micro_batch_of_its_own_and_a_replay_makes_it_again() {
    let world = world_of_small_chunks().await;
    let small = put(&world, "transactions/small.json", lines(0, 100_000).0).await;
    let (large, rows) = put_large(&world, "transactions/large.json", 32 << 20).await;
    let last = put(&world, "transactions/last.json", lines(0, 200_000).0).await;
    for object in [&small, &large, &large, &last] {
        announce(&world, object).await;
    }
    let running = run(&world, &[]);
    wait_until_published(&world, 4).await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    let own = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'live' AND offsets = int8range(1, 2)";
    assert_eq!(count(&world, own).await, 1);
    assert_rows_once(&world, 1, rows).await;
    world.assert_books_balance().await;
    let objects = world.outcomes("objects").await;
    assert_eq!((objects.get("emitted"), objects.get("duplicate")), (Some(&3), Some(&1)), "{objects:?}");
    let chunks = "SELECT count(*) FROM catalog.file JOIN catalog.micro_batch b USING (micro_batch_id)
                   WHERE b.offsets = int8range(1, 2) AND file.kind = 'data'";
    assert!(count(&world, chunks).await >= 4, "a block of 8 MiB is a chunk");

    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let again = run(&world, &[]);
    let replaced = "SELECT count(*) FROM catalog.micro_batch WHERE state = 'dead' AND offsets @> 1::int8";
    wait_for("the replay", || async { count(&world, replaced).await == 1 }).await;
    wait_until_published(&world, 4).await;
    assert_eq!(again.terminate(), Some(0), "{}", world.logs());
    assert_rows_once(&world, 1, rows).await;
    world.assert_books_balance().await;

    // its rows stand, also where the object is gone
    let raw = world.target("RAW").client();
    raw.delete_object().bucket(&world.raw_bucket).key(&large.key).send().await.expect("the store answers");
    reset(&world, &world.notifications, &["--to-earliest"]).await;
    let carrying = run(&world, &[]);
    wait_for("the replay", || async { count(&world, replaced).await == 2 }).await;
    wait_until_published(&world, 4).await;
    assert_eq!(carrying.terminate(), Some(0), "{}", world.logs());
    assert_rows_once(&world, 1, rows).await;
    world.assert_books_balance().await;
    assert!(keys(&world, "_pending/").await.is_empty(), "published files leave nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_that_ends_early_is_quarantined_whole_and_leaves_no_file() {
    let world = world_of_small_chunks().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(&lines(0, 24 << 20).0).expect("memory takes it");
    let mut packed = encoder.finish().expect("memory takes it");
    packed.truncate(packed.len() - 5);
    let broken = put(&world, "transactions/broken.json.gz", packed.clone()).await;
    let good = put(&world, "transactions/good.json", lines(0, 50_000).0).await;
    announce(&world, &broken).await;
    announce(&world, &good).await;
    let running = run(&world, &[]);
    wait_until_published(&world, 2).await;
    wait_for("what its first chunks wrote to be deleted", || async { keys(&world, "_pending/").await.is_empty() })
        .await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.object_chunk").await, 0);
    let objects = world.outcomes("objects").await;
    assert_eq!((objects.get("emitted"), objects.get("quarantined")), (Some(&1), Some(&1)), "{objects:?}");
    world.assert_books_balance().await;
    let offsets = numbers(&read(&world, "data/", &["_offset"]).await, "_offset");
    assert!(!offsets.is_empty() && offsets.iter().all(|offset| *offset == 1), "nothing of it is there");
    let letters = read(&world, "dead-letters/", &["_offset", "reason", "detail", "bytes"]).await;
    let found = letters.iter().flat_map(|batch| {
        let at = numbers(std::slice::from_ref(batch), "_offset").into_iter().enumerate();
        at.filter(|(_, offset)| *offset == 0).map(move |(row, _)| batch.slice(row, 1))
    });
    let found: Vec<RecordBatch> = found.collect();
    assert_eq!(found.len(), 1);
    let text = |name: &str| found[0].column_by_name(name).expect("a column").as_string::<i32>().value(0).to_owned();
    assert_eq!(text("reason"), "corrupt_compression");
    assert!(text("detail").contains(&format!("of {} stored bytes are kept", packed.len())), "{}", text("detail"));
    let kept = found[0].column_by_name("bytes").expect("a column").as_binary::<i32>().value(0).to_vec();
    assert_eq!(kept, packed[..1 << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_its_last_chunk_parks_the_connector_and_nothing_of_the_object_is_kept() {
    let world = world_of_small_chunks().await;
    let path = world.folder.join("connectors/transactions.yaml");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let rule = "expectations:\n  - {name: never, expr: \"user_id <> 'nobody'\", on_fail: fail}\n";
    std::fs::write(&path, text.replacen("expectations:\n", rule, 1)).expect("the folder is ours");
    let (mut body, rows) = lines(0, 24 << 20);
    let last = body.len() - 1 - body[..body.len() - 1].iter().rev().position(|byte| *byte == b'\n').expect("lines");
    let stop = String::from_utf8(body.split_off(last)).expect("text").replace("\"u1\"", "\"nobody\"");
    assert!(stop.contains("nobody"), "{stop}");
    body.extend(stop.bytes());
    let object = put(&world, "transactions/stops.json", body).await;
    announce(&world, &object).await;
    let running = run(&world, &[]);
    wait_until_published(&world, 1).await;
    wait_for("what its first chunks wrote to be deleted", || async { keys(&world, "_pending/").await.is_empty() })
        .await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    assert_eq!(world.outcomes("objects").await.get("parked"), Some(&1));
    assert!(keys(&world, "data/").await.is_empty());

    std::fs::write(&path, text).expect("the folder is ours");
    let resumed = world.sluice(&["connectors", "resume", "transactions"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let running = run(&world, &[]);
    wait_until_published(&world, 2).await;
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
    assert_rows_once(&world, 1, rows).await;
    world.assert_books_balance().await;
}
