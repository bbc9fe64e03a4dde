//! Keys of members, looked up in the process.
//!
//! # Contract
//! A key is known here only when its member was committed; members never go away and keep their keys, so what is known stays
//! true, unless the warehouse is restored from a backup beneath the process. So each load looks whether the newest member
//! that is known still stands ([`KnownMembers::still_stand`]): keys are given in ascending order, so a backup that lacks any
//! lacks that one, but for members that were being made at the very moment of the backup.
//! At most [`NAMES_MAX`] of a dimension are kept: then the process begins anew with that dimension.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;
use deadpool_postgres::GenericClient;

use super::error::LoadError;
use super::merge_sql;
use super::plan::{Link, TablePlan};

/// A key and its name take some 100 bytes.
const NAMES_MAX: usize = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct KnownMembers {
    /// By dimension table.
    known: Mutex<HashMap<String, Known>>,
    /// Held by whoever asks the server: loads that begin together name the same members, and what one is told the others know.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// By natural key.
    keys: HashMap<String, i64, RandomState>,
    /// Keys are given in ascending order: the greatest is the newest.
    newest: Option<(i64, String)>,
}

impl KnownMembers {
    /// The key of each name, in their order; `None` where no such member is committed. One query for those not known.
    pub(super) async fn keys(
        &self,
        client: &impl GenericClient,
        link: &Link,
        names: &[String],
    ) -> Result<Vec<Option<i64>>, LoadError> {
        let keys = self.known(&link.table, names);
        if keys.iter().all(Option::is_some) {
            return Ok(keys);
        }
        let _asking = self.asking.lock().await;
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
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(link.table.clone()).or_default();
        if known.keys.len() + found.len() > NAMES_MAX {
            known.keys.clear();
        }
        let newest = found
            .iter()
            .map(|(name, key)| (*key, name))
            .max()
            .filter(|(key, _)| known.newest.as_ref().is_none_or(|(newest, _)| newest < key));
        known.newest = newest.map(|(key, name)| (key, name.clone())).or(known.newest.take());
        known.keys.extend(found.drain());
        Ok(keys)
    }

    /// Whether the newest known member of the dimension is there with its key; otherwise all of them are forgotten.
    pub(super) async fn still_stand(&self, client: &impl GenericClient, link: &Link) -> Result<bool, LoadError> {
        let newest = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = known.get(&link.table).and_then(|known| known.newest.clone());
            let Some(newest) = newest else { return Ok(true) };
            newest
        };
        let (key, name) = newest;
        let stands = look_up(client, link, &[&name]).await?.get(&name) == Some(&key);
        if !stands {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&link.table);
        }
        Ok(stands)
    }

    fn known(&self, table: &str, names: &[String]) -> Vec<Option<i64>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.get(table) else { return vec![None; names.len()] };
        names.iter().map(|name| known.keys.get(name).copied()).collect()
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

/// Facts that name nobody point at it, so it must be there.
pub(super) async fn check_unknown_members(client: &impl GenericClient, plan: &TablePlan) -> Result<(), LoadError> {
    for link in plan.links() {
        let row = client
            .query_one(&merge_sql::unknown_member_exists(link), &[])
            .await
            .map_err(LoadError::query(format!("look for the unknown member of {}", link.table)))?;
        if !row.get::<_, bool>(0) {
            let (table, natural_key, member_key) = (&link.table, &link.natural_key, &link.member_key);
            let problem = format!(
                "warehouse.{table} lacks the unknown member: a row with {member_key} = 0 and {natural_key} = ''"
            );
            return Err(LoadError::Mismatch { connector: plan.connector.clone(), problem });
        }
    }
    Ok(())
}
