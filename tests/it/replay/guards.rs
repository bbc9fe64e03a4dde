//! The attack on the guard of an operator's order; `tests/it/guards/mutants.rs` takes it away.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::{count, reset, run_until_settled};
use crate::stack::{World, wait_for};

async fn send_events(world: &World) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for number in 0..5 {
        let payload = format!(
            "{{\"event_id\":\"00000000-0000-4000-8000-{number:012}\",\"event_type\":\"view\",\"occurred_at\":\"2026-11-20T10:00:00Z\"}}"
        );
        let record: FutureRecord<'_, str, str> = FutureRecord::to(&world.records).partition(0).payload(&payload);
        producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
    }
}

/// The group's offset and its tag.
fn committed(world: &World) -> (Offset, String) {
    let mut config = world.kafka_config();
    config.set("group.id", &world.name);
    let consumer: BaseConsumer = config.create().expect("a valid configuration");
    let mut list = TopicPartitionList::new();
    list.add_partition(&world.records, 0);
    let found = consumer.committed_offsets(list, Duration::from_secs(10)).expect("the group answers");
    let element = found.find_partition(&world.records, 0).expect("asked for");
    (element.offset(), element.metadata().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_acknowledged_before_anything_is_read_again() {
    let world = World::new(1).await;
    send_events(&world).await;
    run_until_settled(&world).await;
    reset(&world, &world.records, &["--to-earliest"]).await;
    assert_eq!(committed(&world), (Offset::Offset(0), String::new()));

    let dies = HashMap::from([("FAILPOINTS".to_owned(), "batch.objects_read=return(abort)".to_owned())]);
    let mut running = world.run_with(&dies, &[]);
    let mut ended = false;
    wait_for("the process to die in the replay", || {
        ended = ended || running.ended().is_some();
        async move { ended }
    })
    .await;
    let (offset, tag) = committed(&world);
    assert!(offset == Offset::Offset(0) && tag.starts_with("v1;cat="), "{offset:?} {tag}: it would be a new order");
    run_until_settled(&world).await;
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.replay").await, 1, "one order, carried out once");
    assert_eq!(count(&world, "SELECT count(*) FROM catalog.replay WHERE ended_as = 'finished'").await, 1);
    world.assert_books_balance().await;
}
