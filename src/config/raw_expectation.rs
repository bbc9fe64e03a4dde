//! The expectations of a connector as its YAML spells them. The descriptions are what editors show.

use schemars::JsonSchema;
use serde::Deserialize;

use super::raw_connector::Names;

/// Exactly one of `expr` (of each row), `null_share`, `row_count`, `unique` and `freshness` (of the connector's rows of a
/// micro-batch together).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpectation {
    /// Shown with every row that fails it.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) name: String,
    /// SQL over the connector's columns, boolean. Null counts as failed.
    pub(super) expr: Option<String>,
    /// The share of rows in which a column is null.
    pub(super) null_share: Option<RawNullShare>,
    /// The number of rows, measured by that of earlier micro-batches of the topic partition.
    pub(super) row_count: Option<RawRowCount>,
    /// No two rows have equal values in all these columns; a row with a null in one of them equals no other.
    pub(super) unique: Option<Names>,
    /// How far the newest event time (`staging.time`) lies behind the newest announcement.
    pub(super) freshness: Option<RawFreshness>,
    /// When it is asked; default after_transform for `expr`, before_load for the others.
    pub(super) stage: Option<RawCheckStage>,
    /// What becomes of a row that fails; `warn` or `fail` for the others.
    pub(super) on_fail: RawOnFail,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNullShare {
    pub(super) column: String,
    /// From 0 to less than 1.
    pub(super) max: f64,
}

/// At least one of `min` and `max`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRowCount {
    /// So many earlier micro-batches with rows of the connector; while there are fewer, nothing is concluded.
    #[schemars(range(min = 1))]
    pub(super) last: u32,
    /// The least share of their mean.
    pub(super) min: Option<f64>,
    /// The greatest share of their mean.
    pub(super) max: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFreshness {
    /// A duration such as 30m or 2h.
    pub(super) max: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawCheckStage {
    /// Before any clean step.
    AfterDecode,
    /// After the clean steps.
    AfterTransform,
    /// After dedupe: the rows that will be loaded.
    BeforeLoad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOnFail {
    /// Count it and keep the row.
    Warn,
    /// Let the row go; counted as `filtered`.
    Drop,
    /// The row becomes a dead letter.
    Reject,
    /// The connector is parked, with nothing of the micro-batch committed: `sluice connectors resume`.
    Fail,
}
