use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// Where an object lies: its real key, not the form-encoded spelling some stores announce.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectLocation {
    pub bucket: String,
    pub key: String,
}

/// One version of an object, as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectVersion {
    pub location: ObjectLocation,
    /// The store's version id, or `etag@last-modified` (RFC 3339, UTC) where the bucket keeps no versions.
    pub version: String,
    /// Without quotes.
    pub etag: String,
    /// The store's clock, milliseconds precision at best.
    pub last_modified: DateTime<Utc>,
    pub size_bytes: u64,
}

/// That a micro-batch consumes an object version: CLAIM-1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectClaim {
    pub version: ObjectVersion,
    pub message_offset: i64,
    /// Index of the record within its message, from 0.
    pub record: i32,
    pub connector: String,
    /// Quarantined objects are claimed too.
    pub quarantined: bool,
    /// Timestamp of the message that announced the object.
    pub announced_at: DateTime<Utc>,
    pub overwrite: Overwrite,
}

/// What becomes of the rows of an object's versions when there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overwrite {
    /// The newest version's stand.
    #[default]
    Replace,
    /// Those of every version stand.
    Append,
    /// The oldest version's stand.
    Reject,
}

impl Overwrite {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Reject => "reject",
        }
    }

    /// As the catalog spells it; anything else appends, which hides nothing.
    pub fn parse(text: &str) -> Self {
        match text {
            "replace" => Self::Replace,
            "reject" => Self::Reject,
            _ => Self::Append,
        }
    }
}

/// An object that a parked connector did not read.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedObject {
    pub message_offset: i64,
    /// Index of the record within its message, from 0.
    pub record: i32,
    pub connector: String,
    pub bucket: String,
    /// As it was announced, perhaps form-encoded.
    pub key: String,
    pub version: Option<String>,
    /// A message that announces it alone.
    pub announcement: serde_json::Value,
}

impl ObjectVersion {
    /// Tie-break in the order among rows of one key: first eight bytes, big-endian, of SHA-256 over
    /// bucket, key and version, each followed by a zero byte.
    pub fn order_hash(&self) -> i64 {
        let mut hash = Sha256::new();
        for part in [&self.location.bucket, &self.location.key, &self.version] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let digest = hash.finalize();
        let mut first = [0u8; 8];
        first.copy_from_slice(&digest[..8]);
        i64::from_be_bytes(first)
    }
}
