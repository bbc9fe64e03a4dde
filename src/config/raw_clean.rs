//! The clean steps of a connector as its YAML spells them. The descriptions are what editors show.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw_connector::{Names, Scalar};

/// One step; exactly one key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct RawCleanStep {
    /// Cuts white space off both ends; utf8 columns.
    pub(super) trim: Option<Names>,
    /// utf8 columns.
    pub(super) lowercase: Option<Names>,
    /// utf8 columns.
    pub(super) uppercase: Option<Names>,
    /// Column → value for nulls and, in utf8 columns, empty strings.
    pub(super) default: Option<BTreeMap<String, Scalar>>,
    /// Spellings that mean that there is no value.
    pub(super) nulls: Option<RawNulls>,
    /// Column → the least and the greatest value; one beyond becomes the bound. Numbers and timestamp_ms.
    #[schemars(extend("minProperties" = 1))]
    pub(super) clamp: Option<BTreeMap<String, RawClamp>>,
    /// Puts text in the place of whatever a regular expression finds.
    pub(super) replace: Option<RawReplace>,
    /// Puts one value in the place of another.
    pub(super) map: Option<RawMap>,
    /// Hides characters of personal data.
    pub(super) mask: Option<RawMask>,
    /// Puts a keyed hash (HMAC-SHA256, 64 hexadecimal digits) in the place of personal data.
    pub(super) hash: Option<RawHash>,
    /// Reads a quantity such as `1.5 kg` as a number of one unit, exactly.
    pub(super) parse_units: Option<RawParseUnits>,
    /// Of rows of a micro-batch with equal values in all these columns, the newest stays; with a window, only what is newer
    /// than those that earlier micro-batches have passed.
    pub(super) dedupe: Option<RawDedupe>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawDedupe {
    Within(RawDedupeWithin),
    Batch(Names),
}

/// Across the micro-batches of a topic partition.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDedupeWithin {
    /// The key.
    pub(super) by: Names,
    /// Duration of event time (`staging.time`), such as `1h`: how far keys are remembered behind the greatest that has passed.
    pub(super) window: String,
    /// Rows remembered for each topic partition; 1000000 where nothing is said. Beyond that the window reaches back less far.
    #[schemars(range(min = 1))]
    pub(super) max_rows: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNulls {
    /// utf8 columns.
    pub(super) columns: Names,
    /// Whole values, letter for letter.
    pub(super) values: Names,
}

/// At least one of both, spelt as the column's type.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClamp {
    pub(super) min: Option<Scalar>,
    pub(super) max: Option<Scalar>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReplace {
    /// utf8 columns.
    pub(super) columns: Names,
    /// A regular expression (syntax of Rust's `regex`); every match is replaced.
    pub(super) pattern: String,
    /// `${1}` or `${name}` stands for a group of the pattern, `$$` for a dollar sign.
    pub(super) with: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMap {
    /// utf8 columns.
    pub(super) columns: Names,
    /// Value → what takes its place; whole values, letter for letter.
    #[schemars(extend("minProperties" = 1))]
    pub(super) values: BTreeMap<String, Scalar>,
    /// What becomes of a value that is not listed; default keep. Null stays null.
    #[serde(default)]
    pub(super) otherwise: RawOtherwise,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOtherwise {
    /// It stays.
    #[default]
    Keep,
    /// It becomes null.
    Clear,
    /// The row becomes a dead letter.
    Reject,
}

/// Exactly one of `keep_last` and `fixed`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMask {
    /// utf8 columns.
    pub(super) columns: Names,
    /// So many characters at the end stay, each before them becomes `*`; a value that is not longer is hidden whole.
    pub(super) keep_last: Option<u32>,
    /// Stands for every value.
    pub(super) fixed: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHash {
    /// utf8 columns.
    pub(super) columns: Names,
    /// Name of the key: the settings hold it as SLUICE_SECRETS__<NAME> or as `secrets.<name>.file`.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) key: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawParseUnits {
    /// The utf8 column with the quantity.
    pub(super) from: String,
    /// The int32, int64 or decimal column for the number; where `from` is null it stays as it is.
    pub(super) to: String,
    /// Unit of the number: of mass, length, volume, data or time, such as g, mm, ml, B, s.
    pub(super) unit: String,
}
