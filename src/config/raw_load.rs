//! What of a connector's rows goes into the warehouse, as its YAML spells it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Of a connector with a `warehouse`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLoad {
    /// `all` (the default), or SQL over the staged columns: `amount > 100 AND source <> 'test'`. Rows that it is not true of stay
    /// in the lake.
    pub(super) rows: Option<String>,
    /// Aggregates of the fact, kept exactly with every load.
    #[serde(default)]
    pub(super) rollups: Vec<RawRollup>,
    /// Columns of a dimension whose earlier values are kept, with the times between which they held (type 2): `[category, price]`, in
    /// the table `warehouse.dim_…_history`. All other columns hold what is true now (type 1).
    #[serde(default)]
    pub(super) track_history: Vec<String>,
}

/// A table `warehouse.rollup_<name>` with a row for each hour or day and group that has rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRollup {
    /// Lower-case letters, digits and underscores; no two connectors have a rollup of one name.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub(super) name: String,
    /// What the event time is cut to, in UTC.
    pub(super) by: RawRollupGrain,
    /// Columns of the fact (utf8, uuid, int32, int64 or boolean), or keys of its dimensions such as `product_key`. Of a text the first
    /// 64 characters count. Left out: one row for each hour or day.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub(super) group: Vec<String>,
    /// Column → SQL of count, sum, avg, min, max, bool_and and bool_or over columns of the fact: `sum(amount)`,
    /// `count(*) FILTER (WHERE quantity > 1)`, `sum(amount) / count(*)`.
    pub(super) aggregates: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawRollupGrain {
    Hour,
    Day,
}
