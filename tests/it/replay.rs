//! Replays by Kafka's own tool: the output of the range is replaced, never doubled.

mod compare;
mod edges;
mod guards;
mod lake;
mod lake_histories;
mod listing;
mod matrix;
mod plan;
mod reload;
mod speed;

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};
use sluice_loadtest::{ProducePlan, Target, produce};

pub(crate) use self::compare::published;
use crate::stack::{World, wait_for};

/// Moves the group as an operator does, as soon as nobody is in it. `topic`: `name`, or `name:0`.
pub(crate) async fn reset(world: &World, topic: &str, to: &[&str]) {
    wait_for("the group to be empty and moved", || async {
        let mut args = vec!["groups", "--group", &world.name, "--topic", topic, "--reset-offsets", "--execute"];
        args.extend(to);
        let output = world.stack.kafka_output(&args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        output.status.success() && !said.contains("Error")
    })
    .await;
}

pub(crate) async fn run_until_settled(world: &World) {
    let running = world.run();
    world.settle();
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}

/// Of the notification topic, by number of the topic partition: where the catalog stands.
async fn positions(world: &World) -> Vec<i64> {
    let sql = "SELECT next_offset FROM catalog.source_partition WHERE topic = $1 ORDER BY topic_partition";
    let rows = world.catalog().await.query(sql, &[&world.notifications]).await.expect("the catalog answers");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Puts objects and announces them on these topic partitions in turn.
async fn produce_onto(world: &World, plan: ProducePlan, topic_partitions: &[i32]) {
    let aside = format!("{}-aside-{}", world.name, plan.seed);
    world.make_topic(&aside, 1).await;
    let plan = ProducePlan { target: Target::S3 { announced_on: aside.clone() }, ..plan };
    let report = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    let messages = read_all(world, &aside, report.objects as usize);
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for (number, payload) in messages.iter().enumerate() {
        let to = topic_partitions[number % topic_partitions.len()];
        let record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&world.notifications).partition(to).payload(payload);
        producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
    }
}

fn read_all(world: &World, topic: &str, count: usize) -> Vec<Vec<u8>> {
    let mut config = world.kafka_config();
    config.set("group.id", format!("{topic}-reader"));
    let consumer: BaseConsumer = config.create().expect("a valid configuration");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&list).expect("the topic exists");
    let mut messages = Vec::new();
    while messages.len() < count {
        let message = consumer.poll(Duration::from_secs(20)).expect("messages are there").expect("the broker answers");
        messages.push(message.payload().expect("announcements have text").to_vec());
    }
    messages
}

/// SQL against the catalog, for one number.
pub(crate) async fn count(world: &World, sql: &str) -> i64 {
    world.catalog().await.query_one(sql, &[]).await.expect("the catalog answers").get(0)
}

/// The last digits of the ids of the events that a listing reader finds below `data/`, sorted.
pub(crate) async fn published_events(world: &World) -> Vec<u32> {
    use arrow::array::AsArray;
    let mut found = Vec::new();
    for (_, bytes) in published(world).await {
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet");
        for batch in reader.build().expect("Parquet") {
            let batch = batch.expect("whole");
            let ids = batch.column_by_name("event_id").expect("events have ids").as_string::<i32>();
            found.extend(ids.iter().flatten().map(|id| id[id.len() - 12..].parse::<u32>().expect("digits")));
        }
    }
    found.sort_unstable();
    found
}
