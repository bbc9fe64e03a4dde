//! `sluice migrate`

use std::io::Write;

use super::{EXIT_DONE, SettingsArgs};
use crate::catalog::{Database, migrate};
use crate::client::postgres;
use crate::config::Need;

#[derive(Debug, Clone, clap::Args)]
pub struct MigrateArgs {}

/// Applies what is missing, under an advisory lock. Safe to run at any time and twice at once.
pub async fn run(settings: &SettingsArgs, _args: &MigrateArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let settings = settings.load(&[Need::Catalog, Need::Warehouse])?;
    for (name, database, server) in
        [("catalog", Database::Catalog, &settings.catalog), ("warehouse", Database::Warehouse, &settings.warehouse)]
    {
        let pool = postgres::pool(server, "migrate")?;
        let report = migrate(&pool, database).await?;
        match report.applied.as_slice() {
            [] => writeln!(out, "{name}: at version {}, nothing to do", report.version)?,
            applied => writeln!(out, "{name}: at version {}, applied {}", report.version, applied.join(", "))?,
        }
    }
    Ok(EXIT_DONE)
}
