//! One key written again and again, announced in and out of order, with and without version ids, on two topic
//! partitions: each version once, a true duplicate never twice.

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sluice_loadtest::announce::{AnnouncedObject, Envelope};

use crate::stack::{World, wait_for};

const KEY: &str = "users/again.json";

fn user(id: &str) -> String {
    format!("{{\"user_id\":\"{id}\",\"updated_at\":\"2026-11-20T10:00:00Z\"}}\n")
}

async fn put(world: &World, body: &str) -> AnnouncedObject {
    let client = world.target("RAW").client();
    let written =
        client.put_object().bucket(&world.raw_bucket).key(KEY).body(body.as_bytes().to_vec().into()).send().await;
    let written = written.expect("the store answers");
    AnnouncedObject {
        bucket: world.raw_bucket.clone(),
        key: KEY.into(),
        etag: written.e_tag().expect("a PUT has an ETag").trim_matches('"').to_owned(),
        size: body.len() as u64,
        version_id: written.version_id().map(ToOwned::to_owned),
    }
}

/// Sends each announcement to the topic partition given with it, in this order.
async fn announce(world: &World, announcements: &[(i32, AnnouncedObject)]) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for (partition, object) in announcements {
        let payload = Envelope::AwsS3.wrap(object);
        let record: FutureRecord<'_, str, str> =
            FutureRecord::to(&world.notifications).partition(*partition).payload(&payload);
        producer.send(record, std::time::Duration::from_secs(10)).await.expect("the broker answers");
    }
}

fn without_version(object: &AnnouncedObject) -> AnnouncedObject {
    AnnouncedObject { version_id: None, ..object.clone() }
}

async fn claimed_versions(world: &World) -> i64 {
    let row = world.catalog().await.query_one("SELECT count(*) FROM catalog.object_claim", &[]).await;
    row.expect("the catalog answers").get(0)
}

async fn rows_read(world: &World) -> i64 {
    let row = world
        .catalog()
        .await
        .query_one("SELECT coalesce(sum(row_in_count), 0)::bigint FROM catalog.micro_batch", &[])
        .await;
    row.expect("the catalog answers").get(0)
}

async fn versioned() -> World {
    let world = World::new(2).await;
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let client = world.target("RAW").client();
    let put = client.put_bucket_versioning().bucket(&world.raw_bucket).versioning_configuration(enabled).send().await;
    put.expect("the gateway keeps versions");
    world
}

async fn three_versions(world: &World) -> [AnnouncedObject; 3] {
    [put(world, &user("a")).await, put(world, &user("b")).await, put(world, &user("a")).await]
}

async fn assert_each_once(world: &World, expected: i64, announcements: i64) {
    world.settle();
    assert_eq!(claimed_versions(world).await, expected);
    assert_eq!(rows_read(world).await, expected, "one row an object");
    let outcomes = world.outcomes("objects").await;
    assert_eq!(outcomes.values().sum::<i64>(), announcements, "{outcomes:?}");
    assert_eq!(outcomes.get("emitted"), Some(&expected), "{outcomes:?}");
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_without_ids_out_of_order_on_two_topic_partitions_come_once_each() {
    let world = versioned().await;
    let [first, second, third] = three_versions(&world).await.map(|object| without_version(&object));
    let all = [(0, third.clone()), (1, first.clone()), (1, second.clone()), (0, first), (1, third), (0, second)];
    announce(&world, &all).await;
    let _running = world.run();
    assert_each_once(&world, 3, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_with_ids_come_once_each_in_any_order() {
    let world = versioned().await;
    let [first, second, third] = three_versions(&world).await;
    let all = [(1, third.clone()), (0, second.clone()), (0, third), (1, first.clone()), (0, first), (1, second)];
    announce(&world, &all).await;
    let _running = world.run();
    assert_each_once(&world, 3, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_versions_what_was_overwritten_is_stale_and_the_rest_comes_once() {
    let world = World::new(2).await;
    let [first, second, third] = three_versions(&world).await;
    announce(&world, &[(0, first), (1, second), (1, third.clone()), (0, third)]).await;
    let _running = world.run();
    // only the newest content is left to read
    assert_each_once(&world, 1, 4).await;
    let outcomes = world.outcomes("objects").await;
    assert_eq!((outcomes.get("stale"), outcomes.get("duplicate")), (Some(&1), Some(&2)), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_versions_each_content_comes_when_it_is_read_in_time() {
    let world = World::new(2).await;
    let _running = world.run();
    let mut last_modified = None;
    for (count, (id, partition)) in [("a", 0), ("b", 1), ("a", 0)].into_iter().enumerate() {
        // the store's clock has whole seconds: a version is told from the one before by it
        wait_for("the store's clock to move on", || {
            let (world, last) = (&world, last_modified);
            async move {
                put(world, &user("clock")).await;
                modified(world).await != last
            }
        })
        .await;
        let object = put(&world, &user(id)).await;
        last_modified = modified(&world).await;
        announce(&world, &[(partition, object.clone()), (1 - partition, object)]).await;
        let expected = count as i64 + 1;
        wait_for("the version to be committed", || async { claimed_versions(&world).await == expected }).await;
    }
    assert_each_once(&world, 3, 6).await;
}

async fn modified(world: &World) -> Option<i64> {
    let head = world.target("RAW").client().head_object().bucket(&world.raw_bucket).key(KEY).send().await;
    head.ok().and_then(|head| head.last_modified().map(aws_sdk_s3::primitives::DateTime::secs))
}
