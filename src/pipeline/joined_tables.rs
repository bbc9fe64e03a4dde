//! Dimensions of the warehouse that the SQL of connectors joins: read before any row is transformed, then again and again.
//!
//! # Contract
//! A table is read whole, in one statement, and replaced whole; plans stay. What a row is joined with is the dimension as this
//! process has read it last: so a replay joins with the dimension of its own day. Members that facts have named before they
//! arrived (`inferred`) and the unknown member are left out: joining with them would make rows depend on what was loaded
//! before. Times are cut to milliseconds; `-infinity` and `infinity` are the years 1 and 9999.
//!
//! # Retries
//! Before the start, as for every server: until `limits.start_deadline`, and no row is read meanwhile. Later a table that
//! cannot be read stays as it is, its age grows (`sluice_table_age_seconds`), and it is tried again soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use futures::TryStreamExt as _;
use thiserror::Error;
use tokio::sync::watch;
use tokio_postgres::types::ToSql;

use super::run::RunError;
use crate::client::postgres::{self, PostgresError, kind_of};
use crate::config::{
    Connectors, FieldType, HISTORY_SUFFIX, JoinSource, JoinTable, Settings, TableRows, TableRowsError, member_key,
};
use crate::error::{ErrorKind, chain};
use crate::telemetry::metrics;

/// Between looks at what is due.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// Until a table is tried again that could not be read, unless it is due sooner anyway.
const RETRY_WAIT: Duration = Duration::from_secs(15);

#[derive(Debug, Error)]
pub enum TableError {
    #[error("could not reach the warehouse")]
    Connect(#[source] PostgresError),
    #[error("could not read {table}")]
    Query { table: String, source: tokio_postgres::Error },
    #[error("table `{name}` of connector `{connector}` does not fit {table}: {problem}")]
    Mismatch { connector: String, name: String, table: String, problem: String },
    /// A load role makes histories, and may not have begun.
    #[error("table `{name}` of connector `{connector}`: there is no {table}, or this user may not read it")]
    Missing { connector: String, name: String, table: String },
    #[error("the task that reads a table died")]
    Died(#[source] tokio::task::JoinError),
}

impl TableError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(source) => source.kind(),
            Self::Query { source, .. } => kind_of(source),
            Self::Mismatch { .. } => ErrorKind::Invalid,
            Self::Missing { .. } => ErrorKind::Transient,
            Self::Died(_) => ErrorKind::Halt,
        }
    }
}

/// The dimensions that connectors join.
pub(super) struct JoinedTables {
    warehouse: Pool,
    tables: Vec<Joined>,
}

struct Joined {
    connector: String,
    table: Arc<JoinTable>,
    dimension: String,
    refresh: Duration,
    read_at: Option<Instant>,
    due_at: Instant,
}

/// Reads the dimensions that connectors join, once: for commands that look at rows.
pub async fn read_joined_tables(settings: &Settings, connectors: &Connectors) -> Result<(), TableError> {
    let warehouse = postgres::pool(&settings.warehouse, "tables").map_err(TableError::Connect)?;
    JoinedTables::new(connectors, warehouse).read_all().await
}

impl JoinedTables {
    pub(super) fn new(connectors: &Connectors, warehouse: Pool) -> Self {
        let due_at = Instant::now();
        let tables = connectors.all.iter().flat_map(|connector| {
            connector.join_tables().iter().filter_map(move |table| match &table.source {
                JoinSource::File { .. } => None,
                JoinSource::Dimension { dimension, refresh } => Some(Joined {
                    connector: connector.name.clone(),
                    table: Arc::clone(table),
                    dimension: dimension.clone(),
                    refresh: *refresh,
                    read_at: None,
                    due_at,
                }),
            })
        });
        Self { warehouse, tables: tables.collect() }
    }

    /// Reads every table. Before it has returned no row of its connector may be transformed.
    pub(super) async fn read_all(&mut self) -> Result<(), TableError> {
        for joined in &mut self.tables {
            joined.read(&self.warehouse).await?;
        }
        Ok(())
    }

    /// Reads each table again when it is due, until the process stops.
    pub(super) async fn watch(mut self, mut stopped: watch::Receiver<bool>) -> Result<(), RunError> {
        let rounds = async {
            while !self.tables.is_empty() {
                for joined in &mut self.tables {
                    if joined.due_at <= Instant::now() {
                        joined.read_again(&self.warehouse).await;
                    }
                    joined.gauge_age();
                }
                tokio::time::sleep(LOOK_WAIT).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        Ok(())
    }
}

impl Joined {
    async fn read_again(&mut self, warehouse: &Pool) {
        if let Err(error) = self.read(warehouse).await {
            metrics().errors.with_label_values(&["table", error.kind().as_str()]).inc();
            tracing::warn!(component = "table", connector = %self.connector, table = %self.table.name, error = %chain(&error), "could not read a table that is joined, its rows stay as they are");
            self.due_at = Instant::now() + RETRY_WAIT.min(self.refresh);
        }
    }

    async fn read(&mut self, warehouse: &Pool) -> Result<(), TableError> {
        let begun = Instant::now();
        let client = postgres::get(warehouse).await.map_err(TableError::Connect)?;
        let name = format!("warehouse.dim_{}", self.dimension);
        let failed = |source| TableError::Query { table: name.clone(), source };
        let mismatch = |problem| TableError::Mismatch {
            connector: self.connector.clone(),
            name: self.table.name.clone(),
            table: name.clone(),
            problem,
        };
        let table = format!("dim_{}", self.dimension);
        let known = client.query(include_str!("sql/select_dimension_columns.sql"), &[&table]).await.map_err(failed)?;
        let known: Vec<(String, String)> = known.iter().map(|row| (row.get(0), row.get(1))).collect();
        if known.is_empty() {
            let (connector, table_name) = (self.connector.clone(), self.table.name.clone());
            return Err(TableError::Missing { connector, name: table_name, table: name });
        }
        let sql = select(&self.dimension, &self.table, &known).map_err(mismatch)?;
        let none: [&(dyn ToSql + Sync); 0] = [];
        let stream = client.query_raw(&sql, none).await.map_err(failed)?;
        let mut stream = std::pin::pin!(stream);
        let mut rows = TableRows::new(&self.table.columns);
        while let Some(row) = stream.try_next().await.map_err(failed)? {
            let values = (0..row.len()).map(|place| row.get::<_, Option<&str>>(place));
            rows.push(values).map_err(|error: TableRowsError| mismatch(error.to_string()))?;
        }
        let schema = self.table.schema();
        let rows = tokio::task::spawn_blocking(move || rows.finish(schema)).await.map_err(TableError::Died)?;
        let labels = [self.connector.as_str(), self.table.name.as_str()];
        metrics().table_rows.with_label_values(&labels).set(rows.num_rows() as i64);
        tracing::debug!(component = "table", connector = %self.connector, table = %self.table.name, rows = rows.num_rows(), "read a table that is joined");
        self.table.replace(rows);
        // as old as the statement that read it
        (self.read_at, self.due_at) = (Some(begun), begun + self.refresh);
        self.gauge_age();
        Ok(())
    }

    fn gauge_age(&self) {
        if let Some(read_at) = self.read_at {
            let labels = [self.connector.as_str(), self.table.name.as_str()];
            metrics().table_age_seconds.with_label_values(&labels).set(read_at.elapsed().as_secs() as i64);
        }
    }
}

/// The members of a dimension as texts, in an order that their values decide. `known`: name and type of its columns.
fn select(dimension: &str, table: &JoinTable, known: &[(String, String)]) -> Result<String, String> {
    let mut columns = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        let name = &column.name;
        let Some((_, found)) = known.iter().find(|(known, _)| known == name) else {
            return Err(format!("it has no column `{name}`"));
        };
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        columns.push(match column.data_type {
            FieldType::TimestampMs if found != "timestamp with time zone" => {
                return Err(format!("column `{name}` is {found}, which is no moment"));
            }
            FieldType::TimestampMs => format!(
                "CASE {quoted} WHEN 'infinity' THEN '9999-12-31T23:59:59.999Z' WHEN '-infinity' THEN '0001-01-01T00:00:00Z' \
                 ELSE floor(extract(epoch FROM {quoted}) * 1000)::bigint::text END"
            ),
            FieldType::Json => format!("nullif({quoted}::text, 'null')"),
            _ => format!("{quoted}::text"),
        });
    }
    let has = |name: &str| known.iter().any(|(known, _)| known == name);
    let versions_of = dimension.strip_suffix(HISTORY_SUFFIX);
    let key = member_key(versions_of.unwrap_or(dimension));
    let mut wanted = vec!["true".to_owned()];
    wanted.extend(has(&key).then(|| format!("\"{key}\" <> 0")));
    wanted.extend(has("inferred").then(|| "NOT inferred".to_owned()));
    // versions do not tell themselves whether their member has come
    wanted.extend(versions_of.filter(|_| has(&key)).map(|members| {
        format!("\"{key}\" NOT IN (SELECT m.\"{key}\" FROM warehouse.\"dim_{members}\" m WHERE m.inferred)")
    }));
    let order: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
    Ok(format!(
        "SELECT {} FROM warehouse.\"dim_{dimension}\" WHERE {} ORDER BY {}",
        columns.join(", "),
        wanted.join(" AND "),
        order.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Field;

    fn table(columns: &[(&str, FieldType)]) -> JoinTable {
        let column = |(name, data_type): &(&str, FieldType)| Field {
            name: (*name).to_owned(),
            data_type: *data_type,
            required: false,
            formats: Vec::new(),
            header: None,
            path: None,
        };
        let columns = columns.iter().map(column).collect();
        JoinTable::of_dimension("p".to_owned(), columns, "products".to_owned(), Duration::from_secs(1))
    }

    fn known(columns: &[(&str, &str)]) -> Vec<(String, String)> {
        columns.iter().map(|(name, data_type)| ((*name).to_owned(), (*data_type).to_owned())).collect()
    }

    #[test]
    fn members_are_read_without_the_unknown_and_the_inferred_ones_and_in_an_order() {
        let dimension = known(&[("product_key", "bigint"), ("product_id", "text"), ("inferred", "boolean")]);
        let sql = select("products", &table(&[("product_id", FieldType::Utf8)]), &dimension).unwrap();
        assert_eq!(
            sql,
            "SELECT \"product_id\"::text FROM warehouse.\"dim_products\" \
             WHERE true AND \"product_key\" <> 0 AND NOT inferred ORDER BY 1"
        );
        let history =
            known(&[("product_key", "bigint"), ("product_id", "text"), ("valid_to", "timestamp with time zone")]);
        let sql = select("products_history", &table(&[("product_id", FieldType::Utf8)]), &history).unwrap();
        assert!(
            sql.ends_with(
                "\"dim_products_history\" WHERE true AND \"product_key\" <> 0 AND \"product_key\" NOT IN \
                 (SELECT m.\"product_key\" FROM warehouse.\"dim_products\" m WHERE m.inferred) ORDER BY 1"
            ),
            "{sql}"
        );
    }

    #[test]
    fn a_table_that_does_not_fit_is_told() {
        let dimension = known(&[("product_id", "text"), ("updated", "date")]);
        let told = |columns: &[(&str, FieldType)], known: &[(String, String)]| {
            select("products", &table(columns), known).unwrap_err()
        };
        assert_eq!(told(&[("colour", FieldType::Utf8)], &dimension), "it has no column `colour`");
        assert_eq!(
            told(&[("updated", FieldType::TimestampMs)], &dimension),
            "column `updated` is date, which is no moment"
        );
    }
}
