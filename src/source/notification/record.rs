//! One event record: an entry of `Records[]` or an EventBridge event.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::spelling::{self, KeySpelling};
use super::{EventKind, NotificationError, ObjectEvent};

/// Source: Amazon S3 User Guide, "Event message structure" (versions 2.1 to 2.5; minor versions add
/// fields only), read 2026-11.
pub(super) fn s3_event(
    path: &str,
    map: &Map<String, Value>,
    plain_location: Option<&str>,
    record: i32,
) -> Result<ObjectEvent, NotificationError> {
    let field = |field, expected| NotificationError::Field { path: path.to_owned(), field, expected };
    check_version(path, map)?;
    let name = text(map.get("eventName")).ok_or_else(|| field("eventName", "a text"))?;
    let kind = kind_of(name);
    let s3 = map.get("s3").and_then(Value::as_object).ok_or_else(|| field("s3", "an object"))?;
    let bucket = s3.get("bucket").and_then(Value::as_object).ok_or_else(|| field("s3.bucket", "an object"))?;
    let object = s3.get("object").and_then(Value::as_object);
    let bucket_name = text(bucket.get("name"));
    let key = object.and_then(|object| text(object.get("key")));
    if kind == EventKind::Created && key.is_none() {
        return Err(field("s3.object.key", "a text that is not empty"));
    }
    let bucket_name = bucket_name.ok_or_else(|| field("s3.bucket.name", "a text that is not empty"))?;
    let key = key.unwrap_or_default();
    let get = |name| object.and_then(|object| object.get(name));
    Ok(ObjectEvent {
        record,
        kind,
        bucket: bucket_name.to_owned(),
        key_as_sent: key.to_owned(),
        key_spelling: spelling::of_record(bucket_name, key, plain_location, text(bucket.get("arn"))),
        version_id: version_id(get("versionId")),
        etag: etag(get("eTag")),
        size_bytes: get("size").and_then(Value::as_u64),
        event_time: time(map.get("eventTime")),
    })
}

/// Source: Amazon S3 User Guide, "EventBridge event message structure", read 2026-11. Keys stand in it
/// as they are, not form-encoded; the page does not say so, thus the encoded reading stays the second try.
pub(super) fn eventbridge_event(
    path: &str,
    map: &Map<String, Value>,
    record: i32,
) -> Result<ObjectEvent, NotificationError> {
    let field = |field, expected| NotificationError::Field { path: path.to_owned(), field, expected };
    let kind = match text(map.get("detail-type")) {
        Some("Object Created") => EventKind::Created,
        Some("Object Deleted") => EventKind::Removed,
        Some(_) => EventKind::Other,
        None => return Err(field("detail-type", "a text")),
    };
    let detail = map.get("detail").and_then(Value::as_object).ok_or_else(|| field("detail", "an object"))?;
    let bucket = detail.get("bucket").and_then(|bucket| text(bucket.get("name")));
    let object = detail.get("object").and_then(Value::as_object);
    let key = object.and_then(|object| text(object.get("key")));
    let bucket = bucket.ok_or_else(|| field("detail.bucket.name", "a text that is not empty"))?;
    let key = key.ok_or_else(|| field("detail.object.key", "a text that is not empty"))?;
    let get = |name| object.and_then(|object| object.get(name));
    Ok(ObjectEvent {
        record,
        kind,
        bucket: bucket.to_owned(),
        key_as_sent: key.to_owned(),
        key_spelling: KeySpelling::EventBridge,
        version_id: version_id(get("version-id")),
        etag: etag(get("etag")),
        size_bytes: get("size").and_then(Value::as_u64),
        event_time: time(map.get("time")),
    })
}

fn check_version(path: &str, map: &Map<String, Value>) -> Result<(), NotificationError> {
    let version = text(map.get("eventVersion")).ok_or_else(|| NotificationError::Field {
        path: path.to_owned(),
        field: "eventVersion",
        expected: "a text such as 2.1",
    })?;
    if version == "2" || version.starts_with("2.") {
        return Ok(());
    }
    // quoted only where it looks like one: details hold no payload
    let looks_like_version = version.len() <= 16 && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let version = if looks_like_version { version } else { "(not a number)" };
    Err(NotificationError::Version { path: path.to_owned(), version: version.to_owned() })
}

/// AWS writes `ObjectCreated:Put`, MinIO and versitygw `s3:ObjectCreated:Put`.
fn kind_of(event_name: &str) -> EventKind {
    let name = event_name.strip_prefix("s3:").unwrap_or(event_name);
    match name.split(':').next() {
        Some("ObjectCreated") => EventKind::Created,
        Some("ObjectRemoved" | "LifecycleExpiration") => EventKind::Removed,
        _ => EventKind::Other,
    }
}

/// A text that is not empty.
fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn version_id(value: Option<&Value>) -> Option<String> {
    text(value).filter(|id| *id != "null").map(ToOwned::to_owned)
}

fn etag(value: Option<&Value>) -> Option<String> {
    text(value).map(|tag| tag.trim_matches('"')).filter(|tag| !tag.is_empty()).map(ToOwned::to_owned)
}

fn time(value: Option<&Value>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text(value)?).ok().map(|time| time.with_timezone(&Utc))
}
