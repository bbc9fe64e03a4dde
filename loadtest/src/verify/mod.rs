//! Compares what is there with what must be: lost, duplicated, phantom, stale and misrejected rows.
//!
//! | finding | in the lake or the warehouse | among dead letters |
//! |---|---|---|
//! | lost | the newest row of a key is not there | a row that does not fit is not kept |
//! | duplicated | a row is there more often than it was produced, or one origin twice | kept twice |
//! | phantom | a row that nobody produced | bytes that nobody produced |
//! | stale | a key with content that it never had, or an older version where the newest must be | – |
//! | misrejected | a row that must be a dead letter, or must be dropped, is there | a good row, or another reason |
//!
//! # What it cannot see
//! Within one micro-batch the pipeline may keep only the newest row of a key. An older row that is missing is
//! therefore accepted in the lake wherever a newer or equal one of the same key is there.

mod compare;
mod report;

use std::path::Path;

use anyhow::Result;

use crate::{Endpoints, ledger, observe};

pub use compare::compare;
pub use report::{Finding, FindingKind, VerifyReport};

/// Reads the ledger, the lake and the warehouse, and compares. An empty ledger is a finding of its own.
pub async fn verify(endpoints: &Endpoints, ledger_folder: &Path) -> Result<VerifyReport> {
    let ledger = ledger::read(ledger_folder)?;
    let observed = observe::observe(endpoints).await?;
    Ok(compare(&ledger, &observed))
}
