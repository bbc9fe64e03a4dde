//! Keys of members, looked up in the process.
//!
//! # Contract
//! A key is known here only when its member was committed; members never go away and keep their keys, so what is known stays
//! true. At most [`NAMES_MAX`] of a dimension are kept: then the process begins anew with that dimension.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;
use deadpool_postgres::GenericClient;

use super::error::LoadError;
use super::merge_sql;
use super::plan::Link;

/// A key and its name take some 100 bytes.
const NAMES_MAX: usize = 1_000_000;

/// Keys by natural key, by dimension table.
#[derive(Debug, Default)]
pub(super) struct KnownMembers(Mutex<HashMap<String, HashMap<String, i64, RandomState>>>);

impl KnownMembers {
    /// The key of each name, in their order; `None` where no such member is committed. One query for those not known.
    pub(super) async fn keys(
        &self,
        client: &impl GenericClient,
        link: &Link,
        names: &[String],
    ) -> Result<Vec<Option<i64>>, LoadError> {
        let mut keys = self.known(&link.table, names);
        let unknown: Vec<&str> =
            names.iter().zip(&keys).filter(|(_, key)| key.is_none()).map(|(name, _)| name.as_str()).collect();
        if unknown.is_empty() {
            return Ok(keys);
        }
        let mut found = look_up(client, link, &unknown).await?;
        for (name, key) in names.iter().zip(&mut keys) {
            *key = key.or_else(|| found.get(name).copied());
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(link.table.clone()).or_default();
        if known.len() + found.len() > NAMES_MAX {
            known.clear();
        }
        known.extend(found.drain());
        Ok(keys)
    }

    fn known(&self, table: &str, names: &[String]) -> Vec<Option<i64>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.get(table) else { return vec![None; names.len()] };
        names.iter().map(|name| known.get(name).copied()).collect()
    }
}

/// Keys of those names that are members.
pub(super) async fn look_up(
    client: &impl GenericClient,
    link: &Link,
    names: &[&str],
) -> Result<HashMap<String, i64>, LoadError> {
    let rows = client
        .query(&merge_sql::select_members(link), &[&names])
        .await
        .map_err(LoadError::query(format!("look for members of {}", link.table)))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
