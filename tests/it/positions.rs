//! Where a topic partition starts, on a real broker: resets, expired offsets, recreated and truncated topics.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::stack::{World, wait_for};

fn event(number: u32) -> String {
    format!(
        "{{\"event_id\":\"00000000-0000-4000-8000-{number:012}\",\"event_type\":\"view\",\"occurred_at\":\"2026-11-20T10:00:00Z\"}}"
    )
}

async fn send(world: &World, numbers: std::ops::Range<u32>) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    for number in numbers {
        let payload = event(number);
        let record: FutureRecord<'_, str, str> = FutureRecord::to(&world.records).partition(0).payload(&payload);
        producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
    }
}

async fn send_at_once(world: &World, numbers: std::ops::Range<u32>) {
    let producer: FutureProducer = world.kafka_config().create().expect("a valid configuration");
    let sends = numbers.map(|number| {
        let (producer, payload) = (producer.clone(), event(number));
        async move {
            let record: FutureRecord<'_, str, str> = FutureRecord::to(&world.records).partition(0).payload(&payload);
            producer.send(record, Duration::from_secs(30)).await.expect("the broker answers")
        }
    });
    futures::future::join_all(sends).await;
}

/// Moves the group as an operator does: without a tag, as soon as nobody is in it.
async fn reset(world: &World, offset: i64) {
    crate::replay::reset(world, &format!("{}:0", world.records), &["--to-offset", &offset.to_string()]).await;
}

async fn run_until_settled(world: &World) {
    let running = world.run();
    world.settle();
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}

async fn events(world: &World) -> i64 {
    let row = world.warehouse().await.query_one("SELECT count(*) FROM warehouse.fact_events", &[]).await;
    row.expect("the warehouse answers").get(0)
}

/// Offsets that are skipped now.
async fn live_skipped(world: &World) -> i64 {
    let sql = "SELECT coalesce(sum(upper(offsets) - lower(offsets)), 0)::bigint FROM catalog.micro_batch WHERE state = 'skipped'";
    world.catalog().await.query_one(sql, &[]).await.expect("the catalog answers").get(0)
}

/// The reason why topic partition 0 stands still.
async fn halted(world: &World) -> String {
    let running = world.run();
    let found = halted_reason(world).await;
    assert_eq!(running.terminate(), Some(0));
    found
}

/// The same of processes that run.
async fn halted_reason(world: &World) -> String {
    let reason = || async {
        let catalog = world.catalog().await;
        let row = catalog
            .query_opt(
                "SELECT halted_reason FROM catalog.source_partition WHERE topic = $1 AND topic_partition = 0",
                &[&world.records],
            )
            .await
            .expect("the catalog answers");
        row.and_then(|row| row.get::<_, Option<String>>(0))
    };
    wait_for("the topic partition to halt", || async { reason().await.is_some() }).await;
    reason().await.expect("just seen")
}

fn delete_before(world: &World, offset: i64) {
    let file = world.folder.join("delete.json");
    let topic = &world.records;
    let what =
        format!("{{\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":{offset}}}],\"version\":1}}");
    std::fs::write(&file, what).expect("the folder is ours");
    world.stack.kafka(&["delete-records", "--offset-json-file", &file.display().to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_forward_skips_and_a_reset_backward_fills_what_was_skipped() {
    let world = World::new(1).await;
    send(&world, 0..10).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 10);

    send(&world, 10..20).await;
    reset(&world, 15).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 15, "five are skipped");
    assert_eq!(world.outcomes("offsets").await["skipped"], 5);

    reset(&world, 17).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 15, "what was skipped before 17 stays so, the rest is replayed to the same rows");
    assert_eq!(live_skipped(&world).await, 5);

    reset(&world, 12).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 18, "12 to 15 are filled");
    assert_eq!(live_skipped(&world).await, 2);

    reset(&world, 10).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 20);
    assert_eq!(live_skipped(&world).await, 0);

    reset(&world, 20).await;
    send(&world, 20..25).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 25);
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_offsets_expired_goes_on_where_the_catalog_stands() {
    let world = World::new(1).await;
    send(&world, 0..10).await;
    run_until_settled(&world).await;
    world.stack.kafka(&["groups", "--group", &world.name, "--delete-offsets", "--topic", &world.records]);
    send(&world, 10..15).await;
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 15);
    assert_eq!(world.outcomes("offsets").await["decoded"], 15, "none is read twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_deleted_before_they_were_read_halt_until_an_operator_skips_them() {
    let world = World::new(1).await;
    send(&world, 0..5).await;
    run_until_settled(&world).await;
    send(&world, 5..10).await;
    delete_before(&world, 8);
    let reason = halted(&world).await;
    assert!(reason.starts_with("log_expired: ") && reason.contains("reset the group's offset to 8"), "{reason}");
    reset(&world, 8).await;
    run_until_settled(&world).await;
    assert_eq!(world.outcomes("offsets").await["skipped"], 3);
    assert_eq!(events(&world).await, 7);
}

/// More wait than a queue takes, so that the rest must be fetched later, and by then it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn messages_deleted_while_a_process_waits_to_read_them_halt_it_too() {
    const COUNT: u32 = 10_000;
    let mut world = World::new(1).await;
    world.env.insert("SLUICE_LIMITS__MICRO_BATCH_OFFSETS_MAX".into(), "100".into());
    send(&world, 0..1).await;
    let running = world.run();
    world.settle();
    // holds the next commit up
    let mut catalog = world.catalog().await;
    let held = catalog.transaction().await.expect("the catalog answers");
    held.execute("SELECT FROM catalog.source_partition FOR UPDATE", &[]).await.expect("nothing commits now");
    send_at_once(&world, 1..COUNT).await;
    let received = || async {
        let (_, metrics) = crate::dependencies::get(&running.telemetry()?, "/metrics").await?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("sluice_kafka_messages_total{") && line.contains(&world.records))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    wait_for("the queue to be full", || async { received().await.is_some_and(|count| count > 4_000.0) }).await;
    delete_before(&world, i64::from(COUNT));
    held.rollback().await.expect("the catalog answers");
    let reason = halted_reason(&world).await;
    assert!(reason.starts_with("log_expired: "), "{reason}");
    assert!(received().await.is_some_and(|count| count < f64::from(COUNT)), "it read everything: nothing was tested");
    assert_eq!(running.terminate(), Some(0));
    reset(&world, i64::from(COUNT)).await;
    run_until_settled(&world).await;
    let offsets = world.outcomes("offsets").await;
    assert_eq!(offsets["skipped"] + offsets["decoded"], i64::from(COUNT), "{offsets:?}");
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_recreated_halts_whether_it_is_shorter_or_longer() {
    for (count, expected) in [(3, "log_truncated: "), (12, "topic_recreated: ")] {
        let world = World::new(1).await;
        send(&world, 0..5).await;
        run_until_settled(&world).await;
        let admin: AdminClient<_> = world.kafka_config().create().expect("a valid configuration");
        let deleted = admin.delete_topics(&[&world.records], &AdminOptions::new()).await.expect("the broker answers");
        deleted[0].as_ref().expect("the topic was there");
        let topic = NewTopic::new(&world.records, 1, TopicReplication::Fixed(1));
        wait_for("the topic to be created again", || async {
            let created = admin.create_topics([&topic], &AdminOptions::new()).await.expect("the broker answers");
            created[0].is_ok()
        })
        .await;
        send(&world, 100..100 + count).await;
        let reason = halted(&world).await;
        assert!(reason.starts_with(expected), "{reason}");
        assert_eq!(events(&world).await, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_markers_and_aborted_messages_are_absent_and_the_books_balance() {
    let world = World::new(1).await;
    send(&world, 0..2).await;
    let (topic, mut config) = (world.records.clone(), world.kafka_config());
    config.set("transactional.id", &world.name);
    let sent = tokio::task::spawn_blocking(move || {
        let wait = Duration::from_secs(20);
        let producer: BaseProducer = config.create().expect("a valid configuration");
        producer.init_transactions(wait).expect("the coordinator answers");
        for (number, commits) in [(10, true), (11, false), (12, true)] {
            producer.begin_transaction().expect("initialised");
            let payload = event(number);
            let record: rdkafka::producer::BaseRecord<'_, str, str> =
                rdkafka::producer::BaseRecord::to(&topic).partition(0).payload(&payload);
            producer.send(record).map_err(|(error, _)| error).expect("queued");
            producer.flush(wait).expect("sent");
            let ended = if commits { producer.commit_transaction(wait) } else { producer.abort_transaction(wait) };
            ended.expect("the coordinator answers");
        }
    });
    sent.await.expect("no panic");
    run_until_settled(&world).await;
    assert_eq!(events(&world).await, 4);
    let offsets = world.outcomes("offsets").await;
    // two plain, two committed; one aborted and three markers
    assert_eq!((offsets["decoded"], offsets["absent"]), (4, 4), "{offsets:?}");
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_programs_offset_is_no_tag_of_ours() {
    let world = World::new(1).await;
    send(&world, 0..5).await;
    let mut config = world.kafka_config();
    config.set("group.id", &world.name);
    let consumer: BaseConsumer = config.create().expect("a valid configuration");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.records, 0, Offset::Offset(2)).expect("a valid offset");
    wait_for("the foreign offset to be committed", || async { consumer.commit(&list, CommitMode::Sync).is_ok() }).await;
    run_until_settled(&world).await;
    assert_eq!((events(&world).await, world.outcomes("offsets").await["skipped"]), (3, 2));
}
