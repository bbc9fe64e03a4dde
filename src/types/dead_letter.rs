use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::{MicroBatchId, ObjectLocation, Origin, RowReject};

/// Why something is a dead letter: a closed set, the `reason` of files, catalog and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// A message on a notification topic is not a notification.
    MalformedNotification,
    /// A line is not JSON.
    MalformedJson,
    /// A line is JSON, but not an object.
    NotAnObject,
    /// Quotes of CSV that do not match, or more than one row where one is wanted.
    MalformedCsv,
    /// A row of CSV has more or fewer fields than there are columns.
    RaggedRow,
    /// The header of a CSV object names a column twice, or is broken.
    MalformedHeader,
    /// An object is no Parquet file, or one whose footer or pages are broken, encrypted or packed in an unknown way.
    MalformedParquet,
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
    /// The connector's SQL cannot be evaluated for the row, or gives no value where one must be.
    SqlFailed,
    /// An object's gzip or zstd stream is broken or ends early.
    CorruptCompression,
    /// An object is larger, or unpacks to more, than the limits allow.
    ObjectTooLarge,
    /// The store does not hand the object out: it is archived, or has an impossible name.
    ObjectRefused,
    /// A bug: decoding, cleaning or checking an object or a direct record panicked.
    DecoderPanicked,
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
        Self::MalformedCsv,
        Self::RaggedRow,
        Self::MalformedHeader,
        Self::MalformedParquet,
        Self::InvalidUtf8,
        Self::RecordTooLong,
        Self::TooDeep,
        Self::MissingRequired,
        Self::WrongType,
        Self::InvalidValue,
        Self::UnknownField,
        Self::DuplicateField,
        Self::ExpectationFailed,
        Self::SqlFailed,
        Self::CorruptCompression,
        Self::ObjectTooLarge,
        Self::ObjectRefused,
        Self::DecoderPanicked,
        Self::KilledTheProcess,
        Self::ConnectorParked,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedNotification => "malformed_notification",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::MalformedCsv => "malformed_csv",
            Self::RaggedRow => "ragged_row",
            Self::MalformedHeader => "malformed_header",
            Self::MalformedParquet => "malformed_parquet",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::RecordTooLong => "record_too_long",
            Self::TooDeep => "too_deep",
            Self::MissingRequired => "missing_required",
            Self::WrongType => "wrong_type",
            Self::InvalidValue => "invalid_value",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::ExpectationFailed => "expectation_failed",
            Self::SqlFailed => "sql_failed",
            Self::CorruptCompression => "corrupt_compression",
            Self::ObjectTooLarge => "object_too_large",
            Self::ObjectRefused => "object_refused",
            Self::DecoderPanicked => "decoder_panicked",
            Self::KilledTheProcess => "killed_the_process",
            Self::ConnectorParked => "connector_parked",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
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

impl DeadLetter {
    /// Of a row that does not fit.
    pub fn of_row(connector: &str, origin: &Origin, reject: &RowReject, object: Option<ObjectLocation>) -> Self {
        Self {
            connector: connector.to_owned(),
            reason: reject.reason,
            detail: reject.detail.clone(),
            message_offset: origin.message_offset,
            record: Some(origin.record),
            row: Some(reject.row),
            byte_offset: Some(reject.byte_offset),
            object,
            object_version: None,
            bytes: reject.bytes.clone(),
        }
    }

    pub fn place(&self) -> LetterPlace {
        LetterPlace { message_offset: self.message_offset, record: self.record, row: self.row }
    }
}

/// Where a dead letter stands in its topic partition: it stays when its micro-batch is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterPlace {
    pub message_offset: i64,
    /// `None`: the whole message.
    pub record: Option<i32>,
    /// `None`: the whole object.
    pub row: Option<i64>,
}

/// Names a dead letter to people: `<micro-batch>:<offset>:<record>:<row>`, `-` for what a whole message or object lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LetterId {
    pub batch: MicroBatchId,
    pub place: LetterPlace,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn or_dash(number: Option<impl fmt::Display>) -> String {
            number.map_or_else(|| "-".to_owned(), |number| number.to_string())
        }
        let LetterPlace { message_offset, record, row } = self.place;
        write!(f, "{}:{message_offset}:{}:{}", self.batch, or_dash(record), or_dash(row))
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fn part<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
            if text == "-" { Ok(None) } else { text.parse().map(Some) }
        }
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = || {
            let [batch, offset, record, row] = parts[..] else { return None };
            let batch = MicroBatchId(batch.parse().ok()?);
            let message_offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
            let place = LetterPlace { message_offset, record: part(record).ok()?, row: part(row).ok()? };
            (place.record.is_some() || place.row.is_none()).then_some(Self { batch, place })
        };
        parsed().ok_or_else(|| {
            "expected <micro-batch>:<offset>:<record>:<row> as `sluice dead-letters list` prints it, `-` for what it lacks"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        let batch = MicroBatchId::generate();
        for (record, row, text) in [(Some(2), Some(17), "2:17"), (Some(0), None, "0:-"), (None, None, "-:-")] {
            let id = LetterId { batch, place: LetterPlace { message_offset: 5, record, row } };
            assert_eq!(id.to_string(), format!("{batch}:5:{text}"));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let batch = MicroBatchId::generate();
        for text in
            ["", "5:0:1", "x:5:0:1", &format!("{batch}:-1:0:1"), &format!("{batch}:5:-:1"), &format!("{batch}:5:0")]
        {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }
}
