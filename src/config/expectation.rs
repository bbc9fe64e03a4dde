//! The expectations of a validated connector.

#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    pub name: String,
    pub stage: CheckStage,
    pub check: Check,
    /// `Warn` or `Fail` where it is asked of a micro-batch.
    pub on_fail: OnFail,
}

/// When an expectation is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckStage {
    /// Before any clean step.
    AfterDecode,
    AfterTransform,
    /// Of the rows that dedupe has left.
    BeforeLoad,
}

impl CheckStage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AfterDecode => "after_decode",
            Self::AfterTransform => "after_transform",
            Self::BeforeLoad => "before_load",
        }
    }
}

/// What is expected: of a row, or of the connector's rows in one micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// SQL over the connector's columns, boolean. Null counts as failed.
    Row(String),
    /// At most this share of the rows has a null in the column.
    NullShare { column: String, max: f64 },
    /// The number of rows as a share of the mean of so many earlier micro-batches of the topic partition.
    RowCount { last: u32, min: Option<f64>, max: Option<f64> },
    /// Of two rows with equal values in all columns, none of them null, one is too many. Not after decoding.
    Unique(Vec<String>),
    /// The newest event time lies at most so far behind the newest announcement of its rows: no clock is asked, so that a
    /// replay comes to the same.
    Freshness { max_ms: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFail {
    Warn,
    Drop,
    Reject,
    /// The connector is parked.
    Fail,
}
