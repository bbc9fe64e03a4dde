//! Schemas that data made of connectors.

use deadpool_postgres::GenericClient;
use serde_json::Value;

use super::CatalogError;
use crate::types::MicroBatchId;

/// A schema that rows of a micro-batch have, other than the declared one.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaVersion {
    pub connector: String,
    /// Schema revision of the connector as its file declares it.
    pub declared_revision: String,
    pub schema_revision: String,
    /// `[{"name": …, "type": …}, …]`
    pub fields: Value,
}

/// Schemas that are known already are left as they are.
pub async fn insert_schema_versions(
    client: &impl GenericClient,
    id: MicroBatchId,
    schemas: &[SchemaVersion],
) -> Result<(), CatalogError> {
    let column = |text: fn(&SchemaVersion) -> &str| schemas.iter().map(text).collect::<Vec<_>>();
    client
        .execute(
            include_str!("sql/insert_schema_versions.sql"),
            &[
                &id.0,
                &column(|schema| &schema.connector),
                &column(|schema| &schema.declared_revision),
                &column(|schema| &schema.schema_revision),
                &schemas.iter().map(|schema| &schema.fields).collect::<Vec<_>>(),
            ],
        )
        .await
        .map_err(CatalogError::query("insert the schemas of a micro-batch"))?;
    Ok(())
}

/// Connector and fields of every schema known of these connectors: (name, declared schema revision).
pub async fn schema_versions(
    client: &impl GenericClient,
    connectors: &[(&str, &str)],
) -> Result<Vec<(String, Value)>, CatalogError> {
    let (names, revisions): (Vec<&str>, Vec<&str>) = connectors.iter().copied().unzip();
    let rows = client
        .query(include_str!("sql/select_schema_versions.sql"), &[&names, &revisions])
        .await
        .map_err(CatalogError::query("read the schemas of connectors"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
