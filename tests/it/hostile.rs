//! Bad input: each kind has a defined outcome, and the pipeline goes on.

use std::io::Write as _;
use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};
use sluice_loadtest::announce::{AnnouncedObject, Envelope};

use crate::stack::World;

struct Sent {
    world: World,
    producer: FutureProducer,
}

fn good(id: &str) -> String {
    format!("{{\"user_id\":\"{id}\",\"updated_at\":\"2026-11-20T10:00:00Z\"}}\n")
}

impl Sent {
    async fn new() -> Self {
        let world = World::new(1).await;
        let producer = world.kafka_config().create().expect("a valid configuration");
        Self { world, producer }
    }

    async fn message(&self, payload: &[u8]) {
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.world.notifications).payload(payload);
        self.producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
    }

    async fn announce(&self, bucket: &str, key: &str, etag: &str) {
        let (bucket, key, etag) = (bucket.to_owned(), key.to_owned(), etag.to_owned());
        let object = AnnouncedObject { bucket, key, etag, size: 1, version_id: None };
        self.message(Envelope::AwsS3.wrap(&object).as_bytes()).await;
    }

    async fn object(&self, key: &str, body: &[u8]) {
        let client = self.world.target("RAW").client();
        let put = client.put_object().bucket(&self.world.raw_bucket).key(key).body(body.to_vec().into()).send().await;
        let etag = put.expect("the store answers").e_tag().expect("a PUT has one").trim_matches('"').to_owned();
        self.announce(&self.world.raw_bucket, key, &etag).await;
    }

    /// Dead letters as (reason, bytes' beginning) from the catalog's samples.
    async fn dead_letters(&self) -> Vec<(String, Vec<u8>)> {
        let rows = self
            .world
            .catalog()
            .await
            .query("SELECT reason, sample FROM catalog.dead_letter ORDER BY dead_letter_id", &[])
            .await
            .expect("the catalog answers");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn users(&self) -> Vec<String> {
        let rows = self
            .world
            .warehouse()
            .await
            .query("SELECT user_id FROM warehouse.dim_users WHERE user_key <> 0 ORDER BY 1", &[])
            .await
            .expect("the warehouse answers");
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_dead_letters_and_their_neighbours_pass() {
    let sent = Sent::new().await;
    let long = format!("{{\"user_id\":\"{}\"}}", "x".repeat(1_100_000));
    let mut body = good("before").into_bytes();
    let lines: [(&str, &[u8]); 7] = [
        ("malformed_json", b"{\"user_id\": "),
        ("not_an_object", b"42"),
        ("wrong_type", b"{\"user_id\": 7, \"updated_at\": \"2026-11-20T10:00:00Z\"}"),
        ("missing_required", b"{\"user_id\": \"u\"}"),
        ("invalid_utf8", b"{\"user_id\": \"\xff\"}"),
        ("record_too_long", long.as_bytes()),
        ("invalid_value", b"{\"user_id\": \"u\", \"updated_at\": \"tomorrow\"}"),
    ];
    for (_, line) in lines {
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    body.extend_from_slice(good("after").as_bytes());
    sent.object("users/mixed.json", &body).await;
    let _running = sent.world.run();
    sent.world.settle();
    assert_eq!(sent.users().await, ["after", "before"]);
    let letters = sent.dead_letters().await;
    let reasons: Vec<&str> = letters.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, lines.map(|(reason, _)| reason));
    for ((_, sample), (_, line)) in letters.iter().zip(lines) {
        assert_eq!(sample.as_slice(), &line[..line.len().min(4096)], "the original bytes");
    }
    sent.world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_objects_that_cannot_be_read_have_their_outcome() {
    let sent = Sent::new().await;
    sent.message(b"this is no notification").await;
    sent.message(br#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-20T10:00:00.000Z","Bucket":"b"}"#)
        .await;
    sent.announce("somebody-elses-bucket", "users/x.json", "0").await;
    sent.announce(&sent.world.raw_bucket, "users/vanished.json", "00000000000000000000000000000000").await;
    sent.object("unknown-prefix/x.json", b"{}").await;
    let whole = gzip(good("packed").as_bytes());
    sent.object("users/truncated.json.gz", &whole[..whole.len() - 6]).await;
    sent.object("users/whole.json.gz", &whole).await;
    sent.object("users/empty.json", b"").await;
    sent.object("users/blank.json", b"\n \n\r\n").await;
    for key in ["users/a b.json", "users/a+b.json", "users/a%2Bb.json", "users/größe ß.json"] {
        sent.object(key, good(key).as_bytes()).await;
    }
    // PostgreSQL keeps no NUL, plain or decoded
    let nul = r#"{"Records":[{"eventVersion":"2.1","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"users/\u0000"}}}]}"#;
    sent.message(nul.as_bytes()).await;
    sent.announce(&sent.world.raw_bucket, "users/nul%00.json", "0").await;
    // the store refuses names that leave the bucket, today as tomorrow
    sent.announce(&sent.world.raw_bucket, "users/../../outside.json", "0").await;
    let _running = sent.world.run();
    sent.world.settle();
    let (offsets, objects) = (sent.world.outcomes("offsets").await, sent.world.outcomes("objects").await);
    assert_eq!((offsets["rejected"], offsets["ignored"], offsets["decoded"]), (2, 1, 13), "{offsets:?}");
    assert_eq!(objects["filtered"], 2, "{objects:?}");
    assert_eq!((objects["missing"], objects["quarantined"], objects["emitted"]), (2, 2, 7), "{objects:?}");
    let letters = sent.dead_letters().await;
    assert_eq!(letters[0], ("malformed_notification".into(), b"this is no notification".to_vec()));
    assert_eq!(letters[1], ("corrupt_compression".into(), whole[..whole.len() - 6].to_vec()));
    let reasons: Vec<&str> = letters[2..].iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["malformed_notification", "object_refused"]);
    assert_eq!(sent.users().await.len(), 5);
    sent.world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_object_that_unpacks_beyond_the_limit_the_first_mebibyte_is_kept() {
    let mut sent = Sent::new().await;
    sent.world.env.insert("SLUICE_LIMITS__OBJECT_BYTES_MAX".into(), "4MiB".into());
    // noise, which no compression makes smaller, and a bomb behind it: small enough as stored
    let mut state = 1_u64;
    let noise = (0..3 << 19).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let stored = gzip(&noise.chain(std::iter::repeat_n(b' ', 64 << 20)).collect::<Vec<_>>());
    assert!((3 << 19..4 << 20).contains(&stored.len()));
    sent.object("users/bomb.json.gz", &stored).await;
    sent.object("users/after.json", good("after").as_bytes()).await;
    let _running = sent.world.run();
    sent.world.settle();
    assert_eq!(sent.users().await, ["after"]);
    assert_eq!(sent.dead_letters().await, [("object_too_large".to_owned(), stored[..4096].to_vec())]);
    let catalog = sent.world.catalog().await;
    let sql = "SELECT detail, size_bytes FROM catalog.dead_letter JOIN catalog.file USING (micro_batch_id)
                WHERE kind = 'dead_letter'";
    let row = catalog.query_one(sql, &[]).await.expect("one letter in one file");
    let (detail, size_bytes): (String, i64) = (row.get(0), row.get(1));
    assert!(detail.contains("(the first 1048576 of "), "{detail}");
    assert!((1 << 20..5 << 18).contains(&size_bytes), "{size_bytes}");
    sent.world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_for_raw_and_lake_announces_our_own_files_which_are_filtered() {
    let stack: &'static crate::stack::Stack = Box::leak(Box::new(crate::stack::single_gateway()));
    let world = World::on(stack, 2, Some("raw-notifications")).await;
    let running = world.run();
    let plan = sluice_loadtest::ProducePlan {
        rows: 500,
        rows_per_object: 100,
        announce_wait: Duration::from_secs(20),
        ..crate::pipeline::plan(&world)
    };
    sluice_loadtest::produce(&world.endpoints(), &plan, &world.ledger()).await.expect("the servers answer");
    world.settle();
    world.assert_verified().await;
    let objects = world.outcomes("objects").await;
    assert_eq!(objects["emitted"], 5, "{objects:?}");
    assert!(objects["filtered"] > 0, "the lake's own files are announced: {objects:?}");
    assert_eq!(running.terminate(), Some(0));
}
