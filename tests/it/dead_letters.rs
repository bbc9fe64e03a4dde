//! Dead letters in the hands of people: found, shown, corrected and run again, on the real servers.

mod gone;
mod sql;

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};
use sluice_loadtest::announce::{AnnouncedObject, Envelope};

use crate::replay::{count, reset, run_until_settled};
use crate::stack::{Running, World};

const TOO_SHORT: &str = r#"{"user_id": 7, "updated_at": "2026-11-20T10:00:00Z"}"#;
const TOMORROW: &str = r#"{"user_id": "u", "updated_at": "tomorrow"}"#;

fn good(id: &str) -> String {
    format!("{{\"user_id\":\"{id}\",\"updated_at\":\"2026-11-20T10:00:00Z\"}}\n")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A world of one topic partition.
struct Letters {
    world: World,
}

impl Letters {
    async fn new() -> Self {
        Self { world: World::new(1).await }
    }

    async fn send(&self, topic: &str, payload: &[u8]) {
        let producer: FutureProducer = self.world.kafka_config().create().expect("a valid configuration");
        let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).payload(payload);
        producer.send(record, Duration::from_secs(10)).await.expect("the broker answers");
    }

    /// Puts an object and gives its announcement back.
    async fn put(&self, key: &str, body: &[u8]) -> String {
        let client = self.world.target("RAW").client();
        let put = client.put_object().bucket(&self.world.raw_bucket).key(key).body(body.to_vec().into()).send().await;
        let etag = put.expect("the store answers").e_tag().expect("a PUT has one").trim_matches('"').to_owned();
        let (bucket, key, size) = (self.world.raw_bucket.clone(), key.to_owned(), body.len() as u64);
        Envelope::AwsS3.wrap(&AnnouncedObject { bucket, key, etag, size, version_id: None })
    }

    async fn object(&self, key: &str, body: &[u8]) {
        let announcement = self.put(key, body).await;
        self.send(&self.world.notifications, announcement.as_bytes()).await;
    }

    async fn delete(&self, key: &str) {
        let client = self.world.target("RAW").client();
        client.delete_object().bucket(&self.world.raw_bucket).key(key).send().await.expect("deleted");
    }

    fn command(&self, args: &[&str]) -> Output {
        self.world.sluice(&[&["dead-letters"], args].concat())
    }

    /// With something on standard input.
    fn edit(&self, id: &str, bytes: &[u8], flags: &[&str]) -> Output {
        let mut command = self.world.command(&[&["dead-letters", "edit", id], flags].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.stdin.take().expect("piped").write_all(bytes).expect("it reads");
        child.wait_with_output().expect("it ends")
    }

    fn correct(&self, id: &str, bytes: &[u8]) {
        let edited = self.edit(id, bytes, &[]);
        assert_eq!(edited.status.code(), Some(0), "{}", said(&edited));
    }

    fn redrive(&self, which: &[&str]) -> Output {
        let output = self.command(&[&["redrive", "--wait", "60"], which].concat());
        self.world.settle();
        output
    }

    fn redriven(&self, which: &[&str]) {
        let output = self.redrive(which);
        assert_eq!(output.status.code(), Some(0), "{}\n{}", said(&output), self.world.logs());
    }

    fn listed(&self, flags: &[&str]) -> Vec<serde_json::Value> {
        let output = self.command(&[&["list", "--output", "json"], flags].concat());
        assert!(output.status.success(), "{}", said(&output));
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        listed["dead_letters"].as_array().expect("a list").clone()
    }

    /// The id of the one dead letter with this reason.
    fn id(&self, reason: &str) -> String {
        let found = self.listed(&["--reason", reason]);
        assert_eq!(found.len(), 1, "{found:?}\n{}", self.world.logs());
        found[0]["id"].as_str().expect("an id").to_owned()
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.listed(&["--all"]).iter().map(|letter| letter["reason"].as_str().expect("text").to_owned()).collect();
        reasons.sort();
        reasons
    }

    async fn users(&self) -> Vec<String> {
        let sql = "SELECT user_id FROM warehouse.dim_users WHERE user_key <> 0 AND NOT inferred ORDER BY 1";
        let rows = self.world.warehouse().await.query(sql, &[]).await.expect("the warehouse answers");
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn position(&self) -> i64 {
        count(&self.world, "SELECT sum(next_offset)::bigint FROM catalog.source_partition").await
    }

    async fn mixed(&self) -> Running {
        let body = format!("{}{TOO_SHORT}\n{TOMORROW}\n{}", good("before"), good("after"));
        self.object("users/mixed.json", body.as_bytes()).await;
        self.object("users/neighbour.json", good("neighbour").as_bytes()).await;
        let running = self.world.run();
        self.world.settle();
        assert_eq!(self.users().await, ["after", "before", "neighbour"]);
        running
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_row_is_loaded_its_neighbours_stay_and_a_replay_keeps_it() {
    let letters = Letters::new().await;
    let running = letters.mixed().await;
    let (id, other) = (letters.id("wrong_type"), letters.id("invalid_value"));
    let shown = letters.command(&["show", &id]);
    assert!(said(&shown).contains("wrong_type") && said(&shown).contains(TOO_SHORT), "{}", said(&shown));
    assert_eq!(letters.command(&["show", "--bytes-only", &id]).stdout, TOO_SHORT.as_bytes(), "as they are");
    let position = letters.position().await;
    letters.correct(&id, good("corrected").as_bytes());
    assert!(said(&letters.command(&["show", &id])).contains("corrected bytes"));
    letters.redriven(&[&id]);

    assert_eq!(letters.users().await, ["after", "before", "corrected", "neighbour"]);
    assert_eq!(letters.reasons(), ["invalid_value"], "the other dead letter is still there");
    assert_eq!(letters.position().await, position, "the position stays");
    let lineage = "SELECT _row FROM warehouse.dim_users WHERE user_id = 'corrected'";
    let row: i64 = letters.world.warehouse().await.query_one(lineage, &[]).await.expect("it is there").get(0);
    assert_eq!(row, 1, "the lineage stays");
    assert_eq!(letters.command(&["show", &id]).status.code(), Some(1), "it is a dead letter no more");
    let other = letters.command(&["show", "--bytes-only", &other]);
    assert_eq!(other.stdout, TOMORROW.as_bytes(), "an id from before names the same row");
    letters.world.assert_books_balance().await;

    assert_eq!(running.terminate(), Some(0));
    reset(&letters.world, &letters.world.notifications, &["--to-earliest"]).await;
    run_until_settled(&letters.world).await;
    assert_eq!(letters.users().await, ["after", "before", "corrected", "neighbour"]);
    assert_eq!(letters.reasons(), ["invalid_value"]);
    letters.world.assert_books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_say_whether_they_come_from_samples_or_files() {
    let letters = Letters::new().await;
    let body: String = (0..30).map(|_| format!("{TOMORROW}\n")).chain([format!("{TOO_SHORT}\n")]).collect();
    letters.object("users/many.json", body.as_bytes()).await;
    let running = letters.world.run();
    letters.world.settle();
    assert_eq!(running.terminate(), Some(0));
    assert_eq!((letters.listed(&[]).len(), letters.listed(&["--all"]).len()), (11, 31));
    assert_eq!(letters.listed(&["--all", "--limit", "3"]).len(), 3);
    assert_eq!(letters.listed(&["--all", "--reason", "wrong_type", "--connector", "users"]).len(), 1);
    assert_eq!(letters.listed(&["--since", "2999-01-01"]).len() + letters.listed(&["--connector", "events"]).len(), 0);
    let table = said(&letters.command(&["list"]));
    assert!(table.contains("from the catalog's samples") && table.contains("users/many.json"), "{table}");
    let summary = said(&letters.command(&["list", "--summary"]));
    assert!(summary.contains("10 or more"), "{summary}");
    let summary = said(&letters.command(&["list", "--summary", "--all"]));
    assert!(summary.contains("30") && !summary.contains("samples"), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_a_dead_letter_again_is_not_accepted() {
    let letters = Letters::new().await;
    let running = letters.mixed().await;
    assert_eq!(running.terminate(), Some(0));
    let id = letters.id("wrong_type");
    let refused = |bytes: &[u8], flags: &[&str], code: i32, what: &str| {
        let output = letters.edit(&id, bytes, flags);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(what), "{}", said(&output));
    };
    refused(TOO_SHORT.as_bytes(), &[], 3, "wrong_type: column `user_id` is utf8");
    refused(b"{\"user_id\": ", &[], 3, "malformed_json");
    for flags in [&[][..], &["--force"]] {
        refused(b" \n", flags, 3, "there are no corrected bytes");
    }
    let none = "SELECT count(*) FROM catalog.override";
    assert_eq!(count(&letters.world, none).await, 0, "nothing was stored");
    let of_a_good_row = id.rsplit_once(':').map(|(rest, _)| format!("{rest}:0")).expect("an id");
    let output = letters.edit(&of_a_good_row, good("x").as_bytes(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let output = letters.edit("not-an-id", b"x", &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(letters.command(&["redrive"]).status.code(), Some(2), "everything is not meant by saying nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_tries_in_vain_a_row_must_be_edited_anew() {
    let letters = Letters::new().await;
    let running = letters.mixed().await;
    let id = letters.id("wrong_type");
    let edited = letters.edit(&id, b"{\"user_id\": 8}", &["--force"]);
    assert_eq!(edited.status.code(), Some(0), "{}", said(&edited));
    for _ in 0..3 {
        letters.redriven(&[&id]);
    }
    let shown = said(&letters.command(&["show", &id]));
    assert!(shown.contains("3 of 3, in vain: wrong_type: the corrected bytes do not fit either"), "{shown}");
    assert!(shown.contains(TOO_SHORT), "the original bytes stay: {shown}");
    for which in [&[id.as_str()][..], &["--reason", "wrong_type"]] {
        let refused = letters.redrive(which);
        assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
        assert!(said(&refused).contains("3 times"), "{}", said(&refused));
    }
    letters.correct(&id, good("at last").as_bytes());
    letters.redriven(&["--reason", "wrong_type", "--since", "1h"]);
    assert_eq!(letters.users().await, ["after", "at last", "before", "neighbour"]);
    letters.world.assert_books_balance().await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_objects_and_messages_can_be_corrected() {
    let letters = Letters::new().await;
    let announcement = letters.put("users/unannounced.json", good("unannounced").as_bytes()).await;
    letters.send(&letters.world.notifications, b"this is no notification").await;
    letters.object("users/broken.json.gz", b"\x1f\x8b\x08\x00broken").await;
    let running = letters.world.run();
    letters.world.settle();
    let (message, object) = (letters.id("malformed_notification"), letters.id("corrupt_compression"));
    let refused = letters.edit(&message, b"nor is this", &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    letters.correct(&message, announcement.as_bytes());
    let body = format!("{}{TOMORROW}\n{}", good("one"), good("two"));
    letters.correct(&object, body.as_bytes());
    letters.redriven(&["--since", "1h"]);
    assert_eq!(letters.users().await, ["one", "two", "unannounced"]);
    assert_eq!(letters.reasons(), ["invalid_value"], "a row of the corrected object");
    letters.correct(&letters.id("invalid_value"), good("three").as_bytes());
    letters.redriven(&["--connector", "users"]);
    assert_eq!(letters.users().await, ["one", "three", "two", "unannounced"]);
    let objects = letters.world.outcomes("objects").await;
    assert!(objects["emitted"] >= 2, "{objects:?}");
    letters.world.assert_books_balance().await;
    drop(running);
}
