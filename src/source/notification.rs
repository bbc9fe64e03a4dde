//! What a message on a notification topic says: which objects came, and how the store spelt them.
//! Pure: bytes in, values out; no clocks, no I/O.
//!
//! Understood are S3 event records (`Records[]`, eventVersion 2.x, as AWS, MinIO, versitygw and Ceph
//! write them) and EventBridge events, bare or wrapped by SNS, SQS (one message, the answer of
//! ReceiveMessage, what Lambda gets) or both, and arrays of them. Test events and subscription
//! confirmations are ignored. A null value (tombstone) has no bytes to decode; callers ignore it.
//!
//! A message is understood as a whole or not at all: one broken record rejects the message.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::config::KeyEncoding;
use crate::error::ErrorKind;

mod announce;
mod record;
mod spelling;
#[cfg(test)]
mod tests;

pub use announce::announce;
pub use spelling::KeySpelling;

/// Envelopes around a record; real bridges use up to three (SQS of SNS of `Records[]`).
const ENVELOPE_DEPTH_MAX: usize = 8;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// Nothing about objects: `test_event`, `subscription` or `empty`.
    Ignored(&'static str),
    /// At least one, in the order of the message.
    Objects(Vec<ObjectEvent>),
}

/// That something happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Index within the message, from 0, over all its envelopes.
    pub record: i32,
    pub kind: EventKind,
    pub bucket: String,
    /// Perhaps form-encoded: see [`ObjectEvent::key_candidates`].
    pub key_as_sent: String,
    /// What the message itself tells about that.
    pub key_spelling: KeySpelling,
    /// `None` where absent, null, empty, or the word `null` (an object written without versioning).
    pub version_id: Option<String>,
    /// Without quotes.
    pub etag: Option<String>,
    /// A hint: versitygw sends 0 for copies and completed uploads.
    pub size_bytes: Option<u64>,
    pub event_time: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// There is a new object version to read.
    Created,
    Removed,
    /// Tags, access lists, restores, replication and whatever stores add.
    Other,
}

impl ObjectEvent {
    fn has_nul(&self) -> bool {
        let texts = [Some(&self.bucket), Some(&self.key_as_sent), self.version_id.as_ref(), self.etag.as_ref()];
        texts.into_iter().flatten().any(|text| text.contains('\0'))
    }

    /// Spellings of the key to try, in this order, each once; at least one.
    pub fn key_candidates(&self, encoding: KeyEncoding) -> Vec<String> {
        spelling::candidates(&self.key_as_sent, self.key_spelling, encoding)
    }
}

/// Why a message is a dead letter (`malformed_notification`). Names fields, quotes no payload.
#[derive(Debug, thiserror::Error)]
pub enum NotificationError {
    #[error("the message is empty")]
    Empty,
    #[error("{path} is not JSON")]
    NotJson {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} is no notification: expected {expected}")]
    Unrecognised { path: String, expected: &'static str },
    #[error("{path}: {field} must be {expected}")]
    Field { path: String, field: &'static str, expected: &'static str },
    #[error("{path}: eventVersion {version} is not supported, only 2.x is")]
    Version { path: String, version: String },
    #[error("envelopes nested deeper than {ENVELOPE_DEPTH_MAX}")]
    TooDeep,
}

impl NotificationError {
    /// The same bytes fail the same way every time.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Poison
    }
}

/// Decodes the value of a message.
pub fn decode(payload: &[u8]) -> Result<Announcement, NotificationError> {
    if payload.iter().all(u8::is_ascii_whitespace) {
        return Err(NotificationError::Empty);
    }
    // a byte order mark is no JSON, but some producers write one
    let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
    let mut found = Found::default();
    found.bytes("message", payload, 0)?;
    if let Some(event) = found.events.iter().find(|event| event.has_nul()) {
        // no store takes such a name, and PostgreSQL cannot keep it
        let path = format!("record {}", event.record);
        return Err(NotificationError::Field { path, field: "the object's name", expected: "without NUL" });
    }
    if found.events.is_empty() {
        return Ok(Announcement::Ignored(found.ignored.unwrap_or("empty")));
    }
    Ok(Announcement::Objects(found.events))
}

/// What was found so far, walking down the envelopes.
#[derive(Default)]
struct Found {
    events: Vec<ObjectEvent>,
    ignored: Option<&'static str>,
}

impl Found {
    fn bytes(&mut self, path: &str, json: &[u8], depth: usize) -> Result<(), NotificationError> {
        let value: Value = serde_json::from_slice(json)
            .map_err(|source| NotificationError::NotJson { path: path.to_owned(), source })?;
        self.value(path, &value, depth)
    }

    fn value(&mut self, path: &str, value: &Value, depth: usize) -> Result<(), NotificationError> {
        if depth > ENVELOPE_DEPTH_MAX {
            return Err(NotificationError::TooDeep);
        }
        match value {
            Value::Object(map) => self.object(path, map, depth),
            // EventBridge pipes and batching bridges
            Value::Array(items) => self.each(path, items, depth),
            // a body that was encoded once more
            Value::String(text) => self.bytes(path, text.as_bytes(), depth + 1),
            _ => Err(NotificationError::Unrecognised { path: path.to_owned(), expected: "a JSON object" }),
        }
    }

    fn each(&mut self, path: &str, items: &[Value], depth: usize) -> Result<(), NotificationError> {
        for (index, item) in items.iter().enumerate() {
            self.value(&format!("{path}[{index}]"), item, depth + 1)?;
        }
        Ok(())
    }

    fn object(&mut self, path: &str, map: &Map<String, Value>, depth: usize) -> Result<(), NotificationError> {
        if is_test_event(map) {
            self.ignored = Some("test_event");
            return Ok(());
        }
        if let Some(records) = map.get("Records") {
            return self.records(path, map, records, depth);
        }
        if map.get("s3").is_some_and(Value::is_object) {
            return self.event(|index| record::s3_event(path, map, None, index));
        }
        if map.contains_key("detail-type") && map.contains_key("detail") {
            return self.event(|index| record::eventbridge_event(path, map, index));
        }
        if let Some(messages) = map.get("Messages") {
            let items = array(path, "Messages", messages)?;
            return self.each(&format!("{path}.Messages"), items, depth);
        }
        self.envelope(path, map, depth)
    }

    /// SNS (`Type`, `Message`), SNS as Lambda gets it (`Sns`), SQS (`Body` or `body`).
    fn envelope(&mut self, path: &str, map: &Map<String, Value>, depth: usize) -> Result<(), NotificationError> {
        let is_subscription = matches!(
            map.get("Type").and_then(Value::as_str),
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation")
        );
        if is_subscription {
            self.ignored = self.ignored.or(Some("subscription"));
            return Ok(());
        }
        for field in ["Message", "Sns", "Body", "body"] {
            match map.get(field) {
                None => {}
                Some(inner @ (Value::String(_) | Value::Object(_))) => {
                    return self.value(&format!("{path}.{field}"), inner, depth + 1);
                }
                Some(_) => {
                    return Err(NotificationError::Field {
                        path: path.to_owned(),
                        field,
                        expected: "a JSON text or object",
                    });
                }
            }
        }
        Err(NotificationError::Unrecognised {
            path: path.to_owned(),
            expected: "`Records`, an EventBridge event, or an SNS or SQS envelope",
        })
    }

    fn records(
        &mut self,
        path: &str,
        map: &Map<String, Value>,
        records: &Value,
        depth: usize,
    ) -> Result<(), NotificationError> {
        let items = array(path, "Records", records)?;
        // MinIO repeats `bucket/key` as it is, where there is but one record
        let plain = map.get("Key").and_then(Value::as_str).filter(|_| items.len() == 1);
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.Records[{index}]");
            match item.as_object() {
                Some(inner) if is_test_event(inner) => self.ignored = Some("test_event"),
                Some(inner) if inner.get("s3").is_some_and(Value::is_object) => {
                    self.event(|index| record::s3_event(&path, inner, plain, index))?;
                }
                _ => self.value(&path, item, depth + 1)?,
            }
        }
        Ok(())
    }

    fn event(
        &mut self,
        make: impl FnOnce(i32) -> Result<ObjectEvent, NotificationError>,
    ) -> Result<(), NotificationError> {
        let index = i32::try_from(self.events.len()).expect("a Kafka message cannot hold 2^31 records");
        self.events.push(make(index)?);
        Ok(())
    }
}

/// AWS: `Event`; MinIO's and others' spellings besides.
fn is_test_event(map: &Map<String, Value>) -> bool {
    ["Event", "EventName", "eventName"]
        .into_iter()
        .any(|field| matches!(map.get(field).and_then(Value::as_str), Some("s3:TestEvent" | "TestEvent")))
}

fn array<'a>(path: &str, field: &'static str, value: &'a Value) -> Result<&'a [Value], NotificationError> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => Err(NotificationError::Field { path: path.to_owned(), field, expected: "an array" }),
    }
}
