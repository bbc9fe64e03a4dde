//! What people say about members: proposals answered, members merged and parted again.
//!
//! # Contract
//! Each is one transaction. Facts are never rewritten: a member that turned out to be another keeps its key and says so in
//! `merged_into`, which parting takes back. A merged member is merged into one that is not, so that one step leads to
//! what stands; and one that others are merged into is not merged itself.
//!
//! # Ordering
//! The dimension's lock, as loaders take it, then the decision, then members.

use deadpool_postgres::{Object, Transaction};
use serde_json::Value;
use thiserror::Error;

use super::error::LoadError;
use super::locks::shard_lock;
use super::merge_sql::{quoted, table_name};

/// A proposal that waits for an answer.
#[derive(Debug, Clone, serde::Serialize)]
pub struct OpenProposal {
    pub dimension: String,
    pub spelling: String,
    /// The inferred member that rows point at meanwhile.
    pub natural_key: String,
    pub proposed_key: Option<String>,
    pub margin: Option<f32>,
    pub features: Option<Value>,
    pub candidates: Value,
    pub decided_at: chrono::DateTime<chrono::Utc>,
}

/// Why an answer was not taken. Nothing was changed.
#[derive(Debug, Error)]
pub enum AnswerError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("there is no decision about `{spelling}` in {dimension}")]
    NoDecision { dimension: String, spelling: String },
    #[error("`{spelling}` is answered already: {answer}")]
    Answered { spelling: String, answer: String },
    #[error("`{spelling}` has a known member and proposes nothing")]
    NothingProposed { spelling: String },
    #[error("{dimension} has no member `{natural_key}`")]
    NoMember { dimension: String, natural_key: String },
    #[error("`{natural_key}` is merged into `{into}` already")]
    Merged { natural_key: String, into: String },
    #[error("others are merged into `{natural_key}`: part them first")]
    HasMerged { natural_key: String },
    #[error("`{natural_key}` is not merged into any member")]
    NotMerged { natural_key: String },
    #[error("a member cannot be merged into itself")]
    Itself,
}

/// A dimension as its table is called and its columns are named.
#[derive(Debug, Clone)]
pub struct DimensionName {
    name: String,
    table: String,
    key: String,
    natural_key: String,
}

impl DimensionName {
    /// `None` where it is no name of a dimension.
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(is_plain) {
            return None;
        }
        let singular = name.strip_suffix('s').unwrap_or(name);
        Some(Self {
            name: name.to_owned(),
            table: format!("dim_{name}"),
            key: quoted(&format!("{singular}_key")),
            natural_key: quoted(&format!("{singular}_id")),
        })
    }
}

/// Proposals without an answer, oldest first.
pub async fn open_proposals(client: &Object, dimension: &str, count_max: i64) -> Result<Vec<OpenProposal>, LoadError> {
    let rows = client
        .query(include_str!("sql/select_open_proposals.sql"), &[&dimension, &count_max])
        .await
        .map_err(LoadError::query("read open proposals"))?;
    let proposal = |row: &tokio_postgres::Row| OpenProposal {
        dimension: row.get("dimension"),
        spelling: row.get("spelling"),
        natural_key: row.get("natural_key"),
        proposed_key: row.get("proposed_key"),
        margin: row.get("margin"),
        features: row.get("features"),
        candidates: row.get("candidates"),
        decided_at: row.get("decided_at"),
    };
    Ok(rows.iter().map(proposal).collect())
}

/// The member that rows of the spelling point at is merged into the proposed one, or into `member`, and the spelling
/// becomes an alias of it. Returns the natural key of that.
pub async fn accept(
    client: &mut Object,
    dimension: &DimensionName,
    spelling: &str,
    member: Option<&str>,
    by: &str,
) -> Result<String, AnswerError> {
    let transaction = begin(client, dimension).await?;
    let (natural_key, proposed) = answer(&transaction, dimension, spelling, "accepted", by).await?;
    let into = member.map(str::to_owned).or(proposed);
    let into = into.ok_or_else(|| AnswerError::NothingProposed { spelling: spelling.to_owned() })?;
    merge_members(&transaction, dimension, &natural_key, &into, &format!("`{spelling}` was accepted"), by).await?;
    let alias = "INSERT INTO warehouse.alias (dimension, spelling, natural_key, created_by) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (dimension, spelling) DO UPDATE SET natural_key = excluded.natural_key, created_by = excluded.created_by";
    transaction
        .execute(alias, &[&dimension.name, &spelling, &into, &by])
        .await
        .map_err(LoadError::query("write an alias"))?;
    transaction.commit().await.map_err(LoadError::Commit)?;
    Ok(into)
}

/// The spelling keeps a member of its own.
pub async fn reject(
    client: &mut Object,
    dimension: &DimensionName,
    spelling: &str,
    by: &str,
) -> Result<(), AnswerError> {
    let transaction = begin(client, dimension).await?;
    answer(&transaction, dimension, spelling, "rejected", by).await?;
    transaction.commit().await.map_err(LoadError::Commit)?;
    Ok(())
}

/// From now on the one member means the other.
pub async fn merge(
    client: &mut Object,
    dimension: &DimensionName,
    natural_key: &str,
    into: &str,
    reason: &str,
    by: &str,
) -> Result<(), AnswerError> {
    let transaction = begin(client, dimension).await?;
    merge_members(&transaction, dimension, natural_key, into, reason, by).await?;
    transaction.commit().await.map_err(LoadError::Commit)?;
    Ok(())
}

/// Takes a merge back. Returns the natural key of the member that it was merged into.
pub async fn unmerge(
    client: &mut Object,
    dimension: &DimensionName,
    natural_key: &str,
    by: &str,
) -> Result<String, AnswerError> {
    let transaction = begin(client, dimension).await?;
    let member = member(&transaction, dimension, natural_key).await?;
    let Some(into) = member.merged_into else {
        return Err(AnswerError::NotMerged { natural_key: natural_key.to_owned() });
    };
    point(&transaction, dimension, member.key, None).await?;
    let undo = "UPDATE warehouse.member_merge SET undone_by = $3, undone_at = clock_timestamp() \
                WHERE dimension = $1 AND member_key = $2 AND undone_at IS NULL";
    transaction
        .execute(undo, &[&dimension.name, &member.key, &by])
        .await
        .map_err(LoadError::query("note that members are parted"))?;
    transaction.commit().await.map_err(LoadError::Commit)?;
    Ok(into)
}

async fn begin<'a>(client: &'a mut Object, dimension: &DimensionName) -> Result<Transaction<'a>, LoadError> {
    let failed = || LoadError::query(format!("lock {}", dimension.table));
    let transaction = client.transaction().await.map_err(failed())?;
    let lock = shard_lock(&dimension.table, 0);
    let sql = "SELECT pg_advisory_xact_lock($1, $2)";
    transaction.query_one(sql, &[&lock.class, &lock.object]).await.map_err(failed())?;
    Ok(transaction)
}

/// Notes the answer. Returns the member of the decision and the proposed one.
async fn answer(
    transaction: &Transaction<'_>,
    dimension: &DimensionName,
    spelling: &str,
    answer: &str,
    by: &str,
) -> Result<(String, Option<String>), AnswerError> {
    let sql = "SELECT natural_key, proposed_key, verdict, answer FROM warehouse.resolution_decision \
               WHERE dimension = $1 AND spelling = $2 FOR UPDATE";
    let found = transaction
        .query_opt(sql, &[&dimension.name, &spelling])
        .await
        .map_err(LoadError::query("read a decision"))?
        .ok_or_else(|| AnswerError::NoDecision { dimension: dimension.name.clone(), spelling: spelling.to_owned() })?;
    if let Some(answer) = found.get::<_, Option<String>>("answer") {
        return Err(AnswerError::Answered { spelling: spelling.to_owned(), answer });
    }
    if !matches!(found.get::<_, &str>("verdict"), "review" | "new") {
        return Err(AnswerError::NothingProposed { spelling: spelling.to_owned() });
    }
    let update = "UPDATE warehouse.resolution_decision SET answer = $3, answered_by = $4, answered_at = clock_timestamp() \
                  WHERE dimension = $1 AND spelling = $2";
    transaction
        .execute(update, &[&dimension.name, &spelling, &answer, &by])
        .await
        .map_err(LoadError::query("answer a proposal"))?;
    Ok((found.get("natural_key"), found.get("proposed_key")))
}

async fn merge_members(
    transaction: &Transaction<'_>,
    dimension: &DimensionName,
    natural_key: &str,
    into: &str,
    reason: &str,
    by: &str,
) -> Result<(), AnswerError> {
    let (one, other) =
        (member(transaction, dimension, natural_key).await?, member(transaction, dimension, into).await?);
    if one.key == other.key {
        return Err(AnswerError::Itself);
    }
    for (merged, natural_key) in [(one.merged_into, natural_key), (other.merged_into, into)] {
        if let Some(into) = merged {
            return Err(AnswerError::Merged { natural_key: natural_key.to_owned(), into });
        }
    }
    if one.has_merged {
        return Err(AnswerError::HasMerged { natural_key: natural_key.to_owned() });
    }
    point(transaction, dimension, one.key, Some(other.key)).await?;
    let note = "INSERT INTO warehouse.member_merge (dimension, member_key, into_key, reason, merged_by) \
                VALUES ($1, $2, $3, $4, $5)";
    transaction
        .execute(note, &[&dimension.name, &one.key, &other.key, &reason, &by])
        .await
        .map_err(LoadError::query("note a merge"))?;
    Ok(())
}

struct Member {
    key: i64,
    /// Natural key.
    merged_into: Option<String>,
    has_merged: bool,
}

/// The unknown member is none that could be merged.
async fn member(
    transaction: &Transaction<'_>,
    dimension: &DimensionName,
    natural_key: &str,
) -> Result<Member, AnswerError> {
    let DimensionName { key, natural_key: column, .. } = dimension;
    let table = table_name(&dimension.table);
    let sql = format!(
        "SELECT m.{key}, i.{column}, EXISTS (SELECT FROM {table} o WHERE o.merged_into = m.{key}) \
         FROM {table} m LEFT JOIN {table} i ON i.{key} = m.merged_into WHERE m.{column} = $1 AND m.{key} <> 0"
    );
    let found = transaction
        .query_opt(&sql, &[&natural_key])
        .await
        .map_err(LoadError::query(format!("look for a member of {}", dimension.table)))?;
    let missing = || AnswerError::NoMember { dimension: dimension.name.clone(), natural_key: natural_key.to_owned() };
    let found = found.ok_or_else(missing)?;
    Ok(Member { key: found.get(0), merged_into: found.get(1), has_merged: found.get(2) })
}

async fn point(
    transaction: &Transaction<'_>,
    dimension: &DimensionName,
    member: i64,
    into: Option<i64>,
) -> Result<(), LoadError> {
    let sql = format!("UPDATE {} SET merged_into = $2 WHERE {} = $1", table_name(&dimension.table), dimension.key);
    transaction
        .execute(&sql, &[&member, &into])
        .await
        .map_err(LoadError::query(format!("point a member of {} at another", dimension.table)))?;
    Ok(())
}
