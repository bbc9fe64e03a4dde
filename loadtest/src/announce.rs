//! Announcements as stores and bridges write them, and the check that every object has one.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::Endpoints;

const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// An object as a store would announce it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedObject {
    pub bucket: String,
    pub key: String,
    /// Without quotes.
    pub etag: String,
    pub size: u64,
    pub version_id: Option<String>,
}

/// How a `Records[]` document is wrapped on its way to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    AwsS3,
    Sqs,
    Sns,
    EventBridge,
    Minio,
}

impl Envelope {
    pub const ALL: &[Self] = &[Self::AwsS3, Self::Sqs, Self::Sns, Self::EventBridge, Self::Minio];

    /// One message that announces the object.
    pub fn wrap(self, object: &AnnouncedObject) -> String {
        let records = |source: &str, slash: bool| json!({"Records": [record(object, source, slash)]});
        let document = match self {
            Self::AwsS3 => records("aws:s3", true),
            Self::Sqs => json!({
                "Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": records("aws:s3", true).to_string()}]
            }),
            Self::Sns => json!({
                "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:us-east-1:1:raw",
                "Subject": "Amazon S3 Notification", "Message": records("aws:s3", true).to_string()
            }),
            Self::EventBridge => json!({
                "version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3",
                "time": "2026-11-23T00:00:00Z", "region": "us-east-1",
                "detail": {
                    "version": "0", "bucket": {"name": object.bucket}, "reason": "PutObject",
                    "object": event_bridge_object(object)
                }
            }),
            Self::Minio => {
                let mut document = records("minio:s3", false);
                document["EventName"] = json!("s3:ObjectCreated:Put");
                document["Key"] = json!(format!("{}/{}", object.bucket, object.key));
                document
            }
        };
        document.to_string()
    }
}

fn event_bridge_object(object: &AnnouncedObject) -> Value {
    let mut body = json!({"key": object.key, "size": object.size, "etag": object.etag, "sequencer": "01"});
    if let Some(version) = &object.version_id {
        body["version-id"] = json!(version);
    }
    body
}

fn record(object: &AnnouncedObject, source: &str, slash_stays: bool) -> Value {
    let mut body = json!({
        "key": form_encode(&object.key, slash_stays), "size": object.size, "eTag": object.etag, "sequencer": "01"
    });
    if let Some(version) = &object.version_id {
        body["versionId"] = json!(version);
    }
    json!({
        "eventVersion": "2.1", "eventSource": source, "awsRegion": "us-east-1",
        "eventTime": "2026-11-23T00:00:00.000Z", "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "all",
            "bucket": {"name": object.bucket, "arn": format!("arn:aws:s3:::{}", object.bucket)},
            "object": body
        }
    })
}

/// `application/x-www-form-urlencoded`: space is `+`.
pub fn form_encode(text: &str, slash_stays: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => encoded.push(byte as char),
            b'/' if slash_stays => encoded.push('/'),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn form_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Announces objects, one message each; returns when the broker has them all.
pub async fn announce(
    endpoints: &Endpoints,
    topic: &str,
    objects: &[AnnouncedObject],
    envelope: Envelope,
) -> Result<()> {
    let producer: FutureProducer = endpoints.kafka().create().context("could not create a Kafka producer")?;
    let sends = objects.iter().map(|object| {
        let producer = producer.clone();
        let (payload, key) = (envelope.wrap(object), format!("{}/{}", object.bucket, object.key));
        async move {
            let record = FutureRecord::to(topic).key(&key).payload(&payload);
            producer.send(record, KAFKA_TIMEOUT).await.map_err(|(error, _)| error)
        }
    });
    futures::future::try_join_all(sends).await.with_context(|| format!("could not announce on topic {topic}"))?;
    Ok(())
}

/// Where a topic ends now: the place from which announcements are read back.
pub struct TopicEnd {
    topic: String,
    ends: Vec<(i32, i64)>,
}

pub async fn topic_end(endpoints: &Endpoints, topic: &str) -> Result<TopicEnd> {
    let (endpoints, topic) = (endpoints.clone(), topic.to_owned());
    blocking(move || read_topic_end(&endpoints, &topic)).await
}

/// Announces those objects that the store has not announced since `from` within `wait`; gives their number.
pub async fn announce_the_rest(
    endpoints: &Endpoints,
    topic: &str,
    from: TopicEnd,
    objects: &[AnnouncedObject],
    wait: Duration,
) -> Result<usize> {
    let (reader, list) = (endpoints.clone(), objects.to_vec());
    let missing = blocking(move || not_announced(&reader, &from, &list, wait)).await?;
    announce(endpoints, topic, &missing, Envelope::AwsS3).await?;
    Ok(missing.len())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a blocking task failed")?
}

fn read_topic_end(endpoints: &Endpoints, topic: &str) -> Result<TopicEnd> {
    let consumer: BaseConsumer = endpoints.kafka().create().context("could not create a Kafka consumer")?;
    let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT).context("could not read Kafka's metadata")?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && !found.partitions().is_empty());
    let found = found.with_context(|| format!("topic {topic} does not exist"))?;
    let ends = found
        .partitions()
        .iter()
        .map(|partition| {
            let (_, end) = consumer.fetch_watermarks(topic, partition.id(), KAFKA_TIMEOUT)?;
            Ok((partition.id(), end))
        })
        .collect::<Result<_, rdkafka::error::KafkaError>>()
        .with_context(|| format!("could not read the end of topic {topic}"))?;
    Ok(TopicEnd { topic: topic.to_owned(), ends })
}

/// The objects that nobody has announced since `from`, after waiting for up to `wait`. Blocks.
fn not_announced(
    endpoints: &Endpoints,
    from: &TopicEnd,
    objects: &[AnnouncedObject],
    wait: Duration,
) -> Result<Vec<AnnouncedObject>> {
    let mut config = endpoints.kafka();
    config.set("group.id", "sluice-loadtest").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().context("could not create a Kafka consumer")?;
    let mut list = TopicPartitionList::new();
    for (partition, end) in &from.ends {
        list.add_partition_offset(&from.topic, *partition, Offset::Offset(*end))?;
    }
    consumer.assign(&list).context("could not read the announcements back")?;
    let name = |bucket: &str, key: &str| format!("{bucket}/{key}");
    let mut missing: HashSet<String> = objects.iter().map(|object| name(&object.bucket, &object.key)).collect();
    let deadline = Instant::now() + wait;
    while !missing.is_empty() && Instant::now() < deadline {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let Some(Ok(document)) = message.payload().map(serde_json::from_slice::<Value>) else { continue };
        for record in document["Records"].as_array().into_iter().flatten() {
            let bucket = record["s3"]["bucket"]["name"].as_str().unwrap_or_default();
            let key = record["s3"]["object"]["key"].as_str().unwrap_or_default();
            missing.remove(&name(bucket, key));
            if let Some(decoded) = form_decode(key) {
                missing.remove(&name(bucket, &decoded));
            }
        }
    }
    Ok(objects.iter().filter(|object| missing.contains(&name(&object.bucket, &object.key))).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_envelope_announces_the_object_itself() {
        let object = AnnouncedObject {
            bucket: "raw".to_owned(),
            key: "transactions/0001/a b+c.json".to_owned(),
            etag: "0a".to_owned(),
            size: 11,
            version_id: Some("v1".to_owned()),
        };
        let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        for envelope in Envelope::ALL {
            let document = read(&envelope.wrap(&object));
            let (bucket, found) = match envelope {
                Envelope::EventBridge => {
                    (document["detail"]["bucket"]["name"].clone(), document["detail"]["object"].clone())
                }
                Envelope::Sns => records(&read(document["Message"].as_str().expect("a text"))),
                Envelope::Sqs => records(&read(document["Records"][0]["body"].as_str().expect("a text"))),
                Envelope::AwsS3 | Envelope::Minio => records(&document),
            };
            let key = found["key"].as_str().expect("a text");
            let key =
                if *envelope == Envelope::EventBridge { key.to_owned() } else { form_decode(key).expect("encoded") };
            assert_eq!((bucket, key), (json!("raw"), object.key.clone()), "{envelope:?}");
            assert_eq!((&found["size"], found["etag"].as_str().or(found["eTag"].as_str())), (&json!(11), Some("0a")));
        }
    }

    /// Bucket and object of the first record.
    fn records(document: &Value) -> (Value, Value) {
        let s3 = &document["Records"][0]["s3"];
        (s3["bucket"]["name"].clone(), s3["object"].clone())
    }

    #[test]
    fn keys_survive_form_encoding() {
        for key in ["a b+c é.json", "plain/key.json", "50%/ü ß", "a%2Bb"] {
            assert_eq!(form_decode(&form_encode(key, true)).as_deref(), Some(key));
            assert_eq!(form_decode(&form_encode(key, false)).as_deref(), Some(key));
        }
    }
}
