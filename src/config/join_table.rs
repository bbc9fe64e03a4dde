//! Tables that the SQL of a connector joins with its rows.
//!
//! # Contract
//! The columns of a table are known when its connector is loaded, so SQL is planned once. The rows of a file are read then
//! as well, and never change: they are part of the connector's revision. The rows of a dimension are read from the
//! warehouse while the process runs, and change with it: they are the one part of a connector that does, and are replaced
//! as a whole ([`JoinTable::replace`]). Whoever transforms rows takes what there is at that moment ([`JoinTable::rows`]).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};

use super::query::column_of;
use super::{Connector, Connectors, Field};

#[derive(Debug)]
pub struct JoinTable {
    /// What SQL calls it.
    pub name: String,
    pub columns: Vec<Field>,
    pub source: JoinSource,
    rows: RwLock<Option<RecordBatch>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinSource {
    /// A file beside the connector; SHA-256 of its bytes, in hexadecimal digits.
    File { hash: String },
    /// `warehouse.dim_<dimension>`, read again at an interval.
    Dimension { dimension: String, refresh: Duration },
}

impl PartialEq for JoinTable {
    /// Whatever rows it has now.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.columns == other.columns && self.source == other.source
    }
}

impl JoinTable {
    pub fn of_file(name: String, columns: Vec<Field>, hash: String, rows: RecordBatch) -> Self {
        Self { name, columns, source: JoinSource::File { hash }, rows: RwLock::new(Some(rows)) }
    }

    /// Without rows until they are read.
    pub fn of_dimension(name: String, columns: Vec<Field>, dimension: String, refresh: Duration) -> Self {
        Self { name, columns, source: JoinSource::Dimension { dimension, refresh }, rows: RwLock::new(None) }
    }

    /// Every column may be null. Columns of JSON and UUIDs are known as such to SQL.
    pub fn schema(&self) -> SchemaRef {
        schema_of(&self.columns)
    }

    /// The rows that it has now: [`JoinTable::schema`]. `None`: they were never read.
    pub fn rows(&self) -> Option<RecordBatch> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts other rows in the place of all that it has: [`JoinTable::schema`].
    pub fn replace(&self, rows: RecordBatch) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }
}

/// Of a table with these columns.
pub(super) fn schema_of(columns: &[Field]) -> SchemaRef {
    let columns = columns.iter().map(|column| column_of(column).with_nullable(true));
    Arc::new(Schema::new(columns.collect::<Vec<ArrowField>>()))
}

impl Connector {
    /// Tables that its SQL joins with its rows.
    pub fn join_tables(&self) -> &[Arc<JoinTable>] {
        self.transform.as_ref().map_or(&[], |transform| &transform.tables)
    }

    /// Those whose rows are dimensions of the warehouse.
    pub fn joined_dimensions(&self) -> impl Iterator<Item = &Arc<JoinTable>> {
        self.join_tables().iter().filter(|table| matches!(table.source, JoinSource::Dimension { .. }))
    }
}

impl Connectors {
    /// Whether rows of any of them cannot be transformed before the warehouse was read.
    pub fn join_dimensions(&self) -> bool {
        self.all.iter().any(|connector| connector.joined_dimensions().next().is_some())
    }
}
