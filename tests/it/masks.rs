//! An object written twice: whose rows stand, in the lake and in the warehouse, whatever order they come in.

use arrow::array::RecordBatch;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sha2::{Digest, Sha256};
use sluice_loadtest::announce::{AnnouncedObject, Envelope};

use crate::replay::{published_events, reset};
use crate::stack::{World, wait_for};

const KEY: &str = "events/again.json";

fn events(ids: &[u32]) -> String {
    let event = |id: &u32| {
        format!(
            "{{\"event_id\":\"00000000-0000-4000-8000-{id:012}\",\"event_type\":\"view\",\"occurred_at\":\"2026-11-20T10:00:00Z\"}}\n"
        )
    };
    ids.iter().map(event).collect()
}

/// A bucket that keeps versions; object `KEY` is written twice, in different seconds of the store's clock, and a
/// neighbour once.
pub(crate) async fn written_twice() -> (World, [AnnouncedObject; 3]) {
    let world = World::new(2).await;
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let client = world.target("RAW").client();
    let put = client.put_bucket_versioning().bucket(&world.raw_bucket).versioning_configuration(enabled).send().await;
    put.expect("the gateway keeps versions");
    let older = put_object(&world, KEY, &[1, 2]).await;
    let neighbour = put_object(&world, "events/neighbour.json", &[7]).await;
    let seconds = || async {
        let head = client.head_object().bucket(&world.raw_bucket).key("events/clock.json").send().await;
        head.ok().and_then(|head| head.last_modified().map(aws_sdk_s3::primitives::DateTime::secs))
    };
    put_object(&world, "events/clock.json", &[]).await;
    let then = seconds().await;
    wait_for("the store's clock to move on", || async {
        put_object(&world, "events/clock.json", &[]).await;
        seconds().await != then
    })
    .await;
    let newer = put_object(&world, KEY, &[2, 3, 4]).await;
    (world, [older, newer, neighbour])
}

async fn put_object(world: &World, key: &str, ids: &[u32]) -> AnnouncedObject {
    put_body(world, key, events(ids)).await
}

async fn put_body(world: &World, key: &str, body: String) -> AnnouncedObject {
    let client = world.target("RAW").client();
    let put = client.put_object().bucket(&world.raw_bucket).key(key).body(body.clone().into_bytes().into());
    let written = put.send().await.expect("the store answers");
    AnnouncedObject {
        bucket: world.raw_bucket.clone(),
        key: key.into(),
        etag: written.e_tag().expect("a PUT has an ETag").trim_matches('"').to_owned(),
        size: body.len() as u64,
        version_id: written.version_id().map(ToOwned::to_owned),
    }
}

pub(crate) async fn announce(world: &World, topic_partition: i32, objects: &[&AnnouncedObject]) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for object in objects {
        let payload = Envelope::AwsS3.wrap(object);
        let record: FutureRecord<'_, str, str> =
            FutureRecord::to(&world.notifications).partition(topic_partition).payload(&payload);
        producer.send(record, std::time::Duration::from_secs(10)).await.expect("the broker answers");
    }
}

/// The last digits of the events in the warehouse, in what a listing reader finds, and by the catalog's view.
async fn assert_stand(world: &World, expected: &[u32]) {
    let sql = "SELECT right(event_id::text, 12)::int FROM warehouse.fact_events ORDER BY 1";
    let rows = world.warehouse().await.query(sql, &[]).await.expect("the warehouse answers");
    let loaded: Vec<u32> = rows.iter().map(|row| row.get::<_, i32>(0).unsigned_abs()).collect();
    assert_eq!(loaded, expected, "warehouse\n{}", world.logs());
    assert_eq!(published_events(world).await, expected, "lake\n{}", world.logs());
    let sql = "SELECT coalesce(sum(row_count), 0)::bigint, bool_or(has_masks) FROM lake.files WHERE kind = 'data'";
    let row = world.catalog().await.query_one(sql, &[]).await.expect("the catalog answers");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, Option<bool>>(1)), (expected.len() as i64, Some(false)));
    world.assert_books_balance().await;
}

async fn run_until_settled(world: &World) {
    let running = world.run();
    world.settle();
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_stands_in_whatever_order_and_after_a_replay() {
    for newer_first in [false, true] {
        let (world, [older, newer, neighbour]) = written_twice().await;
        let (first, second) = if newer_first { (&newer, &older) } else { (&older, &newer) };
        announce(&world, 0, &[first, &neighbour]).await;
        run_until_settled(&world).await;
        announce(&world, 1, &[second]).await;
        run_until_settled(&world).await;
        assert_stand(&world, &[2, 3, 4, 7]).await;
        // both are claimed again, in another order perhaps: masks are made again with them
        reset(&world, &world.notifications, &["--to-earliest"]).await;
        run_until_settled(&world).await;
        assert_stand(&world, &[2, 3, 4, 7]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_keeps_every_version_and_reject_the_oldest() {
    for (policy, expected) in [("append", vec![1, 2, 2, 3, 4, 7]), ("reject", vec![1, 2, 7])] {
        let (world, [older, newer, neighbour]) = written_twice().await;
        world.edit_connectors(|text| text.replace("format: json\n", &format!("format: json\n  overwrite: {policy}\n")));
        world.without_connector("direct-events");
        announce(&world, 0, &[&newer, &neighbour]).await;
        announce(&world, 1, &[&older]).await;
        run_until_settled(&world).await;
        assert_eq!(published_events(&world).await, expected, "{policy}\n{}", world.logs());
    }
}

/// A row must not win over the same row of an object whose other version hides it.
#[tokio::test(flavor = "multi_thread")]
async fn versions_within_one_micro_batch_do_not_take_rows_from_each_other() {
    for (policy, expected) in
        [("append", vec![1, 2, 3, 4, 7]), ("replace", vec![2, 3, 4, 7]), ("reject", vec![1, 2, 7])]
    {
        let (world, [older, newer, neighbour]) = written_twice().await;
        world.edit_connectors(|text| text.replace("format: json\n", &format!("format: json\n  overwrite: {policy}\n")));
        world.without_connector("direct-events");
        announce(&world, 0, &[&newer, &neighbour, &older]).await;
        run_until_settled(&world).await;
        assert_eq!(published_events(&world).await, expected, "{policy}\n{}", world.logs());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_when_the_version_that_masked_them_is_no_longer_emitted() {
    let (mut world, [older, newer, neighbour]) = written_twice().await;
    announce(&world, 0, &[&older, &neighbour]).await;
    announce(&world, 1, &[&newer]).await;
    run_until_settled(&world).await;
    assert_stand(&world, &[2, 3, 4, 7]).await;
    // the newer version is larger: read again, it is quarantined and outranks nothing
    let limit = (newer.size - 1).to_string();
    for limit_of in ["SLUICE_LIMITS__OBJECT_BYTES_MAX", "SLUICE_LIMITS__RECORD_BYTES_MAX"] {
        world.env.insert(limit_of.into(), limit.clone());
    }
    reset(&world, &format!("{}:1", world.notifications), &["--to-earliest"]).await;
    run_until_settled(&world).await;
    assert_stand(&world, &[1, 2, 7]).await;
}

/// Two files of one micro-batch become one, in another folder, as somebody might do with the catalog at hand.
async fn compact_by_hand(world: &World) {
    let found = crate::replay::published(world).await;
    assert_eq!(found.len(), 2, "one for each hour");
    let batches: Vec<RecordBatch> = found
        .iter()
        .flat_map(|(_, bytes)| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).expect("Parquet");
            reader.build().expect("Parquet").map(|batch| batch.expect("whole")).collect::<Vec<_>>()
        })
        .collect();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).expect("a schema");
    // in another order than any writer of ours would choose
    for batch in batches.iter().rev() {
        writer.write(batch).expect("the same schema");
    }
    writer.close().expect("memory takes it");
    let (endpoints, file_id) = (world.endpoints(), uuid::Uuid::new_v4());
    let (folder, _) = found[0].0.split_once("/hour=").expect("events lie by hour");
    let key = format!("{folder}/compacted-{file_id}.parquet");
    let (size, sha256) = (bytes.len() as i64, Sha256::digest(&bytes).to_vec());
    let lake = endpoints.lake.client();
    let put = lake.put_object().bucket(&endpoints.lake_bucket).key(&key).body(bytes.into()).send().await;
    put.expect("the lake answers");
    let mut catalog = world.catalog().await;
    let swap = catalog.transaction().await.expect("the catalog answers");
    let inserted = swap
        .execute(
            "INSERT INTO catalog.file (file_id, micro_batch_id, kind, dataset, connector, connector_revision, schema_revision,
                 table_partition, pending_key, published_key, state, row_count, size_bytes, sha256, published_at)
             SELECT $1, micro_batch_id, kind, dataset, connector, connector_revision, schema_revision,
                 'by-hand', $2 || '-pending', $2, 'published', $3, $4, $5, now()
               FROM catalog.file WHERE state = 'published' AND kind = 'data' LIMIT 1",
            &[&file_id, &key, &(rows as i64), &size, &sha256],
        )
        .await;
    assert_eq!(inserted.expect("a file like the others"), 1);
    let hidden = "UPDATE catalog.file SET state = 'hidden' WHERE kind = 'data' AND file_id <> $1";
    assert_eq!(swap.execute(hidden, &[&file_id]).await.expect("the catalog answers"), 2);
    swap.commit().await.expect("the catalog answers");
    for (key, _) in &found {
        let deleted = lake.delete_object().bucket(&endpoints.lake_bucket).key(key).send().await;
        deleted.expect("the lake answers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_compacted_by_hand_are_masked_and_replayed_like_any_other() {
    let (world, [older, newer, _]) = written_twice().await;
    let another_hour = put_body(&world, "events/eleven.json", events(&[7]).replace("T10:", "T11:")).await;
    announce(&world, 0, &[&older, &another_hour]).await;
    run_until_settled(&world).await;
    compact_by_hand(&world).await;
    assert_stand(&world, &[1, 2, 7]).await;
    announce(&world, 1, &[&newer]).await;
    run_until_settled(&world).await;
    assert_stand(&world, &[2, 3, 4, 7]).await;
    // once over what masks, once over what is masked, once over both
    for topic_partition in [":1", ":0", ""] {
        reset(&world, &format!("{}{topic_partition}", world.notifications), &["--to-earliest"]).await;
        run_until_settled(&world).await;
        assert_stand(&world, &[2, 3, 4, 7]).await;
    }
    let keys = crate::replay::published(&world).await;
    assert!(!keys.iter().any(|(key, _)| key.contains("compacted-")), "the replay has its own files");
}
