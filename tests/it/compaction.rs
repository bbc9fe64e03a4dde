//! A compacted topic of notifications: a broker that keeps only the newest message of a key leaves holes in the log.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};
use sluice_loadtest::announce::{AnnouncedObject, Envelope};
use sluice_loadtest::{Dataset, ProducePlan, Target, produce};

use crate::stack::{World, wait_for};

/// Between the times of two messages: longer than `segment.ms`, so that each opens a segment.
const STEP_MS: i64 = 10_000;

/// A world whose notifications are compacted, and what was sent to it.
struct Compacted {
    world: World,
    producer: FutureProducer,
    /// Keys by offset.
    sent: Vec<String>,
    first_ms: i64,
}

impl Compacted {
    async fn new() -> Self {
        let world = World::new(1).await;
        let config = "cleanup.policy=compact,segment.ms=1000,min.cleanable.dirty.ratio=0.01";
        let topic = world.notifications.as_str();
        let args = ["configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", config];
        world.stack.kafka(&args);
        let producer = world.kafka_config().create().expect("a valid configuration");
        // in the past: brokers refuse times of the future
        let first_ms = chrono::Utc::now().timestamp_millis() - 100 * STEP_MS;
        Self { world, producer, sent: Vec::new(), first_ms }
    }

    /// Real objects, announced by nobody on the topic of this world.
    async fn objects(&self, seed: u64, count: u64) -> Vec<AnnouncedObject> {
        let world = &self.world;
        let plan = ProducePlan {
            seed,
            key_prefix: format!("{}/{seed}", world.name),
            rows: count * 50,
            rows_per_object: 50,
            datasets: vec![Dataset::Transactions, Dataset::Users],
            // where the gateway announces everything by itself
            target: Target::S3 { announced_on: "raw-notifications".into() },
            announce_wait: Duration::from_secs(20),
            ..crate::pipeline::plan(world)
        };
        let report = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
        let mut objects = report.announced;
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        objects
    }

    async fn announce(&mut self, object: &AnnouncedObject) {
        let (payload, key) = (Envelope::AwsS3.wrap(object), format!("{}/{}", object.bucket, object.key));
        let record = FutureRecord::to(&self.world.notifications)
            .partition(0)
            .key(&key)
            .payload(&payload)
            .timestamp(self.first_ms + self.sent.len() as i64 * STEP_MS);
        let sent = self.producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
        assert_eq!(sent.offset, self.sent.len() as i64);
        self.sent.push(key);
    }

    /// Offsets that keep a message: the last of each key, and the newest segment's only one, to which the broker
    /// does not look yet.
    fn survivors(&self) -> Vec<i64> {
        let newest = self.sent.len() - 1;
        let last: HashMap<&String, usize> =
            self.sent[..newest].iter().enumerate().map(|(offset, key)| (key, offset)).collect();
        let mut offsets: Vec<i64> = last.into_values().chain([newest]).map(|offset| offset as i64).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Waits until a reader of the topic is given the survivors only.
    async fn wait_for_compaction(&self) {
        let survivors = self.survivors();
        wait_for("the broker to compact the topic", || async { self.offsets_in_log().await == survivors }).await;
    }

    async fn offsets_in_log(&self) -> Vec<i64> {
        let (topic, end, mut config) = (self.world.notifications.clone(), self.sent.len(), self.world.kafka_config());
        config.set("group.id", format!("{topic}-looks")).set("enable.auto.commit", "false");
        let read = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.create().expect("a valid configuration");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, 0, Offset::Beginning).expect("a valid offset");
            consumer.assign(&list).expect("assigned");
            let mut offsets = Vec::new();
            // the last message is in the newest segment and always there
            while offsets.last() != Some(&(end as i64 - 1)) {
                let message =
                    consumer.poll(Duration::from_secs(20)).expect("the last message").expect("the broker answers");
                offsets.push(message.offset());
            }
            offsets
        });
        read.await.expect("no panic")
    }

    async fn run_until_settled(&self) {
        let running = self.world.run();
        self.world.settle();
        assert_eq!(running.terminate(), Some(0), "{}", self.world.logs());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_compaction_took_are_absent_and_what_stayed_announced_arrives_once() {
    let mut topic = Compacted::new().await;
    let objects = topic.objects(1, 10).await;
    // gone: the very first offset, a single one and a run in the middle
    for index in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 3, 5, 6, 7, 9] {
        topic.announce(&objects[index]).await;
    }
    assert_eq!(topic.survivors(), [1, 2, 4, 8, 9, 10, 11, 12, 13, 14, 15]);
    topic.wait_for_compaction().await;
    topic.run_until_settled().await;
    let (offsets, seen) = (topic.world.outcomes("offsets").await, topic.world.outcomes("objects").await);
    assert_eq!((offsets["decoded"], offsets["absent"]), (11, 5), "{offsets:?}");
    assert_eq!((seen["emitted"], seen["duplicate"]), (10, 1), "{seen:?}");
    topic.world.assert_verified().await;

    // gone: the message before the position, the first one behind it, and one further on
    let more = topic.objects(2, 1).await;
    for object in [&objects[9], &objects[9], &more[0], &objects[1], &more[0], &more[0]] {
        topic.announce(object).await;
    }
    assert!(topic.survivors().ends_with(&[14, 17, 19, 20, 21]));
    topic.wait_for_compaction().await;
    topic.run_until_settled().await;
    let (offsets, seen) = (topic.world.outcomes("offsets").await, topic.world.outcomes("objects").await);
    assert_eq!((offsets["decoded"], offsets["absent"]), (15, 7), "{offsets:?}");
    assert_eq!((seen["emitted"], seen["duplicate"]), (11, 4), "{seen:?}");
    topic.world.assert_verified().await;
    topic.world.assert_books_balance().await;
}
