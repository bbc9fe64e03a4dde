//! Notifications as real servers sent them: recorded documents, pointed at real objects, go the whole way.

use std::time::Duration;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sluice_loadtest::announce::{AnnouncedObject, form_encode};
use sluice_loadtest::{ProducePlan, Target, produce};

use crate::stack::World;

/// Names of awkward keys: each recorded creation is tried with every one.
const KEYS: usize = 6;

fn recorded(store: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/notifications/{store}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the fixture is part of the repository");
    text.lines().map(|line| serde_json::from_str(line).expect("fixtures are JSON")).collect()
}

fn event_name(document: &Value) -> &str {
    document["Records"][0]["eventName"].as_str().or(document["Event"].as_str()).expect("every document has one")
}

/// The document with another object in it. Bucket and key are exchanged wherever they stand, in the spelling that
/// they were recorded in; ETag, size and version where the store told them. Everything else stays as recorded.
fn pointed_at(document: &Value, object: &AnnouncedObject) -> Value {
    let mut document = document.clone();
    let record = &mut document["Records"][0];
    let is_encoded = record["eventSource"] == "minio:s3";
    let key_of = |key: &str| if is_encoded { form_encode(key, false) } else { key.to_owned() };
    let s3 = &mut record["s3"];
    let old = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (old_bucket, old_key, old_arn) =
        (old(&s3["bucket"]["name"]), old(&s3["object"]["key"]), old(&s3["bucket"]["arn"]));
    let arn = match old_arn.strip_suffix(&format!("/{old_bucket}/{old_key}")) {
        Some(start) => format!("{start}/{}/{}", object.bucket, object.key),
        None => old_arn.replace(&old_bucket, &object.bucket),
    };
    s3["bucket"]["name"] = json!(object.bucket);
    s3["bucket"]["arn"] = json!(arn);
    s3["object"]["key"] = json!(key_of(&object.key));
    let etag = s3["object"]["eTag"].as_str().map(|etag| etag.starts_with('"'));
    if let Some(is_quoted) = etag {
        s3["object"]["eTag"] = json!(if is_quoted { format!("\"{}\"", object.etag) } else { object.etag.clone() });
    }
    if s3["object"]["size"].as_u64().is_some_and(|size| size > 0) {
        s3["object"]["size"] = json!(object.size);
    }
    if s3["object"]["versionId"].as_str().is_some_and(|version| !version.is_empty()) {
        s3["object"]["versionId"] = json!(object.version_id.as_ref().expect("the bucket keeps versions"));
    }
    if document.get("Key").is_some() {
        document["Key"] = json!(format!("{}/{}", object.bucket, object.key));
    }
    document
}

/// A bucket that keeps versions: what a store tells as a version can be told for real objects.
async fn keep_versions(world: &World) {
    let versioning = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let client = world.target("RAW").client();
    let enabled = client.put_bucket_versioning().bucket(&world.raw_bucket).versioning_configuration(versioning).send();
    enabled.await.expect("the store keeps versions");
}

/// As the stores do: MinIO gives `bucket/key` as the message's key, versitygw none.
async fn send(world: &World, producer: &FutureProducer, document: &Value) {
    let (payload, key) = (document.to_string(), document.get("Key").and_then(Value::as_str));
    let mut record: FutureRecord<'_, str, str> = FutureRecord::to(&world.notifications).payload(&payload);
    if let Some(key) = key {
        record = record.key(key);
    }
    producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_notifications_of_every_store_and_kind_bring_their_objects_once() {
    let world = World::new(2).await;
    keep_versions(&world).await;
    let documents: Vec<Value> = ["versitygw", "minio"].into_iter().flat_map(recorded).collect();
    let of = |what: &str| documents.iter().filter(|document| event_name(document).contains(what)).collect::<Vec<_>>();
    let (created, removed, tests) = (of("ObjectCreated:"), of("ObjectRemoved:"), of("TestEvent"));
    assert_eq!((created.len(), removed.len(), tests.len()), (8, 3, 1));
    for kind in [":Put", ":Copy", ":CompleteMultipartUpload"] {
        assert!(created.iter().any(|document| event_name(document).ends_with(kind)), "{kind}");
    }
    let plan = ProducePlan {
        rows: (created.len() * KEYS * 25) as u64,
        rows_per_object: 25,
        awkward_keys: true,
        // where the gateway announces everything by itself; this world does not read it
        target: Target::S3 { announced_on: "raw-notifications".into() },
        announce_wait: Duration::from_secs(20),
        ..crate::pipeline::plan(&world)
    };
    let mut objects = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer").announced;
    // by their number: six keys after each other are the six awkward ones
    objects.sort_by_key(|object| object.key.rsplit_once('-').map(|(_, number)| number.to_owned()));
    assert_eq!(objects.len(), created.len() * KEYS);

    let _running = world.run();
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for _ in 0..2 {
        for (document, objects) in created.iter().zip(objects.chunks(KEYS)) {
            for object in objects {
                send(&world, &producer, &pointed_at(document, object)).await;
            }
        }
        for document in &removed {
            send(&world, &producer, &pointed_at(document, &objects[0])).await;
        }
        send(&world, &producer, tests[0]).await;
    }
    world.settle();
    world.assert_verified().await;
    world.assert_books_balance().await;
    let (offsets, seen) = (world.outcomes("offsets").await, world.outcomes("objects").await);
    let count = objects.len() as i64;
    assert_eq!((seen["emitted"], seen["duplicate"], seen["filtered"]), (count, count, 6), "{seen:?}");
    assert_eq!((offsets["decoded"], offsets["ignored"]), (2 * (count + 3), 2), "{offsets:?}");
    assert_eq!((seen.len(), offsets.len()), (3, 2), "nothing else: {seen:?} {offsets:?}");
}
