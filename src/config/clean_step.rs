//! The clean steps of a validated connector.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::error::{ConfigError, ConfigErrors, Place};
use super::{Connector, Connectors, Unit, revision};

/// Columns are utf8 where nothing else is said. Null stays null but for `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanStep {
    /// Cuts white space (Unicode) off both ends.
    Trim(Vec<String>),
    Lowercase(Vec<String>),
    Uppercase(Vec<String>),
    /// Replaces nulls and, in utf8 columns, empty strings. Values as the connector spells them,
    /// parsed as the column's type when it was validated.
    Default(Vec<(String, String)>),
    /// These values become null.
    Nulls {
        columns: Vec<String>,
        values: Vec<String>,
    },
    Clamp(Vec<Clamp>),
    /// Every match of the pattern; `with` may name its groups.
    Replace {
        columns: Vec<String>,
        pattern: String,
        with: String,
    },
    /// Value → value, in the order of the former.
    Map {
        columns: Vec<String>,
        values: Vec<(String, String)>,
        otherwise: Otherwise,
    },
    Mask {
        columns: Vec<String>,
        mask: Mask,
    },
    /// HMAC-SHA256 as 64 hexadecimal digits.
    Hash {
        columns: Vec<String>,
        key: HashKey,
    },
    /// A quantity of `from` as a number of `unit` in the int32, int64 or decimal column `to`.
    ParseUnits {
        from: String,
        to: String,
        unit: Unit,
    },
    /// Within a micro-batch, of rows with equal values in all these columns only the newest stays:
    /// the greatest (`warehouse.newer_by` else origin time, origin time, order hash, row).
    Dedupe(Vec<String>),
    /// The same, and of rows with keys that earlier micro-batches of the topic partition have passed only newer ones stay.
    DedupeWithin(DedupeWindow),
}

/// What a topic partition's rows are held against: the keys of rows that it has passed, by event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupeWindow {
    /// The key.
    pub columns: Vec<String>,
    /// How far it reaches back from the greatest event time that has passed.
    pub window_ms: i64,
    /// Where it held more rows, it reaches back less far.
    pub rows_max: u64,
}

impl Connector {
    /// That of its `dedupe` step, if it has one.
    pub fn dedupe_window(&self) -> Option<&DedupeWindow> {
        self.clean.iter().find_map(|step| match step {
            CleanStep::DedupeWithin(window) => Some(window),
            _ => None,
        })
    }
}

impl CleanStep {
    /// The key in the YAML, and the label of metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trim(_) => "trim",
            Self::Lowercase(_) => "lowercase",
            Self::Uppercase(_) => "uppercase",
            Self::Default(_) => "default",
            Self::Nulls { .. } => "nulls",
            Self::Clamp(_) => "clamp",
            Self::Replace { .. } => "replace",
            Self::Map { .. } => "map",
            Self::Mask { .. } => "mask",
            Self::Hash { .. } => "hash",
            Self::ParseUnits { .. } => "parse_units",
            Self::Dedupe(_) | Self::DedupeWithin(_) => "dedupe",
        }
    }

    /// Whether it relies on the types that its columns have.
    pub(super) fn is_typed(&self) -> bool {
        !matches!(self, Self::Trim(_) | Self::Lowercase(_) | Self::Uppercase(_) | Self::Default(_))
    }

    /// Those that it reads or writes.
    pub(super) fn columns(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Trim(columns)
            | Self::Lowercase(columns)
            | Self::Uppercase(columns)
            | Self::Nulls { columns, .. }
            | Self::Replace { columns, .. }
            | Self::Map { columns, .. }
            | Self::Mask { columns, .. }
            | Self::Hash { columns, .. }
            | Self::Dedupe(columns)
            | Self::DedupeWithin(DedupeWindow { columns, .. }) => Box::new(columns.iter().map(String::as_str)),
            Self::Default(values) => Box::new(values.iter().map(|(column, _)| column.as_str())),
            Self::Clamp(clamps) => Box::new(clamps.iter().map(|clamp| clamp.column.as_str())),
            Self::ParseUnits { from, to, .. } => Box::new([from.as_str(), to.as_str()].into_iter()),
        }
    }
}

/// Bounds of an int32, int64, float64, decimal or timestamp_ms column, as the connector spells them; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clamp {
    pub column: String,
    pub min: Option<String>,
    pub max: Option<String>,
}

/// What becomes of a value that a map does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    Keep,
    /// It becomes null.
    Clear,
    Reject,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// So many characters at the end stay; a value that is not longer is hidden whole.
    KeepLast(usize),
    Fixed(String),
}

/// A key by its name; the secret itself comes from the settings ([`Connectors::with_keys`]) and is shown nowhere.
#[derive(Debug, Clone)]
pub struct HashKey {
    pub name: String,
    secret: Option<Arc<SecretString>>,
}

/// Two keys are equal where nothing tells them apart that may be written down.
impl PartialEq for HashKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.fingerprint() == other.fingerprint()
    }
}

impl Eq for HashKey {}

/// What is hashed for the fingerprint of a key.
const FINGERPRINT_OF: &[u8] = b"sluice key fingerprint";
const FINGERPRINT_DIGITS: usize = 8;

impl HashKey {
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), secret: None }
    }

    #[must_use]
    pub fn with_secret(self, secret: SecretString) -> Self {
        Self { secret: Some(Arc::new(secret)), ..self }
    }

    /// `None`: the settings lack it.
    pub fn hasher(&self) -> Option<Hmac<Sha256>> {
        let secret = self.secret.as_ref()?.expose_secret();
        Some(Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// Tells keys apart and nothing else: eight hexadecimal digits. It stands in the connector's revision.
    pub fn fingerprint(&self) -> Option<String> {
        let mut hasher = self.hasher()?;
        hasher.update(FINGERPRINT_OF);
        let mut text = String::with_capacity(FINGERPRINT_DIGITS);
        for byte in hasher.finalize().into_bytes().iter().take(FINGERPRINT_DIGITS / 2) {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Some(text)
    }
}

impl Connector {
    fn keys(&self) -> impl Iterator<Item = &HashKey> {
        self.clean.iter().filter_map(|step| match step {
            CleanStep::Hash { key, .. } => Some(key),
            _ => None,
        })
    }
}

impl Connectors {
    /// Gives the `hash` steps their keys. The revision of a connector that has one names its fingerprint: rows hashed
    /// by another key are another output.
    #[must_use]
    pub fn with_keys(mut self, secrets: &BTreeMap<String, SecretString>) -> Self {
        for connector in &mut self.all {
            if connector.keys().all(|key| !secrets.contains_key(&key.name)) {
                continue;
            }
            let connector = Arc::make_mut(connector);
            for step in &mut connector.clean {
                if let CleanStep::Hash { key, .. } = step
                    && let Some(secret) = secrets.get(&key.name)
                {
                    *key = HashKey::named(&key.name).with_secret(secret.clone());
                }
            }
            let sql = connector.transform.as_ref().map(|transform| transform.sql.as_str());
            let revision = revision::of_connector(connector, sql, connector.join_tables());
            if let Some(transform) = &mut connector.transform {
                let transform = Arc::make_mut(transform);
                Arc::make_mut(&mut transform.dataset).revision.clone_from(&revision);
            }
            connector.revision = revision;
        }
        self
    }

    /// That every key is there, for commands that clean rows; names each that is missing and where to give it.
    pub fn require_keys(&self) -> Result<(), ConfigErrors> {
        let mut missing = Vec::new();
        for connector in &self.all {
            for key in connector.keys().filter(|key| key.secret.is_none()) {
                let name = &key.name;
                let message = format!("connector `{}` hashes by key `{name}`, which is not set", connector.name);
                let help = format!(
                    "set SLUICE_SECRETS__{} in the environment or `secrets.{name}.file` in sluice.yaml",
                    name.to_uppercase()
                );
                missing.push(ConfigError::Invalid { place: Place::Nowhere, message, help: Some(help) });
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(ConfigErrors(missing)) }
    }
}
