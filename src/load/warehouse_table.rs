//! What the warehouse's tables look like: read once at start, compared with the connectors by `plan`.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::GenericClient;

use super::error::LoadError;

/// Schema of everything the loader writes.
pub(super) const SCHEMA: &str = "warehouse";

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WarehouseTable {
    pub columns: BTreeMap<String, TableColumn>,
    /// Columns of each unique key that `ON CONFLICT` can name.
    pub unique_keys: Vec<BTreeSet<String>>,
    /// The column by whose ranges the table is partitioned.
    pub range_column: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct TableColumn {
    /// `information_schema`'s `udt_name`: `int8`, `timestamptz`.
    pub type_name: String,
    pub nullable: bool,
    pub has_default: bool,
    pub numeric_precision: Option<i32>,
    pub numeric_scale: Option<i32>,
    pub text_length_max: Option<i32>,
}

/// The tables of these names that exist and that this user may use.
pub(super) async fn read_tables(
    client: &impl GenericClient,
    names: &[String],
) -> Result<BTreeMap<String, WarehouseTable>, LoadError> {
    let failed = || LoadError::query("read the columns of the warehouse's tables");
    let mut tables: BTreeMap<String, WarehouseTable> = BTreeMap::new();
    for row in client.query(include_str!("sql/select_columns.sql"), &[&SCHEMA, &names]).await.map_err(failed())? {
        let column = TableColumn {
            type_name: row.get("type_name"),
            nullable: row.get("nullable"),
            has_default: row.get("has_default"),
            numeric_precision: row.get("numeric_precision"),
            numeric_scale: row.get("numeric_scale"),
            text_length_max: row.get("text_length_max"),
        };
        tables.entry(row.get("table_name")).or_default().columns.insert(row.get("column_name"), column);
    }
    for row in client.query(include_str!("sql/select_unique_keys.sql"), &[&SCHEMA, &names]).await.map_err(failed())? {
        if let Some(table) = tables.get_mut(row.get::<_, &str>("table_name")) {
            table.unique_keys.push(row.get::<_, Vec<String>>("columns").into_iter().collect());
        }
    }
    for row in client.query(include_str!("sql/select_partitioning.sql"), &[&SCHEMA, &names]).await.map_err(failed())? {
        if let Some(table) = tables.get_mut(row.get::<_, &str>("table_name")) {
            table.range_column = row.get("range_column");
        }
    }
    Ok(tables)
}
