use proptest::prelude::*;
use serde_json::json;

use super::*;

fn objects(message: &[u8]) -> Vec<ObjectEvent> {
    match decode(message) {
        Ok(Announcement::Objects(events)) => events,
        other => panic!("expected objects, got {other:?}"),
    }
}

fn objects_of(message: &Value) -> Vec<ObjectEvent> {
    objects(message.to_string().as_bytes())
}

fn fixture(name: &str) -> Vec<String> {
    let path = format!("{}/tests/fixtures/notifications/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the fixture is part of the repository");
    text.lines().map(ToOwned::to_owned).collect()
}

fn aws(name: &str) -> Value {
    let example = fixture("aws.jsonl")
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("fixtures are JSON"))
        .find(|example| example["name"] == name);
    example.expect("the example exists")["message"].clone()
}

fn sns(message: &Value) -> Value {
    json!({
        "Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic", "Subject": "Amazon S3 Notification",
        "Message": message.to_string(), "Timestamp": "2012-05-02T00:54:06.655Z", "SignatureVersion": "1",
        "Signature": "EXAMPLEw6JRN==", "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe"
    })
}

fn sqs_received(messages: &[Value]) -> Value {
    let messages: Vec<Value> = messages
        .iter()
        .map(|message| {
            json!({
                "MessageId": "5fea7756-0ea4-451a-a703-a558b933e274", "ReceiptHandle": "MbZj6wDWli",
                "MD5OfBody": "fafb00f5732ab283681e124bf8747ed1", "Body": message.to_string(),
                "Attributes": {"SenderId": "195004372649"}
            })
        })
        .collect();
    json!({ "Messages": messages })
}

fn sqs_lambda(messages: &[Value]) -> Value {
    let records: Vec<Value> = messages
        .iter()
        .map(|message| json!({
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d", "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": message.to_string(), "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {},
            "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
            "awsRegion": "us-east-2"
        }))
        .collect();
    json!({ "Records": records })
}

#[test]
fn versitygw_samples_decode() {
    let lines = fixture("versitygw.jsonl");
    let test_events =
        lines.iter().filter(|line| decode(line.as_bytes()).ok() == Some(Announcement::Ignored("test_event")));
    assert_eq!(test_events.count(), 1);
    let events: Vec<ObjectEvent> =
        lines.iter().filter(|line| !line.contains("s3:TestEvent")).flat_map(|line| objects(line.as_bytes())).collect();
    assert_eq!(events.len(), 8);
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::Removed).count(), 3);

    let put = &events[0];
    assert_eq!((put.kind, put.bucket.as_str(), put.record), (EventKind::Created, "raw", 0));
    assert_eq!(put.etag.as_deref(), Some("4588ff3797b78d819d858fa3bdd82b09"));
    assert_eq!((put.version_id.as_deref(), put.size_bytes), (None, Some(8)));
    assert_eq!(put.event_time.map(|time| time.timestamp()), Some(1_795_441_989));
    assert_eq!(put.key_candidates(KeyEncoding::Auto), ["source=web/date=2026-11-23/a b+c é.json"]);

    let multipart = events.iter().find(|event| event.version_id.is_some()).expect("one sample has a version id");
    assert_eq!(multipart.version_id.as_deref(), Some("01M84AX5S18MJBD5TS7DTCN30M"));
    let copy = events.iter().find(|event| event.key_as_sent == "data/k1" && event.kind == EventKind::Created);
    assert_eq!(copy.expect("a copy was recorded").version_id, None, "an empty version id is none");
}

#[test]
fn minio_samples_decode() {
    let events: Vec<ObjectEvent> = fixture("minio.jsonl").iter().flat_map(|line| objects(line.as_bytes())).collect();
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.kind == EventKind::Created && event.bucket == "raw"));
    assert_eq!(events[0].key_spelling, KeySpelling::Form);
    assert_eq!(events[0].key_candidates(KeyEncoding::Auto), ["source=web/date=2026-11-23/a b+c é.json"]);
    assert_eq!(events[0].version_id.as_deref(), Some("6c98c126-f965-4f8f-8718-cee534102127"));
    assert_eq!(events[2].etag.as_deref(), Some("de1dd86747d02fdbfb04c3e1f6c28697-1"));
    assert_eq!(events[2].size_bytes, Some(6_291_456));
}

#[test]
fn aws_examples_decode() {
    let put = &objects_of(&aws("put"))[0];
    assert_eq!(put.version_id.as_deref(), Some("096fKKXTRTtl3on89fVO.nfljtsv6qko"));
    assert_eq!(put.key_candidates(KeyEncoding::Auto), ["events/red flower+é.jpg", "events/red+flower%2B%C3%A9.jpg"]);
    assert_eq!(put.key_candidates(KeyEncoding::Form), ["events/red flower+é.jpg"]);
    assert_eq!(put.key_candidates(KeyEncoding::Literal), ["events/red+flower%2B%C3%A9.jpg"]);

    let unversioned = &objects_of(&aws("unversioned 2.5"))[0];
    assert_eq!((unversioned.kind, unversioned.version_id.as_deref()), (EventKind::Created, None));
    assert_eq!(unversioned.key_candidates(KeyEncoding::Auto), ["events/a.json"]);
    assert_eq!(objects_of(&aws("lifecycle"))[0].kind, EventKind::Removed);
    assert_eq!(objects_of(&aws("tagging"))[0].kind, EventKind::Other);
    assert_eq!(objects_of(&aws("eventbridge deleted"))[0].kind, EventKind::Removed);

    let bridged = &objects_of(&aws("eventbridge created"))[0];
    assert_eq!((bridged.kind, bridged.size_bytes), (EventKind::Created, Some(5)));
    assert_eq!(bridged.version_id.as_deref(), Some("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"));
    assert_eq!(bridged.etag.as_deref(), Some("b1946ac92492d2347c6235b4d2611184"));
    assert_eq!(bridged.key_candidates(KeyEncoding::Auto), ["events/a b+c.json", "events/a b c.json"]);
    assert_eq!(bridged.key_candidates(KeyEncoding::Form), ["events/a b+c.json"]);
}

#[test]
fn every_envelope_yields_the_same_event() {
    for name in ["put", "unversioned 2.5", "eventbridge created", "lifecycle"] {
        let message = aws(name);
        let bare = objects_of(&message);
        let lambda_sns = json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": sns(&message)}]});
        let envelopes = [
            sns(&message),
            sqs_received(std::slice::from_ref(&message)),
            sqs_lambda(std::slice::from_ref(&message)),
            json!({"Body": message.to_string()}),
            json!({"body": message.to_string()}),
            json!({"body": message}),
            sqs_received(&[sns(&message)]),
            sqs_lambda(&[sns(&message)]),
            lambda_sns,
            json!([message]),
            json!(message.to_string()),
        ];
        for envelope in envelopes {
            assert_eq!(objects_of(&envelope), bare, "{name} in {envelope}");
        }
    }
}

#[test]
fn records_are_numbered_over_all_envelopes() {
    let mut two = aws("put");
    let record = two["Records"][0].clone();
    two["Records"].as_array_mut().expect("an array").push(record);
    let wrapped = sqs_lambda(&[two.clone(), aws("test event"), sns(&two), aws("eventbridge created")]);
    let numbers: Vec<i32> = objects_of(&wrapped).iter().map(|event| event.record).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn what_says_nothing_about_objects_is_ignored() {
    let test = aws("test event");
    let cases = [
        (test.clone(), "test_event"),
        (sns(&test), "test_event"),
        (sqs_received(&[sns(&test)]), "test_event"),
        (json!({"EventName": "s3:TestEvent", "Key": "raw/x", "Records": []}), "test_event"),
        (json!({"Records": [{"eventVersion": "2.1", "eventName": "s3:TestEvent"}]}), "test_event"),
        (json!({"Records": []}), "empty"),
        (json!({"Records": null}), "empty"),
        (json!({"Messages": []}), "empty"),
        (json!([]), "empty"),
        (json!({"Type": "SubscriptionConfirmation", "Message": "You have chosen to subscribe"}), "subscription"),
    ];
    for (message, why) in cases {
        assert_eq!(decode(message.to_string().as_bytes()).expect("decodes"), Announcement::Ignored(why), "{message}");
    }
}

#[test]
fn a_malformed_message_says_what_is_wrong() {
    let mut version = aws("put");
    version["Records"][0]["eventVersion"] = json!("3.0");
    let mut no_version = aws("put");
    no_version["Records"][0].as_object_mut().expect("an object").remove("eventVersion");
    let mut no_key = aws("put");
    no_key["Records"][0]["s3"]["object"]["key"] = json!("");
    let mut deep = aws("put").to_string();
    for _ in 0..12 {
        deep = json!({ "body": deep }).to_string();
    }
    let cases: [(Vec<u8>, &str); 12] = [
        (b"".to_vec(), "the message is empty"),
        (b" \r\n\t".to_vec(), "the message is empty"),
        (b"not json".to_vec(), "message is not JSON"),
        (b"\xff\xfe{}".to_vec(), "message is not JSON"),
        (b"42".to_vec(), "message is no notification: expected a JSON object"),
        (
            b"{\"a\":1}".to_vec(),
            "message is no notification: expected `Records`, an EventBridge event, or an SNS or SQS envelope",
        ),
        (b"{\"Records\":{}}".to_vec(), "message: Records must be an array"),
        (
            sns(&json!("hello")).to_string().replace("\\\"hello\\\"", "hello").into_bytes(),
            "message.Message is not JSON",
        ),
        (version.to_string().into_bytes(), "message.Records[0]: eventVersion 3.0 is not supported, only 2.x is"),
        (no_version.to_string().into_bytes(), "message.Records[0]: eventVersion must be a text such as 2.1"),
        (
            sqs_lambda(&[no_key]).to_string().into_bytes(),
            "message.Records[0].body.Records[0]: s3.object.key must be a text that is not empty",
        ),
        (deep.into_bytes(), "envelopes nested deeper than 8"),
    ];
    for (message, expected) in cases {
        let error = decode(&message).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), ErrorKind::Poison);
    }
}

#[test]
fn one_broken_record_rejects_the_message() {
    let mut message = aws("put");
    message["Records"].as_array_mut().expect("an array").push(json!({"eventSource": "aws:kinesis"}));
    assert!(decode(message.to_string().as_bytes()).is_err());
}

#[test]
fn the_word_null_is_no_version_id() {
    let mut message = aws("put");
    message["Records"][0]["s3"]["object"]["versionId"] = json!("null");
    assert_eq!(objects_of(&message)[0].version_id, None);
}

#[test]
fn spellings_follow_what_the_store_gives_away() {
    use KeySpelling::{Form, Literal, LiteralLikely, Unknown};
    let cases = [
        ("a+b", None, Some("arn:aws:s3:::raw"), Unknown, vec!["a b", "a+b"]),
        ("a+b", Some("raw/a b"), None, Form, vec!["a b"]),
        ("a+b", Some("raw/a+b"), None, Literal, vec!["a+b"]),
        ("a+b", Some("other/a+b"), None, Unknown, vec!["a b", "a+b"]),
        ("a%2Bb", None, Some("arn:aws:s3:::/raw/a%2Bb"), Literal, vec!["a%2Bb"]),
        ("a=b+c", None, None, LiteralLikely, vec!["a=b+c", "a=b c"]),
        ("100%", None, None, Unknown, vec!["100%"]),
        ("%FF", None, None, Unknown, vec!["%FF"]),
        ("plain/key.json", None, None, Unknown, vec!["plain/key.json"]),
    ];
    for (key, plain, arn, spelling, wanted) in cases {
        assert_eq!(spelling::of_record("raw", key, plain, arn), spelling, "{key}");
        assert_eq!(spelling::candidates(key, spelling, KeyEncoding::Auto), wanted, "{key}");
    }
}

/// JSON that looks like notifications now and then.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "Records",
        "Messages",
        "Message",
        "Body",
        "body",
        "Sns",
        "Type",
        "Event",
        "EventName",
        "Key",
        "s3",
        "bucket",
        "object",
        "name",
        "key",
        "arn",
        "eventVersion",
        "eventName",
        "detail",
        "detail-type",
        "versionId",
        "size",
    ]);
    let text = prop::sample::select(vec![
        "",
        "2.1",
        "ObjectCreated:Put",
        "s3:TestEvent",
        "raw",
        "a+b%",
        "{\"Records\":[]}",
        "\"\\\"x\\\"\"",
        "Object Created",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner.clone()), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            inner.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn decoding_json_never_panics_and_numbers_records_in_order(value in any_json()) {
        if let Ok(Announcement::Objects(events)) = decode(value.to_string().as_bytes()) {
            prop_assert!(!events.is_empty());
            for (index, event) in events.iter().enumerate() {
                prop_assert_eq!(event.record, index as i32);
                prop_assert!(event.kind != EventKind::Created || !event.key_as_sent.is_empty());
                prop_assert!(!event.key_candidates(KeyEncoding::Auto).is_empty());
            }
        }
    }

    #[test]
    fn what_a_store_form_encodes_comes_back(key in "\\PC{1,40}") {
        let encoded: String = key.bytes().map(|byte| match byte {
            b' ' => "+".to_owned(),
            b'/' | b'-' | b'_' | b'.' | b'*' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        }).collect();
        prop_assert_eq!(spelling::form_decoded(&encoded), Some(key.clone()));
        let spelling = spelling::of_record("raw", &encoded, None, None);
        prop_assert_eq!(&spelling::candidates(&encoded, spelling, KeyEncoding::Auto)[0], &key);
    }
}
