use bytes::Bytes;

use super::ObjectLocation;

/// Why something is a dead letter: a closed set, the `reason` of files, catalog and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// A message on a notification topic is not a notification.
    MalformedNotification,
    /// A line is not JSON.
    MalformedJson,
    /// A line is JSON, but not an object.
    NotAnObject,
    InvalidUtf8,
    /// A line or record is longer than `limits.record_bytes_max`.
    RecordTooLong,
    /// JSON nested deeper than `limits.json_depth_max`.
    TooDeep,
    MissingRequired,
    WrongType,
    /// The right JSON type, but no value of the column's type: out of range, unparsable, too many digits.
    InvalidValue,
    /// `evolution.new_field: reject` met a field the schema lacks.
    UnknownField,
    /// The same field stands twice in one record.
    DuplicateField,
    ExpectationFailed,
    /// An object's gzip or zstd stream is broken or ends early.
    CorruptCompression,
    /// An object is larger, or unpacks to more, than the limits allow.
    ObjectTooLarge,
    /// The process died as often as `limits.attempts_max` allows while it alone was processed.
    KilledTheProcess,
    /// A direct record of a connector that is stopped.
    ConnectorParked,
}

impl RejectReason {
    pub const ALL: &[Self] = &[
        Self::MalformedNotification,
        Self::MalformedJson,
        Self::NotAnObject,
        Self::InvalidUtf8,
        Self::RecordTooLong,
        Self::TooDeep,
        Self::MissingRequired,
        Self::WrongType,
        Self::InvalidValue,
        Self::UnknownField,
        Self::DuplicateField,
        Self::ExpectationFailed,
        Self::CorruptCompression,
        Self::ObjectTooLarge,
        Self::KilledTheProcess,
        Self::ConnectorParked,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedNotification => "malformed_notification",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::RecordTooLong => "record_too_long",
            Self::TooDeep => "too_deep",
            Self::MissingRequired => "missing_required",
            Self::WrongType => "wrong_type",
            Self::InvalidValue => "invalid_value",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::ExpectationFailed => "expectation_failed",
            Self::CorruptCompression => "corrupt_compression",
            Self::ObjectTooLarge => "object_too_large",
            Self::KilledTheProcess => "killed_the_process",
            Self::ConnectorParked => "connector_parked",
        }
    }
}

/// Something that did not fit, kept with its reason and its original bytes.
/// A whole message has no `record`; a whole object has no `row`.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Empty where the message could not be understood.
    pub connector: String,
    pub reason: RejectReason,
    /// What was wrong, for a person; holds no payload.
    pub detail: String,
    pub message_offset: i64,
    pub record: Option<i32>,
    /// Number of the row within its object, from 0: the `_row` of lineage.
    pub row: Option<i64>,
    /// Where the row starts in the unpacked object.
    pub byte_offset: Option<u64>,
    pub object: Option<ObjectLocation>,
    pub object_version: Option<String>,
    pub bytes: Bytes,
}
