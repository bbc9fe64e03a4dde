//! The whole path on the real servers: an object put into S3 becomes Parquet and rows in PostgreSQL, once.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use sluice_loadtest::announce::{Envelope, announce};
use sluice_loadtest::{Dataset, FindingKind, ProducePlan, Target, produce, verify};

use crate::reader;
use crate::stack::{World, stack, wait_for};

/// Announced by the test itself on the world's own topic.
pub(crate) fn plan(world: &World) -> ProducePlan {
    ProducePlan {
        bucket: world.raw_bucket.clone(),
        key_prefix: world.name.clone(),
        target: Target::S3 { announced_on: world.notifications.clone() },
        announce_wait: Duration::ZERO,
        hours: 3,
        late_share: 0.002,
        ..ProducePlan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_put_by_an_ordinary_client_becomes_parquet_and_rows_exactly_once() {
    // the topic on which the gateway itself announces, with its own eight topic partitions
    let world = World::on(stack(), 2, Some("raw-notifications")).await;
    let running = world.run();
    let plan =
        ProducePlan { announce_wait: Duration::from_secs(20), rows: 3_000, rows_per_object: 250, ..plan(&world) };
    let report = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    assert_eq!(report.announced_again, 0, "the gateway announces by itself");
    world.settle();
    world.assert_verified().await;
    world.assert_books_balance().await;

    let sums = reader::transactions(&world.endpoints());
    let row = world
        .warehouse()
        .await
        .query_one("SELECT count(*)::bigint, count(DISTINCT (transaction_id, occurred_at))::bigint FROM warehouse.fact_transactions", &[])
        .await
        .expect("the warehouse answers");
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1), "each row once");
    assert_eq!(sums.newest_rows, row.get::<_, i64>(0), "{sums:?}");
    let amount = world
        .warehouse()
        .await
        .query_one("SELECT sum(amount)::text FROM warehouse.fact_transactions", &[])
        .await
        .expect("the warehouse answers");
    assert_eq!(sums.newest_amount, amount.get::<_, String>(0));
    assert!(sums.partitions.iter().all(|path| {
        let levels: Vec<&str> = path.split('/').collect();
        path.starts_with("data/transactions/type=transaction/source=")
            && levels[4].starts_with("date=")
            && levels[5].starts_with("hour=")
    }));
    assert_tagged(&world, "raw-notifications").await;
    assert_eq!(running.terminate(), Some(0), "SIGTERM drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_connector_has_a_warehouse_nothing_waits_for_a_loader() {
    let world = World::new(2).await;
    world.edit_connectors(|text| text.split("\nwarehouse:").next().unwrap_or_default().to_owned() + "\n");
    let running = world.run_with(&HashMap::new(), &["--role", "transform,publish"]);
    let plan = ProducePlan { rows: 300, rows_per_object: 100, ..plan(&world) };
    let report = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    assert!(report.announced_again > 0);
    world.settle();
    let sql =
        "SELECT coalesce(sum(row_out_count), 0)::bigint, count(*) FILTER (WHERE needs_load) FROM catalog.micro_batch";
    let row = world.catalog().await.query_one(sql, &[]).await.expect("the catalog answers");
    assert!(row.get::<_, i64>(0) > 0, "rows were committed");
    assert_eq!(row.get::<_, i64>(1), 0);
    assert_eq!(running.terminate(), Some(0), "{}", world.logs());
}

/// The group's committed offsets carry our tag and agree with the catalog.
async fn assert_tagged(world: &World, topic: &str) {
    let mut config = world.kafka_config();
    config.set("group.id", &world.name);
    let consumer: BaseConsumer = config.create().expect("a valid configuration");
    let catalog = world.catalog().await;
    let rows = catalog
        .query("SELECT topic_partition, next_offset FROM catalog.source_partition WHERE topic = $1", &[&topic])
        .await
        .expect("the catalog answers");
    assert!(!rows.is_empty());
    let mut list = rdkafka::TopicPartitionList::new();
    for row in &rows {
        list.add_partition(topic, row.get(0));
    }
    wait_for("the tagged offsets to be committed", || async {
        let committed = consumer.committed_offsets(list.clone(), Duration::from_secs(10)).expect("the group answers");
        rows.iter().all(|row| {
            let element = committed.find_partition(topic, row.get(0)).expect("asked for");
            element.offset() == rdkafka::Offset::Offset(row.get(1))
                && element.metadata().starts_with("v1;cat=")
                && element.metadata().contains(";fence=")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_which_one_is_killed_five_times_lose_and_double_nothing() {
    // the gateway announces while objects come, so that kills fall on work in flight; eight topic partitions
    let world = World::on(stack(), 8, Some("raw-notifications")).await;
    world.without_connector("direct-events");
    let steady = world.run();
    let mut victim = world.run();
    let mut kills_in_flight = 0;
    for round in 0..5_u64 {
        wait_for("the process to own a topic partition", || async { owns(&world, victim.pid()).await }).await;
        let plan = ProducePlan {
            seed: round + 1,
            rows: 10_000,
            rows_per_object: 100,
            key_prefix: format!("{}/{round}", world.name),
            announce_wait: Duration::from_secs(20),
            announce_twice: true,
            ..plan(&world)
        };
        let (endpoints, ledger) = (world.endpoints(), world.ledger());
        let producing = tokio::spawn(async move { produce(&endpoints, &plan, &ledger).await });
        wait_for("a commit of the process to be killed", || async { has_committed(&world, victim.pid()).await }).await;
        victim.kill();
        kills_in_flight += u32::from(claimed(&world).await < (round as i64 + 1) * 100);
        let report = producing.await.expect("not cancelled").expect("the servers answer");
        assert_eq!(report.objects, 100);
        victim = world.run();
    }
    assert!(kills_in_flight >= 3, "only {kills_in_flight} of five kills left objects unread");
    world.settle();
    assert_eq!(claimed(&world).await, 500);
    world.assert_verified().await;
    world.assert_books_balance().await;
    drop((steady, victim));
}

async fn ask(world: &World, sql: &str, pid: u32) -> bool {
    world.catalog().await.query_one(sql, &[&pid.to_string()]).await.expect("the catalog answers").get(0)
}

async fn owns(world: &World, pid: u32) -> bool {
    ask(world, "SELECT EXISTS (SELECT FROM catalog.fence WHERE process LIKE '%/' || $1)", pid).await
}

async fn has_committed(world: &World, pid: u32) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM catalog.micro_batch JOIN catalog.fence USING (fence)
                WHERE process LIKE '%/' || $1 AND object_count > 0)";
    ask(world, sql, pid).await
}

async fn claimed(world: &World) -> i64 {
    let row = world.catalog().await.query_one("SELECT count(*) FROM catalog.object_claim", &[]).await;
    row.expect("the catalog answers").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_in_every_envelope_and_twice_emit_each_object_once() {
    let world = World::new(4).await;
    let plan =
        ProducePlan { rows: 2_000, rows_per_object: 100, awkward_keys: true, announce_twice: true, ..plan(&world) };
    let report = produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    for envelope in Envelope::ALL {
        announce(&world.endpoints(), &world.notifications, &report.announced, *envelope).await.expect("Kafka answers");
    }
    let _running = world.run();
    world.settle();
    world.assert_verified().await;
    world.assert_books_balance().await;
    let objects = world.outcomes("objects").await;
    assert_eq!(objects.get("emitted"), Some(&20), "{objects:?}");
    assert_eq!(objects.get("duplicate"), Some(&(20 * 6)), "{objects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_records_go_the_same_way() {
    let world = World::new(4).await;
    let _running = world.run();
    let plan =
        ProducePlan { rows: 2_000, target: Target::Topic(world.records.clone()), dirty_share: 0.05, ..plan(&world) };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    world.settle();
    world.assert_verified().await;
    world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_is_deleted_doubled_and_edited_on_the_servers() {
    let world = World::new(2).await;
    let running = world.run();
    let plan = ProducePlan { rows: 1_000, rows_per_object: 100, datasets: vec![Dataset::Transactions], ..plan(&world) };
    produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    world.settle();
    world.assert_verified().await;
    drop(running);
    let found = || async { verify(&world.endpoints(), &world.ledger()).await.expect("everything can be read") };
    let warehouse = world.warehouse().await;
    let sql = |text: &'static str| async { warehouse.batch_execute(text).await.expect("the warehouse answers") };

    sql("CREATE TABLE kept AS SELECT * FROM warehouse.fact_transactions ORDER BY 1 LIMIT 1;
         DELETE FROM warehouse.fact_transactions f USING kept k WHERE f.transaction_id = k.transaction_id")
    .await;
    assert_eq!(found().await.count(FindingKind::Lost), 1);
    sql("INSERT INTO warehouse.fact_transactions SELECT * FROM kept").await;
    sql("UPDATE warehouse.fact_transactions SET amount = amount + 1 WHERE transaction_id = (SELECT transaction_id FROM kept)").await;
    assert_eq!(found().await.count(FindingKind::Stale), 1);
    sql("UPDATE warehouse.fact_transactions SET amount = amount - 1 WHERE transaction_id = (SELECT transaction_id FROM kept)").await;
    sql("UPDATE warehouse.fact_transactions SET transaction_id = gen_random_uuid() WHERE transaction_id = (SELECT transaction_id FROM kept)").await;
    let report = found().await;
    assert_eq!((report.count(FindingKind::Lost), report.count(FindingKind::Phantom)), (1, 1));
    doctored_files(&world).await;
}

/// A file that is copied doubles its rows; one that is deleted loses them.
async fn doctored_files(world: &World) {
    let (endpoints, client) = (world.endpoints(), world.target("LAKE").client());
    let bucket = &endpoints.lake_bucket;
    let listed = client.list_objects_v2().bucket(bucket).prefix("data/").send().await.expect("the lake answers");
    let key = listed.contents().first().and_then(|object| object.key()).expect("files were published").to_owned();
    let before = verify(&endpoints, &world.ledger()).await.expect("everything can be read");
    let copy = key.replace(".parquet", "-copy.parquet");
    let bytes = client.get_object().bucket(bucket).key(&key).send().await.expect("listed").body.collect().await;
    let bytes = bytes.expect("whole").into_bytes();
    client.put_object().bucket(bucket).key(&copy).body(bytes.into()).send().await.expect("the lake answers");
    let doubled = verify(&endpoints, &world.ledger()).await.expect("everything can be read");
    assert!(doubled.count(FindingKind::Duplicated) > 0);
    assert!(doubled.findings.iter().any(|finding| finding.what.contains(&copy) || finding.what.contains(&key)));
    for gone in [&copy, &key] {
        client.delete_object().bucket(bucket).key(gone).send().await.expect("deleted");
    }
    let lost = verify(&endpoints, &world.ledger()).await.expect("everything can be read");
    assert!(lost.count(FindingKind::Lost) > before.count(FindingKind::Lost));
}
