//! What can go wrong while loading, and what to do about it.

use thiserror::Error;

use crate::catalog::CatalogError;
use crate::client::postgres::{PostgresError, kind_of};
use crate::error::ErrorKind;

#[derive(Debug, Error)]
pub enum LoadError {
    #[error("could not reach the warehouse")]
    Connect(#[source] PostgresError),
    #[error("could not {operation}")]
    Query { operation: String, source: tokio_postgres::Error },
    /// Whether the rows are there is unknown; loading the same micro-batch again answers it.
    #[error("could not commit the load")]
    Commit(#[source] tokio_postgres::Error),
    #[error("could not ask the catalog whether the micro-batch is still live")]
    StillLive(#[source] CatalogError),
    #[error("connector `{connector}` does not fit the warehouse: {problem}")]
    Mismatch { connector: String, problem: String },
    #[error("the warehouse's database has the encoding {found}: create it with ENCODING 'UTF8'")]
    NotUtf8 { found: String },
    #[error("the loader was made without connector `{0}`")]
    UnknownConnector(String),
    #[error("a row says it comes from offset {offset}, record {record}, which the micro-batch does not name")]
    OriginMissing { offset: i64, record: i32 },
    #[error("column `{column}` of connector `{connector}` cannot be read from the lake")]
    Column { connector: String, column: String, source: arrow::error::ArrowError },
    #[error("column `{column}` of connector `{connector}` holds what is no UUID")]
    NotUuid { connector: String, column: String, source: uuid::Error },
    #[error("column `{column}` of connector `{connector}` holds a null where it must not")]
    UnexpectedNull { connector: String, column: String },
    #[error("could not encode rows of connector `{connector}` for COPY")]
    Encode { connector: String, source: pgpq::error::ErrorKind },
    /// The next try makes it again.
    #[error("a partition was taken away")]
    PartitionGone(#[source] tokio_postgres::Error),
    /// The warehouse was restored from a backup. The next try looks them up.
    #[error("members of {table} are not what they were: they are looked up anew")]
    MembersChanged { table: String },
    /// A member never goes away, so somebody deleted it.
    #[error("a member that the load made or found is not there any more")]
    MemberMissing,
    #[error("the definition of {name} in warehouse.rollup is none that this binary knows: upgrade it")]
    RollupUnknown { name: String, source: serde_json::Error },
    #[error("the history of {dimension} in warehouse.dimension_history is none that this binary knows: upgrade it")]
    HistoryUnknown { dimension: String, source: serde_json::Error },
    /// Started with connectors of before, or of after.
    #[error(
        "warehouse.key_map does not say of {fact} what its connectors say of `time_changes`: let all of them say the same, and restart"
    )]
    TimesKept { fact: String },
    #[error("the filter of connector `{connector}` cannot be planned")]
    Filter { connector: String, source: Box<datafusion::error::DataFusionError> },
    #[error("could not tell which cells of a rollup rows belong to")]
    Cells(#[source] arrow::error::ArrowError),
    #[error("the task that prepares rows died")]
    Prepare(#[source] tokio::task::JoinError),
}

impl LoadError {
    pub(super) fn query(operation: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Query { operation: operation.into(), source }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(source) => source.kind(),
            Self::PartitionGone(_) | Self::MembersChanged { .. } => ErrorKind::Transient,
            Self::Query { source, .. } | Self::Commit(source) if is_partition_missing(source) => ErrorKind::Transient,
            Self::Query { source, .. } | Self::Commit(source) => kind_of(source),
            Self::StillLive(source) => source.kind(),
            Self::Mismatch { .. }
            | Self::NotUtf8 { .. }
            | Self::RollupUnknown { .. }
            | Self::HistoryUnknown { .. }
            | Self::TimesKept { .. }
            | Self::Filter { .. } => ErrorKind::Invalid,
            Self::UnknownConnector(_)
            | Self::OriginMissing { .. }
            | Self::Column { .. }
            | Self::NotUuid { .. }
            | Self::UnexpectedNull { .. }
            | Self::Encode { .. }
            | Self::Cells(_)
            | Self::MemberMissing
            | Self::Prepare(_) => ErrorKind::Halt,
        }
    }
}

/// A day's partition was detached after we had seen it: `no partition of relation … found for row`,
/// which is a check violation without a constraint. The next try creates it again.
fn is_partition_missing(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == tokio_postgres::error::SqlState::CHECK_VIOLATION && error.constraint().is_none()
    })
}
