//! How fast the warehouse was loaded and how large its rows are, measured; for people.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;

use super::error::LoadError;

/// What loads have reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadRates {
    /// In the busiest minute.
    pub rows_per_second_max: f64,
    /// By fact, indexes included; facts without statistics yet are left out.
    pub row_bytes: BTreeMap<String, f64>,
}

/// Of so many seconds back.
pub async fn load_rates(client: &impl GenericClient, seconds: f64) -> Result<LoadRates, LoadError> {
    let failed = || LoadError::query("measure the loads");
    let busiest = include_str!("sql/select_busiest_minute.sql");
    let row = client.query_one(busiest, &[&seconds]).await.map_err(failed())?;
    let rows = client.query(include_str!("sql/select_row_bytes.sql"), &[]).await.map_err(failed())?;
    let row_bytes = rows.iter().map(|row| (row.get("fact"), row.get("row_bytes"))).collect();
    Ok(LoadRates { rows_per_second_max: row.get(0), row_bytes })
}
