//! The way back: an event as a message that [`super::decode`] reads as the same event.

use serde_json::{Map, Value, json};

use super::{KeySpelling, ObjectEvent, spelling};

/// A message that announces the object alone, with its key spelt and explained as it came.
pub fn announce(event: &ObjectEvent) -> Value {
    let mut object = Map::new();
    object.insert("key".to_owned(), json!(event.key_as_sent));
    if let Some(size) = event.size_bytes {
        object.insert("size".to_owned(), json!(size));
    }
    let time = event.event_time.map(|time| time.to_rfc3339());
    if event.key_spelling == KeySpelling::EventBridge {
        object.insert("etag".to_owned(), json!(event.etag));
        object.insert("version-id".to_owned(), json!(event.version_id));
        return json!({
            "detail-type": "Object Created", "source": "sluice.resume", "time": time,
            "detail": {"bucket": {"name": event.bucket}, "object": object}
        });
    }
    object.insert("eTag".to_owned(), json!(event.etag));
    object.insert("versionId".to_owned(), json!(event.version_id));
    let mut bucket = json!({"name": event.bucket});
    if event.key_spelling == KeySpelling::Literal {
        // what versitygw writes
        bucket["arn"] = json!(format!("arn:aws:s3:::/{}/{}", event.bucket, event.key_as_sent));
    }
    let mut message = json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "sluice:resume", "eventTime": time, "eventName": "ObjectCreated:Put",
        "s3": {"bucket": bucket, "object": object}
    }]});
    if event.key_spelling == KeySpelling::Form
        && let Some(key) = spelling::form_decoded(&event.key_as_sent)
    {
        // what MinIO writes
        message["Key"] = json!(format!("{}/{key}", event.bucket));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::{Announcement, EventKind, decode};
    use super::*;

    #[test]
    fn an_event_is_read_back_as_it_was() {
        let spellings = [
            (KeySpelling::Form, "a+b%2Fc"),
            (KeySpelling::Form, "plain/key"),
            (KeySpelling::Literal, "a+b%2Fc"),
            (KeySpelling::LiteralLikely, "größe ß"),
            (KeySpelling::EventBridge, "a b+c"),
            (KeySpelling::Unknown, "a+b%2Fc"),
        ];
        for (key_spelling, key) in spellings {
            for version_id in [None, Some("v1".to_owned())] {
                let event = ObjectEvent {
                    record: 0,
                    kind: EventKind::Created,
                    bucket: "raw".to_owned(),
                    key_as_sent: key.to_owned(),
                    key_spelling,
                    version_id,
                    etag: Some("0123".to_owned()),
                    size_bytes: Some(7),
                    event_time: chrono::DateTime::from_timestamp_millis(1_790_000_000_123),
                };
                let message = announce(&event).to_string();
                let decoded = decode(message.as_bytes()).expect("a notification");
                // a plain key that MinIO repeats is literal either way
                let same = ObjectEvent { key_spelling: KeySpelling::Literal, ..event.clone() };
                let is_same =
                    decoded == Announcement::Objects(vec![event]) || decoded == Announcement::Objects(vec![same]);
                assert!(is_same, "{key_spelling:?} {key}: {message} {decoded:?}");
            }
        }
    }
}
