//! Rollups as the loader uses them: aggregates of a fact by the hour or day of its event time, and by columns.

use serde::{Deserialize, Serialize};

/// Aggregates of a fact that the loader keeps beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// `revenue_hourly`; its table is `warehouse.rollup_revenue_hourly`.
    pub name: String,
    pub grain: RollupGrain,
    /// Columns of the fact; nulls make a group as well.
    pub group: Vec<String>,
    /// In the order of their names.
    pub aggregates: Vec<RollupAggregate>,
}

/// How long a cell is, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollupGrain {
    Hour,
    Day,
}

/// A column of a rollup's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollupAggregate {
    pub name: String,
    /// PostgreSQL's, over columns of the fact `f`; no row can make it fail.
    pub sql: String,
    /// As the connector has it.
    pub declared: String,
    /// The columns that it names, sorted, each once.
    pub columns: Vec<String>,
}

impl RollupGrain {
    /// Name of the column with the cell's beginning, and PostgreSQL's name for the unit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub fn millis(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

impl Rollup {
    /// Without its schema.
    pub fn table(&self) -> String {
        format!("rollup_{}", self.name)
    }
}
